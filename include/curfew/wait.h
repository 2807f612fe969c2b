/* SPDX-License-Identifier: MIT */
/* Waiting: for time, for another context, for a descriptor.
 *
 * Everything that waits in Curfew comes down to these and to the queues of the modules above. Each
 * takes a context first and ends when that does.
 *
 * Invariant: a wait ends for exactly one of success, canceled, deadline; with a context that is
 * already done it fails at once, even if what it waits for is there.
 *
 *     code = cf_sleep(ctx, 100 * CF_MS, err);
 *     if (code != CF_OK) { return code; }       // canceled, or out of time
 *
 * Thread safety: any fiber, any plain thread; not from a callback of the loop (asserted). */
#ifndef CURFEW_WAIT_H
#define CURFEW_WAIT_H

#include <curfew/base.h>
#include <curfew/ctx.h>
#include <curfew/err.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a descriptor may be waited for: or-ed together. */
#define CF_READABLE 1
#define CF_WRITABLE 2

/* Wait for `period_ns`, never shorter. Less than one returns at once.
 * Blocks: for that time, or until `ctx` is done.
 * Fails with CF_ECANCELED, CF_EDEADLINE, CF_ENOMEM. */
CF_API CF_MUST enum cf_code cf_sleep(struct cf_ctx *ctx, int64_t period_ns, struct cf_err *err);

/* As cf_sleep(), until the clock of the current timer source shows `at_ns`. */
CF_API CF_MUST enum cf_code cf_sleep_until(struct cf_ctx *ctx, int64_t at_ns, struct cf_err *err);

/* Let the other fibers of the loop (or other threads) run.
 * Blocks: until they had a turn.
 * Fails with CF_ECANCELED, CF_EDEADLINE: a long computation that yields can be ended. */
CF_API CF_MUST enum cf_code cf_yield(struct cf_ctx *ctx, struct cf_err *err);

/* Wait until `target` is done: Go's <-target.Done().
 * Blocks: until then, or until `ctx` is done. `ctx` and `target` may be the same.
 * Fails with CF_ECANCELED, CF_EDEADLINE: of `ctx`; `target` says itself how it ended. */
CF_API CF_MUST enum cf_code cf_wait_done(struct cf_ctx *ctx, struct cf_ctx *target,
                                         struct cf_err *err);

/* Wait until `fd` is ready for one of `events`. *out_events says for which; after an error or a
 * hang-up it is ready for all of them, so that the next read or write reports it.
 * Ownership: borrows `fd`, which must stay open until this returns.
 * Blocks: until `fd` is ready, or `ctx` is done.
 * Fails with CF_ECANCELED, CF_EDEADLINE, CF_ENOMEM; CF_EIO, with EEXIST in err->sys if another
 * fiber of the loop waits for the same descriptor. */
CF_API CF_MUST enum cf_code cf_wait_fd(struct cf_ctx *ctx, int fd, int events, int *out_events,
                                       struct cf_err *err);

#ifdef __cplusplus
}
#endif

#endif
