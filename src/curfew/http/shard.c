/* SPDX-License-Identifier: MIT */
/* A server's part on one loop: a libmicrohttpd daemon in external epoll mode, and its turns.
 *
 * The daemon's epoll descriptor is watched by the loop, which only notes that the daemon is due. It
 * is run from the loop's hook, after all fibers of the turn: first every request whose handler has
 * ended, or has written to its stream, is resumed, then the daemon is run for the whole batch,
 * until it is quiet. Not run again, a reply it could send, or a client it could accept since
 * another has left, would wait until something else happens. Once it is quiet it has read all that
 * was there, so connections whose clients have ended can be swept; and it says when it wants to be
 * run for its timeouts.
 *
 * A stop goes in three steps, each posted by the thread that stops the server and each over when a
 * context says so:
 *
 *     stop    have the kernel turn new clients away, accept those who were connecting, close the
 *             listening socket, close what is idle; over when no connection is left (drained)
 *     cut     after the grace, the root context being cancelled: close what has not become a
 *             request; over as above, or when all handlers have ended and their replies had
 *             FLUSH_MS to go out (drained)
 *     close   stop the daemon, which would abort the process if a connection were suspended; over
 *             when libuv has forgotten us (closed)
 *
 * The thread that waits may free the shard as soon as `closed` is done, so that is signalled last,
 * and holding a reference. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "curfew/http/gzip.h"
#include "curfew/http/listen.h"
#include "curfew/http/server_private.h"

/* Of libmicrohttpd's memory for one connection, beside the head of the request: for the head of the
 * reply, without which it closes and says nothing. */
#define REPLY_HEAD_SIZE ((size_t)2 * 1024)

/* What it refuses by itself, where it can be told: as much as its makers advise for servers that
 * anybody can reach. Without, it redirects a request whose target has a space. */
#if MHD_VERSION >= 0x00097701
#define STRICT MHD_OPTION_CLIENT_DISCIPLINE_LVL, 1,
#else
#define STRICT
#endif

/* Runs of the daemon in one turn. Then the fibers get theirs, even if it is not quiet. */
#define RUNS_MAX 64

/* Runs to accept what is queued when a stop begins: some ten connections each, and the queue is of
 * 4,096. */
#define ACCEPT_RUNS_MAX 512

/* While stopping, what a client that was connecting is given to become connected. */
#define DOOR_MS 5

/* While stopping, what the last replies are given to be sent. */
#define FLUSH_MS 500

/* Internal helpers: turns */

static void signal_done(struct cf_ctx *event)
{
    (void)cf_ctx_ref(event);
    cf_ctx_cancel(event);
    cf_ctx_unref(event);
}

static void on_daemon_ready(void *arg, int status, int events)
{
    struct cf__shard *shard = arg;

    (void)status;
    (void)events;
    shard->due = true;
}

static void on_daemon_time(uv_timer_t *timer)
{
    struct cf__shard *shard = timer->data;

    shard->timer_at_ms = -1;
    shard->due = true;
}

/* Run the daemon until it has nothing to do. False: it still has. */
static bool run_daemon(struct cf__shard *shard, MHD_UNSIGNED_LONG_LONG *out_wait_ms,
                       bool *out_waits)
{
    for (int i = 0; i < RUNS_MAX; i++) {
        shard->has_room = false;
        (void)MHD_run(shard->daemon); /* Fails only for a daemon with a thread of its own. */
        *out_waits = MHD_get_timeout(shard->daemon, out_wait_ms) == MHD_YES;
        if ((!*out_waits || *out_wait_ms > 0) && !shard->has_room) {
            return true;
        }
    }
    return false;
}

/* Have the daemon run in `wait_ms`. A timer that is earlier is left: it costs a run too many now
 * and then, where moving it would cost each turn. */
static void set_timer(struct cf__shard *shard, uint64_t wait_ms)
{
    int64_t at_ms = (int64_t)(uv_now(cf__loop_uv(shard->loop)) + wait_ms);

    if (shard->timer_at_ms < 0 || at_ms < shard->timer_at_ms) {
        shard->timer_at_ms = at_ms;
        (void)uv_timer_start(&shard->timer, on_daemon_time, wait_ms, 0);
    }
}

static void on_flush_over(uv_timer_t *timer)
{
    struct cf__shard *shard = timer->data;

    shard->flush_over = true;
    shard->due = true;
}

/* While stopping: see whether anything is left to wait for. */
static void look_for_the_end(struct cf__shard *shard)
{
    bool is_idle =
        atomic_load_explicit(&shard->in_flight, memory_order_relaxed) == 0 && shard->suspended == 0;

    if (shard->phase == CF__CUTTING && is_idle && !shard->flushing) {
        shard->flushing = true;
        (void)uv_timer_start(&shard->stop_timer, on_flush_over, FLUSH_MS, 0);
    }
    if (shard->listen_fd >= 0) {
        return; /* Somebody may still come. */
    }
    /* A stream's handler may outlive its connection. */
    if (is_idle && (cf__list_empty(&shard->open) || shard->flush_over)) {
        signal_done(shard->drained);
    }
}

static void take_turn(struct cf__hook *hook)
{
    struct cf__shard *shard = CF__CONTAINER(hook, struct cf__shard, hook);
    MHD_UNSIGNED_LONG_LONG wait_ms = 0;
    bool waits = false;
    bool is_quiet;

    if (cf__exchange_resume_woken(shard)) {
        shard->due = true;
    }
    if (!shard->due) {
        return;
    }
    shard->due = false;
    is_quiet = run_daemon(shard, &wait_ms, &waits);
    cf__connections_sweep(shard, is_quiet);
    if (!is_quiet) {
        waits = true; /* For its turn, no longer. */
        wait_ms = 0;
    }
    if (waits) {
        set_timer(shard, wait_ms);
    }
    if (shard->phase != CF__SERVING) {
        look_for_the_end(shard);
    }
}

/* Internal helpers: stop */

/* Have the daemon accept those who are connected. Bounded: where the kernel does not turn others
 * away, they keep coming. */
static void accept_queued(struct cf__shard *shard)
{
    struct pollfd queue = {.fd = shard->listen_fd, .events = POLLIN};

    for (int i = 0; i < ACCEPT_RUNS_MAX && poll(&queue, 1, 0) == 1; i++) {
        (void)MHD_run(shard->daemon);
    }
}

static void on_patience_over(uv_timer_t *timer)
{
    struct cf__shard *shard = timer->data;

    shard->patience_over = true;
    cf__connections_leaving(shard);
}

/* Nobody comes after this; whoever came may still ask, for a while. */
static void close_door(struct cf__shard *shard)
{
    accept_queued(shard);
    (void)MHD_quiesce_daemon(shard->daemon);
    (void)close(shard->listen_fd);
    shard->listen_fd = -1;
    cf__connections_leaving(shard);
}

static void on_door_time(uv_timer_t *timer)
{
    struct cf__shard *shard = timer->data;

    close_door(shard);
    (void)uv_timer_start(timer, on_patience_over, CF__PATIENCE_NS / CF_MS, 0);
}

static void stop(struct cf__message *message)
{
    struct cf__shard *shard = CF__CONTAINER(message, struct cf__shard, stop_message);

    shard->phase = CF__STOPPING;
    cf__listen_turn_away(shard->listen_fd);
    (void)uv_timer_start(&shard->stop_timer, on_door_time, DOOR_MS, 0);
}

static void cut(struct cf__message *message)
{
    struct cf__shard *shard = CF__CONTAINER(message, struct cf__shard, cut_message);

    shard->phase = CF__CUTTING;
    (void)uv_timer_stop(&shard->stop_timer);
    if (shard->listen_fd >= 0) {
        close_door(shard);
    }
    cf__connections_leaving(shard);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct cf__shard *shard = handle->data;

    if (--shard->open_handles == 0) {
        signal_done(shard->closed);
    }
}

/* Give back what was opened, which may be a part. */
static void release(struct cf__shard *shard)
{
    cf__watch_close(shard->daemon_watch);
    cf__watch_close(shard->ends_watch);
    if (shard->daemon != NULL) {
        MHD_stop_daemon(shard->daemon); /* Closes the listening socket, if it was not quiesced. */
        shard->daemon = NULL;
    } else if (shard->listen_fd >= 0) {
        (void)close(shard->listen_fd);
    }
    if (shard->ends_fd >= 0) {
        (void)close(shard->ends_fd);
    }
    shard->listen_fd = -1;
    shard->ends_fd = -1;
    cf__gzip_free(shard->gzip);
    shard->gzip = NULL;
    cf_ctx_free(shard->ctx);
    shard->ctx = NULL;
}

static void close_shard(struct cf__message *message)
{
    struct cf__shard *shard = CF__CONTAINER(message, struct cf__shard, close_message);

    cf__loop_hook_remove(&shard->hook);
    release(shard);
    CF_ASSERT(cf__list_empty(&shard->open));
    shard->open_handles = 2;
    uv_close((uv_handle_t *)&shard->timer, on_handle_closed);
    uv_close((uv_handle_t *)&shard->stop_timer, on_handle_closed);
}

/* Internal helpers: open */

/* A shard's part of a limit of the server: rounded up, so that a small limit leaves each some. */
static size_t share_of(const struct cf__shard *shard, size_t limit)
{
    size_t n = shard->server->n_shards;

    return limit / n + (limit % n > 0);
}

/* With few bytes for many loops, one of the largest bodies has to find room on each. */
static size_t bodies_share(const struct cf__shard *shard)
{
    size_t share = share_of(shard, shard->server->options.bodies_size_max);
    size_t largest = shard->server->body_size_max + 1; /* It is terminated. */

    return share > largest ? share : largest;
}

static enum cf_code start_daemon(struct cf__shard *shard, struct cf_err *err)
{
    const struct cf_http_options *options = &shard->server->options;
    /* Of the whole server: which loop a connection comes to, the kernel decides. */
    size_t connections_max = options->connections_max + CF_HTTP_SPARE_CONNECTIONS;
    int64_t idle_s =
        options->idle_timeout_ns / CF_SECOND + (options->idle_timeout_ns % CF_SECOND > 0);

    /* Never what 0.9.75 cannot be trusted with: its parser of forms, its authentication. */
    shard->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, cf__exchange_access, shard,
        MHD_OPTION_LISTEN_SOCKET, shard->listen_fd, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        options->head_size_max + REPLY_HEAD_SIZE, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)connections_max, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)idle_s,
        MHD_OPTION_URI_LOG_CALLBACK, cf__exchange_begin, shard, MHD_OPTION_NOTIFY_CONNECTION,
        cf__connection_notify, shard, MHD_OPTION_NOTIFY_COMPLETED, cf__exchange_completed, shard,
        STRICT MHD_OPTION_END);
    if (shard->daemon == NULL) {
        return cf_err_set(err, CF_EIO, "start libmicrohttpd"); /* It does not say why. */
    }
    return CF_OK;
}

/* Have the kernel give up on a client that takes nothing of what is sent to it, also where we have
 * handed all to the kernel and closed. Connections inherit it. */
static void give_up_on_the_silent(struct cf__shard *shard)
{
    unsigned wait_ms = (unsigned)(shard->server->options.send_timeout_ns / CF_MS);

    (void)setsockopt(shard->listen_fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &wait_ms, sizeof(wait_ms));
}

static enum cf_code start_watching(struct cf__shard *shard, struct cf_err *err)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(shard->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    enum cf_code code;

    shard->ends_fd = epoll_create1(EPOLL_CLOEXEC);
    if (shard->ends_fd < 0) {
        return cf_err_set_sys(err, CF_EIO, errno, "watch connections");
    }
    code = cf__watch_open(shard->loop, shard->ends_fd, cf__connections_ended, shard,
                          &shard->ends_watch, err);
    if (code != CF_OK) {
        return code;
    }
    code = cf__watch_open(shard->loop, info->epoll_fd, on_daemon_ready, shard, &shard->daemon_watch,
                          err);
    if (code != CF_OK) {
        return code;
    }
    cf__watch_events(shard->ends_watch, UV_READABLE);
    cf__watch_events(shard->daemon_watch, UV_READABLE);
    return CF_OK;
}

static void init_handles(struct cf__shard *shard)
{
    uv_loop_t *uv = cf__loop_uv(shard->loop);

    (void)uv_timer_init(uv, &shard->timer); /* Neither can fail. */
    (void)uv_timer_init(uv, &shard->stop_timer);
    shard->timer.data = shard;
    shard->stop_timer.data = shard;
    shard->timer_at_ms = -1;
    shard->hook.run = take_turn;
    cf__loop_hook_add(shard->loop, &shard->hook);
}

/* Life cycle */

enum cf_code cf__shard_open(struct cf__shard *shard, struct cf_err *err)
{
    enum cf_code code;

    shard->ends_fd = -1;
    shard->in_flight_max = share_of(shard, shard->server->options.in_flight_max);
    shard->bodies_size_max = bodies_share(shard);
    give_up_on_the_silent(shard);
    cf__list_init(&shard->open);
    cf__list_init(&shard->leaving);
    cf__list_init(&shard->waking);
    shard->stop_message.run = stop;
    shard->cut_message.run = cut;
    shard->close_message.run = close_shard;
    code = cf_ctx_with_cancel(shard->server->root, &shard->ctx, err);
    if (code == CF_OK) {
        code = start_daemon(shard, err);
    }
    if (code == CF_OK) {
        code = start_watching(shard, err);
    }
    if (code != CF_OK) {
        release(shard);
        return code;
    }
    init_handles(shard);
    return CF_OK;
}

/* Operations */

void cf__shard_stop(struct cf__shard *shard)
{
    cf__loop_post(shard->loop, &shard->stop_message);
}

void cf__shard_cut(struct cf__shard *shard)
{
    cf__loop_post(shard->loop, &shard->cut_message);
}

void cf__shard_close(struct cf__shard *shard)
{
    cf__loop_post(shard->loop, &shard->close_message);
}
