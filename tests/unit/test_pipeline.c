/* SPDX-License-Identifier: MIT */
/* Pipelines: order, ends, failures, and that no stage is left behind; made on a plain thread, where
 * workers are threads, and on a fiber, where they are fibers. */
#include <curfew/pipeline.h>

#include <check.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/wait.h>

#include "effort.h"
#include "fault.h"
#include "places.h"
#include "waits.h"

/* Fixture: `ctx`, `target` and `failure` of waits.h; `target` is the gate that some stages wait at. */

static atomic_int entered; /* Calls of stages that have begun. */
static atomic_int left;    /* And have returned. */

static void setup(void)
{
    setup_waits();
    atomic_store(&entered, 0);
    atomic_store(&left, 0);
}

/* Helpers: stages of ints */

#define FOREVER INT32_MAX

/* 0, 1, 2, ... up to what `arg` says, or until nobody wants more. */
static enum cf_code count_up(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
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

static enum cf_code pass_on(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                            struct cf_err *err)
{
    (void)arg;
    return cf_outlet_send(of, out, in, err);
}

static enum cf_code square(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                           struct cf_err *err)
{
    int number = *(const int *)in;

    (void)arg;
    number *= number;
    return cf_outlet_send(of, out, &number, err);
}

static enum cf_code keep_even(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                              struct cf_err *err)
{
    (void)arg;
    return *(const int *)in % 2 == 0 ? cf_outlet_send(of, out, in, err) : CF_OK;
}

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

/* Let what is less than `arg` pass, and fail at it. */
static enum cf_code fail_at(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                            struct cf_err *err)
{
    if (*(const int *)in == *(const int *)arg) {
        return cf_err_set_sys(err, CF_EIO, ENOSPC, "write order %d", *(const int *)in);
    }
    return cf_outlet_send(of, out, in, err);
}

/* The first `arg` + 1 of what counts up from 0. */
static enum cf_code take_up_to(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                               struct cf_err *err)
{
    if (*(const int *)in == *(const int *)arg) {
        cf_outlet_close(out);
    }
    return cf_outlet_send(of, out, in, err);
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

/* Helpers: pipelines */

#define INTS .out_size = sizeof(int)

static struct cf_pipeline *start(const struct cf_stage *stages, size_t count)
{
    struct cf_pipeline *pipeline = NULL;

    EXPECT(cf_pipeline_new(ctx, stages, count, &pipeline, NULL) == CF_OK);
    return pipeline;
}

/* Receive to the end: 0, 1, 2, ... Returns how it ended, *out_count how many there were. */
static enum cf_code receive_all(struct cf_pipeline *pipeline, int *out_count, struct cf_err *err)
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

/* recv: what comes */

static void run_article(void *arg)
{
    int count = 6;
    const struct cf_stage stages[] = {
        {.fn = count_up, .arg = &count, INTS}, {.fn = square, INTS}, {.fn = keep_even, INTS}};
    struct cf_pipeline *pipeline = start(stages, 3);
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
            pipeline = start(stages, stages_count);
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
    struct cf_pipeline *pipeline = start(stages, 2);

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

static const int workers[] = {1, 2, 3, 7};

static void run_repeat(void *arg)
{
    int count = effort_count(300, 60);
    const struct cf_stage stages[] = {
        {.fn = count_up, .arg = &count, INTS, .capacity = 2},
        {.fn = repeat, INTS, .workers = *(int *)arg, .capacity = (size_t) * (int *)arg / 2},
        {.fn = pass_on, INTS, .workers = 3}};
    struct cf_pipeline *pipeline = start(stages, 3);
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
    int how_many = workers[_i / PLACES];

    place_run(_i % PLACES, run_repeat, &how_many);
}
END_TEST

static void run_gated(void *arg)
{
    int count = 9;
    const struct cf_stage stages[] = {{.fn = count_up, .arg = &count, INTS, .capacity = 9},
                                      {.fn = wait_at_gate, INTS, .workers = 4}};
    struct cf_pipeline *pipeline = start(stages, 2);
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

/* Limits */

static struct cf_pipeline *_Atomic held; /* The test receives from it. */

static enum cf_code count_sends(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                                struct cf_err *err)
{
    enum cf_code code = CF_OK;

    (void)in;
    (void)arg;
    for (int i = 0; code == CF_OK; i++) {
        code = cf_outlet_send(of, out, &i, err);
        (void)atomic_fetch_add(&entered, code == CF_OK);
    }
    return code;
}

static void hold(void *arg)
{
    const struct cf_stage stages[] = {{.fn = count_sends, INTS, .capacity = 3},
                                      {.fn = pass_on, INTS, .capacity = 2}};

    (void)arg;
    held = start(stages, 2);
    place_wait(target);
    cf_pipeline_free(held);
}

/* Nobody receives: two have gone through, one is in the second stage's hands, three wait for it. */
START_TEST(send_limit_reached_waits)
{
    struct visit visit;

    visit_start(&visit, _i, hold, NULL);
    EVENTUALLY(atomic_load(&entered) == 6);
    visit_wait_parked(&visit); /* On a fiber: and with it every stage. */
    ck_assert_int_eq(atomic_load(&entered), 6);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(cf_pipeline_recv(ctx, held, NULL, &failure), CF_OK);
        EVENTUALLY(atomic_load(&entered) == 7 + i);
    }
    cf_ctx_cancel(target);
    visit_join(&visit);
}
END_TEST

/* send: a stage of one send, with a context of its own */

struct sending {
    struct cf_ctx *with;
    struct cf_ctx *over; /* Cancelled when it has returned. */
    size_t capacity;
    bool closes;   /* A stage behind it wants no more than what it was sent before. */
    bool receives; /* There is a receiver from the start. */
    bool starves;  /* No allocation works meanwhile. */
    bool struck;
    enum cf_code code;
    int64_t ended_ns;
};

static enum cf_code send_once(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                              struct cf_err *err)
{
    struct sending *sending = arg;
    int value = 0;

    (void)in;
    (void)atomic_fetch_add(&entered, 1);
    if (sending->closes) {
        EXPECT(cf_outlet_send(of, out, &value, err) == CF_OK);
    }
    if (sending->starves) {
        fault_alloc(1, true);
    }
    sending->code = cf_outlet_send(sending->with, out, &value, NULL);
    sending->struck = fault_off();
    sending->ended_ns = cf_now_ns();
    (void)atomic_fetch_add(&left, 1);
    cf_ctx_cancel(sending->over);
    return sending->code == CF_ECLOSED ? CF_ECLOSED : CF_OK;
}

/* Wants one, and says so only when the gate opens: until then the second one waits. */
static enum cf_code take_one(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                             struct cf_err *err)
{
    (void)in;
    (void)arg;
    cf_outlet_close(out);
    return cf_wait_done(of, target, err);
}

/* What was not sent is not received, and the pipeline is as it was. */
static void send_at_place(void *arg)
{
    struct sending *sending = arg;
    const struct cf_stage stages[] = {
        {.fn = send_once, .arg = sending, INTS, .capacity = sending->capacity},
        {.fn = take_one, INTS}};
    struct cf_pipeline *pipeline;
    int received;

    EXPECT(cf_ctx_with_cancel(cf_ctx_background(), &sending->over, NULL) == CF_OK);
    pipeline = start(stages, sending->closes ? 2 : 1);
    if (!sending->receives) {
        place_wait(sending->over);
    }
    EXPECT(receive_all(pipeline, &received, NULL) == CF_ECLOSED);
    EXPECT(received == (sending->code == CF_OK));
    cf_pipeline_free(pipeline);
    cf_ctx_free(sending->over);
}

START_TEST(send_already_canceled)
{
    struct sending sending = {.with = ctx, .capacity = 1};

    ck_assert_int_eq(cf_ctx_with_cancel(ctx, &sending.with, &failure), CF_OK);
    cf_ctx_cancel(sending.with);
    place_run(_i, send_at_place, &sending);
    ck_assert_int_eq(sending.code, CF_ECANCELED);
    cf_ctx_free(sending.with);
}
END_TEST

START_TEST(send_canceled_while_waiting)
{
    struct sending sending = {.with = NULL};
    struct visit visit;

    ck_assert_int_eq(cf_ctx_with_cancel(ctx, &sending.with, &failure), CF_OK);
    visit_start(&visit, _i, send_at_place, &sending);
    EVENTUALLY(atomic_load(&entered) == 1);
    visit_wait_parked(&visit); /* On a fiber: and with it the stage. */
    ck_assert_int_eq(atomic_load(&left), 0);
    cf_ctx_cancel(sending.with);
    visit_join(&visit);
    ck_assert_int_eq(sending.code, CF_ECANCELED);
    cf_ctx_free(sending.with);
}
END_TEST

START_TEST(send_deadline_while_waiting)
{
    struct sending sending = {.with = NULL};
    int64_t deadline_ns = cf_now_ns() + 20 * CF_MS;

    ck_assert_int_eq(cf_ctx_with_deadline(ctx, deadline_ns, &sending.with, &failure), CF_OK);
    place_run(_i, send_at_place, &sending);
    ck_assert_int_eq(sending.code, CF_EDEADLINE);
    ck_assert_int_ge(sending.ended_ns, deadline_ns);
    ck_assert_int_lt(sending.ended_ns, deadline_ns + LATE_NS);
    cf_ctx_free(sending.with);
}
END_TEST

START_TEST(send_closed_while_waiting)
{
    struct sending sending = {.with = ctx, .closes = true};
    struct visit visit;

    visit_start(&visit, _i, send_at_place, &sending);
    EVENTUALLY(atomic_load(&entered) == 1);
    visit_wait_parked(&visit);
    ck_assert_int_eq(atomic_load(&left), 0);
    cf_ctx_cancel(target);
    visit_join(&visit);
    ck_assert_int_eq(sending.code, CF_ECLOSED);
}
END_TEST

START_TEST(send_needs_no_memory)
{
    struct sending sending = {.with = ctx, .receives = true, .starves = true};

    place_run(_i, send_at_place, &sending);
    ck_assert_int_eq(sending.code, CF_OK);
    ck_assert(!sending.struck);
}
END_TEST

/* Sends whose context is cancelled at the same time: what was sent comes, and nothing else. */
static enum cf_code race_sends(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                               struct cf_err *err)
{
    struct race *race = arg;
    int64_t until_ns = effort_until_ns();

    (void)of;
    (void)in;
    (void)err;
    for (int next = 0; race_goes_on(race, until_ns);) {
        struct cf_ctx *with = new_ctx();
        enum cf_code code = CF_OK;

        atomic_store(&race->canceler.ctx, with);
        rival_ask(&race->canceler);
        while (code == CF_OK) {
            code = cf_outlet_send(with, out, &next, NULL);
            judge(race, code, true, with);
            next += code == CF_OK;
        }
        rival_settle(&race->canceler);
        cf_ctx_free(with);
    }
    return CF_OK;
}

static void receive_race(void *arg)
{
    struct race *race = arg;
    const struct cf_stage stages[] = {{.fn = race_sends, .arg = race, INTS}};
    struct cf_pipeline *pipeline = start(stages, 1);
    int received;

    EXPECT(receive_all(pipeline, &received, NULL) == CF_ECLOSED);
    EXPECT(received == race->successes);
    cf_pipeline_free(pipeline);
}

START_TEST(send_success_races_cancel)
{
    check_race(_i, receive_race, give_nothing);
}
END_TEST

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
    pipeline = start(stages, 4);
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
    struct cf_pipeline *pipeline = start(stages, 2);
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
    struct cf_pipeline *pipeline = start(stages, 3);
    int value = -1;

    EXPECT(cf_pipeline_recv(ctx, pipeline, &value, NULL) == CF_OK);
    EXPECT(value >= 4950 && value <= 2 * 4950); /* With what the second stage sent last. */
    EXPECT(cf_pipeline_recv(ctx, pipeline, &value, NULL) == CF_ECLOSED);
    cf_pipeline_free(pipeline);
    EXPECT(atomic_load(&entered) == 3);
}

START_TEST(end_is_called_once_behind_all_elements)
{
    int how_many = workers[_i / PLACES];

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
    struct cf_pipeline *pipeline = start(stages, 4);
    int received;

    EXPECT(receive_all(pipeline, &received, NULL) == CF_ECLOSED);
    EXPECT(received == 7);
    cf_pipeline_free(pipeline);
    EXPECT(cf_pipeline_run(ctx, stages, 4, NULL) == CF_OK);
    EXPECT(atomic_load(&left) == atomic_load(&entered));
}

START_TEST(close_of_an_outlet_ends_the_stages_before_it)
{
    int how_many = workers[_i / PLACES];

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
    struct cf_pipeline *pipeline = start(stages, 3);

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
    struct cf_pipeline *pipeline = start(stages, 2);

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
    struct cf_pipeline *pipeline = start(stages, 1);

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
    struct cf_pipeline *pipeline = start(stages, 1);
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

/* Receives whose context is cancelled at the same time neither lose an element nor get one twice. */
static void race_rounds(void *arg)
{
    struct race *race = arg;
    int64_t until_ns = effort_until_ns();
    int count = FOREVER;
    const struct cf_stage stages[] = {{.fn = count_up, .arg = &count, INTS},
                                      {.fn = pass_on, INTS, .workers = 2}};
    struct cf_pipeline *pipeline = start(stages, 2);

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
        {{.fn = count_up, .end = send_sum}},
    };
    struct cf_pipeline *pipeline;

    ck_assert_int_eq(cf_pipeline_new(ctx, wrong[_i % 4], _i == 4 ? 0 : 2, &pipeline, &failure),
                     CF_OK);
}
END_TEST

Suite *suite_pipeline(void)
{
    Suite *suite = suite_create("pipeline");
    TCase *tc = tcase_create("recv");

    tcase_add_checked_fixture(tc, setup, teardown_waits);
    tcase_set_timeout(tc, 20);
    tcase_add_loop_test(tc, recv_gets_4_and_16, 0, PLACES);
    tcase_add_loop_test(tc, recv_gets_all_of_any_count_through_any_number_of_stages, 0, PLACES);
    tcase_add_loop_test(tc, recv_of_elements_without_content, 0, PLACES);
    tcase_add_loop_test(tc, recv_already_canceled, 0, PLACES);
    tcase_add_loop_test(tc, recv_canceled_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, recv_deadline_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, recv_closed_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, recv_needs_no_memory, 0, PLACES);
    tcase_add_loop_test(tc, recv_success_races_cancel, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("send");
    tcase_add_checked_fixture(tc, setup, teardown_waits);
    tcase_set_timeout(tc, 20);
    tcase_add_loop_test(tc, send_already_canceled, 0, PLACES);
    tcase_add_loop_test(tc, send_canceled_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, send_deadline_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, send_closed_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, send_needs_no_memory, 0, PLACES);
    tcase_add_loop_test(tc, send_limit_reached_waits, 0, PLACES);
    tcase_add_loop_test(tc, send_success_races_cancel, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("workers");
    tcase_add_checked_fixture(tc, setup, teardown_waits);
    tcase_set_timeout(tc, 20);
    tcase_add_loop_test(tc, workers_keep_the_order, 0, 4 * PLACES);
    tcase_add_loop_test(tc, workers_work_at_once_and_no_more_than_there_are, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("fail");
    tcase_add_checked_fixture(tc, setup, teardown_waits);
    tcase_set_timeout(tc, 20);
    tcase_add_loop_test(tc, fail_of_any_stage_ends_all_and_is_told, 0, 3 * PLACES);
    tcase_add_loop_test(tc, fail_is_what_the_stage_returns, 0, 5 * PLACES);
    tcase_add_loop_test(tc, fail_is_the_cause_that_other_stages_see, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("end");
    tcase_add_checked_fixture(tc, setup, teardown_waits);
    tcase_set_timeout(tc, 20);
    tcase_add_loop_test(tc, end_is_called_once_behind_all_elements, 0, 4 * PLACES);
    tcase_add_loop_test(tc, end_is_not_called_if_that_was_not_all, 0, 3 * PLACES);
    tcase_add_loop_test(tc, close_of_an_outlet_ends_the_stages_before_it, 0, 4 * PLACES);
    tcase_add_loop_test(tc, close_of_an_outlet_reaches_over_a_silent_stage, 0, PLACES);
    tcase_add_loop_test(tc, free_leaves_no_stage_behind, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("new");
    tcase_add_checked_fixture(tc, setup, teardown_waits);
    tcase_set_timeout(tc, 20);
    tcase_add_loop_test(tc, new_already_canceled, 0, PLACES);
    tcase_add_loop_test(tc, new_canceled_while_stages_wait, 0, PLACES);
    tcase_add_loop_test(tc, new_deadline_while_stages_wait, 0, PLACES);
    tcase_add_loop_test(tc, new_out_of_memory, 0, 2 * PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("run");
    tcase_add_checked_fixture(tc, setup, teardown_waits);
    tcase_set_timeout(tc, 20);
    tcase_add_loop_test(tc, run_already_canceled, 0, PLACES);
    tcase_add_loop_test(tc, run_canceled_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, run_deadline_while_waiting, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("stress");
    tcase_set_tags(tc, "stress");
    tcase_add_checked_fixture(tc, setup, teardown_waits);
    tcase_set_timeout(tc, 100);
    tcase_add_loop_test(tc, pipelines_of_any_shape, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("asserts");
    tcase_set_tags(tc, "fork");
    tcase_add_checked_fixture(tc, setup, teardown_waits);
    tcase_add_loop_test_raise_signal(tc, new_of_what_cannot_be_asserts, SIGABRT, 0, 5);
    suite_add_tcase(suite, tc);
    return suite;
}
