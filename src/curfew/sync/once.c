/* SPDX-License-Identifier: MIT */
/* Once: see once.h for the contract.
 *
 * A once is a word that says how far it is, and while it runs a pointer to the caller that runs it,
 * on whose frame the others queue. So a once needs no memory of its own, no making and no freeing,
 * and can stand in static memory.
 *
 * One lock for all of them guards every change, for a few instructions: it is taken only until a
 * once has run. The function runs without it. Who waited takes it again before he leaves, so that
 * the runner may write to a frame that it has woken.
 *
 * Lock order: mu, then what ends a wait (loop inbox, parker). */
#include <curfew/once.h>

#include <pthread.h>

#include "curfew/core/err_private.h"
#include "curfew/core/list.h"
#include "curfew/runtime/waiting.h"

/*
 *     IDLE <---> RUNNING ---> SUCCEEDED
 *                   |
 *                   +-------> FAILED        (not with cf_once_retry(), which goes back to IDLE)
 */
enum state {
    IDLE, /* Zero: as it is at first. */
    RUNNING,
    SUCCEEDED = CF_ONCE_SUCCEEDED,
    FAILED,
};

/* A caller that found no result. On its own frame. */
struct cf_once_caller {
    bool retries;       /* cf_once_retry(). Constant after init. */
    struct cf_err *err; /* Where the caller wants to be told, or NULL. Constant after init. */

    /* Guarded by mu. */
    struct cf__list node;    /* In the runner's `waiters`. */
    struct cf__wait wait;    /* Ended for a result or for the turn to run. */
    bool has_turn;           /* To run, because the one before could not. */
    enum cf_code code;       /* The result, if not has_turn. */
    struct cf__list waiters; /* struct cf_once_caller, while this one runs. */
};

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;

/* Internal helpers */

/* Written with mu held. Release: partner of the acquires in look() and cf_once_succeeded(), for
 * what the function wrote. */
static void set_state(struct cf_once *once, enum state state)
{
    __atomic_store_n(&once->state, (int)state, __ATOMIC_RELEASE);
}

/* Acquire: partner of the release in set_state(), as is that in cf_once_succeeded(). */
static enum state look(struct cf_once *once)
{
    return (enum state)__atomic_load_n(&once->state, __ATOMIC_ACQUIRE);
}

/* The failure that was remembered: constant once the state says so. */
static enum cf_code recall(const struct cf_once *once, struct cf_err *err)
{
    return cf__err_give(err, &once->failure);
}

/* Take the turn to run if nobody has it, or queue behind who does.
 * Returns the state that it found. */
static enum state enter(struct cf_once *once, struct cf_once_caller *self)
{
    enum state found;

    cf__list_init(&self->node);
    cf__list_init(&self->waiters);
    (void)pthread_mutex_lock(&mu);
    found = look(once);
    if (found == IDLE) {
        once->runner = self;
        set_state(once, RUNNING);
    } else if (found == RUNNING) {
        cf__wait_init(&self->wait);
        cf__list_push(&once->runner->waiters, &self->node);
    }
    (void)pthread_mutex_unlock(&mu);
    return found;
}

/* Tell everybody who waits for `self` what came of it. With mu held. */
static void share(struct cf_once_caller *self, enum cf_code code, const struct cf_err *failure)
{
    struct cf__list *node;

    while ((node = cf__list_pop(&self->waiters)) != NULL) {
        struct cf_once_caller *waiter = CF__CONTAINER(node, struct cf_once_caller, node);

        if (!cf__wait_end(&waiter->wait, CF__WAIT_READY)) {
            continue;
        }
        waiter->code = code;
        if (code != CF_OK && waiter->err != NULL) {
            *waiter->err = *failure;
        }
    }
}

/* Give the turn of `self` to the longest waiting caller, and the other waiters with it. With mu
 * held. */
static void pass_on(struct cf_once *once, struct cf_once_caller *self)
{
    struct cf__list *node;

    while ((node = cf__list_pop(&self->waiters)) != NULL) {
        struct cf_once_caller *next = CF__CONTAINER(node, struct cf_once_caller, node);

        if (cf__wait_end(&next->wait, CF__WAIT_READY)) {
            next->has_turn = true;
            cf__list_splice(&next->waiters, &self->waiters);
            once->runner = next;
            return;
        }
    }
    once->runner = NULL;
    set_state(once, IDLE);
}

/* Wait for a result or for the turn to run. True: it is our turn. */
static bool wait_for_runner(struct cf_ctx *ctx, struct cf_once *once, struct cf_once_caller *self)
{
    bool ready = cf__wait_park(ctx, &self->wait) == CF__WAIT_READY;
    bool ended = cf_ctx_err(ctx) != CF_OK;
    bool too_late;

    (void)pthread_mutex_lock(&mu);
    cf__list_unlink(&self->node);
    too_late = !ready || (self->has_turn && ended);
    if (self->has_turn && ended) { /* Our context ended before we ran. */
        self->has_turn = false;
        pass_on(once, self);
    }
    (void)pthread_mutex_unlock(&mu);
    if (too_late) {
        self->code = cf_ctx_check(ctx, self->err);
    }
    return self->has_turn;
}

/* Run, and settle what came of it. */
static enum cf_code run(struct cf_ctx *ctx, struct cf_once *once, struct cf_once_caller *self,
                        cf_once_fn fn, void *arg)
{
    struct cf_err failure;
    enum cf_code code;
    bool ended;

    (void)cf_err_set(&failure, CF_OK, "%s", "");
    code = fn(ctx, arg, &failure);
    if (code != CF_OK) {
        cf__err_settle(&failure, code);
    }
    ended = cf_ctx_err(ctx) != CF_OK;
    (void)pthread_mutex_lock(&mu);
    if (code != CF_OK && self->retries && ended) {
        pass_on(once, self);
    } else {
        once->runner = NULL;
        if (code == CF_OK) {
            set_state(once, SUCCEEDED);
        } else if (self->retries) {
            set_state(once, IDLE);
        } else {
            once->failure = failure;
            set_state(once, FAILED);
        }
        share(self, code, &failure);
    }
    (void)pthread_mutex_unlock(&mu);
    if (code != CF_OK && self->err != NULL) {
        *self->err = failure;
    }
    return code;
}

/* What both forms do when there is no success yet. */
static enum cf_code ask(struct cf_ctx *ctx, struct cf_once *once, bool retries, cf_once_fn fn,
                        void *arg, struct cf_err *err)
{
    struct cf_once_caller self = {.retries = retries, .err = err};
    enum cf_code code;

    if (look(once) == FAILED) {
        return recall(once, err);
    }
    code = cf_ctx_check(ctx, err);
    if (code != CF_OK) {
        return code;
    }
    switch (enter(once, &self)) {
    case IDLE:
        return run(ctx, once, &self, fn, arg);
    case RUNNING:
        /* Whose turn it is can change as soon as we are in the queue: only who wakes us says. */
        return wait_for_runner(ctx, once, &self) ? run(ctx, once, &self, fn, arg) : self.code;
    case SUCCEEDED:
        break;
    case FAILED:
        return recall(once, err);
    }
    return CF_OK;
}

/* Operations */

enum cf_code cf_once_do_called(struct cf_ctx *ctx, struct cf_once *once, cf_once_fn fn, void *arg,
                               struct cf_err *err)
{
    return look(once) == SUCCEEDED ? CF_OK : ask(ctx, once, false, fn, arg, err);
}

enum cf_code cf_once_retry_called(struct cf_ctx *ctx, struct cf_once *once, cf_once_fn fn,
                                  void *arg, struct cf_err *err)
{
    return look(once) == SUCCEEDED ? CF_OK : ask(ctx, once, true, fn, arg, err);
}
