/* SPDX-License-Identifier: MIT */
/* GET /v1/dashboard: three queries at once, and the first failure ends the others.
 *
 * Without an argument the newest users and orders and the figures of the whole store; with
 * ?user_id= one user, its newest orders and its figures. */
#include <curfew/clock.h>
#include <curfew/group.h>

#include "curfewd/routes/routes.h"
#include "curfewd/store/store.h"

#define NEWEST 10

/* What the sections fetch: each fills its own field. */
struct dashboard {
    struct cf_http *http;
    struct cf_pg *pg;
    int64_t user_id; /* 0: of the whole store. */
    struct cf_pg_rows *users;
    struct cf_pg_rows *orders;
    struct cf_pg_rows *metrics;
};

/* The sections */

static enum cf_code fetch_users(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct dashboard *d = arg;
    int64_t since_ns = cf_now_ns();
    enum cf_code code;

    code = d->user_id != 0 ? store_user(ctx, d->pg, d->user_id, &d->users, err)
                           : store_newest_users(ctx, d->pg, NEWEST, &d->users, err);
    cf_http_timing(d->http, "users", cf_now_ns() - since_ns);
    return code;
}

static enum cf_code fetch_orders(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct dashboard *d = arg;
    int64_t since_ns = cf_now_ns();
    enum cf_code code;

    code = d->user_id != 0 ? store_orders_of_user(ctx, d->pg, d->user_id, NEWEST, &d->orders, err)
                           : store_newest_orders(ctx, d->pg, NEWEST, &d->orders, err);
    cf_http_timing(d->http, "orders", cf_now_ns() - since_ns);
    return code;
}

static enum cf_code fetch_metrics(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct dashboard *d = arg;
    int64_t since_ns = cf_now_ns();
    enum cf_code code;

    code = d->user_id != 0 ? store_user_metrics(ctx, d->pg, d->user_id, &d->metrics, err)
                           : store_metrics(ctx, d->pg, &d->metrics, err);
    cf_http_timing(d->http, "metrics", cf_now_ns() - since_ns);
    return code;
}

static enum cf_code fetch(struct cf_ctx *ctx, struct dashboard *d, struct cf_err *err)
{
    struct cf_group *group;
    enum cf_code code = cf_group_new(ctx, &group, err);

    if (code != CF_OK) {
        return code;
    }
    cf_group_go(group, fetch_users, d);
    cf_group_go(group, fetch_orders, d);
    cf_group_go(group, fetch_metrics, d);
    code = cf_group_wait(group, err);
    cf_group_free(group);
    return code;
}

/* The page */

static void write_dashboard(struct cf_json *json, const struct dashboard *d)
{
    cf_json_object(json);
    if (d->user_id != 0) {
        cf_json_key(json, "user");
        store_write_user(json, d->users, 0);
    } else {
        cf_json_key(json, "users");
        store_write_rows(json, d->users, store_write_user);
    }
    cf_json_key(json, "orders");
    store_write_rows(json, d->orders, store_write_order);
    cf_json_key(json, "metrics");
    if (d->user_id != 0) {
        store_write_user_metrics(json, d->metrics);
    } else {
        store_write_metrics(json, d->metrics);
    }
    cf_json_end(json);
}

enum cf_code dashboard_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct dashboard d = {.http = http, .pg = route_pg(http)};
    enum cf_code code;

    code = cf_http_query_i64(http, "user_id", 1, INT64_MAX, 0, &d.user_id, err);
    if (code != CF_OK) {
        return code;
    }
    code = fetch(ctx, &d, err);
    if (code == CF_OK) {
        write_dashboard(cf_http_reply_json(http, 200), &d);
    }
    cf_pg_rows_free(d.users);
    cf_pg_rows_free(d.orders);
    cf_pg_rows_free(d.metrics);
    return code;
}
