/* SPDX-License-Identifier: MIT */
/* Every limit of the HTTP server: what is within is served, and what is beyond is told so. */
#include "http_fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* Helpers */

/* A connection from one of the addresses of this machine. */
static int open_from(const char *address)
{
    struct sockaddr_in from = {.sin_family = AF_INET};
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(site.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_eq(inet_pton(AF_INET, address, &from.sin_addr), 1);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&from, sizeof(from)), 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

static struct reply *ask(int fd, const char *target, const char *headers)
{
    int64_t sent_ns = cf_now_ns();
    struct reply *reply;

    client_request(fd, "GET", target, headers);
    reply = client_recv(fd, "GET");
    reply->sent_ns = sent_ns;
    return reply;
}

/* The fixed reply to who has said nothing. */
static void expect_told(int fd, const char *status_line)
{
    char text[1024];

    read_to_end(fd, text, sizeof(text));
    ck_assert_msg(strncmp(text, status_line, strlen(status_line)) == 0, "\"%s\"", text);
    ck_assert_ptr_nonnull(strstr(text, "Retry-After: 1\r\n"));
    ck_assert_ptr_nonnull(strstr(text, "Connection: close\r\n"));
    ck_assert_ptr_null(strstr(text + 1, "HTTP/1.1 "));
    (void)close(fd);
}

/* in_flight */

START_TEST(in_flight_limit_reached)
{
    int first;
    int second;
    struct reply *reply;

    site.options.in_flight_max = 1;
    site_start(1);
    first = client_open(site.port);
    second = client_open(site.port);
    client_request(first, "GET", "/nap", NULL);
    wait_started();
    client_request(second, "GET", "/hello", NULL);
    reply = client_recv(second, "GET");
    expect_problem(reply, 503, "overloaded");
    ck_assert_str_eq(reply_header(reply, "Retry-After"), "1");
    (void)close(first);
    wait_count(count_in_flight, 0);
    client_request(second, "GET", "/hello", NULL); /* The connection goes on. */
    reply = client_recv(second, "GET");
    ck_assert_int_eq(reply->status, 200);
    (void)close(second);
}
END_TEST

START_TEST(two_thousand_requests_wait_at_once)
{
    static int fds[2000];
    struct rlimit limit;
    int64_t before_ns;
    int64_t asked_ns;

    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    ck_assert_uint_gt(limit.rlim_cur, 2 * N(fds) + 100);
    site_start(2);
    before_ns = cf_now_ns();
    for (int i = 0; i < N(fds); i++) {
        fds[i] = client_open(site.port);
        client_request(fds[i], "GET", "/nap?timeout=1500ms", NULL);
    }
    asked_ns = cf_now_ns();
    for (int i = 0; i < N(fds); i++) {
        struct seen seen = wait_done((size_t)i + 1);

        ck_assert_int_eq(seen.status, 504);
        ck_assert_int_ge(seen.duration_ns, 1500 * CF_MS);
    }
    ck_assert_int_ge(cf_now_ns() - before_ns, 1500 * CF_MS);
    ck_assert_int_lt(cf_now_ns() - asked_ns, 1500 * CF_MS + bound(5 * AT_ONCE_NS));
    for (int i = 0; i < N(fds); i++) {
        ck_assert_int_eq(client_recv(fds[i], "GET")->status, 504);
        (void)close(fds[i]);
    }
    wait_count(count_connections, 0);
}
END_TEST

/* idle */

START_TEST(idle_connection_is_closed)
{
    int64_t asked_ns;
    int fd;

    site.options.idle_timeout_ns = 1; /* Rounded up to a second. */
    site_start(1);
    fd = client_open(site.port);
    asked_ns = cf_now_ns();
    client_request(fd, "GET", "/nap?ms=2500", NULL); /* Who waits for us is not idle. */
    ck_assert_int_eq(client_recv(fd, "GET")->status, 200);
    client_expect_end(fd);
    ck_assert_int_ge(cf_now_ns() - asked_ns, 3500 * CF_MS);
    ck_assert_int_lt(cf_now_ns() - asked_ns, bound(5 * CF_SECOND));
    (void)close(fd);
    wait_count(count_connections, 0);
}
END_TEST

/* connections */

/* Counted over both loops: whichever it comes to, the eleventh is one too many. */
START_TEST(connections_beyond_the_limit_are_told)
{
    int fds[10];

    site.options.connections_max = 10;
    site_start(2);
    for (int i = 0; i < 10; i++) {
        fds[i] = client_open(site.port);
        ck_assert_int_eq(ask(fds[i], "/hello", NULL)->status, 200);
    }
    for (int i = 0; i < 10; i++) {
        int fd = client_open(site.port);
        struct reply *reply = ask(fd, "/hello", NULL);

        expect_problem(reply, 503, "overloaded");
        ck_assert_str_eq(reply_header(reply, "Connection"), "close");
        ck_assert_int_lt(reply->done_ns - reply->sent_ns, bound(AT_ONCE_NS));
        ck_assert(client_wait_closed(fd, PATIENCE_NS));
        (void)close(fd);
        wait_count(count_connections, 10);
    }
    ck_assert_int_eq(ask(fds[9], "/hello", NULL)->status, 200); /* Who is in, stays in. */
    (void)close(fds[0]);
    wait_count(count_connections, 9);
    fds[0] = client_open(site.port);
    ck_assert_int_eq(ask(fds[0], "/hello", NULL)->status, 200);
    for (int i = 0; i < 10; i++) {
        (void)close(fds[i]);
    }
}
END_TEST

/* It is given a moment to send its request, which a silent one does not use. */
START_TEST(connection_beyond_the_limit_that_is_silent_is_told)
{
    int64_t since_ns;
    int first;

    site.options.connections_max = 1;
    site_start(2);
    first = client_open(site.port);
    ck_assert_int_eq(ask(first, "/hello", NULL)->status, 200);
    since_ns = cf_now_ns();
    expect_told(client_open(site.port), "HTTP/1.1 503 ");
    ck_assert_int_ge(cf_now_ns() - since_ns, CF_SECOND / 2);
    ck_assert_int_lt(cf_now_ns() - since_ns, bound(2 * CF_SECOND));
    wait_count(count_connections, 1);
    (void)close(first);
}
END_TEST

/* Silent ones in a crowd do not use up what is there to tell the next. */
START_TEST(crowd_beyond_the_limit_is_told_at_once)
{
    static int fds[500];
    int64_t since_ns;
    size_t before;
    int first;

    site.options.connections_max = 1;
    site_start(2);
    first = client_open(site.port);
    ck_assert_int_eq(ask(first, "/hello", NULL)->status, 200);
    before = count_descriptors();
    since_ns = cf_now_ns();
    for (int i = 0; i < N(fds); i++) {
        fds[i] = client_open(site.port);
    }
    for (int i = N(fds) - 1; i >= 0; i--) {
        expect_told(fds[i], "HTTP/1.1 503 ");
    }
    ck_assert_int_lt(cf_now_ns() - since_ns, bound(4 * CF_SECOND)); /* Not in turns of a second. */
    ck_assert_int_eq(ask(first, "/hello", NULL)->status, 200);
    wait_count(count_connections, 1);
    wait_count(count_descriptors, before); /* Libmicrohttpd gives notice before it closes. */
    (void)close(first);
}
END_TEST

/* address */

START_TEST(address_limit_reached)
{
    int fds[3];
    int other;
    struct reply *reply;

    site.options.connections_per_address_max = 3;
    site_start(2);
    for (int i = 0; i < 3; i++) {
        fds[i] = client_open(site.port);
        ck_assert_int_eq(ask(fds[i], "/hello", "X-Forwarded-For: 192.0.2.1\r\n")->status, 200);
        ck_assert_str_eq(last_done().client, "127.0.0.1"); /* Nobody's word is taken for it. */
    }
    for (int i = 0; i < 3; i++) {
        int fd = client_open(site.port);

        reply = ask(fd, "/hello", NULL);
        expect_problem(reply, 429, "quota_exceeded");
        ck_assert_str_eq(reply_header(reply, "Connection"), "close");
        (void)close(fd);
        wait_count(count_connections, 3);
    }
    other = open_from("127.0.0.2");
    ck_assert_int_eq(ask(other, "/hello", NULL)->status, 200);
    (void)close(other);
    (void)close(fds[0]);
    wait_count(count_connections, 2);
    fds[0] = client_open(site.port);
    ck_assert_int_eq(ask(fds[0], "/hello", NULL)->status, 200);
    for (int i = 0; i < 3; i++) {
        (void)close(fds[i]);
    }
}
END_TEST

START_TEST(address_far_beyond_its_limit_is_told_at_once)
{
    int fds[20];
    int n_told = 0;
    int64_t since_ns;
    int other;

    site.options.connections_per_address_max = 10;
    site_start(2);
    for (int i = 0; i < 20; i++) {
        fds[i] = client_open(site.port);
    }
    wait_count(count_connections, 20);
    since_ns = cf_now_ns();
    for (int i = 0; i < 30; i++) {
        expect_told(client_open(site.port), "HTTP/1.1 429 ");
    }
    ck_assert_int_lt(cf_now_ns() - since_ns, bound(CF_SECOND / 2));
    other = open_from("127.0.0.2");
    ck_assert_int_eq(ask(other, "/hello", NULL)->status, 200);
    (void)close(other);
    wait_count(count_connections, 10); /* The twenty were accepted in any order. */
    for (int i = 0; i < 20; i++) {
        if (is_readable(fds[i], 0)) {
            expect_told(fds[i], "HTTP/1.1 429 ");
            n_told++;
        } else {
            ck_assert_int_eq(ask(fds[i], "/hello", NULL)->status, 200);
            (void)close(fds[i]);
        }
    }
    ck_assert_int_eq(n_told, 10);
}
END_TEST

/* Its connections are not those of a client; its requests are, and those of one client do not keep
 * another out, nor the proxy's connection from going on. */
START_TEST(proxy_that_is_trusted_asks_for_its_clients)
{
    int held[2];
    int fd;

    site.options.connections_per_address_max = 2;
    site.options.trusted_proxies = "127.0.0.1, 10.0.0.0/8";
    site_start(2);
    for (int i = 0; i < 2; i++) {
        held[i] = client_open(site.port);
        client_request(held[i], "GET", "/nap", "X-Forwarded-For: 1.1.1.1, 192.0.2.1, 10.0.0.1\r\n");
        wait_started();
    }
    fd = client_open(site.port);
    expect_problem(ask(fd, "/hello", "X-Forwarded-For: 192.0.2.1\r\n"), 429, "quota_exceeded");
    ck_assert_str_eq(last_done().client, "192.0.2.1");
    expect_problem(ask(fd, "/hello", "Forwarded: for=\"192.0.2.1:80\"\r\n"), 429, "quota_exceeded");
    ck_assert_int_eq(ask(fd, "/hello", "X-Forwarded-For: 2001:db8::1\r\n")->status, 200);
    ck_assert_str_eq(last_done().client, "2001:db8::1");
    ck_assert_int_eq(ask(fd, "/hello", NULL)->status, 200);
    ck_assert_str_eq(last_done().client, "127.0.0.1");
    (void)close(held[0]);
    wait_count(count_connections, 2);
    ck_assert_int_eq(ask(fd, "/hello", "X-Forwarded-For: 192.0.2.1\r\n")->status, 200);
    (void)close(held[1]);
    (void)close(fd);
}
END_TEST

START_TEST(new_names_what_is_no_proxy)
{
    struct cf_err err = {.msg = ""};

    site.options.trusted_proxies = "127.0.0.1, proxy.example";
    ck_assert_int_eq(cf_http_server_new(&site.options, site.loops, 2, &site.server, &err),
                     CF_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.msg, "proxy.example"));
    ck_assert_ptr_nonnull(strstr(err.msg, "trusted proxies"));
}
END_TEST

/* send */

/* Read a little now and then until the other side closes; how long that took. */
static int64_t sip(int fd, int64_t at_most_ns)
{
    int64_t since_ns = cf_now_ns();
    char drop[512];
    ssize_t n;

    do {
        ck_assert_int_lt(cf_now_ns() - since_ns, at_most_ns);
        pause_ms(5);
        n = recv(fd, drop, sizeof(drop), MSG_DONTWAIT);
    } while (n > 0 || (n < 0 && errno == EAGAIN));
    return cf_now_ns() - since_ns;
}

/* What it has already been sent it can still read; there is no more behind the send timeout. */
START_TEST(reader_that_sips_is_closed_in_time)
{
    int fd;

    site.options.send_timeout_ns = 500 * CF_MS;
    site.options.head_timeout_ns = 400 * CF_MS;
    site_start(2);
    fd = open_narrow();
    client_request(fd, "GET", "/large?size=20000000", NULL);
    wait_count(count_connections, 1);
    ck_assert_int_ge(sip(fd, bound(5 * CF_SECOND)), 500 * CF_MS);
    wait_count(count_connections, 0);
    (void)close(fd);
}
END_TEST

START_TEST(reader_that_reads_nothing_is_closed_in_time)
{
    int64_t since_ns;
    int fd;

    site.options.send_timeout_ns = 500 * CF_MS;
    site.options.head_timeout_ns = 400 * CF_MS;
    site_start(2);
    fd = open_narrow();
    since_ns = cf_now_ns();
    client_request(fd, "GET", "/large?size=20000000", NULL);
    wait_count(count_connections, 1);
    wait_count(count_connections, 0);
    ck_assert_int_ge(cf_now_ns() - since_ns, 500 * CF_MS);
    ck_assert_int_lt(cf_now_ns() - since_ns, bound(1500 * CF_MS));
    (void)close(fd);
}
END_TEST

/* The time is one reply's, not the connection's. */
START_TEST(reader_in_time_is_left_alone)
{
    int fd;

    site.options.send_timeout_ns = 300 * CF_MS;
    site.options.head_timeout_ns = 200 * CF_MS;
    site_start(2);
    fd = client_open(site.port);
    for (int i = 0; i < 8; i++) {
        ck_assert_uint_eq(ask(fd, "/large?size=1000000", NULL)->body_size, 1000000);
        pause_ms(100);
    }
    (void)close(fd);
}
END_TEST

/* head */

static const struct {
    const char *target;
    size_t n_target; /* Length to which it is filled up. */
    size_t n_fields; /* Beside Host. */
    size_t n_field;  /* Bytes of one. */
    int status;
    const char *code; /* NULL: of a success, or libmicrohttpd's own. */
} heads[] = {
    {"/hello?a=", 8192, 0, 0, 200, NULL},
    {"/hello?a=", 8193, 0, 0, 414, "target_too_long"},
    {"/", 8192, 0, 0, 404, "not_found"},
    {"/", 8193, 0, 0, 414, "target_too_long"},
    {"/", 40000, 0, 0, 414, NULL},
    {"/hello", 0, 99, 1, 200, NULL},
    {"/hello", 0, 100, 1, 431, "head_too_large"},
    {"/hello", 0, 1, 13500, 200, NULL},
    {"/hello", 0, 1, 14500, 431, "head_too_large"},
    {"/hello", 0, 1, 40000, 431, NULL},
};

START_TEST(head_limit_reached)
{
    static char text[65536];
    char *at = text;
    int fd;
    struct reply *reply;

    site_start(2);
    at += sprintf(at, "GET %s", heads[_i].target);
    while ((size_t)(at - text) < 4 + heads[_i].n_target) {
        *at++ = 'a';
    }
    at += sprintf(at, " HTTP/1.1\r\nHost: a\r\n");
    for (size_t i = 0; i < heads[_i].n_fields; i++) {
        at += sprintf(at, "X: ");
        memset(at, 'x', heads[_i].n_field);
        at += heads[_i].n_field;
        at += sprintf(at, "\r\n");
    }
    (void)sprintf(at, "\r\n");
    fd = client_open(site.port);
    client_send(fd, text);
    reply = client_recv(fd, "GET");
    ck_assert_int_eq(reply->status, heads[_i].status);
    if (heads[_i].code != NULL) {
        expect_problem(reply, heads[_i].status, heads[_i].code);
    }
    if (reply->status != 200 && reply->status != 404) {
        ck_assert(client_wait_closed(fd, PATIENCE_NS));
    }
    (void)close(fd);
}
END_TEST

START_TEST(head_limits_are_as_they_were_set)
{
    site.options.target_size_max = 10;
    site.options.fields_max = 2;
    site.options.head_size_max = 1000;
    site.options.body_size_max = 5;
    site_start(2);
    ck_assert_int_eq(client_get(site.port, "/hello?a=1", NULL)->status, 200);
    ck_assert_int_eq(client_get(site.port, "/hello?a=12", NULL)->status, 414);
    ck_assert_int_eq(client_get(site.port, "/hello", "A: b\r\n")->status, 200);
    ck_assert_int_eq(client_get(site.port, "/hello", "A: b\r\nC: d\r\n")->status, 431);
    ck_assert_str_eq(post("/body", "12345")->body, "12345");
    expect_problem(post("/body", "123456"), 413, "too_large");
}
END_TEST

static const char *const own_hosts[] = {"localhost", "127.0.0.1:1", "[::1]", "curfew:8081"};
static const char *const other_hosts[] = {"evil.example", "evil.example:8081", "127.0.0.1.evil"};

START_TEST(host_of_others_is_misdirected)
{
    char request[128];
    int fd;

    site.options.hosts = "curfew";
    site_start(2);
    for (int i = 0; i < N(own_hosts); i++) {
        fd = client_open(site.port);
        (void)snprintf(request, sizeof(request), "GET /hello HTTP/1.1\r\nHost: %s\r\n\r\n",
                       own_hosts[i]);
        client_send(fd, request);
        ck_assert_int_eq(client_recv(fd, "GET")->status, 200);
        (void)close(fd);
    }
    for (int i = 0; i < N(other_hosts); i++) {
        fd = client_open(site.port);
        (void)snprintf(request, sizeof(request), "GET /hello HTTP/1.1\r\nHost: %s\r\n\r\n",
                       other_hosts[i]);
        client_send(fd, request);
        expect_problem(client_recv(fd, "GET"), 421, "misdirected");
        (void)close(fd);
    }
}
END_TEST

/* Suite */

static TCase *add_case(Suite *suite, const char *name)
{
    TCase *tc = tcase_create(name);

    tcase_add_checked_fixture(tc, site_setup_loops, site_teardown);
    tcase_set_timeout(tc, 60);
    suite_add_tcase(suite, tc);
    return tc;
}

Suite *suite_http_limits(void)
{
    Suite *suite = suite_create("http_limits");
    TCase *tc = add_case(suite, "in_flight");

    tcase_add_test(tc, in_flight_limit_reached);
    tcase_add_test(tc, two_thousand_requests_wait_at_once);

    tc = add_case(suite, "idle");
    tcase_add_test(tc, idle_connection_is_closed);

    tc = add_case(suite, "connections");
    tcase_add_test(tc, connections_beyond_the_limit_are_told);
    tcase_add_test(tc, connection_beyond_the_limit_that_is_silent_is_told);
    tcase_add_test(tc, crowd_beyond_the_limit_is_told_at_once);

    tc = add_case(suite, "address");
    tcase_add_test(tc, address_limit_reached);
    tcase_add_test(tc, address_far_beyond_its_limit_is_told_at_once);
    tcase_add_test(tc, proxy_that_is_trusted_asks_for_its_clients);
    tcase_add_test(tc, new_names_what_is_no_proxy);

    tc = add_case(suite, "send");
    tcase_add_test(tc, reader_that_sips_is_closed_in_time);
    tcase_add_test(tc, reader_that_reads_nothing_is_closed_in_time);
    tcase_add_test(tc, reader_in_time_is_left_alone);

    tc = add_case(suite, "head");
    tcase_add_loop_test(tc, head_limit_reached, 0, N(heads));
    tcase_add_test(tc, head_limits_are_as_they_were_set);
    tcase_add_test(tc, host_of_others_is_misdirected);
    return suite;
}
