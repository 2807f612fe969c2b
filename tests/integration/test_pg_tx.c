/* SPDX-License-Identifier: MIT */
/* Transactions: what is committed, what is not, and what nobody can say. */
#include "pg_fixture.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curfew/pg_tx.h>

#include "effort.h"
#include "fault.h"
#include "relay.h"

/* Fixture */

static const char schema[] =
    "DROP SCHEMA IF EXISTS tx_test CASCADE; CREATE SCHEMA tx_test;"
    "CREATE TABLE tx_test.t (id bigint PRIMARY KEY,"
    " up bigint REFERENCES tx_test.t DEFERRABLE INITIALLY DEFERRED);"
    "CREATE TABLE tx_test.slow (seconds float8);"
    "CREATE FUNCTION tx_test.sleep() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN IF NEW.seconds < 0 THEN PERFORM pg_advisory_xact_lock((-NEW.seconds)::bigint);"
    " ELSE PERFORM pg_sleep(NEW.seconds); END IF; RETURN NULL; END';"
    "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON tx_test.slow DEFERRABLE INITIALLY DEFERRED"
    " FOR EACH ROW EXECUTE FUNCTION tx_test.sleep();";

static const struct cf_pg_stmt insert = {.name = "tx_insert",
                                         .sql = "INSERT INTO tx_test.t (id) VALUES ($1)"};
static const struct cf_pg_stmt insert_below = {
    .name = "tx_insert_below", .sql = "INSERT INTO tx_test.t (id, up) VALUES ($1, $2)"};
/* Its COMMIT sleeps for so long, or for the lock of that number below zero. */
static const struct cf_pg_stmt insert_slow = {.name = "tx_insert_slow",
                                              .sql = "INSERT INTO tx_test.slow VALUES ($1)"};
static const struct cf_pg_stmt isolation = {
    .name = "tx_isolation",
    .sql = "SELECT current_setting('transaction_isolation') || ' ' ||"
           " current_setting('transaction_read_only')"};

/* What runs on the loop, and what came of it. */
struct script {
    void (*run)(struct script *script);
    struct cf_ctx *ctx;
    struct cf_pg_tx *tx;
    const struct cf_pg_tx_options *options;
    double seconds;
    enum cf_code begin;
    enum cf_code query;
    enum cf_code commit;
    struct cf_err err;
    int64_t began_ns; /* Just before the last call, and just after. */
    int64_t ended_ns;
    sem_t done;
};

static struct script script;

static void setup(void)
{
    fixture_setup_server();
    pgview_exec(fixture_view(), schema);
    script = (struct script){.begin = CF_EINTERNAL, .query = CF_EINTERNAL, .commit = CF_EINTERNAL};
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &script.ctx, NULL), CF_OK);
    ck_assert_int_eq(sem_init(&script.done, 0, 0), 0);
}

static void teardown(void)
{
    cf_ctx_free(script.ctx);
    fixture_teardown();
}

/* Helpers */

static void run_script(void *arg)
{
    (void)arg;
    script.run(&script);
    (void)sem_post(&script.done);
}

static void start(void (*run)(struct script *script))
{
    script.run = run;
    ck_assert_int_eq(cf_loop_spawn(fixture.loops[0], run_script, NULL, NULL), CF_OK);
}

static void finish(void)
{
    ck_assert_int_eq(sem_wait(&script.done), 0);
}

static void play(void (*run)(struct script *script))
{
    start(run);
    finish();
}

static void begin(struct script *s)
{
    s->began_ns = cf_now_ns();
    s->begin = cf_pg_begin(s->ctx, fixture.pg, s->options, &s->tx, &s->err);
    s->ended_ns = cf_now_ns();
}

static void run(struct script *s, const struct cf_pg_stmt *stmt, const struct cf_pg_param *params,
                size_t n_params)
{
    struct cf_pg_rows *rows = NULL;

    s->began_ns = cf_now_ns();
    s->query = cf_pg_tx_query(s->ctx, s->tx, stmt, params, n_params, &rows, &s->err);
    s->ended_ns = cf_now_ns();
    cf_pg_rows_free(rows);
}

static void add(struct script *s, int64_t id)
{
    struct cf_pg_param params[] = {cf_pg_i64(id)};

    run(s, &insert, params, 1);
}

static void commit(struct script *s)
{
    s->began_ns = cf_now_ns();
    s->commit = cf_pg_commit(s->ctx, s->tx, &s->err);
    s->ended_ns = cf_now_ns();
}

/* From now on the script's context has a deadline. */
static void end_in(int64_t timeout_ns)
{
    cf_ctx_free(script.ctx);
    ck_assert_int_eq(cf_ctx_with_timeout(cf_ctx_background(), timeout_ns, &script.ctx, NULL),
                     CF_OK);
}

static int64_t rows_in(const char *table)
{
    char sql[64];

    (void)snprintf(sql, sizeof(sql), "select count(*) from tx_test.%s", table);
    return pgview_i64(fixture_view(), sql, NULL);
}

static void expect_no_open_transaction(void)
{
    const char *params[] = {fixture.app, NULL};

    WAIT_FOR(pgview_i64(fixture_view(),
                        "select count(*) from pg_stat_activity where state like"
                        " 'idle in transaction%' and application_name = $1",
                        params) == 0);
}

static void open_behind_relay(void)
{
    char port[8];
    char url[1024];

    relay_start(&fixture.relay, fixture_to_server);
    (void)snprintf(port, sizeof(port), "%d", fixture.relay.port);
    fixture_url(
        url, sizeof(url), NULL,
        (const char *const[]){"host", "127.0.0.1", "port", port, "sslmode", "disable", NULL});
    fixture_open((struct cf_pg_options){.url = url, .pool_max = 1, .cancel = CF_PG_CANCEL_PQCANCEL},
                 1);
}

/* An ErrorResponse, as a server that shuts down sends it. */
static const char last_word[] = "E\0\0\0\x4e"
                                "SFATAL\0VFATAL\0C57P01\0"
                                "Mterminating connection for a test\0"
                                "Ftest.c\0L1\0RTest\0";

/* The server's last word comes in one piece with its next answer, which is whole. */
static void session_ends_behind_the_next_answer(void)
{
    relay_append(&fixture.relay, 0, last_word, sizeof(last_word));
}

/* begin */

static void begin_only(struct script *s)
{
    begin(s);
    if (s->begin == CF_OK) {
        cf_pg_rollback(s->tx);
    }
}

START_TEST(begin_already_canceled_touches_nothing)
{
    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    cf_ctx_cancel(script.ctx);
    play(begin_only);
    ck_assert_int_eq(script.begin, CF_ECANCELED);
    ck_assert_uint_eq(fixture_stats().queries, 0);
}
END_TEST

START_TEST(begin_canceled_while_waiting_for_a_connection_leaves_the_line)
{
    struct job holder;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    job_init_sleep(&holder, 60);
    job_start(&holder);
    ck_assert_int_ge(pgview_wait_active(fixture_view(), SLEEP_PATTERN, 1, PATIENCE_NS), 0);
    start(begin_only);
    WAIT_FOR(fixture_stats().waiting == 1);
    cf_ctx_cancel(script.ctx);
    finish();
    ck_assert_int_eq(script.begin, CF_ECANCELED);
    ck_assert_str_eq(script.err.phase, "pool");
    ck_assert_uint_eq(fixture_stats().waiting, 0);
    cf_ctx_cancel(holder.ctx);
    job_wait(&holder);
    job_fini(&holder);
}
END_TEST

START_TEST(begin_deadline_while_waiting_for_a_connection_leaves_the_line)
{
    struct job holder;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    job_init_sleep(&holder, 60);
    job_start(&holder);
    (void)fixture_wait_sleeper();
    end_in(bound_strictly(300 * CF_MS)); /* It is in line by then. */
    play(begin_only);
    ck_assert_int_eq(script.begin, CF_EDEADLINE);
    ck_assert_str_eq(script.err.phase, "pool");
    ck_assert_int_ge(script.ended_ns, cf_ctx_deadline_ns(script.ctx));
    ck_assert_uint_eq(fixture_stats().waiting, 0);
    cf_ctx_cancel(holder.ctx);
    job_wait(&holder);
    job_fini(&holder);
}
END_TEST

START_TEST(begin_limit_reached_is_refused)
{
    struct job holder;
    struct job waiter;

    fixture_open((struct cf_pg_options){.pool_max = 1, .waiters_max = 1}, 1);
    job_init_sleep(&holder, 60);
    job_init_sleep(&waiter, 60);
    job_start(&holder);
    (void)fixture_wait_sleeper();
    job_start(&waiter);
    WAIT_FOR(fixture_stats().waiting == 1);
    play(begin_only);
    ck_assert_int_eq(script.begin, CF_ELIMIT);
    ck_assert_str_eq(script.err.phase, "pool");
    cf_ctx_cancel(waiter.ctx);
    job_wait(&waiter);
    cf_ctx_cancel(holder.ctx);
    job_wait(&holder);
    job_fini(&waiter);
    job_fini(&holder);
}
END_TEST

static const struct {
    struct cf_pg_tx_options options;
    const char *shown;
} kinds[] = {
    {{CF_PG_READ_COMMITTED, false}, "read committed off"},
    {{CF_PG_READ_COMMITTED, true}, "read committed on"},
    {{CF_PG_REPEATABLE_READ, false}, "repeatable read off"},
    {{CF_PG_REPEATABLE_READ, true}, "repeatable read on"},
    {{CF_PG_SERIALIZABLE, false}, "serializable off"},
    {{CF_PG_SERIALIZABLE, true}, "serializable on"},
};

static char shown[64];

static void show_isolation(struct script *s)
{
    struct cf_pg_rows *rows = NULL;

    begin(s);
    s->query = cf_pg_tx_query(s->ctx, s->tx, &isolation, NULL, 0, &rows, &s->err);
    if (s->query == CF_OK) {
        (void)snprintf(shown, sizeof(shown), "%s", cf_pg_get_text(rows, 0, 0));
    }
    cf_pg_rows_free(rows);
    commit(s);
}

START_TEST(begin_with_options_has_them)
{
    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    script.options = &kinds[_i].options;
    play(show_isolation);
    ck_assert_int_eq(script.commit, CF_OK);
    ck_assert_str_eq(shown, kinds[_i].shown);
}
END_TEST

/* tx_query */

static void add_one_twice_and_commit(struct script *s)
{
    begin(s);
    add(s, 1);
    ck_assert_int_eq(s->query, CF_OK);
    add(s, 1);
    ck_assert_int_eq(s->query, CF_ECONFLICT);
    add(s, 2); /* Not 25P02, which says nothing of why. */
    ck_assert_int_eq(s->query, CF_ECONFLICT);
    ck_assert_str_eq(s->err.sqlstate, "23505");
    commit(s);
}

START_TEST(tx_query_failing_is_the_failure_of_all_that_follows)
{
    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    play(add_one_twice_and_commit);
    ck_assert_int_eq(script.commit, CF_ECONFLICT);
    ck_assert_str_eq(script.err.sqlstate, "23505");
    ck_assert_int_eq(rows_in("t"), 0);
    expect_no_open_transaction();
    fixture_settle();
    ck_assert_uint_eq(fixture_stats().opened, 1);
}
END_TEST

static void add_and_sleep(struct script *s)
{
    struct cf_pg_param params[] = {cf_pg_f64(60)};

    begin(s);
    add(s, 1);
    run(s, &sleep_stmt, params, 1);
    commit(s);
}

START_TEST(tx_query_canceled_while_running_returns_at_once_and_rolls_back)
{
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    pid = backend_pid();
    start(add_and_sleep);
    (void)fixture_wait_sleeper();
    script.began_ns = cf_now_ns();
    cf_ctx_cancel(script.ctx);
    finish();
    ck_assert_int_lt(cf_now_ns() - script.began_ns, bound(AT_ONCE_NS));
    ck_assert_int_eq(script.query, CF_ECANCELED);
    ck_assert_int_eq(script.commit, CF_ECANCELED);
    fixture_settle();
    expect_no_open_transaction();
    ck_assert_int_eq(rows_in("t"), 0);
    ck_assert_int_eq(backend_pid(), pid);
    ck_assert_uint_eq(fixture_stats().cancels[CF_PG_EFFECTIVE], 1);
}
END_TEST

START_TEST(tx_query_deadline_while_running_returns_at_once_and_rolls_back)
{
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    pid = backend_pid();
    end_in(bound_strictly(CF_SECOND)); /* It sleeps by then. */
    play(add_and_sleep);
    ck_assert_int_eq(script.query, CF_EDEADLINE);
    ck_assert_int_eq(script.commit, CF_EDEADLINE);
    ck_assert_int_ge(script.ended_ns, cf_ctx_deadline_ns(script.ctx));
    ck_assert_int_lt(script.ended_ns, cf_ctx_deadline_ns(script.ctx) + bound(AT_ONCE_NS));
    fixture_settle();
    expect_no_open_transaction();
    ck_assert_int_eq(rows_in("t"), 0);
    ck_assert_int_eq(backend_pid(), pid);
}
END_TEST

static void cancel_and_add(struct script *s)
{
    begin(s);
    cf_ctx_cancel(s->ctx);
    add(s, 1);
    commit(s);
}

START_TEST(tx_query_already_canceled_sends_nothing_and_rolls_back)
{
    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    play(cancel_and_add);
    ck_assert_int_eq(script.begin, CF_OK);
    ck_assert_int_eq(script.query, CF_ECANCELED);
    ck_assert_int_eq(script.commit, CF_ECANCELED);
    fixture_settle();
    expect_no_open_transaction();
    ck_assert_int_eq(rows_in("t"), 0);
    ck_assert_uint_eq(fixture_stats().cancels[CF_PG_EFFECTIVE], 0);
}
END_TEST

START_TEST(tx_query_whose_session_ends_fails)
{
    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    start(add_and_sleep);
    fixture_terminate(fixture_wait_sleeper());
    finish();
    ck_assert_int_eq(script.query, CF_EUNAVAIL);
    ck_assert_int_eq(script.commit, CF_EUNAVAIL);
    (void)backend_pid();
    ck_assert_int_eq(rows_in("t"), 0);
}
END_TEST

static void end_behind_begin(struct script *s)
{
    session_ends_behind_the_next_answer();
    begin_only(s);
}

/* There is nothing to go on with, though the statement itself was done. */
START_TEST(begin_whose_session_ends_behind_it_fails)
{
    open_behind_relay();
    (void)backend_pid();
    play(end_behind_begin);
    ck_assert_int_eq(script.begin, CF_EUNAVAIL);
    (void)backend_pid();
    ck_assert_uint_eq(fixture_stats().opened, 2);
}
END_TEST

static void end_behind_a_statement(struct script *s)
{
    begin(s);
    session_ends_behind_the_next_answer();
    add(s, 1);
    commit(s);
}

START_TEST(tx_query_whose_session_ends_behind_it_fails)
{
    open_behind_relay();
    (void)backend_pid();
    play(end_behind_a_statement);
    ck_assert_int_eq(script.begin, CF_OK);
    ck_assert_int_eq(script.query, CF_EUNAVAIL);
    ck_assert_int_eq(script.commit, CF_EUNAVAIL);
    (void)backend_pid();
    expect_no_open_transaction();
    ck_assert_int_eq(rows_in("t"), 0);
}
END_TEST

/* Transactions whose context ends about when their statement does. */
struct race {
    int64_t until_ns;
    int64_t next; /* What is added. */
    int64_t committed;
    int64_t ended;
};

static struct race race;

static void add_once(struct script *s, unsigned *seed)
{
    end_in(rand_r(seed) % (race.ended < race.committed ? 2 * CF_MS : 20 * CF_MS));
    begin(s);
    if (s->begin != CF_OK) {
        ck_assert_int_eq(s->begin, CF_EDEADLINE);
        race.ended++;
        return;
    }
    add(s, race.next++);
    commit(s);
    ck_assert(s->commit == CF_OK || s->commit == CF_EDEADLINE);
    race.committed += s->commit == CF_OK;
    race.ended += s->commit != CF_OK;
}

static void add_again_and_again(struct script *s)
{
    unsigned seed = 1;

    while (EFFORT_GOES_ON(race.until_ns, race.committed > 0 && race.ended > 0)) {
        add_once(s, &seed);
    }
}

START_TEST(tx_query_success_races_its_end)
{
    race = (struct race){.until_ns = effort_until_ns()};
    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    (void)backend_pid();
    play(add_again_and_again);
    ck_assert_int_gt(race.committed, 0);
    ck_assert_int_gt(race.ended, 0);
    fixture_settle();
    expect_no_open_transaction();
    ck_assert_int_eq(rows_in("t"), race.committed);
}
END_TEST

static void add_to_read_only(struct script *s)
{
    static const struct cf_pg_tx_options read_only = {.read_only = true};

    s->options = &read_only;
    begin(s);
    add(s, 1);
    cf_pg_rollback(s->tx);
}

START_TEST(tx_query_writing_in_a_read_only_one_fails)
{
    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    play(add_to_read_only);
    ck_assert_int_eq(script.query, CF_EUNAVAIL);
    ck_assert_str_eq(script.err.sqlstate, "25006");
}
END_TEST

/* commit */

static void add_and_commit(struct script *s)
{
    begin(s);
    add(s, 1);
    commit(s);
}

START_TEST(commit_makes_it_last)
{
    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    play(add_and_commit);
    ck_assert_int_eq(script.commit, CF_OK);
    ck_assert_int_eq(rows_in("t"), 1);
}
END_TEST

static void add_and_commit_too_late(struct script *s)
{
    begin(s);
    add(s, 1);
    cf_ctx_cancel(s->ctx);
    commit(s);
}

START_TEST(commit_already_canceled_rolls_back)
{
    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    play(add_and_commit_too_late);
    ck_assert_int_eq(script.commit, CF_ECANCELED);
    expect_no_open_transaction();
    ck_assert_int_eq(rows_in("t"), 0);
    fixture_settle();
    ck_assert_uint_eq(fixture_stats().cancels[CF_PG_NOT_SENT], 0); /* A roll-back is none. */
    ck_assert_uint_eq(fixture_stats().opened, 1);
}
END_TEST

static void add_slow_and_commit(struct script *s)
{
    struct cf_pg_param params[] = {cf_pg_f64(s->seconds)};

    begin(s);
    run(s, &insert_slow, params, 1);
    commit(s);
}

START_TEST(commit_canceled_while_waiting_goes_on)
{
    int64_t woken_ns;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    script.seconds = -getpid();
    fixture_hold();
    start(add_slow_and_commit);
    ck_assert_int_ge(pgview_wait_active(fixture_view(), "^COMMIT", 1, PATIENCE_NS), 0);
    cf_ctx_cancel(script.ctx);
    pause_ms(200); /* In which nothing comes of that. */
    ck_assert_int_eq(pgview_active(fixture_view(), "^COMMIT"), 1);
    woken_ns = cf_now_ns();
    fixture_wake();
    finish();
    ck_assert_int_eq(script.commit, CF_OK);
    ck_assert_int_ge(script.ended_ns, woken_ns);
    ck_assert_int_eq(rows_in("slow"), 1);
    ck_assert_uint_eq(fixture_stats().opened, 1);
}
END_TEST

static void add_orphan_and_commit(struct script *s)
{
    struct cf_pg_param params[] = {cf_pg_i64(1), cf_pg_i64(77)};

    begin(s);
    run(s, &insert_below, params, 2);
    ck_assert_int_eq(s->query, CF_OK);
    commit(s);
}

START_TEST(commit_refused_by_the_server_is_known_not_to_be)
{
    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    play(add_orphan_and_commit);
    ck_assert_int_eq(script.commit, CF_ECONFLICT);
    ck_assert_str_eq(script.err.sqlstate, "23503");
    ck_assert_int_eq(rows_in("t"), 0);
    (void)backend_pid();
    ck_assert_uint_eq(fixture_stats().opened, 1);
}
END_TEST

START_TEST(commit_whose_session_ends_is_unknown)
{
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    pid = backend_pid();
    script.seconds = 60;
    start(add_slow_and_commit);
    ck_assert_int_ge(pgview_wait_active(fixture_view(), "^COMMIT", 1, PATIENCE_NS), 0);
    fixture_terminate(pid);
    finish();
    ck_assert_int_eq(script.commit, CF_EUNKNOWN);
    ck_assert(cf_err_is(&script.err, CF_EUNAVAIL));
    ck_assert_int_ne(backend_pid(), pid);
    fixture_settle();
}
END_TEST

static void end_behind_commit(struct script *s)
{
    begin(s);
    add(s, 1);
    session_ends_behind_the_next_answer();
    commit(s);
}

START_TEST(commit_whose_session_ends_behind_its_answer_is_known)
{
    open_behind_relay();
    (void)backend_pid();
    play(end_behind_commit);
    ck_assert_int_eq(script.query, CF_OK);
    ck_assert_msg(script.commit == CF_OK, "%s", script.err.msg);
    ck_assert_int_eq(rows_in("t"), 1);
    (void)backend_pid();
    ck_assert_uint_eq(fixture_stats().opened, 2);
}
END_TEST

START_TEST(commit_unanswered_in_time_is_unknown)
{
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1, .commit_timeout_ns = 100 * CF_MS}, 1);
    pid = backend_pid();
    script.seconds = 60;
    play(add_slow_and_commit);
    ck_assert_int_eq(script.commit, CF_EUNKNOWN);
    ck_assert_int_ge(script.ended_ns - script.began_ns, 100 * CF_MS);
    ck_assert_int_lt(script.ended_ns - script.began_ns, bound(500 * CF_MS));
    ck_assert_int_ne(backend_pid(), pid);
    /* Never cancelled by us: the server finds that its client has gone. */
    ck_assert_uint_eq(fixture_stats().cancels[CF_PG_EFFECTIVE], 0);
    ck_assert_int_ge(pgview_wait_active(fixture_view(), "^COMMIT", 0, PATIENCE_NS), 0);
}
END_TEST

static void fail_nth_allocation(struct script *s)
{
    for (unsigned nth = 1; nth < 200; nth++) {
        fault_alloc(nth, false);
        begin(s);
        if (s->begin == CF_OK) {
            add(s, nth);
            commit(s);
        }
        if (!fault_off()) {
            return;
        }
        if (s->begin != CF_OK) {
            ck_assert_int_eq(s->begin, CF_ENOMEM);
        } else {
            ck_assert(s->commit == CF_ENOMEM || s->commit == CF_OK);
        }
    }
    ck_abort_msg("the faults do not end");
}

START_TEST(commit_out_of_memory_leaves_no_transaction)
{
    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    (void)backend_pid();
    play(fail_nth_allocation);
    ck_assert_int_eq(script.commit, CF_OK); /* The run without a fault. */
    expect_no_open_transaction();
    (void)backend_pid();
    fixture_settle();
}
END_TEST

/* rollback */

static void add_and_roll_back(struct script *s)
{
    begin(s);
    add(s, 1);
    cf_pg_rollback(s->tx);
}

START_TEST(rollback_undoes)
{
    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    play(add_and_roll_back);
    ck_assert_int_eq(script.query, CF_OK);
    (void)backend_pid(); /* It is lent again only behind the roll-back. */
    expect_no_open_transaction();
    ck_assert_int_eq(rows_in("t"), 0);
    ck_assert_uint_eq(fixture_stats().opened, 1);
    ck_assert_uint_eq(events_count(CF_PG_EVENT_CANCELED), 0);
}
END_TEST

START_TEST(rollback_of_nothing_is_allowed)
{
    cf_pg_rollback(NULL);
}
END_TEST

static void add_case(Suite *suite, TCase *tcase)
{
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    suite_add_tcase(suite, tcase);
}

Suite *suite_pg_tx(void)
{
    Suite *suite = suite_create("pg_tx");
    TCase *tcase_begin = tcase_create("begin");
    TCase *tcase_query = tcase_create("tx_query");
    TCase *tcase_commit = tcase_create("commit");
    TCase *tcase_rollback = tcase_create("rollback");

    tcase_add_test(tcase_begin, begin_already_canceled_touches_nothing);
    tcase_add_test(tcase_begin, begin_canceled_while_waiting_for_a_connection_leaves_the_line);
    tcase_add_test(tcase_begin, begin_deadline_while_waiting_for_a_connection_leaves_the_line);
    tcase_add_test(tcase_begin, begin_limit_reached_is_refused);
    tcase_add_loop_test(tcase_begin, begin_with_options_has_them, 0, N(kinds));
    tcase_add_test(tcase_begin, begin_whose_session_ends_behind_it_fails);
    add_case(suite, tcase_begin);

    tcase_add_test(tcase_query, tx_query_failing_is_the_failure_of_all_that_follows);
    tcase_add_test(tcase_query, tx_query_canceled_while_running_returns_at_once_and_rolls_back);
    tcase_add_test(tcase_query, tx_query_deadline_while_running_returns_at_once_and_rolls_back);
    tcase_add_test(tcase_query, tx_query_already_canceled_sends_nothing_and_rolls_back);
    tcase_add_test(tcase_query, tx_query_whose_session_ends_fails);
    tcase_add_test(tcase_query, tx_query_whose_session_ends_behind_it_fails);
    tcase_add_test(tcase_query, tx_query_success_races_its_end);
    tcase_add_test(tcase_query, tx_query_writing_in_a_read_only_one_fails);
    add_case(suite, tcase_query);

    tcase_add_test(tcase_commit, commit_makes_it_last);
    tcase_add_test(tcase_commit, commit_already_canceled_rolls_back);
    tcase_add_test(tcase_commit, commit_canceled_while_waiting_goes_on);
    tcase_add_test(tcase_commit, commit_refused_by_the_server_is_known_not_to_be);
    tcase_add_test(tcase_commit, commit_whose_session_ends_is_unknown);
    tcase_add_test(tcase_commit, commit_whose_session_ends_behind_its_answer_is_known);
    tcase_add_test(tcase_commit, commit_unanswered_in_time_is_unknown);
    tcase_add_test(tcase_commit, commit_out_of_memory_leaves_no_transaction);
    add_case(suite, tcase_commit);

    tcase_add_test(tcase_rollback, rollback_undoes);
    tcase_add_test(tcase_rollback, rollback_of_nothing_is_allowed);
    add_case(suite, tcase_rollback);
    return suite;
}
