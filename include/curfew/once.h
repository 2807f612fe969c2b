/* SPDX-License-Identifier: MIT */
/* Once: one caller runs a function that many need, while the others wait. Go's sync.Once, with
 * contexts.
 *
 * cf_once_do() runs its function once, and every caller gets the result of that run, even if it is
 * a failure. cf_once_retry() remembers success only: for a handle whose opening may fail now and
 * succeed later. Use one struct with only one of the two.
 *
 * Invariant: the function never runs twice at the same time, nor again after it has succeeded. A
 * caller that is told of success sees everything that the function has written.
 *
 *     static struct cf_once once;
 *     static struct db *db;
 *
 *     code = cf_once_retry(ctx, &once, open_db, &db, err);
 *     if (code != CF_OK) { return code; }
 *     use(db);
 *
 * Thread safety: any fiber, any plain thread, on any loop; not from a callback of the loop. */
#ifndef CURFEW_ONCE_H
#define CURFEW_ONCE_H

#include <curfew/base.h>
#include <curfew/ctx.h>
#include <curfew/err.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cf_once_caller;

/* How the functions below see that there is nothing to do. Part of the ABI. */
#define CF_ONCE_SUCCEEDED 2

/* All zeroes, as in static memory: it has not run. It needs no freeing; its memory may be reused
 * when no call on it is under way. The fields are for the library only. */
struct cf_once {
    int state; /* CF_ONCE_SUCCEEDED, or another number. */
    struct cf_once_caller *runner;
    struct cf_err failure;
};

/* The function to run once. `ctx` is the context of the caller on whose fiber or thread it runs. If
 * it does not return CF_OK it has failed, and has described that in `err` (never NULL). It must not
 * use the same once: it would wait for itself, until `ctx` is done. */
typedef enum cf_code (*cf_once_fn)(struct cf_ctx *ctx, void *arg, struct cf_err *err);

/* Operations */

/* Run `fn(ctx, arg)` if no call has run it before; return the result of the one run, now and for
 * ever. So the first caller's context decides for all: if it may end, cf_once_retry() is better.
 * Blocks: while another caller runs it, or until `ctx` is done; the run goes on. After the run it
 * never blocks, and does not look at `ctx`.
 * Fails with CF_ECANCELED, CF_EDEADLINE (already done: nothing runs), and with what `fn`
 * returned. */
static inline CF_MUST enum cf_code cf_once_do(struct cf_ctx *ctx, struct cf_once *once,
                                              cf_once_fn fn, void *arg, struct cf_err *err);

/* As cf_once_do(), but forget a failure: all that waited for the run get it, and the next caller
 * runs the function again. If the run fails because its caller's context ended, only that caller
 * gets the failure, and the caller that has waited longest runs its own `fn(ctx, arg)`. */
static inline CF_MUST enum cf_code cf_once_retry(struct cf_ctx *ctx, struct cf_once *once,
                                                 cf_once_fn fn, void *arg, struct cf_err *err);

/* The same two, for callers that cannot use an inline function: another language, a pointer. */
CF_API CF_MUST enum cf_code cf_once_do_called(struct cf_ctx *ctx, struct cf_once *once,
                                              cf_once_fn fn, void *arg, struct cf_err *err);
CF_API CF_MUST enum cf_code cf_once_retry_called(struct cf_ctx *ctx, struct cf_once *once,
                                                 cf_once_fn fn, void *arg, struct cf_err *err);

/* Whether it has succeeded; the caller then sees everything that the function has written. Never
 * blocks. */
static inline bool cf_once_succeeded(const struct cf_once *once)
{
    /* Acquire: partner of the release with which the runner says so. */
    return __builtin_expect(__atomic_load_n(&once->state, __ATOMIC_ACQUIRE) == CF_ONCE_SUCCEEDED,
                            1);
}

static inline enum cf_code cf_once_do(struct cf_ctx *ctx, struct cf_once *once, cf_once_fn fn,
                                      void *arg, struct cf_err *err)
{
    return cf_once_succeeded(once) ? CF_OK : cf_once_do_called(ctx, once, fn, arg, err);
}

static inline enum cf_code cf_once_retry(struct cf_ctx *ctx, struct cf_once *once, cf_once_fn fn,
                                         void *arg, struct cf_err *err)
{
    return cf_once_succeeded(once) ? CF_OK : cf_once_retry_called(ctx, once, fn, arg, err);
}

#ifdef __cplusplus
}
#endif

#endif
