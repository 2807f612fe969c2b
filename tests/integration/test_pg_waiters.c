/* SPDX-License-Identifier: MIT */
/* Queries that wait in line for a connection, and the attempts to make one: who is served, who has
 * left by then, and when the next attempt comes. */
#include "pg_fixture.h"

#include <stdlib.h>

#include <curfew/wait.h>

#include "fault.h"

#define SCHEMA "curfew_test_pg_waiters"

/* Fixture */

static const struct cf_pg_stmt one = {.name = "waiters_one", .sql = "SELECT 1"};

/* A turn in the line */

static struct job holder;
static struct job inserter;
static struct job follower;

/* On the loop, whose turn this is from the lending to the end: the one who is lent the connection
 * has not had its own turn when its context ends. */
static void lend_and_cancel(void *arg)
{
    static const struct cf_pg_stmt nap = {.name = "waiters_nap", .sql = "SELECT pg_sleep(0.05)"};
    struct cf_pg_rows *rows = NULL;

    (void)arg;
    job_start(&inserter);
    job_start(&follower);
    holder.code = cf_pg_query(cf_ctx_background(), fixture.pg, &nap, NULL, 0, &rows, NULL);
    cf_ctx_cancel(inserter.ctx);
    cf_pg_rows_free(rows);
}

START_TEST(waiter_canceled_before_its_turn_sends_nothing)
{
    static const struct cf_pg_stmt insert = {.name = "waiters_insert",
                                             .sql = "INSERT INTO " SCHEMA ".t VALUES (1)"};
    uint64_t queries;

    pgview_exec(fixture_view(), "drop schema if exists " SCHEMA " cascade; create schema " SCHEMA
                                "; create table " SCHEMA ".t (id int primary key)");
    fixture_open((struct cf_pg_options){.pool_max = 1, .cancel = CF_PG_CANCEL_PQCANCEL}, 1);
    (void)backend_pid();
    queries = fixture_stats().queries;
    job_init(&inserter, &insert);
    job_init(&follower, &one);
    ck_assert_int_eq(cf_loop_call(fixture.loops[0], lend_and_cancel, NULL, NULL), CF_OK);
    job_wait(&inserter);
    job_wait(&follower);
    fixture_settle();
    ck_assert_int_eq(holder.code, CF_OK);
    ck_assert_int_eq(inserter.code, CF_ECANCELED);
    ck_assert_str_eq(inserter.err.phase, "pool");
    ck_assert_int_eq(pgview_i64(fixture_view(), "select count(*) from " SCHEMA ".t", NULL), 0);
    ck_assert_uint_eq(fixture_stats().queries, queries + 2);
    ck_assert_int_eq(follower.code, CF_OK);
    ck_assert_uint_eq(fixture_stats().opened, 1);
    ck_assert_uint_eq(outcomes_sum(), 0);
    job_fini(&inserter);
    job_fini(&follower);
}
END_TEST

/* A server without room */

/* A server that has no room for a second connection: where the relay sends it, if not there. */
static atomic_int refusal; /* 0: it has room. */
static size_t n_before;    /* Connections before it was full, and attempts that failed. */
static size_t n_failed_before;

static int unless_full(size_t number)
{
    int word = atomic_load(&refusal);

    (void)number;
    return word != 0 ? word : fixture.server_port;
}

static size_t n_failed(void)
{
    return events_count(CF_PG_EVENT_CONNECT_FAILED) - n_failed_before;
}

/* With one connection open, and busy. */
static void open_on_full_server(int word)
{
    atomic_store(&refusal, 0);
    fixture_open_behind(unless_full, (struct cf_pg_options){.pool_max = 2,
                                                            .cancel = CF_PG_CANCEL_PQCANCEL,
                                                            .connect_timeout_ns = 500 * CF_MS});
    WAIT_FOR(fixture_stats().idle == 1);
    n_before = atomic_load(&fixture.relay.accepted);
    n_failed_before = events_count(CF_PG_EVENT_CONNECT_FAILED);
    atomic_store(&refusal, word);
    job_init_sleep(&holder, 60);
    job_start(&holder);
    (void)fixture_wait_sleeper();
}

static void end_holder(void)
{
    atomic_store(&refusal, 0);
    cf_ctx_cancel(holder.ctx);
    job_wait(&holder);
    job_fini(&holder);
    fixture_settle();
}

START_TEST(waiter_gets_the_second_connection_when_the_server_has_room_again)
{
    struct job job;

    open_on_full_server(RELAY_CLOSE);
    job_init(&job, &one);
    job_start(&job);
    WAIT_FOR(n_failed() >= 3); /* Repeated, with nobody new, */
    WAIT_FOR(atomic_load(&fixture.relay.accepted) >= n_before + 3);
    ck_assert_int_lt(fixture.relay.at_ns[n_before + 2] - fixture.relay.at_ns[n_before],
                     bound(1500 * CF_MS)); /* and before the housekeeper has come twice. */
    ck_assert_uint_eq(fixture_stats().waiting, 1);
    atomic_store(&refusal, 0);
    job_wait(&job);
    ck_assert_int_eq(job.code, CF_OK);
    ck_assert_uint_eq(fixture_stats().busy, 1); /* The holder is not what it waited for. */
    job_fini(&job);
    end_holder();
}
END_TEST

/* A query that gives up soon, and makes the pool try. */
static void wait_briefly(void)
{
    struct job job;

    job_init(&job, &one);
    job.timeout_ns = 5 * CF_MS;
    job_run(&job);
    ck_assert_int_eq(job.code, CF_EDEADLINE);
    job_fini(&job);
}

/* An attempt that fails when the queries that it was for have gone. */
static void fail_behind_its_back(void)
{
    size_t accepted = atomic_load(&fixture.relay.accepted);

    atomic_store(&refusal, RELAY_HOLD);
    WAIT_FOR((wait_briefly(), atomic_load(&fixture.relay.accepted) > accepted));
    atomic_store(&refusal, RELAY_CLOSE);
    relay_release(&fixture.relay);
    WAIT_FOR(fixture_stats().opening == 0);
}

/* Once there is always somebody in line, once nobody when an attempt fails. */
START_TEST(waiters_do_not_hasten_the_next_attempt)
{
    size_t n = 4;

    open_on_full_server(RELAY_CLOSE);
    while (n_failed() <= n) {
        (_i == 0 ? wait_briefly : fail_behind_its_back)();
    }
    WAIT_FOR(atomic_load(&fixture.relay.accepted) > n_before + n);
    for (size_t i = 0; i < n; i++) {
        int64_t retry_ns = events_get(CF_PG_EVENT_CONNECT_FAILED, n_failed_before + i).retry_ns;
        const int64_t *at_ns = &fixture.relay.at_ns[n_before + i];

        ck_assert_int_ge(retry_ns, (50 * CF_MS) << i);
        ck_assert_int_ge(at_ns[1] - at_ns[0], retry_ns);
    }
    end_holder();
}
END_TEST

/* The housekeeper */

static bool starved;

/* Without memory on the loop until the housekeeper has had a turn, and has to sleep again. */
static void starve(void *arg)
{
    size_t before = events_count(CF_PG_EVENT_CLOSED);
    int64_t until_ns = cf_now_ns() + PATIENCE_NS;

    (void)arg;
    fault_alloc(1, true);
    while (events_count(CF_PG_EVENT_CLOSED) == before && cf_now_ns() < until_ns) {
        (void)!cf_yield(cf_ctx_background(), NULL);
    }
    (void)!cf_yield(cf_ctx_background(), NULL);
    starved = fault_off();
}

/* Nobody asks for a connection: only the housekeeper replaces the one that is too old. */
START_TEST(housekeeper_outlives_a_lack_of_memory)
{
    uint64_t opened;

    fixture_open((struct cf_pg_options){.pool_max = 1,
                                        .lifetime_ns = 100 * CF_MS,
                                        .cancel = CF_PG_CANCEL_PQCANCEL},
                 1);
    WAIT_FOR(fixture_stats().idle == 1);
    ck_assert_int_eq(cf_loop_call(fixture.loops[0], starve, NULL, NULL), CF_OK);
    ck_assert(starved);
    opened = fixture_stats().opened;
    WAIT_FOR(fixture_stats().opened >= opened + 2); /* And the one after that. */
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

Suite *suite_pg_waiters(void)
{
    Suite *suite = suite_create("pg_waiters");
    TCase *tc = add_case(suite, "line");

    tcase_add_test(tc, waiter_canceled_before_its_turn_sends_nothing);
    tcase_add_test(tc, waiter_gets_the_second_connection_when_the_server_has_room_again);
    tcase_add_loop_test(tc, waiters_do_not_hasten_the_next_attempt, 0, 2);
    tc = add_case(suite, "housekeeper");
    tcase_add_test(tc, housekeeper_outlives_a_lack_of_memory);
    return suite;
}
