/* SPDX-License-Identifier: MIT */
/* The socket of a connection.
 *
 * One watch lies on it for as long as it is open. Input is taken from the socket in its callback,
 * and whoever waits is woken only when a whole answer is there. Input with nothing pending means
 * that the server has ended the session: its pool is told. */
#include "curfew/pg/conn_private.h"

#include <poll.h>
#include <string.h>

/* Internal helpers */

static void wake(struct cf__pg_conn *conn)
{
    struct cf__wait *reader = conn->reader;

    if (reader != NULL) {
        conn->reader = NULL;
        (void)cf__wait_end(reader, CF__WAIT_READY); /* False: its context was first. */
    }
}

static void watch_events(struct cf__pg_conn *conn, int events)
{
    cf__pg_conn_watch_no_more(conn);
    if (conn->watch != NULL) {
        cf__watch_events(conn->watch, events);
    }
}

/* Whether an answer is there that nobody takes, because a cancel is waited for first or a stream's
 * reader is slow. What comes behind it has to stay in the socket: libpq's buffer has no limit. */
static bool is_full(struct cf__pg_conn *conn)
{
    return conn->section.pending && conn->reader == NULL && !PQisBusy(conn->pq);
}

/* libpq that has no memory for the answer to a Sync drops it, notes so in its text of errors, and
 * is busy for ever. The text is the only trace; where it is translated, the deadline has to do. A
 * line of the server's has its severity in front. */
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

static void on_socket(void *arg, int status, int events)
{
    struct cf__pg_conn *conn = arg;
    bool is_ready;

    if ((events & UV_WRITABLE) != 0) {
        cf__pg_conn_flush(conn);
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
    cf__pg_conn_take_notifications(conn);
    is_ready = !cf__pg_conn_is_busy(conn); /* On an idle session too: see take_notice(). */
    cf__pg_conn_watch_no_more(conn);
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

/* Operations */

enum cf_code cf__pg_conn_watch(struct cf__pg_conn *conn, struct cf_err *err)
{
    return cf__watch_open(cf_loop_current(), PQsocket(conn->pq), on_socket, conn, &conn->watch,
                          err);
}

/* When libpq finds a connection broken it closes the socket, and the next that is opened gets its
 * number. So the watch has to end before anybody else runs: when it ended later it would take that
 * one's place in the loop's epoll along. */
void cf__pg_conn_watch_no_more(struct cf__pg_conn *conn)
{
    if (conn->watch != NULL && PQsocket(conn->pq) < 0) {
        cf__watch_close(conn->watch);
        conn->watch = NULL;
        conn->broken = true;
    }
}

void cf__pg_conn_flush(struct cf__pg_conn *conn)
{
    int left = PQflush(conn->pq);

    if (left < 0) {
        conn->broken = true;
    }
    watch_events(conn, UV_READABLE | (left > 0 ? UV_WRITABLE : 0));
}

void cf__pg_conn_take_notifications(struct cf__pg_conn *conn)
{
    PGnotify *notification;

    while ((notification = PQnotifies(conn->pq)) != NULL) {
        if (conn->on_notification != NULL) {
            conn->on_notification(conn->arg, notification);
        }
        PQfreemem(notification);
    }
}

enum cf_code cf__pg_conn_wait_input(struct cf_ctx *ctx, struct cf__pg_conn *conn,
                                    struct cf_err *err)
{
    struct cf__wait wait;
    enum cf__wait_outcome outcome;

    CF_ASSERT(conn->reader == NULL);
    if (!cf__pg_conn_is_busy(conn) || conn->broken) {
        return cf_ctx_check(ctx, err);
    }
    cf__wait_init(&wait);
    conn->reader = &wait;
    outcome = cf__wait_park(ctx, &wait);
    conn->reader = NULL;
    return outcome == CF__WAIT_READY ? CF_OK : cf_ctx_check(ctx, err);
}

/* Queries */

bool cf__pg_conn_is_busy(struct cf__pg_conn *conn)
{
    if (!PQisBusy(conn->pq)) {
        return false;
    }
    conn->broken = conn->broken || has_lost_answer(conn->pq);
    return true;
}

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
