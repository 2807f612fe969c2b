/* SPDX-License-Identifier: MIT */
/* The ends of a pipeline: a stage fails, has no more, wants no more, or the receiver leaves. */
#include "pipeline_kit.h"

#include <errno.h>
#include <string.h>

#include <curfew/wait.h>

#include "effort.h"

/* Helpers: stages of ints */

static enum cf_code drop(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                         struct cf_err *err)
{
    (void)of;
    (void)in;
    (void)out;
    (void)arg;
    (void)err;
    return CF_OK;
}

/* Failures */

static void run_failing(void *arg)
{
    int count = FOREVER;
    int at = 5;
    struct cf_stage stages[4] = {{.fn = count_up, .arg = &count, INTS}};
    struct cf_pipeline *pipeline;
    struct cf_err err = {.code = CF_OK};
    int received;

    for (int i = 1; i < 4; i++) {
        stages[i] = (struct cf_stage){.fn = pass_on, INTS, .workers = i};
    }
    stages[*(int *)arg].fn = fail_at;
    stages[*(int *)arg].arg = &at;
    pipeline = start_pipeline(stages, 4);
    EXPECT(receive_all(pipeline, &received, &err) == CF_EIO);
    EXPECT(received <= 5);
    EXPECT(err.code == CF_EIO && err.sys == ENOSPC);
    EXPECT(strcmp(err.msg, "write order 5: No space left on device") == 0);
    EXPECT(cf_pipeline_recv(ctx, pipeline, NULL, NULL) == CF_EIO); /* And so it stays. */
    cf_pipeline_free(pipeline);
    EXPECT(atomic_load(&left) == atomic_load(&entered));
    EXPECT(cf_pipeline_run(ctx, stages, 4, &err) == CF_EIO);
    EXPECT(cf_ctx_err(ctx) == CF_OK);
}

START_TEST(fail_of_any_stage_ends_all_and_is_told)
{
    int which = 1 + _i / PLACES;

    place_run(_i % PLACES, run_failing, &which);
}
END_TEST

/* What a stage says, and what the receiver is told. */
struct talk {
    enum cf_code set;
    enum cf_code returns;
    enum cf_code told;
    const char *msg;
};

static enum cf_code say(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                        struct cf_err *err)
{
    const struct talk *talk = arg;

    (void)of;
    (void)in;
    (void)out;
    if (talk->set != CF_OK) {
        (void)cf_err_set(err, talk->set, "its own words");
    }
    return talk->returns;
}

static void run_talk(void *arg)
{
    const struct talk *talk = arg;
    const struct cf_stage stages[] = {{.fn = say, .arg = arg, INTS}, {.fn = drop, INTS}};
    struct cf_pipeline *pipeline = start_pipeline(stages, 2);
    struct cf_err err = {.code = CF_OK};

    EXPECT(cf_pipeline_recv(ctx, pipeline, NULL, &err) == talk->told);
    EXPECT(err.code == talk->told);
    EXPECT(strcmp(err.msg, talk->msg) == 0);
    EXPECT(talk->told != CF_EUNAVAIL || err.cause == CF_ECLOSED);
    cf_pipeline_free(pipeline);
}

START_TEST(fail_is_what_the_stage_returns)
{
    static const struct talk talks[] = {
        {CF_EIO, CF_EIO, CF_EIO, "its own words"},
        {CF_OK, CF_EIO, CF_EIO, "input or output failed"},
        {CF_EIO, CF_OK, CF_ECLOSED, "channel closed"},
        /* Not the end of the pipeline, although it is the end of something. */
        {CF_ECLOSED, CF_ECLOSED, CF_EUNAVAIL, "its own words"},
        {CF_OK, CF_ECLOSED, CF_EUNAVAIL, "closed"},
    };

    place_run(_i % PLACES, run_talk, (void *)&talks[_i / PLACES]);
}
END_TEST

/* A later stage must not take a failure for the end of its input: it would complete too little. */
static enum cf_code note_cancel(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                                struct cf_err *err)
{
    struct cf_cause cause;
    enum cf_code code;

    (void)in;
    (void)out;
    (void)arg;
    (void)atomic_fetch_add(&entered, 1);
    code = cf_sleep(of, CF_NEVER, err);
    EXPECT(cf_ctx_cause(of, &cause) && cause.reason == CF_REASON_SIBLING_FAILED);
    EXPECT(cause.err.code == CF_EIO);
    return code;
}

static enum cf_code fail_at_gate(struct cf_ctx *of, const void *in, struct cf_outlet *out,
                                 void *arg, struct cf_err *err)
{
    int value = 0;
    enum cf_code code = cf_outlet_send(of, out, &value, err);

    (void)in;
    (void)arg;
    EXPECT(code == CF_OK);
    code = cf_wait_done(of, target, err);
    return code != CF_OK ? code : cf_err_set(err, CF_EIO, "behind the gate");
}

static void run_cancel(void *arg)
{
    const struct cf_stage stages[] = {{.fn = fail_at_gate, INTS}, {.fn = note_cancel, INTS}};

    (void)arg;
    EXPECT(cf_pipeline_run(ctx, stages, 2, NULL) == CF_EIO);
}

/* Sums up in `arg`, and sends the sum at the end. */
static enum cf_code add(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                        struct cf_err *err)
{
    (void)of;
    (void)out;
    (void)err;
    (void)atomic_fetch_add((atomic_int *)arg, *(const int *)in);
    return CF_OK;
}

static enum cf_code send_sum(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                             struct cf_err *err)
{
    int sum = atomic_load((atomic_int *)arg);

    EXPECT(in == NULL);
    (void)atomic_fetch_add(&entered, 1);
    (void)atomic_fetch_add(&left, 1);
    return cf_outlet_send(of, out, &sum, err);
}

static void run_sum(void *arg)
{
    int count = 100;
    atomic_int sum = 0;
    const struct cf_stage stages[] = {
        {.fn = count_up, .arg = &count, INTS},
        {.fn = pass_on, .end = send_sum, .arg = &sum, INTS, .workers = 2},
        {.fn = add, .end = send_sum, .arg = &sum, INTS, .workers = *(int *)arg}};
    struct cf_pipeline *pipeline = start_pipeline(stages, 3);
    int value = -1;

    EXPECT(cf_pipeline_recv(ctx, pipeline, &value, NULL) == CF_OK);
    EXPECT(value >= 4950 && value <= 2 * 4950); /* With what the second stage sent last. */
    EXPECT(cf_pipeline_recv(ctx, pipeline, &value, NULL) == CF_ECLOSED);
    cf_pipeline_free(pipeline);
    EXPECT(atomic_load(&entered) == 3);
}

START_TEST(end_is_called_once_behind_all_elements)
{
    int how_many = worker_counts[_i / PLACES];

    place_run(_i % PLACES, run_sum, &how_many);
}
END_TEST

/* The failure of the stage before it, its own, and one that was cut short. */
static void run_without_end(void *arg)
{
    int count = 100;
    int at = 50;
    cf_stage_fn fns[3][2] = {{fail_at, drop}, {pass_on, fail_at}, {pass_on, take_up_to}};
    size_t kind = *(size_t *)arg;
    const struct cf_stage stages[] = {
        {.fn = count_up, .arg = &count, INTS},
        {.fn = fns[kind][0], .arg = &at, INTS, .workers = 2},
        {.fn = fns[kind][1], .end = send_sum, .arg = &at, INTS, .workers = 3}};

    for (int i = 0; i < effort_count(50, 5); i++) {
        EXPECT(cf_pipeline_run(ctx, stages, 3, NULL) == (kind < 2 ? CF_EIO : CF_OK));
    }
    EXPECT(atomic_load(&entered) == effort_count(50, 5)); /* The sources, and no end. */
}

START_TEST(end_is_not_called_if_that_was_not_all)
{
    size_t kind = (size_t)(_i / PLACES);

    place_run(_i % PLACES, run_without_end, &kind);
}
END_TEST

START_TEST(fail_is_the_cause_that_other_stages_see)
{
    struct visit visit;

    visit_start(&visit, _i, run_cancel, NULL);
    EVENTUALLY(atomic_load(&entered) == 1);
    cf_ctx_cancel(target);
    visit_join(&visit);
}
END_TEST

/* Ends from the other side */

static void run_taking(void *arg)
{
    int count = FOREVER;
    int last = 6;
    const struct cf_stage stages[] = {
        {.fn = count_up, .arg = &count, INTS},
        {.fn = pass_on, INTS, .workers = 3, .capacity = 4},
        {.fn = take_up_to, .arg = &last, INTS, .workers = *(int *)arg, .capacity = 2},
        {.fn = pass_on, INTS}};
    struct cf_pipeline *pipeline = start_pipeline(stages, 4);
    int received;

    EXPECT(receive_all(pipeline, &received, NULL) == CF_ECLOSED);
    EXPECT(received == 7);
    cf_pipeline_free(pipeline);
    EXPECT(cf_pipeline_run(ctx, stages, 4, NULL) == CF_OK);
    EXPECT(atomic_load(&left) == atomic_load(&entered));
}

START_TEST(close_of_an_outlet_ends_the_stages_before_it)
{
    int how_many = worker_counts[_i / PLACES];

    place_run(_i % PLACES, run_taking, &how_many);
}
END_TEST

/* The stage between sends nothing, so it cannot find out by itself. */
static enum cf_code drop_after(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                               struct cf_err *err)
{
    return *(const int *)in > *(const int *)arg ? CF_OK : cf_outlet_send(of, out, in, err);
}

static void run_dropping(void *arg)
{
    int count = FOREVER;
    int last = 6;
    const struct cf_stage stages[] = {{.fn = count_up, .arg = &count, INTS},
                                      {.fn = drop_after, .arg = &last, INTS, .workers = 2},
                                      {.fn = take_up_to, .arg = &last, INTS}};

    (void)arg;
    EXPECT(cf_pipeline_run(ctx, stages, 3, NULL) == CF_OK);
}

START_TEST(close_of_an_outlet_reaches_over_a_silent_stage)
{
    place_run(_i, run_dropping, NULL);
}
END_TEST

static void leave_early(void *arg)
{
    int count = FOREVER;
    const struct cf_stage stages[] = {{.fn = count_up, .arg = &count, INTS},
                                      {.fn = pass_on, INTS, .workers = 3},
                                      {.fn = square, INTS, .capacity = 2}};
    struct cf_pipeline *pipeline = start_pipeline(stages, 3);

    (void)arg;
    EXPECT(cf_pipeline_recv(ctx, pipeline, NULL, NULL) == CF_OK);
    cf_pipeline_free(pipeline);
    EXPECT(atomic_load(&entered) == 1);
    EXPECT(atomic_load(&left) == 1);
    cf_pipeline_free(NULL);
}

START_TEST(free_leaves_no_stage_behind)
{
    place_run(_i, leave_early, NULL);
}
END_TEST

Suite *suite_pipeline_end(void)
{
    Suite *suite = suite_create("pipeline_end");
    TCase *tc = add_pipeline_case(suite, "fail");

    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, fail_of_any_stage_ends_all_and_is_told, 0, 3 * PLACES);
    tcase_add_loop_test(tc, fail_is_what_the_stage_returns, 0, 5 * PLACES);
    tcase_add_loop_test(tc, fail_is_the_cause_that_other_stages_see, 0, PLACES);

    tc = add_pipeline_case(suite, "end");
    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, end_is_called_once_behind_all_elements, 0, 4 * PLACES);
    tcase_add_loop_test(tc, end_is_not_called_if_that_was_not_all, 0, 3 * PLACES);
    tcase_add_loop_test(tc, close_of_an_outlet_ends_the_stages_before_it, 0, 4 * PLACES);
    tcase_add_loop_test(tc, close_of_an_outlet_reaches_over_a_silent_stage, 0, PLACES);
    tcase_add_loop_test(tc, free_leaves_no_stage_behind, 0, PLACES);
    return suite;
}
