/* SPDX-License-Identifier: MIT */
/* A row of orders: the columns that each statement lists that hands some out, what they are as a
 * value, and as JSON. */
#ifndef CURFEWD_STORE_ORDER_ROW_H
#define CURFEWD_STORE_ORDER_ROW_H

#include <curfew/json.h>
#include <curfew/pg.h>

#define STORE_ORDER_COLUMNS "id, user_id, status, total_cents, created_at"
#define STORE_ORDER_TYPES "iitiz"

/* The same with the version: of one order only. */
#define STORE_ORDER_VERSION_COLUMNS STORE_ORDER_COLUMNS ", version"
#define STORE_ORDER_VERSION_TYPES STORE_ORDER_TYPES "i"

enum {
    STORE_ORDER_ID,
    STORE_ORDER_USER_ID,
    STORE_ORDER_STATUS,
    STORE_ORDER_TOTAL_CENTS,
    STORE_ORDER_CREATED_AT,
    STORE_ORDER_VERSION,
};

struct store_order_row {
    int64_t id;
    int64_t user_id;
    const char *status; /* Borrowed: of the rows it was read from. */
    int64_t total_cents;
    int64_t created_at_us;
};

struct store_order_row store_read_order_row(const struct cf_pg_rows *rows, size_t row);

void store_write_order_row(struct cf_json *json, const struct store_order_row *order);

#endif
