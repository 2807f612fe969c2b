/* SPDX-License-Identifier: MIT */
/* A PostgreSQL client whose queries end when their context does.
 *
 * A database (struct cf_pg) has a pool of connections on each of its loops. cf_pg_query() borrows a
 * connection for one statement. When the context ends while the statement runs, the call returns at
 * once with the context's error. The pool then cancels the statement on the server, and lends the
 * connection again only when two fences were passed: the cancel itself is complete (F1), and every
 * result is drained with the session idle (F2). Otherwise the connection is closed. Its slot stays
 * counted all the while.
 *
 * Invariant: no cancel ever reaches a statement that it was not meant for, and the process never
 * has more connections than pool_max, one control connection and one per listener (pg_listen.h);
 * where the control connection cannot cancel, cancels_max more, each for a moment. (The server may
 * count more: a backend whose connection was closed in mid-statement takes up to half a second to
 * notice, and a new connection may be open by then.)
 *
 *     static const struct cf_pg_stmt find_user = {
 *         .name = "find_user",
 *         .sql = "SELECT name FROM users WHERE id = $1",
 *     };
 *
 *     struct cf_pg_param params[] = {cf_pg_i64(42)};
 *     struct cf_pg_rows *rows;
 *     code = cf_pg_query(ctx, pg, &find_user, params, 1, &rows, err);
 *     if (code != CF_OK) { return code; }
 *     puts(cf_pg_get_text(rows, 0, 0));
 *     cf_pg_rows_free(rows);
 *
 * Thread safety: cf_pg_query() on a fiber of one of the database's loops (asserted); life cycle on
 * a plain thread; queries on any thread. Rows belong to one owner. */
#ifndef CURFEW_PG_H
#define CURFEW_PG_H

#include <curfew/base.h>
#include <curfew/ctx.h>
#include <curfew/err.h>
#include <curfew/loop.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cf_pg;
struct cf_pg_rows;

/* How a statement is cancelled on the server. If it cannot be, its connection is closed, and the
 * server ends the statement when it checks for its client, each half second (PostgreSQL 14 or
 * later, on Linux).
 *
 * The control connection cancels on its own server only. It is not used if a balancer has led it to
 * another server, or if a pooler (PgBouncer) hides the backend; cancels then go the next way, which
 * leads through the pooler. CONTROL alone then closes every connection whose statement is
 * cancelled, and CF_PG_EVENT_CONNECTED says so. */
enum cf_pg_cancel_way {
    CF_PG_CANCEL_AUTO,     /* The first of the following that works. */
    CF_PG_CANCEL_CONTROL,  /* SELECT pg_cancel_backend() on a connection to the same server. */
    CF_PG_CANCEL_ASYNC,    /* libpq's PQcancelPoll(), encrypted as the connection: libpq 17. */
    CF_PG_CANCEL_PQCANCEL, /* libpq's PQcancel(), in a lane of its own, unencrypted. After an ASYNC
                            * that failed, AUTO does not use it for an encrypted connection. */
};

/* What became of a cancel. X(symbol, name) */
#define CF_PG_OUTCOMES(X)                                                                          \
    X(CF_PG_NOT_SENT, "not_sent")               /* Nothing was running. */                         \
    X(CF_PG_TOO_LATE, "too_late")               /* The statement had ended by itself. */           \
    X(CF_PG_EFFECTIVE, "effective")             /* It ended the statement (57014). */              \
    X(CF_PG_SERVER_TIMEOUT, "server_timeout")   /* The server's own timeout was first. */          \
    X(CF_PG_DISPATCH_FAILED, "dispatch_failed") /* It could not be sent: connection closed. */     \
    X(CF_PG_CONNECTION_DROPPED, "connection_dropped") /* A fence was not passed in time: closed. */

enum cf_pg_outcome {
#define CF_PG_OUTCOME_ENUM(symbol, name) symbol,
    CF_PG_OUTCOMES(CF_PG_OUTCOME_ENUM)
#undef CF_PG_OUTCOME_ENUM
    CF_PG_OUTCOME_COUNT
};

/* Something worth a line in the log; see on_event. X(symbol, name) */
#define CF_PG_EVENTS(X)                                                                            \
    X(CF_PG_EVENT_CONNECTED, "connected")           /* One was made; err: no way to cancel. */     \
    X(CF_PG_EVENT_CONNECT_FAILED, "connect_failed") /* One could not be made: err, retry_ns. */    \
    X(CF_PG_EVENT_LOST, "lost")                     /* One broke: err. */                          \
    X(CF_PG_EVENT_CLOSED, "closed")                 /* One was closed by us: age, size, fence. */  \
    X(CF_PG_EVENT_CANCELED, "canceled")             /* A cancel is complete: outcome, took_ns. */  \
    X(CF_PG_EVENT_LISTENING, "listening")           /* A listener hears from now on. */            \
    X(CF_PG_EVENT_DEAF, "deaf")                     /* It hears nothing: err, retry_ns. */

enum cf_pg_event_kind {
#define CF_PG_EVENT_ENUM(symbol, name) symbol,
    CF_PG_EVENTS(CF_PG_EVENT_ENUM)
#undef CF_PG_EVENT_ENUM
};

struct cf_pg_event {
    enum cf_pg_event_kind kind;
    int backend_pid;            /* 0 if there was none. */
    struct cf_err err;          /* CF_OK where there is nothing to say. */
    enum cf_pg_outcome outcome; /* Of CANCELED. */
    int64_t took_ns;            /* Of CANCELED: from the context's end to the idle connection. */
    int64_t retry_ns;           /* Of CONNECT_FAILED, DEAF: how long until the next attempt. */
};

struct cf_pg_options {
    const char *url;              /* libpq URL or conninfo, copied. NULL or "": PG* variables. */
    const char *application_name; /* Shown in pg_stat_activity, copied. NULL: "curfew". */
    size_t pool_max;              /* Connections of the process for queries. 0: 16. */
    size_t pool_min;              /* Of those, kept open when idle. 0: one per loop. */
    size_t waiters_max;           /* Queries per loop that may wait for one. 0: 10,000. */
    enum cf_pg_cancel_way cancel; /* 0: AUTO. */
    size_t cancels_max;           /* At once by ASYNC and PQCANCEL, at least one per loop. 0: 8. */
    int64_t connect_timeout_ns;   /* To connect, log in and set up. 0: 5 s. */
    int64_t cancel_timeout_ns;    /* To pass both fences; then the connection is closed. 0: 2 s. */
    int64_t commit_timeout_ns;    /* For the answer to a COMMIT; then it is unknown. 0: 5 s. */
    int64_t statement_timeout_ns; /* The server's own limit, as a safety net. 0: 65 s. */
    int64_t idle_timeout_ns;      /* Close what was idle this long, down to pool_min. 0: 10 min. */
    int64_t lifetime_ns;          /* Close what is this old, give or take a tenth. 0: 1 h. */
    int64_t backoff_max_ns;       /* Cap of the growing, jittered wait between attempts. 0: 5 s. */

    /* Called on a loop for what is worth a log line. Must not wait. May be NULL. */
    void (*on_event)(void *arg, const struct cf_pg_event *event);
    void *arg;
};

/* A statement, declared once, as one static object, because it is known by its address. Prepared on
 * a connection when first used there. Parameters and columns travel in binary; `$n` has the type of
 * the first parameter for it that is not NULL. */
struct cf_pg_stmt {
    const char *name; /* Unique in the process; the prepared statement's name. */
    const char *sql;  /* One statement. */

    /* How its columns are read, one letter each: i integers, t texts, z times, b bytes. A result
     * with other types, because the table has changed or the server sends nonsense, is
     * CF_EINTERNAL. NULL: not checked, but asserted where a column is read. */
    const char *columns;
};

enum cf_pg_type {
    CF_PG_NULL,
    CF_PG_I64,   /* bigint */
    CF_PG_F64,   /* double precision */
    CF_PG_TEXT,  /* text; bytes borrowed for the call */
    CF_PG_TIME,  /* timestamptz, microseconds since 1970 UTC; infinity: INT64_MAX, INT64_MIN */
    CF_PG_BYTES, /* bytea; bytes borrowed for the call */
};

/* PostgreSQL accepts no value and no message of more than 1 GiB: all parameters of a statement
 * together stay below that. */
#define CF_PG_BYTES_MAX ((size_t)1000 * 1000 * 1000)

struct cf_pg_param {
    enum cf_pg_type type;
    union {
        int64_t i64;
        double f64;
        const char *text;
        struct {
            const void *data;
            size_t size;
        } bytes;
    } as;
};

#define CF_PG_PARAMS_MAX 16

static inline struct cf_pg_param cf_pg_i64(int64_t value)
{
    struct cf_pg_param param = {CF_PG_I64, {0}};
    param.as.i64 = value;
    return param;
}

static inline struct cf_pg_param cf_pg_f64(double value)
{
    struct cf_pg_param param = {CF_PG_F64, {0}};
    param.as.f64 = value;
    return param;
}

/* NULL makes an SQL NULL. */
static inline struct cf_pg_param cf_pg_str(const char *value)
{
    struct cf_pg_param param = {CF_PG_NULL, {0}};
    if (value != NULL) {
        param.type = CF_PG_TEXT;
        param.as.text = value;
    }
    return param;
}

static inline struct cf_pg_param cf_pg_time_us(int64_t unix_us)
{
    struct cf_pg_param param = {CF_PG_TIME, {0}};
    param.as.i64 = unix_us;
    return param;
}

/* `size` bytes, at most CF_PG_BYTES_MAX (asserted when they are sent). With size 0 `data` may be
 * NULL; that is an empty value, not an SQL NULL. */
static inline struct cf_pg_param cf_pg_bytes(const void *data, size_t size)
{
    struct cf_pg_param param = {CF_PG_BYTES, {0}};
    param.as.bytes.data = data;
    param.as.bytes.size = size;
    return param;
}

struct cf_pg_stats {
    size_t pool_max;
    size_t idle;      /* Open and free. */
    size_t busy;      /* Running a statement for somebody. */
    size_t canceling; /* Between the end of a context and the fences. */
    size_t opening;   /* Connecting. */
    size_t waiting;   /* Queries that wait for a connection. */
    uint64_t opened;  /* Connections made since the start. */
    uint64_t queries; /* Statements that were sent. */
    uint64_t cancels[CF_PG_OUTCOME_COUNT];
};

/* Life cycle */

/* Make a database with a pool on each of `loops`, and start connecting. It is no failure if the
 * server is away: connecting is retried, with growing waits, for as long as the database lives.
 *
 * Ownership: copies `options`, keeps pointers to the loops, which must outlive it; the caller owns
 * *out, cf_pg_free().
 * Blocks: for a turn of each loop.
 * Fails with CF_EINVAL (a bad URL, pool_max < n_loops, a way to cancel that libpq lacks),
 * CF_ENOMEM, CF_EIO. Call from: a plain thread. */
CF_API CF_MUST enum cf_code cf_pg_new(const struct cf_pg_options *options,
                                      struct cf_loop *const *loops, size_t n_loops,
                                      struct cf_pg **out, struct cf_err *err);

/* Close every connection and free the database. No query may be running or come (asserted). NULL is
 * allowed.
 * Blocks: until cancels that are under way have ended, up to half a second. What has not ended then
 * is left to the server, whose client is gone.
 * Call from: a plain thread, never from a fiber. */
CF_API void cf_pg_free(struct cf_pg *pg);

/* Operations */

/* Run `stmt` and fetch all its rows.
 *
 * Ownership: the caller owns *out, cf_pg_rows_free(). Borrows `params` for the call.
 * Blocks: until a connection is free and the rows are there, or `ctx` is done: then it returns at
 * once. If `ctx` is already done, nothing is sent.
 * Fails with CF_ECANCELED, CF_EDEADLINE (err->phase: "pool" or "query"); CF_EUNAVAIL (no server:
 * err says why), CF_ELIMIT (waiters_max), CF_ENOMEM; and by SQLSTATE, kept in err: CF_EINVAL (22,
 * 23502, 23514), CF_ECONFLICT (23503, 23505, 40), CF_EUNAVAIL (08 but 08P01, 53, 57P, 25006),
 * CF_EDEADLINE (57014 without a cancel of ours: the server's own timeout), CF_EINTERNAL (the
 * rest). */
CF_API CF_MUST enum cf_code cf_pg_query(struct cf_ctx *ctx, struct cf_pg *pg,
                                        const struct cf_pg_stmt *stmt,
                                        const struct cf_pg_param *params, size_t n_params,
                                        struct cf_pg_rows **out, struct cf_err *err);

/* Queries */

/* CF_OK if a connection is open on any loop; else CF_EUNAVAIL, and why in `err`. Does not ask the
 * server: it is what the pools know. */
CF_API enum cf_code cf_pg_ready(struct cf_pg *pg, struct cf_err *err);

/* How long until the next attempt to connect: how long a refused client should wait. */
CF_API int64_t cf_pg_retry_ns(struct cf_pg *pg);

/* Sums over all loops, each read at its own instant. */
CF_API void cf_pg_stats(struct cf_pg *pg, struct cf_pg_stats *out);

/* Whether the library was built with a libpq that can cancel this way: false for ASYNC before
 * 17. */
CF_API bool cf_pg_can_cancel(enum cf_pg_cancel_way way);

/* Whether a URL, with libpq's PG* variables where it is silent, may be that of cf_pg_options: to be
 * asked before a database is made. No name is resolved, nothing connects. `err` repeats no part of
 * the URL. Fails with CF_EINVAL, CF_ENOMEM. */
CF_API CF_MUST enum cf_code cf_pg_url_check(const char *url, struct cf_err *err);

/* Static names. */
CF_API const char *cf_pg_outcome_name(enum cf_pg_outcome outcome);
CF_API const char *cf_pg_event_name(enum cf_pg_event_kind kind);

/* Rows. Row and column count from 0; out of range, or a column of another type, is asserted. */

/* Free the rows and everything read from them. Any thread; NULL is allowed. */
CF_API void cf_pg_rows_free(struct cf_pg_rows *rows);

/* The number of rows. What an INSERT, UPDATE or DELETE without RETURNING has changed is not
 * counted. */
CF_API size_t cf_pg_rows_count(const struct cf_pg_rows *rows);

/* Whether it is an SQL NULL, of a column of any type. */
CF_API bool cf_pg_is_null(const struct cf_pg_rows *rows, size_t row, size_t column);

/* smallint, integer, bigint. NULL gives 0. */
CF_API int64_t cf_pg_get_i64(const struct cf_pg_rows *rows, size_t row, size_t column);

/* text, varchar, name. NULL gives "". Lives as long as the rows. */
CF_API const char *cf_pg_get_text(const struct cf_pg_rows *rows, size_t row, size_t column);

/* bytea, and the number of its bytes. NULL gives 0 bytes, at an address that is not NULL. Lives as
 * long as the rows. */
CF_API const void *cf_pg_get_bytes(const struct cf_pg_rows *rows, size_t row, size_t column,
                                   size_t *out_size);

/* timestamptz, in microseconds since 1970 UTC. NULL gives 0; 'infinity', and what is too late to
 * fit, INT64_MAX; '-infinity' INT64_MIN. */
CF_API int64_t cf_pg_get_time_us(const struct cf_pg_rows *rows, size_t row, size_t column);

#ifdef __cplusplus
}
#endif

#endif
