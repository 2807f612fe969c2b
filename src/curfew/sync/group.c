/* SPDX-License-Identifier: MIT */
/* Groups: see group.h for the contract, errgroup for the model.
 *
 * The count of running tasks, the first failure and everybody who waits (for the limit, for the
 * end) are guarded by one lock, held for a few instructions. Tasks on a loop are fibers and never
 * contend for it; tasks off the loops are threads.
 *
 * A slot freed under a limit is handed to the longest waiting cf_group_go(): the count does not go
 * down in between, so nobody can overtake. One whose context ended in the same instant loses the
 * claim, and the slot goes to the next.
 *
 * Lock order: mu, then what ends a wait (loop inbox, parker). Contexts are cancelled without it. */
#include <curfew/group.h>

#include <pthread.h>
#include <stdlib.h>

#include <curfew/loop.h>

#include "curfew/core/err_private.h"
#include "curfew/core/list.h"
#include "curfew/core/thread.h"
#include "curfew/runtime/waiting.h"

#define UNLIMITED SIZE_MAX

struct cf_group {
    struct cf_ctx *ctx; /* Constant after new. */

    pthread_mutex_t mu; /* Guards everything below. */
    size_t limit;
    size_t running;
    struct cf__list slot_waiters; /* struct slot_waiter, first come first served. */
    struct cf__wait *end_waiter;  /* cf_group_wait(), or NULL. */
    bool failed;
    struct cf_err first; /* Valid if failed. */
};

struct slot_waiter {
    struct cf__list node;
    struct cf__wait wait;
};

struct task {
    struct cf_group *group;
    cf_group_fn fn;
    void *arg;
};

/* Internal helpers */

/* Keep a failure if it is the first, and cancel the others with it. */
static void fail(struct cf_group *group, const struct cf_err *failure)
{
    bool first;

    (void)pthread_mutex_lock(&group->mu);
    first = !group->failed;
    if (first) {
        group->failed = true;
        group->first = *failure;
    }
    (void)pthread_mutex_unlock(&group->mu);
    if (first) {
        cf_ctx_cancel_cause(group->ctx, CF_REASON_SIBLING_FAILED, failure);
    }
}

/* A task has ended: hand its slot on, or count down. The last one may free the group
 * right after. */
static void end_task(struct cf_group *group)
{
    struct cf__list *node;

    (void)pthread_mutex_lock(&group->mu);
    while ((node = cf__list_pop(&group->slot_waiters)) != NULL) {
        if (cf__wait_end(&CF__CONTAINER(node, struct slot_waiter, node)->wait, CF__WAIT_READY)) {
            (void)pthread_mutex_unlock(&group->mu);
            return;
        }
    }
    group->running--;
    if (group->running == 0 && group->end_waiter != NULL) {
        (void)cf__wait_end(group->end_waiter, CF__WAIT_READY); /* Nobody else ends it. */
        group->end_waiter = NULL;
    }
    (void)pthread_mutex_unlock(&group->mu);
}

static void run_task(void *arg)
{
    struct task task = *(struct task *)arg;
    struct cf_err err;
    enum cf_code code;

    free(arg);
    (void)cf_err_set(&err, CF_OK, "%s", "");
    code = task.fn(task.group->ctx, task.arg, &err);
    if (code != CF_OK) {
        cf__err_settle(&err, code);
        fail(task.group, &err);
    }
    end_task(task.group);
}

static void *run_thread(void *arg)
{
    run_task(arg);
    return NULL;
}

static enum cf_code start_thread(struct task *task, struct cf_err *err)
{
    int sys = cf__thread_start("cf-task", run_thread, task, NULL);

    if (sys != 0) {
        return cf_err_set_sys(err, CF_EUNAVAIL, sys, "start the thread of a task");
    }
    return CF_OK;
}

/* Start a task whose slot is counted already. A failure is the task's. */
static void start(struct cf_group *group, cf_group_fn fn, void *arg)
{
    struct cf_loop *loop = cf_loop_current();
    struct task *task = malloc(sizeof(*task));
    struct cf_err err;
    enum cf_code code;

    if (task == NULL) {
        code = cf_err_set(&err, CF_ENOMEM, "no memory for a task");
    } else {
        *task = (struct task){group, fn, arg};
        code = loop != NULL ? cf_loop_spawn(loop, run_task, task, &err) : start_thread(task, &err);
    }
    if (code != CF_OK) {
        free(task);
        fail(group, &err);
        end_task(group);
    }
}

/* Count a slot if there is one. With mu held. */
static bool take_slot(struct cf_group *group)
{
    if (group->running >= group->limit) {
        return false;
    }
    group->running++;
    return true;
}

/* Wait for a slot. */
static enum cf_code acquire_slot(struct cf_group *group, struct cf_err *err)
{
    struct slot_waiter waiter;

    (void)pthread_mutex_lock(&group->mu);
    if (take_slot(group)) {
        (void)pthread_mutex_unlock(&group->mu);
        return CF_OK;
    }
    cf__wait_init(&waiter.wait);
    cf__list_push(&group->slot_waiters, &waiter.node);
    (void)pthread_mutex_unlock(&group->mu);
    if (cf__wait_park(group->ctx, &waiter.wait) == CF__WAIT_READY) {
        return CF_OK;
    }
    (void)pthread_mutex_lock(&group->mu);
    cf__list_unlink(&waiter.node);
    (void)pthread_mutex_unlock(&group->mu);
    return cf_ctx_check(group->ctx, err);
}

/* Life cycle */

enum cf_code cf_group_new(struct cf_ctx *ctx, struct cf_group **out, struct cf_err *err)
{
    struct cf_group *group = malloc(sizeof(*group));
    enum cf_code code;

    if (group == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a group");
    }
    code = cf_ctx_with_cancel(ctx, &group->ctx, err);
    if (code != CF_OK) {
        free(group);
        return code;
    }
    (void)pthread_mutex_init(&group->mu, NULL);
    group->limit = UNLIMITED;
    group->running = 0;
    cf__list_init(&group->slot_waiters);
    group->end_waiter = NULL;
    group->failed = false;
    *out = group;
    return CF_OK;
}

void cf_group_free(struct cf_group *group)
{
    if (group == NULL) {
        return;
    }
    /* Past the lock, the last task has let go of the group. */
    (void)pthread_mutex_lock(&group->mu);
    CF_ASSERT(group->running == 0);
    (void)pthread_mutex_unlock(&group->mu);
    (void)pthread_mutex_destroy(&group->mu);
    cf_ctx_free(group->ctx);
    free(group);
}

/* Operations */

void cf_group_set_limit(struct cf_group *group, int tasks_max)
{
    (void)pthread_mutex_lock(&group->mu);
    CF_ASSERT(group->running == 0);
    group->limit = tasks_max < 0 ? UNLIMITED : (size_t)tasks_max;
    (void)pthread_mutex_unlock(&group->mu);
}

void cf_group_go(struct cf_group *group, cf_group_fn fn, void *arg)
{
    struct cf_err err;

    if (acquire_slot(group, &err) == CF_OK) {
        start(group, fn, arg);
    } else {
        fail(group, &err);
    }
}

bool cf_group_try_go(struct cf_group *group, cf_group_fn fn, void *arg)
{
    bool taken;

    (void)pthread_mutex_lock(&group->mu);
    taken = take_slot(group);
    (void)pthread_mutex_unlock(&group->mu);
    if (taken) {
        start(group, fn, arg);
    }
    return taken;
}

enum cf_code cf_group_wait(struct cf_group *group, struct cf_err *err)
{
    struct cf__wait wait;
    bool waits;

    (void)pthread_mutex_lock(&group->mu);
    CF_ASSERT(group->end_waiter == NULL);
    waits = group->running > 0;
    if (waits) {
        cf__wait_init(&wait);
        group->end_waiter = &wait;
    }
    (void)pthread_mutex_unlock(&group->mu);
    if (waits) {
        (void)cf__wait_park(NULL, &wait); /* Ends in one way. */
    }
    cf_ctx_cancel(group->ctx);
    if (!group->failed) { /* No task is left to write it. */
        return CF_OK;
    }
    return cf__err_give(err, &group->first);
}

/* Queries */

struct cf_ctx *cf_group_ctx(struct cf_group *group)
{
    return group->ctx;
}
