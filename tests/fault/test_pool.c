/* SPDX-License-Identifier: MIT */
/* There are fewer connections than are wanted: all are in use, or the server grants no more. */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "fault_fixture.h"
#include "pgview.h"

#define ON_USERS "FROM users"

/* exhausted */

#define QUEUE 20

/* The next request comes when this one waits. */
static struct asked ask_as(int number, const char *target)
{
    struct asked asked = {client_open(fault.service->api_port), cf_now_ns()};
    char header[48];

    (void)snprintf(header, sizeof(header), "X-Request-Id: waiter-%d\r\n", number);
    client_request(asked.fd, "GET", target, header);
    WAIT_FOR(service_unread(fault.service) == 0);
    return asked;
}

/* When its log line was written, behind its end. */
static void read_end(int number, char out[64])
{
    char id[24];
    json_t *line;

    (void)snprintf(id, sizeof(id), "waiter-%d", number);
    line = service_find_line(fault.service, "request_id", id, CLIENT_WAIT_NS);
    ck_assert_ptr_nonnull(line);
    (void)snprintf(out, 64, "%s", json_string_value(json_object_get(line, "ts")));
    json_decref(line);
}

/* A pool of one, held by a statement that waits for a lock: what waits is served in its order, but
 * for who left, and who would be too many is told so. */
START_TEST(exhausted_pool_queues_in_order_sheds_the_rest_and_serves_what_needs_none)
{
    struct asked holder;
    struct asked asked[QUEUE];
    struct reply *reply;
    char last[64] = "";
    PGconn *locker;

    fault_start_behind(to_cluster, (const char *[]){"CURFEW_POOL=1", "CURFEW_LOOPS=1",
                                                    "CURFEW_IN_FLIGHT=20", NULL});
    locker = pgview_open(fault.cluster.url);
    pgview_exec(locker, "begin; lock table users in access exclusive mode");
    holder = ask(fault.service, "/v1/users/1?timeout=30s");
    (void)wait_backend(fault.cluster.url, ON_USERS);
    for (int i = 0; i < QUEUE - 1; i++) {
        asked[i] = ask_as(i, i % 5 == 4 ? "/v1/users/1?timeout=1s" : "/v1/users/1?timeout=30s");
    }
    (void)close(asked[0].fd);
    for (int i = 4; i < QUEUE - 1; i += 5) {
        reply = answer(asked[i]);
        ck_assert_int_eq(reply->status, 504);
        ck_assert_str_eq(reply_str(reply, "phase"), "pool");
        expect_refused(reply, CF_SECOND);
    }
    ck_assert_int_eq(client_get(fault.service->admin_port, "/livez", NULL)->status, 200);
    ck_assert_int_eq(client_get(fault.service->api_port, "/version", NULL)->status, 200);
    ck_assert_int_eq(client_get(fault.service->api_port, "/v1/users/x", NULL)->status, 400);
    for (int i = 0; i < 4; i++) { /* In place of those four. */
        asked[i == 0 ? 0 : 5 * i - 1] = ask(fault.service, "/v1/users/1?timeout=30s");
    }
    WAIT_FOR(service_unread(fault.service) == 0);
    reply = client_get(fault.service->api_port, "/v1/users/1", NULL);
    ck_assert_int_eq(reply->status, 503);
    ck_assert_ptr_nonnull(reply_header(reply, "Retry-After"));
    PQfinish(locker);
    ck_assert_int_eq(answer(holder)->status, 200);
    for (int i = 1; i < QUEUE - 1; i++) {
        reply = answer(asked[i]);
        ck_assert_msg(reply->status == 200, "%d: %d %s", i, reply->status, reply->body);
        if (i % 5 != 4) {
            char ended[64];

            read_end(i, ended);
            ck_assert_msg(strcmp(ended, last) >= 0, "%d ended at %s, one before at %s", i, ended,
                          last);
            (void)strcpy(last, ended);
        }
    }
    (void)answer(asked[0]);
    ck_assert_uint_le(atomic_load(&fault.relay.open), 2);
    expect_recovery(&fault.baseline, "pool exhausted");
}
END_TEST

/* refused */

static void restart(void)
{
    cluster_stop(&fault.cluster, SIGINT);
    cluster_start(&fault.cluster);
}

static void grant_few(void)
{
    PGconn *pg = pgview_open(fault.cluster.url);

    pgview_exec(pg, "alter system set max_connections = 6");
    PQfinish(pg);
    restart();
}

/* Not by asking the server: it would have no place for us. */
static void grant_all(void)
{
    char path[128];

    (void)snprintf(path, sizeof(path), "%s/data/postgresql.auto.conf", fault.cluster.dir);
    ck_assert_int_eq(unlink(path), 0);
    restart();
}

/* Thirteen are wanted where six are to be had. */
START_TEST(too_many_clients_leaves_a_smaller_pool_and_no_storm)
{
    size_t accepted;
    int64_t until_ns;
    size_t n_served = 0;

    fault_start_behind(to_cluster, (const char *[]){"CURFEW_POOL=12", "CURFEW_LOOPS=2", NULL});
    grant_few();
    WAIT_FOR(client_get(fault.service->api_port, "/v1/users/1", NULL)->status == 200);
    pause_ms(300);
    accepted = atomic_load(&fault.relay.accepted);
    until_ns = cf_now_ns() + 2 * CF_SECOND;
    while (cf_now_ns() < until_ns) {
        struct reply *reply =
            answer(ask(fault.service, "/v1/dashboard?user_id=1&require=all&timeout=1s"));

        n_served += reply->status == 200;
        if (reply->status != 200) {
            count_refused(reply, CF_SECOND);
        }
        ck_assert_uint_le(atomic_load(&fault.relay.open), 12 + 1);
        count_alive(fault.service);
    }
    ck_assert_uint_gt(n_served, 20);
    ck_assert_uint_le(atomic_load(&fault.relay.accepted) - accepted, 3 * 10);
    ck_assert(service_has_said(fault.service, "too many clients"));
    grant_all();
    expect_recovery(&fault.baseline, "too many clients");
}
END_TEST

Suite *suite_pool(void)
{
    Suite *suite = suite_create("pool");
    TCase *tc = tcase_create("pool");

    tcase_add_unchecked_fixture(tc, fault_create, fault_destroy);
    tcase_add_checked_fixture(tc, NULL, fault_teardown_all);
    tcase_add_test(tc, exhausted_pool_queues_in_order_sheds_the_rest_and_serves_what_needs_none);
    tcase_add_test(tc, too_many_clients_leaves_a_smaller_pool_and_no_storm);
    tcase_set_timeout(tc, 60);
    suite_add_tcase(suite, tc);
    return suite;
}
