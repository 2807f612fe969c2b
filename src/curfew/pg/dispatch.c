/* SPDX-License-Identifier: MIT */
/* The ways to have a backend signalled, behind one call: the first fence.
 *
 *     control     SELECT pg_cancel_backend() on the control connection; see control.c
 *     async       libpq's PQcancelStart() and PQcancelPoll(), on the loop and encrypted as the
 *                 connection is; libpq 17 has them
 *     pqcancel    libpq's PQcancel() in a lane, never encrypted
 *
 * AUTO tries them in this order, until one of them has sent it. A cancel that was sent and whose
 * end was not seen may yet arrive, and no other way makes that any better: then, as when none of
 * them could send it, the connection is closed. That is the last way: the server looks for its
 * client (client_connection_check_interval), and if it cannot see that it is gone,
 * statement_timeout strikes.
 *
 * The last two make the server start a process for each, and us a connection. So a loop has few of
 * them under way at once. The others wait in line, under the bound of their cancel; whoever finds
 * then that its statement has ended by itself sends none. The control connection takes any number
 * in one statement, and has no such line. */
#include "curfew/pg/pg_private.h"

#include <stdlib.h>
#include <string.h>

#include <curfew/lane.h>
#include <curfew/wait.h>

/* Constants and types */

/* One who waits for a permit. On the stack. */
struct applicant {
    struct cf__list node;
    struct cf__wait wait;
};

/* A job of the lane "cancel". Owns what libpq needs. */
struct pqcancel {
    PGcancel *cancel;
    int sent;
    char why[256]; /* As libpq asks. */
};

typedef enum cf_code (*way_fn)(struct cf_ctx *ctx, struct cf__pg_pool *pool,
                               struct cf__pg_conn *conn, struct cf_err *err);

/* Internal helpers: the budget */

/* Blocks: until there is a permit, under `ctx`. First come, first served: while somebody waits none
 * is left. */
static enum cf_code take_permit(struct cf_ctx *ctx, struct cf__pg_budget *budget,
                                struct cf_err *err)
{
    struct applicant applicant;
    enum cf_code code;

    if (budget->left > 0) {
        budget->left--;
        return CF_OK;
    }
    cf__wait_init(&applicant.wait);
    cf__list_push(&budget->line, &applicant.node);
    if (cf__wait_park(ctx, &applicant.wait) == CF__WAIT_READY) {
        return CF_OK;
    }
    cf__list_unlink(&applicant.node);
    code = cf_ctx_check(ctx, err);
    return cf_err_wrap(err, code, "wait to cancel");
}

/* To the first in line whose context lives. */
static void give_permit(struct cf__pg_budget *budget)
{
    struct cf__list *node;

    while ((node = cf__list_pop(&budget->line)) != NULL) {
        struct applicant *applicant = CF__CONTAINER(node, struct applicant, node);

        if (cf__wait_end(&applicant->wait, CF__WAIT_READY)) {
            return;
        }
    }
    budget->left++;
}

/* Internal helpers: by PQcancel */

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
static enum cf_code by_pqcancel(struct cf_ctx *ctx, struct cf__pg_pool *pool,
                                struct cf__pg_conn *conn, struct cf_err *err)
{
    struct pqcancel *job = calloc(1, sizeof(*job));
    enum cf_code code;

    if (job == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory to cancel");
    }
    job->cancel = conn->cancel;
    conn->cancel = NULL;
    code = cf_lane_run(ctx, pool->pg->cancel_lane, run_pqcancel, pqcancel_free, job, err);
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

/* Internal helpers: by PQcancelPoll */

#ifdef LIBPQ_HAS_ASYNC_CANCEL

static enum cf_code failure_of(const PGcancelConn *cancel, enum cf_code code, struct cf_err *err)
{
    const char *why = PQcancelErrorMessage(cancel);

    return cf_err_set(err, code, "cancel: %.*s", (int)strcspn(why, "\n"), why);
}

/* Drive it to the end of its connection, which the server closes when it has signalled. CF_EIO: the
 * request was sent, and what came was not that end. Unlike PQcancel(), a reset is none. */
static enum cf_code drive(struct cf_ctx *ctx, PGcancelConn *cancel, struct cf_err *err)
{
    PostgresPollingStatusType status = PGRES_POLLING_WRITING;
    bool is_sent = false;

    while (status != PGRES_POLLING_OK) {
        int events = status == PGRES_POLLING_READING ? CF_READABLE : CF_WRITABLE;
        enum cf_code code = cf_wait_fd(ctx, PQcancelSocket(cancel), events, &events, err);

        if (code != CF_OK) {
            code = is_sent && cf_ctx_err(ctx) == CF_OK ? cf_err_recode(err, CF_EIO) : code;
            return cf_err_wrap(err, code, "cancel");
        }
        status = PQcancelPoll(cancel);
        if (status == PGRES_POLLING_FAILED) {
            return failure_of(cancel, is_sent ? CF_EIO : CF_EUNAVAIL, err);
        }
        is_sent = PQcancelStatus(cancel) == CONNECTION_AWAITING_RESPONSE;
    }
    return CF_OK;
}

static enum cf_code by_async(struct cf_ctx *ctx, struct cf__pg_pool *pool, struct cf__pg_conn *conn,
                             struct cf_err *err)
{
    PGcancelConn *cancel = PQcancelCreate(conn->pq);
    enum cf_code code;

    (void)pool;
    if (cancel == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory to cancel");
    }
    code = PQcancelStart(cancel) ? drive(ctx, cancel, err) : failure_of(cancel, CF_EUNAVAIL, err);
    PQcancelFinish(cancel);
    return code;
}

#endif

/* Internal helpers: one of the ways */

static enum cf_code by_control(struct cf_ctx *ctx, struct cf__pg_pool *pool,
                               struct cf__pg_conn *conn, struct cf_err *err)
{
    struct cf__pg_request *request = conn->asked;
    enum cf_code code = CF_OK;

    conn->asked = NULL;
    if (request == NULL) {
        code = cf__pg_control_ask(pool->pg->control, conn, &request, err);
    }
    return code == CF_OK ? cf__pg_control_answer(ctx, request, err) : code;
}

static const struct {
    enum cf_pg_cancel_way way;
    way_fn send;
    bool is_costly; /* Takes a permit. */
} ways[] = {
    {CF_PG_CANCEL_CONTROL, by_control, false},
#ifdef LIBPQ_HAS_ASYNC_CANCEL
    {CF_PG_CANCEL_ASYNC, by_async, true},
#endif
    {CF_PG_CANCEL_PQCANCEL, by_pqcancel, true},
};

#define N_WAYS (sizeof(ways) / sizeof(ways[0]))

/* Whether AUTO may use it. What the connection encrypts is not sent in the clear because a way that
 * encrypts it, too, has failed: that could be somebody's doing. */
static bool is_fit(enum cf_pg_cancel_way way, const struct cf__pg_conn *conn)
{
    return way != CF_PG_CANCEL_PQCANCEL || !cf_pg_can_cancel(CF_PG_CANCEL_ASYNC) ||
           !PQsslInUse(conn->pq);
}

/* Whether there is nothing to cancel: the statement has ended, or its session, whose backend's pid
 * may soon be another's. */
static bool is_over(struct cf__pg_conn *conn)
{
    return cf__pg_conn_pump(conn) || conn->broken;
}

/* Send it by this way, if it is still needed when it is its turn. */
static enum cf_code send_by(size_t i, struct cf_ctx *ctx, struct cf__pg_pool *pool,
                            struct cf__pg_conn *conn, bool *out_sent, struct cf_err *err)
{
    enum cf_code code;

    if (ways[i].is_costly) {
        code = take_permit(ctx, &pool->budget, err);
        if (code != CF_OK) {
            return code;
        }
    }
    if (conn->asked == NULL && is_over(conn)) {
        code = CF_OK;
    } else {
        code = ways[i].send(ctx, pool, conn, err);
        *out_sent = *out_sent || code == CF_OK;
    }
    if (ways[i].is_costly) {
        give_permit(&pool->budget);
    }
    return code;
}

/* Life cycle */

void cf__pg_budget_init(struct cf__pg_budget *budget, size_t max)
{
    budget->left = max > 0 ? max : 1;
    cf__list_init(&budget->line);
}

/* Operations */

void cf__pg_dispatch_begin(struct cf__pg_pool *pool, struct cf__pg_conn *conn)
{
    if (pool->pg->control == NULL || is_over(conn) ||
        cf__pg_control_ask(pool->pg->control, conn, &conn->asked, NULL) != CF_OK) {
        conn->asked = NULL; /* cf__pg_dispatch() asks, if there is something to ask for. */
    }
}

enum cf_code cf__pg_dispatch(struct cf_ctx *ctx, struct cf__pg_pool *pool, struct cf__pg_conn *conn,
                             bool *out_sent, struct cf_err *err)
{
    enum cf_pg_cancel_way chosen = pool->pg->options.cancel;
    enum cf_code code = CF_EINVAL;

    for (size_t i = 0; i < N_WAYS; i++) {
        if (chosen == CF_PG_CANCEL_AUTO ? !is_fit(ways[i].way, conn) : chosen != ways[i].way) {
            continue;
        }
        code = send_by(i, ctx, pool, conn, out_sent, err);
        if (code == CF_OK || code == CF_EIO || cf_ctx_err(ctx) != CF_OK) {
            break;
        }
    }
    if (code != CF_OK && code != CF_EIO && cf_ctx_err(ctx) == CF_OK && is_over(conn)) {
        return CF_OK; /* Nothing was sent, and there is nothing left to send it for. */
    }
    return code;
}

#ifdef CF_FENCE_TEST

/* A cancel that nobody waits for: what F1 is there to prevent. */
struct loose_cancel {
    struct cf__pg_pool *pool;
    struct cf__pg_conn conn; /* Only what naming the backend takes. */
#ifdef LIBPQ_HAS_ASYNC_CANCEL
    PGcancelConn *async; /* The same for that way; NULL for another. */
#endif
};

static void send_loose(struct cf_ctx *ctx, struct loose_cancel *loose)
{
    struct cf__pg_pool *pool = loose->pool;

#ifdef LIBPQ_HAS_ASYNC_CANCEL
    if (loose->async != NULL) {
        if (PQcancelStart(loose->async)) {
            (void)drive(ctx, loose->async, NULL);
        }
        return;
    }
#endif
    (void)(pool->pg->control != NULL ? by_control : by_pqcancel)(ctx, pool, &loose->conn, NULL);
}

static void loose_free(struct loose_cancel *loose)
{
#ifdef LIBPQ_HAS_ASYNC_CANCEL
    PQcancelFinish(loose->async);
#endif
    PQfreeCancel(loose->conn.cancel);
    free(loose);
}

static void run_loose_cancel(void *arg)
{
    struct loose_cancel *loose = arg;
    struct cf__pg_pool *pool = loose->pool;
    struct cf_ctx *ctx;

    if (cf_ctx_with_timeout(cf_ctx_background(), pool->pg->options.cancel_timeout_ns, &ctx, NULL) ==
        CF_OK) {
        send_loose(ctx, loose);
        cf_ctx_free(ctx);
    }
    loose_free(loose);
    cf__pg_pool_fiber_end(pool);
}

bool cf__pg_dispatch_loosely(struct cf__pg_pool *pool, const struct cf__pg_conn *conn)
{
    struct loose_cancel *loose = calloc(1, sizeof(*loose));

    if (loose == NULL) {
        return false;
    }
    loose->pool = pool;
    loose->conn.backend_pid = conn->backend_pid;
    loose->conn.is_direct = conn->is_direct;
    memcpy(loose->conn.identity, conn->identity, sizeof(loose->conn.identity));
    loose->conn.cancel = PQgetCancel(conn->pq);
#ifdef LIBPQ_HAS_ASYNC_CANCEL
    loose->async = pool->pg->options.cancel == CF_PG_CANCEL_ASYNC ? PQcancelCreate(conn->pq) : NULL;
#endif
    if (cf__pg_pool_spawn(pool, run_loose_cancel, loose, NULL) != CF_OK) {
        loose_free(loose);
        return false;
    }
    return true;
}

#endif

/* Queries */

bool cf_pg_can_cancel(enum cf_pg_cancel_way way)
{
    bool has = way == CF_PG_CANCEL_AUTO;

    for (size_t i = 0; i < N_WAYS; i++) {
        has = has || ways[i].way == way;
    }
    return has;
}
