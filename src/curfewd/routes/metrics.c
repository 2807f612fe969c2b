/* SPDX-License-Identifier: MIT */
/* GET /v1/metrics: the figures of the whole store. */
#include "curfewd/routes/routes.h"
#include "curfewd/store/store.h"

enum cf_code metrics_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct cf_pg_rows *rows;
    enum cf_code code = store_metrics(ctx, route_pg(http), &rows, err);

    if (code != CF_OK) {
        return code;
    }
    store_write_metrics(cf_http_reply_json(http, 200), rows);
    cf_pg_rows_free(rows);
    return CF_OK;
}
