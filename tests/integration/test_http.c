/* SPDX-License-Identifier: MIT */
/* The HTTP server in this process: where it listens, and what it answers to whom it serves. */
#include "http_fixture.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Handlers */

/* /fail/{code}: fails with it, saying a secret. */
static enum cf_code failing(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    int64_t code;
    enum cf_code read = cf_http_param_i64(http, "code", 1, CF_EINTERNAL, &code, err);

    (void)ctx;
    if (read != CF_OK) {
        return read;
    }
    cf_http_reply_header(http, "X-Kept", "yes");
    cf_http_reply_header(http, "ETag", "\"of the reply that is not sent\"");
    cf_http_reply_text(http, 200, "not sent");
    return cf_err_set(err, (enum cf_code)code, "own words");
}

static enum cf_code fail_silently(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    (void)ctx;
    (void)http;
    (void)err;
    return CF_ENOTFOUND;
}

/* Replies in every way at once: the last counts. */
static enum cf_code dressed(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    (void)ctx;
    (void)err;
    cf_json_object(cf_http_reply_json(http, 500));
    cf_http_reply_header(http, "Content-Type", "text/csv");
    cf_http_reply_header(http, "X-Name",
                         "G\xc3\xb6"
                         "del");
    cf_http_timing(http, "pool", 800000);
    cf_http_timing(http, "query", 12345678);
    cf_http_retry_after(http, 1500 * CF_MS);
    cf_http_reply_text(http, 202, "a,b\n");
    return CF_OK;
}

static enum cf_code injected(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    (void)ctx;
    (void)err;
    cf_http_reply_header(http, "X-Evil", "a\r\nSet-Cookie: b=c");
    cf_http_reply_text(http, 200, "not sent");
    return CF_OK;
}

/* ?size=: an array of about that many bytes. */
static enum cf_code large_json(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct cf_json *json = cf_http_reply_json(http, 200);
    int64_t size;

    (void)ctx;
    if (cf_http_query_i64(http, "size", 0, 100000000, 1000000, &size, err) != CF_OK) {
        return CF_EINVAL;
    }
    cf_json_array(json);
    for (int64_t i = 0; i < size / 8; i++) {
        cf_json_i64(json, 1000000);
    }
    cf_json_end(json);
    return CF_OK;
}

static enum cf_code nothing(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    (void)ctx;
    (void)err;
    cf_http_reply_text(http, 204, "");
    return CF_OK;
}

static const struct cf_http_route routes[] = {
    {"GET", "/hello", serve_hello},   {"POST", "/hello", serve_hello},
    {"GET", "/nap", serve_nap},       {"GET", "/echo/{id}", serve_echo},
    {"GET", "/fail/{code}", failing}, {"GET", "/fail-silently", fail_silently},
    {"GET", "/dressed", dressed},     {"GET", "/injected", injected},
    {"GET", "/large", large_json},    {"DELETE", "/nothing", nothing},
};

/* Fixture */

static void setup_loops(void)
{
    site_setup_loops();
    site.options.routes = routes;
    site.options.n_routes = N(routes);
}

static void setup(void)
{
    setup_loops();
    site_start(2);
}

/* new */

static struct cf_err err;

#define NOT_HOST_PORT(listen)                                                                      \
    "cannot listen on " listen ": not host:port, with a port from 0 to 65535"

START_TEST(new_says_what_is_wrong_with_the_address)
{
    static const struct {
        const char *listen;
        enum cf_code code;
        const char *message;
    } cases[] = {
        {"8080", CF_EINVAL, NOT_HOST_PORT("8080")},
        {"127.0.0.1:", CF_EINVAL, NOT_HOST_PORT("127.0.0.1:")},
        {"127.0.0.1:http", CF_EINVAL, NOT_HOST_PORT("127.0.0.1:http")},
        {"127.0.0.1:65536", CF_EINVAL, NOT_HOST_PORT("127.0.0.1:65536")},
        {"::1:80", CF_EINVAL, NOT_HOST_PORT("::1:80")},
        {"[::1:80", CF_EINVAL, NOT_HOST_PORT("[::1:80")},
        {"192.0.2.1:0", CF_EINVAL, "cannot listen on 192.0.2.1:0: Cannot assign requested address"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        site.options.listen = cases[i].listen;
        ck_assert_int_eq(cf_http_server_new(&site.options, site.loops, 2, &site.server, &err),
                         cases[i].code);
        ck_assert_str_eq(err.msg, cases[i].message);
    }
}
END_TEST

START_TEST(new_names_the_bad_route)
{
    static const struct cf_http_route bad[] = {{"GET", "/a", serve_hello},
                                               {"GET", "b", serve_hello}};

    site.options.routes = bad;
    site.options.n_routes = 2;
    ck_assert_int_eq(cf_http_server_new(&site.options, site.loops, 2, &site.server, &err),
                     CF_EINVAL);
    ck_assert_str_eq(err.msg, "route GET b: a path starts with /");
}
END_TEST

START_TEST(new_refuses_a_port_that_is_taken)
{
    struct cf_http_server *second;
    struct reply *reply;
    char listen[32];
    char message[128];
    size_t before;

    site_start(2);
    (void)snprintf(listen, sizeof(listen), "127.0.0.1:%u", site.port);
    (void)snprintf(message, sizeof(message), "cannot listen on %s: another process has that port",
                   listen);
    site.options.listen = listen;
    before = count_descriptors();
    ck_assert_int_eq(cf_http_server_new(&site.options, site.loops, 2, &second, &err), CF_ECONFLICT);
    ck_assert_str_eq(err.msg, message);
    ck_assert_uint_eq(count_descriptors(), before);
    for (int i = 0; i < 20; i++) { /* And it has taken none of the first one's connections. */
        reply = client_get(site.port, "/hello", NULL);
        ck_assert_int_eq(reply->status, 200);
    }
}
END_TEST

START_TEST(new_takes_over_the_port_after_a_stop)
{
    static char listen[32];

    site_start(2);
    (void)snprintf(listen, sizeof(listen), "127.0.0.1:%u", site.port);
    site.options.listen = listen;
    for (int i = 0; i < 5; i++) {
        struct reply *reply = client_get(site.port, "/hello", "Connection: close\r\n");

        ck_assert_int_eq(reply->status, 200);
        cf_http_server_stop(site.server, CF_SECOND);
        cf_http_server_stop(site.server, CF_SECOND);
        cf_http_server_free(site.server);
        site_start(2);
    }
}
END_TEST

START_TEST(new_listens_on_ipv6)
{
    struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    struct reply *reply;

    site.options.listen = "[::1]:0";
    if (cf_http_server_new(&site.options, site.loops, 2, &site.server, &err) != CF_OK) {
        (void)close(fd);
        return; /* A machine without IPv6. */
    }
    at.sin6_port = htons(cf_http_server_port(site.server));
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    client_request(fd, "GET", "/hello", NULL);
    reply = client_recv(fd, "GET");
    ck_assert_int_eq(reply->status, 200);
    ck_assert_str_eq(wait_done(1).client, "::1");
    (void)close(fd);
}
END_TEST

/* answering */

START_TEST(hello_has_every_header)
{
    struct reply *reply = client_get(site.port, "/hello", NULL);
    struct seen seen = wait_done(1);

    ck_assert_int_eq(reply->status, 200);
    ck_assert_str_eq(reply->body, "\"hello\"");
    ck_assert_str_eq(reply_header(reply, "Content-Type"), "application/json");
    ck_assert_str_eq(reply_header(reply, "X-Content-Type-Options"), "nosniff");
    ck_assert_str_eq(reply_header(reply, "Request-Timeout-Ms"), "5000");
    ck_assert_uint_eq(strlen(reply_header(reply, "X-Request-Id")), 32);
    ck_assert_str_eq(reply_header(reply, "X-Request-Id"), seen.request_id);
    ck_assert_int_eq(strncmp(reply_header(reply, "Server-Timing"), "total;dur=", 10), 0);
    ck_assert_ptr_nonnull(reply_header(reply, "Date"));
    ck_assert_ptr_null(reply_header(reply, "Connection"));
    ck_assert_ptr_null(reply_header(reply, "Cache-Control"));
    ck_assert_ptr_null(reply_header(reply, "Retry-After"));

    ck_assert_str_eq(seen.method, "GET");
    ck_assert_str_eq(seen.target, "/hello");
    ck_assert_str_eq(seen.route, "/hello");
    ck_assert_str_eq(seen.client, "127.0.0.1");
    ck_assert_str_eq(seen.timeout_source, "default");
    ck_assert_int_eq(seen.status, 200);
    ck_assert_uint_eq(seen.body_size, 7);
    ck_assert_int_eq(seen.timeout_ns, 5 * CF_SECOND);
    ck_assert_int_gt(seen.duration_ns, 0);
    ck_assert_int_eq(seen.reason, CF_REASON_NONE);
    ck_assert_int_eq(seen.code, CF_OK);
}
END_TEST

START_TEST(keep_alive_serves_many_requests)
{
    int fd = client_open(site.port);

    for (int i = 0; i < 200; i++) {
        struct reply *reply;

        client_request(fd, "GET", i % 3 == 0 ? "/nap?ms=0" : "/hello", NULL);
        reply = client_recv(fd, "GET");
        ck_assert_int_eq(reply->status, 200);
    }
    ck_assert_uint_eq(count_connections(), 1);
    (void)close(fd);
    wait_count(count_connections, 0);
    ck_assert_uint_eq(count_done(), 200);
}
END_TEST

START_TEST(pipelined_requests_are_answered_in_order)
{
    static const char *const bodies[] = {"30", "\"hello\"", "1", "20", "\"hello\""};
    int fd = client_open(site.port);

    ck_assert(client_send(
        fd, "GET /nap?ms=30 HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
            "GET /nap?ms=1 HTTP/1.1\r\nHost: a\r\n\r\nGET /nap?ms=20 HTTP/1.1\r\nHost: a\r\n\r\n"
            "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"));
    for (int i = 0; i < N(bodies); i++) {
        ck_assert_str_eq(client_recv(fd, "GET")->body, bodies[i]);
    }
    (void)close(fd);
}
END_TEST

START_TEST(request_may_come_byte_by_byte)
{
    static const char request[] = "GET /echo/7?q=1 HTTP/1.1\r\nHost: a\r\n\r\n";
    int fd = client_open(site.port);
    struct reply *reply;

    for (size_t i = 0; i + 1 < sizeof(request); i++) {
        ck_assert(client_send_bytes(fd, request + i, 1));
    }
    reply = client_recv(fd, "GET");
    ck_assert_int_eq(reply->status, 201);
    (void)close(fd);
}
END_TEST

START_TEST(http_1_0_closes_unless_asked)
{
    int fd = client_open(site.port);
    struct reply *reply;

    ck_assert(client_send(fd, "GET /hello HTTP/1.0\r\n\r\n"));
    reply = client_recv(fd, "GET");
    ck_assert_int_eq(reply->status, 200);
    ck_assert_str_eq(reply_header(reply, "Connection"), "close");
    client_expect_end(fd);
    (void)close(fd);
}
END_TEST

START_TEST(request_is_what_was_sent)
{
    struct reply *reply = client_get(site.port, "/echo/a%2Fb%20%C3%A9?q=x+y%2B&n=-5&f=-0.25&n=9",
                                     "X-Echo: one\r\nX-Echo: two\r\nX-Request-Id: mine.1\r\n");

    ck_assert_int_eq(reply->status, 201);
    ck_assert_str_eq(reply_str(reply, "app"), "the app");
    ck_assert_str_eq(reply_str(reply, "method"), "GET");
    ck_assert_str_eq(reply_str(reply, "path"), "/echo/a/b \xc3\xa9");
    ck_assert_str_eq(reply_str(reply, "id"), "a/b \xc3\xa9");
    ck_assert_str_eq(reply_str(reply, "q"), "x y+");
    ck_assert_str_eq(reply_str(reply, "header"), "one");
    ck_assert_str_eq(reply_str(reply, "request_id"), "mine.1");
    ck_assert_int_eq(reply_i64(reply, "n"), -5);
    ck_assert_double_eq_tol(json_real_value(reply_at(reply, "f")), -0.25, 1e-9);

    reply = client_get(site.port, "/echo/1", NULL);
    ck_assert(json_is_null(reply_at(reply, "q")));
    ck_assert(json_is_null(reply_at(reply, "header")));
    ck_assert_int_eq(reply_i64(reply, "n"), 3);
}
END_TEST

START_TEST(query_numbers_name_what_would_be_right)
{
    static const char *const bad[] = {"6",   "-6", "1.0", "", "+1", "0x1", "9999999999999999999",
                                      "1%20"};
    static const char *const bad_f[] = {"1.5", "nan", "inf", "1e-1", ".5", "1.", "", "0,5"};
    char target[64];

    for (int i = 0; i < N(bad); i++) {
        struct reply *reply;

        (void)snprintf(target, sizeof(target), "/echo/1?n=%s", bad[i]);
        reply = client_get(site.port, target, NULL);
        expect_problem(reply, 400, "invalid");
        ck_assert_str_eq(reply_str(reply, "detail"), "n must be an integer from -5 to 5");
    }
    for (int i = 0; i < N(bad_f); i++) {
        struct reply *reply;

        (void)snprintf(target, sizeof(target), "/echo/1?f=%s", bad_f[i]);
        reply = client_get(site.port, target, NULL);
        expect_problem(reply, 400, "invalid");
        ck_assert_str_eq(reply_str(reply, "detail"), "f must be a number from -1 to 1");
    }
}
END_TEST

START_TEST(request_id_is_taken_over_or_replaced)
{
    struct reply *reply = client_get(site.port, "/hello", "X-Request-Id: A-b_c.1~+/=\r\n");

    ck_assert_str_eq(reply_header(reply, "X-Request-Id"), "A-b_c.1~+/=");
    reply = client_get(site.port, "/hello", "X-Request-Id: not this one\r\n");
    ck_assert_uint_eq(strspn(reply_header(reply, "X-Request-Id"), "0123456789abcdef"), 32);
    reply = client_get(site.port, "/no-such", "X-Request-Id: kept\r\n");
    ck_assert_str_eq(reply_str(reply, "request_id"), "kept");
}
END_TEST

START_TEST(reply_headers_of_the_handler_are_sent)
{
    struct reply *reply = client_get(site.port, "/dressed", NULL);

    ck_assert_int_eq(reply->status, 202);
    ck_assert_str_eq(reply->body, "a,b\n");
    ck_assert_str_eq(reply_header(reply, "Content-Type"), "text/csv");
    ck_assert_str_eq(reply_header(reply, "X-Name"), "G\xc3\xb6"
                                                    "del");
    ck_assert_str_eq(reply_header(reply, "Retry-After"), "2");
    ck_assert_int_eq(strncmp(reply_header(reply, "Server-Timing"),
                             "pool;dur=0.800, query;dur=12.345, total;dur=", 44),
                     0);
}
END_TEST

START_TEST(reply_header_with_a_line_end_is_not_sent)
{
    struct reply *reply = client_get(site.port, "/injected", NULL);

    expect_problem(reply, 500, "internal");
    ck_assert_ptr_null(reply_header(reply, "Set-Cookie"));
    ck_assert_ptr_null(reply_header(reply, "X-Evil"));
}
END_TEST

START_TEST(reply_may_be_large)
{
    struct reply *reply = client_get(site.port, "/large?size=8000000", NULL);

    ck_assert_int_eq(reply->status, 200);
    ck_assert_uint_gt(reply->body_size, 7900000);
    ck_assert_int_eq(reply->body[reply->body_size - 1], ']');
    ck_assert_uint_eq(wait_done(1).body_size, reply->body_size);
}
END_TEST

START_TEST(reply_without_body_has_no_type)
{
    int fd = client_open(site.port);
    struct reply *reply;

    client_request(fd, "DELETE", "/nothing", NULL);
    reply = client_recv(fd, "DELETE");
    ck_assert_int_eq(reply->status, 204);
    ck_assert_ptr_null(reply_header(reply, "Content-Type"));
    ck_assert_ptr_null(reply_header(reply, "Content-Length"));
    client_request(fd, "GET", "/hello", NULL); /* The connection goes on. */
    reply = client_recv(fd, "GET");
    ck_assert_int_eq(reply->status, 200);
    (void)close(fd);
}
END_TEST

/* method */

START_TEST(method_head_is_get_without_the_body)
{
    int fd = client_open(site.port);
    struct reply *reply;

    client_request(fd, "HEAD", "/hello", NULL);
    reply = client_recv(fd, "HEAD");
    ck_assert_int_eq(reply->status, 200);
    ck_assert_str_eq(reply_header(reply, "Content-Length"), "7");
    client_request(fd, "GET", "/hello", NULL);
    reply = client_recv(fd, "GET");
    ck_assert_str_eq(reply->body, "\"hello\"");
    ck_assert_uint_eq(wait_done(1).body_size, 0);
    (void)close(fd);
}
END_TEST

static const struct {
    const char *method;
    const char *target;
    int status;
    const char *code;  /* NULL: no problem. */
    const char *allow; /* NULL: none. */
} methods[] = {
    {"GET", "/no-such", 404, "not_found", NULL},
    {"GET", "/hello/", 404, "not_found", NULL},
    {"GET", "/", 404, "not_found", NULL},
    {"DELETE", "/hello", 405, "method_not_allowed", "GET, HEAD, POST, OPTIONS"},
    {"POST", "/nap", 405, "method_not_allowed", "GET, HEAD, OPTIONS"},
    {"GET", "/nothing", 405, "method_not_allowed", "DELETE, OPTIONS"},
    {"OPTIONS", "/hello", 204, NULL, "GET, HEAD, POST, OPTIONS"},
    {"OPTIONS", "/no-such", 404, "not_found", NULL},
    {"OPTIONS", "*", 204, NULL, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"},
    {"TRACE", "/hello", 405, "method_not_allowed", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"},
    {"CONNECT", "/hello", 405, "method_not_allowed",
     "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"},
    {"BREW", "/hello", 501, "not_implemented", NULL},
    {"get", "/hello", 501, "not_implemented", NULL},
};

START_TEST(methods_and_paths_that_are_not_served)
{
    int fd = client_open(site.port);
    struct reply *reply;
    struct seen seen;

    client_request(fd, methods[_i].method, methods[_i].target, NULL);
    reply = client_recv(fd, methods[_i].method);
    if (methods[_i].code != NULL) {
        expect_problem(reply, methods[_i].status, methods[_i].code);
    }
    ck_assert_int_eq(reply->status, methods[_i].status);
    if (methods[_i].allow != NULL) {
        ck_assert_str_eq(reply_header(reply, "Allow"), methods[_i].allow);
    } else {
        ck_assert_ptr_null(reply_header(reply, "Allow"));
    }
    seen = wait_done(1);
    ck_assert_int_eq(seen.status, methods[_i].status);
    ck_assert_str_eq(seen.method, methods[_i].method);
    ck_assert_str_eq(seen.target, methods[_i].target);
    ck_assert_str_eq(seen.route, "");
    ck_assert_int_eq(atomic_load(&site.runs), 0);
    (void)close(fd);
}
END_TEST

/* failure */

static const struct {
    enum cf_code code;
    int status;
    const char *name;
} failures[] = {
    {CF_ECANCELED, 500, "internal"},   {CF_EDEADLINE, 504, "deadline_exceeded"},
    {CF_ECLOSED, 500, "internal"},     {CF_EINVAL, 400, "invalid"},
    {CF_ENOTFOUND, 404, "not_found"},  {CF_ECONFLICT, 409, "conflict"},
    {CF_ELIMIT, 503, "overloaded"},    {CF_EUNAVAIL, 503, "unavailable"},
    {CF_ENOMEM, 503, "out_of_memory"}, {CF_EIO, 500, "internal"},
    {CF_EINTERNAL, 500, "internal"},
};

START_TEST(failure_becomes_a_problem_document)
{
    struct reply *reply;
    char target[32];

    (void)snprintf(target, sizeof(target), "/fail/%d", failures[_i].code);
    reply = client_get(site.port, target, NULL);
    expect_problem(reply, failures[_i].status, failures[_i].name);
    ck_assert_int_eq(strstr(reply->body, "own words") != NULL, failures[_i].status < 499);
    ck_assert_ptr_null(strstr(reply->body, "not sent"));
    ck_assert_str_eq(reply_header(reply, "X-Kept"), "yes");
    ck_assert_ptr_null(reply_header(reply, "ETag"));
    if (failures[_i].status == 503) {
        ck_assert_str_eq(reply_header(reply, "Retry-After"), "1");
    } else {
        ck_assert_ptr_null(reply_header(reply, "Retry-After"));
    }
    ck_assert_int_eq(wait_done(1).code, failures[_i].code);
}
END_TEST

START_TEST(failure_without_words_has_the_codes)
{
    struct reply *reply = client_get(site.port, "/fail-silently", NULL);

    expect_problem(reply, 404, "not_found");
    ck_assert_str_eq(reply_str(reply, "detail"), "not found");
}
END_TEST

/* Suite */

Suite *suite_http(void)
{
    Suite *suite = suite_create("http");
    TCase *tc = site_add_case(suite, "new", setup_loops);

    tcase_add_test(tc, new_says_what_is_wrong_with_the_address);
    tcase_add_test(tc, new_names_the_bad_route);
    tcase_add_test(tc, new_refuses_a_port_that_is_taken);
    tcase_add_test(tc, new_takes_over_the_port_after_a_stop);
    tcase_add_test(tc, new_listens_on_ipv6);

    tc = site_add_case(suite, "answering", setup);
    tcase_add_test(tc, hello_has_every_header);
    tcase_add_test(tc, keep_alive_serves_many_requests);
    tcase_add_test(tc, pipelined_requests_are_answered_in_order);
    tcase_add_test(tc, request_may_come_byte_by_byte);
    tcase_add_test(tc, http_1_0_closes_unless_asked);
    tcase_add_test(tc, request_is_what_was_sent);
    tcase_add_test(tc, query_numbers_name_what_would_be_right);
    tcase_add_test(tc, request_id_is_taken_over_or_replaced);
    tcase_add_test(tc, reply_headers_of_the_handler_are_sent);
    tcase_add_test(tc, reply_header_with_a_line_end_is_not_sent);
    tcase_add_test(tc, reply_may_be_large);
    tcase_add_test(tc, reply_without_body_has_no_type);

    tc = site_add_case(suite, "method", setup);
    tcase_add_test(tc, method_head_is_get_without_the_body);
    tcase_add_loop_test(tc, methods_and_paths_that_are_not_served, 0, N(methods));

    tc = site_add_case(suite, "failure", setup);
    tcase_add_loop_test(tc, failure_becomes_a_problem_document, 0, N(failures));
    tcase_add_test(tc, failure_without_words_has_the_codes);
    return suite;
}
