/* SPDX-License-Identifier: MIT */
/* Transactions: see pg_tx.h.
 *
 * The slot stays BUSY from BEGIN to the end. Whoever ends a statement early (its context, a broken
 * connection) takes the slot away, and with it the transaction: the pool's fiber cancels what runs
 * and rolls back, or the socket is closed, and the server does.
 *
 * COMMIT: before it is sent, a done context or an earlier failure rolls back. After that the answer
 * is waited for under a bound of its own, never cancelled: a cancel may find the server past the
 * point where it has committed and only waits for a standby. Three ends:
 *
 *     an answer                    committed, or not and the error says why
 *     no answer in time, or the    unknown: the connection is closed, for whatever it was still
 *     connection broke             doing is not to be cancelled either
 *     FATAL instead of an answer   unknown: the server may have committed before it was told
 *                                  to stop */
#include <curfew/pg_tx.h>

#include <stdlib.h>
#include <string.h>

#include "curfew/core/err_private.h"
#include "curfew/pg/pg_private.h"

struct cf_pg_tx {
    struct cf__pg_slot *slot; /* BUSY; NULL: taken away. */
    struct cf_err failure;    /* The first; CF_OK: none. */
};

/* One a combination, because a statement has no other parameters than values. */
static const struct cf_pg_stmt begins[][2] = {
    [CF_PG_READ_COMMITTED] = {{.name = "cf_begin",
                               .sql = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"},
                              {.name = "cf_begin_ro",
                               .sql = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY"}},
    [CF_PG_REPEATABLE_READ] = {{.name = "cf_begin_rr",
                                .sql = "BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE"},
                               {.name = "cf_begin_rr_ro",
                                .sql = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"}},
    [CF_PG_SERIALIZABLE] = {{.name = "cf_begin_s",
                             .sql = "BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE"},
                            {.name = "cf_begin_s_ro",
                             .sql = "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY"}},
};

static const struct cf_pg_stmt commit = {.name = "cf_commit", .sql = "COMMIT"};

/* Internal helpers */

/* Keep the first failure. Returns its code. */
static enum cf_code fail(struct cf_pg_tx *tx, const struct cf_err *err)
{
    if (tx->failure.code == CF_OK) {
        tx->failure = *err;
    }
    return err->code;
}

/* Run one statement; a slot that cannot be used any more is let go. A statement that was done fails
 * then too: the server's last word, or the end, came right behind its answer, and the transaction
 * is gone. */
static enum cf_code run(struct cf_ctx *ctx, struct cf_pg_tx *tx, const struct cf_pg_stmt *stmt,
                        const struct cf_pg_param *params, size_t n_params, PGresult **out,
                        struct cf_err *err)
{
    bool taken;
    enum cf_code code = cf__pg_run(ctx, tx->slot, stmt, params, n_params, out, &taken, err);

    if (!taken && tx->slot->conn->broken) {
        if (code == CF_OK) {
            PQclear(*out);
            *out = NULL;
            code =
                cf_err_phase(err, cf__pg_err_from_conn(tx->slot->conn->pq, "query", err), "query");
        }
        cf__pg_pool_release(tx->slot); /* Closes it. */
        taken = true;
    }
    if (taken) {
        tx->slot = NULL;
    }
    return code;
}

/* What the server said to COMMIT. */
static enum cf_code commit_answer(struct cf__pg_conn *conn, struct cf_err *err)
{
    PGresult *result = NULL;
    enum cf_code code = cf__pg_conn_result(conn, &result, err);

    if (code == CF_OK && strcmp(PQcmdStatus(result), "COMMIT") != 0) {
        /* Untested: a transaction that failed is not committed, so this is not asked for. */
        code = cf_err_set(err, CF_EINTERNAL, "the server rolled back");
    }
    PQclear(result);
    return code;
}

/* Whether the server has answered. An error without a SQLSTATE is libpq's, which had no memory for
 * what the server said. */
static bool is_answered(const struct cf__pg_section *section)
{
    return !section->pending && (section->err.code == CF_OK || section->err.sqlstate[0] != '\0');
}

/* Send COMMIT and wait for its answer, under a bound of its own. */
static enum cf_code send_commit(struct cf_pg_tx *tx, struct cf_err *err)
{
    struct cf__pg_slot *slot = tx->slot;
    struct cf__pg_conn *conn = slot->conn;
    struct cf_ctx *shield;
    enum cf_code code;

    code = cf_ctx_with_timeout(cf_ctx_background(), slot->pool->pg->options.commit_timeout_ns,
                               &shield, err);
    if (code != CF_OK) {
        return code; /* Not sent. */
    }
    code = cf__pg_conn_send(conn, &commit, NULL, 0, err);
    if (code == CF_ENOMEM) {
        cf_ctx_free(shield);
        return code; /* Not sent either. */
    }
    tx->slot = NULL;
    if (code == CF_OK) {
        code = cf__pg_conn_wait(shield, conn, err);
    }
    cf_ctx_free(shield);
    if (code == CF_OK && is_answered(&conn->section)) {
        code = commit_answer(conn, err);
        cf__pg_pool_release(slot); /* Closes it, if the session ended behind the answer. */
        return code;
    }
    if (code == CF_OK) {
        (void)cf__pg_err_from_conn(conn->pq, "connection", err);
    }
    cf__pg_pool_discard(slot, CF_PG_EVENT_LOST, err);
    return cf_err_recode(err, CF_EUNKNOWN);
}

/* Operations */

enum cf_code cf_pg_begin(struct cf_ctx *ctx, struct cf_pg *pg,
                         const struct cf_pg_tx_options *options, struct cf_pg_tx **out,
                         struct cf_err *err)
{
    static const struct cf_pg_tx_options defaults = {CF_PG_READ_COMMITTED, false};
    struct cf_pg_tx *tx;
    struct cf_err ignored;
    PGresult *result = NULL;
    enum cf_code code;

    err = err != NULL ? err : &ignored;
    options = options != NULL ? options : &defaults;
    code = cf_ctx_check(ctx, err);
    if (code != CF_OK) {
        return code;
    }
    tx = calloc(1, sizeof(*tx));
    if (tx == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a transaction");
    }
    code = cf__pg_pool_acquire(ctx, cf__pg_pool_here(pg), &tx->slot, err);
    if (code == CF_OK) {
        code = run(ctx, tx, &begins[options->isolation][options->read_only], NULL, 0, &result, err);
    }
    PQclear(result);
    if (code != CF_OK) {
        cf_pg_rollback(tx);
        return code;
    }
    *out = tx;
    return CF_OK;
}

enum cf_code cf_pg_tx_query(struct cf_ctx *ctx, struct cf_pg_tx *tx, const struct cf_pg_stmt *stmt,
                            const struct cf_pg_param *params, size_t n_params,
                            struct cf_pg_rows **out, struct cf_err *err)
{
    struct cf_err ignored;
    PGresult *result;
    enum cf_code code;

    err = err != NULL ? err : &ignored;
    if (tx->failure.code != CF_OK) {
        return cf__err_give(err, &tx->failure);
    }
    code = cf_ctx_check(ctx, err);
    if (code == CF_OK) {
        code = run(ctx, tx, stmt, params, n_params, &result, err);
    }
    if (code != CF_OK) {
        return fail(tx, err);
    }
    *out = (struct cf_pg_rows *)result;
    return CF_OK;
}

enum cf_code cf_pg_commit(struct cf_ctx *ctx, struct cf_pg_tx *own_tx, struct cf_err *err)
{
    struct cf_err ignored;
    enum cf_code code;

    err = err != NULL ? err : &ignored;
    if (own_tx->failure.code != CF_OK) {
        code = cf__err_give(err, &own_tx->failure);
    } else {
        code = cf_ctx_check(ctx, err);
    }
    if (code == CF_OK) {
        code = send_commit(own_tx, err);
    }
    cf_pg_rollback(own_tx);
    return code == CF_OK ? CF_OK : cf_err_wrap(err, code, "commit");
}

void cf_pg_rollback(struct cf_pg_tx *own_tx)
{
    if (own_tx != NULL) {
        if (own_tx->slot != NULL) {
            cf__pg_give_back(own_tx->slot);
        }
        free(own_tx);
    }
}
