/* SPDX-License-Identifier: MIT */
/* A weighted semaphore: twenty jobs share eight permits. A small job takes one, a large one four;
 * and who cannot have his in time does without. Here the jobs are threads. */
#include <stdatomic.h>
#include <stdio.h>

#include <curfew/group.h>
#include <curfew/sem.h>
#include <curfew/wait.h>

#define PERMITS 8
#define JOBS 20

static struct cf_sem *sem;
static atomic_int in_use;
static atomic_int too_many;
static atomic_int done;

static enum cf_code work(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    int64_t weight = arg != NULL ? 4 : 1;
    enum cf_code code = cf_sem_acquire(ctx, sem, weight, err);

    if (code != CF_OK) {
        return code;
    }
    if (atomic_fetch_add(&in_use, (int)weight) + weight > PERMITS) {
        (void)atomic_fetch_add(&too_many, 1);
    }
    code = cf_sleep(ctx, CF_MS, err);
    (void)atomic_fetch_add(&done, 1);
    (void)atomic_fetch_sub(&in_use, (int)weight);
    cf_sem_release(sem, weight);
    return code;
}

/* All permits are taken, so this one waits for its context. */
static void try_in_vain(void)
{
    struct cf_ctx *brief;
    struct cf_err err;

    if (!cf_sem_try_acquire(sem, PERMITS) ||
        cf_ctx_with_timeout(cf_ctx_background(), 5 * CF_MS, &brief, &err) != CF_OK) {
        return;
    }
    if (cf_sem_acquire(brief, sem, 1, &err) != CF_OK) {
        printf("one more, for 5 ms: %s\n", err.msg);
    }
    cf_sem_release(sem, PERMITS);
    cf_ctx_free(brief);
}

int main(void)
{
    struct cf_group *group;
    struct cf_err err;

    if (cf_sem_new(PERMITS, &sem, &err) != CF_OK ||
        cf_group_new(cf_ctx_background(), &group, &err) != CF_OK) {
        return 1;
    }
    for (int i = 0; i < JOBS; i++) {
        cf_group_go(group, work, i % 5 == 0 ? &in_use : NULL);
    }
    if (cf_group_wait(group, &err) != CF_OK) {
        printf("%s\n", err.msg);
    }
    printf("%d jobs done, more than %d permits in use: %d times\n", atomic_load(&done), PERMITS,
           atomic_load(&too_many));
    try_in_vain();
    cf_group_free(group);
    cf_sem_free(sem);
    return 0;
}
