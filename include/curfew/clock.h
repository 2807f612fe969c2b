/* SPDX-License-Identifier: MIT */
/* Time, and the timers that fire by it.
 *
 * A timer source is a clock and the timers that run on it. Every thread has a current one: a loop
 * installs its own on its thread, a test installs a virtual one, and every other thread uses the
 * library's timer thread, which is started when the first timer is armed there. A context with a
 * deadline keeps the source that was current where it was made.
 *
 * Invariant: a timer never fires early, fires at most once per arming, and without a lock of its
 * source.
 *
 *     int64_t until_ns = cf_now_ns() + 50 * CF_MS;
 *
 * Thread safety: everything here may be called from any thread, except that
 * cf_timer_source_use() concerns the calling thread only. */
#ifndef CURFEW_CLOCK_H
#define CURFEW_CLOCK_H

#include <curfew/base.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cf_timer;

typedef void (*cf_timer_cb)(struct cf_timer *timer);

/* Embedded in what it times, which must live until it is disarmed or its callback has returned. */
struct cf_timer {
    int64_t at_ns;    /* When it fires. Set by arm(). */
    cf_timer_cb fire; /* Called by the source, once. Must not block. */
    size_t slot;      /* Of the source: place in its heap plus one; 0 when not armed. */
};

/* A function to be called soon. Embedded in its object, which must live until it has been
 * called. */
struct cf_deferred {
    struct cf_deferred *next; /* Of the source. */
    void (*run)(struct cf_deferred *deferred);
};

/* Where time and timers come from. Implemented by a loop, the timer thread, a test. */
struct cf_timer_source {
    int64_t (*now_ns)(struct cf_timer_source *source);

    /* Make `timer` fire at `at_ns`. False: out of memory. On the thread that uses the source. */
    bool (*arm)(struct cf_timer_source *source, struct cf_timer *timer, int64_t at_ns);

    /* Take the timer back. True if this call prevented it from firing; false if it was not armed
     * or its callback has begun. Never waits for the callback. Any thread. */
    bool (*disarm)(struct cf_timer_source *source, struct cf_timer *timer);

    /* Have `deferred->run` called soon, as a fiber of the loop whose source this is. Any thread,
     * also from `fire`; cannot fail. NULL: on the timer thread, where it must not wait. */
    void (*defer)(struct cf_timer_source *source, struct cf_deferred *deferred);
};

/* The monotonic clock: CLOCK_MONOTONIC in nanoseconds. Never a virtual one. */
CF_API int64_t cf_now_ns(void);

/* The calling thread's current source. Never NULL. */
CF_API struct cf_timer_source *cf_timer_source(void);

/* Make `source` the calling thread's current one; NULL goes back to the timer thread. Returns the
 * one before, or NULL. Keeps a pointer: the source must outlive every context made under it. */
CF_API struct cf_timer_source *cf_timer_source_use(struct cf_timer_source *source);

/* now + timeout, without overflow: CF_NEVER when the sum is later than that. */
CF_API int64_t cf_deadline_in(int64_t now_ns, int64_t timeout_ns);

#ifdef __cplusplus
}
#endif

#endif
