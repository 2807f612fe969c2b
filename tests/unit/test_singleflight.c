/* SPDX-License-Identifier: MIT */
/* The behaviour that golang.org/x/sync/singleflight's own tests ask for, asked of cf_flight, from a
 * plain thread and from a fiber. tests/README.md has the table of all its cases. */
#include <curfew/flight.h>

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <curfew/group.h>
#include <curfew/wait.h>

#include "places.h"

/* Fixture */

static struct cf_flight *flight;

static void setup(void)
{
    struct cf_err err;

    ck_assert_int_eq(cf_flight_new(cf_ctx_background(), NULL, &flight, &err), CF_OK);
}

static void teardown(void)
{
    cf_flight_stop(flight);
    cf_flight_free(flight);
    flight = NULL;
}

/* Helpers */

/* A load that says that it has begun, waits for its gate, and brings its text. */
struct script {
    const char *text; /* NULL: it fails. */
    struct cf_ctx *gate;
    atomic_int begun;
    atomic_int ended;
};

static enum cf_code play(struct cf_ctx *ctx, void *arg, struct cf_value **out, struct cf_err *err)
{
    struct script *script = arg;
    enum cf_code code = CF_OK;

    (void)atomic_fetch_add(&script->begun, 1);
    if (script->gate != NULL) {
        code = cf_wait_done(ctx, script->gate, err);
    }
    if (code == CF_OK) {
        code = script->text != NULL ? cf_value_new(script->text, strlen(script->text) + 1, out, err)
                                    : cf_err_set_sys(err, CF_EIO, EPIPE, "some error");
    }
    (void)atomic_fetch_add(&script->ended, 1);
    return code;
}

static const struct cf_flight_load load = {play, 0};

static struct cf_ctx *new_gate(void)
{
    struct cf_ctx *gate;

    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &gate, NULL), CF_OK);
    return gate;
}

/* A caller, and what it got. */
struct caller {
    struct script *script;
    atomic_int *arrived; /* Or NULL. */
    char got[16];
    struct visit visit;
};

static void call(void *arg)
{
    struct caller *caller = arg;
    struct cf_value *value;

    if (caller->arrived != NULL) {
        (void)atomic_fetch_add(caller->arrived, 1);
    }
    EXPECT(cf_flight_do(cf_ctx_background(), flight, "key", &load, caller->script, &value, NULL,
                        NULL) == CF_OK);
    (void)snprintf(caller->got, sizeof(caller->got), "%s", (const char *)cf_value_data(value));
    cf_value_unref(value);
}

/* do */

/* Go: TestDo */
START_TEST(do_returns_the_value)
{
    struct script script = {.text = "bar"};
    struct caller caller = {.script = &script};

    place_run(_i, call, &caller);
    ck_assert_str_eq(caller.got, "bar");
    ck_assert_int_eq(atomic_load(&script.begun), 1);
}
END_TEST

static void call_in_vain(void *arg)
{
    struct cf_value *value = NULL;
    struct cf_err err;

    EXPECT(cf_flight_do(cf_ctx_background(), flight, "key", &load, arg, &value, NULL, &err) ==
           CF_EIO);
    EXPECT(err.sys == EPIPE);
    EXPECT(strcmp(err.msg, "some error: Broken pipe") == 0);
    EXPECT(value == NULL);
}

/* Go: TestDoErr */
START_TEST(do_returns_the_error_and_no_value)
{
    struct script script = {.text = NULL};

    place_run(_i, call_in_vain, &script);
}
END_TEST

#define CALLERS 10

/* Go: TestDoDupSuppress */
START_TEST(do_suppresses_duplicates)
{
    struct script script = {.text = "bar", .gate = new_gate()};
    struct caller callers[CALLERS];
    atomic_int arrived = 0;

    for (int i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){.script = &script, .arrived = &arrived};
        visit_start(&callers[i].visit, (_i + i) % PLACES, call, &callers[i]);
    }
    EVENTUALLY(atomic_load(&arrived) == CALLERS);
    EVENTUALLY(atomic_load(&script.begun) > 0);
    cf_ctx_cancel(script.gate);
    for (int i = 0; i < CALLERS; i++) {
        visit_join(&callers[i].visit);
        ck_assert_str_eq(callers[i].got, "bar");
    }
    ck_assert_int_lt(atomic_load(&script.begun), CALLERS);
    cf_ctx_free(script.gate);
}
END_TEST

/* forget */

/* Go: TestForget */
START_TEST(forget_does_not_let_the_old_load_forget_the_new)
{
    struct script first = {.text = "1", .gate = new_gate()};
    struct script second = {.text = "2", .gate = new_gate()};
    struct script third = {.text = "3"};
    struct caller callers[] = {{.script = &first}, {.script = &second}, {.script = &third}};

    visit_start(&callers[0].visit, _i, call, &callers[0]);
    EVENTUALLY(atomic_load(&first.begun) == 1);
    cf_flight_forget(flight, "key");
    visit_start(&callers[1].visit, _i, call, &callers[1]);
    EVENTUALLY(atomic_load(&second.begun) == 1);
    cf_ctx_cancel(first.gate);
    visit_join(&callers[0].visit);
    EVENTUALLY(cf_flight_loads(flight) == 1);
    visit_start(&callers[2].visit, _i, call, &callers[2]);
    visit_wait_parked(&callers[2].visit);
    cf_ctx_cancel(second.gate);
    visit_join(&callers[1].visit);
    visit_join(&callers[2].visit);
    ck_assert_str_eq(callers[0].got, "1");
    ck_assert_str_eq(callers[1].got, "2");
    ck_assert_str_eq(callers[2].got, "2");
    ck_assert_int_eq(atomic_load(&third.begun), 0);
    cf_ctx_free(first.gate);
    cf_ctx_free(second.gate);
}
END_TEST

/* Beside */

static enum cf_code call_as_task(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    (void)ctx;
    (void)err;
    call(arg);
    return CF_OK;
}

static void go_on_meanwhile(void *arg)
{
    struct caller *caller = arg;
    struct cf_group *group;

    EXPECT(cf_group_new(cf_ctx_background(), &group, NULL) == CF_OK);
    cf_group_go(group, call_as_task, caller);
    EXPECT(caller->got[0] == '\0'); /* The gate is closed. */
    cf_ctx_cancel(caller->script->gate);
    EXPECT(cf_group_wait(group, NULL) == CF_OK);
    cf_group_free(group);
}

/* Go: TestDoChan. What a channel is there is a task here. */
START_TEST(do_in_a_task_lets_its_starter_go_on)
{
    struct script script = {.text = "bar", .gate = new_gate()};
    struct caller caller = {.script = &script};

    place_run(_i, go_on_meanwhile, &caller);
    ck_assert_str_eq(caller.got, "bar");
    cf_ctx_free(script.gate);
}
END_TEST

Suite *suite_singleflight(void)
{
    Suite *suite = suite_create("singleflight");
    TCase *tc = tcase_create("do");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, do_returns_the_value, 0, PLACES);
    tcase_add_loop_test(tc, do_returns_the_error_and_no_value, 0, PLACES);
    tcase_add_loop_test(tc, do_suppresses_duplicates, 0, PLACES);
    tcase_add_loop_test(tc, do_in_a_task_lets_its_starter_go_on, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("forget");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, forget_does_not_let_the_old_load_forget_the_new, 0, PLACES);
    suite_add_tcase(suite, tc);
    return suite;
}
