/* SPDX-License-Identifier: MIT */
/* The interface as HTTP: parameters, methods, ids, problem documents, probes; on real sockets. */
#include <check.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "client.h"
#include "service.h"

/* Fixture */

static struct service *service;

static void setup(void)
{
    service = service_start_ready(NULL, NULL);
}

static void teardown(void)
{
    service_stop_all();
    client_free_all();
}

/* Helpers */

static struct reply *get(const char *target)
{
    return client_get(service->api_port, target, NULL);
}

/* A problem document by RFC 9457 with our members, and what every reply has. */
static void expect_problem(struct reply *reply, int status, const char *code)
{
    ck_assert_msg(reply->status == status, "%d, not %d: %s", reply->status, status, reply->body);
    ck_assert_str_eq(reply_header(reply, "Content-Type"), "application/problem+json");
    ck_assert_int_eq(reply_i64(reply, "status"), status);
    ck_assert_str_eq(reply_str(reply, "code"), code);
    ck_assert_int_eq(strncmp(reply_str(reply, "type"), "/problems/", 10), 0);
    ck_assert_str_ne(reply_str(reply, "title"), "");
    ck_assert_str_ne(reply_str(reply, "detail"), "");
    ck_assert(json_is_number(reply_at(reply, "elapsed_ms")));
    ck_assert_str_eq(reply_str(reply, "request_id"), reply_header(reply, "X-Request-Id"));
    ck_assert_ptr_nonnull(reply_header(reply, "Server-Timing"));
}

/* parameters */

static const struct {
    const char *target;
    const char *parameter;
} bad_parameters[] = {
    {"/v1/users/abc", "id"},
    {"/v1/users/0", "id"},
    {"/v1/users/-1", "id"},
    {"/v1/users/1.5", "id"},
    {"/v1/users/9223372036854775808", "id"},
    {"/v1/users/%31x", "id"},
    {"/v1/users?limit=0", "limit"},
    {"/v1/users?limit=201", "limit"},
    {"/v1/users?limit=ten", "limit"},
    {"/v1/users?limit=", "limit"},
    {"/v1/users?limit=10%20", "limit"},
    {"/v1/users?after=0", "after"},
    {"/v1/users?after=-5", "after"},
    {"/v1/users?after=x", "after"},
    {"/v1/orders?user_id=0", "user_id"},
    {"/v1/orders?user_id=me", "user_id"},
    {"/v1/orders?user_id=42&limit=1000", "limit"},
    {"/v1/orders?user_id=42&after=1e3", "after"},
    {"/v1/dashboard?user_id=0", "user_id"},
    {"/v1/dashboard?user_id=4%002", ""},
    {"/v1/dashboard?user_id=", "user_id"},
    {"/v1/sleep?seconds=-1", "seconds"},
    {"/v1/sleep?seconds=nan", "seconds"},
    {"/v1/sleep?seconds=1e9", "seconds"},
    {"/v1/sleep?seconds=long", "seconds"},
    {"/v1/metrics?timeout=soon", "timeout"},
    {"/v1/metrics?timeout=+5ms", "timeout"},
    {"/v1/metrics?timeout=50", "timeout"},
    {"/v1/metrics?timeout=", "timeout"},
};

START_TEST(bad_parameter_is_named)
{
    struct reply *reply = get(bad_parameters[_i].target);

    expect_problem(reply, 400, "invalid");
    ck_assert_msg(strstr(reply_str(reply, "detail"), bad_parameters[_i].parameter) != NULL,
                  "\"%s\" is not in: %s", bad_parameters[_i].parameter, reply->body);
}
END_TEST

START_TEST(escaped_parameter_is_decoded)
{
    ck_assert_int_eq(reply_i64(get("/v1/users/%34%32"), "id"), 42);
    ck_assert_int_eq(reply_i64(get("/v1/dashboard?user_id=%342"), "user.id"), 42);
}
END_TEST

START_TEST(bad_escape_is_400)
{
    expect_problem(get("/v1/users/%zz"), 400, "invalid");
    expect_problem(get("/v1/users/%ff"), 400, "invalid");
    expect_problem(get("/v1/users/%00"), 400, "invalid");
}
END_TEST

/* Parameters travel apart from the SQL: what looks like SQL is only a bad number. */
START_TEST(sql_in_parameter_is_400)
{
    expect_problem(get("/v1/users/1;drop%20table%20users"), 400, "invalid");
    expect_problem(get("/v1/orders?user_id=1%20or%201=1"), 400, "invalid");
}
END_TEST

/* routes */

START_TEST(unknown_path_is_404)
{
    static const char *const paths[] = {"/",          "/v1",        "/v1/",
                                        "/v1/user/1", "/v1/users/", "/v1/users/1/orders",
                                        "/V1/users",  "//v1/users"};

    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        expect_problem(get(paths[i]), 404, "not_found");
    }
}
END_TEST

START_TEST(other_method_is_405_with_allow)
{
    static const char *const methods[] = {"POST", "PUT", "PATCH", "DELETE"};

    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        struct reply *reply =
            client_call(service->api_port, methods[i], "/v1/users/1", "Content-Length: 0\r\n");

        expect_problem(reply, 405, "method_not_allowed");
        ck_assert_str_eq(reply_header(reply, "Allow"), "GET, HEAD, OPTIONS");
    }
}
END_TEST

START_TEST(options_lists_methods)
{
    struct reply *reply = client_call(service->api_port, "OPTIONS", "/v1/users/1", NULL);

    ck_assert_int_eq(reply->status, 204);
    ck_assert_str_eq(reply_header(reply, "Allow"), "GET, HEAD, OPTIONS");
    ck_assert_uint_eq(reply->body_size, 0);
    reply = client_call(service->api_port, "OPTIONS", "*", NULL);
    ck_assert_int_eq(reply->status, 204);
    ck_assert_ptr_nonnull(reply_header(reply, "Allow"));
    expect_problem(client_call(service->api_port, "OPTIONS", "/nowhere", NULL), 404, "not_found");
}
END_TEST

/* The connection stays in step: a body after a HEAD would be taken for the next reply. */
START_TEST(head_has_the_headers_and_no_body)
{
    int fd = client_open(service->api_port);
    struct reply *get_reply;
    struct reply *head_reply;

    client_request(fd, "GET", "/v1/users/42", NULL);
    get_reply = client_recv(fd, "GET");
    client_request(fd, "HEAD", "/v1/users/42", NULL);
    head_reply = client_recv(fd, "HEAD");
    ck_assert_int_eq(head_reply->status, 200);
    ck_assert_str_eq(reply_header(head_reply, "Content-Length"),
                     reply_header(get_reply, "Content-Length"));
    ck_assert_str_eq(reply_header(head_reply, "Content-Type"), "application/json");
    client_request(fd, "HEAD", "/v1/users/999999999", NULL);
    ck_assert_int_eq(client_recv(fd, "HEAD")->status, 404);
    client_request(fd, "GET", "/v1/users/42", NULL);
    ck_assert_int_eq(client_recv(fd, "GET")->status, 200);
    (void)close(fd);
}
END_TEST

START_TEST(without_demo_there_is_no_sleep)
{
    struct service *plain = service_start(NULL, (const char *[]){"CURFEW_DEMO=0", NULL});

    ck_assert_int_eq(client_get(plain->api_port, "/v1/sleep?seconds=0", NULL)->status, 404);
    ck_assert_int_eq(client_get(plain->admin_port, "/v1/sleep?seconds=0", NULL)->status, 404);
    ck_assert_int_eq(get("/v1/sleep?seconds=0")->status, 200);
    ck_assert_int_eq(client_get(service->admin_port, "/v1/sleep?seconds=0", NULL)->status, 200);
}
END_TEST

START_TEST(admin_listener_has_no_data)
{
    ck_assert_int_eq(client_get(service->admin_port, "/v1/users/1", NULL)->status, 404);
    ck_assert_int_eq(client_get(service->admin_port, "/v1/dashboard", NULL)->status, 404);
}
END_TEST

/* headers */

START_TEST(request_id_is_echoed)
{
    struct reply *reply =
        client_get(service->api_port, "/v1/users/42", "X-Request-Id: Test-1.2_3~+/=\r\n");

    ck_assert_str_eq(reply_header(reply, "X-Request-Id"), "Test-1.2_3~+/=");
    reply = client_get(service->api_port, "/nowhere", "x-request-id: abc\r\n");
    ck_assert_str_eq(reply_header(reply, "X-Request-Id"), "abc");
    ck_assert_str_eq(reply_str(reply, "request_id"), "abc");
}
END_TEST

START_TEST(request_id_is_made_up)
{
    struct reply *first = get("/v1/users/42");
    struct reply *second = get("/v1/users/42");

    ck_assert_uint_eq(strlen(reply_header(first, "X-Request-Id")), 32);
    ck_assert_str_ne(reply_header(first, "X-Request-Id"), reply_header(second, "X-Request-Id"));
}
END_TEST

START_TEST(bad_request_id_is_replaced)
{
    char too_long[256] = "X-Request-Id: ";
    struct reply *reply =
        client_get(service->api_port, "/livez", "X-Request-Id: a b\"c<script>\r\n");

    ck_assert_uint_eq(strlen(reply_header(reply, "X-Request-Id")), 32);
    memset(too_long + strlen(too_long), 'x', 129);
    strcat(too_long, "\r\n");
    reply = client_get(service->api_port, "/livez", too_long);
    ck_assert_uint_eq(strlen(reply_header(reply, "X-Request-Id")), 32);
}
END_TEST

#define TRACE_ID "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN_ID "00f067aa0ba902b7"

/* One span of ours, in the reply's header, its problem document and the log. */
START_TEST(trace_of_the_client_goes_through_reply_and_log)
{
    struct reply *reply =
        client_get(service->api_port, "/v1/users/999999999",
                   "traceparent: 00-" TRACE_ID "-" SPAN_ID "-01\r\nX-Request-Id: traced\r\n");
    const char *traceparent = reply_header(reply, "traceparent");
    json_t *line = service_find_line(service, "request_id", "traced", CF_SECOND);
    char told[64];

    ck_assert_int_eq(reply->status, 404);
    ck_assert_str_eq(reply_str(reply, "trace_id"), TRACE_ID);
    ck_assert_ptr_nonnull(line);
    ck_assert_str_eq(json_string_value(json_object_get(line, "trace_id")), TRACE_ID);
    ck_assert_str_ne(json_string_value(json_object_get(line, "span_id")), SPAN_ID);
    ck_assert_str_eq(json_string_value(json_object_get(line, "trace_flags")), "01");
    (void)snprintf(told, sizeof(told), "00-%s-%s-01", TRACE_ID,
                   json_string_value(json_object_get(line, "span_id")));
    ck_assert_str_eq(traceparent, told);
    json_decref(line);
}
END_TEST

START_TEST(trace_that_begins_here_is_the_request_id)
{
    struct reply *reply = client_get(service->api_port, "/v1/users/42", NULL);
    const char *id = reply_header(reply, "X-Request-Id");
    json_t *line = service_find_line(service, "trace_id", id, CF_SECOND);

    ck_assert_int_eq(strncmp(reply_header(reply, "traceparent") + 3, id, 32), 0);
    ck_assert_ptr_nonnull(line);
    ck_assert_str_eq(json_string_value(json_object_get(line, "request_id")), id);
    ck_assert_str_eq(json_string_value(json_object_get(line, "trace_flags")), "02");
    json_decref(line);
}
END_TEST

START_TEST(log_line_describes_the_request)
{
    json_t *line;

    (void)client_get(service->api_port, "/v1/users/42?timeout=3s", "X-Request-Id: logged\r\n");
    line = service_find_line(service, "request_id", "logged", CF_SECOND);
    ck_assert_ptr_nonnull(line);
    ck_assert_str_eq(json_string_value(json_object_get(line, "msg")), "request");
    ck_assert_str_eq(json_string_value(json_object_get(line, "http.request.method")), "GET");
    ck_assert_str_eq(json_string_value(json_object_get(line, "http.route")), "/v1/users/{id}");
    ck_assert_int_eq(json_integer_value(json_object_get(line, "http.response.status_code")), 200);
    ck_assert_str_eq(json_string_value(json_object_get(line, "client.address")), "127.0.0.1");
    ck_assert_str_eq(json_string_value(json_object_get(line, "deadline_source")), "timeout");
    ck_assert_double_eq(json_number_value(json_object_get(line, "deadline_ms")), 3000);
    ck_assert_double_gt(json_number_value(json_object_get(line, "duration_ms")), 0);
    ck_assert_ptr_null(json_object_get(line, "cancel_cause"));
    json_decref(line);
}
END_TEST

START_TEST(connection_serves_many_requests)
{
    int fd = client_open(service->api_port);

    for (int i = 0; i < 100; i++) {
        client_request(fd, "GET", i % 10 == 9 ? "/nowhere" : "/v1/users/42", NULL);
        ck_assert_int_eq(client_recv(fd, "GET")->status, i % 10 == 9 ? 404 : 200);
    }
    (void)close(fd);
}
END_TEST

START_TEST(pipelined_requests_are_answered_in_order)
{
    int fd = client_open(service->api_port);

    client_send(fd, "GET /v1/users/1 HTTP/1.1\r\nHost: a\r\n\r\n"
                    "GET /v1/sleep?seconds=0.05 HTTP/1.1\r\nHost: a\r\n\r\n"
                    "GET /v1/users/3 HTTP/1.1\r\nHost: a\r\n\r\n");
    ck_assert_int_eq(reply_i64(client_recv(fd, "GET"), "id"), 1);
    ck_assert_str_eq(client_recv(fd, "GET")->body, "{\"slept_seconds\":0.050}");
    ck_assert_int_eq(reply_i64(client_recv(fd, "GET"), "id"), 3);
    (void)close(fd);
}
END_TEST

static const char *const malformed[] = {
    "GET /livez HTTP/1.1\r\n\r\n",
    "GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "GET /livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
};

START_TEST(malformed_head_is_400)
{
    int fd = client_open(service->api_port);

    client_send(fd, malformed[_i]);
    ck_assert_int_eq(client_recv(fd, "GET")->status, 400);
    ck_assert(client_wait_closed(fd, 2 * CF_SECOND));
    (void)close(fd);
}
END_TEST

/* probes */

START_TEST(probes_answer_on_both_listeners)
{
    const uint16_t ports[] = {service->api_port, service->admin_port};

    for (size_t i = 0; i < 2; i++) {
        struct reply *reply = client_get(ports[i], "/livez", NULL);

        ck_assert_int_eq(reply->status, 200);
        ck_assert_str_eq(reply_str(reply, "status"), "alive");
        reply = client_get(ports[i], "/readyz", NULL);
        ck_assert_int_eq(reply->status, 200);
        ck_assert_str_eq(reply_str(reply, "status"), "ready");
        ck_assert_str_eq(reply_header(reply, "Cache-Control"), "no-store");
        reply = client_get(ports[i], "/version", NULL);
        ck_assert_int_eq(reply->status, 200);
        ck_assert_str_eq(reply_str(reply, "curfewd"), CF_VERSION);
        ck_assert_str_ne(reply_str(reply, "libpq"), "");
    }
}
END_TEST

/* The clients have left: within a moment there is room for another. */
static void expect_room(struct service *own)
{
    int64_t until_ns = cf_now_ns() + 5 * CF_SECOND;

    while (client_get(own->api_port, "/v1/users/1", NULL)->status != 200) {
        ck_assert_int_lt(cf_now_ns(), until_ns);
    }
}

/* More clients than there are descriptors: those that are left over are told so, and what the
 * service needs for itself (the admin listener, its database) it has. */
START_TEST(descriptors_do_not_run_out)
{
    static const char *const few[] = {"prlimit", "--nofile=128", NULL};
    struct service *own = service_start_under(
        few, NULL, (const char *[]){"CURFEW_POOL=4", "CURFEW_LOOPS=2", "CURFEW_DEMO=1", NULL});
    int fds[150];

    for (size_t i = 0; i < 150; i++) {
        fds[i] = client_open(own->api_port);
    }
    for (int i = 0; i < 20; i++) {
        int fd = client_open(own->admin_port);

        client_request(fd, "GET", "/v1/sleep?seconds=0", NULL);
        ck_assert_int_eq(client_recv(fd, "GET")->status, 200);
        (void)close(fd);
    }
    for (size_t i = 0; i < 150; i++) {
        (void)close(fds[i]);
    }
    expect_room(own);
}
END_TEST

Suite *suite_http(void)
{
    Suite *suite = suite_create("http");
    TCase *parameters = tcase_create("parameters");
    TCase *routes = tcase_create("routes");
    TCase *headers = tcase_create("headers");
    TCase *probes = tcase_create("probes");
    TCase *limits = tcase_create("limits");

    tcase_add_checked_fixture(parameters, setup, teardown);
    tcase_add_loop_test(parameters, bad_parameter_is_named, 0,
                        sizeof(bad_parameters) / sizeof(bad_parameters[0]));
    tcase_add_test(parameters, escaped_parameter_is_decoded);
    tcase_add_test(parameters, bad_escape_is_400);
    tcase_add_test(parameters, sql_in_parameter_is_400);
    tcase_set_timeout(parameters, 30);
    suite_add_tcase(suite, parameters);

    tcase_add_checked_fixture(routes, setup, teardown);
    tcase_add_test(routes, unknown_path_is_404);
    tcase_add_test(routes, other_method_is_405_with_allow);
    tcase_add_test(routes, options_lists_methods);
    tcase_add_test(routes, head_has_the_headers_and_no_body);
    tcase_add_test(routes, without_demo_there_is_no_sleep);
    tcase_add_test(routes, admin_listener_has_no_data);
    tcase_set_timeout(routes, 30);
    suite_add_tcase(suite, routes);

    tcase_add_checked_fixture(headers, setup, teardown);
    tcase_add_test(headers, request_id_is_echoed);
    tcase_add_test(headers, request_id_is_made_up);
    tcase_add_test(headers, bad_request_id_is_replaced);
    tcase_add_test(headers, trace_of_the_client_goes_through_reply_and_log);
    tcase_add_test(headers, trace_that_begins_here_is_the_request_id);
    tcase_add_test(headers, log_line_describes_the_request);
    tcase_add_test(headers, connection_serves_many_requests);
    tcase_add_test(headers, pipelined_requests_are_answered_in_order);
    tcase_add_loop_test(headers, malformed_head_is_400, 0,
                        sizeof(malformed) / sizeof(malformed[0]));
    tcase_set_timeout(headers, 30);
    suite_add_tcase(suite, headers);

    tcase_add_checked_fixture(probes, setup, teardown);
    tcase_add_test(probes, probes_answer_on_both_listeners);
    tcase_set_timeout(probes, 30);
    suite_add_tcase(suite, probes);

    tcase_add_checked_fixture(limits, NULL, teardown);
    tcase_add_test(limits, descriptors_do_not_run_out);
    tcase_set_timeout(limits, 30);
    suite_add_tcase(suite, limits);
    return suite;
}
