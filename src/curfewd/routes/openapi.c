/* SPDX-License-Identifier: MIT */
/* GET /openapi.json: what there is to ask for, for programs. */
#include "curfewd/openapi.h"
#include "curfewd/routes/routes.h"

/* For anybody to keep: it changes with a new version of the service, which nobody waits for. */
#define CACHE_CONTROL "public, max-age=300"

enum cf_code openapi_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    const struct app *app = cf_http_app(http);
    const struct openapi *openapi = app->openapi;
    int status = cf_http_has_etag(http, openapi->etag) ? 304 : 200;

    (void)ctx;
    (void)err;
    cf_http_reply_shared(http, status, "application/json", cf_value_data(openapi->plain),
                         cf_value_size(openapi->plain), openapi->plain);
    cf_http_reply_gzip(http, cf_value_data(openapi->gzip), cf_value_size(openapi->gzip),
                       openapi->gzip);
    cf_http_reply_header(http, "ETag", openapi->etag);
    cf_http_reply_header(http, "Cache-Control", CACHE_CONTROL);
    return CF_OK;
}
