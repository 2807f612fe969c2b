/* SPDX-License-Identifier: MIT */
/* The service's HTTP interface: which handler answers which route. DESIGN of each in its file. */
#ifndef CURFEWD_ROUTES_ROUTES_H
#define CURFEWD_ROUTES_ROUTES_H

#include <curfew/http.h>

#include "curfewd/app.h"

/* Rows of a page: at least, at most, and when nothing is said. */
#define PAGE_MIN 1
#define PAGE_MAX 200
#define PAGE_DEFAULT 20

/* Characters of an Idempotency-Key: the schema's bound. */
#define ORDER_KEY_SIZE_MAX 255

#define SLEEP_SECONDS_MAX 3600.0

/* What the fetcher (app.h) is made with: redirects that it follows, bytes of an answer, connections
 * of a loop, and the time for one URL. */
#define FETCH_REDIRECTS_MAX 5
#define FETCH_ANSWER_SIZE_MAX ((size_t)1024 * 1024)
#define FETCH_CONNECTIONS_MAX 64
#define FETCH_URL_TIMEOUT_NS (10 * CF_SECOND)

/* Of one request: URLs, bytes of one, and how many at once and a second. */
#define FETCH_URLS_MAX 1000
#define FETCH_URL_SIZE_MAX 4096
#define FETCH_CONCURRENCY_MAX 32
#define FETCH_CONCURRENCY_DEFAULT 10
#define FETCH_RPS_MIN 0.1
#define FETCH_RPS_MAX 1000
#define FETCH_RPS_DEFAULT 50

/* Thumbnails of one request, and how wide they are when nothing is said. */
#define THUMBNAILS_MAX 100
#define THUMBNAIL_WIDTH_DEFAULT 320

/* What of the tables is configured. */
struct routes_options {
    bool demo;                 /* Also the routes that show cancellation at work. */
    int64_t export_timeout_ns; /* The cap of an export. 0: the server's, as of the next. */
    size_t image_size_max;     /* Bytes of an image that is uploaded. */
};

/* Room for either table. */
#define ROUTES_MAX 32

/* Fill in a table. Returns how many routes it has. */
size_t routes_api(const struct routes_options *options, struct cf_http_route out[ROUTES_MAX]);
size_t routes_admin(const struct routes_options *options, struct cf_http_route out[ROUTES_MAX]);

/* Handlers. */
enum cf_code dashboard_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code user_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code users_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code orders_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code orders_post(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code order_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code order_patch(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code export_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code metrics_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code fetch_post(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code images_post(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code image_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code thumbnails_post(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code thumbnail_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code sleep_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code livez_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code readyz_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code openapi_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code version_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);

/* The status that ?status= says, or NULL if it is not there. Fails with CF_EINVAL. */
CF_MUST enum cf_code route_status(const struct cf_http *http, const char **out, struct cf_err *err);

static inline struct cf_pg *route_pg(const struct cf_http *http)
{
    const struct app *app = cf_http_app(http);

    return app->pg;
}

#endif
