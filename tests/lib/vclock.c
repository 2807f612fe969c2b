/* SPDX-License-Identifier: MIT */
/* The clock that a test moves: see vclock.h. */
#include "vclock.h"

#include <check.h>

#include "curfew/core/list.h"

/* Internal helpers */

static struct vclock *clock_of(struct cf_timer_source *source)
{
    return CF__CONTAINER(source, struct vclock, source);
}

static int64_t now_ns(struct cf_timer_source *source)
{
    struct vclock *clock = clock_of(source);
    int64_t now;

    (void)pthread_mutex_lock(&clock->mu);
    now = clock->now_ns;
    (void)pthread_mutex_unlock(&clock->mu);
    return now;
}

static bool arm(struct cf_timer_source *source, struct cf_timer *timer, int64_t at_ns)
{
    struct vclock *clock = clock_of(source);
    bool ok;

    (void)pthread_mutex_lock(&clock->mu);
    ok = cf__timer_heap_insert(&clock->heap, timer, at_ns);
    (void)pthread_mutex_unlock(&clock->mu);
    return ok;
}

static bool disarm(struct cf_timer_source *source, struct cf_timer *timer)
{
    struct vclock *clock = clock_of(source);
    bool removed;

    (void)pthread_mutex_lock(&clock->mu);
    removed = cf__timer_heap_remove(&clock->heap, timer);
    (void)pthread_mutex_unlock(&clock->mu);
    return removed;
}

/* Life cycle */

void vclock_start(struct vclock *clock)
{
    *clock = (struct vclock){.source = {now_ns, arm, disarm, NULL}, .now_ns = VCLOCK_START_NS};
    (void)pthread_mutex_init(&clock->mu, NULL);
    clock->before = cf_timer_source_use(&clock->source);
}

void vclock_stop(struct vclock *clock)
{
    ck_assert_ptr_eq(cf_timer_source_use(clock->before), &clock->source);
    ck_assert_uint_eq(vclock_armed(clock), 0);
    cf__timer_heap_fini(&clock->heap);
    (void)pthread_mutex_destroy(&clock->mu);
}

/* Operations */

void vclock_advance(struct vclock *clock, int64_t by_ns)
{
    struct cf_timer *timer;
    int64_t until_ns;

    (void)pthread_mutex_lock(&clock->mu);
    until_ns = cf_deadline_in(clock->now_ns, by_ns);
    while ((timer = cf__timer_heap_pop(&clock->heap, until_ns)) != NULL) {
        if (timer->at_ns > clock->now_ns) {
            clock->now_ns = timer->at_ns;
        }
        (void)pthread_mutex_unlock(&clock->mu);
        timer->fire(timer);
        (void)pthread_mutex_lock(&clock->mu);
    }
    clock->now_ns = until_ns;
    (void)pthread_mutex_unlock(&clock->mu);
}

void vclock_stall(struct vclock *clock, int64_t by_ns)
{
    (void)pthread_mutex_lock(&clock->mu);
    clock->now_ns = cf_deadline_in(clock->now_ns, by_ns);
    (void)pthread_mutex_unlock(&clock->mu);
}

/* Queries */

size_t vclock_armed(struct vclock *clock)
{
    size_t count;

    (void)pthread_mutex_lock(&clock->mu);
    count = clock->heap.count;
    (void)pthread_mutex_unlock(&clock->mu);
    return count;
}
