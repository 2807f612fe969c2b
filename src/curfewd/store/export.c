/* SPDX-License-Identifier: MIT */
/* Every order: see export.h. */
#include "curfewd/store/export.h"

#include <inttypes.h>
#include <string.h>

#include <curfew/clock.h>

/* How much later than the context the server ends the statement by itself. */
#define NET_NS (5 * CF_SECOND)

/* Rows of a batch, where libpq can hand out more than one. */
#define BATCH_MAX 64

enum {
    ORDER_ID,
    ORDER_USER_ID,
    ORDER_STATUS,
    ORDER_TOTAL_CENTS,
    ORDER_CREATED_AT
};

static const struct cf_pg_stmt every_order = {
    .name = "every_order",
    .sql = "SELECT id, user_id, status, total_cents, created_at FROM orders ORDER BY id",
    .columns = "iitiz",
};

enum cf_code store_stream_orders(struct cf_ctx *ctx, struct cf_pg *pg, struct cf_pg_stream **out,
                                 struct cf_err *err)
{
    int64_t left_ns = cf_ctx_remaining_ns(ctx);
    struct cf_pg_stream_options options = {
        .statement_timeout_ns = left_ns < CF_NEVER - NET_NS ? left_ns + NET_NS : left_ns,
        .batch_max = BATCH_MAX,
    };
    enum cf_code code = cf_pg_stream_open(ctx, pg, &every_order, NULL, 0, &options, out, err);

    return code == CF_OK ? CF_OK : cf_err_wrap(err, code, "every order");
}

enum cf_code store_read_order(const struct cf_pg_rows *rows, size_t row, struct store_order *out,
                              struct cf_err *err)
{
    const char *status = cf_pg_get_text(rows, row, ORDER_STATUS);
    int64_t id = cf_pg_get_i64(rows, row, ORDER_ID);
    size_t size = strlen(status) + 1;

    if (size > sizeof(out->status)) {
        return cf_err_set(err, CF_EINTERNAL, "order %" PRId64 " has a status of %zu bytes", id,
                          size - 1);
    }
    out->id = id;
    out->user_id = cf_pg_get_i64(rows, row, ORDER_USER_ID);
    out->total_cents = cf_pg_get_i64(rows, row, ORDER_TOTAL_CENTS);
    out->created_at_us = cf_pg_get_time_us(rows, row, ORDER_CREATED_AT);
    memcpy(out->status, status, size);
    return CF_OK;
}
