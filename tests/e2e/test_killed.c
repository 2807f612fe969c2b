/* SPDX-License-Identifier: MIT */
/* A service that dies without a word: the nets on the server end what it left behind. */
#include <check.h>
#include <signal.h>
#include <unistd.h>

#include "client.h"
#include "pgview.h"
#include "service.h"

#define SLEEPING "pg_sleep"

/* Fixture */

static struct service *service;
static PGconn *pg;

static void setup(void)
{
    pg = pgview_open(NULL);
    ck_assert_int_ge(pgview_wait_active(pg, SLEEPING, 0, 5 * CF_SECOND), 0);
    service = service_start_ready(NULL, NULL);
}

static void teardown(void)
{
    service_stop_all();
    client_free_all();
    PQfinish(pg);
}

/* kill -9 */

START_TEST(query_of_a_killed_service_is_gone_within_two_seconds)
{
    int fds[4];
    int64_t took_ns;

    for (int i = 0; i < 4; i++) {
        fds[i] = client_open(service->api_port);
        client_request(fds[i], "GET", "/v1/sleep?seconds=30&timeout=40s", NULL);
    }
    ck_assert_int_ge(pgview_wait_active(pg, SLEEPING, 4, 3 * CF_SECOND), 0);
    service_signal(service, SIGKILL);
    took_ns = pgview_wait_active(pg, SLEEPING, 0, 2 * CF_SECOND);
    ck_assert_msg(took_ns >= 0, "still active two seconds after kill -9");
    (void)fprintf(stderr, "  e2e   kill -9: queries gone after %.0f ms\n", (double)took_ns / 1e6);
    ck_assert_int_eq(service_wait(service, CF_SECOND), -SIGKILL);
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(client_recv(fds[i], "GET")->status, 0);
        (void)close(fds[i]);
    }
}
END_TEST

Suite *suite_killed(void)
{
    Suite *suite = suite_create("killed");
    TCase *kill_9 = tcase_create("kill_9");

    tcase_add_checked_fixture(kill_9, setup, teardown);
    tcase_add_test(kill_9, query_of_a_killed_service_is_gone_within_two_seconds);
    tcase_set_timeout(kill_9, 30);
    suite_add_tcase(suite, kill_9);
    return suite;
}
