/* SPDX-License-Identifier: MIT */
/* Groups of tasks that work on one thing: Go's golang.org/x/sync/errgroup.
 *
 * The first task that fails cancels the group's context with its error as the cause, so its
 * siblings stop; cf_group_wait() returns that first error once all have ended. A task is a fiber
 * of the loop it is started on, and a thread when it is started off the loops.
 *
 * Invariant: children end before their parent: a group cannot be freed while a task runs.
 *
 *     code = cf_group_new(ctx, &group, err);
 *     if (code != CF_OK) { return code; }
 *     cf_group_go(group, fetch_user, &dashboard);
 *     cf_group_go(group, fetch_orders, &dashboard);
 *     code = cf_group_wait(group, err);
 *     cf_group_free(group);
 *
 * Thread safety: tasks may start further tasks; cf_group_wait() and cf_group_free() are for one
 * caller. Not from a callback of the loop. */
#ifndef CURFEW_GROUP_H
#define CURFEW_GROUP_H

#include <curfew/base.h>
#include <curfew/ctx.h>
#include <curfew/err.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cf_group;

/* A task. `ctx` is the group's context. If it does not return CF_OK it has failed, and has
 * described that in `err` (never NULL). */
typedef enum cf_code (*cf_group_fn)(struct cf_ctx *ctx, void *arg, struct cf_err *err);

/* Life cycle */

/* Make a group whose context is a child of `ctx`: errgroup.WithContext.
 * Ownership: the caller owns *out, cf_group_free(). Fails with CF_ENOMEM. */
CF_API CF_MUST enum cf_code cf_group_new(struct cf_ctx *ctx, struct cf_group **out,
                                         struct cf_err *err);

/* Free the group, after cf_group_wait() or when nothing was started (asserted). NULL allowed. */
CF_API void cf_group_free(struct cf_group *group);

/* Operations */

/* Let at most `tasks_max` tasks run at once; less than zero: any number, the default; zero: none,
 * so that cf_group_try_go() always returns false. No task may be running (asserted). */
CF_API void cf_group_set_limit(struct cf_group *group, int tasks_max);

/* Run `fn(group's context, arg)` as a task. If it cannot start (no memory, or the group's context
 * ends while it waits for the limit), that counts as its failure.
 * Blocks: with a limit, until fewer tasks run or the group's context is done; else never. */
CF_API void cf_group_go(struct cf_group *group, cf_group_fn fn, void *arg);

/* As cf_group_go(), but if the limit is reached do nothing and return false. Never blocks. */
CF_API bool cf_group_try_go(struct cf_group *group, cf_group_fn fn, void *arg);

/* Wait until every task has ended, cancel the group's context, and return the first failure. This
 * wait has no context of its own: the tasks end when theirs does.
 * Blocks: until the last task has ended. Fails with what the first failing task returned. */
CF_API CF_MUST enum cf_code cf_group_wait(struct cf_group *group, struct cf_err *err);

/* Queries */

/* The group's context: lives until the first failure or until cf_group_wait() returns. Borrowed. */
CF_API struct cf_ctx *cf_group_ctx(struct cf_group *group);

#ifdef __cplusplus
}
#endif

#endif
