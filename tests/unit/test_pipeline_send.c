/* SPDX-License-Identifier: MIT */
/* What a stage of a pipeline sends, and what becomes of a send that waits. */
#include "pipeline_kit.h"

#include <errno.h>

#include <curfew/clock.h>
#include <curfew/wait.h>

#include "effort.h"
#include "fault.h"

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
    held = start_pipeline(stages, 2);
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
    bool receives; /* There is a receiver from the start_pipeline. */
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
    pipeline = start_pipeline(stages, sending->closes ? 2 : 1);
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
    struct cf_pipeline *pipeline = start_pipeline(stages, 1);
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

Suite *suite_pipeline_send(void)
{
    Suite *suite = suite_create("pipeline_send");
    TCase *tc = add_pipeline_case(suite, "send");

    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, send_already_canceled, 0, PLACES);
    tcase_add_loop_test(tc, send_canceled_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, send_deadline_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, send_closed_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, send_needs_no_memory, 0, PLACES);
    tcase_add_loop_test(tc, send_limit_reached_waits, 0, PLACES);
    tcase_add_loop_test(tc, send_success_races_cancel, 0, PLACES);
    return suite;
}
