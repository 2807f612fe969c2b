/* SPDX-License-Identifier: MIT */
/* A clock that a test moves, and the timers on it.
 *
 * While it is started, contexts that the calling thread makes live by it, so a test of deadlines
 * neither sleeps nor depends on how fast the machine is. It begins at VCLOCK_START_NS.
 *
 * Invariant: a timer's callback sees the clock at the instant it was armed for, and runs on the
 * thread that moves the clock, without its lock.
 *
 *     vclock_start(&clock);
 *     code = cf_ctx_with_timeout(parent, CF_SECOND, &ctx, &err);
 *     vclock_advance(&clock, CF_SECOND);                   // ctx is done
 *     cf_ctx_free(ctx);
 *     vclock_stop(&clock);                                 // fails if a timer is armed still
 *
 * Thread safety: any thread, but start and stop concern the calling one. */
#ifndef VCLOCK_H
#define VCLOCK_H

#include <pthread.h>

#include <curfew/clock.h>

#include "curfew/core/timer_heap.h"

#define VCLOCK_START_NS (1000 * CF_SECOND)

struct vclock {
    struct cf_timer_source source;  /* Without defer: that is the timer thread's. */
    struct cf_timer_source *before; /* What the thread used before. */

    pthread_mutex_t mu; /* Guards everything below. */
    int64_t now_ns;
    struct cf__timer_heap heap;
};

/* Make it the calling thread's source. */
void vclock_start(struct vclock *clock);

/* Go back to the source before it. A timer that is armed still fails the test. */
void vclock_stop(struct vclock *clock);

/* Let `by_ns` pass; what is due fires in the order of its time. */
void vclock_advance(struct vclock *clock, int64_t by_ns);

/* Let `by_ns` pass while nobody gives timers a turn: nothing fires before the next advance. */
void vclock_stall(struct vclock *clock, int64_t by_ns);

/* How many timers are armed. */
size_t vclock_armed(struct vclock *clock);

#endif
