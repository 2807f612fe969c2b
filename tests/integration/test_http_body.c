/* SPDX-License-Identifier: MIT */
/* Bodies of requests: given to the handler whole, limited one by one and together, read as JSON;
 * and requests that follow each other without a pause. */
#include "http_fixture.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Fixture */

/* The JSON of the body, written again. */
static enum cf_code rewrite(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    json_t *json;
    enum cf_code code = cf_http_body_json(http, &json, err);
    char *text;

    (void)ctx;
    if (code != CF_OK) {
        return code;
    }
    text = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY | JSON_SORT_KEYS);
    cf_http_reply_text(http, 200, text);
    free(text);
    json_decref(json);
    return CF_OK;
}

static const struct cf_http_route routes[] = {
    {"GET", "/hello", serve_hello}, {"GET", "/echo", serve_body},   {"POST", "/echo", serve_body},
    {"PUT", "/echo", serve_body},   {"PATCH", "/echo", serve_body}, {"POST", "/json", rewrite},
    {"GET", "/large", serve_large},
};

static void setup(void)
{
    site_setup_loops();
    site.options.routes = routes;
    site.options.n_routes = N(routes);
}

/* body */

START_TEST(body_is_given_to_the_handler)
{
    static const char *const methods[] = {"POST", "PUT", "PATCH"};
    char *big = malloc(1000001);

    site_start(2);
    for (int i = 0; i < N(methods); i++) {
        int fd = client_open(site.port);

        client_request(fd, methods[i], "/echo", "Content-Length: 5\r\n");
        client_send(fd, "he");
        pause_ms(5);
        client_send(fd, "lloGET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
        ck_assert_str_eq(client_recv(fd, methods[i])->body, "hello");
        ck_assert_int_eq(client_recv(fd, "GET")->status, 200); /* Pipelined behind it. */
        (void)close(fd);
    }
    ck_assert_str_eq(post("/echo", "")->body, "");
    for (int i = 0; i < 1000000; i++) {
        big[i] = (char)('a' + i % 23);
    }
    big[1000000] = '\0';
    ck_assert_str_eq(post("/echo", big)->body, big);
    free(big);
}
END_TEST

START_TEST(body_in_chunks_is_given_to_the_handler)
{
    int fd;

    site_start(2);
    fd = client_open(site.port);
    client_request(fd, "POST", "/echo", "Transfer-Encoding: chunked\r\n");
    client_send(fd, "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n");
    ck_assert_str_eq(client_recv(fd, "POST")->body, "hello");
    (void)close(fd);
}
END_TEST

START_TEST(body_of_a_get_is_dropped)
{
    int fd;

    site_start(2);
    fd = client_open(site.port);
    client_request(fd, "GET", "/echo", "Content-Length: 5\r\n");
    client_send(fd, "hello");
    ck_assert_str_eq(client_recv(fd, "GET")->body, "");
    (void)close(fd);
}
END_TEST

/* All bodies together: what is promised takes no room, and what was given back can be had again. */
START_TEST(bodies_limit_reached)
{
    static char half[30001];
    int fds[4];

    site.options.bodies_size_max = 128 * 1024; /* 64 KiB on each loop: two of 30,000 bytes. */
    site.options.body_size_max = 60 * 1024;
    site_start(2);
    memset(half, 'x', sizeof(half) - 1);
    for (int round = 0; round < 3; round++) {
        int n_shed = 0;
        int n_served = 0;

        for (int i = 0; i < 20; i++) {
            int fd = client_open(site.port);

            client_request(fd, "POST", "/echo", "Content-Length: 60000\r\n");
            (void)close(fd); /* Promised only. */
        }
        wait_count(count_connections, 0);
        for (int i = 0; i < 4; i++) {
            fds[i] = client_open(site.port);
            client_request(fds[i], "POST", "/echo", "Content-Length: 60000\r\n");
            client_send(fds[i], half);
        }
        for (int i = 0; i < 4; i++) {
            struct reply *reply;

            (void)send(fds[i], half, sizeof(half) - 1, MSG_NOSIGNAL);
            reply = client_recv(fds[i], "POST");
            if (reply->status == 200) {
                ck_assert_uint_eq(reply->body_size, 60000);
                n_served++;
            } else {
                expect_problem(reply, 503, "overloaded");
                n_shed++;
            }
            (void)close(fds[i]);
        }
        ck_assert_int_ge(n_served, 1);
        ck_assert_int_ge(n_shed, 1);
        wait_count(count_connections, 0);
    }
}
END_TEST

static const struct {
    const char *method;
    const char *target;
    const char *length; /* NULL: chunked. */
    int status;
} sized[] = {
    {"POST", "/json", "2001", 413}, {"POST", "/echo", "2000", 200},
    {"POST", "/echo", "2001", 413}, {"POST", "/echo?a=1", "2000", 200},
    {"PUT", "/echo", "5", 200},     {"PUT", "/echo", "6", 413},
    {"PATCH", "/echo", "2", 200},   {"PATCH", "/echo", "3", 413},
    {"POST", "/nowhere", "6", 413}, {"POST", "/nowhere", "5", 404},
    {"POST", "/echo", NULL, 200},   {"PUT", "/echo", NULL, 413},
};

/* Larger for one route, smaller for another; and those without one keep the server's. */
START_TEST(body_limits_are_the_routes_own)
{
    static const struct cf_http_route limited[] = {
        {"POST", "/json", rewrite},
        {"POST", "/echo", serve_body, .body_size_max = 2000},
        {"PUT", "/echo", serve_body},
        {"PATCH", "/echo", serve_body, .body_size_max = 2},
    };
    const char *length = sized[_i].length;
    char headers[64];
    struct reply *reply;
    int fd;

    site.options.body_size_max = 5;
    site.options.routes = limited;
    site.options.n_routes = sizeof(limited) / sizeof(limited[0]);
    site_start(2);
    fd = client_open(site.port);
    (void)snprintf(headers, sizeof(headers), length != NULL ? "Content-Length: %s\r\n" : "%s\r\n",
                   length != NULL ? length : "Transfer-Encoding: chunked");
    client_request(fd, sized[_i].method, sized[_i].target, headers);
    if (length == NULL) {
        client_send(fd, "6\r\n123456\r\n0\r\n\r\n");
    } else {
        for (int i = 0; i < atoi(length) && sized[_i].status != 413; i++) {
            client_send(fd, "x");
        }
    }
    reply = client_recv(fd, sized[_i].method);
    ck_assert_msg(reply->status == sized[_i].status, "%d: %s", reply->status, reply->body);
    if (reply->status == 413) {
        expect_problem(reply, 413, "too_large");
        ck_assert(client_wait_closed(fd, PATIENCE_NS));
    }
    (void)close(fd);
}
END_TEST

/* json */

static const struct {
    const char *body;
    const char *detail; /* NULL: it is JSON. */
} documents[] = {
    {"{\"a\":[1,2.5,\"x\\\"[[[\",null]}", NULL},
    {"{\"a\":\"\\\\\"}", NULL},
    {"", "the body is empty, and should be JSON"},
    {"{\"a\":1,\"a\":2}", "the body is not JSON, or has a name twice: line 1, column 10"},
    {"{\"a\":1} x", "the body is not JSON, or has a name twice: line 1, column 9"},
    {"[\"\xff\"]", "the body is not JSON, or has a name twice: line 1, column 2"},
    {"[\"\\u0000\"]", "the body is not JSON, or has a name twice: line 1, column 9"},
    {"\"open", "the body is not JSON, or has a name twice: line 1, column 5"},
    {"\"\\", "the body is not JSON, or has a name twice: line 1, column 2"},
};

START_TEST(json_is_what_was_sent_or_refused)
{
    struct reply *reply;

    site_start(2);
    reply = post("/json", documents[_i].body);
    if (documents[_i].detail == NULL) {
        ck_assert_str_eq(reply->body, documents[_i].body);
    } else {
        expect_problem(reply, 400, "invalid");
        ck_assert_str_eq(reply_str(reply, "detail"), documents[_i].detail);
    }
}
END_TEST

/* `before`, so many levels of arrays, and `behind`. */
static const char *nested(const char *before, int levels, const char *behind)
{
    static char text[200100];
    size_t at = strlen(before);

    (void)strcpy(text, before);
    memset(text + at, '[', (size_t)levels);
    memset(text + at + levels, ']', (size_t)levels);
    (void)strcpy(text + at + 2 * levels, behind);
    return text;
}

static const struct {
    const char *before;
    int levels;
    const char *behind;
    bool is_too_deep;
} nestings[] = {
    {"", 64, "", false},
    {"", 65, "", true},
    {"", 2000, "", true},
    {"", 100000, "", true},
    {"[\"", 100, "\"]", false},
    {"[\"\\\"", 100, "\"]", false},
    {"[\"\\\\\\\"", 100, "\"]", false},
    {"[\"\\\"\",", 63, "]", false},
    {"[\"\\\"\",", 64, "]", true},
    {"[\"\\\"\",", 2000, "]", true},
    {"[\"\\\\\",", 64, "]", true},
    {"{\"\\\"\":", 2000, "}", true},
    {"[\"\\u0022\",", 2000, "]", true},
};

/* Before jansson sees it: it would need a stack that no fiber has. */
START_TEST(json_depth_limit_reached)
{
    const char *body = nested(nestings[_i].before, nestings[_i].levels, nestings[_i].behind);
    struct reply *reply;

    site_start(2);
    reply = post("/json", body);
    if (nestings[_i].is_too_deep) {
        expect_problem(reply, 400, "invalid");
        ck_assert_str_eq(reply_str(reply, "detail"), "the body is nested deeper than 64 levels");
    } else {
        ck_assert_int_eq(reply->status, 200);
    }
    /* It lives on. */
    ck_assert_int_eq(post("/json", "[1]")->status, 200);
}
END_TEST

/* pipeline */

#define DEEP 1000

static void *send_pipeline(void *arg)
{
    int fd = *(int *)arg;

    for (int i = 0; i < DEEP; i++) {
        char request[128];

        (void)snprintf(request, sizeof(request), "GET /large?size=%d HTTP/1.1\r\nHost: a\r\n\r\n",
                       i + 1);
        client_send(fd, request);
    }
    return NULL;
}

/* The order shows in the size; others are served meanwhile. */
START_TEST(pipeline_a_thousand_deep_is_answered_in_order_and_fair)
{
    int64_t took_ns[DEEP / 20];
    pthread_t thread;
    int fd;

    site_start(2);
    fd = client_open(site.port);
    ck_assert_int_eq(pthread_create(&thread, NULL, send_pipeline, &fd), 0);
    for (int i = 0; i < DEEP; i++) {
        struct reply *reply = client_recv(fd, "GET");

        ck_assert_int_eq(reply->status, 200);
        ck_assert_uint_eq(reply->body_size, (size_t)i + 1);
        if (i % 20 == 0) {
            reply = client_get(site.port, "/hello", NULL);
            ck_assert_int_eq(reply->status, 200);
            took_ns[i / 20] = reply->done_ns - reply->sent_ns;
        }
    }
    ck_assert_int_lt(permille(took_ns, DEEP / 20, 900), bound(AT_ONCE_NS));
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    (void)close(fd);
}
END_TEST

/* Suite */

static TCase *add_case(Suite *suite, const char *name)
{
    TCase *tc = tcase_create(name);

    tcase_add_checked_fixture(tc, setup, site_teardown);
    tcase_set_timeout(tc, 60);
    suite_add_tcase(suite, tc);
    return tc;
}

Suite *suite_http_body(void)
{
    Suite *suite = suite_create("http_body");
    TCase *tc = add_case(suite, "body");

    tcase_add_test(tc, body_is_given_to_the_handler);
    tcase_add_test(tc, body_in_chunks_is_given_to_the_handler);
    tcase_add_test(tc, body_of_a_get_is_dropped);
    tcase_add_test(tc, bodies_limit_reached);
    tcase_add_loop_test(tc, body_limits_are_the_routes_own, 0, N(sized));

    tc = add_case(suite, "json");
    tcase_add_loop_test(tc, json_is_what_was_sent_or_refused, 0, N(documents));
    tcase_add_loop_test(tc, json_depth_limit_reached, 0, N(nestings));

    tc = add_case(suite, "pipeline");
    tcase_add_test(tc, pipeline_a_thousand_deep_is_answered_in_order_and_fair);
    return suite;
}
