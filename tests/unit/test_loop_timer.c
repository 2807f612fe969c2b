/* SPDX-License-Identifier: MIT */
/* A loop as a source of timers and of deferred functions. */
#include <curfew/loop.h>

#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <curfew/clock.h>
#include <curfew/ctx.h>
#include <curfew/wait.h>

#include "curfew/core/list.h"
#include "effort.h"
#include "fault.h"
#include "places.h"

/* Fixture */

static struct cf_loop *loop;
static struct cf_timer_source *source; /* The loop's. */
static struct cf_ctx *ctx;
static struct cf_ctx *hold; /* Cancelled to let fibers go. */
static struct cf_err err;

static void find_source(void *arg)
{
    (void)arg;
    source = cf_timer_source();
}

static void setup(void)
{
    ck_assert_int_eq(cf_loop_new(NULL, &loop, &err), CF_OK);
    ck_assert_int_eq(cf_loop_call(loop, find_source, NULL, &err), CF_OK);
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &ctx, &err), CF_OK);
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &hold, &err), CF_OK);
}

static void end_loop(void)
{
    cf_loop_free(loop);
    loop = NULL;
}

static void teardown(void)
{
    end_loop();
    cf_ctx_free(ctx);
    cf_ctx_free(hold);
}

/* Helpers */

static void run(cf_fiber_fn fn, void *arg)
{
    ck_assert_int_eq(cf_loop_call(loop, fn, arg, &err), CF_OK);
}

static void do_nothing(void *arg)
{
    (void)arg;
}

/* A timer that keeps when and as which it fired. */
struct alarm {
    struct cf_timer timer;
    int64_t at_ns;
    int64_t fired_ns; /* Loop thread only until it is counted. */
    int fired_as;
    atomic_int *count;
    bool armed;
    bool on_fiber;
    struct cf_loop *on_loop;
};

static void on_alarm(struct cf_timer *timer)
{
    struct alarm *alarm = CF__CONTAINER(timer, struct alarm, timer);

    alarm->fired_ns = cf_now_ns();
    alarm->on_fiber = cf_on_fiber();
    alarm->on_loop = cf_loop_current();
    alarm->fired_as = atomic_load(alarm->count);
    (void)atomic_fetch_add(alarm->count, 1);
}

static void set_alarm(struct alarm *alarm, atomic_int *count, int64_t at_ns)
{
    *alarm = (struct alarm){.timer.fire = on_alarm, .at_ns = at_ns, .count = count};
}

static void arm(struct alarm *alarm)
{
    alarm->armed = source->arm(source, &alarm->timer, alarm->at_ns);
}

static void arm_one(void *arg)
{
    arm(arg);
}

/* arm */

#define ALARMS 64

struct alarms {
    atomic_int count;
    struct alarm alarms[ALARMS];
};

/* Times between now and 40 ms from now, in no order and off the millisecond. */
static void arm_scattered(void *arg)
{
    struct alarms *self = arg;
    int64_t now_ns = cf_now_ns();

    for (int i = 0; i < ALARMS; i++) {
        set_alarm(&self->alarms[i], &self->count, now_ns + (i * 37 % ALARMS) * 617 * CF_US + i);
        arm(&self->alarms[i]);
    }
}

START_TEST(arm_fires_each_once_and_never_early)
{
    struct alarms self = {.count = 0};

    run(arm_scattered, &self);
    EVENTUALLY(atomic_load(&self.count) == ALARMS);
    end_loop();
    ck_assert_int_eq(atomic_load(&self.count), ALARMS);
    for (int i = 0; i < ALARMS; i++) {
        ck_assert(self.alarms[i].armed);
        ck_assert_int_ge(self.alarms[i].fired_ns, self.alarms[i].at_ns);
        ck_assert_int_lt(self.alarms[i].fired_ns, self.alarms[i].at_ns + 15 * CF_SECOND);
        ck_assert(!self.alarms[i].on_fiber);
    }
}
END_TEST

START_TEST(arm_fires_in_the_order_of_time)
{
    struct alarms self = {.count = 0};

    run(arm_scattered, &self);
    EVENTUALLY(atomic_load(&self.count) == ALARMS);
    for (int i = 0; i < ALARMS; i++) {
        for (int k = 0; k < ALARMS; k++) {
            ck_assert_int_eq(self.alarms[i].at_ns < self.alarms[k].at_ns,
                             self.alarms[i].fired_as < self.alarms[k].fired_as);
        }
    }
}
END_TEST

START_TEST(arm_in_the_past_fires_soon)
{
    atomic_int count = 0;
    struct alarm alarm;

    set_alarm(&alarm, &count, cf_now_ns() - CF_SECOND);
    run(arm_one, &alarm);
    EVENTUALLY(atomic_load(&count) == 1);
    ck_assert_ptr_eq(alarm.on_loop, loop);
}
END_TEST

/* The loop sleeps towards the late one when the early one comes. */
START_TEST(arm_of_an_earlier_timer_is_not_late)
{
    atomic_int count = 0;
    struct alarm late;
    struct alarm early;

    set_alarm(&late, &count, cf_now_ns() + 3600 * CF_SECOND);
    run(arm_one, &late);
    set_alarm(&early, &count, cf_now_ns() + 10 * CF_MS);
    run(arm_one, &early);
    EVENTUALLY(atomic_load(&count) == 1);
    ck_assert_int_ge(early.fired_ns, early.at_ns);
    ck_assert(source->disarm(source, &late.timer));
}
END_TEST

static void on_alarm_again(struct cf_timer *timer)
{
    struct alarm *alarm = CF__CONTAINER(timer, struct alarm, timer);

    on_alarm(timer);
    if (atomic_load(alarm->count) < 5) {
        arm(alarm);
    }
}

START_TEST(arm_from_a_firing_timer)
{
    atomic_int count = 0;
    struct alarm alarm;

    set_alarm(&alarm, &count, cf_now_ns());
    alarm.timer.fire = on_alarm_again;
    run(arm_one, &alarm);
    EVENTUALLY(atomic_load(&count) == 5);
}
END_TEST

static void arm_without_memory(void *arg)
{
    fault_alloc(1, false);
    arm(arg);
    if (!fault_off()) {
        abort();
    }
}

START_TEST(arm_out_of_memory)
{
    atomic_int count = 0;
    struct alarm alarm;

    set_alarm(&alarm, &count, cf_now_ns());
    run(arm_without_memory, &alarm);
    ck_assert(!alarm.armed);
    ck_assert(!source->disarm(source, &alarm.timer));
    run(arm_one, &alarm);
    ck_assert(alarm.armed);
    EVENTUALLY(atomic_load(&count) == 1);
}
END_TEST

START_TEST(arm_from_another_thread_asserts)
{
    atomic_int count = 0;
    struct alarm alarm;

    set_alarm(&alarm, &count, cf_now_ns() + CF_SECOND);
    arm(&alarm);
}
END_TEST

/* disarm */

static void disarm_one(void *arg)
{
    struct alarm *alarm = arg;

    alarm->armed = !source->disarm(source, &alarm->timer);
}

/* Arm two and take the first back, on the loop or from here; wait for the rest. False: it was due
 * before that. */
static bool disarm_first(bool on_loop)
{
    atomic_int count = 0;
    struct alarm disarmed;
    struct alarm behind;

    set_alarm(&disarmed, &count, cf_now_ns() + CF_SECOND); /* Time enough to take it back. */
    set_alarm(&behind, &count, disarmed.at_ns + CF_MS);
    run(arm_one, &disarmed);
    run(arm_one, &behind);
    if (on_loop) {
        run(disarm_one, &disarmed);
    } else {
        disarm_one(&disarmed);
    }
    ck_assert(!disarmed.armed || cf_now_ns() >= disarmed.at_ns);
    ck_assert(!source->disarm(source, &disarmed.timer));
    EVENTUALLY(atomic_load(&count) == (disarmed.armed ? 2 : 1));
    end_loop();
    ck_assert_int_eq(disarmed.fired_ns != 0, disarmed.armed);
    ck_assert_int_gt(behind.fired_ns, 0);
    return !disarmed.armed;
}

/* From the loop and from elsewhere. */
START_TEST(disarm_prevents_firing)
{
    for (int tries = 1; !disarm_first(_i == 0); tries++) {
        ck_assert_int_lt(tries, 5);
        teardown();
        setup();
    }
}
END_TEST

START_TEST(disarm_after_firing_says_so)
{
    atomic_int count = 0;
    struct alarm alarm;

    set_alarm(&alarm, &count, cf_now_ns());
    run(arm_one, &alarm);
    EVENTUALLY(atomic_load(&count) == 1);
    ck_assert(!source->disarm(source, &alarm.timer));
}
END_TEST

/* Timers become due while another thread takes them back: each ends in one way. */
static void arm_crowded(void *arg)
{
    struct alarms *self = arg;
    int64_t now_ns = cf_now_ns();

    for (int i = 0; i < ALARMS; i++) {
        set_alarm(&self->alarms[i], &self->count, now_ns + i * 20 * CF_US);
        arm(&self->alarms[i]);
    }
}

START_TEST(disarm_races_firing)
{
    int64_t until_ns = effort_until_ns();
    long disarmed_all = 0;
    long fired_all = 0;

    while (EFFORT_GOES_ON(until_ns, disarmed_all > 0 && fired_all > 0)) {
        struct alarms self = {.count = 0};
        int disarmed = 0;
        bool taken[ALARMS];

        run(arm_crowded, &self);
        for (int i = ALARMS - 1; i >= 0; i--) {
            taken[i] = source->disarm(source, &self.alarms[i].timer);
            disarmed += taken[i];
        }
        EVENTUALLY(atomic_load(&self.count) == ALARMS - disarmed);
        run(do_nothing, NULL);
        for (int i = 0; i < ALARMS; i++) {
            if (taken[i] == (self.alarms[i].fired_ns != 0)) {
                ck_abort_msg("timer %d: taken back %d, fired at %lld", i, taken[i],
                             (long long)self.alarms[i].fired_ns);
            }
        }
        disarmed_all += disarmed;
        fired_all += ALARMS - disarmed;
    }
    ck_assert_int_gt(disarmed_all, 0);
    ck_assert_int_gt(fired_all, 0);
}
END_TEST

/* defer: cf_ctx_after() on a loop */

struct later {
    struct cf_ctx_after *after;
    enum cf_code code;
    struct cf_ctx *hold; /* The function waits for its end. NULL: it does not. */
    atomic_bool began;
    bool on_fiber;
    struct cf_loop *on_loop;
    pthread_t thread;
    bool before_return; /* It ran inside cf_ctx_after(). */
    bool returned;
    atomic_int calls;
};

static void on_done(void *arg)
{
    struct later *later = arg;

    later->on_fiber = cf_on_fiber();
    later->on_loop = cf_loop_current();
    later->thread = pthread_self();
    later->before_return = !later->returned;
    atomic_store(&later->began, true);
    if (later->hold != NULL) {
        place_wait(later->hold);
    }
    (void)atomic_fetch_add(&later->calls, 1);
}

static void ask(void *arg)
{
    struct later *later = arg;

    later->code = cf_ctx_after(ctx, on_done, later, &later->after, NULL);
    later->returned = true;
}

START_TEST(defer_runs_as_a_fiber_of_its_loop_that_may_wait)
{
    struct later later = {.hold = hold};

    run(ask, &later);
    ck_assert_int_eq(later.code, CF_OK);
    cf_ctx_cancel(ctx);
    EVENTUALLY(atomic_load(&later.began));
    run(do_nothing, NULL); /* The loop goes on meanwhile. */
    ck_assert_int_eq(atomic_load(&later.calls), 0);
    cf_ctx_cancel(hold);
    EVENTUALLY(atomic_load(&later.calls) == 1);
    ck_assert(later.on_fiber);
    ck_assert_ptr_eq(later.on_loop, loop);
    ck_assert(!cf_ctx_after_stop(later.after));
}
END_TEST

START_TEST(defer_of_a_done_context_runs_after_the_call)
{
    struct later later = {.hold = NULL};

    cf_ctx_cancel(ctx);
    run(ask, &later);
    EVENTUALLY(atomic_load(&later.calls) == 1);
    ck_assert(later.on_fiber);
    ck_assert(!later.before_return);
    ck_assert(!cf_ctx_after_stop(later.after));
}
END_TEST

START_TEST(defer_off_the_loops_runs_on_the_timer_thread)
{
    struct later later = {.hold = NULL};

    ask(&later);
    cf_ctx_cancel(ctx);
    EVENTUALLY(atomic_load(&later.calls) == 1);
    ck_assert(!later.on_fiber);
    ck_assert_ptr_null(later.on_loop);
    ck_assert(!pthread_equal(later.thread, pthread_self()));
    ck_assert(!cf_ctx_after_stop(later.after));
}
END_TEST

START_TEST(defer_that_was_stopped_does_not_run)
{
    struct later later = {.hold = NULL};

    run(ask, &later);
    ck_assert(cf_ctx_after_stop(later.after));
    cf_ctx_cancel(ctx);
    end_loop();
    ck_assert_int_eq(atomic_load(&later.calls), 0);
}
END_TEST

static void cancel_on_loop(void *arg)
{
    (void)arg;
    cf_ctx_cancel(ctx);
}

START_TEST(defer_runs_all_before_the_loop_ends)
{
    struct later laters[20];

    memset(laters, 0, sizeof(laters));
    for (int i = 0; i < 20; i++) {
        run(ask, &laters[i]);
    }
    run(cancel_on_loop, NULL);
    end_loop();
    for (int i = 0; i < 20; i++) {
        ck_assert_int_eq(atomic_load(&laters[i].calls), 1);
        ck_assert(!cf_ctx_after_stop(laters[i].after));
    }
}
END_TEST

static size_t address_space_used(void)
{
    FILE *statm = fopen("/proc/self/statm", "re");
    unsigned long pages = 0;

    ck_assert_ptr_nonnull(statm);
    ck_assert_int_eq(fscanf(statm, "%lu", &pages), 1);
    (void)fclose(statm);
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* Deferring cannot fail: a function for which no stack can be had waits for one, and the loop goes
 * on with the rest. Here the one stack of the pool is all there is. */
START_TEST(defer_out_of_memory_waits_for_a_stack)
{
    static const struct cf_loop_options options = {.stack_size = (size_t)256 * 1024 * 1024,
                                                   .stacks_kept = 1};
    struct later first = {.hold = hold};
    struct later second = {.hold = NULL};
    atomic_int count = 0;
    struct alarm alarm;
    struct rlimit before;
    struct rlimit tight;

    if (effort_is_watched()) {
        return; /* These tools need more address space than any limit would leave. */
    }
    end_loop();
    ck_assert_int_eq(cf_loop_new(&options, &loop, &err), CF_OK);
    run(find_source, NULL);
    run(ask, &first);
    run(ask, &second);
    set_alarm(&alarm, &count, cf_now_ns() + 20 * CF_MS);
    run(arm_one, &alarm);
    EVENTUALLY(cf_loop_fibers(loop) == 0);
    ck_assert_int_eq(getrlimit(RLIMIT_AS, &before), 0);
    tight = (struct rlimit){.rlim_cur = address_space_used() + options.stack_size / 2,
                            .rlim_max = before.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &tight), 0);

    cf_ctx_cancel(ctx);
    EVENTUALLY(atomic_load(&first.began));
    EVENTUALLY(atomic_load(&count) == 1);
    ck_assert(!atomic_load(&second.began));
    cf_ctx_cancel(hold);
    EVENTUALLY(atomic_load(&second.calls) == 1);

    ck_assert_int_eq(setrlimit(RLIMIT_AS, &before), 0);
    ck_assert_int_eq(atomic_load(&first.calls), 1);
    ck_assert(!cf_ctx_after_stop(first.after));
    ck_assert(!cf_ctx_after_stop(second.after));
}
END_TEST

Suite *suite_loop_timer(void)
{
    Suite *suite = suite_create("loop_timer");
    TCase *tc = tcase_create("arm");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, arm_fires_each_once_and_never_early);
    tcase_add_test(tc, arm_fires_in_the_order_of_time);
    tcase_add_test(tc, arm_in_the_past_fires_soon);
    tcase_add_test(tc, arm_of_an_earlier_timer_is_not_late);
    tcase_add_test(tc, arm_from_a_firing_timer);
    tcase_add_test(tc, arm_out_of_memory);
    suite_add_tcase(suite, tc);

    tc = tcase_create("disarm");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, disarm_prevents_firing, 0, 2);
    tcase_add_test(tc, disarm_after_firing_says_so);
    tcase_add_test(tc, disarm_races_firing);
    suite_add_tcase(suite, tc);

    tc = tcase_create("defer");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, defer_runs_as_a_fiber_of_its_loop_that_may_wait);
    tcase_add_test(tc, defer_of_a_done_context_runs_after_the_call);
    tcase_add_test(tc, defer_off_the_loops_runs_on_the_timer_thread);
    tcase_add_test(tc, defer_that_was_stopped_does_not_run);
    tcase_add_test(tc, defer_runs_all_before_the_loop_ends);
    suite_add_tcase(suite, tc);

    tc = tcase_create("defer"); /* Of its own kernel: see tests/README.md. */
    tcase_set_tags(tc, "kernel");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, defer_out_of_memory_waits_for_a_stack);
    suite_add_tcase(suite, tc);

    tc = tcase_create("asserts");
    tcase_set_tags(tc, "fork");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test_raise_signal(tc, arm_from_another_thread_asserts, SIGABRT);
    suite_add_tcase(suite, tc);
    return suite;
}
