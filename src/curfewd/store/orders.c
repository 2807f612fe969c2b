/* SPDX-License-Identifier: MIT */
/* Orders: see store.h.
 *
 * A page goes on behind an order by the place of that order in the sequence (created_at, id), so
 * that orders of the same instant are neither skipped nor repeated. */
#include "curfewd/store/store.h"

#include "curfewd/store/order_row.h"
#include "curfewd/store/outcome.h"

static const struct cf_pg_stmt find_order = {
    .name = "find_order",
    .sql = "SELECT " STORE_ORDER_VERSION_COLUMNS " FROM orders WHERE id = $1",
    .columns = STORE_ORDER_VERSION_TYPES,
};

/* A list for each combination of what is asked, with just the parameters that it has, in the order
 * of struct store_orders_query: so that each is planned for the index that serves it. */
enum {
    OF_USER = 1,
    OF_STATUS = 2,
    AFTER = 4,
    LISTS = 8
};

#define PARAMS_MAX 4

#define LIST(name_, where, limit)                                                                  \
    {                                                                                              \
        .name = (name_),                                                                           \
        .sql = "SELECT " STORE_ORDER_COLUMNS " FROM orders " where                                 \
               " ORDER BY created_at DESC, id DESC LIMIT " limit,                                  \
        .columns = STORE_ORDER_TYPES,                                                              \
    }
#define OLDER_THAN(order)                                                                          \
    " (created_at, id) < (SELECT created_at, id FROM orders WHERE id = " order ")"

static const struct cf_pg_stmt lists[LISTS] = {
    [0] = LIST("newest_orders", "", "$1"),
    [OF_USER] = LIST("orders_of_user", "WHERE user_id = $1", "$2"),
    [OF_STATUS] = LIST("orders_of_status", "WHERE status = $1", "$2"),
    [OF_USER | OF_STATUS] =
        LIST("orders_of_user_status", "WHERE user_id = $1 AND status = $2", "$3"),
    [AFTER] = LIST("orders_after", "WHERE" OLDER_THAN("$1"), "$2"),
    [OF_USER | AFTER] = LIST("orders_of_user_after",
                             "WHERE user_id = $1 AND" OLDER_THAN("$2 AND user_id = $1"), "$3"),
    [OF_STATUS | AFTER] =
        LIST("orders_of_status_after", "WHERE status = $1 AND" OLDER_THAN("$2"), "$3"),
    [OF_USER | OF_STATUS | AFTER] =
        LIST("orders_of_user_status_after",
             "WHERE user_id = $1 AND status = $2 AND" OLDER_THAN("$3 AND user_id = $1"), "$4"),
};

enum cf_code store_order(struct cf_ctx *ctx, struct cf_pg *pg, int64_t id, struct cf_pg_rows **out,
                         struct cf_err *err)
{
    struct cf_pg_param params[] = {cf_pg_i64(id)};
    struct cf_pg_rows *rows = NULL;
    enum cf_code code = cf_pg_query(ctx, pg, &find_order, params, 1, &rows, err);

    return store_one(code, rows, "order", id, out, err);
}

int64_t store_order_id(const struct cf_pg_rows *rows)
{
    return cf_pg_get_i64(rows, 0, STORE_ORDER_ID);
}

int64_t store_order_user_id(const struct cf_pg_rows *rows)
{
    return cf_pg_get_i64(rows, 0, STORE_ORDER_USER_ID);
}

int64_t store_order_version(const struct cf_pg_rows *rows)
{
    return cf_pg_get_i64(rows, 0, STORE_ORDER_VERSION);
}

enum cf_code store_orders(struct cf_ctx *ctx, struct cf_pg *pg,
                          const struct store_orders_query *query, struct cf_pg_rows **out,
                          struct cf_err *err)
{
    struct cf_pg_param params[PARAMS_MAX];
    unsigned list = 0;
    size_t n = 0;
    enum cf_code code;

    if (query->user_id != 0) {
        list |= OF_USER;
        params[n++] = cf_pg_i64(query->user_id);
    }
    if (query->status != NULL) {
        list |= OF_STATUS;
        params[n++] = cf_pg_str(query->status);
    }
    if (query->after != 0) {
        list |= AFTER;
        params[n++] = cf_pg_i64(query->after);
    }
    params[n++] = cf_pg_i64(query->limit);
    code = cf_pg_query(ctx, pg, &lists[list], params, n, out, err);
    return code == CF_OK ? CF_OK : cf_err_wrap(err, code, "%s", lists[list].name);
}

void store_write_order(struct cf_json *json, const struct cf_pg_rows *rows, size_t row)
{
    struct store_order_row order = store_read_order_row(rows, row);

    store_write_order_row(json, &order);
}
