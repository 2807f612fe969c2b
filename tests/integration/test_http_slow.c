/* SPDX-License-Identifier: MIT */
/* Clients that take their time: with a head, with a body, a byte now and then. */
#include "http_fixture.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_NS (200 * CF_MS)
#define BODY_NS (300 * CF_MS)
#define LATE_NS (HEAD_NS / 4) /* As http.h says. */
#define NAP "/nap?ms=600"     /* Thrice as long as a head may take. */
#define PAUSE_MS 10           /* Between two bytes. */

/* How late a reply may be beside that: the machine's business. */
#define SLACK_NS (200 * CF_MS)

/* Fixture */

static void setup(void)
{
    site_setup_loops();
    site.options.head_timeout_ns = HEAD_NS;
    site.options.body_timeout_ns = BODY_NS;
    site_start(1);
}

/* Helpers */

/* Send a byte each PAUSE_MS until something comes back; how long that took. */
static int64_t trickle(int fd)
{
    int64_t since_ns = cf_now_ns();

    do {
        (void)client_send(fd, "x");
        ck_assert_int_lt(cf_now_ns() - since_ns, bound(10 * CF_SECOND));
    } while (!is_readable(fd, PAUSE_MS));
    return cf_now_ns() - since_ns;
}

static void expect_about(int64_t took_ns, int64_t at_least_ns, int64_t late_ns)
{
    ck_assert_int_ge(took_ns, at_least_ns);
    ck_assert_int_lt(took_ns, at_least_ns + late_ns + bound(SLACK_NS));
}

static void expect_408(int fd, bool is_problem)
{
    char text[1024];
    const char *first;

    read_to_end(fd, text, sizeof(text));
    first = strstr(text, "HTTP/1.1 ");
    ck_assert_msg(first != NULL && strncmp(first, "HTTP/1.1 408 ", 13) == 0, "%s", text);
    ck_assert_ptr_null(strstr(first + 1, "HTTP/1.1 ")); /* One answer, whatever else was sent. */
    ck_assert_ptr_nonnull(strstr(text, "Connection: close"));
    ck_assert_ptr_nonnull(strstr(text, "\r\nDate: ")); /* And how it is written: test_date.c. */
    ck_assert_int_eq(strstr(text, "\"code\":\"request_timeout\"") != NULL, is_problem);
    (void)close(fd);
}

/* head */

/* Counted from the connection: as long as it has said nothing at all, it is idle. */
START_TEST(head_without_its_first_line_ends_in_time)
{
    int fd = client_open(site.port);

    expect_about(trickle(fd), HEAD_NS, LATE_NS);
    expect_408(fd, false);
    ck_assert_uint_eq(count_done_with(408), 0); /* There is nothing to log. */
}
END_TEST

START_TEST(head_that_drips_ends_in_time)
{
    int fd = client_open(site.port);

    client_send(fd, "GET /hello HTTP/1.1\r\nHost: a\r\nX-Long: ");
    expect_about(trickle(fd), HEAD_NS, LATE_NS);
    expect_408(fd, true);
    wait_count(count_connections, 0);
    ck_assert_uint_eq(count_done_with(408), 1);
}
END_TEST

START_TEST(head_that_drips_behind_a_served_request_ends_in_time)
{
    int fd = client_open(site.port);

    client_request(fd, "GET", "/hello", NULL);
    ck_assert_int_eq(client_recv(fd, "GET")->status, 200);
    /* When it has begun is seen at a look, and that the request was served at the one before. */
    expect_about(trickle(fd), HEAD_NS, 3 * LATE_NS);
    expect_408(fd, false);
}
END_TEST

/* What it still sends is not taken for a request, late or not. */
START_TEST(head_that_ends_behind_its_time_is_not_served)
{
    int fd = client_open(site.port);

    client_send(fd, "GET /hello HTTP/1.1\r\nHost: a\r\nX-Long: ");
    (void)trickle(fd);
    (void)send(fd, "\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n", 36, MSG_NOSIGNAL);
    expect_408(fd, true);
}
END_TEST

/* body */

START_TEST(body_that_drips_ends_in_time)
{
    int fd = client_open(site.port);

    client_send(fd, "POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n");
    expect_about(trickle(fd), BODY_NS, LATE_NS);
    expect_408(fd, true);
    wait_count(count_connections, 0);
    ck_assert_uint_eq(count_done_with(408), 1);
}
END_TEST

/* Whether a body was served: it is, if the machine does not stand still for a body's time. */
static bool is_body_served(void)
{
    int64_t since_ns = cf_now_ns();
    int fd = client_open(site.port);
    int status;

    (void)client_send(fd, "POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    for (int i = 0; i < 5; i++) {
        (void)client_send(fd, "x");
        pause_ms(PAUSE_MS);
    }
    status = client_recv(fd, "POST")->status;
    ck_assert_msg(status == 200 || cf_now_ns() - since_ns >= BODY_NS, "%d", status);
    (void)close(fd);
    return status == 200;
}

START_TEST(body_that_comes_in_time_is_served)
{
    WAIT_FOR(is_body_served());
}
END_TEST

/* Who is not slow */

START_TEST(idle_connection_is_left_alone)
{
    int fd = client_open(site.port);

    for (int i = 0; i < 2; i++) {
        pause_ms(3 * HEAD_NS / CF_MS);
        client_request(fd, "GET", "/hello", NULL);
        ck_assert_int_eq(client_recv(fd, "GET")->status, 200);
    }
    (void)close(fd);
}
END_TEST

START_TEST(handler_may_take_longer_than_a_head)
{
    ck_assert_int_eq(client_get(site.port, NAP, NULL)->status, 200);
    ck_assert_uint_eq(count_done_with(408), 0);
}
END_TEST

START_TEST(many_slow_clients_do_not_keep_others_out)
{
    static int fds[200];
    size_t before = count_descriptors();

    for (int i = 0; i < 200; i++) {
        fds[i] = client_open(site.port);
        client_send(fds[i], i % 2 == 0 ? "GE" : "GET /hello HTTP/1.1\r\nHost");
    }
    for (int i = 0; i < 50; i++) {
        struct reply *reply = client_get(site.port, "/hello", NULL);

        ck_assert_int_eq(reply->status, 200);
        ck_assert_int_lt(reply->done_ns - reply->sent_ns, bound(SLACK_NS));
    }
    for (int i = 0; i < 200; i++) {
        (void)trickle(fds[i]);
        expect_408(fds[i], i % 2 != 0);
    }
    wait_count(count_connections, 0);
    wait_count(count_descriptors, before); /* Libmicrohttpd gives notice before it closes. */
}
END_TEST

static void add_case(Suite *suite, TCase *tcase)
{
    tcase_add_checked_fixture(tcase, setup, site_teardown);
    tcase_set_timeout(tcase, 60);
    suite_add_tcase(suite, tcase);
}

Suite *suite_http_slow(void)
{
    Suite *suite = suite_create("http_slow");
    TCase *head = tcase_create("head");
    TCase *body = tcase_create("body");
    TCase *others = tcase_create("others");

    tcase_add_test(head, head_without_its_first_line_ends_in_time);
    tcase_add_test(head, head_that_drips_ends_in_time);
    tcase_add_test(head, head_that_drips_behind_a_served_request_ends_in_time);
    tcase_add_test(head, head_that_ends_behind_its_time_is_not_served);
    add_case(suite, head);

    tcase_add_test(body, body_that_drips_ends_in_time);
    tcase_add_test(body, body_that_comes_in_time_is_served);
    add_case(suite, body);

    tcase_add_test(others, idle_connection_is_left_alone);
    tcase_add_test(others, handler_may_take_longer_than_a_head);
    tcase_add_test(others, many_slow_clients_do_not_keep_others_out);
    add_case(suite, others);
    return suite;
}
