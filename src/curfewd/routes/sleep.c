/* SPDX-License-Identifier: MIT */
/* GET /v1/sleep?seconds=: keeps a backend busy, to watch how that ends. With CURFEW_DEMO=1 only. */
#include "curfewd/routes/routes.h"
#include "curfewd/store/store.h"

enum cf_code sleep_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct cf_json *json;
    enum cf_code code;
    double seconds;

    code = cf_http_query_f64(http, "seconds", 0, SLEEP_SECONDS_MAX, 1, &seconds, err);
    if (code != CF_OK) {
        return code;
    }
    code = store_sleep(ctx, route_pg(http), seconds, err);
    if (code != CF_OK) {
        return code;
    }
    json = cf_http_reply_json(http, 200);
    cf_json_object(json);
    cf_json_key(json, "slept_seconds");
    cf_json_f64(json, seconds, 3);
    cf_json_end(json);
    return CF_OK;
}
