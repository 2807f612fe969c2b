/* SPDX-License-Identifier: MIT */
/* The timers of one source, earliest first: a binary heap. Guarded by whoever owns it. */
#ifndef CURFEW_CORE_TIMER_HEAP_H
#define CURFEW_CORE_TIMER_HEAP_H

#include <curfew/clock.h>

struct cf__timer_heap {
    struct cf_timer **timers; /* timers[i]->slot == i + 1. */
    size_t count;
    size_t capacity;
};

/* Free the array. Timers that are still armed never fire. */
void cf__timer_heap_fini(struct cf__timer_heap *heap);

/* False: out of memory. */
bool cf__timer_heap_insert(struct cf__timer_heap *heap, struct cf_timer *timer, int64_t at_ns);

/* False if it was not in the heap. */
bool cf__timer_heap_remove(struct cf__timer_heap *heap, struct cf_timer *timer);

/* When the earliest fires; CF_NEVER if there is none. */
int64_t cf__timer_heap_next_ns(const struct cf__timer_heap *heap);

/* Take the earliest if it is due at `now_ns`, else NULL. */
struct cf_timer *cf__timer_heap_pop(struct cf__timer_heap *heap, int64_t now_ns);

#endif
