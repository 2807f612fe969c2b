/* SPDX-License-Identifier: MIT */
/* One query, from top to bottom: borrow, send, wait, give back.
 *
 * The happy path:            acquire -> send -> wait -> result -> release
 * Its context ends while it waits in line:  it leaves the line.
 * Its context ends while the statement runs: the call returns at once, and the slot goes to
 * cancel.c, which takes it through the fences.
 * The connection breaks:     the first error it gave is the query's, and the slot is emptied. */
#include "curfew/pg/pg_private.h"

/* What transactions share */

struct cf__pg_pool *cf__pg_pool_here(struct cf_pg *pg)
{
    struct cf_loop *loop = cf_loop_current();

    for (size_t i = 0; i < pg->n_pools; i++) {
        if (pg->pools[i].loop == loop) {
            return &pg->pools[i];
        }
    }
    CF_ASSERT(!"a query off the database's loops");
    return NULL;
}

enum cf_code cf__pg_run(struct cf_ctx *ctx, struct cf__pg_slot *slot, const struct cf_pg_stmt *stmt,
                        const struct cf_pg_param *params, size_t n_params, PGresult **out,
                        bool *out_taken, struct cf_err *err)
{
    PGresult *result = NULL;
    enum cf_code code = cf__pg_conn_send(slot->conn, stmt, params, n_params, err);

    *out_taken = false;
    if (code != CF_OK) {
        return cf_err_phase(err, code, "query");
    }
    (void)atomic_fetch_add_explicit(&slot->pool->queries, 1, memory_order_relaxed);
    code = cf__pg_conn_wait(ctx, slot->conn, err);
    if (code != CF_OK) {
        *out_taken = true;
        cf__pg_cancel(slot);
        return cf_err_phase(err, code, "query");
    }
    code = cf__pg_conn_result(slot->conn, &result, err);
    if (code == CF_OK) {
        code = cf__pg_rows_check(result, stmt, err);
    }
    if (code == CF_OK) {
        *out = result;
    } else {
        PQclear(result);
    }
    return code == CF_OK ? CF_OK : cf_err_phase(err, code, "query");
}

/* What the statements left behind decides about the connection. */
void cf__pg_give_back(struct cf__pg_slot *slot)
{
    if (slot->conn->broken) {
        cf__pg_pool_release(slot);
        return;
    }
    switch (PQtransactionStatus(slot->conn->pq)) {
    case PQTRANS_IDLE:
    case PQTRANS_UNKNOWN:
        cf__pg_pool_release(slot);
        return;
    case PQTRANS_ACTIVE:
    case PQTRANS_INTRANS:
    case PQTRANS_INERROR:
        break;
    }
    cf__pg_clean(slot); /* A transaction was left open: it is rolled back first. */
}

#ifdef CF_FENCE_TEST
/* With the second fence down, a connection can be lent that still works for somebody else. */
static bool is_busy(struct cf__pg_slot *slot, struct cf_err *err)
{
    if (!slot->conn->section.pending) {
        return false;
    }
    (void)cf_err_set(err, CF_EINTERNAL, "connection lent while busy");
    cf__pg_pool_discard(slot, CF_PG_EVENT_LOST, err);
    return true;
}
#endif

/* Operations */

enum cf_code cf_pg_query(struct cf_ctx *ctx, struct cf_pg *pg, const struct cf_pg_stmt *stmt,
                         const struct cf_pg_param *params, size_t n_params, struct cf_pg_rows **out,
                         struct cf_err *err)
{
    struct cf__pg_pool *pool = cf__pg_pool_here(pg);
    struct cf__pg_slot *slot;
    PGresult *result = NULL;
    struct cf_err ignored;
    enum cf_code code;
    bool taken;

    err = err != NULL ? err : &ignored;
    code = cf_ctx_check(ctx, err);
    if (code != CF_OK) {
        return code;
    }
    code = cf__pg_pool_acquire(ctx, pool, &slot, err);
    if (code != CF_OK) {
        return code;
    }
#ifdef CF_FENCE_TEST
    if (is_busy(slot, err)) {
        return err->code;
    }
#endif
    code = cf__pg_run(ctx, slot, stmt, params, n_params, &result, &taken, err);
    if (!taken) {
        cf__pg_give_back(slot);
    }
    if (code == CF_OK) {
        *out = (struct cf_pg_rows *)result;
    }
    return code;
}
