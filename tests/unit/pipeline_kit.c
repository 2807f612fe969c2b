/* SPDX-License-Identifier: MIT */
/* See pipeline_kit.h. */
#include "pipeline_kit.h"

#include <errno.h>

#include <curfew/wait.h>

/* Fixture: `ctx`, `target` and `failure` of waits.h; `target` is the gate
 * that some stages wait at. */

atomic_int entered;
atomic_int left;

static void setup(void)
{
    setup_waits();
    atomic_store(&entered, 0);
    atomic_store(&left, 0);
}

/* Helpers: stages of ints */

enum cf_code count_up(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                      struct cf_err *err)
{
    int count = *(const int *)arg;
    enum cf_code code = CF_OK;

    EXPECT(in == NULL);
    (void)atomic_fetch_add(&entered, 1);
    for (int i = 0; code == CF_OK && i < count; i++) {
        code = cf_outlet_send(of, out, &i, err);
    }
    (void)atomic_fetch_add(&left, 1);
    return code;
}

enum cf_code pass_on(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                     struct cf_err *err)
{
    (void)arg;
    return cf_outlet_send(of, out, in, err);
}

enum cf_code square(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                    struct cf_err *err)
{
    int number = *(const int *)in;

    (void)arg;
    number *= number;
    return cf_outlet_send(of, out, &number, err);
}

enum cf_code fail_at(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                     struct cf_err *err)
{
    if (*(const int *)in == *(const int *)arg) {
        return cf_err_set_sys(err, CF_EIO, ENOSPC, "write order %d", *(const int *)in);
    }
    return cf_outlet_send(of, out, in, err);
}

enum cf_code take_up_to(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                        struct cf_err *err)
{
    if (*(const int *)in == *(const int *)arg) {
        cf_outlet_close(out);
    }
    return cf_outlet_send(of, out, in, err);
}

/* Helpers: pipelines */

struct cf_pipeline *start_pipeline(const struct cf_stage *stages, size_t count)
{
    struct cf_pipeline *pipeline = NULL;

    EXPECT(cf_pipeline_new(ctx, stages, count, &pipeline, NULL) == CF_OK);
    return pipeline;
}

enum cf_code receive_all(struct cf_pipeline *pipeline, int *out_count, struct cf_err *err)
{
    enum cf_code code;
    int value = -1;

    *out_count = 0;
    while ((code = cf_pipeline_recv(cf_ctx_background(), pipeline, &value, err)) == CF_OK) {
        EXPECT(value == *out_count);
        (*out_count)++;
    }
    return code;
}

/* Workers */

const int worker_counts[4] = {1, 2, 3, 7};

TCase *add_pipeline_case(Suite *suite, const char *name)
{
    TCase *tc = tcase_create(name);

    tcase_add_checked_fixture(tc, setup, teardown_waits);
    suite_add_tcase(suite, tc);
    return tc;
}
