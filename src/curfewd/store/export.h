/* SPDX-License-Identifier: MIT */
/* Every order, one after another, as values that can be handed from stage to stage. */
#ifndef CURFEWD_STORE_EXPORT_H
#define CURFEWD_STORE_EXPORT_H

#include <curfew/pg_stream.h>

#include "curfewd/store/order_row.h"

/* The longest status that the schema allows, "cancelled", has nine characters. */
#define STORE_STATUS_SIZE 16

/* An order that outlives its rows. */
struct store_order_copy {
    struct store_order_row row; /* Without its status, so that the copy may be copied. */
    char status[STORE_STATUS_SIZE];
};

/* Stream every order by id, upwards. The server's net lies a little above what `ctx` has left.
 * Fails as cf_pg_stream_open() does. */
CF_MUST enum cf_code store_stream_orders(struct cf_ctx *ctx, struct cf_pg *pg,
                                         struct cf_pg_stream **out, struct cf_err *err);

/* Copy one of its rows. Fails with CF_EINTERNAL: a status that no order has. */
CF_MUST enum cf_code store_copy_order(const struct cf_pg_rows *rows, size_t row,
                                      struct store_order_copy *out, struct cf_err *err);

/* What it is a copy of. Its status is that of the copy. */
struct store_order_row store_copied_order(const struct store_order_copy *copy);

#endif
