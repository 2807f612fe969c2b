/* SPDX-License-Identifier: MIT */
/* Cancellation in a long loop: work that waits for nothing asks for itself whether it is still
 * wanted. On a fiber it yields now and then, so that others have their turn. */
#include <stdio.h>

#include <curfew/ctx.h>
#include <curfew/loop.h>
#include <curfew/wait.h>

#define ITEMS INT64_C(1000000000000)

/* On a thread: look at the context before each item. It looks at the clock, too. */
static enum cf_code process_all(struct cf_ctx *ctx, int64_t *out_done, struct cf_err *err)
{
    for (*out_done = 0; *out_done < ITEMS; (*out_done)++) {
        if (cf_ctx_err(ctx) != CF_OK) {
            return cf_ctx_check(ctx, err); /* Bail out early. */
        }
    }
    return CF_OK;
}

/* On a fiber: after every thousand items, let the others run. */
struct job {
    struct cf_ctx *ctx;
    int64_t done;
    struct cf_err err;
};

static void process_on_fiber(void *arg)
{
    struct job *job = arg;

    for (job->done = 0; job->done < ITEMS; job->done++) {
        if (job->done % 1000 == 0 && cf_yield(job->ctx, &job->err) != CF_OK) {
            return;
        }
    }
}

static void interrupt(void *arg)
{
    cf_ctx_cancel_cause(((struct job *)arg)->ctx, CF_REASON_OPERATOR, NULL);
}

int main(void)
{
    struct cf_ctx *ctx;
    struct cf_loop *loop;
    struct job job;
    struct cf_err err;
    int64_t done;

    if (cf_ctx_with_timeout(cf_ctx_background(), 5 * CF_MS, &ctx, NULL) != CF_OK ||
        cf_ctx_with_cancel(cf_ctx_background(), &job.ctx, NULL) != CF_OK ||
        cf_loop_new(NULL, &loop, NULL) != CF_OK) {
        return 1;
    }
    if (process_all(ctx, &done, &err) != CF_OK) {
        printf("thread: %s, %s\n", err.msg, done < ITEMS ? "early" : "late");
    }
    /* The second fiber gets its turn although the first one never waits. */
    if (cf_loop_spawn(loop, process_on_fiber, &job, NULL) != CF_OK ||
        cf_loop_call(loop, interrupt, &job, NULL) != CF_OK) {
        return 1;
    }
    cf_loop_free(loop); /* Waits for its fibers. */
    printf("fiber: %s, %s\n", job.err.msg, job.done < ITEMS ? "early" : "late");
    cf_ctx_free(job.ctx);
    cf_ctx_free(ctx);
    return 0;
}
