/* SPDX-License-Identifier: MIT */
/* What is true for the whole library.
 *
 * Said once, here, so that the contracts of the functions need not repeat it:
 *
 * - Pointers are not NULL unless a contract says so.
 * - Out-parameters are written only on success; `err` may be NULL and is written only on failure.
 * - Strings are NUL-terminated UTF-8, borrowed for the call unless a contract says copied or owned.
 * - Time is an absolute number of nanoseconds on the monotonic clock (clock.h). Durations appear
 *   only where their name says so: `timeout_ns`, `period_ns`.
 * - A call may wait if its contract has a line "Blocks:", and only then. Waiting parks the fiber
 *   that calls, and its loop runs others; on a plain thread it blocks the thread.
 * - Nearly all of these calls take `ctx` first, wait no longer than it lives, and end for exactly
 *   one of: success, canceled, deadline, closed. The exceptions: cf_group_go() waits under its
 *   group's context; cf_pg_commit() and cf_pipeline_run() may outlast `ctx`; calls that wait for
 *   tasks to end have no context, because the tasks have theirs: cf_group_wait(),
 *   cf_pipeline_free(), cf_flight_stop(), cf_cache_stop(), cf_loop_call(); and neither
 *   have those that make and end loops, servers, clients, databases and listeners.
 * - A programming error is asserted (CF_ASSERT, also in release builds); everything that can happen
 *   to a correct program is returned as an error. The library never logs. */
#ifndef CURFEW_BASE_H
#define CURFEW_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CF_VERSION "0.1.0"

/* Marks the functions that the shared library exports; everything else is hidden. */
#define CF_API __attribute__((visibility("default")))

/* The result must be looked at. */
#define CF_MUST __attribute__((warn_unused_result))

/* Printf-like: format is parameter `fmt`, its first argument parameter `first`. */
#define CF_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))

/* Durations, in nanoseconds. */
#define CF_US INT64_C(1000)
#define CF_MS INT64_C(1000000)
#define CF_SECOND INT64_C(1000000000)

/* No deadline: later than every instant the clock can show. */
#define CF_NEVER INT64_MAX

#ifdef __cplusplus
extern "C" {
#endif

/* Print where an invariant was broken and abort. For CF_ASSERT. */
CF_API void cf_assert_failed(const char *expr, const char *file, int line)
    __attribute__((noreturn, cold));

#ifdef __cplusplus
}
#endif

/* A condition that only a mistake in the program can make false. Stays in release builds. */
#define CF_ASSERT(expr) ((expr) ? (void)0 : cf_assert_failed(#expr, __FILE__, __LINE__))

#endif
