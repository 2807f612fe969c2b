/* SPDX-License-Identifier: MIT */
/* Waits for a rate limiter, on the virtual clock but in the races;
 * "Go: TestFoo" as in test_limiter.c. */
#include "limiter_kit.h"

#include <errno.h>

#include <curfew/clock.h>

#include "effort.h"

/* Helpers */

/* One call for `period_ns` tokens, on the virtual clock. */
static enum cf_code do_wait(struct cf_ctx *of, struct call *call)
{
    return cf_limiter_wait(of, limiter, (int)call->period_ns, &call->err);
}

static void call_wait(void *arg)
{
    struct cf_timer_source *before = cf_timer_source_use(&limiter_clock.source);

    make_call(do_wait, arg);
    (void)cf_timer_source_use(before);
}

static enum cf_code do_wait_one(struct cf_ctx *of, struct call *call)
{
    return cf_limiter_wait(of, limiter, 1, &call->err);
}

static void call_wait_one(void *arg)
{
    struct cf_timer_source *before = cf_timer_source_use(&limiter_clock.source);

    make_call(do_wait_one, arg);
    (void)cf_timer_source_use(before);
}

static struct call want(struct cf_ctx *of, int n)
{
    struct call call = endless();

    call.ctx = of;
    call.period_ns = n;
    return call;
}

/* Wait for `n` tokens, and expect it to last so many ticks, to the nanosecond. */
static struct cf_err check_wait(int place, struct cf_ctx *of, int n, int ticks, enum cf_code code)
{
    struct call call = want(of, n);
    struct visit visit;

    visit_start(&visit, place, call_wait, &call);
    if (ticks > 0) {
        visit_wait_parked(&visit);
        vclock_advance(&limiter_clock, ticks * TICK - 1);
        visit_wait_parked(&visit);
        vclock_advance(&limiter_clock, 1);
    }
    visit_join(&visit);
    ck_assert_int_eq(call.code, code);
    return call.err;
}

/* wait */

/* Go: TestWaitSimple */
START_TEST(wait_lasts_until_the_tokens_are_there)
{
    struct cf_err err;
    struct cf_ctx *done;

    make_limiter(10, 3);
    ck_assert_int_eq(cf_ctx_with_cancel(ctx, &done, &failure), CF_OK);
    cf_ctx_cancel(done);
    (void)check_wait(_i, done, 1, 0, CF_ECANCELED);
    err = check_wait(_i, cf_ctx_background(), 4, 0, CF_EINVAL);
    ck_assert_int_eq(err.code, CF_EINVAL);
    ck_assert_str_eq(err.msg, "tokens (4) exceed the burst");
    ck_assert_double_eq(cf_limiter_tokens(limiter), 3); /* None of them took any. */
    (void)check_wait(_i, cf_ctx_background(), 2, 0, CF_OK);
    (void)check_wait(_i, cf_ctx_background(), 3, 2, CF_OK);
    ck_assert_double_eq(cf_limiter_tokens(limiter), 0);
    cf_ctx_free(done);
}
END_TEST

/* Go: TestWaitInf */
START_TEST(wait_at_an_infinite_rate_does_not)
{
    make_limiter(CF_LIMITER_INFINITE, 0);
    (void)check_wait(_i, cf_ctx_background(), 3, 0, CF_OK);
}
END_TEST

/* Go: TestSetAfterZeroLimit */
START_TEST(wait_after_the_rate_was_nothing)
{
    make_limiter(0, 1);
    ck_assert(cf_limiter_allow(limiter, 1));
    ck_assert(!cf_limiter_allow(limiter, 1));
    cf_limiter_set_limit(limiter, 10);
    (void)check_wait(_i, cf_ctx_background(), 1, 1, CF_OK);
}
END_TEST

/* Those who wait go on in the order in which they came, a tick apart. */
START_TEST(wait_behind_others_waits_longer)
{
    struct call calls[3];
    struct visit visits[3];

    make_limiter(10, 1);
    ck_assert(cf_limiter_allow(limiter, 1));
    for (int i = 0; i < 3; i++) {
        calls[i] = want(ctx, 1);
        visit_start(&visits[i], (_i + i) % PLACES, call_wait, &calls[i]);
        visit_wait_parked(&visits[i]);
    }
    ck_assert_double_eq(cf_limiter_tokens(limiter), -3);
    for (int i = 0; i < 3; i++) {
        for (int k = i; k < 3; k++) {
            visit_wait_parked(&visits[k]);
        }
        vclock_advance(&limiter_clock, TICK);
        visit_join(&visits[i]);
        ck_assert_int_eq(calls[i].code, CF_OK);
    }
}
END_TEST

START_TEST(wait_already_canceled)
{
    make_limiter(10, 1);
    check_already_canceled(_i, call_wait_one);
    ck_assert_double_eq(cf_limiter_tokens(limiter), 1);
}
END_TEST

START_TEST(wait_already_late)
{
    struct cf_ctx *late;

    make_limiter(10, 1);
    ck_assert_int_eq(cf_ctx_with_timeout(ctx, 1, &late, &failure), CF_OK);
    vclock_stall(&limiter_clock, 1);
    (void)check_wait(_i, late, 1, 0, CF_EDEADLINE);
    ck_assert_double_eq(cf_limiter_tokens(limiter), 1);
    cf_ctx_free(late);
}
END_TEST

START_TEST(wait_canceled_while_waiting)
{
    make_limiter(10, 1);
    ck_assert(cf_limiter_allow(limiter, 1));
    check_canceled_while_waiting(_i, call_wait_one);
    ck_assert_double_eq(cf_limiter_tokens(limiter), 0);
}
END_TEST

/* Go: TestWaitCancel */
START_TEST(wait_canceled_lets_others_act_sooner)
{
    struct call call;
    struct visit visit;

    make_limiter(10, 3);
    (void)check_wait(_i, ctx, 2, 0, CF_OK);
    call = want(ctx, 3);
    visit_start(&visit, _i, call_wait, &call);
    visit_wait_parked(&visit);
    vclock_advance(&limiter_clock, TICK);
    visit_wait_parked(&visit);
    cf_ctx_cancel(ctx);
    visit_join(&visit);
    ck_assert_int_eq(call.code, CF_ECANCELED);
    ck_assert_double_eq(cf_limiter_tokens(limiter), 2);
    (void)check_wait(_i, cf_ctx_background(), 2, 0, CF_OK);
}
END_TEST

/* Go: TestWaitTimeout. It fails at once, with the context alive, and says when to come again. */
START_TEST(wait_that_would_be_late_fails_at_once)
{
    struct cf_err err;
    struct cf_ctx *brief;

    make_limiter(10, 3);
    ck_assert_int_eq(cf_ctx_with_timeout(ctx, TICK, &brief, &failure), CF_OK);
    (void)check_wait(_i, brief, 2, 0, CF_OK);
    err = check_wait(_i, brief, 3, 0, CF_EDEADLINE);
    ck_assert_int_eq(cf_ctx_err(brief), CF_OK);
    ck_assert_int_eq(err.code, CF_EDEADLINE);
    ck_assert_int_eq(err.retry_after_ns, 2 * TICK);
    ck_assert_str_eq(err.msg, "waiting for tokens (3) would exceed the deadline");
    ck_assert_double_eq(cf_limiter_tokens(limiter), 1); /* It took nothing. */
    vclock_advance(&limiter_clock, err.retry_after_ns - CF_US);
    ck_assert(!cf_limiter_allow(limiter, 3));
    vclock_advance(&limiter_clock, CF_US);
    ck_assert(cf_limiter_allow(limiter, 3));
    cf_ctx_free(brief);
}
END_TEST

/* Go: TestReserveMax, by a wait: there is no other way to say for how long.
 * At the deadline it is too late here. */
START_TEST(wait_up_to_the_deadline_is_late)
{
    struct cf_ctx *brief;

    make_limiter(10, 2);
    ck_assert_int_eq(cf_ctx_with_timeout(ctx, TICK, &brief, &failure), CF_OK);
    (void)check_wait(_i, brief, 2, 0, CF_OK);
    (void)check_wait(_i, brief, 1, 0, CF_EDEADLINE);
    cf_ctx_free(brief);
    ck_assert_int_eq(cf_ctx_with_timeout(ctx, TICK + 1, &brief, &failure), CF_OK);
    (void)check_wait(_i, brief, 2, 0, CF_EDEADLINE);
    (void)check_wait(_i, brief, 1, 1, CF_OK);
    cf_ctx_free(brief);
}
END_TEST

START_TEST(wait_without_a_rate_waits_for_its_end)
{
    struct cf_err err;
    struct cf_ctx *brief;
    struct call call = want(ctx, 1);
    struct visit visit;

    make_limiter(0, 1);
    ck_assert(cf_limiter_allow(limiter, 1));
    ck_assert_int_eq(cf_ctx_with_timeout(ctx, CF_SECOND, &brief, &failure), CF_OK);
    err = check_wait(_i, brief, 1, 0, CF_EDEADLINE);
    ck_assert_int_eq(err.retry_after_ns, CF_NEVER);
    cf_ctx_free(brief);
    visit_start(&visit, _i, call_wait, &call);
    visit_wait_parked(&visit);
    cf_ctx_cancel(ctx);
    visit_join(&visit);
    ck_assert_int_eq(call.code, CF_ECANCELED);
    ck_assert_double_eq(cf_limiter_tokens(limiter), 0);
}
END_TEST

/* Give a deadline on the real clock to a wait of 1 ms on the virtual one, which stands still. */
static struct call wait_until_late(int place, int64_t timeout_ns)
{
    struct cf_timer_source *own = cf_timer_source_use(NULL);
    struct call call = endless();

    ck_assert_int_eq(cf_ctx_with_timeout(ctx, timeout_ns, &call.ctx, &failure), CF_OK);
    (void)cf_timer_source_use(own);
    make_limiter(1000, 1);
    ck_assert(cf_limiter_allow(limiter, 1));
    place_run(place, call_wait_one, &call);
    EVENTUALLY(vclock_armed(&limiter_clock) ==
               0); /* Who ended it wakes first and cleans up then. */
    cf_ctx_free(call.ctx);
    return call;
}

/* A deadline on another clock can pass while it waits. Where it had all but passed before the call,
 * on a machine with other things to do, there is no wait: with more time there is. */
START_TEST(wait_deadline_while_waiting)
{
    struct call call;
    int64_t timeout_ns = 20 * CF_MS;

    do {
        call = wait_until_late(_i, timeout_ns);
        ck_assert_int_eq(call.code, CF_EDEADLINE);
        ck_assert_int_eq(call.err.code, CF_EDEADLINE);
        timeout_ns *= 4;
    } while (call.err.retry_after_ns != 0 && timeout_ns < 10 * CF_SECOND);
    ck_assert_int_eq(call.err.retry_after_ns, 0);
    ck_assert_double_eq(cf_limiter_tokens(limiter), 0);
}
END_TEST

/* The machine stood still until both its time and its deadline had passed. Nobody acted, so the
 * token is there for the next. */
START_TEST(wait_that_wakes_too_late_gives_back)
{
    struct cf_ctx *brief;
    struct call call;
    struct visit visit;

    make_limiter(10, 3);
    ck_assert(cf_limiter_allow(limiter, 3));
    ck_assert_int_eq(cf_ctx_with_timeout(ctx, 2 * TICK, &brief, &failure), CF_OK);
    call = want(brief, 1);
    visit_start(&visit, _i, call_wait, &call);
    visit_wait_parked(&visit);
    vclock_stall(&limiter_clock, 2 * TICK);
    vclock_advance(&limiter_clock, 0);
    visit_join(&visit);
    ck_assert_int_eq(call.code, CF_EDEADLINE);
    ck_assert_double_eq(cf_limiter_tokens(limiter), 2);
    cf_ctx_free(brief);
}
END_TEST

START_TEST(wait_out_of_memory)
{
    int struck = 0;

    make_limiter(10, 1);
    ck_assert(cf_limiter_allow(limiter, 1));
    for (unsigned nth = 1;; nth++) {
        struct call call = want(ctx, 1);
        struct visit visit;

        call.fail_nth = nth;
        visit_start(&visit, _i, call_wait, &call);
        EVENTUALLY(atomic_load(&visit.ended) || vclock_armed(&limiter_clock) == 1);
        vclock_advance(&limiter_clock, TICK);
        visit_join(&visit);
        if (!call.struck) {
            ck_assert_int_eq(call.code, CF_OK);
            ck_assert_double_eq(cf_limiter_tokens(limiter), 0);
            break;
        }
        ck_assert_int_eq(call.code, CF_ENOMEM);
        ck_assert_double_eq(cf_limiter_tokens(limiter), 1); /* The tick's: that was given back. */
        ck_assert(cf_limiter_allow(limiter, 1));
        struck++;
    }
    ck_assert_int_gt(struck, 0);
}
END_TEST

START_TEST(wait_that_need_not_wait_needs_no_memory)
{
    struct call call = want(ctx, 1);

    make_limiter(10, 1);
    call.fail_nth = 1;
    place_run(_i, call_wait, &call);
    ck_assert_int_eq(call.code, CF_OK);
    ck_assert(!call.struck);
}
END_TEST

/* A wait of 50 us, or of 2 ms where nobody is faster. */
#define RACE_RATE effort_count(20000, 500)

/* On the real clock. A cancelled wait leaves no fewer tokens than there were; a wait that succeeds
 * is one of those that the rate lets through. */
static void race_wait(void *arg)
{
    struct race *race = arg;
    int64_t began_ns = cf_now_ns();
    int64_t until_ns = effort_until_ns();

    make_limiter(RACE_RATE, 1);
    while (race_goes_on(race, until_ns)) {
        struct call call = {.ctx = new_ctx()};
        double before = cf_limiter_tokens(limiter);

        atomic_store(&race->canceler.ctx, call.ctx);
        rival_ask(&race->canceler);
        make_call(do_wait_one, &call);
        judge(race, call.code, true, call.ctx);
        if (call.code != CF_OK) {
            EXPECT(cf_limiter_tokens(limiter) >= before - 1e-6);
        }
        rival_settle(&race->canceler);
        cf_ctx_free(call.ctx);
    }
    EXPECT((double)race->successes <=
           2 + (double)(cf_now_ns() - began_ns) / (double)CF_SECOND * RACE_RATE);
}

START_TEST(wait_success_races_cancel)
{
    check_race(_i, race_wait, give_nothing);
}
END_TEST

Suite *suite_limiter_wait(void)
{
    Suite *suite = suite_create("limiter_wait");
    TCase *tc = add_limiter_case(suite, "wait");

    tcase_add_loop_test(tc, wait_lasts_until_the_tokens_are_there, 0, PLACES);
    tcase_add_loop_test(tc, wait_at_an_infinite_rate_does_not, 0, PLACES);
    tcase_add_loop_test(tc, wait_after_the_rate_was_nothing, 0, PLACES);
    tcase_add_loop_test(tc, wait_behind_others_waits_longer, 0, PLACES);
    tcase_add_loop_test(tc, wait_already_canceled, 0, PLACES);
    tcase_add_loop_test(tc, wait_already_late, 0, PLACES);
    tcase_add_loop_test(tc, wait_canceled_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, wait_canceled_lets_others_act_sooner, 0, PLACES);
    tcase_add_loop_test(tc, wait_that_would_be_late_fails_at_once, 0, PLACES);
    tcase_add_loop_test(tc, wait_up_to_the_deadline_is_late, 0, PLACES);
    tcase_add_loop_test(tc, wait_without_a_rate_waits_for_its_end, 0, PLACES);
    tcase_add_loop_test(tc, wait_deadline_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, wait_that_wakes_too_late_gives_back, 0, PLACES);
    tcase_add_loop_test(tc, wait_out_of_memory, 0, PLACES);
    tcase_add_loop_test(tc, wait_that_need_not_wait_needs_no_memory, 0, PLACES);
    tcase_add_loop_test(tc, wait_success_races_cancel, 0, PLACES);
    return suite;
}
