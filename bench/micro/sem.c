/* SPDX-License-Identifier: MIT */
/* Semaphores: a permit acquired and released, of which there are enough. */
#include "bench.h"

#include <curfew/sem.h>

void bench_sem_acquire(struct bench *bench)
{
    struct cf_sem *sem;
    struct cf_err err;

    bench_need(cf_sem_new(8, &sem, &err), &err);
    bench_start(bench);
    for (size_t i = 0; i < bench->n; i++) {
        bench_need(cf_sem_acquire(bench->ctx, sem, 1, &err), &err);
        cf_sem_release(sem, 1);
    }
    bench_stop(bench);
    cf_sem_free(sem);
}
