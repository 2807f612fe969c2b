/* SPDX-License-Identifier: MIT */
/* One thread and poll(): see relay.h. */
#include "relay.h"

#include <arpa/inet.h>
#include <check.h>
#include <linux/sockios.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "client.h"

/* What is passed on at once. */
#define BYTES 65536

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
    *pair = (struct relay_pair){-1, -1, false};
    (void)atomic_fetch_sub(&relay->open, 1);
}

static void connect_pair(struct relay *relay, struct relay_pair *pair, int port)
{
    pair->held = port == RELAY_HOLD;
    pair->server = port > 0 ? open_to(port) : -1;
    if (port == RELAY_CLOSE || (port > 0 && pair->server < 0)) {
        close_pair(relay, pair);
    }
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
    *pair = (struct relay_pair){fd, -1, false};
    connect_pair(relay, pair, port);
    (void)atomic_fetch_add(&relay->accepted, 1);
}

/* Pass on what is there. False: that side has ended. */
static bool pass(int from, int to, char bytes[BYTES], ssize_t *out)
{
    ssize_t n = recv(from, bytes, BYTES, 0);

    *out = n;
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
    relay_tap tap = atomic_load(&relay->tap);
    char bytes[BYTES];
    ssize_t n;

    if (client != 0) {
        if (!pass(pair->client, pair->server, bytes, &n)) {
            close_pair(relay, pair);
            return;
        }
        if (tap != NULL) {
            tap((size_t)(pair - relay->pairs), bytes, (size_t)n);
        }
    }
    if (server != 0 && !pass(pair->server, pair->client, bytes, &n)) {
        close_pair(relay, pair);
    }
}

static void release_all(struct relay *relay)
{
    for (size_t i = 0; i < atomic_load(&relay->accepted); i++) {
        if (relay->pairs[i].held) {
            connect_pair(relay, &relay->pairs[i], relay->route(i));
        }
    }
}

static void reset_pair(struct relay *relay, struct relay_pair *pair)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};

    (void)setsockopt(pair->client, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    close_pair(relay, pair);
}

static void mute_pair(struct relay *relay, struct relay_pair *pair)
{
    int on_the_way = 1;

    (void)!send(pair->client, relay->bytes, relay->size, MSG_NOSIGNAL);
    while (on_the_way > 0 && ioctl(pair->client, SIOCOUTQ, &on_the_way) == 0) {
        pause_ms(1);
    }
    (void)close(pair->server);
    pair->server = -1;
}

/* False: stop. */
static bool obey(struct relay *relay)
{
    enum relay_order order = atomic_load(&relay->order);
    struct relay_pair *pair = &relay->pairs[relay->number];
    eventfd_t count;

    (void)eventfd_read(relay->order_fd, &count);
    switch (order) {
    case RELAY_STOP:
        return false;
    case RELAY_RELEASE:
        release_all(relay);
        break;
    case RELAY_RESET:
        reset_pair(relay, pair);
        break;
    case RELAY_MUTE:
        mute_pair(relay, pair);
        break;
    }
    (void)sem_post(&relay->done);
    return true;
}

static void *run(void *arg)
{
    struct relay *relay = arg;
    struct pollfd fds[2 + 2 * RELAY_MAX];

    for (;;) {
        size_t n = atomic_load(&relay->accepted);

        fds[0] = (struct pollfd){.fd = relay->order_fd, .events = POLLIN};
        fds[1] = (struct pollfd){.fd = relay->fd, .events = POLLIN};
        for (size_t i = 0; i < n; i++) { /* poll() passes over what is -1. */
            struct relay_pair *pair = &relay->pairs[i];

            fds[2 + 2 * i] =
                (struct pollfd){.fd = pair->held ? -1 : pair->client, .events = POLLIN};
            fds[3 + 2 * i] = (struct pollfd){.fd = pair->server, .events = POLLIN};
        }
        (void)poll(fds, 2 + 2 * n, -1);
        if (fds[0].revents != 0) {
            if (!obey(relay)) {
                return NULL;
            }
            continue; /* What poll() said may be of what is closed. */
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

static void give_order(struct relay *relay, enum relay_order order, size_t number)
{
    CF_ASSERT(number < RELAY_MAX);
    relay->number = number;
    atomic_store(&relay->order, order); /* Last: TSan does not know what an eventfd orders. */
    CF_ASSERT(eventfd_write(relay->order_fd, 1) == 0);
    while (order != RELAY_STOP && sem_wait(&relay->done) != 0) {
    }
}

void relay_start(struct relay *relay, relay_route route)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);

    memset(relay, 0, sizeof(*relay));
    for (size_t i = 0; i < RELAY_MAX; i++) {
        relay->pairs[i] = (struct relay_pair){-1, -1, false};
    }
    relay->route = route;
    ck_assert_int_eq(sem_init(&relay->done, 0, 0), 0);
    relay->order_fd = eventfd(0, EFD_CLOEXEC);
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
    give_order(relay, RELAY_STOP, 0);
    ck_assert_int_eq(pthread_join(relay->thread, NULL), 0);
    for (size_t i = 0; i < RELAY_MAX; i++) {
        if (relay->pairs[i].client >= 0) {
            close_pair(relay, &relay->pairs[i]);
        }
    }
    (void)close(relay->fd);
    (void)close(relay->order_fd);
    (void)sem_destroy(&relay->done);
    relay->port = 0;
}

void relay_release(struct relay *relay)
{
    give_order(relay, RELAY_RELEASE, 0);
}

void relay_reset(struct relay *relay, size_t number)
{
    give_order(relay, RELAY_RESET, number);
}

void relay_mute(struct relay *relay, size_t number, const char *bytes, size_t size)
{
    relay->bytes = bytes;
    relay->size = size;
    give_order(relay, RELAY_MUTE, number);
}
