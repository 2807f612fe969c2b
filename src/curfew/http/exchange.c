/* SPDX-License-Identifier: MIT */
/* The life of a request, from its first line to its last byte.
 *
 *     begin       the request line is there: memory is made, the raw target kept (libmicrohttpd
 *                 decodes it in place right after)
 *     access 1    the head is there: the filter refuses, or lets the body come
 *     access ..   parts of the body: kept for the handler, within the limits
 *     access n    the request is complete: route, deadline, context, and the handler is started as
 *                 a fiber inside this very callback. If it ends without parking, its reply is sent
 *                 here: no suspension, no further system call. If it parks, the connection is
 *                 suspended, and resumed by the shard's next turn after the handler has ended
 *     access n+1  the reply is sent; or the head of a stream, whose handler goes on
 *     completed   libmicrohttpd is through with it: memory is released, unless a handler that
 *                 streams has still to be told
 *
 * What the outcome is, the context says and never libmicrohttpd, which reports success to clients
 * that have left. It is decided once, when the handler has ended:
 *
 *     client gone        499, and no reply: the connection is closed
 *     deadline passed    504, also where the handler returned CF_OK: a client was promised an
 *                        answer in time or none, and what it does next it does on that promise
 *     failed             by why the context ended, if it did, else by the code
 *     CF_OK              the handler's reply. Even when the server was stopping or an operator
 *                        cancelled: the work is done, perhaps committed, and 503 would have it
 *                        done again
 *
 * Of a stream that has begun to be sent, the handler alone decides: CF_OK ends it, also past its
 * deadline, and anything else breaks it.
 *
 * A suspended connection is invisible to libmicrohttpd: it cannot close it, so the request's memory
 * is safe while the handler runs. */
#include <stdlib.h>
#include <string.h>

#include <curfew/clock.h>

#include "curfew/core/ctx_private.h"
#include "curfew/core/err_private.h"
#include "curfew/http/negotiate.h"
#include "curfew/http/server_private.h"
#include "curfew/http/verbatim.h"

/* What a server can be asked for at all. */
#define EVERY_METHOD                                                                               \
    (CF__GET | CF__HEAD | CF__POST | CF__PUT | CF__PATCH | CF__DELETE | CF__OPTIONS)

/* Internal helpers: outcome */

static struct cf__shard *shard_of(const struct cf_http *http)
{
    return http->connection->shard;
}

/* The request will not be served: answer with this. */
static void refuse(struct cf_http *http, enum cf__problem_kind problem, const char *detail)
{
    http->is_problem = true;
    http->problem = problem;
    http->detail = detail;
    http->stage = CF__SETTLED;
}

/* The path, or the server as a whole, has only these methods. */
static void refuse_method(struct cf_http *http, unsigned methods)
{
    char allow[CF__ALLOW_SIZE];

    cf__methods_write(methods, allow);
    cf_http_reply_header(http, MHD_HTTP_HEADER_ALLOW, allow);
    refuse(http, CF__PROBLEM_METHOD_NOT_ALLOWED, NULL);
}

/* What came before the handler has failed; http->err says how. */
static void fail(struct cf_http *http, enum cf_code code)
{
    http->code = code;
    refuse(http, cf__problem_of(code, CF_REASON_NONE), http->err.msg);
}

/* The handler has ended, or was spared because the context had: decide the outcome. */
static void settle(struct cf_http *http, enum cf_code code)
{
    enum cf_reason reason;

    (void)cf_ctx_err(http->ctx); /* Looks at the clock, so that a deadline just passed counts. */
    (void)cf_ctx_cause(http->ctx, &http->cause);
    cf_ctx_free(http->ctx);
    http->ctx = NULL;

    reason = http->cause.reason;
    code = http->stream.is_unread ? CF_OK : code; /* To HEAD, that there is a body is all. */
    http->code = code;
    http->stage = CF__SETTLED;
    if (code != CF_OK) {
        cf__err_settle(&http->err, code);
    }
    if (http->stream.is_open || http->stream.is_closed) {
        cf__stream_settle(http);
    } else if (code != CF_OK || reason == CF_REASON_DEADLINE || reason == CF_REASON_CLIENT_GONE) {
        bool is_chosen = http->failure_status != 0 && reason == CF_REASON_NONE;

        refuse(http,
               is_chosen ? cf__problem_chosen(http->failure_status) : cf__problem_of(code, reason),
               code != CF_OK ? http->err.msg : NULL);
    }
}

/* Internal helpers: the handler */

static void run_handler(void *arg)
{
    struct cf_http *http = arg;
    struct cf__shard *shard = shard_of(http);

    settle(http, http->route->route->handler(http->ctx, http, &http->err));
    cf__body_free(http);
    atomic_fetch_sub_explicit(&shard->in_flight, 1, memory_order_relaxed);
    if (http->stream.is_closed) {
        cf__exchange_abandoned(http);
    } else {
        cf__exchange_wake(http);
    }
    if (shard->phase != CF__SERVING) {
        shard->due = true; /* A stop may have waited for just that. */
    }
}

static void start_handler(struct cf_http *http)
{
    struct cf__shard *shard = shard_of(http);
    enum cf_code code;

    http->stage = CF__RUNNING;
    atomic_fetch_add_explicit(&shard->in_flight, 1, memory_order_relaxed);
    code = cf__fiber_run(shard->loop, run_handler, http, &http->err);
    if (code != CF_OK) {
        atomic_fetch_sub_explicit(&shard->in_flight, 1, memory_order_relaxed);
        settle(http, code);
    }
}

/* Internal helpers: before the handler. Each returns false when the request is settled. */

static bool is_options_of_all(const struct cf_http *http)
{
    return http->head.method == CF__OPTIONS && strcmp(http->raw_target, "*") == 0;
}

/* "*" of OPTIONS, and any path that has methods. */
static bool answer_options(struct cf_http *http, unsigned methods)
{
    char allow[CF__ALLOW_SIZE];

    cf__methods_write(methods, allow);
    cf_http_reply_header(http, MHD_HTTP_HEADER_ALLOW, allow);
    cf_http_reply_text(http, 204, "");
    http->stage = CF__SETTLED;
    return false;
}

static bool keep_params(struct cf_http *http)
{
    for (size_t i = 0; i < http->route->n_params; i++) {
        const struct cf__segment *segment = &http->target.segments[http->route->params[i].segment];

        http->params[i] = cf__arena_copy(&http->arena, segment->text, segment->size);
        if (http->params[i] == NULL) {
            fail(http, cf_err_set(&http->err, CF_ENOMEM, "no memory for the path"));
            return false;
        }
    }
    return true;
}

static bool find_route(struct cf_http *http)
{
    unsigned allowed;

    if (is_options_of_all(http)) {
        return answer_options(http, EVERY_METHOD);
    }
    http->route =
        cf__router_find(shard_of(http)->server->router, http->head.method, &http->target, &allowed);
    if (http->route != NULL) {
        return keep_params(http);
    }
    if (allowed == 0) {
        refuse(http, CF__PROBLEM_NOT_FOUND, NULL);
        return false;
    }
    if (http->head.method == CF__OPTIONS) {
        return answer_options(http, allowed);
    }
    refuse_method(http, allowed);
    return false;
}

/* See that the client takes what the route answers with, before anything is done for it. */
static bool check_accept(struct cf_http *http)
{
    const char *types = http->route->route->types;

    if (types == NULL || cf__accepts_any(http, types)) {
        return true;
    }
    (void)cf_err_set(&http->err, CF_EINVAL, "Accept must allow %s", types);
    refuse(http, CF__PROBLEM_NOT_ACCEPTABLE, http->err.msg);
    return false;
}

/* The least of what was asked for and the caps of route and server. */
static bool give_deadline(struct cf_http *http)
{
    const struct cf_http_options *options = &shard_of(http)->server->options;
    int64_t route_max_ns = http->route->route->timeout_max_ns;
    int64_t default_ns = options->timeout_default_ns;
    int64_t max_ns = options->timeout_max_ns;
    enum cf_code code = http->code; /* Of the headers. */

    for (size_t i = 0; i < http->target.n_args && code == CF_OK; i++) {
        if (strcmp(http->target.args[i].name, "timeout") == 0) {
            code = cf__deadline_query(&http->head.deadline, http->target.args[i].value, &http->err);
        }
    }
    if (code != CF_OK) {
        fail(http, code);
        return false;
    }
    if (route_max_ns > 0) {
        default_ns = route_max_ns;
        max_ns = options->route_caps_win || route_max_ns < max_ns ? route_max_ns : max_ns;
    }
    cf__deadline_limit(&http->head.deadline, default_ns, max_ns);
    http->timeout_ns = http->head.deadline.timeout_ns;
    return true;
}

static bool give_context(struct cf_http *http)
{
    struct cf__shard *shard = shard_of(http);
    int64_t deadline_ns = cf_deadline_in(http->started_ns, http->timeout_ns);
    enum cf_code code;

    if (atomic_load_explicit(&shard->in_flight, memory_order_relaxed) >= shard->in_flight_max) {
        refuse(http, CF__PROBLEM_OVERLOADED, NULL);
        return false;
    }
    code = cf_ctx_with_deadline(shard->ctx, deadline_ns, &http->ctx, &http->err);
    if (code != CF_OK) {
        fail(http, code);
        return false;
    }
    cf__ctx_carry_trace(http->ctx, &http->trace);
    if (http->connection->gone) {
        cf_ctx_cancel_cause(http->ctx, CF_REASON_CLIENT_GONE, NULL);
    }
    code = cf_ctx_check(http->ctx, &http->err);
    if (code != CF_OK) {
        settle(http, code); /* No time left, nobody there, or stopped: the handler is spared. */
        return false;
    }
    return true;
}

/* Internal helpers: the steps of the access callback */

static enum MHD_Result answer_refusal(struct cf_http *http, const struct cf__refusal *refusal)
{
    if (refusal->kind == CF__PROBLEM_HEAD_TOO_LARGE) {
        cf__reply_directly(http, refusal->kind);
        return MHD_NO;
    }
    if (refusal->kind == CF__PROBLEM_METHOD_NOT_ALLOWED) {
        refuse_method(http, EVERY_METHOD);
    } else {
        refuse(http, refusal->kind, refusal->detail);
    }
    return cf__reply_send(http);
}

/* Take the target apart. What is none is refused as early as a bad head, so that the connection is
 * closed behind it. */
static bool read_target(struct cf_http *http)
{
    enum cf_code code;

    if (is_options_of_all(http)) {
        return true;
    }
    code = cf__target_decode(http->raw_target, &http->arena, &http->target, &http->err);
    if (code != CF_OK) {
        fail(http, code);
    }
    return code == CF_OK;
}

/* The filter has let through what is not too large for every route:
 * now the one asked for has its word. */
static bool limit_body(struct cf_http *http)
{
    const struct cf_http_server *server = shard_of(http)->server;
    const struct cf__route *route;
    unsigned allowed;

    if (http->head.length == 0 && http->head.n_encodings == 0) {
        return true;
    }
    route = cf__router_find(server->router, http->head.method, &http->target, &allowed);
    http->head.length_max = route != NULL && route->route->body_size_max > 0
                                ? route->route->body_size_max
                                : server->options.body_size_max;
    if (http->head.length > http->head.length_max) {
        refuse(http, CF__PROBLEM_TOO_LARGE, NULL);
        return false;
    }
    return true;
}

/* The head was read: serve the request, or refuse it at once. */
static enum MHD_Result admit(struct cf_http *http)
{
    const struct cf__refusal *refusal = cf__head_refusal(&http->head);

    if (refusal != NULL) {
        return answer_refusal(http, refusal);
    }
    if (http->connection->is_refused) {
        refuse(http, http->connection->refusal, NULL);
        return cf__reply_send(http);
    }
    return read_target(http) && limit_body(http) ? MHD_YES : cf__reply_send(http);
}

/* The head is there. */
static enum MHD_Result see_head(struct cf_http *http, const char *method, const char *version)
{
    const struct cf_http_server *server = shard_of(http)->server;
    size_t target_size = strlen(http->raw_target);
    char *copy = cf__arena_copy(&http->arena, method, strlen(method));

    http->head_seen = true;
    http->head_at_ns = cf_now_ns();
    atomic_fetch_add_explicit(&shard_of(http)->requests, 1, memory_order_relaxed);
    http->code =
        cf__head_read(&http->head, http->mhd, method, version, server->body_size_max, &http->err);
    cf__trace_take(http);
    if (copy == NULL) {
        return MHD_NO;
    }
    http->method = copy;
    if (server->checks_head) {
        http->head.verbatim =
            cf__head_verbatim(http->mhd, method, http->target_at, target_size, version);
    }
    cf__head_limit(&http->head, &server->options, target_size);
    cf__admission_begin(http);
    return admit(http);
}

static bool keeps_body(const struct cf_http *http)
{
    return (http->head.method & (CF__POST | CF__PUT | CF__PATCH)) != 0 && !http->over_quota;
}

/* A part of the body. */
static enum MHD_Result see_body(struct cf_http *http, const char *data, size_t *size)
{
    size_t n = *size;
    enum cf_code code = CF_OK;

    http->body_size += n;
    *size = 0;
    if (http->body_size > http->head.length_max) {
        cf__reply_directly(http, CF__PROBLEM_TOO_LARGE);
        return MHD_NO;
    }
    if (keeps_body(http)) {
        code = cf__body_add(http, data, n, &http->err);
    }
    if (code != CF_OK) {
        fail(http, code);
        cf__reply_directly(http, http->problem);
        return MHD_NO;
    }
    return MHD_YES;
}

/* The request is complete. */
static enum MHD_Result serve(struct cf_http *http)
{
    if (shard_of(http)->server->options.half_close_allowed && !http->is_complete) {
        /* Resumed, libmicrohttpd 0.9.75 would first read, find the half-closed client's end of
         * stream and close, unless it had stopped expecting more. It stops when a complete request
         * is not answered; so serve at its next call, which comes before it is quiet. */
        http->is_complete = true;
        return MHD_YES;
    }
    if (http->over_quota) {
        refuse(http, CF__PROBLEM_QUOTA_EXCEEDED, NULL);
    } else if (find_route(http) && check_accept(http) && give_deadline(http) &&
               give_context(http)) {
        start_handler(http);
    }
    if (http->stage == CF__SETTLED || http->stream.ring != NULL) {
        return cf__reply_send(http);
    }
    /* In this very call: between two, libmicrohttpd may close the connection, and with it goes the
     * memory that the handler works with. */
    cf__exchange_suspend(http);
    return MHD_YES;
}

/* Life cycle */

/* Take the query away from libmicrohttpd, which is about to split and decode it in its own buffer:
 * we do that ourselves, nobody asks for what it finds, and when it has no room for all arguments it
 * falls silent (0.9.75) until the connection has been idle for too long. */
static void cut_query(const char *target)
{
    char *query = strchr(target, '?');

    if (query != NULL) {
        query[1] = '\0';
    }
}

void *cf__exchange_begin(void *arg, const char *target, struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct cf__connection *connection = info->socket_context;
    struct cf_http *http;

    (void)arg;
    if (connection == NULL || connection->dismissed) {
        return NULL; /* It is about to be closed. */
    }
    http = malloc(sizeof(*http));
    if (http == NULL) {
        return NULL;
    }
    memset(http, 0, offsetof(struct cf_http, first));
    cf__list_init(&http->node);
    http->connection = connection;
    http->mhd = mhd;
    http->started_ns = cf_now_ns();
    http->method = "";
    http->client = connection->address;
    http->timeout_ns = CF_NEVER;
    http->last_header = &http->headers;
    cf_json_init(&http->json);
    cf__arena_init(&http->arena, http->first, sizeof(http->first));
    http->raw_target = cf__arena_copy(&http->arena, target, strlen(target));
    if (http->raw_target == NULL) {
        free(http);
        return NULL;
    }
    http->target_at = target;
    cut_query(target);
    connection->http = http;
    connection->is_streaming = false;
    connection->n_begun++;
    return http;
}

static void release(struct cf_http *http)
{
    struct cf__connection *connection = http->connection;

    connection->http = NULL;
    if (http->is_suspended) {
        shard_of(http)->suspended--;
    }
    cf__admission_end(http);
    cf__body_free(http);
    cf__stream_free(http);
    cf__list_unlink(&http->node);
    cf_json_fini(&http->json);
    cf_value_unref(http->text_owner);
    cf_value_unref(http->gzip_owner);
    cf__arena_fini(&http->arena);
    free(http);
    if (connection->is_closed) {
        free(connection);
    }
}

void cf__exchange_abandoned(struct cf_http *http)
{
    if (http->stage == CF__RUNNING) {
        CF_ASSERT(http->stream.ring != NULL); /* Else it is suspended. */
        cf__stream_close(http);
        return; /* Again when the handler has ended. */
    }
    if (http->stream.is_open && http->stage != CF__ANSWERED) {
        cf__stream_cut(http);
    } else if (http->head_seen && http->stage != CF__ANSWERED) {
        if (http->stage != CF__SETTLED || !http->is_problem) {
            refuse(http, CF__PROBLEM_CLIENT_GONE, NULL);
            http->cause.reason = CF_REASON_CLIENT_GONE;
        }
        cf__exchange_done(http, cf__problem_status(http->problem), 0);
    }
    release(http);
}

void cf__exchange_completed(void *arg, struct MHD_Connection *mhd, void **context,
                            enum MHD_RequestTerminationCode how)
{
    const union MHD_ConnectionInfo *info;
    struct cf_http *http = *context;
    struct cf__connection *connection;

    (void)arg;
    (void)how;
    if (http == NULL) {
        return;
    }
    *context = NULL;
    connection = http->connection;
    connection->served_ns = cf_now_ns();
    if (http->head_seen && http->stage == CF__READING) {
        /* libmicrohttpd found the body malformed and said so itself, or waited too long for it. */
        info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_HTTP_STATUS);
        if (info != NULL) {
            cf__exchange_done(http, (int)info->http_status, 0);
        } else if (how == MHD_REQUEST_TERMINATED_TIMEOUT_REACHED) {
            cf__exchange_done(http, 408, 0);
        }
    }
    cf__exchange_abandoned(http);
    if (connection->at_end || connection->shard->phase != CF__SERVING) {
        cf__connection_leaving(connection);
    }
}

/* Operations */

enum MHD_Result cf__exchange_access(void *arg, struct MHD_Connection *mhd, const char *url,
                                    const char *method, const char *version, const char *data,
                                    size_t *data_size, void **context)
{
    struct cf_http *http = *context;

    (void)arg;
    (void)mhd;
    (void)url; /* Decoded by libmicrohttpd in its own way: raw_target is what we go by. */
    if (http == NULL || http->stage == CF__ANSWERED) {
        return MHD_NO; /* What is there to read comes too late. */
    }
    cf__exchange_resumed(http);
    if (!http->head_seen) {
        return see_head(http, method, version);
    }
    if (*data_size > 0) {
        return see_body(http, data, data_size);
    }
    switch (http->stage) {
    case CF__READING:
        return serve(http);
    case CF__RUNNING: /* It has begun to stream. */
    case CF__SETTLED:
        return cf__reply_send(http);
    case CF__ANSWERED:
        break;
    }
    return MHD_NO; /* Untested: it was looked at above. */
}

void cf__exchange_client_gone(struct cf_http *http)
{
    if (http->stage == CF__RUNNING) {
        cf_ctx_cancel_cause(http->ctx, CF_REASON_CLIENT_GONE, NULL);
    }
}

void cf__exchange_suspend(struct cf_http *http)
{
    MHD_suspend_connection(http->mhd);
    http->is_suspended = true;
    shard_of(http)->suspended++;
}

void cf__exchange_wake(struct cf_http *http)
{
    if (http->is_suspended && !http->is_woken) {
        http->is_woken = true;
        cf__list_push(&shard_of(http)->waking, &http->node);
    }
}

void cf__exchange_resumed(struct cf_http *http)
{
    if (http->is_suspended) {
        http->is_suspended = false;
        http->is_woken = false;
        shard_of(http)->suspended--;
    }
}

bool cf__exchange_resume_woken(struct cf__shard *shard)
{
    struct cf__list *node = cf__list_pop(&shard->waking);
    bool any = node != NULL;

    for (; node != NULL; node = cf__list_pop(&shard->waking)) {
        MHD_resume_connection(CF__CONTAINER(node, struct cf_http, node)->mhd);
    }
    return any;
}

void cf__exchange_done(struct cf_http *http, int status, size_t body_size)
{
    const struct cf_http_options *options = &shard_of(http)->server->options;
    struct cf_http_record record;

    http->stage = CF__ANSWERED;
    http->connection->answered_ns = cf_now_ns();
    if (options->on_done == NULL) {
        return;
    }
    record = (struct cf_http_record){
        .method = http->method,
        .target = http->raw_target,
        .route = http->route != NULL ? http->route->route->path : "",
        .request_id = http->request_id,
        .trace = &http->trace,
        .client = http->client,
        .status = status,
        .is_broken = http->is_broken,
        .body_size = body_size,
        .duration_ns = http->connection->answered_ns - http->started_ns,
        .timeout_ns = http->timeout_ns,
        .timeout_source = http->head.deadline.source,
        .cause = http->cause,
        .code = http->code,
        .err = http->code != CF_OK ? &http->err : NULL,
    };
    options->on_done(options->arg, &record);
}
