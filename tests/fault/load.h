/* SPDX-License-Identifier: MIT */
/* Clients that ask without a pause, each on a connection that it keeps, and some of which leave.
 *
 *     load_start(&load, service->api_port, 24, 2);    // every other dashboard is abandoned
 *     ...
 *     load_stop(&load);
 *     ck_assert_uint_eq(load.failed, 0);
 *
 * A client ends by itself when it is told that its connection ends, or refused.
 *
 * Thread safety: the test's thread; the counters are atomic. */
#ifndef LOAD_H
#define LOAD_H

#include <pthread.h>
#include <stdatomic.h>

#include <curfew/base.h>

#define LOAD_CLIENTS_MAX 64

struct load {
    uint16_t port; /* Constant after start, as are these. */
    unsigned abandons;
    size_t n_clients;
    pthread_t threads[LOAD_CLIENTS_MAX];

    atomic_bool stopping;
    atomic_uint seeds;
    atomic_size_t served;    /* 200. */
    atomic_size_t abandoned; /* Left at a random moment. */
    atomic_size_t failed;    /* Another status, or a connection that ended without a whole reply. */
    char failure[160];       /* The first of these, once load_stop() has returned. */
};

/* One request of `abandons` is abandoned; 0: none. */
void load_start(struct load *load, uint16_t port, size_t clients, unsigned abandons);
void load_stop(struct load *load);

#endif
