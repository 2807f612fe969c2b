/* SPDX-License-Identifier: MIT */
/* The parts of the PostgreSQL client and what they share. All of it belongs to one loop's thread,
 * but for what is marked otherwise. */
#ifndef CURFEW_PG_PG_PRIVATE_H
#define CURFEW_PG_PG_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include <libpq-fe.h>

#include <curfew/pg.h>

#include "curfew/core/list.h"
#include "curfew/runtime/loop_private.h"
#include "curfew/runtime/waiting.h"

struct cf_lane;

/* conn.c, session.c, socket.c: one connection (what these share: conn_private.h) */

/* Tells whether two connections lead to the same server: its start, address and port. */
#define CF__PG_IDENTITY_SIZE 128

/* Bytes of one statement's parameters. libpq doubles its buffer until they fit, and keeps it as
 * long as the connection: one that has sent more is closed when it is given back. */
#define CF__PG_SENT_MAX ((size_t)1 << 20)

/* A statement as the server has it for this connection. */
struct cf__pg_prepared {
    const struct cf_pg_stmt *stmt;
    unsigned version; /* From 1. Part of its name, because a name cannot be given again. */
    bool is_stale;    /* The server has it no more, or will not run it. */
    Oid types[CF_PG_PARAMS_MAX]; /* 0: the parameter was NULL, and the server chose. */
};

/* What was sent and not yet answered: one statement and its Sync.
 * (A later pipeline has several.) */
struct cf__pg_section {
    size_t prepared;      /* The statement: its place in the connection's list. */
    size_t batch_max;     /* > 0: its rows are handed out as they come, so many at once at most. */
    bool pending;         /* The Sync is not answered. */
    bool timeout_pending; /* The next answer is that of the statement that sets its timeout. */
    bool parse_pending;   /* The next one, or the one behind that, is that of the Parse. */
    bool in_batches;      /* libpq knows about batch_max. */
    bool dropped;         /* Nobody wants its rows any more. */
    bool canceled;        /* 57014 was among the answers. */
    PGresult *rows;       /* The statement's, or a batch of them, once there; owned. */
    struct cf_err err;    /* The first error; CF_OK so far. */
};

struct cf__pg_request;

struct cf__pg_conn {
    PGconn *pq;
    struct cf__watch *watch; /* Of its socket, from connected to closed. */
    PGcancel *cancel;        /* Taken at connect; NULL while a job of the lane has it. */
    struct cf__pg_request
        *asked; /* A cancel that was asked for, or NULL; see cf__pg_dispatch_begin(). */
    struct cf__wait *reader; /* Who waits for an answer, or NULL. */
    bool broken;             /* The socket has ended: only closing is left. */
    bool is_paused;          /* Its input stays in the socket; see is_full(). */
    bool is_swollen;         /* It sent more than CF__PG_SENT_MAX at once, and keeps the room. */
    int backend_pid;
    bool is_direct; /* The server's pid is the one libpq knows: no pooler between. */
    char identity[CF__PG_IDENTITY_SIZE];
    struct cf__pg_section section;
    struct cf__pg_prepared *prepared; /* With room for one more while a Parse is pending. */
    size_t n_prepared;
    size_t prepared_capacity;

    void (*on_idle_input)(void *arg); /* Input, or the end, with no section pending. */
    void (*on_notification)(void *arg, const PGnotify *notification); /* NULL: they are dropped. */
    void *arg;
};

/* Connect, log in, set the session's nets and read the identity. The list of hosts is tried from
 * its entry `skip` on, round and round. *next_step_ns is shared by all that connect on a loop, and
 * 0 at first. Blocks: for that, under `ctx`.
 * Fails with CF_EUNAVAIL, CF_ENOMEM, CF_ECANCELED, CF_EDEADLINE. */
CF_MUST enum cf_code cf__pg_conn_open(struct cf_ctx *ctx, struct cf_pg *pg, unsigned skip,
                                      int64_t *next_step_ns, struct cf__pg_conn **out,
                                      struct cf_err *err);

/* Close the socket and free. NULL is allowed. */
void cf__pg_conn_close(struct cf__pg_conn *conn);

/* Send one statement under one Sync. Nothing may be pending. Never blocks: what the socket does not
 * take now is written by the watch. Fails with CF_EUNAVAIL (then it is broken), CF_ENOMEM. */
CF_MUST enum cf_code cf__pg_conn_send(struct cf__pg_conn *conn, const struct cf_pg_stmt *stmt,
                                      const struct cf_pg_param *params, size_t n_params,
                                      struct cf_err *err);

/* The same for a statement whose rows are taken by cf__pg_conn_batch(), up to `batch_max` at once.
 * statement_timeout_ns > 0: its own, in place of the session's, until its Sync. */
CF_MUST enum cf_code cf__pg_conn_send_stream(struct cf__pg_conn *conn,
                                             const struct cf_pg_stmt *stmt,
                                             const struct cf_pg_param *params, size_t n_params,
                                             size_t batch_max, int64_t statement_timeout_ns,
                                             struct cf_err *err);

/* Take the answers that are there. True: the section is complete, or a batch is there. Looks at no
 * more than CF__PG_SLICE_NS worth of them. */
bool cf__pg_conn_pump(struct cf__pg_conn *conn);

/* Wait until the section is complete, a batch there, or the connection broken.
 * Fails with CF_ECANCELED, CF_EDEADLINE, when `ctx` ends first; the section stays pending. */
CF_MUST enum cf_code cf__pg_conn_wait(struct cf_ctx *ctx, struct cf__pg_conn *conn,
                                      struct cf_err *err);

/* Hand out the rows of a complete section, or its error. */
CF_MUST enum cf_code cf__pg_conn_result(struct cf__pg_conn *conn, PGresult **out,
                                        struct cf_err *err);

/* Hand out the batch that cf__pg_conn_wait() has waited for.
 * Fails with CF_ECLOSED when the section is complete, or with its error. */
CF_MUST enum cf_code cf__pg_conn_batch(struct cf__pg_conn *conn, PGresult **out,
                                       struct cf_err *err);

/* Throw away the rows that are there, and all that come. */
void cf__pg_conn_drop(struct cf__pg_conn *conn);

/* Look at the socket of an idle connection. False: it has ended. */
bool cf__pg_conn_alive(struct cf__pg_conn *conn);

#define CF__PG_SLICE_NS CF_MS

/* error.c: what PostgreSQL says, as an error */

void cf__pg_err_from_result(const PGresult *result, struct cf_err *err);
enum cf_code cf__pg_err_from_conn(PGconn *pq, const char *what, struct cf_err *err);

/* Whether it is what the server says before it ends the session. Its socket may end much later, or
 * never. */
bool cf__pg_is_last_word(const PGresult *result);

/* backoff.c: waits between attempts */

/* What spreads that which would happen at once in all pools and processes: a number from 0 to 1, of
 * a state of the caller's own (xorshift64). */
void cf__pg_jitter_init(uint64_t *random);
double cf__pg_jitter(uint64_t *random);

/* How long to wait after so many failures in a row before this one:
 * growing up to `max_ns`, jittered. */
int64_t cf__pg_backoff_ns(uint64_t *random, unsigned failures, int64_t max_ns);

/* Sleep, if need be without memory: what is done again and again must not end for good because a
 * timer could not be had once. False: `ctx` is done. */
bool cf__pg_pause_until(struct cf_ctx *ctx, int64_t at_ns);

/* resolve.c: the settings of a connection, names resolved in their lane */

struct cf__pg_settings {
    const char **keywords; /* NULL-terminated, as PQconnectStartParams() wants them. */
    const char **values;
    PQconninfoOption *parsed; /* Owns most of the values. */
    char *host;               /* Owned, one entry an address; NULL: as it was parsed. */
    char *hostaddr;
    char *port;
};

/* Have OpenSSL do once what it must not lack memory for, as libpq uses it. */
CF_MUST enum cf_code cf__pg_openssl_prepare(struct cf_err *err);

/* The settings of one attempt, with lists that begin with their entry `skip`, round and round.
 * Blocks: while names are resolved, under `ctx`. The caller owns *out: cf__pg_settings_fini(). */
CF_MUST enum cf_code cf__pg_settings_init(struct cf_ctx *ctx, struct cf_pg *pg, unsigned skip,
                                          struct cf__pg_settings *out, struct cf_err *err);
void cf__pg_settings_fini(struct cf__pg_settings *settings);

/* dispatch.c: the ways to have a backend signalled */

/* How many more cancels that cost the server a process a loop may have under way, and who waits. */
struct cf__pg_budget {
    size_t left;
    struct cf__list line; /* First come first served; empty while some are left. */
};

/* `max` < 1: 1. */
void cf__pg_budget_init(struct cf__pg_budget *budget, size_t max);

/* pool.c: the connections of one loop */

/* Where a slot is, and which list holds it.
 *
 *     EMPTY --needed--> OPENING --connected--> BUSY <--lent, released--> IDLE
 *       ^                  | failed            | | ^                       |
 *       |                  v                   | | | both fences           | dead, old
 *       +--------------(closed)<----broken-----+ | |                       |
 *                        ^  ^                    v |                       |
 *                        |  +-----no fence--- CANCELING                    |
 *                        +-------------------------------------------------+
 */
enum cf__pg_slot_state {
    CF__PG_EMPTY,     /* No connection. In the pool's empty list. */
    CF__PG_OPENING,   /* With a fiber of the pool that connects. In no list. */
    CF__PG_IDLE,      /* In the pool's idle list, last used first. */
    CF__PG_BUSY,      /* Lent: with a query. In no list. */
    CF__PG_CANCELING, /* With a fiber of the pool that takes it through the fences. In no list. */
    CF__PG_STATES,
};

struct cf__pg_pool;

struct cf__pg_slot {
    struct cf__list node;
    struct cf__pg_pool *pool;
    enum cf__pg_slot_state state;
    struct cf__pg_conn *conn; /* From connected to closed. */
    int64_t expires_ns;       /* When it is too old. */
    int64_t idle_since_ns;
    int64_t canceled_ns; /* When the context of its query ended; 0: it is only cleaned up. */
};

struct cf__pg_pool {
    struct cf_pg *pg;
    struct cf_loop *loop;
    struct cf_ctx *ctx;        /* Ends when the pool closes. */
    struct cf_ctx *cancel_ctx; /* Of cancels: ends a while later. */
    struct cf__fiber *closer;  /* What closing runs on; NULL once it does. */
    struct cf__pg_slot *slots;
    size_t n_kept; /* Of them, open also when idle: at least one. */
    struct cf__list empty;
    struct cf__list idle;
    struct cf__list waiters; /* struct waiter, first come first served. */
    size_t n_waiters;
    size_t fibers;        /* Of the pool: openers, cancelers, the housekeeper. */
    struct cf__wait *end; /* Who waits for the last of them. */
    bool closing;
    unsigned failures;      /* Attempts to connect that failed, since the last that did not. */
    int64_t open_at_ns;     /* No attempt before. */
    struct cf_err last_err; /* Of the last failed attempt. */
    uint64_t random;        /* The state of its jitter. */
    int64_t next_step_ns;   /* When the next step of a log-in may be computed. */
    struct cf__pg_budget budget;

    /* For other threads to read: each is a figure of its own, so relaxed suffices. */
    atomic_size_t count[CF__PG_STATES];
    atomic_size_t waiting;
    atomic_uint_fast64_t opened;
    atomic_uint_fast64_t queries;
    atomic_uint_fast64_t cancels[CF_PG_OUTCOME_COUNT];
};

CF_MUST enum cf_code cf__pg_pool_init(struct cf__pg_pool *pool, struct cf_pg *pg,
                                      struct cf_loop *loop, size_t n_slots, size_t n_kept,
                                      struct cf_err *err);

/* Begin to connect. On the loop. */
CF_MUST enum cf_code cf__pg_pool_start(struct cf__pg_pool *pool, struct cf_err *err);

/* Close all and wait for the pool's fibers; cancels that are under way may go on until `by_ns`. On
 * a fiber of the loop. */
void cf__pg_pool_close(struct cf__pg_pool *pool, int64_t by_ns);
void cf__pg_pool_fini(struct cf__pg_pool *pool);

/* Borrow a connection. Blocks: until one is free, under `ctx`. */
CF_MUST enum cf_code cf__pg_pool_acquire(struct cf_ctx *ctx, struct cf__pg_pool *pool,
                                         struct cf__pg_slot **out, struct cf_err *err);

/* Give back what was borrowed, whole or broken: to the next waiter, to the idle ones, or away. */
void cf__pg_pool_release(struct cf__pg_slot *slot);

/* The same for one that must not be used again; `why` may be NULL. */
void cf__pg_pool_discard(struct cf__pg_slot *slot, enum cf_pg_event_kind kind,
                         const struct cf_err *why);

/* Start a fiber that the pool waits for when it closes. It ends with cf__pg_pool_fiber_end(). */
CF_MUST enum cf_code cf__pg_pool_spawn(struct cf__pg_pool *pool, cf_fiber_fn fn, void *arg,
                                       struct cf_err *err);
void cf__pg_pool_fiber_end(struct cf__pg_pool *pool);

void cf__pg_slot_move(struct cf__pg_slot *slot, enum cf__pg_slot_state state);

/* query.c: one statement */

/* The pool of the calling fiber's loop (asserted). */
struct cf__pg_pool *cf__pg_pool_here(struct cf_pg *pg);

/* CF_OK if every value of a result is what stmt->columns says; else CF_EINTERNAL, and where not. */
CF_MUST enum cf_code cf__pg_rows_check(const PGresult *result, const struct cf_pg_stmt *stmt,
                                       struct cf_err *err);

/* Run a statement on a slot that is BUSY. *out_taken, set in every case: `ctx` ended while it ran,
 * and the slot was handed to cf__pg_cancel(). Else it is still the caller's. Blocks: until the rows
 * are there or `ctx` is done. Fails as cf_pg_query() does. */
CF_MUST enum cf_code cf__pg_run(struct cf_ctx *ctx, struct cf__pg_slot *slot,
                                const struct cf_pg_stmt *stmt, const struct cf_pg_param *params,
                                size_t n_params, PGresult **out, bool *out_taken,
                                struct cf_err *err);

/* Give back a slot that is BUSY, in whatever state its session is. */
void cf__pg_give_back(struct cf__pg_slot *slot);

/* dispatch.c, again: what needs a pool */

/* Ask for the backend of `conn` to be signalled, now and not when a fiber gets to it, if that is
 * for the control connection to do and the statement runs. Then cf__pg_dispatch() has to follow, or
 * the connection be closed. Never blocks. */
void cf__pg_dispatch_begin(struct cf__pg_pool *pool, struct cf__pg_conn *conn);

/* Have the backend of `conn` signalled, and wait until that is over (F1): by the way that was
 * chosen, or by the first that can. `*out_sent` becomes true if one did, also by a request that was
 * begun; it stays as it was if the statement ended before its turn came. Blocks: for that, under
 * `ctx`.
 * Fails as the last of the ways that were tried: CF_EUNAVAIL, CF_EINVAL (it leads elsewhere),
 * CF_ENOMEM: nothing was sent; CF_EIO, and as `ctx` does: it may yet arrive. */
CF_MUST enum cf_code cf__pg_dispatch(struct cf_ctx *ctx, struct cf__pg_pool *pool,
                                     struct cf__pg_conn *conn, bool *out_sent, struct cf_err *err);

#ifdef CF_FENCE_TEST
/* Have a fiber of the pool's send it, and wait for nothing. False: no memory. */
bool cf__pg_dispatch_loosely(struct cf__pg_pool *pool, const struct cf__pg_conn *conn);
#endif

/* cancel.c: the two fences */

/* Take over a slot whose query was given up: cancel it, pass the fences, and release it. Cannot
 * fail; at the worst the connection is closed. */
void cf__pg_cancel(struct cf__pg_slot *slot);

/* The same for a stream of rows. One that has many of them in its socket is closed. */
void cf__pg_cancel_stream(struct cf__pg_slot *slot);

/* The same for one whose statement has ended, but not its transaction. No cancel: not counted. */
void cf__pg_clean(struct cf__pg_slot *slot);

#ifdef CF_FENCE_TEST
#define CF__PG_SKIP_F1 1U
#define CF__PG_SKIP_F2 2U
/* Take fences down, to see what they are for. For bench/race only. */
CF_API void cf__pg_skip_fences(unsigned mask);
unsigned cf__pg_skipped_fences(void);
#endif

/* control.c: the control connection, one a process, on its first loop */

struct cf__pg_control;

CF_MUST enum cf_code cf__pg_control_new(struct cf_pg *pg, struct cf_loop *loop,
                                        struct cf__pg_control **out, struct cf_err *err);
/* End its fiber. On a fiber of its loop. */
void cf__pg_control_stop(struct cf__pg_control *control);
void cf__pg_control_free(struct cf__pg_control *control);

/* Ask for the control connection to be there before it is needed. Any loop. */
void cf__pg_control_want(struct cf__pg_control *control);

/* Have the server signal the backend of `conn`. Any loop. The request is to be waited for, or
 * forgotten. Never blocks.
 * Fails with CF_EINVAL if a pooler stands before the backend, CF_ENOMEM. */
CF_MUST enum cf_code cf__pg_control_ask(struct cf__pg_control *control,
                                        const struct cf__pg_conn *conn, struct cf__pg_request **out,
                                        struct cf_err *err);

/* Wait until it has (F1), and free the request. Blocks: for that, under `ctx`.
 * Fails with CF_EUNAVAIL when it did not, CF_EINVAL when `conn` leads to another server; with
 * CF_EIO when the answer was lost, and as `ctx` does: then it may yet happen. */
CF_MUST enum cf_code cf__pg_control_answer(struct cf_ctx *ctx, struct cf__pg_request *request,
                                           struct cf_err *err);

/* Instead: its connection is closed. What was not sent is not sent any more. NULL is allowed. */
void cf__pg_control_forget(struct cf__pg_request *request);

/* db.c: the database */

struct cf_pg {
    struct cf_pg_options options; /* With defaults filled in; strings owned. Constant after new. */
    struct cf__pg_pool *pools;
    size_t n_pools;
    struct cf_lane *resolve_lane;
    struct cf_lane *cancel_lane;
    struct cf__pg_control *control; /* NULL: another way was chosen. */
    int64_t close_by_ns;            /* When closing gives up cancels. */

    pthread_mutex_t mu;     /* Guards everything below; never held across a wait. */
    struct cf_err last_err; /* Why there is no connection. */
    int64_t retry_at_ns;
};

void cf__pg_report(struct cf_pg *pg, const struct cf_pg_event *event);

#endif
