/* SPDX-License-Identifier: MIT */
/* What the pool does behind a query that was given up: the cancel, the two fences, the connection
 * that is used again or replaced. Against the server of `make integration`; see test_pg_server.c
 * for servers that misbehave, and test_pg_control.c for the connection that cancels go over. */
#include "pg_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <curfew/wait.h>

#define SCHEMA "curfew_test_pg_cancel"

/* Fixture */

static const enum cf_pg_cancel_way ways[] = {CF_PG_CANCEL_CONTROL, CF_PG_CANCEL_PQCANCEL,
#ifdef LIBPQ_HAS_ASYNC_CANCEL
                                             CF_PG_CANCEL_ASYNC,
#endif
                                             CF_PG_CANCEL_AUTO};

/* But for AUTO, which is the last. */
#define N_WAYS (N(ways) - 1)

/* Helpers */

static void open_way(enum cf_pg_cancel_way way, size_t pool_max)
{
    fixture_open((struct cf_pg_options){.pool_max = pool_max, .cancel = way}, 1);
    (void)backend_pid();
}

/* The bound on the fences can strike while a cancel is being sent, or between two. */
static uint64_t dropped(void)
{
    return outcomes(CF_PG_CONNECTION_DROPPED) + outcomes(CF_PG_DISPATCH_FAILED);
}

/* Both fences, each way */

START_TEST(cancel_effective_reuses_the_backend)
{
    int pid;

    open_way(ways[_i], 1);
    pid = backend_pid();
    for (int i = 1; i <= 10; i++) {
        fixture_cancel_one();
        ck_assert_int_eq(backend_pid(), pid);
        ck_assert_uint_eq(outcomes(CF_PG_EFFECTIVE), i);
    }
    ck_assert_uint_eq(fixture_stats().opened, 1);
    for (size_t i = 0; i < 10; i++) {
        struct cf_pg_event event = events_get(CF_PG_EVENT_CANCELED, i);

        ck_assert_int_eq(event.backend_pid, pid);
        ck_assert_int_eq(event.outcome, CF_PG_EFFECTIVE);
        ck_assert_int_eq(event.err.code, CF_OK);
        ck_assert_int_gt(event.took_ns, 0);
        ck_assert_int_lt(event.took_ns, bound(2 * CF_SECOND));
    }
}
END_TEST

/* A statement that ends by itself before the signal does. It takes a little less than the context's
 * end takes to become a signal, so it is tried until it happens. */
START_TEST(cancel_too_late_reuses_the_backend)
{
    int64_t until_ns = cf_now_ns() + bound(PATIENCE_NS);
    unsigned seed = 1;
    int pid;

    open_way(ways[_i], 1);
    pid = backend_pid();
    while (outcomes(CF_PG_TOO_LATE) == 0) {
        struct job job;

        ck_assert_int_lt(cf_now_ns(), until_ns);
        job_init_sleep(&job, 0.002);
        job.timeout_ns = CF_MS + rand_r(&seed) % (2 * CF_MS);
        job_run(&job);
        ck_assert(job.code == CF_OK || job.code == CF_EDEADLINE);
        job_fini(&job);
        ck_assert_int_eq(backend_pid(), pid);
    }
    ck_assert_uint_eq(fixture_stats().opened, 1);
    ck_assert_uint_eq(outcomes(CF_PG_CONNECTION_DROPPED), 0);
}
END_TEST

/* Its own error of a statement that was cancelled is nobody's: the next one has its own. */
START_TEST(cancel_of_a_statement_that_fails_leaves_no_error)
{
    static const struct cf_pg_stmt divide = {
        .name = "cancel_divide", .sql = "SELECT 1 / ($1 * length(pg_sleep(0.02)::text))"};
    struct job job;
    int pid;

    open_way(ways[_i], 1);
    pid = backend_pid();
    for (int i = 0; i < 10; i++) {
        job_init(&job, &divide);
        job.params[0] = cf_pg_i64(0);
        job.n_params = 1;
        job.timeout_ns = (15 + i) * CF_MS;
        job_run(&job);
        ck_assert(job.code == CF_EDEADLINE || job.code == CF_EINVAL);
        job_fini(&job);
        ck_assert_int_eq(backend_pid(), pid);
    }
}
END_TEST

/* The statement after the cancel has its row locks and its transaction. */
START_TEST(cancel_frees_the_locks)
{
    static const struct cf_pg_stmt lock = {
        .name = "cancel_lock",
        .sql = "SELECT pg_advisory_xact_lock(7), pg_sleep(60)::text",
    };
    static const struct cf_pg_stmt try_lock = {
        .name = "cancel_try",
        .sql = "SELECT pg_try_advisory_xact_lock(7)::int",
    };
    struct job job;

    open_way(ways[_i], 1);
    job_init(&job, &lock);
    job_start(&job);
    ck_assert_int_ge(pgview_wait_active(fixture_view(), "^SELECT pg_advisory", 1, PATIENCE_NS), 0);
    ck_assert_int_eq(pgview_i64(fixture_view(), "select pg_try_advisory_xact_lock(7)::int", NULL),
                     0);
    cf_ctx_cancel(job.ctx);
    job_wait(&job);
    job_fini(&job);
    ck_assert_int_eq(query_i64(&try_lock, NULL, 0), 1);
}
END_TEST

/* All at once: the control connection takes them together, for the others they queue. */
START_TEST(cancel_storm_loses_no_connection)
{
    static struct job jobs[16];

    open_way(ways[_i], 16);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N(jobs); i++) {
            job_init_sleep(&jobs[i], 60);
            job_start(&jobs[i]);
        }
        ck_assert_int_ge(pgview_wait_active(fixture_view(), SLEEP_PATTERN, N(jobs), PATIENCE_NS),
                         0);
        for (int i = 0; i < N(jobs); i++) {
            cf_ctx_cancel(jobs[i].ctx);
        }
        for (int i = 0; i < N(jobs); i++) {
            job_wait(&jobs[i]);
            ck_assert_int_eq(jobs[i].code, CF_ECANCELED);
            job_fini(&jobs[i]);
        }
        ck_assert_int_ge(pgview_wait_active(fixture_view(), SLEEP_PATTERN, 0, PATIENCE_NS), 0);
        fixture_settle();
    }
    ck_assert_uint_eq(outcomes(CF_PG_EFFECTIVE), 48);
    ck_assert_uint_eq(fixture_stats().opened, 16);
}
END_TEST

static struct {
    struct cf_ctx *ctx;
    enum cf_code code;
    bool ended; /* The statement, while its query's fiber held the loop. */
    sem_t done;
} given_up;

/* A query that gives up, and then does not let go of its loop: no other fiber of it runs. */
static void give_up_and_hold(void *arg)
{
    struct cf_pg_param params[] = {cf_pg_f64(60)};
    struct cf_pg_rows *rows = NULL;

    (void)arg;
    given_up.code =
        cf_pg_query(given_up.ctx, fixture.pg, &sleep_stmt, params, N(params), &rows, NULL);
    given_up.ended = pgview_wait_active(fixture_view(), SLEEP_PATTERN, 0, PATIENCE_NS) >= 0;
    (void)sem_post(&given_up.done);
}

/* It is asked for before the query returns. On the control connection's own loop it is sent, too;
 * from another a message is. */
START_TEST(cancel_by_control_connection_is_sent_before_the_query_returns)
{
    fixture_open((struct cf_pg_options){.pool_max = 2, .cancel = CF_PG_CANCEL_CONTROL}, 2);
    fixture_cancel_one(); /* Then the control connection is there, and has nothing to do. */
    fixture_settle();
    ck_assert_int_eq(sem_init(&given_up.done, 0, 0), 0);
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &given_up.ctx, NULL), CF_OK);
    ck_assert_int_eq(cf_loop_spawn(fixture.loops[_i], give_up_and_hold, NULL, NULL), CF_OK);
    ck_assert_int_ge(pgview_wait_active(fixture_view(), SLEEP_PATTERN, 1, PATIENCE_NS), 0);
    cf_ctx_cancel(given_up.ctx);
    ck_assert_int_eq(sem_wait(&given_up.done), 0);
    ck_assert_int_eq(given_up.code, CF_ECANCELED);
    ck_assert(given_up.ended);
    cf_ctx_free(given_up.ctx);
    WAIT_FOR(outcomes(CF_PG_EFFECTIVE) == 2);
}
END_TEST

/* What the statement leaves */

static struct {
    struct cf_ctx *ctx;
    int64_t worst_ns; /* The most that the loop's thread computed between two ticks. */
    size_t ticks;
    sem_t done;
} ticker;

static int64_t thread_cpu_ns(void)
{
    struct timespec time;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return time.tv_sec * CF_SECOND + time.tv_nsec;
}

/* Another fiber of the loop: how long does it not get its turn? Counted in time of the processor,
 * so that other processes do not disturb. */
static void run_ticker(void *arg)
{
    int64_t before_ns = thread_cpu_ns();

    (void)arg;
    while (cf_yield(ticker.ctx, NULL) == CF_OK) {
        int64_t now_ns = thread_cpu_ns();

        ticker.worst_ns =
            now_ns - before_ns > ticker.worst_ns ? now_ns - before_ns : ticker.worst_ns;
        before_ns = now_ns;
        ticker.ticks++;
    }
    (void)sem_post(&ticker.done);
}

/* An export that is cut after some milliseconds: its rows are under way everywhere. */
START_TEST(cancel_of_an_export_drains_it_without_holding_the_loop)
{
    static const struct cf_pg_stmt export = {
        .name = "cancel_export",
        .sql = "SELECT n, repeat('x', 100) FROM generate_series(1, 3000000) n",
    };
    int pid;

    open_way(ways[_i], 1);
    pid = backend_pid();
    ck_assert_int_eq(sem_init(&ticker.done, 0, 0), 0);
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &ticker.ctx, NULL), CF_OK);
    ck_assert_int_eq(cf_loop_spawn(fixture.loops[0], run_ticker, NULL, NULL), CF_OK);
    for (int i = 0; i < 5; i++) {
        struct job job;

        job_init(&job, &export);
        job.timeout_ns = (40 + 20 * i) * CF_MS;
        job_run(&job);
        ck_assert_int_eq(job.code, CF_EDEADLINE);
        job_fini(&job);
        ck_assert_int_eq(backend_pid(), pid);
    }
    cf_ctx_cancel(ticker.ctx);
    ck_assert_int_eq(sem_wait(&ticker.done), 0);
    cf_ctx_free(ticker.ctx);
    ck_assert_uint_gt(ticker.ticks, 100);
    if (getenv("CF_TEST_LONG") != NULL) {
        (void)fprintf(stderr, "  way %d: %zu ticks, the longest %.3f ms\n", _i, ticker.ticks,
                      (double)ticker.worst_ns / CF_MS);
    }
    ck_assert_int_lt(ticker.worst_ns, bound_strictly(20 * CF_MS));
    ck_assert_uint_eq(outcomes(CF_PG_EFFECTIVE), 5);
    ck_assert_uint_eq(fixture_stats().opened, 1);
}
END_TEST

/* In the block that ignores a cancel. */
static bool sleeps_stubbornly(void)
{
    return pgview_i64(fixture_view(),
                      "select count(*) from pg_stat_activity where application_name = $1"
                      " and query ~ 'stubborn' and wait_event = 'PgSleep'",
                      (const char *[]){fixture.app, NULL}) == 1;
}

/* A statement that catches its cancel, again and again, outlasts the fences: its connection is
 * closed, and the server's check of its client then ends it. */
START_TEST(cancel_that_is_ignored_drops_the_connection)
{
    static const struct cf_pg_stmt stubborn = {.name = "cancel_stubborn",
                                               .sql = "SELECT " SCHEMA ".stubborn()"};
    struct job job;
    int64_t canceled_ns;
    int pid;

    pgview_exec(fixture_view(), "drop schema if exists " SCHEMA " cascade; create schema " SCHEMA);
    pgview_exec(fixture_view(),
                "CREATE FUNCTION " SCHEMA ".stubborn() RETURNS int LANGUAGE plpgsql AS $$BEGIN"
                " LOOP BEGIN PERFORM pg_sleep(60);"
                " EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END$$");
    fixture_open(
        (struct cf_pg_options){.pool_max = 1, .cancel = ways[_i], .cancel_timeout_ns = 150 * CF_MS},
        1);
    pid = backend_pid();
    job_init(&job, &stubborn);
    job_start(&job);
    WAIT_FOR(sleeps_stubbornly());
    canceled_ns = cf_now_ns();
    cf_ctx_cancel(job.ctx);
    job_wait(&job);
    ck_assert_int_eq(job.code, CF_ECANCELED);
    ck_assert_int_lt(job.ended_ns - canceled_ns, bound(AT_ONCE_NS));
    job_fini(&job);
    ck_assert_int_ne(backend_pid(), pid); /* It waits for the place. */
    ck_assert_int_ge(cf_now_ns() - canceled_ns, 149 * CF_MS);
    ck_assert_uint_eq(dropped(), 1);
    ck_assert_uint_eq(fixture_stats().opened, 2);
    ck_assert_int_ne(events_get(CF_PG_EVENT_CANCELED, 0).err.code, CF_OK);
    ck_assert_int_eq(events_get(CF_PG_EVENT_CLOSED, 0).backend_pid, pid);
    WAIT_FOR(pgview_active(fixture_view(), "stubborn") == 0);
}
END_TEST

/* The server's own timeout */

START_TEST(statement_timeout_is_a_deadline_and_no_cancel)
{
    struct job job;
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1,
                                        .cancel = ways[_i],
                                        .statement_timeout_ns = 50 * CF_MS},
                 1);
    pid = backend_pid();
    job_init_sleep(&job, 60);
    job_run(&job);
    ck_assert_int_eq(job.code, CF_EDEADLINE);
    ck_assert_str_eq(job.err.sqlstate, "57014");
    ck_assert_str_eq(job.err.phase, "query");
    ck_assert_int_ge(job.ended_ns - job.began_ns, 49 * CF_MS);
    job_fini(&job);
    ck_assert_int_eq(backend_pid(), pid);
    for (int i = 0; i < CF_PG_OUTCOME_COUNT; i++) {
        ck_assert_uint_eq(outcomes((enum cf_pg_outcome)i), 0);
    }
}
END_TEST

static struct cf_ctx *late_ctx;

static bool has_slept(void)
{
    return pgview_i64(fixture_view(),
                      "select count(*) from pg_stat_activity where application_name = $1"
                      " and query ~ $2",
                      (const char *[]){fixture.app, SLEEP_PATTERN, NULL}) == 1;
}

/* The context ends while its loop is held, and the server's timeout strikes before the loop looks:
 * which of the two it is taken for depends on what the loop sees first. */
static void hold_loop(void *arg)
{
    (void)arg;
    WAIT_FOR(has_slept()); /* Or sleeps still. */
    cf_ctx_cancel(late_ctx);
    ck_assert_int_ge(pgview_wait_active(fixture_view(), SLEEP_PATTERN, 0, PATIENCE_NS), 0);
    pause_ms(20); /* The answer crosses the socket. */
}

START_TEST(statement_timeout_that_meets_a_cancel_reuses_the_backend)
{
    struct job job;
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1,
                                        .cancel = ways[_i],
                                        .statement_timeout_ns = 300 * CF_MS},
                 1);
    pid = backend_pid();
    (void)fixture_view();
    job_init_sleep(&job, 60);
    late_ctx = job.ctx;
    job_start(&job);
    ck_assert_int_eq(cf_loop_call(fixture.loops[0], hold_loop, NULL, NULL), CF_OK);
    job_wait(&job);
    ck_assert(job.code == CF_ECANCELED || job.code == CF_EDEADLINE);
    ck_assert_int_eq(backend_pid(), pid);
    if (job.code == CF_ECANCELED) {
        ck_assert_uint_eq(outcomes(CF_PG_SERVER_TIMEOUT) + outcomes(CF_PG_EFFECTIVE), 1);
    }
    job_fini(&job);
}
END_TEST

/* The server knows milliseconds, and 0 as none. To set up the session may take longer than one. */
START_TEST(statement_timeout_of_less_than_a_millisecond_is_one)
{
    struct job job;

    fixture_open((struct cf_pg_options){.pool_max = 1,
                                        .statement_timeout_ns = 500000,
                                        .backoff_max_ns = 50 * CF_MS},
                 1);
    job_init_sleep(&job, 60);
    job.timeout_ns = 5 * CF_SECOND;
    WAIT_FOR((job_run(&job), job.code != CF_EUNAVAIL));
    ck_assert_int_eq(job.code, CF_EDEADLINE);
    ck_assert_str_eq(job.err.sqlstate, "57014");
    job_fini(&job);
}
END_TEST

/* A backend that does not answer */

START_TEST(cancel_of_a_frozen_backend_drops_the_connection)
{
    struct job job;
    size_t canceling;
    int64_t canceled_ns;
    int pid;

    fixture_open(
        (struct cf_pg_options){.pool_max = 2, .cancel = ways[_i], .cancel_timeout_ns = 300 * CF_MS},
        1);
    job_init_sleep(&job, 60);
    job_start(&job);
    pid = fixture_wait_sleeper();
    fixture_freeze(pid);
    canceled_ns = cf_now_ns();
    cf_ctx_cancel(job.ctx);
    job_wait(&job);
    ck_assert_int_eq(job.code, CF_ECANCELED);
    ck_assert_int_lt(job.ended_ns - canceled_ns, bound(AT_ONCE_NS));
    canceling = fixture_stats().canceling; /* Its slot stays counted until then. */
    ck_assert(canceling == 1 || cf_now_ns() - canceled_ns >= 299 * CF_MS);
    while (fixture_stats().canceling > 0) {
        struct cf_pg_stats stats = fixture_stats();

        ck_assert_uint_le(stats.idle + stats.busy + stats.canceling + stats.opening, 2);
        ck_assert_int_le(fixture_backends(fixture_view()), 3);
        (void)query_i64(&(struct cf_pg_stmt){.name = "cancel_other", .sql = "SELECT 1"}, NULL, 0);
        ck_assert_int_lt(cf_now_ns() - canceled_ns, bound(PATIENCE_NS));
    }
    ck_assert_int_ge(cf_now_ns() - canceled_ns, 299 * CF_MS);
    ck_assert_int_lt(cf_now_ns() - canceled_ns, 300 * CF_MS + bound(CF_SECOND));
    ck_assert_uint_eq(dropped(), 1);
    fixture_thaw(pid);
    job_fini(&job);
    fixture_settle();
    ck_assert_int_ne(backend_pid(), pid);
    WAIT_FOR(fixture_backends(fixture_view()) <= 3);
}
END_TEST

/* cf_pg_free() waits for a cancel, but not as long as the bound on it is. */
START_TEST(free_with_a_frozen_backend_is_bounded)
{
    struct job job;
    int64_t since_ns;
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1,
                                        .cancel = ways[_i],
                                        .cancel_timeout_ns = 10 * CF_SECOND},
                 1);
    job_init_sleep(&job, 60);
    job_start(&job);
    pid = fixture_wait_sleeper();
    fixture_freeze(pid);
    cf_ctx_cancel(job.ctx);
    job_wait(&job);
    job_fini(&job);
    since_ns = cf_now_ns();
    fixture_close();
    ck_assert_int_lt(cf_now_ns() - since_ns, 500 * CF_MS + bound(CF_SECOND));
    ck_assert_int_ge(events_get(CF_PG_EVENT_CANCELED, 0).outcome, CF_PG_DISPATCH_FAILED);
    fixture_thaw(pid);
    WAIT_FOR(fixture_backends(fixture_view()) == 0);
}
END_TEST

/* Suite */

static TCase *add_case(Suite *suite, const char *name)
{
    TCase *tc = tcase_create(name);

    tcase_add_checked_fixture(tc, fixture_setup, fixture_teardown);
    tcase_set_timeout(tc, 30);
    suite_add_tcase(suite, tc);
    return tc;
}

Suite *suite_pg_cancel(void)
{
    Suite *suite = suite_create("pg_cancel");
    TCase *tc = add_case(suite, "fences");

    tcase_add_loop_test(tc, cancel_effective_reuses_the_backend, 0, N(ways));
    tcase_add_loop_test(tc, cancel_too_late_reuses_the_backend, 0, N_WAYS);
    tcase_add_loop_test(tc, cancel_of_a_statement_that_fails_leaves_no_error, 0, N_WAYS);
    tcase_add_loop_test(tc, cancel_frees_the_locks, 0, N_WAYS);
    tcase_add_loop_test(tc, cancel_storm_loses_no_connection, 0, N(ways));
    tcase_add_loop_test(tc, cancel_by_control_connection_is_sent_before_the_query_returns, 0, 2);
    tcase_add_loop_test(tc, cancel_of_an_export_drains_it_without_holding_the_loop, 0, N_WAYS);
    tcase_add_loop_test(tc, cancel_that_is_ignored_drops_the_connection, 0, N_WAYS);
    tc = add_case(suite, "statement_timeout");
    tcase_add_loop_test(tc, statement_timeout_is_a_deadline_and_no_cancel, 0, 1);
    tcase_add_loop_test(tc, statement_timeout_that_meets_a_cancel_reuses_the_backend, 0, 1);
    tcase_add_test(tc, statement_timeout_of_less_than_a_millisecond_is_one);
    tc = add_case(suite, "frozen");
    tcase_add_loop_test(tc, cancel_of_a_frozen_backend_drops_the_connection, 0, N_WAYS);
    tcase_add_loop_test(tc, free_with_a_frozen_backend_is_bounded, 0, N_WAYS);
    return suite;
}
