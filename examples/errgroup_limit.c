/* SPDX-License-Identifier: MIT */
/* A group with a limit: fifty images, ten at a time. Here the tasks are fibers of one loop, which
 * therefore need neither locks nor atomics among themselves. */
#include <stdio.h>

#include <curfew/group.h>
#include <curfew/loop.h>
#include <curfew/wait.h>

#define IMAGES 50

struct work {
    int running;
    int running_max;
    int resized;
};

static enum cf_code resize(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct work *work = arg;
    enum cf_code code;

    work->running++;
    work->running_max = work->running > work->running_max ? work->running : work->running_max;
    code = cf_sleep(ctx, 2 * CF_MS, err);
    work->running--;
    work->resized += code == CF_OK;
    return code;
}

static void resize_all(void *arg)
{
    struct cf_group *group;
    struct cf_err err;

    if (cf_group_new(cf_ctx_background(), &group, &err) != CF_OK) {
        return;
    }
    cf_group_set_limit(group, 10);
    for (int i = 0; i < IMAGES; i++) {
        cf_group_go(group, resize, arg); /* Waits while ten run. */
    }
    if (cf_group_wait(group, &err) != CF_OK) {
        printf("%s\n", err.msg);
    }
    cf_group_free(group);
}

int main(void)
{
    struct work work = {.running = 0};
    struct cf_loop *loop;

    if (cf_loop_new(NULL, &loop, NULL) != CF_OK ||
        cf_loop_call(loop, resize_all, &work, NULL) != CF_OK) {
        return 1;
    }
    cf_loop_free(loop);
    printf("%d images resized, at most %d at once\n", work.resized, work.running_max);
    return 0;
}
