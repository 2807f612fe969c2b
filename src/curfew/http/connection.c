/* SPDX-License-Identifier: MIT */
/* The watch for clients that leave.
 *
 * libmicrohttpd does not look at a connection while it is suspended, and in epoll mode it loses the
 * end of a stream that arrives together with data, after which the connection stays for ever. So
 * each connection is also in an epoll descriptor of ours, from the moment it is accepted until
 * just before it is closed: EPOLLRDHUP | EPOLLET, one call when it comes and one when it goes, none
 * per request. That descriptor is watched by the loop.
 *
 * Any event there means that the client will send nothing more. Whether it still wants an answer
 * cannot be seen; like Go and nginx we take it that it does not, unless half_close_allowed is set:
 * then only a full hang-up or a reset counts. What follows depends on the request:
 *
 *     its handler runs        the context is cancelled (client_gone) and the handler ends
 *     none, or not complete   libmicrohttpd is run until it is quiet, so that it has read all there
 *                             is; what then is still open and idle will never be more, and is shut
 *                             down, of which libmicrohttpd does learn. Where others keep it from
 *                             being quiet, a turn has to do for a client that wants no answer
 *     answered                libmicrohttpd is sending; looked at again when the request completes
 *
 * The same sweep closes idle connections when the server stops. */
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <curfew/clock.h>

#include "curfew/http/server_private.h"

/* Events taken at once. */
#define EVENTS_MAX 64

/* Internal helpers: the life of a connection */

static struct cf__connection *make(struct cf__shard *shard, struct MHD_Connection *mhd, int fd)
{
    struct cf__connection *connection = calloc(1, sizeof(*connection));
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLET, .data.ptr = connection};
    const union MHD_ConnectionInfo *info;

    if (connection == NULL) {
        return NULL;
    }
    connection->shard = shard;
    connection->fd = fd;
    info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    cf__address_of(info != NULL ? info->client_addr : NULL, &connection->peer);
    cf__address_write(&connection->peer, connection->address);
    cf__admission_enter(connection);
    if (!cf__slow_watch(connection)) {
        cf__admission_leave(connection);
        free(connection);
        return NULL;
    }
    if (epoll_ctl(shard->ends_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        cf__slow_forget(connection); /* Untested: the kernel has no memory. */
        cf__admission_leave(connection);
        free(connection);
        return NULL;
    }
    cf__list_init(&connection->leaving_node);
    cf__list_push(&shard->open, &connection->node);
    return connection;
}

static void opened(struct cf__shard *shard, struct MHD_Connection *mhd, void **socket_context)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    int fd = info->connect_fd;

    atomic_fetch_add_explicit(&shard->connections, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&shard->server->connections, 1, memory_order_relaxed);
    *socket_context = make(shard, mhd, fd);
    if (*socket_context == NULL) {
        /* A connection that cannot be watched is not served. */
        (void)shutdown(fd, SHUT_RDWR);
    }
}

static void closed(struct cf__shard *shard, struct cf__connection *connection)
{
    atomic_fetch_sub_explicit(&shard->connections, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&shard->server->connections, 1, memory_order_relaxed);
    shard->has_room = true;
    if (connection == NULL) {
        return;
    }
    if (connection->http != NULL) {
        cf__exchange_abandoned(connection->http);
    }
    cf__slow_forget(connection);
    cf__admission_leave(connection);
    /* Closing would do it, unless a child of the process holds a copy of the descriptor. */
    (void)epoll_ctl(shard->ends_fd, EPOLL_CTL_DEL, connection->fd, NULL);
    cf__list_unlink(&connection->node);
    cf__list_unlink(&connection->leaving_node);
    if (connection->http != NULL) {
        connection->is_closed = true; /* Freed when the handler, which streams, has ended. */
        return;
    }
    free(connection);
}

/* Internal helpers: the end of a client */

static void ended(struct cf__connection *connection, uint32_t events)
{
    bool hung_up = (events & (EPOLLHUP | EPOLLERR)) != 0;

    connection->at_end = true;
    if (hung_up || !connection->shard->server->options.half_close_allowed) {
        connection->gone = true;
        if (connection->http != NULL) {
            cf__exchange_client_gone(connection->http);
        }
    }
    cf__connection_leaving(connection);
}

/* Whether nothing more is to come, now that libmicrohttpd has read all that was there. */
static bool is_over(const struct cf__connection *connection)
{
    const struct cf__shard *shard = connection->shard;
    bool is_idle = connection->http == NULL;
    bool is_waiting = is_idle || connection->http->stage == CF__READING;

    if (connection->at_end || shard->phase == CF__CUTTING) {
        return is_waiting;
    }
    if (shard->phase != CF__STOPPING || !is_idle) {
        return false;
    }
    /* A client that has just connected, or just read its last reply, is given time to ask: what is
     * on its way to us now would be lost. The reply to that says that it was the last. */
    return shard->patience_over ||
           (connection->served_ns != 0 && cf_now_ns() - connection->served_ns >= CF__PATIENCE_NS);
}

/* Life cycle */

void cf__connection_notify(void *arg, struct MHD_Connection *mhd, void **socket_context,
                           enum MHD_ConnectionNotificationCode code)
{
    struct cf__shard *shard = arg;

    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        opened(shard, mhd, socket_context);
    } else {
        closed(shard, *socket_context);
        *socket_context = NULL;
    }
}

/* Operations */

void cf__connections_ended(void *arg, int status, int events)
{
    struct cf__shard *shard = arg;
    struct epoll_event ends[EVENTS_MAX];
    int n;

    (void)status; /* What is wrong with it, epoll_wait() would say too; it cannot be anything. */
    (void)events;
    do {
        n = epoll_wait(shard->ends_fd, ends, EVENTS_MAX, 0);
        for (int i = 0; i < n; i++) {
            ended(ends[i].data.ptr, ends[i].events);
        }
    } while (n == EVENTS_MAX);
}

void cf__connection_leaving(struct cf__connection *connection)
{
    if (cf__list_empty(&connection->leaving_node)) {
        cf__list_push(&connection->shard->leaving, &connection->leaving_node);
    }
    connection->shard->due = true;
}

void cf__connections_leaving(struct cf__shard *shard)
{
    for (struct cf__list *node = shard->open.next; node != &shard->open; node = node->next) {
        cf__connection_leaving(CF__CONTAINER(node, struct cf__connection, node));
    }
    shard->due = true;
}

void cf__connections_sweep(struct cf__shard *shard, bool is_quiet)
{
    struct cf__list later;
    struct cf__list *node;

    cf__list_init(&later);
    while ((node = cf__list_pop(&shard->leaving)) != NULL) {
        struct cf__connection *connection =
            CF__CONTAINER(node, struct cf__connection, leaving_node);

        if (!is_quiet && !connection->gone) {
            cf__list_push(&later, node);
        } else if (is_over(connection)) {
            (void)shutdown(connection->fd, SHUT_RDWR);
        }
    }
    cf__list_splice(&shard->leaving, &later);
}
