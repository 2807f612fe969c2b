/* SPDX-License-Identifier: MIT */
/* Once: what everybody pays who comes after it has run. */
#include "bench.h"

#include <curfew/once.h>

static enum cf_code do_nothing(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    (void)ctx;
    (void)arg;
    (void)err;
    return CF_OK;
}

void bench_once_do(struct bench *bench)
{
    static struct cf_once once;
    struct cf_err err;

    bench_need(cf_once_do(bench->ctx, &once, do_nothing, NULL, &err), &err);
    bench_start(bench);
    for (size_t i = 0; i < bench->n; i++) {
        bench_need(cf_once_do(bench->ctx, &once, do_nothing, NULL, &err), &err);
    }
    bench_stop(bench);
}
