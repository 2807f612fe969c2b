/* SPDX-License-Identifier: MIT */
/* What the tests of limiters share: one limiter, on a virtual clock that counts in ticks.
 *
 * Thread safety: the test's thread. */
#ifndef LIMITER_KIT_H
#define LIMITER_KIT_H

#include <curfew/limiter.h>

#include "vclock.h"
#include "waits.h"

/* Fixture */

/* Go's tests count in tenths of a second, with ten tokens a second: one a tick. */
#define TICK (100 * CF_MS)

extern struct vclock limiter_clock;
extern struct cf_limiter *limiter; /* NULL before a test makes it. */

/* A case with that fixture. */
TCase *add_limiter_case(Suite *suite, const char *name);

/* Helpers */

/* Make it, in place of the one before. */
void make_limiter(double per_second, int burst);

#endif
