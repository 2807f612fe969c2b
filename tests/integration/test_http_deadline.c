/* SPDX-License-Identifier: MIT */
/* Requests that have a deadline, whoever set it: they end then, and not before. */
#include "http_fixture.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <curfew/wait.h>

/* Fixture */

/* A part of the work has a time limit of its own. */
static enum cf_code impatient(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct cf_ctx *part;
    enum cf_code code = cf_ctx_with_timeout(ctx, CF_MS, &part, err);

    (void)http;
    if (code == CF_OK) {
        code = cf_sleep(part, 60 * CF_SECOND, err);
        cf_ctx_free(part);
    }
    return code;
}

static const struct cf_http_route routes[] = {
    {"GET", "/hello", serve_hello},
    {"GET", "/nap", serve_nap},
    {"GET", "/nap/capped", serve_nap, .timeout_max_ns = 100 * CF_MS},
    {"GET", "/stubborn", serve_stubborn},
    {"GET", "/fan-out", serve_fan_out},
    {"GET", "/impatient", impatient},
};

static void setup_loops(void)
{
    site_setup_loops();
    site.options.routes = routes;
    site.options.n_routes = N(routes);
}

static void setup(void)
{
    setup_loops();
    site_start(2);
}

/* deadline */

static const struct {
    const char *target;
    const char *headers;
    int ms;
    const char *source;
} deadlines[] = {
    {"/nap", "Request-Timeout-Ms: 50\r\n", 50, "Request-Timeout-Ms"},
    {"/nap", "X-Request-Timeout-Ms: 50\r\n", 50, "X-Request-Timeout-Ms"},
    {"/nap", "grpc-timeout: 50m\r\n", 50, "grpc-timeout"},
    {"/nap", "connect-timeout-ms: 50\r\n", 50, "connect-timeout-ms"},
    {"/nap", "x-envoy-expected-rq-timeout-ms: 50\r\n", 50, "x-envoy-expected-rq-timeout-ms"},
    {"/nap", "Prefer: wait=1\r\n", 1000, "Prefer"},
    {"/nap?timeout=50ms", "", 50, "timeout"},
    {"/nap?timeout=0.05s", "", 50, "timeout"},
    {"/nap?timeout=70ms", "grpc-timeout: 60m\r\nRequest-Timeout-Ms: 80\r\n", 60, "grpc-timeout"},
    {"/nap", "X-Request-Timeout-Ms: +1\r\nRequest-Timeout-Ms: 50\r\n", 50, "Request-Timeout-Ms"},
    {"/nap/capped", "", 100, "default"},
    {"/nap/capped", "Request-Timeout-Ms: 60000\r\n", 100, "Request-Timeout-Ms"},
    {"/nap/capped?timeout=50ms", "", 50, "timeout"},
};

START_TEST(deadline_ends_the_request_in_time)
{
    int64_t before_ns = cf_now_ns();
    struct reply *reply = client_get(site.port, deadlines[_i].target, deadlines[_i].headers);
    int64_t took_ns = cf_now_ns() - before_ns;
    struct seen seen = wait_done(1);
    char ms[16];

    expect_problem(reply, 504, "deadline_exceeded");
    ck_assert_str_eq(reply_str(reply, "type"), "/problems/deadline-exceeded");
    ck_assert_str_eq(reply_str(reply, "phase"), "nap");
    ck_assert_int_eq(reply_i64(reply, "deadline_ms"), deadlines[_i].ms);
    ck_assert(json_real_value(reply_at(reply, "elapsed_ms")) >= (double)deadlines[_i].ms);
    ck_assert_int_ge(took_ns, deadlines[_i].ms * CF_MS); /* Never early, and not late. */
    ck_assert_int_lt(took_ns, deadlines[_i].ms * CF_MS + bound(AT_ONCE_NS));
    (void)snprintf(ms, sizeof(ms), "%d", deadlines[_i].ms);
    ck_assert_str_eq(reply_header(reply, "Request-Timeout-Ms"), ms);
    if (strcmp(deadlines[_i].source, "Prefer") == 0) {
        ck_assert_str_eq(reply_header(reply, "Preference-Applied"), "wait=1");
    }
    ck_assert_ptr_null(reply_header(reply, "Retry-After"));
    ck_assert_int_eq(seen.status, 504);
    ck_assert_int_eq(seen.reason, CF_REASON_DEADLINE);
    ck_assert_int_eq(seen.code, CF_EDEADLINE);
    ck_assert_str_eq(seen.timeout_source, deadlines[_i].source);
    ck_assert_int_eq(atomic_load(&site.caught), CF_REASON_DEADLINE);
}
END_TEST

START_TEST(deadline_is_never_early)
{
    int fd = client_open(site.port);

    for (int i = 0; i < 50; i++) {
        struct reply *reply;
        int64_t before_ns = cf_now_ns();

        client_request(fd, "GET", "/nap?timeout=7ms", NULL);
        reply = client_recv(fd, "GET");
        ck_assert_int_ge(cf_now_ns() - before_ns, 7 * CF_MS);
        ck_assert_int_eq(reply->status, 504);
    }
    (void)close(fd);
}
END_TEST

static const char *const zeroes[] = {"Request-Timeout-Ms: 0\r\n", "grpc-timeout: 0S\r\n",
                                     "Prefer: wait=0\r\n"};

START_TEST(deadline_of_zero_spares_the_handler)
{
    int fd = client_open(site.port);
    struct reply *reply;

    client_request(fd, "GET", "/hello", zeroes[_i]);
    reply = client_recv(fd, "GET");
    expect_problem(reply, 504, "deadline_exceeded");
    ck_assert_str_eq(reply_header(reply, "Request-Timeout-Ms"), "0");
    ck_assert_int_eq(atomic_load(&site.runs), 0);
    client_request(fd, "GET", "/hello", NULL); /* The connection goes on. */
    reply = client_recv(fd, "GET");
    ck_assert_int_eq(reply->status, 200);
    (void)close(fd);
}
END_TEST

START_TEST(deadline_makes_a_late_success_a_failure)
{
    struct reply *reply = client_get(site.port, "/stubborn?timeout=30ms", NULL);

    expect_problem(reply, 504, "deadline_exceeded");
    ck_assert_int_eq(wait_done(1).code, CF_OK);
}
END_TEST

START_TEST(deadline_of_a_part_is_504_too)
{
    struct reply *reply = client_get(site.port, "/impatient", NULL);

    expect_problem(reply, 504, "deadline_exceeded");
    ck_assert_int_eq(wait_done(1).reason, CF_REASON_NONE);
}
END_TEST

START_TEST(deadline_ends_all_tasks_of_a_group)
{
    struct reply *reply = client_get(site.port, "/fan-out?timeout=30ms", NULL);

    expect_problem(reply, 504, "deadline_exceeded");
    wait_count(count_in_flight, 0);
    ck_assert_uint_eq(cf_loop_fibers(site.loops[0]) + cf_loop_fibers(site.loops[1]), 0);
}
END_TEST

/* limits */

START_TEST(timeouts_of_the_server_hold)
{
    struct reply *reply;

    site.options.timeout_default_ns = 30 * CF_MS;
    site.options.timeout_max_ns = 50 * CF_MS;
    site_start(1);
    reply = client_get(site.port, "/nap", NULL);
    ck_assert_int_eq(reply->status, 504);
    ck_assert_str_eq(reply_header(reply, "Request-Timeout-Ms"), "30");
    reply = client_get(site.port, "/nap?timeout=1m", NULL);
    ck_assert_int_eq(reply->status, 504);
    ck_assert_str_eq(reply_header(reply, "Request-Timeout-Ms"), "50");
    reply = client_get(site.port, "/nap/capped", NULL); /* It cannot allow more than the server. */
    ck_assert_int_eq(reply->status, 504);
    ck_assert_str_eq(reply_header(reply, "Request-Timeout-Ms"), "50");
}
END_TEST

/* Suite */

Suite *suite_http_deadline(void)
{
    Suite *suite = suite_create("http_deadline");
    TCase *tc = site_add_case(suite, "deadline", setup);

    tcase_add_loop_test(tc, deadline_ends_the_request_in_time, 0, N(deadlines));
    tcase_add_test(tc, deadline_is_never_early);
    tcase_add_loop_test(tc, deadline_of_zero_spares_the_handler, 0, N(zeroes));
    tcase_add_test(tc, deadline_makes_a_late_success_a_failure);
    tcase_add_test(tc, deadline_of_a_part_is_504_too);
    tcase_add_test(tc, deadline_ends_all_tasks_of_a_group);

    tc = site_add_case(suite, "limits", setup_loops);
    tcase_add_test(tc, timeouts_of_the_server_hold);
    return suite;
}
