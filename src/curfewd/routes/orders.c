/* SPDX-License-Identifier: MIT */
/* GET /v1/orders?user_id=&limit=&after=: newest first. */
#include "curfewd/routes/page.h"
#include "curfewd/routes/routes.h"
#include "curfewd/store/store.h"

static enum cf_code fetch(struct cf_ctx *ctx, struct cf_pg *pg, int64_t user_id,
                          const struct page *page, struct cf_pg_rows **out, struct cf_err *err)
{
    int64_t limit = page->limit + 1;

    if (user_id != 0 && page->after != 0) {
        return store_orders_of_user_after(ctx, pg, user_id, page->after, limit, out, err);
    }
    if (user_id != 0) {
        return store_orders_of_user(ctx, pg, user_id, limit, out, err);
    }
    if (page->after != 0) {
        return store_orders_after(ctx, pg, page->after, limit, out, err);
    }
    return store_newest_orders(ctx, pg, limit, out, err);
}

enum cf_code orders_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct cf_pg_rows *rows;
    enum cf_code code;
    struct page page;
    int64_t user_id;

    code = cf_http_query_i64(http, "user_id", 1, INT64_MAX, 0, &user_id, err);
    if (code != CF_OK) {
        return code;
    }
    code = page_read(http, &page, err);
    if (code != CF_OK) {
        return code;
    }
    code = fetch(ctx, route_pg(http), user_id, &page, &rows, err);
    if (code != CF_OK) {
        return code;
    }
    page_write(http, &page, rows, store_write_order);
    cf_pg_rows_free(rows);
    return CF_OK;
}
