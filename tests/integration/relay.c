/* SPDX-License-Identifier: MIT */
/* One thread and poll(): see relay.h. */
#include "relay.h"

#include <arpa/inet.h>
#include <check.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <curfew/clock.h>

static int open_to(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static void close_pair(struct relay *relay, struct relay_pair *pair)
{
    (void)close(pair->client);
    if (pair->server >= 0) {
        (void)close(pair->server);
    }
    *pair = (struct relay_pair){-1, -1};
    (void)atomic_fetch_sub(&relay->open, 1);
}

static void accept_one(struct relay *relay)
{
    int fd = accept4(relay->fd, NULL, NULL, SOCK_CLOEXEC);
    size_t number = atomic_load(&relay->accepted);
    struct relay_pair *pair = &relay->pairs[number];
    int port;

    ck_assert_int_ge(fd, 0);
    ck_assert_uint_lt(number, RELAY_MAX);
    relay->at_ns[number] = cf_now_ns();
    port = relay->route(number);
    (void)atomic_fetch_add(&relay->open, 1);
    *pair = (struct relay_pair){fd, port > 0 ? open_to(port) : -1};
    if (port == RELAY_CLOSE || (port > 0 && pair->server < 0)) {
        close_pair(relay, pair);
    }
    (void)atomic_fetch_add(&relay->accepted, 1);
}

/* Pass on what is there. False: that side has ended. */
static bool pass(int from, int to)
{
    char bytes[65536];
    ssize_t n = recv(from, bytes, sizeof(bytes), 0);

    for (ssize_t sent = 0; sent < n;) {
        ssize_t more = to >= 0 ? send(to, bytes + sent, (size_t)(n - sent), MSG_NOSIGNAL) : n;

        if (more <= 0) {
            return false;
        }
        sent += more;
    }
    return n > 0;
}

static void serve_pair(struct relay *relay, struct relay_pair *pair, short client, short server)
{
    if ((client != 0 && !pass(pair->client, pair->server)) ||
        (server != 0 && !pass(pair->server, pair->client))) {
        close_pair(relay, pair);
    }
}

static void *run(void *arg)
{
    struct relay *relay = arg;
    struct pollfd fds[2 + 2 * RELAY_MAX];

    for (;;) {
        size_t n = atomic_load(&relay->accepted);

        fds[0] = (struct pollfd){.fd = relay->stop_fd, .events = POLLIN};
        fds[1] = (struct pollfd){.fd = relay->fd, .events = POLLIN};
        for (size_t i = 0; i < n; i++) { /* poll() passes over what is -1. */
            fds[2 + 2 * i] = (struct pollfd){.fd = relay->pairs[i].client, .events = POLLIN};
            fds[3 + 2 * i] = (struct pollfd){.fd = relay->pairs[i].server, .events = POLLIN};
        }
        (void)poll(fds, 2 + 2 * n, -1);
        if (fds[0].revents != 0) {
            return NULL;
        }
        for (size_t i = 0; i < n; i++) {
            if (relay->pairs[i].client >= 0) {
                serve_pair(relay, &relay->pairs[i], fds[2 + 2 * i].revents, fds[3 + 2 * i].revents);
            }
        }
        if (fds[1].revents != 0) {
            accept_one(relay);
        }
    }
}

void relay_start(struct relay *relay, relay_route route)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);

    memset(relay, 0, sizeof(*relay));
    for (size_t i = 0; i < RELAY_MAX; i++) {
        relay->pairs[i] = (struct relay_pair){-1, -1};
    }
    relay->route = route;
    relay->stop_fd = eventfd(0, EFD_CLOEXEC);
    relay->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ck_assert_int_eq(bind(relay->fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(relay->fd, 64), 0);
    ck_assert_int_eq(getsockname(relay->fd, (struct sockaddr *)&address, &size), 0);
    relay->port = ntohs(address.sin_port);
    ck_assert_int_eq(pthread_create(&relay->thread, NULL, run, relay), 0);
}

void relay_stop(struct relay *relay)
{
    if (relay->port == 0) {
        return;
    }
    ck_assert_int_eq(eventfd_write(relay->stop_fd, 1), 0);
    ck_assert_int_eq(pthread_join(relay->thread, NULL), 0);
    for (size_t i = 0; i < RELAY_MAX; i++) {
        if (relay->pairs[i].client >= 0) {
            close_pair(relay, &relay->pairs[i]);
        }
    }
    (void)close(relay->fd);
    (void)close(relay->stop_fd);
    relay->port = 0;
}
