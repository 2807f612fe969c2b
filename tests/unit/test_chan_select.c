/* SPDX-License-Identifier: MIT */
/* The select over channels: which case is done, and that it is exactly one. What it shares with a
 * plain send or receive that waits is asked in test_chan.c; what Go's own tests ask is here too. */
#include <curfew/chan.h>

#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/wait.h>

#include "chan_kit.h"
#include "effort.h"
#include "places.h"

/* Helpers */

/* A select, which is to be that: at any place. */
static void expect_select(const struct cf_chan_case *cases, size_t count, enum cf_code code,
                          size_t index)
{
    size_t got = 99;

    EXPECT(cf_chan_select(cf_ctx_background(), cases, count, &got, NULL) == code);
    EXPECT(got == index);
}

/* select: which */

START_TEST(select_does_the_only_ready_case)
{
    struct cf_chan *full = new_chan(1);
    int taken = -1;
    int sent = 8;
    size_t index = 99;
    struct cf_chan_case cases[] = {
        {CF_CHAN_RECV, idle, NULL},
        {CF_CHAN_SEND, full, &sent},
        {CF_CHAN_RECV, NULL, NULL},
        {CF_CHAN_RECV, NULL, &taken},
    };

    renew_chan(1, 1);
    cases[3].ch = chan;
    ck_assert_int_eq(cf_chan_try_send(full, &sent, &failure), CF_OK);
    ck_assert_int_eq(cf_chan_select(ctx, cases, 4, &index, &failure), CF_OK);
    ck_assert_uint_eq(index, 3);
    ck_assert_int_eq(taken, 0);
    ck_assert_int_eq(cf_chan_try_recv(full, NULL, &failure), CF_OK);
    ck_assert_int_eq(cf_chan_select(ctx, cases, 4, &index, &failure), CF_OK);
    ck_assert_uint_eq(index, 1);
    ck_assert_int_eq(cf_chan_try_select(cases, 4, &index, &failure), CF_EUNAVAIL);
    ck_assert_str_eq(failure.msg, "channel not ready");
    ck_assert_uint_eq(index, 1);
    cf_chan_free(full);
}
END_TEST

START_TEST(select_of_a_closed_channel_says_so)
{
    int sent = 8;
    size_t index = 99;
    struct cf_chan_case cases[] = {{CF_CHAN_RECV, idle, NULL}, {CF_CHAN_RECV, chan, NULL}};

    cf_chan_close(chan);
    ck_assert_int_eq(cf_chan_select(ctx, cases, 2, &index, &failure), CF_ECLOSED);
    ck_assert_uint_eq(index, 1);
    cases[1] = (struct cf_chan_case){CF_CHAN_SEND, chan, &sent};
    index = 99;
    ck_assert_int_eq(cf_chan_try_select(cases, 2, &index, &failure), CF_ECLOSED);
    ck_assert_uint_eq(index, 1);
    cases[1].ch = NULL; /* How one goes on with the others. */
    ck_assert_int_eq(cf_chan_try_select(cases, 2, &index, &failure), CF_EUNAVAIL);
}
END_TEST

static void select_nothing(void *arg)
{
    struct cf_chan_case nil = {CF_CHAN_SEND, NULL, NULL};
    size_t index = 99;

    EXPECT(cf_chan_try_select(NULL, 0, &index, NULL) == CF_EUNAVAIL);
    EXPECT(cf_chan_select(ctx, &nil, *(size_t *)arg, &index, NULL) == CF_ECANCELED);
    EXPECT(index == 99);
}

START_TEST(select_of_nothing_waits_for_the_context)
{
    size_t count = (size_t)(_i / PLACES);
    struct visit visit;

    visit_start(&visit, _i % PLACES, select_nothing, &count);
    visit_wait_parked(&visit);
    cf_ctx_cancel(ctx);
    visit_join(&visit);
}
END_TEST

/* Every number of cases, and any order of their addresses. */
START_TEST(select_of_up_to_the_most_cases)
{
    struct cf_chan *channels[CF_CHAN_CASES_MAX];
    struct cf_chan_case cases[CF_CHAN_CASES_MAX];
    unsigned seed = 1;
    int value = 5;

    for (size_t i = 0; i < CF_CHAN_CASES_MAX; i++) {
        channels[i] = new_chan(1);
    }
    for (size_t count = 1; count <= CF_CHAN_CASES_MAX; count++) {
        size_t ready = (size_t)rand_r(&seed) % count;
        size_t index = 99;

        for (size_t i = 0; i < count; i++) {
            size_t other = (size_t)rand_r(&seed) % (i + 1);

            cases[i] = cases[other];
            cases[other] = (struct cf_chan_case){CF_CHAN_RECV, channels[i], &value};
        }
        ck_assert_int_eq(cf_chan_try_send(cases[ready].ch, &value, &failure), CF_OK);
        ck_assert_int_eq(cf_chan_select(ctx, cases, count, &index, &failure), CF_OK);
        ck_assert_uint_eq(index, ready);
    }
    for (size_t i = 0; i < CF_CHAN_CASES_MAX; i++) {
        cf_chan_free(channels[i]);
    }
}
END_TEST

START_TEST(select_limit_reached_asserts)
{
    struct cf_chan_case cases[CF_CHAN_CASES_MAX + 1] = {{CF_CHAN_RECV, NULL, NULL}};
    size_t index;

    ck_assert_int_eq(cf_chan_try_select(cases, CF_CHAN_CASES_MAX + 1, &index, NULL), CF_EUNAVAIL);
}
END_TEST

/* While it waits, each of its cases can be the one, and the others are not done. */
struct waiting {
    struct cf_chan_case cases[4];
    enum cf_code code;
    size_t index;
};

static void call_waiting(void *arg)
{
    struct waiting *waiting = arg;

    waiting->code = cf_chan_select(ctx, waiting->cases, 4, &waiting->index, NULL);
}

START_TEST(select_that_waits_does_exactly_one)
{
    size_t which = (size_t)(_i / PLACES);
    struct cf_chan *second = new_chan(0);
    struct cf_chan *third = new_chan(0);
    int got[4] = {-1, -1, 10, 11};
    int value = 5;
    struct waiting waiting = {.cases = {{CF_CHAN_RECV, chan, &got[0]},
                                        {CF_CHAN_RECV, second, &got[1]},
                                        {CF_CHAN_SEND, second, &got[2]},
                                        {CF_CHAN_SEND, third, &got[3]}}};
    struct visit visit;

    visit_start(&visit, _i % PLACES, call_waiting, &waiting);
    visit_wait_parked(&visit);
    if (which < 2) {
        ck_assert_int_eq(cf_chan_try_send(waiting.cases[which].ch, &value, &failure), CF_OK);
    } else {
        ck_assert_int_eq(cf_chan_try_recv(waiting.cases[which].ch, &value, &failure), CF_OK);
        ck_assert_int_eq(value, got[which]);
    }
    visit_join(&visit);
    ck_assert_int_eq(waiting.code, CF_OK);
    ck_assert_uint_eq(waiting.index, which);
    for (size_t i = 0; i < 4; i++) {
        struct cf_chan *ch = waiting.cases[i].ch;

        ck_assert_int_eq(got[i], i >= 2 ? (int)(8 + i) : i == which ? 5 : -1);
        ck_assert_int_eq(cf_chan_try_send(ch, &value, &failure), CF_EUNAVAIL);
        ck_assert_int_eq(cf_chan_try_recv(ch, &value, &failure), CF_EUNAVAIL);
    }
    cf_chan_free(second);
    cf_chan_free(third);
}
END_TEST

START_TEST(select_closed_while_waiting_tells_which)
{
    size_t which = (size_t)(_i / PLACES);
    struct cf_chan *others[3] = {new_chan(0), new_chan(0), new_chan(0)};
    int value = 5;
    struct waiting waiting = {.cases = {{CF_CHAN_RECV, chan, NULL},
                                        {CF_CHAN_SEND, others[0], &value},
                                        {CF_CHAN_RECV, others[1], NULL},
                                        {CF_CHAN_SEND, others[2], &value}}};
    struct visit visit;

    visit_start(&visit, _i % PLACES, call_waiting, &waiting);
    visit_wait_parked(&visit);
    cf_chan_close(waiting.cases[which].ch);
    visit_join(&visit);
    ck_assert_int_eq(waiting.code, CF_ECLOSED);
    ck_assert_uint_eq(waiting.index, which);
    for (int i = 0; i < 3; i++) {
        cf_chan_free(others[i]);
    }
}
END_TEST

/* Go: TestSelectDuplicateChannel. A waits in two places of one channel, B behind it in the same;
 * when something else ends the wait of A, B is next. */
static void recv_thrice(void *arg)
{
    struct cf_chan_case cases[] = {
        {CF_CHAN_RECV, chan, NULL}, {CF_CHAN_RECV, chan, NULL}, {CF_CHAN_RECV, arg, NULL}};

    expect_select(cases, 3, CF_OK, 2);
}

START_TEST(select_of_one_channel_twice)
{
    struct chan_call behind = new_call(FORM_RECV);
    struct visit a;
    struct visit b;
    int value = 8;

    visit_start(&a, _i, recv_thrice, idle);
    visit_wait_parked(&a);
    visit_start(&b, _i, call_chan, &behind);
    visit_wait_parked(&b);
    ck_assert_int_eq(cf_chan_try_send(idle, &value, &failure), CF_OK);
    visit_join(&a);
    ck_assert_int_eq(cf_chan_try_send(chan, &value, &failure), CF_OK);
    visit_join(&b);
    ck_assert_int_eq(behind.value, 8);
}
END_TEST

/* Go: TestChanSendInterface has two sends to one full channel in a select with a default. */
START_TEST(try_select_of_two_sends_to_one_channel)
{
    int values[2] = {1, 2};
    struct cf_chan_case cases[] = {{CF_CHAN_SEND, chan, &values[0]},
                                   {CF_CHAN_SEND, chan, &values[1]}};
    size_t index = 99;

    renew_chan(1, 1);
    cases[0].ch = chan;
    cases[1].ch = chan;
    ck_assert_int_eq(cf_chan_try_select(cases, 2, &index, &failure), CF_EUNAVAIL);
    ck_assert_int_eq(cf_chan_try_recv(chan, NULL, &failure), CF_OK);
    ck_assert_int_eq(cf_chan_try_select(cases, 2, &index, &failure), CF_OK);
    ck_assert_uint_eq(cf_chan_len(chan), 1); /* One of them. */
}
END_TEST

/* Fairness */

#define TRIALS 10000

/* Go: TestSelectFairness: of two that are always ready each is chosen about as often, with others
 * before and behind them that never are. Bound: ten sigma of a fair coin, as Go's. */
START_TEST(select_is_fair)
{
    struct cf_chan *first = new_chan(TRIALS);
    struct cf_chan *second = new_chan(TRIALS);
    struct cf_chan_case cases[] = {{CF_CHAN_RECV, chan, NULL},
                                   {CF_CHAN_RECV, first, NULL},
                                   {CF_CHAN_RECV, idle, NULL},
                                   {CF_CHAN_RECV, second, NULL}};
    int counts[4] = {0, 0, 0, 0};

    for (int i = 0; i < TRIALS; i++) {
        ck_assert_int_eq(cf_chan_try_send(first, &i, NULL), CF_OK);
        ck_assert_int_eq(cf_chan_try_send(second, &i, NULL), CF_OK);
    }
    for (int i = 0; i < TRIALS; i++) {
        size_t index = 0;

        ck_assert_int_eq(cf_chan_select(ctx, cases, 4, &index, NULL), CF_OK);
        counts[index]++;
    }
    ck_assert_int_eq(counts[1] + counts[3], TRIALS);
    ck_assert_int_gt(counts[1], TRIALS / 2 - 500); /* Sigma is 50. */
    ck_assert_int_lt(counts[1], TRIALS / 2 + 500);
    cf_chan_free(first);
    cf_chan_free(second);
}
END_TEST

/* Each of five that are ready is chosen as often, which a start at random and a walk from there
 * would not do, with those between them that are not. */
START_TEST(select_is_fair_among_neighbours)
{
    struct cf_chan_case cases[8];
    int counts[8] = {0};

    renew_chan(1, 1);
    for (size_t i = 0; i < 8; i++) {
        cases[i] = (struct cf_chan_case){CF_CHAN_RECV, i % 8 < 5 ? chan : idle, NULL};
    }
    for (int i = 0; i < TRIALS; i++) {
        size_t index = 0;

        ck_assert_int_eq(cf_chan_select(ctx, cases, 8, &index, NULL), CF_OK);
        ck_assert_int_eq(cf_chan_try_send(chan, &i, NULL), CF_OK);
        counts[index]++;
    }
    for (size_t i = 0; i < 5; i++) {
        ck_assert_int_gt(counts[i], TRIALS / 5 - 400); /* Sigma is 40. */
        ck_assert_int_lt(counts[i], TRIALS / 5 + 400);
    }
}
END_TEST

#define COINS 100

static void toss(void *arg)
{
    int values[2] = {0, 1};
    struct cf_chan_case cases[] = {{CF_CHAN_SEND, arg, &values[0]},
                                   {CF_CHAN_SEND, arg, &values[1]}};

    for (int i = 0; i < COINS; i++) {
        size_t index;

        EXPECT(cf_chan_select(cf_ctx_background(), cases, 2, &index, NULL) == CF_OK);
    }
}

/* Go: TestPseudoRandomSend. */
START_TEST(select_of_two_sends_is_random)
{
    int ones = 0;
    struct visit visit;

    renew_chan(_i / PLACES == 0 ? 0 : COINS, 0);
    visit_start(&visit, _i % PLACES, toss, chan);
    for (int i = 0; i < COINS; i++) {
        int value = -1;

        ck_assert_int_eq(cf_chan_recv(ctx, chan, &value, &failure), CF_OK);
        ones += value;
    }
    visit_join(&visit);
    ck_assert_int_gt(ones, COINS / 10);
    ck_assert_int_lt(ones, COINS - COINS / 10);
}
END_TEST

/* One moment */

struct either {
    struct cf_chan *channels[2];
    enum cf_code code;
};

static void try_either(void *arg)
{
    struct either *either = arg;
    struct cf_chan_case cases[] = {{CF_CHAN_RECV, either->channels[0], NULL},
                                   {CF_CHAN_RECV, either->channels[1], NULL}};
    size_t index;

    either->code = cf_chan_try_select(cases, 2, &index, NULL);
}

/* Go: TestNonblockSelectRace, TestNonblockSelectRace2: the second channel becomes ready before the
 * first one ceases to be, so that at each moment one of them is. */
START_TEST(try_select_looks_at_one_moment)
{
    for (int i = 0; i < effort_count(3000, 200); i++) {
        struct either either = {.channels = {new_chan(1), new_chan(1)}};
        struct visit visit;
        int value = 1;

        ck_assert_int_eq(cf_chan_try_send(either.channels[0], &value, NULL), CF_OK);
        visit_start(&visit, PLACE_THREAD, try_either, &either);
        if (_i == 0) {
            ck_assert_int_eq(cf_chan_try_send(either.channels[1], &value, NULL), CF_OK);
        } else {
            cf_chan_close(either.channels[1]);
        }
        ck_assert_int_ne(cf_chan_try_recv(either.channels[0], NULL, NULL), CF_ECLOSED);
        visit_join(&visit);
        ck_assert_int_ne(either.code, CF_EUNAVAIL);
        cf_chan_free(either.channels[0]);
        cf_chan_free(either.channels[1]);
    }
}
END_TEST

/* Stress */

struct self {
    int side;
    int rounds;
};

/* Both sides in one select on one channel. Without a buffer nobody meets himself. */
static void send_or_recv(void *arg)
{
    struct self *self = arg;

    for (int i = 0; i < self->rounds; i++) {
        int got = -1;
        size_t sends = self->side == 0 || i % 2 == 0 ? 0 : 1;
        struct cf_chan_case cases[2];
        size_t index = 9;

        cases[sends] = (struct cf_chan_case){CF_CHAN_SEND, chan, &self->side};
        cases[1 - sends] = (struct cf_chan_case){CF_CHAN_RECV, chan, &got};
        EXPECT(cf_chan_select(cf_ctx_background(), cases, 2, &index, NULL) == CF_OK);
        EXPECT(index == sends || cf_chan_cap(chan) > 0 || got == 1 - self->side);
    }
}

/* Go: TestSelfSelect. */
START_TEST(select_of_both_sides_of_one_channel)
{
    struct self selves[2] = {{0, effort_count(1000, 200)}, {1, effort_count(1000, 200)}};
    struct visit visits[2];

    renew_chan(_i / PLACES == 0 ? 0 : 10, 0);
    visit_start(&visits[0], PLACE_THREAD, send_or_recv, &selves[0]);
    visit_start(&visits[1], _i % PLACES, send_or_recv, &selves[1]);
    visit_join(&visits[0]);
    visit_join(&visits[1]);
}
END_TEST

#define CHANNELS 4

static struct cf_chan *channels[CHANNELS];
static int times;

static void send_times(void *arg)
{
    int value = 0;

    for (int i = 0; i < times; i++) {
        EXPECT(cf_chan_send(cf_ctx_background(), *(struct cf_chan **)arg, &value, NULL) == CF_OK);
    }
}

static void recv_times(void *arg)
{
    for (int i = 0; i < times; i++) {
        EXPECT(cf_chan_recv(cf_ctx_background(), *(struct cf_chan **)arg, NULL, NULL) == CF_OK);
    }
}

/* `times` on each of the channels, in the order in which they are ready. */
static void select_times(void *arg)
{
    int value = 0;
    int counts[CHANNELS] = {0};
    struct cf_chan_case cases[CHANNELS];

    for (int i = 0; i < CHANNELS; i++) {
        cases[i] = (struct cf_chan_case){*(enum cf_chan_op *)arg, channels[i], &value};
    }
    for (int i = 0; i < CHANNELS * times; i++) {
        size_t index = 0;

        EXPECT(cf_chan_select(cf_ctx_background(), cases, CHANNELS, &index, NULL) == CF_OK);
        counts[index]++;
        if (counts[index] == times) {
            cases[index].ch = NULL;
        }
    }
}

/* Go: TestSelectStress. */
START_TEST(select_among_plain_senders_and_receivers)
{
    static const size_t capacities[CHANNELS] = {0, 0, 2, 3};
    enum cf_chan_op ops[2] = {CF_CHAN_SEND, CF_CHAN_RECV};
    struct visit visits[2 * CHANNELS + 2];

    times = effort_count(10000, 500);
    for (int i = 0; i < CHANNELS; i++) {
        channels[i] = new_chan(capacities[i]);
    }
    for (int i = 0; i < CHANNELS; i++) {
        visit_start(&visits[2 * i], (_i + i) % PLACES, send_times, &channels[i]);
        visit_start(&visits[2 * i + 1], _i % PLACES, recv_times, &channels[i]);
    }
    for (int i = 0; i < 2; i++) {
        visit_start(&visits[2 * CHANNELS + i], (_i + i) % PLACES, select_times, &ops[i]);
    }
    for (int i = 0; i < 2 * CHANNELS + 2; i++) {
        visit_join(&visits[i]);
    }
    for (int i = 0; i < CHANNELS; i++) {
        ck_assert_uint_eq(cf_chan_len(channels[i]), 0);
        cf_chan_free(channels[i]);
    }
}
END_TEST

Suite *suite_chan_select(void)
{
    Suite *suite = suite_create("chan_select");
    TCase *tc = tcase_create("select");

    tcase_add_checked_fixture(tc, setup_chans, teardown_chans);
    tcase_set_timeout(tc, 30);
    tcase_add_test(tc, select_does_the_only_ready_case);
    tcase_add_test(tc, select_of_a_closed_channel_says_so);
    tcase_add_loop_test(tc, select_of_nothing_waits_for_the_context, 0, 2 * PLACES);
    tcase_add_test(tc, select_of_up_to_the_most_cases);
    tcase_add_loop_test(tc, select_that_waits_does_exactly_one, 0, 4 * PLACES);
    tcase_add_loop_test(tc, select_closed_while_waiting_tells_which, 0, 4 * PLACES);
    tcase_add_loop_test(tc, select_of_one_channel_twice, 0, PLACES);
    tcase_add_test(tc, try_select_of_two_sends_to_one_channel);
    suite_add_tcase(suite, tc);

    tc = tcase_create("choice");
    tcase_add_checked_fixture(tc, setup_chans, teardown_chans);
    tcase_set_timeout(tc, 30);
    tcase_add_test(tc, select_is_fair);
    tcase_add_test(tc, select_is_fair_among_neighbours);
    tcase_add_loop_test(tc, select_of_two_sends_is_random, 0, 2 * PLACES);
    tcase_add_loop_test(tc, try_select_looks_at_one_moment, 0, 2);
    suite_add_tcase(suite, tc);

    tc = tcase_create("stress");
    tcase_add_checked_fixture(tc, setup_chans, teardown_chans);
    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, select_of_both_sides_of_one_channel, 0, 2 * PLACES);
    tcase_add_loop_test(tc, select_among_plain_senders_and_receivers, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("asserts");
    tcase_set_tags(tc, "fork");
    tcase_add_checked_fixture(tc, setup_chans, teardown_chans);
    tcase_add_test_raise_signal(tc, select_limit_reached_asserts, SIGABRT);
    suite_add_tcase(suite, tc);
    return suite;
}
