/* SPDX-License-Identifier: MIT */
/* Streamed replies: whole, broken, read slowly, left. */
#include <check.h>
#include <dirent.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <curfew/clock.h>
#include <curfew/group.h>
#include <curfew/http.h>
#include <curfew/wait.h>

#include "chunks.h"
#include "client.h"
#include "effort.h"
#include "fault.h"

/* What a server may hold of a stream: its ring, as much in the kernel, and what it counts beside data
 * there; libmicrohttpd's memory; and what is on its way to a client with a narrow window. */
#define HELD_MAX ((size_t)5 * CF_HTTP_STREAM_SIZE)

/* Handlers */

static sem_t started;         /* A handler has written its first piece. */
static sem_t ended;           /* One is about to return, */
static atomic_int ended_code; /* with this. */
static atomic_size_t written; /* By the handlers in all. */

static enum cf_code leave(enum cf_code code)
{
    atomic_store(&ended_code, (int)code);
    (void)sem_post(&ended);
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
        (void)atomic_fetch_add(&written, n);
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
        (void)sem_post(&started);
    }
    return leave(code);
}

/* A piece, and then nothing for as long as it may. */
static enum cf_code stalling(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    enum cf_code code;

    cf_http_reply_stream(http, 200, "text/x-bytes");
    code = write_bytes(ctx, http, 0, 26, err);
    (void)sem_post(&started);
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
    (void)sem_post(&started);
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
        (void)sem_post(&started);
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

static struct cf_loop *loop;
static struct cf_http_server *server;
static uint16_t port;
static size_t descriptors_before;

static pthread_mutex_t done_mu = PTHREAD_MUTEX_INITIALIZER; /* Guards the two below. */
static struct cf_http_record last;                          /* Without what it borrows. */
static size_t n_done;

static void on_done(void *arg, const struct cf_http_record *record)
{
    (void)arg;
    (void)pthread_mutex_lock(&done_mu);
    last = *record;
    n_done++;
    (void)pthread_mutex_unlock(&done_mu);
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

static void start(int64_t send_timeout_ns)
{
    static const struct cf_http_route routes[] = {
        {"GET", "/bytes", bytes, 0, NULL},       {"GET", "/at-once", at_once, 0, NULL},
        {"GET", "/failing", failing, 0, NULL},   {"GET", "/endless", endless, 0, NULL},
        {"GET", "/stalling", stalling, 0, NULL}, {"GET", "/pausing", pausing, 0, NULL},
        {"GET", "/late", late, 0, NULL},         {"GET", "/heedless", heedless, 0, NULL},
        {"GET", "/poor", poor, 0, NULL},         {"GET", "/spoilt", spoilt, 0, NULL},
        {"GET", "/plain", plain, 0, NULL},       {"GET", "/by-tasks", by_tasks, 0, NULL}};
    struct cf_http_options options = {.listen = "127.0.0.1:0",
                                      .routes = routes,
                                      .n_routes = sizeof(routes) / sizeof(routes[0]),
                                      .timeout_default_ns = 60 * CF_SECOND,
                                      .head_timeout_ns = send_timeout_ns, /* How often it looks. */
                                      .send_timeout_ns = send_timeout_ns,
                                      .on_done = on_done};
    struct cf_err err = {.msg = ""};

    ck_assert_msg(cf_http_server_new(&options, &loop, 1, &server, &err) == CF_OK, "%s", err.msg);
    port = cf_http_server_port(server);
    descriptors_before = count_descriptors();
}

static void setup_loop(void)
{
    ck_assert_int_eq(sem_init(&started, 0, 0), 0);
    ck_assert_int_eq(sem_init(&ended, 0, 0), 0);
    atomic_store(&written, 0);
    n_done = 0;
    ck_assert_int_eq(cf_loop_new(NULL, &loop, NULL), CF_OK);
}

static void setup(void)
{
    setup_loop();
    start(0);
}

static void teardown(void)
{
    client_free_all();
    cf_http_server_stop(server, 0);
    cf_http_server_free(server);
    cf_loop_free(loop);
}

/* Helpers */

static void wait_sem(sem_t *sem, const char *what)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += CLIENT_WAIT_NS / CF_SECOND;
    ck_assert_msg(sem_timedwait(sem, &until) == 0, "no handler has %s", what);
}

static void wait_started(void)
{
    wait_sem(&started, "started");
}

static enum cf_code wait_ended(void)
{
    wait_sem(&ended, "ended");
    return (enum cf_code)atomic_load(&ended_code);
}

static struct cf_http_record wait_done(size_t n)
{
    int64_t until_ns = cf_now_ns() + CLIENT_WAIT_NS;
    struct cf_http_record record;
    bool is_done = false;

    while (!is_done) {
        ck_assert_msg(cf_now_ns() < until_ns, "fewer than %zu requests are done", n);
        pause_ms(1);
        (void)pthread_mutex_lock(&done_mu);
        is_done = n_done >= n;
        record = last;
        (void)pthread_mutex_unlock(&done_mu);
    }
    return record;
}

static struct cf_http_stats stats(void)
{
    struct cf_http_stats now;

    cf_http_server_stats(server, &now);
    return now;
}

/* All connections of clients that have gone are closed, and nothing is left of them. */
static void expect_nothing_left(void)
{
    int64_t until_ns = cf_now_ns() + CLIENT_WAIT_NS;

    while (stats().connections != 0 || stats().in_flight != 0 ||
           count_descriptors() != descriptors_before) {
        ck_assert_msg(cf_now_ns() < until_ns, "%zu connections, %zu requests, %zu descriptors more",
                      stats().connections, stats().in_flight,
                      count_descriptors() - descriptors_before);
        pause_ms(1);
    }
}

static void expect_bytes_from(size_t from, const char *text, size_t size)
{
    size_t n = 0;

    while (n < size && text[n] == byte_at(from + n)) {
        n++;
    }
    ck_assert_msg(n == size, "byte %zu is wrong", from + n);
}

static void expect_bytes(const char *text, size_t size)
{
    expect_bytes_from(0, text, size);
}

/* A client whose kernel takes little for it. */
static int open_narrow(void)
{
    int fd = client_open(port);
    int size = 4096;

    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)), 0);
    return fd;
}

/* Ask for what is more than fits anywhere, read the head, and see that the handler is held up. */
static int open_and_stall(const char *target, struct chunks *chunks)
{
    int fd = open_narrow();

    client_request(fd, "GET", target, NULL);
    chunks_begin(chunks, fd);
    ck_assert_int_eq(chunks->status, 200);
    while (atomic_load(&written) < CF_HTTP_STREAM_SIZE) {
        wait_started();
    }
    return fd;
}

static void expect_gone(const struct cf_http_record *record)
{
    ck_assert_int_eq(record->status, 499);
    ck_assert(record->is_broken);
    ck_assert_int_eq(record->cause.reason, CF_REASON_CLIENT_GONE);
}

/* stream */

static const size_t sizes[] = {1, 26, 1000, 65535, 65536, 65537, 70000, 1000000};

START_TEST(stream_of_every_size_is_whole)
{
    struct cf_http_record record;
    struct chunks chunks;
    char target[64];
    int fd = client_open(port);

    for (int way = 0; way < 2; way++) {
        size_t size = sizes[_i];
        char *body;

        (void)snprintf(target, sizeof(target), "/%s?size=%zu", way == 0 ? "bytes" : "at-once",
                       size);
        client_request(fd, "GET", target, NULL);
        chunks_begin(&chunks, fd);
        ck_assert_int_eq(chunks.status, 200);
        ck_assert(chunks.is_chunked);
        ck_assert_ptr_nonnull(strstr(chunks.head, "\r\nContent-Type: text/x-bytes\r\n"));
        ck_assert_ptr_nonnull(strstr(chunks.head, "\r\nX-Request-Id: "));
        ck_assert_int_eq(strstr(chunks.head, "\r\nX-Stream: yes\r\n") != NULL, way == 0);
        body = chunks_read_all(&chunks, &size);
        ck_assert_uint_eq(size, sizes[_i]);
        ck_assert(chunks.is_whole);
        expect_bytes(body, size);
        free(body);
        record = wait_done((size_t)way + 1);
        ck_assert_int_eq(record.status, 200);
        ck_assert_int_eq(record.code, CF_OK);
        ck_assert(!record.is_broken);
        ck_assert_uint_eq(record.body_size, size);
    }
    (void)close(fd);
    expect_nothing_left();
}
END_TEST

START_TEST(stream_without_a_piece_is_whole)
{
    struct chunks chunks;
    int fd = client_open(port);
    size_t size;
    char *body;

    client_request(fd, "GET", "/bytes?size=0", NULL);
    chunks_begin(&chunks, fd);
    body = chunks_read_all(&chunks, &size);
    ck_assert_int_eq(chunks.status, 200);
    ck_assert(chunks.is_whole);
    ck_assert_uint_eq(size, 0);
    free(body);
    (void)close(fd);
}
END_TEST

START_TEST(stream_to_http_1_0_ends_with_the_connection)
{
    struct chunks chunks;
    int fd = client_open(port);
    size_t size;
    char *body;

    client_send(fd, "GET /bytes?size=200000 HTTP/1.0\r\nHost: a\r\n\r\n");
    chunks_begin(&chunks, fd);
    ck_assert_int_eq(chunks.status, 200);
    ck_assert(!chunks.is_chunked);
    body = chunks_read_all(&chunks, &size);
    ck_assert_uint_eq(size, 200000);
    expect_bytes(body, size);
    free(body);
    ck_assert_int_eq(wait_ended(), CF_OK);
    ck_assert(!wait_done(1).is_broken);
    (void)close(fd);
    expect_nothing_left();
}
END_TEST

START_TEST(stream_to_head_is_its_head)
{
    struct cf_http_record record;
    int fd = client_open(port);
    struct reply *reply;
    char more;

    client_request(fd, "HEAD", "/bytes?size=1000000", NULL);
    reply = client_recv(fd, "HEAD");
    ck_assert_int_eq(reply->status, 200);
    ck_assert_int_eq(recv(fd, &more, 1, MSG_DONTWAIT | MSG_PEEK) > 0, false); /* No last chunk. */
    ck_assert_str_eq(reply_header(reply, "Content-Type"), "text/x-bytes");
    ck_assert_int_eq(wait_ended(), CF_ECLOSED);
    record = wait_done(1);
    ck_assert_int_eq(record.status, 200);
    ck_assert_int_eq(record.code, CF_OK);
    ck_assert_uint_eq(record.body_size, 0);
    ck_assert(client_wait_closed(fd, CLIENT_WAIT_NS));
    (void)close(fd);
}
END_TEST

START_TEST(stream_pieces_come_as_they_are_written)
{
    struct chunks chunks;
    int fd = client_open(port);
    char piece[100];

    client_request(fd, "GET", "/stalling", NULL);
    chunks_begin(&chunks, fd);
    ck_assert_uint_eq(chunks_read(&chunks, piece, sizeof(piece)),
                      26); /* While the handler waits. */
    (void)close(fd);
    ck_assert_int_eq(wait_ended(), CF_ECANCELED);
}
END_TEST

START_TEST(stream_that_another_reply_replaces_is_none)
{
    ck_assert_str_eq(client_get(port, "/plain", NULL)->body, "no stream after all");
}
END_TEST

START_TEST(stream_leaves_the_connection_to_what_was_pipelined)
{
    struct chunks chunks;
    int fd = client_open(port);

    client_send(fd, "GET /bytes?size=300000 HTTP/1.1\r\nHost: a\r\n\r\n"
                    "GET /bytes?size=10 HTTP/1.1\r\nHost: a\r\n\r\n"
                    "GET /plain HTTP/1.1\r\nHost: a\r\n\r\n");
    for (int i = 0; i < 2; i++) {
        size_t size;
        char *body;

        chunks_begin(&chunks, fd);
        body = chunks_read_all(&chunks, &size);
        ck_assert(chunks.is_whole);
        ck_assert_uint_eq(size, i == 0 ? 300000 : 10);
        expect_bytes(body, size);
        free(body);
    }
    ck_assert_str_eq(client_recv(fd, "GET")->body, "no stream after all");
    (void)close(fd);
}
END_TEST

START_TEST(stream_is_written_by_a_task)
{
    struct chunks chunks;
    int fd = client_open(port);
    size_t size;
    char *body;

    client_request(fd, "GET", "/by-tasks", NULL);
    chunks_begin(&chunks, fd);
    body = chunks_read_all(&chunks, &size);
    ck_assert(chunks.is_whole);
    ck_assert_uint_eq(size, (size_t)4 * CF_HTTP_STREAM_SIZE);
    expect_bytes(body, size);
    free(body);
    (void)close(fd);
}
END_TEST

START_TEST(stream_written_by_two_at_once_asserts)
{
    int fd = open_narrow();

    client_request(fd, "GET", "/by-tasks?tasks=2", NULL);
    (void)client_wait_closed(fd, CLIENT_WAIT_NS);
}
END_TEST

/* failure */

START_TEST(failure_before_the_first_piece_is_a_problem)
{
    struct reply *reply = client_get(port, "/failing?size=0", NULL);

    ck_assert_int_eq(reply->status, 500);
    ck_assert_str_eq(reply_header(reply, "Content-Type"), "application/problem+json");
}
END_TEST

START_TEST(failure_for_want_of_memory_is_a_problem)
{
    struct reply *reply = client_get(port, "/poor", NULL);

    ck_assert_int_eq(reply->status, 503);
    ck_assert_str_eq(reply_str(reply, "code"), "out_of_memory");
    ck_assert_int_eq(wait_ended(), CF_ENOMEM);
}
END_TEST

START_TEST(failure_of_a_header_is_a_problem)
{
    ck_assert_int_eq(client_get(port, "/spoilt", NULL)->status, 500);
    ck_assert_int_eq(wait_ended(), CF_EINTERNAL);
}
END_TEST

static const size_t failing_sizes[] = {1, 1000, 65536, 1000000};

START_TEST(failure_in_the_middle_has_last_words_and_no_end)
{
    size_t want = failing_sizes[_i];
    struct cf_http_record record;
    struct chunks chunks;
    char target[64];
    int fd = client_open(port);
    size_t size;
    char *body;

    (void)snprintf(target, sizeof(target), "/failing?size=%zu", want);
    client_request(fd, "GET", target, NULL);
    chunks_begin(&chunks, fd);
    ck_assert_int_eq(chunks.status, 200);
    body = chunks_read_all(&chunks, &size);
    ck_assert(!chunks.is_whole);
    ck_assert_uint_eq(size, want + 10);
    expect_bytes(body, want);
    ck_assert_str_eq(body + want, "last words");
    free(body);
    record = wait_done(1);
    ck_assert_int_eq(record.status, 200);
    ck_assert_int_eq(record.code, CF_EIO);
    ck_assert(record.is_broken);
    ck_assert_uint_eq(record.body_size, size);
    (void)close(fd);
    expect_nothing_left();
}
END_TEST

/* client */

START_TEST(client_that_reads_slowly_holds_up_its_handler_only)
{
    struct chunks chunks;
    int fd = open_and_stall("/endless", &chunks);
    size_t read = 0;
    char piece[4096];

    for (int i = 0; i < 30; i++) {
        size_t n = chunks_read(&chunks, piece, sizeof(piece));

        ck_assert_uint_gt(n, 0);
        read += n;
        ck_assert_uint_lt(atomic_load(&written) - read, HELD_MAX);
        if (i % 10 == 0) {
            ck_assert_str_eq(client_get(port, "/plain", NULL)->body, "no stream after all");
        }
    }
    client_reset(fd);
    ck_assert_int_eq(wait_ended(), CF_ECANCELED);
    expect_nothing_left();
}
END_TEST

START_TEST(client_that_leaves_ends_a_write_that_waits)
{
    struct cf_http_record record;
    struct chunks chunks;
    int64_t since_ns;
    int fd = open_and_stall("/endless", &chunks);

    since_ns = cf_now_ns();
    if (_i == 0) {
        client_reset(fd);
    } else {
        (void)close(fd);
    }
    ck_assert_int_eq(wait_ended(), CF_ECANCELED);
    ck_assert_int_lt(cf_now_ns() - since_ns, bound(CF_SECOND));
    record = wait_done(1);
    expect_gone(&record);
    ck_assert_uint_le(record.body_size, atomic_load(&written) + CF_HTTP_STREAM_SIZE);
    expect_nothing_left();
}
END_TEST

START_TEST(client_that_leaves_ends_a_handler_that_has_nothing_to_send)
{
    struct cf_http_record record;
    int fd = client_open(port);

    client_request(fd, "GET", "/stalling", NULL);
    wait_started();
    if (_i == 0) {
        client_reset(fd);
    } else {
        (void)close(fd);
    }
    ck_assert_int_eq(wait_ended(), CF_ECANCELED);
    record = wait_done(1);
    expect_gone(&record);
    expect_nothing_left();
}
END_TEST

START_TEST(client_that_closes_its_half_has_gone)
{
    struct cf_http_record record;
    struct chunks chunks;
    int fd = open_and_stall("/endless", &chunks);

    ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
    ck_assert_int_eq(wait_ended(), CF_ECANCELED);
    record = wait_done(1);
    expect_gone(&record);
    WAIT_FOR(stats().connections == 0); /* Although it reads nothing. */
    (void)close(fd);
    expect_nothing_left();
}
END_TEST

START_TEST(client_that_leaves_is_told_also_without_a_context)
{
    struct cf_http_record record;
    struct chunks chunks;
    int fd = open_and_stall("/heedless", &chunks);

    client_reset(fd);
    ck_assert_int_eq(wait_ended(), CF_ECLOSED);
    record = wait_done(1);
    expect_gone(&record);
    expect_nothing_left();
}
END_TEST

START_TEST(client_that_reads_nothing_is_reset_in_time)
{
    struct cf_http_record record;
    struct chunks chunks;
    int64_t since_ns;
    int fd;

    cf_http_server_stop(server, 0);
    cf_http_server_free(server);
    start(400 * CF_MS);
    since_ns = cf_now_ns();
    fd = open_and_stall("/endless", &chunks);
    ck_assert_int_eq(wait_ended(), CF_ECANCELED);
    ck_assert_int_ge(cf_now_ns() - since_ns, 400 * CF_MS);
    record = wait_done(1);
    expect_gone(&record);
    (void)close(fd);
    expect_nothing_left();
}
END_TEST

START_TEST(client_that_sips_is_reset_in_time)
{
    struct chunks chunks;
    int64_t since_ns;
    int fd;

    cf_http_server_stop(server, 0);
    cf_http_server_free(server);
    start(400 * CF_MS);
    since_ns = cf_now_ns();
    fd = open_and_stall("/endless", &chunks);
    while (sem_trywait(&ended) != 0) {
        char sip[100];

        (void)recv(fd, sip, sizeof(sip), MSG_DONTWAIT);
        pause_ms(10);
        ck_assert_int_lt(cf_now_ns() - since_ns, CLIENT_WAIT_NS);
    }
    ck_assert_int_eq(atomic_load(&ended_code), CF_ECANCELED);
    ck_assert_int_ge(cf_now_ns() - since_ns, 400 * CF_MS);
    (void)close(fd);
    expect_nothing_left();
}
END_TEST

/* For much longer than a whole reply may take. */
START_TEST(client_that_keeps_up_is_left_alone)
{
    struct chunks chunks;
    int64_t until_ns;
    int fd;

    cf_http_server_stop(server, 0);
    cf_http_server_free(server);
    start(CF_SECOND);
    fd = client_open(port);
    client_request(fd, "GET", "/endless", NULL);
    chunks_begin(&chunks, fd);
    until_ns = cf_now_ns() + 2500 * CF_MS;
    while (cf_now_ns() < until_ns) {
        static char piece[CF_HTTP_STREAM_SIZE];

        for (size_t n = 0; n < sizeof(piece);) {
            size_t got = chunks_read(&chunks, piece, sizeof(piece) - n);

            ck_assert_uint_gt(got, 0);
            n += got;
        }
        pause_ms(20);
    }
    (void)close(fd);
    ck_assert_int_eq(wait_ended(), CF_ECANCELED);
}
END_TEST

START_TEST(client_with_nothing_to_read_is_left_alone)
{
    struct chunks chunks;
    size_t size;
    char *body;
    int fd;

    cf_http_server_stop(server, 0);
    cf_http_server_free(server);
    start(200 * CF_MS);
    fd = client_open(port);
    client_request(fd, "GET", "/pausing?ms=1000", NULL);
    chunks_begin(&chunks, fd);
    body = chunks_read_all(&chunks, &size);
    ck_assert(chunks.is_whole);
    ck_assert_uint_eq(size, 52);
    expect_bytes(body, size);
    free(body);
    (void)close(fd);
}
END_TEST

/* Anywhere, while it is written, sent, and ended. */
START_TEST(client_that_leaves_races_with_everything)
{
    int rounds = effort_count(400, 100);
    unsigned seed = 1;

    for (int i = 0; i < rounds; i++) {
        const char *targets[] = {"/endless", "/bytes?size=100000", "/failing?size=100000"};
        int fd = client_open(port);
        char sip[30000];

        client_request(fd, "GET", targets[i % 3], NULL);
        for (int reads = rand_r(&seed) % 4; reads > 0; reads--) {
            size_t size = 1 + (size_t)rand_r(&seed) % sizeof(sip);

            (void)recv(fd, sip, size, i % 2 == 0 ? 0 : MSG_DONTWAIT);
        }
        if (rand_r(&seed) % 2 == 0) {
            client_reset(fd);
        } else {
            (void)close(fd);
        }
    }
    expect_nothing_left();
}
END_TEST

START_TEST(clients_at_once_have_each_their_own)
{
    enum {
        CLIENTS = 100
    };
    static struct chunks chunks[CLIENTS];
    static size_t sizes_read[CLIENTS];
    size_t going = CLIENTS;
    char piece[20000];

    for (int i = 0; i < CLIENTS; i++) {
        int fd = client_open(port);

        client_request(fd, "GET", "/bytes?size=200000", NULL);
        sizes_read[i] = 0;
        chunks_begin(&chunks[i], fd);
    }
    while (going > 0) {
        for (int i = 0; i < CLIENTS; i++) {
            size_t n = chunks_read(&chunks[i], piece, sizeof(piece));

            expect_bytes_from(sizes_read[i], piece, n);
            sizes_read[i] += n;
            if (n == 0 && chunks[i].fd >= 0) {
                ck_assert(chunks[i].is_whole);
                ck_assert_uint_eq(sizes_read[i], 200000);
                (void)close(chunks[i].fd);
                chunks[i].fd = -1;
                going--;
            }
        }
    }
    expect_nothing_left();
}
END_TEST

/* deadline */

START_TEST(deadline_ends_a_write_that_waits)
{
    struct cf_http_record record;
    struct chunks chunks;
    int fd = open_and_stall("/endless?timeout=200ms", &chunks);

    ck_assert_int_eq(wait_ended(), CF_EDEADLINE);
    free(chunks_read_all(&chunks, NULL));
    ck_assert(!chunks.is_whole);
    record = wait_done(1);
    ck_assert_int_eq(record.status, 200);
    ck_assert(record.is_broken);
    ck_assert_int_eq(record.code, CF_EDEADLINE);
    ck_assert_int_eq(record.cause.reason, CF_REASON_DEADLINE);
    (void)close(fd);
    expect_nothing_left();
}
END_TEST

START_TEST(deadline_leaves_time_for_last_words)
{
    struct chunks chunks;
    int fd = client_open(port);
    char *body;

    client_request(fd, "GET", "/stalling?timeout=100ms", NULL);
    chunks_begin(&chunks, fd);
    body = chunks_read_all(&chunks, NULL);
    ck_assert(!chunks.is_whole);
    ck_assert_str_eq(body + 26, "last words");
    ck_assert_int_eq(wait_ended(), CF_EDEADLINE);
    free(body);
    (void)close(fd);
}
END_TEST

START_TEST(deadline_behind_the_last_piece_is_no_failure)
{
    struct chunks chunks;
    int fd = client_open(port);

    client_request(fd, "GET", "/late?timeout=100ms", NULL);
    chunks_begin(&chunks, fd);
    free(chunks_read_all(&chunks, NULL));
    ck_assert(chunks.is_whole);
    ck_assert(!wait_done(1).is_broken);
    (void)close(fd);
}
END_TEST

START_TEST(deadline_passed_already_is_a_problem)
{
    ck_assert_int_eq(client_get(port, "/endless?timeout=0ms", NULL)->status, 504);
    ck_assert_uint_eq(atomic_load(&written), 0);
}
END_TEST

/* stop */

static void *stop_with_grace(void *arg)
{
    (void)arg;
    cf_http_server_stop(server, CLIENT_WAIT_NS);
    return NULL;
}

START_TEST(stop_waits_for_a_stream_in_its_grace)
{
    struct chunks chunks;
    int fd = client_open(port);
    pthread_t thread;
    size_t size;
    char *body;

    client_request(fd, "GET", "/pausing?ms=300", NULL);
    wait_started();
    ck_assert_int_eq(pthread_create(&thread, NULL, stop_with_grace, NULL), 0);
    chunks_begin(&chunks, fd);
    body = chunks_read_all(&chunks, &size);
    ck_assert(chunks.is_whole);
    ck_assert_uint_eq(size, 52);
    free(body);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    (void)close(fd);
}
END_TEST

START_TEST(stop_cuts_a_write_that_waits)
{
    struct cf_http_record record;
    struct chunks chunks;
    int fd = open_and_stall("/endless", &chunks);

    cf_http_server_stop(server, 0);
    ck_assert_int_eq(wait_ended(), CF_ECANCELED);
    free(chunks_read_all(&chunks, NULL));
    ck_assert(!chunks.is_whole);
    record = wait_done(1);
    ck_assert_int_eq(record.status, 200);
    ck_assert(record.is_broken);
    ck_assert_int_eq(record.cause.reason, CF_REASON_SHUTDOWN);
    (void)close(fd);
}
END_TEST

START_TEST(stop_waits_for_a_handler_whose_connection_has_ended)
{
    struct chunks chunks;
    int fd = open_and_stall("/heedless", &chunks);

    client_reset(fd);
    WAIT_FOR(stats().connections == 0);
    cf_http_server_stop(server, 0);
    ck_assert_int_eq(sem_trywait(&ended), 0);
    ck_assert_int_eq(wait_done(1).status, 499);
}
END_TEST

static void add_case(Suite *suite, TCase *tcase)
{
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    suite_add_tcase(suite, tcase);
}

Suite *suite_http_stream(void)
{
    Suite *suite = suite_create("http_stream");
    TCase *stream = tcase_create("stream");
    TCase *asserted = tcase_create("asserted");
    TCase *failure = tcase_create("failure");
    TCase *client = tcase_create("client");
    TCase *deadline = tcase_create("deadline");
    TCase *stop = tcase_create("stop");

    tcase_add_loop_test(stream, stream_of_every_size_is_whole, 0,
                        (int)(sizeof(sizes) / sizeof(sizes[0])));
    tcase_add_test(stream, stream_without_a_piece_is_whole);
    tcase_add_test(stream, stream_to_http_1_0_ends_with_the_connection);
    tcase_add_test(stream, stream_to_head_is_its_head);
    tcase_add_test(stream, stream_pieces_come_as_they_are_written);
    tcase_add_test(stream, stream_that_another_reply_replaces_is_none);
    tcase_add_test(stream, stream_leaves_the_connection_to_what_was_pipelined);
    tcase_add_test(stream, stream_is_written_by_a_task);
    add_case(suite, stream);

    tcase_add_test_raise_signal(asserted, stream_written_by_two_at_once_asserts, SIGABRT);
    tcase_set_tags(asserted, "fork");
    add_case(suite, asserted);

    tcase_add_test(failure, failure_before_the_first_piece_is_a_problem);
    tcase_add_test(failure, failure_for_want_of_memory_is_a_problem);
    tcase_add_test(failure, failure_of_a_header_is_a_problem);
    tcase_add_loop_test(failure, failure_in_the_middle_has_last_words_and_no_end, 0,
                        (int)(sizeof(failing_sizes) / sizeof(failing_sizes[0])));
    add_case(suite, failure);

    tcase_add_test(client, client_that_reads_slowly_holds_up_its_handler_only);
    tcase_add_loop_test(client, client_that_leaves_ends_a_write_that_waits, 0, 2);
    tcase_add_loop_test(client, client_that_leaves_ends_a_handler_that_has_nothing_to_send, 0, 2);
    tcase_add_test(client, client_that_closes_its_half_has_gone);
    tcase_add_test(client, client_that_leaves_is_told_also_without_a_context);
    tcase_add_test(client, client_that_reads_nothing_is_reset_in_time);
    tcase_add_test(client, client_that_sips_is_reset_in_time);
    tcase_add_test(client, client_that_keeps_up_is_left_alone);
    tcase_add_test(client, client_with_nothing_to_read_is_left_alone);
    tcase_add_test(client, client_that_leaves_races_with_everything);
    tcase_add_test(client, clients_at_once_have_each_their_own);
    add_case(suite, client);

    tcase_add_test(deadline, deadline_ends_a_write_that_waits);
    tcase_add_test(deadline, deadline_leaves_time_for_last_words);
    tcase_add_test(deadline, deadline_behind_the_last_piece_is_no_failure);
    tcase_add_test(deadline, deadline_passed_already_is_a_problem);
    add_case(suite, deadline);

    tcase_add_test(stop, stop_waits_for_a_stream_in_its_grace);
    tcase_add_test(stop, stop_cuts_a_write_that_waits);
    tcase_add_test(stop, stop_waits_for_a_handler_whose_connection_has_ended);
    add_case(suite, stop);
    return suite;
}
