/* SPDX-License-Identifier: MIT */
/* The end of the HTTP server: what is under way gets its grace, and nobody waits for the rest. */
#include "http_fixture.h"
#include "witness.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

/* Helpers */

struct stopping {
    pthread_t thread;
    int64_t grace_ns;
    int64_t took_ns;
};

static void *run_stop(void *arg)
{
    struct stopping *stopping = arg;
    int64_t before_ns = cf_now_ns();

    cf_http_server_stop(site.server, stopping->grace_ns);
    stopping->took_ns = cf_now_ns() - before_ns;
    return NULL;
}

static void begin_stop(struct stopping *stopping, int64_t grace_ns)
{
    stopping->grace_ns = grace_ns;
    ck_assert_int_eq(pthread_create(&stopping->thread, NULL, run_stop, stopping), 0);
}

static void end_stop(struct stopping *stopping)
{
    ck_assert_int_eq(pthread_join(stopping->thread, NULL), 0);
}

/* Look until nobody listens any more. At the instant of closing nobody answers, for a second. */
static void wait_refused(void)
{
    int64_t since_ns = cf_now_ns();
    int fd;

    while ((fd = client_try_open_for(site.port, 5 * CF_MS)) >= 0 || fd == -ETIMEDOUT) {
        ck_assert_msg(cf_now_ns() - since_ns < bound(PATIENCE_NS), "still listening");
        if (fd >= 0) {
            (void)close(fd);
            pause_ms(1);
        }
    }
    ck_assert_int_eq(fd, -ECONNREFUSED);
}

/* stop */

START_TEST(stop_lets_requests_finish)
{
    int fd = client_open(site.port);
    struct stopping stopping;
    struct reply *reply;

    client_request(fd, "GET", "/nap?ms=300", NULL);
    wait_started();
    begin_stop(&stopping, 10 * CF_SECOND);
    wait_refused();
    reply = client_recv(fd, "GET");
    ck_assert_int_eq(reply->status, 200);
    ck_assert_str_eq(reply_header(reply, "Connection"), "close");
    client_expect_end(fd);
    end_stop(&stopping);
    ck_assert_int_lt(stopping.took_ns, bound(5 * CF_SECOND)); /* The grace is not used up. */
    (void)close(fd);
}
END_TEST

START_TEST(stop_cuts_what_passes_the_grace)
{
    int fds[50];
    struct stopping stopping;

    for (int i = 0; i < N(fds); i++) {
        fds[i] = client_open(site.port);
        client_request(fds[i], "GET", i % 2 == 0 ? "/nap?timeout=60s" : "/fan-out?timeout=60s",
                       NULL);
        wait_started();
    }
    begin_stop(&stopping, 200 * CF_MS);
    for (int i = 0; i < N(fds); i++) {
        struct reply *reply = client_recv(fds[i], "GET");

        expect_problem(reply, 503, "shutting_down");
        ck_assert_str_eq(reply_header(reply, "Connection"), "close");
        ck_assert_str_eq(reply_header(reply, "Retry-After"), "1");
        client_expect_end(fds[i]);
        (void)close(fds[i]);
    }
    end_stop(&stopping);
    ck_assert_int_ge(stopping.took_ns, 200 * CF_MS);
    ck_assert_int_lt(stopping.took_ns, 200 * CF_MS + bound(AT_ONCE_NS));
    ck_assert_uint_eq(count_done(), N(fds));
    ck_assert_int_eq(wait_done(1).reason, CF_REASON_SHUTDOWN);
}
END_TEST

START_TEST(stop_sends_a_success_that_came_after_the_cut)
{
    int fd = client_open(site.port);
    struct stopping stopping;
    struct reply *reply;

    client_request(fd, "GET", "/stubborn?timeout=60s", NULL);
    wait_started();
    begin_stop(&stopping, 0);
    reply = client_recv(fd, "GET");
    ck_assert_int_eq(reply->status, 200);
    ck_assert_str_eq(reply->body, "done all the same");
    end_stop(&stopping);
    (void)close(fd);
}
END_TEST

START_TEST(stop_can_be_hurried)
{
    int fd = client_open(site.port);
    struct stopping stopping;
    struct reply *reply;

    client_request(fd, "GET", "/nap?timeout=60s", NULL);
    wait_started();
    begin_stop(&stopping, 60 * CF_SECOND);
    wait_refused();
    cf_http_server_hurry(site.server);
    reply = client_recv(fd, "GET");
    expect_problem(reply, 503, "shutting_down");
    end_stop(&stopping);
    ck_assert_int_lt(stopping.took_ns, bound(10 * CF_SECOND));
    (void)close(fd);
}
END_TEST

START_TEST(stop_closes_idle_connections_at_once)
{
    int served = client_open(site.port);
    int fresh = client_open(site.port);
    int half = client_open(site.port);
    int64_t grace_ns = bound_strictly(800 * CF_MS);
    struct stopping stopping;
    int64_t begun_ns;

    client_request(served, "GET", "/hello", NULL);
    ck_assert_int_eq(client_recv(served, "GET")->status, 200);
    ck_assert(client_send(half, "GET /hello HTTP/1.1\r\n"));
    wait_count(count_connections, 3);
    begun_ns = cf_now_ns();
    begin_stop(&stopping, grace_ns);
    client_expect_end(served);
    client_expect_end(fresh);
    ck_assert_int_lt(cf_now_ns() - begun_ns, grace_ns + witness_stalled_ns());
    client_expect_end(half); /* At the end of the grace. */
    end_stop(&stopping);
    ck_assert_int_ge(stopping.took_ns, grace_ns);
    ck_assert_int_lt(stopping.took_ns, grace_ns + bound(AT_ONCE_NS));
    (void)close(served);
    (void)close(fresh);
    (void)close(half);
}
END_TEST

#define ANSWERED_NS (250 * CF_MS) /* How long one is that: CF__PATIENCE_NS. */

/* Stop between a client's two requests. Is the second served, too? It is if it comes in time. */
static bool is_served_once_more(void)
{
    int64_t since_ns = cf_now_ns();
    int fd = client_open(site.port);
    struct stopping stopping;
    int64_t answered_ns;
    int status;

    client_request(fd, "GET", "/hello", NULL);
    ck_assert_int_eq(client_recv(fd, "GET")->status, 200);
    begin_stop(&stopping, 10 * CF_SECOND);
    wait_refused();
    client_request(fd, "GET", "/hello", NULL);
    status = client_recv(fd, "GET")->status;
    answered_ns = cf_now_ns();
    ck_assert_msg(status == 200 || answered_ns - since_ns >= ANSWERED_NS, "%d", status);
    client_expect_end(fd);
    end_stop(&stopping);
    ck_assert_int_lt(cf_now_ns() - answered_ns, bound(AT_ONCE_NS));
    (void)close(fd);
    return status == 200;
}

/* Its next request may be on its way when the stop begins. */
START_TEST(stop_serves_once_more_who_was_just_answered)
{
    while (!is_served_once_more()) {
        site_stop();
        site_start(2);
    }
}
END_TEST

START_TEST(stop_serves_what_the_kernel_has_accepted)
{
    int fds[100];
    struct stopping stopping;

    for (int i = 0; i < N(fds); i++) {
        fds[i] = client_open(site.port);
        client_request(fds[i], "GET", "/hello", NULL);
    }
    begin_stop(&stopping, 10 * CF_SECOND);
    for (int i = 0; i < N(fds); i++) {
        struct reply *reply = client_recv(fds[i], "GET");

        ck_assert_int_eq(reply->status, 200);
        (void)close(fds[i]);
    }
    end_stop(&stopping);
}
END_TEST

#define FLUSH_NS (500 * CF_MS) /* What a client is given for its last reply: see shard.c. */

START_TEST(stop_does_not_wait_for_a_client_that_does_not_read)
{
    int fd = client_open(site.port);
    struct stopping stopping;

    client_request(fd, "GET", "/large?size=50000000", NULL);
    ck_assert_int_eq(wait_done(1).status, 200);
    begin_stop(&stopping, 0);
    end_stop(&stopping);
    ck_assert_int_lt(stopping.took_ns, FLUSH_NS + bound(AT_ONCE_NS));
    (void)close(fd);
}
END_TEST

/* Clients that ask in a loop while the server is stopped under them: refused, or answered. */
static void *ask_until_refused(void *arg)
{
    int64_t over_ns = cf_now_ns() + PATIENCE_NS;
    int fd;

    (void)arg;
    while ((fd = client_try_open(site.port)) >= 0 && cf_now_ns() < over_ns) {
        int64_t opened_ns = cf_now_ns();
        struct reply *reply;

        client_request(fd, "GET", "/hello", "Connection: close\r\n");
        reply = client_recv(fd, "GET");
        ck_assert_msg(reply->status == 200, "%d, %.1f ms after it was connected", reply->status,
                      (double)(cf_now_ns() - opened_ns) / CF_MS);
        (void)close(fd);
    }
    return NULL;
}

#define STOPS 40

/* Also who connects while the sockets close, one after the other. */
START_TEST(stop_under_load_fails_nobody_who_was_connected)
{
    pthread_t threads[8];

    for (int round = 0; round < STOPS; round++) {
        if (round > 0) {
            site_teardown();
            site_setup();
        }
        for (int i = 0; i < N(threads); i++) {
            ck_assert_int_eq(pthread_create(&threads[i], NULL, ask_until_refused, NULL), 0);
        }
        (void)wait_done(50);
        cf_http_server_stop(site.server, 10 * CF_SECOND);
        for (int i = 0; i < N(threads); i++) {
            ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
        }
    }
}
END_TEST

/* Suite */

Suite *suite_http_stop(void)
{
    Suite *suite = suite_create("http_stop");
    TCase *tc = site_add_case(suite, "stop", site_setup);

    tcase_add_test(tc, stop_lets_requests_finish);
    tcase_add_test(tc, stop_cuts_what_passes_the_grace);
    tcase_add_test(tc, stop_sends_a_success_that_came_after_the_cut);
    tcase_add_test(tc, stop_can_be_hurried);
    tcase_add_test(tc, stop_closes_idle_connections_at_once);
    tcase_add_test(tc, stop_serves_once_more_who_was_just_answered);
    tcase_add_test(tc, stop_serves_what_the_kernel_has_accepted);
    tcase_add_test(tc, stop_does_not_wait_for_a_client_that_does_not_read);
    tcase_add_test(tc, stop_under_load_fails_nobody_who_was_connected);
    return suite;
}
