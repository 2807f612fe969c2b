/* SPDX-License-Identifier: MIT */
/* A TCP relay between the library and a server: what a balancer, a firewall, a bad line or a dead
 * host does to connections, done on purpose.
 *
 * It listens on a free port of 127.0.0.1 and asks `route` about each connection that comes, counted
 * from 0: a port to pass it on to, or one of the words below. What it does to the bytes of all
 * connections, those that are open and those that come, is said by relay_fault().
 *
 *     relay_start(&relay, to_other_server);
 *     ... a conninfo with port=relay.port ...
 *     relay_fault(&relay, &(struct relay_faults){.to_client = {.piece = 1}});
 *     relay_fault(&relay, NULL);
 *     relay_stop(&relay);
 *
 * A direction holds one piece at a time: a delay is one of the line and a limit of its bandwidth.
 *
 * Thread safety: `route` and `tap` are called on the relay's thread; the counters are atomic. All
 * functions: any thread, one at a time; they return when it is done. */
#ifndef RELAY_H
#define RELAY_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include <curfew/base.h>

#define RELAY_MAX 1024

enum {
    RELAY_CLOSE = -1,  /* Close it at once. */
    RELAY_IGNORE = -2, /* Accept it and never say a word. */
    RELAY_HOLD = -3,   /* The same until relay_release(): then `route` is asked again. */
};

typedef int (*relay_route)(size_t number);

/* Sees what a client sent, when it was passed on. */
typedef void (*relay_tap)(size_t number, const char *bytes, size_t size);

/* What is done to one direction of every connection; 0: nothing. */
struct relay_fault {
    bool hold;           /* Nothing passes, not even the end: a black hole, while it lasts. */
    size_t piece;        /* At most so many bytes at once. */
    int64_t delay_ns;    /* Each piece waits so long, and the next behind it. */
    size_t cut_after;    /* When so many bytes of a connection have passed it is reset. */
    size_t garble_every; /* Each of so many bytes is another. */
};

enum relay_cancels {
    RELAY_CANCELS_PASS,
    RELAY_CANCELS_DROP,  /* Whoever cancels is not answered, and reset when this is over. */
    RELAY_CANCELS_DELAY, /* They wait for cancel_delay_ns. */
};

struct relay_faults {
    struct relay_fault to_server;
    struct relay_fault to_client;
    enum relay_cancels cancels; /* CancelRequests, and what goes over a control connection. */
    int64_t cancel_delay_ns;
};

enum relay_order {
    RELAY_STOP,
    RELAY_RELEASE,
    RELAY_RESET,
    RELAY_MUTE,
    RELAY_APPEND,
    RELAY_FAULT,
    RELAY_CUT,
    RELAY_DEAFEN,
    RELAY_HEAR,
};

struct relay_pipe {
    char *bytes; /* NULL: none yet. */
    size_t size; /* Of the piece that it holds; 0: none. */
    int64_t due_ns;
    atomic_size_t passed; /* Since the faults were set, or the connection came. */
};

struct relay_pair {
    int client; /* -1: closed. */
    int server; /* -1: none. */
    bool held;
    bool fresh;   /* Has not said anything. */
    bool dropped; /* It cancelled. */
    struct relay_pipe up;
    struct relay_pipe down;
    const char *append; /* To the next answer; NULL: nothing. */
    size_t append_size;
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
    struct relay_faults next_faults;
    sem_t done;
    atomic_size_t accepted; /* Connections so far. */
    atomic_size_t open;     /* Connections that are. */
    atomic_size_t cancels;  /* Cancels that were seen. */
    int64_t at_ns[RELAY_MAX];
    int fillers[4]; /* What keeps others out while it is deaf; 0: nothing. */
    bool deaf;
    struct relay_faults faults; /* The thread's. */
    struct relay_pair pairs[RELAY_MAX];
};

/* Life cycle */

void relay_start(struct relay *relay, relay_route route);

/* On an address and port (0: a free one) of this host. */
void relay_start_on(struct relay *relay, const char *address, uint16_t port, relay_route route);

/* Close every connection and end. What was never started is left alone. */
void relay_stop(struct relay *relay);

/* Operations */

/* Do this to all connections from now on. NULL: pass everything. */
void relay_fault(struct relay *relay, const struct relay_faults *faults);

/* Reset all connections, to both sides. */
void relay_cut(struct relay *relay);

/* Be a host that is not there: who connects is not even refused. Then be there again. */
void relay_deafen(struct relay *relay);
void relay_hear(struct relay *relay);

/* Have the connections that are held go where `route` says now. */
void relay_release(struct relay *relay);

/* Close a connection, with an RST to the client. */
void relay_reset(struct relay *relay, size_t number);

/* Say this to the client in the server's name, wait until it is there, let the server go, and
 * ignore the client: its socket does not end. */
void relay_mute(struct relay *relay, size_t number, const char *bytes, size_t size);

/* Say this to the client in the server's name, in one piece with the end of the server's next
 * answer (ReadyForQuery). */
void relay_append(struct relay *relay, size_t number, const char *bytes, size_t size);

#endif
