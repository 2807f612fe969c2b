/* SPDX-License-Identifier: MIT */
/* The way to the server: partitions, a slow line, cancels that are lost or late.
 *
 * A partition here is a relay that passes nothing and says nothing: to the service it looks like a
 * cable that was pulled, but for the kernel's own acknowledgements. */
#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "fault_fixture.h"
#include "pgview.h"

#define POOL 4
#define SLEEPING "pg_sleep"
#define TRIES 3
#define BODY_SIZE 16384

/* Fixture */

static PGconn *pg;

static void start(const char *cancel)
{
    fault_start_behind(to_cluster,
                       (const char *[]){"CURFEW_POOL=4", "CURFEW_LOOPS=2", cancel, NULL});
    pg = pgview_open(fault.cluster.url);
}

static void teardown(void)
{
    relay_fault(&fault.relay, NULL);
    PQfinish(pg);
    fault_teardown_all();
}

/* Helpers */

static const char *const ways[] = {"CURFEW_CANCEL=control", "CURFEW_CANCEL=pqcancel"};

static const struct relay_faults black_hole = {.to_server = {.hold = true},
                                               .to_client = {.hold = true}};

static size_t count_dropped(void)
{
    return service_count_lines(fault.service, "outcome", "connection_dropped") +
           service_count_lines(fault.service, "outcome", "dispatch_failed");
}

static void wait_dropped(size_t n)
{
    WAIT_FOR(count_dropped() >= n);
}

/* Ask until the reply comes in time, three times: a machine that stands still delays one. */
static struct reply *ask_until_in_time(const char *target, int64_t timeout_ns)
{
    struct reply *reply = answer(ask(fault.service, target));

    for (int i = 1; i < TRIES && reply->done_ns - reply->sent_ns > timeout_ns + LATE_NS; i++) {
        reply = answer(ask(fault.service, target));
    }
    expect_refused(reply, timeout_ns);
    return reply;
}

/* partition */

/* Cut the line while a statement runs. False: the time was up before that, or the reply was late;
 * and all is as it was. */
static bool cut_in_mid_query(void)
{
    struct asked asked = ask(fault.service, "/v1/sleep?seconds=9&timeout=400ms");
    bool runs = pgview_wait_active(pg, SLEEPING, 1, 400 * CF_MS) >= 0;
    struct reply *reply;

    relay_fault(&fault.relay, &black_hole);
    runs = runs && cf_now_ns() < asked.sent_ns + 400 * CF_MS;
    reply = answer(asked);
    if (runs && reply->done_ns - reply->sent_ns <= 400 * CF_MS + LATE_NS) {
        expect_refused(reply, 400 * CF_MS);
        return true;
    }
    relay_fault(&fault.relay, NULL);
    expect_recovery(&fault.baseline, "partition, too late");
    return false;
}

START_TEST(partition_in_mid_query_ends_at_the_deadline_and_gives_the_sockets_up)
{
    size_t dropped = 0;
    bool is_cut = false;

    start(ways[_i]);
    for (int i = 0; i < TRIES && !is_cut; i++) {
        dropped = count_dropped();
        is_cut = cut_in_mid_query();
    }
    ck_assert(is_cut);
    expect_alive(fault.service);
    wait_dropped(dropped + 1); /* Both fences have two seconds. */
    (void)ask_until_in_time("/v1/users/1?timeout=300ms", 300 * CF_MS);
    ck_assert_int_le(count_backends(fault.cluster.url), POOL + 1);
    ck_assert_int_ge(pgview_wait_active(pg, SLEEPING, 1, 0), 0); /* What nobody can tell it. */
    relay_fault(&fault.relay, NULL);
    expect_recovery(&fault.baseline, "partition in mid-query");
}
END_TEST

/* Connections that lie idle in the pool do not know of it: whoever gets one waits. */
START_TEST(partition_of_an_idle_pool_ends_at_the_deadline)
{
    start(NULL);
    relay_fault(&fault.relay, &black_hole);
    for (int i = 0; i < 2 * POOL; i++) {
        count_refused(answer(ask(fault.service, "/v1/dashboard?require=all&timeout=200ms")),
                      200 * CF_MS);
    }
    expect_alive(fault.service);
    relay_fault(&fault.relay, NULL);
    expect_recovery(&fault.baseline, "partition of an idle pool");
}
END_TEST

/* connect */

/* 0: nobody answers a SYN. 1: it is accepted, and nobody says a word. 2: it is refused. */
START_TEST(partition_at_connect_ends_at_the_deadline_without_a_blocked_thread)
{
    static const char *const names[] = {"SYN lost", "silent at connect", "reset at connect"};
    size_t threads;
    size_t accepted;
    int64_t until_ns = cf_now_ns();

    start(NULL);
    threads = service_threads(fault.service);
    if (_i == 0) {
        relay_deafen(&fault.relay);
    } else {
        relay_fault(&fault.relay,
                    &(struct relay_faults){.to_server = {.hold = _i == 1, .cut_after = _i == 2}});
    }
    accepted = atomic_load(&fault.relay.accepted);
    relay_cut(&fault.relay);
    until_ns = cf_now_ns() + 2 * CF_SECOND;
    while (cf_now_ns() < until_ns) {
        count_refused(answer(ask(fault.service, "/v1/users/1?timeout=200ms")), 200 * CF_MS);
        count_alive(fault.service);
    }
    ck_assert_int_eq(client_get(fault.service->api_port, "/readyz", NULL)->status, 503);
    ck_assert_uint_le(service_threads(fault.service), threads);
    ck_assert_uint_le(atomic_load(&fault.relay.accepted) - accepted, 3 * 9);
    if (_i == 0) {
        relay_hear(&fault.relay);
    } else {
        relay_fault(&fault.relay, NULL);
    }
    expect_recovery(&fault.baseline, names[_i]);
}
END_TEST

/* slow */

static const struct {
    const char *name;
    struct relay_fault fault;
} slow[] = {
    {"20 ms to and fro", {.delay_ns = 20 * CF_MS}},
    {"1-byte pieces", {.piece = 1}},
    {"7-byte pieces", {.piece = 7}},
    {"a line of 20 kB/s", {.piece = 100, .delay_ns = 5 * CF_MS}},
};

/* The right rows or 504, and never something between. */
START_TEST(slow_line_gives_right_results_or_none)
{
    static char right[BODY_SIZE];
    struct reply *reply;
    size_t n_right = 0;

    start(NULL);
    reply = client_get(fault.service->api_port, "/v1/dashboard?user_id=1", NULL);
    (void)snprintf(right, sizeof(right), "%s", reply->body);
    relay_fault(&fault.relay,
                &(struct relay_faults){.to_server = slow[_i].fault, .to_client = slow[_i].fault});
    for (int i = 0; i < 20; i++) {
        reply = answer(ask(fault.service, i % 4 == 3
                                              ? "/v1/dashboard?user_id=1&require=all&timeout=20ms"
                                              : "/v1/dashboard?user_id=1&require=all&timeout=2s"));
        if (reply->status == 200) {
            ck_assert_str_eq(reply->body, right);
            n_right++;
        } else {
            ck_assert_int_eq(reply->status, 504);
            expect_refused(reply, 2 * CF_SECOND);
        }
    }
    ck_assert_uint_ge(n_right, 10);
    ck_assert_uint_le(atomic_load(&fault.relay.open), POOL + 1);
    expect_alive(fault.service);
    relay_fault(&fault.relay, NULL);
    expect_recovery(&fault.baseline, slow[_i].name);
}
END_TEST

/* cancels */

/* Others run their short statements meanwhile: none of them may fall. */
static void cancel_among_others(void)
{
    for (int i = 0; i < 5; i++) {
        struct asked asked = ask(fault.service, "/v1/sleep?seconds=9&timeout=150ms");

        for (int k = 0; k < 5; k++) {
            struct reply *reply =
                client_get(fault.service->api_port, "/v1/sleep?seconds=0.01&timeout=5s", NULL);

            ck_assert_msg(reply->status == 200, "a victim: %d %s", reply->status, reply->body);
        }
        ck_assert_int_eq(answer(asked)->status, 504);
    }
}

static void expect_no_victim(void)
{
    ck_assert(!service_has_said(fault.service, "canceling statement"));
}

START_TEST(cancel_lost_keeps_the_deadline_and_drops_the_connection)
{
    struct reply *reply;

    start(ways[_i]);
    relay_fault(&fault.relay, &(struct relay_faults){.cancels = RELAY_CANCELS_DROP});
    reply = ask_until_in_time("/v1/sleep?seconds=9&timeout=300ms", 300 * CF_MS);
    ck_assert_int_eq(reply->status, 504);
    for (int i = 0; i < 50; i++) {
        ck_assert_int_eq(client_get(fault.service->api_port, "/v1/users/1", NULL)->status, 200);
    }
    wait_dropped(1);
    ck_assert_uint_ge(atomic_load(&fault.relay.cancels), 1);
    expect_no_victim();
    relay_fault(&fault.relay, NULL);
    expect_recovery(&fault.baseline, _i == 0 ? "control cancel lost" : "PQcancel lost");
}
END_TEST

START_TEST(cancel_late_finds_no_victim)
{
    start(ways[_i]);
    relay_fault(&fault.relay, &(struct relay_faults){.cancels = RELAY_CANCELS_DELAY,
                                                     .cancel_delay_ns = CF_SECOND});
    cancel_among_others();
    ck_assert_uint_ge(atomic_load(&fault.relay.cancels), 1);
    expect_no_victim();
    relay_fault(&fault.relay, NULL);
    expect_recovery(&fault.baseline, _i == 0 ? "control cancel late" : "PQcancel late");
    expect_no_victim();
}
END_TEST

Suite *suite_network(void)
{
    Suite *suite = suite_create("network");
    TCase *tc = tcase_create("network");

    tcase_add_unchecked_fixture(tc, fault_create, fault_destroy);
    tcase_add_checked_fixture(tc, NULL, teardown);
    tcase_add_loop_test(tc, partition_in_mid_query_ends_at_the_deadline_and_gives_the_sockets_up, 0,
                        2);
    tcase_add_test(tc, partition_of_an_idle_pool_ends_at_the_deadline);
    tcase_add_loop_test(tc, partition_at_connect_ends_at_the_deadline_without_a_blocked_thread, 0,
                        3);
    tcase_add_loop_test(tc, slow_line_gives_right_results_or_none, 0, 4);
    tcase_add_loop_test(tc, cancel_lost_keeps_the_deadline_and_drops_the_connection, 0, 2);
    tcase_add_loop_test(tc, cancel_late_finds_no_victim, 0, 2);
    tcase_set_timeout(tc, 60);
    suite_add_tcase(suite, tc);
    return suite;
}
