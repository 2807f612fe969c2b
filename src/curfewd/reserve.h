/* SPDX-License-Identifier: MIT */
/* Memory that libuv cannot be refused.
 *
 * libuv keeps a table of a loop's descriptors, which grows with the highest of them, and calls
 * abort() when it cannot: at the start of a loop, and whenever a connection has a number higher
 * than any before. Everything else that it has no memory for, it reports. So its table comes from
 * the heap, like all, and if there is none, from pages set aside at the start.
 *
 * Thread safety: reserve_for_libuv() once, before the first loop; libuv then calls from any. */
#ifndef CURFEWD_RESERVE_H
#define CURFEWD_RESERVE_H

#include <stddef.h>

#include <curfew/err.h>

/* Set pages aside for the tables of `n_loops` loops with descriptors below `n_descriptors`, and
 * have libuv use them. What it never needs is never touched. Fails with CF_ENOMEM. */
CF_MUST enum cf_code reserve_for_libuv(size_t n_loops, size_t n_descriptors, struct cf_err *err);

/* realloc(), or a piece of the reserve; NULL when that is used up too. As libuv calls it. */
void *reserve_realloc(void *old, size_t size);

#endif
