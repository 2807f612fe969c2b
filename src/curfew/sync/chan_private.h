/* SPDX-License-Identifier: MIT */
/* What channels and the select over them share. */
#ifndef CURFEW_SYNC_CHAN_PRIVATE_H
#define CURFEW_SYNC_CHAN_PRIVATE_H

#include <curfew/chan.h>

#include <pthread.h>

#include "curfew/core/list.h"
#include "curfew/runtime/waiting.h"

struct cf_chan {
    size_t element_size; /* Constant after new, as is the next. */
    size_t capacity;

    pthread_mutex_t mu;        /* Guards everything below. */
    struct cf__list receivers; /* struct cf__chan_waiter, first come first served. */
    struct cf__list senders;   /* The same. Some may have ended and wait for mu to leave. */
    bool closed;
    size_t first; /* The oldest element of the ring. first < capacity, or both are 0. */
    size_t count; /* Elements in the ring. */
    char ring[];  /* capacity * element_size bytes. */
};

/* A wait for one of several places in queues. Lives on the stack of who waits. */
struct cf__chan_visit {
    struct cf__wait wait;
    size_t index; /* Which of its places ended it: written by who claims, read once woken. */
};

/* One place in one queue. */
struct cf__chan_waiter {
    struct cf__list node; /* Guarded by the channel's mu. */
    struct cf__chan_visit *visit;
    size_t index;
    void *value; /* A sender's: what to take, only read. A receiver's: where to put it, or NULL. */
};

/* Do `op` if it can be done now: CF_OK, CF_ECLOSED, or CF_EUNAVAIL. If that ended the wait of
 * somebody, *out_woken is to be given to cf__wait_wake() once no lock is held;
 * else it is NULL. With mu held. */
enum cf_code cf__chan_do(struct cf_chan *ch, enum cf_chan_op op, void *value,
                         struct cf__wait **out_woken);

/* Queue for `op`. With mu held. */
void cf__chan_enqueue(struct cf_chan *ch, enum cf_chan_op op, struct cf__chan_waiter *waiter);

/* Leave the queue, if it has not been left. Takes mu. */
void cf__chan_leave(struct cf_chan *ch, struct cf__chan_waiter *waiter);

/* Describe what cf__chan_do() returned; CF_OK needs no words. Returns `code`. */
enum cf_code cf__chan_err(enum cf_code code, struct cf_err *err);

#endif
