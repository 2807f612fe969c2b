/* SPDX-License-Identifier: MIT */
/* A look at PostgreSQL that does not go through the service: what it holds, and what it is doing.
 *
 * "Active" is as the issue has it: rows of pg_stat_activity with state = 'active', a query that
 * matches, and another pid than the one who asks.
 *
 * Thread safety: the test's thread only. */
#ifndef PGVIEW_H
#define PGVIEW_H

#include <libpq-fe.h>

#include <curfew/base.h>

/* Life cycle */

/* Connect (NULL: CF_TEST_PG_URL). The caller owns it: PQfinish(). */
PGconn *pgview_open(const char *url);

/* Make an empty schema of this name with the service's tables, dropping the one before, and write
 * a URL into `out` whose sessions live in it. */
void pgview_make_schema(const char *name, char *out, size_t size);
void pgview_drop_schema(const char *name);

/* Make the service's tables in the schema of the session. */
void pgview_run_schema(PGconn *pg);

/* Run a file of SQL. */
void pgview_run_file(PGconn *pg, const char *path);

/* Operations: what PostgreSQL refuses fails the test. */

/* Run a statement with text parameters, NULL-terminated, or NULL. PQclear() is the caller's. */
PGresult *pgview_query(PGconn *pg, const char *sql, const char *const *params);
void pgview_exec(PGconn *pg, const char *sql);

/* The first column of the first row. */
int64_t pgview_i64(PGconn *pg, const char *sql, const char *const *params);

/* Queries */

/* How many active statements match the regular expression. */
int pgview_active(PGconn *pg, const char *pattern);

/* Wait until exactly `n` are active; returns how long it took, or -1 when the time is up. */
int64_t pgview_wait_active(PGconn *pg, const char *pattern, int n, int64_t timeout_ns);

#endif
