/* SPDX-License-Identifier: MIT */
/* Rate limiters. Time is the virtual clock's but in the races, so nothing here depends on how fast
 * the machine is: it stands still between two lines unless one of them moves it. A comment
 * "Go: TestFoo" names the test of golang.org/x/time/rate whose behaviour is asked for;
 * tests/README.md has all. */
#include "limiter_kit.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>

#include <curfew/clock.h>

#include "crowd.h"
#include "effort.h"
#include "fault.h"

/* Helpers */

static int64_t now_ns(void)
{
    return limiter_clock.source.now_ns(&limiter_clock.source);
}

/* Put the clock to that tick, also back. */
static void go_to(int tick)
{
    vclock_stall(&limiter_clock, VCLOCK_START_NS + tick * TICK - now_ns());
}

/* Reserve at that tick, and expect to act at `act`; or, with -1, to be refused. */
static struct cf_reservation check_reserve(int tick, int n, int act)
{
    struct cf_reservation reservation = {.tokens = -1};

    go_to(tick);
    ck_assert_int_eq(cf_limiter_reserve(limiter, n, &reservation), act >= 0);
    if (act >= 0) {
        int64_t at_ns = reservation.at_ns - VCLOCK_START_NS;

        ck_assert_int_eq((at_ns + TICK / 2) / TICK, act); /* To the nearest tick. */
        ck_assert_int_eq(cf_reservation_delay_ns(&reservation), reservation.at_ns - now_ns());
    } else {
        ck_assert_int_eq(reservation.tokens, -1);
    }
    return reservation;
}

static void cancel_at(int tick, struct cf_reservation *reservation)
{
    go_to(tick);
    cf_reservation_cancel(reservation);
}

struct ask {
    int tick;
    double tokens; /* Before it. */
    int n;
    bool allowed;
};

static void check_asks(const struct ask *asks, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        go_to(asks[i].tick);
        ck_assert_double_eq(cf_limiter_tokens(limiter), asks[i].tokens);
        ck_assert_int_eq(cf_limiter_allow(limiter, asks[i].n), asks[i].allowed);
    }
}

#define CHECK_ASKS(asks) check_asks(asks, sizeof(asks) / sizeof(asks[0]))

/* new */

START_TEST(new_out_of_memory)
{
    struct cf_limiter *made = NULL;

    fault_alloc(1, false);
    ck_assert_int_eq(cf_limiter_new(1, 1, &made, &failure), CF_ENOMEM);
    ck_assert(fault_off());
    ck_assert_int_eq(failure.code, CF_ENOMEM);
    ck_assert_ptr_null(made);
}
END_TEST

START_TEST(new_is_full)
{
    make_limiter(10, 7);
    ck_assert_double_eq(cf_limiter_tokens(limiter), 7);
    ck_assert_double_eq(cf_limiter_limit(limiter), 10);
    ck_assert_int_eq(cf_limiter_burst(limiter), 7);
}
END_TEST

START_TEST(new_with_odd_numbers)
{
    static const struct {
        double given;
        double limit;
    } rates[] = {
        {-1, 0},
        {-HUGE_VAL, 0},
        {(double)NAN, 0},
        {0, 0},
        {HUGE_VAL, CF_LIMITER_INFINITE},
        {CF_LIMITER_INFINITE, CF_LIMITER_INFINITE},
    };

    for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
        make_limiter(rates[i].given, -5);
        ck_assert_double_eq(cf_limiter_limit(limiter), rates[i].limit);
        ck_assert_int_eq(cf_limiter_burst(limiter), 0);
        ck_assert_int_eq(cf_limiter_allow(limiter, 1), rates[i].limit > 0);
        make_limiter(3, 1);
        cf_limiter_set_limit(limiter, rates[i].given);
        ck_assert_double_eq(cf_limiter_limit(limiter), rates[i].limit);
    }
}
END_TEST

START_TEST(free_of_null_does_nothing)
{
    cf_limiter_free(NULL);
}
END_TEST

/* allow */

/* Go: TestLimiterBurst1 */
START_TEST(allow_with_a_burst_of_one)
{
    static const struct ask asks[] = {
        {0, 1, 1, true},  {0, 0, 1, false}, {0, 0, 1, false}, {1, 1, 1, true},  {1, 0, 1, false},
        {1, 0, 1, false}, {2, 1, 2, false}, {2, 1, 1, true},  {2, 0, 1, false},
    };

    make_limiter(10, 1);
    CHECK_ASKS(asks);
}
END_TEST

/* Go: TestLimiterBurst3 */
START_TEST(allow_with_a_burst_of_three)
{
    static const struct ask asks[] = {
        {0, 3, 2, true},  {0, 1, 2, false}, {0, 1, 1, true}, {0, 0, 1, false}, {1, 1, 4, false},
        {2, 2, 1, true},  {3, 2, 1, true},  {4, 2, 1, true}, {4, 1, 1, true},  {4, 0, 1, false},
        {4, 0, 1, false}, {9, 3, 3, true},  {9, 0, 0, true},
    };

    make_limiter(10, 3);
    CHECK_ASKS(asks);
}
END_TEST

/* Go: TestLimiterJumpBackwards */
START_TEST(allow_when_the_clock_goes_back)
{
    static const struct ask asks[] = {
        {1, 3, 1, true},  {0, 2, 1, true},  {0, 1, 1, true},  {0, 0, 1, false},
        {0, 0, 1, false}, {1, 1, 1, true},  {1, 0, 1, false}, {1, 0, 1, false},
        {2, 1, 1, true},  {2, 0, 1, false}, {2, 0, 1, false},
    };

    make_limiter(10, 3);
    CHECK_ASKS(asks);
}
END_TEST

/* Go: TestLimiter_noTruncationErrors */
START_TEST(allow_at_a_rate_that_does_not_divide)
{
    make_limiter(0.7692307692307693, 1);
    ck_assert(cf_limiter_allow(limiter, 1));
    vclock_stall(&limiter_clock, CF_SECOND);
    ck_assert(!cf_limiter_allow(limiter, 1));
    vclock_stall(&limiter_clock, 3 * CF_SECOND / 10);
    ck_assert(cf_limiter_allow(limiter, 1));
}
END_TEST

static void allow_one(void *arg, unsigned *seed)
{
    (void)seed;
    if (cf_limiter_allow(limiter, 1)) {
        (void)atomic_fetch_add((atomic_int *)arg, 1);
    }
}

/* Go: TestSimultaneousRequests. The crowd lives by the real clock,
 * in which next to nothing flows. */
START_TEST(allow_to_a_crowd_the_burst_and_no_more)
{
    atomic_int allowed = 0;

    make_limiter(0.001, 5);
    crowd_run(allow_one, &allowed);
    ck_assert_int_eq(atomic_load(&allowed), 5);
}
END_TEST

/* Go: TestLongRunningQPS, without the five seconds. */
START_TEST(allow_in_the_long_run_the_rate)
{
    int allowed = 0;
    double ideal = 100 + 100 * 5;

    make_limiter(100, 100);
    for (int i = 0; i <= 2500; i++) {
        allowed += cf_limiter_allow(limiter, 1);
        vclock_stall(&limiter_clock, 2 * CF_MS);
    }
    ck_assert_double_le(allowed, ideal + 1);
    ck_assert_double_ge(allowed, 0.999 * ideal);
}
END_TEST

/* Go: TestZeroLimit */
START_TEST(allow_without_a_rate_the_burst_only)
{
    make_limiter(0, 1);
    ck_assert(cf_limiter_allow(limiter, 1));
    ck_assert(!cf_limiter_allow(limiter, 1));
    vclock_stall(&limiter_clock, CF_NEVER);
    ck_assert(!cf_limiter_allow(limiter, 1));
}
END_TEST

/* Go: TestTinyLimit. Its time for one token is 317 years,
 * and for a tenth of the rate it has no number. */
START_TEST(allow_at_a_tiny_rate_the_burst_only)
{
    static const double rates[] = {1e-10, 1e-11, 5e-324};

    for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
        make_limiter(rates[i], 1);
        ck_assert(cf_limiter_allow(limiter, 1));
        ck_assert(!cf_limiter_allow(limiter, 1));
    }
}
END_TEST

START_TEST(allow_at_an_infinite_rate_everything)
{
    make_limiter(CF_LIMITER_INFINITE, 0);
    for (int i = 0; i < 100; i++) {
        ck_assert(cf_limiter_allow(limiter, 1000000));
    }
}
END_TEST

START_TEST(allow_of_less_than_nothing_asserts)
{
    make_limiter(10, 1);
    (void)!cf_limiter_allow(limiter, -1);
}
END_TEST

/* reserve */

/* Go: TestSimpleReserve */
START_TEST(reserve_says_when_to_act)
{
    make_limiter(10, 2);
    (void)check_reserve(0, 2, 0);
    (void)check_reserve(0, 2, 2);
    (void)check_reserve(3, 2, 4);
}
END_TEST

/* Go: TestMix */
START_TEST(reserve_and_allow_share_the_tokens)
{
    make_limiter(10, 2);
    (void)check_reserve(0, 3, -1); /* More than the burst. */
    (void)check_reserve(0, 2, 0);
    go_to(1);
    ck_assert(!cf_limiter_allow(limiter, 2));
    (void)check_reserve(1, 2, 2);
    ck_assert(!cf_limiter_allow(limiter, 1)); /* There is less than nothing. */
    ck_assert_double_eq(cf_limiter_tokens(limiter), -1);
    go_to(3);
    ck_assert(cf_limiter_allow(limiter, 1));
}
END_TEST

/* Go: TestReserveJumpBack */
START_TEST(reserve_when_the_clock_goes_back)
{
    make_limiter(10, 2);
    (void)check_reserve(1, 2, 1);
    (void)check_reserve(0, 1, 1);
    (void)check_reserve(2, 2, 3);
}
END_TEST

/* Go: TestReserveSetLimit */
START_TEST(reserve_before_and_after_set_limit)
{
    make_limiter(5, 2);
    (void)check_reserve(0, 2, 0);
    (void)check_reserve(0, 2, 4);
    go_to(2);
    cf_limiter_set_limit(limiter, 10);
    (void)check_reserve(2, 1, 4);
}
END_TEST

/* Go: TestReserveSetBurst */
START_TEST(reserve_before_and_after_set_burst)
{
    make_limiter(5, 2);
    (void)check_reserve(0, 2, 0);
    (void)check_reserve(0, 2, 4);
    go_to(3);
    cf_limiter_set_burst(limiter, 4);
    (void)check_reserve(0, 4, 9);
}
END_TEST

START_TEST(reserve_without_a_rate_never_acts)
{
    struct cf_reservation reservation;

    make_limiter(0, 2);
    (void)check_reserve(0, 2, 0);
    ck_assert(cf_limiter_reserve(limiter, 1, &reservation));
    ck_assert_int_eq(reservation.at_ns, CF_NEVER);
    ck_assert_int_eq(cf_reservation_delay_ns(&reservation), CF_NEVER);
    ck_assert_double_eq(cf_limiter_tokens(limiter), -1);
    cf_reservation_cancel(&reservation);
    ck_assert_double_eq(cf_limiter_tokens(limiter), 0);
}
END_TEST

START_TEST(delay_shrinks_to_nothing)
{
    struct cf_reservation reservation;

    make_limiter(10, 2);
    (void)check_reserve(0, 2, 0);
    reservation = check_reserve(0, 2, 2);
    go_to(1);
    ck_assert_int_eq(cf_reservation_delay_ns(&reservation), TICK);
    go_to(2);
    ck_assert_int_eq(cf_reservation_delay_ns(&reservation), 0);
    go_to(3);
    ck_assert_int_eq(cf_reservation_delay_ns(&reservation), 0);
}
END_TEST

/* cancel */

/* Go: TestCancelLast */
START_TEST(cancel_of_the_last_gives_back_all)
{
    struct cf_reservation reservation;

    make_limiter(10, 2);
    (void)check_reserve(0, 2, 0);
    reservation = check_reserve(0, 2, 2);
    cancel_at(1, &reservation);
    (void)check_reserve(1, 2, 2);
}
END_TEST

/* Go: TestCancelTooLate */
START_TEST(cancel_after_its_time_gives_back_nothing)
{
    struct cf_reservation reservation;

    make_limiter(10, 2);
    (void)check_reserve(0, 2, 0);
    reservation = check_reserve(0, 2, 2);
    cancel_at(3, &reservation);
    (void)check_reserve(3, 2, 4);
}
END_TEST

/* Go: TestCancel0Tokens */
START_TEST(cancel_of_what_the_next_depends_on_gives_back_nothing)
{
    struct cf_reservation reservation;

    make_limiter(10, 2);
    (void)check_reserve(0, 2, 0);
    reservation = check_reserve(0, 1, 1);
    (void)check_reserve(0, 1, 2);
    cancel_at(0, &reservation);
    (void)check_reserve(0, 1, 3);
}
END_TEST

/* Go: TestCancel1Token */
START_TEST(cancel_of_what_the_next_depends_on_in_part_gives_back_the_rest)
{
    struct cf_reservation reservation;

    make_limiter(10, 2);
    (void)check_reserve(0, 2, 0);
    reservation = check_reserve(0, 2, 2);
    (void)check_reserve(0, 1, 3);
    cancel_at(2, &reservation);
    (void)check_reserve(2, 2, 4);
}
END_TEST

/* Go: TestCancelMulti */
START_TEST(cancel_of_several_is_as_if_the_last_had_not_been)
{
    struct cf_reservation first;
    struct cf_reservation last;

    make_limiter(10, 4);
    (void)check_reserve(0, 4, 0);
    first = check_reserve(0, 3, 3);
    (void)check_reserve(0, 1, 4);
    last = check_reserve(0, 1, 5);
    cancel_at(1, &last);
    cancel_at(1, &first);
    (void)check_reserve(1, 3, 5);
}
END_TEST

/* Go: TestReserveJumpBackCancel */
START_TEST(cancel_when_the_clock_goes_back)
{
    struct cf_reservation reservation;

    make_limiter(10, 2);
    (void)check_reserve(1, 2, 1);
    reservation = check_reserve(1, 2, 3);
    (void)check_reserve(1, 1, 4);
    cancel_at(0, &reservation);
    (void)check_reserve(1, 2, 4);
}
END_TEST

/* The clock went back, and the next reservation came before it: no more than was taken is given. */
START_TEST(cancel_when_a_later_one_acts_before_gives_back_no_more_than_it_took)
{
    struct cf_reservation reservation;

    make_limiter(10, 4);
    (void)check_reserve(5, 4, 5);
    reservation = check_reserve(5, 2, 7);
    (void)check_reserve(0, 1, 3);
    cancel_at(0, &reservation);
    ck_assert_double_eq(cf_limiter_tokens(limiter), -1);
}
END_TEST

/* Go: TestReserveSetLimitCancel */
START_TEST(cancel_after_set_limit_gives_back_what_was_taken)
{
    struct cf_reservation reservation;

    make_limiter(5, 2);
    (void)check_reserve(0, 2, 0);
    reservation = check_reserve(0, 2, 4);
    go_to(2);
    cf_limiter_set_limit(limiter, 10);
    cancel_at(2, &reservation);
    (void)check_reserve(2, 2, 3);
}
END_TEST

/* Go: TestCancelInvalid. What was refused cannot be cancelled here, because there is no
 * reservation; what was cancelled can, and that does nothing. */
START_TEST(cancel_again_does_nothing)
{
    struct cf_reservation reservation;

    make_limiter(10, 2);
    (void)check_reserve(0, 2, 0);
    (void)check_reserve(0, 3, -1);
    (void)check_reserve(0, 1, 1);
    reservation = check_reserve(0, 2, 3);
    cf_reservation_cancel(&reservation);
    ck_assert_double_eq(cf_limiter_tokens(limiter), -1);
    cf_reservation_cancel(&reservation);
    ck_assert_double_eq(cf_limiter_tokens(limiter), -1);
}
END_TEST

/* It took nothing. */
START_TEST(cancel_of_an_infinite_rate_gives_back_nothing)
{
    struct cf_reservation reservation;

    make_limiter(CF_LIMITER_INFINITE, 5);
    reservation = check_reserve(0, 5, 0);
    cf_limiter_set_limit(limiter, 10);
    ck_assert(cf_limiter_allow(limiter, 5));
    cf_reservation_cancel(&reservation);
    ck_assert(!cf_limiter_allow(limiter, 1));
}
END_TEST

START_TEST(cancel_fills_no_further_than_the_burst)
{
    struct cf_reservation reservation;

    make_limiter(10, 4);
    (void)check_reserve(0, 4, 0);
    reservation = check_reserve(0, 4, 4);
    cf_limiter_set_burst(limiter, 1);
    cancel_at(4, &reservation);
    ck_assert_double_eq(cf_limiter_tokens(limiter), 1);
}
END_TEST

/* set_limit, set_burst */

START_TEST(set_limit_counts_from_now_on)
{
    make_limiter(10, 5);
    ck_assert(cf_limiter_allow(limiter, 5));
    go_to(1);
    cf_limiter_set_limit(limiter, 20);
    ck_assert_double_eq(cf_limiter_limit(limiter), 20);
    ck_assert_double_eq(cf_limiter_tokens(limiter), 1);
    go_to(2);
    ck_assert_double_eq(cf_limiter_tokens(limiter), 3);
}
END_TEST

START_TEST(set_limit_from_infinite_begins_full)
{
    make_limiter(CF_LIMITER_INFINITE, 2);
    ck_assert(cf_limiter_allow(limiter, 1000));
    cf_limiter_set_limit(limiter, 10); /* At the very instant, too. */
    ck_assert_double_eq(cf_limiter_tokens(limiter), 2);
    ck_assert(cf_limiter_allow(limiter, 2));
    cf_limiter_set_limit(limiter, HUGE_VAL);
    go_to(1);
    cf_limiter_set_limit(limiter, 10);
    ck_assert_double_eq(cf_limiter_tokens(limiter), 2);
}
END_TEST

START_TEST(set_burst_smaller_loses_what_does_not_fit)
{
    make_limiter(10, 5);
    cf_limiter_set_burst(limiter, 2);
    ck_assert_int_eq(cf_limiter_burst(limiter), 2);
    ck_assert_double_eq(cf_limiter_tokens(limiter), 2);
    ck_assert(!cf_limiter_allow(limiter, 3));
    cf_limiter_set_burst(limiter, 5);
    ck_assert_double_eq(cf_limiter_tokens(limiter), 2);
    go_to(9);
    ck_assert_double_eq(cf_limiter_tokens(limiter), 5);
}
END_TEST

/* every */

/* Go: TestEvery, TestLimit */
START_TEST(every_is_the_rate_of_a_period)
{
    static const struct {
        int64_t period_ns;
        double per_second;
    } cases[] = {
        {0, CF_LIMITER_INFINITE},
        {-1, CF_LIMITER_INFINITE},
        {1, 1e9},
        {CF_US, 1e6},
        {CF_MS, 1e3},
        {10 * CF_MS, 100},
        {100 * CF_MS, 10},
        {CF_SECOND, 1},
        {2 * CF_SECOND, 0.5},
        {2500 * CF_MS, 0.4},
        {4 * CF_SECOND, 0.25},
        {10 * CF_SECOND, 0.1},
        {INT64_MAX, 1e9 / (double)INT64_MAX},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        double per_second = cf_limiter_every(cases[i].period_ns);

        ck_assert_double_le(fabs(per_second / cases[i].per_second - 1), 1e-9);
    }
    ck_assert_double_ne(10, CF_LIMITER_INFINITE);
}
END_TEST

/* Stress: everything at once, and no more is let through than should be. */

#define STRESS_RATE 20000
#define STRESS_BURST 10

struct stampede {
    int64_t until_ns;
    atomic_long passed; /* Tokens of those who may act. */
    atomic_long refused;
};

static void stampede(void *arg, unsigned *seed)
{
    struct stampede *self = arg;

    while (EFFORT_GOES_ON(self->until_ns,
                          atomic_load(&self->passed) > 0 && atomic_load(&self->refused) > 0)) {
        int n = rand_r(seed) % 4;
        struct cf_reservation reservation;
        struct cf_ctx *brief = NULL;
        bool passed = false;

        switch (rand_r(seed) % 8) {
        case 0:
            passed = cf_limiter_allow(limiter, n);
            break;
        case 1:
            EXPECT(cf_limiter_reserve(limiter, n, &reservation));
            place_yield();
            cf_reservation_cancel(&reservation);
            break;
        case 2:
            cf_limiter_set_limit(limiter, STRESS_RATE);
            cf_limiter_set_burst(limiter, STRESS_BURST);
            EXPECT(cf_limiter_tokens(limiter) <= STRESS_BURST);
            break;
        default:
            EXPECT(cf_ctx_with_timeout(cf_ctx_background(), rand_r(seed) % (5 * CF_MS), &brief,
                                       NULL) == CF_OK);
            passed = cf_limiter_wait(brief, limiter, n, NULL) == CF_OK;
            cf_ctx_free(brief);
            break;
        }
        (void)atomic_fetch_add(passed ? &self->passed : &self->refused, passed ? n : 1);
        place_yield();
    }
}

START_TEST(wait_reserve_and_cancel_race)
{
    struct stampede self = {.until_ns = effort_stress_until_ns()};
    int64_t began_ns = cf_now_ns();
    double most;

    (void)cf_timer_source_use(limiter_clock.before); /* By the real clock. */
    make_limiter(STRESS_RATE, STRESS_BURST);
    crowd_run(stampede, &self);
    most = STRESS_BURST + (double)(cf_now_ns() - began_ns) / (double)CF_SECOND * STRESS_RATE;
    (void)cf_timer_source_use(&limiter_clock.source);
    ck_assert_double_le((double)atomic_load(&self.passed), most + 1);
    ck_assert_int_gt(atomic_load(&self.passed), 0);
    ck_assert_int_gt(atomic_load(&self.refused), 0);
}
END_TEST

Suite *suite_limiter(void)
{
    Suite *suite = suite_create("limiter");
    TCase *tc = add_limiter_case(suite, "reserve");

    tcase_add_test(tc, reserve_says_when_to_act);
    tcase_add_test(tc, reserve_and_allow_share_the_tokens);
    tcase_add_test(tc, reserve_when_the_clock_goes_back);
    tcase_add_test(tc, reserve_before_and_after_set_limit);
    tcase_add_test(tc, reserve_before_and_after_set_burst);
    tcase_add_test(tc, reserve_without_a_rate_never_acts);
    tcase_add_test(tc, delay_shrinks_to_nothing);

    tc = add_limiter_case(suite, "cancel");
    tcase_add_test(tc, cancel_of_the_last_gives_back_all);
    tcase_add_test(tc, cancel_after_its_time_gives_back_nothing);
    tcase_add_test(tc, cancel_of_what_the_next_depends_on_gives_back_nothing);
    tcase_add_test(tc, cancel_of_what_the_next_depends_on_in_part_gives_back_the_rest);
    tcase_add_test(tc, cancel_of_several_is_as_if_the_last_had_not_been);
    tcase_add_test(tc, cancel_when_the_clock_goes_back);
    tcase_add_test(tc, cancel_when_a_later_one_acts_before_gives_back_no_more_than_it_took);
    tcase_add_test(tc, cancel_after_set_limit_gives_back_what_was_taken);
    tcase_add_test(tc, cancel_again_does_nothing);
    tcase_add_test(tc, cancel_of_an_infinite_rate_gives_back_nothing);
    tcase_add_test(tc, cancel_fills_no_further_than_the_burst);

    tc = add_limiter_case(suite, "new");
    tcase_add_test(tc, new_out_of_memory);
    tcase_add_test(tc, new_is_full);
    tcase_add_test(tc, new_with_odd_numbers);
    tcase_add_test(tc, free_of_null_does_nothing);

    tc = add_limiter_case(suite, "allow");
    tcase_add_test(tc, allow_with_a_burst_of_one);
    tcase_add_test(tc, allow_with_a_burst_of_three);
    tcase_add_test(tc, allow_when_the_clock_goes_back);
    tcase_add_test(tc, allow_at_a_rate_that_does_not_divide);
    tcase_add_test(tc, allow_to_a_crowd_the_burst_and_no_more);
    tcase_add_test(tc, allow_in_the_long_run_the_rate);
    tcase_add_test(tc, allow_without_a_rate_the_burst_only);
    tcase_add_test(tc, allow_at_a_tiny_rate_the_burst_only);
    tcase_add_test(tc, allow_at_an_infinite_rate_everything);

    tc = add_limiter_case(suite, "set");
    tcase_add_test(tc, set_limit_counts_from_now_on);
    tcase_add_test(tc, set_limit_from_infinite_begins_full);
    tcase_add_test(tc, set_burst_smaller_loses_what_does_not_fit);
    tcase_add_test(tc, every_is_the_rate_of_a_period);

    tc = add_limiter_case(suite, "race");
    tcase_set_timeout(tc, EFFORT_STRESS_SECONDS_MAX);
    tcase_add_test(tc, wait_reserve_and_cancel_race);

    tc = add_limiter_case(suite, "asserts");
    tcase_set_tags(tc, "fork");
    tcase_add_test_raise_signal(tc, allow_of_less_than_nothing_asserts, SIGABRT);
    return suite;
}
