/* SPDX-License-Identifier: MIT */
/* Weighted semaphores: a fixed number of permits, shared. Go's golang.org/x/sync/semaphore.
 *
 * A caller that asks for more permits than are free waits its turn, first come first served: a
 * large request at the head of the queue makes the small ones behind it wait too, so it cannot
 * starve. If a reader takes one permit and a writer all of them, it is a read-write lock whose
 * waits have a context.
 *
 * Invariant: at most `size` permits are held. A permit that is granted to a caller whose context
 * ends in the same instant goes to the next; none is lost.
 *
 *     code = cf_sem_acquire(ctx, sem, 1, err);
 *     if (code != CF_OK) { return code; }       // canceled, or out of time: nothing is held
 *     code = resize(ctx, image, err);
 *     cf_sem_release(sem, 1);
 *
 * Thread safety: any fiber, any plain thread, on any loop; acquire not from a callback of the
 * loop. Permits have no owner: one task may acquire them and another release them. */
#ifndef CURFEW_SEM_H
#define CURFEW_SEM_H

#include <curfew/base.h>
#include <curfew/ctx.h>
#include <curfew/err.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cf_sem;

/* Life cycle */

/* Make a semaphore of `size` permits, all free. With zero, every request waits until its `ctx`
 * ends.
 * Ownership: the caller owns *out, cf_sem_free(). Fails with CF_ENOMEM, CF_EINVAL (size < 0). */
CF_API CF_MUST enum cf_code cf_sem_new(int64_t size, struct cf_sem **out, struct cf_err *err);

/* Free the semaphore. Nothing is held and nobody waits (asserted). NULL allowed. */
CF_API void cf_sem_free(struct cf_sem *sem);

/* Operations */

/* Take `n` permits (0 or more: asserted). A request for more than `size` waits until `ctx` is done,
 * and holds up no other.
 * Blocks: until they are free and all earlier callers have theirs, or `ctx` is done.
 * Fails with CF_ECANCELED, CF_EDEADLINE; also if `ctx` is already done and they are free. */
CF_API CF_MUST enum cf_code cf_sem_acquire(struct cf_ctx *ctx, struct cf_sem *sem, int64_t n,
                                           struct cf_err *err);

/* Take `n` permits if they are free and nobody waits; else do nothing and return false. Never
 * blocks. */
CF_API CF_MUST bool cf_sem_try_acquire(struct cf_sem *sem, int64_t n);

/* Give back `n` permits, not more than are held (asserted). Never blocks. */
CF_API void cf_sem_release(struct cf_sem *sem, int64_t n);

#ifdef __cplusplus
}
#endif

#endif
