/* SPDX-License-Identifier: MIT */
/* A TCP relay between the library and a server: what a balancer, a firewall or a dead host does to
 * connections, done on purpose.
 *
 * It listens on a free port of 127.0.0.1 and asks `route` about each connection that comes, counted
 * from 0: a port to pass it on to, or one of the words below.
 *
 *     relay_start(&relay, to_other_server);
 *     ... a conninfo with port=relay.port ...
 *     relay_stop(&relay);
 *
 * Thread safety: `route` and `tap` are called on the relay's thread; the counters are atomic. All
 * functions: any thread, one at a time; they return when it is done. */
#ifndef RELAY_H
#define RELAY_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include <curfew/base.h>

#define RELAY_MAX 256

enum {
    RELAY_CLOSE = -1,  /* Close it at once. */
    RELAY_IGNORE = -2, /* Accept it and never say a word. */
    RELAY_HOLD = -3,   /* The same until relay_release(): then `route` is asked again. */
};

typedef int (*relay_route)(size_t number);

/* Sees what a client sent, when it was passed on. */
typedef void (*relay_tap)(size_t number, const char *bytes, size_t size);

enum relay_order {
    RELAY_STOP,
    RELAY_RELEASE,
    RELAY_RESET,
    RELAY_MUTE,
};

struct relay_pair {
    int client; /* -1: closed. */
    int server; /* -1: none. */
    bool held;
};

struct relay {
    uint16_t port;
    int fd;
    int order_fd;
    relay_route route;
    _Atomic(relay_tap) tap; /* May be NULL. */
    pthread_t thread;
    _Atomic(enum relay_order) order; /* What is asked of the thread, with what, and its answer. */
    size_t number;
    const char *bytes;
    size_t size;
    sem_t done;
    atomic_size_t accepted; /* Connections so far. */
    atomic_size_t open;     /* Connections that are. */
    int64_t at_ns[RELAY_MAX];
    struct relay_pair pairs[RELAY_MAX];
};

void relay_start(struct relay *relay, relay_route route);

/* Close every connection and end. What was never started is left alone. */
void relay_stop(struct relay *relay);

/* Have the connections that are held go where `route` says now. */
void relay_release(struct relay *relay);

/* Close a connection, with an RST to the client. */
void relay_reset(struct relay *relay, size_t number);

/* Say this to the client in the server's name, wait until it is there, let the server go, and ignore
 * the client: its socket does not end. */
void relay_mute(struct relay *relay, size_t number, const char *bytes, size_t size);

#endif
