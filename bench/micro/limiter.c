/* SPDX-License-Identifier: MIT */
/* Limiters: a token of which there are always enough. */
#include "bench.h"

#include <curfew/limiter.h>

void bench_limiter_allow(struct bench *bench)
{
    struct cf_limiter *limiter;
    struct cf_err err;

    bench_need(cf_limiter_new(1e12, 1000000, &limiter, &err), &err);
    bench_start(bench);
    for (size_t i = 0; i < bench->n; i++) {
        CF_ASSERT(cf_limiter_allow(limiter, 1));
    }
    bench_stop(bench);
    cf_limiter_free(limiter);
}
