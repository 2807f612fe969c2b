/* SPDX-License-Identifier: MIT */
/* What the service asks of its database, and how the answers look in JSON.
 *
 * Each call runs one statement under `ctx` and hands out its rows; the columns are known to the
 * writer beside it and to nobody else. Fails as cf_pg_query() does, and with CF_ENOTFOUND where one
 * row was asked for and there is none. Rows are the caller's: cf_pg_rows_free(). */
#ifndef CURFEWD_STORE_STORE_H
#define CURFEWD_STORE_STORE_H

#include <curfew/json.h>
#include <curfew/pg.h>

#include "curfewd/cache/dashboards.h"

/* Users: id, email, name, created_at. */
CF_MUST enum cf_code store_user(struct cf_ctx *ctx, struct cf_pg *pg, int64_t id,
                                struct cf_pg_rows **out, struct cf_err *err);
CF_MUST enum cf_code store_newest_users(struct cf_ctx *ctx, struct cf_pg *pg, int64_t limit,
                                        struct cf_pg_rows **out, struct cf_err *err);

/* By id, upwards, those behind `after`. */
CF_MUST enum cf_code store_users(struct cf_ctx *ctx, struct cf_pg *pg, int64_t after, int64_t limit,
                                 struct cf_pg_rows **out, struct cf_err *err);
void store_write_user(struct cf_json *json, const struct cf_pg_rows *rows, size_t row);

/* Orders: id, user_id, status, total_cents, created_at; newest first. */
CF_MUST enum cf_code store_newest_orders(struct cf_ctx *ctx, struct cf_pg *pg, int64_t limit,
                                         struct cf_pg_rows **out, struct cf_err *err);
CF_MUST enum cf_code store_orders_of_user(struct cf_ctx *ctx, struct cf_pg *pg, int64_t user_id,
                                          int64_t limit, struct cf_pg_rows **out,
                                          struct cf_err *err);

/* Those of a user that are older than the order `after`, itself one of theirs or nothing is. */
CF_MUST enum cf_code store_orders_of_user_after(struct cf_ctx *ctx, struct cf_pg *pg,
                                                int64_t user_id, int64_t after, int64_t limit,
                                                struct cf_pg_rows **out, struct cf_err *err);

/* The same two for the orders of all users. */
CF_MUST enum cf_code store_orders_after(struct cf_ctx *ctx, struct cf_pg *pg, int64_t after,
                                        int64_t limit, struct cf_pg_rows **out, struct cf_err *err);
void store_write_order(struct cf_json *json, const struct cf_pg_rows *rows, size_t row);

/* Figures of the whole store, and of one user. */
CF_MUST enum cf_code store_metrics(struct cf_ctx *ctx, struct cf_pg *pg, struct cf_pg_rows **out,
                                   struct cf_err *err);
void store_write_metrics(struct cf_json *json, const struct cf_pg_rows *rows);
CF_MUST enum cf_code store_user_metrics(struct cf_ctx *ctx, struct cf_pg *pg, int64_t user_id,
                                        struct cf_pg_rows **out, struct cf_err *err);
void store_write_user_metrics(struct cf_json *json, const struct cf_pg_rows *rows);

/* A section of a dashboard, fetched and written: dashboards_fetch_fn; `pg` is a struct cf_pg. */
CF_MUST enum cf_code store_section(struct cf_ctx *ctx, void *pg, int64_t user_id,
                                   enum dashboard_section section, struct cf_json *json,
                                   int64_t *out_pool_ns, struct cf_err *err);

/* Keep a backend busy for so long. */
CF_MUST enum cf_code store_sleep(struct cf_ctx *ctx, struct cf_pg *pg, double seconds,
                                 struct cf_err *err);

/* All rows as an array, each by `write`. */
void store_write_rows(struct cf_json *json, const struct cf_pg_rows *rows,
                      void (*write)(struct cf_json *json, const struct cf_pg_rows *rows,
                                    size_t row));

#endif
