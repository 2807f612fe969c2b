/* SPDX-License-Identifier: MIT */
/* A TCP relay between the library and a server: what a balancer, a firewall or a dead host does to
 * connections, done on purpose.
 *
 * It listens on a free port of 127.0.0.1 and asks `route` about each connection that comes, counted
 * from 0: a port to pass it on to, RELAY_CLOSE, or RELAY_IGNORE.
 *
 *     relay_start(&relay, to_other_server);
 *     ... a conninfo with port=relay.port ...
 *     relay_stop(&relay);
 *
 * Thread safety: `route` is called on the relay's thread; the counters are atomic. */
#ifndef RELAY_H
#define RELAY_H

#include <pthread.h>
#include <stdatomic.h>

#include <curfew/base.h>

#define RELAY_MAX 256

enum {
    RELAY_CLOSE = -1,  /* Close it at once. */
    RELAY_IGNORE = -2, /* Accept it and never say a word. */
};

typedef int (*relay_route)(size_t number);

struct relay_pair {
    int client; /* -1: closed. */
    int server;
};

struct relay {
    uint16_t port;
    int fd;
    int stop_fd;
    relay_route route;
    pthread_t thread;
    atomic_size_t accepted; /* Connections so far. */
    atomic_size_t open;     /* Connections that are. */
    int64_t at_ns[RELAY_MAX];
    struct relay_pair pairs[RELAY_MAX];
};

void relay_start(struct relay *relay, relay_route route);

/* Close every connection and end. What was never started is left alone. */
void relay_stop(struct relay *relay);

#endif
