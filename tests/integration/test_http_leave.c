/* SPDX-License-Identifier: MIT */
/* Clients that leave the HTTP server, whole or by half, at every moment. */
#include "http_fixture.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <curfew/wait.h>

/* Fixture */

static sem_t go; /* The handler below may go on. */

/* Holds its loop until `go`, so that what the client did meanwhile is found
 * all at once; then waits. */
static enum cf_code hold(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    enum cf_code code;

    (void)sem_post(&site.started);
    wait_sem(&go, "nobody lets the handler go on");
    code = cf_sleep(ctx, 20 * CF_MS, err);
    cf_http_reply_text(http, 200, "held");
    return code;
}

static const struct cf_http_route routes[] = {
    {"GET", "/hello", serve_hello},     {"POST", "/hello", serve_hello}, {"GET", "/nap", serve_nap},
    {"GET", "/fan-out", serve_fan_out}, {"GET", "/large", serve_large},  {"GET", "/hold", hold},
};

static void setup_loops(void)
{
    ck_assert_int_eq(sem_init(&go, 0, 0), 0);
    site_setup_loops();
    site.options.routes = routes;
    site.options.n_routes = N(routes);
}

static void setup(void)
{
    setup_loops();
    site_start(2);
}

static void setup_half_close(void)
{
    setup_loops();
    site.options.half_close_allowed = true;
    site_start(1);
}

/* leaving */

enum way_to_leave {
    FIN,
    RST,
    FIN_AFTER_MORE,
    SHUT,
    N_WAYS
};

static const char *const waiting_targets[] = {"/nap", "/fan-out"};

START_TEST(client_that_leaves_ends_its_request)
{
    enum way_to_leave way = (enum way_to_leave)(_i % N_WAYS);
    int fd = client_open(site.port);
    struct seen seen;
    int64_t left_ns;

    client_request(fd, "GET", waiting_targets[_i / N_WAYS], NULL);
    wait_started();
    if (way == FIN_AFTER_MORE) {
        ck_assert(client_request(fd, "GET", "/hello", NULL)); /* Unread, and never to be. */
    }
    left_ns = cf_now_ns();
    if (way == RST) {
        client_reset(fd);
    } else if (way == SHUT) {
        ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
    } else {
        (void)close(fd);
    }
    seen = wait_done(1);
    ck_assert_int_lt(seen.at_ns - left_ns, bound(AT_ONCE_NS));
    ck_assert_int_eq(seen.status, 499);
    ck_assert_int_eq(seen.reason, CF_REASON_CLIENT_GONE);
    ck_assert_int_eq(seen.code, CF_ECANCELED);
    if (way == SHUT) {
        client_expect_end(fd);
        (void)close(fd);
    }
    wait_count(count_connections, 0);
    ck_assert_uint_eq(count_done(), 1);
}
END_TEST

START_TEST(client_that_leaves_is_seen_within_a_millisecond)
{
    int64_t took_ns[50];

    for (size_t i = 0; i < N(took_ns); i++) {
        int fd = client_open(site.port);
        int64_t left_ns;

        client_request(fd, "GET", "/nap", NULL);
        wait_started();
        left_ns = cf_now_ns();
        (void)close(fd);
        took_ns[i] = wait_done(i + 1).at_ns - left_ns;
    }
    ck_assert_int_lt(permille(took_ns, N(took_ns), 500), bound(5 * CF_MS));
    ck_assert_int_lt(took_ns[0], CF_MS); /* The best: they are sorted now. */
}
END_TEST

START_TEST(client_that_leaves_with_its_request_is_not_kept)
{
    size_t before = count_descriptors();

    for (int i = 0; i < 200; i++) {
        int fd = client_open(site.port);

        ck_assert(client_request(fd, "GET", i % 2 == 0 ? "/hello" : "/nap", NULL));
        if (i % 3 == 0) {
            client_reset(fd);
        } else {
            (void)close(fd);
        }
    }
    wait_count(count_connections, 0);
    wait_count(count_in_flight, 0);
    wait_count(count_descriptors, before);
}
END_TEST

START_TEST(client_that_leaves_in_mid_request_is_not_kept)
{
    static const char *const halves[] = {
        "G", "GET /hello HTTP/1.1\r\nHost:",
        "POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
        ("POST /hello HTTP/1.1\r\nHost: a\r\n"
         "Transfer-Encoding: chunked\r\n\r\n5\r\nab")};
    size_t before = count_descriptors();

    for (int i = 0; i < 200; i++) {
        int fd = client_open(site.port);

        ck_assert(client_send(fd, halves[i % N(halves)]));
        (void)close(fd);
    }
    /* Half of them had a head: those were requests, and given up. */
    ck_assert_int_eq(wait_done(100).status, 499);
    wait_count(count_connections, 0);
    wait_count(count_descriptors, before);
    ck_assert_uint_eq(count_done(), 100);
}
END_TEST

START_TEST(client_that_leaves_after_its_reply_is_no_failure)
{
    for (size_t i = 0; i < 100; i++) {
        struct reply *reply = client_get(site.port, "/nap?ms=0", NULL);

        ck_assert_int_eq(reply->status, 200);
        ck_assert_int_eq(wait_done(i + 1).status, 200);
    }
    wait_count(count_connections, 0);
}
END_TEST

START_TEST(client_that_leaves_in_mid_reply_is_not_kept)
{
    for (int i = 0; i < 20; i++) {
        int fd = client_open(site.port);

        char first[4096];

        client_request(fd, "GET", "/large?size=8000000", NULL);
        ck_assert(is_readable(fd, PATIENCE_NS / CF_MS));
        ck_assert_int_gt(recv(fd, first, sizeof(first), 0), 0);
        if (i % 2 == 0) {
            client_reset(fd);
        } else {
            (void)close(fd);
        }
    }
    wait_count(count_connections, 0);
    ck_assert_uint_eq(count_done(), 20);
}
END_TEST

static atomic_bool pipelining;

/* Ask and ask, and read the answers only to make room for more. */
static void *pipeline(void *arg)
{
    static const char request[] = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
    char burst[200 * (sizeof(request) - 1)];
    char answers[1 << 17];
    int fd = *(int *)arg;
    struct pollfd poller = {.fd = fd, .events = POLLIN | POLLOUT};
    size_t at = 0;

    for (size_t n = 0; n < sizeof(burst); n++) {
        burst[n] = request[n % (sizeof(request) - 1)];
    }
    while (atomic_load(&pipelining)) {
        ssize_t n;

        ck_assert_int_eq(poll(&poller, 1, (int)(PATIENCE_NS / CF_MS)), 1);
        n = send(fd, burst + at, sizeof(burst) - at, MSG_DONTWAIT | MSG_NOSIGNAL);
        at = n > 0 ? (at + (size_t)n) % sizeof(burst) : at;
        (void)recv(fd, answers, sizeof(answers), MSG_DONTWAIT);
    }
    (void)close(fd);
    return NULL;
}

/* libmicrohttpd is never quiet meanwhile. */
START_TEST(client_that_leaves_while_others_never_pause_is_not_kept)
{
    pthread_t threads[8];
    int fds[N(threads)];

    atomic_store(&pipelining, true);
    for (int i = 0; i < N(threads); i++) {
        fds[i] = client_open(site.port);
        ck_assert_int_eq(pthread_create(&threads[i], NULL, pipeline, &fds[i]), 0);
    }
    (void)wait_done(1000);
    for (int i = 0; i < 100; i++) {
        int fd = client_open(site.port);

        ck_assert(client_send(fd, "GET /hello HTTP/1.1\r\nHost:"));
        (void)close(fd);
    }
    wait_count(count_connections, N(threads));
    atomic_store(&pipelining, false);
    for (int i = 0; i < N(threads); i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    }
    wait_count(count_connections, 0);
}
END_TEST

/* half_close */

START_TEST(half_close_is_answered_where_it_is_allowed)
{
    static const char *const targets[] = {"/hello", "/nap?ms=0", "/nap?ms=30"};

    for (int i = 0; i < 30; i++) {
        int fd = client_open(site.port);
        struct reply *reply;

        client_request(fd, "GET", targets[i % N(targets)], NULL);
        ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
        reply = client_recv(fd, "GET");
        ck_assert_int_eq(reply->status, 200);
        client_expect_end(fd); /* Nothing more can come. */
        (void)close(fd);
    }
    wait_count(count_connections, 0);
}
END_TEST

START_TEST(half_close_of_a_pipeline_is_answered_where_it_is_allowed)
{
    int fd = client_open(site.port);

    ck_assert(client_send(
        fd, "GET /nap?ms=5 HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
            "GET /nap?ms=6 HTTP/1.1\r\nHost: a\r\n\r\n"));
    ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
    for (int i = 0; i < 3; i++) {
        struct reply *reply = client_recv(fd, "GET");

        ck_assert_int_eq(reply->status, 200);
    }
    client_expect_end(fd);
    (void)close(fd);
}
END_TEST

START_TEST(half_close_of_half_a_request_is_not_kept)
{
    for (int i = 0; i < 50; i++) {
        int fd = client_open(site.port);

        ck_assert(client_send(fd, "GET /hello HTTP/1.1\r\nHost:"));
        ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
        client_expect_end(fd);
        (void)close(fd);
    }
    wait_count(count_connections, 0);
}
END_TEST

START_TEST(half_close_allowed_a_reset_still_ends_the_request)
{
    int fd = client_open(site.port);

    client_request(fd, "GET", "/nap", NULL);
    wait_started();
    client_reset(fd);
    ck_assert_int_eq(wait_done(1).status, 499);
    wait_count(count_connections, 0);
}
END_TEST

/* A reset, or a byte out of band, makes libmicrohttpd drop a connection at its next look. It must
 * not have one while the handler, which works with the request's memory, runs. */
START_TEST(half_close_allowed_a_reset_while_the_handler_holds_the_loop)
{
    int older = client_open(site.port); /* Looked at in another way than those that follow. */

    client_request(older, "GET", "/hello", NULL);
    ck_assert_int_eq(client_recv(older, "GET")->status, 200);
    for (size_t i = 0; i < 10; i++) {
        int fd = client_open(site.port);

        client_request(fd, "GET", "/hold", NULL);
        wait_started();
        if (i % 2 == 0) {
            client_reset(fd);
        } else {
            ck_assert_int_eq(send(fd, "!", 1, MSG_OOB), 1);
        }
        ck_assert_int_eq(sem_post(&go), 0);
        ck_assert_int_eq(wait_done(i + 2).status, i % 2 == 0 ? 499 : 200);
        if (i % 2 != 0) {
            ck_assert_int_eq(client_recv(fd, "GET")->status, 200);
            (void)close(fd);
        }
    }
    (void)close(older);
    wait_count(count_connections, 0);
    wait_count(count_in_flight, 0);
    ck_assert_uint_eq(count_done(), 11);
}
END_TEST

/* Suite */

Suite *suite_http_leave(void)
{
    Suite *suite = suite_create("http_leave");
    TCase *tc = site_add_case(suite, "leaving", setup);

    tcase_add_loop_test(tc, client_that_leaves_ends_its_request, 0, N_WAYS * N(waiting_targets));
    tcase_add_test(tc, client_that_leaves_is_seen_within_a_millisecond);
    tcase_add_test(tc, client_that_leaves_with_its_request_is_not_kept);
    tcase_add_test(tc, client_that_leaves_in_mid_request_is_not_kept);
    tcase_add_test(tc, client_that_leaves_after_its_reply_is_no_failure);
    tcase_add_test(tc, client_that_leaves_in_mid_reply_is_not_kept);
    tcase_add_test(tc, client_that_leaves_while_others_never_pause_is_not_kept);

    tc = site_add_case(suite, "half_close", setup_half_close);
    tcase_add_test(tc, half_close_is_answered_where_it_is_allowed);
    tcase_add_test(tc, half_close_of_a_pipeline_is_answered_where_it_is_allowed);
    tcase_add_test(tc, half_close_of_half_a_request_is_not_kept);
    tcase_add_test(tc, half_close_allowed_a_reset_still_ends_the_request);
    tcase_add_test(tc, half_close_allowed_a_reset_while_the_handler_holds_the_loop);
    return suite;
}
