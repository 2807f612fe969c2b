/* SPDX-License-Identifier: MIT */
/* Rows of PostgreSQL as they come: for a result that is too large to be held.
 *
 * A stream borrows a connection for one statement, from cf_pg_stream_open() to its end, and hands
 * out the rows while the server still works. What was not asked for is not read from the socket, so
 * that a reader who is slow slows the server down. A stream that ends early, because the context of
 * a call does or because it is closed, has its statement cancelled, as cf_pg_query() has.
 *
 * Invariant: a stream holds no more than one batch, what libpq read along with it (16 KiB, or the
 * largest row), and the socket's buffers. The end is reported only if the server has said that the
 * statement succeeded: a result that was cut short is a failure, after the rows that came.
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
    /* The server's net for this statement, in place of the session's; gone with its transaction, as
     * SET LOCAL. An export may last longer than a query may. 0: the session's. */
    int64_t statement_timeout_ns;

    /* Rows of a batch. More than one are waited for until so many are there or it is the end, and
     * with libpq before 17 are still one. 0: 1. */
    size_t batch_max;
};

/* Life cycle */

/* Send `stmt`, and return before its first row. `options` may be NULL for the defaults.
 *
 * Ownership: borrows `params` for the call; the caller owns *out, cf_pg_stream_close(), on every path.
 * Blocks: until a connection is free, or `ctx` is done. A `ctx` that is done already touches nothing.
 * Fails as cf_pg_query() does before the statement runs. */
CF_API CF_MUST enum cf_code cf_pg_stream_open(struct cf_ctx *ctx, struct cf_pg *pg,
                                              const struct cf_pg_stmt *stmt,
                                              const struct cf_pg_param *params, size_t n_params,
                                              const struct cf_pg_stream_options *options,
                                              struct cf_pg_stream **out, struct cf_err *err);

/* End the stream: one that was not read to its end is cancelled. Never blocks: the pool does it,
 * before it lends the connection again. If more than 64 KiB of rows wait in the socket, the connection
 * is closed instead: the server, asleep in its send, would hear of a cancel only when they were read.
 * Frees `own_stream`; NULL is allowed. */
CF_API void cf_pg_stream_close(struct cf_pg_stream *own_stream);

/* Operations */

/* Hand out the next rows, one at least.
 *
 * Ownership: the caller owns *out, cf_pg_rows_free(), also beyond the stream's end.
 * Blocks: until they are there, or `ctx` is done: then at once, and the stream has ended.
 * Fails with CF_ECLOSED: that was all, and the statement succeeded; else as cf_pg_query() does, after
 * the rows that came before. From then on every call fails with the same. */
CF_API CF_MUST enum cf_code cf_pg_stream_next(struct cf_ctx *ctx, struct cf_pg_stream *stream,
                                              struct cf_pg_rows **out, struct cf_err *err);

#ifdef __cplusplus
}
#endif

#endif
