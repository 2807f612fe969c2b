/* SPDX-License-Identifier: MIT */
/* The HTTP server in this process, spoken to over real sockets, byte by byte where it matters.
 *
 * Nothing here sleeps to make something happen: handlers say that they have started by a semaphore,
 * requests that they are through by on_done(), and every wait has a bound. */
#include <curfew/http.h>

#include <arpa/inet.h>
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <microhttpd.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <curfew/clock.h>
#include <curfew/group.h>
#include <curfew/wait.h>

/* What no wait of a test may take. Generous: sanitizers, valgrind and two cores. */
#define PATIENCE_NS (20 * CF_SECOND)

/* What is "at once" even there. */
#define AT_ONCE_NS (2 * CF_SECOND)

#define N(table) (int)(sizeof(table) / sizeof((table)[0]))

/* Helpers: what happened */

/* A copy of what on_done() was told. */
struct seen {
    char method[16];
    char target[256];
    char route[64];
    char request_id[129];
    char client[64];
    char timeout_source[64];
    int status;
    size_t body_size;
    int64_t duration_ns;
    int64_t timeout_ns;
    enum cf_reason reason;
    enum cf_code code;
    int64_t at_ns;
};

#define SEEN_MAX 4096

static struct {
    pthread_mutex_t mu;
    pthread_cond_t changed;
    size_t n;
    struct seen seen[SEEN_MAX];
} done = {.mu = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void copy_text(char *out, size_t size, const char *text)
{
    (void)snprintf(out, size, "%s", text);
}

static void on_done(void *arg, const struct cf_http_record *record)
{
    struct seen *seen;

    ck_assert_ptr_eq(arg, &done);
    (void)pthread_mutex_lock(&done.mu);
    seen = &done.seen[done.n % SEEN_MAX];
    memset(seen, 0, sizeof(*seen));
    copy_text(seen->method, sizeof(seen->method), record->method);
    copy_text(seen->target, sizeof(seen->target), record->target);
    copy_text(seen->route, sizeof(seen->route), record->route);
    copy_text(seen->request_id, sizeof(seen->request_id), record->request_id);
    copy_text(seen->client, sizeof(seen->client), record->client);
    copy_text(seen->timeout_source, sizeof(seen->timeout_source), record->timeout_source);
    seen->status = record->status;
    seen->body_size = record->body_size;
    seen->duration_ns = record->duration_ns;
    seen->timeout_ns = record->timeout_ns;
    seen->reason = record->cause.reason;
    seen->code = record->code;
    seen->at_ns = cf_now_ns();
    done.n++;
    (void)pthread_cond_broadcast(&done.changed);
    (void)pthread_mutex_unlock(&done.mu);
}

static struct timespec patience_over(void)
{
    struct timespec at;

    (void)clock_gettime(CLOCK_REALTIME, &at);
    at.tv_sec += PATIENCE_NS / CF_SECOND;
    return at;
}

/* The n-th request that was done, counted from 1. */
static struct seen wait_done(size_t n)
{
    struct timespec over = patience_over();
    struct seen seen;

    (void)pthread_mutex_lock(&done.mu);
    while (done.n < n) {
        ck_assert_msg(pthread_cond_timedwait(&done.changed, &done.mu, &over) == 0,
                      "%zu of %zu requests are done", done.n, n);
    }
    seen = done.seen[(n - 1) % SEEN_MAX];
    (void)pthread_mutex_unlock(&done.mu);
    return seen;
}

static size_t count_done(void)
{
    size_t n;

    (void)pthread_mutex_lock(&done.mu);
    n = done.n;
    (void)pthread_mutex_unlock(&done.mu);
    return n;
}

/* Helpers: handlers */

static sem_t started;     /* A handler has begun to wait. */
static sem_t go;          /* /hold may go on. */
static atomic_int runs;   /* Handlers begun. */
static atomic_int caught; /* Why the last handler that waited was ended: enum cf_reason. */
static char app_text[] = "the app";

static void wait_started(void)
{
    struct timespec over = patience_over();

    ck_assert_msg(sem_timedwait(&started, &over) == 0, "no handler has started");
}

static enum cf_code hello(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    (void)ctx;
    (void)err;
    (void)atomic_fetch_add(&runs, 1);
    cf_json_str(cf_http_reply_json(http, 200), "hello");
    return CF_OK;
}

/* ?ms=: park that long, then answer with the time as text. */
static enum cf_code nap(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct cf_cause cause;
    int64_t ms;
    enum cf_code code = cf_http_query_i64(http, "ms", 0, 60000, 60000, &ms, err);

    (void)atomic_fetch_add(&runs, 1);
    if (code != CF_OK) {
        return code;
    }
    (void)sem_post(&started);
    code = cf_sleep(ctx, ms * CF_MS, err);
    if (code != CF_OK) {
        (void)cf_ctx_cause(ctx, &cause);
        atomic_store(&caught, (int)cause.reason);
        return cf_err_phase(err, cf_err_wrap(err, code, "nap"), "nap");
    }
    cf_http_timing(http, "nap", ms * CF_MS);
    cf_http_reply_text(http, 200, cf_http_query(http, "ms"));
    return CF_OK;
}

/* Goes on for a while after its context has ended, and succeeds. */
static enum cf_code stubborn(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct cf_ctx *own;
    enum cf_code code;

    (void)sem_post(&started);
    if (cf_sleep(ctx, 60 * CF_SECOND, err) == CF_OK) {
        return cf_err_set(err, CF_EINTERNAL, "slept to the end");
    }
    code = cf_ctx_without_cancel(ctx, &own, err);
    if (code == CF_OK) {
        code = cf_sleep(own, 20 * CF_MS, err);
        cf_ctx_free(own);
    }
    cf_http_reply_text(http, 200, "done all the same");
    return code;
}

/* Holds its loop until `go`, so that what the client did meanwhile is found all at once; then waits. */
static enum cf_code hold(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct timespec over = patience_over();
    enum cf_code code;

    (void)sem_post(&started);
    ck_assert_msg(sem_timedwait(&go, &over) == 0, "nobody lets the handler go on");
    code = cf_sleep(ctx, 20 * CF_MS, err);
    cf_http_reply_text(http, 200, "held");
    return code;
}

static enum cf_code task(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    (void)arg;
    return cf_sleep(ctx, 60 * CF_SECOND, err);
}

/* Three tasks that wait for each other's end. */
static enum cf_code fan_out(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct cf_group *group;
    enum cf_code code = cf_group_new(ctx, &group, err);

    (void)http;
    if (code != CF_OK) {
        return code;
    }
    for (int i = 0; i < 3; i++) {
        cf_group_go(group, task, NULL);
    }
    (void)sem_post(&started);
    code = cf_group_wait(group, err);
    cf_group_free(group);
    return code;
}

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

/* A part of the work has a time limit of its own. */
static enum cf_code impatient(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct cf_ctx *part;
    enum cf_code code = cf_ctx_with_timeout(ctx, CF_MS, &part, err);

    (void)http;
    if (code == CF_OK) {
        code = cf_sleep(part, 60 * CF_SECOND, err);
        cf_ctx_free(part);
    }
    return code;
}

/* Everything that can be asked of a request. */
static enum cf_code echo(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct cf_json *json;
    const char *header = cf_http_header(http, "x-eCHo");
    int64_t number;
    double fraction;
    char *own;

    (void)ctx;
    if (cf_http_query_i64(http, "n", -5, 5, 3, &number, err) != CF_OK ||
        cf_http_query_f64(http, "f", -1, 1, 0.5, &fraction, err) != CF_OK) {
        return CF_EINVAL;
    }
    own = cf_http_alloc(http, 100000);
    ck_assert_ptr_nonnull(own);
    memset(own, 'x', 100000);
    json = cf_http_reply_json(http, 201);
    cf_json_object(json);
    cf_json_key(json, "app");
    cf_json_str(json, cf_http_app(http));
    cf_json_key(json, "method");
    cf_json_str(json, cf_http_method(http));
    cf_json_key(json, "path");
    cf_json_str(json, cf_http_path(http));
    cf_json_key(json, "id");
    cf_json_str(json, cf_http_param(http, "id"));
    cf_json_key(json, "q");
    cf_json_str(json, cf_http_query(http, "q"));
    cf_json_key(json, "n");
    cf_json_i64(json, number);
    cf_json_key(json, "f");
    cf_json_f64(json, fraction, 3);
    cf_json_key(json, "header");
    cf_json_str(json, header);
    cf_json_key(json, "request_id");
    cf_json_str(json, cf_http_request_id(http));
    cf_json_end(json);
    return CF_OK;
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
static enum cf_code large(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
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
    {"GET", "/hello", hello, 0, NULL},
    {"POST", "/hello", hello, 0, NULL},
    {"GET", "/nap", nap, 0, NULL},
    {"GET", "/nap/capped", nap, 100 * CF_MS, NULL},
    {"GET", "/stubborn", stubborn, 0, NULL},
    {"GET", "/hold", hold, 0, NULL},
    {"GET", "/fan-out", fan_out, 0, NULL},
    {"GET", "/fail/{code}", failing, 0, NULL},
    {"GET", "/fail-silently", fail_silently, 0, NULL},
    {"GET", "/impatient", impatient, 0, NULL},
    {"GET", "/echo/{id}", echo, 0, NULL},
    {"GET", "/dressed", dressed, 0, NULL},
    {"GET", "/injected", injected, 0, NULL},
    {"GET", "/large", large, 0, NULL},
    {"DELETE", "/nothing", nothing, 0, NULL},
};

/* Fixture */

static struct cf_loop *loops[2];
static struct cf_http_server *server;
static struct cf_err err;

static struct cf_http_options options_for_tests(void)
{
    return (struct cf_http_options){
        .listen = "127.0.0.1:0",
        .routes = routes,
        .n_routes = sizeof(routes) / sizeof(routes[0]),
        .app = app_text,
        .fields_max = 1000, /* So that the size of a head is what limits it. */
        .on_done = on_done,
        .arg = &done,
    };
}

static void start_on(const struct cf_http_options *options, size_t n_loops)
{
    ck_assert_msg(cf_http_server_new(options, loops, n_loops, &server, &err) == CF_OK, "%s",
                  err.msg);
}

static void start(const struct cf_http_options *options)
{
    start_on(options, 2);
}

static void setup_loops(void)
{
    ck_assert_int_eq(sem_init(&started, 0, 0), 0);
    ck_assert_int_eq(sem_init(&go, 0, 0), 0);
    done.n = 0; /* With CK_FORK=no, what the test before has left. */
    atomic_store(&runs, 0);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(cf_loop_new(NULL, &loops[i], &err), CF_OK);
    }
}

static void setup(void)
{
    struct cf_http_options options = options_for_tests();

    setup_loops();
    start(&options);
}

static void teardown(void)
{
    if (server != NULL) {
        cf_http_server_stop(server, 0);
        cf_http_server_free(server);
        server = NULL;
    }
    for (int i = 0; i < 2; i++) {
        cf_loop_free(loops[i]);
    }
    (void)sem_destroy(&started);
    (void)sem_destroy(&go);
}

/* Helpers: a client */

struct client {
    int fd;
    size_t n; /* Bytes read and not yet taken. */
    char buffer[1 << 17];
};

struct reply {
    int status;
    char head[4096];
    char *body; /* Freed by free_reply(). */
    size_t size;
};

/* `patience_ms` 0: as long as the kernel takes to give up. */
static int try_dial_for(int patience_ms)
{
    struct timeval patience = {.tv_usec = patience_ms * 1000};
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons(cf_http_server_port(server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    ck_assert_int_ge(fd, 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    if (connect(fd, (struct sockaddr *)&at, sizeof(at)) != 0) {
        int sys = errno;

        (void)close(fd);
        errno = sys;
        return -1;
    }
    return fd;
}

static int try_dial(void)
{
    return try_dial_for(0);
}

static struct client *dial(void)
{
    struct client *client = malloc(sizeof(*client));

    ck_assert_ptr_nonnull(client);
    client->fd = try_dial();
    client->n = 0;
    ck_assert_msg(client->fd >= 0, "connect: %s", strerror(errno));
    return client;
}

static void hang_up(struct client *client)
{
    (void)close(client->fd);
    free(client);
}

/* Close with a reset. */
static void slam(struct client *client)
{
    struct linger linger = {1, 0};

    ck_assert_int_eq(setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
    hang_up(client);
}

static void say_bytes(struct client *client, const char *text, size_t size)
{
    while (size > 0) {
        ssize_t n = send(client->fd, text, size, MSG_NOSIGNAL);

        ck_assert_msg(n > 0, "send: %s", strerror(errno));
        text += n;
        size -= (size_t)n;
    }
}

static void say(struct client *client, const char *text)
{
    say_bytes(client, text, strlen(text));
}

/* Read once more. False: the server has closed. */
static bool hear(struct client *client)
{
    struct pollfd poller = {.fd = client->fd, .events = POLLIN};
    ssize_t n;

    ck_assert_msg(poll(&poller, 1, (int)(PATIENCE_NS / CF_MS)) == 1, "the server says nothing");
    ck_assert_uint_lt(client->n, sizeof(client->buffer));
    n = recv(client->fd, client->buffer + client->n, sizeof(client->buffer) - client->n, 0);
    if (n > 0) {
        client->n += (size_t)n;
    }
    return n > 0;
}

/* Take `size` bytes from the front of what was read. */
static void take(struct client *client, size_t size)
{
    memmove(client->buffer, client->buffer + size, client->n - size);
    client->n -= size;
}

/* The value of a header of the reply, or NULL. One answer at a time. */
static const char *header(const struct reply *reply, const char *name)
{
    static _Thread_local char value[512];
    size_t size = strlen(name);

    for (const char *line = strstr(reply->head, "\r\n"); line != NULL;
         line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, size) == 0 && line[size] == ':') {
            const char *at = line + size + 1 + strspn(line + size + 1, " ");

            (void)snprintf(value, sizeof(value), "%.*s", (int)strcspn(at, "\r"), at);
            return value;
        }
    }
    return NULL;
}

/* Read one reply. `has_body`: it is not one to a HEAD. False: closed without one. */
static bool read_reply(struct client *client, struct reply *reply, bool has_body)
{
    const char *end;
    const char *length;
    size_t n_head;

    while ((end = memmem(client->buffer, client->n, "\r\n\r\n", 4)) == NULL) {
        if (!hear(client)) {
            ck_assert_uint_eq(client->n, 0);
            return false;
        }
    }
    n_head = (size_t)(end - client->buffer) + 4;
    ck_assert_uint_lt(n_head, sizeof(reply->head));
    memcpy(reply->head, client->buffer, n_head);
    reply->head[n_head] = '\0';
    take(client, n_head);
    ck_assert_int_eq(sscanf(reply->head, "HTTP/1.1 %d ", &reply->status), 1);
    length = header(reply, "Content-Length");
    reply->size = has_body && length != NULL ? strtoul(length, NULL, 10) : 0;
    reply->body = calloc(1, reply->size + 1);
    ck_assert_ptr_nonnull(reply->body);
    for (size_t have = 0; have < reply->size;) {
        size_t n;

        ck_assert(client->n > 0 || hear(client));
        n = client->n < reply->size - have ? client->n : reply->size - have;
        memcpy(reply->body + have, client->buffer, n);
        take(client, n);
        have += n;
    }
    return true;
}

static void free_reply(struct reply *reply)
{
    free(reply->body);
    reply->body = NULL;
}

/* The next reply, of which there must be one. */
static struct reply next_reply(struct client *client)
{
    struct reply reply;

    ck_assert_msg(read_reply(client, &reply, true), "closed without a reply");
    return reply;
}

/* Ask for `target` with `headers` (each ending in CR LF). */
static void ask(struct client *client, const char *method, const char *target, const char *headers)
{
    char request[2048];

    (void)snprintf(request, sizeof(request), "%s %s HTTP/1.1\r\nHost: test\r\n%s\r\n", method,
                   target, headers);
    say(client, request);
}

/* Ask on a connection of its own. */
static struct reply get(const char *target, const char *headers)
{
    struct client *client = dial();
    struct reply reply;

    ask(client, "GET", target, headers);
    reply = next_reply(client);
    hang_up(client);
    return reply;
}

/* Whether the server has closed, with nothing more said. */
static bool is_closed(struct client *client)
{
    return client->n == 0 && !hear(client);
}

static json_t *parse(const struct reply *reply)
{
    json_error_t error;
    json_t *value =
        json_loadb(reply->body, reply->size, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &error);

    ck_assert_msg(value != NULL, "%s: %s", error.text, reply->body);
    return value;
}

static void assert_member(const struct reply *reply, const char *name, const char *want)
{
    json_t *document = parse(reply);
    const char *have = json_string_value(json_object_get(document, name));

    ck_assert_msg(have != NULL, "no %s in %s", name, reply->body);
    ck_assert_str_eq(have, want);
    json_decref(document);
}

static void assert_problem(const struct reply *reply, int status, const char *code)
{
    json_t *document;

    ck_assert_msg(reply->status == status, "%d instead of %d: %s%s", reply->status, status,
                  reply->head, reply->body);
    ck_assert_str_eq(header(reply, "Content-Type"), "application/problem+json");
    ck_assert_str_eq(header(reply, "Cache-Control"), "no-store");
    assert_member(reply, "code", code);
    document = parse(reply);
    ck_assert_int_eq(json_integer_value(json_object_get(document, "status")), status);
    json_decref(document);
}

/* Helpers: bounded looks at the server */

static size_t count_connections(void)
{
    struct cf_http_stats stats;

    cf_http_server_stats(server, &stats);
    return stats.connections;
}

static size_t count_in_flight(void)
{
    struct cf_http_stats stats;

    cf_http_server_stats(server, &stats);
    return stats.in_flight;
}

/* Look until `count` gives `want`. */
static void wait_count(size_t (*count)(void), size_t want)
{
    int64_t over_ns = cf_now_ns() + PATIENCE_NS;

    while (count() != want) {
        ck_assert_msg(cf_now_ns() < over_ns, "%zu instead of %zu", count(), want);
        (void)poll(NULL, 0, 1);
    }
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

/* new */

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
        struct cf_http_options options = options_for_tests();

        options.listen = cases[i].listen;
        ck_assert_int_eq(cf_http_server_new(&options, loops, 2, &server, &err), cases[i].code);
        ck_assert_str_eq(err.msg, cases[i].message);
    }
}
END_TEST

START_TEST(new_names_the_bad_route)
{
    static const struct cf_http_route bad[] = {{"GET", "/a", hello, 0, NULL},
                                               {"GET", "b", hello, 0, NULL}};
    struct cf_http_options options = options_for_tests();

    options.routes = bad;
    options.n_routes = 2;
    ck_assert_int_eq(cf_http_server_new(&options, loops, 2, &server, &err), CF_EINVAL);
    ck_assert_str_eq(err.msg, "route GET b: a path starts with /");
}
END_TEST

START_TEST(new_refuses_a_port_that_is_taken)
{
    struct cf_http_options options = options_for_tests();
    struct cf_http_server *second;
    struct reply reply;
    char listen[32];
    char message[128];
    size_t before;

    start(&options);
    (void)snprintf(listen, sizeof(listen), "127.0.0.1:%u", cf_http_server_port(server));
    (void)snprintf(message, sizeof(message), "cannot listen on %s: another process has that port",
                   listen);
    options.listen = listen;
    before = count_descriptors();
    ck_assert_int_eq(cf_http_server_new(&options, loops, 2, &second, &err), CF_ECONFLICT);
    ck_assert_str_eq(err.msg, message);
    ck_assert_uint_eq(count_descriptors(), before);
    for (int i = 0; i < 20; i++) { /* And it has taken none of the first one's connections. */
        reply = get("/hello", "");
        ck_assert_int_eq(reply.status, 200);
        free_reply(&reply);
    }
}
END_TEST

START_TEST(new_takes_over_the_port_after_a_stop)
{
    struct cf_http_options options = options_for_tests();
    char listen[32];

    start(&options);
    (void)snprintf(listen, sizeof(listen), "127.0.0.1:%u", cf_http_server_port(server));
    options.listen = listen;
    for (int i = 0; i < 5; i++) {
        struct reply reply = get("/hello", "Connection: close\r\n");

        ck_assert_int_eq(reply.status, 200);
        free_reply(&reply);
        cf_http_server_stop(server, CF_SECOND);
        cf_http_server_stop(server, CF_SECOND);
        cf_http_server_free(server);
        start(&options);
    }
}
END_TEST

START_TEST(new_listens_on_ipv6)
{
    struct cf_http_options options = options_for_tests();
    struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct client client = {.fd = socket(AF_INET6, SOCK_STREAM, 0)};
    struct reply reply;

    options.listen = "[::1]:0";
    if (cf_http_server_new(&options, loops, 2, &server, &err) != CF_OK) {
        (void)close(client.fd);
        return; /* A machine without IPv6. */
    }
    at.sin6_port = htons(cf_http_server_port(server));
    ck_assert_int_eq(connect(client.fd, (struct sockaddr *)&at, sizeof(at)), 0);
    ask(&client, "GET", "/hello", "");
    reply = next_reply(&client);
    ck_assert_int_eq(reply.status, 200);
    free_reply(&reply);
    ck_assert_str_eq(wait_done(1).client, "::1");
    (void)close(client.fd);
}
END_TEST

/* answering */

START_TEST(hello_has_every_header)
{
    struct reply reply = get("/hello", "");
    struct seen seen = wait_done(1);

    ck_assert_int_eq(reply.status, 200);
    ck_assert_str_eq(reply.body, "\"hello\"");
    ck_assert_str_eq(header(&reply, "Content-Type"), "application/json");
    ck_assert_str_eq(header(&reply, "X-Content-Type-Options"), "nosniff");
    ck_assert_str_eq(header(&reply, "Request-Timeout-Ms"), "5000");
    ck_assert_uint_eq(strlen(header(&reply, "X-Request-Id")), 32);
    ck_assert_str_eq(header(&reply, "X-Request-Id"), seen.request_id);
    ck_assert_int_eq(strncmp(header(&reply, "Server-Timing"), "total;dur=", 10), 0);
    ck_assert_ptr_nonnull(header(&reply, "Date"));
    ck_assert_ptr_null(header(&reply, "Connection"));
    ck_assert_ptr_null(header(&reply, "Cache-Control"));
    ck_assert_ptr_null(header(&reply, "Retry-After"));
    free_reply(&reply);

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
    struct client *client = dial();

    for (int i = 0; i < 200; i++) {
        struct reply reply;

        ask(client, "GET", i % 3 == 0 ? "/nap?ms=0" : "/hello", "");
        reply = next_reply(client);
        ck_assert_int_eq(reply.status, 200);
        free_reply(&reply);
    }
    ck_assert_uint_eq(count_connections(), 1);
    hang_up(client);
    wait_count(count_connections, 0);
    ck_assert_uint_eq(count_done(), 200);
}
END_TEST

START_TEST(pipelined_requests_are_answered_in_order)
{
    static const char *const bodies[] = {"30", "\"hello\"", "1", "20", "\"hello\""};
    struct client *client = dial();

    say(client,
        "GET /nap?ms=30 HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
        "GET /nap?ms=1 HTTP/1.1\r\nHost: a\r\n\r\nGET /nap?ms=20 HTTP/1.1\r\nHost: a\r\n\r\n"
        "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    for (int i = 0; i < N(bodies); i++) {
        struct reply reply = next_reply(client);

        ck_assert_str_eq(reply.body, bodies[i]);
        free_reply(&reply);
    }
    hang_up(client);
}
END_TEST

START_TEST(request_may_come_byte_by_byte)
{
    static const char request[] = "GET /echo/7?q=1 HTTP/1.1\r\nHost: a\r\n\r\n";
    struct client *client = dial();
    struct reply reply;
    int on = 1;

    (void)setsockopt(client->fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, sizeof(on));
    for (size_t i = 0; i + 1 < sizeof(request); i++) {
        say_bytes(client, request + i, 1);
    }
    reply = next_reply(client);
    ck_assert_int_eq(reply.status, 201);
    free_reply(&reply);
    hang_up(client);
}
END_TEST

START_TEST(http_1_0_closes_unless_asked)
{
    struct client *client = dial();
    struct reply reply;

    say(client, "GET /hello HTTP/1.0\r\n\r\n");
    reply = next_reply(client);
    ck_assert_int_eq(reply.status, 200);
    ck_assert_str_eq(header(&reply, "Connection"), "close");
    free_reply(&reply);
    ck_assert(is_closed(client));
    hang_up(client);
}
END_TEST

START_TEST(request_is_what_was_sent)
{
    struct reply reply = get("/echo/a%2Fb%20%C3%A9?q=x+y%2B&n=-5&f=-0.25&n=9",
                             "X-Echo: one\r\nX-Echo: two\r\nX-Request-Id: mine.1\r\n");
    json_t *document = parse(&reply);

    ck_assert_int_eq(reply.status, 201);
    assert_member(&reply, "app", "the app");
    assert_member(&reply, "method", "GET");
    assert_member(&reply, "path", "/echo/a/b \xc3\xa9");
    assert_member(&reply, "id", "a/b \xc3\xa9");
    assert_member(&reply, "q", "x y+");
    assert_member(&reply, "header", "one");
    assert_member(&reply, "request_id", "mine.1");
    ck_assert_int_eq(json_integer_value(json_object_get(document, "n")), -5);
    ck_assert_double_eq_tol(json_real_value(json_object_get(document, "f")), -0.25, 1e-9);
    json_decref(document);
    free_reply(&reply);

    reply = get("/echo/1", "");
    document = parse(&reply);
    ck_assert(json_is_null(json_object_get(document, "q")));
    ck_assert(json_is_null(json_object_get(document, "header")));
    ck_assert_int_eq(json_integer_value(json_object_get(document, "n")), 3);
    json_decref(document);
    free_reply(&reply);
}
END_TEST

START_TEST(query_numbers_name_what_would_be_right)
{
    static const char *const bad[] = {"6",   "-6", "1.0", "", "+1", "0x1", "9999999999999999999",
                                      "1%20"};
    static const char *const bad_f[] = {"1.5", "nan", "inf", "1e-1", ".5", "1.", "", "0,5"};
    char target[64];

    for (int i = 0; i < N(bad); i++) {
        struct reply reply;

        (void)snprintf(target, sizeof(target), "/echo/1?n=%s", bad[i]);
        reply = get(target, "");
        assert_problem(&reply, 400, "invalid");
        assert_member(&reply, "detail", "n must be an integer from -5 to 5");
        free_reply(&reply);
    }
    for (int i = 0; i < N(bad_f); i++) {
        struct reply reply;

        (void)snprintf(target, sizeof(target), "/echo/1?f=%s", bad_f[i]);
        reply = get(target, "");
        assert_problem(&reply, 400, "invalid");
        assert_member(&reply, "detail", "f must be a number from -1 to 1");
        free_reply(&reply);
    }
}
END_TEST

START_TEST(request_id_is_taken_over_or_replaced)
{
    struct reply reply = get("/hello", "X-Request-Id: A-b_c.1~+/=\r\n");

    ck_assert_str_eq(header(&reply, "X-Request-Id"), "A-b_c.1~+/=");
    free_reply(&reply);
    reply = get("/hello", "X-Request-Id: not this one\r\n");
    ck_assert_uint_eq(strspn(header(&reply, "X-Request-Id"), "0123456789abcdef"), 32);
    free_reply(&reply);
    reply = get("/no-such", "X-Request-Id: kept\r\n");
    assert_member(&reply, "request_id", "kept");
    free_reply(&reply);
}
END_TEST

START_TEST(reply_headers_of_the_handler_are_sent)
{
    struct reply reply = get("/dressed", "");

    ck_assert_int_eq(reply.status, 202);
    ck_assert_str_eq(reply.body, "a,b\n");
    ck_assert_str_eq(header(&reply, "Content-Type"), "text/csv");
    ck_assert_str_eq(header(&reply, "X-Name"), "G\xc3\xb6"
                                               "del");
    ck_assert_str_eq(header(&reply, "Retry-After"), "2");
    ck_assert_int_eq(strncmp(header(&reply, "Server-Timing"),
                             "pool;dur=0.800, query;dur=12.345, total;dur=", 44),
                     0);
    free_reply(&reply);
}
END_TEST

START_TEST(reply_header_with_a_line_end_is_not_sent)
{
    struct reply reply = get("/injected", "");

    assert_problem(&reply, 500, "internal");
    ck_assert_ptr_null(header(&reply, "Set-Cookie"));
    ck_assert_ptr_null(header(&reply, "X-Evil"));
    free_reply(&reply);
}
END_TEST

START_TEST(reply_may_be_large)
{
    struct reply reply = get("/large?size=8000000", "");

    ck_assert_int_eq(reply.status, 200);
    ck_assert_uint_gt(reply.size, 7900000);
    ck_assert_int_eq(reply.body[reply.size - 1], ']');
    ck_assert_uint_eq(wait_done(1).body_size, reply.size);
    free_reply(&reply);
}
END_TEST

START_TEST(reply_without_body_has_no_type)
{
    struct client *client = dial();
    struct reply reply;

    ask(client, "DELETE", "/nothing", "");
    reply = next_reply(client);
    ck_assert_int_eq(reply.status, 204);
    ck_assert_ptr_null(header(&reply, "Content-Type"));
    ck_assert_ptr_null(header(&reply, "Content-Length"));
    free_reply(&reply);
    ask(client, "GET", "/hello", ""); /* The connection goes on. */
    reply = next_reply(client);
    ck_assert_int_eq(reply.status, 200);
    free_reply(&reply);
    hang_up(client);
}
END_TEST

/* methods and paths */

START_TEST(method_head_is_get_without_the_body)
{
    struct client *client = dial();
    struct reply reply;

    ask(client, "HEAD", "/hello", "");
    ck_assert(read_reply(client, &reply, false));
    ck_assert_int_eq(reply.status, 200);
    ck_assert_str_eq(header(&reply, "Content-Length"), "7");
    free_reply(&reply);
    ask(client, "GET", "/hello", "");
    reply = next_reply(client);
    ck_assert_str_eq(reply.body, "\"hello\"");
    free_reply(&reply);
    ck_assert_uint_eq(wait_done(1).body_size, 0);
    hang_up(client);
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
    struct client *client = dial();
    struct reply reply;
    struct seen seen;

    ask(client, methods[_i].method, methods[_i].target, "");
    reply = next_reply(client);
    if (methods[_i].code != NULL) {
        assert_problem(&reply, methods[_i].status, methods[_i].code);
    }
    ck_assert_int_eq(reply.status, methods[_i].status);
    if (methods[_i].allow != NULL) {
        ck_assert_str_eq(header(&reply, "Allow"), methods[_i].allow);
    } else {
        ck_assert_ptr_null(header(&reply, "Allow"));
    }
    free_reply(&reply);
    seen = wait_done(1);
    ck_assert_int_eq(seen.status, methods[_i].status);
    ck_assert_str_eq(seen.method, methods[_i].method);
    ck_assert_str_eq(seen.target, methods[_i].target);
    ck_assert_str_eq(seen.route, "");
    ck_assert_int_eq(atomic_load(&runs), 0);
    hang_up(client);
}
END_TEST

/* refused */

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
    {"GET /hello HTTP/1.1\r\nHost: a\r\nRequest-Timeout-Ms: -1\r\n\r\n", 400,
     "Request-Timeout-Ms must be a whole number of milliseconds of at most 10 digits, as in "
     "Request-Timeout-Ms: 250",
     false},
    {"GET /hello?timeout=50 HTTP/1.1\r\nHost: a\r\n\r\n", 400,
     "timeout must be a number with ms, s or m, as in timeout=250ms or timeout=1.5s", false},
};

/* From its version 1.0 on libmicrohttpd refuses much of it before we see it, in its own words, and
 * then always closes. */
static bool is_refused_early(const struct reply *reply)
{
    const char *type = header(reply, "Content-Type");

    return MHD_VERSION >= 0x01000000 &&
           (type == NULL || strcmp(type, "application/problem+json") != 0);
}

START_TEST(refused_requests_are_told_why)
{
    struct client *client = dial();
    struct reply reply;
    bool early;
    bool closes;

    say(client, refused[_i].request);
    reply = next_reply(client);
    ck_assert_msg(reply.status == refused[_i].status, "%s%s", reply.head, reply.body);
    early = is_refused_early(&reply);
    closes = early || refused[_i].closes;
    if (!early) {
        assert_member(&reply, "detail", refused[_i].detail);
    }
    ck_assert_int_eq(header(&reply, "Connection") != NULL, closes);
    free_reply(&reply);
    if (closes) {
        ck_assert(is_closed(client)); /* What follows is not taken for a request. */
    }
    ck_assert_int_eq(atomic_load(&runs), 0);
    if (!early) {
        ck_assert_int_eq(wait_done(1).status, refused[_i].status);
    }
    hang_up(client);
}
END_TEST

/* All that a name and a value may be made of. */
START_TEST(headers_may_have_every_character_that_is_allowed)
{
    struct reply reply = get("/echo/1", "!#$%&'*+-.^_`|~09AZaz: !\"(),/:;<=>?@[\\]{}\t\xc3\xa4\r\n"
                                        "X-Echo: a\tb \xff\r\nX-Empty:\r\n");

    ck_assert_int_eq(reply.status, 201);
    assert_member(&reply, "header", "a\tb \xef\xbf\xbd");
    free_reply(&reply);
}
END_TEST

/* libmicrohttpd would say nothing at all when it has no room for so many. */
START_TEST(query_of_very_many_arguments_is_refused)
{
    struct client *client = dial();
    struct reply reply;
    char target[2100] = "/hello?";

    for (size_t n = strlen(target); n < 2000; n += 2) {
        memcpy(target + n, "a&", 3);
    }
    say(client, "GET ");
    say(client, target);
    say(client, " HTTP/1.1\r\nHost: a\r\n\r\n");
    reply = next_reply(client);
    assert_problem(&reply, 400, "invalid");
    assert_member(&reply, "detail", "more than 100 arguments in the query");
    free_reply(&reply);
    ck_assert(is_closed(client));
    hang_up(client);
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
        struct client *client = dial();
        struct reply reply;
        char *at = request;

        at += sprintf(at, "GET /hello HTTP/1.1\r\nHost: a\r\n%s: ", fillings[_i].name);
        for (size_t i = 0; i < n; i++) {
            at += sprintf(at, "%s%s", i > 0 ? fillings[_i].between : "", fillings[_i].piece);
        }
        at += sprintf(at, "\r\n\r\n");
        say_bytes(client, request, (size_t)(at - request));
        ck_assert_msg(read_reply(client, &reply, true), "no reply with %zu", n);
        ck_assert_msg(reply.status == 200 || reply.status == 431, "%zu: %d", n, reply.status);
        if (reply.status == 200) {
            ck_assert_int_eq(wait_done(++n_served).status, 200);
        }
        free_reply(&reply);
        hang_up(client);
    }
    wait_count(count_connections, 0);
    ck_assert_uint_eq((size_t)atomic_load(&runs), n_served);
    ck_assert_uint_gt(n_served, 0);
    ck_assert_int_eq(wait_done(n_served + 1).status, 431); /* Ours, before libmicrohttpd's own. */
}
END_TEST

START_TEST(body_is_read_and_the_connection_goes_on)
{
    struct client *client = dial();
    static char body[1000000];
    struct reply reply;

    memset(body, 'x', sizeof(body));
    for (int i = 0; i < 3; i++) {
        ask(client, "POST", "/hello", "Content-Length: 1000000\r\n");
        say_bytes(client, body, sizeof(body));
        reply = next_reply(client);
        ck_assert_int_eq(reply.status, 200);
        ck_assert_ptr_null(header(&reply, "Connection"));
        free_reply(&reply);
    }
    hang_up(client);
}
END_TEST

START_TEST(body_is_asked_for_with_100_continue)
{
    struct client *client = dial();
    struct reply reply;

    ask(client, "POST", "/hello", "Content-Length: 3\r\nExpect: 100-continue\r\n");
    reply = next_reply(client);
    ck_assert_int_eq(reply.status, 100);
    free_reply(&reply);
    say(client, "abc");
    reply = next_reply(client);
    ck_assert_int_eq(reply.status, 200);
    free_reply(&reply);
    ask(client, "POST", "/hello", "Content-Length: 3000000\r\nExpect: 100-continue\r\n");
    reply = next_reply(client);
    ck_assert_int_eq(reply.status, 413);
    free_reply(&reply);
    hang_up(client);
}
END_TEST

START_TEST(body_in_chunks_closes_the_connection)
{
    struct client *client = dial();
    struct reply reply;

    ask(client, "POST", "/hello", "Transfer-Encoding: chunked\r\n");
    say(client, "5\r\nabcde\r\n3\r\nfgh\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    reply = next_reply(client);
    ck_assert_int_eq(reply.status, 200);
    ck_assert_str_eq(header(&reply, "Connection"), "close");
    free_reply(&reply);
    ck_assert(is_closed(client));
    ck_assert_uint_eq(count_done(), 1);
    hang_up(client);
}
END_TEST

START_TEST(body_in_chunks_has_a_limit)
{
    struct client *client = dial();
    static char chunk[65536];
    struct reply reply;

    memset(chunk, 'x', sizeof(chunk));
    ask(client, "POST", "/hello", "Transfer-Encoding: chunked\r\n");
    for (int i = 0; i < 16; i++) {
        say(client, "10000\r\n");
        say_bytes(client, chunk, sizeof(chunk));
        say(client, "\r\n");
    }
    say(client, "1\r\nx"); /* One byte more than there may be. */
    reply = next_reply(client);
    assert_member(&reply, "code", "too_large");
    ck_assert_int_eq(reply.status, 413);
    free_reply(&reply);
    ck_assert(is_closed(client));
    ck_assert_int_eq(wait_done(1).status, 413);
    hang_up(client);
}
END_TEST

START_TEST(body_that_is_malformed_is_recorded)
{
    struct client *client = dial();
    struct reply reply;

    ask(client, "POST", "/hello", "Transfer-Encoding: chunked\r\n");
    say(client, "not a size\r\n");
    reply = next_reply(client);
    ck_assert_int_eq(reply.status, 400);
    free_reply(&reply);
    ck_assert_int_eq(wait_done(1).status, 400);
    hang_up(client);
}
END_TEST

/* deadlines */

static const struct {
    const char *target;
    const char *headers;
    int ms;
    const char *source;
} deadlines[] = {
    {"/nap", "Request-Timeout-Ms: 50\r\n", 50, "Request-Timeout-Ms"},
    {"/nap", "X-Request-Timeout-Ms: 50\r\n", 50, "X-Request-Timeout-Ms"},
    {"/nap", "grpc-timeout: 50m\r\n", 50, "grpc-timeout"},
    {"/nap", "connect-timeout-ms: 50\r\n", 50, "connect-timeout-ms"},
    {"/nap", "x-envoy-expected-rq-timeout-ms: 50\r\n", 50, "x-envoy-expected-rq-timeout-ms"},
    {"/nap", "Prefer: wait=1\r\n", 1000, "Prefer"},
    {"/nap?timeout=50ms", "", 50, "timeout"},
    {"/nap?timeout=0.05s", "", 50, "timeout"},
    {"/nap?timeout=70ms", "grpc-timeout: 60m\r\nRequest-Timeout-Ms: 80\r\n", 60, "grpc-timeout"},
    {"/nap", "X-Request-Timeout-Ms: -1\r\nRequest-Timeout-Ms: 50\r\n", 50, "Request-Timeout-Ms"},
    {"/nap/capped", "", 100, "default"},
    {"/nap/capped", "Request-Timeout-Ms: 60000\r\n", 100, "Request-Timeout-Ms"},
    {"/nap/capped?timeout=50ms", "", 50, "timeout"},
};

START_TEST(deadline_ends_the_request_in_time)
{
    int64_t before_ns = cf_now_ns();
    struct reply reply = get(deadlines[_i].target, deadlines[_i].headers);
    int64_t took_ns = cf_now_ns() - before_ns;
    struct seen seen = wait_done(1);
    json_t *document = parse(&reply);
    char ms[16];

    assert_problem(&reply, 504, "deadline_exceeded");
    assert_member(&reply, "type", "/problems/deadline-exceeded");
    assert_member(&reply, "phase", "nap");
    ck_assert_int_eq(json_integer_value(json_object_get(document, "deadline_ms")),
                     deadlines[_i].ms);
    ck_assert(json_real_value(json_object_get(document, "elapsed_ms")) >= (double)deadlines[_i].ms);
    json_decref(document);
    ck_assert_int_ge(took_ns, deadlines[_i].ms * CF_MS);              /* Never early... */
    ck_assert_int_lt(took_ns, deadlines[_i].ms * CF_MS + AT_ONCE_NS); /* ...and not late. */
    (void)snprintf(ms, sizeof(ms), "%d", deadlines[_i].ms);
    ck_assert_str_eq(header(&reply, "Request-Timeout-Ms"), ms);
    if (strcmp(deadlines[_i].source, "Prefer") == 0) {
        ck_assert_str_eq(header(&reply, "Preference-Applied"), "wait=1");
    }
    ck_assert_ptr_null(header(&reply, "Retry-After"));
    free_reply(&reply);
    ck_assert_int_eq(seen.status, 504);
    ck_assert_int_eq(seen.reason, CF_REASON_DEADLINE);
    ck_assert_int_eq(seen.code, CF_EDEADLINE);
    ck_assert_str_eq(seen.timeout_source, deadlines[_i].source);
    ck_assert_int_eq(atomic_load(&caught), CF_REASON_DEADLINE);
}
END_TEST

START_TEST(deadline_is_never_early)
{
    struct client *client = dial();

    for (int i = 0; i < 50; i++) {
        struct reply reply;
        int64_t before_ns = cf_now_ns();

        ask(client, "GET", "/nap?timeout=7ms", "");
        reply = next_reply(client);
        ck_assert_int_ge(cf_now_ns() - before_ns, 7 * CF_MS);
        ck_assert_int_eq(reply.status, 504);
        free_reply(&reply);
    }
    hang_up(client);
}
END_TEST

static const char *const zeroes[] = {"Request-Timeout-Ms: 0\r\n", "grpc-timeout: 0S\r\n",
                                     "Prefer: wait=0\r\n"};

START_TEST(deadline_of_zero_spares_the_handler)
{
    struct client *client = dial();
    struct reply reply;

    ask(client, "GET", "/hello", zeroes[_i]);
    reply = next_reply(client);
    assert_problem(&reply, 504, "deadline_exceeded");
    ck_assert_str_eq(header(&reply, "Request-Timeout-Ms"), "0");
    free_reply(&reply);
    ck_assert_int_eq(atomic_load(&runs), 0);
    ask(client, "GET", "/hello", ""); /* The connection goes on. */
    reply = next_reply(client);
    ck_assert_int_eq(reply.status, 200);
    free_reply(&reply);
    hang_up(client);
}
END_TEST

START_TEST(deadline_makes_a_late_success_a_failure)
{
    struct reply reply = get("/stubborn?timeout=30ms", "");

    assert_problem(&reply, 504, "deadline_exceeded");
    free_reply(&reply);
    ck_assert_int_eq(wait_done(1).code, CF_OK);
}
END_TEST

START_TEST(deadline_of_a_part_is_504_too)
{
    struct reply reply = get("/impatient", "");

    assert_problem(&reply, 504, "deadline_exceeded");
    free_reply(&reply);
    ck_assert_int_eq(wait_done(1).reason, CF_REASON_NONE);
}
END_TEST

START_TEST(deadline_ends_all_tasks_of_a_group)
{
    struct reply reply = get("/fan-out?timeout=30ms", "");

    assert_problem(&reply, 504, "deadline_exceeded");
    free_reply(&reply);
    wait_count(count_in_flight, 0);
    ck_assert_uint_eq(cf_loop_fibers(loops[0]) + cf_loop_fibers(loops[1]), 0);
}
END_TEST

/* failures */

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
    struct reply reply;
    char target[32];

    (void)snprintf(target, sizeof(target), "/fail/%d", failures[_i].code);
    reply = get(target, "");
    assert_problem(&reply, failures[_i].status, failures[_i].name);
    ck_assert_int_eq(strstr(reply.body, "own words") != NULL, failures[_i].status < 499);
    ck_assert_ptr_null(strstr(reply.body, "not sent"));
    ck_assert_str_eq(header(&reply, "X-Kept"), "yes");
    ck_assert_ptr_null(header(&reply, "ETag"));
    if (failures[_i].status == 503) {
        ck_assert_str_eq(header(&reply, "Retry-After"), "1");
    } else {
        ck_assert_ptr_null(header(&reply, "Retry-After"));
    }
    free_reply(&reply);
    ck_assert_int_eq(wait_done(1).code, failures[_i].code);
}
END_TEST

START_TEST(failure_without_words_has_the_codes)
{
    struct reply reply = get("/fail-silently", "");

    assert_problem(&reply, 404, "not_found");
    assert_member(&reply, "detail", "not found");
    free_reply(&reply);
}
END_TEST

/* clients that leave */

enum way_to_leave {
    FIN,
    RST,
    FIN_AFTER_MORE,
    SHUT,
    N_WAYS
};

static const char *const waiting_targets[] = {"/nap", "/fan-out"};

START_TEST(client_that_leaves_ends_its_request)
{
    enum way_to_leave way = (enum way_to_leave)(_i % N_WAYS);
    struct client *client = dial();
    struct seen seen;
    int64_t left_ns;

    ask(client, "GET", waiting_targets[_i / N_WAYS], "");
    wait_started();
    if (way == FIN_AFTER_MORE) {
        ask(client, "GET", "/hello", ""); /* Unread, and never to be. */
    }
    left_ns = cf_now_ns();
    if (way == RST) {
        slam(client);
    } else if (way == SHUT) {
        ck_assert_int_eq(shutdown(client->fd, SHUT_WR), 0);
    } else {
        hang_up(client);
    }
    seen = wait_done(1);
    ck_assert_int_lt(seen.at_ns - left_ns, AT_ONCE_NS);
    ck_assert_int_eq(seen.status, 499);
    ck_assert_int_eq(seen.reason, CF_REASON_CLIENT_GONE);
    ck_assert_int_eq(seen.code, CF_ECANCELED);
    if (way == SHUT) {
        ck_assert(is_closed(client));
        hang_up(client);
    }
    wait_count(count_connections, 0);
    ck_assert_uint_eq(count_done(), 1);
}
END_TEST

START_TEST(client_that_leaves_is_seen_within_a_millisecond)
{
    int64_t best_ns = CF_NEVER;

    for (size_t i = 0; i < 50; i++) {
        struct client *client = dial();
        int64_t left_ns;
        int64_t took_ns;

        ask(client, "GET", "/nap", "");
        wait_started();
        left_ns = cf_now_ns();
        hang_up(client);
        took_ns = wait_done(i + 1).at_ns - left_ns;
        best_ns = took_ns < best_ns ? took_ns : best_ns;
    }
    ck_assert_int_lt(best_ns, 5 * CF_MS); /* Under valgrind; 0.1 ms without. */
}
END_TEST

START_TEST(client_that_leaves_with_its_request_is_not_kept)
{
    size_t before = count_descriptors();

    for (int i = 0; i < 200; i++) {
        struct client *client = dial();

        ask(client, "GET", i % 2 == 0 ? "/hello" : "/nap", "");
        if (i % 3 == 0) {
            slam(client);
        } else {
            hang_up(client);
        }
    }
    wait_count(count_connections, 0);
    wait_count(count_in_flight, 0);
    wait_count(count_descriptors, before);
}
END_TEST

START_TEST(client_that_leaves_in_mid_request_is_not_kept)
{
    static const char *const halves[] = {
        "G", "GET /hello HTTP/1.1\r\nHost:",
        "POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
        ("POST /hello HTTP/1.1\r\nHost: a\r\n"
         "Transfer-Encoding: chunked\r\n\r\n5\r\nab")};
    size_t before = count_descriptors();

    for (int i = 0; i < 200; i++) {
        struct client *client = dial();

        say(client, halves[i % N(halves)]);
        hang_up(client);
    }
    /* Half of them had a head: those were requests, and given up. */
    ck_assert_int_eq(wait_done(100).status, 499);
    wait_count(count_connections, 0);
    wait_count(count_descriptors, before);
    ck_assert_uint_eq(count_done(), 100);
}
END_TEST

START_TEST(client_that_leaves_after_its_reply_is_no_failure)
{
    for (size_t i = 0; i < 100; i++) {
        struct reply reply = get("/nap?ms=0", "");

        ck_assert_int_eq(reply.status, 200);
        free_reply(&reply);
        ck_assert_int_eq(wait_done(i + 1).status, 200);
    }
    wait_count(count_connections, 0);
}
END_TEST

START_TEST(client_that_leaves_in_mid_reply_is_not_kept)
{
    for (int i = 0; i < 20; i++) {
        struct client *client = dial();

        ask(client, "GET", "/large?size=8000000", "");
        ck_assert(hear(client));
        if (i % 2 == 0) {
            slam(client);
        } else {
            hang_up(client);
        }
    }
    wait_count(count_connections, 0);
    ck_assert_uint_eq(count_done(), 20);
}
END_TEST

static atomic_bool pipelining;

/* Ask and ask, and read the answers only to make room for more. */
static void *pipeline(void *arg)
{
    static const char request[] = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
    char burst[200 * (sizeof(request) - 1)];
    struct client *client = arg;
    struct pollfd poller = {.fd = client->fd, .events = POLLIN | POLLOUT};
    size_t at = 0;

    for (size_t n = 0; n < sizeof(burst); n++) {
        burst[n] = request[n % (sizeof(request) - 1)];
    }
    while (atomic_load(&pipelining)) {
        ssize_t n;

        ck_assert_int_eq(poll(&poller, 1, (int)(PATIENCE_NS / CF_MS)), 1);
        n = send(client->fd, burst + at, sizeof(burst) - at, MSG_DONTWAIT | MSG_NOSIGNAL);
        at = n > 0 ? (at + (size_t)n) % sizeof(burst) : at;
        (void)recv(client->fd, client->buffer, sizeof(client->buffer), MSG_DONTWAIT);
    }
    hang_up(client);
    return NULL;
}

/* libmicrohttpd is never quiet meanwhile. */
START_TEST(client_that_leaves_while_others_never_pause_is_not_kept)
{
    pthread_t threads[8];

    atomic_store(&pipelining, true);
    for (int i = 0; i < N(threads); i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, pipeline, dial()), 0);
    }
    (void)wait_done(1000);
    for (int i = 0; i < 100; i++) {
        struct client *client = dial();

        say(client, "GET /hello HTTP/1.1\r\nHost:");
        hang_up(client);
    }
    wait_count(count_connections, N(threads));
    atomic_store(&pipelining, false);
    for (int i = 0; i < N(threads); i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    }
    wait_count(count_connections, 0);
}
END_TEST

static void setup_half_close(void)
{
    struct cf_http_options options = options_for_tests();

    options.half_close_allowed = true;
    setup_loops();
    start_on(&options, 1);
}

START_TEST(half_close_is_answered_where_it_is_allowed)
{
    static const char *const targets[] = {"/hello", "/nap?ms=0", "/nap?ms=30"};

    for (int i = 0; i < 30; i++) {
        struct client *client = dial();
        struct reply reply;

        ask(client, "GET", targets[i % N(targets)], "");
        ck_assert_int_eq(shutdown(client->fd, SHUT_WR), 0);
        reply = next_reply(client);
        ck_assert_int_eq(reply.status, 200);
        free_reply(&reply);
        ck_assert(is_closed(client)); /* Nothing more can come. */
        hang_up(client);
    }
    wait_count(count_connections, 0);
}
END_TEST

START_TEST(half_close_of_a_pipeline_is_answered_where_it_is_allowed)
{
    struct client *client = dial();

    say(client, "GET /nap?ms=5 HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
                "GET /nap?ms=6 HTTP/1.1\r\nHost: a\r\n\r\n");
    ck_assert_int_eq(shutdown(client->fd, SHUT_WR), 0);
    for (int i = 0; i < 3; i++) {
        struct reply reply = next_reply(client);

        ck_assert_int_eq(reply.status, 200);
        free_reply(&reply);
    }
    ck_assert(is_closed(client));
    hang_up(client);
}
END_TEST

START_TEST(half_close_of_half_a_request_is_not_kept)
{
    for (int i = 0; i < 50; i++) {
        struct client *client = dial();

        say(client, "GET /hello HTTP/1.1\r\nHost:");
        ck_assert_int_eq(shutdown(client->fd, SHUT_WR), 0);
        ck_assert(is_closed(client));
        hang_up(client);
    }
    wait_count(count_connections, 0);
}
END_TEST

START_TEST(half_close_allowed_a_reset_still_ends_the_request)
{
    struct client *client = dial();

    ask(client, "GET", "/nap", "");
    wait_started();
    slam(client);
    ck_assert_int_eq(wait_done(1).status, 499);
    wait_count(count_connections, 0);
}
END_TEST

/* A reset, or a byte out of band, makes libmicrohttpd drop a connection at its next look. It must not
 * have one while the handler, which works with the request's memory, runs. */
START_TEST(half_close_allowed_a_reset_while_the_handler_holds_the_loop)
{
    struct client *older =
        dial(); /* libmicrohttpd looks at its oldest connection in another way. */
    struct reply reply;

    ask(older, "GET", "/hello", "");
    reply = next_reply(older);
    free_reply(&reply);
    for (size_t i = 0; i < 10; i++) {
        struct client *client = dial();

        ask(client, "GET", "/hold", "");
        wait_started();
        if (i % 2 == 0) {
            slam(client);
        } else {
            ck_assert_int_eq(send(client->fd, "!", 1, MSG_OOB), 1);
        }
        ck_assert_int_eq(sem_post(&go), 0);
        ck_assert_int_eq(wait_done(i + 2).status, i % 2 == 0 ? 499 : 200);
        if (i % 2 != 0) {
            reply = next_reply(client);
            free_reply(&reply);
            hang_up(client);
        }
    }
    hang_up(older);
    wait_count(count_connections, 0);
    wait_count(count_in_flight, 0);
    ck_assert_uint_eq(count_done(), 11);
}
END_TEST

/* limits */

START_TEST(in_flight_limit_reached)
{
    struct cf_http_options options = options_for_tests();
    struct client *first;
    struct client *second;
    struct reply reply;

    options.in_flight_max = 1;
    start_on(&options, 1);
    first = dial();
    second = dial();
    ask(first, "GET", "/nap", "");
    wait_started();
    ask(second, "GET", "/hello", "");
    reply = next_reply(second);
    assert_problem(&reply, 503, "overloaded");
    ck_assert_str_eq(header(&reply, "Retry-After"), "1");
    free_reply(&reply);
    hang_up(first);
    wait_count(count_in_flight, 0);
    ask(second, "GET", "/hello", ""); /* The connection goes on. */
    reply = next_reply(second);
    ck_assert_int_eq(reply.status, 200);
    free_reply(&reply);
    hang_up(second);
}
END_TEST

START_TEST(idle_connection_is_closed)
{
    struct cf_http_options options = options_for_tests();
    struct client *client;
    struct reply reply;

    options.idle_timeout_ns = 1; /* Rounded up to a second. */
    start_on(&options, 1);
    client = dial();
    ask(client, "GET", "/nap?ms=2500", ""); /* Who waits for us is not idle. */
    reply = next_reply(client);
    ck_assert_int_eq(reply.status, 200);
    free_reply(&reply);
    ck_assert(is_closed(client));
    hang_up(client);
    wait_count(count_connections, 0);
}
END_TEST

START_TEST(timeouts_of_the_server_hold)
{
    struct cf_http_options options = options_for_tests();
    struct reply reply;

    options.timeout_default_ns = 30 * CF_MS;
    options.timeout_max_ns = 50 * CF_MS;
    start_on(&options, 1);
    reply = get("/nap", "");
    ck_assert_int_eq(reply.status, 504);
    ck_assert_str_eq(header(&reply, "Request-Timeout-Ms"), "30");
    free_reply(&reply);
    reply = get("/nap?timeout=1m", "");
    ck_assert_int_eq(reply.status, 504);
    ck_assert_str_eq(header(&reply, "Request-Timeout-Ms"), "50");
    free_reply(&reply);
    reply = get("/nap/capped", ""); /* A route cannot allow more than the server. */
    ck_assert_int_eq(reply.status, 504);
    ck_assert_str_eq(header(&reply, "Request-Timeout-Ms"), "50");
    free_reply(&reply);
}
END_TEST

/* stop */

struct stopping {
    pthread_t thread;
    int64_t grace_ns;
    int64_t took_ns;
};

static void *run_stop(void *arg)
{
    struct stopping *stopping = arg;
    int64_t before_ns = cf_now_ns();

    cf_http_server_stop(server, stopping->grace_ns);
    stopping->took_ns = cf_now_ns() - before_ns;
    return NULL;
}

static void begin_stop(struct stopping *stopping, int64_t grace_ns)
{
    stopping->grace_ns = grace_ns;
    ck_assert_int_eq(pthread_create(&stopping->thread, NULL, run_stop, stopping), 0);
}

static void end_stop(struct stopping *stopping)
{
    ck_assert_int_eq(pthread_join(stopping->thread, NULL), 0);
}

/* Look until nobody listens any more. At the instant of closing nobody answers, for a second. */
static void wait_refused(void)
{
    int64_t over_ns = cf_now_ns() + PATIENCE_NS;
    int fd;

    while ((fd = try_dial_for(5)) >= 0 || errno == EINPROGRESS) {
        ck_assert_msg(cf_now_ns() < over_ns, "still listening");
        if (fd >= 0) {
            (void)close(fd);
            (void)poll(NULL, 0, 1);
        }
    }
    ck_assert_int_eq(errno, ECONNREFUSED);
}

START_TEST(stop_lets_requests_finish)
{
    struct client *client = dial();
    struct stopping stopping;
    struct reply reply;

    ask(client, "GET", "/nap?ms=300", "");
    wait_started();
    begin_stop(&stopping, 10 * CF_SECOND);
    wait_refused();
    reply = next_reply(client);
    ck_assert_int_eq(reply.status, 200);
    ck_assert_str_eq(header(&reply, "Connection"), "close");
    free_reply(&reply);
    ck_assert(is_closed(client));
    end_stop(&stopping);
    ck_assert_int_lt(stopping.took_ns, 5 * CF_SECOND); /* The grace is not used up. */
    hang_up(client);
}
END_TEST

START_TEST(stop_cuts_what_passes_the_grace)
{
    struct client *clients[50];
    struct stopping stopping;

    for (int i = 0; i < N(clients); i++) {
        clients[i] = dial();
        ask(clients[i], "GET", i % 2 == 0 ? "/nap?timeout=60s" : "/fan-out?timeout=60s", "");
        wait_started();
    }
    begin_stop(&stopping, 200 * CF_MS);
    for (int i = 0; i < N(clients); i++) {
        struct reply reply = next_reply(clients[i]);

        assert_problem(&reply, 503, "shutting_down");
        ck_assert_str_eq(header(&reply, "Connection"), "close");
        ck_assert_str_eq(header(&reply, "Retry-After"), "1");
        free_reply(&reply);
        ck_assert(is_closed(clients[i]));
        hang_up(clients[i]);
    }
    end_stop(&stopping);
    ck_assert_int_ge(stopping.took_ns, 200 * CF_MS);
    ck_assert_int_lt(stopping.took_ns, 200 * CF_MS + AT_ONCE_NS);
    ck_assert_uint_eq(count_done(), N(clients));
    ck_assert_int_eq(wait_done(1).reason, CF_REASON_SHUTDOWN);
}
END_TEST

START_TEST(stop_sends_a_success_that_came_after_the_cut)
{
    struct client *client = dial();
    struct stopping stopping;
    struct reply reply;

    ask(client, "GET", "/stubborn?timeout=60s", "");
    wait_started();
    begin_stop(&stopping, 0);
    reply = next_reply(client);
    ck_assert_int_eq(reply.status, 200);
    ck_assert_str_eq(reply.body, "done all the same");
    free_reply(&reply);
    end_stop(&stopping);
    hang_up(client);
}
END_TEST

START_TEST(stop_can_be_hurried)
{
    struct client *client = dial();
    struct stopping stopping;
    struct reply reply;

    ask(client, "GET", "/nap?timeout=60s", "");
    wait_started();
    begin_stop(&stopping, 60 * CF_SECOND);
    wait_refused();
    cf_http_server_hurry(server);
    reply = next_reply(client);
    assert_problem(&reply, 503, "shutting_down");
    free_reply(&reply);
    end_stop(&stopping);
    ck_assert_int_lt(stopping.took_ns, 10 * CF_SECOND);
    hang_up(client);
}
END_TEST

START_TEST(stop_closes_idle_connections_at_once)
{
    struct client *served = dial();
    struct client *fresh = dial();
    struct client *half = dial();
    int64_t grace_ns = 800 * CF_MS;
    struct stopping stopping;
    struct reply reply;
    int64_t begun_ns;

    ask(served, "GET", "/hello", "");
    reply = next_reply(served);
    free_reply(&reply);
    say(half, "GET /hello HTTP/1.1\r\n");
    wait_count(count_connections, 3);
    begun_ns = cf_now_ns();
    begin_stop(&stopping, grace_ns);
    ck_assert(is_closed(served));
    ck_assert(is_closed(fresh));
    ck_assert_int_lt(cf_now_ns() - begun_ns, grace_ns);
    ck_assert(is_closed(half)); /* At the end of the grace. */
    end_stop(&stopping);
    ck_assert_int_ge(stopping.took_ns, grace_ns);
    ck_assert_int_lt(stopping.took_ns, grace_ns + AT_ONCE_NS);
    hang_up(served);
    hang_up(fresh);
    hang_up(half);
}
END_TEST

/* Its next request may be on its way when the stop begins. */
START_TEST(stop_serves_once_more_who_was_just_answered)
{
    struct client *client = dial();
    struct stopping stopping;

    for (int i = 0; i < 2; i++) {
        struct reply reply;

        ask(client, "GET", "/hello", "");
        reply = next_reply(client);
        ck_assert_int_eq(reply.status, 200);
        free_reply(&reply);
        if (i == 0) {
            begin_stop(&stopping, 10 * CF_SECOND);
            wait_refused();
        }
    }
    ck_assert(is_closed(client));
    end_stop(&stopping);
    ck_assert_int_lt(stopping.took_ns, AT_ONCE_NS);
    hang_up(client);
}
END_TEST

START_TEST(stop_serves_what_the_kernel_has_accepted)
{
    struct client *clients[100];
    struct stopping stopping;

    for (int i = 0; i < N(clients); i++) {
        clients[i] = dial();
        ask(clients[i], "GET", "/hello", "");
    }
    begin_stop(&stopping, 10 * CF_SECOND);
    for (int i = 0; i < N(clients); i++) {
        struct reply reply = next_reply(clients[i]);

        ck_assert_int_eq(reply.status, 200);
        free_reply(&reply);
        hang_up(clients[i]);
    }
    end_stop(&stopping);
}
END_TEST

START_TEST(stop_does_not_wait_for_a_client_that_does_not_read)
{
    struct client *client = dial();
    struct stopping stopping;

    ask(client, "GET", "/large?size=50000000", "");
    ck_assert_int_eq(wait_done(1).status, 200);
    begin_stop(&stopping, 0);
    end_stop(&stopping);
    ck_assert_int_lt(stopping.took_ns, AT_ONCE_NS);
    hang_up(client);
}
END_TEST

/* Clients that ask in a loop while the server is stopped under them: refused, or answered. */
static void *ask_until_refused(void *arg)
{
    static const char request[] = "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    int64_t over_ns = cf_now_ns() + PATIENCE_NS;
    int fd;

    (void)arg;
    while ((fd = try_dial()) >= 0 && cf_now_ns() < over_ns) {
        struct client *client = malloc(sizeof(*client));
        int64_t dialed_ns = cf_now_ns();
        struct reply reply;

        ck_assert_ptr_nonnull(client);
        client->fd = fd;
        client->n = 0;
        (void)send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL); /* Reading tells. */
        errno = 0;
        ck_assert_msg(read_reply(client, &reply, true), "closed without a reply, %.1f ms after: %s",
                      (double)(cf_now_ns() - dialed_ns) / CF_MS, strerror(errno));
        ck_assert_int_eq(reply.status, 200);
        free_reply(&reply);
        hang_up(client);
    }
    return NULL;
}

#define STOPS 40

/* Also who connects while the sockets close, one after the other. */
START_TEST(stop_under_load_fails_nobody_who_was_connected)
{
    pthread_t threads[8];

    for (int round = 0; round < STOPS; round++) {
        if (round > 0) {
            teardown();
            setup();
        }
        for (int i = 0; i < N(threads); i++) {
            ck_assert_int_eq(pthread_create(&threads[i], NULL, ask_until_refused, NULL), 0);
        }
        (void)wait_done(50);
        cf_http_server_stop(server, 10 * CF_SECOND);
        for (int i = 0; i < N(threads); i++) {
            ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
        }
    }
}
END_TEST

/* load */

START_TEST(two_thousand_requests_wait_at_once)
{
    static int fds[2000];
    struct rlimit limit;
    char request[] = "GET /nap?timeout=1500ms HTTP/1.1\r\nHost: a\r\n\r\n";
    int64_t before_ns = cf_now_ns();
    int64_t asked_ns;

    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    ck_assert_uint_gt(limit.rlim_cur, 2 * N(fds) + 100);
    for (int i = 0; i < N(fds); i++) {
        fds[i] = try_dial();
        ck_assert_int_ge(fds[i], 0);
        ck_assert_int_eq(send(fds[i], request, sizeof(request) - 1, 0), sizeof(request) - 1);
    }
    asked_ns = cf_now_ns();
    for (int i = 0; i < N(fds); i++) {
        struct seen seen = wait_done((size_t)i + 1);

        ck_assert_int_eq(seen.status, 504);
        ck_assert_int_ge(seen.duration_ns, 1500 * CF_MS);
    }
    ck_assert_int_ge(cf_now_ns() - before_ns, 1500 * CF_MS);
    ck_assert_int_lt(cf_now_ns() - asked_ns, 1500 * CF_MS + 5 * AT_ONCE_NS);
    for (int i = 0; i < N(fds); i++) {
        char head[16] = "";

        ck_assert_int_eq(recv(fds[i], head, 12, MSG_WAITALL), 12);
        ck_assert_str_eq(head, "HTTP/1.1 504");
        (void)close(fds[i]);
    }
    wait_count(count_connections, 0);
}
END_TEST

/* Suite */

static TCase *add_case(Suite *suite, const char *name, void (*set_up)(void))
{
    TCase *tc = tcase_create(name);

    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, set_up, teardown);
    suite_add_tcase(suite, tc);
    return tc;
}

static void add_answering(Suite *suite)
{
    TCase *tc = add_case(suite, "answering", setup);

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
    tcase_add_test(tc, method_head_is_get_without_the_body);
    tcase_add_loop_test(tc, methods_and_paths_that_are_not_served, 0, N(methods));
    tcase_add_loop_test(tc, failure_becomes_a_problem_document, 0, N(failures));
    tcase_add_test(tc, failure_without_words_has_the_codes);
}

static void add_refused(Suite *suite)
{
    TCase *tc = add_case(suite, "refused", setup);

    tcase_add_loop_test(tc, refused_requests_are_told_why, 0, N(refused));
    tcase_add_test(tc, headers_may_have_every_character_that_is_allowed);
    tcase_add_test(tc, query_of_very_many_arguments_is_refused);
    tcase_add_loop_test(tc, head_of_every_size_is_answered, 0, N(fillings));
    tcase_add_test(tc, body_is_read_and_the_connection_goes_on);
    tcase_add_test(tc, body_is_asked_for_with_100_continue);
    tcase_add_test(tc, body_in_chunks_closes_the_connection);
    tcase_add_test(tc, body_in_chunks_has_a_limit);
    tcase_add_test(tc, body_that_is_malformed_is_recorded);
}

static void add_deadline(Suite *suite)
{
    TCase *tc = add_case(suite, "deadline", setup);

    tcase_add_loop_test(tc, deadline_ends_the_request_in_time, 0, N(deadlines));
    tcase_add_test(tc, deadline_is_never_early);
    tcase_add_loop_test(tc, deadline_of_zero_spares_the_handler, 0, N(zeroes));
    tcase_add_test(tc, deadline_makes_a_late_success_a_failure);
    tcase_add_test(tc, deadline_of_a_part_is_504_too);
    tcase_add_test(tc, deadline_ends_all_tasks_of_a_group);
}

static void add_leaving(Suite *suite)
{
    TCase *tc = add_case(suite, "leaving", setup);

    tcase_add_loop_test(tc, client_that_leaves_ends_its_request, 0, N_WAYS * N(waiting_targets));
    tcase_add_test(tc, client_that_leaves_is_seen_within_a_millisecond);
    tcase_add_test(tc, client_that_leaves_with_its_request_is_not_kept);
    tcase_add_test(tc, client_that_leaves_in_mid_request_is_not_kept);
    tcase_add_test(tc, client_that_leaves_after_its_reply_is_no_failure);
    tcase_add_test(tc, client_that_leaves_in_mid_reply_is_not_kept);
    tcase_add_test(tc, client_that_leaves_while_others_never_pause_is_not_kept);

    tc = add_case(suite, "half_close", setup_half_close);
    tcase_add_test(tc, half_close_is_answered_where_it_is_allowed);
    tcase_add_test(tc, half_close_of_a_pipeline_is_answered_where_it_is_allowed);
    tcase_add_test(tc, half_close_of_half_a_request_is_not_kept);
    tcase_add_test(tc, half_close_allowed_a_reset_still_ends_the_request);
    tcase_add_test(tc, half_close_allowed_a_reset_while_the_handler_holds_the_loop);
}

static void add_stop(Suite *suite)
{
    TCase *tc = add_case(suite, "stop", setup);

    tcase_add_test(tc, stop_lets_requests_finish);
    tcase_add_test(tc, stop_cuts_what_passes_the_grace);
    tcase_add_test(tc, stop_sends_a_success_that_came_after_the_cut);
    tcase_add_test(tc, stop_can_be_hurried);
    tcase_add_test(tc, stop_closes_idle_connections_at_once);
    tcase_add_test(tc, stop_serves_once_more_who_was_just_answered);
    tcase_add_test(tc, stop_serves_what_the_kernel_has_accepted);
    tcase_add_test(tc, stop_does_not_wait_for_a_client_that_does_not_read);
    tcase_add_test(tc, stop_under_load_fails_nobody_who_was_connected);
    tcase_add_test(tc, two_thousand_requests_wait_at_once);
}

Suite *suite_http(void)
{
    Suite *suite = suite_create("http");
    TCase *tc = add_case(suite, "new", setup_loops);

    tcase_add_test(tc, new_says_what_is_wrong_with_the_address);
    tcase_add_test(tc, new_names_the_bad_route);
    tcase_add_test(tc, new_refuses_a_port_that_is_taken);
    tcase_add_test(tc, new_takes_over_the_port_after_a_stop);
    tcase_add_test(tc, new_listens_on_ipv6);
    add_answering(suite);
    add_refused(suite);
    add_deadline(suite);
    add_leaving(suite);
    tc = add_case(suite, "limits", setup_loops);
    tcase_add_test(tc, in_flight_limit_reached);
    tcase_add_test(tc, idle_connection_is_closed);
    tcase_add_test(tc, timeouts_of_the_server_hold);
    add_stop(suite);
    return suite;
}
