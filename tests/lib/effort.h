/* SPDX-License-Identifier: MIT */
/* How much of a thing a test does: a stress in little time, all of it with CF_TEST_LONG, and counts
 * that a tool which makes everything slow can still carry. */
#ifndef EFFORT_H
#define EFFORT_H

#include <stdbool.h>
#include <stdint.h>

#include <curfew/clock.h>

/* Whether a sanitizer or valgrind watches this run. */
bool effort_is_watched(void);

/* `count`, or `watched` where a sanitizer or valgrind watches. */
int effort_count(int count, int watched);

/* Until when a stress goes on, on the monotonic clock: a second from now, ten with CF_TEST_LONG. */
int64_t effort_until_ns(void);

/* The same for the one stress of a whole module: five seconds, a minute with CF_TEST_LONG. Its test
 * needs a time limit above that: EFFORT_STRESS_SECONDS_MAX. */
int64_t effort_stress_until_ns(void);

/* The same where each call has a race of its own: a second, a minute with CF_TEST_LONG. */
int64_t effort_brief_stress_until_ns(void);

#define EFFORT_STRESS_SECONDS_MAX 90

/* Whether a race goes on: until `until_ns`, the last that one of the above gave, and on a busy
 * machine, where threads do not meet as they should, until all that has to come about is `seen`.
 * Looks at that only then, and gives up when this process has worked for EFFORT_PATIENCE_NS more:
 * time in which a machine stood still, or gave its processors to others,
 * is no chance that was missed. */
#define EFFORT_GOES_ON(until_ns, seen)                                                             \
    (cf_now_ns() < (until_ns) || (!(seen) && effort_has_patience()))

bool effort_has_patience(void);

#define EFFORT_PATIENCE_NS (8 * CF_SECOND)

#endif
