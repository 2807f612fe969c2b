/* SPDX-License-Identifier: MIT */
/* The two fences that a connection passes between a cancel and its next query.
 *
 * A cancel names a backend, not a statement, and takes effect whenever its signal arrives. So after
 * a cancel was sent, the connection is lent again only when
 *
 *   F1  the cancel is complete: no signal of it can come any more, and
 *   F2  its statement is complete: the Sync is answered and no transaction is open.
 *
 * Without F1 a late signal kills the next query; without F2 the next query reads the answers of
 * this one. A fiber of the pool waits for both, under a bound; the query itself has long returned.
 * If either fails the socket is closed, which is safe whatever the server does, and the nets on the
 * server end what still runs there. How a cancel is sent: see dispatch.c. */
#include "curfew/pg/pg_private.h"

#include <sys/ioctl.h>

#include <curfew/clock.h>

/* Constants and types */

/* How long a cancel that is complete may take to show before it is sent again; then twice that. */
#define PATIENCE_MIN_NS (5 * CF_MS)

/* How much of a stream may lie in the socket for the fences to be worth it. A server that is held
 * up sleeps in its send and sees no cancel until a third of what both kernels hold, megabytes, has
 * been read; a reset it sees at once. Reading that costs more than a new connection, too. */
#define DRAIN_MAX (64 * 1024)

static const struct cf_pg_stmt rollback = {.name = "cf_rollback", .sql = "ROLLBACK"};

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

static bool fences_stand(void)
{
    return cf__pg_skipped_fences() == 0;
}
#else
static bool fences_stand(void)
{
    return true;
}
#endif

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
static enum cf_code cancel_and_drain(struct cf_ctx *ctx, struct cf__pg_slot *slot, bool *out_sent,
                                     enum cf_pg_outcome *outcome, struct cf_err *err)
{
    struct cf__pg_conn *conn = slot->conn;
    int64_t patience_ns = PATIENCE_MIN_NS;
    struct cf_ctx *turn;
    enum cf_code code;

    do {
        code = cf__pg_dispatch(ctx, slot->pool, conn, out_sent, err);
        *outcome =
            code == CF_OK || code == CF_EIO ? CF_PG_CONNECTION_DROPPED : CF_PG_DISPATCH_FAILED;
        if (code != CF_OK) {
            return code;
        }
        code = cf_ctx_with_timeout(ctx, patience_ns, &turn, err);
        if (code != CF_OK) {
            return code;
        }
        code = drain(turn, conn, err);
        cf_ctx_free(turn);
        patience_ns *= 2;
    } while (code == CF_EDEADLINE && cf_ctx_err(ctx) == CF_OK);
    return code;
}

/* Internal helpers: the fiber */

/* Of a statement that has ended, and of 57014, which is the server's own if nobody asked for it. */
static enum cf_pg_outcome outcome_of(bool sent, bool canceled)
{
    if (sent) {
        return canceled ? CF_PG_EFFECTIVE : CF_PG_TOO_LATE;
    }
    return canceled ? CF_PG_SERVER_TIMEOUT : CF_PG_NOT_SENT;
}

/* Pass both fences. CF_OK: the connection may be lent again. */
static enum cf_code pass_fences(struct cf_ctx *ctx, struct cf__pg_slot *slot,
                                enum cf_pg_outcome *outcome, struct cf_err *err)
{
    struct cf__pg_conn *conn = slot->conn;
    bool sent = false;
    enum cf_code code;

    if (!cf__pg_conn_pump(conn) || conn->asked != NULL) {
        code = cancel_and_drain(ctx, slot, &sent, outcome, err);
        if (code != CF_OK) {
            return code;
        }
    }
    *outcome = outcome_of(sent, conn->section.canceled);
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

/* Do as pass_fences() does, but for the fence that is down. True if one is. */
static bool pass_what_stands(struct cf_ctx *ctx, struct cf__pg_slot *slot, enum cf_code *code,
                             struct cf_err *err)
{
    unsigned mask = cf__pg_skipped_fences();
    bool sent = false;

    if ((mask & CF__PG_SKIP_F1) != 0 && slot->conn->section.pending &&
        cf__pg_dispatch_loosely(slot->pool, slot->conn)) {
        *code = drain(ctx, slot->conn, err);
        return true;
    }
    if ((mask & CF__PG_SKIP_F2) != 0 && slot->conn->section.pending) {
        *code = cf__pg_dispatch(ctx, slot->pool, slot->conn, &sent, err);
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

    code = cf_ctx_with_timeout(pool->cancel_ctx, pool->pg->options.cancel_timeout_ns, &ctx, &err);
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
    cf__pg_conn_drop(slot->conn);
    cf__pg_slot_move(slot, CF__PG_CANCELING);
    if (canceled_ns != 0 && fences_stand()) {
        cf__pg_dispatch_begin(slot->pool, slot->conn);
    }
    if (cf__pg_pool_spawn(slot->pool, run_canceler, slot, &err) != CF_OK) {
        finish(slot, CF_PG_CONNECTION_DROPPED, err.code, &err);
    }
}

/* Operations */

void cf__pg_cancel(struct cf__pg_slot *slot)
{
    take_through(slot, cf_now_ns());
}

void cf__pg_cancel_stream(struct cf__pg_slot *slot)
{
    struct cf_err err;
    int unread = 0;

    if (ioctl(PQsocket(slot->conn->pq), FIONREAD, &unread) == 0 && unread > DRAIN_MAX) {
        slot->canceled_ns = cf_now_ns();
        (void)cf_err_set(&err, CF_EUNAVAIL, "closed, with rows of a stream in its socket");
        finish(slot, CF_PG_CONNECTION_DROPPED, err.code, &err);
    } else {
        cf__pg_cancel(slot);
    }
}

void cf__pg_clean(struct cf__pg_slot *slot)
{
    take_through(slot, 0);
}
