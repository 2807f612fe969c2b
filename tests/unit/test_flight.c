/* SPDX-License-Identifier: MIT */
/* Flights: what they promise beyond singleflight, whose own tests are answered in
 * test_singleflight.c. Callers are at both places, on plain threads and on fibers. What holds when
 * many of them come and go at once is in test_flight_stress.c. */
#include <curfew/flight.h>

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/wait.h>

#include "fault.h"
#include "places.h"

/* Fixture */

static struct cf_ctx *parent; /* Of the flights. */
static struct cf_ctx *gate;   /* Cancelled to let loads end. */
static struct cf_ctx *ctx;    /* Of callers. */
static struct cf_flight *flight;
static struct cf_err err;
static atomic_int begun;         /* Loads. */
static atomic_int canceled;      /* Of these, whose context ended. */
static char tagged[] = "tagged"; /* A value of the parent's context, and its key. */

static void setup(void)
{
    struct cf_ctx *above;

    ck_assert_int_eq(cf_ctx_with_value(cf_ctx_background(), tagged, tagged, &above, &err), CF_OK);
    ck_assert_int_eq(cf_ctx_with_cancel(above, &parent, &err), CF_OK);
    cf_ctx_free(above);
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &gate, &err), CF_OK);
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &ctx, &err), CF_OK);
    ck_assert_int_eq(cf_flight_new(parent, NULL, &flight, &err), CF_OK);
    atomic_store(&begun, 0);
    atomic_store(&canceled, 0);
}

static void teardown(void)
{
    cf_ctx_cancel(gate);
    cf_flight_stop(flight);
    cf_flight_free(flight);
    flight = NULL;
    cf_ctx_free(ctx);
    cf_ctx_free(gate);
    cf_ctx_free(parent);
}

static void use_options(const struct cf_flight_options *options)
{
    cf_flight_free(flight);
    ck_assert_int_eq(cf_flight_new(parent, options, &flight, &err), CF_OK);
}

/* Helpers: loads */

static enum cf_code load_text(struct cf_ctx *of, void *arg, struct cf_value **out,
                              struct cf_err *load_err)
{
    (void)of;
    (void)atomic_fetch_add(&begun, 1);
    return cf_value_new(arg, strlen(arg) + 1, out, load_err);
}

/* Wait at the gate, or for the end of the load's context. */
static enum cf_code load_at_gate(struct cf_ctx *of, void *arg, struct cf_value **out,
                                 struct cf_err *load_err)
{
    enum cf_code code;

    (void)atomic_fetch_add(&begun, 1);
    code = cf_wait_done(of, gate, load_err);
    if (code != CF_OK) {
        (void)atomic_fetch_add(&canceled, 1);
        return code;
    }
    return cf_value_new(arg, strlen(arg) + 1, out, load_err);
}

/* Wait at the gate, whatever becomes of the context. */
static enum cf_code load_stubborn(struct cf_ctx *of, void *arg, struct cf_value **out,
                                  struct cf_err *load_err)
{
    (void)of;
    (void)atomic_fetch_add(&begun, 1);
    place_wait(gate);
    return cf_value_new(arg, strlen(arg) + 1, out, load_err);
}

static enum cf_code load_failing(struct cf_ctx *of, void *arg, struct cf_value **out,
                                 struct cf_err *load_err)
{
    (void)arg;
    (void)out;
    (void)atomic_fetch_add(&begun, 1);
    if (cf_wait_done(of, gate, load_err) != CF_OK) {
        return CF_EINTERNAL;
    }
    (void)cf_err_set_sys(load_err, CF_EIO, ENOSPC, "read order 7");
    memcpy(load_err->sqlstate, "53100", sizeof(load_err->sqlstate));
    return CF_EIO;
}

static const struct cf_flight_load text = {load_text, 0};
static const struct cf_flight_load at_gate = {load_at_gate, 0};
static const struct cf_flight_load stubborn = {load_stubborn, 0};
static const struct cf_flight_load failing = {load_failing, 0};

/* Helpers: calls */

struct call {
    const struct cf_flight_load *load;
    const char *arg;
    struct cf_ctx *ctx;
    int64_t timeout_ns; /* More than 0: call with a child of ctx that is made where the call is. */

    enum cf_code code;
    struct cf_err err;
    char got[32]; /* The value, or "". */
    bool shared;
    int64_t ended_ns;
    struct visit visit;
};

static void do_call(void *arg)
{
    struct call *call = arg;
    struct cf_value *value = NULL;
    struct cf_ctx *of = cf_ctx_ref(call->ctx);

    if (call->timeout_ns > 0) {
        cf_ctx_unref(of);
        EXPECT(cf_ctx_with_timeout(call->ctx, call->timeout_ns, &of, NULL) == CF_OK);
    }
    call->code =
        cf_flight_do(of, flight, "key", call->load, call->arg, &value, &call->shared, &call->err);
    call->ended_ns = cf_now_ns();
    if (call->code == CF_OK) {
        (void)snprintf(call->got, sizeof(call->got), "%s", (const char *)cf_value_data(value));
        cf_value_unref(value);
    } else {
        EXPECT(call->err.code == call->code);
        EXPECT(value == NULL);
    }
    if (call->timeout_ns > 0) {
        cf_ctx_free(of);
    } else {
        cf_ctx_unref(of);
    }
}

static struct call call_of(const struct cf_flight_load *load, const char *arg)
{
    return (struct call){.load = load, .arg = arg, .ctx = ctx};
}

static void start(struct call *call, int place)
{
    visit_start(&call->visit, place, do_call, call);
}

/* Start it, and return when it waits. */
static void start_waiting(struct call *call, int place)
{
    start(call, place);
    visit_wait_parked(&call->visit);
}

/* The same, of one that starts a load, which then has begun. */
static void start_loading(struct call *call, int place)
{
    int before = atomic_load(&begun);

    start(call, place);
    EVENTUALLY(atomic_load(&begun) == before + 1);
    visit_wait_parked(&call->visit);
}

static void expect_got(struct call *call, const char *got)
{
    visit_join(&call->visit);
    ck_assert_int_eq(call->code, CF_OK);
    ck_assert_str_eq(call->got, got);
}

/* new, free */

START_TEST(new_out_of_memory)
{
    struct cf_flight *made = NULL;
    unsigned failed = 0;

    for (unsigned nth = 1;; nth++) {
        enum cf_code code;

        fault_alloc(nth, false);
        code = cf_flight_new(parent, NULL, &made, &err);
        if (!fault_off()) {
            ck_assert_int_eq(code, CF_OK);
            break;
        }
        ck_assert_int_eq(code, CF_ENOMEM);
        ck_assert_int_eq(err.code, CF_ENOMEM);
        ck_assert_ptr_null(made);
        failed++;
    }
    ck_assert_uint_gt(failed, 0);
    cf_flight_free(made);
    cf_flight_free(NULL);
}
END_TEST

START_TEST(free_while_a_load_runs_asserts)
{
    struct call call = call_of(&at_gate, "a");

    start_loading(&call, _i);
    cf_flight_free(flight);
}
END_TEST

/* do */

START_TEST(do_returns_what_the_load_made)
{
    struct call call = call_of(&text, "answer");

    start(&call, _i);
    expect_got(&call, "answer");
    ck_assert(!call.shared);
    EVENTUALLY(cf_flight_loads(flight) == 0);
    start(&call, _i);
    expect_got(&call, "answer");
    ck_assert_int_eq(atomic_load(&begun), 2); /* Nothing is kept. */
}
END_TEST

#define CALLERS 4

/* Callers at both places, who all wait for one load. */
static void start_callers(struct call *calls, const struct cf_flight_load *load)
{
    for (int i = 0; i < CALLERS; i++) {
        calls[i] = call_of(load, i == 0 ? "first" : "later");
        if (i == 0) {
            start_loading(&calls[i], PLACE_THREAD);
        } else {
            start_waiting(&calls[i], i % PLACES);
        }
    }
    ck_assert_int_eq(atomic_load(&begun), 1);
}

START_TEST(do_shares_a_value)
{
    struct call calls[CALLERS];

    start_callers(calls, &at_gate);
    ck_assert_uint_eq(cf_flight_loads(flight), 1);
    cf_ctx_cancel(gate);
    for (int i = 0; i < CALLERS; i++) {
        expect_got(&calls[i], "first");
        ck_assert(calls[i].shared);
    }
    ck_assert_int_eq(atomic_load(&begun), 1);
}
END_TEST

START_TEST(do_shares_an_error)
{
    struct call calls[CALLERS];

    start_callers(calls, &failing);
    cf_ctx_cancel(gate);
    for (int i = 0; i < CALLERS; i++) {
        visit_join(&calls[i].visit);
        ck_assert_int_eq(calls[i].code, CF_EIO);
        ck_assert_int_eq(calls[i].err.sys, ENOSPC);
        ck_assert_str_eq(calls[i].err.sqlstate, "53100");
        ck_assert_str_eq(calls[i].err.msg, "read order 7: No space left on device");
    }
    ck_assert_int_eq(atomic_load(&begun), 1);
}
END_TEST

struct talk {
    enum cf_code set; /* What the load says in err; CF_OK: nothing. */
    enum cf_code returns;
    const char *msg;
};

static enum cf_code load_talk(struct cf_ctx *of, void *arg, struct cf_value **out,
                              struct cf_err *load_err)
{
    const struct talk *talk = arg;

    (void)of;
    (void)out;
    if (talk->set != CF_OK) {
        (void)cf_err_set(load_err, talk->set, "its own words");
    }
    return talk->returns;
}

START_TEST(do_fails_with_what_the_load_returns)
{
    static const struct talk talks[] = {
        {CF_EIO, CF_EIO, "its own words"},
        {CF_OK, CF_EIO, "input or output failed"},      /* It did not say what. */
        {CF_ECLOSED, CF_EIO, "input or output failed"}, /* It said something else. */
    };
    static const struct cf_flight_load load = {load_talk, sizeof(struct talk)};
    const struct talk *talk = &talks[_i / PLACES];
    struct call call = call_of(&load, (const char *)talk);

    start(&call, _i % PLACES);
    visit_join(&call.visit);
    ck_assert_int_eq(call.code, talk->returns);
    ck_assert_str_eq(call.err.msg, talk->msg);
}
END_TEST

struct query {
    char text[64];
};

static enum cf_code load_copy(struct cf_ctx *of, void *arg, struct cf_value **out,
                              struct cf_err *load_err)
{
    struct query *query = arg;

    return load_at_gate(of, query->text, out, load_err);
}

/* The first caller has left, and its argument and key are no more. */
static void call_and_overwrite(void *arg)
{
    static const struct cf_flight_load load = {load_copy, sizeof(struct query)};
    struct query *query = malloc(sizeof(*query));
    char *key = strdup("key");
    struct cf_value *value;

    (void)snprintf(query->text, sizeof(query->text), "copied");
    EXPECT(cf_flight_do(arg, flight, key, &load, query, &value, NULL, NULL) == CF_ECANCELED);
    free(query);
    free(key);
}

START_TEST(do_copies_key_and_argument)
{
    struct call second = call_of(&text, "not copied");
    struct cf_ctx *brief;
    struct visit visit;

    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &brief, &err), CF_OK);
    visit_start(&visit, _i, call_and_overwrite, brief);
    EVENTUALLY(atomic_load(&begun) == 1);
    visit_wait_parked(&visit);
    start_waiting(&second, PLACE_THREAD);
    cf_ctx_cancel(brief);
    EVENTUALLY(atomic_load(&visit.ended));
    cf_ctx_cancel(gate);
    expect_got(&second, "copied");
    visit_join(&visit);
    cf_ctx_free(brief);
}
END_TEST

struct look {
    struct cf_loop *loop;
    bool on_fiber;
    pthread_t thread;
    const char *tag;
    int64_t remaining_ns;
    bool from_caller;
};

static char brief_tag[] = "gone soon"; /* The same, of a caller's. */

static enum cf_code look_around(struct cf_ctx *of, void *arg, struct cf_value **out,
                                struct cf_err *load_err)
{
    struct look *look = arg;

    look->loop = cf_loop_current();
    look->on_fiber = cf_on_fiber();
    look->thread = pthread_self();
    look->tag = cf_ctx_value(of, tagged);
    look->remaining_ns = cf_ctx_remaining_ns(of);
    look->from_caller = cf_ctx_value(of, brief_tag) != NULL;
    return cf_value_new(NULL, 0, out, load_err);
}

static void call_and_look(void *arg)
{
    static const struct cf_flight_load load = {look_around, 0};
    struct cf_ctx *mine;
    struct cf_value *value;
    struct look look;

    (void)arg;
    EXPECT(cf_ctx_with_value(ctx, brief_tag, brief_tag, &mine, NULL) == CF_OK);
    EXPECT(cf_flight_do(mine, flight, "key", &load, &look, &value, NULL, NULL) == CF_OK);
    EXPECT(look.loop == cf_loop_current());
    EXPECT(look.on_fiber == cf_on_fiber());
    EXPECT(!pthread_equal(look.thread, pthread_self()) == !cf_on_fiber());
    EXPECT(look.tag != NULL && strcmp(look.tag, "tagged") == 0);
    EXPECT(!look.from_caller);
    EXPECT(look.remaining_ns > 0 && look.remaining_ns <= CF_FLIGHT_LOAD_TIMEOUT_NS);
    cf_value_unref(value);
    cf_ctx_free(mine);
}

START_TEST(do_loads_as_a_fiber_or_a_thread_under_the_parent)
{
    place_run(_i, call_and_look, NULL);
}
END_TEST

/* Leaving */

START_TEST(do_canceled_first_caller_does_not_fail_the_others)
{
    struct call first = call_of(&at_gate, "first");
    struct call second = call_of(&at_gate, "second");

    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &first.ctx, &err), CF_OK);
    start_loading(&first, _i % PLACES);
    start_waiting(&second, _i / PLACES);
    cf_ctx_cancel(first.ctx);
    EVENTUALLY(atomic_load(&first.visit.ended));
    ck_assert_int_eq(first.code, CF_ECANCELED);
    ck_assert_int_eq(atomic_load(&canceled), 0);
    cf_ctx_cancel(gate);
    expect_got(&second, "first");
    visit_join(&first.visit);
    cf_ctx_free(first.ctx);
    ck_assert_int_eq(atomic_load(&begun), 1);
}
END_TEST

START_TEST(do_last_one_leaving_cancels_the_load)
{
    struct call calls[CALLERS];

    start_callers(calls, &at_gate);
    cf_ctx_cancel(ctx);
    for (int i = 0; i < CALLERS; i++) {
        visit_join(&calls[i].visit);
        ck_assert_int_eq(calls[i].code, CF_ECANCELED);
        ck_assert_str_eq(calls[i].err.phase, "load");
    }
    EVENTUALLY(atomic_load(&canceled) == 1);
    EVENTUALLY(cf_flight_loads(flight) == 0);
    ck_assert_int_eq(atomic_load(&begun), 1);
    ck_assert_int_eq(cf_ctx_err(parent), CF_OK);
}
END_TEST

/* The load that was left does not even notice, and runs on beside the new one. */
START_TEST(do_after_the_last_one_left_starts_anew)
{
    struct call left = call_of(&stubborn, "old");
    struct call next = call_of(&stubborn, "new");

    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &left.ctx, &err), CF_OK);
    start_loading(&left, _i % PLACES);
    cf_ctx_cancel(left.ctx);
    EVENTUALLY(atomic_load(&left.visit.ended)); /* Although its load has not ended. */
    ck_assert_int_eq(left.code, CF_ECANCELED);
    start_loading(&next, _i / PLACES);
    ck_assert_int_eq(atomic_load(&begun), 2);
    ck_assert_uint_eq(cf_flight_loads(flight), 2);
    cf_ctx_cancel(gate);
    expect_got(&next, "new");
    visit_join(&left.visit);
    cf_ctx_free(left.ctx);
}
END_TEST

/* Deadlines */

START_TEST(do_deadline_while_waiting)
{
    struct call patient = call_of(&at_gate, "a");
    struct call brief = call_of(&at_gate, "b");
    int64_t began_ns;

    brief.timeout_ns = 30 * CF_MS;
    start_loading(&patient, PLACE_THREAD);
    for (int tries = 0; tries < 10; tries++) {
        began_ns = cf_now_ns();
        start(&brief, _i);
        visit_join(&brief.visit);
        ck_assert_int_eq(brief.code, CF_EDEADLINE);
        if (brief.err.phase != NULL) {
            break; /* Otherwise it was late before it waited. */
        }
    }
    ck_assert_str_eq(brief.err.phase, "load");
    ck_assert_int_ge(brief.ended_ns - began_ns, brief.timeout_ns);
    ck_assert(!atomic_load(&patient.visit.ended));
    cf_ctx_cancel(gate);
    expect_got(&patient, "a");
}
END_TEST

START_TEST(do_deadline_of_the_load_is_its_callers_error)
{
    static const struct cf_flight_options options = {.load_timeout_ns = 30 * CF_MS};
    struct call call = call_of(&at_gate, "a");

    use_options(&options);
    start(&call, _i);
    visit_join(&call.visit);
    ck_assert_int_eq(call.code, CF_EDEADLINE);
    ck_assert_int_eq(atomic_load(&canceled), 1);
    ck_assert_int_eq(cf_ctx_err(ctx), CF_OK);
}
END_TEST

START_TEST(do_ends_with_the_parent)
{
    struct call call = call_of(&at_gate, "a");

    start_loading(&call, _i);
    cf_ctx_cancel_cause(parent, CF_REASON_SHUTDOWN, NULL);
    visit_join(&call.visit);
    ck_assert_int_eq(call.code, CF_ECANCELED);
    ck_assert_str_eq(call.err.msg, "context canceled: shutdown");
}
END_TEST

/* The rest of the matrix */

START_TEST(do_already_canceled)
{
    struct call call = call_of(&text, "a");

    cf_ctx_cancel(ctx);
    start(&call, _i);
    visit_join(&call.visit);
    ck_assert_int_eq(call.code, CF_ECANCELED);
    ck_assert_int_eq(atomic_load(&begun), 0);
}
END_TEST

START_TEST(do_canceled_while_waiting)
{
    struct call call = call_of(&at_gate, "a");

    start_loading(&call, _i);
    cf_ctx_cancel(ctx);
    visit_join(&call.visit);
    ck_assert_int_eq(call.code, CF_ECANCELED);
    EVENTUALLY(cf_flight_loads(flight) == 0);
}
END_TEST

START_TEST(do_closed_while_waiting)
{
    struct call call = call_of(&at_gate, "a");

    start_loading(&call, _i);
    cf_flight_stop(flight);
    visit_join(&call.visit);
    ck_assert_int_eq(call.code, CF_ECLOSED);
    ck_assert_int_eq(atomic_load(&canceled), 1);
    start(&call, _i);
    visit_join(&call.visit);
    ck_assert_int_eq(call.code, CF_ECLOSED);
    ck_assert_int_eq(atomic_load(&begun), 1);
}
END_TEST

START_TEST(do_limit_reached)
{
    static const struct cf_flight_options options = {.loads_max = 1};
    struct call first = call_of(&at_gate, "a");
    struct call same = call_of(&at_gate, "a");
    struct cf_value *value = NULL;

    use_options(&options);
    start_loading(&first, _i);
    ck_assert_int_eq(cf_flight_do(ctx, flight, "other", &text, "b", &value, NULL, &err), CF_ELIMIT);
    ck_assert_int_eq(err.code, CF_ELIMIT);
    start_waiting(&same, _i); /* Joins, and needs no load. */
    cf_ctx_cancel(gate);
    expect_got(&first, "a");
    expect_got(&same, "a");
    EVENTUALLY(cf_flight_loads(flight) == 0);
    ck_assert_int_eq(cf_flight_do(ctx, flight, "other", &text, "b", &value, NULL, &err), CF_OK);
    cf_value_unref(value);
}
END_TEST

static void fail_each_allocation(void *arg)
{
    int *failed = arg;

    for (unsigned nth = 1;; nth++) {
        struct cf_value *value = NULL;
        struct cf_err failure;
        enum cf_code code;
        bool struck;

        fault_alloc(nth, false);
        code = cf_flight_do(ctx, flight, "key", &text, "a", &value, NULL, &failure);
        struck = fault_off();
        EXPECT(code == CF_OK || (struck && code == CF_ENOMEM && failure.code == CF_ENOMEM));
        cf_value_unref(value);
        *failed += code != CF_OK;
        if (!struck) {
            break;
        }
    }
}

START_TEST(do_out_of_memory)
{
    int failed = 0;

    place_run(_i, fail_each_allocation, &failed);
    ck_assert_int_ge(failed, 2);
    EVENTUALLY(cf_flight_loads(flight) == 0);
}
END_TEST

/* forget */

START_TEST(forget_lets_the_next_start_anew)
{
    struct call old = call_of(&at_gate, "old");
    struct call next = call_of(&at_gate, "new");

    cf_flight_forget(flight, "key"); /* Nothing to forget. */
    start_loading(&old, _i % PLACES);
    cf_flight_forget(flight, "other");
    cf_flight_forget(flight, "key");
    start_loading(&next, _i / PLACES);
    ck_assert_int_eq(atomic_load(&begun), 2);
    cf_ctx_cancel(gate);
    expect_got(&old, "old");
    expect_got(&next, "new");
}
END_TEST

/* Who waits for a load that was forgotten can still leave it alone. */
START_TEST(forget_leaves_the_last_one_to_cancel)
{
    struct call old = call_of(&at_gate, "old");

    start_loading(&old, _i);
    cf_flight_forget(flight, "key");
    cf_ctx_cancel(ctx);
    visit_join(&old.visit);
    EVENTUALLY(atomic_load(&canceled) == 1);
}
END_TEST

/* stop */

static void stop(void *arg)
{
    (void)arg;
    cf_flight_stop(flight);
}

START_TEST(stop_waits_for_the_last_load)
{
    struct call call = call_of(&stubborn, "a");
    struct visit visit;

    start_loading(&call, _i % PLACES);
    visit_start(&visit, _i / PLACES, stop, NULL);
    EVENTUALLY(atomic_load(&call.visit.ended));
    ck_assert_int_eq(call.code, CF_ECLOSED);
    visit_wait_parked(&visit);
    cf_ctx_cancel(gate);
    visit_join(&visit);
    ck_assert_uint_eq(cf_flight_loads(flight), 0);
    visit_join(&call.visit);
    place_run(_i / PLACES, stop, NULL); /* Again. */
}
END_TEST

Suite *suite_flight(void)
{
    Suite *suite = suite_create("flight");
    TCase *tc = tcase_create("new");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, new_out_of_memory);
    suite_add_tcase(suite, tc);

    tc = tcase_create("do");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, do_returns_what_the_load_made, 0, PLACES);
    tcase_add_test(tc, do_shares_a_value);
    tcase_add_test(tc, do_shares_an_error);
    tcase_add_loop_test(tc, do_fails_with_what_the_load_returns, 0, 3 * PLACES);
    tcase_add_loop_test(tc, do_copies_key_and_argument, 0, PLACES);
    tcase_add_loop_test(tc, do_loads_as_a_fiber_or_a_thread_under_the_parent, 0, PLACES);
    tcase_add_loop_test(tc, do_canceled_first_caller_does_not_fail_the_others, 0, PLACES * PLACES);
    tcase_add_test(tc, do_last_one_leaving_cancels_the_load);
    tcase_add_loop_test(tc, do_after_the_last_one_left_starts_anew, 0, PLACES * PLACES);
    tcase_add_loop_test(tc, do_deadline_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, do_deadline_of_the_load_is_its_callers_error, 0, PLACES);
    tcase_add_loop_test(tc, do_ends_with_the_parent, 0, PLACES);
    tcase_add_loop_test(tc, do_already_canceled, 0, PLACES);
    tcase_add_loop_test(tc, do_canceled_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, do_closed_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, do_limit_reached, 0, PLACES);
    tcase_add_loop_test(tc, do_out_of_memory, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("forget");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, forget_lets_the_next_start_anew, 0, PLACES * PLACES);
    tcase_add_loop_test(tc, forget_leaves_the_last_one_to_cancel, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("stop");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, stop_waits_for_the_last_load, 0, PLACES * PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("asserts");
    tcase_set_tags(tc, "fork");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test_raise_signal(tc, free_while_a_load_runs_asserts, SIGABRT, 0, PLACES);
    suite_add_tcase(suite, tc);
    return suite;
}
