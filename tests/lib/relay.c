/* SPDX-License-Identifier: MIT */
/* One thread and poll(): see relay.h. */
#include "relay.h"

#include <arpa/inet.h>
#include <check.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "client.h"

/* Constants */

/* What is passed on at once. */
#define BYTES 65536

/* In how long a connection over the loopback would be made if anybody were there. */
#define DEAF_MS 50

/* How every CancelRequest begins: its length and its code. */
static const char cancel_request[8] = {0, 0, 0, 16, 0x04, (char)0xd2, 0x16, 0x2e};

/* The statement of a control connection. */
#define CONTROL "cf_cancel_backends"

/* Internal helpers: connections */

static int open_to(int port, int flags)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0 && flags == 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static void say_at_once(int fd)
{
    int on = 1;

    if (fd >= 0) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
}

static void close_pair(struct relay *relay, struct relay_pair *pair)
{
    (void)close(pair->client);
    if (pair->server >= 0) {
        (void)close(pair->server);
    }
    free(pair->up.bytes);
    free(pair->down.bytes);
    *pair = (struct relay_pair){.client = -1, .server = -1};
    (void)atomic_fetch_sub(&relay->open, 1);
}

static void reset_pair(struct relay *relay, struct relay_pair *pair)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};

    (void)setsockopt(pair->client, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    if (pair->server >= 0) {
        (void)setsockopt(pair->server, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    }
    close_pair(relay, pair);
}

static void connect_pair(struct relay *relay, struct relay_pair *pair, int port)
{
    pair->held = port == RELAY_HOLD;
    pair->server = port > 0 ? open_to(port, 0) : -1;
    say_at_once(pair->server);
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
    *pair = (struct relay_pair){.client = fd, .server = -1, .fresh = true};
    say_at_once(fd);
    connect_pair(relay, pair, port);
    (void)atomic_fetch_add(&relay->accepted, 1);
}

/* Internal helpers: bytes */

/* What a client sent is a cancel: do as was asked with these. */
static void meet_cancel(struct relay *relay, struct relay_pair *pair)
{
    (void)atomic_fetch_add(&relay->cancels, 1);
    if (relay->faults.cancels == RELAY_CANCELS_DELAY) {
        pair->up.due_ns += relay->faults.cancel_delay_ns;
    } else if (relay->faults.cancels == RELAY_CANCELS_DROP && pair->server >= 0) {
        (void)close(pair->server);
        pair->server = -1;
        pair->dropped = true;
    }
}

static bool is_cancel(const struct relay_pair *pair)
{
    return (pair->fresh && pair->up.size >= sizeof(cancel_request) &&
            memcmp(pair->up.bytes, cancel_request, sizeof(cancel_request)) == 0) ||
           memmem(pair->up.bytes, pair->up.size, CONTROL, strlen(CONTROL)) != NULL;
}

/* Do to a piece what the fault says of its bytes. */
static void spoil(const struct relay_fault *fault, struct relay_pipe *pipe)
{
    for (size_t i = 0; fault->garble_every > 0 && i < pipe->size; i++) {
        if ((pipe->passed + i + 1) % fault->garble_every == 0) {
            pipe->bytes[i] = (char)(pipe->bytes[i] ^ 0xA5);
        }
    }
    if (fault->cut_after > 0 && pipe->passed + pipe->size > fault->cut_after) {
        pipe->size = fault->cut_after - pipe->passed;
    }
}

/* Take the next piece. False: that side has ended. */
static bool take(const struct relay_fault *fault, struct relay_pipe *pipe, int from)
{
    size_t most = fault->piece > 0 && fault->piece < BYTES ? fault->piece : BYTES;
    ssize_t n;

    if (pipe->bytes == NULL) {
        pipe->bytes = malloc(BYTES);
        CF_ASSERT(pipe->bytes != NULL);
    }
    n = recv(from, pipe->bytes, most, 0);
    if (n <= 0) {
        return false;
    }
    pipe->size = (size_t)n;
    pipe->due_ns = fault->delay_ns > 0 ? cf_now_ns() + fault->delay_ns : 0;
    spoil(fault, pipe);
    return true;
}

/* Pass on what is held if it is due. False: that side has ended, or the connection is to. */
static bool give(const struct relay_fault *fault, struct relay_pipe *pipe, int to)
{
    size_t sent = to < 0 ? pipe->size : 0;

    if (fault->hold || (pipe->due_ns > 0 && cf_now_ns() < pipe->due_ns)) {
        return true;
    }
    while (sent < pipe->size) {
        ssize_t n = send(to, pipe->bytes + sent, pipe->size - sent, MSG_NOSIGNAL);

        if (n <= 0) {
            return false;
        }
        sent += (size_t)n;
    }
    pipe->passed += pipe->size;
    pipe->size = 0;
    return fault->cut_after == 0 || pipe->passed < fault->cut_after;
}

static bool serve_up(struct relay *relay, struct relay_pair *pair, short ready)
{
    relay_tap tap = atomic_load(&relay->tap);
    size_t size;

    if (ready != 0) {
        if (!take(&relay->faults.to_server, &pair->up, pair->client)) {
            return false;
        }
        if (is_cancel(pair)) {
            pair->up.due_ns = pair->up.due_ns > 0 ? pair->up.due_ns : cf_now_ns();
            meet_cancel(relay, pair);
        }
        pair->fresh = false;
    }
    size = pair->up.size;
    if (size == 0) {
        return true;
    }
    if (!give(&relay->faults.to_server, &pair->up, pair->server)) {
        return false;
    }
    if (tap != NULL && pair->up.size == 0) {
        tap((size_t)(pair - relay->pairs), pair->up.bytes, size);
    }
    return true;
}

/* Put what is to be appended behind a piece that ends an answer. */
static void append(struct relay_pair *pair)
{
    static const char ready[] = "Z\0\0\0\5"; /* And the transaction's status. */
    struct relay_pipe *pipe = &pair->down;
    size_t size = sizeof(ready);

    if (pair->append == NULL || pipe->size < size ||
        memcmp(pipe->bytes + pipe->size - size, ready, size - 1) != 0) {
        return;
    }
    CF_ASSERT(pair->append_size <= BYTES - pipe->size);
    memcpy(pipe->bytes + pipe->size, pair->append, pair->append_size);
    pipe->size += pair->append_size;
    pair->append = NULL;
}

static bool serve_down(struct relay *relay, struct relay_pair *pair, short ready)
{
    if (ready != 0 && pair->server >= 0) {
        if (!take(&relay->faults.to_client, &pair->down, pair->server)) {
            return false;
        }
        append(pair);
    }
    return pair->down.size == 0 || give(&relay->faults.to_client, &pair->down, pair->client);
}

static void serve_pair(struct relay *relay, struct relay_pair *pair, short client, short server)
{
    bool goes_on = serve_up(relay, pair, client) && serve_down(relay, pair, server);

    if (goes_on) {
        return;
    }
    if (relay->faults.to_server.cut_after > 0 || relay->faults.to_client.cut_after > 0) {
        reset_pair(relay, pair);
    } else {
        close_pair(relay, pair);
    }
}

/* Internal helpers: orders */

static void release_all(struct relay *relay)
{
    for (size_t i = 0; i < atomic_load(&relay->accepted); i++) {
        if (relay->pairs[i].held) {
            connect_pair(relay, &relay->pairs[i], relay->route(i));
        }
    }
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

/* Bytes count anew. */
static void set_faults(struct relay *relay)
{
    relay->faults = relay->next_faults;
    for (size_t i = 0; i < atomic_load(&relay->accepted); i++) {
        struct relay_pair *pair = &relay->pairs[i];

        pair->up.passed = 0;
        pair->down.passed = 0;
        if (pair->dropped && relay->faults.cancels != RELAY_CANCELS_DROP) {
            reset_pair(relay, pair);
        }
    }
}

static void cut_all(struct relay *relay)
{
    for (size_t i = 0; i < atomic_load(&relay->accepted); i++) {
        if (relay->pairs[i].client >= 0) {
            reset_pair(relay, &relay->pairs[i]);
        }
    }
}

/* Fill the shortest backlog there is: from then on the kernel drops who asks. */
static void deafen(struct relay *relay)
{
    struct pollfd made = {.events = POLLOUT};
    size_t n = 0;

    CF_ASSERT(listen(relay->fd, 0) == 0);
    do {
        CF_ASSERT(n < sizeof(relay->fillers) / sizeof(relay->fillers[0]));
        made.fd = open_to(relay->port, SOCK_NONBLOCK);
        relay->fillers[n++] = made.fd;
    } while (poll(&made, 1, DEAF_MS) == 1);
    relay->deaf = true;
}

static void hear(struct relay *relay)
{
    struct pollfd came = {.fd = relay->fd, .events = POLLIN};

    for (size_t i = 0; i < sizeof(relay->fillers) / sizeof(relay->fillers[0]); i++) {
        if (relay->fillers[i] > 0) {
            (void)close(relay->fillers[i]);
            relay->fillers[i] = 0;
        }
    }
    while (poll(&came, 1, 0) == 1) { /* Only what filled it got in. */
        (void)close(accept4(relay->fd, NULL, NULL, SOCK_CLOEXEC));
    }
    CF_ASSERT(listen(relay->fd, 64) == 0);
    relay->deaf = false;
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
    case RELAY_APPEND:
        pair->append = relay->bytes;
        pair->append_size = relay->size;
        break;
    case RELAY_FAULT:
        set_faults(relay);
        break;
    case RELAY_CUT:
        cut_all(relay);
        break;
    case RELAY_DEAFEN:
        deafen(relay);
        break;
    case RELAY_HEAR:
        hear(relay);
        break;
    }
    (void)sem_post(&relay->done);
    return true;
}

/* Internal helpers: the thread */

/* What poll() is to look for on a side: nothing while the other has a piece to come. poll() passes
 * over what is -1. */
static struct pollfd look_for(int fd, const struct relay_fault *fault,
                              const struct relay_pipe *pipe)
{
    bool wanted = !fault->hold && pipe->size == 0;

    return (struct pollfd){.fd = wanted ? fd : -1, .events = POLLIN};
}

static void sooner(int64_t *at_ns, const struct relay_fault *fault, const struct relay_pipe *pipe)
{
    if (pipe->size > 0 && !fault->hold && pipe->due_ns < *at_ns) {
        *at_ns = pipe->due_ns;
    }
}

/* Returns when the next piece is due. */
static int64_t prepare(struct relay *relay, size_t n, struct pollfd *fds)
{
    const struct relay_faults *faults = &relay->faults;
    int64_t next_ns = CF_NEVER;

    fds[0] = (struct pollfd){.fd = relay->order_fd, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = relay->deaf ? -1 : relay->fd, .events = POLLIN};
    for (size_t i = 0; i < n; i++) {
        struct relay_pair *pair = &relay->pairs[i];

        fds[2 + 2 * i] = look_for(pair->held ? -1 : pair->client, &faults->to_server, &pair->up);
        fds[3 + 2 * i] = look_for(pair->server, &faults->to_client, &pair->down);
        sooner(&next_ns, &faults->to_server, &pair->up);
        sooner(&next_ns, &faults->to_client, &pair->down);
    }
    return next_ns;
}

static void wait_until(int64_t at_ns, struct pollfd *fds, size_t n)
{
    int64_t left_ns = at_ns == CF_NEVER ? CF_NEVER : at_ns - cf_now_ns();
    struct timespec left = {.tv_sec = left_ns / CF_SECOND, .tv_nsec = left_ns % CF_SECOND};

    if (left_ns < 0) {
        left = (struct timespec){0};
    }
    (void)ppoll(fds, n, at_ns == CF_NEVER ? NULL : &left, NULL);
}

static void *run(void *arg)
{
    struct relay *relay = arg;
    struct pollfd fds[2 + 2 * RELAY_MAX];

    for (;;) {
        size_t n = atomic_load(&relay->accepted);

        wait_until(prepare(relay, n, fds), fds, 2 + 2 * n);
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

/* Life cycle */

void relay_start(struct relay *relay, relay_route route)
{
    relay_start_on(relay, "127.0.0.1", 0, route);
}

void relay_start_on(struct relay *relay, const char *address, uint16_t port, relay_route route)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t size = sizeof(name);
    int on = 1;

    memset(relay, 0, sizeof(*relay));
    for (size_t i = 0; i < RELAY_MAX; i++) {
        relay->pairs[i] = (struct relay_pair){.client = -1, .server = -1};
    }
    relay->route = route;
    ck_assert_int_eq(sem_init(&relay->done, 0, 0), 0);
    relay->order_fd = eventfd(0, EFD_CLOEXEC);
    relay->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(setsockopt(relay->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
    ck_assert_int_eq(inet_pton(AF_INET, address, &name.sin_addr), 1);
    ck_assert_int_eq(bind(relay->fd, (struct sockaddr *)&name, sizeof(name)), 0);
    ck_assert_int_eq(listen(relay->fd, 64), 0);
    ck_assert_int_eq(getsockname(relay->fd, (struct sockaddr *)&name, &size), 0);
    relay->port = ntohs(name.sin_port);
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
    if (relay->deaf) {
        hear(relay);
    }
    (void)close(relay->fd);
    (void)close(relay->order_fd);
    (void)sem_destroy(&relay->done);
    relay->port = 0;
}

/* Operations */

void relay_fault(struct relay *relay, const struct relay_faults *faults)
{
    static const struct relay_faults none;

    relay->next_faults = faults != NULL ? *faults : none;
    give_order(relay, RELAY_FAULT, 0);
}

void relay_cut(struct relay *relay)
{
    give_order(relay, RELAY_CUT, 0);
}

void relay_deafen(struct relay *relay)
{
    give_order(relay, RELAY_DEAFEN, 0);
}

void relay_hear(struct relay *relay)
{
    give_order(relay, RELAY_HEAR, 0);
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

void relay_append(struct relay *relay, size_t number, const char *bytes, size_t size)
{
    relay->bytes = bytes;
    relay->size = size;
    give_order(relay, RELAY_APPEND, number);
}
