/* SPDX-License-Identifier: MIT */
/* Statements: prepared once and again, wrong, failing early and late; and the codes of errors. */
#include "pg_fixture.h"

#include <stdio.h>
#include <string.h>

#define SCHEMA "curfew_test_pg_stmt"

/* Fixture */

/* The schema is this file's own; what an earlier run left is dropped. */
static void setup_schema(void)
{
    fixture_setup();
    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    pgview_exec(fixture_view(), "drop schema if exists " SCHEMA " cascade; create schema " SCHEMA);
}

/* Helpers */

static int64_t times_prepared(const char *name)
{
    static const struct cf_pg_stmt count = {
        .name = "types_prepared",
        .sql = "SELECT count(*) FROM pg_prepared_statements WHERE name = $1",
    };

    return query_i64(&count, (struct cf_pg_param[]){cf_pg_str(name)}, 1);
}

/* Statements */

START_TEST(statement_is_prepared_once_a_connection)
{
    static const struct cf_pg_stmt stmt = {.name = "prepared_once", .sql = "SELECT $1 + 1"};

    ck_assert_int_eq(times_prepared("prepared_once"), 0);
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(query_i64(&stmt, (struct cf_pg_param[]){cf_pg_i64(i)}, 1), i + 1);
    }
    ck_assert_int_eq(times_prepared("prepared_once"), 1);
    ck_assert_uint_eq(fixture_stats().opened, 1);
}
END_TEST

/* More than the list of the prepared holds at first. */
START_TEST(statements_hundred_are_all_prepared)
{
    static struct cf_pg_stmt stmts[100];
    static char names[100][24];
    static const struct cf_pg_stmt count = {
        .name = "types_count",
        .sql = "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'hundred%'",
    };

    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < N(stmts); i++) {
            (void)snprintf(names[i], sizeof(names[i]), "hundred_%d", i);
            stmts[i] = (struct cf_pg_stmt){.name = names[i], .sql = "SELECT 2 * $1"};
            ck_assert_int_eq(query_i64(&stmts[i], (struct cf_pg_param[]){cf_pg_i64(i)}, 1), 2 * i);
        }
    }
    ck_assert_int_eq(query_i64(&count, NULL, 0), 100);
}
END_TEST

/* A statement's parameter is NULL when it is first used, and the server then has to guess its type:
 * a narrower one than what comes later. The value must not be read as something else. */
START_TEST(null_first_leaves_the_type_open)
{
    static const struct cf_pg_stmt insert = {
        .name = "null_first",
        .sql = "INSERT INTO " SCHEMA ".narrow VALUES ($1, $2, $3) RETURNING i4, i8, f8::bigint",
    };
    struct cf_pg_param none[] = {{.type = CF_PG_NULL}, {.type = CF_PG_NULL}, {.type = CF_PG_NULL}};
    struct cf_pg_param some[] = {cf_pg_i64(-7), cf_pg_f64(3), cf_pg_i64(42)};
    struct cf_pg_rows *rows;

    pgview_exec(fixture_view(), "CREATE TABLE " SCHEMA ".narrow (i4 int4, i8 int8, f8 float8)");
    for (int round = 0; round < 3; round++) {
        rows = query(&insert, none, 3);
        ck_assert(cf_pg_is_null(rows, 0, 0));
        cf_pg_rows_free(rows);
        rows = query(&insert, some, 3);
        ck_assert_int_eq(cf_pg_get_i64(rows, 0, 0), -7);
        ck_assert_int_eq(cf_pg_get_i64(rows, 0, 1), 3);
        ck_assert_int_eq(cf_pg_get_i64(rows, 0, 2), 42);
        cf_pg_rows_free(rows);
    }
    ck_assert_int_le(times_prepared("null_first"), 1);
}
END_TEST

static const struct {
    struct cf_pg_stmt stmt;
    const char *says; /* NULL: nothing is wrong. */
} columns[] = {
    {{.name = "columns_right", .sql = "SELECT 1, 'a'::text, now()", .columns = "itz"}, NULL},
    {{.name = "columns_null", .sql = "SELECT NULL::int8", .columns = "i"}, NULL},
    {{.name = "columns_none", .sql = "SELECT 1 WHERE false", .columns = "i"}, NULL},
    {{.name = "columns_many", .sql = "SELECT 1, 2", .columns = "i"}, "has 2 columns, not 1"},
    {{.name = "columns_few", .sql = "SELECT 1", .columns = "ii"}, "has 1 columns, not 2"},
    {{.name = "columns_type", .sql = "SELECT 1, 2.5", .columns = "ii"}, "column 2 is of type 1700"},
    {{.name = "columns_text", .sql = "SELECT 'a'::text", .columns = "z"}, "column 1 is of type 25"},
};

/* What came is not what is read: that is said before anybody reads it. */
START_TEST(statement_with_other_columns_than_it_says_fails)
{
    int pid = backend_pid();
    struct job job;

    job_init(&job, &columns[_i].stmt);
    job_run(&job);
    if (columns[_i].says == NULL) {
        ck_assert_int_eq(job.code, CF_OK);
    } else {
        ck_assert_int_eq(job.code, CF_EINTERNAL);
        ck_assert_ptr_nonnull(strstr(job.err.msg, columns[_i].says));
    }
    job_fini(&job);
    ck_assert_int_eq(backend_pid(), pid);
}
END_TEST

START_TEST(statement_wrong_fails_and_harms_nobody)
{
    static const struct cf_pg_stmt wrong = {.name = "wrong", .sql = "SELEC 1"};
    static const struct cf_pg_stmt missing = {.name = "missing", .sql = "SELECT * FROM no_such"};
    int pid = backend_pid();

    for (int i = 0; i < 3; i++) {
        struct cf_err err = query_error(&wrong, NULL, 0);

        ck_assert_int_eq(err.code, CF_EINTERNAL);
        ck_assert_str_eq(err.sqlstate, "42601");
        ck_assert_str_eq(err.phase, "query");
        ck_assert_ptr_nonnull(strstr(err.msg, "SELEC"));
        err = query_error(&missing, NULL, 0);
        ck_assert_int_eq(err.code, CF_EINTERNAL);
        ck_assert_str_eq(err.sqlstate, "42P01");
        ck_assert_int_eq(backend_pid(), pid);
    }
    ck_assert_int_eq(times_prepared("wrong"), 0);
    ck_assert_uint_eq(fixture_stats().opened, 1);
}
END_TEST

START_TEST(statement_that_failed_to_prepare_can_be_prepared_later)
{
    static const struct cf_pg_stmt later = {.name = "later",
                                            .sql = "SELECT count(*) FROM " SCHEMA ".later"};

    ck_assert_str_eq(query_error(&later, NULL, 0).sqlstate, "42P01");
    pgview_exec(fixture_view(), "CREATE TABLE " SCHEMA ".later (id int)");
    ck_assert_int_eq(query_i64(&later, NULL, 0), 0);
    ck_assert_int_eq(times_prepared("later"), 1);
}
END_TEST

START_TEST(statement_that_failed_succeeds_later)
{
    static const struct cf_pg_stmt divide = {.name = "divide", .sql = "SELECT 12 / $1"};
    int pid = backend_pid();

    for (int i = 0; i < 3; i++) {
        struct cf_err err = query_error(&divide, (struct cf_pg_param[]){cf_pg_i64(0)}, 1);

        ck_assert_int_eq(err.code, CF_EINVAL);
        ck_assert_str_eq(err.sqlstate, "22012");
        ck_assert_int_eq(query_i64(&divide, (struct cf_pg_param[]){cf_pg_i64(3)}, 1), 4);
    }
    ck_assert_int_eq(times_prepared("divide"), 1);
    ck_assert_int_eq(backend_pid(), pid);
}
END_TEST

/* The error comes with the Sync, behind the rows, when the implicit transaction commits. */
START_TEST(statement_that_fails_at_its_end_is_no_success)
{
    static const struct cf_pg_stmt insert = {
        .name = "deferred",
        .sql = "INSERT INTO " SCHEMA ".child VALUES ($1) RETURNING parent",
    };
    int pid = backend_pid();

    pgview_exec(fixture_view(),
                "CREATE TABLE " SCHEMA ".parent (id bigint PRIMARY KEY);"
                "CREATE TABLE " SCHEMA ".child (parent bigint REFERENCES " SCHEMA ".parent"
                " DEFERRABLE INITIALLY DEFERRED);"
                "INSERT INTO " SCHEMA ".parent VALUES (1)");
    for (int i = 0; i < 3; i++) {
        struct cf_err err = query_error(&insert, (struct cf_pg_param[]){cf_pg_i64(2)}, 1);

        ck_assert_int_eq(err.code, CF_ECONFLICT);
        ck_assert_str_eq(err.sqlstate, "23503");
        ck_assert_int_eq(query_i64(&insert, (struct cf_pg_param[]){cf_pg_i64(1)}, 1), 1);
    }
    ck_assert_int_eq(backend_pid(), pid);
}
END_TEST

START_TEST(statement_that_opens_a_transaction_is_rolled_back)
{
    static const struct cf_pg_stmt begin = {.name = "begin", .sql = "BEGIN"};
    int pid = backend_pid();
    char text[16];

    (void)snprintf(text, sizeof(text), "%d", pid);
    cf_pg_rows_free(query(&begin, NULL, 0));
    ck_assert_int_eq(backend_pid(), pid);
    WAIT_FOR(pgview_i64(fixture_view(),
                        "select (state = 'idle')::int from pg_stat_activity where pid = $1",
                        (const char *[]){text, NULL}) == 1);
    ck_assert_uint_eq(events_count(CF_PG_EVENT_CANCELED), 0); /* A roll-back is no cancel. */
}
END_TEST

/* COPY is of another protocol: refused, and the connection is good or gone. */
static const char *const copies[] = {"COPY (SELECT 1) TO STDOUT",
                                     "COPY " SCHEMA ".copied FROM STDIN"};

START_TEST(statement_that_copies_fails_and_harms_nobody)
{
    struct cf_pg_stmt copy = {.name = "copies", .sql = copies[_i]};
    struct job job;

    pgview_exec(fixture_view(), "CREATE TABLE " SCHEMA ".copied (id int)");
    job_init(&job, &copy);
    job.timeout_ns = 2 * CF_SECOND;
    job_run(&job);
    ck_assert_int_eq(job.code, CF_EINTERNAL);
    ck_assert_int_lt(job.ended_ns - job.began_ns, bound(CF_SECOND));
    job_fini(&job);
    ck_assert_int_gt(backend_pid(), 0);
}
END_TEST

START_TEST(statement_with_too_few_parameters_fails)
{
    static const struct cf_pg_stmt two = {.name = "two_params", .sql = "SELECT $1::int + $2::int"};
    struct cf_err err = query_error(&two, (struct cf_pg_param[]){cf_pg_i64(0)}, 1);

    ck_assert_str_eq(err.sqlstate, "08P01");
    ck_assert_int_gt(backend_pid(), 0);
}
END_TEST

/* An implicit transaction is a statement's own: nothing of it is seen by the next. */
START_TEST(statement_after_ddl_sees_its_new_columns)
{
    static const struct cf_pg_stmt all = {.name = "all_columns",
                                          .sql = "SELECT * FROM " SCHEMA ".changing"};
    struct cf_pg_rows *rows;

    pgview_exec(fixture_view(), "CREATE TABLE " SCHEMA ".changing AS SELECT 1::bigint AS a");
    ck_assert_int_eq(query_i64(&all, NULL, 0), 1);
    pgview_exec(fixture_view(), "ALTER TABLE " SCHEMA ".changing ADD COLUMN b bigint DEFAULT 2");
    WAIT_FOR(({
        struct job job;
        enum cf_code code;

        job_init(&job, &all);
        job_run(&job);
        code = job.code;
        ck_assert(code == CF_OK || strcmp(job.err.sqlstate, "0A000") == 0);
        job_fini(&job);
        code == CF_OK;
    }));
    rows = query(&all, NULL, 0);
    ck_assert_int_eq(cf_pg_get_i64(rows, 0, 1), 2);
    cf_pg_rows_free(rows);
}
END_TEST

/* SQLSTATEs */

static const struct {
    const char *sqlstate;
    enum cf_code code;
} sqlstates[] = {
    {"22000", CF_EINVAL},    {"22012", CF_EINVAL},    {"22P02", CF_EINVAL},
    {"23502", CF_EINVAL},    {"23514", CF_EINVAL},    {"23503", CF_ECONFLICT},
    {"23505", CF_ECONFLICT}, {"40001", CF_ECONFLICT}, {"40P01", CF_ECONFLICT},
    {"08000", CF_EUNAVAIL},  {"08006", CF_EUNAVAIL},  {"53000", CF_EUNAVAIL},
    {"53100", CF_EUNAVAIL},  {"53200", CF_EUNAVAIL},  {"53300", CF_EUNAVAIL},
    {"57P01", CF_EUNAVAIL},  {"57P03", CF_EUNAVAIL},  {"25006", CF_EUNAVAIL},
    {"57014", CF_EDEADLINE}, {"25001", CF_EINTERNAL}, {"23000", CF_EINTERNAL},
    {"42501", CF_EINTERNAL}, {"42883", CF_EINTERNAL}, {"0A000", CF_EINTERNAL},
    {"55P03", CF_EINTERNAL}, {"P0001", CF_EINTERNAL}, {"XX000", CF_EINTERNAL},
    {"57000", CF_EINTERNAL},
};

/* As an error of the statement, whatever the state: the session lives on. */
START_TEST(sqlstate_decides_the_code)
{
    static const struct cf_pg_stmt raise = {.name = "raise", .sql = "SELECT " SCHEMA ".raise($1)"};
    struct cf_err err;
    int pid;

    pgview_exec(fixture_view(),
                "CREATE FUNCTION " SCHEMA ".raise(state text) RETURNS int LANGUAGE plpgsql AS"
                " $$BEGIN RAISE EXCEPTION E'first\\nsecond' USING ERRCODE = state; END$$");
    pid = backend_pid();
    err = query_error(&raise, (struct cf_pg_param[]){cf_pg_str(sqlstates[_i].sqlstate)}, 1);
    ck_assert_int_eq(err.code, sqlstates[_i].code);
    ck_assert_str_eq(err.sqlstate, sqlstates[_i].sqlstate);
    ck_assert_str_eq(err.msg, "first");
    ck_assert_str_eq(err.phase, "query");
    ck_assert_int_eq(backend_pid(), pid);
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

Suite *suite_pg_stmt(void)
{
    Suite *suite = suite_create("pg_stmt");
    TCase *tc = add_case(suite, "statement", setup_schema);

    tcase_add_test(tc, statement_is_prepared_once_a_connection);
    tcase_add_test(tc, statements_hundred_are_all_prepared);
    tcase_add_test(tc, null_first_leaves_the_type_open);
    tcase_add_loop_test(tc, statement_with_other_columns_than_it_says_fails, 0, N(columns));
    tcase_add_test(tc, statement_wrong_fails_and_harms_nobody);
    tcase_add_test(tc, statement_that_failed_to_prepare_can_be_prepared_later);
    tcase_add_test(tc, statement_that_failed_succeeds_later);
    tcase_add_test(tc, statement_that_fails_at_its_end_is_no_success);
    tcase_add_test(tc, statement_that_opens_a_transaction_is_rolled_back);
    tcase_add_loop_test(tc, statement_that_copies_fails_and_harms_nobody, 0, N(copies));
    tcase_add_test(tc, statement_with_too_few_parameters_fails);
    tcase_add_test(tc, statement_after_ddl_sees_its_new_columns);
    tc = add_case(suite, "sqlstate", setup_schema);
    tcase_add_loop_test(tc, sqlstate_decides_the_code, 0, N(sqlstates));
    return suite;
}
