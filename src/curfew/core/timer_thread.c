/* SPDX-License-Identifier: MIT */
/* A thread that sleeps until the earliest timer is due.
 *
 * It is started by the first arming and lives as long as the process: nothing would be gained by
 * ending it, and nobody could say when. Callbacks run without the lock, so they may arm and disarm.
 *
 * Lock order: `mu` is a leaf; it is taken with a context's lock held (defer from a firing context),
 * and nothing is called while it is held. */
#include "curfew/core/timer_thread.h"

#include <pthread.h>
#include <time.h>

#include "curfew/core/thread.h"
#include "curfew/core/timer_heap.h"

static struct {
    pthread_mutex_t mu;
    pthread_cond_t changed; /* An earlier timer, or something deferred. */
    bool started;           /* Guarded by mu, as is all below. */
    struct cf__timer_heap heap;
    struct cf_deferred *first; /* Deferred, in order. */
    struct cf_deferred **last;
} self = {.mu = PTHREAD_MUTEX_INITIALIZER, .last = &self.first};

/* Internal helpers */

/* Wait for a change, or until `until_ns`. With mu held. */
static void wait_until(int64_t until_ns)
{
    struct timespec at = {.tv_sec = until_ns / CF_SECOND, .tv_nsec = until_ns % CF_SECOND};

    if (until_ns == CF_NEVER) {
        (void)pthread_cond_wait(&self.changed, &self.mu);
    } else {
        (void)pthread_cond_timedwait(&self.changed, &self.mu,
                                     &at); /* Early or late: looks again. */
    }
}

static void *run(void *arg)
{
    (void)pthread_mutex_lock(&self.mu);
    for (;;) {
        struct cf_deferred *deferred = self.first;
        struct cf_timer *timer;

        if (deferred != NULL) {
            self.first = deferred->next;
            if (self.first == NULL) {
                self.last = &self.first;
            }
            (void)pthread_mutex_unlock(&self.mu);
            deferred->run(deferred);
            (void)pthread_mutex_lock(&self.mu);
            continue;
        }
        timer = cf__timer_heap_pop(&self.heap, cf_now_ns());
        if (timer == NULL) {
            wait_until(cf__timer_heap_next_ns(&self.heap));
            continue;
        }
        (void)pthread_mutex_unlock(&self.mu);
        timer->fire(timer);
        (void)pthread_mutex_lock(&self.mu);
    }
    return arg; /* Never reached. */
}

/* Start the thread if it does not run. With mu held. */
static bool start_locked(void)
{
    pthread_condattr_t attributes;

    if (self.started) {
        return true;
    }
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&self.changed, &attributes); /* Cannot fail with glibc. */
    (void)pthread_condattr_destroy(&attributes);
    self.started = cf__thread_start("cf-timer", run, NULL, NULL) == 0;
    return self.started;
}

static int64_t now_ns(struct cf_timer_source *source)
{
    (void)source;
    return cf_now_ns();
}

static bool arm(struct cf_timer_source *source, struct cf_timer *timer, int64_t at_ns)
{
    bool ok;

    (void)source;
    (void)pthread_mutex_lock(&self.mu);
    ok = start_locked() && cf__timer_heap_insert(&self.heap, timer, at_ns);
    if (ok && self.heap.timers[0] == timer) {
        (void)pthread_cond_signal(&self.changed);
    }
    (void)pthread_mutex_unlock(&self.mu);
    return ok;
}

static bool disarm(struct cf_timer_source *source, struct cf_timer *timer)
{
    bool removed;

    (void)source;
    (void)pthread_mutex_lock(&self.mu);
    removed = cf__timer_heap_remove(&self.heap, timer);
    (void)pthread_mutex_unlock(&self.mu);
    return removed;
}

/* The thread runs: whoever may defer made sure of it when it could still fail. */
static void defer(struct cf_timer_source *source, struct cf_deferred *deferred)
{
    (void)source;
    (void)pthread_mutex_lock(&self.mu);
    CF_ASSERT(self.started);
    deferred->next = NULL;
    *self.last = deferred;
    self.last = &deferred->next;
    (void)pthread_cond_signal(&self.changed);
    (void)pthread_mutex_unlock(&self.mu);
}

/* Life cycle */

struct cf_timer_source *cf__timer_thread(void)
{
    static struct cf_timer_source source = {now_ns, arm, disarm, defer};

    return &source;
}

bool cf__timer_thread_start(void)
{
    bool ok;

    (void)pthread_mutex_lock(&self.mu);
    ok = start_locked();
    (void)pthread_mutex_unlock(&self.mu);
    return ok;
}
