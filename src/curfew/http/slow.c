/* SPDX-License-Identifier: MIT */
/* Clients that take too long to say what they want, or to take what they are sent.
 *
 * libmicrohttpd times inactivity only: a byte now and then keeps a connection for ever, a thousand
 * such connections keep everybody else out. So each connection is looked at, a few times in a
 * head's time, and a head or a body that is not complete in its whole time is answered with 408 and
 * ended. No request pays for it: the timer is moved by the looks alone.
 *
 * When a head has begun, nobody tells us before its first line is there. But the kernel counts what
 * has come on a connection: bytes without a request mean that one has begun, at the latest now, for
 * a first request with the connection. A connection on which nothing comes is idle, which is
 * libmicrohttpd's to time, unless there are too many connections and this is only to be told so.
 *
 * A client that takes a byte of its reply now and then is not idle either, so a reply has a time in
 * which the client has to take it. libmicrohttpd is through with a reply when the kernel has all of
 * it, which may be megabytes; how much of it was not taken, the kernel is asked. Then there is
 * nothing more to be said: the connection is reset, so that the kernel does not keep
 * the rest for it.
 *
 * A stream may last as long as its handler does, so its client has that time for what waits for it,
 * or for CF_HTTP_STREAM_SIZE of that, again and again. A stream on which nothing waits is its
 * handler's to time. */
#include <sys/socket.h>

#include <curfew/clock.h>

#include "curfew/http/received.h"
#include "curfew/http/server_private.h"

/* Looks in the time of a head: it is found late by one part at most. */
#define LOOKS 4

/* For a client that is refused to send its request, so that it can be answered to that. */
#define REFUSED_NS CF_SECOND

/* Internal helpers */

static int64_t look_in(const struct cf__connection *connection)
{
    int64_t look_ns = connection->shard->server->options.head_timeout_ns / LOOKS + 1;

    return connection->is_refused && look_ns > REFUSED_NS ? REFUSED_NS : look_ns;
}

static void arm(struct cf__connection *connection, int64_t at_ns)
{
    struct cf_timer_source *source = cf_timer_source();

    /* It has just fired, so there is room for it. */
    CF_ASSERT(source->arm(source, &connection->look, at_ns));
}

/* With no request under way: when its head will have taken too long; CF_NEVER if none has begun. */
static int64_t due_of_beginning(struct cf__connection *connection, int64_t now_ns)
{
    uint64_t bytes = cf__bytes_received(connection->fd);

    if (connection->n_begun != connection->n_seen) {
        connection->n_seen = connection->n_begun;
        connection->bytes_seen = bytes;
        connection->head_since_ns = 0;
    } else if (bytes > connection->bytes_seen && connection->head_since_ns == 0) {
        connection->head_since_ns = connection->n_begun == 0 ? connection->opened_ns : now_ns;
    }
    if (connection->head_since_ns == 0) {
        return CF_NEVER;
    }
    return connection->head_since_ns + connection->shard->server->options.head_timeout_ns;
}

static bool is_being_answered(const struct cf__connection *connection)
{
    return connection->http != NULL && connection->http->stage == CF__ANSWERED;
}

/* The same for what waits of a stream. */
static int64_t due_of_stream(struct cf__connection *connection, int64_t now_ns)
{
    uint64_t taken = cf__bytes_taken(connection->fd);
    size_t waiting = cf__bytes_not_taken(connection->fd);

    waiting += connection->http != NULL ? connection->http->stream.size : 0;
    if (waiting == 0) {
        connection->goal_since_ns = 0;
        return CF_NEVER;
    }
    if (connection->goal_since_ns == 0 || taken >= connection->stream_goal) {
        waiting = waiting < CF_HTTP_STREAM_SIZE ? waiting : CF_HTTP_STREAM_SIZE;
        connection->stream_goal = taken + waiting;
        connection->goal_since_ns = now_ns;
    }
    return connection->goal_since_ns + connection->shard->server->options.send_timeout_ns;
}

/* When a reply that is being sent, if only by the kernel, will have taken too long. */
static int64_t due_of_reply(struct cf__connection *connection, int64_t now_ns)
{
    bool is_sending = is_being_answered(connection) ||
                      (connection->http == NULL && cf__bytes_not_taken(connection->fd) > 0);

    if (connection->is_streaming) {
        return due_of_stream(connection, now_ns);
    }
    if (!is_sending || connection->answered_ns == 0) {
        return CF_NEVER;
    }
    return connection->answered_ns + connection->shard->server->options.send_timeout_ns;
}

/* When what is being read will have taken too long. */
static int64_t due_of(struct cf__connection *connection, int64_t now_ns)
{
    const struct cf_http_options *options = &connection->shard->server->options;
    const struct cf_http *http = connection->http;

    if (connection->is_refused) {
        return connection->opened_ns + REFUSED_NS;
    }
    if (http == NULL) {
        return due_of_beginning(connection, now_ns);
    }
    if (http->stage != CF__READING) {
        return CF_NEVER; /* What it takes now is ours, or that of the reply. */
    }
    if (http->head_seen) {
        return http->head_at_ns + options->body_timeout_ns;
    }
    return http->started_ns + options->head_timeout_ns;
}

static void reset_when_closed(struct cf__connection *connection)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};

    (void)setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
}

static void on_look(struct cf_timer *timer)
{
    struct cf__connection *connection = CF__CONTAINER(timer, struct cf__connection, look);
    int64_t now_ns = cf_now_ns();
    int64_t next_ns = now_ns + look_in(connection);
    int64_t due_ns = due_of(connection, now_ns);
    int64_t reply_due_ns = due_of_reply(connection, now_ns);

    next_ns = due_ns < next_ns ? due_ns : next_ns;
    next_ns = reply_due_ns < next_ns ? reply_due_ns : next_ns;
    if (now_ns < next_ns) {
        arm(connection, next_ns);
        return;
    }
    if (now_ns >= reply_due_ns || is_being_answered(connection)) {
        reset_when_closed(connection);
    } else {
        cf__reply_dismissal(connection, connection->is_refused ? connection->refusal
                                                               : CF__PROBLEM_REQUEST_TIMEOUT);
    }
    connection->dismissed = true;
    (void)shutdown(connection->fd, SHUT_RDWR); /* Of which libmicrohttpd learns, and closes it. */
}

/* Life cycle */

bool cf__slow_watch(struct cf__connection *connection)
{
    struct cf_timer_source *source = cf_timer_source();

    connection->opened_ns = cf_now_ns();
    connection->look = (struct cf_timer){.fire = on_look};
    return source->arm(source, &connection->look, connection->opened_ns + look_in(connection));
}

void cf__slow_forget(struct cf__connection *connection)
{
    struct cf_timer_source *source = cf_timer_source();

    (void)source->disarm(source, &connection->look); /* False: it has timed out. */
}
