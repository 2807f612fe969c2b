/* SPDX-License-Identifier: MIT */
/* What a server has to make of bytes: requests that come in pieces, requests that are none, and
 * requests that may be two.
 *
 * Three tables. What is whole is answered and what is not is waited for: the cases that h1spec has,
 * for a server that gives back the body it was sent. What is malformed gets one answer at most,
 * then the end of the connection, at the latest at the head's deadline. And what somebody in front
 * may read in another way never makes a second request. */
#include <check.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <microhttpd.h>

#include <curfew/clock.h>
#include <curfew/http.h>

#include "client.h"

#define HEAD_NS CF_SECOND
#define BODY_NS CF_SECOND
#define PATIENCE_MS 500 /* Nothing may come in that time where there is nothing to say. */
#define SLACK_NS CF_SECOND
#define ANSWER_MAX 16384

/* Fixture */

static struct cf_loop *loop;
static struct cf_http_server *server;
static uint16_t port;
static atomic_int smuggled; /* Requests for /smuggled. */

static enum cf_code echo(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    size_t size;
    const char *body = cf_http_body(http, &size);

    (void)ctx;
    (void)err;
    cf_http_reply_text(http, 200, body != NULL ? body : "");
    return CF_OK;
}

static enum cf_code note_smuggled(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    (void)atomic_fetch_add(&smuggled, 1);
    return echo(ctx, http, err);
}

static void setup(void)
{
    static const struct cf_http_route routes[] = {{"GET", "/", echo, 0, NULL},
                                                  {"POST", "/", echo, 0, NULL},
                                                  {"GET", "/hello", echo, 0, NULL},
                                                  {"GET", "/smuggled", note_smuggled, 0, NULL}};
    struct cf_http_options options = {.listen = "127.0.0.1:0",
                                      .routes = routes,
                                      .n_routes = sizeof(routes) / sizeof(routes[0]),
                                      .head_timeout_ns = HEAD_NS,
                                      .body_timeout_ns = BODY_NS};
    struct cf_err err = {.msg = ""};

    atomic_store(&smuggled, 0);
    ck_assert_int_eq(cf_loop_new(NULL, &loop, NULL), CF_OK);
    ck_assert_msg(cf_http_server_new(&options, &loop, 1, &server, &err) == CF_OK, "%s", err.msg);
    port = cf_http_server_port(server);
}

static void teardown(void)
{
    client_free_all();
    cf_http_server_stop(server, 0);
    cf_http_server_free(server);
    cf_loop_free(loop);
}

/* Helpers */

struct answer {
    char text[ANSWER_MAX];
    size_t size;
    bool closed; /* By the server. */
    int64_t took_ns;
};

static void send_bytes(int fd, const char *bytes, size_t size)
{
    ck_assert_int_eq(send(fd, bytes, size, MSG_NOSIGNAL), (ssize_t)size);
}

/* Read until the server closes, or says nothing for `patience_ms`. */
static void read_answer(int fd, int patience_ms, struct answer *out)
{
    int64_t since_ns = cf_now_ns();

    memset(out, 0, sizeof(*out));
    while (out->size < sizeof(out->text) - 1) {
        struct pollfd pollfd = {.fd = fd, .events = POLLIN};
        ssize_t n;

        if (poll(&pollfd, 1, patience_ms) == 0) {
            break;
        }
        n = recv(fd, out->text + out->size, sizeof(out->text) - 1 - out->size, 0);
        if (n <= 0) {
            out->closed = true;
            break;
        }
        out->size += (size_t)n;
    }
    out->took_ns = cf_now_ns() - since_ns;
}

/* The status of the answer that begins at `text`, and where its body ends; 0: none begins there. */
static int next_answer(const char *text, const char **out_end)
{
    const char *head_end = strstr(text, "\r\n\r\n");
    const char *length = strcasestr(text, "\r\nContent-Length:");
    size_t left;
    size_t size = 0;

    if (strncmp(text, "HTTP/1.1 ", 9) != 0 || head_end == NULL) {
        return 0;
    }
    if (length != NULL && length < head_end) {
        size = strtoul(length + strlen("\r\nContent-Length:"), NULL, 10);
    }
    left = strlen(head_end + 4);
    *out_end = head_end + 4 + (size < left ? size : left);
    return atoi(text + 9);
}

/* As a client counts them, that goes by their lengths. */
static int count_answers(const char *text)
{
    int n = 0;

    while (next_answer(text, &text) != 0) {
        n++;
    }
    return n;
}

/* What comes in pieces */

START_TEST(piece_of_a_request_is_waited_for)
{
    static const char request[] = "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n";
    static const size_t cuts[] = {1,  4,  10, 11, 15, 19, 20, 21, /* up to behind the first line */
                                  24, 26, 27, 36, 37, 38, 39};
    enum {
        N = sizeof(cuts) / sizeof(cuts[0])
    };
    int fds[N];

    for (size_t i = 0; i < N; i++) {
        fds[i] = client_open(port);
        send_bytes(fds[i], request, cuts[i]);
    }
    ck_assert_int_eq(usleep(PATIENCE_MS * 1000), 0);
    for (size_t i = 0; i < N; i++) {
        char byte;

        ck_assert_msg(recv(fds[i], &byte, 1, MSG_DONTWAIT) == -1, "%.*s", (int)cuts[i], request);
        send_bytes(fds[i], request + cuts[i], sizeof(request) - 1 - cuts[i]);
    }
    for (size_t i = 0; i < N; i++) {
        ck_assert_msg(client_recv(fds[i], "GET")->status == 200, "%.*s", (int)cuts[i], request);
        (void)close(fds[i]);
    }
}
END_TEST

/* What is whole */

#define HOST "Host: example.com\r\n"

static const struct whole {
    const char *request;
    int least; /* Status. */
    int most;
    const char *body; /* If it is 200; NULL: any. */
} wholes[] = {
    {"GET / \r\n\r\n", 400, 599, NULL},
    {"GET / HTTP/1.1\r\n" HOST "Expect: 100-continue\r\n\r\n", 100, 299, NULL},
    {"GET / HTTP/1.1\r\n" HOST "\r\n", 200, 299, NULL},
    {"GET / HTTP/1.1\r\nhoSt:\texample.com\r\nempty:\r\n\r\n", 200, 299, NULL},
    {"GET / HTTP/1.1\r\n" HOST "X-Invalid[]: test\r\n\r\n", 400, 499, NULL},
    {"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", 400, 499, NULL},
    {"GET / HTTP/1.1\r\n" HOST "Host: example.org\r\n\r\n", 400, 499, NULL},
    {"GET / HTTP/1.1\r\n" HOST "Content-Length: -123456789123456789123456789\r\n\r\n", 400, 499,
     NULL},
    {"GET / HTTP/1.1\r\n" HOST "Content-Length: -1234\r\n\r\n", 400, 499, NULL},
    {"GET / HTTP/1.1\r\n" HOST "Content-Length: abc\r\n\r\n", 400, 499, NULL},
    {"GET / HTTP/1.1\r\n" HOST "X-Empty-Header: \r\n\r\n", 200, 299, NULL},
    {"GET / HTTP/1.1\r\n" HOST "X-Bad-Control-Char: test\x07\r\n\r\n", 400, 499, NULL},
    {"GET / HTTP/9.9\r\n" HOST "\r\n", 400, 599, NULL},
    {"Extra lineGET / HTTP/1.1\r\n" HOST "\r\n", 400, 599, NULL},
    {"GET / HTTP/1.1\r\n" HOST "\rSome-Header: Test\r\n\r\n", 400, 499, NULL},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello", 200, 299, "hello"},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nc\r\nHellO world1\r\n0\r\n\r\n",
     200, 299, "HellO world1"},
    {"POST / HTTP/1.1\r\n" HOST "content-LengtH: 5\r\nTransFer-Encoding: chunked\r\n\r\n"
     "c\r\nHellO world1\r\n0\r\n\r\n",
     200, 499, "HellO world1"},
};

/* Behind this one libmicrohttpd closes the connection without a word, from its version 1.0 on. */
static bool is_closed_early(const struct whole *whole, const struct answer *answer)
{
    return MHD_VERSION >= 0x01000000 && strncmp(whole->request, "Extra line", 10) == 0 &&
           answer->closed && answer->text[0] == '\0';
}

START_TEST(whole_request_is_answered)
{
    const struct whole *whole = &wholes[_i];
    int fd = client_open(port);
    struct answer answer;
    const char *end;
    int status;

    client_send(fd, whole->request);
    read_answer(fd, PATIENCE_MS, &answer);
    (void)close(fd);
    if (is_closed_early(whole, &answer)) {
        return;
    }
    status = next_answer(answer.text, &end);
    ck_assert_msg(status >= whole->least && status <= whole->most, "%s: %s", whole->request,
                  answer.text);
    if (status == 200 && whole->body != NULL) {
        ck_assert_str_eq(strstr(answer.text, "\r\n\r\n") + 4, whole->body);
    }
}
END_TEST

/* What is malformed */

#define BYTES(text) text, sizeof(text) - 1
#define SMUGGLED "GET /smuggled HTTP/1.1\r\n" HOST "\r\n"

/* Each is followed, at once, by a request that must not be served. */
static const struct malformed {
    const char *bytes;
    size_t size;
} malformeds[] = {
    {BYTES("GET / HTTP/1.1\r\n" HOST ": x\r\n\r\n")},
    {BYTES("GET / HTTP/1.1\r\n: x\r\n" HOST "\r\n")},
    {BYTES("GET / HTTP/1.1\r\n" HOST ":\r\n\r\n")},
    {BYTES("GET / HTTP/1.1\r\n" HOST "X: a\0b\r\n\r\n")},
    {BYTES("GET / HTTP/1.1\r\n" HOST "X\0Y: a\r\n\r\n")},
    {BYTES("GET / HTTP/1.1\r\n" HOST "\0: a\r\n\r\n")},
    {BYTES("GET /\0a HTTP/1.1\r\n" HOST "\r\n")},
    {BYTES("GET /?a\0b HTTP/1.1\r\n" HOST "\r\n")},
    {BYTES("G\0ET / HTTP/1.1\r\n" HOST "\r\n")},
    {BYTES("GET / HTTP/1.1\0\r\n" HOST "\r\n")},
    {BYTES("GET  / HTTP/1.1\r\n" HOST "\r\n")},
    {BYTES("GET /  HTTP/1.1\r\n" HOST "\r\n")},
    {BYTES("GET / HTTP/1.1 \r\n" HOST "\r\n")},
    {BYTES("GET / HTTP/1.1\n" HOST "\r\n")},
    {BYTES("GET / HTTP/1.1\r\nHost: a\n\r\n")},
    {BYTES("GET / HTTP/1.1\r\n" HOST "\n")},
    {BYTES("GET / HTTP/1.1\nHost: a\n\n")},
    {BYTES("GET / HTTP/1.1\r\n" HOST "X: a\r\n b\r\n\r\n")},
    {BYTES("GET / HTTP/1.1\r\n" HOST "X: a\r\n\tb\r\n\r\n")},
    {BYTES("GET / HTTP/1.1\r\n X: a\r\n" HOST "\r\n")},
    {BYTES("GET / HTTP/1.1\r\n" HOST "X: a\rY: b\r\n\r\n")},
    {BYTES("GET / HTTP/1.1\r\n" HOST "X : a\r\n\r\n")},
    {BYTES("GET / HTTP/1.1\r\n" HOST "X\r\n\r\n")},
    {BYTES("GET / HTTP/1.1\r\n" HOST "Content-Length: +5\r\n\r\nhello")},
    {BYTES("GET / HTTP/1.1\r\n" HOST "Content-Length: 5, 5\r\n\r\nhello")},
    {BYTES("GET / HTTP/1.1\r\n" HOST "Content-Length: 0x5\r\n\r\nhello")},
    {BYTES("GET / HTTP/1.1\r\n" HOST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello")},
    {BYTES("GET / HTTP/1.1\r\n" HOST "Content-Length : 5\r\n\r\nhello")},
    {BYTES("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n")},
    {BYTES("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")},
    {BYTES("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: identity\r\n\r\n")},
    {BYTES("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: \x0b"
           "chunked\r\n\r\n0\r\n\r\n")},
    {BYTES("POST / HTTP/1.1\r\n" HOST "Transfer-Encodin: chunked\r\n g\r\n\r\n0\r\n\r\n")},
    {BYTES("POST / HTTP/1.1\r\n" HOST
           "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")},
    {BYTES("GET http://example.com/ HTTP/1.1\r\n" HOST "\r\n")},
    {BYTES("GET / HTTP/1.1\r\n" HOST "Host: example.com\r\n\r\n")},
    {BYTES("FROB / HTTP/1.1\r\n" HOST "\r\n")},
    {BYTES("TRACE / HTTP/1.1\r\n" HOST "\r\n")},
    {BYTES("CONNECT example.com:80 HTTP/1.1\r\n" HOST "\r\n")},
    {BYTES("GET / HTTP/2.0\r\n" HOST "\r\n")},
    {BYTES("GET / HTTP/1.1x\r\n" HOST "\r\n")},
    {BYTES("GET / http/1.1\r\n" HOST "\r\n")},
    {BYTES("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")},
    {BYTES("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")},
    {BYTES("GET\r\n\r\n")},
};

START_TEST(malformed_request_is_the_last)
{
    const struct malformed *malformed = &malformeds[_i];
    int fd = client_open(port);
    struct answer answer;

    send_bytes(fd, malformed->bytes, malformed->size);
    send_bytes(fd, SMUGGLED, strlen(SMUGGLED));
    read_answer(fd, (int)(CLIENT_WAIT_NS / CF_MS), &answer);
    (void)close(fd);
    ck_assert_msg(answer.closed, "left open behind: %s", answer.text);
    ck_assert_int_lt(answer.took_ns, HEAD_NS + bound(SLACK_NS));
    ck_assert_msg(count_answers(answer.text) <= 1, "%s", answer.text);
    ck_assert_msg(strstr(answer.text, " 200 OK") == NULL, "%s", answer.text);
    ck_assert_int_eq(atomic_load(&smuggled), 0);
}
END_TEST

/* What is well formed, however odd, is no reason to close. */
static const char *const odds[] = {
    "\r\nGET / HTTP/1.1\r\n" HOST "\r\n", /* One such line is to be ignored (RFC 9112, 2.2). */
    "GET / HTTP/1.1\r\n" HOST "X:\r\nY: \r\nZ:\t \t z \t\r\n\r\n",
    "GET /?a=b&&c==d&%20=?#x HTTP/1.1\r\n" HOST "Cookie: a=b; c=d\r\nCookie: e=f\r\n\r\n",
    "GET / HTTP/1.1\r\n" HOST "X: \xc3\xa4\r\nX: \xff\r\n\r\n",
    "GET / HTTP/1.1\r\n" HOST "!#$%&'*+-.^_`|~09azAZ: ::\r\n\r\n",
    "POST / HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n",
};

START_TEST(odd_request_leaves_the_connection_open)
{
    int fd = client_open(port);

    client_send(fd, odds[_i]);
    ck_assert_msg(client_recv(fd, "GET")->status < 500, "%s", odds[_i]);
    client_send(fd, SMUGGLED);
    ck_assert_msg(client_recv(fd, "GET")->status == 200, "%s", odds[_i]);
    ck_assert_int_eq(atomic_load(&smuggled), 1);
    (void)close(fd);
}
END_TEST

/* A head that comes byte by byte moves around in libmicrohttpd's memory,
 * and is whole all the same. */
START_TEST(slow_head_is_no_other)
{
    static const char request[] =
        "POST /?a=b HTTP/1.1\r\n" HOST "Content-Length: 2\r\nX: y\r\n\r\nhi";
    int fd = client_open(port);

    for (size_t i = 0; i < sizeof(request) - 1; i++) {
        send_bytes(fd, request + i, 1);
        (void)sched_yield();
    }
    ck_assert_int_eq(client_recv(fd, "POST")->status, 200);
    (void)close(fd);
}
END_TEST

/* Large heads make its buffer grow, and the second request of a connection begins in its middle. */
START_TEST(large_heads_are_no_other)
{
    static char request[12 * 1024];
    int fd = client_open(port);

    for (size_t size = 64; size < 11 * 1024; size += 1021) {
        int n = snprintf(request, sizeof(request),
                         "GET / HTTP/1.1\r\n" HOST "X: %0*d\r\nY: z\r\n\r\n", (int)size, 0);

        send_bytes(fd, request, (size_t)n / 2);
        ck_assert_int_eq(usleep(1000), 0); /* So that it is read in two pieces, most likely. */
        send_bytes(fd, request + n / 2, (size_t)(n - n / 2));
        ck_assert_int_eq(client_recv(fd, "GET")->status, 200);
    }
    (void)close(fd);
}
END_TEST

Suite *suite_http_wire(void)
{
    Suite *suite = suite_create("http_wire");
    TCase *whole = tcase_create("whole");
    TCase *malformed = tcase_create("malformed");

    tcase_add_checked_fixture(whole, setup, teardown);
    tcase_add_test(whole, piece_of_a_request_is_waited_for);
    tcase_add_loop_test(whole, whole_request_is_answered, 0, sizeof(wholes) / sizeof(wholes[0]));
    tcase_add_loop_test(whole, odd_request_leaves_the_connection_open, 0,
                        sizeof(odds) / sizeof(odds[0]));
    tcase_add_test(whole, slow_head_is_no_other);
    tcase_add_test(whole, large_heads_are_no_other);
    suite_add_tcase(suite, whole);

    tcase_add_checked_fixture(malformed, setup, teardown);
    tcase_add_loop_test(malformed, malformed_request_is_the_last, 0,
                        sizeof(malformeds) / sizeof(malformeds[0]));
    suite_add_tcase(suite, malformed);
    return suite;
}
