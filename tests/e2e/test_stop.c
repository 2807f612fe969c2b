/* SPDX-License-Identifier: MIT */
/* SIGTERM: what runs may end within the grace, what is new is refused, and then it is over. */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "client.h"
#include "pgview.h"
#include "service.h"

#define SLEEPING "pg_sleep"
#define ON_USERS "FROM users"
#define SHORT_ONES 10
#define LONG_ONES 40
#define GRACE_NS (2 * CF_SECOND)
#define ROUNDS_MAX 3

/* Fixture */

static PGconn *pg;

static void setup(void)
{
    pg = pgview_open(NULL);
    ck_assert_int_ge(pgview_wait_active(pg, SLEEPING, 0, 5 * CF_SECOND), 0);
}

static void teardown(void)
{
    service_stop_all();
    client_free_all();
    PQfinish(pg);
}

/* Helpers */

/* Until connecting fails; the kernel may take a connection in the instant between. Whose first
 * packet comes when the service turns clients away and still listens asks again a second later. */
static void wait_refused(uint16_t port, int64_t timeout_ns)
{
    int64_t since_ns = cf_now_ns();
    int fd;

    while ((fd = client_try_open(port)) >= 0) {
        (void)close(fd);
        ck_assert_msg(cf_now_ns() - since_ns < bound(timeout_ns), "port %d still takes connections",
                      port);
        pause_ms(2);
    }
    ck_assert_int_eq(-fd, ECONNREFUSED);
}

static void expect_shutting_down(struct reply *reply)
{
    ck_assert_int_eq(reply->status, 503);
    ck_assert_str_eq(reply_header(reply, "Content-Type"), "application/problem+json");
    ck_assert_str_eq(reply_str(reply, "code"), "shutting_down");
    ck_assert_ptr_nonnull(reply_header(reply, "Retry-After"));
    ck_assert_str_eq(reply_header(reply, "Connection"), "close");
}

/* busy */

/* Begin them all; the short ones first, so that none of them waits behind a long one. What makes
 * these run until it is told to end is a lock on the users. */
static void begin_fifty(const struct service *service, int fds[SHORT_ONES + LONG_ONES])
{
    for (int i = 0; i < SHORT_ONES; i++) {
        char target[48];

        (void)snprintf(target, sizeof(target), "/v1/users/%d?timeout=30s", i + 1);
        fds[i] = client_open(service->api_port);
        client_request(fds[i], "GET", target, NULL);
    }
    WAIT_FOR(pgview_active(pg, ON_USERS) == SHORT_ONES);
    for (int i = SHORT_ONES; i < SHORT_ONES + LONG_ONES; i++) {
        fds[i] = client_open(service->api_port);
        client_request(fds[i], "GET", "/v1/sleep?seconds=30&timeout=30s",
                       i == SHORT_ONES ? "X-Request-Id: cut\r\n" : NULL);
    }
    WAIT_FOR(service_unread(service) == 0); /* Some may wait for a connection of their loop. */
}

/* Stop it, look at it, and let the short ones end. False: a machine that stood still took so long
 * for that that they had no grace to speak of. */
static bool stop_in_time(struct service *service, int64_t stopped_ns, PGconn *locker)
{
    service_signal(service, SIGTERM);
    wait_refused(service->api_port, 200 * CF_MS);

    /* Not ready any more, but alive: that is for whoever sends requests here. */
    ck_assert_int_eq(client_get(service->admin_port, "/livez", NULL)->status, 200);
    ck_assert_int_eq(client_get(service->admin_port, "/readyz", NULL)->status, 503);
    pause_ms(200);
    pgview_exec(locker, "commit");
    return cf_now_ns() - stopped_ns < GRACE_NS * 3 / 4;
}

/* False: a round that does not count. */
static bool run_fifty(PGconn *locker)
{
    struct service *service =
        service_start_ready(NULL, (const char *[]){"CURFEW_POOL=50", "CURFEW_GRACE=2s", NULL});
    int fds[SHORT_ONES + LONG_ONES];
    int64_t stopped_ns;
    int64_t took_ns;
    bool in_time;
    json_t *line;

    pgview_exec(locker, "begin; lock table users in access exclusive mode");
    begin_fifty(service, fds);
    stopped_ns = cf_now_ns();
    in_time = stop_in_time(service, stopped_ns, locker);
    for (int i = 0; i < SHORT_ONES && in_time; i++) {
        struct reply *reply = client_recv(fds[i], "GET");

        ck_assert_msg(reply->status == 200, "short one %d: %d %s", i, reply->status, reply->body);
        ck_assert_str_eq(reply_header(reply, "Connection"), "close");
    }
    for (int i = SHORT_ONES; i < SHORT_ONES + LONG_ONES && in_time; i++) {
        struct reply *reply = client_recv(fds[i], "GET");

        expect_shutting_down(reply);
        ck_assert_int_ge(reply->done_ns - stopped_ns, GRACE_NS);
    }
    ck_assert_int_eq(service_wait(service, 3 * CF_SECOND), 0);
    took_ns = cf_now_ns() - stopped_ns;
    (void)fprintf(stderr,
                  "  e2e   SIGTERM with 50 in flight and a grace of 2 s: ended after %.0f ms\n",
                  (double)took_ns / 1e6);
    ck_assert_int_le(took_ns, bound(GRACE_NS + CF_SECOND));
    ck_assert_int_ge(pgview_wait_active(pg, SLEEPING, 0, 100 * CF_MS), 0);
    line = service_find_line(service, "request_id", "cut", 0);
    ck_assert_ptr_nonnull(line);
    ck_assert_int_eq(json_integer_value(json_object_get(line, "http.response.status_code")), 503);
    ck_assert_str_eq(json_string_value(json_object_get(line, "cancel_cause")), "shutdown");
    json_decref(line);
    for (int i = 0; i < SHORT_ONES + LONG_ONES; i++) {
        (void)close(fds[i]);
    }
    return in_time;
}

START_TEST(fifty_in_flight_get_their_grace_and_then_503)
{
    PGconn *locker = pgview_open(NULL);
    bool counts = false;

    for (int i = 0; i < ROUNDS_MAX && !counts; i++) {
        counts = run_fifty(locker);
    }
    ck_assert(counts);
    PQfinish(locker);
}
END_TEST

/* When the last request has ended, nobody waits for the rest of the grace. */
START_TEST(grace_ends_with_the_last_request)
{
    struct service *service = service_start_ready(NULL, (const char *[]){"CURFEW_GRACE=20s", NULL});
    int fd = client_open(service->api_port);
    PGconn *locker = pgview_open(NULL);
    int64_t unlocked_ns;

    pgview_exec(locker, "begin; lock table users in access exclusive mode");
    client_request(fd, "GET", "/v1/users/1?timeout=30s", NULL);
    WAIT_FOR(pgview_active(pg, ON_USERS) == 1);
    service_signal(service, SIGTERM);
    wait_refused(service->api_port, 200 * CF_MS);
    unlocked_ns = cf_now_ns();
    PQfinish(locker);
    ck_assert_int_eq(client_recv(fd, "GET")->status, 200);
    ck_assert_int_eq(service_wait(service, 2 * CF_SECOND), 0);
    ck_assert_int_le(cf_now_ns() - unlocked_ns, bound(CF_SECOND));
    (void)close(fd);
}
END_TEST

START_TEST(second_signal_ends_at_once)
{
    struct service *service = service_start_ready(NULL, (const char *[]){"CURFEW_GRACE=20s", NULL});
    int fd = client_open(service->api_port);
    int64_t stopped_ns;

    client_request(fd, "GET", "/v1/sleep?seconds=30&timeout=40s", NULL);
    ck_assert_int_ge(pgview_wait_active(pg, SLEEPING, 1, 2 * CF_SECOND), 0);
    service_signal(service, SIGTERM);
    pause_ms(300);
    ck_assert(service_runs(service));
    stopped_ns = cf_now_ns();
    service_signal(service, _i == 0 ? SIGTERM : SIGINT);
    expect_shutting_down(client_recv(fd, "GET"));
    ck_assert_int_eq(service_wait(service, 3 * CF_SECOND), 0);
    ck_assert_int_le(cf_now_ns() - stopped_ns, bound(CF_SECOND));
    ck_assert_int_ge(pgview_wait_active(pg, SLEEPING, 0, 100 * CF_MS), 0);
    (void)close(fd);
}
END_TEST

START_TEST(grace_of_zero_cancels_at_once)
{
    struct service *service = service_start_ready(NULL, (const char *[]){"CURFEW_GRACE=0s", NULL});
    int fd = client_open(service->api_port);

    client_request(fd, "GET", "/v1/sleep?seconds=30&timeout=40s", NULL);
    ck_assert_int_ge(pgview_wait_active(pg, SLEEPING, 1, 2 * CF_SECOND), 0);
    service_signal(service, SIGTERM);
    expect_shutting_down(client_recv(fd, "GET"));
    ck_assert_int_eq(service_wait(service, CF_SECOND), 0);
    (void)close(fd);
}
END_TEST

START_TEST(client_that_leaves_during_the_grace_ends_its_query)
{
    struct service *service = service_start_ready(NULL, (const char *[]){"CURFEW_GRACE=20s", NULL});
    int fd = client_open(service->api_port);

    client_request(fd, "GET", "/v1/sleep?seconds=30&timeout=40s", NULL);
    ck_assert_int_ge(pgview_wait_active(pg, SLEEPING, 1, 2 * CF_SECOND), 0);
    service_signal(service, SIGTERM);
    pause_ms(100);
    (void)close(fd);
    ck_assert_int_ge(pgview_wait_active(pg, SLEEPING, 0, 100 * CF_MS), 0);
    ck_assert_int_eq(service_wait(service, CF_SECOND), 0);
}
END_TEST

/* idle */

START_TEST(idle_service_ends_fast)
{
    struct service *service = service_start_ready(NULL, (const char *[]){"CURFEW_GRACE=20s", NULL});
    int64_t stopped_ns = cf_now_ns();
    json_t *line;

    service_signal(service, _i == 0 ? SIGTERM : SIGINT);
    ck_assert_int_eq(service_wait(service, 3 * CF_SECOND), 0);
    ck_assert_int_le(cf_now_ns() - stopped_ns, bound(500 * CF_MS));
    line = service_find_line(service, "msg", "stopping", 0);
    ck_assert_ptr_nonnull(line);
    ck_assert_str_eq(json_string_value(json_object_get(line, "signal")), _i == 0 ? "TERM" : "INT");
    json_decref(line);
    line = service_find_line(service, "msg", "stopped", 0);
    ck_assert_ptr_nonnull(line);
    json_decref(line);
}
END_TEST

/* Clients that only keep a connection open are no reason to wait. */
START_TEST(idle_connections_do_not_hold_it)
{
    struct service *service = service_start_ready(NULL, (const char *[]){"CURFEW_GRACE=20s", NULL});
    int used = client_open(service->api_port);
    int unused = client_open(service->api_port);
    int half = client_open(service->api_port);
    int64_t stopped_ns;

    client_request(used, "GET", "/v1/users/42", NULL);
    ck_assert_int_eq(client_recv(used, "GET")->status, 200);
    client_send(half, "GET /livez HT");
    pause_ms(50);
    stopped_ns = cf_now_ns();
    service_signal(service, SIGTERM);
    ck_assert(client_wait_closed(used, 2 * CF_SECOND));
    ck_assert(client_wait_closed(unused, 2 * CF_SECOND));
    ck_assert(client_wait_closed(half, 2 * CF_SECOND));
    ck_assert_int_eq(service_wait(service, 3 * CF_SECOND), 0);
    ck_assert_int_le(cf_now_ns() - stopped_ns, bound(CF_SECOND));
    (void)close(used);
    (void)close(unused);
    (void)close(half);
}
END_TEST

START_TEST(backends_are_gone_afterwards)
{
    struct service *service = service_start_ready(NULL, NULL);
    char backends[256];

    ck_assert_int_eq(client_get(service->api_port, "/v1/dashboard?user_id=42", NULL)->status, 200);
    WAIT_FOR(service_count_lines(service, "event", "connected") > 0);
    service_backends(service, backends, sizeof(backends));
    ck_assert_str_ne(backends, "{}");
    service_signal(service, SIGTERM);
    ck_assert_int_eq(service_wait(service, 3 * CF_SECOND), 0);
    WAIT_FOR(pgview_i64(pg,
                        "select count(*) from pg_stat_activity where pid = any($1::int[])"
                        " and application_name = 'curfewd'",
                        (const char *[]){backends, NULL}) == 0);
}
END_TEST

Suite *suite_stop(void)
{
    Suite *suite = suite_create("stop");
    TCase *busy = tcase_create("busy");
    TCase *idle = tcase_create("idle");

    tcase_add_checked_fixture(busy, setup, teardown);
    tcase_add_test(busy, fifty_in_flight_get_their_grace_and_then_503);
    tcase_add_test(busy, grace_ends_with_the_last_request);
    tcase_add_loop_test(busy, second_signal_ends_at_once, 0, 2);
    tcase_add_test(busy, grace_of_zero_cancels_at_once);
    tcase_add_test(busy, client_that_leaves_during_the_grace_ends_its_query);
    tcase_set_timeout(busy, 30);
    suite_add_tcase(suite, busy);

    tcase_add_checked_fixture(idle, setup, teardown);
    tcase_add_loop_test(idle, idle_service_ends_fast, 0, 2);
    tcase_add_test(idle, idle_connections_do_not_hold_it);
    tcase_add_test(idle, backends_are_gone_afterwards);
    tcase_set_timeout(idle, 30);
    suite_add_tcase(suite, idle);
    return suite;
}
