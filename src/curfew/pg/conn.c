/* SPDX-License-Identifier: MIT */
/* One connection: sending a statement, taking its answers.
 *
 * A statement is
 *
 *     [Parse, the first time on this connection,] Bind, Describe, Execute, Sync
 *
 * in one send, and complete when its Sync is answered: that is the second fence. One Sync, because
 * the server sends two signals for one cancel, and with a Sync between them two statements fall.
 *
 * What stands before one Sync is one transaction. So a stream that has a statement_timeout of its
 * own sends a SELECT in front that sets it for that transaction (what SET LOCAL does): no round
 * trip more, and whatever ends the statement takes it back. */
#include "curfew/pg/conn_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <curfew/clock.h>
#include <curfew/wait.h>

#include "curfew/core/err_private.h"
#include "curfew/pg/sqlstate.h"

/* Internal helpers: sending */

/* Give the transaction that the next Sync ends a statement_timeout of its own. */
static bool send_timeout(struct cf__pg_conn *conn, int64_t timeout_ns)
{
    const char *values[1];
    char ms[24];

    (void)snprintf(ms, sizeof(ms), "%" PRId64, cf__pg_timeout_ms(timeout_ns));
    values[0] = ms;
    return PQsendQueryParams(conn->pq, "SELECT set_config('statement_timeout', $1, true)", 1, NULL,
                             values, NULL, NULL, 1) != 0;
}

/* Have libpq hand out rows as they come. It takes that only when the statement is the next one to
 * be answered, and nothing of the answer is there. */
static void begin_batches(struct cf__pg_conn *conn)
{
    struct cf__pg_section *section = &conn->section;

    if (section->batch_max == 0 || section->in_batches || section->timeout_pending ||
        section->parse_pending || section->err.code != CF_OK) {
        return;
    }
    section->in_batches = true;
#ifdef LIBPQ_HAS_CHUNK_MODE
    if (section->batch_max > 1 && PQsetChunkedRowsMode(conn->pq, (int)section->batch_max)) {
        return;
    }
#endif
    if (!PQsetSingleRowMode(conn->pq)) {
        conn->broken = true; /* Untested: it would hold the whole result. */
    }
}

static size_t sum_of(const int *lengths, size_t n)
{
    size_t sum = 0;

    for (size_t i = 0; i < n; i++) {
        sum += (size_t)lengths[i];
    }
    return sum;
}

/* Send `section`, which is filled but for what is made here. */
static enum cf_code send_section(struct cf__pg_conn *conn, struct cf__pg_section section,
                                 const struct cf_pg_stmt *stmt, const struct cf_pg_param *params,
                                 size_t n_params, int64_t statement_timeout_ns, struct cf_err *err)
{
    int n = (int)n_params;
    char name[CF__PG_NAME_SIZE];
    struct cf__pg_wire wire;

    CF_ASSERT(!conn->section.pending);
    CF_ASSERT(n_params <= CF_PG_PARAMS_MAX);
    cf__pg_encode(params, n_params, &wire);
    if (!cf__pg_find_prepared(conn, stmt, &wire, n_params, &section.prepared)) {
        return cf_err_set(err, CF_ENOMEM, "no memory to prepare %s", stmt->name);
    }
    cf__pg_put_name(&conn->prepared[section.prepared], name);
    section.pending = true;
    section.timeout_pending = statement_timeout_ns > 0;
    section.parse_pending = section.prepared == conn->n_prepared;
    conn->section = section;
    conn->is_swollen = conn->is_swollen || sum_of(wire.lengths, n_params) > CF__PG_SENT_MAX;
    if ((section.timeout_pending && !send_timeout(conn, statement_timeout_ns)) ||
        (section.parse_pending &&
         !PQsendPrepare(conn->pq, name, stmt->sql, n, conn->prepared[section.prepared].types)) ||
        !PQsendQueryPrepared(conn->pq, name, n, wire.values, wire.lengths, wire.formats, 1) ||
        !PQpipelineSync(conn->pq)) {
        conn->broken = true; /* Half a section cannot be taken back. */
        return cf__pg_err_from_conn(conn->pq, "send", err);
    }
    begin_batches(conn);
    cf__pg_conn_flush(conn);
    return CF_OK;
}

/* Internal helpers: answers */

/* Whether there are rows that whoever waits for them should take first. */
static bool has_batch(const struct cf__pg_conn *conn)
{
    return conn->section.batch_max > 0 && conn->section.rows != NULL;
}

/* Keep the rows; or drop them, because nobody wants them or it is an end without any. */
static void keep_rows(struct cf__pg_section *section, PGresult *rows)
{
    if (section->dropped || (section->batch_max > 0 && PQntuples(rows) == 0)) {
        PQclear(rows);
    } else {
        section->rows = rows;
    }
}

/* Whether the server will not run a statement any more that it had prepared: because a table has
 * other columns now (told from others by who says it), or because it is gone. */
static bool says_stale(const PGresult *result, const struct cf_err *err)
{
    const char *function = PQresultErrorField(result, PG_DIAG_SOURCE_FUNCTION);

    return strcmp(err->sqlstate, CF__SQLSTATE_INVALID_SQL_STATEMENT_NAME) == 0 ||
           (strcmp(err->sqlstate, CF__SQLSTATE_FEATURE_NOT_SUPPORTED) == 0 && function != NULL &&
            strcmp(function, "RevalidateCachedQuery") == 0);
}

static void keep_first(struct cf__pg_conn *conn, const PGresult *result)
{
    struct cf__pg_section *section = &conn->section;
    struct cf_err err;

    cf__pg_err_from_result(result, &err);
    if (section->prepared < conn->n_prepared && says_stale(result, &err)) {
        conn->prepared[section->prepared].is_stale = true; /* The next use prepares it anew. */
    }
    /* A duplicate: the server has a statement that we know nothing of. Without a state it is libpq
     * that speaks, which had no memory for an answer: what the server did,
     * and has, is not known. */
    if (cf__pg_is_last_word(result) ||
        strcmp(err.sqlstate, CF__SQLSTATE_DUPLICATE_PREPARED_STATEMENT) == 0 ||
        err.sqlstate[0] == '\0') {
        conn->broken = true;
    }
    section->canceled = section->canceled || strcmp(err.sqlstate, CF__SQLSTATE_QUERY_CANCELED) == 0;
    PQclear(section->rows); /* A constraint that is looked at last of all takes them back. */
    section->rows = NULL;
    if (section->err.code == CF_OK) {
        section->err = err;
    }
}

/* The statement is of a kind that cf_pg_query() is not for: a mistake of who wrote it. */
static void refuse_kind(struct cf__pg_section *section, const char *what)
{
    if (section->err.code == CF_OK) {
        (void)cf_err_set(&section->err, CF_EINTERNAL, "%s", what);
    }
}

/* Take one answer; it is cleared or kept. False: there is no way on to the Sync. */
static bool take(struct cf__pg_conn *conn, PGresult *result)
{
    struct cf__pg_section *section = &conn->section;
    bool of_timeout = section->timeout_pending;
    bool of_parse = !of_timeout && section->parse_pending;
    bool goes_on = true;

    section->timeout_pending = false;
    section->parse_pending = of_timeout && section->parse_pending;
    switch (PQresultStatus(result)) {
    case PGRES_PIPELINE_SYNC:
        section->pending = false;
        break;
    case PGRES_PIPELINE_ABORTED:
        break; /* Skipped, because what came before it failed. */
    case PGRES_COMMAND_OK:
        if (of_parse) {
            conn->n_prepared++;
            break;
        }
        keep_rows(section, result);
        return true;
    case PGRES_TUPLES_OK:
        if (of_timeout) {
            break;
        }
        keep_rows(section, result);
        return true;
    case PGRES_SINGLE_TUPLE:
#ifdef LIBPQ_HAS_CHUNK_MODE
    case PGRES_TUPLES_CHUNK:
#endif
        keep_rows(section, result);
        return true;
    case PGRES_EMPTY_QUERY:
        refuse_kind(section, "an empty statement");
        break;
    case PGRES_COPY_IN:
    case PGRES_COPY_OUT:
    case PGRES_COPY_BOTH:
        refuse_kind(section, "COPY is no query");
        goes_on = false;
        break;
    default:
        keep_first(conn, result);
        break;
    }
    PQclear(result);
    return goes_on;
}

/* Operations */

enum cf_code cf__pg_conn_send(struct cf__pg_conn *conn, const struct cf_pg_stmt *stmt,
                              const struct cf_pg_param *params, size_t n_params, struct cf_err *err)
{
    return send_section(conn, (struct cf__pg_section){0}, stmt, params, n_params, 0, err);
}

enum cf_code cf__pg_conn_send_stream(struct cf__pg_conn *conn, const struct cf_pg_stmt *stmt,
                                     const struct cf_pg_param *params, size_t n_params,
                                     size_t batch_max, int64_t statement_timeout_ns,
                                     struct cf_err *err)
{
    return send_section(conn, (struct cf__pg_section){.batch_max = batch_max}, stmt, params,
                        n_params, statement_timeout_ns, err);
}

bool cf__pg_conn_pump(struct cf__pg_conn *conn)
{
    int64_t until_ns = cf_now_ns() + CF__PG_SLICE_NS;
    bool after_null = false;

    while (conn->section.pending && !has_batch(conn) && !cf__pg_conn_is_busy(conn)) {
        PGresult *result = PQgetResult(conn->pq);

        if (result != NULL) {
            after_null = false;
            if (!take(conn, result)) {
                conn->broken = true;
                break;
            }
        } else if (after_null || PQstatus(conn->pq) == CONNECTION_BAD) {
            conn->broken = true; /* One NULL ends a statement's answers; a second has no meaning. */
            break;
        } else {
            after_null = true;
            begin_batches(conn);
        }
        if (cf_now_ns() >= until_ns) {
            break;
        }
    }
    cf__pg_conn_take_notifications(conn); /* Those that came behind an answer, with it. */
    cf__pg_conn_watch_no_more(conn);
    if (conn->is_paused && !conn->broken && !has_batch(conn)) {
        conn->is_paused = false;
        cf__pg_conn_flush(conn);
    }
    return !conn->section.pending || has_batch(conn);
}

enum cf_code cf__pg_conn_wait(struct cf_ctx *ctx, struct cf__pg_conn *conn, struct cf_err *err)
{
    while (!cf__pg_conn_pump(conn) && !conn->broken) {
        enum cf_code code =
            PQisBusy(conn->pq) ? cf__pg_conn_wait_input(ctx, conn, err) : cf_yield(ctx, err);

        if (code != CF_OK) {
            return code;
        }
    }
    return CF_OK;
}

enum cf_code cf__pg_conn_result(struct cf__pg_conn *conn, PGresult **out, struct cf_err *err)
{
    struct cf__pg_section *section = &conn->section;

    if (section->err.code != CF_OK) {
        return cf__err_give(err, &section->err);
    }
    if (section->pending || section->rows == NULL) {
        return cf__pg_err_from_conn(conn->pq, "query", err);
    }
    *out = section->rows;
    section->rows = NULL;
    return CF_OK;
}

enum cf_code cf__pg_conn_batch(struct cf__pg_conn *conn, PGresult **out, struct cf_err *err)
{
    struct cf__pg_section *section = &conn->section;

    if (section->rows != NULL) {
        *out = section->rows;
        section->rows = NULL;
        return CF_OK;
    }
    if (section->err.code == CF_OK && !section->pending) {
        return cf_err_set(err, CF_ECLOSED, "no more rows");
    }
    return cf__pg_conn_result(conn, out, err);
}

void cf__pg_conn_drop(struct cf__pg_conn *conn)
{
    conn->section.dropped = true;
    PQclear(conn->section.rows);
    conn->section.rows = NULL;
}
