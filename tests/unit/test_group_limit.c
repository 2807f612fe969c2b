/* SPDX-License-Identifier: MIT */
/* Groups with a limit: who waits for a slot, who gets it,
 * and what becomes of one that cannot be used any more. */
#include <curfew/group.h>

#include <check.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <curfew/wait.h>

#include "effort.h"
#include "places.h"

/* Fixture */

static struct cf_ctx *parent;
static struct cf_ctx *gate; /* Cancelled to let tasks end. */
static struct cf_group *group;
static struct cf_err err;
static atomic_int ran; /* Tasks that began. */

static void setup(void)
{
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &parent, &err), CF_OK);
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &gate, &err), CF_OK);
    ck_assert_int_eq(cf_group_new(parent, &group, &err), CF_OK);
    atomic_store(&ran, 0);
}

static void teardown(void)
{
    cf_group_free(group);
    group = NULL;
    cf_ctx_free(parent);
    cf_ctx_free(gate);
}

/* Helpers: tasks */

static enum cf_code count(struct cf_ctx *ctx, void *arg, struct cf_err *task_err)
{
    (void)ctx;
    (void)arg;
    (void)task_err;
    (void)atomic_fetch_add(&ran, 1);
    return CF_OK;
}

static enum cf_code wait_at_gate(struct cf_ctx *ctx, void *arg, struct cf_err *task_err)
{
    (void)count(ctx, arg, task_err);
    place_wait(gate);
    return CF_OK;
}

/* Wait for the end of the group's context, and fail with that. */
static enum cf_code wait_for_end(struct cf_ctx *ctx, void *arg, struct cf_err *task_err)
{
    (void)count(ctx, arg, task_err);
    return cf_sleep(ctx, CF_NEVER, task_err);
}

/* Helpers: calls */

static void wait_in_vain(void *arg)
{
    struct cf_err failure;

    (void)arg;
    EXPECT(cf_group_wait(group, &failure) == CF_OK);
}

static void go_count(void *arg)
{
    cf_group_go(group, count, arg);
}

/* set_limit */

static void lift_the_limit(void *arg)
{
    cf_group_set_limit(group, 1);
    EXPECT(cf_group_try_go(group, count, arg));
    wait_in_vain(arg);
    cf_group_set_limit(group, -1);
    for (int i = 0; i < 50; i++) {
        EXPECT(cf_group_try_go(group, wait_at_gate, arg));
    }
    cf_ctx_cancel(gate);
    wait_in_vain(arg);
}

START_TEST(set_limit_below_zero_is_none)
{
    place_run(_i, lift_the_limit, NULL);
    ck_assert_int_eq(atomic_load(&ran), 51);
}
END_TEST

static void set_limit_while_a_task_runs(void *arg)
{
    cf_group_go(group, wait_at_gate, arg);
    cf_group_set_limit(group, 7);
}

START_TEST(set_limit_while_a_task_runs_asserts)
{
    place_run(_i, set_limit_while_a_task_runs, NULL);
}
END_TEST

/* go */

/* With the only slot taken: one more, which has to wait for it. */
static void go_beyond_the_limit(void *arg)
{
    cf_group_set_limit(group, 1);
    cf_group_go(group, wait_at_gate, arg);
    cf_group_go(group, count, arg);
    wait_in_vain(arg);
}

START_TEST(go_waits_at_the_limit)
{
    struct visit visit;

    visit_start(&visit, _i, go_beyond_the_limit, NULL);
    EVENTUALLY(atomic_load(&ran) == 1);
    visit_wait_parked(&visit);
    ck_assert_int_eq(atomic_load(&ran), 1);
    cf_ctx_cancel(gate);
    visit_join(&visit);
    ck_assert_int_eq(atomic_load(&ran), 2);
}
END_TEST

#define GOERS 6

struct goer {
    atomic_int *next;
    int ran_as;
    struct visit visit;
};

static enum cf_code note_order(struct cf_ctx *ctx, void *arg, struct cf_err *task_err)
{
    struct goer *goer = arg;

    goer->ran_as = atomic_fetch_add(goer->next, 1);
    return cf_yield(ctx, task_err);
}

static void go_in_order(void *arg)
{
    cf_group_go(group, note_order, arg);
}

START_TEST(go_at_the_limit_is_first_come_first_served)
{
    struct goer goers[GOERS];
    atomic_int next = 0;

    cf_group_set_limit(group, 1);
    cf_group_go(group, wait_at_gate, NULL);
    for (int i = 0; i < GOERS; i++) {
        goers[i].next = &next;
        visit_start(&goers[i].visit, (_i + i) % PLACES, go_in_order, &goers[i]);
        visit_wait_parked(&goers[i].visit);
    }
    cf_ctx_cancel(gate);
    for (int i = 0; i < GOERS; i++) {
        visit_join(&goers[i].visit);
    }
    ck_assert_int_eq(cf_group_wait(group, &err), CF_OK);
    for (int i = 0; i < GOERS; i++) {
        ck_assert_int_eq(goers[i].ran_as, i);
    }
}
END_TEST

/* The slot of a task that ends is the waiting go's at once: who comes later, but runs before, is
 * refused. On fibers the order is certain. */
static void overtake(void *arg)
{
    bool *taken = arg;

    EXPECT(atomic_load(&ran) == 1); /* The waiting one has not begun. */
    *taken = cf_group_try_go(group, count, NULL);
}

static enum cf_code end_before_overtaker(struct cf_ctx *ctx, void *arg, struct cf_err *task_err)
{
    (void)wait_at_gate(ctx, arg, task_err);
    EXPECT(cf_loop_spawn(cf_loop_current(), overtake, arg, NULL) == CF_OK);
    return CF_OK;
}

static void try_to_overtake(void *arg)
{
    struct cf_err failure;

    cf_group_set_limit(group, 1);
    cf_group_go(group, end_before_overtaker, arg);
    EXPECT(cf_loop_spawn(cf_loop_current(), go_count, NULL, NULL) == CF_OK);
    place_yield();
    place_yield();
    EXPECT(atomic_load(&ran) == 1);
    cf_ctx_cancel(gate);
    EXPECT(cf_group_wait(group, &failure) == CF_OK);
}

START_TEST(go_that_waits_is_not_overtaken)
{
    bool taken = true;

    place_run(PLACE_FIBER, try_to_overtake, &taken);
    ck_assert(!taken);
    ck_assert_int_eq(atomic_load(&ran), 2);
}
END_TEST

static void go_until_end(void *arg)
{
    cf_group_set_limit(group, 1);
    cf_group_go(group, wait_at_gate, arg);
    cf_group_go(group, count, arg); /* Its slot never comes. */
}

/* What became of the group after a go whose context ended while it waited. */
static void check_never_started(enum cf_code code)
{
    ck_assert_int_eq(atomic_load(&ran), 1);
    cf_ctx_cancel(gate);
    ck_assert_int_eq(cf_group_wait(group, &err), code);
    ck_assert_int_eq(err.code, code);
    ck_assert_int_eq(atomic_load(&ran), 1);
}

START_TEST(go_canceled_while_waiting)
{
    struct visit visit;

    visit_start(&visit, _i, go_until_end, NULL);
    EVENTUALLY(atomic_load(&ran) == 1);
    visit_wait_parked(&visit);
    cf_ctx_cancel(parent);
    EVENTUALLY(atomic_load(&visit.ended)); /* Although the slot is not free. */
    check_never_started(CF_ECANCELED);
    visit_join(&visit);
}
END_TEST

START_TEST(go_deadline_while_waiting)
{
    int64_t deadline_ns = cf_now_ns() + 100 * CF_MS;
    struct cf_ctx *brief;
    struct visit visit;

    cf_group_free(group);
    ck_assert_int_eq(cf_ctx_with_deadline(parent, deadline_ns, &brief, &err), CF_OK);
    ck_assert_int_eq(cf_group_new(brief, &group, &err), CF_OK);
    visit_start(&visit, _i, go_until_end, NULL);
    EVENTUALLY(atomic_load(&visit.ended));
    ck_assert_int_ge(cf_now_ns(), deadline_ns);
    EVENTUALLY(atomic_load(&ran) == 1); /* It has its slot, and begins even if it is late. */
    check_never_started(CF_EDEADLINE);
    visit_join(&visit);
    cf_ctx_free(brief);
}
END_TEST

/* With a slot it starts, as errgroup does, and the task sees the end; without one it does not. */
static void go_when_done(void *arg)
{
    struct cf_err failure;

    cf_group_go(group, wait_for_end, arg);
    EXPECT(cf_group_wait(group, &failure) == CF_ECANCELED);
    EXPECT(atomic_load(&ran) == 1);
    cf_group_set_limit(group, 0);
    cf_group_go(group, count, arg);
    EXPECT(cf_group_wait(group, &failure) == CF_ECANCELED);
    EXPECT(atomic_load(&ran) == 1);
}

START_TEST(go_already_canceled)
{
    cf_ctx_cancel(parent);
    place_run(_i, go_when_done, NULL);
}
END_TEST

START_TEST(go_without_slots_waits_for_the_end)
{
    struct visit visit;

    cf_group_set_limit(group, 0);
    visit_start(&visit, _i, go_count, NULL);
    visit_wait_parked(&visit);
    cf_ctx_cancel(parent);
    visit_join(&visit);
    ck_assert_int_eq(atomic_load(&ran), 0);
    ck_assert_int_eq(cf_group_wait(group, &err), CF_ECANCELED);
}
END_TEST

/* A slot is handed to a go whose context ends in the same instant: it goes to one of them only, and
 * none is lost. */
struct handover {
    struct cf_group *group;
    struct cf_ctx *hold;
    atomic_int started;
};

static enum cf_code hold_slot(struct cf_ctx *ctx, void *arg, struct cf_err *task_err)
{
    struct handover *self = arg;

    (void)ctx;
    (void)task_err;
    place_wait(self->hold);
    return CF_OK;
}

static enum cf_code count_start(struct cf_ctx *ctx, void *arg, struct cf_err *task_err)
{
    (void)ctx;
    (void)task_err;
    (void)atomic_fetch_add(&((struct handover *)arg)->started, 1);
    return CF_OK;
}

static void go_count_start(void *arg)
{
    struct handover *self = arg;

    cf_group_go(self->group, count_start, self);
}

static void cancel(void *arg)
{
    cf_ctx_cancel(arg);
}

START_TEST(go_success_races_cancel)
{
    int64_t until_ns = effort_until_ns();

    while (cf_now_ns() < until_ns) {
        struct handover self = {.started = 0};
        struct cf_ctx *ending;
        struct visit goer;
        struct visit canceler;
        enum cf_code code;

        ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &self.hold, &err), CF_OK);
        ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &ending, &err), CF_OK);
        ck_assert_int_eq(cf_group_new(ending, &self.group, &err), CF_OK);
        cf_group_set_limit(self.group, 1);
        cf_group_go(self.group, hold_slot, &self);
        visit_start(&goer, _i, go_count_start, &self);
        visit_start(&canceler, PLACE_THREAD, cancel, ending);
        cf_ctx_cancel(self.hold);
        visit_join(&goer);
        visit_join(&canceler);
        code = cf_group_wait(self.group, &err);
        ck_assert_int_eq(code, atomic_load(&self.started) == 1 ? CF_OK : CF_ECANCELED);
        /* The slot is there again. */
        ck_assert(cf_group_try_go(self.group, count_start, &self));
        ck_assert_int_eq(cf_group_wait(self.group, &err), code);
        cf_group_free(self.group);
        cf_ctx_free(ending);
        cf_ctx_free(self.hold);
    }
}
END_TEST

/* try_go */

static enum cf_code try_more(struct cf_ctx *ctx, void *arg, struct cf_err *task_err)
{
    atomic_int *refused = arg;

    (void)count(ctx, arg, task_err);
    for (int i = 0; i < 3; i++) {
        (void)atomic_fetch_add(refused, !cf_group_try_go(group, wait_at_gate, NULL));
    }
    cf_ctx_cancel(gate);
    return CF_OK;
}

static void go_try_more(void *arg)
{
    cf_group_set_limit(group, 3);
    cf_group_go(group, try_more, arg);
    wait_in_vain(arg);
}

START_TEST(try_go_from_a_task_counts_the_task)
{
    atomic_int refused = 0;

    place_run(_i, go_try_more, &refused);
    ck_assert_int_eq(atomic_load(&refused), 1);
    ck_assert_int_eq(atomic_load(&ran), 3);
}
END_TEST

Suite *suite_group_limit(void)
{
    Suite *suite = suite_create("group_limit");
    TCase *tc = tcase_create("set_limit");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, set_limit_below_zero_is_none, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("go");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, go_waits_at_the_limit, 0, PLACES);
    tcase_add_loop_test(tc, go_at_the_limit_is_first_come_first_served, 0, PLACES);
    tcase_add_test(tc, go_that_waits_is_not_overtaken);
    tcase_add_loop_test(tc, go_already_canceled, 0, PLACES);
    tcase_add_loop_test(tc, go_canceled_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, go_deadline_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, go_without_slots_waits_for_the_end, 0, PLACES);
    tcase_add_loop_test(tc, go_success_races_cancel, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("try_go");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, try_go_from_a_task_counts_the_task, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("asserts");
    tcase_set_tags(tc, "fork");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test_raise_signal(tc, set_limit_while_a_task_runs_asserts, SIGABRT, 0, PLACES);
    suite_add_tcase(suite, tc);
    return suite;
}
