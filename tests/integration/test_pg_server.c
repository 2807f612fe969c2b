/* SPDX-License-Identifier: MIT */
/* Servers that are away, come back, refuse or hang.
 *
 * On clusters of this file's own, made once a case, and behind a relay where the way to the server
 * is what fails. Lists of hosts are in test_pg_hosts.c, two servers behind one address in
 * test_pg_balancer.c. */
#include "pg_fixture.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cluster.h"

/* Fixture */

static struct cluster cluster;

static const struct cf_pg_stmt one = {.name = "server_one", .sql = "SELECT 1"};

static void create_cluster(void)
{
    cluster_create(&cluster);
}

/* One that runs all the time, and has a Unix socket in its own directory. */
static void start_cluster(void)
{
    char sql[160];
    PGconn *pg;

    cluster_create(&cluster);
    cluster_start(&cluster);
    pg = pgview_open(cluster.url);
    (void)snprintf(sql, sizeof(sql), "alter system set unix_socket_directories = '%s/data'",
                   cluster.dir);
    pgview_exec(pg, sql);
    PQfinish(pg);
    cluster_stop(&cluster, SIGINT);
    cluster_start(&cluster);
}

static void destroy_cluster(void)
{
    cluster_destroy(&cluster);
}

/* Started by each test, which may stop it. */
static void setup_one(void)
{
    fixture_setup();
    cluster_start(&cluster);
}

static void teardown_one(void)
{
    fixture_teardown();
    if (cluster.pid != 0) {
        cluster_stop(&cluster, SIGQUIT);
    }
}

/* Helpers */

static void open_on(const char *url, size_t pool_max)
{
    fixture_open((struct cf_pg_options){.url = url,
                                        .pool_max = pool_max,
                                        .cancel_timeout_ns = 500 * CF_MS,
                                        .backoff_max_ns = 200 * CF_MS},
                 1);
}

/* Run a query that may take some tries; returns what the first that did not work said. */
static struct cf_err query_until_it_works(void)
{
    struct cf_err first = {.code = CF_OK};
    struct job job;

    job_init(&job, &one);
    WAIT_FOR((job_run(&job), first = first.code == CF_OK ? job.err : first, job.code == CF_OK));
    ck_assert_int_eq(cf_pg_get_i64(job.rows, 0, 0), 1);
    job_fini(&job);
    return first;
}

/* A query that is told why there is no server. */
static struct cf_err query_refused(void)
{
    struct job job;

    job_init(&job, &one);
    job_run(&job);
    ck_assert_int_eq(job.code, CF_EUNAVAIL);
    ck_assert_int_eq(job.err.code, CF_EUNAVAIL);
    ck_assert_str_eq(job.err.phase, "connect");
    ck_assert_uint_gt(strlen(job.err.msg), 0);
    ck_assert_ptr_null(strchr(job.err.msg, '\n'));
    job_fini(&job);
    return job.err;
}

/* A port of 127.0.0.1 that nobody listens on. */
static void url_to(char *out, size_t size, int port)
{
    char text[8];

    (void)snprintf(text, sizeof(text), "%d", port);
    fixture_url(out, size, cluster.url,
                (const char *const[]){"host", "127.0.0.1", "port", text, NULL});
}

static int to_cluster(size_t number)
{
    (void)number;
    return cluster.port;
}

static int to_nobody(size_t number)
{
    (void)number;
    return RELAY_IGNORE;
}

static int to_the_door(size_t number)
{
    (void)number;
    return RELAY_CLOSE;
}

/* Away and back */

START_TEST(server_away_at_the_start_is_said_at_once_and_recovers)
{
    struct cf_err err;
    struct job job;

    cluster_stop(&cluster, SIGINT);
    open_on(cluster.url, 2);
    job_init(&job, &one);
    job_run(&job);
    ck_assert_int_eq(job.code, CF_EUNAVAIL);
    ck_assert_str_eq(job.err.phase, "connect");
    ck_assert_int_lt(job.ended_ns - job.began_ns, bound(CF_SECOND));
    job_fini(&job);
    ck_assert_int_eq(cf_pg_ready(fixture.pg, &err), CF_EUNAVAIL);
    ck_assert_uint_gt(strlen(err.msg), 0);
    ck_assert_uint_ge(events_count(CF_PG_EVENT_CONNECT_FAILED), 1);
    ck_assert_int_eq(fixture_stats().opened, 0);
    cluster_start(&cluster);
    (void)query_until_it_works();
    ck_assert_int_eq(cf_pg_ready(fixture.pg, NULL), CF_OK);
}
END_TEST

/* Nobody asks, and still it is ready once the server is. */
START_TEST(server_that_comes_is_found_without_a_query)
{
    cluster_stop(&cluster, SIGINT);
    open_on(cluster.url, 2);
    WAIT_FOR(events_count(CF_PG_EVENT_CONNECT_FAILED) >= 3);
    ck_assert_int_le(cf_pg_retry_ns(fixture.pg), 200 * CF_MS);
    cluster_start(&cluster);
    WAIT_FOR(cf_pg_ready(fixture.pg, NULL) == CF_OK);
    ck_assert_uint_eq(fixture_stats().queries, 0);
}
END_TEST

static const int stops[] = {SIGINT, SIGQUIT};

START_TEST(server_restarted_fails_what_runs_and_recovers)
{
    struct job job;

    open_on(cluster.url, 2);
    (void)query_until_it_works();
    job_init_sleep(&job, 60);
    job_start(&job);
    WAIT_FOR(fixture_stats().busy == 1);
    cluster_stop(&cluster, stops[_i]);
    job_wait(&job);
    ck_assert_int_eq(job.code, CF_EUNAVAIL);
    job_fini(&job);
    WAIT_FOR(cf_pg_ready(fixture.pg, NULL) != CF_OK);
    (void)query_refused();
    cluster_start(&cluster);
    (void)query_until_it_works();
    fixture_settle();
}
END_TEST

START_TEST(backend_killed_takes_the_others_along_and_recovers)
{
    static struct job jobs[3];
    int pid;
    PGconn *view = pgview_open(cluster.url);

    open_on(cluster.url, 3);
    for (int i = 0; i < N(jobs); i++) {
        job_init_sleep(&jobs[i], 60);
        job_start(&jobs[i]);
    }
    ck_assert_int_ge(pgview_wait_active(view, SLEEP_PATTERN, N(jobs), PATIENCE_NS), 0);
    pid = (int)pgview_i64(view, "select min(pid) from pg_stat_activity where query ~ $1",
                          (const char *[]){SLEEP_PATTERN, NULL});
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    for (int i = 0; i < N(jobs); i++) {
        job_wait(&jobs[i]);
        ck_assert_int_eq(jobs[i].code, CF_EUNAVAIL);
        job_fini(&jobs[i]);
    }
    PQfinish(view);
    (void)query_until_it_works();
    fixture_settle();
}
END_TEST

/* Refused */

static const struct {
    const char *keyword;
    const char *value;
    const char *says;
} refusals[] = {
    {"password", "not-the-secret", "password authentication failed"},
    {"dbname", "no_such_db", "does not exist"},
    {"user", "no_such_user", "authentication failed"},
    {"host", "/no/such/directory", "No such file"},
    {"host", "no-such-host.invalid", "resolve no-such-host.invalid"},
    {"sslmode", "require", "SSL"},
};

START_TEST(server_that_refuses_says_why_and_no_password)
{
    char password[64] = "";
    struct cf_err err;
    char url[1024];
    PQconninfoOption *parsed = PQconninfoParse(cluster.url, NULL);

    for (PQconninfoOption *at = parsed; at->keyword != NULL; at++) {
        if (strcmp(at->keyword, "password") == 0) {
            (void)snprintf(password, sizeof(password), "%s", at->val);
        }
    }
    PQconninfoFree(parsed);
    fixture_url(url, sizeof(url), cluster.url,
                (const char *const[]){refusals[_i].keyword, refusals[_i].value, NULL});
    fixture_open((struct cf_pg_options){.url = url, .backoff_max_ns = 100 * CF_MS}, 1);
    err = query_refused();
    ck_assert_msg(strstr(err.msg, refusals[_i].says) != NULL, "%s", err.msg);
    ck_assert_ptr_null(strstr(err.msg, "not-the-secret"));
    ck_assert_ptr_null(strstr(err.msg, password));
    ck_assert_int_eq(cf_pg_ready(fixture.pg, &err), CF_EUNAVAIL);
    ck_assert_ptr_null(strstr(err.msg, "not-the-secret"));
    err = events_get(CF_PG_EVENT_CONNECT_FAILED, 0).err;
    ck_assert_ptr_null(strstr(err.msg, "not-the-secret"));
    ck_assert_ptr_null(strstr(err.msg, password));
}
END_TEST

/* A server that has fewer places than the pool: those there are serve all, and none is refused. */
START_TEST(server_with_few_places_serves_all)
{
    static struct job jobs[12];
    char url[1024];
    PGconn *view = pgview_open(cluster.url);
    struct cf_err err;

    pgview_exec(view, "create role crowd login password 'crowd'");
    pgview_exec(view, "alter role crowd connection limit 2");
    fixture_url(url, sizeof(url), cluster.url,
                (const char *const[]){"user", "crowd", "password", "crowd", NULL});
    fixture_open((struct cf_pg_options){.url = url,
                                        .pool_max = 8,
                                        .cancel = CF_PG_CANCEL_PQCANCEL,
                                        .backoff_max_ns = 20 * CF_MS},
                 1);
    (void)query_until_it_works();
    for (int i = 0; i < N(jobs); i++) {
        job_init_sleep(&jobs[i], 0.02);
        job_start(&jobs[i]);
    }
    for (int i = 0; i < N(jobs); i++) {
        job_wait(&jobs[i]);
        ck_assert_msg(jobs[i].code == CF_OK, "%s", jobs[i].err.msg);
        job_fini(&jobs[i]);
    }
    ck_assert_uint_le(fixture_stats().opened, 2);
    fixture_close();
    WAIT_FOR(fixture_backends(view) == 0);

    /* And with no place at all. */
    pgview_exec(view, "alter role crowd connection limit 0");
    fixture_open((struct cf_pg_options){.url = url, .backoff_max_ns = 20 * CF_MS}, 1);
    err = query_refused();
    ck_assert_ptr_nonnull(strstr(err.msg, "too many connections"));
    pgview_exec(view, "alter role crowd connection limit 3");
    (void)query_until_it_works();
    fixture_close();
    WAIT_FOR(fixture_backends(view) == 0);
    pgview_exec(view, "drop role crowd");
    PQfinish(view);
}
END_TEST

/* Hanging */

START_TEST(connect_to_a_black_hole_ends_at_its_timeout)
{
    char url[1024];
    char said[128];
    struct job job;
    struct job soon;
    int64_t since_ns = cf_now_ns();

    relay_start(&fixture.relay, to_nobody);
    url_to(url, sizeof(url), fixture.relay.port);
    (void)snprintf(said, sizeof(said), "connect: no answer within 1000 ms from 127.0.0.1, port %d",
                   fixture.relay.port);
    fixture_open((struct cf_pg_options){.url = url, .pool_max = 1, .connect_timeout_ns = CF_SECOND},
                 1);
    job_init(&soon, &one);
    soon.timeout_ns = 50 * CF_MS;
    job_init(&job, &one);
    job_start(&job);
    job_start(&soon);
    job_wait(&soon); /* Its own deadline is first. */
    ck_assert_int_eq(soon.code, CF_EDEADLINE);
    ck_assert_str_eq(soon.err.phase, "pool");
    job_wait(&job);
    ck_assert_int_eq(job.code, CF_EUNAVAIL);
    ck_assert_str_eq(job.err.phase, "connect");
    ck_assert(cf_err_is(&job.err, CF_EDEADLINE));
    ck_assert_str_eq(job.err.msg, said);
    ck_assert_int_lt(job.ended_ns - job.began_ns, CF_SECOND + bound(CF_SECOND));
    ck_assert_int_ge(events_at_ns(CF_PG_EVENT_CONNECT_FAILED, 0) - since_ns, 999 * CF_MS);
    job_fini(&job);
    job_fini(&soon);
    fixture_close();
    ck_assert_int_le((int64_t)atomic_load(&fixture.relay.accepted), 2);
}
END_TEST

/* The waits double from 100 ms to the cap, and each is jittered down to a half. */
START_TEST(connect_refused_backs_off_to_the_cap)
{
    char url[1024];
    int64_t total_ns = 0;

    relay_start(&fixture.relay, to_the_door);
    url_to(url, sizeof(url), fixture.relay.port);
    fixture_open((struct cf_pg_options){.url = url, .pool_max = 4, .backoff_max_ns = 300 * CF_MS},
                 1);
    WAIT_FOR(atomic_load(&fixture.relay.accepted) >= 7);
    for (size_t i = 0; i < 6; i++) {
        int64_t most_ns = i < 2 ? (100 << i) * CF_MS : 300 * CF_MS;
        struct cf_pg_event event = events_get(CF_PG_EVENT_CONNECT_FAILED, i);
        int64_t gap_ns = fixture.relay.at_ns[i + 1] - fixture.relay.at_ns[i];

        ck_assert_int_eq(event.err.code, CF_EUNAVAIL);
        ck_assert_int_ge(event.retry_ns, most_ns / 2);
        ck_assert_int_le(event.retry_ns, most_ns);
        ck_assert_int_ge(gap_ns, event.retry_ns - CF_MS);
        ck_assert_int_lt(gap_ns, event.retry_ns + bound(CF_SECOND / 2));
        total_ns += gap_ns;
    }
    ck_assert_int_ge(total_ns, (50 + 100 + 4 * 150) * CF_MS - 6 * CF_MS);
}
END_TEST

/* However many queries ask, they do not make more attempts. */
START_TEST(connect_refused_queries_do_not_storm)
{
    char url[1024];
    struct job job;
    int64_t until_ns;
    size_t queries = 0;

    relay_start(&fixture.relay, to_the_door);
    url_to(url, sizeof(url), fixture.relay.port);
    fixture_open((struct cf_pg_options){.url = url, .pool_max = 8}, 1);
    job_init(&job, &one);
    for (until_ns = cf_now_ns() + 500 * CF_MS; cf_now_ns() < until_ns; queries++) {
        job_run(&job);
        ck_assert_int_eq(job.code, CF_EUNAVAIL);
    }
    job_fini(&job);
    ck_assert_uint_gt(queries, 50);
    ck_assert_uint_le(atomic_load(&fixture.relay.accepted),
                      12); /* 100 and 200 ms, halved; two at once. */
}
END_TEST

static int second_closed(size_t number)
{
    return number == 1 ? RELAY_CLOSE : cluster.port;
}

/* One connection is there and busy; the attempt to make another fails once. The query that it was
 * for must not wait for the busy one. */
START_TEST(connect_failed_once_is_tried_again_while_a_query_waits)
{
    char url[1024];
    struct job holder;
    struct job job;

    relay_start(&fixture.relay, second_closed);
    url_to(url, sizeof(url), fixture.relay.port);
    fixture_open((struct cf_pg_options){.url = url, .pool_max = 2, .cancel = CF_PG_CANCEL_PQCANCEL},
                 1);
    job_init_sleep(&holder, 60);
    job_start(&holder);
    WAIT_FOR(fixture_stats().busy == 1);
    job_init(&job, &one);
    job_run(&job);
    ck_assert_int_eq(job.code, CF_OK);
    ck_assert_int_eq(events_count(CF_PG_EVENT_CONNECT_FAILED), 1);
    job_fini(&job);
    cf_ctx_cancel(holder.ctx);
    job_wait(&holder);
    job_fini(&holder);
}
END_TEST

static atomic_bool gate;

static int first_closed_then_gated(size_t number)
{
    while (number > 0 && !atomic_load(&gate)) {
        pause_ms(1);
    }
    return number == 0 ? RELAY_CLOSE : cluster.port;
}

/* While attempts fail only two are made at once. When they succeed, whoever waits gets a connection
 * of his own, as long as the pool has room. */
START_TEST(connect_that_succeeds_again_serves_all_who_wait)
{
    static struct job jobs[4];
    char url[1024];

    relay_start(&fixture.relay, first_closed_then_gated);
    url_to(url, sizeof(url), fixture.relay.port);
    fixture_open((struct cf_pg_options){.url = url,
                                        .pool_max = N(jobs),
                                        .connect_timeout_ns = PATIENCE_NS,
                                        .cancel = CF_PG_CANCEL_PQCANCEL},
                 1);
    WAIT_FOR(events_count(CF_PG_EVENT_CONNECT_FAILED) == 1 && cf_pg_retry_ns(fixture.pg) == 0);
    for (int i = 0; i < N(jobs); i++) {
        job_init_sleep(&jobs[i], 60);
        job_start(&jobs[i]);
    }
    WAIT_FOR(fixture_stats().waiting == N(jobs));
    atomic_store(&gate, true);
    WAIT_FOR(fixture_stats().busy == N(jobs));
    for (int i = 0; i < N(jobs); i++) {
        cf_ctx_cancel(jobs[i].ctx);
        job_wait(&jobs[i]);
        job_fini(&jobs[i]);
    }
}
END_TEST

/* Ways to a server */

START_TEST(server_on_a_unix_socket_is_cancelled_both_ways)
{
    PGconn *view = pgview_open(cluster.url);
    char url[1024];
    char dir[96];

    (void)snprintf(dir, sizeof(dir), "%s/data", cluster.dir);
    fixture_url(url, sizeof(url), cluster.url, (const char *const[]){"host", dir, NULL});
    for (int i = 0; i < 2; i++) {
        struct job job;
        int pid;

        fixture_open(
            (struct cf_pg_options){.url = url,
                                   .pool_max = 1,
                                   .cancel = i == 0 ? CF_PG_CANCEL_CONTROL : CF_PG_CANCEL_PQCANCEL},
            1);
        pid = backend_pid();
        job_init_sleep(&job, 60);
        job_start(&job);
        ck_assert_int_ge(pgview_wait_active(view, SLEEP_PATTERN, 1, PATIENCE_NS), 0);
        cf_ctx_cancel(job.ctx);
        job_wait(&job);
        job_fini(&job);
        ck_assert_int_eq(backend_pid(), pid);
        ck_assert_uint_eq(fixture_stats().cancels[CF_PG_EFFECTIVE], 1);
        fixture_close();
    }
    PQfinish(view);
}
END_TEST

/* The way breaks in the middle of a statement, without a word of the server. */
START_TEST(server_cut_off_fails_what_runs_and_recovers)
{
    char url[1024];
    struct job job;

    relay_start(&fixture.relay, to_cluster);
    url_to(url, sizeof(url), fixture.relay.port);
    open_on(url, 1);
    (void)query_until_it_works();
    job_init_sleep(&job, 60);
    job_start(&job);
    WAIT_FOR(fixture_stats().busy == 1);
    relay_stop(&fixture.relay);
    job_wait(&job);
    ck_assert_int_eq(job.code, CF_EUNAVAIL);
    ck_assert_str_eq(job.err.phase, "query");
    ck_assert_str_eq(job.err.sqlstate, "");
    job_fini(&job);
    (void)query_refused();
}
END_TEST

/* Suite */

Suite *suite_pg_server(void)
{
    Suite *suite = suite_create("pg_server");
    TCase *tc = tcase_create("stopped");

    suite_add_tcase(suite, tc);
    tcase_set_timeout(tc, 30);
    tcase_add_unchecked_fixture(tc, create_cluster, destroy_cluster);
    tcase_add_checked_fixture(tc, setup_one, teardown_one);
    tcase_add_test(tc, server_away_at_the_start_is_said_at_once_and_recovers);
    tcase_add_test(tc, server_that_comes_is_found_without_a_query);
    tcase_add_loop_test(tc, server_restarted_fails_what_runs_and_recovers, 0, N(stops));

    tc = tcase_create("runs");
    suite_add_tcase(suite, tc);
    tcase_set_timeout(tc, 30);
    tcase_add_unchecked_fixture(tc, start_cluster, destroy_cluster);
    tcase_add_checked_fixture(tc, fixture_setup, fixture_teardown);
    tcase_add_test(tc, backend_killed_takes_the_others_along_and_recovers);
    tcase_add_loop_test(tc, server_that_refuses_says_why_and_no_password, 0, N(refusals));
    tcase_add_test(tc, server_with_few_places_serves_all);
    tcase_add_test(tc, connect_to_a_black_hole_ends_at_its_timeout);
    tcase_add_test(tc, connect_refused_backs_off_to_the_cap);
    tcase_add_test(tc, connect_refused_queries_do_not_storm);
    tcase_add_test(tc, connect_failed_once_is_tried_again_while_a_query_waits);
    tcase_add_test(tc, connect_that_succeeds_again_serves_all_who_wait);
    tcase_add_test(tc, server_on_a_unix_socket_is_cancelled_both_ways);
    tcase_add_test(tc, server_cut_off_fails_what_runs_and_recovers);
    return suite;
}
