/* SPDX-License-Identifier: MIT */
/* One thread, one poll(): see peer.h. */
#include "peer.h"

#include <arpa/inet.h>
#include <check.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS_MAX 64
#define REQUEST_MAX 8192
#define FLOOD_SIZE 16

struct connection {
    int fd;
    bool flooding;
    size_t size;
    char bytes[REQUEST_MAX + 1];
};

struct peer {
    int listen_fd; /* Constant after new, as are these. */
    int stop_fd;
    uint16_t port;
    enum peer_then then;
    char *reply;
    pthread_t thread;

    struct connection connections[CONNECTIONS_MAX]; /* The thread's. */
    size_t n;

    atomic_int accepted;
    atomic_int closed;
    atomic_int requests;

    pthread_mutex_t mu; /* Guards what is below. */
    char last[REQUEST_MAX + 1];
    char shown[REQUEST_MAX + 1]; /* The test's. */
};

/* Internal helpers */

/* The whole size of the request that `bytes` begin with, or 0: it has not come yet. */
static size_t whole_request(const char *bytes, size_t size)
{
    const char *end = strstr(bytes, "\r\n\r\n");
    const char *length = strcasestr(bytes, "\r\ncontent-length:");
    size_t whole;

    if (end == NULL) {
        return 0;
    }
    whole = (size_t)(end - bytes) + 4;
    if (length != NULL && length < end) {
        whole += strtoul(length + strlen("\r\ncontent-length:"), NULL, 10);
    }
    return whole <= size ? whole : 0;
}

static void drop(struct peer *peer, size_t i)
{
    (void)close(peer->connections[i].fd);
    peer->connections[i] = peer->connections[--peer->n];
    (void)atomic_fetch_add(&peer->closed, 1);
}

/* False: the connection is to be dropped. */
static bool answer(struct peer *peer, struct connection *connection)
{
    size_t size = peer->reply != NULL ? strlen(peer->reply) : 0;

    if (peer->reply == NULL) {
        return true;
    }
    if (send(connection->fd, peer->reply, size, MSG_NOSIGNAL) != (ssize_t)size) {
        return false;
    }
    connection->flooding = peer->then == PEER_FLOOD;
    return peer->then != PEER_CLOSE;
}

/* Read what has come, and answer what is whole. False: the connection is to be dropped. */
static bool serve(struct peer *peer, struct connection *connection)
{
    ssize_t n = recv(connection->fd, connection->bytes + connection->size,
                     REQUEST_MAX - connection->size, 0);
    size_t whole;

    if (n <= 0) {
        return false;
    }
    connection->size += (size_t)n;
    connection->bytes[connection->size] = '\0';
    while ((whole = whole_request(connection->bytes, connection->size)) > 0) {
        (void)pthread_mutex_lock(&peer->mu);
        memcpy(peer->last, connection->bytes, whole);
        peer->last[whole] = '\0';
        (void)pthread_mutex_unlock(&peer->mu);
        (void)atomic_fetch_add(&peer->requests, 1);
        connection->size -= whole;
        memmove(connection->bytes, connection->bytes + whole, connection->size + 1);
        if (!answer(peer, connection)) {
            return false;
        }
    }
    return true;
}

static bool flood(struct peer *peer, struct connection *connection)
{
    const char *tail = peer->reply + strlen(peer->reply) - FLOOD_SIZE;

    return send(connection->fd, tail, FLOOD_SIZE, MSG_NOSIGNAL) == FLOOD_SIZE;
}

static void accept_one(struct peer *peer)
{
    int fd = accept4(peer->listen_fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0) {
        return;
    }
    if (peer->n == CONNECTIONS_MAX) {
        (void)close(fd);
        return;
    }
    peer->connections[peer->n++] = (struct connection){.fd = fd};
    (void)atomic_fetch_add(&peer->accepted, 1);
}

static void *run(void *arg)
{
    struct peer *peer = arg;

    for (;;) {
        struct pollfd fds[CONNECTIONS_MAX + 2] = {{peer->stop_fd, POLLIN, 0},
                                                  {peer->listen_fd, POLLIN, 0}};

        for (size_t i = 0; i < peer->n; i++) {
            const struct connection *connection = &peer->connections[i];

            fds[i + 2] = (struct pollfd){connection->fd, POLLIN, 0};
            fds[i + 2].events |= connection->flooding ? POLLOUT : 0;
        }
        (void)poll(fds, peer->n + 2, -1);
        if (fds[0].revents != 0) {
            return NULL;
        }
        for (size_t i = peer->n; i-- > 0;) {
            short events = fds[i + 2].revents;
            bool stays = true;

            if ((events & (POLLIN | POLLHUP | POLLERR)) != 0) {
                stays = serve(peer, &peer->connections[i]);
            } else if ((events & POLLOUT) != 0) {
                stays = flood(peer, &peer->connections[i]);
            }
            if (!stays) {
                drop(peer, i); /* The last one takes its place, and was served. */
            }
        }
        if (fds[1].revents != 0) {
            accept_one(peer);
        }
    }
}

/* The reply with the port in its place. */
static char *fill_in(const char *reply, uint16_t port)
{
    const char *at = strstr(reply, PEER_PORT);
    char *filled = NULL;

    if (at == NULL) {
        filled = strdup(reply);
    } else if (asprintf(&filled, "%.*s%u%s", (int)(at - reply), reply, port,
                        at + strlen(PEER_PORT)) < 0) {
        filled = NULL;
    }
    ck_assert_ptr_nonnull(filled);
    return filled;
}

/* Life cycle */

struct peer *peer_new(const char *reply, enum peer_then then)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    struct peer *peer = calloc(1, sizeof(*peer));

    ck_assert_ptr_nonnull(peer);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    peer->then = then;
    peer->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    peer->stop_fd = eventfd(0, EFD_CLOEXEC);
    ck_assert_int_eq(bind(peer->listen_fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(peer->listen_fd, CONNECTIONS_MAX), 0);
    ck_assert_int_eq(getsockname(peer->listen_fd, (struct sockaddr *)&address, &size), 0);
    peer->port = ntohs(address.sin_port);
    peer->reply = reply != NULL ? fill_in(reply, peer->port) : NULL;
    ck_assert_int_eq(pthread_mutex_init(&peer->mu, NULL), 0);
    ck_assert_int_eq(pthread_create(&peer->thread, NULL, run, peer), 0);
    return peer;
}

void peer_free(struct peer *peer)
{
    ck_assert_int_eq(eventfd_write(peer->stop_fd, 1), 0);
    (void)pthread_join(peer->thread, NULL);
    while (peer->n > 0) {
        drop(peer, 0);
    }
    (void)close(peer->listen_fd);
    (void)close(peer->stop_fd);
    (void)pthread_mutex_destroy(&peer->mu);
    free(peer->reply);
    free(peer);
}

/* Queries */

uint16_t peer_port(const struct peer *peer)
{
    return peer->port;
}

const char *peer_request(struct peer *peer)
{
    (void)pthread_mutex_lock(&peer->mu);
    memcpy(peer->shown, peer->last, sizeof(peer->shown));
    (void)pthread_mutex_unlock(&peer->mu);
    return peer->shown;
}

int peer_accepted(struct peer *peer)
{
    return atomic_load(&peer->accepted);
}

int peer_closed(struct peer *peer)
{
    return atomic_load(&peer->closed);
}

int peer_requests(struct peer *peer)
{
    return atomic_load(&peer->requests);
}
