/* SPDX-License-Identifier: MIT */
/* Parking and unparking: see waiting.h.
 *
 * Proof that no wake-up is lost or left over: the outcome changes from pending once, by one
 * compare-and-swap. Who makes that change from outside unparks exactly once, and who waits parks
 * exactly once unless it made the change itself. A fiber that is made ready before it has parked is
 * already in the ready list and is entered again after it has left; a thread finds its flag set. */
#include "curfew/runtime/waiting.h"

#include "curfew/runtime/fiber_park.h"

#include <curfew/loop.h>

/* A plain thread's parking place: one per thread, because a thread waits
 * for one thing at a time. */
struct cf__thread_parker {
    pthread_mutex_t mu;
    pthread_cond_t cond;
    bool woken; /* Guarded by mu. */
};

static _Thread_local struct cf__thread_parker parker = {PTHREAD_MUTEX_INITIALIZER,
                                                        PTHREAD_COND_INITIALIZER, false};

/* Internal helpers */

static void park(struct cf__wait *wait)
{
    if (wait->fiber != NULL) {
        cf__fiber_park();
        return;
    }
    (void)pthread_mutex_lock(&parker.mu);
    while (!parker.woken) {
        (void)pthread_cond_wait(&parker.cond, &parker.mu);
    }
    parker.woken = false;
    (void)pthread_mutex_unlock(&parker.mu);
}

static void on_ctx_done(struct cf__ctx_waiter *waiter)
{
    (void)cf__wait_end(CF__CONTAINER(waiter, struct cf__wait, on_ctx), CF__WAIT_CTX_DONE);
}

/* Life cycle */

void cf__wait_init(struct cf__wait *wait)
{
    atomic_init(&wait->outcome, CF__WAIT_PENDING);
    wait->fiber = cf__fiber_current();
    /* A callback of the loop has nobody to go on while it waits. */
    CF_ASSERT(wait->fiber != NULL || cf_loop_current() == NULL);
    wait->thread = wait->fiber == NULL ? &parker : NULL;
    wait->on_ctx.fire = on_ctx_done;
    cf__list_init(&wait->on_ctx.node);
}

/* Operations */

bool cf__wait_claim(struct cf__wait *wait, enum cf__wait_outcome outcome)
{
    int pending = CF__WAIT_PENDING;

    return atomic_compare_exchange_strong(&wait->outcome, &pending, (int)outcome);
}

void cf__wait_wake(struct cf__wait *wait)
{
    struct cf__thread_parker *thread = wait->thread; /* The wait may be gone once it is woken. */

    if (wait->fiber != NULL) {
        cf__fiber_ready(wait->fiber);
        return;
    }
    (void)pthread_mutex_lock(&thread->mu);
    thread->woken = true;
    (void)pthread_cond_signal(&thread->cond);
    (void)pthread_mutex_unlock(&thread->mu);
}

bool cf__wait_end(struct cf__wait *wait, enum cf__wait_outcome outcome)
{
    if (!cf__wait_claim(wait, outcome)) {
        return false;
    }
    cf__wait_wake(wait);
    return true;
}

enum cf__wait_outcome cf__wait_park(struct cf_ctx *ctx, struct cf__wait *wait)
{
    bool watched = ctx != NULL;

    if (ctx != NULL && (cf_ctx_err(ctx) != CF_OK || !cf__ctx_subscribe(ctx, &wait->on_ctx))) {
        if (cf__wait_claim(wait, CF__WAIT_CTX_DONE)) {
            return CF__WAIT_CTX_DONE;
        }
        watched = false; /* Ended by somebody else just before: its wake is to be taken. */
    }
    park(wait);
    if (watched) {
        (void)cf__ctx_unsubscribe(ctx, &wait->on_ctx);
    }
    return (enum cf__wait_outcome)atomic_load(&wait->outcome);
}
