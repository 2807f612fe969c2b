/* SPDX-License-Identifier: MIT */
/* See http_fixture.h. */
#include "http_fixture.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <curfew/group.h>
#include <curfew/wait.h>

struct site site;

static char app_text[] = "the app";

/* What on_done() was told */

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
    seen->is_broken = record->is_broken;
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

struct seen wait_done(size_t n)
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

size_t count_done(void)
{
    size_t n;

    (void)pthread_mutex_lock(&done.mu);
    n = done.n;
    (void)pthread_mutex_unlock(&done.mu);
    return n;
}

struct seen last_done(void)
{
    struct seen seen;

    (void)pthread_mutex_lock(&done.mu);
    ck_assert_uint_gt(done.n, 0);
    seen = done.seen[(done.n - 1) % SEEN_MAX];
    (void)pthread_mutex_unlock(&done.mu);
    return seen;
}

size_t count_done_with(int status)
{
    size_t n = 0;

    (void)pthread_mutex_lock(&done.mu);
    ck_assert_uint_le(done.n, SEEN_MAX);
    for (size_t i = 0; i < done.n; i++) {
        n += done.seen[i].status == status;
    }
    (void)pthread_mutex_unlock(&done.mu);
    return n;
}

/* Handlers */

void wait_sem(sem_t *sem, const char *otherwise)
{
    struct timespec over = patience_over();

    ck_assert_msg(sem_timedwait(sem, &over) == 0, "%s", otherwise);
}

void wait_started(void)
{
    wait_sem(&site.started, "no handler has started");
}

enum cf_code serve_hello(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    (void)ctx;
    (void)err;
    (void)atomic_fetch_add(&site.runs, 1);
    cf_json_str(cf_http_reply_json(http, 200), "hello");
    return CF_OK;
}

enum cf_code serve_nap(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct cf_cause cause;
    int64_t ms;
    enum cf_code code = cf_http_query_i64(http, "ms", 0, 60000, 60000, &ms, err);

    (void)atomic_fetch_add(&site.runs, 1);
    if (code != CF_OK) {
        return code;
    }
    (void)sem_post(&site.started);
    code = cf_sleep(ctx, ms * CF_MS, err);
    if (code != CF_OK) {
        (void)cf_ctx_cause(ctx, &cause);
        atomic_store(&site.caught, (int)cause.reason);
        return cf_err_phase(err, cf_err_wrap(err, code, "nap"), "nap");
    }
    cf_http_timing(http, "nap", ms * CF_MS);
    cf_http_reply_text(http, 200, cf_http_query(http, "ms"));
    return CF_OK;
}

enum cf_code serve_stubborn(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct cf_ctx *own;
    enum cf_code code;

    (void)sem_post(&site.started);
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

static enum cf_code task(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    (void)arg;
    return cf_sleep(ctx, 60 * CF_SECOND, err);
}

enum cf_code serve_fan_out(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
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
    (void)sem_post(&site.started);
    code = cf_group_wait(group, err);
    cf_group_free(group);
    return code;
}

enum cf_code serve_large(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
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

enum cf_code serve_echo(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
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

/* What is sent back is all that came, after a moment in which nothing else may overwrite it. */
enum cf_code serve_body(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    size_t size;
    const char *body = cf_http_body(http, &size);
    enum cf_code code = cf_sleep(ctx, CF_MS, err);

    ck_assert_uint_eq(strlen(body), size);
    cf_http_reply_text(http, 200, body);
    return code;
}

static const struct cf_http_route routes[] = {
    {"GET", "/hello", serve_hello},
    {"POST", "/hello", serve_hello},
    {"GET", "/nap", serve_nap},
    {"GET", "/nap/capped", serve_nap, .timeout_max_ns = 100 * CF_MS},
    {"GET", "/stubborn", serve_stubborn},
    {"GET", "/fan-out", serve_fan_out},
    {"GET", "/large", serve_large},
    {"GET", "/echo/{id}", serve_echo},
    {"POST", "/body", serve_body},
};

/* Fixture */

void site_setup_loops(void)
{
    ck_assert_int_eq(sem_init(&site.started, 0, 0), 0);
    done.n = 0; /* With CK_FORK=no, what the test before has left. */
    atomic_store(&site.runs, 0);
    for (int i = 0; i < N(site.loops); i++) {
        ck_assert_int_eq(cf_loop_new(NULL, &site.loops[i], NULL), CF_OK);
    }
    site.options = (struct cf_http_options){
        .listen = "127.0.0.1:0",
        .routes = routes,
        .n_routes = N(routes),
        .app = app_text,
        .on_done = on_done,
        .arg = &done,
    };
}

void site_start(size_t n_loops)
{
    struct cf_err err = {.msg = ""};

    ck_assert_msg(cf_http_server_new(&site.options, site.loops, n_loops, &site.server, &err) ==
                      CF_OK,
                  "%s", err.msg);
    site.port = cf_http_server_port(site.server);
}

void site_setup(void)
{
    site_setup_loops();
    site_start(2);
}

void site_stop(void)
{
    if (site.server != NULL) {
        cf_http_server_stop(site.server, 0);
        cf_http_server_free(site.server);
        site.server = NULL;
    }
}

void site_teardown(void)
{
    client_free_all();
    site_stop();
    for (int i = 0; i < N(site.loops); i++) {
        cf_loop_free(site.loops[i]);
    }
    (void)sem_destroy(&site.started);
}

TCase *site_add_case(Suite *suite, const char *name, void (*set_up)(void))
{
    TCase *tc = tcase_create(name);

    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, set_up, site_teardown);
    suite_add_tcase(suite, tc);
    return tc;
}

/* Looks at the server */

size_t count_connections(void)
{
    struct cf_http_stats stats;

    cf_http_server_stats(site.server, &stats);
    return stats.connections;
}

size_t count_in_flight(void)
{
    struct cf_http_stats stats;

    cf_http_server_stats(site.server, &stats);
    return stats.in_flight;
}

size_t count_descriptors(void)
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

void wait_count(size_t (*count)(void), size_t want)
{
    int64_t since_ns = cf_now_ns();

    while (count() != want) {
        ck_assert_msg(cf_now_ns() - since_ns < bound(PATIENCE_NS), "%zu instead of %zu", count(),
                      want);
        pause_ms(1);
    }
}

/* Clients */

int open_narrow(void)
{
    int fd = client_open(site.port);
    int size = 4096;

    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)), 0);
    return fd;
}

struct reply *post(const char *target, const char *body)
{
    int fd = client_open(site.port);
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

bool is_readable(int fd, int64_t within_ms)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    return poll(&poll_fd, 1, (int)within_ms) == 1;
}

void read_to_end(int fd, char *out, size_t size)
{
    size_t n = 0;
    ssize_t got = 1;

    while (got > 0 && n < size - 1) {
        ck_assert_msg(is_readable(fd, PATIENCE_NS / CF_MS), "nothing comes");
        got = recv(fd, out + n, size - 1 - n, 0);
        n += got > 0 ? (size_t)got : 0;
    }
    out[n] = '\0';
}

void expect_problem(struct reply *reply, int status, const char *code)
{
    ck_assert_msg(reply->status == status, "%d instead of %d: %s%s", reply->status, status,
                  reply->head, reply->body);
    ck_assert_str_eq(reply_header(reply, "Content-Type"), "application/problem+json");
    ck_assert_str_eq(reply_header(reply, "Cache-Control"), "no-store");
    ck_assert_str_eq(reply_str(reply, "code"), code);
    ck_assert_int_eq(reply_i64(reply, "status"), status);
    ck_assert_int_eq(reply_header(reply, "Retry-After") != NULL, status == 503 || status == 429);
}
