/* SPDX-License-Identifier: MIT */
/* PostgreSQL is absent, restarted, frozen: the service says so, keeps its deadlines, and recovers.
 *
 * On a cluster of the test's own, made once for the suite (unchecked fixture) and started by each
 * test. */
#include <check.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "client.h"
#include "cluster.h"
#include "pgview.h"
#include "service.h"

/* Attempts to connect are at most half a second apart. What is waited for has patience; under load
 * a return is judged, by what is left of that load. */
#define PATIENCE_NS (5 * CF_SECOND)
#define RECOVERY_NS (2 * CF_SECOND)

/* What a request may end behind its deadline, when nothing at all answers; and the last of them. */
#define LATE_NS (100 * CF_MS)
#define LATEST_NS CF_SECOND

/* Fixture */

static struct cluster cluster;

static void make_cluster(void)
{
    cluster_create(&cluster);
}

static void destroy_cluster(void)
{
    cluster_destroy(&cluster);
}

static void teardown(void)
{
    service_stop_all();
    client_free_all();
    if (cluster.pid != 0) {
        cluster_thaw(&cluster);
        cluster_stop(&cluster, SIGINT);
    }
}

/* Helpers */

static void expect_unavailable(struct reply *reply)
{
    ck_assert_msg(reply->status == 503, "%d, not 503: %s", reply->status, reply->body);
    ck_assert_str_eq(reply_header(reply, "Content-Type"), "application/problem+json");
    ck_assert_str_eq(reply_str(reply, "code"), "unavailable");
    ck_assert_ptr_nonnull(reply_header(reply, "Retry-After"));
    ck_assert_int_ge(atoi(reply_header(reply, "Retry-After")), 1);
    ck_assert_int_lt(reply->done_ns - reply->sent_ns, bound(CF_SECOND));
}

/* A loop that waits for what is frozen stalls for longer; a busy machine by itself for less. */
#define STALL_NS (50 * CF_MS)

/* How long both listeners took to say that they are alive. */
static int64_t ask_whether_alive(struct service *service)
{
    const uint16_t ports[] = {service->api_port, service->admin_port};
    int64_t took_ns = 0;

    for (size_t i = 0; i < 2; i++) {
        struct reply *reply = client_get(ports[i], "/livez", NULL);

        ck_assert_int_eq(reply->status, 200);
        took_ns += reply->done_ns - reply->sent_ns;
    }
    return took_ns;
}

static void expect_alive_at_once(struct service *service)
{
    int64_t took_ns = ask_whether_alive(service);

    ck_assert_msg(took_ns < bound(STALL_NS), "alive after %.1f ms", (double)took_ns / 1e6);
}

/* Until it is known why PostgreSQL is not to be had; the last reply is looked at. */
static void wait_reason(uint16_t port, const char *why)
{
    struct reply *reply;

    WAIT_FOR(strstr(reply_str(reply = client_get(port, "/readyz", NULL), "reason"), why) != NULL);
    ck_assert_int_eq(reply->status, 503);
    ck_assert_str_eq(reply_str(reply, "status"), "unavailable");
    ck_assert_ptr_nonnull(reply_header(reply, "Retry-After"));
}

/* Until a data route answers, and not only on one of the loops: twenty times in a row, each on a
 * connection of its own. Returns how long it took to the first of those. */
static int64_t wait_served(struct service *service, int64_t timeout_ns)
{
    int64_t since_ns = cf_now_ns();
    int64_t first_ns = since_ns;

    for (int n = 0; n < 20;) {
        struct reply *reply = client_get(service->api_port, "/v1/users/1?timeout=500ms", NULL);

        if (reply->status == 200) {
            n++;
            continue;
        }
        ck_assert_msg(cf_now_ns() - since_ns < bound(timeout_ns), "not served in time: %d %s",
                      reply->status, reply->body);
        pause_ms(5);
        first_ns = cf_now_ns();
        n = 0;
    }
    return first_ns - since_ns;
}

/* absent */

START_TEST(absent_at_start_is_said_and_recovered_from)
{
    struct service *service = service_start(cluster.url, NULL);
    const uint16_t ports[] = {service->api_port, service->admin_port};
    int64_t took_ns;

    for (size_t i = 0; i < 2; i++) {
        wait_reason(ports[i], "refused");
    }
    expect_unavailable(client_get(service->api_port, "/v1/users/1", NULL));
    expect_unavailable(client_get(service->api_port, "/v1/dashboard?user_id=1", NULL));
    expect_unavailable(client_get(service->api_port, "/v1/dashboard", NULL));
    expect_unavailable(client_get(service->api_port, "/v1/metrics", NULL));
    expect_unavailable(client_get(service->api_port, "/v1/orders?user_id=1", NULL));
    expect_unavailable(client_get(service->api_port, "/v1/sleep?seconds=1", NULL));
    expect_alive_at_once(service);
    ck_assert_int_eq(client_get(service->api_port, "/v1/users/x", NULL)->status, 400);
    ck_assert_int_eq(client_get(service->api_port, "/nowhere", NULL)->status, 404);

    cluster_start(&cluster);
    took_ns = wait_served(service, PATIENCE_NS);
    (void)fprintf(stderr, "  e2e   PostgreSQL came: served after %.0f ms\n", (double)took_ns / 1e6);
    ck_assert_int_eq(client_get(service->api_port, "/readyz", NULL)->status, 200);
    ck_assert_int_eq(client_get(service->api_port, "/v1/dashboard?user_id=1", NULL)->status, 200);
}
END_TEST

START_TEST(wrong_database_is_said)
{
    struct service *service;
    char url[300];

    cluster_start(&cluster);
    (void)snprintf(url, sizeof(url), "%s", cluster.url);
    strcpy(strrchr(url, '/'), "/nowhere");
    service = service_start(url, NULL);
    wait_reason(service->api_port, "nowhere");
    expect_unavailable(client_get(service->api_port, "/v1/users/1", NULL));
}
END_TEST

/* The password is in the URL: it must not be in a log or a reply. */
START_TEST(password_is_never_said)
{
    struct service *service;
    struct reply *reply;
    char url[300];
    json_t *line;
    char *text;

    cluster_start(&cluster);
    (void)snprintf(url, sizeof(url), "postgresql://curfew:hunter2secret@127.0.0.1:%d/postgres",
                   cluster.port);
    service = service_start(url, NULL);
    wait_reason(service->api_port, "password");
    reply = client_get(service->api_port, "/readyz", NULL);
    ck_assert_ptr_null(strstr(reply->body, "hunter2secret"));
    reply = client_get(service->api_port, "/v1/users/1", NULL);
    ck_assert_ptr_null(strstr(reply->body, "hunter2secret"));
    line = service_find_line(service, "event", "connect_failed", CLIENT_WAIT_NS);
    ck_assert_ptr_nonnull(line);
    text = json_dumps(line, 0);
    ck_assert_ptr_null(strstr(text, "hunter2secret"));
    free(text);
    json_decref(line);
}
END_TEST

/* restarted */

#define LOAD_PER_SECOND 200
#define LOAD_SECONDS 7
#define LOAD (LOAD_PER_SECOND * LOAD_SECONDS)
#define LOAD_TIMEOUT_NS CF_SECOND

static struct shot shots[LOAD];
static int64_t took_ns[LOAD];

static const struct {
    const char *name;
    int number;
} stops[] = {{"fast", SIGINT}, {"immediate", SIGQUIT}};

START_TEST(restarted_under_load_errs_only_while_down)
{
    static const char *const targets[] = {"/v1/users/1?timeout=1s",
                                          "/v1/dashboard?user_id=2&timeout=1s",
                                          "/v1/sleep?seconds=0.01&timeout=1s", "/livez"};
    struct volley volley = {.shots = shots, .n_shots = LOAD};
    struct service *service;
    int64_t down_ns;
    int64_t up_ns;
    int64_t last_bad_ns = 0;
    int64_t p98_ns;
    size_t n_bad = 0;

    cluster_start(&cluster);
    service = service_start_ready(cluster.url, (const char *[]){"CURFEW_POOL=8", NULL});
    (void)wait_served(service, PATIENCE_NS);
    for (size_t i = 0; i < LOAD; i++) {
        shots[i] = (struct shot){.at_ns = (int64_t)i * CF_SECOND / LOAD_PER_SECOND,
                                 .target = targets[i % 4]};
    }
    volley.port = service->api_port;
    volley_start(&volley);
    pause_ms(1000);
    down_ns = cf_now_ns();
    cluster_stop(&cluster, stops[_i].number);
    pause_ms(2500); /* The waits between attempts grow to their longest. */
    cluster_start(&cluster);
    up_ns = cf_now_ns();
    volley_wait(&volley);

    ck_assert(service_runs(service));
    for (size_t i = 0; i < LOAD; i++) {
        const struct shot *shot = &shots[i];

        ck_assert_msg(shot->status == 200 || shot->status == 503 || shot->status == 504,
                      "request %zu (%s): %d %s %s", i, shot->target, shot->status,
                      strerror(shot->sys), shot->text);
        took_ns[i] = shot->done_ns - shot->sent_ns;
        if (shot->status == 200) {
            continue;
        }
        ck_assert_msg(strcmp(shot->target, "/livez") != 0, "/livez: %d", shot->status);
        ck_assert_msg(shot->done_ns >= down_ns, "request %zu failed before: %s", i, shot->text);
        n_bad++;
        last_bad_ns = shot->sent_ns > last_bad_ns ? shot->sent_ns : last_bad_ns;
    }
    p98_ns = permille(took_ns, LOAD, 980);
    (void)fprintf(stderr,
                  "  e2e   restart (%s) under load: down for %.0f ms, %zu of %d failed,"
                  " the last one begun %.0f ms behind the return; p98 %.0f, max %.0f ms\n",
                  stops[_i].name, (double)(up_ns - down_ns) / 1e6, n_bad, LOAD,
                  (double)(last_bad_ns - up_ns) / 1e6, (double)p98_ns / 1e6,
                  (double)took_ns[LOAD - 1] / 1e6);
    ck_assert_uint_gt(n_bad, 0);
    ck_assert_int_le(p98_ns, LOAD_TIMEOUT_NS + bound(LATE_NS));
    ck_assert_int_le(took_ns[LOAD - 1], LOAD_TIMEOUT_NS + bound(LATEST_NS));
    ck_assert_int_le(last_bad_ns - up_ns, bound(RECOVERY_NS));
    (void)wait_served(service, PATIENCE_NS);
}
END_TEST

START_TEST(connections_lost_while_idle_cost_no_request)
{
    struct service *service;

    cluster_start(&cluster);
    service = service_start_ready(cluster.url, (const char *[]){"CURFEW_POOL=4", NULL});
    (void)wait_served(service, PATIENCE_NS);
    cluster_stop(&cluster, SIGINT);
    cluster_start(&cluster);
    (void)wait_served(service, PATIENCE_NS);
    for (int i = 0; i < 50; i++) {
        ck_assert_int_eq(client_get(service->api_port, "/v1/dashboard?user_id=1", NULL)->status,
                         200);
    }
}
END_TEST

/* frozen */

#define FROZEN_MS 2000
#define FROZEN_TIMEOUT_NS (300 * CF_MS)
#define FROZEN_LOAD 200
#define ASKED_MAX 200

START_TEST(frozen_server_delays_no_deadline)
{
    bool all = _i == 1;
    struct volley volley = {.shots = shots, .n_shots = FROZEN_LOAD};
    struct service *service;
    int64_t alive_ns[ASKED_MAX];
    int64_t p90_ns;
    int64_t p98_ns;
    int64_t until_ns;
    size_t n_asked = 0;
    size_t n_late = 0;

    cluster_start(&cluster);
    service = service_start_ready(cluster.url, (const char *[]){"CURFEW_POOL=4", NULL});
    (void)wait_served(service, PATIENCE_NS);
    for (size_t i = 0; i < FROZEN_LOAD; i++) {
        shots[i] = (struct shot){
            .at_ns = (int64_t)i * FROZEN_MS * CF_MS / FROZEN_LOAD,
            .target = i % 2 == 0 ? "/v1/sleep?seconds=5&timeout=300ms"
                                 : "/v1/dashboard?user_id=1&timeout=300ms",
        };
    }
    volley.port = service->api_port;
    cluster_freeze(&cluster, all);
    volley_start(&volley);
    until_ns = cf_now_ns() + (FROZEN_MS + 300) * CF_MS;
    while (cf_now_ns() < until_ns && n_asked < ASKED_MAX) {
        alive_ns[n_asked++] = ask_whether_alive(service);
        pause_ms(20);
    }
    p90_ns = permille(alive_ns, n_asked, 900);
    ck_assert_msg(p90_ns < bound(10 * CF_MS), "alive after %.1f ms", (double)p90_ns / 1e6);
    p98_ns = permille(alive_ns, n_asked, 980);
    ck_assert_msg(p98_ns < bound(STALL_NS), "alive after %.1f ms", (double)p98_ns / 1e6);
    ck_assert_int_lt(alive_ns[n_asked - 1], bound(LATEST_NS));
    volley_wait(&volley);
    for (size_t i = 0; i < FROZEN_LOAD; i++) {
        const struct shot *shot = &shots[i];

        took_ns[i] = shot->done_ns - shot->sent_ns;
        ck_assert_msg(shot->status == 504 || shot->status == 503 || (shot->status == 200 && !all),
                      "request %zu (%s): %d %s %s", i, shot->target, shot->status,
                      strerror(shot->sys), shot->text);
        ck_assert(shot->status != 504 || took_ns[i] >= FROZEN_TIMEOUT_NS);
        n_late += shot->status == 504;
    }
    p90_ns = permille(took_ns, FROZEN_LOAD, 900);
    ck_assert_msg(p90_ns <= FROZEN_TIMEOUT_NS + bound(LATE_NS), "p90 of %.0f ms",
                  (double)p90_ns / 1e6);
    ck_assert_int_le(took_ns[FROZEN_LOAD - 1], FROZEN_TIMEOUT_NS + bound(LATEST_NS));
    cluster_thaw(&cluster);
    (void)fprintf(stderr,
                  "  e2e   %s frozen: %zu of %d ended by their deadline of 300 ms, the slowest"
                  " after %.0f; thawed, served after %.0f ms\n",
                  all ? "whole server" : "postmaster", n_late, FROZEN_LOAD,
                  (double)took_ns[FROZEN_LOAD - 1] / 1e6,
                  (double)wait_served(service, 6 * CF_SECOND) / 1e6);
    ck_assert_uint_gt(n_late, 0);
}
END_TEST

/* The kernel accepts for the frozen postmaster, and then nobody answers. */
START_TEST(frozen_at_start_is_said_and_recovered_from)
{
    struct service *service;
    struct reply *reply;

    cluster_start(&cluster);
    cluster_freeze(&cluster, false);
    service = service_start(cluster.url, NULL);
    reply = client_get(service->api_port, "/readyz", NULL);
    ck_assert_int_eq(reply->status, 503);
    ck_assert_str_ne(reply_str(reply, "reason"), "");
    expect_alive_at_once(service);
    reply = client_get(service->api_port, "/v1/users/1?timeout=300ms", NULL);
    ck_assert_msg(reply->status == 503 || reply->status == 504, "%d %s", reply->status,
                  reply->body);
    ck_assert_int_le(reply->done_ns - reply->sent_ns, bound(FROZEN_TIMEOUT_NS + LATE_NS));
    expect_alive_at_once(service);
    cluster_thaw(&cluster);
    (void)wait_served(service, 6 * CF_SECOND);
}
END_TEST

/* Both fences have their time (2 s), and nobody is asked to wait longer than for them. */
START_TEST(frozen_server_does_not_hold_the_stop)
{
    struct service *service;
    int64_t stopped_ns;
    PGconn *pg;
    int fd;

    cluster_start(&cluster);
    pg = pgview_open(cluster.url);
    service = service_start_ready(cluster.url, NULL);
    fd = client_open(service->api_port);
    client_request(fd, "GET", "/v1/sleep?seconds=30&timeout=40s", NULL);
    WAIT_FOR(pgview_active(pg, "pg_sleep") == 1);
    PQfinish(pg);
    cluster_freeze(&cluster, true);
    stopped_ns = cf_now_ns();
    service_signal(service, SIGTERM);
    ck_assert_int_eq(client_recv(fd, "GET")->status, 503);
    ck_assert_int_eq(service_wait(service, 5 * CF_SECOND), 0);
    ck_assert_int_le(cf_now_ns() - stopped_ns, bound(200 * CF_MS + CF_SECOND));
    (void)close(fd);
}
END_TEST

Suite *suite_postgres_away(void)
{
    Suite *suite = suite_create("postgres_away");
    TCase *absent = tcase_create("absent");
    TCase *restarted = tcase_create("restarted");
    TCase *frozen = tcase_create("frozen");

    tcase_add_unchecked_fixture(absent, make_cluster, destroy_cluster);
    tcase_add_checked_fixture(absent, NULL, teardown);
    tcase_add_test(absent, absent_at_start_is_said_and_recovered_from);
    tcase_add_test(absent, wrong_database_is_said);
    tcase_add_test(absent, password_is_never_said);
    tcase_set_timeout(absent, 40);
    suite_add_tcase(suite, absent);

    tcase_add_unchecked_fixture(restarted, make_cluster, destroy_cluster);
    tcase_add_checked_fixture(restarted, NULL, teardown);
    tcase_add_loop_test(restarted, restarted_under_load_errs_only_while_down, 0, 2);
    tcase_add_test(restarted, connections_lost_while_idle_cost_no_request);
    tcase_set_timeout(restarted, 60);
    suite_add_tcase(suite, restarted);

    tcase_add_unchecked_fixture(frozen, make_cluster, destroy_cluster);
    tcase_add_checked_fixture(frozen, NULL, teardown);
    tcase_add_loop_test(frozen, frozen_server_delays_no_deadline, 0, 2);
    tcase_add_test(frozen, frozen_at_start_is_said_and_recovered_from);
    tcase_add_test(frozen, frozen_server_does_not_hold_the_stop);
    tcase_set_timeout(frozen, 60);
    suite_add_tcase(suite, frozen);
    return suite;
}
