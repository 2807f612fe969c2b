/* SPDX-License-Identifier: MIT */
/* The two fences that a connection passes between a cancel and its next query.
 *
 * A cancel names a backend, not a statement, and takes effect whenever its signal arrives. So after
 * a cancel was sent, the connection is lent again only when
 *
 *   F1  the cancel is complete: no signal of it can come any more, and
 *   F2  its statement is complete: the Sync is answered and no transaction is open.
 *
 * Without F1 a late signal kills the next query; without F2 the next query reads the answers of this
 * one. A fiber of the pool waits for both, under a bound; the query itself has long returned. If
 * either fails the socket is closed, which is safe whatever the server does, and the nets on the
 * server end what still runs there. */
#include "curfew/pg/pg_private.h"

#include <stdlib.h>
#include <string.h>

#include <curfew/clock.h>
#include <curfew/wait.h>

/* Constants and types */

/* How long a cancel that is complete may take to show before it is sent again; then twice that. */
#define PATIENCE_MIN_NS (5 * CF_MS)

static const struct cf_pg_stmt rollback = {.name = "cf_rollback", .sql = "ROLLBACK"};

/* A job of the lane "cancel". Owns what libpq needs. */
struct pqcancel {
    PGcancel *cancel;
    int sent;
    char why[256]; /* As libpq asks. */
};

#ifdef CF_FENCE_TEST
static atomic_uint skipped;

void cf__pg_skip_fences(unsigned mask)
{
    atomic_store(&skipped, mask);
}

unsigned cf__pg_skipped_fences(void)
{
    return atomic_load(&skipped);
}
#endif

/* Internal helpers: the first fence, by PQcancel */

static void run_pqcancel(void *arg)
{
    struct pqcancel *job = arg;

    job->sent = PQcancel(job->cancel, job->why, sizeof(job->why));
}

static void pqcancel_free(void *arg)
{
    struct pqcancel *job = arg;

    PQfreeCancel(job->cancel);
    free(job);
}

/* Blocks a thread of the lane for two milliseconds as a rule, and for as long as the postmaster
 * likes at the worst: then it is left behind with what it owns, and the connection is closed. */
static enum cf_code cancel_by_pqcancel(struct cf_ctx *ctx, struct cf_pg *pg,
                                       struct cf__pg_conn *conn, struct cf_err *err)
{
    struct pqcancel *job = calloc(1, sizeof(*job));
    enum cf_code code;

    if (job == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory to cancel");
    }
    job->cancel = conn->cancel;
    conn->cancel = NULL;
    code = cf_lane_run(ctx, pg->cancel_lane, run_pqcancel, pqcancel_free, job, err);
    if (code != CF_OK) {
        return cf_err_wrap(err, code, "cancel");
    }
    conn->cancel = job->cancel;
    job->cancel = NULL;
    if (!job->sent) {
        code = cf_err_set(err, CF_EUNAVAIL, "cancel: %.*s", (int)strcspn(job->why, "\n"), job->why);
    }
    pqcancel_free(job);
    return code;
}

/* Internal helpers: the first fence, whichever way */

/* Have the backend signalled and wait until that is over. The control connection first; where it
 * does not lead to the same server, or could not send it, PQcancel. A control cancel that the bound
 * cut short or whose answer was lost may yet arrive, and no other way makes that any better: the
 * connection must not be lent again. */
static enum cf_code send_cancel(struct cf_ctx *ctx, struct cf_pg *pg, struct cf__pg_conn *conn,
                                struct cf_err *err)
{
    enum cf_pg_cancel_way way = pg->options.cancel;
    enum cf_code code = CF_EINVAL;

    if (way != CF_PG_CANCEL_PQCANCEL) {
        code = cf__pg_control_cancel(ctx, pg->control, conn, err);
    }
    if (way == CF_PG_CANCEL_PQCANCEL ||
        (way == CF_PG_CANCEL_AUTO && code != CF_OK && code != CF_EIO && cf_ctx_err(ctx) == CF_OK)) {
        code = cancel_by_pqcancel(ctx, pg, conn, err);
    }
    return code;
}

/* Internal helpers: the second fence */

/* Read to the answer of the Sync. */
static enum cf_code drain(struct cf_ctx *ctx, struct cf__pg_conn *conn, struct cf_err *err)
{
    enum cf_code code = cf__pg_conn_wait(ctx, conn, err);

    if (code == CF_OK && conn->section.pending) {
        code = cf_err_set(err, CF_EUNAVAIL, "the connection ended");
    }
    PQclear(conn->section.rows);
    conn->section.rows = NULL;
    return code;
}

/* End the transaction that the statement left open, if it did. */
static enum cf_code end_transaction(struct cf_ctx *ctx, struct cf__pg_conn *conn,
                                    struct cf_err *err)
{
    enum cf_code code;

    if (PQtransactionStatus(conn->pq) == PQTRANS_IDLE) {
        return CF_OK;
    }
    code = cf__pg_conn_send(conn, &rollback, NULL, 0, err);
    if (code == CF_OK) {
        code = drain(ctx, conn, err);
    }
    if (code == CF_OK && PQtransactionStatus(conn->pq) != PQTRANS_IDLE) {
        code = cf_err_set(err, CF_EUNAVAIL, "the transaction did not end");
    }
    return code;
}

/* Cancel, and read to the end: again and again, because a backend that was signalled before it had
 * read its statement takes the cancel for an older one's and drops it. Each cancel is complete
 * before the next is sent, so that the last one is too when the statement ends. */
static enum cf_code cancel_and_drain(struct cf_ctx *ctx, struct cf__pg_slot *slot,
                                     enum cf_pg_outcome *outcome, struct cf_err *err)
{
    int64_t patience_ns = PATIENCE_MIN_NS;
    struct cf_ctx *turn;
    enum cf_code code;

    do {
        code = send_cancel(ctx, slot->pool->pg, slot->conn, err);
        *outcome =
            code == CF_OK || code == CF_EIO ? CF_PG_CONNECTION_DROPPED : CF_PG_DISPATCH_FAILED;
        if (code != CF_OK) {
            return code;
        }
        code = cf_ctx_with_timeout(ctx, patience_ns, &turn, err);
        if (code != CF_OK) {
            return code;
        }
        code = drain(turn, slot->conn, err);
        cf_ctx_free(turn);
        patience_ns *= 2;
    } while (code == CF_EDEADLINE && cf_ctx_err(ctx) == CF_OK);
    return code;
}

/* Internal helpers: the fiber */

/* Pass both fences. CF_OK: the connection may be lent again. */
static enum cf_code pass_fences(struct cf_ctx *ctx, struct cf__pg_slot *slot,
                                enum cf_pg_outcome *outcome, struct cf_err *err)
{
    struct cf__pg_conn *conn = slot->conn;
    enum cf_code code;

    *outcome = CF_PG_NOT_SENT;
    if (!cf__pg_conn_pump(conn)) {
        code = cancel_and_drain(ctx, slot, outcome, err);
        if (code != CF_OK) {
            return code;
        }
        *outcome = conn->section.canceled ? CF_PG_EFFECTIVE : CF_PG_TOO_LATE;
    } else if (conn->section.canceled) {
        *outcome = CF_PG_SERVER_TIMEOUT;
    }
    PQclear(conn->section.rows);
    conn->section.rows = NULL;
    code = end_transaction(ctx, conn, err);
    if (code != CF_OK) {
        *outcome = CF_PG_CONNECTION_DROPPED;
    }
    return code;
}

static void finish(struct cf__pg_slot *slot, enum cf_pg_outcome outcome, enum cf_code code,
                   const struct cf_err *err)
{
    struct cf__pg_pool *pool = slot->pool;
    struct cf_pg_event event = {.kind = CF_PG_EVENT_CANCELED,
                                .backend_pid = slot->conn->backend_pid,
                                .outcome = outcome,
                                .took_ns = cf_now_ns() - slot->canceled_ns};
    bool is_cancel = slot->canceled_ns != 0;

    if (is_cancel) {
        (void)atomic_fetch_add_explicit(&pool->cancels[outcome], 1, memory_order_relaxed);
    }
    if (code == CF_OK) {
        cf__pg_pool_release(slot);
    } else {
        event.err = *err;
        cf__pg_pool_discard(slot, CF_PG_EVENT_CLOSED, err);
    }
    if (is_cancel) {
        cf__pg_report(pool->pg, &event);
    }
}

#ifdef CF_FENCE_TEST

/* A cancel that nobody waits for: what F1 is there to prevent. */
struct loose_cancel {
    struct cf__pg_pool *pool;
    struct cf__pg_conn conn; /* Only what naming the backend takes. */
};

static void run_loose_cancel(void *arg)
{
    struct loose_cancel *loose = arg;
    struct cf__pg_pool *pool = loose->pool;
    struct cf_ctx *ctx;

    if (cf_ctx_with_timeout(cf_ctx_background(), pool->pg->options.cancel_timeout_ns, &ctx, NULL) ==
        CF_OK) {
        (void)send_cancel(ctx, pool->pg, &loose->conn, NULL);
        cf_ctx_free(ctx);
    }
    PQfreeCancel(loose->conn.cancel);
    free(loose);
    cf__pg_pool_fiber_end(pool);
}

static bool send_loosely(struct cf__pg_slot *slot)
{
    struct loose_cancel *loose = calloc(1, sizeof(*loose));

    if (loose == NULL) {
        return false;
    }
    loose->pool = slot->pool;
    loose->conn.backend_pid = slot->conn->backend_pid;
    loose->conn.is_direct = slot->conn->is_direct;
    memcpy(loose->conn.identity, slot->conn->identity, sizeof(loose->conn.identity));
    loose->conn.cancel = PQgetCancel(slot->conn->pq);
    if (cf__pg_pool_spawn(slot->pool, run_loose_cancel, loose, NULL) != CF_OK) {
        PQfreeCancel(loose->conn.cancel);
        free(loose);
        return false;
    }
    return true;
}

/* Do as pass_fences() does, but for the fence that is down. True if one is. */
static bool pass_what_stands(struct cf_ctx *ctx, struct cf__pg_slot *slot, enum cf_code *code,
                             struct cf_err *err)
{
    unsigned mask = cf__pg_skipped_fences();

    if ((mask & CF__PG_SKIP_F1) != 0 && slot->conn->section.pending && send_loosely(slot)) {
        *code = drain(ctx, slot->conn, err);
        return true;
    }
    if ((mask & CF__PG_SKIP_F2) != 0 && slot->conn->section.pending) {
        *code = send_cancel(ctx, slot->pool->pg, slot->conn, err);
        return true;
    }
    return false;
}

#endif

static void run_canceler(void *arg)
{
    struct cf__pg_slot *slot = arg;
    struct cf__pg_pool *pool = slot->pool;
    enum cf_pg_outcome outcome = CF_PG_CONNECTION_DROPPED;
    struct cf_ctx *ctx;
    struct cf_err err;
    enum cf_code code;

    /* Not a child of the pool's: closing waits for cancels that are under way. */
    code =
        cf_ctx_with_timeout(cf_ctx_background(), pool->pg->options.cancel_timeout_ns, &ctx, &err);
    if (code == CF_OK) {
#ifdef CF_FENCE_TEST
        if (!pass_what_stands(ctx, slot, &code, &err))
#endif
        {
            code = pass_fences(ctx, slot, &outcome, &err);
        }
        cf_ctx_free(ctx);
    }
    finish(slot, outcome, code, &err);
    cf__pg_pool_fiber_end(pool);
}

/* Have a fiber of the pool pass the fences. */
static void take_through(struct cf__pg_slot *slot, int64_t canceled_ns)
{
    struct cf_err err;

    slot->canceled_ns = canceled_ns;
    cf__pg_slot_move(slot, CF__PG_CANCELING);
    if (cf__pg_pool_spawn(slot->pool, run_canceler, slot, &err) != CF_OK) {
        finish(slot, CF_PG_CONNECTION_DROPPED, err.code, &err);
    }
}

/* Operations */

void cf__pg_cancel(struct cf__pg_slot *slot)
{
    take_through(slot, cf_now_ns());
}

void cf__pg_clean(struct cf__pg_slot *slot)
{
    take_through(slot, 0);
}
