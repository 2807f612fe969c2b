/* SPDX-License-Identifier: MIT */
/* The listener: one connection that says LISTEN and then waits. See pg_listen.h.
 *
 * A fiber owns it: it connects as a pool's would, with the same nets and the same growing waits,
 * says LISTEN for each channel, and sleeps. Notifications do not wake it: they are handed out where
 * they come in, by the connection's watch. It wakes to ask whether the server is there, because an
 * idle connection whose other end has vanished looks like one on which nothing happens; keepalives
 * would need ten seconds for that.
 *
 * What was committed before the last LISTEN was answered may have been missed, what is committed
 * after it may not: so that is when on_listen is called.
 *
 * Freeing it cancels its context, which ends every wait of the fiber, and waits for the fiber. That
 * runs on a stack that was made with the listener, so that its end needs no memory. */
#include <curfew/pg_listen.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/clock.h>

#include "curfew/pg/pg_private.h"

/* Constants and types */

#define PING_INTERVAL_NS (2 * CF_SECOND)
#define PING_TIMEOUT_NS (2 * CF_SECOND)

static const struct cf_pg_stmt ping = {.name = "cf_ping", .sql = "SELECT 1"};

/* LISTEN and a name whose quotes may all be doubled. */
#define SQL_SIZE (sizeof("LISTEN \"\"") + (size_t)2 * CF_PG_CHANNEL_SIZE_MAX)

struct channel {
    struct cf_pg_stmt stmt;
    char name[32];
    char sql[SQL_SIZE];
};

struct cf_pg_listener {
    struct cf_pg *pg; /* Constant after new, as are these. */
    struct cf_loop *loop;
    struct cf_ctx *ctx;
    struct cf_pg_listen_options options; /* `channels` is not kept: see below. */
    struct channel channels[CF_PG_CHANNELS_MAX];
    size_t n_channels;
    struct cf__fiber *closer; /* What freeing runs on. */

    atomic_bool listens;

    struct cf__pg_conn *conn; /* Loop thread only, as is all below. NULL: not connected. */
    struct cf__wait *sleeper; /* The fiber, when it has nothing to do. */
    struct cf__wait *end;     /* Who waits for the fiber's end. */
    uint64_t random;
    unsigned failures; /* Attempts in a row that failed. */
    bool ended;        /* The fiber. */
};

/* Internal helpers: channels */

/* The name in quotes: any byte may stand in it, and a quote twice. */
static void make_channel(struct channel *channel, size_t number, const char *name)
{
    size_t n = strlen("LISTEN \"");

    (void)snprintf(channel->name, sizeof(channel->name), "cf_listen_%zu", number);
    memcpy(channel->sql, "LISTEN \"", n);
    for (; *name != '\0'; name++) {
        if (*name == '"') {
            channel->sql[n++] = '"';
        }
        channel->sql[n++] = *name;
    }
    channel->sql[n++] = '"';
    channel->sql[n] = '\0';
    channel->stmt = (struct cf_pg_stmt){.name = channel->name, .sql = channel->sql};
}

static enum cf_code take_options(struct cf_pg_listener *listener,
                                 const struct cf_pg_listen_options *options, struct cf_err *err)
{
    if (options->n_channels == 0 || options->n_channels > CF_PG_CHANNELS_MAX) {
        return cf_err_set(err, CF_EINVAL, "to listen takes from 1 to %d channels",
                          CF_PG_CHANNELS_MAX);
    }
    for (size_t i = 0; i < options->n_channels; i++) {
        size_t size = strlen(options->channels[i]);

        if (size == 0 || size > CF_PG_CHANNEL_SIZE_MAX) {
            return cf_err_set(err, CF_EINVAL, "a channel's name has from 1 to %d bytes",
                              CF_PG_CHANNEL_SIZE_MAX);
        }
        make_channel(&listener->channels[i], i, options->channels[i]);
    }
    listener->n_channels = options->n_channels;
    listener->options = *options;
    listener->options.channels = NULL;
    if (options->ping_interval_ns == 0) {
        listener->options.ping_interval_ns = PING_INTERVAL_NS;
    }
    if (options->ping_timeout_ns == 0) {
        listener->options.ping_timeout_ns = PING_TIMEOUT_NS;
    }
    return CF_OK;
}

/* Internal helpers: the connection */

static void on_notification(void *arg, const PGnotify *notification)
{
    struct cf_pg_listener *listener = arg;

    listener->options.on_notify(listener->options.arg, notification->relname, notification->extra);
}

/* Notifications were handed out before this: what is left to see is the end. */
static void on_idle_input(void *arg)
{
    struct cf_pg_listener *listener = arg;
    struct cf__wait *sleeper = listener->sleeper;

    if (listener->conn->broken && sleeper != NULL) {
        listener->sleeper = NULL;
        (void)cf__wait_end(sleeper, CF__WAIT_READY); /* False: it wakes already. */
    }
}

/* Run a statement within a bound. Too late an answer is none: the connection is to be closed. */
static enum cf_code ask(struct cf_pg_listener *listener, const struct cf_pg_stmt *stmt,
                        int64_t timeout_ns, struct cf_err *err)
{
    struct cf__pg_conn *conn = listener->conn;
    PGresult *result = NULL;
    struct cf_ctx *ctx;
    enum cf_code code;

    code = cf_ctx_with_timeout(listener->ctx, timeout_ns, &ctx, err);
    if (code != CF_OK) {
        return code;
    }
    code = cf__pg_conn_send(conn, stmt, NULL, 0, err);
    if (code == CF_OK) {
        code = cf__pg_conn_wait(ctx, conn, err);
    }
    if (code == CF_OK) {
        code = cf__pg_conn_result(conn, &result, err);
    }
    PQclear(result);
    cf_ctx_free(ctx);
    return code == CF_OK ? CF_OK : cf_err_wrap(err, code, "%s", stmt->sql);
}

static enum cf_code connect_and_listen(struct cf_pg_listener *listener, struct cf_err *err)
{
    int64_t timeout_ns = listener->pg->options.connect_timeout_ns;
    struct cf_ctx *ctx;
    enum cf_code code;

    code = cf_ctx_with_timeout(listener->ctx, timeout_ns, &ctx, err);
    if (code != CF_OK) {
        return code;
    }
    code = cf__pg_conn_open(ctx, listener->pg, listener->failures,
                            &listener->pg->pools[0].next_step_ns, &listener->conn, err);
    cf_ctx_free(ctx);
    if (code != CF_OK) {
        return code;
    }
    if (!listener->conn->is_direct) {
        return cf_err_set(err, CF_EINVAL, "a pooler hides the backend: it may lend it to others");
    }
    listener->conn->on_idle_input = on_idle_input;
    listener->conn->on_notification = on_notification;
    listener->conn->arg = listener;
    for (size_t i = 0; code == CF_OK && i < listener->n_channels; i++) {
        code = ask(listener, &listener->channels[i].stmt, timeout_ns, err);
    }
    return code;
}

/* Sleep until it is time for a question, or the connection has ended. */
static enum cf_code rest(struct cf_pg_listener *listener, struct cf_err *err)
{
    struct cf__wait sleeper;
    struct cf_ctx *ctx;
    enum cf_code code;

    code = cf_ctx_with_timeout(listener->ctx, listener->options.ping_interval_ns, &ctx, err);
    if (code != CF_OK) {
        return code;
    }
    cf__wait_init(&sleeper);
    listener->sleeper = &sleeper;
    if (!listener->conn->broken) {
        (void)cf__wait_park(ctx, &sleeper); /* However it ends: see below. */
    }
    listener->sleeper = NULL;
    cf_ctx_free(ctx);
    if (listener->conn->broken) {
        return cf__pg_err_from_conn(listener->conn->pq, "connection", err);
    }
    return cf_ctx_check(listener->ctx, err);
}

/* Listen until there is nothing more to hear; never CF_OK. */
static enum cf_code listen_on(struct cf_pg_listener *listener, struct cf_err *err)
{
    enum cf_code code;

    do {
        code = rest(listener, err);
        if (code == CF_OK) {
            code = ask(listener, &ping, listener->options.ping_timeout_ns, err);
        }
    } while (code == CF_OK);
    return code;
}

/* Internal helpers: the fiber */

static void report(struct cf_pg_listener *listener, enum cf_pg_event_kind kind,
                   const struct cf_err *err, int64_t retry_ns)
{
    struct cf_pg_event event = {.kind = kind, .retry_ns = retry_ns};

    if (listener->conn != NULL) {
        event.backend_pid = listener->conn->backend_pid;
    }
    if (err != NULL) {
        event.err = *err;
    }
    cf__pg_report(listener->pg, &event);
}

/* One connection, from its beginning to its end; never CF_OK. */
static enum cf_code listen_once(struct cf_pg_listener *listener, struct cf_err *err)
{
    enum cf_code code = connect_and_listen(listener, err);

    if (code != CF_OK) {
        listener->failures++;
        return code;
    }
    listener->failures = 0;
    atomic_store(&listener->listens, true);
    if (listener->options.on_listen != NULL) {
        listener->options.on_listen(listener->options.arg);
    }
    report(listener, CF_PG_EVENT_LISTENING, NULL, 0);
    code = listen_on(listener, err);
    atomic_store(&listener->listens, false);
    return code;
}

static void run(void *arg)
{
    struct cf_pg_listener *listener = arg;
    int64_t retry_ns;
    struct cf_err err;

    do {
        (void)listen_once(listener, &err);
        retry_ns = cf__pg_backoff_ns(&listener->random, listener->failures,
                                     listener->pg->options.backoff_max_ns);
        if (cf_ctx_err(listener->ctx) == CF_OK) {
            (void)cf_err_wrap(&err, err.code, "listener");
            report(listener, CF_PG_EVENT_DEAF, &err, retry_ns);
        }
        cf__pg_conn_close(listener->conn);
        listener->conn = NULL;
    } while (cf__pg_pause_until(listener->ctx, cf_now_ns() + retry_ns));

    listener->ended = true;
    if (listener->end != NULL) {
        (void)cf__wait_end(listener->end, CF__WAIT_READY); /* Nobody else ends it. */
    }
}

static void run_stop(void *arg)
{
    struct cf_pg_listener *listener = arg;
    struct cf__wait end;

    cf_ctx_cancel_cause(listener->ctx, CF_REASON_SHUTDOWN, NULL);
    if (!listener->ended) {
        cf__wait_init(&end);
        listener->end = &end;
        (void)cf__wait_park(NULL, &end); /* Nothing that it waits for outlives its context. */
    }
}

/* Life cycle */

enum cf_code cf_pg_listener_new(struct cf_pg *pg, const struct cf_pg_listen_options *options,
                                struct cf_pg_listener **out, struct cf_err *err)
{
    struct cf_pg_listener *listener = calloc(1, sizeof(*listener));
    enum cf_code code;

    if (listener == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a listener");
    }
    listener->pg = pg;
    listener->loop = pg->pools[0].loop;
    cf__pg_jitter_init(&listener->random);
    code = take_options(listener, options, err);
    if (code == CF_OK) {
        code = cf_ctx_with_cancel(cf_ctx_background(), &listener->ctx, err);
    }
    if (code == CF_OK) {
        listener->closer = cf__loop_reserve(listener->loop);
        if (listener->closer == NULL) {
            code = cf_err_set(err, CF_ENOMEM, "no memory to free a listener");
        }
    }
    if (code == CF_OK) {
        code = cf_loop_spawn(listener->loop, run, listener, err);
    }
    if (code != CF_OK) {
        cf__loop_unreserve(listener->closer);
        cf_ctx_free(listener->ctx);
        free(listener);
        return code;
    }
    *out = listener;
    return CF_OK;
}

void cf_pg_listener_free(struct cf_pg_listener *listener)
{
    if (listener != NULL) {
        cf__loop_call_reserved(listener->loop, listener->closer, run_stop, listener);
        cf_ctx_free(listener->ctx);
        free(listener);
    }
}

/* Queries */

bool cf_pg_is_listening(const struct cf_pg_listener *listener)
{
    return atomic_load(&listener->listens);
}
