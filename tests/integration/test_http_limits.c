/* SPDX-License-Identifier: MIT */
/* Every limit of the HTTP server: what is within is served, and what is beyond is told so. */
#include <curfew/http.h>

#include <arpa/inet.h>
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <curfew/clock.h>
#include <curfew/wait.h>

#include "client.h"

#define N(table) (int)(sizeof(table) / sizeof((table)[0]))

/* What no wait of a test may take, and what is at once even under a sanitizer. */
#define PATIENCE_NS (20 * CF_SECOND)
#define AT_ONCE_NS (200 * CF_MS)

/* Fixture */

static struct cf_loop *loops[2];
static struct cf_http_server *server;
static struct cf_http_options options;
static uint16_t port;
static sem_t started; /* A handler has begun to wait. */

static struct {
    pthread_mutex_t mu;
    char client[64]; /* Of the last request that was recorded. */
    int status;
} last = {.mu = PTHREAD_MUTEX_INITIALIZER};

static void on_done(void *arg, const struct cf_http_record *record)
{
    (void)arg;
    (void)pthread_mutex_lock(&last.mu);
    (void)snprintf(last.client, sizeof(last.client), "%s", record->client);
    last.status = record->status;
    (void)pthread_mutex_unlock(&last.mu);
}

static enum cf_code hello(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    (void)ctx;
    (void)err;
    cf_http_reply_text(http, 200, "hello");
    return CF_OK;
}

/* Until its client has left. */
static enum cf_code hang(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    (void)http;
    (void)sem_post(&started);
    return cf_sleep(ctx, 60 * CF_SECOND, err);
}

/* What is sent back is all that came, after a moment in which nothing else may overwrite it. */
static enum cf_code echo(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    size_t size;
    const char *body = cf_http_body(http, &size);
    enum cf_code code = cf_sleep(ctx, CF_MS, err);

    ck_assert_uint_eq(strlen(body), size);
    cf_http_reply_text(http, 200, body);
    return code;
}

/* The JSON of the body, written again. */
static enum cf_code parse(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
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

/* ?size= bytes. */
static enum cf_code large(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    int64_t size;
    char *text;

    (void)ctx;
    if (cf_http_query_i64(http, "size", 1, 100000000, 1, &size, err) != CF_OK) {
        return CF_EINVAL;
    }
    text = malloc((size_t)size + 1);
    ck_assert_ptr_nonnull(text);
    memset(text, 'x', (size_t)size);
    text[size] = '\0';
    cf_http_reply_text(http, 200, text);
    free(text);
    return CF_OK;
}

static const struct cf_http_route routes[] = {
    {"GET", "/hello", hello, 0, NULL}, {"GET", "/hang", hang, 0, NULL},
    {"GET", "/echo", echo, 0, NULL},   {"POST", "/echo", echo, 0, NULL},
    {"PUT", "/echo", echo, 0, NULL},   {"PATCH", "/echo", echo, 0, NULL},
    {"POST", "/json", parse, 0, NULL}, {"GET", "/large", large, 0, NULL},
};

/* With `options`, as the test has left them. */
static void start(void)
{
    struct cf_err err = {.msg = ""};

    ck_assert_msg(cf_http_server_new(&options, loops, 2, &server, &err) == CF_OK, "%s", err.msg);
    port = cf_http_server_port(server);
}

static void setup(void)
{
    ck_assert_int_eq(sem_init(&started, 0, 0), 0);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(cf_loop_new(NULL, &loops[i], NULL), CF_OK);
    }
    options = (struct cf_http_options){.listen = "127.0.0.1:0",
                                       .routes = routes,
                                       .n_routes = sizeof(routes) / sizeof(routes[0]),
                                       .on_done = on_done};
}

static void teardown(void)
{
    client_free_all();
    if (server != NULL) {
        cf_http_server_stop(server, 0);
        cf_http_server_free(server);
        server = NULL;
    }
    for (int i = 0; i < 2; i++) {
        cf_loop_free(loops[i]);
    }
    (void)sem_destroy(&started);
}

/* Helpers */

static size_t connections(void)
{
    struct cf_http_stats stats;

    cf_http_server_stats(server, &stats);
    return stats.connections;
}

static void wait_connections(size_t n)
{
    int64_t until_ns = cf_now_ns() + PATIENCE_NS;

    while (connections() != n) {
        ck_assert_msg(cf_now_ns() < until_ns, "%zu connections, not %zu", connections(), n);
        pause_ms(1);
    }
}

static void wait_started(void)
{
    struct timespec over;

    (void)clock_gettime(CLOCK_REALTIME, &over);
    over.tv_sec += PATIENCE_NS / CF_SECOND;
    ck_assert_msg(sem_timedwait(&started, &over) == 0, "no handler has started");
}

static size_t count_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t n = 0;

    ck_assert_ptr_nonnull(dir);
    while (readdir(dir) != NULL) {
        n++;
    }
    (void)closedir(dir);
    return n;
}

/* A connection from one of the addresses of this machine. */
static int open_from(const char *address)
{
    struct sockaddr_in from = {.sin_family = AF_INET};
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_eq(inet_pton(AF_INET, address, &from.sin_addr), 1);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&from, sizeof(from)), 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

static struct reply *ask(int fd, const char *target, const char *headers)
{
    int64_t sent_ns = cf_now_ns();
    struct reply *reply;

    client_request(fd, "GET", target, headers);
    reply = client_recv(fd, "GET");
    reply->sent_ns = sent_ns;
    return reply;
}

static struct reply *post(const char *target, const char *body)
{
    int fd = client_open(port);
    char head[256];
    struct reply *reply;

    (void)snprintf(head, sizeof(head), "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n",
                   target, strlen(body));
    client_send(fd, head);
    client_send(fd, body);
    reply = client_recv(fd, "POST");
    (void)close(fd);
    return reply;
}

static void expect_problem(struct reply *reply, int status, const char *code)
{
    ck_assert_msg(reply->status == status, "%d %s", reply->status, reply->body);
    ck_assert_str_eq(reply_header(reply, "Content-Type"), "application/problem+json");
    ck_assert_str_eq(reply_str(reply, "code"), code);
    ck_assert_int_eq(reply_i64(reply, "status"), status);
    ck_assert_int_eq(reply_header(reply, "Retry-After") != NULL, status == 503 || status == 429);
}

static bool is_readable(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    return poll(&poll_fd, 1, 0) == 1;
}

/* All that comes until the other side closes. */
static void read_to_end(int fd, char *out, size_t size)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    size_t n = 0;
    ssize_t got = 1;

    while (got > 0 && n < size - 1) {
        ck_assert_int_eq(poll(&poll_fd, 1, (int)(PATIENCE_NS / CF_MS)), 1);
        got = recv(fd, out + n, size - 1 - n, 0);
        n += got > 0 ? (size_t)got : 0;
    }
    out[n] = '\0';
}

/* The fixed reply to who has said nothing. */
static void expect_told(int fd, const char *status_line)
{
    char text[1024];

    read_to_end(fd, text, sizeof(text));
    ck_assert_msg(strncmp(text, status_line, strlen(status_line)) == 0, "\"%s\"", text);
    ck_assert_ptr_nonnull(strstr(text, "Retry-After: 1\r\n"));
    ck_assert_ptr_nonnull(strstr(text, "Connection: close\r\n"));
    ck_assert_ptr_null(strstr(text + 1, "HTTP/1.1 "));
    (void)close(fd);
}

/* connections */

/* Counted over both loops: whichever it comes to, the eleventh is one too many. */
START_TEST(connections_beyond_the_limit_are_told)
{
    int fds[10];

    options.connections_max = 10;
    start();
    for (int i = 0; i < 10; i++) {
        fds[i] = client_open(port);
        ck_assert_int_eq(ask(fds[i], "/hello", NULL)->status, 200);
    }
    for (int i = 0; i < 10; i++) {
        int fd = client_open(port);
        struct reply *reply = ask(fd, "/hello", NULL);

        expect_problem(reply, 503, "overloaded");
        ck_assert_str_eq(reply_header(reply, "Connection"), "close");
        ck_assert_int_lt(reply->done_ns - reply->sent_ns, bound(AT_ONCE_NS));
        ck_assert(client_wait_closed(fd, PATIENCE_NS));
        (void)close(fd);
        wait_connections(10);
    }
    ck_assert_int_eq(ask(fds[9], "/hello", NULL)->status, 200); /* Who is in, stays in. */
    (void)close(fds[0]);
    wait_connections(9);
    fds[0] = client_open(port);
    ck_assert_int_eq(ask(fds[0], "/hello", NULL)->status, 200);
    for (int i = 0; i < 10; i++) {
        (void)close(fds[i]);
    }
}
END_TEST

/* It is given a moment to send its request, which a silent one does not use. */
START_TEST(connection_beyond_the_limit_that_is_silent_is_told)
{
    int64_t since_ns;
    int first;

    options.connections_max = 1;
    start();
    first = client_open(port);
    ck_assert_int_eq(ask(first, "/hello", NULL)->status, 200);
    since_ns = cf_now_ns();
    expect_told(client_open(port), "HTTP/1.1 503 ");
    ck_assert_int_ge(cf_now_ns() - since_ns, CF_SECOND / 2);
    ck_assert_int_lt(cf_now_ns() - since_ns, bound(2 * CF_SECOND));
    wait_connections(1);
    (void)close(first);
}
END_TEST

/* Silent ones in a crowd do not use up what is there to tell the next. */
START_TEST(crowd_beyond_the_limit_is_told_at_once)
{
    static int fds[500];
    int64_t since_ns;
    size_t before;
    int first;

    options.connections_max = 1;
    start();
    first = client_open(port);
    ck_assert_int_eq(ask(first, "/hello", NULL)->status, 200);
    before = count_descriptors();
    since_ns = cf_now_ns();
    for (int i = 0; i < N(fds); i++) {
        fds[i] = client_open(port);
    }
    for (int i = N(fds) - 1; i >= 0; i--) {
        expect_told(fds[i], "HTTP/1.1 503 ");
    }
    ck_assert_int_lt(cf_now_ns() - since_ns, bound(4 * CF_SECOND)); /* Not in turns of a second. */
    ck_assert_int_eq(ask(first, "/hello", NULL)->status, 200);
    wait_connections(1);
    ck_assert_uint_eq(count_descriptors(), before);
    (void)close(first);
}
END_TEST

/* address */

START_TEST(address_limit_reached)
{
    int fds[3];
    int other;
    struct reply *reply;

    options.connections_per_address_max = 3;
    start();
    for (int i = 0; i < 3; i++) {
        fds[i] = client_open(port);
        ck_assert_int_eq(ask(fds[i], "/hello", "X-Forwarded-For: 192.0.2.1\r\n")->status, 200);
        ck_assert_str_eq(last.client, "127.0.0.1"); /* Nobody's word is taken for it. */
    }
    for (int i = 0; i < 3; i++) {
        int fd = client_open(port);

        reply = ask(fd, "/hello", NULL);
        expect_problem(reply, 429, "quota_exceeded");
        ck_assert_str_eq(reply_header(reply, "Connection"), "close");
        (void)close(fd);
        wait_connections(3);
    }
    other = open_from("127.0.0.2");
    ck_assert_int_eq(ask(other, "/hello", NULL)->status, 200);
    (void)close(other);
    (void)close(fds[0]);
    wait_connections(2);
    fds[0] = client_open(port);
    ck_assert_int_eq(ask(fds[0], "/hello", NULL)->status, 200);
    for (int i = 0; i < 3; i++) {
        (void)close(fds[i]);
    }
}
END_TEST

START_TEST(address_far_beyond_its_limit_is_told_at_once)
{
    int fds[20];
    int n_told = 0;
    int64_t since_ns;
    int other;

    options.connections_per_address_max = 10;
    start();
    for (int i = 0; i < 20; i++) {
        fds[i] = client_open(port);
    }
    wait_connections(20);
    since_ns = cf_now_ns();
    for (int i = 0; i < 30; i++) {
        expect_told(client_open(port), "HTTP/1.1 429 ");
    }
    ck_assert_int_lt(cf_now_ns() - since_ns, bound(CF_SECOND / 2));
    other = open_from("127.0.0.2");
    ck_assert_int_eq(ask(other, "/hello", NULL)->status, 200);
    (void)close(other);
    wait_connections(10); /* The twenty were accepted in any order. */
    for (int i = 0; i < 20; i++) {
        if (is_readable(fds[i])) {
            expect_told(fds[i], "HTTP/1.1 429 ");
            n_told++;
        } else {
            ck_assert_int_eq(ask(fds[i], "/hello", NULL)->status, 200);
            (void)close(fds[i]);
        }
    }
    ck_assert_int_eq(n_told, 10);
}
END_TEST

/* Its connections are not those of a client; its requests are, and those of one client do not keep
 * another out, nor the proxy's connection from going on. */
START_TEST(proxy_that_is_trusted_asks_for_its_clients)
{
    int held[2];
    int fd;

    options.connections_per_address_max = 2;
    options.trusted_proxies = "127.0.0.1, 10.0.0.0/8";
    start();
    for (int i = 0; i < 2; i++) {
        held[i] = client_open(port);
        client_request(held[i], "GET", "/hang",
                       "X-Forwarded-For: 1.1.1.1, 192.0.2.1, 10.0.0.1\r\n");
        wait_started();
    }
    fd = client_open(port);
    expect_problem(ask(fd, "/hello", "X-Forwarded-For: 192.0.2.1\r\n"), 429, "quota_exceeded");
    ck_assert_str_eq(last.client, "192.0.2.1");
    expect_problem(ask(fd, "/hello", "Forwarded: for=\"192.0.2.1:80\"\r\n"), 429, "quota_exceeded");
    ck_assert_int_eq(ask(fd, "/hello", "X-Forwarded-For: 2001:db8::1\r\n")->status, 200);
    ck_assert_str_eq(last.client, "2001:db8::1");
    ck_assert_int_eq(ask(fd, "/hello", NULL)->status, 200);
    ck_assert_str_eq(last.client, "127.0.0.1");
    (void)close(held[0]);
    wait_connections(2);
    ck_assert_int_eq(ask(fd, "/hello", "X-Forwarded-For: 192.0.2.1\r\n")->status, 200);
    (void)close(held[1]);
    (void)close(fd);
}
END_TEST

START_TEST(new_names_what_is_no_proxy)
{
    struct cf_err err = {.msg = ""};

    options.trusted_proxies = "127.0.0.1, proxy.example";
    ck_assert_int_eq(cf_http_server_new(&options, loops, 2, &server, &err), CF_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.msg, "proxy.example"));
    ck_assert_ptr_nonnull(strstr(err.msg, "trusted proxies"));
}
END_TEST

/* send */

/* Read a little now and then until the other side closes; how long that took. */
static int64_t sip(int fd, int64_t at_most_ns)
{
    int64_t since_ns = cf_now_ns();
    char drop[512];
    ssize_t n;

    do {
        ck_assert_int_lt(cf_now_ns() - since_ns, at_most_ns);
        pause_ms(5);
        n = recv(fd, drop, sizeof(drop), MSG_DONTWAIT);
    } while (n > 0 || (n < 0 && errno == EAGAIN));
    return cf_now_ns() - since_ns;
}

static int open_narrow(void)
{
    int fd = client_open(port);
    int small = 4096;

    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
    return fd;
}

/* What it has already been sent it can still read; there is no more behind the send timeout. */
START_TEST(reader_that_sips_is_closed_in_time)
{
    int fd;

    options.send_timeout_ns = 500 * CF_MS;
    options.head_timeout_ns = 400 * CF_MS;
    start();
    fd = open_narrow();
    client_request(fd, "GET", "/large?size=20000000", NULL);
    wait_connections(1);
    ck_assert_int_ge(sip(fd, bound(5 * CF_SECOND)), 500 * CF_MS);
    wait_connections(0);
    (void)close(fd);
}
END_TEST

START_TEST(reader_that_reads_nothing_is_closed_in_time)
{
    int64_t since_ns;
    int fd;

    options.send_timeout_ns = 500 * CF_MS;
    options.head_timeout_ns = 400 * CF_MS;
    start();
    fd = open_narrow();
    since_ns = cf_now_ns();
    client_request(fd, "GET", "/large?size=20000000", NULL);
    wait_connections(1);
    wait_connections(0);
    ck_assert_int_ge(cf_now_ns() - since_ns, 500 * CF_MS);
    ck_assert_int_lt(cf_now_ns() - since_ns, bound(1500 * CF_MS));
    (void)close(fd);
}
END_TEST

/* The time is one reply's, not the connection's. */
START_TEST(reader_in_time_is_left_alone)
{
    int fd;

    options.send_timeout_ns = 300 * CF_MS;
    options.head_timeout_ns = 200 * CF_MS;
    start();
    fd = client_open(port);
    for (int i = 0; i < 8; i++) {
        ck_assert_uint_eq(ask(fd, "/large?size=1000000", NULL)->body_size, 1000000);
        pause_ms(100);
    }
    (void)close(fd);
}
END_TEST

/* head */

static const struct {
    const char *target;
    size_t n_target; /* Length to which it is filled up. */
    size_t n_fields; /* Beside Host. */
    size_t n_field;  /* Bytes of one. */
    int status;
    const char *code; /* NULL: of a success, or libmicrohttpd's own. */
} heads[] = {
    {"/hello?a=", 8192, 0, 0, 200, NULL},
    {"/hello?a=", 8193, 0, 0, 414, "target_too_long"},
    {"/", 8192, 0, 0, 404, "not_found"},
    {"/", 8193, 0, 0, 414, "target_too_long"},
    {"/", 40000, 0, 0, 414, NULL},
    {"/hello", 0, 99, 1, 200, NULL},
    {"/hello", 0, 100, 1, 431, "head_too_large"},
    {"/hello", 0, 1, 13500, 200, NULL},
    {"/hello", 0, 1, 14500, 431, "head_too_large"},
    {"/hello", 0, 1, 40000, 431, NULL},
};

START_TEST(head_limit_reached)
{
    static char text[65536];
    char *at = text;
    int fd;
    struct reply *reply;

    start();
    at += sprintf(at, "GET %s", heads[_i].target);
    while ((size_t)(at - text) < 4 + heads[_i].n_target) {
        *at++ = 'a';
    }
    at += sprintf(at, " HTTP/1.1\r\nHost: a\r\n");
    for (size_t i = 0; i < heads[_i].n_fields; i++) {
        at += sprintf(at, "X: ");
        memset(at, 'x', heads[_i].n_field);
        at += heads[_i].n_field;
        at += sprintf(at, "\r\n");
    }
    (void)sprintf(at, "\r\n");
    fd = client_open(port);
    client_send(fd, text);
    reply = client_recv(fd, "GET");
    ck_assert_int_eq(reply->status, heads[_i].status);
    if (heads[_i].code != NULL) {
        expect_problem(reply, heads[_i].status, heads[_i].code);
    }
    if (reply->status != 200 && reply->status != 404) {
        ck_assert(client_wait_closed(fd, PATIENCE_NS));
    }
    (void)close(fd);
}
END_TEST

START_TEST(head_limits_are_as_they_were_set)
{
    options.target_size_max = 10;
    options.fields_max = 2;
    options.head_size_max = 1000;
    options.body_size_max = 5;
    start();
    ck_assert_int_eq(client_get(port, "/hello?a=1", NULL)->status, 200);
    ck_assert_int_eq(client_get(port, "/hello?a=12", NULL)->status, 414);
    ck_assert_int_eq(client_get(port, "/hello", "A: b\r\n")->status, 200);
    ck_assert_int_eq(client_get(port, "/hello", "A: b\r\nC: d\r\n")->status, 431);
    ck_assert_str_eq(post("/echo", "12345")->body, "12345");
    expect_problem(post("/echo", "123456"), 413, "too_large");
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
        {"POST", "/json", parse},
        {"POST", "/echo", echo, .body_size_max = 2000},
        {"PUT", "/echo", echo},
        {"PATCH", "/echo", echo, .body_size_max = 2},
    };
    const char *length = sized[_i].length;
    char headers[64];
    struct reply *reply;
    int fd;

    options.body_size_max = 5;
    options.routes = limited;
    options.n_routes = sizeof(limited) / sizeof(limited[0]);
    start();
    fd = client_open(port);
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

static const char *const own_hosts[] = {"localhost", "127.0.0.1:1", "[::1]", "curfew:8081"};
static const char *const other_hosts[] = {"evil.example", "evil.example:8081", "127.0.0.1.evil"};

START_TEST(host_of_others_is_misdirected)
{
    char request[128];
    int fd;

    options.hosts = "curfew";
    start();
    for (int i = 0; i < N(own_hosts); i++) {
        fd = client_open(port);
        (void)snprintf(request, sizeof(request), "GET /hello HTTP/1.1\r\nHost: %s\r\n\r\n",
                       own_hosts[i]);
        client_send(fd, request);
        ck_assert_int_eq(client_recv(fd, "GET")->status, 200);
        (void)close(fd);
    }
    for (int i = 0; i < N(other_hosts); i++) {
        fd = client_open(port);
        (void)snprintf(request, sizeof(request), "GET /hello HTTP/1.1\r\nHost: %s\r\n\r\n",
                       other_hosts[i]);
        client_send(fd, request);
        expect_problem(client_recv(fd, "GET"), 421, "misdirected");
        (void)close(fd);
    }
}
END_TEST

/* body */

START_TEST(body_is_given_to_the_handler)
{
    static const char *const methods[] = {"POST", "PUT", "PATCH"};
    char *big = malloc(1000001);

    start();
    for (int i = 0; i < N(methods); i++) {
        int fd = client_open(port);

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

    start();
    fd = client_open(port);
    client_request(fd, "POST", "/echo", "Transfer-Encoding: chunked\r\n");
    client_send(fd, "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n");
    ck_assert_str_eq(client_recv(fd, "POST")->body, "hello");
    (void)close(fd);
}
END_TEST

START_TEST(body_of_a_get_is_dropped)
{
    int fd;

    start();
    fd = client_open(port);
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

    options.bodies_size_max = 128 * 1024; /* 64 KiB on each loop: two of 30,000 bytes. */
    options.body_size_max = 60 * 1024;
    start();
    memset(half, 'x', sizeof(half) - 1);
    for (int round = 0; round < 3; round++) {
        int n_shed = 0;
        int n_served = 0;

        for (int i = 0; i < 20; i++) {
            int fd = client_open(port);

            client_request(fd, "POST", "/echo", "Content-Length: 60000\r\n");
            (void)close(fd); /* Promised only. */
        }
        wait_connections(0);
        for (int i = 0; i < 4; i++) {
            fds[i] = client_open(port);
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
        wait_connections(0);
    }
}
END_TEST

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

    start();
    reply = post("/json", documents[_i].body);
    if (documents[_i].detail == NULL) {
        ck_assert_str_eq(reply->body, documents[_i].body);
    } else {
        expect_problem(reply, 400, "invalid");
        ck_assert_str_eq(reply_str(reply, "detail"), documents[_i].detail);
    }
}
END_TEST

/* Before jansson sees it: it would need a stack that no fiber has. */
START_TEST(json_depth_limit_reached)
{
    static char deep[200001];
    static const int depths[] = {64, 65, 2000, 100000};

    start();
    for (int i = 0; i < N(depths); i++) {
        struct reply *reply;

        memset(deep, '[', (size_t)depths[i]);
        memset(deep + depths[i], ']', (size_t)depths[i]);
        deep[2 * depths[i]] = '\0';
        reply = post("/json", deep);
        if (depths[i] <= 64) {
            ck_assert_str_eq(reply->body, deep);
        } else {
            expect_problem(reply, 400, "invalid");
            ck_assert_str_eq(reply_str(reply, "detail"),
                             "the body is nested deeper than 64 levels");
        }
    }
    memset(deep, '{', 200000);
    expect_problem(post("/json", deep), 400, "invalid");
}
END_TEST

/* pipelining */

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

    start();
    fd = client_open(port);
    ck_assert_int_eq(pthread_create(&thread, NULL, send_pipeline, &fd), 0);
    for (int i = 0; i < DEEP; i++) {
        struct reply *reply = client_recv(fd, "GET");

        ck_assert_int_eq(reply->status, 200);
        ck_assert_uint_eq(reply->body_size, (size_t)i + 1);
        if (i % 20 == 0) {
            reply = client_get(port, "/hello", NULL);
            ck_assert_int_eq(reply->status, 200);
            took_ns[i / 20] = reply->done_ns - reply->sent_ns;
        }
    }
    ck_assert_int_lt(permille(took_ns, DEEP / 20, 900), bound(AT_ONCE_NS));
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    (void)close(fd);
}
END_TEST

static void add_case(Suite *suite, TCase *tcase)
{
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    suite_add_tcase(suite, tcase);
}

Suite *suite_http_limits(void)
{
    Suite *suite = suite_create("http_limits");
    TCase *connection = tcase_create("connections");
    TCase *address = tcase_create("address");
    TCase *sending = tcase_create("send");
    TCase *head = tcase_create("head");
    TCase *body = tcase_create("body");
    TCase *pipeline = tcase_create("pipeline");

    tcase_add_test(connection, connections_beyond_the_limit_are_told);
    tcase_add_test(connection, connection_beyond_the_limit_that_is_silent_is_told);
    tcase_add_test(connection, crowd_beyond_the_limit_is_told_at_once);
    add_case(suite, connection);

    tcase_add_test(address, address_limit_reached);
    tcase_add_test(address, address_far_beyond_its_limit_is_told_at_once);
    tcase_add_test(address, proxy_that_is_trusted_asks_for_its_clients);
    tcase_add_test(address, new_names_what_is_no_proxy);
    add_case(suite, address);

    tcase_add_test(sending, reader_that_sips_is_closed_in_time);
    tcase_add_test(sending, reader_that_reads_nothing_is_closed_in_time);
    tcase_add_test(sending, reader_in_time_is_left_alone);
    add_case(suite, sending);

    tcase_add_loop_test(head, head_limit_reached, 0, N(heads));
    tcase_add_test(head, head_limits_are_as_they_were_set);
    tcase_add_test(head, host_of_others_is_misdirected);
    add_case(suite, head);

    tcase_add_test(body, body_is_given_to_the_handler);
    tcase_add_test(body, body_in_chunks_is_given_to_the_handler);
    tcase_add_test(body, body_of_a_get_is_dropped);
    tcase_add_test(body, bodies_limit_reached);
    tcase_add_loop_test(body, body_limits_are_the_routes_own, 0, N(sized));
    tcase_add_loop_test(body, json_is_what_was_sent_or_refused, 0, N(documents));
    tcase_add_test(body, json_depth_limit_reached);
    add_case(suite, body);

    tcase_add_test(pipeline, pipeline_a_thousand_deep_is_answered_in_order_and_fair);
    add_case(suite, pipeline);
    return suite;
}
