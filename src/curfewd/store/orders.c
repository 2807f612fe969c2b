/* SPDX-License-Identifier: MIT */
/* Orders: see store.h.
 *
 * A page goes on behind an order by the place of that order in the sequence (created_at, id), so
 * that orders of the same instant are neither skipped nor repeated. */
#include "curfewd/store/store.h"

#include <inttypes.h>

enum {
    ORDER_ID,
    ORDER_USER_ID,
    ORDER_STATUS,
    ORDER_TOTAL_CENTS,
    ORDER_CREATED_AT,
    ORDER_VERSION /* Of one order only. */
};

#define ORDER_COLUMNS "id, user_id, status, total_cents, created_at"
#define ORDER_TYPES "iitiz"
#define NEWEST_FIRST " ORDER BY created_at DESC, id DESC LIMIT "

static const struct cf_pg_stmt find_order = {
    .name = "find_order",
    .sql = "SELECT " STORE_ORDER_COLUMNS " FROM orders WHERE id = $1",
    .columns = STORE_ORDER_TYPES,
};

static const struct cf_pg_stmt newest_orders = {
    .name = "newest_orders",
    .sql = "SELECT " ORDER_COLUMNS " FROM orders" NEWEST_FIRST "$1",
    .columns = ORDER_TYPES,
};

static const struct cf_pg_stmt orders_after = {
    .name = "orders_after",
    .sql = "SELECT " ORDER_COLUMNS " FROM orders WHERE (created_at, id) <"
           " (SELECT created_at, id FROM orders WHERE id = $1)" NEWEST_FIRST "$2",
    .columns = ORDER_TYPES,
};

static const struct cf_pg_stmt orders_of_user = {
    .name = "orders_of_user",
    .sql = "SELECT " ORDER_COLUMNS " FROM orders WHERE user_id = $1" NEWEST_FIRST "$2",
    .columns = ORDER_TYPES,
};

static const struct cf_pg_stmt orders_of_user_after = {
    .name = "orders_of_user_after",
    .sql = "SELECT " ORDER_COLUMNS " FROM orders WHERE user_id = $1 AND (created_at, id) <"
           " (SELECT created_at, id FROM orders WHERE id = $2 AND user_id = $1)" NEWEST_FIRST "$3",
    .columns = ORDER_TYPES,
};

enum cf_code store_order(struct cf_ctx *ctx, struct cf_pg *pg, int64_t id, struct cf_pg_rows **out,
                         struct cf_err *err)
{
    struct cf_pg_param params[] = {cf_pg_i64(id)};
    struct cf_pg_rows *rows;
    enum cf_code code;

    code = cf_pg_query(ctx, pg, &find_order, params, 1, &rows, err);
    if (code != CF_OK) {
        return cf_err_wrap(err, code, "order %" PRId64, id);
    }
    if (cf_pg_rows_count(rows) == 0) {
        cf_pg_rows_free(rows);
        return cf_err_set(err, CF_ENOTFOUND, "there is no order %" PRId64, id);
    }
    *out = rows;
    return CF_OK;
}

int64_t store_order_id(const struct cf_pg_rows *rows)
{
    return cf_pg_get_i64(rows, 0, ORDER_ID);
}

int64_t store_order_user_id(const struct cf_pg_rows *rows)
{
    return cf_pg_get_i64(rows, 0, ORDER_USER_ID);
}

int64_t store_order_version(const struct cf_pg_rows *rows)
{
    return cf_pg_get_i64(rows, 0, ORDER_VERSION);
}

enum cf_code store_newest_orders(struct cf_ctx *ctx, struct cf_pg *pg, int64_t limit,
                                 struct cf_pg_rows **out, struct cf_err *err)
{
    struct cf_pg_param params[] = {cf_pg_i64(limit)};
    enum cf_code code = cf_pg_query(ctx, pg, &newest_orders, params, 1, out, err);

    return code == CF_OK ? CF_OK : cf_err_wrap(err, code, "newest orders");
}

enum cf_code store_orders_after(struct cf_ctx *ctx, struct cf_pg *pg, int64_t after, int64_t limit,
                                struct cf_pg_rows **out, struct cf_err *err)
{
    struct cf_pg_param params[] = {cf_pg_i64(after), cf_pg_i64(limit)};
    enum cf_code code = cf_pg_query(ctx, pg, &orders_after, params, 2, out, err);

    return code == CF_OK ? CF_OK : cf_err_wrap(err, code, "orders after %" PRId64, after);
}

enum cf_code store_orders_of_user(struct cf_ctx *ctx, struct cf_pg *pg, int64_t user_id,
                                  int64_t limit, struct cf_pg_rows **out, struct cf_err *err)
{
    struct cf_pg_param params[] = {cf_pg_i64(user_id), cf_pg_i64(limit)};
    enum cf_code code = cf_pg_query(ctx, pg, &orders_of_user, params, 2, out, err);

    return code == CF_OK ? CF_OK : cf_err_wrap(err, code, "orders of user %" PRId64, user_id);
}

enum cf_code store_orders_of_user_after(struct cf_ctx *ctx, struct cf_pg *pg, int64_t user_id,
                                        int64_t after, int64_t limit, struct cf_pg_rows **out,
                                        struct cf_err *err)
{
    struct cf_pg_param params[] = {cf_pg_i64(user_id), cf_pg_i64(after), cf_pg_i64(limit)};
    enum cf_code code = cf_pg_query(ctx, pg, &orders_of_user_after, params, 3, out, err);

    return code == CF_OK ? CF_OK : cf_err_wrap(err, code, "orders of user %" PRId64, user_id);
}

void store_write_order(struct cf_json *json, const struct cf_pg_rows *rows, size_t row)
{
    cf_json_object(json);
    cf_json_key(json, "id");
    cf_json_i64(json, cf_pg_get_i64(rows, row, ORDER_ID));
    cf_json_key(json, "user_id");
    cf_json_i64(json, cf_pg_get_i64(rows, row, ORDER_USER_ID));
    cf_json_key(json, "status");
    cf_json_str(json, cf_pg_get_text(rows, row, ORDER_STATUS));
    cf_json_key(json, "total_cents");
    cf_json_i64(json, cf_pg_get_i64(rows, row, ORDER_TOTAL_CENTS));
    cf_json_key(json, "created_at");
    cf_json_time_us(json, cf_pg_get_time_us(rows, row, ORDER_CREATED_AT));
    cf_json_end(json);
}
