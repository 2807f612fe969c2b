/* SPDX-License-Identifier: MIT */
/* cf_pg_query() and the ends of its context: before, in line, while the statement runs, in the same
 * instant as its success, and without memory. */
#include "pg_fixture.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/wait.h>

/* Fixture */

static const struct cf_pg_stmt echo = {.name = "query_echo", .sql = "SELECT $1::bigint"};

static void setup(void)
{
    fixture_setup();
    fixture_open((struct cf_pg_options){.pool_max = 2}, 1);
    (void)backend_pid(); /* One connection is there. */
}

/* One connection, which a statement has; see hold(). */
static struct job holder;

static void setup_one(void)
{
    fixture_setup();
    fixture_open((struct cf_pg_options){.pool_max = 1, .waiters_max = 40}, 1);
    job_init_sleep(&holder, 60);
    job_start(&holder);
    WAIT_FOR(pgview_active(fixture_view(), SLEEP_PATTERN) == 1);
    WAIT_FOR(fixture_stats().queries == 1); /* Counted after it was sent. */
}

static void let_go(void)
{
    cf_ctx_cancel(holder.ctx);
    job_wait(&holder);
    ck_assert_int_eq(holder.code, CF_ECANCELED);
    job_fini(&holder);
}

/* Helpers */

static void init_echo(struct job *job, int64_t number)
{
    job_init(job, &echo);
    job->params[0] = cf_pg_i64(number);
    job->n_params = 1;
}

static void expect_number(const struct job *job, int64_t number)
{
    ck_assert_msg(job->code == CF_OK, "%s", job->err.msg);
    ck_assert_uint_eq(cf_pg_rows_count(job->rows), 1);
    ck_assert_int_eq(cf_pg_get_i64(job->rows, 0, 0), number);
}

/* Many queries in a row, each with the right answer. */
static void expect_works(int queries)
{
    for (int i = 0; i < queries; i++) {
        ck_assert_int_eq(query_i64(&echo, (struct cf_pg_param[]){cf_pg_i64(i)}, 1), i);
    }
}

static void expect_ended(const struct job *job, enum cf_code code, const char *phase)
{
    ck_assert_int_eq(job->code, code);
    ck_assert_int_eq(job->err.code, code);
    ck_assert_ptr_null(job->rows);
    ck_assert_str_eq(job->err.sqlstate, "");
    if (phase == NULL) {
        ck_assert_ptr_null(job->err.phase);
    } else {
        ck_assert_str_eq(job->err.phase, phase);
    }
}

/* Done before it starts */

START_TEST(query_already_canceled_touches_nothing)
{
    struct cf_pg_stats before = fixture_stats();
    struct job job;

    job_init_sleep(&job, 60);
    cf_ctx_cancel(job.ctx);
    job_run(&job);
    expect_ended(&job, CF_ECANCELED, NULL);
    ck_assert_uint_eq(fixture_stats().queries, before.queries);
    ck_assert_uint_eq(fixture_stats().opened, before.opened);
    ck_assert_int_eq(pgview_i64(fixture_view(),
                                "select count(*) from pg_stat_activity where query ~ $1",
                                (const char *[]){SLEEP_PATTERN, NULL}),
                     0);
    job_fini(&job);
}
END_TEST

START_TEST(query_already_past_its_deadline_touches_nothing)
{
    struct cf_pg_stats before = fixture_stats();
    struct job job;

    job_init_sleep(&job, 60);
    job.timeout_ns = 1;
    job_run(&job);
    expect_ended(&job, CF_EDEADLINE, NULL);
    ck_assert_uint_eq(fixture_stats().queries, before.queries);
    ck_assert_uint_eq(fixture_stats().opened, before.opened);
    job_fini(&job);
}
END_TEST

START_TEST(query_already_canceled_does_not_wait_in_line)
{
    struct job job;

    init_echo(&job, 1);
    cf_ctx_cancel(job.ctx);
    job_run(&job);
    expect_ended(&job, CF_ECANCELED, NULL);
    ck_assert_uint_eq(fixture_stats().waiting, 0);
    job_fini(&job);
    let_go();
}
END_TEST

/* In line */

START_TEST(query_canceled_while_waiting_leaves_the_line)
{
    struct job first;
    struct job second;
    int64_t canceled_ns;
    int64_t queries = (int64_t)fixture_stats().queries;

    init_echo(&first, 1);
    init_echo(&second, 2);
    job_start(&first);
    WAIT_FOR(fixture_stats().waiting == 1);
    job_start(&second);
    WAIT_FOR(fixture_stats().waiting == 2);
    canceled_ns = cf_now_ns();
    cf_ctx_cancel(first.ctx);
    job_wait(&first);
    expect_ended(&first, CF_ECANCELED, "pool");
    ck_assert_int_lt(first.ended_ns - canceled_ns, bound(AT_ONCE_NS));
    ck_assert_uint_eq(fixture_stats().waiting, 1);
    let_go();
    job_wait(&second);
    expect_number(&second, 2);
    ck_assert_int_eq((int64_t)fixture_stats().queries, queries + 1);
    job_fini(&first);
    job_fini(&second);
}
END_TEST

START_TEST(query_deadline_while_waiting_leaves_the_line)
{
    struct job job;

    init_echo(&job, 1);
    job.timeout_ns = 30 * CF_MS;
    job_run(&job);
    expect_ended(&job, CF_EDEADLINE, "pool");
    ck_assert_int_ge(job.ended_ns - job.began_ns, 29 * CF_MS);
    ck_assert_int_lt(job.ended_ns - job.began_ns, 30 * CF_MS + bound(AT_ONCE_NS));
    ck_assert_uint_eq(fixture_stats().waiting, 0);
    job_fini(&job);
    let_go();
    expect_works(3);
}
END_TEST

START_TEST(query_limit_reached_is_refused)
{
    static struct job jobs[40];
    struct job late;

    for (int i = 0; i < N(jobs); i++) {
        init_echo(&jobs[i], i);
        job_start(&jobs[i]);
    }
    WAIT_FOR(fixture_stats().waiting == (size_t)N(jobs));
    init_echo(&late, -1);
    job_run(&late);
    expect_ended(&late, CF_ELIMIT, "pool");
    ck_assert_int_lt(late.ended_ns - late.began_ns, bound(AT_ONCE_NS));

    /* The place of one who leaves is free. */
    cf_ctx_cancel(jobs[7].ctx);
    job_wait(&jobs[7]);
    job_start(&late);
    WAIT_FOR(fixture_stats().waiting == (size_t)N(jobs));
    let_go();
    for (int i = 0; i < N(jobs); i++) {
        if (i != 7) {
            job_wait(&jobs[i]);
            expect_number(&jobs[i], i);
        }
        job_fini(&jobs[i]);
    }
    job_wait(&late);
    expect_number(&late, -1);
    job_fini(&late);
}
END_TEST

START_TEST(query_waits_in_the_order_of_coming)
{
    static struct job jobs[30];
    size_t place = 0;

    for (int i = 0; i < N(jobs); i++) {
        init_echo(&jobs[i], i);
        job_start(&jobs[i]);
        WAIT_FOR(fixture_stats().waiting == (size_t)i + 1);
    }
    for (int i = 0; i < N(jobs); i += 5) { /* The first and some in the middle leave. */
        cf_ctx_cancel(jobs[i].ctx);
        job_wait(&jobs[i]);
        ck_assert_int_eq(jobs[i].code, CF_ECANCELED);
    }
    let_go();
    for (int i = 0; i < N(jobs); i++) {
        if (i % 5 != 0) {
            job_wait(&jobs[i]);
            expect_number(&jobs[i], i);
            ck_assert_uint_ge(jobs[i].place, place);
            place = jobs[i].place;
        }
        job_fini(&jobs[i]);
    }
}
END_TEST

/* While the statement runs */

static const enum cf_pg_cancel_way ways[] = {CF_PG_CANCEL_AUTO, CF_PG_CANCEL_CONTROL,
                                             CF_PG_CANCEL_PQCANCEL};

START_TEST(query_canceled_while_running_returns_at_once)
{
    int64_t returned_ns[20];
    int64_t gone_ns[20];
    struct job job;

    fixture_setup();
    fixture_open((struct cf_pg_options){.pool_max = 2, .cancel = ways[_i]}, 1);
    for (int i = 0; i < N(returned_ns); i++) {
        int64_t canceled_ns;

        job_init_sleep(&job, 60);
        job_start(&job);
        ck_assert_int_ge(pgview_wait_active(fixture_view(), SLEEP_PATTERN, 1, PATIENCE_NS), 0);
        canceled_ns = cf_now_ns();
        cf_ctx_cancel(job.ctx);
        job_wait(&job);
        returned_ns[i] = job.ended_ns - canceled_ns;
        gone_ns[i] = pgview_wait_active(fixture_view(), SLEEP_PATTERN, 0, PATIENCE_NS);
        ck_assert_int_ge(gone_ns[i], 0);
        expect_ended(&job, CF_ECANCELED, "query");
        job_fini(&job);
    }
    ck_assert_int_lt(permille(returned_ns, N(returned_ns), 500), bound(10 * CF_MS));
    ck_assert_int_lt(permille(gone_ns, N(gone_ns), 500), bound(200 * CF_MS));
    if (getenv("CF_TEST_LONG") != NULL) {
        (void)fprintf(stderr, "  way %d: returned %.3f ms, gone %.3f ms (medians)\n", _i,
                      (double)permille(returned_ns, N(returned_ns), 500) / CF_MS,
                      (double)permille(gone_ns, N(gone_ns), 500) / CF_MS);
    }
    expect_works(5);
}
END_TEST

START_TEST(query_deadline_while_running_returns_at_once)
{
    struct job job;

    job_init_sleep(&job, 60);
    job.timeout_ns = 50 * CF_MS;
    job_run(&job);
    expect_ended(&job, CF_EDEADLINE, "query");
    ck_assert_int_ge(job.ended_ns - job.began_ns, 49 * CF_MS);
    ck_assert_int_lt(job.ended_ns - job.began_ns, 50 * CF_MS + bound(AT_ONCE_NS));
    ck_assert_int_ge(pgview_wait_active(fixture_view(), SLEEP_PATTERN, 0, 2 * CF_SECOND), 0);
    job_fini(&job);
    expect_works(5);
}
END_TEST

/* The caller does not say why it failed; nothing is written where nothing is wanted. */
START_TEST(query_without_an_error_to_fill_fails_the_same)
{
    static const struct cf_pg_stmt wrong = {.name = "query_wrong", .sql = "SELECT no_such"};
    struct job job;

    job_init(&job, &wrong);
    job.no_err = true;
    job_run(&job);
    ck_assert_int_eq(job.code, CF_EINTERNAL);
    ck_assert_int_eq(job.err.code, CF_OK);
    job_fini(&job);
    job_init_sleep(&job, 60);
    job.no_err = true;
    job.timeout_ns = 20 * CF_MS;
    job_run(&job);
    ck_assert_int_eq(job.code, CF_EDEADLINE);
    job_fini(&job);
}
END_TEST

/* A parameter that the server has not read yet: the cancel meets a backend that runs nothing. */
START_TEST(query_canceled_while_it_is_being_sent_is_over)
{
    static const struct cf_pg_stmt large = {.name = "query_large",
                                            .sql = "SELECT length($1), pg_sleep(60)"};
    size_t size = (size_t)16 << 20;
    char *text = malloc(size + 1);
    struct job job;

    (void)backend_pid();
    ck_assert_ptr_nonnull(text);
    memset(text, 'x', size);
    text[size] = '\0';
    job_init(&job, &large);
    job.params[0] = cf_pg_str(text);
    job.n_params = 1;
    job.timeout_ns = 2 * CF_MS;
    job_run(&job);
    free(text); /* What is still to be sent is the library's own by now. */
    expect_ended(&job, CF_EDEADLINE, "query");
    job_fini(&job);
    fixture_settle();
    ck_assert_uint_eq(fixture_stats().cancels[CF_PG_EFFECTIVE], 1);
    (void)backend_pid(); /* Another: what sent so much is closed when it is given back, whole. */
    ck_assert_uint_eq(events_count(CF_PG_EVENT_LOST), 0);
    ck_assert_uint_eq(events_count(CF_PG_EVENT_CLOSED), 1);
    ck_assert_int_eq(events_get(CF_PG_EVENT_CLOSED, 0).err.code, CF_OK);
}
END_TEST

/* Success races cancel */

#define RACERS 6
#define RACE_MS 1000

struct race {
    struct cf_loop *loop;
    int64_t until_ns;
    unsigned seed;
    int ended;
    int succeeded;
    int wrong;
    char failure[CF_ERR_MSG_SIZE + 8];
    sem_t done;
};

/* One query whose context ends about when its statement does. */
static void race_once(struct race *race, int64_t number)
{
    static const struct cf_pg_stmt slow = {.name = "query_race",
                                           .sql = "SELECT $1::bigint FROM pg_sleep(0.004)"};
    struct cf_pg_param params[] = {cf_pg_i64(number)};
    struct cf_pg_rows *rows = NULL;
    struct cf_ctx *ctx;
    struct cf_err err;
    enum cf_code code;

    if (cf_ctx_with_timeout(cf_ctx_background(), rand_r(&race->seed) % (10 * CF_MS), &ctx, &err) !=
        CF_OK) {
        return;
    }
    code = cf_pg_query(ctx, fixture.pg, &slow, params, 1, &rows, &err);
    cf_ctx_free(ctx);
    if (code == CF_OK) {
        race->succeeded++;
        race->wrong += cf_pg_rows_count(rows) != 1 || cf_pg_get_i64(rows, 0, 0) != number;
    } else if (code == CF_EDEADLINE && err.sqlstate[0] == '\0') {
        race->ended++;
    } else if (race->failure[0] == '\0') {
        (void)snprintf(race->failure, sizeof(race->failure), "%s %s", err.sqlstate, err.msg);
    }
    cf_pg_rows_free(rows);
}

/* For its time, and on a busy machine until there was a race at all. */
static bool goes_on(const struct race *race)
{
    int64_t over_ns = cf_now_ns() - race->until_ns;

    return over_ns < 0 || (over_ns < 5 * CF_SECOND && (race->succeeded == 0 || race->ended == 0));
}

static void run_racer(void *arg)
{
    struct race *race = arg;

    for (int64_t number = 0; goes_on(race); number++) {
        race_once(race, number);
    }
    (void)sem_post(&race->done);
}

START_TEST(query_success_races_cancel)
{
    int64_t for_ms = getenv("CF_TEST_LONG") != NULL ? 10 * RACE_MS : RACE_MS;
    struct cf_pg_stats stats;
    struct race races[RACERS];
    int ended = 0;
    int succeeded = 0;

    fixture_setup();
    fixture_open((struct cf_pg_options){.pool_max = 4, .cancel = ways[_i]}, 2);
    for (int i = 0; i < RACERS; i++) {
        races[i] = (struct race){.loop = fixture.loops[i % 2],
                                 .until_ns = cf_now_ns() + for_ms * CF_MS,
                                 .seed = (unsigned)i + 1};
        ck_assert_int_eq(sem_init(&races[i].done, 0, 0), 0);
        ck_assert_int_eq(cf_loop_spawn(races[i].loop, run_racer, &races[i], NULL), CF_OK);
    }
    for (int i = 0; i < RACERS; i++) {
        while (sem_trywait(&races[i].done) != 0) {
            stats = fixture_stats();
            /* Each is read at its own instant, and a slot may be seen in two states. */
            ck_assert_uint_le(stats.idle + stats.busy + stats.canceling + stats.opening,
                              2 * stats.pool_max);
            ck_assert_int_lt(cf_now_ns(), races[i].until_ns + bound(PATIENCE_NS));
            pause_ms(1);
        }
        ck_assert_msg(races[i].failure[0] == '\0', "%s", races[i].failure);
        ck_assert_int_eq(races[i].wrong, 0);
        ended += races[i].ended;
        succeeded += races[i].succeeded;
        (void)sem_destroy(&races[i].done);
    }
    ck_assert_int_gt(ended, 0);
    ck_assert_int_gt(succeeded, 0);
    fixture_settle();
    expect_works(50);
    stats = fixture_stats();
    ck_assert_uint_le(stats.opened, 4); /* No cancel cost a connection. */
    ck_assert_uint_eq(stats.cancels[CF_PG_CONNECTION_DROPPED], 0);
    ck_assert_uint_eq(stats.cancels[CF_PG_DISPATCH_FAILED], 0);
    ck_assert_uint_gt(stats.cancels[CF_PG_EFFECTIVE] + stats.cancels[CF_PG_TOO_LATE], 0);
}
END_TEST

/* Out of memory */

/* How long a statement takes, and how long its context lives. */
static const struct {
    double sleep_s;
    int64_t timeout_ns;
    bool for_good;
} no_memory[] = {
    {0, 0, false},
    {0, 0, true},
    {60, 5 * CF_MS, false},
    {60, 5 * CF_MS, true},
};

/* Each allocation of ours fails in turn: those of the query, of its context's end, and of the
 * fibers that connect and cancel meanwhile on its loop. */
START_TEST(query_out_of_memory_fails_and_the_next_works)
{
    bool struck = true;
    unsigned nth;

    fixture_setup();
    fixture_open((struct cf_pg_options){.pool_max = 2, .backoff_max_ns = CF_MS}, 1);
    WAIT_FOR(fixture_stats().idle == 1);
    for (nth = 1; struck; nth++) {
        struct job job;

        ck_assert_uint_lt(nth, 500);
        job_init_sleep(&job, no_memory[_i].sleep_s);
        job.timeout_ns = no_memory[_i].timeout_ns;
        job.fault = nth;
        job.fault_for_good = no_memory[_i].for_good;
        job_run(&job);
        struck = job.struck;
        if (job.code != CF_OK && job.code != CF_EDEADLINE) {
            ck_assert_msg(job.code == CF_ENOMEM && struck, "allocation %u: %d %s", nth, job.code,
                          job.err.msg);
        }
        job_fini(&job);
        expect_works(1);
    }
    ck_assert_uint_gt(nth, 2);
    fixture_settle();
}
END_TEST

/* The same where the connection is still to be made, which the query waits for: the only other one
 * is in use. */
START_TEST(query_out_of_memory_while_connecting_recovers)
{
    bool struck = true;
    struct job hold;

    fixture_setup();
    fixture_open((struct cf_pg_options){.pool_max = 2,
                                        .cancel = CF_PG_CANCEL_PQCANCEL,
                                        .backoff_max_ns = CF_MS},
                 1);
    job_init_sleep(&hold, 60);
    job_start(&hold);
    ck_assert_int_ge(pgview_wait_active(fixture_view(), SLEEP_PATTERN, 1, PATIENCE_NS), 0);
    for (unsigned nth = 1; struck; nth++) {
        struct job job;

        ck_assert_uint_lt(nth, 200);
        init_echo(&job, 5);
        job.fault = nth;
        job_run(&job);
        struck = job.struck;
        ck_assert_msg(job.code == CF_OK || (job.code == CF_ENOMEM && struck),
                      "allocation %u: %d %s", nth, job.code, job.err.msg);
        job_fini(&job);
        expect_works(1);
        ck_assert_int_eq(pgview_i64(fixture_view(),
                                    "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                                    " where application_name = $1 and state = 'idle'",
                                    (const char *[]){fixture.app, NULL}),
                         1);
        WAIT_FOR(fixture_stats().idle + fixture_stats().opening == 0);
    }
    cf_ctx_cancel(hold.ctx);
    job_wait(&hold);
    job_fini(&hold);
    fixture_settle();
}
END_TEST

/* The end of the database */

START_TEST(free_while_cancels_are_under_way_waits_for_them)
{
    static struct job jobs[8];
    int64_t since_ns;

    fixture_setup();
    fixture_open((struct cf_pg_options){.pool_max = 8, .cancel = ways[_i]}, 2);
    for (int i = 0; i < N(jobs); i++) {
        job_init_sleep(&jobs[i], 60);
        jobs[i].loop = (size_t)i % 2;
        job_start(&jobs[i]);
    }
    ck_assert_int_ge(pgview_wait_active(fixture_view(), SLEEP_PATTERN, N(jobs), PATIENCE_NS), 0);
    for (int i = 0; i < N(jobs); i++) {
        cf_ctx_cancel(jobs[i].ctx);
    }
    for (int i = 0; i < N(jobs); i++) {
        job_wait(&jobs[i]);
        ck_assert_int_eq(jobs[i].code, CF_ECANCELED);
        job_fini(&jobs[i]);
    }
    since_ns = cf_now_ns();
    fixture_close();
    ck_assert_int_lt(cf_now_ns() - since_ns, bound(2 * CF_SECOND));
    ck_assert_uint_eq(events_count(CF_PG_EVENT_CANCELED), 8);
    for (size_t i = 0; i < 8; i++) {
        ck_assert_int_eq(events_get(CF_PG_EVENT_CANCELED, i).outcome, CF_PG_EFFECTIVE);
    }
    WAIT_FOR(fixture_backends(fixture_view()) == 0);
}
END_TEST

START_TEST(free_null_does_nothing)
{
    cf_pg_free(NULL);
}
END_TEST

/* A connection belongs to a loop, so a query needs a fiber. */
START_TEST(query_on_a_plain_thread_asserts)
{
    struct cf_pg_param params[] = {cf_pg_f64(0)};
    struct cf_pg_rows *rows;

    ck_assert_int_eq(
        cf_pg_query(cf_ctx_background(), fixture.pg, &sleep_stmt, params, 1, &rows, NULL), CF_OK);
}
END_TEST

/* Suite */

static TCase *add_case(Suite *suite, const char *name, void (*set_up)(void))
{
    TCase *tc = tcase_create(name);

    tcase_add_checked_fixture(tc, set_up, fixture_teardown);
    tcase_set_timeout(tc, 30);
    suite_add_tcase(suite, tc);
    return tc;
}

Suite *suite_pg_query(void)
{
    Suite *suite = suite_create("pg_query");
    TCase *tc = add_case(suite, "query", setup);

    tcase_add_test(tc, query_already_canceled_touches_nothing);
    tcase_add_test(tc, query_already_past_its_deadline_touches_nothing);
    tcase_add_test(tc, query_deadline_while_running_returns_at_once);
    tcase_add_test(tc, query_without_an_error_to_fill_fails_the_same);
    tcase_add_test(tc, query_canceled_while_it_is_being_sent_is_over);
    tc = add_case(suite, "line", setup_one);
    tcase_add_test(tc, query_already_canceled_does_not_wait_in_line);
    tcase_add_test(tc, query_canceled_while_waiting_leaves_the_line);
    tcase_add_test(tc, query_deadline_while_waiting_leaves_the_line);
    tcase_add_test(tc, query_limit_reached_is_refused);
    tcase_add_test(tc, query_waits_in_the_order_of_coming);
    tc = add_case(suite, "ways", NULL);
    tcase_add_loop_test(tc, query_canceled_while_running_returns_at_once, 0, N(ways));
    tcase_add_loop_test(tc, query_success_races_cancel, 0, N(ways));
    tcase_add_loop_test(tc, free_while_cancels_are_under_way_waits_for_them, 0, N(ways));
    tcase_add_test(tc, free_null_does_nothing);
    tc = add_case(suite, "memory", NULL);
    tcase_add_loop_test(tc, query_out_of_memory_fails_and_the_next_works, 0, N(no_memory));
    tcase_add_test(tc, query_out_of_memory_while_connecting_recovers);
    tc = add_case(suite, "asserts", setup);
    tcase_set_tags(tc, "fork");
    tcase_add_test_raise_signal(tc, query_on_a_plain_thread_asserts, SIGABRT);
    return suite;
}
