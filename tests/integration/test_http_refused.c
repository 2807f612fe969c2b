/* SPDX-License-Identifier: MIT */
/* Requests that the HTTP server refuses, with heads and bodies at the edge of what it takes. */
#include "http_fixture.h"

#include <microhttpd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Fixture */

static void setup(void)
{
    site_setup_loops();
    site.options.fields_max = 1000; /* So that the size of a head is what limits it. */
    site_start(2);
}

/* refused */

#define BAD_LINE "the request line has more than one space behind the method, or a NUL"
#define BAD_END "a line of the head ends without CR LF, is folded, begins with a colon or has a NUL"

static const struct {
    const char *request;
    int status;
    const char *detail;
    bool closes;
} refused[] = {
    {"GET /hello HTTP/1.1\r\n\r\n", 400, "no Host", true},
    {"GET /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "more than one Host", true},
    {"POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
     "0\r\n\r\n",
     400, "Content-Length and Transfer-Encoding exclude each other", true},
    {"POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\nabcde", 400,
     "more than one Content-Length", true},
    {"POST /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400,
     "the only Transfer-Encoding served is chunked", true},
    {"POST /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 400,
     "the only Transfer-Encoding served is chunked", true},
    {"POST /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
     "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     400, "the only Transfer-Encoding served is chunked", true},
    {"POST /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n"
     "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
     400, "a header's name is not a token", true},
    {"POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length\v: 42\r\n\r\n"
     "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
     400, "a header's name is not a token", true},
    {"GET /hello HTTP/1.1\r\n: b\r\nHost: a\r\n\r\n", 400, "a header's name is not a token", true},
    {"GET /hello HTTP/1.1\r\nHost: a\r\n\rX: b\r\n\r\n", 400, "a header's name is not a token",
     true},
    {"GET /hello HTTP/1.1\r\nHost: a\r\nX\xc3\xa4: b\r\n\r\n", 400,
     "a header's name is not a token", true},
    {"POST /hello HTTP/1.1\r\nHost: a\r\nX: b\rContent-Length: 42\r\n\r\n"
     "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
     400, "a header's value has a control character", true},
    {"GET /hello HTTP/1.1\r\nHost: a\r\nX: b\x01\r\n\r\n", 400,
     "a header's value has a control character", true},
    {"GET /hello HTTP/1.1\r\nHost: a\r\nX: b\x7f\r\n\r\n", 400,
     "a header's value has a control character", true},
    {"GET  /hello HTTP/1.1\r\nHost: a\r\n\r\n", 400, BAD_LINE, true},
    {"GET /hello  HTTP/1.1\r\nHost: a\r\n\r\n", 400, "space in the path", true},
    {"GET /hello HTTP/1.1\nHost: a\r\n\r\n", 400, BAD_END, true},
    {"GET /hello HTTP/1.1\r\nHost: a\n\r\n", 400, BAD_END, true},
    {"GET /hello HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400, BAD_END, true},
    {"GET /hello HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400, BAD_END, true},
    {"POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n", 413,
     "The request body is too large.", true},
    {"POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n", 413,
     "The request body is too large.", true},
    {"GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "control character %00 in the path", true},
    {"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad escape in the path: % wants two hex digits",
     true},
    {"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "space in the path", true},
    {"GET /?a=%ff HTTP/1.1\r\nHost: a\r\n\r\n", 400, "the query is not UTF-8", true},
    {"GET http://a/hello HTTP/1.1\r\nHost: a\r\n\r\n", 400,
     "the target must be a path that starts with /", true},
    {"GET /hello HTTP/1.1\r\nHost: a\r\nRequest-Timeout-Ms: +1\r\n\r\n", 400,
     "Request-Timeout-Ms must be a whole number of milliseconds of at most 10 digits, as in "
     "Request-Timeout-Ms: 250",
     false},
    {"GET /hello?timeout=50 HTTP/1.1\r\nHost: a\r\n\r\n", 400,
     "timeout must be a number with ms, s or m, as in timeout=250ms or timeout=1.5s", false},
};

/* From its version 1.0 on libmicrohttpd refuses much of it before we see it, in its own words, and
 * then always closes. */
static bool is_refused_early(struct reply *reply)
{
    const char *type = reply_header(reply, "Content-Type");

    return MHD_VERSION >= 0x01000000 &&
           (type == NULL || strcmp(type, "application/problem+json") != 0);
}

START_TEST(refused_requests_are_told_why)
{
    int fd = client_open(site.port);
    struct reply *reply;
    bool early;
    bool closes;

    ck_assert(client_send(fd, refused[_i].request));
    reply = client_recv(fd, "GET");
    ck_assert_msg(reply->status == refused[_i].status, "%s%s", reply->head, reply->body);
    early = is_refused_early(reply);
    closes = early || refused[_i].closes;
    if (!early) {
        ck_assert_str_eq(reply_str(reply, "detail"), refused[_i].detail);
    }
    ck_assert_int_eq(reply_header(reply, "Connection") != NULL, closes);
    if (closes) {
        client_expect_end(fd); /* What follows is not taken for a request. */
    }
    ck_assert_int_eq(atomic_load(&site.runs), 0);
    if (!early) {
        ck_assert_int_eq(wait_done(1).status, refused[_i].status);
    }
    (void)close(fd);
}
END_TEST

/* head */

/* All that a name and a value may be made of. */
START_TEST(headers_may_have_every_character_that_is_allowed)
{
    struct reply *reply = client_get(site.port, "/echo/1",
                                     "!#$%&'*+-.^_`|~09AZaz: !\"(),/:;<=>?@[\\]{}\t\xc3\xa4\r\n"
                                     "X-Echo: a\tb \xff\r\nX-Empty:\r\n");

    ck_assert_int_eq(reply->status, 201);
    ck_assert_str_eq(reply_str(reply, "header"), "a\tb \xef\xbf\xbd");
}
END_TEST

/* libmicrohttpd would say nothing at all when it has no room for so many. */
START_TEST(query_of_very_many_arguments_is_refused)
{
    int fd = client_open(site.port);
    struct reply *reply;
    char target[2100] = "/hello?";

    for (size_t n = strlen(target); n < 2000; n += 2) {
        memcpy(target + n, "a&", 3);
    }
    ck_assert(client_send(fd, "GET "));
    ck_assert(client_send(fd, target));
    ck_assert(client_send(fd, " HTTP/1.1\r\nHost: a\r\n\r\n"));
    reply = client_recv(fd, "GET");
    expect_problem(reply, 400, "invalid");
    ck_assert_str_eq(reply_str(reply, "detail"), "more than 100 arguments in the query");
    client_expect_end(fd);
    (void)close(fd);
}
END_TEST

/* Heads that fill libmicrohttpd's memory for a connection in each of the ways there are. */
static const struct {
    const char *name;
    const char *piece;
    const char *between;
    size_t n_min;
    size_t n_max;
    size_t step;
} fillings[] = {
    {"X", "x", "", 14000, 17000, 50},
    {"X", "x", "\r\nX: ", 150, 260, 1},
    {"Cookie", "a=b", "; ", 100, 300, 1},
};

/* There is an answer to each, and what it says is what was done and recorded. */
START_TEST(head_of_every_size_is_answered)
{
    static char request[32768];
    size_t n_served = 0;

    for (size_t n = fillings[_i].n_min; n < fillings[_i].n_max; n += fillings[_i].step) {
        int fd = client_open(site.port);
        struct reply *reply;
        char *at = request;

        at += sprintf(at, "GET /hello HTTP/1.1\r\nHost: a\r\n%s: ", fillings[_i].name);
        for (size_t i = 0; i < n; i++) {
            at += sprintf(at, "%s%s", i > 0 ? fillings[_i].between : "", fillings[_i].piece);
        }
        at += sprintf(at, "\r\n\r\n");
        ck_assert(client_send_bytes(fd, request, (size_t)(at - request)));
        reply = client_recv(fd, "GET");
        ck_assert_msg(reply->status == 200 || reply->status == 431, "%zu: %d", n, reply->status);
        if (reply->status == 200) {
            ck_assert_int_eq(wait_done(++n_served).status, 200);
        }
        (void)close(fd);
    }
    wait_count(count_connections, 0);
    ck_assert_uint_eq((size_t)atomic_load(&site.runs), n_served);
    ck_assert_uint_gt(n_served, 0);
    ck_assert_int_eq(wait_done(n_served + 1).status, 431); /* Ours, before libmicrohttpd's own. */
}
END_TEST

/* body */

START_TEST(body_is_read_and_the_connection_goes_on)
{
    int fd = client_open(site.port);
    static char body[1000000];
    struct reply *reply;

    memset(body, 'x', sizeof(body));
    for (int i = 0; i < 3; i++) {
        client_request(fd, "POST", "/hello", "Content-Length: 1000000\r\n");
        ck_assert(client_send_bytes(fd, body, sizeof(body)));
        reply = client_recv(fd, "POST");
        ck_assert_int_eq(reply->status, 200);
        ck_assert_ptr_null(reply_header(reply, "Connection"));
    }
    (void)close(fd);
}
END_TEST

START_TEST(body_is_asked_for_with_100_continue)
{
    int fd = client_open(site.port);
    struct reply *reply;

    client_request(fd, "POST", "/hello", "Content-Length: 3\r\nExpect: 100-continue\r\n");
    reply = client_recv(fd, "POST");
    ck_assert_int_eq(reply->status, 100);
    ck_assert(client_send(fd, "abc"));
    reply = client_recv(fd, "POST");
    ck_assert_int_eq(reply->status, 200);
    client_request(fd, "POST", "/hello", "Content-Length: 3000000\r\nExpect: 100-continue\r\n");
    reply = client_recv(fd, "POST");
    ck_assert_int_eq(reply->status, 413);
    (void)close(fd);
}
END_TEST

START_TEST(body_in_chunks_closes_the_connection)
{
    int fd = client_open(site.port);
    struct reply *reply;

    client_request(fd, "POST", "/hello", "Transfer-Encoding: chunked\r\n");
    ck_assert(client_send(
        fd, "5\r\nabcde\r\n3\r\nfgh\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"));
    reply = client_recv(fd, "POST");
    ck_assert_int_eq(reply->status, 200);
    ck_assert_str_eq(reply_header(reply, "Connection"), "close");
    client_expect_end(fd);
    ck_assert_uint_eq(count_done(), 1);
    (void)close(fd);
}
END_TEST

START_TEST(body_in_chunks_has_a_limit)
{
    int fd = client_open(site.port);
    static char chunk[65536];
    struct reply *reply;

    memset(chunk, 'x', sizeof(chunk));
    client_request(fd, "POST", "/hello", "Transfer-Encoding: chunked\r\n");
    for (int i = 0; i < 16; i++) {
        ck_assert(client_send(fd, "10000\r\n"));
        ck_assert(client_send_bytes(fd, chunk, sizeof(chunk)));
        ck_assert(client_send(fd, "\r\n"));
    }
    ck_assert(client_send(fd, "1\r\nx")); /* One byte more than there may be. */
    reply = client_recv(fd, "POST");
    ck_assert_str_eq(reply_str(reply, "code"), "too_large");
    ck_assert_int_eq(reply->status, 413);
    client_expect_end(fd);
    ck_assert_int_eq(wait_done(1).status, 413);
    (void)close(fd);
}
END_TEST

START_TEST(body_that_is_malformed_is_recorded)
{
    int fd = client_open(site.port);
    struct reply *reply;

    client_request(fd, "POST", "/hello", "Transfer-Encoding: chunked\r\n");
    ck_assert(client_send(fd, "not a size\r\n"));
    reply = client_recv(fd, "POST");
    ck_assert_int_eq(reply->status, 400);
    ck_assert_int_eq(wait_done(1).status, 400);
    (void)close(fd);
}
END_TEST

/* Suite */

Suite *suite_http_refused(void)
{
    Suite *suite = suite_create("http_refused");
    TCase *tc = site_add_case(suite, "refused", setup);

    tcase_add_loop_test(tc, refused_requests_are_told_why, 0, N(refused));

    tc = site_add_case(suite, "head", setup);
    tcase_add_test(tc, headers_may_have_every_character_that_is_allowed);
    tcase_add_test(tc, query_of_very_many_arguments_is_refused);
    tcase_add_loop_test(tc, head_of_every_size_is_answered, 0, N(fillings));

    tc = site_add_case(suite, "body", setup);
    tcase_add_test(tc, body_is_read_and_the_connection_goes_on);
    tcase_add_test(tc, body_is_asked_for_with_100_continue);
    tcase_add_test(tc, body_in_chunks_closes_the_connection);
    tcase_add_test(tc, body_in_chunks_has_a_limit);
    tcase_add_test(tc, body_that_is_malformed_is_recorded);
    return suite;
}
