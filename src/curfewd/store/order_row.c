/* SPDX-License-Identifier: MIT */
/* Rows of orders: see order_row.h. */
#include "curfewd/store/order_row.h"

#include "curfewd/members.h"

struct store_order_row store_read_order_row(const struct cf_pg_rows *rows, size_t row)
{
    return (struct store_order_row){
        .id = cf_pg_get_i64(rows, row, STORE_ORDER_ID),
        .user_id = cf_pg_get_i64(rows, row, STORE_ORDER_USER_ID),
        .status = cf_pg_get_text(rows, row, STORE_ORDER_STATUS),
        .total_cents = cf_pg_get_i64(rows, row, STORE_ORDER_TOTAL_CENTS),
        .created_at_us = cf_pg_get_time_us(rows, row, STORE_ORDER_CREATED_AT),
    };
}

void store_write_order_row(struct cf_json *json, const struct store_order_row *order)
{
    cf_json_object(json);
    member_i64(json, "id", order->id);
    member_i64(json, "user_id", order->user_id);
    member_str(json, "status", order->status);
    member_i64(json, "total_cents", order->total_cents);
    member_time_us(json, "created_at", order->created_at_us);
    cf_json_end(json);
}
