/* SPDX-License-Identifier: MIT */
/* Sizes of tests: see effort.h. */
#include "effort.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include <curfew/clock.h>

#ifndef __has_feature
#define __has_feature(feature) 0 /* clang's way to ask; gcc 12 defines macros instead. */
#endif

#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif

#ifndef RUNNING_ON_VALGRIND
#define RUNNING_ON_VALGRIND 0
#endif

bool effort_is_watched(void)
{
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer) ||                           \
    defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
    return true;
#else
    return RUNNING_ON_VALGRIND != 0;
#endif
}

int effort_count(int count, int watched)
{
    return effort_is_watched() ? watched : count;
}

/* What this process had worked when patience was first asked for. */
static _Atomic int64_t patient_since_ns = -1;

static int64_t work_ns(void)
{
    struct timespec ts;

    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts) != 0) {
        abort();
    }
    return ts.tv_sec * CF_SECOND + ts.tv_nsec;
}

static int64_t seconds_from_now(int brief, int whole)
{
    atomic_store(&patient_since_ns, -1);
    return cf_now_ns() + (getenv("CF_TEST_LONG") != NULL ? whole : brief) * CF_SECOND;
}

int64_t effort_until_ns(void)
{
    return seconds_from_now(1, 10);
}

int64_t effort_stress_until_ns(void)
{
    return seconds_from_now(5, 60);
}

int64_t effort_brief_stress_until_ns(void)
{
    return seconds_from_now(1, 60);
}

bool effort_has_patience(void)
{
    int64_t now_ns = work_ns();
    int64_t since_ns = -1;

    if (atomic_compare_exchange_strong(&patient_since_ns, &since_ns, now_ns)) {
        since_ns = now_ns;
    }
    return now_ns - since_ns < EFFORT_PATIENCE_NS;
}
