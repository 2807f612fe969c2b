/* SPDX-License-Identifier: MIT */
/* The one way to wait: park a fiber or a thread until somebody ends the wait.
 *
 * A wait is a value on the stack of who waits. It is offered to everything that may end it (the
 * queue of a resource, the context); the first that claims it with cf__wait_end() decides the
 * outcome, every later claim is told that it lost. So a permit granted to a wait that was cancelled
 * in the same instant stays with the granter, and a wait ends exactly once.
 *
 *     cf__wait_init(&wait);
 *     lock; push(&queue, &me.node); unlock;
 *     outcome = cf__wait_park(ctx, &wait);
 *     if (outcome == CF__WAIT_CTX_DONE) {
 *         lock; unlink(&me.node); unlock;
 *         return cf_ctx_check(ctx, err);
 *     }
 *
 * The rule that makes it safe: before the frame of the wait is left, it is taken out of everything
 * that it was offered to, under that thing's lock. cf__wait_park() does so for the context. */
#ifndef CURFEW_RUNTIME_WAITING_H
#define CURFEW_RUNTIME_WAITING_H

#include <pthread.h>
#include <stdatomic.h>

#include "curfew/core/ctx_waiter.h"

enum cf__wait_outcome {
    CF__WAIT_PENDING,  /* Nobody has ended it. */
    CF__WAIT_READY,    /* What was waited for was handed over. */
    CF__WAIT_CTX_DONE, /* The context is done. */
    CF__WAIT_CLOSED,   /* What was waited for will never be. */
};

struct cf__fiber;

struct cf__wait {
    _Atomic int outcome;              /* enum cf__wait_outcome. */
    struct cf__fiber *fiber;          /* Who waits, or NULL: a thread. Constant after init. */
    struct cf__ctx_waiter on_ctx;     /* In the context while parked. */
    struct cf__thread_parker *thread; /* The waiting thread's, if there is no fiber. */
};

/* Prepare to wait on the calling fiber or thread. Cannot fail. */
void cf__wait_init(struct cf__wait *wait);

/* End the wait. True if this call did; false if it had ended. Any thread; never blocks. When it
 * returns false, `wait` may be touched only under the lock of the queue that it was found in. */
bool cf__wait_end(struct cf__wait *wait, enum cf__wait_outcome outcome);

/* The two halves of cf__wait_end(), for who has something to write into the frame of who waits:
 * once claimed, a wait stays parked until it is woken, also by who holds no lock any more. Every
 * claim that succeeds is followed by one wake. */
bool cf__wait_claim(struct cf__wait *wait, enum cf__wait_outcome outcome);
void cf__wait_wake(struct cf__wait *wait);

/* Park until the wait has ended. A `ctx` that is done ends it at once; NULL waits without one.
 * Returns the outcome, never pending. */
enum cf__wait_outcome cf__wait_park(struct cf_ctx *ctx, struct cf__wait *wait);

#endif
