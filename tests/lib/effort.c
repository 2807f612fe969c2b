/* SPDX-License-Identifier: MIT */
/* Sizes of tests: see effort.h. */
#include "effort.h"

#include <stdlib.h>

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

int64_t effort_until_ns(void)
{
    return cf_now_ns() + (getenv("CF_TEST_LONG") != NULL ? 10 : 1) * CF_SECOND;
}

int64_t effort_stress_until_ns(void)
{
    return cf_now_ns() + (getenv("CF_TEST_LONG") != NULL ? 60 : 5) * CF_SECOND;
}

int64_t effort_brief_stress_until_ns(void)
{
    return cf_now_ns() + (getenv("CF_TEST_LONG") != NULL ? 60 : 1) * CF_SECOND;
}
