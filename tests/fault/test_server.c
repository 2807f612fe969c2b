/* SPDX-License-Identifier: MIT */
/* The server's processes are killed, restarted and frozen. */
#include <check.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "fault_fixture.h"
#include "pgview.h"

#define POOL 4
#define LOOPS 2
#define SLEEPING "pg_sleep"

/* Fixture */

static void start(const char *cancel)
{
    fault_start_behind(to_cluster,
                       (const char *[]){"CURFEW_POOL=4", "CURFEW_LOOPS=2", cancel, NULL});
}

/* Helpers */

/* Wait for as long as the log does not have so many of these. */
static void wait_lines(const char *key, const char *value, size_t n)
{
    int64_t until_ns = cf_now_ns() + bound(5 * CF_SECOND);

    while (service_count_lines(fault.service, key, value) < n) {
        ck_assert_msg(cf_now_ns() < until_ns, "no %s", value);
        pause_ms(5);
    }
}

/* killed */

/* The server then restarts all of them: it cannot know what the killed one did
 * to what they share. */
START_TEST(killed_backend_fails_its_request_and_the_pool_heals)
{
    struct reply *reply;
    struct asked asked;

    start(NULL);
    asked = ask(fault.service, "/v1/sleep?seconds=5&timeout=10s");
    ck_assert_int_eq(kill(wait_backend(fault.cluster.url, SLEEPING), SIGKILL), 0);
    reply = answer(asked);
    ck_assert_int_eq(reply->status, 503);
    ck_assert_int_lt(reply->done_ns - reply->sent_ns, bound(2 * CF_SECOND));
    expect_alive(fault.service);
    expect_recovery(&fault.baseline, "kill -9 of a backend");
}
END_TEST

/* restarted */

static const struct {
    const char *name;
    int number;
    int down_ms;
} stops[] = {
    {"restart, fast", SIGINT, 1500},
    {"restart, immediate", SIGQUIT, 1500},
    {"kill -9 of the postmaster", SIGKILL, 1500},
    {"postmaster away for ten seconds", SIGINT, 10000},
};

/* How often a loop may ask within so long if it waits for 100 ms, then for twice that and so on up
 * to `most`, or for half of it, as chance has it. */
static size_t attempts(int64_t ms, int64_t most)
{
    size_t n = 1;

    for (int64_t wait = 100; ms > 0; wait = 2 * wait < most ? 2 * wait : most) {
        ms -= wait / 2;
        n++;
    }
    return n;
}

/* At most one every two milliseconds. */
#define ASKED_MAX 5000

START_TEST(postmaster_gone_is_refused_at_once_without_a_storm)
{
    static int64_t took_ns[ASKED_MAX];
    size_t accepted;
    int64_t until_ns;
    size_t n = 0;

    start(NULL);
    cluster_stop(&fault.cluster, stops[_i].number);
    pause_ms(50);
    accepted = atomic_load(&fault.relay.accepted);
    until_ns = cf_now_ns() + stops[_i].down_ms * CF_MS;
    while (cf_now_ns() < until_ns) {
        struct reply *reply = client_get(fault.service->api_port, "/v1/users/1?timeout=1s", NULL);

        count_refused(reply, CF_SECOND);
        ck_assert_int_eq(reply->status, 503);
        ck_assert_uint_lt(n, ASKED_MAX);
        took_ns[n++] = reply->done_ns - reply->sent_ns;
        ck_assert_int_eq(client_get(fault.service->admin_port, "/readyz", NULL)->status, 503);
        count_alive(fault.service);
        pause_ms(2);
    }
    ck_assert_int_lt(permille(took_ns, n, 990), bound(50 * CF_MS));
    ck_assert_uint_le(atomic_load(&fault.relay.accepted) - accepted,
                      (LOOPS + 1) * attempts(stops[_i].down_ms, 500));
    cluster_start(&fault.cluster);
    expect_recovery(&fault.baseline, stops[_i].name);
}
END_TEST

/* frozen */

static const char *const ways[] = {"CURFEW_CANCEL=auto", "CURFEW_CANCEL=pqcancel"};

START_TEST(postmaster_frozen_bounds_cancels_and_new_connections_only)
{
    int64_t until_ns;

    start(ways[_i]);
    cluster_freeze(&fault.cluster, false);
    until_ns = cf_now_ns() + 2500 * CF_MS;
    expect_refused(answer(ask(fault.service, "/v1/sleep?seconds=5&timeout=300ms")), 300 * CF_MS);
    while (cf_now_ns() < until_ns) {
        ck_assert_int_eq(
            client_get(fault.service->api_port, "/v1/users/1?timeout=1s", NULL)->status, 200);
        ck_assert_int_eq(client_get(fault.service->api_port, "/readyz", NULL)->status, 200);
        count_alive(fault.service);
        pause_ms(10);
    }
    cluster_thaw(&fault.cluster);
    expect_recovery(&fault.baseline, _i == 0 ? "postmaster frozen" : "postmaster frozen, PQcancel");
}
END_TEST

START_TEST(backend_frozen_ends_at_the_deadline_and_is_replaced_once)
{
    size_t connected;
    size_t accepted;
    struct reply *reply;
    struct asked asked;

    start(NULL);
    connected = service_count_lines(fault.service, "event", "connected");
    accepted = atomic_load(&fault.relay.accepted);
    asked = ask(fault.service, "/v1/sleep?seconds=9&timeout=2s");
    ck_assert_int_eq(kill(wait_backend(fault.cluster.url, SLEEPING), SIGSTOP), 0);
    reply = answer(asked);
    ck_assert_int_eq(reply->status, 504);
    expect_refused(reply, 2 * CF_SECOND);
    wait_lines("outcome", "connection_dropped", 1);
    wait_lines("event", "connected", connected + 1);
    for (int i = 0; i < 50; i++) {
        ck_assert_int_eq(client_get(fault.service->api_port, "/v1/users/1", NULL)->status, 200);
    }
    ck_assert_uint_eq(service_count_lines(fault.service, "event", "connected"), connected + 1);
    ck_assert_uint_eq(atomic_load(&fault.relay.accepted), accepted + 1);
    ck_assert_uint_le(atomic_load(&fault.relay.open), POOL + 1);
    cluster_thaw(&fault.cluster);
    expect_recovery(&fault.baseline, "backend frozen");
}
END_TEST

Suite *suite_server(void)
{
    Suite *suite = suite_create("server");
    TCase *tc = tcase_create("server");

    tcase_add_unchecked_fixture(tc, fault_create, fault_destroy);
    tcase_add_checked_fixture(tc, NULL, fault_teardown_all);
    tcase_add_test(tc, killed_backend_fails_its_request_and_the_pool_heals);
    tcase_add_loop_test(tc, postmaster_gone_is_refused_at_once_without_a_storm, 0, 4);
    tcase_add_loop_test(tc, postmaster_frozen_bounds_cancels_and_new_connections_only, 0, 2);
    tcase_add_test(tc, backend_frozen_ends_at_the_deadline_and_is_replaced_once);
    tcase_set_timeout(tc, 60);
    suite_add_tcase(suite, tc);
    return suite;
}
