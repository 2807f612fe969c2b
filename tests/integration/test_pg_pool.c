/* SPDX-License-Identifier: MIT */
/* The pool: how many connections there are, how long they live, and what it says about itself. */
#include "pg_fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/wait.h>

#include "relay.h"

/* Fixture */

static struct job jobs[12];

/* Helpers */

static void start_sleepers(int n, size_t n_loops, double seconds)
{
    for (int i = 0; i < n; i++) {
        job_init_sleep(&jobs[i], seconds);
        jobs[i].loop = (size_t)i % n_loops;
        job_start(&jobs[i]);
    }
}

static void end_sleepers(int n)
{
    for (int i = 0; i < n; i++) {
        cf_ctx_cancel(jobs[i].ctx);
    }
    for (int i = 0; i < n; i++) {
        job_wait(&jobs[i]);
        job_fini(&jobs[i]);
    }
}

/* Life cycle */

static const struct {
    const char *url;
    size_t pool_max;
    size_t n_loops;
} invalid[] = {
    {"postgresql://user:secret%zz@host/db", 4, 1},
    {"host=127.0.0.1 password='secret", 4, 1},
    {"no_such_setting=secret", 4, 1},
    {"just secret words", 4, 1},
    {NULL, 1, 2},
    {NULL, 3, 4},
    {NULL, 4, 0},
};

/* The URL may hold the password, in a place that depends on what is wrong with it. */
START_TEST(new_invalid_is_refused_without_its_secret)
{
    struct cf_err err = {.code = CF_OK};
    enum cf_code code = fixture_try_open(
        (struct cf_pg_options){.url = invalid[_i].url, .pool_max = invalid[_i].pool_max},
        invalid[_i].n_loops, &err);

    ck_assert_int_eq(code, CF_EINVAL);
    ck_assert_int_eq(err.code, CF_EINVAL);
    ck_assert_ptr_null(fixture.pg);
    ck_assert_ptr_null(strstr(err.msg, "secret"));
    ck_assert_uint_gt(strlen(err.msg), 10);
}
END_TEST

/* libpq reads a value only when it connects: what is wrong with it, each query is told. */
START_TEST(new_with_a_bad_value_tells_the_queries)
{
    struct job job;

    fixture_open((struct cf_pg_options){.url = "postgresql://127.0.0.1/db?sslmode=none"}, 1);
    job_init_sleep(&job, 0);
    job_run(&job);
    ck_assert_int_eq(job.code, CF_EUNAVAIL);
    ck_assert_ptr_nonnull(strstr(job.err.msg, "sslmode"));
    job_fini(&job);
}
END_TEST

START_TEST(new_and_free_without_a_query_leaves_nothing)
{
    for (int i = 0; i < 10; i++) {
        fixture_open((struct cf_pg_options){.pool_max = 4}, 2);
        fixture_close();
    }
    WAIT_FOR(fixture_backends(fixture_view()) == 0);
}
END_TEST

static atomic_bool asked;
static atomic_bool blocked;
static atomic_bool unblocked;

/* The last question of a session that begins: its answer is held back. */
static void hold_the_last_answer(size_t number, const char *bytes, size_t size)
{
    static const char last[] = "pg_postmaster_start_time";

    if (number == 0 && memmem(bytes, size, last, sizeof(last) - 1) != NULL) {
        fixture.relay.faults.to_client.hold = true; /* This is the relay's thread. */
        atomic_store(&asked, true);
    }
}

/* After a turn: the kernel then tells of the answer first. */
static void block(void *arg)
{
    (void)arg;
    (void)!cf_sleep(cf_ctx_background(), CF_MS, NULL);
    atomic_store(&blocked, true);
    while (!atomic_load(&unblocked)) {
        pause_ms(1);
    }
}

static void *unblock_soon(void *arg)
{
    (void)arg;
    pause_ms(100); /* By then the end is asked for. */
    atomic_store(&unblocked, true);
    return NULL;
}

/* A loop that was held up learns both in one turn. */
START_TEST(free_in_the_turn_in_which_a_connection_is_made)
{
    pthread_t thread;
    char port[8];
    char url[1024];

    relay_start(&fixture.relay, fixture_to_server);
    atomic_store(&fixture.relay.tap, hold_the_last_answer);
    (void)snprintf(port, sizeof(port), "%d", fixture.relay.port);
    fixture_url(
        url, sizeof(url), NULL,
        (const char *const[]){"host", "127.0.0.1", "port", port, "sslmode", "disable", NULL});
    fixture_open((struct cf_pg_options){.url = url, .pool_max = 1}, 1);
    WAIT_FOR(atomic_load(&asked));
    ck_assert_int_eq(cf_loop_spawn(fixture.loops[0], block, NULL, NULL), CF_OK);
    WAIT_FOR(atomic_load(&blocked));
    relay_fault(&fixture.relay, NULL);
    WAIT_FOR(atomic_load(&fixture.relay.pairs[0].down.passed) > 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, unblock_soon, NULL), 0);
    fixture_close();
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_uint_eq(events_count(CF_PG_EVENT_CONNECTED), 1);
    WAIT_FOR(fixture_backends(fixture_view()) == 0);
    relay_stop(&fixture.relay);
}
END_TEST

/* How many */

START_TEST(connections_are_opened_as_they_are_needed)
{
    fixture_open((struct cf_pg_options){.pool_max = 10, .cancel = CF_PG_CANCEL_PQCANCEL}, 1);
    for (int i = 0; i < 20; i++) {
        (void)backend_pid(); /* One after another needs one. */
    }
    ck_assert_int_eq(fixture_backends(fixture_view()), 1);
    start_sleepers(4, 1, 60);
    ck_assert_int_ge(pgview_wait_active(fixture_view(), SLEEP_PATTERN, 4, PATIENCE_NS), 0);
    ck_assert_int_eq(fixture_backends(fixture_view()), 4);
    ck_assert_uint_eq(fixture_stats().opened, 4);
    end_sleepers(4);
}
END_TEST

static const struct {
    size_t pool_max;
    size_t n_loops;
} shares[] = {{1, 1}, {3, 1}, {3, 2}, {5, 3}};

START_TEST(connections_are_never_more_than_pool_max)
{
    size_t pool_max = shares[_i].pool_max;

    fixture_open((struct cf_pg_options){.pool_max = pool_max, .cancel = CF_PG_CANCEL_PQCANCEL},
                 shares[_i].n_loops);
    start_sleepers(N(jobs), shares[_i].n_loops, 0.02);
    for (int i = 0; i < N(jobs); i++) {
        ck_assert_int_le(fixture_backends(fixture_view()), (int)pool_max);
        job_wait(&jobs[i]);
        ck_assert_int_eq(jobs[i].code, CF_OK);
        job_fini(&jobs[i]);
    }
    fixture_settle();
    ck_assert_uint_eq(fixture_stats().opened, pool_max);
    ck_assert_uint_eq(fixture_stats().idle, pool_max);
    ck_assert_int_eq(fixture_backends(fixture_view()), (int)pool_max);
}
END_TEST

/* Each loop has its share, and the remainder goes to the first. */
START_TEST(connections_of_a_loop_are_its_share)
{
    fixture_open((struct cf_pg_options){.pool_max = 5}, 2);
    for (int i = 0; i < 6; i++) {
        job_init_sleep(&jobs[i], 60);
        jobs[i].loop = 1;
        job_start(&jobs[i]);
    }
    ck_assert_int_ge(pgview_wait_active(fixture_view(), SLEEP_PATTERN, 2, PATIENCE_NS), 0);
    WAIT_FOR(fixture_stats().opening == 0);
    ck_assert_uint_eq(fixture_stats().busy, 2);
    ck_assert_uint_eq(fixture_stats().waiting, 4);
    end_sleepers(6);
}
END_TEST

/* Their age */

/* Made one after another without a query, and again when they are lost. */
START_TEST(connections_are_kept_as_many_as_pool_min)
{
    fixture_open((struct cf_pg_options){.pool_max = 5,
                                        .pool_min = 3,
                                        .idle_timeout_ns = 50 * CF_MS,
                                        .cancel = CF_PG_CANCEL_PQCANCEL},
                 2);
    WAIT_FOR(fixture_stats().idle == 3);
    start_sleepers(5, 2, 0.2);
    end_sleepers(5);
    WAIT_FOR(fixture_stats().idle == 3 && fixture_stats().canceling == 0);
    WAIT_FOR(fixture_backends(fixture_view()) == 3);
    fixture_terminate(backend_pid());
    WAIT_FOR(fixture_stats().idle == 3);
}
END_TEST

START_TEST(new_cannot_keep_more_than_there_are)
{
    struct cf_err err;

    ck_assert_int_eq(
        fixture_try_open((struct cf_pg_options){.pool_max = 2, .pool_min = 3}, 1, &err), CF_EINVAL);
}
END_TEST

START_TEST(idle_timeout_closes_all_but_one)
{
    fixture_open((struct cf_pg_options){.pool_max = 4,
                                        .idle_timeout_ns = 200 * CF_MS,
                                        .cancel = CF_PG_CANCEL_PQCANCEL},
                 1);
    start_sleepers(4, 1, 60);
    ck_assert_int_ge(pgview_wait_active(fixture_view(), SLEEP_PATTERN, 4, PATIENCE_NS), 0);
    end_sleepers(4);
    WAIT_FOR(fixture_backends(fixture_view()) == 1);
    ck_assert_uint_eq(events_count(CF_PG_EVENT_CLOSED), 3);
    ck_assert_uint_eq(fixture_stats().idle, 1);
    for (size_t i = 0; i < 3; i++) {
        ck_assert_int_eq(events_get(CF_PG_EVENT_CLOSED, i).err.code, CF_OK);
    }
    (void)backend_pid();
    ck_assert_uint_eq(fixture_stats().opened, 4);
}
END_TEST

START_TEST(lifetime_replaces_the_connection)
{
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1,
                                        .lifetime_ns = 300 * CF_MS,
                                        .cancel = CF_PG_CANCEL_PQCANCEL},
                 1);
    pid = backend_pid();
    WAIT_FOR(fixture_stats().opened >= 2); /* Nobody asked: the last is replaced in advance. */
    ck_assert_int_ge(events_at_ns(CF_PG_EVENT_CLOSED, 0) - events_at_ns(CF_PG_EVENT_CONNECTED, 0),
                     269 * CF_MS);
    ck_assert_int_eq(events_get(CF_PG_EVENT_CLOSED, 0).backend_pid, pid);
    ck_assert_int_ne(backend_pid(), pid);
    WAIT_FOR(fixture_backends(fixture_view()) <= 1);
}
END_TEST

/* A connection that is too old when it comes back is not lent again, and its query is not cut. */
START_TEST(lifetime_spares_the_statement_that_runs)
{
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1, .lifetime_ns = 100 * CF_MS}, 1);
    pid = backend_pid();
    start_sleepers(1, 1, 0.3);
    job_wait(&jobs[0]);
    ck_assert_int_eq(jobs[0].code, CF_OK);
    job_fini(&jobs[0]);
    ck_assert_int_ne(backend_pid(), pid);
}
END_TEST

/* Their end */

static const struct {
    size_t size;
    uint64_t opened;
} sent[] = {{(size_t)1 << 20, 1}, {((size_t)1 << 20) + 1, 2}};

/* What sent much would keep the room for it. */
START_TEST(connection_that_sent_much_is_replaced)
{
    static const struct cf_pg_stmt measure = {.name = "pool_measure",
                                              .sql = "SELECT octet_length($1::bytea)"};
    void *data = calloc(1, sent[_i].size);
    struct cf_pg_param params[] = {cf_pg_bytes(data, sent[_i].size)};

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    ck_assert_int_eq(query_i64(&measure, params, 1), (int64_t)sent[_i].size);
    (void)backend_pid();
    ck_assert_uint_eq(fixture_stats().opened, sent[_i].opened);
    ck_assert_uint_eq(events_count(CF_PG_EVENT_CLOSED), sent[_i].opened - 1);
    free(data);
}
END_TEST

/* Each time the death is noticed either by the loop or by the look before lending; with a loop that
 * has no turn in between (the next test) only the latter can. */
START_TEST(idle_connection_killed_is_not_lent)
{
    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    for (int i = 0; i < 5; i++) {
        fixture_terminate(backend_pid());
        ck_assert_int_gt(backend_pid(), 0);
    }
    ck_assert_uint_eq(fixture_stats().opened, 6);
    ck_assert_uint_eq(events_count(CF_PG_EVENT_LOST), 5);
    ck_assert_int_eq(events_get(CF_PG_EVENT_LOST, 0).err.code, CF_EUNAVAIL);
}
END_TEST

static struct {
    int pid;
    enum cf_code code;
    struct cf_err err;
} blind;

static void kill_and_query(void *arg)
{
    static const struct cf_pg_stmt one = {.name = "pool_one", .sql = "SELECT 1"};
    struct cf_pg_rows *rows = NULL;

    (void)arg;
    fixture_terminate(
        blind.pid); /* Waits until the backend is gone, on the loop: which sees nothing. */
    blind.code = cf_pg_query(cf_ctx_background(), fixture.pg, &one, NULL, 0, &rows, &blind.err);
    cf_pg_rows_free(rows);
}

START_TEST(idle_connection_killed_behind_the_loops_back_is_not_lent)
{
    fixture_open((struct cf_pg_options){.pool_max = 1, .cancel = CF_PG_CANCEL_PQCANCEL}, 1);
    (void)fixture_view();
    for (int i = 0; i < 5; i++) {
        blind.pid = backend_pid();
        ck_assert_int_eq(cf_loop_call(fixture.loops[0], kill_and_query, NULL, NULL), CF_OK);
        ck_assert_msg(blind.code == CF_OK, "%s %s", blind.err.sqlstate, blind.err.msg);
    }
}
END_TEST

START_TEST(busy_connection_killed_fails_its_query_only)
{
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 2}, 1);
    start_sleepers(1, 1, 60);
    pid = fixture_wait_sleeper();
    fixture_terminate(pid);
    job_wait(&jobs[0]);
    ck_assert_int_eq(jobs[0].code, CF_EUNAVAIL);
    ck_assert_str_eq(jobs[0].err.sqlstate, "57P01");
    ck_assert_str_eq(jobs[0].err.phase, "query");
    job_fini(&jobs[0]);
    ck_assert_int_ne(backend_pid(), pid);
    ck_assert_int_eq(events_get(CF_PG_EVENT_LOST, 0).backend_pid, pid);
}
END_TEST

/* What it says */

START_TEST(stats_count_what_is)
{
    struct cf_pg_stats stats;

    fixture_open((struct cf_pg_options){.pool_max = 3, .cancel = CF_PG_CANCEL_PQCANCEL}, 1);
    (void)backend_pid();
    (void)backend_pid();
    stats = fixture_stats();
    ck_assert_uint_eq(stats.pool_max, 3);
    ck_assert_uint_eq(stats.idle, 1);
    ck_assert_uint_eq(stats.busy + stats.canceling + stats.opening + stats.waiting, 0);
    ck_assert_uint_eq(stats.opened, 1);
    ck_assert_uint_eq(stats.queries, 2);
    start_sleepers(5, 1, 60);
    ck_assert_int_ge(pgview_wait_active(fixture_view(), SLEEP_PATTERN, 3, PATIENCE_NS), 0);
    WAIT_FOR(fixture_stats().opening == 0);
    stats = fixture_stats();
    ck_assert_uint_eq(stats.busy, 3);
    ck_assert_uint_eq(stats.waiting, 2);
    ck_assert_uint_eq(stats.idle + stats.canceling, 0);
    ck_assert_uint_eq(stats.queries, 5);
    end_sleepers(5);
    fixture_settle();
    stats = fixture_stats();
    ck_assert_uint_eq(stats.idle, 3);
    ck_assert_uint_ge(stats.cancels[CF_PG_EFFECTIVE], 3);
}
END_TEST

START_TEST(ready_while_a_connection_is_open)
{
    struct cf_err err;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    WAIT_FOR(cf_pg_ready(fixture.pg, &err) == CF_OK);
    ck_assert_int_eq(cf_pg_retry_ns(fixture.pg), 0);
    start_sleepers(1, 1, 60);
    ck_assert_int_ge(pgview_wait_active(fixture_view(), SLEEP_PATTERN, 1, PATIENCE_NS), 0);
    ck_assert_int_eq(cf_pg_ready(fixture.pg, NULL), CF_OK); /* Busy is ready too. */
    end_sleepers(1);
}
END_TEST

START_TEST(events_tell_of_each_connection)
{
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    pid = backend_pid();
    ck_assert_uint_eq(events_count(CF_PG_EVENT_CONNECTED), 1);
    ck_assert_int_eq(events_get(CF_PG_EVENT_CONNECTED, 0).backend_pid, pid);
    ck_assert_int_eq(events_get(CF_PG_EVENT_CONNECTED, 0).err.code, CF_OK);
    fixture_close();
    ck_assert_uint_eq(events_count(CF_PG_EVENT_CLOSED), 1);
    ck_assert_int_eq(events_get(CF_PG_EVENT_CLOSED, 0).backend_pid, pid);
    ck_assert_uint_eq(events_count(CF_PG_EVENT_LOST), 0);
    ck_assert_uint_eq(events_count(CF_PG_EVENT_CONNECT_FAILED), 0);
}
END_TEST

START_TEST(names_are_those_of_the_lists)
{
    ck_assert_str_eq(cf_pg_outcome_name(CF_PG_NOT_SENT), "not_sent");
    ck_assert_str_eq(cf_pg_outcome_name(CF_PG_TOO_LATE), "too_late");
    ck_assert_str_eq(cf_pg_outcome_name(CF_PG_EFFECTIVE), "effective");
    ck_assert_str_eq(cf_pg_outcome_name(CF_PG_SERVER_TIMEOUT), "server_timeout");
    ck_assert_str_eq(cf_pg_outcome_name(CF_PG_DISPATCH_FAILED), "dispatch_failed");
    ck_assert_str_eq(cf_pg_outcome_name(CF_PG_CONNECTION_DROPPED), "connection_dropped");
    ck_assert_str_eq(cf_pg_event_name(CF_PG_EVENT_CONNECTED), "connected");
    ck_assert_str_eq(cf_pg_event_name(CF_PG_EVENT_CANCELED), "canceled");
}
END_TEST

/* The nets that hold on the server when this process cannot. */
START_TEST(session_has_its_nets)
{
    static const struct cf_pg_stmt nets = {
        .name = "pool_nets",
        .sql = "SELECT current_setting('statement_timeout'),"
               " current_setting('idle_in_transaction_session_timeout'),"
               " current_setting('client_connection_check_interval'),"
               " current_setting('application_name'), current_setting('timezone')",
    };
    struct cf_pg_rows *rows;

    fixture_open((struct cf_pg_options){.pool_max = 1, .statement_timeout_ns = 7 * CF_SECOND}, 1);
    rows = query(&nets, NULL, 0);
    ck_assert_str_eq(cf_pg_get_text(rows, 0, 0), "7s");
    ck_assert_str_eq(cf_pg_get_text(rows, 0, 1), "10s");
    ck_assert_str_eq(cf_pg_get_text(rows, 0, 2), "500ms");
    ck_assert_str_eq(cf_pg_get_text(rows, 0, 3), fixture.app);
    ck_assert_str_eq(cf_pg_get_text(rows, 0, 4), "UTC");
    cf_pg_rows_free(rows);
}
END_TEST

/* Suite */

static TCase *add_case(Suite *suite, const char *name)
{
    TCase *tc = tcase_create(name);

    tcase_add_checked_fixture(tc, fixture_setup_server, fixture_teardown);
    tcase_set_timeout(tc, 30);
    suite_add_tcase(suite, tc);
    return tc;
}

Suite *suite_pg_pool(void)
{
    Suite *suite = suite_create("pg_pool");
    TCase *tc = add_case(suite, "new");

    tcase_add_loop_test(tc, new_invalid_is_refused_without_its_secret, 0, N(invalid));
    tcase_add_test(tc, new_with_a_bad_value_tells_the_queries);
    tcase_add_test(tc, new_and_free_without_a_query_leaves_nothing);
    tcase_add_test(tc, free_in_the_turn_in_which_a_connection_is_made);
    tc = add_case(suite, "number");
    tcase_add_test(tc, connections_are_opened_as_they_are_needed);
    tcase_add_loop_test(tc, connections_are_never_more_than_pool_max, 0, N(shares));
    tcase_add_test(tc, connections_of_a_loop_are_its_share);
    tc = add_case(suite, "age");
    tcase_add_test(tc, connections_are_kept_as_many_as_pool_min);
    tcase_add_test(tc, new_cannot_keep_more_than_there_are);
    tcase_add_test(tc, idle_timeout_closes_all_but_one);
    tcase_add_test(tc, lifetime_replaces_the_connection);
    tcase_add_test(tc, lifetime_spares_the_statement_that_runs);
    tc = add_case(suite, "killed");
    tcase_add_loop_test(tc, connection_that_sent_much_is_replaced, 0,
                        (int)(sizeof(sent) / sizeof(sent[0])));
    tcase_add_test(tc, idle_connection_killed_is_not_lent);
    tcase_add_test(tc, idle_connection_killed_behind_the_loops_back_is_not_lent);
    tcase_add_test(tc, busy_connection_killed_fails_its_query_only);
    tc = add_case(suite, "says");
    tcase_add_test(tc, stats_count_what_is);
    tcase_add_test(tc, ready_while_a_connection_is_open);
    tcase_add_test(tc, events_tell_of_each_connection);
    tcase_add_test(tc, names_are_those_of_the_lists);
    tcase_add_test(tc, session_has_its_nets);
    return suite;
}
