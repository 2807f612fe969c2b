/* SPDX-License-Identifier: MIT */
/* Flights under many callers at once, at both places: one load serves them all, and whoever leaves
 * as the load ends, or its loop, finds it whole or not at all. No value is lost. */
#include <curfew/flight.h>

#include <check.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/wait.h>

#include "effort.h"
#include "places.h"

/* Fixture */

static struct cf_ctx *gate; /* Cancelled to let loads end. */
static struct cf_ctx *ctx;  /* Of callers. */
static struct cf_flight *flight;
static struct cf_err err;
static atomic_int begun;    /* Loads. */
static atomic_int canceled; /* Of these, whose context ended. */
static atomic_int dropped;  /* Values. */

static void setup(void)
{
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &gate, &err), CF_OK);
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &ctx, &err), CF_OK);
    ck_assert_int_eq(cf_flight_new(cf_ctx_background(), NULL, &flight, &err), CF_OK);
    atomic_store(&begun, 0);
    atomic_store(&canceled, 0);
    atomic_store(&dropped, 0);
}

static void teardown(void)
{
    cf_ctx_cancel(gate);
    cf_flight_stop(flight);
    cf_flight_free(flight);
    flight = NULL;
    cf_ctx_free(ctx);
    cf_ctx_free(gate);
}

/* Helpers */

static void drop_counted(void *data)
{
    (void)atomic_fetch_add(&dropped, 1);
    free(data);
}

static enum cf_code make_counted(struct cf_value **out, struct cf_err *load_err)
{
    return cf_value_wrap(strdup("counted"), 8, drop_counted, out, load_err);
}

static enum cf_code load_counted(struct cf_ctx *of, void *arg, struct cf_value **out,
                                 struct cf_err *load_err)
{
    (void)arg;
    (void)atomic_fetch_add(&begun, 1);
    if (cf_yield(of, NULL) != CF_OK) {
        (void)atomic_fetch_add(&canceled, 1); /* And yet it brings something. */
    }
    return make_counted(out, load_err);
}

/* Wait at the gate, or for the end of the load's context. */
static enum cf_code load_at_gate(struct cf_ctx *of, void *arg, struct cf_value **out,
                                 struct cf_err *load_err)
{
    enum cf_code code;

    (void)arg;
    (void)atomic_fetch_add(&begun, 1);
    code = cf_wait_done(of, gate, load_err);
    if (code != CF_OK) {
        (void)atomic_fetch_add(&canceled, 1);
        return code;
    }
    return make_counted(out, load_err);
}

static const struct cf_flight_load counted = {load_counted, 0};
static const struct cf_flight_load at_gate = {load_at_gate, 0};

struct call {
    const struct cf_flight_load *load;
    struct cf_ctx *ctx; /* Made by start(), for cf_ctx_cancel(). */

    enum cf_code code;
    struct visit visit;
};

static void do_call(void *arg)
{
    struct call *call = arg;
    struct cf_value *value;

    call->code = cf_flight_do(call->ctx, flight, "key", call->load, NULL, &value, NULL, NULL);
    if (call->code == CF_OK) {
        EXPECT(strcmp(cf_value_data(value), "counted") == 0);
        cf_value_unref(value);
    }
}

static void start(struct call *call, const struct cf_flight_load *load, int place)
{
    *call = (struct call){.load = load};
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &call->ctx, &err), CF_OK);
    visit_start(&call->visit, place, do_call, call);
}

static void join(struct call *call)
{
    visit_join(&call->visit);
    cf_ctx_free(call->ctx);
}

/* A crowd: fibers of two loops, and threads */

#define CROWD_LOOPS 2

struct crowd {
    atomic_int arrived;
    atomic_int got;
    atomic_int left;
};

static void call_in_crowd(void *arg)
{
    struct crowd *crowd = arg;
    struct cf_value *value;

    (void)atomic_fetch_add(&crowd->arrived, 1);
    if (cf_flight_do(ctx, flight, "key", &at_gate, NULL, &value, NULL, NULL) == CF_OK) {
        (void)atomic_fetch_add(&crowd->got, 1);
        cf_value_unref(value);
    } else {
        (void)atomic_fetch_add(&crowd->left, 1);
    }
}

static void do_nothing(void *arg)
{
    (void)arg;
}

START_TEST(do_of_a_thousand_makes_one_load)
{
    const int callers = effort_count(1000, 200);
    const int threads = 20;
    struct crowd crowd = {.arrived = 0};
    struct call first; /* Will be cancelled. */
    struct cf_loop *loops[CROWD_LOOPS];
    struct visit visits[20];

    start(&first, &at_gate, _i);
    EVENTUALLY(atomic_load(&begun) == 1);
    visit_wait_parked(&first.visit);
    for (int i = 0; i < CROWD_LOOPS; i++) {
        ck_assert_int_eq(cf_loop_new(NULL, &loops[i], &err), CF_OK);
    }
    for (int i = 0; i < callers - threads; i++) {
        ck_assert_int_eq(cf_loop_spawn(loops[i % CROWD_LOOPS], call_in_crowd, &crowd, &err), CF_OK);
    }
    for (int i = 0; i < threads; i++) {
        visit_start(&visits[i], PLACE_THREAD, call_in_crowd, &crowd);
    }
    EVENTUALLY(atomic_load(&crowd.arrived) == callers);
    for (int i = 0; i < threads; i++) {
        visit_wait_parked(&visits[i]);
    }
    for (int i = 0; i < CROWD_LOOPS; i++) {
        /* Fibers run in turn: when this one does, the last that has arrived waits as well. */
        ck_assert_int_eq(cf_loop_call(loops[i], do_nothing, NULL, &err), CF_OK);
    }
    cf_ctx_cancel(first.ctx);
    EVENTUALLY(atomic_load(&first.visit.ended)); /* Its loop goes on, with the load. */
    ck_assert_int_eq(first.code, CF_ECANCELED);
    ck_assert_int_eq(atomic_load(&crowd.got) + atomic_load(&crowd.left), 0);
    cf_ctx_cancel(gate);
    for (int i = 0; i < CROWD_LOOPS; i++) {
        cf_loop_free(loops[i]);
    }
    for (int i = 0; i < threads; i++) {
        visit_join(&visits[i]);
    }
    ck_assert_int_eq(atomic_load(&crowd.got), callers);
    ck_assert_int_eq(atomic_load(&begun), 1);
    ck_assert_int_eq(atomic_load(&canceled), 0);
    join(&first);
}
END_TEST

/* Races */

/* A load lands while its only caller is cancelled: it is one or the other, and no value is lost. */
START_TEST(do_success_races_cancel)
{
    int64_t until_ns = effort_until_ns();

    while (cf_now_ns() < until_ns) {
        int before = atomic_load(&begun);
        struct call call;

        start(&call, &counted, _i);
        for (int looks = 0; looks < 10000 && atomic_load(&begun) == before; looks++) {
            (void)sched_yield(); /* The load is what it is to race with. */
        }
        cf_ctx_cancel(call.ctx);
        join(&call);
        ck_assert(call.code == CF_OK || call.code == CF_ECANCELED);
    }
    EVENTUALLY(cf_flight_loads(flight) == 0);
    EVENTUALLY(atomic_load(&dropped) == atomic_load(&begun));
}
END_TEST

#define STRESS_KEYS 3
#define STRESS_PLACES 4
#define STRESS_FIBERS 8

struct stress {
    int64_t until_ns;
    _Atomic unsigned dice;
    atomic_long outcomes[2]; /* Values; ends of the callers' contexts. */
};

static unsigned roll(struct stress *stress, unsigned sides)
{
    return (atomic_fetch_add(&stress->dice, 1) * 2654435761U >> 12) % sides;
}

static enum cf_code load_for_a_while(struct cf_ctx *of, void *arg, struct cf_value **out,
                                     struct cf_err *load_err)
{
    struct stress *stress = arg;
    enum cf_code code;

    (void)atomic_fetch_add(&begun, 1);
    code = cf_sleep(of, (int64_t)roll(stress, 300) * CF_US, load_err);
    if (code != CF_OK) {
        (void)atomic_fetch_add(&dropped, 1); /* None was made. */
        return code;
    }
    return make_counted(out, load_err);
}

/* Callers that come and go, with patience for a part of the loads. */
static void come_and_go(void *arg)
{
    static const struct cf_flight_load load = {load_for_a_while, 0};
    static const char *const keys[STRESS_KEYS] = {"a", "b", "c"};
    struct stress *stress = arg;

    while (EFFORT_GOES_ON(stress->until_ns, atomic_load(&stress->outcomes[0]) > 0 &&
                                                atomic_load(&stress->outcomes[1]) > 0)) {
        const char *key = keys[roll(stress, STRESS_KEYS)];
        struct cf_value *value = NULL;
        struct cf_err failure;
        struct cf_ctx *mine;
        enum cf_code code;

        EXPECT(cf_ctx_with_timeout(ctx, (int64_t)roll(stress, 300) * CF_US, &mine, NULL) == CF_OK);
        code = cf_flight_do(mine, flight, key, &load, stress, &value, NULL, &failure);
        if (code == CF_OK) {
            EXPECT(strcmp(cf_value_data(value), "counted") == 0);
            cf_value_unref(value);
        } else {
            /* A load's own end is seen by nobody: it is cancelled when there is nobody. */
            EXPECT(code == CF_EDEADLINE);
            EXPECT(cf_ctx_err(mine) == CF_EDEADLINE);
        }
        (void)atomic_fetch_add(&stress->outcomes[code != CF_OK], 1);
        if (roll(stress, 8) == 0) {
            cf_flight_forget(flight, key);
        }
        cf_ctx_free(mine);
    }
}

static void come_and_go_with_more(void *arg)
{
    for (int i = 1; cf_on_fiber() && i < STRESS_FIBERS; i++) {
        EXPECT(cf_loop_spawn(cf_loop_current(), come_and_go, arg, NULL) == CF_OK);
    }
    come_and_go(arg);
}

START_TEST(do_stress)
{
    struct stress stress = {.until_ns = effort_brief_stress_until_ns()};
    struct visit visits[STRESS_PLACES];

    for (int i = 0; i < STRESS_PLACES; i++) {
        visit_start(&visits[i], i % PLACES, come_and_go_with_more, &stress);
    }
    for (int i = 0; i < STRESS_PLACES; i++) {
        visit_join(&visits[i]);
    }
    EVENTUALLY(cf_flight_loads(flight) == 0);
    EVENTUALLY(atomic_load(&dropped) == atomic_load(&begun));
    ck_assert_int_gt(atomic_load(&stress.outcomes[0]), 0);
    ck_assert_int_gt(atomic_load(&stress.outcomes[1]), 0);
}
END_TEST

/* The loop of a load is freed as soon as the load has ended, while the caller on another thread
 * that left it last is still cancelling it. */
START_TEST(leave_races_the_end_of_the_loop)
{
    int64_t until_ns = effort_until_ns();

    while (cf_now_ns() < until_ns) {
        struct call first;
        struct call last;

        start(&first, &at_gate, PLACE_FIBER);
        EVENTUALLY(cf_flight_loads(flight) == 1);
        start(&last, &at_gate, PLACE_THREAD);
        visit_wait_parked(&last.visit);
        cf_ctx_cancel(first.ctx);
        cf_ctx_cancel(last.ctx);
        join(&first); /* Frees the loop. */
        join(&last);
        ck_assert_int_eq(last.code, CF_ECANCELED);
        ck_assert_uint_eq(cf_flight_loads(flight), 0);
    }
}
END_TEST

Suite *suite_flight_stress(void)
{
    Suite *suite = suite_create("flight_stress");
    TCase *tc = tcase_create("do");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, EFFORT_STRESS_SECONDS_MAX);
    tcase_add_loop_test(tc, do_of_a_thousand_makes_one_load, 0, PLACES);
    tcase_add_loop_test(tc, do_success_races_cancel, 0, PLACES);
    tcase_add_test(tc, do_stress);
    tcase_add_test(tc, leave_races_the_end_of_the_loop);
    suite_add_tcase(suite, tc);
    return suite;
}
