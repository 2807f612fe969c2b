/* SPDX-License-Identifier: MIT */
/* A binary heap of timers that know their place in it, so that disarming is O(log n): the common
 * end of a deadline is that its request was answered in time. */
#include "curfew/core/timer_heap.h"

#include <stdlib.h>

/* Internal helpers */

static void place(struct cf__timer_heap *heap, size_t i, struct cf_timer *timer)
{
    heap->timers[i] = timer;
    timer->slot = i + 1;
}

static void sift_up(struct cf__timer_heap *heap, size_t i, struct cf_timer *timer)
{
    while (i > 0) {
        size_t parent = (i - 1) / 2;

        if (heap->timers[parent]->at_ns <= timer->at_ns) {
            break;
        }
        place(heap, i, heap->timers[parent]);
        i = parent;
    }
    place(heap, i, timer);
}

static void sift_down(struct cf__timer_heap *heap, size_t i, struct cf_timer *timer)
{
    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= heap->count) {
            break;
        }
        if (child + 1 < heap->count &&
            heap->timers[child + 1]->at_ns < heap->timers[child]->at_ns) {
            child++;
        }
        if (timer->at_ns <= heap->timers[child]->at_ns) {
            break;
        }
        place(heap, i, heap->timers[child]);
        i = child;
    }
    place(heap, i, timer);
}

/* Life cycle */

void cf__timer_heap_fini(struct cf__timer_heap *heap)
{
    free(heap->timers);
    heap->timers = NULL;
}

/* Operations */

bool cf__timer_heap_insert(struct cf__timer_heap *heap, struct cf_timer *timer, int64_t at_ns)
{
    if (heap->count == heap->capacity) {
        size_t capacity = heap->capacity == 0 ? 64 : 2 * heap->capacity;
        struct cf_timer **timers = realloc(heap->timers, capacity * sizeof(*timers));

        if (timers == NULL) {
            return false;
        }
        heap->timers = timers;
        heap->capacity = capacity;
    }
    timer->at_ns = at_ns;
    heap->count++;
    sift_up(heap, heap->count - 1, timer);
    return true;
}

bool cf__timer_heap_remove(struct cf__timer_heap *heap, struct cf_timer *timer)
{
    struct cf_timer *last;
    size_t i;

    if (timer->slot == 0) {
        return false;
    }
    i = timer->slot - 1;
    CF_ASSERT(i < heap->count);
    CF_ASSERT(heap->timers[i] == timer);
    timer->slot = 0;
    heap->count--;
    if (i == heap->count) {
        return true;
    }

    /* The last one fills the gap: it may belong above or below. */
    last = heap->timers[heap->count];
    if (i > 0 && last->at_ns < heap->timers[(i - 1) / 2]->at_ns) {
        sift_up(heap, i, last);
    } else {
        sift_down(heap, i, last);
    }
    return true;
}

struct cf_timer *cf__timer_heap_pop(struct cf__timer_heap *heap, int64_t now_ns)
{
    struct cf_timer *timer;

    if (heap->count == 0 || heap->timers[0]->at_ns > now_ns) {
        return NULL;
    }
    timer = heap->timers[0];
    (void)cf__timer_heap_remove(heap, timer); /* It is there. */
    return timer;
}

/* Queries */

int64_t cf__timer_heap_next_ns(const struct cf__timer_heap *heap)
{
    return heap->count == 0 ? CF_NEVER : heap->timers[0]->at_ns;
}
