/* SPDX-License-Identifier: MIT */
/* Streams of rows: all that come and no more, a reader who is slow, and every way to end early.
 *
 * A test starts a reader on the loop, which takes rows until the stream ends or a limit is reached,
 * and looks at it and at the server in between. */
#include "pg_fixture.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curfew/pg_stream.h>
#include <curfew/wait.h>

#include "effort.h"
#include "fault.h"

/* More than libpq, both sockets and the server hold between them. */
#define MANY 200000

/* Fixture */

/* $1 rows of a number and a text. (What stands behind FROM would be made as a whole first.) */
static const struct cf_pg_stmt numbers = {
    .name = "stream_numbers",
    .sql = "SELECT g, 'number ' || g FROM (SELECT generate_series(1, $1::bigint) AS g) s",
    .columns = "it"};

#define NUMBERS "^SELECT g, 'number"

/* Rows that the server sends at once, because they are large, and then none for a minute. */
static const struct cf_pg_stmt drip = {
    .name = "stream_drip",
    .sql = "SELECT g, repeat('x', 10000), pg_sleep(CASE WHEN g > 5 THEN 60 ELSE 0 END)::text"
           " FROM generate_series(1, 10::bigint) g"};

#define DRIP_COMES 4 /* Of five; before PostgreSQL 17 the last stays in a buffer of the server. */

/* The 5,000th has no value. */
static const struct cf_pg_stmt breaks = {
    .name = "stream_breaks", .sql = "SELECT 1 / (5000 - g) FROM generate_series(1, 10000) g"};

static const struct cf_pg_stmt wrong = {.name = "stream_wrong",
                                        .sql = "SELECT g FROM generate_series(1, 100000::bigint) g",
                                        .columns = "t"};

static const struct cf_pg_stmt no_rows = {.name = "stream_no_rows",
                                          .sql = "SET LOCAL work_mem = '4MB'"};

static const struct cf_pg_stmt show_timeout = {
    .name = "stream_show_timeout",
    .sql = "SELECT extract(epoch FROM current_setting('statement_timeout')::interval)::bigint"};

struct reader {
    const struct cf_pg_stmt *stmt;
    struct cf_pg_param params[1];
    size_t n_params;
    struct cf_pg_stream_options options;
    struct cf_ctx *ctx;
    struct cf_ctx *go_on; /* Done: a reader that has paused goes on. */
    int64_t timeout_ns;   /* > 0: of a child of `ctx`. */
    int64_t pause_after;  /* Rows; 0: never. */
    int64_t close_after;  /* Rows; 0: at the end. */
    unsigned fault;       /* > 0: this allocation fails. */

    struct cf_pg_stream *stream;
    atomic_int_fast64_t n; /* Rows so far. */
    atomic_bool paused;
    int64_t sum; /* Of the first column, if it is said to be an integer. */
    size_t batch_max;
    int64_t resident_max;
    bool struck;
    enum cf_code open;
    enum cf_code next;
    enum cf_code again; /* The call after the one that failed. */
    struct cf_err err;
    int64_t began_ns;
    int64_t ended_ns;
    sem_t done;
};

static struct reader reader;

/* Helpers */

static int64_t resident_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    long pages = 0;

    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fscanf(file, "%*d %ld", &pages), 1);
    (void)fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

static void reader_init(struct reader *r, const struct cf_pg_stmt *stmt)
{
    *r = (struct reader){.stmt = stmt, .open = CF_EINTERNAL, .next = CF_EINTERNAL};
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &r->ctx, NULL), CF_OK);
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &r->go_on, NULL), CF_OK);
    ck_assert_int_eq(sem_init(&r->done, 0, 0), 0);
}

static void reader_init_numbers(struct reader *r, int64_t count)
{
    reader_init(r, &numbers);
    r->params[0] = cf_pg_i64(count);
    r->n_params = 1;
}

static void reader_fini(struct reader *r)
{
    cf_ctx_free(r->ctx);
    cf_ctx_free(r->go_on);
    (void)sem_destroy(&r->done);
}

static void take(struct reader *r, struct cf_pg_rows *rows)
{
    size_t count = cf_pg_rows_count(rows);

    for (size_t i = 0; i < count; i++) {
        r->sum += r->stmt->columns != NULL ? cf_pg_get_i64(rows, i, 0) : 0;
    }
    cf_pg_rows_free(rows);
    r->batch_max = count > r->batch_max ? count : r->batch_max;
    (void)atomic_fetch_add(&r->n, (int_fast64_t)count);
    if (atomic_load(&r->n) % 10000 == 0) {
        int64_t resident = resident_bytes();

        r->resident_max = resident > r->resident_max ? resident : r->resident_max;
    }
}

static void read_on(struct cf_ctx *ctx, struct reader *r)
{
    struct cf_pg_rows *rows;

    while ((r->next = cf_pg_stream_next(ctx, r->stream, &rows, &r->err)) == CF_OK) {
        take(r, rows);
        if (atomic_load(&r->n) == r->close_after) {
            return;
        }
        if (atomic_load(&r->n) == r->pause_after) {
            atomic_store(&r->paused, true);
            ck_assert_int_eq(cf_wait_done(cf_ctx_background(), r->go_on, NULL), CF_OK);
        }
    }
    r->again = cf_pg_stream_next(ctx, r->stream, &rows, NULL);
}

static void run_reader(void *arg)
{
    struct reader *r = arg;
    struct cf_ctx *ctx = r->ctx;

    if (r->timeout_ns > 0) {
        ck_assert_int_eq(cf_ctx_with_timeout(r->ctx, r->timeout_ns, &ctx, NULL), CF_OK);
    }
    if (r->fault > 0) {
        fault_alloc(r->fault, false);
    }
    r->began_ns = cf_now_ns();
    r->open = cf_pg_stream_open(ctx, fixture.pg, r->stmt, r->params, r->n_params, &r->options,
                                &r->stream, &r->err);
    if (r->open == CF_OK) {
        read_on(ctx, r);
        cf_pg_stream_close(r->stream);
    }
    r->ended_ns = cf_now_ns();
    r->struck = r->fault > 0 && fault_off();
    if (r->timeout_ns > 0) {
        cf_ctx_free(ctx);
    }
    (void)sem_post(&r->done);
}

static void reader_start(struct reader *r)
{
    ck_assert_int_eq(cf_loop_spawn(fixture.loops[0], run_reader, r, NULL), CF_OK);
}

static void reader_wait(struct reader *r)
{
    ck_assert_int_eq(sem_wait(&r->done), 0); /* The test has a time limit. */
}

static void reader_run(struct reader *r)
{
    reader_start(r);
    reader_wait(r);
}

static void expect_all(const struct reader *r, int64_t count)
{
    ck_assert_int_eq(r->open, CF_OK);
    ck_assert_msg(r->next == CF_ECLOSED, "%s", r->err.msg);
    ck_assert_int_eq(r->again, CF_ECLOSED);
    ck_assert_int_eq(r->n, count);
    ck_assert_int_eq(r->sum, count * (count + 1) / 2);
}

/* The connection is the one it was, nothing runs there, and it is as good as new. */
static void expect_reused(int pid)
{
    fixture_settle();
    ck_assert_int_eq(backend_pid(), pid);
    ck_assert_uint_eq(fixture_stats().opened, 1);
    ck_assert_int_eq(query_i64(&show_timeout, NULL, 0), 65);
    WAIT_FOR(pgview_i64(fixture_view(),
                        "select count(*) from pg_stat_activity where state <> 'idle'"
                        " and application_name = $1",
                        (const char *[]){fixture.app, NULL}) == 0);
}

static uint64_t cancels(enum cf_pg_outcome outcome)
{
    return fixture_stats().cancels[outcome];
}

/* Nothing of it runs on. Whether its connection was kept, and not closed. */
static bool expect_ended(int pid)
{
    bool is_kept;

    fixture_settle();
    ck_assert_int_ge(pgview_wait_active(fixture_view(), NUMBERS, 0, PATIENCE_NS), 0);
    is_kept = cancels(CF_PG_CONNECTION_DROPPED) == 0;
    ck_assert_uint_eq(events_count(CF_PG_EVENT_CANCELED), 1);
    ck_assert_int_eq(backend_pid() == pid, is_kept);
    ck_assert_int_eq(query_i64(&show_timeout, NULL, 0), 65);
    return is_kept;
}

/* The server's process sleeps because nobody takes what it sends. */
static bool is_held_up(void)
{
    return pgview_i64(fixture_view(),
                      "select count(*) from pg_stat_activity where application_name = $1"
                      " and wait_event = 'ClientWrite'",
                      (const char *[]){fixture.app, NULL}) == 1;
}

/* open */

START_TEST(open_already_canceled_touches_nothing)
{
    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    reader_init_numbers(&reader, 1);
    cf_ctx_cancel(reader.ctx);
    reader_run(&reader);
    ck_assert_int_eq(reader.open, CF_ECANCELED);
    ck_assert_uint_eq(fixture_stats().queries, 0);
    reader_fini(&reader);
}
END_TEST

START_TEST(open_canceled_while_waiting_leaves_the_line)
{
    struct job holder;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    job_init_sleep(&holder, 60);
    job_start(&holder);
    (void)fixture_wait_sleeper();
    reader_init_numbers(&reader, 1);
    reader_start(&reader);
    WAIT_FOR(fixture_stats().waiting == 1);
    cf_ctx_cancel(reader.ctx);
    reader_wait(&reader);
    ck_assert_int_eq(reader.open, CF_ECANCELED);
    ck_assert_str_eq(reader.err.phase, "pool");
    ck_assert_uint_eq(fixture_stats().waiting, 0);
    cf_ctx_cancel(holder.ctx);
    job_wait(&holder);
    job_fini(&holder);
    reader_fini(&reader);
}
END_TEST

START_TEST(open_deadline_while_waiting_leaves_the_line)
{
    struct job holder;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    job_init_sleep(&holder, 60);
    job_start(&holder);
    (void)fixture_wait_sleeper();
    reader_init_numbers(&reader, 1);
    reader.timeout_ns = 50 * CF_MS;
    reader_run(&reader);
    ck_assert_int_eq(reader.open, CF_EDEADLINE);
    ck_assert_str_eq(reader.err.phase, "pool");
    ck_assert_int_ge(reader.ended_ns - reader.began_ns, 50 * CF_MS);
    cf_ctx_cancel(holder.ctx);
    job_wait(&holder);
    job_fini(&holder);
    reader_fini(&reader);
}
END_TEST

START_TEST(open_limit_reached_is_refused)
{
    struct reader second;
    struct reader third;

    fixture_open((struct cf_pg_options){.pool_max = 1, .waiters_max = 1}, 1);
    reader_init(&reader, &drip);
    reader_start(&reader);
    WAIT_FOR(atomic_load(&reader.n) >= DRIP_COMES);
    reader_init_numbers(&second, 1);
    reader_start(&second);
    WAIT_FOR(fixture_stats().waiting == 1);
    reader_init_numbers(&third, 1);
    reader_run(&third);
    ck_assert_int_eq(third.open, CF_ELIMIT);
    cf_ctx_cancel(reader.ctx);
    reader_wait(&reader);
    reader_wait(&second); /* It has the connection when both fences were passed. */
    expect_all(&second, 1);
    ck_assert_uint_eq(fixture_stats().opened, 1);
    reader_fini(&reader);
    reader_fini(&second);
    reader_fini(&third);
}
END_TEST

START_TEST(open_out_of_memory_loses_no_connection)
{
    unsigned nth = 1;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    (void)backend_pid();
    for (; nth < 200; nth++) {
        reader_init_numbers(&reader, 100);
        reader.options.statement_timeout_ns = 60 * CF_SECOND;
        reader.fault = nth;
        reader_run(&reader);
        reader_fini(&reader);
        if (!reader.struck) {
            break;
        }
        if (reader.open == CF_OK) {
            expect_all(&reader, 100); /* What failed was not needed. */
        } else {
            ck_assert_int_eq(reader.open, CF_ENOMEM);
        }
        fixture_settle();
    }
    ck_assert_uint_gt(nth, 1);
    expect_all(&reader, 100);
    (void)backend_pid();
    fixture_settle();
}
END_TEST

/* next */

START_TEST(next_hands_out_every_row_in_order)
{
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    pid = backend_pid();
    /* The first time on the connection, and prepared; with a timeout of its own, and without. */
    for (int i = 0; i < 4; i++) {
        reader_init_numbers(&reader, 1000);
        reader.options.statement_timeout_ns = i % 2 == 0 ? 600 * CF_SECOND : 0;
        reader_run(&reader);
        expect_all(&reader, 1000);
        reader_fini(&reader);
        expect_reused(pid);
    }
    ck_assert_uint_eq(events_count(CF_PG_EVENT_CANCELED), 0);
}
END_TEST

START_TEST(next_of_no_rows_is_the_end)
{
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    pid = backend_pid();
    reader_init_numbers(&reader, 0);
    reader_run(&reader);
    expect_all(&reader, 0);
    reader_fini(&reader);
    reader_init(&reader, &no_rows);
    reader_run(&reader);
    expect_all(&reader, 0);
    reader_fini(&reader);
    expect_reused(pid);
}
END_TEST

START_TEST(next_hands_out_batches_up_to_what_was_asked)
{
    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    reader_init_numbers(&reader, 1000);
    reader.options.batch_max = 64;
    reader_run(&reader);
    expect_all(&reader, 1000);
#ifdef LIBPQ_HAS_CHUNK_MODE
    ck_assert_uint_eq(reader.batch_max, 64);
#else
    ck_assert_uint_eq(reader.batch_max, 1);
#endif
    reader_fini(&reader);
}
END_TEST

START_TEST(next_already_canceled_ends_the_stream_also_if_rows_are_there)
{
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    pid = backend_pid();
    reader_init_numbers(&reader, MANY);
    reader.pause_after = 1;
    reader_start(&reader);
    WAIT_FOR(atomic_load(&reader.paused));
    cf_ctx_cancel(reader.ctx);
    cf_ctx_cancel(reader.go_on);
    reader_wait(&reader);
    ck_assert_int_eq(reader.n, 1);
    ck_assert_int_eq(reader.next, CF_ECANCELED);
    ck_assert_int_eq(reader.again, CF_ECANCELED);
    (void)expect_ended(pid);
    reader_fini(&reader);
}
END_TEST

START_TEST(next_canceled_while_waiting_returns_at_once)
{
    int64_t since_ns;
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    pid = backend_pid();
    reader_init(&reader, &drip);
    reader_start(&reader);
    WAIT_FOR(atomic_load(&reader.n) >= DRIP_COMES);
    ck_assert_uint_eq(fixture_stats().busy, 1);
    since_ns = cf_now_ns();
    cf_ctx_cancel(reader.ctx);
    reader_wait(&reader);
    ck_assert_int_lt(cf_now_ns() - since_ns, bound(AT_ONCE_NS));
    ck_assert_int_eq(reader.next, CF_ECANCELED);
    ck_assert_int_eq(reader.again, CF_ECANCELED);
    ck_assert_str_eq(reader.err.phase, "query");
    expect_reused(pid);
    ck_assert_uint_eq(cancels(CF_PG_EFFECTIVE), 1);
    reader_fini(&reader);
}
END_TEST

START_TEST(next_deadline_while_waiting_is_never_early)
{
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    pid = backend_pid();
    reader_init(&reader, &drip);
    reader.timeout_ns = 200 * CF_MS;
    reader_run(&reader);
    ck_assert_int_eq(reader.next, CF_EDEADLINE);
    ck_assert_str_eq(reader.err.phase, "query");
    ck_assert_str_eq(reader.err.sqlstate, "");
    ck_assert_int_ge(reader.ended_ns - reader.began_ns, 200 * CF_MS);
    ck_assert_int_lt(reader.ended_ns - reader.began_ns, 200 * CF_MS + bound(AT_ONCE_NS));
    expect_reused(pid);
    reader_fini(&reader);
}
END_TEST

/* Whatever comes first: all rows or canceled, and always the same connection, fit for the next. */
START_TEST(next_success_races_cancel)
{
    int64_t until_ns = effort_until_ns();
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    pid = backend_pid();
    for (int i = 0; cf_now_ns() < until_ns; i++) {
        reader_init_numbers(&reader, 300);
        reader_start(&reader);
        while (atomic_load(&reader.n) < i % 300) {
            (void)sched_yield();
        }
        cf_ctx_cancel(reader.ctx);
        reader_wait(&reader);
        if (reader.next == CF_ECLOSED) {
            expect_all(&reader, 300);
        } else if (reader.open == CF_OK) {
            ck_assert_int_eq(reader.next, CF_ECANCELED);
            ck_assert_int_eq(reader.sum, reader.n * (reader.n + 1) / 2);
        } else {
            ck_assert_int_eq(reader.open, CF_ECANCELED);
        }
        reader_fini(&reader);
    }
    expect_reused(pid);
}
END_TEST

START_TEST(next_that_is_not_called_holds_the_server_up)
{
    int64_t resident = resident_bytes();
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    pid = backend_pid();
    reader_init_numbers(&reader, MANY);
    reader.pause_after = 100;
    reader_start(&reader);
    WAIT_FOR(is_held_up());
    ck_assert_int_eq(reader.n, 100);
    if (!effort_is_watched()) {
        ck_assert_int_lt(resident_bytes() - resident, 8 << 20);
    }
    cf_ctx_cancel(reader.go_on);
    reader_wait(&reader);
    expect_all(&reader, MANY);
    expect_reused(pid);
    reader_fini(&reader);
}
END_TEST

START_TEST(next_of_many_rows_keeps_to_a_bounded_memory)
{
    int64_t resident;
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    pid = backend_pid();
    resident = resident_bytes();
    reader_init_numbers(&reader, MANY);
    reader_run(&reader);
    expect_all(&reader, MANY);
    if (!effort_is_watched()) {
        ck_assert_int_lt(reader.resident_max - resident, 8 << 20);
    }
    expect_reused(pid);
    reader_fini(&reader);
}
END_TEST

/* The loop is for others too while rows come and come. */
START_TEST(next_lets_other_fibers_run)
{
    fixture_open((struct cf_pg_options){.pool_max = 2, .pool_min = 2}, 1);
    WAIT_FOR(fixture_stats().idle == 2);
    reader_init_numbers(&reader, INT64_C(1) << 40);
    reader_start(&reader);
    WAIT_FOR(atomic_load(&reader.n) > 0);
    for (int i = 0; i < 20; i++) {
        (void)backend_pid();
    }
    cf_ctx_cancel(reader.ctx);
    reader_wait(&reader);
    ck_assert_int_eq(reader.next, CF_ECANCELED);
    fixture_settle();
    reader_fini(&reader);
}
END_TEST

START_TEST(next_error_comes_after_the_rows_that_came)
{
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    pid = backend_pid();
    reader_init(&reader, &breaks);
    reader.options.statement_timeout_ns = 600 * CF_SECOND;
    reader_run(&reader);
    ck_assert_int_eq(reader.n, 4999);
    ck_assert_int_eq(reader.next, CF_EINVAL);
    ck_assert_int_eq(reader.again, CF_EINVAL);
    ck_assert_str_eq(reader.err.sqlstate, "22012");
    expect_reused(pid);
    ck_assert_uint_eq(events_count(CF_PG_EVENT_CANCELED), 0);
    reader_fini(&reader);
}
END_TEST

START_TEST(next_of_other_columns_is_a_failure)
{
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    pid = backend_pid();
    reader_init(&reader, &wrong);
    reader_run(&reader);
    ck_assert_int_eq(reader.n, 0);
    ck_assert_int_eq(reader.next, CF_EINTERNAL);
    ck_assert_int_eq(reader.again, CF_EINTERNAL);
    (void)expect_ended(pid);
    reader_fini(&reader);
}
END_TEST

START_TEST(next_has_the_streams_own_timeout)
{
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    pid = backend_pid();
    reader_init(&reader, &sleep_stmt);
    reader.params[0] = cf_pg_f64(60);
    reader.n_params = 1;
    reader.options.statement_timeout_ns = 100 * CF_MS;
    reader_run(&reader);
    ck_assert_int_eq(reader.next, CF_EDEADLINE);
    ck_assert_str_eq(reader.err.sqlstate, "57014");
    ck_assert_int_ge(reader.ended_ns - reader.began_ns, 100 * CF_MS);
    expect_reused(pid);
    reader_fini(&reader);
}
END_TEST

START_TEST(next_may_last_longer_than_a_query)
{
    fixture_open((struct cf_pg_options){.pool_max = 1, .statement_timeout_ns = 100 * CF_MS}, 1);
    reader_init(&reader, &sleep_stmt);
    reader.params[0] = cf_pg_f64(0.3);
    reader.n_params = 1;
    reader.options.statement_timeout_ns = 60 * CF_SECOND;
    reader_run(&reader);
    ck_assert_msg(reader.next == CF_ECLOSED, "%s", reader.err.msg);
    ck_assert_int_eq(reader.n, 1);
    reader_fini(&reader);
    ck_assert_str_eq(query_error(&sleep_stmt, (struct cf_pg_param[]){cf_pg_f64(60)}, 1).sqlstate,
                     "57014");
    ck_assert_uint_eq(fixture_stats().opened, 1);
}
END_TEST

START_TEST(next_whose_backend_is_ended_fails_and_the_pool_heals)
{
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    pid = backend_pid();
    reader_init(&reader, &drip);
    reader_start(&reader);
    WAIT_FOR(atomic_load(&reader.n) >= DRIP_COMES);
    fixture_terminate(pid);
    reader_wait(&reader);
    ck_assert_int_ge(reader.n, DRIP_COMES);
    ck_assert_int_eq(reader.next, CF_EUNAVAIL);
    ck_assert_str_eq(reader.err.sqlstate, "57P01");
    ck_assert_int_eq(reader.again, CF_EUNAVAIL);
    ck_assert_int_ne(backend_pid(), pid);
    fixture_settle();
    reader_fini(&reader);
}
END_TEST

START_TEST(next_whose_line_is_cut_fails_and_the_pool_heals)
{
    int pid;

    fixture_open_behind(fixture_to_server, (struct cf_pg_options){.pool_max = 1});
    pid = backend_pid();
    reader_init(&reader, &drip);
    reader_start(&reader);
    WAIT_FOR(atomic_load(&reader.n) >= DRIP_COMES);
    relay_cut(&fixture.relay);
    reader_wait(&reader);
    ck_assert_int_eq(reader.next, CF_EUNAVAIL);
    ck_assert_str_eq(reader.err.sqlstate, "");
    ck_assert_int_ne(backend_pid(), pid);
    fixture_settle();
    reader_fini(&reader);
}
END_TEST

/* Nothing passes any more, not even a cancel: the deadline holds, and the slot is counted until its
 * connection is closed. */
START_TEST(next_whose_line_is_dead_ends_at_the_deadline)
{
    int pid;

    fixture_open_behind(fixture_to_server,
                        (struct cf_pg_options){.pool_max = 1, .cancel_timeout_ns = 300 * CF_MS});
    pid = backend_pid();
    reader_init(&reader, &drip);
    reader.timeout_ns = 2 * CF_SECOND; /* What comes has come by then. */
    reader_start(&reader);
    WAIT_FOR(atomic_load(&reader.n) >= DRIP_COMES);
    relay_fault(&fixture.relay,
                &(struct relay_faults){.to_server = {.hold = true}, .to_client = {.hold = true}});
    reader_wait(&reader);
    ck_assert_int_eq(reader.next, CF_EDEADLINE);
    ck_assert_int_ge(reader.ended_ns - reader.began_ns, 2 * CF_SECOND);
    ck_assert_int_lt(reader.ended_ns - reader.began_ns, 2 * CF_SECOND + bound(AT_ONCE_NS));
    WAIT_FOR(events_count(CF_PG_EVENT_CANCELED) == 1);
    ck_assert_int_ne(events_get(CF_PG_EVENT_CANCELED, 0).outcome, CF_PG_EFFECTIVE);
    relay_fault(&fixture.relay, NULL);
    ck_assert_int_ne(backend_pid(), pid);
    fixture_settle();
    reader_fini(&reader);
}
END_TEST

/* close */

/* By a cancel, or by closing if much of it was there already: as the server was faster or not. */
START_TEST(close_in_mid_stream_ends_it)
{
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    pid = backend_pid();
    reader_init_numbers(&reader, INT64_C(1) << 40);
    reader.close_after = 1 + 500 * _i; /* At the first row, and when the server may be held up. */
    reader_run(&reader);
    ck_assert_int_eq(reader.n, reader.close_after);
    (void)expect_ended(pid);
    reader_fini(&reader);
}
END_TEST

/* The server would hear of a cancel when megabytes have been read, and not before. */
START_TEST(close_of_one_that_is_held_up_closes_its_connection)
{
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    pid = backend_pid();
    reader_init_numbers(&reader, INT64_C(1) << 40);
    reader.pause_after = 1;
    reader.close_after = 2;
    reader_start(&reader);
    WAIT_FOR(is_held_up());
    cf_ctx_cancel(reader.go_on);
    reader_wait(&reader);
    ck_assert(!expect_ended(pid));
    reader_fini(&reader);
}
END_TEST

START_TEST(close_of_nothing_is_allowed)
{
    cf_pg_stream_close(NULL);
}
END_TEST

static void add_case(Suite *suite, TCase *tcase)
{
    tcase_add_checked_fixture(tcase, fixture_setup_server, fixture_teardown);
    tcase_set_timeout(tcase, 60);
    suite_add_tcase(suite, tcase);
}

Suite *suite_pg_stream(void)
{
    Suite *suite = suite_create("pg_stream");
    TCase *tcase_open = tcase_create("open");
    TCase *tcase_next = tcase_create("next");
    TCase *tcase_close = tcase_create("close");

    tcase_add_test(tcase_open, open_already_canceled_touches_nothing);
    tcase_add_test(tcase_open, open_canceled_while_waiting_leaves_the_line);
    tcase_add_test(tcase_open, open_deadline_while_waiting_leaves_the_line);
    tcase_add_test(tcase_open, open_limit_reached_is_refused);
    tcase_add_test(tcase_open, open_out_of_memory_loses_no_connection);
    add_case(suite, tcase_open);

    tcase_add_test(tcase_next, next_hands_out_every_row_in_order);
    tcase_add_test(tcase_next, next_of_no_rows_is_the_end);
    tcase_add_test(tcase_next, next_hands_out_batches_up_to_what_was_asked);
    tcase_add_test(tcase_next, next_already_canceled_ends_the_stream_also_if_rows_are_there);
    tcase_add_test(tcase_next, next_canceled_while_waiting_returns_at_once);
    tcase_add_test(tcase_next, next_deadline_while_waiting_is_never_early);
    tcase_add_test(tcase_next, next_success_races_cancel);
    tcase_add_test(tcase_next, next_that_is_not_called_holds_the_server_up);
    tcase_add_test(tcase_next, next_of_many_rows_keeps_to_a_bounded_memory);
    tcase_add_test(tcase_next, next_lets_other_fibers_run);
    tcase_add_test(tcase_next, next_error_comes_after_the_rows_that_came);
    tcase_add_test(tcase_next, next_of_other_columns_is_a_failure);
    tcase_add_test(tcase_next, next_has_the_streams_own_timeout);
    tcase_add_test(tcase_next, next_may_last_longer_than_a_query);
    tcase_add_test(tcase_next, next_whose_backend_is_ended_fails_and_the_pool_heals);
    tcase_add_test(tcase_next, next_whose_line_is_cut_fails_and_the_pool_heals);
    tcase_add_test(tcase_next, next_whose_line_is_dead_ends_at_the_deadline);
    add_case(suite, tcase_next);

    tcase_add_loop_test(tcase_close, close_in_mid_stream_ends_it, 0, 3);
    tcase_add_test(tcase_close, close_of_one_that_is_held_up_closes_its_connection);
    tcase_add_test(tcase_close, close_of_nothing_is_allowed);
    add_case(suite, tcase_close);
    return suite;
}
