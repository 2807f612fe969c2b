/* SPDX-License-Identifier: MIT */
/* A client that leaves takes its query with it, however it leaves. bench/orphan measures it. */
#include <check.h>
#include <sys/socket.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "client.h"
#include "pgview.h"
#include "service.h"

#define SLEEPING "pg_sleep"
#define ON_USERS "FROM users"
#define ROUNDS 20

/* What CURFEW_POOL=4 has, with the control connection. Without a cache there is no listener. */
#define SESSIONS 5

/* Fixture */

static struct service *service;
static PGconn *pg;

/* Sessions begin one after another, that of cancels among them, for which a cancel waits. */
static void wait_for_sessions(int n)
{
    WAIT_FOR(pgview_i64(pg,
                        "select count(*) from pg_stat_activity"
                        " where application_name = 'curfewd' and state = 'idle'",
                        NULL) >= n);
}

static void setup(void)
{
    pg = pgview_open(NULL);
    ck_assert_int_ge(pgview_wait_active(pg, SLEEPING, 0, 5 * CF_SECOND), 0);
    service = service_start_ready(NULL, (const char *[]){"CURFEW_POOL=4", NULL});
    wait_for_sessions(SESSIONS);
}

static void teardown(void)
{
    service_stop_all();
    client_free_all();
    PQfinish(pg);
}

/* Helpers */

static void expect_logged_as_gone(struct service *from, const char *request_id)
{
    json_t *line = service_find_line(from, "request_id", request_id, 2 * CF_SECOND);

    ck_assert_msg(line != NULL, "no log line of %s", request_id);
    ck_assert_int_eq(json_integer_value(json_object_get(line, "http.response.status_code")), 499);
    ck_assert_str_eq(json_string_value(json_object_get(line, "cancel_cause")), "client_gone");
    json_decref(line);
}

/* All but one within 100 ms, and that one within a second, for which it was waited. */
static void expect_prompt(int64_t took_ns[ROUNDS])
{
    ck_assert_int_le(permille(took_ns, ROUNDS, 950), bound(100 * CF_MS));
    ck_assert_int_ge(took_ns[0], 0);
}

static void leave_by_fin(int fd)
{
    (void)close(fd);
}

static void leave_by_rst(int fd)
{
    client_reset(fd);
}

/* A second request, and the beginning of a third, lie unread before the end of the stream. */
static void leave_with_pipelined_bytes(int fd)
{
    client_send(fd, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\nGET /livez HT");
    (void)close(fd);
}

static void leave_by_rst_with_pipelined_bytes(int fd)
{
    client_send(fd, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\nGET /livez HT");
    client_reset(fd);
}

static const struct {
    const char *name;
    void (*leave)(int fd);
} ways[] = {
    {"FIN", leave_by_fin},
    {"RST", leave_by_rst},
    {"FIN behind pipelined bytes", leave_with_pipelined_bytes},
    {"RST behind pipelined bytes", leave_by_rst_with_pipelined_bytes},
};

static void leave_by_half_close(int fd)
{
    ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
    ck_assert(client_wait_closed(fd, 2 * CF_SECOND));
    (void)close(fd);
}

/* True: within 100 ms. */
static bool ends_at_once(struct service *from, const char *request_id, void (*leave)(int fd))
{
    char header[64];
    int fd = client_open(from->api_port);
    int64_t left_ns;
    int64_t ended_ns;

    (void)snprintf(header, sizeof(header), "X-Request-Id: %s\r\n", request_id);
    client_request(fd, "GET", "/v1/sleep?seconds=30", header);
    ck_assert_int_ge(pgview_wait_active(pg, SLEEPING, 1, 2 * CF_SECOND), 0);
    left_ns = cf_now_ns();
    leave(fd);
    ck_assert_int_ge(pgview_wait_active(pg, SLEEPING, 0, CF_SECOND), 0);
    ended_ns = cf_now_ns();
    expect_logged_as_gone(from, request_id);
    return ended_ns - left_ns <= bound(100 * CF_MS);
}

/* One of three tries. */
static bool ends_with_client(struct service *from, void (*leave)(int fd))
{
    return ends_at_once(from, "first", leave) || ends_at_once(from, "second", leave) ||
           ends_at_once(from, "third", leave);
}

/* query */

START_TEST(query_ends_with_its_client)
{
    int64_t took_ns[ROUNDS];
    int64_t p50_ns;

    for (int i = 0; i < ROUNDS; i++) {
        char header[64];
        int fd = client_open(service->api_port);

        (void)snprintf(header, sizeof(header), "X-Request-Id: gone-%d\r\n", i);
        client_request(fd, "GET", "/v1/sleep?seconds=30", header);
        ck_assert_int_ge(pgview_wait_active(pg, SLEEPING, 1, 2 * CF_SECOND), 0);
        ways[_i].leave(fd);
        took_ns[i] = pgview_wait_active(pg, SLEEPING, 0, CF_SECOND);
        ck_assert_msg(took_ns[i] >= 0, "%s: still active after a second", ways[_i].name);
    }
    for (int i = 0; i < ROUNDS; i++) {
        char id[32];

        (void)snprintf(id, sizeof(id), "gone-%d", i);
        expect_logged_as_gone(service, id);
    }
    p50_ns = permille(took_ns, ROUNDS, 500);
    (void)fprintf(stderr, "  e2e   %-26s %d rounds: p50 %.2f, max %.2f ms\n", ways[_i].name, ROUNDS,
                  (double)p50_ns / 1e6, (double)took_ns[ROUNDS - 1] / 1e6);
    ck_assert_int_le(p50_ns, bound(10 * CF_MS));
    expect_prompt(took_ns);
    ck_assert_int_eq(client_get(service->api_port, "/v1/users/42", NULL)->status, 200);
}
END_TEST

/* The slower way, for servers behind a pooler: the server forks for it. */
START_TEST(query_ends_by_pqcancel_too)
{
    struct service *other = service_start_ready(
        NULL, (const char *[]){"CURFEW_POOL=4", "CURFEW_CANCEL=pqcancel", NULL});
    int64_t took_ns[ROUNDS];

    for (int i = 0; i < ROUNDS; i++) {
        int fd = client_open(other->api_port);

        client_request(fd, "GET", "/v1/sleep?seconds=30", NULL);
        ck_assert_int_ge(pgview_wait_active(pg, SLEEPING, 1, 2 * CF_SECOND), 0);
        (void)close(fd);
        took_ns[i] = pgview_wait_active(pg, SLEEPING, 0, CF_SECOND);
    }
    expect_prompt(took_ns);
    ck_assert_int_eq(client_get(other->api_port, "/v1/users/42", NULL)->status, 200);
}
END_TEST

/* The bytes behind the request came together with it, before anything ran. */
START_TEST(pipelined_bytes_from_the_start_hide_nothing)
{
    int64_t took_ns[ROUNDS];

    for (int i = 0; i < ROUNDS; i++) {
        int fd = client_open(service->api_port);

        client_send(fd, "GET /v1/sleep?seconds=30 HTTP/1.1\r\nHost: localhost\r\n\r\n"
                        "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
        ck_assert_int_ge(pgview_wait_active(pg, SLEEPING, 1, 2 * CF_SECOND), 0);
        (void)close(fd);
        took_ns[i] = pgview_wait_active(pg, SLEEPING, 0, CF_SECOND);
    }
    expect_prompt(took_ns);
}
END_TEST

START_TEST(client_gone_at_once_leaves_nothing)
{
    for (int i = 0; i < 200; i++) {
        int fd = client_open(service->api_port);

        client_request(fd, "GET", "/v1/sleep?seconds=30", NULL);
        if (i % 2 == 0) {
            (void)close(fd);
        } else {
            client_reset(fd);
        }
    }
    WAIT_FOR(service_unread(service) == 0); /* Those that were still on their way begin and end. */
    ck_assert_int_ge(pgview_wait_active(pg, SLEEPING, 0, 500 * CF_MS), 0);
    ck_assert_int_eq(client_get(service->api_port, "/v1/users/42", NULL)->status, 200);
}
END_TEST

/* queue */

START_TEST(waiter_for_the_pool_leaves_it)
{
    struct service *narrow =
        service_start_ready(NULL, (const char *[]){"CURFEW_POOL=1", "CURFEW_LOOPS=1", NULL});
    int runner = client_open(narrow->api_port);
    int waiter = client_open(narrow->api_port);
    PGconn *locker = pgview_open(NULL);

    /* Who has the connection keeps it until the lock is off. */
    pgview_exec(locker, "begin; lock table users in access exclusive mode");
    client_request(runner, "GET", "/v1/users/2?timeout=30s", NULL);
    WAIT_FOR(pgview_active(pg, ON_USERS) == 1);
    client_request(waiter, "GET", "/v1/sleep?seconds=30", "X-Request-Id: waiter\r\n");
    WAIT_FOR(service_unread(narrow) == 0);
    (void)close(waiter);
    expect_logged_as_gone(narrow, "waiter");
    PQfinish(locker);
    ck_assert_int_eq(client_recv(runner, "GET")->status, 200);
    ck_assert_int_eq(client_get(narrow->api_port, "/v1/users/42", NULL)->status, 200);
    ck_assert_int_eq(pgview_active(pg, SLEEPING), 0);
    (void)close(runner);
}
END_TEST

/* half-close */

START_TEST(half_close_counts_as_gone)
{
    ck_assert(ends_with_client(service, leave_by_half_close));
}
END_TEST

START_TEST(half_close_is_served_where_allowed)
{
    struct service *patient =
        service_start_ready(NULL, (const char *[]){"CURFEW_HALF_CLOSE=1", NULL});
    int fd = client_open(patient->api_port);

    client_request(fd, "GET", "/v1/sleep?seconds=0.3", NULL);
    ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
    ck_assert_int_eq(client_recv(fd, "GET")->status, 200);
    ck_assert(client_wait_closed(fd, 2 * CF_SECOND));
    (void)close(fd);
}
END_TEST

START_TEST(reset_counts_as_gone_even_where_half_close_is_allowed)
{
    struct service *patient =
        service_start_ready(NULL, (const char *[]){"CURFEW_POOL=4", "CURFEW_HALF_CLOSE=1", NULL});

    wait_for_sessions(2 * SESSIONS);
    ck_assert(ends_with_client(patient, leave_by_rst));
}
END_TEST

Suite *suite_client_gone(void)
{
    Suite *suite = suite_create("client_gone");
    TCase *query = tcase_create("query");
    TCase *queue = tcase_create("queue");
    TCase *half_close = tcase_create("half_close");

    tcase_add_checked_fixture(query, setup, teardown);
    tcase_add_loop_test(query, query_ends_with_its_client, 0, sizeof(ways) / sizeof(ways[0]));
    tcase_add_test(query, query_ends_by_pqcancel_too);
    tcase_add_test(query, pipelined_bytes_from_the_start_hide_nothing);
    tcase_add_test(query, client_gone_at_once_leaves_nothing);
    tcase_set_timeout(query, 30);
    suite_add_tcase(suite, query);

    tcase_add_checked_fixture(queue, setup, teardown);
    tcase_add_test(queue, waiter_for_the_pool_leaves_it);
    tcase_set_timeout(queue, 30);
    suite_add_tcase(suite, queue);

    tcase_add_checked_fixture(half_close, setup, teardown);
    tcase_add_test(half_close, half_close_counts_as_gone);
    tcase_add_test(half_close, half_close_is_served_where_allowed);
    tcase_add_test(half_close, reset_counts_as_gone_even_where_half_close_is_allowed);
    tcase_set_timeout(half_close, 30);
    suite_add_tcase(suite, half_close);
    return suite;
}
