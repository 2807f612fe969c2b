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
#include <curfew/pg_tx.h>

#include "curfewd/cache/dashboards.h"

/* How much later than a deadline the server ends a statement by itself: what we could not end. */
#define STORE_NET_NS (5 * CF_SECOND)

/* Users: id, email, name, created_at. */
CF_MUST enum cf_code store_user(struct cf_ctx *ctx, struct cf_pg *pg, int64_t id,
                                struct cf_pg_rows **out, struct cf_err *err);
CF_MUST enum cf_code store_newest_users(struct cf_ctx *ctx, struct cf_pg *pg, int64_t limit,
                                        struct cf_pg_rows **out, struct cf_err *err);

/* By id, upwards, those behind `after`. */
CF_MUST enum cf_code store_users(struct cf_ctx *ctx, struct cf_pg *pg, int64_t after, int64_t limit,
                                 struct cf_pg_rows **out, struct cf_err *err);
void store_write_user(struct cf_json *json, const struct cf_pg_rows *rows, size_t row);

/* One order: as order_row.h has it, with its version. */
CF_MUST enum cf_code store_order(struct cf_ctx *ctx, struct cf_pg *pg, int64_t id,
                                 struct cf_pg_rows **out, struct cf_err *err);
int64_t store_order_id(const struct cf_pg_rows *rows);
int64_t store_order_user_id(const struct cf_pg_rows *rows);
int64_t store_order_version(const struct cf_pg_rows *rows); /* Grows with every change. */

/* Orders: the same without version; newest first. */
struct store_orders_query {
    int64_t user_id;    /* Only theirs. 0: of all. */
    const char *status; /* Only of this. NULL: of all. */
    int64_t after;      /* Only those older than this order: with a user, one of theirs, or there
                         * are none. 0: from the newest. */
    int64_t limit;
};

CF_MUST enum cf_code store_orders(struct cf_ctx *ctx, struct cf_pg *pg,
                                  const struct store_orders_query *query, struct cf_pg_rows **out,
                                  struct cf_err *err);
void store_write_order(struct cf_json *json, const struct cf_pg_rows *rows, size_t row);

/* What an order may cost: the schema's bound, so that sums fit. */
#define STORE_CENTS_MAX INT64_C(100000000000)

/* What somebody wants an order to be. */
struct store_order_wish {
    int64_t user_id;
    const char *status;  /* NULL: as it is. */
    int64_t total_cents; /* Below 0: as it is. */
};

/* Add one, with all of these. CF_ENOTFOUND: there is no such user. */
CF_MUST enum cf_code store_add_order(struct cf_ctx *ctx, struct cf_pg_tx *tx,
                                     const struct store_order_wish *wish, struct cf_pg_rows **out,
                                     struct cf_err *err);

/* Read one and keep others from changing it until the transaction ends, and change it; its user
 * stays. */
CF_MUST enum cf_code store_lock_order(struct cf_ctx *ctx, struct cf_pg_tx *tx, int64_t id,
                                      struct cf_pg_rows **out, struct cf_err *err);
CF_MUST enum cf_code store_change_order(struct cf_ctx *ctx, struct cf_pg_tx *tx, int64_t id,
                                        const struct store_order_wish *wish,
                                        struct cf_pg_rows **out, struct cf_err *err);

/* A request that may come again, and is to be done once. */
struct store_request {
    const char *route; /* Keys of one mean nothing for another. */
    const char *key;
    const char *text; /* With the same key, what tells it from another request. */
    int64_t keep_ns;  /* How long its answer is kept. */
};

struct store_answer {
    int status;
    const char *location;
    const char *etag;
    const char *body;
};

/* Take the key: the transaction does the request, and keeps its answer, or rolls back. Not claimed:
 * it was done before, and the answer is there. Blocks: while another transaction has the key. */
CF_MUST enum cf_code store_claim(struct cf_ctx *ctx, struct cf_pg_tx *tx,
                                 const struct store_request *request, bool *out_claimed,
                                 struct cf_err *err);
CF_MUST enum cf_code store_keep_answer(struct cf_ctx *ctx, struct cf_pg_tx *tx,
                                       const struct store_request *request,
                                       const struct store_answer *answer, struct cf_err *err);

/* The answer of one that was not claimed, which lives as long as *out_rows. CF_ECONFLICT: it was
 * another request. */
CF_MUST enum cf_code store_find_answer(struct cf_ctx *ctx, struct cf_pg_tx *tx,
                                       const struct store_request *request,
                                       struct store_answer *out, struct cf_pg_rows **out_rows,
                                       struct cf_err *err);

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
                                   struct cf_err *err);

/* Keep a backend busy for so long. */
CF_MUST enum cf_code store_sleep(struct cf_ctx *ctx, struct cf_pg *pg, double seconds,
                                 struct cf_err *err);

/* All rows as an array, each by `write`. */
void store_write_rows(struct cf_json *json, const struct cf_pg_rows *rows,
                      void (*write)(struct cf_json *json, const struct cf_pg_rows *rows,
                                    size_t row));

#endif
