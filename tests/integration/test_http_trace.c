/* SPDX-License-Identifier: MIT */
/* The trace of a request: taken from who asks, carried by the context, told with every reply. */
#include <curfew/trace.h>

#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curfew/group.h>
#include <curfew/http.h>

#include "chunks.h"
#include "client.h"
#include "fault.h"

#define N(table) (int)(sizeof(table) / sizeof((table)[0]))

#define TRACE_ID "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN_ID "00f067aa0ba902b7"
#define PARENT "traceparent: 00-" TRACE_ID "-" SPAN_ID "-01\r\n"
#define BODY_TIMEOUT_NS (100 * CF_MS)
#define BODY_SIZE_MAX 100

/* Fixture */

static struct cf_loop *loop;
static struct cf_http_server *server;
static uint16_t port;

static struct {
    pthread_mutex_t mu;
    pthread_cond_t changed;
    bool is_there;
    struct cf_trace trace; /* Of the last request. */
    char state[CF_TRACESTATE_SIZE_MAX + 1];
    char request_id[129];
} seen = {.mu = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void on_done(void *arg, const struct cf_http_record *record)
{
    (void)arg;
    (void)pthread_mutex_lock(&seen.mu);
    seen.trace = *record->trace;
    (void)snprintf(seen.state, sizeof(seen.state), "%s", record->trace->state);
    (void)snprintf(seen.request_id, sizeof(seen.request_id), "%s", record->request_id);
    seen.is_there = true;
    (void)pthread_cond_broadcast(&seen.changed);
    (void)pthread_mutex_unlock(&seen.mu);
}

/* Wait for the record of a request. */
static void await_record(void)
{
    (void)pthread_mutex_lock(&seen.mu);
    while (!seen.is_there) {
        (void)pthread_cond_wait(&seen.changed, &seen.mu);
    }
    seen.is_there = false;
    (void)pthread_mutex_unlock(&seen.mu);
}

static enum cf_code task(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    (void)err;
    *(const struct cf_trace **)arg = cf_ctx_trace(ctx);
    return CF_OK;
}

/* What the context carries, of the handler and of a task. */
static enum cf_code show(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    const struct cf_trace *trace = cf_ctx_trace(ctx);
    const struct cf_trace *of_task = NULL;
    struct cf_group *group;
    struct cf_json *json;

    ck_assert_ptr_nonnull(trace);
    ck_assert_int_eq(cf_group_new(ctx, &group, err), CF_OK);
    cf_group_go(group, task, &of_task);
    ck_assert_int_eq(cf_group_wait(group, err), CF_OK);
    cf_group_free(group);
    ck_assert_ptr_eq(of_task, trace);
    json = cf_http_reply_json(http, cf_http_has_etag(http, "\"1\"") ? 304 : 200);
    cf_json_object(json);
    cf_json_key(json, "trace_id");
    cf_json_str(json, trace->trace_id);
    cf_json_key(json, "span_id");
    cf_json_str(json, trace->span_id);
    cf_json_key(json, "flags");
    cf_json_i64(json, trace->flags);
    cf_json_key(json, "state");
    cf_json_str(json, trace->state);
    cf_json_end(json);
    return CF_OK;
}

/* Shows the state once its connection has ended. */
static enum cf_code stream(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    static const char piece[] = "piece";
    enum cf_code code;

    cf_http_reply_stream(http, 200, "text/plain");
    do {
        code = cf_http_stream_write(ctx, http, piece, sizeof(piece) - 1, err);
    } while (code == CF_OK && cf_http_query(http, "endless") != NULL);
    ck_assert_str_eq(cf_ctx_trace(ctx)->trace_id, TRACE_ID);
    ck_assert_str_eq(cf_ctx_trace(ctx)->state, "congo=t61rcWkgMzE");
    return code;
}

static enum cf_code large(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    char text[2000];

    (void)ctx;
    (void)err;
    memset(text, 'a', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    cf_http_reply_text(http, 200, text);
    return CF_OK;
}

static enum cf_code failing(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    (void)ctx;
    (void)http;
    return cf_err_set(err, CF_EINTERNAL, "own words");
}

static void setup(void)
{
    static const struct cf_http_route routes[] = {{"GET", "/show", show, 0, NULL},
                                                  {"POST", "/show", show, 0, NULL},
                                                  {"GET", "/large", large, 0, NULL},
                                                  {"GET", "/stream", stream, 0, NULL},
                                                  {"GET", "/fail", failing, 0, NULL}};
    struct cf_http_options options = {.listen = "127.0.0.1:0",
                                      .routes = routes,
                                      .n_routes = sizeof(routes) / sizeof(routes[0]),
                                      .body_timeout_ns = BODY_TIMEOUT_NS,
                                      .head_timeout_ns = BODY_TIMEOUT_NS,
                                      .body_size_max = BODY_SIZE_MAX,
                                      .on_done = on_done};
    struct cf_err err = {.msg = ""};

    ck_assert_int_eq(cf_loop_new(NULL, &loop, NULL), CF_OK);
    ck_assert_msg(cf_http_server_new(&options, &loop, 1, &server, &err) == CF_OK, "%s", err.msg);
    port = cf_http_server_port(server);
    seen.is_there = false;
}

static void teardown(void)
{
    client_free_all();
    cf_http_server_stop(server, 0);
    cf_http_server_free(server);
    cf_loop_free(loop);
}

/* Helpers */

/* The trace that the reply tells of. */
static struct cf_trace told(struct reply *reply)
{
    const char *traceparent = reply_header(reply, "traceparent");
    struct cf_trace trace;

    ck_assert_msg(traceparent != NULL, "no traceparent in %s", reply->head);
    ck_assert_uint_eq(strlen(traceparent), CF_TRACEPARENT_SIZE - 1);
    ck_assert(cf_trace_read(traceparent, NULL, &trace));
    return trace;
}

/* The reply, and the record, are of a span of ours in the client's trace. */
static void expect_taken_over(struct reply *reply)
{
    struct cf_trace trace = told(reply);

    await_record();
    ck_assert_str_eq(trace.trace_id, TRACE_ID);
    ck_assert_str_ne(trace.span_id, SPAN_ID);
    ck_assert_str_eq(seen.trace.trace_id, TRACE_ID);
    ck_assert_str_eq(seen.trace.span_id, trace.span_id);
    ck_assert_uint_eq(seen.trace.flags, trace.flags);
}

/* They are of a new trace. */
static void expect_new(struct reply *reply)
{
    struct cf_trace trace = told(reply);

    await_record();
    ck_assert_str_ne(trace.trace_id, TRACE_ID);
    ck_assert_uint_eq(trace.flags, CF_TRACE_RANDOM);
    ck_assert_str_eq(seen.trace.trace_id, trace.trace_id);
    ck_assert_str_eq(seen.trace.span_id, trace.span_id);
    ck_assert_str_eq(seen.trace.state, "");
}

/* take */

static const struct {
    const char *headers;
    int flags;
    const char *state;
} taken[] = {
    {PARENT, 1, ""},
    {"TraceParent: 00-" TRACE_ID "-" SPAN_ID "-01\r\n", 1, ""},
    {"traceparent: 00-" TRACE_ID "-" SPAN_ID "-00\r\n", 0, ""},
    {"traceparent: 00-" TRACE_ID "-" SPAN_ID "-03\r\n", 3, ""},
    {"traceparent: 00-" TRACE_ID "-" SPAN_ID "-fd\r\n", 1, ""},
    {"traceparent:  \t00-" TRACE_ID "-" SPAN_ID "-01\t \r\n", 1, ""},
    {"traceparent: cc-" TRACE_ID "-" SPAN_ID "-01-what-the-future-brings\r\n", 1, ""},
    {PARENT "tracestate: congo=t61rcWkgMzE\r\n", 1, "congo=t61rcWkgMzE"},
    {"tracestate: rojo=1,congo=2\r\n" PARENT, 1, "rojo=1,congo=2"},
    {PARENT "tracestate: a=1\r\nX-Other: b=2\r\nTraceState: c=3,d=4\r\ntracestate: e=5\r\n", 1,
     "a=1,c=3,d=4,e=5"},
    {PARENT "tracestate: \r\ntracestate: a=1\r\n", 1, "a=1"},
    {PARENT "tracestate: FOO=1\r\n", 1, ""},
    {PARENT "tracestate: a=1\r\ntracestate: no list\r\n", 1, ""},
};

START_TEST(trace_of_the_client_goes_on)
{
    struct reply *reply = client_get(port, "/show", taken[_i].headers);

    ck_assert_int_eq(reply->status, 200);
    expect_taken_over(reply);
    ck_assert_str_eq(reply_str(reply, "trace_id"), TRACE_ID);
    ck_assert_str_eq(reply_str(reply, "span_id"), seen.trace.span_id);
    ck_assert_int_eq(reply_i64(reply, "flags"), taken[_i].flags);
    ck_assert_str_eq(reply_str(reply, "state"), taken[_i].state);
    ck_assert_str_eq(seen.state, taken[_i].state);
    ck_assert_str_eq(reply_header(reply, "X-Request-Id"), TRACE_ID);
    ck_assert_ptr_null(reply_header(reply, "tracestate"));
}
END_TEST

static const char *const not_taken[] = {
    NULL,
    "tracestate: congo=t61rcWkgMzE\r\n",
    "traceparent: \r\n",
    "traceparent: 00-" TRACE_ID "-" SPAN_ID "-01-more\r\ntracestate: congo=1\r\n",
    "traceparent: ff-" TRACE_ID "-" SPAN_ID "-01\r\n",
    "traceparent: 00-4BF92F3577B34DA6A3CE929D0E0E4736-" SPAN_ID "-01\r\n",
    "traceparent: 00-" TRACE_ID "-0000000000000000-01\r\ntracestate: congo=1\r\n",
    PARENT PARENT, /* Whose is the right one? */
    PARENT "Traceparent: 00-5bf92f3577b34da6a3ce929d0e0e4736-" SPAN_ID "-01\r\n",
    "trace-parent: 00-" TRACE_ID "-" SPAN_ID "-01\r\n",
};

START_TEST(trace_begins_where_none_is_brought)
{
    struct reply *reply = client_get(port, "/show", not_taken[_i]);

    ck_assert_int_eq(reply->status, 200);
    expect_new(reply);
    ck_assert_str_eq(reply_str(reply, "trace_id"), seen.trace.trace_id);
    ck_assert_str_eq(reply_str(reply, "state"), "");
    ck_assert_str_eq(reply_header(reply, "X-Request-Id"), seen.trace.trace_id);
    ck_assert_str_eq(seen.request_id, seen.trace.trace_id);
}
END_TEST

START_TEST(trace_of_each_request_is_its_own)
{
    char ids[3][CF_TRACE_ID_SIZE];
    int fd = client_open(port);

    for (int i = 0; i < 3; i++) {
        client_request(fd, "GET", "/show", i == 1 ? PARENT : NULL);
        memcpy(ids[i], told(client_recv(fd, "GET")).trace_id, sizeof(ids[i]));
    }
    (void)close(fd);
    ck_assert_str_eq(ids[1], TRACE_ID);
    ck_assert_str_ne(ids[0], TRACE_ID);
    ck_assert_str_ne(ids[2], TRACE_ID);
    ck_assert_str_ne(ids[0], ids[2]);
}
END_TEST

START_TEST(trace_and_request_id_are_two_things)
{
    struct reply *reply = client_get(port, "/show", PARENT "X-Request-Id: mine.1\r\n");

    expect_taken_over(reply);
    ck_assert_str_eq(reply_header(reply, "X-Request-Id"), "mine.1");
    ck_assert_str_eq(seen.request_id, "mine.1");
}
END_TEST

START_TEST(state_beyond_its_limits_is_dropped)
{
    char headers[2048] = PARENT;
    struct reply *reply;

    for (int i = 0; i < 2; i++) { /* Of 300 bytes each: together too long. */
        (void)snprintf(headers + strlen(headers), sizeof(headers) - strlen(headers),
                       "tracestate: a=%0200d,b=%095d\r\n", 1, 2);
        reply = client_get(port, "/show", headers);
        ck_assert_int_eq(reply->status, 200);
        expect_taken_over(reply);
        ck_assert_uint_eq(strlen(reply_str(reply, "state")), i == 0 ? 300 : 0);
    }
}
END_TEST

/* reply */

static const struct {
    const char *method;
    const char *target;
    const char *headers;
    int status;
} replies[] = {
    {"GET", "/show", PARENT, 200},
    {"HEAD", "/show", PARENT, 200},
    {"GET", "/show", PARENT "If-None-Match: \"1\"\r\n", 304},
    {"GET", "/large", PARENT "Accept-Encoding: gzip\r\n", 200},
    {"OPTIONS", "/show", PARENT, 204},
    {"DELETE", "/show", PARENT, 405},
    {"BREW", "/show", PARENT, 501},
    {"GET", "/none", PARENT, 404},
    {"GET", "/%", PARENT, 400},
    {"GET", "/fail", PARENT, 500},
    {"GET", "/show?timeout=0ms", PARENT, 504},
    {"GET", "/show", PARENT "Request-Timeout-Ms: soon\r\n", 400},
    {"GET", "/show", PARENT "Host: b\r\n", 400},
    {"POST", "/show", PARENT "Content-Length: 101\r\n", 413},
};

START_TEST(reply_of_every_kind_has_it)
{
    struct reply *reply =
        client_call(port, replies[_i].method, replies[_i].target, replies[_i].headers);

    ck_assert_int_eq(reply->status, replies[_i].status);
    expect_taken_over(reply);
    if (reply->status >= 400) {
        ck_assert_str_eq(reply_str(reply, "trace_id"), TRACE_ID);
        ck_assert_str_eq(reply_str(reply, "request_id"), TRACE_ID);
    }
}
END_TEST

/* Those that libmicrohttpd has no part in. */
START_TEST(reply_to_a_slow_or_large_body_has_it)
{
    char body[BODY_SIZE_MAX + 2];
    int fd = client_open(port);
    struct reply *reply;

    client_send(fd, "POST /show HTTP/1.1\r\nHost: a\r\n" PARENT "Content-Length: 5\r\n\r\n1234");
    reply = client_recv(fd, "POST");
    ck_assert_int_eq(reply->status, 408);
    expect_taken_over(reply);
    ck_assert_str_eq(reply_str(reply, "trace_id"), TRACE_ID);
    (void)close(fd);

    memset(body, 'a', sizeof(body) - 1);
    body[sizeof(body) - 1] = '\0';
    fd = client_open(port);
    client_send(fd, "POST /show HTTP/1.1\r\nHost: a\r\n" PARENT
                    "Transfer-Encoding: chunked\r\n\r\n65\r\n");
    client_send(fd, body);
    reply = client_recv(fd, "POST");
    ck_assert_int_eq(reply->status, 413);
    expect_taken_over(reply);
    (void)close(fd);
}
END_TEST

START_TEST(reply_to_a_slow_head_is_of_a_new_one)
{
    int fd = client_open(port);
    struct reply *reply;

    client_send(fd, "GET /show HTTP/1.1\r\nHost: a\r\n" PARENT "X-Long: ");
    reply = client_recv(fd, "GET");
    ck_assert_int_eq(reply->status, 408);
    expect_new(reply);
    (void)close(fd);
}
END_TEST

START_TEST(reply_of_a_stream_has_it)
{
    struct chunks chunks;
    size_t size;
    int fd = client_open(port);

    client_request(fd, "GET", "/stream", PARENT "tracestate: congo=t61rcWkgMzE\r\n");
    chunks_begin(&chunks, fd);
    ck_assert_ptr_nonnull(strstr(chunks.head, "\r\ntraceparent: 00-" TRACE_ID "-"));
    free(chunks_read_all(&chunks, &size));
    ck_assert(chunks.is_whole);
    await_record();
    (void)close(fd);
}
END_TEST

/* The headers are libmicrohttpd's, and go with the connection; the handler goes on. */
START_TEST(trace_of_a_stream_outlives_its_connection)
{
    struct chunks chunks;
    int fd = client_open(port);

    client_request(fd, "GET", "/stream?endless=1", PARENT "tracestate: congo=t61rcWkgMzE\r\n");
    chunks_begin(&chunks, fd);
    client_reset(fd);
    await_record();
    ck_assert_str_eq(seen.trace.trace_id, TRACE_ID);
    ck_assert_str_eq(seen.state, "congo=t61rcWkgMzE");
}
END_TEST

Suite *suite_http_trace(void)
{
    Suite *suite = suite_create("http_trace");
    TCase *take = tcase_create("take");
    TCase *reply = tcase_create("reply");

    tcase_add_checked_fixture(take, setup, teardown);
    tcase_add_loop_test(take, trace_of_the_client_goes_on, 0, N(taken));
    tcase_add_loop_test(take, trace_begins_where_none_is_brought, 0, N(not_taken));
    tcase_add_test(take, trace_of_each_request_is_its_own);
    tcase_add_test(take, trace_and_request_id_are_two_things);
    tcase_add_test(take, state_beyond_its_limits_is_dropped);
    suite_add_tcase(suite, take);

    tcase_add_checked_fixture(reply, setup, teardown);
    tcase_add_loop_test(reply, reply_of_every_kind_has_it, 0, N(replies));
    tcase_add_test(reply, reply_to_a_slow_or_large_body_has_it);
    tcase_add_test(reply, reply_to_a_slow_head_is_of_a_new_one);
    tcase_add_test(reply, reply_of_a_stream_has_it);
    tcase_add_test(reply, trace_of_a_stream_outlives_its_connection);
    suite_add_tcase(suite, reply);
    return suite;
}
