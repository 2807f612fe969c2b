/* SPDX-License-Identifier: MIT */
/* Transactions on one PostgreSQL connection, under a context.
 *
 * A transaction borrows a connection from cf_pg_begin() until it is committed or rolled back, which
 * ends it in every case. When a statement's context ends, the statement is cancelled, and with it
 * the transaction: later statements fail with the same error, and only a rollback is left. COMMIT
 * alone is shielded: once it has been sent, no context cuts it short, only a time limit of its own,
 * because it could not be known what had become of it.
 *
 * Invariant: a connection goes back to the pool only with no transaction open, and cf_pg_commit()
 * returns CF_OK only if the server said that it has committed.
 *
 *     code = cf_pg_begin(ctx, pg, NULL, &tx, err);
 *     if (code != CF_OK) { return code; }
 *     code = cf_pg_tx_query(ctx, tx, &add_order, params, 2, &rows, err);
 *     if (code != CF_OK) { cf_pg_rollback(tx); return code; }
 *     cf_pg_rows_free(rows);
 *     return cf_pg_commit(ctx, tx, err);
 *
 * Thread safety: a transaction belongs to one fiber of one of the database's loops. */
#ifndef CURFEW_PG_TX_H
#define CURFEW_PG_TX_H

#include <curfew/base.h>
#include <curfew/ctx.h>
#include <curfew/err.h>
#include <curfew/pg.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cf_pg_tx;

enum cf_pg_isolation {
    CF_PG_READ_COMMITTED,
    CF_PG_REPEATABLE_READ,
    CF_PG_SERIALIZABLE,
};

struct cf_pg_tx_options {
    enum cf_pg_isolation isolation; /* READ_COMMITTED. */
    bool read_only;
};

/* Begin a transaction. `options` may be NULL for the defaults.
 *
 * Ownership: the caller owns *out: cf_pg_commit() or cf_pg_rollback(), on every path.
 * Blocks: until a connection is free and has begun, or `ctx` is done.
 * Fails as cf_pg_query() does. */
CF_API CF_MUST enum cf_code cf_pg_begin(struct cf_ctx *ctx, struct cf_pg *pg,
                                        const struct cf_pg_tx_options *options,
                                        struct cf_pg_tx **out, struct cf_err *err);

/* Run a statement in the transaction: as cf_pg_query(), but on its connection. After a failure,
 * which a `ctx` that is already done is too, the transaction cannot be committed; further
 * statements fail with the first failure's error.
 * Blocks: until the rows are there, or `ctx` is done: then it returns at once. */
CF_API CF_MUST enum cf_code cf_pg_tx_query(struct cf_ctx *ctx, struct cf_pg_tx *tx,
                                           const struct cf_pg_stmt *stmt,
                                           const struct cf_pg_param *params, size_t n_params,
                                           struct cf_pg_rows **out, struct cf_err *err);

/* Commit, and end the transaction. If a statement has failed, or `ctx` is already done, roll back
 * instead and return that failure.
 *
 * Ownership: frees `own_tx`, also when it fails.
 * Blocks: until the server has answered, even if `ctx` ends meanwhile, but at most
 * commit_timeout_ns.
 * Fails with the code of the server's error, and then nothing was committed; with CF_EUNKNOWN if no
 * answer came: then it may have been committed. */
CF_API CF_MUST enum cf_code cf_pg_commit(struct cf_ctx *ctx, struct cf_pg_tx *own_tx,
                                         struct cf_err *err);

/* Roll back, and end the transaction. Never blocks: the pool does it before it lends the connection
 * again, or closes the connection. Frees `own_tx`; NULL is allowed. */
CF_API void cf_pg_rollback(struct cf_pg_tx *own_tx);

#ifdef __cplusplus
}
#endif

#endif
