/* SPDX-License-Identifier: MIT */
/* GET /v1/orders?user_id=&status=&limit=&after=: newest first. */
#include <inttypes.h>

#include "curfewd/routes/paging.h"
#include "curfewd/routes/routes.h"
#include "curfewd/store/store.h"

/* Nothing came behind `after`. The end of the list, or is it no order to continue behind, so that
 * who asks would take the rest of the list for read? */
static enum cf_code check_cursor(struct cf_ctx *ctx, struct cf_http *http,
                                 const struct store_orders_query *query, struct cf_err *err)
{
    struct cf_pg_rows *order;
    enum cf_code code = store_order(ctx, route_pg(http), query->after, &order, err);
    int64_t user_id;

    if (code == CF_ENOTFOUND) {
        return cf_err_set(err, CF_EINVAL, "after: there is no order %" PRId64, query->after);
    }
    if (code != CF_OK) {
        return code;
    }
    user_id = store_order_user_id(order);
    cf_pg_rows_free(order);
    if (query->user_id != 0 && query->user_id != user_id) {
        return cf_err_set(err, CF_EINVAL, "after: order %" PRId64 " is not of user %" PRId64,
                          query->after, query->user_id);
    }
    return CF_OK;
}

enum cf_code orders_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct store_orders_query query;
    struct cf_pg_rows *rows;
    struct paging paging;
    enum cf_code code = paging_read(http, &paging, err);

    if (code == CF_OK) {
        code = cf_http_query_i64(http, "user_id", 1, INT64_MAX, 0, &query.user_id, err);
    }
    if (code == CF_OK) {
        code = route_status(http, &query.status, err);
    }
    if (code != CF_OK) {
        return code;
    }
    query.after = paging.after;
    query.limit = paging.limit + 1;
    code = store_orders(ctx, route_pg(http), &query, &rows, err);
    if (code != CF_OK) {
        return code;
    }
    if (query.after != 0 && cf_pg_rows_count(rows) == 0) {
        code = check_cursor(ctx, http, &query, err);
        if (code != CF_OK) {
            cf_pg_rows_free(rows);
            return code;
        }
    }
    paging_keep_i64(&paging, "user_id", query.user_id);
    paging_keep(&paging, "status", query.status);
    paging_write(http, &paging, rows, store_write_order);
    cf_pg_rows_free(rows);
    return CF_OK;
}
