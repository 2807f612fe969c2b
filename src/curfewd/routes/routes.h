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

/* Give the tables what is configured: once, before they are handed out. */
void routes_configure(int64_t export_timeout_ns);

/* The tables. `demo` adds the routes that show cancellation at work. */
const struct cf_http_route *routes_api(bool demo, size_t *out_count);
const struct cf_http_route *routes_admin(bool demo, size_t *out_count);

/* Handlers. */
enum cf_code dashboard_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code user_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code users_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code orders_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code export_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code metrics_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code sleep_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code livez_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code readyz_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);
enum cf_code version_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);

static inline struct cf_pg *route_pg(const struct cf_http *http)
{
    const struct app *app = cf_http_app(http);

    return app->pg;
}

#endif
