/* SPDX-License-Identifier: MIT */
/* Allocations that fail when a test wants them to.
 *
 * Every test binary is linked so that malloc, calloc and realloc, where our own code calls them, go
 * through here; what the C library and other libraries allocate for themselves does not. The count
 * is the calling thread's: a fault set in a fiber strikes what runs on its loop.
 *
 *     for (unsigned nth = 1;; nth++) {
 *         fault_alloc(nth, false);
 *         code = cf_ctx_with_timeout(parent, CF_SECOND, &ctx, &err);
 *         if (!fault_off()) { break; }              // all allocations were tried
 *         ck_assert_int_eq(code, CF_ENOMEM);
 *     } */
#ifndef FAULT_H
#define FAULT_H

#include <stdbool.h>

/* Let the `nth` allocation from now on fail (1: the next), and all later ones if `for_good`. */
void fault_alloc(unsigned nth, bool for_good);

/* Let allocations succeed again. Whether one was made to fail. */
bool fault_off(void);

#endif
