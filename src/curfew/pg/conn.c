/* SPDX-License-Identifier: MIT */
/* One connection: connecting, sending a statement, taking its answers.
 *
 * After log-in a connection stays in libpq's pipeline mode for its life. A statement is
 *
 *     [Parse, the first time on this connection,] Bind, Describe, Execute, Sync
 *
 * in one send, and complete when its Sync is answered: that is the second fence. One Sync, because
 * the server sends two signals for one cancel, and with a Sync between them two statements fall.
 *
 * What stands before one Sync is one transaction. So a stream that has a statement_timeout of its own
 * sends a SELECT in front that sets it for that transaction (what SET LOCAL does): no round trip more,
 * and whatever ends the statement takes it back.
 *
 * One watch lies on the socket for as long as it is open. Input is taken from the socket in its
 * callback, and whoever waits is woken only when a whole answer is there. Input with nothing pending
 * means that the server has ended the session: its pool is told. */
#include "curfew/pg/pg_private.h"

#include <endian.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/clock.h>
#include <curfew/wait.h>

#include "curfew/pg/types.h"

/* Constants and types */

/* A session that its client left in a transaction is ended by the server. */
#define IDLE_IN_TRANSACTION_MS 10000

/* How soon the server looks whether its client is still there. */
#define CLIENT_CHECK_MS 500

/* The server's NAMEDATALEN: longer names are cut there. */
#define NAME_SIZE 64

/* Parameters as libpq wants them. */
struct wire {
    Oid types[CF_PG_PARAMS_MAX];
    const char *values[CF_PG_PARAMS_MAX];
    int lengths[CF_PG_PARAMS_MAX];
    int formats[CF_PG_PARAMS_MAX];
    uint64_t words[CF_PG_PARAMS_MAX]; /* What `values` of fixed size point to. */
};

/* Internal helpers: the socket */

static void wake(struct cf__pg_conn *conn)
{
    struct cf__wait *reader = conn->reader;

    if (reader != NULL) {
        conn->reader = NULL;
        (void)cf__wait_end(reader, CF__WAIT_READY); /* False: its context was first. */
    }
}

/* When libpq finds a connection broken it closes the socket, and the next that is opened gets its
 * number. So the watch has to end before anybody else runs: when it ended later it would take that
 * one's place in the loop's epoll along. */
static void watch_no_more(struct cf__pg_conn *conn)
{
    if (conn->watch != NULL && PQsocket(conn->pq) < 0) {
        cf__watch_close(conn->watch);
        conn->watch = NULL;
        conn->broken = true;
    }
}

static void watch_events(struct cf__pg_conn *conn, int events)
{
    watch_no_more(conn);
    if (conn->watch != NULL) {
        cf__watch_events(conn->watch, events);
    }
}

/* Write what libpq holds, and be told when the socket takes more. */
static void flush(struct cf__pg_conn *conn)
{
    int left = PQflush(conn->pq);

    if (left < 0) {
        conn->broken = true;
    }
    watch_events(conn, UV_READABLE | (left > 0 ? UV_WRITABLE : 0));
}

/* Hand out what has come, or a server could fill our memory with these. */
static void take_notifications(struct cf__pg_conn *conn)
{
    PGnotify *notification;

    while ((notification = PQnotifies(conn->pq)) != NULL) {
        if (conn->on_notification != NULL) {
            conn->on_notification(conn->arg, notification);
        }
        PQfreemem(notification);
    }
}

/* Whether an answer is there that nobody takes, because a cancel is waited for first or a stream's
 * reader is slow. What comes behind it has to stay in the socket: libpq's buffer has no limit. */
static bool is_full(struct cf__pg_conn *conn)
{
    return conn->section.pending && conn->reader == NULL && !PQisBusy(conn->pq);
}

/* libpq that has no memory for the answer to a Sync drops it, notes so in its text of errors, and is
 * busy for ever. The text is the only trace; where it is translated, the deadline has to do. A line
 * of the server's has its severity in front. */
static bool has_lost_answer(const PGconn *pq)
{
    static const char lost[] = "out of memory";
    const char *line = PQerrorMessage(pq);

    while (line[0] != '\0') {
        size_t size = strcspn(line, "\n");

        if (size == sizeof(lost) - 1 && memcmp(line, lost, size) == 0) {
            return true;
        }
        line += size + (line[size] == '\n');
    }
    return false;
}

/* Whether more input is needed before there is an answer to take. */
static bool is_busy(struct cf__pg_conn *conn)
{
    if (!PQisBusy(conn->pq)) {
        return false;
    }
    conn->broken = conn->broken || has_lost_answer(conn->pq);
    return true;
}

static void on_socket(void *arg, int status, int events)
{
    struct cf__pg_conn *conn = arg;
    bool is_ready;

    if ((events & UV_WRITABLE) != 0) {
        flush(conn);
    }
    if (status == 0 && is_full(conn)) {
        conn->is_paused = true; /* Until cf__pg_conn_pump() has taken it. */
        watch_events(conn, 0);
        return;
    }
    /* Whatever libuv says of it: libpq reads what is left, and what is wrong with it. */
    if (!PQconsumeInput(conn->pq) || status != 0) {
        conn->broken = true;
    }
    take_notifications(conn);
    is_ready = !is_busy(conn); /* On an idle session too: see take_notice(). */
    watch_no_more(conn);
    if (conn->broken) {
        watch_events(conn, 0); /* Its readiness would turn the loop for ever. */
    }
    if (conn->reader != NULL) {
        if (is_ready || conn->broken) {
            wake(conn);
        }
    } else if (!conn->section.pending && conn->on_idle_input != NULL) {
        conn->on_idle_input(conn->arg);
    }
}

/* Wait for input that makes a whole answer, or for the end. */
static enum cf_code wait_input(struct cf_ctx *ctx, struct cf__pg_conn *conn, struct cf_err *err)
{
    struct cf__wait wait;
    enum cf__wait_outcome outcome;

    CF_ASSERT(conn->reader == NULL);
    if (!is_busy(conn) || conn->broken) {
        return cf_ctx_check(ctx, err);
    }
    cf__wait_init(&wait);
    conn->reader = &wait;
    outcome = cf__wait_park(ctx, &wait);
    conn->reader = NULL;
    return outcome == CF__WAIT_READY ? CF_OK : cf_ctx_check(ctx, err);
}

/* Internal helpers: connecting */

/* What the server says before it ends the session. Its socket may end much later, or never. */
static bool is_last_word(const PGresult *result)
{
    const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);

    return severity != NULL && (strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0);
}

/* The library never logs, and libpq would write to standard error. What the server says to an idle
 * session comes here too. */
static void take_notice(void *arg, const PGresult *notice)
{
    struct cf__pg_conn *conn = arg;

    if (is_last_word(notice)) {
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

/* In the server's unit and range, where 0 would mean none. */
static int64_t statement_timeout_ms(int64_t timeout_ns)
{
    int64_t ms = timeout_ns / CF_MS;

    if (ms < 1) {
        return 1;
    }
    return ms < INT_MAX ? ms : INT_MAX;
}

/* In one round trip: set the nets that hold when this process cannot, and ask who the server is.
 * A server that does not know client_connection_check_interval (before 14) does without. The
 * statement_timeout comes last, or a short one would strike here. */
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
                   " WHERE name = 'client_connection_check_interval';"
                   "SELECT concat_ws('|', pg_postmaster_start_time(), inet_server_addr(),"
                   " inet_server_port()), pg_backend_pid();"
                   "SET statement_timeout = %" PRId64,
                   IDLE_IN_TRANSACTION_MS, CLIENT_CHECK_MS,
                   statement_timeout_ms(pg->options.statement_timeout_ns));
    if (!PQsendQuery(conn->pq, sql)) {
        return cf__pg_err_from_conn(conn->pq, "set up the session", err);
    }
    flush(conn);
    for (;;) {
        enum cf_code code = wait_input(ctx, conn, err);

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
            if (first != CF_OK && err != NULL) {
                *err = failure;
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
    code =
        cf__watch_open(cf_loop_current(), PQsocket(conn->pq), on_socket, conn, &conn->watch, err);
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

/* Internal helpers: sending */

/* Both ends of the range are infinite, there as here; what lies before their first is sent as
 * something that the server refuses. */
static int64_t time_to_wire(int64_t unix_us)
{
    int64_t us;

    if (unix_us == INT64_MAX || unix_us == INT64_MIN) {
        return unix_us;
    }
    return __builtin_sub_overflow(unix_us, EPOCH_2000_US, &us) ? INT64_MIN + 1 : us;
}

static void encode(const struct cf_pg_param *params, size_t n_params, struct wire *wire)
{
    for (size_t i = 0; i < n_params; i++) {
        const struct cf_pg_param *param = &params[i];

        wire->formats[i] = 1;
        wire->lengths[i] = sizeof(wire->words[i]);
        wire->values[i] = (const char *)&wire->words[i];
        switch (param->type) {
        case CF_PG_NULL:
            wire->types[i] = 0;
            wire->values[i] = NULL;
            break;
        case CF_PG_I64:
            wire->types[i] = OID_INT8;
            wire->words[i] = htobe64((uint64_t)param->as.i64);
            break;
        case CF_PG_F64:
            wire->types[i] = OID_FLOAT8;
            memcpy(&wire->words[i], &param->as.f64, sizeof(wire->words[i]));
            wire->words[i] = htobe64(wire->words[i]);
            break;
        case CF_PG_TIME:
            wire->types[i] = OID_TIMESTAMPTZ;
            wire->words[i] = htobe64((uint64_t)time_to_wire(param->as.i64));
            break;
        case CF_PG_TEXT:
            wire->types[i] = OID_TEXT;
            wire->values[i] = param->as.text;
            wire->lengths[i] = (int)strlen(param->as.text);
            break;
        }
    }
}

/* Its name on the server. The version is in front, because the server cuts what is too long. */
static void put_name(const struct cf__pg_prepared *prepared, char out[NAME_SIZE])
{
    if (prepared->version == 1) {
        (void)snprintf(out, NAME_SIZE, "%s", prepared->stmt->name);
    } else {
        (void)snprintf(out, NAME_SIZE, "%u_%s", prepared->version, prepared->stmt->name);
    }
}

/* Room to remember one more statement. */
static bool reserve_prepared(struct cf__pg_conn *conn)
{
    size_t capacity = conn->prepared_capacity == 0 ? 16 : 2 * conn->prepared_capacity;
    struct cf__pg_prepared *prepared;

    if (conn->n_prepared < conn->prepared_capacity) {
        return true;
    }
    prepared = realloc(conn->prepared, capacity * sizeof(*prepared));
    if (prepared == NULL) {
        return false;
    }
    conn->prepared = prepared;
    conn->prepared_capacity = capacity;
    return true;
}

/* Whether a parameter of the type that was prepared can be what is sent now. One that was NULL then
 * has the type that the server found fit, which may be narrower than what we send. */
static bool suits(const struct cf__pg_prepared *prepared, const struct wire *wire, size_t n_params)
{
    for (size_t i = 0; i < n_params; i++) {
        if (wire->types[i] != 0 && wire->types[i] != prepared->types[i]) {
            return false;
        }
    }
    return true;
}

/* Find the statement among the prepared. If it is not there in a form that suits, the entry behind
 * the last is made up for it, which take() makes one of them when the server agrees. False: no
 * memory. A form takes over the types that an older one knew, so there are few. */
static bool find_prepared(struct cf__pg_conn *conn, const struct cf_pg_stmt *stmt,
                          const struct wire *wire, size_t n_params, size_t *out)
{
    struct cf__pg_prepared next = {.stmt = stmt, .version = 1};

    for (size_t i = 0; i < conn->n_prepared; i++) {
        const struct cf__pg_prepared *prepared = &conn->prepared[i];

        if (prepared->stmt != stmt) {
            continue;
        }
        if (!prepared->is_stale && suits(prepared, wire, n_params)) {
            *out = i;
            return true;
        }
        next = *prepared;
        next.version++;
        next.is_stale = false;
    }
    for (size_t i = 0; i < n_params; i++) {
        next.types[i] = wire->types[i] != 0 ? wire->types[i] : next.types[i];
    }
    if (!reserve_prepared(conn)) {
        return false;
    }
    conn->prepared[conn->n_prepared] = next;
    *out = conn->n_prepared;
    return true;
}

/* Give the transaction that the next Sync ends a statement_timeout of its own. */
static bool send_timeout(struct cf__pg_conn *conn, int64_t timeout_ns)
{
    const char *values[1];
    char ms[24];

    (void)snprintf(ms, sizeof(ms), "%" PRId64, statement_timeout_ms(timeout_ns));
    values[0] = ms;
    return PQsendQueryParams(conn->pq, "SELECT set_config('statement_timeout', $1, true)", 1, NULL,
                             values, NULL, NULL, 1) != 0;
}

/* Have libpq hand out rows as they come. It takes that only when the statement is the next one to be
 * answered, and nothing of the answer is there. */
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

/* Send `section`, which is filled but for what is made here. */
static enum cf_code send_section(struct cf__pg_conn *conn, struct cf__pg_section section,
                                 const struct cf_pg_stmt *stmt, const struct cf_pg_param *params,
                                 size_t n_params, int64_t statement_timeout_ns, struct cf_err *err)
{
    int n = (int)n_params;
    char name[NAME_SIZE];
    struct wire wire;

    CF_ASSERT(!conn->section.pending);
    CF_ASSERT(n_params <= CF_PG_PARAMS_MAX);
    encode(params, n_params, &wire);
    if (!find_prepared(conn, stmt, &wire, n_params, &section.prepared)) {
        return cf_err_set(err, CF_ENOMEM, "no memory to prepare %s", stmt->name);
    }
    put_name(&conn->prepared[section.prepared], name);
    section.pending = true;
    section.timeout_pending = statement_timeout_ns > 0;
    section.parse_pending = section.prepared == conn->n_prepared;
    conn->section = section;
    if ((section.timeout_pending && !send_timeout(conn, statement_timeout_ns)) ||
        (section.parse_pending &&
         !PQsendPrepare(conn->pq, name, stmt->sql, n, conn->prepared[section.prepared].types)) ||
        !PQsendQueryPrepared(conn->pq, name, n, wire.values, wire.lengths, wire.formats, 1) ||
        !PQpipelineSync(conn->pq)) {
        conn->broken = true; /* Half a section cannot be taken back. */
        return cf__pg_err_from_conn(conn->pq, "send", err);
    }
    begin_batches(conn);
    flush(conn);
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
 * other columns now (0A000, told from others by who says it), or because it is gone (26000). */
static bool says_stale(const PGresult *result, const struct cf_err *err)
{
    const char *function = PQresultErrorField(result, PG_DIAG_SOURCE_FUNCTION);

    return strcmp(err->sqlstate, "26000") == 0 ||
           (strcmp(err->sqlstate, "0A000") == 0 && function != NULL &&
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
    /* 42P05: the server has a statement that we know nothing of. Without a state it is libpq that
     * speaks, which had no memory for an answer: what the server did, and has, is not known. */
    if (is_last_word(result) || strcmp(err.sqlstate, "42P05") == 0 || err.sqlstate[0] == '\0') {
        conn->broken = true;
    }
    section->canceled = section->canceled || strcmp(err.sqlstate, "57014") == 0;
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
    PQclear(conn->section.rows);
    PQfreeCancel(conn->cancel);
    PQfinish(conn->pq);
    free(conn->prepared);
    free(conn);
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

    while (conn->section.pending && !has_batch(conn) && !is_busy(conn)) {
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
    take_notifications(conn); /* Those that came behind an answer, with it. */
    watch_no_more(conn);
    if (conn->is_paused && !conn->broken && !has_batch(conn)) {
        conn->is_paused = false;
        flush(conn);
    }
    return !conn->section.pending || has_batch(conn);
}

enum cf_code cf__pg_conn_wait(struct cf_ctx *ctx, struct cf__pg_conn *conn, struct cf_err *err)
{
    while (!cf__pg_conn_pump(conn) && !conn->broken) {
        enum cf_code code = PQisBusy(conn->pq) ? wait_input(ctx, conn, err) : cf_yield(ctx, err);

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
        if (err != NULL) {
            *err = section->err;
        }
        return section->err.code;
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

/* Queries */

bool cf__pg_conn_alive(struct cf__pg_conn *conn)
{
    struct pollfd fd = {.fd = PQsocket(conn->pq), .events = POLLIN | POLLRDHUP};

    if (conn->broken || PQstatus(conn->pq) == CONNECTION_BAD) {
        return false;
    }
    if (poll(&fd, 1, 0) == 0) {
        return true;
    }
    if ((fd.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) != 0) {
        return false;
    }
    /* A notice or a changed parameter may come at any time: only the end makes this fail. */
    if (!PQconsumeInput(conn->pq) || PQstatus(conn->pq) != CONNECTION_OK) {
        return false;
    }
    (void)PQisBusy(conn->pq); /* Has libpq look at it: see take_notice(). */
    return !conn->broken;
}
