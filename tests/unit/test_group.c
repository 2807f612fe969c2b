/* SPDX-License-Identifier: MIT */
/* Groups: what they promise beyond errgroup, whose own tests are answered in test_errgroup.c. Each
 * test runs on a plain thread, where tasks are threads, and on a fiber, where they are fibers. */
#include <curfew/group.h>

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <curfew/wait.h>

#include "effort.h"
#include "fault.h"
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

static enum cf_code fail_with_details(struct cf_ctx *ctx, void *arg, struct cf_err *task_err)
{
    (void)count(ctx, arg, task_err);
    (void)cf_err_set_sys(task_err, CF_EIO, ENOSPC, "write order 7");
    memcpy(task_err->sqlstate, "53100", sizeof(task_err->sqlstate));
    return CF_EIO;
}

static enum cf_code fail_at_gate(struct cf_ctx *ctx, void *arg, struct cf_err *task_err)
{
    (void)wait_at_gate(ctx, arg, task_err);
    return cf_err_set(task_err, CF_ECONFLICT, "behind the gate");
}

/* Helpers: calls */

static void wait_in_vain(void *arg)
{
    struct cf_err failure;

    (void)arg;
    EXPECT(cf_group_wait(group, &failure) == CF_OK);
}

/* new, free */

START_TEST(new_out_of_memory)
{
    struct cf_group *made = NULL;
    unsigned failed = 0;

    for (unsigned nth = 1;; nth++) {
        enum cf_code code;

        fault_alloc(nth, false);
        code = cf_group_new(parent, &made, &err);
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
    cf_group_free(made);
}
END_TEST

START_TEST(new_of_a_done_context_is_done)
{
    struct cf_group *made;

    cf_ctx_cancel(parent);
    ck_assert_int_eq(cf_group_new(parent, &made, &err), CF_OK);
    ck_assert_int_eq(cf_ctx_err(cf_group_ctx(made)), CF_ECANCELED);
    cf_group_free(made);
}
END_TEST

START_TEST(free_without_a_task_needs_no_wait)
{
    struct cf_group *made;

    cf_group_free(NULL);
    ck_assert_int_eq(cf_group_new(parent, &made, &err), CF_OK);
    cf_group_free(made);
    ck_assert_int_eq(cf_ctx_err(parent), CF_OK);
}
END_TEST

static void free_while_a_task_runs(void *arg)
{
    (void)arg;
    cf_group_go(group, wait_at_gate, NULL);
    cf_group_free(group);
}

START_TEST(free_while_a_task_runs_asserts)
{
    place_run(_i, free_while_a_task_runs, NULL);
}
END_TEST

/* go: where */

struct where {
    struct cf_loop *loop;
    bool on_fiber;
    pthread_t thread;
};

static enum cf_code look(struct cf_ctx *ctx, void *arg, struct cf_err *task_err)
{
    struct where *where = arg;

    where->loop = cf_loop_current();
    where->on_fiber = cf_on_fiber();
    where->thread = pthread_self();
    return cf_yield(ctx, task_err);
}

static void look_around(void *arg)
{
    struct where tasks[2];

    (void)arg;
    cf_group_go(group, look, &tasks[0]);
    cf_group_go(group, look, &tasks[1]);
    wait_in_vain(NULL);
    for (int i = 0; i < 2; i++) {
        EXPECT(tasks[i].loop == cf_loop_current());
        EXPECT(tasks[i].on_fiber == cf_on_fiber());
        EXPECT(!pthread_equal(tasks[i].thread, pthread_self()) == !cf_on_fiber());
    }
}

START_TEST(go_runs_fibers_on_a_loop_and_threads_elsewhere)
{
    place_run(_i, look_around, NULL);
}
END_TEST

static enum cf_code look_at_signals(struct cf_ctx *ctx, void *arg, struct cf_err *task_err)
{
    sigset_t blocked;

    (void)ctx;
    (void)arg;
    (void)task_err;
    (void)pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    EXPECT(sigismember(&blocked, SIGTERM) == 1);
    return CF_OK;
}

static void go_and_look_at_signals(void *arg)
{
    (void)arg;
    cf_group_go(group, look_at_signals, NULL);
    wait_in_vain(NULL);
}

START_TEST(go_blocks_the_signals_of_its_tasks)
{
    place_run(_i, go_and_look_at_signals, NULL);
}
END_TEST

static void wait_without_tasks(void *arg)
{
    wait_in_vain(arg);
    EXPECT(cf_ctx_err(cf_group_ctx(group)) == CF_ECANCELED);
}

START_TEST(wait_without_tasks_returns_at_once)
{
    place_run(_i, wait_without_tasks, NULL);
    ck_assert_int_eq(cf_ctx_err(parent), CF_OK);
}
END_TEST

static void go_to_gate_and_wait(void *arg)
{
    cf_group_go(group, wait_at_gate, arg);
    cf_group_go(group, wait_at_gate, arg);
    wait_in_vain(arg);
}

START_TEST(wait_lasts_until_the_last_task_has_ended)
{
    struct visit visit;

    visit_start(&visit, _i, go_to_gate_and_wait, NULL);
    EVENTUALLY(atomic_load(&ran) == 2);
    visit_wait_parked(&visit);
    cf_ctx_cancel(gate);
    visit_join(&visit);
}
END_TEST

/* Failures */

/* A sibling that the failure ends, and what it can learn of it. */
static enum cf_code study_cause(struct cf_ctx *ctx, void *arg, struct cf_err *task_err)
{
    struct cf_cause cause;
    enum cf_code code = wait_for_end(ctx, arg, task_err);

    EXPECT(code == CF_ECANCELED);
    EXPECT(cf_ctx_cause(ctx, &cause));
    EXPECT(cause.reason == CF_REASON_SIBLING_FAILED);
    EXPECT(cause.err.code == CF_EIO);
    EXPECT(cause.err.sys == ENOSPC);
    EXPECT(strcmp(cause.err.sqlstate, "53100") == 0);
    EXPECT(strcmp(cause.err.msg, "write order 7: No space left on device") == 0);
    EXPECT(strcmp(task_err->msg, "context canceled: write order 7: No space left on device") == 0);
    return code;
}

static void fail_one_of_three(void *arg)
{
    struct cf_err failure;

    (void)arg;
    cf_group_go(group, study_cause, NULL);
    cf_group_go(group, study_cause, NULL);
    cf_group_go(group, fail_with_details, NULL);
    EXPECT(cf_group_wait(group, &failure) == CF_EIO);
    EXPECT(failure.code == CF_EIO);
    EXPECT(failure.sys == ENOSPC);
    EXPECT(strcmp(failure.sqlstate, "53100") == 0);
    EXPECT(strcmp(failure.msg, "write order 7: No space left on device") == 0);
}

START_TEST(fail_is_the_cause_that_siblings_see)
{
    place_run(_i, fail_one_of_three, NULL);
    ck_assert_int_eq(atomic_load(&ran), 3);
    ck_assert_int_eq(cf_ctx_err(parent), CF_OK);
}
END_TEST

struct talk {
    enum cf_code set;     /* What it says in err; CF_OK: nothing. */
    enum cf_code returns; /* What it returns. */
    const char *msg;      /* What the group makes of it. */
};

static enum cf_code say(struct cf_ctx *ctx, void *arg, struct cf_err *task_err)
{
    const struct talk *talk = arg;

    (void)ctx;
    if (talk->set != CF_OK) {
        (void)cf_err_set(task_err, talk->set, "its own words");
    }
    return talk->returns;
}

static void say_one(void *arg)
{
    const struct talk *talk = arg;
    struct cf_err failure = {.code = CF_OK, .msg = "untouched"};

    cf_group_go(group, say, arg);
    EXPECT(cf_group_wait(group, &failure) == talk->returns);
    EXPECT(failure.code == talk->returns);
    EXPECT(strcmp(failure.msg, talk->msg) == 0);
    EXPECT(cf_group_wait(group, NULL) == talk->returns);
}

START_TEST(fail_is_what_the_task_returns)
{
    static const struct talk talks[] = {
        {CF_EIO, CF_EIO, "its own words"},
        {CF_OK, CF_EIO, "input or output failed"},      /* It did not say what. */
        {CF_ECLOSED, CF_EIO, "input or output failed"}, /* It said something else. */
        {CF_EIO, CF_OK, "untouched"},                   /* It mended it. */
    };

    for (size_t i = 0; i < sizeof(talks) / sizeof(talks[0]); i++) {
        place_run(_i, say_one, (void *)&talks[i]);
        teardown();
        setup();
    }
}
END_TEST

static void fail_twice(void *arg)
{
    struct cf_err failure;

    (void)arg;
    cf_group_go(group, fail_at_gate, NULL);
    cf_group_go(group, wait_for_end, NULL);
    cf_group_go(group, fail_with_details, NULL);
    EXPECT(cf_sleep(cf_group_ctx(group), CF_NEVER, &failure) == CF_ECANCELED); /* It has failed. */
    cf_ctx_cancel(gate);
    EXPECT(cf_group_wait(group, &failure) == CF_EIO);
    EXPECT(failure.sys == ENOSPC);
}

START_TEST(fail_of_the_first_is_kept)
{
    place_run(_i, fail_twice, NULL);
    ck_assert_int_eq(atomic_load(&ran), 3);
}
END_TEST

static void wait_for_parent(void *arg)
{
    struct cf_err failure;

    cf_group_go(group, wait_for_end, arg);
    cf_group_go(group, wait_for_end, arg);
    EXPECT(cf_group_wait(group, &failure) == CF_ECANCELED);
    EXPECT(strcmp(failure.msg, "context canceled: enough") == 0);
}

START_TEST(wait_ends_when_the_parent_is_canceled)
{
    struct cf_err why;
    struct visit visit;

    (void)cf_err_set(&why, CF_EUNAVAIL, "enough");
    visit_start(&visit, _i, wait_for_parent, NULL);
    EVENTUALLY(atomic_load(&ran) == 2);
    cf_ctx_cancel_cause(parent, CF_REASON_OPERATOR, &why);
    visit_join(&visit);
}
END_TEST

/* Tasks of tasks */

static enum cf_code branch(struct cf_ctx *ctx, void *arg, struct cf_err *task_err)
{
    intptr_t depth = (intptr_t)arg;

    (void)count(ctx, arg, task_err);
    if (depth > 0) {
        cf_group_go(group, branch, (void *)(depth - 1));
        cf_group_go(group, branch, (void *)(depth - 1));
    }
    return cf_yield(ctx, task_err);
}

static void go_a_tree(void *arg)
{
    cf_group_go(group, branch, arg);
    wait_in_vain(NULL);
    EXPECT(atomic_load(&ran) == 63);
}

START_TEST(go_from_tasks_is_waited_for)
{
    place_run(_i, go_a_tree, (void *)(intptr_t)5);
}
END_TEST

/* Without memory */

static void go_without_memory(void *arg)
{
    struct cf_cause cause;
    struct cf_err failure;

    cf_group_set_limit(group, 2);
    cf_group_go(group, wait_for_end, arg);
    fault_alloc(1, false);
    if (*(bool *)arg) {
        cf_group_go(group, count, NULL);
    } else {
        EXPECT(cf_group_try_go(group, count, NULL)); /* It had its slot. */
    }
    EXPECT(fault_off());
    EXPECT(cf_ctx_cause(cf_group_ctx(group), &cause));
    EXPECT(cause.reason == CF_REASON_SIBLING_FAILED);
    EXPECT(cause.err.code == CF_ENOMEM);
    EXPECT(cf_group_wait(group, &failure) == CF_ENOMEM);
    EXPECT(failure.code == CF_ENOMEM);
    EXPECT(atomic_load(&ran) == 1);
    /* Its slot was given back: there are two, not one and not three. */
    EXPECT(cf_group_try_go(group, wait_at_gate, NULL));
    EXPECT(cf_group_try_go(group, wait_at_gate, NULL));
    EXPECT(!cf_group_try_go(group, wait_at_gate, NULL));
    cf_ctx_cancel(gate);
    EXPECT(cf_group_wait(group, &failure) == CF_ENOMEM);
}

START_TEST(go_out_of_memory)
{
    bool waits = _i / PLACES == 0;

    place_run(_i % PLACES, go_without_memory, &waits);
}
END_TEST

/* Neither a thread's stack nor a fiber's can be mapped. */
static void go_without_a_stack(void *arg)
{
    struct cf_err failure;

    cf_group_go(group, count, NULL);
    *(enum cf_code *)arg = cf_group_wait(group, &failure);
}

START_TEST(go_without_room_for_a_stack)
{
    static const struct cf_loop_options options = {.stack_size = (size_t)256 * 1024 * 1024,
                                                   .stacks_kept = 1};
    enum cf_code code = CF_OK;
    FILE *statm;
    unsigned long pages = 0;
    struct rlimit before;
    struct rlimit tight;
    struct cf_loop *loop;

    if (effort_is_watched()) {
        return; /* These tools need more address space than any limit would leave. */
    }
    ck_assert_int_eq(cf_loop_new(&options, &loop, &err), CF_OK);
    statm = fopen("/proc/self/statm", "re");
    ck_assert_ptr_nonnull(statm);
    ck_assert_int_eq(fscanf(statm, "%lu", &pages), 1);
    (void)fclose(statm);
    ck_assert_int_eq(getrlimit(RLIMIT_AS, &before), 0);
    /* On the loop, room for the stack that calls, and for no other. */
    tight = (struct rlimit){.rlim_cur = pages * (rlim_t)sysconf(_SC_PAGESIZE) + 1024 * 1024 +
                                        (_i == PLACE_FIBER ? options.stack_size : 0),
                            .rlim_max = before.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &tight), 0);
    if (_i == PLACE_FIBER) {
        ck_assert_int_eq(cf_loop_call(loop, go_without_a_stack, &code, &err), CF_OK);
    } else {
        go_without_a_stack(&code);
    }
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &before), 0);
    ck_assert_int_eq(code, _i == PLACE_FIBER ? CF_ENOMEM : CF_EUNAVAIL);
    ck_assert_int_eq(atomic_load(&ran), 0);
    cf_loop_free(loop);
}
END_TEST

/* Races */

#define STRESS_LIMIT 4

struct stress {
    atomic_int active;
    atomic_int too_many;
    atomic_int began;
    atomic_int failed;
    _Atomic unsigned seed;
    long rounds_failed;
    long rounds_fine;
};

static enum cf_code fail_sometimes(struct cf_ctx *ctx, void *arg, struct cf_err *task_err)
{
    struct stress *stress = arg;
    unsigned dice = atomic_fetch_add(&stress->seed, 1) * 2654435761U >> 16;
    int active = atomic_fetch_add(&stress->active, 1) + 1;
    enum cf_code code = CF_OK;

    (void)atomic_fetch_add(&stress->began, 1);
    if (active > STRESS_LIMIT) {
        (void)atomic_fetch_add(&stress->too_many, 1);
    }
    if (dice % 4 == 0) {
        code = cf_sleep(ctx, dice % 50 * CF_US, task_err);
    } else {
        code = cf_yield(ctx, task_err);
    }
    if (code == CF_OK && dice % 64 == 1) {
        code = cf_err_set(task_err, CF_ECONFLICT, "task %d", atomic_fetch_add(&stress->failed, 1));
    }
    (void)atomic_fetch_sub(&stress->active, 1);
    return code;
}

static void run_rounds(void *arg)
{
    struct stress *stress = arg;
    int64_t until_ns = effort_brief_stress_until_ns();

    while (EFFORT_GOES_ON(until_ns, stress->rounds_failed > 0 && stress->rounds_fine > 0)) {
        struct cf_group *made;
        struct cf_cause cause;
        struct cf_err failure;
        enum cf_code code;

        atomic_store(&stress->began, 0);
        atomic_store(&stress->failed, 0);
        EXPECT(cf_group_new(cf_ctx_background(), &made, NULL) == CF_OK);
        cf_group_set_limit(made, STRESS_LIMIT);
        for (int i = 0; i < 30; i++) {
            cf_group_go(made, fail_sometimes, stress);
        }
        code = cf_group_wait(made, &failure);
        EXPECT(atomic_load(&stress->active) == 0);
        EXPECT(cf_ctx_cause(cf_group_ctx(made), &cause));
        if (code == CF_OK) {
            EXPECT(atomic_load(&stress->failed) == 0);
            EXPECT(atomic_load(&stress->began) == 30);
            stress->rounds_fine++;
        } else {
            /* Only a task of ours begins it; that the others were canceled comes later. */
            EXPECT(code == CF_ECONFLICT);
            EXPECT(cause.reason == CF_REASON_SIBLING_FAILED);
            EXPECT(strcmp(cause.err.msg, failure.msg) == 0);
            EXPECT(atomic_load(&stress->failed) > 0);
            stress->rounds_failed++;
        }
        cf_group_free(made);
    }
}

START_TEST(go_and_fail_race)
{
    struct stress stress = {.seed = 1};

    place_run(_i, run_rounds, &stress);
    ck_assert_int_eq(atomic_load(&stress.too_many), 0);
    ck_assert_int_gt(stress.rounds_failed, 0);
    ck_assert_int_gt(stress.rounds_fine, 0);
}
END_TEST

Suite *suite_group(void)
{
    Suite *suite = suite_create("group");
    TCase *tc = tcase_create("new");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, new_out_of_memory);
    tcase_add_test(tc, new_of_a_done_context_is_done);
    suite_add_tcase(suite, tc);

    tc = tcase_create("free");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, free_without_a_task_needs_no_wait);
    suite_add_tcase(suite, tc);

    tc = tcase_create("go");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, go_runs_fibers_on_a_loop_and_threads_elsewhere, 0, PLACES);
    tcase_add_loop_test(tc, go_blocks_the_signals_of_its_tasks, 0, PLACES);
    tcase_add_loop_test(tc, go_from_tasks_is_waited_for, 0, PLACES);
    tcase_add_loop_test(tc, go_out_of_memory, 0, 2 * PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("go"); /* Of its own kernel: see tests/README.md. */
    tcase_set_tags(tc, "kernel");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, go_without_room_for_a_stack, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("wait");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, wait_without_tasks_returns_at_once, 0, PLACES);
    tcase_add_loop_test(tc, wait_lasts_until_the_last_task_has_ended, 0, PLACES);
    tcase_add_loop_test(tc, wait_ends_when_the_parent_is_canceled, 0, PLACES);
    tcase_add_loop_test(tc, fail_is_the_cause_that_siblings_see, 0, PLACES);
    tcase_add_loop_test(tc, fail_is_what_the_task_returns, 0, PLACES);
    tcase_add_loop_test(tc, fail_of_the_first_is_kept, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("race");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, EFFORT_STRESS_SECONDS_MAX);
    tcase_add_loop_test(tc, go_and_fail_race, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("asserts");
    tcase_set_tags(tc, "fork");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test_raise_signal(tc, free_while_a_task_runs_asserts, SIGABRT, 0, PLACES);
    suite_add_tcase(suite, tc);
    return suite;
}
