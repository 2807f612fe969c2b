/* SPDX-License-Identifier: MIT */
/* GET /livez, /readyz and /version: for whoever decides whether to send requests here.
 *
 * /livez asks whether the process turns, and touches nothing else: a database that is away is no
 * reason to restart this process. /readyz asks whether a request would be served now. */
#include <curfew/pg.h>

#include "curfewd/members.h"
#include "curfewd/routes/routes.h"
#include "curfewd/versions.h"

/* Internal helpers */

static void reply_status(struct cf_http *http, int status, const char *word, const char *why)
{
    struct cf_json *json = cf_http_reply_json(http, status);

    cf_http_reply_header(http, "Cache-Control", "no-store");
    cf_json_object(json);
    member_str(json, "status", word);
    if (why != NULL) {
        member_str(json, "reason", why);
    }
    cf_json_end(json);
}

/* Handlers */

enum cf_code livez_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    (void)ctx;
    (void)err;
    reply_status(http, 200, "alive", NULL);
    return CF_OK;
}

enum cf_code readyz_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct app *app = cf_http_app(http);
    struct cf_err why;

    (void)ctx;
    (void)err;
    if (atomic_load(&app->draining)) {
        reply_status(http, 503, "draining", "the process is stopping");
    } else if (cf_pg_ready(app->pg, &why) != CF_OK) {
        cf_http_retry_after(http, cf_pg_retry_ns(app->pg));
        reply_status(http, 503, "unavailable", why.msg);
    } else {
        reply_status(http, 200, "ready", NULL);
    }
    return CF_OK;
}

enum cf_code version_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct cf_json *json = cf_http_reply_json(http, 200);
    struct version list[VERSIONS_MAX];
    size_t count = versions(list);

    (void)ctx;
    (void)err;
    cf_json_object(json);
    for (size_t i = 0; i < count; i++) {
        member_str(json, list[i].name, list[i].version);
    }
    cf_json_end(json);
    return CF_OK;
}
