/* SPDX-License-Identifier: MIT */
/* Rows from PostgreSQL as they arrive: for a result that is too large for memory.
 *
 * A stream borrows a connection for one statement, from cf_pg_stream_open() to its end, and hands
 * out rows while the server still works. Rows are read from the socket only when they are asked
 * for, so a slow reader slows the server down. If a stream ends early, because the context of a
 * call ends or because it is closed, its statement is cancelled, as that of a cf_pg_query() is.
 *
 * Invariant: a stream holds no more than one batch, what libpq read along with it (16 KiB, or the
 * largest row), and the socket's buffers. The end is reported only if the server has said that the
 * statement succeeded: a result that is cut short is a failure, after the rows that came.
 *
 *     code = cf_pg_stream_open(ctx, pg, &all_orders, NULL, 0, NULL, &stream, err);
 *     if (code != CF_OK) { return code; }
 *     while ((code = cf_pg_stream_next(ctx, stream, &rows, err)) == CF_OK) {
 *         print(rows);
 *         cf_pg_rows_free(rows);
 *     }
 *     cf_pg_stream_close(stream);
 *     return code == CF_ECLOSED ? CF_OK : code;     // closed: that was all
 *
 * Thread safety: a stream belongs to the loop that it was opened on (one of the database's:
 * asserted), and there to one fiber at a time. Rows belong to one owner, on any thread. */
#ifndef CURFEW_PG_STREAM_H
#define CURFEW_PG_STREAM_H

#include <curfew/base.h>
#include <curfew/ctx.h>
#include <curfew/err.h>
#include <curfew/pg.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cf_pg_stream;

struct cf_pg_stream_options {
    /* The server's limit for this statement, in place of the session's, as by SET LOCAL: an export
     * may take longer than a query. 0: the session's. */
    int64_t statement_timeout_ns;

    /* Rows per batch. A call waits for that many, or the end. With libpq before 17 it is always
     * one. 0: 1. */
    size_t batch_max;
};

/* Life cycle */

/* Send `stmt`, and return before its first row. `options` may be NULL for the defaults.
 *
 * Ownership: borrows `params` for the call; the caller owns *out, cf_pg_stream_close(), on every
 * path.
 * Blocks: until a connection is free, or `ctx` is done. If `ctx` is already done, nothing is sent.
 * Fails as cf_pg_query() does before the statement runs. */
CF_API CF_MUST enum cf_code cf_pg_stream_open(struct cf_ctx *ctx, struct cf_pg *pg,
                                              const struct cf_pg_stmt *stmt,
                                              const struct cf_pg_param *params, size_t n_params,
                                              const struct cf_pg_stream_options *options,
                                              struct cf_pg_stream **out, struct cf_err *err);

/* End the stream. If it was not read to its end, its statement is cancelled. Never blocks: the pool
 * does this before it lends the connection again. If more than 64 KiB of rows wait in the socket,
 * the connection is closed instead: the server, asleep in its send, would notice a cancel only when
 * they had been read. Frees `own_stream`; NULL is allowed. */
CF_API void cf_pg_stream_close(struct cf_pg_stream *own_stream);

/* Operations */

/* Get the next rows, at least one.
 *
 * Ownership: the caller owns *out, cf_pg_rows_free(); they may outlive the stream.
 * Blocks: until they are there, or `ctx` is done: then it returns at once, and the stream has
 * ended.
 * Fails with CF_ECLOSED: that was all, and the statement succeeded; else as cf_pg_query() does,
 * after the rows before. From then on every call fails the same way. */
CF_API CF_MUST enum cf_code cf_pg_stream_next(struct cf_ctx *ctx, struct cf_pg_stream *stream,
                                              struct cf_pg_rows **out, struct cf_err *err);

#ifdef __cplusplus
}
#endif

#endif
