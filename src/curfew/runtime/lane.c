/* SPDX-License-Identifier: MIT */
/* Offload lanes: see lane.h.
 *
 * A job belongs to the caller who waits for it until the wait ends badly; from then on to the lane.
 * Who frees it is decided under the lane's lock by the job's state:
 *
 *     QUEUED --thread takes it--> RUNNING --work returns--> DONE     the caller frees it
 *        |                           |
 *        | caller gives up           | caller gives up
 *        v                           v
 *     (caller drops it)          ABANDONED --work returns--> (the thread drops it)
 *
 * The caller may be told that its context is done while the work returns: it then finds DONE, and
 * drops the argument itself, because its result is not wanted any more. */
#include <curfew/lane.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "curfew/core/list.h"
#include "curfew/core/thread.h"
#include "curfew/runtime/waiting.h"

enum job_state {
    JOB_QUEUED,    /* In the lane's queue. */
    JOB_RUNNING,   /* On a thread of the lane, in no list. */
    JOB_ABANDONED, /* The same, and nobody waits for it. */
    JOB_DONE,      /* The work has returned. */
};

struct job {
    struct cf__list node;
    enum job_state state; /* Guarded by the lane's mu. */
    cf_lane_fn work;
    cf_lane_fn drop;
    void *arg;
    struct cf__wait *wait; /* On the caller's stack; valid until abandoned. */
};

struct cf_lane {
    char name[16]; /* Constant after new, as are these. */
    size_t threads_max;
    size_t queue_max;

    pthread_mutex_t mu; /* Guards everything below. */
    pthread_cond_t work_or_close;
    struct cf__list queue;
    size_t queued;
    size_t threads; /* Alive. */
    size_t idle;    /* Of those, without a job: waiting, or about to look for one. */
    bool closing;
};

/* Internal helpers */

static void destroy(struct cf_lane *lane)
{
    (void)pthread_cond_destroy(&lane->work_or_close);
    (void)pthread_mutex_destroy(&lane->mu);
    free(lane);
}

/* Run one job. With mu held, which is released meanwhile. */
static void run_job(struct cf_lane *lane, struct job *job)
{
    job->state = JOB_RUNNING;
    (void)pthread_mutex_unlock(&lane->mu);
    job->work(job->arg);
    (void)pthread_mutex_lock(&lane->mu);
    if (job->state == JOB_ABANDONED) {
        (void)pthread_mutex_unlock(&lane->mu);
        job->drop(job->arg);
        free(job);
        (void)pthread_mutex_lock(&lane->mu);
        return;
    }
    job->state = JOB_DONE;
    (void)cf__wait_end(job->wait,
                       CF__WAIT_READY); /* False: the caller gave up, and will see DONE. */
}

static void *run(void *arg)
{
    struct cf_lane *lane = arg;
    bool last;

    (void)pthread_mutex_lock(&lane->mu);
    for (;;) {
        struct cf__list *node = cf__list_pop(&lane->queue);

        if (node != NULL) {
            lane->queued--;
            lane->idle--;
            run_job(lane, CF__CONTAINER(node, struct job, node));
            lane->idle++;
            continue;
        }
        if (lane->closing) {
            break;
        }
        (void)pthread_cond_wait(&lane->work_or_close, &lane->mu);
    }
    lane->threads--;
    last = lane->threads == 0;
    (void)pthread_mutex_unlock(&lane->mu);
    if (last) {
        destroy(lane);
    }
    return NULL;
}

/* Start one more thread. With mu held. */
static bool start_thread(struct cf_lane *lane)
{
    if (cf__thread_start(lane->name, run, lane, NULL) != 0) {
        return false;
    }
    lane->threads++;
    lane->idle++;
    return true;
}

/* Put the job into the queue and see that somebody will take it. */
static enum cf_code enqueue(struct cf_lane *lane, struct job *job, struct cf_err *err)
{
    enum cf_code code = CF_OK;

    (void)pthread_mutex_lock(&lane->mu);
    CF_ASSERT(!lane->closing);
    /* An idle thread may have been signalled for an earlier job: compare, do not ask for zero. */
    if (lane->queued >= lane->idle && lane->threads < lane->threads_max && !start_thread(lane) &&
        lane->threads == 0) {
        code = cf_err_set(err, CF_EUNAVAIL, "no thread for lane %s", lane->name);
    } else if (lane->queued >= lane->queue_max + lane->idle) {
        code = cf_err_set(err, CF_ELIMIT, "the queue of lane %s is full (%zu jobs)", lane->name,
                          lane->queue_max);
    } else {
        cf__list_push(&lane->queue, &job->node);
        lane->queued++;
        (void)pthread_cond_signal(&lane->work_or_close);
    }
    (void)pthread_mutex_unlock(&lane->mu);
    return code;
}

/* The caller's wait ended without the result. Returns whether the caller has to drop the job. */
static bool give_up(struct cf_lane *lane, struct job *job)
{
    bool ours = true;

    (void)pthread_mutex_lock(&lane->mu);
    switch (job->state) {
    case JOB_QUEUED:
        cf__list_unlink(&job->node);
        lane->queued--;
        break;
    case JOB_RUNNING:
        job->state = JOB_ABANDONED;
        ours = false;
        break;
    case JOB_DONE:
        break;
    case JOB_ABANDONED:
        CF_ASSERT(!"abandoned twice");
        break;
    }
    (void)pthread_mutex_unlock(&lane->mu);
    return ours;
}

/* Life cycle */

enum cf_code cf_lane_new(const char *name, size_t threads_max, size_t queue_max,
                         struct cf_lane **out, struct cf_err *err)
{
    struct cf_lane *lane;

    if (threads_max == 0) {
        return cf_err_set(err, CF_EINVAL, "lane %s needs at least one thread", name);
    }
    lane = calloc(1, sizeof(*lane));
    if (lane == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for lane %s", name);
    }
    strncpy(lane->name, name, sizeof(lane->name) - 1);
    lane->threads_max = threads_max;
    lane->queue_max = queue_max;
    (void)pthread_mutex_init(&lane->mu, NULL);
    (void)pthread_cond_init(&lane->work_or_close, NULL);
    cf__list_init(&lane->queue);
    *out = lane;
    return CF_OK;
}

void cf_lane_free(struct cf_lane *lane)
{
    bool last;

    if (lane == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&lane->mu);
    CF_ASSERT(cf__list_empty(&lane->queue));
    lane->closing = true;
    last = lane->threads == 0;
    (void)pthread_cond_broadcast(&lane->work_or_close);
    (void)pthread_mutex_unlock(&lane->mu);
    if (last) {
        destroy(lane);
    }
}

/* Operations */

enum cf_code cf_lane_run(struct cf_ctx *ctx, struct cf_lane *lane, cf_lane_fn work, cf_lane_fn drop,
                         void *own_arg, struct cf_err *err)
{
    struct cf__wait wait;
    struct job *job = NULL;
    enum cf_code code;

    code = cf_ctx_check(ctx, err);
    if (code != CF_OK) {
        goto fail;
    }
    job = calloc(1, sizeof(*job));
    if (job == NULL) {
        code = cf_err_set(err, CF_ENOMEM, "no memory for a job of lane %s", lane->name);
        goto fail;
    }
    cf__list_init(&job->node);
    job->work = work;
    job->drop = drop;
    job->arg = own_arg;
    job->wait = &wait;
    cf__wait_init(&wait);
    code = enqueue(lane, job, err);
    if (code != CF_OK) {
        goto fail;
    }
    if (cf__wait_park(ctx, &wait) != CF__WAIT_READY) {
        code = cf_ctx_check(ctx, err);
        if (give_up(lane, job)) {
            goto fail;
        }
        return code;
    }

    /* run_job() ended the wait under the lock: past it, the thread has let go of the job. */
    (void)pthread_mutex_lock(&lane->mu);
    (void)pthread_mutex_unlock(&lane->mu);
    free(job);
    return CF_OK;

fail:
    drop(own_arg);
    free(job);
    return code;
}
