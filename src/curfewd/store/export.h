/* SPDX-License-Identifier: MIT */
/* Every order, one after another, as values that can be handed from stage to stage. */
#ifndef CURFEWD_STORE_EXPORT_H
#define CURFEWD_STORE_EXPORT_H

#include <curfew/pg_stream.h>

/* The longest status that the schema allows, "cancelled", has nine characters. */
#define STORE_STATUS_SIZE 16

struct store_order {
    int64_t id;
    int64_t user_id;
    int64_t total_cents;
    int64_t created_at_us;
    char status[STORE_STATUS_SIZE];
};

/* Stream every order by id, upwards. The server's net lies a little above what `ctx` has left.
 * Fails as cf_pg_stream_open() does. */
CF_MUST enum cf_code store_stream_orders(struct cf_ctx *ctx, struct cf_pg *pg,
                                         struct cf_pg_stream **out, struct cf_err *err);

/* Read one of its rows. Fails with CF_EINTERNAL: a status that no order has. */
CF_MUST enum cf_code store_read_order(const struct cf_pg_rows *rows, size_t row,
                                      struct store_order *out, struct cf_err *err);

#endif
