/* SPDX-License-Identifier: MIT */
/* Figures: see store.h. */
#include "curfewd/store/store.h"

#include <inttypes.h>

#include "curfewd/members.h"

/* One row a status, and a last one without, which holds the number of users: it is there even when
 * there are no orders. */
enum {
    METRICS_STATUS,
    METRICS_ORDERS,
    METRICS_CENTS,
    METRICS_USERS
};

static const struct cf_pg_stmt metrics = {
    .name = "metrics",
    .sql = "SELECT status, count(*), sum(total_cents)::bigint, NULL::bigint"
           " FROM orders GROUP BY status"
           " UNION ALL SELECT NULL, 0, 0, count(*) FROM users"
           " ORDER BY 1 NULLS LAST",
    .columns = "tiii",
};

enum {
    USER_METRICS_ORDERS,
    USER_METRICS_CENTS
};

static const struct cf_pg_stmt user_metrics = {
    .name = "user_metrics",
    .sql = "SELECT count(*), coalesce(sum(total_cents), 0)::bigint FROM orders WHERE user_id = $1",
    .columns = "ii",
};

enum cf_code store_metrics(struct cf_ctx *ctx, struct cf_pg *pg, struct cf_pg_rows **out,
                           struct cf_err *err)
{
    enum cf_code code = cf_pg_query(ctx, pg, &metrics, NULL, 0, out, err);

    return code == CF_OK ? CF_OK : cf_err_wrap(err, code, "metrics");
}

void store_write_metrics(struct cf_json *json, const struct cf_pg_rows *rows)
{
    size_t last = cf_pg_rows_count(rows) - 1;
    int64_t orders = 0;
    int64_t cents = 0;

    for (size_t row = 0; row < last; row++) {
        orders += cf_pg_get_i64(rows, row, METRICS_ORDERS);
        cents += cf_pg_get_i64(rows, row, METRICS_CENTS);
    }
    cf_json_object(json);
    member_i64(json, "user_count", cf_pg_get_i64(rows, last, METRICS_USERS));
    member_i64(json, "order_count", orders);
    member_i64(json, "total_cents", cents);
    cf_json_key(json, "by_status");
    cf_json_object(json);
    for (size_t row = 0; row < last; row++) {
        member_i64(json, cf_pg_get_text(rows, row, METRICS_STATUS),
                   cf_pg_get_i64(rows, row, METRICS_ORDERS));
    }
    cf_json_end(json);
    cf_json_end(json);
}

enum cf_code store_user_metrics(struct cf_ctx *ctx, struct cf_pg *pg, int64_t user_id,
                                struct cf_pg_rows **out, struct cf_err *err)
{
    struct cf_pg_param params[] = {cf_pg_i64(user_id)};
    enum cf_code code = cf_pg_query(ctx, pg, &user_metrics, params, 1, out, err);

    return code == CF_OK ? CF_OK : cf_err_wrap(err, code, "metrics of user %" PRId64, user_id);
}

void store_write_user_metrics(struct cf_json *json, const struct cf_pg_rows *rows)
{
    cf_json_object(json);
    member_i64(json, "order_count", cf_pg_get_i64(rows, 0, USER_METRICS_ORDERS));
    member_i64(json, "total_cents", cf_pg_get_i64(rows, 0, USER_METRICS_CENTS));
    cf_json_end(json);
}
