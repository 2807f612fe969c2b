/* SPDX-License-Identifier: MIT */
/* Streams of rows: see pg_stream.h.
 *
 * The slot stays BUSY from the statement to its end. Nothing is read ahead: while nobody waits for
 * a batch the connection's watch stops at the first whole answer (is_full() in socket.c), libpq's
 * buffer keeps what it has, the socket's fills, and the server sleeps in its send. A server that
 * sleeps there does not see a cancel: so a stream that is given up goes the way of every statement,
 * through both fences, only if little of it is left to read;
 * else its connection is closed, which wakes.
 *
 * The slot is given back when the answer to the Sync was seen, not when the stream is closed. */
#include <curfew/pg_stream.h>

#include <stdlib.h>

#include <curfew/clock.h>
#include <curfew/wait.h>

#include "curfew/core/err_private.h"
#include "curfew/pg/pg_private.h"

struct cf_pg_stream {
    struct cf__pg_slot *slot; /* BUSY; NULL: the stream has ended. */
    const struct cf_pg_stmt *stmt;
    int64_t slice_ends_ns; /* When the other fibers get their turn, also if rows are there. */
    struct cf_err end;     /* How it ended. */
};

/* Internal helpers */

/* Leave the connection to the pool, which cancels what runs on it. */
static void give_up(struct cf_pg_stream *stream)
{
    cf__pg_cancel_stream(stream->slot);
    stream->slot = NULL;
}

/* Rows that are always there must not keep the loop: its other fibers run once a slice. */
static enum cf_code take_turns(struct cf_ctx *ctx, struct cf_pg_stream *stream, struct cf_err *err)
{
    enum cf_code code;

    if (cf_now_ns() < stream->slice_ends_ns) {
        return cf_ctx_check(ctx, err);
    }
    code = cf_yield(ctx, err);
    stream->slice_ends_ns = cf_now_ns() + CF__PG_SLICE_NS;
    return code;
}

/* Wait for a batch. However it fails, the stream has ended. */
static enum cf_code take_batch(struct cf_ctx *ctx, struct cf_pg_stream *stream, PGresult **out,
                               struct cf_err *err)
{
    struct cf__pg_conn *conn = stream->slot->conn;
    PGresult *result = NULL;
    enum cf_code code = take_turns(ctx, stream, err);

    if (code == CF_OK) {
        code = cf__pg_conn_wait(ctx, conn, err);
    }
    if (code != CF_OK) {
        give_up(stream);
        return code;
    }
    code = cf__pg_conn_batch(conn, &result, err);
    if (code != CF_OK) {
        cf__pg_give_back(stream->slot);
        stream->slot = NULL;
        return code;
    }
    code = cf__pg_rows_check(result, stream->stmt, err);
    if (code != CF_OK) {
        PQclear(result);
        give_up(stream);
        return code;
    }
    *out = result;
    return CF_OK;
}

/* Life cycle */

enum cf_code cf_pg_stream_open(struct cf_ctx *ctx, struct cf_pg *pg, const struct cf_pg_stmt *stmt,
                               const struct cf_pg_param *params, size_t n_params,
                               const struct cf_pg_stream_options *options,
                               struct cf_pg_stream **out, struct cf_err *err)
{
    static const struct cf_pg_stream_options defaults = {0};
    struct cf__pg_pool *pool = cf__pg_pool_here(pg);
    struct cf_pg_stream *stream;
    enum cf_code code;

    options = options != NULL ? options : &defaults;
    code = cf_ctx_check(ctx, err);
    if (code != CF_OK) {
        return code;
    }
    stream = calloc(1, sizeof(*stream));
    if (stream == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a stream of rows");
    }
    code = cf__pg_pool_acquire(ctx, pool, &stream->slot, err);
    if (code != CF_OK) {
        free(stream);
        return code;
    }
    code = cf__pg_conn_send_stream(stream->slot->conn, stmt, params, n_params,
                                   options->batch_max > 0 ? options->batch_max : 1,
                                   options->statement_timeout_ns, err);
    if (code != CF_OK) {
        cf__pg_give_back(stream->slot);
        free(stream);
        return cf_err_phase(err, code, "query");
    }
    (void)atomic_fetch_add_explicit(&pool->queries, 1, memory_order_relaxed);
    stream->stmt = stmt;
    stream->slice_ends_ns = cf_now_ns() + CF__PG_SLICE_NS;
    *out = stream;
    return CF_OK;
}

void cf_pg_stream_close(struct cf_pg_stream *own_stream)
{
    if (own_stream != NULL) {
        if (own_stream->slot != NULL) {
            give_up(own_stream);
        }
        free(own_stream);
    }
}

/* Operations */

enum cf_code cf_pg_stream_next(struct cf_ctx *ctx, struct cf_pg_stream *stream,
                               struct cf_pg_rows **out, struct cf_err *err)
{
    struct cf_err failure;
    PGresult *result = NULL;
    enum cf_code code;

    if (stream->slot != NULL) {
        code = take_batch(ctx, stream, &result, &failure);
        if (code == CF_OK) {
            *out = (struct cf_pg_rows *)result;
            return CF_OK;
        }
        stream->end = failure;
        if (code != CF_ECLOSED) {
            (void)cf_err_phase(&stream->end, code, "query");
        }
    }
    return cf__err_give(err, &stream->end);
}
