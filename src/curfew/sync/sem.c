/* SPDX-License-Identifier: MIT */
/* Weighted semaphores: see sem.h for the contract, golang.org/x/sync/semaphore for the model.
 *
 * The count and the queue are guarded by one lock, held for a few instructions. Who releases
 * permits counts them for the waiters at the head of the queue before he lets go of the lock, so
 * nobody can overtake. A waiter whose context ended in the same instant loses the claim and is
 * passed over; one whose context ended after that, but before he ran, gives his permits back.
 *
 * Whoever leaves the queue without permits lets in those behind him: they may have waited only
 * because he asked for more.
 *
 * Lock order: mu, then what ends a wait (loop inbox, parker). */
#include <curfew/sem.h>

#include <pthread.h>
#include <stdlib.h>

#include "curfew/core/list.h"
#include "curfew/runtime/waiting.h"

struct cf_sem {
    int64_t size; /* Constant after new. */

    pthread_mutex_t mu;      /* Guards everything below. */
    int64_t held;            /* 0 <= held <= size. */
    struct cf__list waiters; /* struct waiter, first come first served. */
};

struct waiter {
    struct cf__list node;
    struct cf__wait wait;
    int64_t n; /* <= size. */
};

/* Internal helpers */

/* Whether `n` more permits are free. With mu held. */
static bool fits(const struct cf_sem *sem, int64_t n)
{
    return n <= sem->size - sem->held;
}

/* Take `n` permits if nobody has to wait for them. With mu held. */
static bool take(struct cf_sem *sem, int64_t n)
{
    if (!fits(sem, n) || !cf__list_empty(&sem->waiters)) {
        return false;
    }
    sem->held += n;
    return true;
}

/* Hand free permits to the waiters at the head. With mu held. */
static void grant(struct cf_sem *sem)
{
    while (!cf__list_empty(&sem->waiters)) {
        struct waiter *first = CF__CONTAINER(sem->waiters.next, struct waiter, node);
        int64_t n = first->n; /* Once woken he has no reason to take the lock again. */

        if (!fits(sem, n)) {
            return; /* Those behind him wait as well: otherwise he could wait for ever. */
        }
        cf__list_unlink(&first->node);
        if (cf__wait_end(&first->wait, CF__WAIT_READY)) {
            sem->held += n;
        }
    }
}

/* Wait for `n` permits. With mu held, which it gives up. */
static enum cf_code wait_for(struct cf_ctx *ctx, struct cf_sem *sem, int64_t n, struct cf_err *err)
{
    struct waiter waiter = {.n = n};
    enum cf_code code;

    cf__wait_init(&waiter.wait);
    cf__list_init(&waiter.node);
    if (n <= sem->size) { /* Otherwise nobody can help, and nobody should wait behind him. */
        cf__list_push(&sem->waiters, &waiter.node);
    }
    (void)pthread_mutex_unlock(&sem->mu);
    if (cf__wait_park(ctx, &waiter.wait) == CF__WAIT_READY) {
        code = cf_ctx_check(ctx, err);
        if (code != CF_OK) {
            cf_sem_release(sem, n);
        }
        return code;
    }
    (void)pthread_mutex_lock(&sem->mu);
    cf__list_unlink(&waiter.node);
    grant(sem);
    (void)pthread_mutex_unlock(&sem->mu);
    return cf_ctx_check(ctx, err);
}

/* Life cycle */

enum cf_code cf_sem_new(int64_t size, struct cf_sem **out, struct cf_err *err)
{
    struct cf_sem *sem;

    if (size < 0) {
        return cf_err_set(err, CF_EINVAL, "a semaphore of less than no permits");
    }
    sem = malloc(sizeof(*sem));
    if (sem == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a semaphore");
    }
    sem->size = size;
    (void)pthread_mutex_init(&sem->mu, NULL);
    sem->held = 0;
    cf__list_init(&sem->waiters);
    *out = sem;
    return CF_OK;
}

void cf_sem_free(struct cf_sem *sem)
{
    if (sem == NULL) {
        return;
    }
    /* Past the lock, who released the last permits has let go of the semaphore. */
    (void)pthread_mutex_lock(&sem->mu);
    CF_ASSERT(sem->held == 0);
    CF_ASSERT(cf__list_empty(&sem->waiters));
    (void)pthread_mutex_unlock(&sem->mu);
    (void)pthread_mutex_destroy(&sem->mu);
    free(sem);
}

/* Operations */

enum cf_code cf_sem_acquire(struct cf_ctx *ctx, struct cf_sem *sem, int64_t n, struct cf_err *err)
{
    enum cf_code code = cf_ctx_check(ctx, err);

    CF_ASSERT(n >= 0);
    if (code != CF_OK) {
        return code;
    }
    (void)pthread_mutex_lock(&sem->mu);
    if (!take(sem, n)) {
        return wait_for(ctx, sem, n, err);
    }
    (void)pthread_mutex_unlock(&sem->mu);
    return CF_OK;
}

bool cf_sem_try_acquire(struct cf_sem *sem, int64_t n)
{
    bool taken;

    CF_ASSERT(n >= 0);
    (void)pthread_mutex_lock(&sem->mu);
    taken = take(sem, n);
    (void)pthread_mutex_unlock(&sem->mu);
    return taken;
}

void cf_sem_release(struct cf_sem *sem, int64_t n)
{
    CF_ASSERT(n >= 0);
    (void)pthread_mutex_lock(&sem->mu);
    CF_ASSERT(n <= sem->held);
    sem->held -= n;
    grant(sem);
    (void)pthread_mutex_unlock(&sem->mu);
}
