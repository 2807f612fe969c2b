/* SPDX-License-Identifier: MIT */
/* What PostgreSQL says against what the service says, field by field.
 *
 * The statements name their columns as the JSON's members; times are made text in SQL, so that
 * neither side's code is its own judge. */
#ifndef ROWS_H
#define ROWS_H

#include <jansson.h>
#include <libpq-fe.h>

#define SQL_TIME                                                                                   \
    "to_char(created_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') as created_at"
#define SQL_USER "select id, email, name, " SQL_TIME " from users "
#define SQL_ORDER "select id, user_id, status, total_cents, " SQL_TIME " from orders "
#define SQL_NEWEST_FIRST " order by orders.created_at desc, orders.id desc "

/* The object has exactly the row's columns: bigint as integer, everything else as string. */
void expect_row(json_t *object, const PGresult *result, int row);

/* The array has exactly these rows, in this order. */
void expect_rows(json_t *array, const PGresult *result);

/* The object says of the store what SQL says: user_count, order_count, total_cents, by_status. */
void expect_metrics(json_t *object, PGconn *pg);

#endif
