/* SPDX-License-Identifier: MIT */
/* GET /v1/orders?user_id=&status=&limit=&after=: newest first. */
#include "curfewd/routes/page.h"
#include "curfewd/routes/routes.h"
#include "curfewd/store/store.h"

enum cf_code orders_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct store_orders_query query;
    struct cf_pg_rows *rows;
    struct page page;
    enum cf_code code = page_read(http, &page, err);

    if (code == CF_OK) {
        code = cf_http_query_i64(http, "user_id", 1, INT64_MAX, 0, &query.user_id, err);
    }
    if (code == CF_OK) {
        code = route_status(http, &query.status, err);
    }
    if (code != CF_OK) {
        return code;
    }
    query.after = page.after;
    query.limit = page.limit + 1;
    code = store_orders(ctx, route_pg(http), &query, &rows, err);
    if (code != CF_OK) {
        return code;
    }
    page_keep_i64(&page, "user_id", query.user_id);
    page_keep(&page, "status", query.status);
    page_write(http, &page, rows, store_write_order);
    cf_pg_rows_free(rows);
    return CF_OK;
}
