/* SPDX-License-Identifier: MIT */
/* Pipelines: see pipeline.h.
 *
 * A stage is one task of a group for each worker, and a channel that it sends to, its link. The
 * last worker to end closes the link, if all have ended without a failure: a link that was closed
 * by a failure would look like the end of a shorter input to the next stage, whose `end` would
 * complete what must not be completed. A failure cancels the group instead, and closes only the
 * last link, where the receiver is told of it.
 *
 * Order with several workers: they stand in a ring, and two tokens go round it. Who has the first
 * one takes the next element, and so they take turns; who has the second one may send, and keeps it
 * until its call has returned. Between the two the calls run at once. A worker that ends takes no
 * more turns, so the ring is broken behind it: nobody takes an element then, because the stage is
 * over, and all that were taken before have had their turn to send.
 *
 * A stage that has had enough closes its own link and all before it: every stage before it is then
 * refused at its next send, also one that would not have sent for long.
 *
 * Lock order: mu is a leaf. */
#include <curfew/pipeline.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <curfew/chan.h>
#include <curfew/group.h>

#include "curfew/core/err_private.h"

/* Constants and types */

struct stage {
    struct cf_pipeline *pipeline; /* Constant after new, as is what follows. */
    struct cf_stage spec;
    struct cf_chan *in;        /* The link of the stage before it, or NULL: the first. */
    struct cf_chan *link;      /* Owned. */
    struct cf_outlet *workers; /* Owned; as many as the spec says. */

    atomic_bool link_closed; /* Atomic, as is what follows. */
    atomic_bool over;        /* No worker takes an element any more. */
    atomic_bool cut;         /* It ended before its input did. */
    atomic_int running;      /* Workers that have not ended, or have failed. */
};

/* A worker. Constant after new, but for the last group. */
struct cf_outlet {
    struct stage *stage;
    struct cf_outlet *next;  /* In the ring. */
    void *element;           /* Owned: what it works on. */
    struct cf_chan *to_take; /* Owned: its place for the first token; NULL with one worker. */
    struct cf_chan *to_send; /* The same, for the second token. */

    bool may_send; /* It has the second token. The worker's, as is what follows. */
    bool refused;  /* A send failed with CF_ECLOSED. */
    bool enough;   /* cf_outlet_close() was called. */
};

struct cf_pipeline {
    struct cf_ctx *parent; /* Constant after new, as is what follows; the group holds it. */
    struct cf_group *group;
    size_t count;

    pthread_mutex_t mu; /* Guards failed and first. */
    bool failed;
    struct cf_err first; /* The first failure, if failed. */

    struct stage stages[];
};

/* Internal helpers: links */

static void close_link(struct stage *stage)
{
    if (!atomic_exchange(&stage->link_closed, true)) {
        cf_chan_close(stage->link);
    }
}

/* The stage needs no more input, and sends no more. */
static void close_up_to(struct stage *stage)
{
    for (struct stage *each = stage; each >= stage->pipeline->stages; each--) {
        close_link(each);
    }
}

/* Internal helpers: failures */

/* Keep a failure if it is the first, and cancel the other stages with it: before the receiver is
 * told, who may free the pipeline at once and would then be the cause. One that is only the end of
 * the group's context, while the context above lives, follows from what the group says: a worker
 * could not be started. */
static void note_failure(struct cf_pipeline *pipeline, const struct cf_err *err)
{
    struct cf_cause cause;
    bool is_first;

    (void)pthread_mutex_lock(&pipeline->mu);
    is_first = !pipeline->failed;
    if (is_first) {
        pipeline->failed = true;
        pipeline->first = *err;
        if (err->code == CF_ECANCELED && cf_ctx_err(pipeline->parent) == CF_OK &&
            cf_ctx_cause(cf_group_ctx(pipeline->group), &cause) &&
            cause.reason == CF_REASON_SIBLING_FAILED) {
            pipeline->first = cause.err;
        }
    }
    (void)pthread_mutex_unlock(&pipeline->mu);
    if (is_first) {
        cf_ctx_cancel_cause(cf_group_ctx(pipeline->group), CF_REASON_SIBLING_FAILED, err);
    }
    close_link(&pipeline->stages[pipeline->count - 1]);
}

/* CF_OK, or the first failure. */
static enum cf_code check_failure(struct cf_pipeline *pipeline, struct cf_err *err)
{
    enum cf_code code = CF_OK;

    (void)pthread_mutex_lock(&pipeline->mu);
    if (pipeline->failed) {
        code = cf__err_give(err, &pipeline->first);
    }
    (void)pthread_mutex_unlock(&pipeline->mu);
    return code;
}

/* Internal helpers: turns */

/* Hand a token on. There is one, so its place is free; or closed, and nobody waits for it. */
static void pass(struct cf_chan *place)
{
    if (place != NULL) {
        (void)cf_chan_try_send(place, NULL, NULL);
    }
}

static enum cf_code await_turn_to_send(struct cf_ctx *ctx, struct cf_outlet *worker,
                                       struct cf_err *err)
{
    enum cf_code code = CF_OK;

    if (!worker->may_send && worker->to_send != NULL) {
        code = cf_chan_recv(ctx, worker->to_send, NULL, err);
    }
    worker->may_send = code == CF_OK;
    return code;
}

/* Take the next element, in turn. CF_ECLOSED: there is none. */
static enum cf_code take(struct cf_ctx *ctx, struct cf_outlet *worker, struct cf_err *err)
{
    enum cf_code code = CF_OK;

    if (worker->to_take != NULL) {
        code = cf_chan_recv(ctx, worker->to_take, NULL, err);
    }
    if (code == CF_OK) {
        code = cf_chan_recv(ctx, worker->stage->in, worker->element, err);
    }
    if (code == CF_OK) {
        pass(worker->next->to_take);
    }
    return code;
}

/* Have the other workers stop taking. */
static void end_taking(struct stage *stage)
{
    if (stage->spec.workers == 1 || atomic_exchange(&stage->over, true)) {
        return;
    }
    for (int i = 0; i < stage->spec.workers; i++) {
        cf_chan_close(stage->workers[i].to_take);
    }
}

/* Internal helpers: workers */

/* Call the stage's function for one element (NULL: for all), and end the turn. */
static enum cf_code call_stage(struct cf_ctx *ctx, struct cf_outlet *worker, const void *in,
                               struct cf_err *err)
{
    struct stage *stage = worker->stage;
    enum cf_code code = stage->spec.fn(ctx, in, worker, stage->spec.arg, err);

    if (code == CF_ECLOSED && worker->refused) {
        code = CF_OK; /* Nobody needs it any more. */
    }
    if (code == CF_OK) {
        code = await_turn_to_send(ctx, worker, err); /* It may have had nothing to send. */
    }
    if (code != CF_OK) {
        return code;
    }
    if (worker->enough) {
        close_up_to(stage);
    }
    worker->may_send = false;
    pass(worker->next->to_send);
    return CF_OK;
}

/* Call it for every element, until there is none, or no need of one. */
static enum cf_code call_for_all(struct cf_ctx *ctx, struct cf_outlet *worker, struct cf_err *err)
{
    enum cf_code code = CF_OK;

    while (code == CF_OK && !worker->refused && !worker->enough) {
        code = take(ctx, worker, err);
        if (code == CF_ECLOSED) {
            break;
        }
        if (code == CF_OK) {
            code = call_stage(ctx, worker, worker->element, err);
        }
    }
    if (code == CF_OK || code == CF_ECLOSED) {
        if (worker->refused || worker->enough) {
            atomic_store(&worker->stage->cut, true);
        }
        end_taking(worker->stage);
        return CF_OK;
    }
    return code;
}

/* A worker has done its part. What the last one does is behind all that the others sent. */
static enum cf_code end_worker(struct cf_ctx *ctx, struct cf_outlet *worker, struct cf_err *err)
{
    struct stage *stage = worker->stage;
    enum cf_code code = CF_OK;

    if (atomic_fetch_sub(&stage->running, 1) > 1) {
        return CF_OK;
    }
    if (stage->spec.end != NULL && !atomic_load(&stage->cut)) {
        worker->may_send = true;
        code = stage->spec.end(ctx, NULL, worker, stage->spec.arg, err);
        code = code == CF_ECLOSED && worker->refused ? CF_OK : code;
    }
    if (code == CF_OK) {
        close_link(stage);
    }
    return code;
}

static enum cf_code run_worker(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct cf_outlet *worker = arg;
    struct stage *stage = worker->stage;
    enum cf_code code;

    code = stage->in == NULL ? call_stage(ctx, worker, NULL, err) : call_for_all(ctx, worker, err);
    if (code == CF_OK) {
        code = end_worker(ctx, worker, err);
    }
    if (code != CF_OK) {
        cf__err_settle(err, code);
        if (code == CF_ECLOSED) {
            code = cf_err_recode(err, CF_EUNAVAIL); /* To the receiver it would be the end. */
        }
        note_failure(stage->pipeline, err);
    }
    return code;
}

/* Internal helpers: building */

static enum cf_code build_worker(struct stage *stage, int index, size_t element_size,
                                 struct cf_err *err)
{
    struct cf_outlet *worker = &stage->workers[index];
    enum cf_code code = CF_OK;

    worker->stage = stage;
    worker->next = &stage->workers[(index + 1) % stage->spec.workers];
    worker->element = malloc(element_size > 0 ? element_size : 1); /* NULL means the first stage. */
    if (worker->element == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for an element of a pipeline");
    }
    if (stage->spec.workers > 1) {
        code = cf_chan_new(0, 1, &worker->to_take, err);
        if (code == CF_OK) {
            code = cf_chan_new(0, 1, &worker->to_send, err);
        }
    }
    return code;
}

static enum cf_code build_stage(struct cf_pipeline *pipeline, size_t index,
                                const struct cf_stage *spec, struct cf_err *err)
{
    struct stage *stage = &pipeline->stages[index];
    enum cf_code code;

    CF_ASSERT(index > 0 || spec->end == NULL);
    CF_ASSERT(spec->workers >= 0);
    CF_ASSERT(spec->workers <= (index == 0 ? 1 : CF_STAGE_WORKERS_MAX));
    stage->pipeline = pipeline;
    stage->spec = *spec;
    stage->spec.workers = spec->workers > 0 ? spec->workers : 1;
    stage->in = index > 0 ? stage[-1].link : NULL;
    atomic_init(&stage->running, stage->spec.workers);
    code = cf_chan_new(spec->out_size, spec->capacity, &stage->link, err);
    if (code != CF_OK) {
        return code;
    }
    stage->workers = calloc((size_t)stage->spec.workers, sizeof(*stage->workers));
    if (stage->workers == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for %d workers", stage->spec.workers);
    }
    for (int i = 0; code == CF_OK && i < stage->spec.workers; i++) {
        code = build_worker(stage, i, index > 0 ? stage[-1].spec.out_size : 0, err);
    }
    return code;
}

static enum cf_code build(struct cf_ctx *ctx, const struct cf_stage *stages, size_t count,
                          struct cf_pipeline **out, struct cf_err *err)
{
    struct cf_pipeline *pipeline;
    enum cf_code code;

    CF_ASSERT(count > 0);
    pipeline = calloc(1, sizeof(*pipeline) + count * sizeof(pipeline->stages[0]));
    if (pipeline == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a pipeline");
    }
    pipeline->parent = ctx;
    pipeline->count = count;
    (void)pthread_mutex_init(&pipeline->mu, NULL);
    code = cf_group_new(ctx, &pipeline->group, err);
    for (size_t i = 0; code == CF_OK && i < count; i++) {
        code = build_stage(pipeline, i, &stages[i], err);
    }
    if (code != CF_OK) {
        cf_pipeline_free(pipeline);
        return code;
    }
    *out = pipeline;
    return CF_OK;
}

static void free_stage(struct stage *stage)
{
    for (int i = 0; stage->workers != NULL && i < stage->spec.workers; i++) {
        free(stage->workers[i].element);
        cf_chan_free(stage->workers[i].to_take);
        cf_chan_free(stage->workers[i].to_send);
    }
    free(stage->workers);
    cf_chan_free(stage->link);
}

/* Life cycle */

enum cf_code cf_pipeline_new(struct cf_ctx *ctx, const struct cf_stage *stages, size_t count,
                             struct cf_pipeline **out, struct cf_err *err)
{
    struct cf_pipeline *pipeline = NULL;
    struct cf_err why;
    enum cf_code code = build(ctx, stages, count, &pipeline, err);

    if (pipeline == NULL) {
        return code;
    }
    for (size_t i = 0; i < count; i++) {
        struct stage *stage = &pipeline->stages[i];

        pass(stage->workers[0].to_take);
        pass(stage->workers[0].to_send);
        for (int k = 0; k < stage->spec.workers; k++) {
            cf_group_go(pipeline->group, run_worker, &stage->workers[k]);
        }
    }
    /* If no worker could be started, none is there to say so. */
    if (cf_ctx_check(cf_group_ctx(pipeline->group), &why) != CF_OK) {
        note_failure(pipeline, &why);
    }
    *out = pipeline;
    return CF_OK;
}

void cf_pipeline_free(struct cf_pipeline *pipeline)
{
    if (pipeline == NULL) {
        return;
    }
    if (pipeline->group != NULL) {
        enum cf_code code;

        cf_ctx_cancel(cf_group_ctx(pipeline->group));
        code = cf_group_wait(pipeline->group, NULL);
        (void)code; /* The receiver has been told, or did not want to know. */
    }
    for (size_t i = 0; i < pipeline->count; i++) {
        free_stage(&pipeline->stages[i]);
    }
    cf_group_free(pipeline->group);
    (void)pthread_mutex_destroy(&pipeline->mu);
    free(pipeline);
}

/* Operations */

enum cf_code cf_pipeline_recv(struct cf_ctx *ctx, struct cf_pipeline *pipeline, void *out,
                              struct cf_err *err)
{
    enum cf_code code = cf_chan_recv(ctx, pipeline->stages[pipeline->count - 1].link, out, err);
    enum cf_code failure = code == CF_ECLOSED ? check_failure(pipeline, err) : CF_OK;

    return failure != CF_OK ? failure : code;
}

enum cf_code cf_pipeline_run(struct cf_ctx *ctx, const struct cf_stage *stages, size_t count,
                             struct cf_err *err)
{
    struct cf_pipeline *pipeline = NULL;
    enum cf_code code = cf_pipeline_new(ctx, stages, count, &pipeline, err);

    if (pipeline == NULL) {
        return code;
    }
    do {
        code = cf_pipeline_recv(ctx, pipeline, NULL, err);
    } while (code == CF_OK);
    if (code == CF_ECLOSED) { /* A stage that is needed no more may still be at work, and fail. */
        code = cf_group_wait(pipeline->group, NULL);
        code = code != CF_OK ? check_failure(pipeline, err) : CF_OK;
    }
    cf_pipeline_free(pipeline);
    return code;
}

enum cf_code cf_outlet_send(struct cf_ctx *ctx, struct cf_outlet *out, const void *value,
                            struct cf_err *err)
{
    enum cf_code code = await_turn_to_send(ctx, out, err);

    if (code == CF_OK) {
        code = cf_chan_send(ctx, out->stage->link, value, err);
        out->refused = out->refused || code == CF_ECLOSED;
    }
    return code;
}

void cf_outlet_close(struct cf_outlet *out)
{
    out->enough = true;
}
