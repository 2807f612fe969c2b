/* SPDX-License-Identifier: MIT */
/* The HTTP client, against peers that answer, hang, lie and flood. */
#include <curfew/client.h>

#include <arpa/inet.h>
#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <curfew/clock.h>
#include <curfew/http.h>
#include <curfew/trace.h>
#include <curfew/wait.h>

#include "fault.h"
#include "peer.h"

#define HERE "http://127.0.0.1:" /* A rule for each port is made from it. */
#define OK_REPLY "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi"
#define SHORT_NS (50 * CF_MS)
#define SLACK_NS (500 * CF_MS) /* How late a reply may be: the machine's business. */

/* Fixture */

static struct cf_loop *loop;
static struct cf_client *client;
static struct peer *peer;
static char url[64];

static void setup(void)
{
    ck_assert_int_eq(cf_loop_new(NULL, &loop, NULL), CF_OK);
    client = NULL;
    peer = NULL;
}

static void teardown(void)
{
    cf_client_free(client);
    if (peer != NULL) {
        peer_free(peer);
    }
    cf_loop_free(loop);
}

/* Helpers */

static void use_peer(const char *reply, enum peer_then then)
{
    peer = peer_new(reply, then);
    (void)snprintf(url, sizeof(url), HERE "%u/path?q=1", peer_port(peer));
}

static void use_client(struct cf_client_options options)
{
    char rule[64];
    struct cf_err err = {.msg = ""};

    if (options.allow == NULL) {
        (void)snprintf(rule, sizeof(rule), HERE "%u", peer_port(peer));
        options.allow = rule;
    }
    ck_assert_msg(cf_client_new(&options, &loop, 1, &client, &err) == CF_OK, "%s", err.msg);
}

/* A request on a fiber, and what became of it. */
struct job {
    struct cf_client_request request;
    struct cf_ctx *ctx; /* NULL: the background. */
    struct cf_client_reply *reply;
    enum cf_code code;
    struct cf_err err;
    int64_t took_ns;
    struct cf_ctx *done; /* NULL, or cancelled at the end. */
};

static void run_job(void *arg)
{
    struct job *job = arg;
    struct cf_ctx *ctx = job->ctx != NULL ? job->ctx : cf_ctx_background();
    struct cf_ctx *done = job->done != NULL ? cf_ctx_ref(job->done) : NULL;
    int64_t since_ns = cf_now_ns();

    job->code = cf_client_do(ctx, client, &job->request, &job->reply, &job->err);
    job->took_ns = cf_now_ns() - since_ns;
    if (done != NULL) {
        cf_ctx_cancel(done); /* Who waited for it may free the job now. */
        cf_ctx_unref(done);
    }
}

static struct job do_request(struct cf_client_request request, struct cf_ctx *ctx)
{
    struct job job = {.request = request, .ctx = ctx};

    ck_assert_int_eq(cf_loop_call(loop, run_job, &job, NULL), CF_OK);
    return job;
}

static struct job get(const char *where)
{
    return do_request((struct cf_client_request){.url = where}, NULL);
}

/* Wait on the test's thread until `count(peer)` is `n`. */
static void wait_for(int (*count)(struct peer *), int n)
{
    int64_t until_ns = cf_now_ns() + 5 * CF_SECOND;

    while (count(peer) < n) {
        ck_assert_int_lt(cf_now_ns(), until_ns);
        (void)usleep(500);
    }
}

#define expect_code(job, wanted)                                                                   \
    ck_assert_msg((job).code == (wanted), "%s: %s", cf_code_name((job).code), (job).err.msg)

/* cf_client_new */

START_TEST(new_refuses_what_is_no_rule)
{
    static const char *const bad[] = {"ftp://example.org",
                                      "http://",
                                      "a b/c",
                                      "host:0",
                                      "host:65536",
                                      "ho*st",
                                      "*host",
                                      "10.0.0.0/33",
                                      "http://host/path",
                                      "[127.0.0.1",
                                      "[host]",
                                      "ho\"st",
                                      "host:80:90",
                                      "http://10.0.0.0/8"};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct cf_client_options options = {.allow = bad[i]};
        struct cf_err err = {.msg = ""};

        ck_assert_msg(cf_client_new(&options, &loop, 1, &client, &err) == CF_EINVAL, "%s", bad[i]);
        ck_assert_msg(strstr(err.msg, "10.0.0.0/8") != NULL, "%s", err.msg);
    }
    client = NULL;
}
END_TEST

START_TEST(new_out_of_memory)
{
    struct cf_client_options options = {.allow = "a.example, 10.0.0.0/8", .ca_file = "/nowhere"};
    struct cf_err err;

    for (unsigned nth = 1;; nth++) {
        enum cf_code code;

        fault_alloc(nth, false);
        code = cf_client_new(&options, &loop, 1, &client, &err);
        if (!fault_off()) {
            ck_assert_int_eq(code, CF_OK);
            return;
        }
        ck_assert_int_eq(code, CF_ENOMEM);
    }
}
END_TEST

/* cf_client_do: what it sends and gives back */

START_TEST(do_gives_status_headers_and_body)
{
    struct job job;

    use_peer("HTTP/1.1 404 Not Found\r\nX-A: one\r\nX-A: two\r\nContent-Length: 4\r\n\r\nnone",
             PEER_KEEP);
    use_client((struct cf_client_options){.allow = NULL});
    job = get(url);
    expect_code(job, CF_OK);
    ck_assert_int_eq(job.reply->status, 404);
    ck_assert_str_eq(job.reply->url, url);
    ck_assert_str_eq(job.reply->body, "none");
    ck_assert_uint_eq(job.reply->body_size, 4);
    ck_assert_str_eq(cf_client_reply_header(job.reply, "x-a"), "one");
    ck_assert_ptr_null(cf_client_reply_header(job.reply, "X-B"));
    ck_assert_int_gt(job.reply->took_ns, 0);
    cf_client_reply_free(job.reply);
    ck_assert_ptr_nonnull(strstr(peer_request(peer), "GET /path?q=1 HTTP/1.1\r\n"));
    ck_assert_ptr_nonnull(strstr(peer_request(peer), "User-Agent: curfew/" CF_VERSION "\r\n"));
    ck_assert_ptr_null(strstr(peer_request(peer), "Request-Timeout-Ms"));
    ck_assert_ptr_null(strstr(peer_request(peer), "Content-Type"));
}
END_TEST

START_TEST(do_sends_method_headers_and_body)
{
    struct cf_client_header headers[] = {{"Content-Type", "application/json"}, {"X-Empty", ""}};
    struct job job;

    use_peer(OK_REPLY, PEER_KEEP);
    use_client((struct cf_client_options){.allow = NULL});
    job = do_request((struct cf_client_request){.method = "PATCH",
                                                .url = url,
                                                .headers = headers,
                                                .n_headers = 2,
                                                .body = "{}\0{}",
                                                .body_size = 5},
                     NULL);
    expect_code(job, CF_OK);
    cf_client_reply_free(job.reply);
    ck_assert_ptr_nonnull(strstr(peer_request(peer), "PATCH /path?q=1 HTTP/1.1\r\n"));
    ck_assert_ptr_nonnull(strstr(peer_request(peer), "Content-Type: application/json\r\n"));
    ck_assert_ptr_nonnull(strstr(peer_request(peer), "X-Empty:"));
    ck_assert_ptr_nonnull(strstr(peer_request(peer), "Content-Length: 5\r\n"));
    ck_assert_ptr_null(strstr(peer_request(peer), "Expect"));
}
END_TEST

static const char *const with_body[] = {"POST", "PUT", "PATCH"};

START_TEST(do_without_a_body_says_so)
{
    struct job job;

    use_peer(OK_REPLY, PEER_KEEP);
    use_client((struct cf_client_options){.allow = NULL});
    job = do_request((struct cf_client_request){.method = with_body[_i], .url = url}, NULL);
    expect_code(job, CF_OK);
    cf_client_reply_free(job.reply);
    ck_assert_int_eq(strncmp(peer_request(peer), with_body[_i], strlen(with_body[_i])), 0);
    ck_assert_ptr_nonnull(strstr(peer_request(peer), "Content-Length: 0\r\n"));
    ck_assert_ptr_null(strstr(peer_request(peer), "Content-Type"));
}
END_TEST

static enum cf_code tell_expect(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    const char *expect = cf_http_header(http, "Expect");

    (void)ctx;
    (void)err;
    cf_http_reply_text(http, 200, expect != NULL ? expect : "none");
    return CF_OK;
}

/* Whoever expects a 100 waits a second for it. */
START_TEST(do_sends_a_long_body_at_once)
{
    static const struct cf_http_route route = {
        .method = "POST", .path = "/", .handler = tell_expect, .body_size_max = (size_t)4 << 20};
    struct cf_http_options options = {.listen = "127.0.0.1:0", .routes = &route, .n_routes = 1};
    const size_t size = (size_t)2 << 20;
    struct cf_http_server *server;
    void *body = calloc(1, size);
    char rule[64];
    struct job job;

    ck_assert_int_eq(cf_http_server_new(&options, &loop, 1, &server, NULL), CF_OK);
    (void)snprintf(rule, sizeof(rule), HERE "%u", cf_http_server_port(server));
    (void)snprintf(url, sizeof(url), HERE "%u/", cf_http_server_port(server));
    use_client((struct cf_client_options){.allow = rule});
    job = do_request((struct cf_client_request){.url = url, .body = body, .body_size = size}, NULL);
    expect_code(job, CF_OK);
    ck_assert_str_eq(job.reply->body, "none");
    cf_client_reply_free(job.reply);
    cf_http_server_stop(server, CF_SECOND);
    cf_http_server_free(server);
    free(body);
}
END_TEST

START_TEST(do_head_has_no_body)
{
    struct job job;

    use_peer("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", PEER_KEEP);
    use_client((struct cf_client_options){.allow = NULL});
    job = do_request((struct cf_client_request){.method = "HEAD", .url = url}, NULL);
    expect_code(job, CF_OK);
    ck_assert_uint_eq(job.reply->body_size, 0);
    ck_assert_str_eq(cf_client_reply_header(job.reply, "Content-Length"), "1000");
    cf_client_reply_free(job.reply);
}
END_TEST

START_TEST(do_keeps_the_connection)
{
    use_peer(OK_REPLY, PEER_KEEP);
    use_client((struct cf_client_options){.allow = NULL});
    for (int i = 0; i < 5; i++) {
        struct job job = get(url);

        expect_code(job, CF_OK);
        cf_client_reply_free(job.reply);
    }
    ck_assert_int_eq(peer_accepted(peer), 1);
    cf_client_free(client);
    client = NULL;
    wait_for(peer_closed, 1);
}
END_TEST

START_TEST(do_tells_what_is_left_less_a_margin)
{
    struct cf_ctx *ctx;
    struct job job;
    const char *at;
    long told;

    use_peer(OK_REPLY, PEER_KEEP);
    use_client((struct cf_client_options){.tells_budget = true});
    ck_assert_int_eq(cf_ctx_with_timeout(cf_ctx_background(), 10 * CF_SECOND, &ctx, NULL), CF_OK);
    job = do_request((struct cf_client_request){.url = url}, ctx);
    cf_ctx_free(ctx);
    expect_code(job, CF_OK);
    cf_client_reply_free(job.reply);
    at = strstr(peer_request(peer), "Request-Timeout-Ms: ");
    ck_assert_ptr_nonnull(at);
    told = strtol(at + strlen("Request-Timeout-Ms: "), NULL, 10);
    ck_assert_int_le(told, 9800); /* A fiftieth is kept. */
    ck_assert_int_gt(told, 9000);
}
END_TEST

#define TRACE_ID "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN_ID "00f067aa0ba902b7"
#define TRACEPARENT "00-" TRACE_ID "-" SPAN_ID "-01"

/* A request under a context that carries a trace. */
static struct job do_traced(const char *state, struct cf_client_header *headers, size_t n_headers)
{
    struct cf_client_request request = {.url = url, .headers = headers, .n_headers = n_headers};
    struct cf_trace trace;
    struct cf_ctx *ctx;
    struct job job;

    ck_assert(cf_trace_read(TRACEPARENT, state, &trace));
    ck_assert_int_eq(cf_ctx_with_trace(cf_ctx_background(), &trace, &ctx, NULL), CF_OK);
    job = do_request(request, ctx);
    cf_ctx_free(ctx);
    if (job.code == CF_OK) {
        cf_client_reply_free(job.reply);
    }
    return job;
}

/* The trace that `from` was told of, which has to be told once. Its state ends with a line. */
static struct cf_trace told_trace(struct peer *from)
{
    static char traceparent[CF_TRACEPARENT_SIZE];
    const char *request = peer_request(from);
    const char *at = strstr(request, "\r\ntraceparent: ");
    const char *state = strstr(request, "\r\ntracestate: ");
    struct cf_trace trace;

    ck_assert_msg(at != NULL, "no trace in %s", request);
    ck_assert_ptr_null(strcasestr(at + 2, "\r\ntraceparent"));
    at += strlen("\r\ntraceparent: ");
    ck_assert_uint_eq(strcspn(at, "\r"), CF_TRACEPARENT_SIZE - 1);
    memcpy(traceparent, at, CF_TRACEPARENT_SIZE - 1);
    ck_assert(cf_trace_read(traceparent, NULL, &trace));
    trace.state = state != NULL ? state + strlen("\r\ntracestate: ") : "\r";
    return trace;
}

START_TEST(do_tells_the_trace_with_a_span_of_its_own)
{
    struct cf_trace first;
    struct cf_trace second;

    use_peer(OK_REPLY, PEER_KEEP);
    use_client((struct cf_client_options){.tells_trace = true});
    expect_code(do_traced("rojo=1,congo=t61rcWkgMzE", NULL, 0), CF_OK);
    first = told_trace(peer);
    ck_assert_str_eq(first.trace_id, TRACE_ID);
    ck_assert_str_ne(first.span_id, SPAN_ID);
    ck_assert_uint_eq(first.flags, CF_TRACE_SAMPLED);
    ck_assert_int_eq(strncmp(first.state, "rojo=1,congo=t61rcWkgMzE\r", 25), 0);
    expect_code(do_traced(NULL, NULL, 0), CF_OK);
    second = told_trace(peer);
    ck_assert_str_eq(second.trace_id, TRACE_ID);
    ck_assert_str_ne(second.span_id, first.span_id);
    ck_assert_ptr_null(strstr(peer_request(peer), "tracestate"));
}
END_TEST

START_TEST(do_tells_no_trace_that_is_not_there)
{
    struct job job;

    use_peer(OK_REPLY, PEER_KEEP);
    use_client((struct cf_client_options){.tells_trace = true});
    job = get(url);
    expect_code(job, CF_OK);
    cf_client_reply_free(job.reply);
    ck_assert_ptr_null(strstr(peer_request(peer), "trace"));
}
END_TEST

START_TEST(do_tells_no_trace_unless_told_to)
{
    use_peer(OK_REPLY, PEER_KEEP);
    use_client((struct cf_client_options){.tells_budget = true});
    expect_code(do_traced("congo=t61rcWkgMzE", NULL, 0), CF_OK);
    ck_assert_ptr_null(strstr(peer_request(peer), "trace"));
}
END_TEST

START_TEST(do_tells_the_trace_of_its_request_if_it_has_one)
{
    struct cf_client_header parent = {"TraceParent", "00-" TRACE_ID "-0000000000000001-00"};
    struct cf_client_header state = {"tracestate", "own=1"};

    use_peer(OK_REPLY, PEER_KEEP);
    use_client((struct cf_client_options){.tells_trace = true});
    expect_code(do_traced("congo=t61rcWkgMzE", &parent, 1), CF_OK);
    ck_assert_ptr_nonnull(
        strstr(peer_request(peer), "\r\nTraceParent: 00-" TRACE_ID "-0000000000000001-00\r\n"));
    ck_assert_ptr_null(
        strstr(peer_request(peer), "traceparent")); /* Nor a state, which belongs to */
    ck_assert_ptr_null(strstr(peer_request(peer), "tracestate")); /* the one that is not told. */
    expect_code(do_traced("congo=t61rcWkgMzE", &state, 1), CF_OK);
    ck_assert_int_eq(strncmp(told_trace(peer).state, "own=1\r", 6), 0);
    ck_assert_ptr_null(strstr(peer_request(peer), "congo"));
}
END_TEST

/* Not read from a header, where it would have been dropped. */
START_TEST(do_refuses_a_trace_that_would_forge)
{
    struct cf_trace trace;
    struct cf_ctx *ctx;
    struct job job;

    use_peer(OK_REPLY, PEER_KEEP);
    use_client((struct cf_client_options){.tells_trace = true});
    cf_trace_init(&trace);
    trace.state = "a=1\r\nX-C: d";
    ck_assert_int_eq(cf_ctx_with_trace(cf_ctx_background(), &trace, &ctx, NULL), CF_OK);
    job = do_request((struct cf_client_request){.url = url}, ctx);
    expect_code(job, CF_EINVAL);
    cf_ctx_free(ctx);
    ck_assert_int_eq(peer_accepted(peer), 0);
}
END_TEST

/* cf_client_do: the seven tests of a call that may wait */

START_TEST(do_already_canceled)
{
    struct cf_ctx *ctx;
    struct job job;

    use_peer(OK_REPLY, PEER_KEEP);
    use_client((struct cf_client_options){.allow = NULL});
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &ctx, NULL), CF_OK);
    cf_ctx_cancel(ctx);
    job = do_request((struct cf_client_request){.url = url}, ctx);
    expect_code(job, CF_ECANCELED);
    cf_ctx_free(ctx);
    ck_assert_int_eq(peer_accepted(peer), 0);
}
END_TEST

START_TEST(do_canceled_while_waiting)
{
    struct job job = {.request = {.url = url}};

    use_peer(NULL, PEER_KEEP);
    use_client((struct cf_client_options){.allow = NULL});
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &job.ctx, NULL), CF_OK);
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &job.done, NULL), CF_OK);
    ck_assert_int_eq(cf_loop_spawn(loop, run_job, &job, NULL), CF_OK);
    wait_for(peer_requests, 1);
    cf_ctx_cancel(job.ctx);
    ck_assert_int_eq(cf_wait_done(cf_ctx_background(), job.done, NULL), CF_OK);
    expect_code(job, CF_ECANCELED);
    wait_for(peer_closed, 1);
    cf_ctx_free(job.ctx);
    cf_ctx_free(job.done);
}
END_TEST

START_TEST(do_deadline_while_waiting)
{
    struct cf_ctx *ctx;
    struct job job;

    use_peer(NULL, PEER_KEEP);
    use_client((struct cf_client_options){.allow = NULL});
    ck_assert_int_eq(cf_ctx_with_timeout(cf_ctx_background(), SHORT_NS, &ctx, NULL), CF_OK);
    job = do_request((struct cf_client_request){.url = url}, ctx);
    expect_code(job, CF_EDEADLINE);
    ck_assert_int_eq(cf_ctx_err(ctx), CF_EDEADLINE); /* Never early. */
    ck_assert_int_lt(job.took_ns, SHORT_NS + SLACK_NS);
    cf_ctx_free(ctx);
    wait_for(peer_closed, 1);
}
END_TEST

START_TEST(do_longest_request_of_the_client)
{
    struct job job;

    use_peer(NULL, PEER_KEEP);
    use_client((struct cf_client_options){.timeout_max_ns = SHORT_NS});
    job = get(url);
    expect_code(job, CF_EDEADLINE);
    ck_assert_int_ge(job.took_ns, SHORT_NS);
    ck_assert_int_lt(job.took_ns, SHORT_NS + SLACK_NS);
}
END_TEST

/* A listener whose backlog is full answers no SYN. */
START_TEST(do_deadline_while_connecting)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    struct cf_client_options options = {.connect_timeout_ns = SHORT_NS};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int fillers[8];
    char rule[64];
    struct job job;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(fd, 0), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    for (size_t i = 0; i < 8; i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)connect(fillers[i], (struct sockaddr *)&address, sizeof(address));
    }
    (void)snprintf(rule, sizeof(rule), HERE "%u", ntohs(address.sin_port));
    options.allow = rule;
    use_client(options);
    job = get(rule);
    expect_code(job, CF_EUNAVAIL);
    ck_assert_int_ge(job.took_ns, SHORT_NS - CF_MS); /* libcurl's clock, which is its own. */
    ck_assert_int_lt(job.took_ns, SHORT_NS + SLACK_NS);
    for (size_t i = 0; i < 8; i++) {
        (void)close(fillers[i]);
    }
    (void)close(fd);
}
END_TEST

START_TEST(do_closed_while_waiting)
{
    struct job job;

    use_peer("", PEER_CLOSE);
    use_client((struct cf_client_options){.allow = NULL});
    job = get(url);
    expect_code(job, CF_EIO);
}
END_TEST

/* The cancel comes at random moments around the reply: whichever was first, nothing is lost. */
START_TEST(do_success_races_cancel)
{
    int64_t until_ns = cf_now_ns() + 10 * CF_SECOND;
    int replies = 0;
    int ended = 0;

    use_peer(OK_REPLY, PEER_KEEP);
    use_client((struct cf_client_options){.allow = NULL});
    for (int i = 0; i < 300 || (cf_now_ns() < until_ns && (replies == 0 || ended == 0)); i++) {
        int64_t most_ns = (i < 300 ? 2 : 20) * CF_MS; /* On a busy machine. */
        struct cf_ctx *ctx;
        struct job job;

        ck_assert_int_eq(cf_ctx_with_timeout(cf_ctx_background(), rand() % most_ns, &ctx, NULL),
                         CF_OK);
        job = do_request((struct cf_client_request){.url = url}, ctx);
        if (job.code == CF_OK) {
            ck_assert_str_eq(job.reply->body, "hi");
            cf_client_reply_free(job.reply);
            replies++;
        } else {
            expect_code(job, CF_EDEADLINE);
            ended++;
        }
        cf_ctx_free(ctx);
    }
    ck_assert_int_gt(replies, 0);
    ck_assert_int_gt(ended, 0);
}
END_TEST

/* On the loop's thread, whose allocations are the ones to fail. */
static void run_without_memory(void *arg)
{
    struct cf_client_header headers[] = {{"X-A", "b"}};
    struct cf_client_request request = {.url = url, .headers = headers, .n_headers = 1};

    for (unsigned nth = 1;; nth++) {
        struct cf_client_reply *reply;
        struct cf_err err;
        enum cf_code code;

        fault_alloc(nth, false);
        code = cf_client_do(arg, client, &request, &reply, &err);
        if (!fault_off()) {
            ck_assert_int_eq(code, CF_OK);
            cf_client_reply_free(reply);
            return;
        }
        ck_assert_msg(code == CF_ENOMEM || code == CF_EUNAVAIL || code == CF_EIO, "%u: %s", nth,
                      cf_code_name(code));
    }
}

START_TEST(do_out_of_memory)
{
    struct cf_trace trace;
    struct cf_ctx *ctx;

    use_peer(OK_REPLY, PEER_CLOSE);
    use_client((struct cf_client_options){.tells_budget = true, .tells_trace = true});
    ck_assert(cf_trace_read(TRACEPARENT, "congo=t61rcWkgMzE", &trace));
    ck_assert_int_eq(cf_ctx_with_trace(cf_ctx_background(), &trace, &ctx, NULL), CF_OK);
    ck_assert_int_eq(cf_loop_call(loop, run_without_memory, ctx, NULL), CF_OK);
    cf_ctx_free(ctx);
}
END_TEST

START_TEST(do_limit_reached)
{
    struct job first = {.request = {.url = url}};
    struct cf_ctx *ctx;
    struct job job;

    use_peer(NULL, PEER_KEEP);
    use_client((struct cf_client_options){.host_max = 1});
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &first.ctx, NULL), CF_OK);
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &first.done, NULL), CF_OK);
    ck_assert_int_eq(cf_loop_spawn(loop, run_job, &first, NULL), CF_OK);
    wait_for(peer_requests, 1);
    ck_assert_int_eq(cf_ctx_with_timeout(cf_ctx_background(), SHORT_NS, &ctx, NULL), CF_OK);
    job = do_request((struct cf_client_request){.url = url}, ctx); /* Waits for the first one's. */
    expect_code(job, CF_EDEADLINE);
    ck_assert_int_eq(peer_accepted(peer), 1);
    cf_ctx_cancel(first.ctx);
    ck_assert_int_eq(cf_wait_done(cf_ctx_background(), first.done, NULL), CF_OK);
    cf_ctx_free(ctx);
    cf_ctx_free(first.ctx);
    cf_ctx_free(first.done);
}
END_TEST

START_TEST(do_on_a_plain_thread_asserts)
{
    struct cf_client_request request = {.url = HERE "1"};
    struct cf_client_reply *reply;

    use_client((struct cf_client_options){.allow = HERE "1"});
    ck_assert_int_eq(cf_client_do(cf_ctx_background(), client, &request, &reply, NULL), CF_OK);
}
END_TEST

/* cf_client_do: peers that are not as they should be */

START_TEST(do_nobody_listens)
{
    struct job job;

    use_peer(OK_REPLY, PEER_KEEP);
    use_client((struct cf_client_options){.allow = NULL});
    peer_free(peer);
    peer = NULL;
    job = get(url);
    expect_code(job, CF_EUNAVAIL);
}
END_TEST

START_TEST(do_no_such_name)
{
    struct job job;

    use_client((struct cf_client_options){.allow = "*"});
    job = get("http://nowhere.invalid/");
    expect_code(job, CF_EUNAVAIL);
    ck_assert_ptr_nonnull(strstr(job.err.msg, "resolve nowhere.invalid"));
}
END_TEST

START_TEST(do_reply_is_none)
{
    static const char *const replies[] = {
        "SSH-2.0-OpenSSH_9.2\r\n",                                       /* HTTP/0.9, or what? */
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",             /* Ends early. */
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",   /* No such chunk. */
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal", /* Nor its end. */
        "HTTP/1.1 200 OK\r\nContent-Le",                                 /* Nor that of the head. */
    };

    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        struct job job;

        use_peer(replies[i], PEER_CLOSE);
        use_client((struct cf_client_options){.allow = NULL});
        job = get(url);
        ck_assert_msg(job.code == CF_EIO, "%s: %s", replies[i], job.err.msg);
        cf_client_free(client);
        peer_free(peer);
    }
    client = NULL;
    peer = NULL;
}
END_TEST

START_TEST(do_endless_replies_are_cut)
{
    static const char *const replies[] = {
        "HTTP/1.1 200 OK\r\n\r\n0123456789abcdef",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n12345678901\r\n",
        "HTTP/1.1 200 OK\r\nX-Header: 12345\r\n",
        "HTTP/1.1 200 OK\r\nX-Header: 0123456789abcdef",
        "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n0123456789abcdef",
    };

    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        struct job job;

        use_peer(replies[i], PEER_FLOOD);
        use_client((struct cf_client_options){.body_size_max = 10000, .head_size_max = 10000});
        job = get(url);
        /* An endless line meets libcurl's own limit, which it calls lack of memory. */
        ck_assert_msg(job.code == CF_ELIMIT || (i == 3 && job.code == CF_ENOMEM), "%zu: %s: %s", i,
                      cf_code_name(job.code), job.err.msg);
        wait_for(peer_closed, 1);
        cf_client_free(client);
        peer_free(peer);
    }
    client = NULL;
    peer = NULL;
}
END_TEST

/* What may be reached */

START_TEST(do_refuses_what_is_no_url_for_it)
{
    static const char *const bad[] = {"",
                                      "example.org/path",
                                      "file:///etc/passwd",
                                      "gopher://a.example/",
                                      "http://",
                                      "http://user@a.example/",
                                      "http://user:word@a.example/",
                                      "http://a.example:99999/",
                                      "http://a.ex\xc3\xa4mple/",
                                      "http://[fe80::1%25lo]/"};

    use_client((struct cf_client_options){.allow = "*"});
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct job job = get(bad[i]);

        ck_assert_msg(job.code == CF_EINVAL, "%s: %s %s", bad[i], cf_code_name(job.code),
                      job.err.msg);
    }
}
END_TEST

/* All of these are ways to write an address that is not public, or lead to one. */
START_TEST(do_refuses_what_is_not_public)
{
    static const char *const hosts[] = {"127.0.0.1",
                                        "2130706433",
                                        "0x7f.1",
                                        "0177.0.0.1",
                                        "127.1",
                                        "0",
                                        "localhost",
                                        "[::1]",
                                        "[::ffff:127.0.0.1]",
                                        "[::127.0.0.1]",
                                        "169.254.169.254",
                                        "10.1.2.3",
                                        "172.16.0.1",
                                        "192.168.1.1",
                                        "100.64.0.1",
                                        "[fc00::1]",
                                        "[64:ff9b::7f00:1]",
                                        "[2002:7f00:1::]",
                                        "224.0.0.1",
                                        "255.255.255.255",
                                        "[ff02::1]",
                                        "LOCALHOST",
                                        "192.0.0.8"};

    use_client((struct cf_client_options){.allow = "*"});
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        char where[64];
        struct job job;

        (void)snprintf(where, sizeof(where), "http://%s/", hosts[i]);
        job = get(where);
        ck_assert_msg(job.code == CF_EINVAL && strstr(job.err.msg, "no rule allows") != NULL,
                      "%s: %s %s", hosts[i], cf_code_name(job.code), job.err.msg);
    }
}
END_TEST

START_TEST(do_rules_hold_scheme_host_and_port)
{
    static const struct {
        const char *allow;
        const char *url;
        bool refused;
    } cases[] = {
        {"", "http://a.invalid/", true},
        {"a.invalid", "http://a.invalid/", false},
        {"a.invalid", "http://A.INVALID/", false},
        {"a.invalid", "http://a.invalid./", false},
        {"a.invalid", "https://a.invalid/", false},
        {"a.invalid", "http://b.a.invalid/", true},
        {"a.invalid", "http://xa.invalid/", true},
        {"a.invalid", "http://a.invalid:8080/", true},
        {"a.invalid", "http://a.invalid:443/", true},
        {"a.invalid:8080", "http://a.invalid:8080/", false},
        {"a.invalid:8080", "http://a.invalid/", true},
        {"https://a.invalid", "http://a.invalid/", true},
        {"https://a.invalid", "https://a.invalid/", false},
        {"*.a.invalid", "http://b.a.invalid/", false},
        {"*.a.invalid", "http://c.b.a.invalid/", false},
        {"*.a.invalid", "http://a.invalid/", true},
        {"*.a.invalid", "http://ba.invalid/", true},
        {"*", "http://a.invalid/", false},
        {"*", "http://a.invalid:22/", true},
        {"*:22", "http://a.invalid:22/", false},
        {"x.invalid,\n a.invalid", "http://a.invalid/", false},
        {"10.0.0.0/8", "http://10.0.0.1/", true}, /* An address, but no host. */
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct job job;
        bool refused;

        use_client((struct cf_client_options){.allow = cases[i].allow});
        job = get(cases[i].url);
        refused = job.code == CF_EINVAL;
        ck_assert_msg(refused == cases[i].refused, "%s for %s: %s", cases[i].url, cases[i].allow,
                      job.err.msg);
        ck_assert(refused || job.code == CF_EUNAVAIL);
        cf_client_free(client);
    }
    client = NULL;
}
END_TEST

START_TEST(do_name_may_reach_a_network_that_is_allowed)
{
    char rules[96];
    char where[64];
    struct job job;

    use_peer(OK_REPLY, PEER_KEEP);
    (void)snprintf(rules, sizeof(rules), "localhost:%u 127.0.0.0/8", peer_port(peer));
    (void)snprintf(where, sizeof(where), "http://localhost:%u/", peer_port(peer));
    use_client((struct cf_client_options){.allow = rules});
    job = get(where);
    expect_code(job, CF_OK);
    cf_client_reply_free(job.reply);
}
END_TEST

/* A rule for an address does not open it to names. */
START_TEST(do_name_may_not_reach_an_address_of_a_rule)
{
    char rules[96];
    char where[64];
    struct job job;

    use_peer(OK_REPLY, PEER_KEEP);
    (void)snprintf(rules, sizeof(rules), "localhost:%u " HERE "%u", peer_port(peer),
                   peer_port(peer));
    (void)snprintf(where, sizeof(where), "http://localhost:%u/", peer_port(peer));
    use_client((struct cf_client_options){.allow = rules});
    job = get(where);
    expect_code(job, CF_EINVAL);
    ck_assert_int_eq(peer_accepted(peer), 0);
}
END_TEST

START_TEST(do_ignores_a_proxy_of_the_environment)
{
    struct peer *proxy = peer_new("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nproxy", PEER_KEEP);
    char value[64];
    struct job job;

    (void)snprintf(value, sizeof(value), HERE "%u", peer_port(proxy));
    ck_assert_int_eq(setenv("http_proxy", value, 1), 0);
    ck_assert_int_eq(setenv("ALL_PROXY", value, 1), 0);
    use_peer(OK_REPLY, PEER_KEEP);
    use_client((struct cf_client_options){.allow = NULL});
    job = get(url);
    expect_code(job, CF_OK);
    ck_assert_str_eq(job.reply->body, "hi");
    cf_client_reply_free(job.reply);
    ck_assert_int_eq(peer_accepted(proxy), 0);
    peer_free(proxy);
}
END_TEST

START_TEST(do_refuses_headers_that_would_forge)
{
    static const struct cf_client_header bad[] = {
        {"X-A", "b\r\nX-C: d"},
        {"X-A", "b\nc"},
        {"X A", "b"},
        {"X-A:", "b"},
        {"", "b"},
        {"X-A\r\nB", "c"},
        {"Host", "b"},
        {"content-length", "5"},
        {"Transfer-Encoding", "chunked"},
    };

    use_peer(OK_REPLY, PEER_KEEP);
    use_client((struct cf_client_options){.allow = NULL});
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct job job = do_request(
            (struct cf_client_request){.url = url, .headers = &bad[i], .n_headers = 1}, NULL);

        ck_assert_msg(job.code == CF_EINVAL, "%s: %s", bad[i].name, bad[i].value);
    }
    ck_assert_int_eq(peer_accepted(peer), 0);
}
END_TEST

/* Redirects */

#define REDIRECT(to) "HTTP/1.1 302 Found\r\nLocation: " to "\r\nContent-Length: 0\r\n\r\n"

START_TEST(do_gives_a_redirect_back_unless_told_to_follow)
{
    struct job job;

    use_peer(REDIRECT("/elsewhere"), PEER_KEEP);
    use_client((struct cf_client_options){.redirects_max = 0});
    job = get(url);
    expect_code(job, CF_OK);
    ck_assert_int_eq(job.reply->status, 302);
    cf_client_reply_free(job.reply);
    ck_assert_int_eq(peer_requests(peer), 1);
}
END_TEST

START_TEST(do_follows_no_more_than_so_often)
{
    struct job job;

    use_peer(REDIRECT("/again"), PEER_KEEP);
    use_client((struct cf_client_options){.redirects_max = 3});
    job = get(url);
    expect_code(job, CF_ELIMIT);
    ck_assert_int_eq(peer_requests(peer), 4);
    ck_assert_int_eq(peer_accepted(peer), 1);
}
END_TEST

/* Follow to another port, with credentials on the way. */
START_TEST(do_follows_without_credentials_to_elsewhere)
{
    struct cf_client_header headers[] = {{"Authorization", "Bearer x"}, {"X-A", "b"}};
    struct peer *target = peer_new(OK_REPLY, PEER_KEEP);
    char rules[128];
    char reply[160];
    struct job job;

    (void)snprintf(reply, sizeof(reply), REDIRECT(HERE "%u/new"), peer_port(target));
    use_peer(reply, PEER_KEEP);
    (void)snprintf(rules, sizeof(rules), HERE "%u " HERE "%u", peer_port(peer), peer_port(target));
    use_client((struct cf_client_options){.allow = rules, .redirects_max = 1});
    job = do_request((struct cf_client_request){.url = url, .headers = headers, .n_headers = 2},
                     NULL);
    expect_code(job, CF_OK);
    ck_assert_str_eq(job.reply->body, "hi");
    ck_assert_ptr_nonnull(strstr(job.reply->url, "/new"));
    cf_client_reply_free(job.reply);
    ck_assert_ptr_nonnull(strstr(peer_request(peer), "Authorization"));
    ck_assert_ptr_null(strstr(peer_request(target), "Authorization"));
    ck_assert_ptr_nonnull(strstr(peer_request(target), "X-A: b"));
    peer_free(target);
}
END_TEST

/* The trace goes on to another path, and not to another port; nor does one of the caller's own. */
START_TEST(do_follows_with_the_trace_to_the_same_origin_only)
{
    struct cf_client_header own = {"traceparent", TRACEPARENT};
    struct peer *target = peer_new(OK_REPLY, PEER_KEEP);
    char rules[128];
    char reply[160];

    (void)snprintf(reply, sizeof(reply), REDIRECT(HERE "%u/new"), peer_port(target));
    use_peer(reply, PEER_KEEP);
    (void)snprintf(rules, sizeof(rules), HERE "%u " HERE "%u", peer_port(peer), peer_port(target));
    use_client((struct cf_client_options){
        .allow = rules, .redirects_max = 1, .tells_trace = true, .tells_budget = true});
    for (size_t n = 0; n < 2; n++) {
        expect_code(do_traced("congo=t61rcWkgMzE", &own, n), CF_OK);
        ck_assert_str_eq(told_trace(peer).trace_id, TRACE_ID);
        ck_assert_ptr_null(strcasestr(peer_request(target), "trace"));
        ck_assert_int_eq(peer_requests(target), (int)n + 1);
    }
    peer_free(target);
    peer_free(peer);
    cf_client_free(client);
    use_peer(REDIRECT("/again"), PEER_KEEP);
    use_client((struct cf_client_options){.redirects_max = 2, .tells_trace = true});
    expect_code(do_traced(NULL, NULL, 0), CF_ELIMIT);
    ck_assert_ptr_nonnull(strstr(peer_request(peer), "GET /again "));
    ck_assert_str_eq(told_trace(peer).trace_id, TRACE_ID);
}
END_TEST

START_TEST(do_follows_nowhere_that_no_rule_allows)
{
    static const char *const replies[] = {
        REDIRECT("http://169.254.169.254/"), REDIRECT("file:///etc/passwd"),
        REDIRECT("http://localhost:" PEER_PORT "/"), REDIRECT("http://127.0.0.1:1/")};

    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        char rules[96];
        struct job job;

        use_peer(replies[i], PEER_KEEP);
        (void)snprintf(rules, sizeof(rules), "* *:%u " HERE "%u", peer_port(peer), peer_port(peer));
        use_client((struct cf_client_options){.allow = rules, .redirects_max = 5});
        job = get(url);
        ck_assert_msg(job.code == CF_EINVAL || (i == 1 && job.code == CF_OK), "%s: %s", replies[i],
                      job.err.msg);
        ck_assert_int_eq(peer_requests(peer), 1);
        if (job.code == CF_OK) {
            ck_assert_int_eq(job.reply->status, 302);
            cf_client_reply_free(job.reply);
        }
        cf_client_free(client);
        peer_free(peer);
    }
    client = NULL;
    peer = NULL;
}
END_TEST

Suite *suite_client(void)
{
    Suite *suite = suite_create("client");
    TCase *made = tcase_create("new");
    TCase *basic = tcase_create("do");
    TCase *peers = tcase_create("peers");
    TCase *rules = tcase_create("rules");
    TCase *redirects = tcase_create("redirects");
    TCase *asserts = tcase_create("asserts");

    tcase_add_checked_fixture(made, setup, teardown);
    tcase_add_test(made, new_refuses_what_is_no_rule);
    tcase_add_test(made, new_out_of_memory);
    suite_add_tcase(suite, made);

    tcase_add_checked_fixture(basic, setup, teardown);
    tcase_add_test(basic, do_gives_status_headers_and_body);
    tcase_add_test(basic, do_sends_method_headers_and_body);
    tcase_add_loop_test(basic, do_without_a_body_says_so, 0, 3);
    tcase_add_test(basic, do_sends_a_long_body_at_once);
    tcase_add_test(basic, do_head_has_no_body);
    tcase_add_test(basic, do_keeps_the_connection);
    tcase_add_test(basic, do_tells_what_is_left_less_a_margin);
    tcase_add_test(basic, do_tells_the_trace_with_a_span_of_its_own);
    tcase_add_test(basic, do_tells_no_trace_that_is_not_there);
    tcase_add_test(basic, do_tells_no_trace_unless_told_to);
    tcase_add_test(basic, do_tells_the_trace_of_its_request_if_it_has_one);
    tcase_add_test(basic, do_refuses_a_trace_that_would_forge);
    tcase_add_test(basic, do_already_canceled);
    tcase_add_test(basic, do_canceled_while_waiting);
    tcase_add_test(basic, do_deadline_while_waiting);
    tcase_add_test(basic, do_longest_request_of_the_client);
    tcase_add_test(basic, do_deadline_while_connecting);
    tcase_add_test(basic, do_closed_while_waiting);
    tcase_add_test(basic, do_success_races_cancel);
    tcase_add_test(basic, do_out_of_memory);
    tcase_add_test(basic, do_limit_reached);
    tcase_set_timeout(basic, 30);
    suite_add_tcase(suite, basic);

    tcase_add_checked_fixture(peers, setup, teardown);
    tcase_add_test(peers, do_nobody_listens);
    tcase_add_test(peers, do_no_such_name);
    tcase_add_test(peers, do_reply_is_none);
    tcase_add_test(peers, do_endless_replies_are_cut);
    tcase_set_timeout(peers, 30);
    suite_add_tcase(suite, peers);

    tcase_add_checked_fixture(rules, setup, teardown);
    tcase_add_test(rules, do_refuses_what_is_no_url_for_it);
    tcase_add_test(rules, do_refuses_what_is_not_public);
    tcase_add_test(rules, do_rules_hold_scheme_host_and_port);
    tcase_add_test(rules, do_name_may_reach_a_network_that_is_allowed);
    tcase_add_test(rules, do_name_may_not_reach_an_address_of_a_rule);
    tcase_add_test(rules, do_ignores_a_proxy_of_the_environment);
    tcase_add_test(rules, do_refuses_headers_that_would_forge);
    tcase_set_timeout(rules, 30);
    suite_add_tcase(suite, rules);

    tcase_add_checked_fixture(redirects, setup, teardown);
    tcase_add_test(redirects, do_gives_a_redirect_back_unless_told_to_follow);
    tcase_add_test(redirects, do_follows_no_more_than_so_often);
    tcase_add_test(redirects, do_follows_without_credentials_to_elsewhere);
    tcase_add_test(redirects, do_follows_with_the_trace_to_the_same_origin_only);
    tcase_add_test(redirects, do_follows_nowhere_that_no_rule_allows);
    suite_add_tcase(suite, redirects);

    tcase_add_checked_fixture(asserts, setup, teardown);
    tcase_set_tags(asserts, "fork");
    tcase_add_test_raise_signal(asserts, do_on_a_plain_thread_asserts, SIGABRT);
    suite_add_tcase(suite, asserts);
    return suite;
}
