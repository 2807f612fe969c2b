/* SPDX-License-Identifier: MIT */
/* Queries whose answer is a fault: a session that ends with a word and without a FIN, a constraint
 * that takes the rows back, a statement that is no query, or that the server has already.
 *
 * Sessions end behind a relay, which does to a connection what a test says. With a pool of one,
 * connection 0 is the pool's. */
#include "pg_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SCHEMA "curfew_test_pg_faults"

/* Fixture */

static const struct cf_pg_stmt one = {.name = "faults_one", .sql = "SELECT 1"};

/* Helpers */

static void make_tables(void)
{
    pgview_exec(fixture_view(), "drop schema if exists " SCHEMA " cascade; create schema " SCHEMA
                                "; create table " SCHEMA ".parent (id int primary key)"
                                "; create table " SCHEMA ".child (id int references " SCHEMA
                                ".parent deferrable initially deferred)");
}

static int64_t cpu_ns(void)
{
    struct timespec time;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return time.tv_sec * CF_SECOND + time.tv_nsec;
}

static int64_t resident_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    long pages = 0;

    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fscanf(file, "%*d %ld", &pages), 1);
    (void)fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

/* The end of a session */

START_TEST(reset_in_mid_query_is_told_in_libpqs_words)
{
    struct job job;
    int pid;

    fixture_open_behind(fixture_to_server,
                        (struct cf_pg_options){.pool_max = 1, .cancel = CF_PG_CANCEL_PQCANCEL});
    pid = backend_pid();
    job_init_sleep(&job, 60);
    job_start(&job);
    (void)fixture_wait_sleeper();
    relay_reset(&fixture.relay, 0);
    job_wait(&job);
    ck_assert_int_eq(job.code, CF_EUNAVAIL);
    ck_assert_msg(strstr(job.err.msg, "server closed the connection") != NULL, "%s", job.err.msg);
    ck_assert_int_ne(backend_pid(), pid);
    ck_assert_uint_eq(outcomes_sum(), 0);
    ck_assert_uint_eq(events_count(CF_PG_EVENT_LOST), 1);
    ck_assert_int_eq(events_get(CF_PG_EVENT_LOST, 0).backend_pid, pid);
    job_fini(&job);
}
END_TEST

/* An ErrorResponse, as a server that shuts down sends it. */
static const char last_word[] = "E\0\0\0\x4e"
                                "SFATAL\0VFATAL\0C57P01\0"
                                "Mterminating connection for a test\0"
                                "Ftest.c\0L1\0RTest\0";

static void mute_first(void *arg)
{
    struct job *job = arg;
    struct cf_ctx *ctx;

    ck_assert_int_eq(cf_ctx_with_timeout(cf_ctx_background(), 5 * CF_SECOND, &ctx, NULL), CF_OK);
    relay_mute(&fixture.relay, 0, last_word, sizeof(last_word));
    job->code = cf_pg_query(ctx, fixture.pg, &one, NULL, 0, &job->rows, &job->err);
    cf_ctx_free(ctx);
}

/* The word has come and the FIN has not. Once the loop sees it by itself; once it has no turn
 * between, and the look before lending must see it. */
START_TEST(fatal_without_an_end_is_not_lent)
{
    struct job job;
    int pid;

    fixture_open_behind(fixture_to_server,
                        (struct cf_pg_options){.pool_max = 1, .cancel = CF_PG_CANCEL_PQCANCEL});
    pid = backend_pid();
    job_init(&job, &one);
    if (_i == 0) {
        relay_mute(&fixture.relay, 0, last_word, sizeof(last_word));
        WAIT_FOR(events_count(CF_PG_EVENT_LOST) == 1);
        job_run(&job);
    } else {
        ck_assert_int_eq(cf_loop_call(fixture.loops[0], mute_first, &job, NULL), CF_OK);
    }
    ck_assert_msg(job.code == CF_OK, "%s", job.err.msg);
    job_fini(&job);
    ck_assert_int_ne(backend_pid(), pid);
    ck_assert_int_eq(events_get(CF_PG_EVENT_LOST, 0).backend_pid, pid);
    ck_assert_uint_eq(fixture_stats().opened, 2);
}
END_TEST

START_TEST(fatal_in_mid_query_without_an_end_is_its_error)
{
    struct job job;
    int pid;

    fixture_open_behind(fixture_to_server,
                        (struct cf_pg_options){.pool_max = 1, .cancel = CF_PG_CANCEL_PQCANCEL});
    pid = backend_pid();
    job_init_sleep(&job, 60);
    job.timeout_ns = 5 * CF_SECOND;
    job_start(&job);
    (void)fixture_wait_sleeper();
    relay_mute(&fixture.relay, 0, last_word, sizeof(last_word));
    job_wait(&job);
    ck_assert_msg(job.code == CF_EUNAVAIL, "%s", job.err.msg);
    ck_assert_str_eq(job.err.sqlstate, "57P01");
    job_fini(&job);
    ck_assert_int_ne(backend_pid(), pid);
    ck_assert_uint_eq(outcomes_sum(), 0);
}
END_TEST

/* Statements */

/* The rows come before what takes them back. */
START_TEST(deferred_constraint_takes_the_rows_back)
{
    static const struct cf_pg_stmt insert = {
        .name = "faults_deferred",
        .sql = "INSERT INTO " SCHEMA ".child VALUES (999) RETURNING repeat('x', 1000000)",
    };
    int64_t before = 0;
    struct job job;
    int pid;

    make_tables();
    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    pid = backend_pid();
    job_init(&job, &insert);
    for (int i = 0; i < 70; i++) {
        before = i == 6 ? resident_bytes() : before;
        job_run(&job);
        ck_assert_int_eq(job.code, CF_ECONFLICT);
        ck_assert_str_eq(job.err.sqlstate, "23503");
        ck_assert_ptr_null(job.rows);
    }
    ck_assert_int_lt(resident_bytes() - before, bound_strictly(16000000)); /* Of 64 million. */
    job_fini(&job);
    ck_assert_int_eq(backend_pid(), pid);
}
END_TEST

static const struct {
    struct cf_pg_stmt stmt;
    bool discards; /* There is no way on to the Sync. */
} no_queries[] = {
    {{.name = "faults_copy_out", .sql = "COPY " SCHEMA ".parent TO STDOUT"}, true},
    {{.name = "faults_copy_in", .sql = "COPY " SCHEMA ".parent FROM STDIN"}, true},
    {{.name = "faults_empty", .sql = ""}, false},
    {{.name = "faults_comment", .sql = "/* nothing */"}, false},
};

START_TEST(what_is_no_query_is_refused)
{
    int64_t cpu_before_ns;
    struct job job;
    int pid;

    make_tables();
    fixture_open((struct cf_pg_options){.pool_max = 1, .cancel = CF_PG_CANCEL_PQCANCEL}, 1);
    pid = backend_pid();
    job_init(&job, &no_queries[_i].stmt);
    job.timeout_ns = 3 * CF_SECOND;
    cpu_before_ns = cpu_ns();
    job_run(&job);
    ck_assert_msg(job.code == CF_EINTERNAL, "%d %s", job.code, job.err.msg);
    ck_assert_int_eq(backend_pid() != pid, no_queries[_i].discards);
    ck_assert_int_lt(cpu_ns() - cpu_before_ns, bound_strictly(200 * CF_MS));
    ck_assert_uint_eq(outcomes_sum(), 0);
    job_fini(&job);
}
END_TEST

/* Two statements of one name: what the server has and what the connection knows of it differ, as
 * after a Parse whose answer found no memory. */
START_TEST(statement_out_of_step_discards_the_connection)
{
    static const struct cf_pg_stmt first = {.name = "faults_twin", .sql = "SELECT 1"};
    static const struct cf_pg_stmt second = {.name = "faults_twin", .sql = "SELECT 2"};
    struct job job;
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    pid = backend_pid();
    ck_assert_int_eq(query_i64(&first, NULL, 0), 1);
    job_init(&job, &second);
    job_run(&job);
    ck_assert_str_eq(job.err.sqlstate, "42P05");
    job_fini(&job);
    ck_assert_int_eq(query_i64(&second, NULL, 0), 2);
    ck_assert_int_eq(events_get(CF_PG_EVENT_LOST, 0).backend_pid, pid);
    ck_assert_uint_eq(fixture_stats().opened, 2);
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

Suite *suite_pg_faults(void)
{
    Suite *suite = suite_create("pg_faults");
    TCase *tc = add_case(suite, "end");

    tcase_add_test(tc, reset_in_mid_query_is_told_in_libpqs_words);
    tcase_add_loop_test(tc, fatal_without_an_end_is_not_lent, 0, 2);
    tcase_add_test(tc, fatal_in_mid_query_without_an_end_is_its_error);
    tc = add_case(suite, "statements");
    tcase_add_test(tc, deferred_constraint_takes_the_rows_back);
    tcase_add_loop_test(tc, what_is_no_query_is_refused, 0, N(no_queries));
    tcase_add_test(tc, statement_out_of_step_discards_the_connection);
    return suite;
}
