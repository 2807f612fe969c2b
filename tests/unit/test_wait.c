/* SPDX-License-Identifier: MIT */
/* Waiting for time, contexts and descriptors, each from a plain thread and from a fiber. The matrix
 * that all of them go through is in waits.h. */
#include <curfew/wait.h>

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <curfew/clock.h>
#include <curfew/loop.h>

#include "curfew/runtime/loop_private.h"
#include "effort.h"
#include "waits.h"

/* sleep */

START_TEST(sleep_is_never_shorter)
{
    static const int64_t periods_ns[] = {1, CF_US, 999 * CF_US, CF_MS + 1, 12345 * CF_US};

    for (size_t i = 0; i < sizeof(periods_ns) / sizeof(periods_ns[0]); i++) {
        struct call call = {.ctx = ctx, .period_ns = periods_ns[i]};

        place_run(_i, call_sleep, &call);
        ck_assert_int_eq(call.code, CF_OK);
        ck_assert_int_ge(call.ended_ns - call.began_ns, periods_ns[i]);
        ck_assert_int_lt(call.ended_ns - call.began_ns, periods_ns[i] + LATE_NS);
    }
}
END_TEST

START_TEST(sleep_of_nothing_returns_at_once)
{
    static const int64_t periods_ns[] = {0, -1, -CF_SECOND, INT64_MIN};

    for (size_t i = 0; i < sizeof(periods_ns) / sizeof(periods_ns[0]); i++) {
        struct call call = {.ctx = ctx, .period_ns = periods_ns[i], .fail_nth = 1};

        place_run(_i, call_sleep, &call);
        ck_assert_int_eq(call.code, CF_OK);
        ck_assert(!call.struck); /* It did not even get ready to wait. */
    }
}
END_TEST

START_TEST(sleep_with_a_context_that_never_ends)
{
    struct call call = {.ctx = cf_ctx_background(), .period_ns = 5 * CF_MS};

    place_run(_i, call_sleep, &call);
    ck_assert_int_eq(call.code, CF_OK);
    ck_assert_int_ge(call.ended_ns - call.began_ns, 5 * CF_MS);
}
END_TEST

START_TEST(sleep_already_canceled)
{
    check_already_canceled(_i, call_sleep);
}
END_TEST

START_TEST(sleep_already_late)
{
    check_already_late(_i, call_sleep);
}
END_TEST

START_TEST(sleep_canceled_while_waiting)
{
    check_canceled_while_waiting(_i, call_sleep);
}
END_TEST

START_TEST(sleep_deadline_while_waiting)
{
    check_deadline_while_waiting(_i, call_sleep);
}
END_TEST

/* A sleep up to the context's own deadline is too long. */
START_TEST(sleep_as_long_as_the_deadline_is_late)
{
    struct call call = {.ctx = ctx, .timeout_ns = 5 * CF_MS, .period_ns = CF_SECOND};

    place_run(_i, call_sleep, &call);
    ck_assert_int_eq(call.code, CF_EDEADLINE);
    ck_assert_int_ge(call.ended_ns - call.began_ns, 5 * CF_MS);
}
END_TEST

static void race_sleep(void *arg)
{
    struct race *race = arg;
    int64_t until_ns = effort_until_ns();
    unsigned seed = 3;

    while (race_goes_on(race, until_ns)) {
        struct call call = {.ctx = new_ctx(), .period_ns = rand_r(&seed) % (200 * CF_US)};

        atomic_store(&race->canceler.ctx, call.ctx);
        rival_ask(&race->canceler);
        make_call(do_sleep, &call);
        judge(race, call.code, call.ended_ns - call.began_ns >= call.period_ns, call.ctx);
        rival_settle(&race->canceler);
        cf_ctx_free(call.ctx);
    }
}

START_TEST(sleep_success_races_cancel)
{
    check_race(_i, race_sleep, give_nothing);
}
END_TEST

START_TEST(sleep_out_of_memory)
{
    struct call call = {.ctx = ctx, .period_ns = CF_MS};

    ck_assert_int_gt(check_out_of_memory(_i, call_sleep, &call), 0);
}
END_TEST

/* sleep_until */

START_TEST(sleep_until_is_never_early)
{
    struct call call = {.ctx = ctx, .period_ns = 7 * CF_MS + 1};

    place_run(_i, call_sleep_until, &call);
    ck_assert_int_eq(call.code, CF_OK);
    ck_assert_int_ge(call.ended_ns, call.began_ns + call.period_ns);
    ck_assert_int_lt(call.ended_ns, call.began_ns + call.period_ns + LATE_NS);
}
END_TEST

START_TEST(sleep_until_the_past_returns_at_once)
{
    struct call call = {.ctx = ctx, .period_ns = -CF_SECOND, .fail_nth = 1};

    place_run(_i, call_sleep_until, &call);
    ck_assert_int_eq(call.code, CF_OK);
    ck_assert(!call.struck);
}
END_TEST

START_TEST(sleep_until_already_canceled)
{
    check_already_canceled(_i, call_sleep_until);
}
END_TEST

START_TEST(sleep_until_canceled_while_waiting)
{
    check_canceled_while_waiting(_i, call_sleep_until);
}
END_TEST

START_TEST(sleep_until_deadline_while_waiting)
{
    check_deadline_while_waiting(_i, call_sleep_until);
}
END_TEST

START_TEST(sleep_until_out_of_memory)
{
    struct call call = {.ctx = ctx, .period_ns = 20 * CF_MS};

    ck_assert_int_gt(check_out_of_memory(_i, call_sleep_until, &call), 0);
}
END_TEST

struct sleeper {
    int64_t at_ns;
    int *next;
    int woke_as;
};

static void sleep_and_note(void *arg)
{
    struct sleeper *sleeper = arg;

    if (cf_sleep_until(ctx, sleeper->at_ns, NULL) == CF_OK) {
        sleeper->woke_as = (*sleeper->next)++;
    }
}

static void note_time(void *arg)
{
    *(int64_t *)arg = cf_now_ns();
}

#define SLEEPERS 20

/* Returns whether all slept before the first was to wake: of those that come too late, each returns
 * at once. */
static bool sleep_in_a_crowd(struct sleeper *sleepers)
{
    int64_t at_ns = cf_now_ns() + 200 * CF_MS;
    int64_t asleep_ns;
    struct cf_loop *loop;
    int next = 0;

    ck_assert_int_eq(cf_loop_new(NULL, &loop, &failure), CF_OK);
    for (int i = 0; i < SLEEPERS; i++) {
        sleepers[i] = (struct sleeper){at_ns + (int64_t)(i * 7 % SLEEPERS) * CF_US, &next, -1};
        ck_assert_int_eq(cf_loop_spawn(loop, sleep_and_note, &sleepers[i], &failure), CF_OK);
    }
    /* Fibers begin in turn. */
    ck_assert_int_eq(cf_loop_spawn(loop, note_time, &asleep_ns, &failure), CF_OK);
    cf_loop_free(loop);
    ck_assert_int_eq(next, SLEEPERS);
    return asleep_ns < at_ns;
}

START_TEST(sleep_until_wakes_fibers_in_the_order_of_time)
{
    struct sleeper sleepers[SLEEPERS];

    for (int tries = 1; !sleep_in_a_crowd(sleepers); tries++) {
        ck_assert_int_lt(tries, 10);
    }
    for (int i = 0; i < SLEEPERS; i++) {
        ck_assert_int_eq(sleepers[i].woke_as, i * 7 % SLEEPERS);
    }
}
END_TEST

/* yield */

START_TEST(yield_already_canceled)
{
    check_already_canceled(_i, call_yields);
}
END_TEST

START_TEST(yield_already_late)
{
    check_already_late(_i, call_yields);
}
END_TEST

START_TEST(yield_canceled_while_waiting)
{
    struct call call = endless();
    struct visit visit;

    visit_start(&visit, _i, call_yields, &call);
    EVENTUALLY(atomic_load(&call.rounds) > 1000);
    cf_ctx_cancel(ctx);
    visit_join(&visit);
    ck_assert_int_eq(call.code, CF_ECANCELED);
    ck_assert_int_eq(call.err.code, CF_ECANCELED);
}
END_TEST

START_TEST(yield_deadline_while_waiting)
{
    check_deadline_while_waiting(_i, call_yields);
}
END_TEST

START_TEST(yield_needs_no_memory)
{
    struct call call = {.ctx = ctx, .timeout_ns = 5 * CF_MS, .fail_nth = 1};

    place_run(_i, call_yields, &call);
    ck_assert(!call.struck);
}
END_TEST

/* wait_done */

START_TEST(wait_done_of_a_done_context_returns_at_once)
{
    struct call call = endless();

    cf_ctx_cancel(target);
    place_run(_i, call_wait_done, &call);
    ck_assert_int_eq(call.code, CF_OK);
}
END_TEST

START_TEST(wait_done_ends_when_the_target_is_canceled)
{
    struct call call = endless();
    struct visit visit;

    visit_start(&visit, _i, call_wait_done, &call);
    visit_wait_parked(&visit);
    cf_ctx_cancel(target);
    visit_join(&visit);
    ck_assert_int_eq(call.code, CF_OK);
    ck_assert_int_eq(cf_ctx_err(ctx), CF_OK);
}
END_TEST

START_TEST(wait_done_ends_at_the_deadline_of_the_target)
{
    struct call call = endless();
    int64_t deadline_ns = cf_now_ns() + 10 * CF_MS;

    ck_assert_int_eq(cf_ctx_with_deadline(target, deadline_ns, &call.target, &failure), CF_OK);
    place_run(_i, call_wait_done, &call);
    ck_assert_int_eq(call.code, CF_OK);
    ck_assert_int_ge(call.ended_ns, deadline_ns);
    ck_assert_int_eq(cf_ctx_err(call.target), CF_EDEADLINE);
    cf_ctx_free(call.target);
}
END_TEST

START_TEST(wait_done_already_canceled)
{
    check_already_canceled(_i, call_wait_done);
}
END_TEST

START_TEST(wait_done_already_late)
{
    check_already_late(_i, call_wait_done);
}
END_TEST

START_TEST(wait_done_canceled_while_waiting)
{
    check_canceled_while_waiting(_i, call_wait_done);
}
END_TEST

START_TEST(wait_done_deadline_while_waiting)
{
    check_deadline_while_waiting(_i, call_wait_done);
}
END_TEST

START_TEST(wait_done_of_the_background_ends_with_its_own_context)
{
    struct call call = endless();
    struct visit visit;

    call.target = cf_ctx_background();
    visit_start(&visit, _i, call_wait_done, &call);
    visit_wait_parked(&visit);
    cf_ctx_cancel(ctx);
    visit_join(&visit);
    ck_assert_int_eq(call.code, CF_ECANCELED);
}
END_TEST

/* Both ends come with one cancel: it does not say which is first, but one of them it is. */
START_TEST(wait_done_of_its_own_context_ends)
{
    struct call call = endless();
    struct visit visit;

    call.target = ctx;
    visit_start(&visit, _i, call_wait_done, &call);
    visit_wait_parked(&visit);
    cf_ctx_cancel(ctx);
    visit_join(&visit);
    ck_assert(call.code == CF_OK || call.code == CF_ECANCELED);
}
END_TEST

static void race_wait_done(void *arg)
{
    struct race *race = arg;
    int64_t until_ns = effort_until_ns();

    while (race_goes_on(race, until_ns)) {
        struct call call = {.ctx = new_ctx(), .target = new_ctx()};

        atomic_store(&race->canceler.ctx, call.ctx);
        atomic_store(&race->giver.target, call.target);
        rival_ask(&race->canceler);
        rival_ask(&race->giver);
        make_call(do_wait_done, &call);
        judge(race, call.code, cf_ctx_err(call.target) == CF_ECANCELED, call.ctx);
        rival_settle(&race->canceler);
        rival_settle(&race->giver);
        cf_ctx_free(call.ctx);
        cf_ctx_free(call.target);
    }
}

START_TEST(wait_done_success_races_cancel)
{
    check_race(_i, race_wait_done, cancel_target);
}
END_TEST

START_TEST(wait_done_needs_no_memory)
{
    struct call call = endless();
    struct visit visit;

    call.fail_nth = 1;
    visit_start(&visit, _i, call_wait_done, &call);
    visit_wait_parked(&visit);
    cf_ctx_cancel(target);
    visit_join(&visit);
    ck_assert_int_eq(call.code, CF_OK);
    ck_assert(!call.struck);
}
END_TEST

/* wait_fd */

static void fill_pipe(int fd)
{
    char block[4096];

    memset(block, 'x', sizeof(block));
    while (write(fd, block, sizeof(block)) > 0) {
    }
    ck_assert_int_eq(errno, EAGAIN);
}

START_TEST(wait_fd_that_is_ready_returns_at_once)
{
    static const struct {
        int asked;
        bool readable;
        bool writable;
        int expected;
    } cases[] = {
        {CF_READABLE, true, true, CF_READABLE},
        {CF_WRITABLE, true, true, CF_WRITABLE},
        {CF_WRITABLE, false, true, CF_WRITABLE},
        {CF_READABLE, true, false, CF_READABLE},
        {CF_READABLE | CF_WRITABLE, true, false, CF_READABLE},
        {CF_READABLE | CF_WRITABLE, false, true, CF_WRITABLE},
        {CF_READABLE | CF_WRITABLE, true, true, CF_READABLE | CF_WRITABLE},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct call call = endless();

        call.events = cases[i].asked;
        if (cases[i].readable) {
            ck_assert_int_eq(write(ends[1], "x", 1), 1);
        }
        if (!cases[i].writable) {
            fill_pipe(ends[0]);
        }
        place_run(_i, call_wait_fd, &call);
        ck_assert_int_eq(call.code, CF_OK);
        ck_assert_int_eq(call.out_events, cases[i].expected);
        teardown_waits();
        setup_waits();
    }
}
END_TEST

START_TEST(wait_fd_becomes_readable)
{
    struct call call = endless();
    struct visit visit;

    visit_start(&visit, _i, call_wait_fd, &call);
    visit_wait_parked(&visit);
    ck_assert_int_eq(write(ends[1], "x", 1), 1);
    visit_join(&visit);
    ck_assert_int_eq(call.code, CF_OK);
    ck_assert_int_eq(call.out_events, CF_READABLE);
}
END_TEST

START_TEST(wait_fd_becomes_writable)
{
    struct call call = endless();
    struct visit visit;
    char block[4096];

    call.events = CF_WRITABLE;
    fill_pipe(ends[0]);
    visit_start(&visit, _i, call_wait_fd, &call);
    visit_wait_parked(&visit);
    while (read(ends[1], block, sizeof(block)) > 0) {
    }
    visit_join(&visit);
    ck_assert_int_eq(call.code, CF_OK);
    ck_assert_int_eq(call.out_events, CF_WRITABLE);
}
END_TEST

START_TEST(wait_fd_with_a_context_that_never_ends)
{
    struct call call = endless();
    struct visit visit;

    call.ctx = cf_ctx_background();
    visit_start(&visit, _i, call_wait_fd, &call);
    visit_wait_parked(&visit);
    ck_assert_int_eq(write(ends[1], "x", 1), 1);
    visit_join(&visit);
    ck_assert_int_eq(call.code, CF_OK);
}
END_TEST

START_TEST(wait_fd_already_canceled)
{
    check_already_canceled(_i, call_wait_fd);
}
END_TEST

START_TEST(wait_fd_already_late)
{
    check_already_late(_i, call_wait_fd);
}
END_TEST

START_TEST(wait_fd_canceled_while_waiting)
{
    check_canceled_while_waiting(_i, call_wait_fd);
}
END_TEST

START_TEST(wait_fd_deadline_while_waiting)
{
    check_deadline_while_waiting(_i, call_wait_fd);
}
END_TEST

/* The next read, or write, tells what happened. */
START_TEST(wait_fd_closed_while_waiting)
{
    struct call call = endless();
    struct visit visit;
    char byte;

    call.events = _i / PLACES == 0 ? CF_READABLE : CF_WRITABLE;
    if (call.events == CF_WRITABLE) {
        fill_pipe(ends[0]);
    }
    visit_start(&visit, _i % PLACES, call_wait_fd, &call);
    visit_wait_parked(&visit);
    (void)close(ends[1]);
    ends[1] = -1;
    visit_join(&visit);
    ck_assert_int_eq(call.code, CF_OK);
    ck_assert_int_eq(call.out_events, call.events);
    if (call.events == CF_READABLE) {
        ck_assert_int_eq(read(ends[0], &byte, 1), 0);
    } else {
        ck_assert_int_eq(send(ends[0], "x", 1, MSG_NOSIGNAL), -1);
        ck_assert_int_eq(errno, EPIPE);
    }
}
END_TEST

/* A byte is there if, and only if, the wait may say so; and it can be waited for again, whichever
 * way it ended. */
static void race_wait_fd(void *arg)
{
    struct race *race = arg;
    int64_t until_ns = effort_until_ns();

    while (race_goes_on(race, until_ns)) {
        struct call call = endless();
        struct call again = endless();
        char byte;

        call.ctx = new_ctx();
        again.ctx = cf_ctx_background();
        atomic_store(&race->canceler.ctx, call.ctx);
        atomic_store(&race->giver.fd, ends[1]);
        rival_ask(&race->canceler);
        rival_ask(&race->giver);
        make_call(do_wait_fd, &call);
        if (call.code == CF_OK) {
            judge(race, call.code, read(ends[0], &byte, 1) == 1, call.ctx);
        } else {
            judge(race, call.code, false, call.ctx);
            make_call(do_wait_fd, &again);
            if (again.code != CF_OK || read(ends[0], &byte, 1) != 1) {
                judge(race, CF_EINTERNAL, false, call.ctx);
            }
        }
        rival_settle(&race->canceler);
        rival_settle(&race->giver);
        cf_ctx_free(call.ctx);
    }
}

START_TEST(wait_fd_success_races_cancel)
{
    check_race(_i, race_wait_fd, write_byte);
}
END_TEST

/* A thread needs none: it has the descriptor of the context. */
START_TEST(wait_fd_out_of_memory)
{
    struct call call = endless();

    ck_assert_int_eq(write(ends[1], "x", 1), 1);
    ck_assert_int_eq(check_out_of_memory(_i, call_wait_fd, &call), _i == PLACE_FIBER ? 1 : 0);
    ck_assert_int_eq(call.out_events, CF_READABLE);
}
END_TEST

START_TEST(wait_fd_of_a_closed_descriptor)
{
    struct call call = endless();

    /* A high number, which no descriptor that is opened meanwhile takes. */
    call.fd = fcntl(ends[0], F_DUPFD_CLOEXEC, 500);
    ck_assert_int_ge(call.fd, 500);
    ck_assert_int_eq(close(call.fd), 0);
    place_run(_i, call_wait_fd, &call);
    ck_assert_int_eq(call.code, CF_EIO);
    ck_assert_int_eq(call.err.code, CF_EIO);
    ck_assert_int_eq(call.err.sys, EBADF);
    ck_assert_int_eq(call.out_events, -1);
}
END_TEST

/* A context's descriptor is made when a thread first asks; when there is none, that is an error. */
START_TEST(wait_fd_without_descriptors)
{
    struct call call = endless();
    struct rlimit before;
    struct rlimit few = {.rlim_cur = 0};

    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    few.rlim_max = before.rlim_max;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    place_run(PLACE_THREAD, call_wait_fd, &call);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    ck_assert_int_eq(call.code, CF_EIO);
    ck_assert_int_eq(call.err.code, CF_EIO);
    ck_assert_int_eq(call.err.sys, EMFILE);
    ck_assert_ptr_nonnull(strstr(call.err.msg, "wait for descriptor"));
}
END_TEST

struct pair {
    struct call first;
    struct call second;
};

static void wait_twice(void *arg)
{
    struct pair *pair = arg;

    if (cf_loop_spawn(cf_loop_current(), call_wait_fd, &pair->first, NULL) != CF_OK) {
        abort();
    }
    place_yield();
    make_call(do_wait_fd, &pair->second);
    cf_ctx_cancel(pair->first.ctx);
}

START_TEST(wait_fd_by_two_fibers_is_refused)
{
    struct pair pair = {endless(), endless()};

    place_run(PLACE_FIBER, wait_twice, &pair);
    ck_assert_int_eq(pair.first.code, CF_ECANCELED);
    ck_assert_int_eq(pair.second.code, CF_EIO);
    ck_assert_int_eq(pair.second.err.sys, EEXIST);
}
END_TEST

/* Each round closes its descriptors, and the next one has the same numbers: nothing of the old ones
 * may be left in the loop. */
static void wait_for_new_pipes(void *arg)
{
    struct call *call = arg;

    for (int i = 0; i < 100; i++) {
        int pipe_ends[2];

        if (pipe2(pipe_ends, O_CLOEXEC | O_NONBLOCK) != 0 ||
            (i % 2 == 0 && write(pipe_ends[1], "x", 1) != 1)) {
            abort();
        }
        call->fd = pipe_ends[0];
        call->timeout_ns = i % 2 == 0 ? CF_SECOND * 20 : CF_MS;
        make_call(do_wait_fd, call);
        if (call->code == (i % 2 == 0 ? CF_OK : CF_EDEADLINE)) {
            (void)atomic_fetch_add(&call->rounds, 1);
        }
        (void)close(pipe_ends[0]);
        (void)close(pipe_ends[1]);
    }
}

START_TEST(wait_fd_lets_go_of_the_descriptor)
{
    struct call call = endless();

    place_run(_i, wait_for_new_pipes, &call);
    ck_assert_int_eq(atomic_load(&call.rounds), 100);
}
END_TEST

static void do_nothing_on_signal(int signal)
{
    (void)signal;
}

START_TEST(wait_fd_goes_on_after_a_signal)
{
    struct sigaction action = {.sa_handler = do_nothing_on_signal}; /* No SA_RESTART. */
    struct sigaction before;
    struct call call = endless();
    struct visit visit;

    ck_assert_int_eq(sigaction(SIGUSR1, &action, &before), 0);
    visit_start(&visit, PLACE_THREAD, call_wait_fd, &call);
    visit_wait_parked(&visit);
    ck_assert_int_eq(pthread_kill(visit.thread, SIGUSR1), 0);
    visit_wait_parked(&visit);
    ck_assert_int_eq(write(ends[1], "x", 1), 1);
    visit_join(&visit);
    ck_assert_int_eq(sigaction(SIGUSR1, &before, NULL), 0);
    ck_assert_int_eq(call.code, CF_OK);
}
END_TEST

/* Asserts */

struct from_callback {
    struct cf__message message;
    call_fn fn;
    struct call call;
};

static void call_from_callback(struct cf__message *message)
{
    struct from_callback *from = CF__CONTAINER(message, struct from_callback, message);

    make_call(from->fn, &from->call);
}

/* There is nobody to go on with the loop meanwhile. */
START_TEST(wait_in_a_callback_asserts)
{
    static const call_fn fns[] = {do_sleep, do_sleep_until, do_yield, do_wait_done, do_wait_fd};
    struct from_callback from = {.message.run = call_from_callback, .fn = fns[_i]};
    struct cf_loop *loop;

    from.call = endless();
    ck_assert_int_eq(cf_loop_new(NULL, &loop, &failure), CF_OK);
    cf__loop_post(loop, &from.message);
    cf_loop_free(loop);
}
END_TEST

Suite *suite_wait(void)
{
    Suite *suite = suite_create("wait");
    TCase *tc = tcase_create("sleep");

    tcase_add_checked_fixture(tc, setup_waits, teardown_waits);
    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, sleep_is_never_shorter, 0, PLACES);
    tcase_add_loop_test(tc, sleep_of_nothing_returns_at_once, 0, PLACES);
    tcase_add_loop_test(tc, sleep_with_a_context_that_never_ends, 0, PLACES);
    tcase_add_loop_test(tc, sleep_already_canceled, 0, PLACES);
    tcase_add_loop_test(tc, sleep_already_late, 0, PLACES);
    tcase_add_loop_test(tc, sleep_canceled_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, sleep_deadline_while_waiting, 0, 2 * PLACES);
    tcase_add_loop_test(tc, sleep_as_long_as_the_deadline_is_late, 0, PLACES);
    tcase_add_loop_test(tc, sleep_success_races_cancel, 0, PLACES);
    tcase_add_loop_test(tc, sleep_out_of_memory, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("sleep_until");
    tcase_add_checked_fixture(tc, setup_waits, teardown_waits);
    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, sleep_until_is_never_early, 0, PLACES);
    tcase_add_loop_test(tc, sleep_until_the_past_returns_at_once, 0, PLACES);
    tcase_add_loop_test(tc, sleep_until_already_canceled, 0, PLACES);
    tcase_add_loop_test(tc, sleep_until_canceled_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, sleep_until_deadline_while_waiting, 0, 2 * PLACES);
    tcase_add_loop_test(tc, sleep_until_out_of_memory, 0, PLACES);
    tcase_add_test(tc, sleep_until_wakes_fibers_in_the_order_of_time);
    suite_add_tcase(suite, tc);

    tc = tcase_create("yield");
    tcase_add_checked_fixture(tc, setup_waits, teardown_waits);
    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, yield_already_canceled, 0, PLACES);
    tcase_add_loop_test(tc, yield_already_late, 0, PLACES);
    tcase_add_loop_test(tc, yield_canceled_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, yield_deadline_while_waiting, 0, 2 * PLACES);
    tcase_add_loop_test(tc, yield_needs_no_memory, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("wait_done");
    tcase_add_checked_fixture(tc, setup_waits, teardown_waits);
    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, wait_done_of_a_done_context_returns_at_once, 0, PLACES);
    tcase_add_loop_test(tc, wait_done_ends_when_the_target_is_canceled, 0, PLACES);
    tcase_add_loop_test(tc, wait_done_ends_at_the_deadline_of_the_target, 0, PLACES);
    tcase_add_loop_test(tc, wait_done_already_canceled, 0, PLACES);
    tcase_add_loop_test(tc, wait_done_already_late, 0, PLACES);
    tcase_add_loop_test(tc, wait_done_canceled_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, wait_done_deadline_while_waiting, 0, 2 * PLACES);
    tcase_add_loop_test(tc, wait_done_of_the_background_ends_with_its_own_context, 0, PLACES);
    tcase_add_loop_test(tc, wait_done_of_its_own_context_ends, 0, PLACES);
    tcase_add_loop_test(tc, wait_done_success_races_cancel, 0, PLACES);
    tcase_add_loop_test(tc, wait_done_needs_no_memory, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("wait_fd");
    tcase_add_checked_fixture(tc, setup_waits, teardown_waits);
    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, wait_fd_that_is_ready_returns_at_once, 0, PLACES);
    tcase_add_loop_test(tc, wait_fd_becomes_readable, 0, PLACES);
    tcase_add_loop_test(tc, wait_fd_becomes_writable, 0, PLACES);
    tcase_add_loop_test(tc, wait_fd_with_a_context_that_never_ends, 0, PLACES);
    tcase_add_loop_test(tc, wait_fd_already_canceled, 0, PLACES);
    tcase_add_loop_test(tc, wait_fd_already_late, 0, PLACES);
    tcase_add_loop_test(tc, wait_fd_canceled_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, wait_fd_deadline_while_waiting, 0, 2 * PLACES);
    tcase_add_loop_test(tc, wait_fd_closed_while_waiting, 0, 2 * PLACES);
    tcase_add_loop_test(tc, wait_fd_success_races_cancel, 0, PLACES);
    tcase_add_loop_test(tc, wait_fd_out_of_memory, 0, PLACES);
    tcase_add_loop_test(tc, wait_fd_of_a_closed_descriptor, 0, PLACES);
    tcase_add_test(tc, wait_fd_without_descriptors);
    tcase_add_test(tc, wait_fd_by_two_fibers_is_refused);
    tcase_add_loop_test(tc, wait_fd_lets_go_of_the_descriptor, 0, PLACES);
    tcase_add_test(tc, wait_fd_goes_on_after_a_signal);
    suite_add_tcase(suite, tc);

    tc = tcase_create("asserts");
    tcase_set_tags(tc, "fork");
    tcase_add_checked_fixture(tc, setup_waits, teardown_waits);
    tcase_add_loop_test_raise_signal(tc, wait_in_a_callback_asserts, SIGABRT, 0, 5);
    suite_add_tcase(suite, tc);
    return suite;
}
