/* SPDX-License-Identifier: MIT */
/* The dashboard behind its cache: how often the database is asked, what is served when it is away
 * or late, and what a client is told of it.
 *
 * In a schema of the test's own, whose orders are a view that counts the queries that read it: two
 * of a dashboard's three sections do. */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "client.h"
#include "cluster.h"
#include "pgview.h"
#include "service.h"

#define SCHEMA "e2e_cache"
#define TARGET "/v1/dashboard?user_id=1"
#define ON_ORDERS "FROM orders"
#define SECTIONS_ON_ORDERS 2
#define CROWD 1000

/* Fixture */

static struct service *service;
static char url[512];
static PGconn *pg;
static PGconn *locker;

static void start_with(const char *ttl)
{
    service = service_start_ready(url, (const char *[]){ttl, NULL});
    if (strcmp(ttl, "CURFEW_CACHE_TTL=0") != 0) {
        service_wait_listening(service, 1);
    }
}

static void setup(void)
{
    pgview_make_schema(SCHEMA, url, sizeof(url));
    pg = pgview_open(url);
    locker = pgview_open(url);
    pgview_exec(pg, "insert into users (email, name) values ('a@example.org', 'A');"
                    "insert into orders (user_id, status, total_cents) values (1, 'paid', 5);"
                    "create sequence loads;"
                    "alter table orders rename to stored;"
                    "create view orders as select stored.* from stored,"
                    " (select nextval('loads') as n offset 0) as counted");
}

static void teardown(void)
{
    PQfinish(locker);
    service_stop_all();
    client_free_all();
    PQfinish(pg);
    pgview_drop_schema(SCHEMA);
}

/* Helpers */

/* Dashboards that were loaded since the last call. */
static int64_t loads(void)
{
    static int64_t before;
    int64_t now =
        pgview_i64(pg, "select case when is_called then last_value else 0 end from loads", NULL);
    int64_t n = now - before;

    before = now;
    return (n + SECTIONS_ON_ORDERS - 1) / SECTIONS_ON_ORDERS; /* One may be on its way. */
}

static void lock_orders(void)
{
    pgview_exec(locker, "begin; lock table stored in access exclusive mode");
}

static struct reply *get(const char *headers)
{
    return client_get(service->api_port, TARGET, headers);
}

static void expect_status(struct reply *reply, const char *cache_status)
{
    const char *value = reply_header(reply, "Cache-Status");

    ck_assert_msg(reply->status == 200, "%d: %s", reply->status, reply->body);
    ck_assert_ptr_nonnull(value);
    ck_assert_msg(strncmp(value, cache_status, strlen(cache_status)) == 0, "%s, not %s", value,
                  cache_status);
}

static void expect_state(struct reply *reply, const char *path, const char *state)
{
    ck_assert_msg(strcmp(reply_str(reply, path), state) == 0, "%s: %s", path, reply->body);
}

/* hit */

START_TEST(hot_dashboard_is_loaded_once_a_ttl)
{
    static char wanted[] = "{\"user\":{\"id\":1,";
    int64_t since_ns;
    int64_t n;
    int64_t replies = 0;

    start_with("CURFEW_CACHE_TTL=150ms");
    expect_status(get(NULL), "curfewd; fwd=uri-miss; stored");
    ck_assert_int_eq(loads(), 1);
    since_ns = cf_now_ns();
    while (cf_now_ns() - since_ns < CF_SECOND) {
        struct reply *reply = get(NULL);

        expect_status(reply, "curfewd; hit; ttl=");
        ck_assert_int_eq(strncmp(reply->body, wanted, sizeof(wanted) - 1), 0);
        replies++;
    }
    n = loads();
    /* A dashboard is fresh for 135 ms at least, and is loaded when somebody asks after that. */
    ck_assert_int_le(n, (cf_now_ns() - since_ns) / (135 * CF_MS) + 1);
    ck_assert_int_ge(n, 1);
    ck_assert_int_gt(replies, n);
}
END_TEST

START_TEST(hit_is_told_with_its_age_and_validator)
{
    struct reply *first;
    struct reply *second;
    struct reply *third;
    char header[160];

    start_with("CURFEW_CACHE_TTL=1m");
    first = get(NULL);
    second = get(NULL);
    expect_status(first, "curfewd; fwd=uri-miss; stored");
    expect_status(second, "curfewd; hit; ttl=");
    ck_assert_int_gt(atoi(strstr(reply_header(second, "Cache-Status"), "ttl=") + 4), 0);
    ck_assert_str_eq(second->body, first->body);
    ck_assert_ptr_null(reply_header(first, "Age"));
    ck_assert_int_ge(atoi(reply_header(second, "Age")), 0);
    ck_assert_str_eq(reply_header(second, "Cache-Control"),
                     "private, max-age=60, stale-while-revalidate=10, stale-if-error=60");
    ck_assert_ptr_nonnull(
        strstr(reply_header(first, "Server-Timing"), "cache;desc=miss, users;dur="));
    ck_assert_ptr_nonnull(strstr(reply_header(second, "Server-Timing"), "cache;desc=hit, total;"));

    (void)snprintf(header, sizeof(header), "If-None-Match: \"a,b\", W/%s\r\n",
                   reply_header(first, "ETag"));
    third = get(header);
    ck_assert_int_eq(third->status, 304);
    ck_assert_str_eq(third->body, "");
    ck_assert_str_eq(reply_header(third, "ETag"), reply_header(first, "ETag"));
    ck_assert_ptr_nonnull(reply_header(third, "Cache-Control"));
    ck_assert_ptr_nonnull(reply_header(third, "Cache-Status"));
    ck_assert_int_eq(get("If-None-Match: *\r\n")->status, 304);
    ck_assert_int_eq(get("If-None-Match: \"other\", broken\r\n")->status, 200);
    ck_assert_int_eq(loads(), 1);
}
END_TEST

static const struct {
    const char *header;
    bool loads;
} directives[] = {
    {"Cache-Control: no-cache\r\n", true},      {"Cache-Control: max-stale, No-Cache\r\n", true},
    {"Cache-Control: no-store\r\n", true},      {"Cache-Control: max-age=0\r\n", true},
    {"Cache-Control: max-age=3600\r\n", false}, {"Cache-Control: max-age=x\r\n", false},
    {"Cache-Control: no-cached\r\n", false},
};

START_TEST(client_that_wants_it_new_gets_it_new)
{
    struct reply *reply;

    start_with("CURFEW_CACHE_TTL=1m");
    (void)get(NULL);
    (void)loads();
    reply = get(directives[_i].header);
    expect_status(reply, directives[_i].loads ? "curfewd; fwd=request; stored" : "curfewd; hit");
    ck_assert_int_eq(loads(), directives[_i].loads);
    expect_status(get(NULL), "curfewd; hit");
}
END_TEST

/* However it is written, it is the same dashboard, and another's is never its answer. */
START_TEST(key_is_what_is_asked_for_and_not_how)
{
    static const char *const same[] = {
        "/v1/dashboard?user_id=01",          "/v1/dashboard?user_id=%31",
        "/v1/dashboard?x=2&user_id=1",       "/v1/dashboard?user_id=1&require=all",
        "/v1/dashboard?user_id=1&user=2",    "/v1/%64ashboard?user_id=1",
        "/v1/dashboard?user_id=1&user_id=2",
    };
    static const char *const others[] = {"/v1/Dashboard?user_id=1", "/V1/DASHBOARD?user_id=1",
                                         "/v1%2fdashboard?user_id=1", "/v1/dashboard/?user_id=1",
                                         "/v1/dashboard%3fuser_id=1"};
    static const char *const wrong[] = {"/v1/dashboard?user_id=x1", "/v1/dashboard?user_id=1%2f2",
                                        "/v1/dashboard?user_id=1%002"};
    struct reply *first;

    start_with("CURFEW_CACHE_TTL=1m");
    first = client_call(service->api_port, "HEAD", TARGET, "X-Forwarded-Host: other.example\r\n");
    ck_assert_int_eq(first->status, 200);
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
        struct reply *reply = client_get(service->api_port, same[i], NULL);

        expect_status(reply, "curfewd; hit");
        ck_assert_str_eq(reply_header(reply, "ETag"), reply_header(first, "ETag"));
        ck_assert_int_eq(reply_i64(reply, "user.id"), 1);
    }
    ck_assert_int_eq(loads(), 1);
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        ck_assert_int_eq(client_get(service->api_port, others[i], NULL)->status, 404);
    }
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        ck_assert_msg(client_get(service->api_port, wrong[i], NULL)->status == 400, "%s", wrong[i]);
    }
    ck_assert_ptr_nonnull(
        json_object_get(client_get(service->api_port, "/v1/dashboard", NULL)->json, "users"));
    expect_status(get(NULL), "curfewd; hit");
}
END_TEST

/* What there is not is an answer that is kept, and told as such. */
START_TEST(missing_user_is_told_to_be_known)
{
    static const char *const want[] = {"curfewd; fwd=uri-miss", "curfewd; hit"};

    start_with("CURFEW_CACHE_TTL=1m");
    for (size_t i = 0; i < 2; i++) {
        struct reply *reply = client_get(service->api_port, "/v1/dashboard?user_id=2", NULL);

        ck_assert_int_eq(reply->status, 404);
        ck_assert_str_eq(reply_header(reply, "Cache-Status"), want[i]);
    }
}
END_TEST

/* only-if-cached (RFC 9111 5.2.1.7). */
START_TEST(client_that_wants_what_is_stored_only_makes_no_load)
{
    struct reply *reply;

    start_with("CURFEW_CACHE_TTL=1m");
    (void)loads();
    reply = get("Cache-Control: only-if-cached\r\n");
    ck_assert_int_eq(reply->status, 504);
    ck_assert_str_eq(reply_str(reply, "code"), "not_cached");
    ck_assert_int_eq(loads(), 0);
    expect_status(get(NULL), "curfewd; fwd=uri-miss; stored");
    ck_assert_int_eq(loads(), 1);
    expect_status(get("Cache-Control: max-age=60, Only-If-Cached\r\n"), "curfewd; hit");
    ck_assert_int_eq(get("Cache-Control: only-if-cached, no-cache\r\n")->status, 504);
    ck_assert_int_eq(loads(), 0);
}
END_TEST

/* Neither what failed nor what its client did not take whole is anybody else's answer. */
START_TEST(failure_is_never_the_answer_of_another)
{
    int64_t until_ns;
    int fd;

    start_with("CURFEW_CACHE_TTL=1m");
    pgview_exec(pg, "alter view orders rename to gone");
    ck_assert(json_is_true(reply_at(get(NULL), "partial")));
    ck_assert_int_eq(client_get(service->api_port, TARGET "&require=all", NULL)->status, 500);
    pgview_exec(pg, "alter view gone rename to orders");
    until_ns = cf_now_ns() + bound(2 * CF_SECOND); /* A load that failed is not tried at once. */
    while (json_is_true(reply_at(get(NULL), "partial"))) {
        ck_assert_int_lt(cf_now_ns(), until_ns);
        pause_ms(10);
    }
    for (int i = 0; i < 20; i++) {
        fd = client_open(service->api_port);
        client_request(fd, "GET", TARGET, NULL);
        client_reset(fd);
    }
    ck_assert_int_eq(reply_i64(get(NULL), "metrics.total_cents"), 5);
    expect_status(get(NULL), "curfewd; hit");
}
END_TEST

/* crowd */

static int crowd[CROWD];

/* All ask before there is an answer. */
static void ask_all(void)
{
    lock_orders();
    for (size_t i = 0; i < CROWD; i++) {
        crowd[i] = client_open(service->api_port);
        client_request(crowd[i], "GET", TARGET "&timeout=30s", NULL);
    }
    ck_assert_int_ge(pgview_wait_active(pg, ON_ORDERS, SECTIONS_ON_ORDERS, 10 * CF_SECOND), 0);
}

/* Until the service has them all: `fds` descriptors more, and each request read. */
static void wait_all_asked(size_t fds)
{
    int64_t until_ns = cf_now_ns() + bound(20 * CF_SECOND);

    while (service_fds(service) < fds + CROWD || service_unread(service) > 0) {
        ck_assert_int_lt(cf_now_ns(), until_ns);
        pause_ms(5);
    }
}

START_TEST(crowd_at_a_cold_key_makes_one_load)
{
    int stored = 0;

    start_with("CURFEW_CACHE_TTL=1m");
    ask_all();
    pgview_exec(locker, "commit");
    for (size_t i = 0; i < CROWD; i++) {
        struct reply *reply = client_recv(crowd[i], "GET");

        ck_assert_int_eq(reply->status, 200);
        ck_assert(json_is_false(reply_at(reply, "partial")));
        stored += strstr(reply_header(reply, "Cache-Status"), "stored") != NULL;
        (void)close(crowd[i]);
    }
    ck_assert_int_eq(loads(), 1);
    /* None, if the first of two loops lead a section each:
     * then both have joined the other's, too. */
    ck_assert_int_le(stored, 1);
}
END_TEST

/* Among them the one who has started the load. */
START_TEST(crowd_that_leaves_does_not_hurt_the_last)
{
    struct reply *reply;
    size_t fds;

    start_with("CURFEW_CACHE_TTL=1m");
    fds = service_fds(service);
    ask_all();
    wait_all_asked(fds);
    for (size_t i = 0; i < CROWD - 1; i++) {
        client_reset(crowd[i]);
    }
    /* All of them are known to have gone, and the load is still there. */
    WAIT_FOR(service_fds(service) <= fds + 20);
    ck_assert_int_eq(pgview_active(pg, ON_ORDERS), SECTIONS_ON_ORDERS);
    pgview_exec(locker, "commit");
    reply = client_recv(crowd[CROWD - 1], "GET");
    ck_assert_int_eq(reply->status, 200);
    ck_assert(json_is_false(reply_at(reply, "partial")));
    ck_assert_int_eq(loads(), 1);
    (void)close(crowd[CROWD - 1]);
}
END_TEST

/* partial */

START_TEST(late_sections_are_left_out_in_time)
{
    struct reply *reply;

    start_with(_i == 0 ? "CURFEW_CACHE_TTL=0" : "CURFEW_CACHE_TTL=1m");
    ck_assert_int_eq(client_get(service->api_port, "/v1/users/1", NULL)->status, 200);
    lock_orders();
    reply = client_get(service->api_port, TARGET "&timeout=1s", NULL);
    ck_assert_int_eq(reply->status, 200);
    ck_assert(json_is_true(reply_at(reply, "partial")));
    ck_assert_int_eq(reply_i64(reply, "user.id"), 1);
    ck_assert(json_is_null(reply_at(reply, "orders")));
    expect_state(reply, "sections.user.state", "fresh");
    expect_state(reply, "sections.orders.state", "timed_out");
    expect_state(reply, "sections.metrics.state", "timed_out");
    ck_assert_str_eq(reply_header(reply, "Cache-Control"), "no-store");
    ck_assert_ptr_null(reply_header(reply, "ETag"));
    /* What they were loading is not wanted any more. */
    ck_assert_int_ge(pgview_wait_active(pg, ON_ORDERS, 0, CF_SECOND), 0);

    reply = client_get(service->api_port, TARGET "&timeout=200ms&require=all", NULL);
    ck_assert_int_eq(reply->status, 504);
    ck_assert_int_ge(reply->done_ns - reply->sent_ns, 200 * CF_MS);

    pgview_exec(locker, "commit");
    reply = get(NULL);
    ck_assert_int_eq(reply->status, 200);
    ck_assert(json_is_false(reply_at(reply, "partial")));
    ck_assert_int_eq(reply_i64(reply, "metrics.total_cents"), 5);
    if (_i == 0) {
        ck_assert_ptr_null(reply_header(reply, "Age"));
    } else { /* The user was kept above, more than a second ago. */
        ck_assert_ptr_nonnull(reply_header(reply, "Age"));
        ck_assert_int_ge(atoi(reply_header(reply, "Age")), 1);
    }
}
END_TEST

START_TEST(failing_section_is_left_out)
{
    struct reply *reply;

    start_with("CURFEW_CACHE_TTL=1m");
    pgview_exec(pg, "alter view orders rename to gone");
    reply = get(NULL);
    ck_assert_int_eq(reply->status, 200);
    expect_state(reply, "sections.orders.state", "error");
    expect_state(reply, "sections.orders.error", "internal");
    ck_assert_int_eq(client_get(service->api_port, TARGET "&require=all", NULL)->status, 500);
    ck_assert_int_eq(client_get(service->api_port, TARGET "&require=some", NULL)->status, 400);
}
END_TEST

/* away */

static struct cluster cluster;

static void make_cluster(void)
{
    cluster_create(&cluster);
}

static void destroy_cluster(void)
{
    cluster_destroy(&cluster);
}

static void stop_away(void)
{
    service_stop_all();
    client_free_all();
    if (cluster.pid != 0) {
        cluster_stop(&cluster, SIGINT);
    }
}

/* Of a user and of the store, and the one that is not known is told at once
 * that it cannot be had. */
START_TEST(database_away_is_served_stale)
{
    static const char *const targets[] = {TARGET, "/v1/dashboard"};
    struct reply *reply;
    char *bodies[2];
    int64_t until_ns;

    cluster_start(&cluster);
    service = service_start_ready(
        cluster.url, (const char *[]){"CURFEW_CACHE_TTL=100ms", "CURFEW_CACHE_STALE=100ms", NULL});
    service_wait_listening(service, 1);
    for (size_t i = 0; i < 2; i++) {
        reply = client_get(service->api_port, targets[i], NULL);
        expect_status(reply, "curfewd; fwd=uri-miss; stored");
        bodies[i] = reply->body;
    }
    cluster_stop(&cluster, SIGINT);
    pause_ms(250); /* Past both: a load is tried, and fails. */
    for (size_t i = 0; i < 40; i++) {
        reply = client_get(service->api_port, targets[i % 2], NULL);
        expect_status(reply, "curfewd; hit; ttl=-");
        ck_assert_str_eq(reply->body, bodies[i % 2]);
        ck_assert_ptr_nonnull(strstr(reply_header(reply, "Server-Timing"), "cache;desc=stale"));
        ck_assert_ptr_nonnull(reply_header(reply, "Age"));
    }
    expect_status(get("Cache-Control: only-if-cached\r\n"), "curfewd; hit; ttl=-");
    ck_assert_int_eq(client_get(service->api_port, "/v1/dashboard?user_id=2", NULL)->status, 503);
    ck_assert_int_eq(client_get(service->api_port, TARGET, "Cache-Control: no-cache\r\n")->status,
                     503);

    cluster_start(&cluster);
    service_wait_ready(service, 5 * CF_SECOND);
    until_ns = cf_now_ns() + bound(10 * CF_SECOND);
    /* What is kept goes when the listener is back, perhaps before the loop's connections are. */
    do {
        ck_assert_msg(cf_now_ns() < until_ns, "%d: %s", reply->status, reply->body);
        pause_ms(5);
        reply = client_get(service->api_port, TARGET, NULL);
        ck_assert(reply->status == 200 || reply->status == 503);
    } while (reply->status == 503 || strstr(reply_header(reply, "Cache-Status"), "ttl=-") != NULL);
}
END_TEST

Suite *suite_cache(void)
{
    Suite *suite = suite_create("cache");
    TCase *hit = tcase_create("hit");
    TCase *many = tcase_create("crowd");
    TCase *partial = tcase_create("partial");
    TCase *away = tcase_create("away");

    tcase_add_checked_fixture(hit, setup, teardown);
    tcase_add_test(hit, hot_dashboard_is_loaded_once_a_ttl);
    tcase_add_test(hit, hit_is_told_with_its_age_and_validator);
    tcase_add_loop_test(hit, client_that_wants_it_new_gets_it_new, 0,
                        (int)(sizeof(directives) / sizeof(directives[0])));
    tcase_add_test(hit, key_is_what_is_asked_for_and_not_how);
    tcase_add_test(hit, missing_user_is_told_to_be_known);
    tcase_add_test(hit, client_that_wants_what_is_stored_only_makes_no_load);
    tcase_add_test(hit, failure_is_never_the_answer_of_another);
    tcase_set_timeout(hit, 30);
    suite_add_tcase(suite, hit);

    tcase_add_checked_fixture(many, setup, teardown);
    tcase_add_test(many, crowd_at_a_cold_key_makes_one_load);
    tcase_add_test(many, crowd_that_leaves_does_not_hurt_the_last);
    tcase_set_timeout(many, 60);
    suite_add_tcase(suite, many);

    tcase_add_checked_fixture(partial, setup, teardown);
    tcase_add_loop_test(partial, late_sections_are_left_out_in_time, 0, 2);
    tcase_add_test(partial, failing_section_is_left_out);
    tcase_set_timeout(partial, 30);
    suite_add_tcase(suite, partial);

    tcase_add_unchecked_fixture(away, make_cluster, destroy_cluster);
    tcase_add_checked_fixture(away, NULL, stop_away);
    tcase_add_test(away, database_away_is_served_stale);
    tcase_set_timeout(away, 60);
    suite_add_tcase(suite, away);
    return suite;
}
