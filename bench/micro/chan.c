/* SPDX-License-Identifier: MIT */
/* Channels: what it takes to hand over one element.
 *
 * Under the background, as Go's `ch <- v` waits without a context; and, in the forms that end in
 * _ctx, under one that can end, as Go's select with ctx.Done(). */
#include "bench.h"

#include <curfew/chan.h>
#include <curfew/group.h>

#define CAPACITY 128

struct hop {
    struct cf_ctx *ctx;
    struct cf_chan *ch;
    size_t n;
};

static enum cf_code send_all(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    const struct hop *hop = arg;

    (void)ctx; /* The one to send under is in `hop`. */
    for (size_t i = 0; i < hop->n; i++) {
        enum cf_code code = cf_chan_send(hop->ctx, hop->ch, &i, err);

        if (code != CF_OK) {
            return code;
        }
    }
    return CF_OK;
}

/* From one task to another: fibers of one loop, or threads if there is no loop. */
static void hop_between(struct bench *bench, struct cf_ctx *ctx, size_t capacity)
{
    struct hop hop = {.ctx = ctx, .n = bench->n};
    struct cf_group *group;
    struct cf_err err;
    size_t value;

    bench_need(cf_chan_new(sizeof(value), capacity, &hop.ch, &err), &err);
    bench_need(cf_group_new(bench->ctx, &group, &err), &err);
    bench_start(bench);
    cf_group_go(group, send_all, &hop);
    for (size_t i = 0; i < bench->n; i++) {
        bench_need(cf_chan_recv(ctx, hop.ch, &value, &err), &err);
    }
    bench_stop(bench);
    bench_need(cf_group_wait(group, &err), &err);
    cf_group_free(group);
    cf_chan_free(hop.ch);
}

/* By one who sends and receives, and never waits. */
void bench_chan_send_recv(struct bench *bench)
{
    struct cf_ctx *ctx = cf_ctx_background();
    struct cf_chan *ch;
    struct cf_err err;

    bench_need(cf_chan_new(sizeof(size_t), 1, &ch, &err), &err);
    bench_start(bench);
    for (size_t i = 0; i < bench->n; i++) {
        size_t value;

        bench_need(cf_chan_send(ctx, ch, &i, &err), &err);
        bench_need(cf_chan_recv(ctx, ch, &value, &err), &err);
    }
    bench_stop(bench);
    cf_chan_free(ch);
}

void bench_chan_unbuffered(struct bench *bench)
{
    hop_between(bench, cf_ctx_background(), 0);
}

void bench_chan_buffered(struct bench *bench)
{
    hop_between(bench, cf_ctx_background(), CAPACITY);
}

void bench_chan_unbuffered_ctx(struct bench *bench)
{
    hop_between(bench, bench->ctx, 0);
}

void bench_chan_buffered_ctx(struct bench *bench)
{
    hop_between(bench, bench->ctx, CAPACITY);
}

void bench_chan_threads_unbuffered(struct bench *bench)
{
    hop_between(bench, cf_ctx_background(), 0);
}

void bench_chan_threads_buffered(struct bench *bench)
{
    hop_between(bench, cf_ctx_background(), CAPACITY);
}
