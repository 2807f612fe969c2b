/* SPDX-License-Identifier: MIT */
/* Clients that take their time: with a head, with a body, a byte now and then. */
#include <check.h>
#include <dirent.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <curfew/clock.h>
#include <curfew/http.h>
#include <curfew/wait.h>

#include "client.h"

#define HEAD_NS (200 * CF_MS)
#define BODY_NS (300 * CF_MS)
#define LATE_NS (HEAD_NS / 4) /* As http.h says. */
#define PAUSE_MS 10           /* Between two bytes. */

/* How late a reply may be beside that: the machine's business. */
#define SLACK_NS (200 * CF_MS)

/* Fixture */

static struct cf_loop *loop;
static struct cf_http_server *server;
static uint16_t port;
static atomic_int timed_out; /* Requests that were logged with a 408. */

static enum cf_code nap(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    enum cf_code code = cf_sleep(ctx, 3 * HEAD_NS, err);

    if (code == CF_OK) {
        cf_http_reply_text(http, 200, "slept");
    }
    return code;
}

static enum cf_code hello(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    (void)ctx;
    (void)err;
    cf_http_reply_text(http, 200, "hello");
    return CF_OK;
}

static void on_done(void *arg, const struct cf_http_record *record)
{
    (void)arg;
    if (record->status == 408) {
        (void)atomic_fetch_add(&timed_out, 1);
    }
}

static void setup(void)
{
    static const struct cf_http_route routes[] = {
        {"GET", "/", hello, 0, NULL}, {"POST", "/", hello, 0, NULL}, {"GET", "/nap", nap, 0, NULL}};
    struct cf_http_options options = {.listen = "127.0.0.1:0",
                                      .routes = routes,
                                      .n_routes = sizeof(routes) / sizeof(routes[0]),
                                      .head_timeout_ns = HEAD_NS,
                                      .body_timeout_ns = BODY_NS,
                                      .on_done = on_done};
    struct cf_err err = {.msg = ""};

    atomic_store(&timed_out, 0);
    ck_assert_int_eq(cf_loop_new(NULL, &loop, NULL), CF_OK);
    ck_assert_msg(cf_http_server_new(&options, &loop, 1, &server, &err) == CF_OK, "%s", err.msg);
    port = cf_http_server_port(server);
}

static void teardown(void)
{
    client_free_all();
    cf_http_server_stop(server, 0);
    cf_http_server_free(server);
    cf_loop_free(loop);
}

/* Helpers */

static bool is_readable(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    return poll(&poll_fd, 1, PAUSE_MS) == 1;
}

/* Send a byte each PAUSE_MS until something comes back; how long that took. */
static int64_t trickle(int fd)
{
    int64_t since_ns = cf_now_ns();

    do {
        client_send(fd, "x");
        ck_assert_int_lt(cf_now_ns() - since_ns, bound(10 * CF_SECOND));
    } while (!is_readable(fd));
    return cf_now_ns() - since_ns;
}

static void expect_about(int64_t took_ns, int64_t at_least_ns, int64_t late_ns)
{
    ck_assert_int_ge(took_ns, at_least_ns);
    ck_assert_int_lt(took_ns, at_least_ns + late_ns + bound(SLACK_NS));
}

/* All that comes until the other side closes. */
static void read_to_end(int fd, char *out, size_t size)
{
    size_t n = 0;
    ssize_t got;

    while (n < size - 1 && (got = recv(fd, out + n, size - 1 - n, 0)) > 0) {
        n += (size_t)got;
    }
    out[n] = '\0';
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

static size_t count_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t n = 0;

    ck_assert_ptr_nonnull(dir);
    while (readdir(dir) != NULL) {
        n++;
    }
    (void)closedir(dir);
    return n;
}

static size_t connections(void)
{
    struct cf_http_stats stats;

    cf_http_server_stats(server, &stats);
    return stats.connections;
}

static void wait_connections(size_t n)
{
    int64_t until_ns = cf_now_ns() + bound(10 * CF_SECOND);

    while (connections() != n) {
        ck_assert_int_lt(cf_now_ns(), until_ns);
        pause_ms(1);
    }
}

/* head */

/* Counted from the connection: as long as it has said nothing at all, it is idle. */
START_TEST(head_without_its_first_line_ends_in_time)
{
    int fd = client_open(port);

    expect_about(trickle(fd), HEAD_NS, LATE_NS);
    expect_408(fd, false);
    ck_assert_int_eq(atomic_load(&timed_out), 0); /* There is nothing to log. */
}
END_TEST

START_TEST(head_that_drips_ends_in_time)
{
    int fd = client_open(port);

    client_send(fd, "GET / HTTP/1.1\r\nHost: a\r\nX-Long: ");
    expect_about(trickle(fd), HEAD_NS, LATE_NS);
    expect_408(fd, true);
    wait_connections(0);
    ck_assert_int_eq(atomic_load(&timed_out), 1);
}
END_TEST

START_TEST(head_that_drips_behind_a_served_request_ends_in_time)
{
    int fd = client_open(port);

    client_request(fd, "GET", "/", NULL);
    ck_assert_int_eq(client_recv(fd, "GET")->status, 200);
    /* When it has begun is seen at a look, and that the request was served at the one before. */
    expect_about(trickle(fd), HEAD_NS, 3 * LATE_NS);
    expect_408(fd, false);
}
END_TEST

/* What it still sends is not taken for a request, late or not. */
START_TEST(head_that_ends_behind_its_time_is_not_served)
{
    int fd = client_open(port);

    client_send(fd, "GET / HTTP/1.1\r\nHost: a\r\nX-Long: ");
    (void)trickle(fd);
    (void)send(fd, "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 31, MSG_NOSIGNAL);
    expect_408(fd, true);
}
END_TEST

/* body */

START_TEST(body_that_drips_ends_in_time)
{
    int fd = client_open(port);

    client_send(fd, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n");
    expect_about(trickle(fd), BODY_NS, LATE_NS);
    expect_408(fd, true);
    wait_connections(0);
    ck_assert_int_eq(atomic_load(&timed_out), 1);
}
END_TEST

START_TEST(body_that_comes_in_time_is_served)
{
    int fd = client_open(port);

    client_send(fd, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    for (int i = 0; i < 5; i++) {
        client_send(fd, "x");
        pause_ms(PAUSE_MS);
    }
    ck_assert_int_eq(client_recv(fd, "POST")->status, 200);
    (void)close(fd);
}
END_TEST

/* Who is not slow */

START_TEST(idle_connection_is_left_alone)
{
    int fd = client_open(port);

    for (int i = 0; i < 2; i++) {
        pause_ms(3 * HEAD_NS / CF_MS);
        client_request(fd, "GET", "/", NULL);
        ck_assert_int_eq(client_recv(fd, "GET")->status, 200);
    }
    (void)close(fd);
}
END_TEST

START_TEST(handler_may_take_longer_than_a_head)
{
    ck_assert_int_eq(client_get(port, "/nap", NULL)->status, 200);
    ck_assert_int_eq(atomic_load(&timed_out), 0);
}
END_TEST

START_TEST(many_slow_clients_do_not_keep_others_out)
{
    static int fds[200];
    size_t before = count_descriptors();

    for (int i = 0; i < 200; i++) {
        fds[i] = client_open(port);
        client_send(fds[i], i % 2 == 0 ? "GE" : "GET / HTTP/1.1\r\nHost");
    }
    for (int i = 0; i < 50; i++) {
        struct reply *reply = client_get(port, "/", NULL);

        ck_assert_int_eq(reply->status, 200);
        ck_assert_int_lt(reply->done_ns - reply->sent_ns, bound(SLACK_NS));
    }
    for (int i = 0; i < 200; i++) {
        (void)trickle(fds[i]);
        expect_408(fds[i], i % 2 != 0);
    }
    wait_connections(0);
    ck_assert_uint_eq(count_descriptors(), before);
}
END_TEST

static void add_case(Suite *suite, TCase *tcase)
{
    tcase_add_checked_fixture(tcase, setup, teardown);
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
