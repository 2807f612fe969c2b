/* SPDX-License-Identifier: MIT */
/* SIEVE (Zhang, Yang, Yue, Vigfusson, Rashmi: NSDI 2024):
 * which of the things that are kept has to go.
 *
 * They stand in a queue in the order of their coming, and never move. One that is used is marked. A
 * hand goes from the oldest to the newest and around again: it takes marks away, and the first
 * thing without one has to go. A use so changes nothing but a bit.
 *
 * Guarded by a lock for writing, but for cf__sieve_use(): that needs it for reading only. */
#ifndef CURFEW_SYNC_SIEVE_H
#define CURFEW_SYNC_SIEVE_H

#include <stdatomic.h>

#include "curfew/core/list.h"

struct cf__sieve_node {
    struct cf__list node;
    atomic_bool used;
};

struct cf__sieve {
    struct cf__list queue; /* Oldest first. */
    struct cf__list *hand; /* The one to be looked at next; the queue itself: the oldest. */
};

void cf__sieve_init(struct cf__sieve *sieve);

/* Add one that is new. */
void cf__sieve_insert(struct cf__sieve *sieve, struct cf__sieve_node *node);

/* Put `node` where `old` stands, as a use of it. `old` is in no list then. */
void cf__sieve_replace(struct cf__sieve *sieve, struct cf__sieve_node *old,
                       struct cf__sieve_node *node);

void cf__sieve_remove(struct cf__sieve *sieve, struct cf__sieve_node *node);

/* Take out the one that has to go, or NULL if there is none. */
struct cf__sieve_node *cf__sieve_evict(struct cf__sieve *sieve);

/* Mark a use. The hand looks at it under the lock for writing, which orders the two: relaxed. It is
 * read first, so that those who all use the same thing do not take its cache line
 * from each other. */
static inline void cf__sieve_use(struct cf__sieve_node *node)
{
    if (!atomic_load_explicit(&node->used, memory_order_relaxed)) {
        atomic_store_explicit(&node->used, true, memory_order_relaxed);
    }
}

#endif
