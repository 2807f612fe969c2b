/* SPDX-License-Identifier: MIT */
/* Channels: the contract of chan.h, from plain threads and from fibers, and what Go's own tests ask
 * of a channel (test_chan_select.c has the select, and tests/README.md the table). */
#include <curfew/chan.h>

#include <check.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/group.h>
#include <curfew/wait.h>

#include "chan_kit.h"
#include "effort.h"
#include "fault.h"

static const size_t capacities[] = {0, 1, 2, 7, 20};
#define CAPACITIES ((int)(sizeof(capacities) / sizeof(capacities[0])))

/* Helpers */

/* Take what is left in `chan`: it is to be empty, and open. */
static void expect_empty(void)
{
    ck_assert_uint_eq(cf_chan_len(chan), 0);
    ck_assert_int_eq(cf_chan_try_recv(chan, NULL, &failure), CF_EUNAVAIL);
}

static void send_0_to_n(void *arg)
{
    for (int i = 0; i < *(int *)arg; i++) {
        EXPECT(cf_chan_send(cf_ctx_background(), chan, &i, NULL) == CF_OK);
    }
}

static void recv_0_to_n(void *arg)
{
    for (int i = 0; i < *(int *)arg; i++) {
        int value = -1;

        EXPECT(cf_chan_recv(cf_ctx_background(), chan, &value, NULL) == CF_OK);
        EXPECT(value == i);
    }
}

/* new, free */

START_TEST(new_out_of_memory)
{
    struct cf_chan *made = NULL;

    fault_alloc(1, false);
    ck_assert_int_eq(cf_chan_new(8, 8, &made, &failure), CF_ENOMEM);
    ck_assert(fault_off());
    ck_assert_str_eq(failure.msg, "no memory for a channel of 8 elements of 8 bytes");
    ck_assert_ptr_null(made);
}
END_TEST

START_TEST(new_of_more_than_there_is)
{
    static const size_t sizes[][2] = {
        {SIZE_MAX, 2}, {2, SIZE_MAX}, {SIZE_MAX / 2 + 2, 2}, {1, SIZE_MAX}, {1, SIZE_MAX - 8}};
    struct cf_chan *made = NULL;

    ck_assert_int_eq(cf_chan_new(sizes[_i][0], sizes[_i][1], &made, &failure), CF_ENOMEM);
    ck_assert_ptr_null(made);
}
END_TEST

START_TEST(free_of_null_does_nothing)
{
    cf_chan_free(NULL);
}
END_TEST

START_TEST(free_while_somebody_waits_asserts)
{
    struct chan_call call = new_call(FORM_OF(_i));
    struct visit visit;

    visit_start(&visit, PLACE_OF(_i), call_chan, &call);
    visit_wait_parked(&visit);
    cf_chan_free(chan);
}
END_TEST

/* send, recv: elements */

struct wide {
    unsigned char bytes[100];
};

START_TEST(send_copies_elements_of_any_size)
{
    static const size_t sizes[] = {0, 1, 3, 8, sizeof(struct wide)};
    struct cf_chan *ch;

    ck_assert_int_eq(cf_chan_new(sizes[_i], 3, &ch, &failure), CF_OK);
    for (int round = 0; round < 10; round++) { /* Round the ring, at every place of it. */
        struct wide sent;
        struct wide got;

        for (int k = 0; k < 1 + round % 3; k++) {
            memset(&sent, round * 4 + k, sizeof(sent));
            ck_assert_int_eq(cf_chan_try_send(ch, &sent, &failure), CF_OK);
        }
        for (int k = 0; k < 1 + round % 3; k++) {
            memset(&sent, round * 4 + k, sizeof(sent));
            memset(&got, 255, sizeof(got));
            memset(&sent.bytes[sizes[_i]], 255, sizeof(sent) - sizes[_i]);
            ck_assert_int_eq(cf_chan_try_recv(ch, &got, &failure), CF_OK);
            ck_assert_mem_eq(&got, &sent, sizeof(got)); /* And nothing behind it was written. */
        }
    }
    cf_chan_free(ch);
}
END_TEST

START_TEST(send_of_nothing_needs_no_memory)
{
    struct cf_chan *ch;

    ck_assert_int_eq(cf_chan_new(0, 2, &ch, &failure), CF_OK);
    ck_assert_int_eq(cf_chan_send(ctx, ch, NULL, &failure), CF_OK);
    ck_assert_int_eq(cf_chan_send(ctx, ch, NULL, &failure), CF_OK);
    ck_assert_int_eq(cf_chan_try_send(ch, NULL, &failure), CF_EUNAVAIL);
    ck_assert_int_eq(cf_chan_recv(ctx, ch, NULL, &failure), CF_OK);
    ck_assert_uint_eq(cf_chan_len(ch), 1);
    cf_chan_free(ch);
}
END_TEST

START_TEST(recv_into_null_throws_away)
{
    int value = -1;

    renew_chan(2, 2);
    ck_assert_int_eq(cf_chan_recv(ctx, chan, NULL, &failure), CF_OK);
    ck_assert_int_eq(cf_chan_recv(ctx, chan, &value, &failure), CF_OK);
    ck_assert_int_eq(value, 1);
}
END_TEST

/* Go: TestChan, "in FIFO order". */
START_TEST(send_order_is_recv_order)
{
    int count = 100;
    struct visit visit;

    renew_chan(capacities[_i / (PLACES * PLACES)], 0);
    visit_start(&visit, _i / PLACES % PLACES, send_0_to_n, &count);
    place_run(_i % PLACES, recv_0_to_n, &count);
    visit_join(&visit);
    expect_empty();
}
END_TEST

/* Two fibers of one loop, and two threads. */
static enum cf_code task_send(struct cf_ctx *of, void *arg, struct cf_err *err)
{
    (void)of;
    (void)err;
    send_0_to_n(arg);
    return CF_OK;
}

static enum cf_code task_recv(struct cf_ctx *of, void *arg, struct cf_err *err)
{
    (void)of;
    (void)err;
    recv_0_to_n(arg);
    return CF_OK;
}

static void run_both(void *arg)
{
    struct cf_group *group;

    if (cf_group_new(cf_ctx_background(), &group, NULL) != CF_OK) {
        abort();
    }
    cf_group_go(group, task_recv, arg);
    cf_group_go(group, task_send, arg);
    EXPECT(cf_group_wait(group, NULL) == CF_OK);
    cf_group_free(group);
}

START_TEST(send_order_is_recv_order_in_one_group)
{
    int count = 100;

    renew_chan(capacities[_i / PLACES], 0);
    place_run(_i % PLACES, run_both, &count);
    expect_empty();
}
END_TEST

/* Waiting */

/* Go: TestChan, "receive from empty chan blocks", "send to full chan blocks", and the same without
 * waiting. */
START_TEST(call_waits_until_it_is_met)
{
    for (int i = 0; i < CAPACITIES; i++) {
        enum form form = FORM_OF(_i);
        struct chan_call call;
        struct visit visit;
        int value = 5;

        renew_chan(capacities[i], form_sends(form) ? (int)capacities[i] : 0);
        ck_assert_int_eq(form_sends(form) ? cf_chan_try_send(chan, &value, &failure)
                                          : cf_chan_try_recv(chan, &value, &failure),
                         CF_EUNAVAIL);
        ck_assert_str_eq(failure.msg, "channel not ready");
        ck_assert_int_eq(value, 5);
        call = new_call(form);
        visit_start(&visit, PLACE_OF(_i), call_chan, &call);
        visit_wait_parked(&visit);
        ck_assert_int_eq(meet(form, &value), CF_OK);
        visit_join(&visit);
        ck_assert_int_eq(call.code, CF_OK);
        if (form_sends(form)) { /* The oldest one; that of the sender is the last. */
            ck_assert_int_eq(value, capacities[i] > 0 ? 0 : 7);
            ck_assert_uint_eq(cf_chan_len(chan), capacities[i]);
        } else { /* It went by the ring. */
            ck_assert_int_eq(call.value, 5);
            ck_assert_uint_eq(cf_chan_len(chan), 0);
        }
    }
}
END_TEST

#define QUEUE 6

/* Who waits first is served first, whatever kind of call it is. */
START_TEST(calls_are_first_come_first_served)
{
    bool sends = _i == 0;
    struct chan_call calls[QUEUE];
    struct visit visits[QUEUE];
    enum form forms[] = {sends ? FORM_SEND : FORM_RECV,
                         sends ? FORM_SELECT_SEND : FORM_SELECT_RECV};

    for (int i = 0; i < QUEUE; i++) {
        calls[i] = new_call(forms[i % 2]);
        calls[i].value = sends ? 10 + i : -1;
        visit_start(&visits[i], i / 2 % PLACES, call_chan, &calls[i]);
        visit_wait_parked(&visits[i]);
    }
    for (int i = 0; i < QUEUE; i++) {
        int value = 10 + i;

        ck_assert_int_eq(meet(forms[0], &value), CF_OK);
        ck_assert_int_eq(value, 10 + i);
        visit_join(&visits[i]); /* It was this one. */
        ck_assert_int_eq(calls[i].value, 10 + i);
    }
}
END_TEST

START_TEST(call_already_canceled)
{
    struct chan_call call;

    renew_chan(2, 1); /* Both could be done. */
    call = new_call(FORM_OF(_i));
    cf_ctx_cancel(ctx);
    place_run(PLACE_OF(_i), call_chan, &call);
    ck_assert_int_eq(call.code, CF_ECANCELED);
    ck_assert_int_eq(call.err.code, CF_ECANCELED);
    ck_assert_int_eq(call.value, form_sends(call.form) ? 7 : -1);
    ck_assert_uint_eq(call.index, 9);
    ck_assert_uint_eq(cf_chan_len(chan), 1);
}
END_TEST

START_TEST(call_already_late)
{
    struct chan_call call;

    renew_chan(2, 1);
    call = new_call(FORM_OF(_i));
    ck_assert_int_eq(cf_ctx_with_deadline(ctx, cf_now_ns() - 1, &call.ctx, &failure), CF_OK);
    place_run(PLACE_OF(_i), call_chan, &call);
    ck_assert_int_eq(call.code, CF_EDEADLINE);
    ck_assert_uint_eq(cf_chan_len(chan), 1);
    cf_ctx_free(call.ctx);
}
END_TEST

/* A call that failed has left: nobody meets it any more, and its memory was not written. */
static void check_gone(const struct chan_call *call)
{
    int value = 5;

    ck_assert_int_eq(call->value, form_sends(call->form) ? 7 : -1);
    ck_assert_uint_eq(call->index, 9);
    ck_assert_int_eq(meet(call->form, &value), CF_EUNAVAIL);
}

START_TEST(call_canceled_while_waiting)
{
    struct chan_call call = new_call(FORM_OF(_i));
    struct cf_err why;
    struct visit visit;

    (void)cf_err_set(&why, CF_ECLOSED, "the shop has closed");
    visit_start(&visit, PLACE_OF(_i), call_chan, &call);
    visit_wait_parked(&visit);
    cf_ctx_cancel_cause(ctx, CF_REASON_OPERATOR, &why);
    visit_join(&visit);
    ck_assert_int_eq(call.code, CF_ECANCELED);
    ck_assert_str_eq(call.err.msg, "context canceled: the shop has closed");
    check_gone(&call);
}
END_TEST

/* The deadline of a context made at the place (its loop's timer), and of one made elsewhere. */
START_TEST(call_deadline_while_waiting)
{
    struct chan_call call = new_call(FORM_OF(_i % FORMS_AND_PLACES));
    int64_t deadline_ns = cf_now_ns() + 20 * CF_MS;
    struct cf_ctx *late = NULL;

    if (_i < FORMS_AND_PLACES) {
        call.timeout_ns = 20 * CF_MS;
    } else {
        ck_assert_int_eq(cf_ctx_with_deadline(ctx, deadline_ns, &late, &failure), CF_OK);
        call.ctx = late;
    }
    place_run(PLACE_OF(_i), call_chan, &call);
    ck_assert_int_eq(call.code, CF_EDEADLINE);
    ck_assert_int_ge(call.ended_ns, deadline_ns);
    ck_assert_int_lt(call.ended_ns, deadline_ns + LATE_NS);
    check_gone(&call);
    cf_ctx_free(late);
}
END_TEST

/* Go: TestChan, "close unblocks receive". A sender that waits is told as well. */
START_TEST(call_closed_while_waiting)
{
    for (int i = 0; i < CAPACITIES; i++) {
        enum form form = FORM_OF(_i);
        struct chan_call call;
        struct visit visit;

        renew_chan(capacities[i], form_sends(form) ? (int)capacities[i] : 0);
        call = new_call(form);
        visit_start(&visit, PLACE_OF(_i), call_chan, &call);
        visit_wait_parked(&visit);
        cf_chan_close(chan);
        visit_join(&visit);
        ck_assert_int_eq(call.code, CF_ECLOSED);
        ck_assert_str_eq(call.err.msg, "channel closed");
        ck_assert_int_eq(call.value, form_sends(form) ? 7 : -1);
        ck_assert_uint_eq(call.index, form == FORM_SEND || form == FORM_RECV ? 9 : 1);
        ck_assert_uint_eq(cf_chan_len(chan), form_sends(form) ? capacities[i] : 0);
    }
}
END_TEST

/* Neither a call that waits nor one that does not asks for memory. */
START_TEST(call_out_of_memory)
{
    struct chan_call call = new_call(FORM_OF(_i));
    struct visit visit;
    int value = 5;

    call.fail_nth = 1;
    visit_start(&visit, PLACE_OF(_i), call_chan, &call);
    visit_wait_parked(&visit);
    ck_assert_int_eq(meet(call.form, &value), CF_OK);
    visit_join(&visit);
    ck_assert_int_eq(call.code, CF_OK);
    ck_assert(!call.struck);
}
END_TEST

/* The limit is the capacity: at it a send waits, and an older element makes room for it. */
START_TEST(send_limit_reached)
{
    enum form form = _i / PLACES == 0 ? FORM_SEND : FORM_SELECT_SEND;
    struct chan_call call;
    struct visit visit;

    renew_chan(3, 3);
    call = new_call(form);
    visit_start(&visit, PLACE_OF(_i), call_chan, &call);
    visit_wait_parked(&visit);
    ck_assert_uint_eq(cf_chan_len(chan), 3);
    for (int i = 0; i < 4; i++) {
        int value = -1;

        ck_assert_int_eq(cf_chan_try_recv(chan, &value, &failure), CF_OK);
        ck_assert_int_eq(value, i < 3 ? i : 7);
    }
    visit_join(&visit);
    ck_assert_int_eq(call.code, CF_OK);
    expect_empty();
}
END_TEST

/* The partner comes while the context is cancelled: either both succeed with the one value, or the
 * call is cancelled and the partner has met nobody. */
static enum form racing;
static atomic_int met; /* The partner's value, or -1: it met nobody. */

static void meet_racing(struct rival *rival)
{
    int value = form_sends(racing) ? -1 : atomic_load(&rival->asked);

    /* Often, or it would seldom come while the call waits. */
    for (int i = 0; i < 200; i++) {
        if (meet(racing, &value) == CF_OK) {
            atomic_store(&met, value);
            return;
        }
    }
}

static void race_rounds(void *arg)
{
    struct race *race = arg;
    int64_t until_ns = effort_until_ns();

    for (int round = 1; race_goes_on(race, until_ns); round++) {
        struct chan_call call = new_call(racing);

        call.ctx = new_ctx();
        call.value = form_sends(racing) ? round : -1;
        atomic_store(&met, -1);
        atomic_store(&race->canceler.ctx, call.ctx);
        rival_ask(&race->canceler);
        rival_ask(&race->giver);
        call_chan(&call);
        rival_settle(&race->canceler);
        rival_settle(&race->giver);
        judge(race, call.code, call.value == round, call.ctx);
        if (atomic_load(&met) != (call.code == CF_OK ? round : -1) && race->wrong[0] == '\0') {
            (void)snprintf(race->wrong, sizeof(race->wrong), "round %d: %s, and the partner had %d",
                           round, cf_code_name(call.code), atomic_load(&met));
        }
        cf_ctx_free(call.ctx);
    }
}

START_TEST(call_success_races_cancel)
{
    racing = FORM_OF(_i);
    check_race(PLACE_OF(_i), race_rounds, meet_racing);
}
END_TEST

/* close */

/* Go: TestChan, "receive 0 from closed chan": here the value is left alone. */
START_TEST(close_leaves_what_was_sent)
{
    int value = -1;

    renew_chan(capacities[_i], (int)capacities[_i]);
    cf_chan_close(chan);
    for (int i = 0; i < (int)capacities[_i]; i++) {
        ck_assert_int_eq(cf_chan_recv(ctx, chan, &value, &failure), CF_OK);
        ck_assert_int_eq(value, i);
    }
    value = -1;
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(cf_chan_recv(ctx, chan, &value, &failure), CF_ECLOSED);
        ck_assert_str_eq(failure.msg, "channel closed");
        ck_assert_int_eq(cf_chan_try_recv(chan, &value, NULL), CF_ECLOSED);
        ck_assert_int_eq(value, -1);
    }
}
END_TEST

START_TEST(close_refuses_what_is_sent_later)
{
    int value = 1;

    renew_chan(4, 1);
    cf_chan_close(chan);
    ck_assert_int_eq(cf_chan_send(ctx, chan, &value, &failure), CF_ECLOSED);
    ck_assert_int_eq(cf_chan_try_send(chan, &value, &failure), CF_ECLOSED);
    ck_assert_uint_eq(cf_chan_len(chan), 1);
}
END_TEST

START_TEST(close_ends_every_wait)
{
    struct chan_call calls[QUEUE];
    struct visit visits[QUEUE];

    for (int i = 0; i < QUEUE; i++) {
        calls[i] = new_call(i % 2 == 0 ? FORM_RECV : FORM_SELECT_RECV);
        visit_start(&visits[i], i / 2 % PLACES, call_chan, &calls[i]);
        visit_wait_parked(&visits[i]);
    }
    cf_chan_close(chan);
    for (int i = 0; i < QUEUE; i++) {
        visit_join(&visits[i]);
        ck_assert_int_eq(calls[i].code, CF_ECLOSED);
    }
}
END_TEST

START_TEST(close_twice_asserts)
{
    cf_chan_close(chan);
    cf_chan_close(chan);
}
END_TEST

/* try_recv */

/* Go: TestNonblockRecvRace. An element that is in it is received, also while it is closed: the
 * test's own receive cannot take it, because only one of two gets it. */
static void try_recv_one(void *arg)
{
    *(enum cf_code *)arg = cf_chan_try_recv(chan, NULL, NULL);
}

START_TEST(try_recv_races_close)
{
    for (int i = 0; i < effort_count(1000, 100); i++) {
        enum cf_code codes[2];
        struct visit visit;

        renew_chan(1, 1);
        visit_start(&visit, PLACE_THREAD, try_recv_one, &codes[0]);
        cf_chan_close(chan);
        codes[1] = cf_chan_recv(ctx, chan, NULL, NULL);
        visit_join(&visit);
        ck_assert_int_ne(codes[0], CF_EUNAVAIL);
        ck_assert((codes[0] == CF_OK) != (codes[1] == CF_OK));
    }
}
END_TEST

/* len, cap */

/* Go: TestChan, "len/cap". */
START_TEST(len_and_cap)
{
    renew_chan(capacities[_i], 0);
    ck_assert_uint_eq(cf_chan_len(chan), 0);
    ck_assert_uint_eq(cf_chan_cap(chan), capacities[_i]);
    renew_chan(capacities[_i], (int)capacities[_i]);
    ck_assert_uint_eq(cf_chan_len(chan), capacities[_i]);
    ck_assert_uint_eq(cf_chan_cap(chan), capacities[_i]);
}
END_TEST

/* Many */

#define WORKERS 23
static const int primes[] = {2, 3, 7, 11, 13, 17, 19, 23, 27, 31};
#define PRIMES ((int)(sizeof(primes) / sizeof(primes[0])))

struct factory {
    struct cf_chan *work;
    struct cf_chan *results;
    int count;
    atomic_int hired;
};

static enum cf_code work(struct cf_ctx *of, void *arg, struct cf_err *err)
{
    struct factory *factory = arg;
    int prime = primes[atomic_fetch_add(&factory->hired, 1) % PRIMES];
    enum cf_code code = CF_OK;
    int value;

    while (code == CF_OK && (code = cf_chan_recv(of, factory->work, &value, err)) == CF_OK) {
        if (value == prime) {
            place_yield();
        }
        code = cf_chan_send(of, factory->results, &value, err);
    }
    return code == CF_ECLOSED ? CF_OK : code;
}

static void run_factory(void *arg)
{
    struct factory *factory = arg;
    struct cf_group *group;

    if (cf_group_new(cf_ctx_background(), &group, NULL) != CF_OK) {
        abort();
    }
    for (int i = 0; i < WORKERS; i++) {
        cf_group_go(group, work, factory);
    }
    for (int i = 0; i < factory->count; i++) {
        EXPECT(cf_chan_send(cf_ctx_background(), factory->work, &primes[i % PRIMES], NULL) ==
               CF_OK);
    }
    cf_chan_close(factory->work);
    EXPECT(cf_group_wait(group, NULL) == CF_OK);
    cf_chan_close(factory->results);
    cf_group_free(group);
}

/* Go: TestMultiConsumer. */
START_TEST(many_consumers_get_each_element_once)
{
    struct factory factory = {.count = effort_count(50000, 3000)};
    long expected = 0;
    long sum = 0;
    int count = 0;
    struct visit visit;
    int value;

    factory.work = new_chan((size_t)WORKERS * 3);
    factory.results = new_chan((size_t)WORKERS * 3);
    for (int i = 0; i < factory.count; i++) {
        expected += primes[i % PRIMES];
    }
    visit_start(&visit, _i, run_factory, &factory);
    while (cf_chan_recv(ctx, factory.results, &value, NULL) == CF_OK) {
        sum += value;
        count++;
    }
    visit_join(&visit);
    ck_assert_int_eq(count, factory.count);
    ck_assert_int_eq(sum, expected);
    cf_chan_free(factory.work);
    cf_chan_free(factory.results);
}
END_TEST

#define EACH_SENDS 1000
#define SIDES 4

struct tally {
    int seen[EACH_SENDS];
};

static void tally_some(void *arg)
{
    struct tally *tally = arg;

    for (int i = 0; i < EACH_SENDS; i++) {
        int value = 0;

        EXPECT(cf_chan_recv(cf_ctx_background(), chan, &value, NULL) == CF_OK);
        tally->seen[value]++;
    }
}

/* Go: TestChan, "in 4 goroutines": here two of them are fibers, each of a loop of its own. */
START_TEST(many_to_many_lose_nothing)
{
    static struct tally tallies[SIDES];
    struct visit senders[SIDES];
    struct visit receivers[SIDES];
    int count = EACH_SENDS;

    memset(tallies, 0, sizeof(tallies));
    renew_chan(capacities[_i], 0);
    for (int i = 0; i < SIDES; i++) {
        visit_start(&senders[i], i % PLACES, send_0_to_n, &count);
        visit_start(&receivers[i], i % PLACES, tally_some, &tallies[i]);
    }
    for (int i = 0; i < SIDES; i++) {
        visit_join(&senders[i]);
        visit_join(&receivers[i]);
    }
    for (int value = 0; value < EACH_SENDS; value++) {
        int seen = 0;

        for (int i = 0; i < SIDES; i++) {
            seen += tallies[i].seen[value];
        }
        ck_assert_int_eq(seen, SIDES);
    }
    expect_empty();
}
END_TEST

/* Go: TestChanSendBarrier, TestChanSendSelectBarrier: who has received the answer is done with the
 * channel, though its sender has not returned. In C that means that it is freed. */
struct question {
    struct cf_chan *answer;
    struct cf_chan *never;
    bool selects;
};

static void answer(void *arg)
{
    struct question question = *(struct question *)arg;
    int value = 42;
    size_t index = 9;
    struct cf_chan_case cases[] = {{CF_CHAN_SEND, question.answer, &value},
                                   {CF_CHAN_RECV, question.never, NULL}};

    if (question.selects) {
        EXPECT(cf_chan_select(cf_ctx_background(), cases, 2, &index, NULL) == CF_OK);
        EXPECT(index == 0);
    } else {
        EXPECT(cf_chan_send(cf_ctx_background(), question.answer, &value, NULL) == CF_OK);
    }
}

static void ask(void *arg)
{
    struct question question = *(struct question *)arg;

    for (int i = 0; i < effort_count(300, 50); i++) {
        struct visit visit;
        int value = 0;

        question.answer = new_chan(0);
        visit_start(&visit, i / 2 % PLACES, answer, &question);
        if (i % 2 == 0) {
            visit_wait_parked(&visit); /* Else the receive waits for it, most of the time. */
        }
        EXPECT(cf_chan_recv(cf_ctx_background(), question.answer, &value, NULL) == CF_OK);
        EXPECT(value == 42);
        cf_chan_free(question.answer);
        visit_join(&visit);
    }
}

START_TEST(free_by_who_received_while_the_sender_returns)
{
    struct question question = {.never = idle, .selects = _i == 1};

    ask(&question);
}
END_TEST

Suite *suite_chan(void)
{
    Suite *suite = suite_create("chan");
    TCase *tc = tcase_create("new");

    tcase_add_checked_fixture(tc, setup_chans, teardown_chans);
    tcase_add_test(tc, new_out_of_memory);
    tcase_add_loop_test(tc, new_of_more_than_there_is, 0, 5);
    tcase_add_test(tc, free_of_null_does_nothing);
    suite_add_tcase(suite, tc);

    tc = tcase_create("element");
    tcase_add_checked_fixture(tc, setup_chans, teardown_chans);
    tcase_add_loop_test(tc, send_copies_elements_of_any_size, 0, 5);
    tcase_add_test(tc, send_of_nothing_needs_no_memory);
    tcase_add_test(tc, recv_into_null_throws_away);
    tcase_add_loop_test(tc, send_order_is_recv_order, 0, CAPACITIES * PLACES * PLACES);
    tcase_add_loop_test(tc, send_order_is_recv_order_in_one_group, 0, CAPACITIES * PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("wait");
    tcase_add_checked_fixture(tc, setup_chans, teardown_chans);
    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, call_waits_until_it_is_met, 0, FORMS_AND_PLACES);
    tcase_add_loop_test(tc, calls_are_first_come_first_served, 0, 2);
    tcase_add_loop_test(tc, call_already_canceled, 0, FORMS_AND_PLACES);
    tcase_add_loop_test(tc, call_already_late, 0, FORMS_AND_PLACES);
    tcase_add_loop_test(tc, call_canceled_while_waiting, 0, FORMS_AND_PLACES);
    tcase_add_loop_test(tc, call_deadline_while_waiting, 0, 2 * FORMS_AND_PLACES);
    tcase_add_loop_test(tc, call_closed_while_waiting, 0, FORMS_AND_PLACES);
    tcase_add_loop_test(tc, call_out_of_memory, 0, FORMS_AND_PLACES);
    tcase_add_loop_test(tc, send_limit_reached, 0, 2 * PLACES);
    tcase_add_loop_test(tc, call_success_races_cancel, 0, FORMS_AND_PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("close");
    tcase_add_checked_fixture(tc, setup_chans, teardown_chans);
    tcase_add_loop_test(tc, close_leaves_what_was_sent, 0, CAPACITIES);
    tcase_add_test(tc, close_refuses_what_is_sent_later);
    tcase_add_test(tc, close_ends_every_wait);
    tcase_add_test(tc, try_recv_races_close);
    tcase_add_loop_test(tc, len_and_cap, 0, CAPACITIES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("many");
    tcase_add_checked_fixture(tc, setup_chans, teardown_chans);
    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, many_consumers_get_each_element_once, 0, PLACES);
    tcase_add_loop_test(tc, many_to_many_lose_nothing, 0, CAPACITIES);
    tcase_add_loop_test(tc, free_by_who_received_while_the_sender_returns, 0, 2);
    suite_add_tcase(suite, tc);

    tc = tcase_create("asserts");
    tcase_set_tags(tc, "fork");
    tcase_add_checked_fixture(tc, setup_chans, teardown_chans);
    tcase_add_loop_test_raise_signal(tc, free_while_somebody_waits_asserts, SIGABRT, 0,
                                     FORMS_AND_PLACES);
    tcase_add_test_raise_signal(tc, close_twice_asserts, SIGABRT);
    suite_add_tcase(suite, tc);
    return suite;
}
