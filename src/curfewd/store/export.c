/* SPDX-License-Identifier: MIT */
/* Every order: see export.h. */
#include "curfewd/store/export.h"

#include <inttypes.h>
#include <string.h>

#include <curfew/clock.h>

#include "curfewd/store/store.h"

/* Rows of a batch, where libpq can hand out more than one. */
#define BATCH_MAX 64

static const struct cf_pg_stmt every_order = {
    .name = "every_order",
    .sql = "SELECT " STORE_ORDER_COLUMNS " FROM orders ORDER BY id",
    .columns = STORE_ORDER_TYPES,
};

enum cf_code store_stream_orders(struct cf_ctx *ctx, struct cf_pg *pg, struct cf_pg_stream **out,
                                 struct cf_err *err)
{
    int64_t left_ns = cf_ctx_remaining_ns(ctx);
    struct cf_pg_stream_options options = {
        .statement_timeout_ns =
            left_ns < CF_NEVER - STORE_NET_NS ? left_ns + STORE_NET_NS : left_ns,
        .batch_max = BATCH_MAX,
    };
    enum cf_code code = cf_pg_stream_open(ctx, pg, &every_order, NULL, 0, &options, out, err);

    return code == CF_OK ? CF_OK : cf_err_wrap(err, code, "every order");
}

enum cf_code store_copy_order(const struct cf_pg_rows *rows, size_t row,
                              struct store_order_copy *out, struct cf_err *err)
{
    struct store_order_row order = store_read_order_row(rows, row);
    size_t size = strlen(order.status) + 1;

    if (size > sizeof(out->status)) {
        return cf_err_set(err, CF_EINTERNAL, "order %" PRId64 " has a status of %zu bytes",
                          order.id, size - 1);
    }
    memcpy(out->status, order.status, size);
    out->row = order;
    out->row.status = NULL;
    return CF_OK;
}

struct store_order_row store_copied_order(const struct store_order_copy *copy)
{
    struct store_order_row order = copy->row;

    order.status = copy->status;
    return order;
}
