/* SPDX-License-Identifier: MIT */
/* Pipelines: what is made, what comes, and that it stops with its context; made on a plain thread,
 * where workers are threads, and on a fiber, where they are fibers. */
#include "pipeline_kit.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>

#include <curfew/clock.h>
#include <curfew/wait.h>

#include "effort.h"
#include "fault.h"

/* Helpers: stages of ints */

static enum cf_code keep_even(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                              struct cf_err *err)
{
    (void)arg;
    return *(const int *)in % 2 == 0 ? cf_outlet_send(of, out, in, err) : CF_OK;
}

/* n: n % 3 times itself, after a while that differs. */
static enum cf_code repeat(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                           struct cf_err *err)
{
    int number = *(const int *)in;
    enum cf_code code = CF_OK;

    (void)arg;
    for (int i = 0; i < (number * 7) % 5; i++) {
        place_yield();
    }
    for (int i = 0; code == CF_OK && i < number % 3; i++) {
        code = cf_outlet_send(of, out, &number, err);
    }
    return code;
}

static enum cf_code wait_at_gate(struct cf_ctx *of, const void *in, struct cf_outlet *out,
                                 void *arg, struct cf_err *err)
{
    enum cf_code code;

    (void)arg;
    (void)atomic_fetch_add(&entered, 1);
    code = cf_wait_done(of, target, err);
    (void)atomic_fetch_add(&left, 1);
    return code != CF_OK ? code : cf_outlet_send(of, out, in, err);
}

/* recv: what comes */

static void run_article(void *arg)
{
    int count = 6;
    const struct cf_stage stages[] = {
        {.fn = count_up, .arg = &count, INTS}, {.fn = square, INTS}, {.fn = keep_even, INTS}};
    struct cf_pipeline *pipeline = start_pipeline(stages, 3);
    int value = -1;

    (void)arg;
    EXPECT(cf_pipeline_recv(ctx, pipeline, NULL, NULL) == CF_OK); /* The 0. */
    EXPECT(cf_pipeline_recv(ctx, pipeline, &value, NULL) == CF_OK && value == 4);
    EXPECT(cf_pipeline_recv(ctx, pipeline, &value, NULL) == CF_OK && value == 16);
    EXPECT(cf_pipeline_recv(ctx, pipeline, &value, NULL) == CF_ECLOSED && value == 16);
    EXPECT(cf_pipeline_recv(ctx, pipeline, &value, NULL) == CF_ECLOSED);
    cf_pipeline_free(pipeline);
}

START_TEST(recv_gets_4_and_16)
{
    place_run(_i, run_article, NULL);
}
END_TEST

static void run_counts(void *arg)
{
    (void)arg;
    for (int count = 0; count < 4; count++) {
        for (size_t stages_count = 1; stages_count < 6; stages_count++) {
            struct cf_stage stages[6] = {{.fn = count_up, .arg = &count, INTS}};
            struct cf_pipeline *pipeline;
            int received;

            for (size_t i = 1; i < stages_count; i++) {
                stages[i] = (struct cf_stage){.fn = pass_on, INTS, .capacity = i % 3};
            }
            pipeline = start_pipeline(stages, stages_count);
            EXPECT(receive_all(pipeline, &received, NULL) == CF_ECLOSED);
            EXPECT(received == count);
            cf_pipeline_free(pipeline);
        }
    }
}

START_TEST(recv_gets_all_of_any_count_through_any_number_of_stages)
{
    place_run(_i, run_counts, NULL);
}
END_TEST

static enum cf_code send_signals(struct cf_ctx *of, const void *in, struct cf_outlet *out,
                                 void *arg, struct cf_err *err)
{
    EXPECT((in == NULL) == (arg == NULL)); /* An element without content is an element. */
    return cf_outlet_send(of, out, NULL, err);
}

static void run_signals(void *arg)
{
    int one = 1;
    const struct cf_stage stages[] = {{.fn = send_signals}, {.fn = send_signals, .arg = &one}};
    struct cf_pipeline *pipeline = start_pipeline(stages, 2);

    (void)arg;
    EXPECT(cf_pipeline_recv(ctx, pipeline, NULL, NULL) == CF_OK);
    EXPECT(cf_pipeline_recv(ctx, pipeline, NULL, NULL) == CF_ECLOSED);
    cf_pipeline_free(pipeline);
}

START_TEST(recv_of_elements_without_content)
{
    place_run(_i, run_signals, NULL);
}
END_TEST

/* Workers */

static void run_repeat(void *arg)
{
    int count = effort_count(300, 60);
    const struct cf_stage stages[] = {
        {.fn = count_up, .arg = &count, INTS, .capacity = 2},
        {.fn = repeat, INTS, .workers = *(int *)arg, .capacity = (size_t) * (int *)arg / 2},
        {.fn = pass_on, INTS, .workers = 3}};
    struct cf_pipeline *pipeline = start_pipeline(stages, 3);
    int value = -1;

    for (int i = 0; i < count; i++) {
        for (int k = 0; k < i % 3; k++) {
            EXPECT(cf_pipeline_recv(ctx, pipeline, &value, NULL) == CF_OK);
            EXPECT(value == i);
        }
    }
    EXPECT(cf_pipeline_recv(ctx, pipeline, &value, NULL) == CF_ECLOSED);
    cf_pipeline_free(pipeline);
}

START_TEST(workers_keep_the_order)
{
    int how_many = worker_counts[_i / PLACES];

    place_run(_i % PLACES, run_repeat, &how_many);
}
END_TEST

static void run_gated(void *arg)
{
    int count = 9;
    const struct cf_stage stages[] = {{.fn = count_up, .arg = &count, INTS, .capacity = 9},
                                      {.fn = wait_at_gate, INTS, .workers = 4}};
    struct cf_pipeline *pipeline = start_pipeline(stages, 2);
    int received;

    (void)arg;
    EXPECT(receive_all(pipeline, &received, NULL) == CF_ECLOSED);
    EXPECT(received == 9);
    cf_pipeline_free(pipeline);
}

/* The source is one of those that enter, and leaves. */
START_TEST(workers_work_at_once_and_no_more_than_there_are)
{
    struct visit visit;

    visit_start(&visit, _i, run_gated, NULL);
    EVENTUALLY(atomic_load(&entered) == 1 + 4);
    EVENTUALLY(atomic_load(&left) == 1);
    ck_assert_int_eq(atomic_load(&entered), 1 + 4);
    cf_ctx_cancel(target);
    visit_join(&visit);
    ck_assert_int_eq(atomic_load(&entered), 1 + 9);
}
END_TEST

/* Contexts. The stages wait at the gate, so the receiver waits. */

struct receipt {
    bool own; /* Receive with a context of one's own, and not with that of the pipeline. */
    struct cf_ctx *with;
    enum cf_code code;
    struct cf_err err;
    int64_t ended_ns;
};

static void receive_at_gate(void *arg)
{
    struct receipt *receipt = arg;
    int count = 1;
    int received;
    const struct cf_stage stages[] = {{.fn = count_up, .arg = &count, INTS},
                                      {.fn = wait_at_gate, INTS, .workers = 2}};
    struct cf_pipeline *pipeline = start_pipeline(stages, 2);

    receipt->code = cf_pipeline_recv(receipt->with, pipeline, NULL, &receipt->err);
    receipt->ended_ns = cf_now_ns();
    if (receipt->own) { /* The pipeline is as it was. */
        cf_ctx_cancel(target);
        EXPECT(receive_all(pipeline, &received, NULL) == CF_ECLOSED);
        EXPECT(received == 1);
    }
    cf_pipeline_free(pipeline);
}

START_TEST(recv_already_canceled)
{
    struct receipt receipt = {.own = true};

    ck_assert_int_eq(cf_ctx_with_cancel(ctx, &receipt.with, &failure), CF_OK);
    cf_ctx_cancel(receipt.with);
    place_run(_i, receive_at_gate, &receipt);
    ck_assert_int_eq(receipt.code, CF_ECANCELED);
    cf_ctx_free(receipt.with);
}
END_TEST

START_TEST(recv_canceled_while_waiting)
{
    struct receipt receipt = {.own = true};
    struct visit visit;

    ck_assert_int_eq(cf_ctx_with_cancel(ctx, &receipt.with, &failure), CF_OK);
    visit_start(&visit, _i, receive_at_gate, &receipt);
    EVENTUALLY(atomic_load(&entered) == 2);
    visit_wait_parked(&visit);
    cf_ctx_cancel(receipt.with);
    visit_join(&visit);
    ck_assert_int_eq(receipt.code, CF_ECANCELED);
    cf_ctx_free(receipt.with);
}
END_TEST

START_TEST(recv_deadline_while_waiting)
{
    struct receipt receipt = {.own = true};
    int64_t deadline_ns = cf_now_ns() + 20 * CF_MS;

    ck_assert_int_eq(cf_ctx_with_deadline(ctx, deadline_ns, &receipt.with, &failure), CF_OK);
    place_run(_i, receive_at_gate, &receipt);
    ck_assert_int_eq(receipt.code, CF_EDEADLINE);
    ck_assert_int_ge(receipt.ended_ns, deadline_ns);
    ck_assert_int_lt(receipt.ended_ns, deadline_ns + LATE_NS);
    cf_ctx_free(receipt.with);
}
END_TEST

/* The end comes while the receiver waits: there was nothing. */
static enum cf_code end_at_gate(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                                struct cf_err *err)
{
    (void)in;
    (void)out;
    (void)arg;
    return cf_wait_done(of, target, err);
}

static void receive_the_end(void *arg)
{
    struct receipt *receipt = arg;
    const struct cf_stage stages[] = {{.fn = end_at_gate, INTS}};
    struct cf_pipeline *pipeline = start_pipeline(stages, 1);

    receipt->code = cf_pipeline_recv(receipt->with, pipeline, NULL, &receipt->err);
    cf_pipeline_free(pipeline);
}

START_TEST(recv_closed_while_waiting)
{
    struct receipt receipt = {.with = ctx};
    struct visit visit;

    visit_start(&visit, _i, receive_the_end, &receipt);
    visit_wait_parked(&visit);
    cf_ctx_cancel(target);
    visit_join(&visit);
    ck_assert_int_eq(receipt.code, CF_ECLOSED);
    ck_assert_int_eq(receipt.err.code, CF_ECLOSED);
}
END_TEST

static void receive_starving(void *arg)
{
    int count = 1;
    const struct cf_stage stages[] = {{.fn = count_up, .arg = &count, INTS}};
    struct cf_pipeline *pipeline = start_pipeline(stages, 1);
    int value = -1;

    (void)arg;
    fault_alloc(1, true);
    EXPECT(cf_pipeline_recv(ctx, pipeline, &value, NULL) == CF_OK);
    EXPECT(cf_pipeline_recv(ctx, pipeline, &value, NULL) == CF_ECLOSED);
    EXPECT(!fault_off());
    EXPECT(value == 0);
    cf_pipeline_free(pipeline);
}

START_TEST(recv_needs_no_memory)
{
    place_run(_i, receive_starving, NULL);
}
END_TEST

/* The context of the stages ends: they do, and a receiver with another context is told. */
START_TEST(new_canceled_while_stages_wait)
{
    struct receipt receipt = {.with = cf_ctx_background()};
    struct cf_err why;
    struct visit visit;

    (void)cf_err_set(&why, CF_ECLOSED, "the shop has closed");
    visit_start(&visit, _i, receive_at_gate, &receipt);
    EVENTUALLY(atomic_load(&entered) == 2);
    cf_ctx_cancel_cause(ctx, CF_REASON_SIBLING_FAILED, &why); /* Another group's, above. */
    visit_join(&visit);
    ck_assert_int_eq(receipt.code, CF_ECANCELED);
    ck_assert_str_eq(receipt.err.msg, "context canceled: the shop has closed");
    ck_assert_int_eq(atomic_load(&left), 2);
}
END_TEST

START_TEST(new_already_canceled)
{
    struct receipt receipt = {.with = cf_ctx_background()};

    cf_ctx_cancel(ctx);
    place_run(_i, receive_at_gate, &receipt);
    ck_assert_int_eq(receipt.code, CF_ECANCELED);
}
END_TEST

START_TEST(new_deadline_while_stages_wait)
{
    struct receipt receipt = {.with = cf_ctx_background()};
    struct cf_ctx *all = ctx;

    ck_assert_int_eq(cf_ctx_with_timeout(all, 20 * CF_MS, &ctx, &failure), CF_OK);
    place_run(_i, receive_at_gate, &receipt);
    ck_assert_int_eq(receipt.code, CF_EDEADLINE);
    cf_ctx_free(ctx);
    ctx = all;
}
END_TEST

/* Receives whose context is cancelled at the same time neither lose an element
 * nor get one twice. */
static void race_rounds(void *arg)
{
    struct race *race = arg;
    int64_t until_ns = effort_until_ns();
    int count = FOREVER;
    const struct cf_stage stages[] = {{.fn = count_up, .arg = &count, INTS},
                                      {.fn = pass_on, INTS, .workers = 2}};
    struct cf_pipeline *pipeline = start_pipeline(stages, 2);

    for (int next = 0; race_goes_on(race, until_ns);) {
        struct cf_ctx *with = new_ctx();
        enum cf_code code = CF_OK;

        atomic_store(&race->canceler.ctx, with);
        rival_ask(&race->canceler);
        while (code == CF_OK) {
            int value = -1;

            code = cf_pipeline_recv(with, pipeline, &value, NULL);
            judge(race, code, value == next, with);
            next += code == CF_OK;
        }
        rival_settle(&race->canceler);
        cf_ctx_free(with);
    }
    cf_pipeline_free(pipeline);
}

START_TEST(recv_success_races_cancel)
{
    check_race(_i, race_rounds, give_nothing);
}
END_TEST

/* run */

static void run_at_gate(void *arg)
{
    struct receipt *receipt = arg;
    const struct cf_stage stages[] = {{.fn = end_at_gate, INTS}, {.fn = pass_on, INTS}};

    receipt->code = cf_pipeline_run(receipt->with, stages, 2, &receipt->err);
    receipt->ended_ns = cf_now_ns();
}

START_TEST(run_already_canceled)
{
    struct receipt receipt = {.with = ctx};

    cf_ctx_cancel(ctx);
    place_run(_i, run_at_gate, &receipt);
    ck_assert_int_eq(receipt.code, CF_ECANCELED);
    ck_assert_int_eq(receipt.err.code, CF_ECANCELED);
}
END_TEST

START_TEST(run_canceled_while_waiting)
{
    struct receipt receipt = {.with = ctx};
    struct visit visit;

    visit_start(&visit, _i, run_at_gate, &receipt);
    visit_wait_parked(&visit);
    cf_ctx_cancel(ctx);
    visit_join(&visit);
    ck_assert_int_eq(receipt.code, CF_ECANCELED);
}
END_TEST

START_TEST(run_deadline_while_waiting)
{
    struct receipt receipt = {.with = NULL};
    int64_t deadline_ns = cf_now_ns() + 20 * CF_MS;

    ck_assert_int_eq(cf_ctx_with_deadline(ctx, deadline_ns, &receipt.with, &failure), CF_OK);
    place_run(_i, run_at_gate, &receipt);
    ck_assert_int_eq(receipt.code, CF_EDEADLINE);
    ck_assert_int_ge(receipt.ended_ns, deadline_ns);
    ck_assert_int_lt(receipt.ended_ns, deadline_ns + LATE_NS);
    cf_ctx_free(receipt.with);
}
END_TEST

/* Memory */

struct shortage {
    bool for_good; /* Not one allocation fails, but all from there on. */
    int late;      /* How often new did not fail. */
};

/* Fails in new, or, if it was a worker that could not be started, at the receiver; also if that was
 * so with all workers. */
static void run_out_of_memory(void *arg)
{
    struct shortage *shortage = arg;
    int count = 3;
    const struct cf_stage stages[] = {{.fn = count_up, .arg = &count, INTS},
                                      {.fn = pass_on, INTS, .workers = 2},
                                      {.fn = pass_on, INTS, .capacity = 2}};
    bool struck = true;

    for (unsigned nth = 1; struck; nth++) {
        struct cf_pipeline *pipeline = NULL;
        struct cf_err err = {.code = CF_OK};
        enum cf_code code;
        int received;

        fault_alloc(nth, shortage->for_good);
        code = cf_pipeline_new(ctx, stages, 3, &pipeline, &err);
        struck = fault_off();
        shortage->late += struck && code == CF_OK;
        if (code == CF_OK) {
            code = receive_all(pipeline, &received, &err);
        }
        EXPECT(code == (struck ? CF_ENOMEM : CF_ECLOSED));
        EXPECT(err.code == code);
        cf_pipeline_free(pipeline);
    }
}

START_TEST(new_out_of_memory)
{
    struct shortage shortage = {.for_good = _i / PLACES == 1};

    place_run(_i % PLACES, run_out_of_memory, &shortage);
    ck_assert_int_eq(shortage.late, 4); /* One for each worker. */
}
END_TEST

/* Stress */

/* Pipelines of any shape, that end, fail, are left, cut short, or cancelled: what is received is a
 * beginning of 0, 1, 2, ..., and all of it if they say so. */
static void run_any(struct race *race, unsigned *seed)
{
    int count = rand_r(seed) % 40;
    int at = rand_r(seed) % 50;
    size_t stages_count = 2 + (size_t)rand_r(seed) % 4;
    size_t special = 1 + (size_t)rand_r(seed) % (stages_count - 1);
    int kind = rand_r(seed) % 4; /* Fails, is cut short, is cancelled, neither. */
    struct cf_stage stages[6] = {{.fn = count_up, .arg = &count, INTS}};
    struct cf_pipeline *pipeline = NULL;
    struct cf_ctx *all = new_ctx();
    int received;
    enum cf_code code;

    if (kind == 2 && at % 8 == 0) {
        count = INT_MAX; /* However late the cancel is, it is in time. */
    }
    for (size_t i = 0; i < stages_count; i++) {
        if (i > 0) {
            stages[i] = (struct cf_stage){.fn = pass_on, .arg = &at, INTS};
            stages[i].workers = rand_r(seed) % 4;
        }
        stages[i].capacity = (size_t)rand_r(seed) % 3;
    }
    stages[special].fn = kind == 0 ? fail_at : kind == 1 ? take_up_to : pass_on;
    EXPECT(cf_pipeline_new(all, stages, stages_count, &pipeline, NULL) == CF_OK);
    if (kind == 2) {
        atomic_store(&race->canceler.ctx, all);
        rival_ask(&race->canceler);
    }
    code = receive_all(pipeline, &received, NULL);
    if (code == CF_ECLOSED) {
        EXPECT(received == (kind == 1 && at < count ? at + 1 : count));
        EXPECT(kind != 0 || at >= count);
    } else {
        EXPECT(code == (kind == 0 ? CF_EIO : CF_ECANCELED));
        EXPECT(kind == 0 || kind == 2);
        EXPECT(received <= (kind == 0 ? at : count));
    }
    cf_pipeline_free(pipeline);
    rival_settle(&race->canceler);
    race->successes += code == CF_ECLOSED;
    race->cancels += code == CF_ECANCELED;
    cf_ctx_free(all);
}

static void run_stress(void *arg)
{
    struct race *race = arg;
    int64_t until_ns = effort_stress_until_ns();
    unsigned seed = 3;

    while (race_goes_on(race, until_ns)) {
        run_any(race, &seed);
    }
}

START_TEST(pipelines_of_any_shape)
{
    check_race(_i, run_stress, give_nothing);
    ck_assert_int_eq(atomic_load(&left), atomic_load(&entered));
}
END_TEST

/* Asserts */

START_TEST(new_of_what_cannot_be_asserts)
{
    static const struct cf_stage wrong[][2] = {
        {{.fn = count_up, .workers = 2}},
        {{.fn = count_up}, {.fn = pass_on, .workers = CF_STAGE_WORKERS_MAX + 1}},
        {{.fn = count_up}, {.fn = pass_on, .workers = -1}},
        {{.fn = count_up, .end = pass_on}},
    };
    struct cf_pipeline *pipeline;

    ck_assert_int_eq(cf_pipeline_new(ctx, wrong[_i % 4], _i == 4 ? 0 : 2, &pipeline, &failure),
                     CF_OK);
}
END_TEST

Suite *suite_pipeline(void)
{
    Suite *suite = suite_create("pipeline");
    TCase *tc = add_pipeline_case(suite, "recv");

    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, recv_gets_4_and_16, 0, PLACES);
    tcase_add_loop_test(tc, recv_gets_all_of_any_count_through_any_number_of_stages, 0, PLACES);
    tcase_add_loop_test(tc, recv_of_elements_without_content, 0, PLACES);
    tcase_add_loop_test(tc, recv_already_canceled, 0, PLACES);
    tcase_add_loop_test(tc, recv_canceled_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, recv_deadline_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, recv_closed_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, recv_needs_no_memory, 0, PLACES);
    tcase_add_loop_test(tc, recv_success_races_cancel, 0, PLACES);

    tc = add_pipeline_case(suite, "workers");
    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, workers_keep_the_order, 0, 4 * PLACES);
    tcase_add_loop_test(tc, workers_work_at_once_and_no_more_than_there_are, 0, PLACES);

    tc = add_pipeline_case(suite, "new");
    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, new_already_canceled, 0, PLACES);
    tcase_add_loop_test(tc, new_canceled_while_stages_wait, 0, PLACES);
    tcase_add_loop_test(tc, new_deadline_while_stages_wait, 0, PLACES);
    tcase_add_loop_test(tc, new_out_of_memory, 0, 2 * PLACES);

    tc = add_pipeline_case(suite, "run");
    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, run_already_canceled, 0, PLACES);
    tcase_add_loop_test(tc, run_canceled_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, run_deadline_while_waiting, 0, PLACES);

    tc = add_pipeline_case(suite, "stress");
    tcase_set_tags(tc, "stress");
    tcase_set_timeout(tc, 100);
    tcase_add_loop_test(tc, pipelines_of_any_shape, 0, PLACES);

    tc = add_pipeline_case(suite, "asserts");
    tcase_set_tags(tc, "fork");
    tcase_add_loop_test_raise_signal(tc, new_of_what_cannot_be_asserts, SIGABRT, 0, 5);
    return suite;
}
