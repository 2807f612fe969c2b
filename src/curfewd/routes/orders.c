/* SPDX-License-Identifier: MIT */
/* GET /v1/orders?user_id=&status=&limit=&after=: newest first. */
#include "curfewd/routes/paging.h"
#include "curfewd/routes/routes.h"
#include "curfewd/store/store.h"

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
    paging_keep_i64(&paging, "user_id", query.user_id);
    paging_keep(&paging, "status", query.status);
    paging_write(http, &paging, rows, store_write_order);
    cf_pg_rows_free(rows);
    return CF_OK;
}
