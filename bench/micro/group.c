/* SPDX-License-Identifier: MIT */
/* Groups: three tasks that do nothing, and the wait for them. */
#include "bench.h"

#include <curfew/group.h>

static enum cf_code do_nothing(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    (void)ctx;
    (void)arg;
    (void)err;
    return CF_OK;
}

void bench_group_three(struct bench *bench)
{
    struct cf_group *group;
    struct cf_err err;

    bench_start(bench);
    for (size_t i = 0; i < bench->n; i++) {
        bench_need(cf_group_new(bench->ctx, &group, &err), &err);
        cf_group_go(group, do_nothing, NULL);
        cf_group_go(group, do_nothing, NULL);
        cf_group_go(group, do_nothing, NULL);
        bench_need(cf_group_wait(group, &err), &err);
        cf_group_free(group);
    }
    bench_stop(bench);
}
