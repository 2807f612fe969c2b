/* SPDX-License-Identifier: MIT */
/* See stream_kit.h. */
#include "stream_kit.h"

#include <stdlib.h>

#include <curfew/group.h>
#include <curfew/wait.h>

#include "fault.h"

struct stream stream;

/* Handlers */

static enum cf_code leave(enum cf_code code)
{
    atomic_store(&stream.ended_code, (int)code);
    (void)sem_post(&stream.ended);
    return code;
}

/* The n-th byte of every stream. */
static char byte_at(size_t n)
{
    return (char)('a' + n % 26);
}

static enum cf_code write_bytes(struct cf_ctx *ctx, struct cf_http *http, size_t from, size_t size,
                                struct cf_err *err)
{
    char piece[1000];

    while (size > 0) {
        size_t n = size < sizeof(piece) ? size : sizeof(piece);
        enum cf_code code;

        for (size_t i = 0; i < n; i++) {
            piece[i] = byte_at(from + i);
        }
        code = cf_http_stream_write(ctx, http, piece, n, err);
        if (code != CF_OK) {
            return code;
        }
        (void)atomic_fetch_add(&stream.written, n);
        from += n;
        size -= n;
    }
    return CF_OK;
}

/* ?size=: that many bytes. */
static enum cf_code bytes(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    int64_t size;

    if (cf_http_query_i64(http, "size", 0, INT32_MAX, 0, &size, err) != CF_OK) {
        return CF_EINVAL;
    }
    cf_http_reply_header(http, "X-Stream", "yes");
    cf_http_reply_stream(http, 200, "text/x-bytes");
    return leave(write_bytes(ctx, http, 0, (size_t)size, err));
}

/* ?size=: that many bytes in one piece. */
static enum cf_code at_once(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    enum cf_code code;
    int64_t size;
    char *piece;

    if (cf_http_query_i64(http, "size", 1, INT32_MAX, 1, &size, err) != CF_OK) {
        return CF_EINVAL;
    }
    piece = cf_http_alloc(http, (size_t)size);
    ck_assert_ptr_nonnull(piece);
    for (size_t i = 0; i < (size_t)size; i++) {
        piece[i] = byte_at(i);
    }
    cf_http_reply_stream(http, 200, "text/x-bytes");
    code = cf_http_stream_write(ctx, http, piece, (size_t)size, err);
    return leave(code);
}

/* ?size=: fails after that many, with last words. */
static enum cf_code failing(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    enum cf_code code;
    int64_t size;

    if (cf_http_query_i64(http, "size", 0, INT32_MAX, 0, &size, err) != CF_OK) {
        return CF_EINVAL;
    }
    cf_http_reply_stream(http, 200, "text/x-bytes");
    code = write_bytes(ctx, http, 0, (size_t)size, err);
    if (code == CF_OK && size > 0) {
        code = cf_sleep(ctx, CF_MS, err); /* It has begun to be sent. */
        ck_assert(cf_http_stream_try_write(http, "last words", 10));
    }
    return leave(code != CF_OK ? code : cf_err_set(err, CF_EIO, "the source has failed"));
}

static enum cf_code endless(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    enum cf_code code = CF_OK;

    cf_http_reply_stream(http, 200, "text/x-bytes");
    for (size_t n = 0; code == CF_OK; n += 26000) {
        code = write_bytes(ctx, http, n, 26000, err);
        (void)sem_post(&site.started);
    }
    return leave(code);
}

/* A piece, and then nothing for as long as it may. */
static enum cf_code stalling(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    enum cf_code code;

    cf_http_reply_stream(http, 200, "text/x-bytes");
    code = write_bytes(ctx, http, 0, 26, err);
    (void)sem_post(&site.started);
    if (code == CF_OK) {
        code = cf_sleep(ctx, 60 * CF_SECOND, err);
        (void)cf_http_stream_try_write(http, "last words", 10);
    }
    return leave(code);
}

/* ?ms=: two pieces with that between. */
static enum cf_code pausing(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    enum cf_code code;
    int64_t ms;

    if (cf_http_query_i64(http, "ms", 0, 60000, 0, &ms, err) != CF_OK) {
        return CF_EINVAL;
    }
    cf_http_reply_stream(http, 200, "text/x-bytes");
    code = write_bytes(ctx, http, 0, 26, err);
    (void)sem_post(&site.started);
    if (code == CF_OK) {
        code = cf_sleep(ctx, ms * CF_MS, err);
    }
    return leave(code != CF_OK ? code : write_bytes(ctx, http, 26, 26, err));
}

/* Its last piece comes in time, its end does not. */
static enum cf_code late(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    enum cf_code code;

    cf_http_reply_stream(http, 200, "text/x-bytes");
    code = write_bytes(ctx, http, 0, 26, err);
    if (code == CF_OK) {
        code = cf_sleep(ctx, 60 * CF_SECOND, err);
    }
    return leave(code == CF_EDEADLINE ? CF_OK : code);
}

/* Does not heed its context, and goes on for a moment after its client has left. */
static enum cf_code heedless(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct cf_ctx *own;
    enum cf_code code = cf_ctx_without_cancel(ctx, &own, err);

    if (code != CF_OK) {
        return code;
    }
    cf_http_reply_stream(http, 200, "text/x-bytes");
    for (size_t n = 0; code == CF_OK; n += 26000) {
        code = write_bytes(own, http, n, 26000, err);
        (void)sem_post(&site.started);
    }
    ck_assert_int_eq(cf_sleep(own, 50 * CF_MS, NULL), CF_OK);
    ck_assert(!cf_http_stream_try_write(http, "nobody", 6));
    cf_ctx_free(own);
    return leave(code);
}

static enum cf_code poor(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    enum cf_code code;

    cf_http_reply_stream(http, 200, "text/x-bytes");
    fault_alloc(1, false);
    code = cf_http_stream_write(ctx, http, "x", 1, err);
    ck_assert(fault_off());
    return leave(code);
}

static enum cf_code spoilt(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    cf_http_reply_header(http, "X-Evil", "a\r\nb");
    cf_http_reply_stream(http, 200, "text/x-bytes");
    return leave(cf_http_stream_write(ctx, http, "x", 1, err));
}

static enum cf_code plain(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    (void)ctx;
    (void)err;
    cf_http_reply_stream(http, 500, "text/x-bytes");
    cf_http_reply_text(http, 200, "no stream after all");
    return CF_OK;
}

struct task {
    struct cf_http *http;
    size_t size;
};

static enum cf_code task(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    const struct task *work = arg;

    return write_bytes(ctx, work->http, 0, work->size, err);
}

/* ?tasks=: that many write, a full ring each. */
static enum cf_code by_tasks(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct task work = {http, (size_t)4 * CF_HTTP_STREAM_SIZE};
    struct cf_group *group;
    enum cf_code code;
    int64_t tasks;

    if (cf_http_query_i64(http, "tasks", 1, 2, 1, &tasks, err) != CF_OK) {
        return CF_EINVAL;
    }
    cf_http_reply_stream(http, 200, "text/x-bytes");
    code = cf_group_new(ctx, &group, err);
    if (code != CF_OK) {
        return code;
    }
    for (int64_t i = 0; i < tasks; i++) {
        cf_group_go(group, task, &work);
    }
    code = cf_group_wait(group, err);
    cf_group_free(group);
    return leave(code);
}

/* Fixture */

static const struct cf_http_route routes[] = {
    {"GET", "/bytes", bytes, 0, NULL},       {"GET", "/at-once", at_once, 0, NULL},
    {"GET", "/failing", failing, 0, NULL},   {"GET", "/endless", endless, 0, NULL},
    {"GET", "/stalling", stalling, 0, NULL}, {"GET", "/pausing", pausing, 0, NULL},
    {"GET", "/late", late, 0, NULL},         {"GET", "/heedless", heedless, 0, NULL},
    {"GET", "/poor", poor, 0, NULL},         {"GET", "/spoilt", spoilt, 0, NULL},
    {"GET", "/plain", plain, 0, NULL},       {"GET", "/by-tasks", by_tasks, 0, NULL}};

static void start(int64_t send_timeout_ns)
{
    site.options.head_timeout_ns = send_timeout_ns; /* How often it looks. */
    site.options.send_timeout_ns = send_timeout_ns;
    site_start(1);
    stream.descriptors_before = count_descriptors();
}

void stream_setup(void)
{
    site_setup_loops();
    ck_assert_int_eq(sem_init(&stream.ended, 0, 0), 0);
    atomic_store(&stream.written, 0);
    site.options.routes = routes;
    site.options.n_routes = N(routes);
    site.options.timeout_default_ns = 60 * CF_SECOND;
    start(0);
}

void stream_teardown(void)
{
    site_teardown();
    (void)sem_destroy(&stream.ended);
}

void stream_restart(int64_t send_timeout_ns)
{
    site_stop();
    start(send_timeout_ns);
}

TCase *stream_add_case(Suite *suite, const char *name)
{
    TCase *tc = tcase_create(name);

    tcase_add_checked_fixture(tc, stream_setup, stream_teardown);
    tcase_set_timeout(tc, 60);
    suite_add_tcase(suite, tc);
    return tc;
}

/* Helpers */

enum cf_code wait_ended(void)
{
    wait_sem(&stream.ended, "no handler has ended");
    return (enum cf_code)atomic_load(&stream.ended_code);
}

void expect_nothing_left(void)
{
    int64_t until_ns = cf_now_ns() + PATIENCE_NS;

    while (count_connections() != 0 || count_in_flight() != 0 ||
           count_descriptors() != stream.descriptors_before) {
        ck_assert_msg(cf_now_ns() < until_ns, "%zu connections, %zu requests, %zu descriptors more",
                      count_connections(), count_in_flight(),
                      count_descriptors() - stream.descriptors_before);
        pause_ms(1);
    }
}

void expect_bytes_from(size_t from, const char *text, size_t size)
{
    size_t n = 0;

    while (n < size && text[n] == byte_at(from + n)) {
        n++;
    }
    ck_assert_msg(n == size, "byte %zu is wrong", from + n);
}

void expect_bytes(const char *text, size_t size)
{
    expect_bytes_from(0, text, size);
}

int open_and_stall(const char *target, struct chunks *chunks)
{
    int fd = open_narrow();

    client_request(fd, "GET", target, NULL);
    chunks_begin(chunks, fd);
    ck_assert_int_eq(chunks->status, 200);
    while (atomic_load(&stream.written) < CF_HTTP_STREAM_SIZE) {
        wait_started();
    }
    return fd;
}

void expect_gone(const struct seen *record)
{
    ck_assert_int_eq(record->status, 499);
    ck_assert(record->is_broken);
    ck_assert_int_eq(record->reason, CF_REASON_CLIENT_GONE);
}
