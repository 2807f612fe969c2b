/* SPDX-License-Identifier: MIT */
/* The tables of routes: see routes.h. */
#include "curfewd/routes/routes.h"

#include <string.h>

/* Constants */

/* The demo's routes stand last: without it the tables end before them. */
#define DEMO_ROUTES 1

/* Stand first: what they are capped by is configured. */
#define EXPORT_ROUTE 0
#define UPLOAD_ROUTE 1

/* What they answer with. The export asks Accept itself, unless it was told ?format=; and whether
 * the process lives is told to whoever asks. */
#define JSON "application/json"
#define NDJSON "application/x-ndjson"
#define PICTURE "image/jpeg, image/png"

static const struct cf_http_route api[] = {
    [EXPORT_ROUTE] = {"GET", "/v1/orders/export", export_get},
    [UPLOAD_ROUTE] = {"POST", "/v1/images", images_post, 0, JSON},
    {"GET", "/v1/dashboard", dashboard_get, 0, JSON},
    {"GET", "/v1/users/{id}", user_get, 0, JSON},
    {"GET", "/v1/users", users_get, 0, JSON},
    {"GET", "/v1/orders", orders_get, 0, JSON},
    {"GET", "/v1/orders/{id}", order_get, 0, JSON},
    {"POST", "/v1/orders", orders_post, 0, JSON},
    {"GET", "/v1/metrics", metrics_get, 0, JSON},
    {"PATCH", "/v1/orders/{id}", order_patch, 0, JSON},
    {"POST", "/v1/fetch", fetch_post, 0, NDJSON},
    {"GET", "/v1/images/{id}", image_get, 0, JSON},
    {"POST", "/v1/thumbnails", thumbnails_post, 0, JSON},
    {"GET", "/v1/thumbnails/{id}", thumbnail_get, 0, PICTURE},
    {"GET", "/livez", livez_get},
    {"GET", "/readyz", readyz_get},
    {"GET", "/version", version_get, 0, JSON},
    {"GET", "/openapi.json", openapi_get, 0, JSON},
    {"GET", "/v1/sleep", sleep_get, 0, JSON},
};

static const struct cf_http_route admin[] = {
    {"GET", "/livez", livez_get},
    {"GET", "/readyz", readyz_get},
    {"GET", "/version", version_get, 0, JSON},
    {"GET", "/v1/sleep", sleep_get, 0, JSON},
};

#define LENGTH(table) (sizeof(table) / sizeof((table)[0]))

_Static_assert(LENGTH(api) <= ROUTES_MAX, "routes.h has room for every route");
_Static_assert(LENGTH(admin) <= ROUTES_MAX, "routes.h has room for every route");

/* Internal helpers */

static size_t copy(const struct cf_http_route *table, size_t n_routes, bool demo,
                   struct cf_http_route out[ROUTES_MAX])
{
    n_routes -= demo ? 0 : DEMO_ROUTES;
    memcpy(out, table, n_routes * sizeof(*table));
    return n_routes;
}

/* Operations */

size_t routes_api(const struct routes_options *options, struct cf_http_route out[ROUTES_MAX])
{
    size_t n_routes = copy(api, LENGTH(api), options->demo, out);

    out[EXPORT_ROUTE].timeout_max_ns = options->export_timeout_ns;
    out[UPLOAD_ROUTE].body_size_max = options->image_size_max;
    return n_routes;
}

size_t routes_admin(const struct routes_options *options, struct cf_http_route out[ROUTES_MAX])
{
    return copy(admin, LENGTH(admin), options->demo, out);
}
