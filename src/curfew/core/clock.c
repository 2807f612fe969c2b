/* SPDX-License-Identifier: MIT */
/* The clock, and which timer source a thread uses: see clock.h. */
#include <curfew/clock.h>

#include <time.h>

#include "curfew/core/timer_thread.h"

static _Thread_local struct cf_timer_source *current;

int64_t cf_now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* Cannot fail for this clock. */
    return (int64_t)now.tv_sec * CF_SECOND + now.tv_nsec;
}

struct cf_timer_source *cf_timer_source(void)
{
    return current != NULL ? current : cf__timer_thread();
}

struct cf_timer_source *cf_timer_source_use(struct cf_timer_source *source)
{
    struct cf_timer_source *before = current;

    current = source;
    return before;
}

int64_t cf_deadline_in(int64_t now_ns, int64_t timeout_ns)
{
    if (timeout_ns > 0 && now_ns > CF_NEVER - timeout_ns) {
        return CF_NEVER;
    }
    if (timeout_ns < 0 && now_ns < INT64_MIN - timeout_ns) {
        return INT64_MIN;
    }
    return now_ns + timeout_ns;
}
