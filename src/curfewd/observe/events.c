/* SPDX-License-Identifier: MIT */
/* Log lines for what happened: see events.h. Names follow OpenTelemetry's where it has one. */
#include "curfewd/observe/events.h"

#include <pthread.h>
#include <string.h>

#include <curfew/clock.h>
#include <curfew/trace.h>

#include "curfewd/members.h"
#include "curfewd/observe/log.h"

/* Constants and types */

/* A server that is away is tried for as long as it is, by every loop. The same failure is said
 * again only after this, with how often it has come meanwhile. */
#define REPEAT_NS (60 * CF_SECOND)

struct failure {
    pthread_mutex_t mu; /* Guards everything below. */
    char msg[CF_ERR_MSG_SIZE];
    int64_t again_at_ns;
    uint64_t unsaid;
};

/* Of the pools, and of the listener, whose words differ. */
static struct failure of_pools = {.mu = PTHREAD_MUTEX_INITIALIZER};
static struct failure of_listener = {.mu = PTHREAD_MUTEX_INITIALIZER};

/* Internal helpers */

static void add_trace(struct cf_json *json, const struct cf_trace *trace)
{
    char traceparent[CF_TRACEPARENT_SIZE];

    cf_trace_write(trace, traceparent);
    member_str(json, "trace_id", trace->trace_id);
    member_str(json, "span_id", trace->span_id);
    member_str(json, "trace_flags", traceparent + sizeof(traceparent) - sizeof("00"));
}

static void add_err(struct cf_json *json, const struct cf_err *err)
{
    member_str(json, "code", cf_code_name(err->code));
    member_str(json, "error", err->msg);
    if (err->phase != NULL) {
        member_str(json, "phase", err->phase);
    }
    if (err->sqlstate[0] != '\0') {
        member_str(json, "db.response.status_code", err->sqlstate);
    }
}

/* Probes come every few seconds and say nothing while they succeed. */
static bool is_quiet_probe(const struct cf_http_record *record)
{
    return record->status < 400 &&
           (strcmp(record->route, "/livez") == 0 || strcmp(record->route, "/readyz") == 0);
}

/* Whether a failure to connect is worth a line; if so, *out_unsaid is how many like it were not. */
static bool take_failure(struct failure *failure, const struct cf_err *err, uint64_t *out_unsaid)
{
    int64_t now_ns = cf_now_ns();
    bool is_new;

    (void)pthread_mutex_lock(&failure->mu);
    is_new = now_ns >= failure->again_at_ns || strcmp(failure->msg, err->msg) != 0;
    if (is_new) {
        memcpy(failure->msg, err->msg, sizeof(failure->msg));
        failure->again_at_ns = now_ns + REPEAT_NS;
        *out_unsaid = failure->unsaid;
        failure->unsaid = 0;
    } else {
        failure->unsaid++;
    }
    (void)pthread_mutex_unlock(&failure->mu);
    return is_new;
}

/* Connected: the next failure is news, whatever it says. */
static void forget_failure(struct failure *failure)
{
    (void)pthread_mutex_lock(&failure->mu);
    failure->again_at_ns = 0;
    (void)pthread_mutex_unlock(&failure->mu);
}

/* Whether it is to be looked at: that a client leaves is its own affair. */
static bool is_bad(const struct cf_http_record *record)
{
    return record->status >= 500 || (record->is_broken && record->status < 400);
}

/* Operations */

void events_log_request(void *arg, const struct cf_http_record *record)
{
    enum log_level level = is_bad(record) ? LOG_WARN : LOG_INFO;
    struct cf_json json;

    (void)arg;
    if (is_quiet_probe(record)) {
        return;
    }
    log_begin(&json, level, "request");
    member_str(&json, "request_id", record->request_id);
    add_trace(&json, record->trace);
    member_str(&json, "http.request.method", record->method);
    member_str(&json, "url.path", record->target);
    member_str(&json, "http.route", record->route);
    member_i64(&json, "http.response.status_code", record->status);
    member_u64(&json, "http.response.body.size", record->body_size);
    if (record->is_broken) {
        member_bool(&json, "broken", true);
    }
    member_str(&json, "client.address", record->client);
    member_ms(&json, "duration_ms", record->duration_ns);
    if (record->timeout_ns != CF_NEVER) { /* Else it was refused before it had one. */
        member_ms(&json, "deadline_ms", record->timeout_ns);
        member_str(&json, "deadline_source", record->timeout_source);
    }
    if (record->cause.reason != CF_REASON_NONE) {
        member_str(&json, "cancel_cause", cf_reason_name(record->cause.reason));
    }
    if (record->err != NULL && record->code != CF_OK) {
        add_err(&json, record->err);
    }
    log_end(&json, level);
}

void events_log_pg(void *arg, const struct cf_pg_event *event)
{
    bool failed = event->kind == CF_PG_EVENT_CONNECT_FAILED || event->kind == CF_PG_EVENT_DEAF;
    bool bad = failed || event->kind == CF_PG_EVENT_LOST ||
               (event->kind == CF_PG_EVENT_CONNECTED && event->err.code != CF_OK);
    bool of_listening = event->kind == CF_PG_EVENT_DEAF || event->kind == CF_PG_EVENT_LISTENING;
    struct failure *failure = of_listening ? &of_listener : &of_pools;
    enum log_level level = bad ? LOG_WARN : LOG_INFO;
    uint64_t unsaid = 0;
    struct cf_json json;

    (void)arg;
    if (failed && !take_failure(failure, &event->err, &unsaid)) {
        return;
    }
    if (event->kind == CF_PG_EVENT_CONNECTED || event->kind == CF_PG_EVENT_LISTENING) {
        forget_failure(failure);
    }
    log_begin(&json, level, "postgresql");
    member_str(&json, "event", cf_pg_event_name(event->kind));
    if (event->backend_pid != 0) {
        member_i64(&json, "backend_pid", event->backend_pid);
    }
    if (event->err.code != CF_OK) {
        add_err(&json, &event->err);
    }
    if (event->kind == CF_PG_EVENT_CANCELED) {
        member_str(&json, "outcome", cf_pg_outcome_name(event->outcome));
        member_ms(&json, "took_ms", event->took_ns);
    }
    if (failed) {
        member_ms(&json, "retry_ms", event->retry_ns);
        member_u64(&json, "unsaid", unsaid);
    }
    log_end(&json, level);
}
