/* SPDX-License-Identifier: MIT */
/* The sections of dashboards: see store.h. */
#include "curfewd/store/store.h"

#define NEWEST 10

static enum cf_code write_users(struct cf_ctx *ctx, struct cf_pg *pg, int64_t user_id,
                                struct cf_json *json, struct cf_err *err)
{
    struct cf_pg_rows *rows;
    enum cf_code code = user_id != 0 ? store_user(ctx, pg, user_id, &rows, err)
                                     : store_newest_users(ctx, pg, NEWEST, &rows, err);

    if (code != CF_OK) {
        return code;
    }
    if (user_id != 0) {
        store_write_user(json, rows, 0);
    } else {
        store_write_rows(json, rows, store_write_user);
    }
    cf_pg_rows_free(rows);
    return CF_OK;
}

static enum cf_code write_orders(struct cf_ctx *ctx, struct cf_pg *pg, int64_t user_id,
                                 struct cf_json *json, struct cf_err *err)
{
    struct cf_pg_rows *rows;
    struct store_orders_query query = {.user_id = user_id, .limit = NEWEST};
    enum cf_code code = store_orders(ctx, pg, &query, &rows, err);

    if (code != CF_OK) {
        return code;
    }
    store_write_rows(json, rows, store_write_order);
    cf_pg_rows_free(rows);
    return CF_OK;
}

static enum cf_code write_metrics(struct cf_ctx *ctx, struct cf_pg *pg, int64_t user_id,
                                  struct cf_json *json, struct cf_err *err)
{
    struct cf_pg_rows *rows;
    enum cf_code code = user_id != 0 ? store_user_metrics(ctx, pg, user_id, &rows, err)
                                     : store_metrics(ctx, pg, &rows, err);

    if (code != CF_OK) {
        return code;
    }
    if (user_id != 0) {
        store_write_user_metrics(json, rows);
    } else {
        store_write_metrics(json, rows);
    }
    cf_pg_rows_free(rows);
    return CF_OK;
}

enum cf_code store_section(struct cf_ctx *ctx, void *pg, int64_t user_id,
                           enum dashboard_section section, struct cf_json *json, struct cf_err *err)
{
    switch (section) {
    case DASHBOARD_USERS:
        return write_users(ctx, pg, user_id, json, err);
    case DASHBOARD_ORDERS:
        return write_orders(ctx, pg, user_id, json, err);
    case DASHBOARD_METRICS:
        return write_metrics(ctx, pg, user_id, json, err);
    case DASHBOARD_SECTION_COUNT:
        break;
    }
    return cf_err_set(err, CF_EINTERNAL, "a section that is none");
}
