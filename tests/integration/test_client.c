/* SPDX-License-Identifier: MIT */
/* The HTTP client, against peers that answer, hang, lie and flood. */
#include "client_kit.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <curfew/clock.h>
#include <curfew/http.h>
#include <curfew/trace.h>
#include <curfew/wait.h>

#include "client.h"
#include "fault.h"
#include "peer.h"

#define SHORT_NS (50 * CF_MS)
#define SLACK_NS (500 * CF_MS) /* How late a reply may be: the machine's business. */

/* Helpers */

/* Wait on the test's thread until `count(peer)` is `n`. */
static void wait_for(int (*count)(struct peer *), int n)
{
    WAIT_FOR(count(peer) >= n);
}

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
    /* A file is read only if a rule allows https. */
    static const struct cf_client_options each[] = {
        {.allow = "http://a.example, 10.0.0.0/8", .ca_file = "/nowhere"},
        {.allow = "a.example, 10.0.0.0/8"}};
    struct cf_err err;

    for (unsigned nth = 1;; nth++) {
        enum cf_code code;

        fault_alloc(nth, false);
        code = cf_client_new(&each[_i], &loop, 1, &client, &err);
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

START_TEST(do_tells_the_timeout_of_its_request_if_it_has_one)
{
    struct cf_client_header own = {"request-timeout-ms", "1500"};
    const char *at;
    struct job job;

    use_peer(OK_REPLY, PEER_KEEP);
    use_client((struct cf_client_options){.tells_budget = true});
    job = do_request((struct cf_client_request){.url = url, .headers = &own, .n_headers = 1}, NULL);
    expect_code(job, CF_OK);
    cf_client_reply_free(job.reply);
    at = strcasestr(peer_request(peer), "\r\nRequest-Timeout-Ms: ");
    ck_assert_ptr_nonnull(at);
    ck_assert_int_eq(strncmp(at, "\r\nrequest-timeout-ms: 1500\r\n", 28), 0);
    ck_assert_ptr_null(strcasestr(at + 2, "\r\nRequest-Timeout-Ms"));
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

#define WAITING_NS (300 * CF_MS) /* So long that it is connected by then. */

START_TEST(do_deadline_while_waiting)
{
    struct cf_ctx *ctx;
    struct job job;

    use_peer(NULL, PEER_KEEP);
    use_client((struct cf_client_options){.allow = NULL});
    ck_assert_int_eq(cf_ctx_with_timeout(cf_ctx_background(), WAITING_NS, &ctx, NULL), CF_OK);
    job = do_request((struct cf_client_request){.url = url}, ctx);
    expect_code(job, CF_EDEADLINE);
    ck_assert_int_eq(cf_ctx_err(ctx), CF_EDEADLINE); /* Never early. */
    ck_assert_int_lt(job.took_ns, WAITING_NS + bound(SLACK_NS));
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
    ck_assert_int_lt(job.took_ns, SHORT_NS + bound(SLACK_NS));
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
    ck_assert_int_lt(job.took_ns, SHORT_NS + bound(SLACK_NS));
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
    cf_trace_init(&trace);
    trace.state = "congo=t61rcWkgMzE";
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

Suite *suite_client(void)
{
    Suite *suite = suite_create("client");
    TCase *tc = add_client_case(suite, "new");

    tcase_add_test(tc, new_refuses_what_is_no_rule);
    tcase_add_loop_test(tc, new_out_of_memory, 0, 2);

    tc = add_client_case(suite, "do");
    tcase_set_timeout(tc, 30);
    tcase_add_test(tc, do_gives_status_headers_and_body);
    tcase_add_test(tc, do_sends_method_headers_and_body);
    tcase_add_loop_test(tc, do_without_a_body_says_so, 0, 3);
    tcase_add_test(tc, do_sends_a_long_body_at_once);
    tcase_add_test(tc, do_head_has_no_body);
    tcase_add_test(tc, do_keeps_the_connection);
    tcase_add_test(tc, do_tells_what_is_left_less_a_margin);
    tcase_add_test(tc, do_tells_the_timeout_of_its_request_if_it_has_one);
    tcase_add_test(tc, do_already_canceled);
    tcase_add_test(tc, do_canceled_while_waiting);
    tcase_add_test(tc, do_deadline_while_waiting);
    tcase_add_test(tc, do_longest_request_of_the_client);
    tcase_add_test(tc, do_deadline_while_connecting);
    tcase_add_test(tc, do_closed_while_waiting);
    tcase_add_test(tc, do_success_races_cancel);
    tcase_add_test(tc, do_out_of_memory);
    tcase_add_test(tc, do_limit_reached);

    tc = add_client_case(suite, "peers");
    tcase_set_timeout(tc, 30);
    tcase_add_test(tc, do_nobody_listens);
    tcase_add_test(tc, do_no_such_name);
    tcase_add_test(tc, do_reply_is_none);
    tcase_add_test(tc, do_endless_replies_are_cut);

    tc = add_client_case(suite, "asserts");
    tcase_set_tags(tc, "fork");
    tcase_add_test_raise_signal(tc, do_on_a_plain_thread_asserts, SIGABRT);
    return suite;
}
