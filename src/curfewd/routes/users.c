/* SPDX-License-Identifier: MIT */
/* GET /v1/users/{id} and GET /v1/users?limit=&after=. */
#include "curfewd/routes/paging.h"
#include "curfewd/routes/routes.h"
#include "curfewd/store/store.h"

enum cf_code user_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct cf_pg_rows *rows;
    enum cf_code code;
    int64_t id;

    code = cf_http_param_i64(http, "id", 1, INT64_MAX, &id, err);
    if (code != CF_OK) {
        return code;
    }
    code = store_user(ctx, route_pg(http), id, &rows, err);
    if (code != CF_OK) {
        return code;
    }
    store_write_user(cf_http_reply_json(http, 200), rows, 0);
    cf_pg_rows_free(rows);
    return CF_OK;
}

enum cf_code users_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct cf_pg_rows *rows;
    enum cf_code code;
    struct paging paging;

    code = paging_read(http, &paging, err);
    if (code != CF_OK) {
        return code;
    }
    code = store_users(ctx, route_pg(http), paging.after, paging.limit + 1, &rows, err);
    if (code != CF_OK) {
        return code;
    }
    paging_write(http, &paging, rows, store_write_user);
    cf_pg_rows_free(rows);
    return CF_OK;
}
