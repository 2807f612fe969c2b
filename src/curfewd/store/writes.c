/* SPDX-License-Identifier: MIT */
/* What changes the database, each call a part of its caller's transaction: see store.h.
 *
 * A request that may come again inserts its key first. Where the same one is under way, that insert
 * waits, under the context, until the other's transaction has ended: rolled back, it goes on as if
 * it were the first; committed, it finds the row, which it locks, and the answer is in it. (A row
 * that is older than it is kept for is taken over.) The answer is written into the row before the
 * commit, so that there is never the one without the other. */
#include "curfewd/store/store.h"

#include <inttypes.h>

#include <curfew/clock.h>

#include "curfewd/store/order_row.h"
#include "curfewd/store/outcome.h"

enum {
    KEPT_IS_SAME,
    KEPT_STATUS,
    KEPT_LOCATION,
    KEPT_ETAG,
    KEPT_BODY
};

#define FINGERPRINT(param) "sha256(convert_to(" param ", 'UTF8'))"
#define OLDER_THAN(param) " created_at < now() - " param "::float8 * interval '1 second'"

static const struct cf_pg_stmt claim_key = {
    .name = "claim_key",
    .sql = "INSERT INTO idempotency_keys AS kept (route, key, fingerprint)"
           " VALUES ($1, $2, " FINGERPRINT(
               "$3") ")"
                     " ON CONFLICT (route, key) DO UPDATE SET fingerprint = excluded.fingerprint,"
                     " created_at = excluded.created_at, status = NULL WHERE kept." OLDER_THAN(
                         "$4") " RETURNING 1",
    .columns = "i",
};

static const struct cf_pg_stmt find_answer = {
    .name = "find_answer",
    .sql = "SELECT (fingerprint = " FINGERPRINT(
        "$3") ")::int, status, location, etag, body"
              " FROM idempotency_keys WHERE route = $1 AND key = $2",
    .columns = "iittt",
};

/* Two that are too old go with each that comes, so that they cannot pile up. */
static const struct cf_pg_stmt keep_answer = {
    .name = "keep_answer",
    .sql = "WITH old AS (DELETE FROM idempotency_keys WHERE (route, key) IN"
           " (SELECT route, key FROM idempotency_keys WHERE" OLDER_THAN(
               "$7") " ORDER BY created_at LIMIT 2 FOR UPDATE SKIP LOCKED))"
                     " UPDATE idempotency_keys SET status = $3::bigint, location = $4, etag = $5, "
                     "body = $6"
                     " WHERE route = $1 AND key = $2",
};

static const struct cf_pg_stmt add_order = {
    .name = "add_order",
    .sql = "INSERT INTO orders (user_id, status, total_cents) VALUES ($1, $2, $3)"
           " RETURNING " STORE_ORDER_VERSION_COLUMNS,
    .columns = STORE_ORDER_VERSION_TYPES,
};

static const struct cf_pg_stmt lock_order = {
    .name = "lock_order",
    .sql = "SELECT " STORE_ORDER_VERSION_COLUMNS " FROM orders WHERE id = $1 FOR UPDATE",
    .columns = STORE_ORDER_VERSION_TYPES,
};

static const struct cf_pg_stmt change_order = {
    .name = "change_order",
    .sql = "UPDATE orders SET status = coalesce($2, status),"
           " total_cents = coalesce($3, total_cents) WHERE id = $1 "
           "RETURNING " STORE_ORDER_VERSION_COLUMNS,
    .columns = STORE_ORDER_VERSION_TYPES,
};

static struct cf_pg_param seconds(int64_t ns)
{
    return cf_pg_f64((double)ns / (double)CF_SECOND);
}

enum cf_code store_claim(struct cf_ctx *ctx, struct cf_pg_tx *tx,
                         const struct store_request *request, bool *out_claimed, struct cf_err *err)
{
    struct cf_pg_param params[] = {cf_pg_str(request->route), cf_pg_str(request->key),
                                   cf_pg_str(request->text), seconds(request->keep_ns)};
    struct cf_pg_rows *rows;
    enum cf_code code = cf_pg_tx_query(ctx, tx, &claim_key, params, 4, &rows, err);

    if (code != CF_OK) {
        return cf_err_wrap(err, code, "claim a key");
    }
    *out_claimed = cf_pg_rows_count(rows) == 1;
    cf_pg_rows_free(rows);
    return CF_OK;
}

enum cf_code store_find_answer(struct cf_ctx *ctx, struct cf_pg_tx *tx,
                               const struct store_request *request, struct store_answer *out,
                               struct cf_pg_rows **out_rows, struct cf_err *err)
{
    struct cf_pg_param params[] = {cf_pg_str(request->route), cf_pg_str(request->key),
                                   cf_pg_str(request->text)};
    struct cf_pg_rows *rows;
    enum cf_code code = cf_pg_tx_query(ctx, tx, &find_answer, params, 3, &rows, err);

    if (code != CF_OK) {
        return cf_err_wrap(err, code, "find an answer");
    }
    if (cf_pg_rows_count(rows) != 1 || cf_pg_is_null(rows, 0, KEPT_STATUS)) {
        cf_pg_rows_free(rows); /* Untested: claiming has locked a row that is whole. */
        return cf_err_set(err, CF_EINTERNAL, "find an answer: there is none");
    }
    if (cf_pg_get_i64(rows, 0, KEPT_IS_SAME) == 0) {
        cf_pg_rows_free(rows);
        return cf_err_set(err, CF_ECONFLICT, "the key came with another request before");
    }
    *out = (struct store_answer){
        .status = (int)cf_pg_get_i64(rows, 0, KEPT_STATUS),
        .location = cf_pg_get_text(rows, 0, KEPT_LOCATION),
        .etag = cf_pg_get_text(rows, 0, KEPT_ETAG),
        .body = cf_pg_get_text(rows, 0, KEPT_BODY),
    };
    *out_rows = rows;
    return CF_OK;
}

enum cf_code store_keep_answer(struct cf_ctx *ctx, struct cf_pg_tx *tx,
                               const struct store_request *request,
                               const struct store_answer *answer, struct cf_err *err)
{
    struct cf_pg_param params[] = {cf_pg_str(request->route), cf_pg_str(request->key),
                                   cf_pg_i64(answer->status), cf_pg_str(answer->location),
                                   cf_pg_str(answer->etag),   cf_pg_str(answer->body),
                                   seconds(request->keep_ns)};
    struct cf_pg_rows *rows = NULL;
    enum cf_code code = cf_pg_tx_query(ctx, tx, &keep_answer, params, 7, &rows, err);

    cf_pg_rows_free(rows);
    return code == CF_OK ? CF_OK : cf_err_wrap(err, code, "keep an answer");
}

enum cf_code store_add_order(struct cf_ctx *ctx, struct cf_pg_tx *tx,
                             const struct store_order_wish *wish, struct cf_pg_rows **out,
                             struct cf_err *err)
{
    struct cf_pg_param params[] = {cf_pg_i64(wish->user_id), cf_pg_str(wish->status),
                                   cf_pg_i64(wish->total_cents)};
    enum cf_code code = cf_pg_tx_query(ctx, tx, &add_order, params, 3, out, err);

    if (store_refers_to_none(code, err)) {
        return cf_err_set(err, CF_ENOTFOUND, "there is no user %" PRId64, wish->user_id);
    }
    return code == CF_OK ? CF_OK : cf_err_wrap(err, code, "add an order");
}

enum cf_code store_lock_order(struct cf_ctx *ctx, struct cf_pg_tx *tx, int64_t id,
                              struct cf_pg_rows **out, struct cf_err *err)
{
    struct cf_pg_param params[] = {cf_pg_i64(id)};
    struct cf_pg_rows *rows = NULL;
    enum cf_code code = cf_pg_tx_query(ctx, tx, &lock_order, params, 1, &rows, err);

    return store_one(code, rows, "order", id, out, err);
}

enum cf_code store_change_order(struct cf_ctx *ctx, struct cf_pg_tx *tx, int64_t id,
                                const struct store_order_wish *wish, struct cf_pg_rows **out,
                                struct cf_err *err)
{
    struct cf_pg_param params[] = {cf_pg_i64(id), cf_pg_str(wish->status),
                                   cf_pg_i64(wish->total_cents)};
    enum cf_code code;

    if (wish->total_cents < 0) {
        params[2] = (struct cf_pg_param){.type = CF_PG_NULL};
    }
    code = cf_pg_tx_query(ctx, tx, &change_order, params, 3, out, err);
    return code == CF_OK ? CF_OK : cf_err_wrap(err, code, "change order %" PRId64, id);
}
