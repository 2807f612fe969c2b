/* SPDX-License-Identifier: MIT */
/* libpq, blocking: see pgview.h. */
#include "pgview.h"

#include <check.h>
#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/clock.h>

#include "client.h"

/* Internal helpers */

static const char *default_url(void)
{
    const char *url = getenv("CF_TEST_PG_URL");

    ck_assert_msg(url != NULL, "CF_TEST_PG_URL must name a database: run `make e2e`");
    return url;
}

static PGresult *expect_ok(PGconn *pg, PGresult *result, const char *what)
{
    ExecStatusType status = PQresultStatus(result);

    ck_assert_msg(status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK, "%.60s: %s", what,
                  PQerrorMessage(pg));
    return result;
}

/* Life cycle */

PGconn *pgview_open(const char *url)
{
    PGconn *pg = PQconnectdb(url != NULL ? url : default_url());

    ck_assert_msg(PQstatus(pg) == CONNECTION_OK, "the test's own connection: %s",
                  PQerrorMessage(pg));
    pgview_exec(pg, "set client_min_messages = warning");
    pgview_exec(pg, "set statement_timeout = '20s'");
    return pg;
}

void pgview_make_schema(const char *name, char *out, size_t size)
{
    const char *url = default_url();
    const char *form;
    PGconn *pg = pgview_open(NULL);
    char sql[256];

    (void)snprintf(sql, sizeof(sql),
                   "drop schema if exists %s cascade; create schema %s; set search_path = %s", name,
                   name, name);
    pgview_exec(pg, sql);
    pgview_run_schema(pg);
    PQfinish(pg);

    if (strstr(url, "://") == NULL) {
        form = "%s options='-c search_path=%s'";
    } else if (strchr(url, '?') == NULL) {
        form = "%s?options=-c%%20search_path%%3D%s";
    } else {
        form = "%s&options=-c%%20search_path%%3D%s";
    }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    ck_assert_int_lt(snprintf(out, size, form, url, name), (int)size);
#pragma GCC diagnostic pop
}

void pgview_drop_schema(const char *name)
{
    PGconn *pg = pgview_open(NULL);
    char sql[128];

    (void)snprintf(sql, sizeof(sql), "drop schema %s cascade", name);
    pgview_exec(pg, sql);
    PQfinish(pg);
}

void pgview_run_file(PGconn *pg, const char *path)
{
    static char text[65536];
    FILE *file = fopen(path, "re");
    size_t n;

    ck_assert_msg(file != NULL, "%s: run the tests from the repository's root", path);
    n = fread(text, 1, sizeof(text), file);
    (void)fclose(file);
    ck_assert_uint_lt(n, sizeof(text));
    text[n] = '\0';
    pgview_exec(pg, text);
}

/* The names have numbers in front: glob() gives them in order. */
void pgview_run_schema(PGconn *pg)
{
    glob_t files;

    ck_assert_msg(glob("sql/[0-9]*.sql", 0, NULL, &files) == 0,
                  "sql/: run the tests from the repository's root");
    for (size_t i = 0; i < files.gl_pathc; i++) {
        pgview_run_file(pg, files.gl_pathv[i]);
    }
    globfree(&files);
}

/* Operations */

PGresult *pgview_query(PGconn *pg, const char *sql, const char *const *params)
{
    int n = 0;

    while (params != NULL && params[n] != NULL) {
        n++;
    }
    return expect_ok(pg, PQexecParams(pg, sql, n, NULL, params, NULL, NULL, 0), sql);
}

void pgview_exec(PGconn *pg, const char *sql)
{
    PQclear(expect_ok(pg, PQexec(pg, sql), sql));
}

int64_t pgview_i64(PGconn *pg, const char *sql, const char *const *params)
{
    PGresult *result = pgview_query(pg, sql, params);
    int64_t value;

    ck_assert_msg(PQntuples(result) > 0 && !PQgetisnull(result, 0, 0), "no value: %.60s", sql);
    value = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
    PQclear(result);
    return value;
}

/* Queries */

int pgview_active(PGconn *pg, const char *pattern)
{
    return (int)pgview_i64(pg,
                           "select count(*) from pg_stat_activity where state = 'active'"
                           " and query ~ $1 and pid <> pg_backend_pid()",
                           (const char *[]){pattern, NULL});
}

int64_t pgview_wait_active(PGconn *pg, const char *pattern, int n, int64_t timeout_ns)
{
    int64_t since_ns = cf_now_ns();

    for (;;) {
        int64_t asked_ns = cf_now_ns();

        if (pgview_active(pg, pattern) == n) {
            return cf_now_ns() - since_ns;
        }
        if (asked_ns - since_ns >= bound(timeout_ns)) {
            return -1;
        }
    }
}
