/* SPDX-License-Identifier: MIT */
/* Loops and fibers: one thread per loop, one fiber per task.
 *
 * A loop is a thread that waits for descriptors and timers, and runs its fibers. A fiber is a
 * function with a stack of its own that reads from top to bottom; when it waits, it parks, and its
 * loop runs others. A fiber never leaves its loop, so data that belongs to the loop needs no lock.
 * Loops share nothing with each other.
 *
 * Invariant: at most one fiber of a loop runs at a time, it is switched only inside calls whose
 * contract has a line "Blocks:", and a loop ends only after its last fiber.
 *
 *     struct cf_loop *loop;
 *     code = cf_loop_new(NULL, &loop, err);
 *     if (code != CF_OK) { return code; }
 *     code = cf_loop_call(loop, serve, &state, err);   // runs serve(&state) as a fiber, to its end
 *     cf_loop_free(loop);
 *
 * A fiber must not call what blocks its thread (a slow disk, a name server, a pthread lock that is
 * held for long): lane.h is for that. A fiber's stack is small (see stack_size): no large arrays on
 * it, and no recursion whose depth depends on input.
 *
 * Thread safety: any thread may call everything here, unless said. */
#ifndef CURFEW_LOOP_H
#define CURFEW_LOOP_H

#include <curfew/base.h>
#include <curfew/err.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cf_loop;

typedef void (*cf_fiber_fn)(void *arg);

struct cf_loop_options {
    size_t stack_size;  /* Bytes of a fiber's stack, rounded up to pages. 0: 64 KiB. */
    size_t stacks_kept; /* Idle stacks that are kept for reuse. 0: 256. */
};

/* Life cycle */

/* Report the stack overflow of a fiber ("stack overflow in fiber") on standard error before the
 * process dies of it. Installs a handler for SIGSEGV that passes every other fault to the handler
 * installed before. Applies to loops made from now on. Idempotent. Fails with CF_EIO.
 * Call from: one thread, at start-up. */
CF_API CF_MUST enum cf_code cf_loop_report_overflow(struct cf_err *err);

/* Start a loop on a thread of its own. `options` may be NULL for the defaults.
 *
 * Ownership: the caller owns *out, cf_loop_free().
 * Fails with CF_ENOMEM, CF_EIO. */
CF_API CF_MUST enum cf_code cf_loop_new(const struct cf_loop_options *options, struct cf_loop **out,
                                        struct cf_err *err);

/* Wait until every fiber of the loop has ended, end its thread, and free it. Does not end what the
 * fibers wait for: cancel their contexts first. NULL is allowed.
 * Blocks: until the last fiber has ended.
 * Call from: a plain thread, never from a fiber (asserted). */
CF_API void cf_loop_free(struct cf_loop *loop);

/* Operations */

/* Run `fn(arg)` as a fiber of `loop`. Returns before it ends, and usually before it starts.
 * Fails with CF_ENOMEM; then `fn` is never called. */
CF_API CF_MUST enum cf_code cf_loop_spawn(struct cf_loop *loop, cf_fiber_fn fn, void *arg,
                                          struct cf_err *err);

/* Run `fn(arg)` as a fiber of `loop` and wait for its end.
 * Blocks: until `fn` has returned.
 * Fails with CF_ENOMEM; then `fn` is never called.
 * Call from: a plain thread, never from a fiber (asserted). */
CF_API CF_MUST enum cf_code cf_loop_call(struct cf_loop *loop, cf_fiber_fn fn, void *arg,
                                         struct cf_err *err);

/* Queries */

/* The loop that the calling fiber or callback runs on; NULL on a plain thread. */
CF_API struct cf_loop *cf_loop_current(void);

/* Whether the caller is a fiber. */
CF_API bool cf_on_fiber(void);

/* Fibers of the loop that have not ended: for tests and metrics. */
CF_API size_t cf_loop_fibers(const struct cf_loop *loop);

#ifdef __cplusplus
}
#endif

#endif
