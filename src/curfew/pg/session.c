/* SPDX-License-Identifier: MIT */
/* A connection from nothing to ready for statements, and its end.
 *
 * After log-in it stays in libpq's pipeline mode for its life. */
#include "curfew/pg/conn_private.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/clock.h>
#include <curfew/wait.h>

#include "curfew/core/err_private.h"

/* Constants */

/* A session that its client left in a transaction is ended by the server. */
#define IDLE_IN_TRANSACTION_MS 10000

/* How soon the server looks whether its client is still there. */
#define CLIENT_CHECK_MS 500

/* Internal helpers */

/* The library never logs, and libpq would write to standard error. What the server says to an idle
 * session comes here too. */
static void take_notice(void *arg, const PGresult *notice)
{
    struct cf__pg_conn *conn = arg;

    if (cf__pg_is_last_word(notice)) {
        conn->broken = true;
    }
}

/* One step of libpq's, when it is its turn. The one that proves the password (SCRAM) computes for
 * 3 ms, and a pool that fills has many of them ready at once: so after a step that took long, all
 * others of the loop wait for as long as it took, and requests get every other such time. */
static enum cf_code connect_step(struct cf_ctx *ctx, PGconn *pq, int64_t *next_step_ns,
                                 PostgresPollingStatusType *out, struct cf_err *err)
{
    int64_t since_ns;
    int64_t took_ns;

    while ((since_ns = cf_now_ns()) < *next_step_ns) {
        enum cf_code code = cf_sleep_until(ctx, *next_step_ns, err);

        if (code != CF_OK) {
            return code;
        }
    }
    *out = PQconnectPoll(pq);
    took_ns = cf_now_ns() - since_ns;
    if (took_ns >= CF__PG_SLICE_NS) {
        *next_step_ns = since_ns + 2 * took_ns;
    }
    return CF_OK;
}

/* Drive PQconnectPoll() to its end. */
static enum cf_code connect_poll(struct cf_ctx *ctx, PGconn *pq, int64_t *next_step_ns,
                                 struct cf_err *err)
{
    PostgresPollingStatusType status = PGRES_POLLING_WRITING;

    if (PQstatus(pq) == CONNECTION_BAD) {
        return cf__pg_err_from_conn(pq, "connect", err);
    }
    while (status != PGRES_POLLING_OK) {
        int events = status == PGRES_POLLING_READING ? CF_READABLE : CF_WRITABLE;
        enum cf_code code = cf_wait_fd(ctx, PQsocket(pq), events, &events, err);

        if (code == CF_OK) {
            code = connect_step(ctx, pq, next_step_ns, &status, err);
        }
        if (code != CF_OK) {
            return cf_err_wrap(err, code, "connect");
        }
        if (status == PGRES_POLLING_FAILED) {
            return cf__pg_err_from_conn(pq, "connect", err);
        }
    }
    return CF_OK;
}

/* Take one answer of the set-up: the one row of two columns is the identity. */
static enum cf_code take_setup(struct cf__pg_conn *conn, const PGresult *result, struct cf_err *err)
{
    const char *pid;

    switch (PQresultStatus(result)) {
    case PGRES_COMMAND_OK:
        return CF_OK;
    case PGRES_TUPLES_OK:
        if (PQntuples(result) == 1 && PQnfields(result) == 2) {
            (void)snprintf(conn->identity, sizeof(conn->identity), "%s", PQgetvalue(result, 0, 0));
            pid = PQgetvalue(result, 0, 1);
            conn->is_direct = strtol(pid, NULL, 10) == conn->backend_pid;
        }
        return CF_OK;
    default:
        cf__pg_err_from_result(result, err);
        return cf_err_wrap(err, err->code, "set up the session");
    }
}

/* In one round trip: set the nets that hold when this process cannot, and ask who the server is.
 * A server that does not know client_connection_check_interval (before 14) does without. One may
 * know it and refuse it, where its system cannot tell of a client that has gone: Linux can, and
 * from 15 on it is asked on macOS and the BSDs, too. The statement_timeout comes last, or a short
 * one would strike here. */
static enum cf_code setup(struct cf_ctx *ctx, struct cf__pg_conn *conn, const struct cf_pg *pg,
                          struct cf_err *err)
{
    enum cf_code first = CF_OK;
    PGresult *result;
    char sql[640];

    (void)snprintf(sql, sizeof(sql),
                   "SET idle_in_transaction_session_timeout = %d;"
                   "SET timezone = 'UTC';"
                   "SELECT set_config(name, '%d', false) FROM pg_settings"
                   " WHERE name = 'client_connection_check_interval' AND (version() ~ 'linux' OR"
                   " current_setting('server_version_num')::int >= 150000"
                   " AND version() ~ 'darwin|bsd');"
                   "SELECT concat_ws('|', pg_postmaster_start_time(), inet_server_addr(),"
                   " inet_server_port()), pg_backend_pid();"
                   "SET statement_timeout = %" PRId64,
                   IDLE_IN_TRANSACTION_MS, CLIENT_CHECK_MS,
                   cf__pg_timeout_ms(pg->options.statement_timeout_ns));
    if (!PQsendQuery(conn->pq, sql)) {
        return cf__pg_err_from_conn(conn->pq, "set up the session", err);
    }
    cf__pg_conn_flush(conn);
    for (;;) {
        enum cf_code code = cf__pg_conn_wait_input(ctx, conn, err);

        if (code != CF_OK) {
            return cf_err_wrap(err, code, "set up the session");
        }
        if (conn->broken && PQisBusy(conn->pq)) {
            return cf__pg_err_from_conn(conn->pq, "set up the session", err);
        }
        result = PQgetResult(conn->pq);
        if (result == NULL) {
            return first;
        }
        if (first == CF_OK) {
            struct cf_err failure;

            first = take_setup(conn, result, &failure);
            if (first != CF_OK) {
                (void)cf__err_give(err, &failure);
            }
        }
        PQclear(result);
    }
}

/* From connected to ready for statements. */
static enum cf_code prepare_session(struct cf_ctx *ctx, struct cf__pg_conn *conn,
                                    const struct cf_pg *pg, struct cf_err *err)
{
    enum cf_code code;

    if (PQsetnonblocking(conn->pq, 1) != 0) {
        return cf__pg_err_from_conn(conn->pq, "connect", err);
    }
    conn->backend_pid = PQbackendPID(conn->pq);
    conn->cancel = PQgetCancel(conn->pq);
    if (conn->cancel == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a connection");
    }
    code = cf__pg_conn_watch(conn, err);
    if (code != CF_OK) {
        return code;
    }
    code = setup(ctx, conn, pg, err);
    if (code != CF_OK) {
        return code;
    }
    if (!PQenterPipelineMode(conn->pq)) {
        return cf__pg_err_from_conn(conn->pq, "enter pipeline mode", err);
    }
    return CF_OK;
}

/* The context of an attempt ended by the connect timeout: in place of that, say who was silent. The
 * host and the port are not secret, and are the ones that libpq tried last. */
static enum cf_code say_who_is_silent(const struct cf__pg_conn *conn, const struct cf_pg *pg,
                                      struct cf_err *err)
{
    const char *host = PQhost(conn->pq);
    const char *address = PQhostaddr(conn->pq);
    const char *port = PQport(conn->pq);
    bool is_name =
        host != NULL && address != NULL && address[0] != '\0' && strcmp(host, address) != 0;

    return cf_err_set(
        err, CF_EDEADLINE, "%s: no answer within %" PRId64 " ms from %s%s%s%s, port %s",
        conn->cancel == NULL ? "connect" : "set up the session",
        pg->options.connect_timeout_ns / CF_MS, host != NULL ? host : "", is_name ? " (" : "",
        is_name ? address : "", is_name ? ")" : "", port != NULL ? port : "");
}

/* Life cycle */

enum cf_code cf__pg_conn_open(struct cf_ctx *ctx, struct cf_pg *pg, unsigned skip,
                              int64_t *next_step_ns, struct cf__pg_conn **out, struct cf_err *err)
{
    struct cf__pg_settings settings;
    struct cf__pg_conn *conn;
    enum cf_code code;

    code = cf__pg_settings_init(ctx, pg, skip, &settings, err);
    if (code != CF_OK) {
        return code;
    }
    conn = calloc(1, sizeof(*conn));
    if (conn != NULL) {
        conn->pq = PQconnectStartParams(settings.keywords, settings.values, 0);
    }
    cf__pg_settings_fini(&settings);
    if (conn == NULL || conn->pq == NULL) {
        free(conn);
        return cf_err_set(err, CF_ENOMEM, "no memory for a connection");
    }
    (void)PQsetNoticeReceiver(conn->pq, take_notice, conn);
    code = connect_poll(ctx, conn->pq, next_step_ns, err);
    if (code == CF_OK) {
        code = prepare_session(ctx, conn, pg, err);
    }
    if (code == CF_EDEADLINE && cf_ctx_err(ctx) == CF_EDEADLINE) {
        code = say_who_is_silent(conn, pg, err);
    }
    if (code != CF_OK) {
        cf__pg_conn_close(conn);
        return code;
    }
    *out = conn;
    return CF_OK;
}

void cf__pg_conn_close(struct cf__pg_conn *conn)
{
    if (conn == NULL) {
        return;
    }
    CF_ASSERT(conn->reader == NULL);
    cf__watch_close(conn->watch); /* Before its descriptor. */
    cf__pg_control_forget(conn->asked);
    PQclear(conn->section.rows);
    PQfreeCancel(conn->cancel);
    PQfinish(conn->pq);
    free(conn->prepared);
    free(conn);
}

/* Queries */

int64_t cf__pg_timeout_ms(int64_t timeout_ns)
{
    int64_t ms = timeout_ns / CF_MS;

    if (ms < 1) {
        return 1;
    }
    return ms < INT_MAX ? ms : INT_MAX;
}
