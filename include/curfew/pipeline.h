/* SPDX-License-Identifier: MIT */
/* Pipelines: stages that run side by side, with a channel between each and the next.
 *
 * The first stage is called once and sends elements (it has no `end`); each later one is called for
 * every element of the stage before it, and sends none, one or many for each. The maker of the
 * pipeline receives what the last stage sends. A stage ends when its input does. The first failure
 * of any stage cancels all others, with that failure as the cause, and is what the receiver gets.
 *
 * Invariant: the order of the elements is kept, also through a stage with several workers; the end
 * is reported only if every stage has finished, or a later one needed no more from it, so that no
 * failure looks like a short result; and no stage outlives its pipeline.
 *
 *     static const struct cf_stage stages[] = {
 *         {.fn = generate, .arg = &numbers, .out_size = sizeof(int)},
 *         {.fn = square, .out_size = sizeof(int), .workers = 4},
 *     };
 *     code = cf_pipeline_new(ctx, stages, 2, &pipeline, err);
 *     if (code != CF_OK) { return code; }
 *     while ((code = cf_pipeline_recv(ctx, pipeline, &number, err)) == CF_OK) { print(number); }
 *     cf_pipeline_free(pipeline);
 *     return code == CF_ECLOSED ? CF_OK : code;
 *
 * Thread safety: any fiber or thread may receive; cf_pipeline_free() is for one caller, after the
 * last receive has returned. A worker is a fiber of the loop that the pipeline is made on, and a
 * thread when it is made off the loops. Not from a callback of the loop. */
#ifndef CURFEW_PIPELINE_H
#define CURFEW_PIPELINE_H

#include <curfew/base.h>
#include <curfew/ctx.h>
#include <curfew/err.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cf_pipeline;

/* Where a stage sends its elements, while its function runs. */
struct cf_outlet;

/* The work of a stage. `ctx` is the pipeline's own context; `in` is the element, borrowed for the
 * call, and NULL for the first stage. If it does not return CF_OK it has failed, and has described
 * that in `err` (never NULL); it returns a failure of cf_outlet_send() unchanged. CF_ECLOSED from
 * anything else would look like the end of the pipeline: it becomes CF_EUNAVAIL, with CF_ECLOSED as
 * the cause. */
typedef enum cf_code (*cf_stage_fn)(struct cf_ctx *ctx, const void *in, struct cf_outlet *out,
                                    void *arg, struct cf_err *err);

/* A stage, as a description: zeros are defaults. */
struct cf_stage {
    cf_stage_fn fn;

    /* Called once after the last element, with `in` NULL: to send a sum, or the rest of a batch.
     * Not after a failure, nor if no more is needed. NULL: nothing. */
    cf_stage_fn end;

    void *arg;       /* For fn and end; shared by the workers. */
    size_t out_size; /* Bytes of an element that it sends. 0: without content. */
    size_t capacity; /* Elements that may wait for the next stage. 0: each is handed over. */
    int workers;     /* Calls of fn that may run at once, on successive elements. 0: one. */
};

/* The most workers of one stage; the first stage has one. */
#define CF_STAGE_WORKERS_MAX 1024

/* Life cycle */

/* Start `count` (at least one) stages. A worker that cannot start counts as failed. Never blocks.
 * Ownership: copies `stages`; borrows each `arg` until the pipeline is freed; keeps a reference to
 * `ctx`; the caller owns *out, cf_pipeline_free(). Fails with CF_ENOMEM: then nothing was
 * called. */
CF_API CF_MUST enum cf_code cf_pipeline_new(struct cf_ctx *ctx, const struct cf_stage *stages,
                                            size_t count, struct cf_pipeline **out,
                                            struct cf_err *err);

/* Cancel the stages that still run, wait for their end, free the pipeline and drop what was not
 * received. NULL allowed.
 * Blocks: until the last stage has returned. */
CF_API void cf_pipeline_free(struct cf_pipeline *pipeline);

/* Operations */

/* Receive the next element of the last stage into *out; NULL drops it.
 * Blocks: until there is one, the pipeline has ended or failed, or `ctx` is done.
 * Fails with CF_ECLOSED: that was all, and nothing has failed; with the pipeline's first failure,
 * after the elements before it; with CF_ECANCELED, CF_EDEADLINE of `ctx`: then it may be called
 * again. */
CF_API CF_MUST enum cf_code cf_pipeline_recv(struct cf_ctx *ctx, struct cf_pipeline *pipeline,
                                             void *out, struct cf_err *err);

/* Run a pipeline from start to end, and drop what the last stage sends.
 * Blocks: until every stage has returned, also after `ctx` is done.
 * Fails with CF_ENOMEM, or the first failure. */
CF_API CF_MUST enum cf_code cf_pipeline_run(struct cf_ctx *ctx, const struct cf_stage *stages,
                                            size_t count, struct cf_err *err);

/* From a stage: send a copy of *value, after all that was sent for earlier elements.
 * Blocks: while the channel is full, until `ctx` is done; with several workers also until the calls
 * for earlier elements have returned.
 * Fails with CF_ECANCELED, CF_EDEADLINE, CF_ECLOSED (a later stage needs no more). */
CF_API CF_MUST enum cf_code cf_outlet_send(struct cf_ctx *ctx, struct cf_outlet *out,
                                           const void *value, struct cf_err *err);

/* From a stage: it needs no more input after this call of it returns. Its output ends there, and
 * all stages before it end too: their sends fail with CF_ECLOSED, which does not count as a
 * failure. */
CF_API void cf_outlet_close(struct cf_outlet *out);

#ifdef __cplusplus
}
#endif

#endif
