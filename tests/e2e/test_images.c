/* SPDX-License-Identifier: MIT */
/* Images that are uploaded, and their thumbnails: each made once, in time or not at all.
 *
 * In a schema of the test's own. What the service does behind a reply is seen by the time of
 * processors that it takes, which does not depend on what else the machine does. */
#include <check.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "client.h"
#include "pgview.h"
#include "pictures.h"
#include "service.h"

#define SCHEMA "e2e_images"
#define PIECE_SIZE ((size_t)256 * 1024) /* Bytes of an image in one row: store/images.c. */
#define N(table) (int)(sizeof(table) / sizeof((table)[0]))

/* Fixture */

static struct service *service;
static char url[512];
static PGconn *pg;

static void start(const char *setting)
{
    service = service_start_ready(url, (const char *[]){"CURFEW_POOL=4", "CURFEW_IMAGE_THREADS=2",
                                                        "CURFEW_GRACE=200ms", setting, NULL});
}

static void setup(void)
{
    pgview_make_schema(SCHEMA, url, sizeof(url));
    pg = pgview_open(url);
}

static void teardown(void)
{
    service_stop_all();
    client_free_all();
    PQfinish(pg);
    pgview_drop_schema(SCHEMA);
}

/* Helpers */

/* False: the other side has closed. */
static bool send_all(int fd, const void *data, size_t size)
{
    const char *at = data;

    while (size > 0) {
        ssize_t n = send(fd, at, size, MSG_NOSIGNAL);

        if (n <= 0) {
            return false;
        }
        at += n;
        size -= (size_t)n;
    }
    return true;
}

static int begin(const char *target, const char *headers, const void *body, size_t size)
{
    int fd = client_open(service->api_port);
    char head[512];

    (void)snprintf(head, sizeof(head),
                   "POST %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %zu\r\n\r\n", target,
                   headers, size);
    client_send(fd, head);
    (void)send_all(fd, body, size);
    return fd;
}

static struct reply *post(const char *target, const char *headers, const void *body, size_t size)
{
    int fd = begin(target, headers, body, size);
    struct reply *reply = client_recv(fd, "POST");

    (void)close(fd);
    return reply;
}

static struct reply *upload(const void *data, size_t size)
{
    return post("/v1/images", "Content-Type: text/plain\r\n", data, size); /* Means nothing. */
}

static struct reply *ask(const char *body)
{
    return post("/v1/thumbnails", "Content-Type: application/json\r\n", body, strlen(body));
}

static struct reply *get(const char *target, const char *headers)
{
    return client_get(service->api_port, target, headers);
}

static void expect_problem(struct reply *reply, int status, const char *code, const char *word)
{
    ck_assert_msg(reply->status == status, "%d, not %d: %s", reply->status, status, reply->body);
    ck_assert_str_eq(reply_str(reply, "code"), code);
    ck_assert_msg(strstr(reply_str(reply, "detail"), word) != NULL, "%s", reply->body);
}

static int64_t upload_kind(enum picture_kind kind, uint32_t width, uint32_t height)
{
    struct picture picture = picture_make(kind, width, height);
    struct reply *reply = upload(picture.data, picture.size);

    ck_assert_msg(reply->status == 201, "%d: %s", reply->status, reply->body);
    free(picture.data);
    return reply_i64(reply, "id");
}

static int64_t count(const char *table)
{
    char sql[64];

    (void)snprintf(sql, sizeof(sql), "select count(*) from %s", table);
    return pgview_i64(pg, sql, NULL);
}

/* Of all the service's threads. */
static int64_t cpu_ns(void)
{
    struct timespec time;
    clockid_t clock;

    ck_assert_int_eq(clock_getcpuclockid(service->pid, &clock), 0);
    ck_assert_int_eq(clock_gettime(clock, &time), 0);
    return time.tv_sec * CF_SECOND + time.tv_nsec;
}

/* 100 ms from now nothing goes on: 300 ms in which two threads at work would take 600. */
static void expect_rest(void)
{
    int64_t since_ns;

    pause_ms(100);
    since_ns = cpu_ns();
    pause_ms(300);
    ck_assert_msg(cpu_ns() - since_ns < bound_strictly(60 * CF_MS), "it took %" PRId64 " ms",
                  (cpu_ns() - since_ns) / CF_MS);
}

/* Images 1 to 40, of 12 million pixels each, of the first `n_kinds` of these; returns what asks for
 * the thumbnails of all, so large that it takes long. */
static const char *upload_forty(int n_kinds)
{
    static const enum picture_kind kinds[] = {PICTURE_JPEG, PICTURE_JPEG_PROGRESSIVE, PICTURE_PNG};
    static char body[256];
    size_t n = 0;

    for (int i = 0; i < n_kinds; i++) {
        (void)upload_kind(kinds[i], 4000, 3000);
    }
    for (int id = n_kinds + 1; id <= 40; id++) {
        char sql[512];

        (void)snprintf(sql, sizeof(sql),
                       "insert into images (media_type, width, height, is_buffered, size)"
                       " select media_type, width, height, is_buffered, size from images"
                       " where id = %d; insert into image_pieces"
                       " select %d, number, data from image_pieces where image_id = %d",
                       id - n_kinds, id, id - n_kinds);
        pgview_exec(pg, sql);
    }
    n = (size_t)snprintf(body, sizeof(body), "{\"width\":2048,\"image_ids\":[1");
    for (int i = 2; i <= 40; i++) {
        n += (size_t)snprintf(body + n, sizeof(body) - n, ",%d", i);
    }
    (void)snprintf(body + n, sizeof(body) - n, "]}");
    return body;
}

/* Uploads */

START_TEST(image_of_each_kind_is_kept_and_made_small)
{
    enum picture_kind kind = (enum picture_kind)_i;
    struct picture picture = picture_make(kind, 400, 300);
    const char *type = picture_has_alpha(kind) ? "image/png" : "image/jpeg";
    struct reply *reply;
    struct reply *again;
    PGresult *row;
    char header[96];
    uint32_t width;
    uint32_t height;

    start(NULL);
    reply = upload(picture.data, picture.size);
    ck_assert_int_eq(reply->status, 201);
    ck_assert_str_eq(reply_header(reply, "Location"), "/v1/images/1");
    ck_assert_str_eq(reply_str(reply, "type"), picture_media_type(kind));
    ck_assert_int_eq(reply_i64(reply, "width"), 400);
    ck_assert_int_eq(reply_i64(reply, "height"), 300);
    ck_assert_int_eq(reply_i64(reply, "bytes"), (int64_t)picture.size);
    ck_assert_str_eq(get("/v1/images/1", NULL)->body, reply->body);
    row = PQexecParams(pg, "select data from image_pieces where image_id = 1", 0, NULL, NULL, NULL,
                       NULL, 1);
    ck_assert_uint_eq((size_t)PQgetlength(row, 0, 0), picture.size);
    ck_assert_mem_eq(PQgetvalue(row, 0, 0), picture.data, picture.size);
    PQclear(row);
    free(picture.data);

    reply = get("/v1/thumbnails/1?width=100", NULL);
    ck_assert_int_eq(reply->status, 200);
    ck_assert_str_eq(reply_header(reply, "Content-Type"), type);
    ck_assert_str_eq(reply_header(reply, "Cache-Control"), "public, max-age=31536000, immutable");
    ck_assert_ptr_nonnull(strstr(reply_header(reply, "Server-Timing"), "thumbnail;desc=made"));
    free(picture_decode(reply->body, reply->body_size, &width, &height));
    ck_assert_uint_eq(width, 100);
    ck_assert_uint_eq(height, 75);

    again = get("/v1/thumbnails/1?width=100", NULL);
    ck_assert_ptr_nonnull(strstr(reply_header(again, "Server-Timing"), "thumbnail;desc=stored"));
    ck_assert_uint_eq(again->body_size, reply->body_size);
    ck_assert_mem_eq(again->body, reply->body, reply->body_size);
    ck_assert_str_eq(reply_header(again, "ETag"), reply_header(reply, "ETag"));
    (void)snprintf(header, sizeof(header), "If-None-Match: %s\r\n", reply_header(reply, "ETag"));
    again = get("/v1/thumbnails/1?width=100", header);
    ck_assert_int_eq(again->status, 304);
    ck_assert_str_eq(reply_header(again, "ETag"), reply_header(reply, "ETag"));
    ck_assert_int_eq(count("thumbnails"), 1);
}
END_TEST

/* Decoders pass over what comes behind a JPEG. The last piece is short. */
START_TEST(image_of_many_pieces_is_whole)
{
    const size_t size = 3 * PIECE_SIZE + 1;
    struct picture picture = picture_make(PICTURE_JPEG, 400, 300);
    uint8_t *data = malloc(size);
    PGresult *row;
    struct reply *reply;

    ck_assert_uint_lt(picture.size, PIECE_SIZE);
    for (size_t i = 0; i < size; i++) {
        data[i] = (uint8_t)(i * i >> 5);
    }
    memcpy(data, picture.data, picture.size);
    free(picture.data);
    start(NULL);
    reply = upload(data, size);
    ck_assert_int_eq(reply->status, 201);
    ck_assert_int_eq(reply_i64(reply, "bytes"), (int64_t)size);
    ck_assert_int_eq(count("image_pieces"), 4);
    row = PQexecParams(pg, "select string_agg(data, '' order by number) from image_pieces", 0, NULL,
                       NULL, NULL, NULL, 1);
    ck_assert_uint_eq((size_t)PQgetlength(row, 0, 0), size);
    ck_assert_mem_eq(PQgetvalue(row, 0, 0), data, size);
    PQclear(row);
    ck_assert_int_eq(pgview_i64(pg, "select max(octet_length(data)) from image_pieces", NULL),
                     PIECE_SIZE);
    ck_assert_int_eq(get("/v1/thumbnails/1?width=100", NULL)->status, 200);
    free(data);
}
END_TEST

/* Wider than the image is as wide as it is: one thumbnail for all of these. */
START_TEST(thumbnail_is_never_enlarged)
{
    struct reply *first;

    start(NULL);
    ck_assert_int_eq(upload_kind(PICTURE_PNG, 100, 50), 1);
    first = get("/v1/thumbnails/1", NULL); /* 320. */
    ck_assert_int_eq(first->status, 200);
    ck_assert_str_eq(reply_header(get("/v1/thumbnails/1?width=2048", NULL), "ETag"),
                     reply_header(first, "ETag"));
    ck_assert_int_eq(pgview_i64(pg, "select width from thumbnails", NULL), 100);
    ck_assert_int_eq(pgview_i64(pg, "select height from thumbnails", NULL), 50);
}
END_TEST

/* A PNG's head: so many pixels, and nothing behind it. */
#define PNG_HEAD(size) "\x89PNG\r\n\x1A\n\0\0\0\rIHDR" size "\x08\x02\0\0\0"

static const struct {
    const char *data;
    size_t size;
    int status;
    const char *code;
    const char *word;
} bad_uploads[] = {
    {"", 0, 400, "invalid", "the body is empty"},
    {"hello", 5, 415, "unsupported_media_type", "a JPEG, a PNG or a WebP"},
    {"GIF89a\1\0\1\0", 10, 415, "unsupported_media_type", "a JPEG, a PNG or a WebP"},
    {"\xFF\xD8\xFF", 3, 422, "unprocessable", "broken JPEG"},
    {"\xFF\xD8\xFF\xD9", 4, 422, "unprocessable", "broken JPEG"},
    {"\x89PNG\r\n\x1A\n\0\0", 10, 422, "unprocessable", "broken PNG"},
    {"RIFF\4\0\0\0WEBPVP8 ", 16, 422, "unprocessable", "broken WebP"},
    /* Sixteen zeros, and a wrong sum. */
    {PNG_HEAD("\0\0\0\0\0\0\0\0") "\0\0\0\0", 33, 422, "unprocessable", "broken PNG"},
};

START_TEST(upload_that_is_no_image_is_refused)
{
    struct reply *reply;

    start(NULL);
    reply = upload(bad_uploads[_i].data, bad_uploads[_i].size);
    expect_problem(reply, bad_uploads[_i].status, bad_uploads[_i].code, bad_uploads[_i].word);
    if (reply->status == 415) {
        ck_assert_str_eq(reply_header(reply, "Accept"), "image/jpeg, image/png, image/webp");
    }
    ck_assert_int_eq(count("images"), 0);
}
END_TEST

START_TEST(upload_of_too_many_pixels_is_refused)
{
    struct picture picture = picture_make(PICTURE_JPEG, 200, 101);
    struct reply *reply;
    uint8_t *size;

    start("CURFEW_IMAGE_PIXELS=20000");
    expect_problem(upload(picture.data, picture.size), 422, "unprocessable",
                   "200 x 101 pixels are more than 20000");

    /* A bomb: SOF0 says 65,500 x 65,500. */
    size = memmem(picture.data, picture.size, "\xFF\xC0\0\x11\x08", 5);
    ck_assert_ptr_nonnull(size);
    memcpy(size + 5, "\xFF\xDC\xFF\xDC", 4);
    reply = upload(picture.data, picture.size);
    expect_problem(reply, 422, "unprocessable", "65500 x 65500 pixels are more than 20000");
    free(picture.data);
    ck_assert_int_eq(upload_kind(PICTURE_JPEG, 200, 100), 1);
}
END_TEST

/* What has to be decoded as a whole, and what has not. */
START_TEST(upload_that_takes_too_much_memory_is_refused)
{
    struct picture picture = picture_make(PICTURE_JPEG_PROGRESSIVE, 1000, 1000);

    start("CURFEW_IMAGE_MEMORY=8m");
    expect_problem(upload(picture.data, picture.size), 422, "unprocessable", "bytes to decode");
    free(picture.data);
    ck_assert_int_eq(upload_kind(PICTURE_JPEG, 1000, 1000), 1);
    ck_assert_int_eq(get("/v1/thumbnails/1?width=64", NULL)->status, 200);
}
END_TEST

/* Images may be larger than other bodies, and those not larger for it. */
START_TEST(upload_of_too_many_bytes_is_refused)
{
    static char zeros[3000000];
    int fd;

    start("CURFEW_IMAGE_SIZE=2m");
    expect_problem(post("/v1/images", "", zeros, 2 * 1024 * 1024), 415, "unsupported_media_type",
                   "");
    expect_problem(post("/v1/images", "", zeros, 2 * 1024 * 1024 + 1), 413, "too_large", "");
    expect_problem(post("/v1/thumbnails", "", zeros, 2 * 1024 * 1024), 413, "too_large", "");
    fd = client_open(service->api_port);
    client_request(fd, "POST", "/v1/images", "Transfer-Encoding: chunked\r\n");
    client_send(fd, "2DC6C0\r\n");
    (void)send_all(fd, zeros, sizeof(zeros));
    expect_problem(client_recv(fd, "POST"), 413, "too_large", "");
    (void)close(fd);
    ck_assert_int_eq(get("/readyz", NULL)->status, 200);
}
END_TEST

START_TEST(upload_that_is_slow_ends_at_the_bodys_deadline)
{
    struct picture picture = picture_make(PICTURE_PNG, 100, 100);
    char head[128];
    struct reply *reply;
    int fd;

    start("CURFEW_BODY_TIMEOUT=300ms");
    fd = client_open(service->api_port);
    (void)snprintf(head, sizeof(head), "Content-Length: %zu\r\n", picture.size);
    client_request(fd, "POST", "/v1/images", head);
    ck_assert(send_all(fd, picture.data, picture.size / 2));
    reply = client_recv(fd, "POST");
    expect_problem(reply, 408, "request_timeout", "");
    (void)close(fd);
    free(picture.data);
    ck_assert_int_eq(count("images"), 0);
}
END_TEST

/* Batches */

START_TEST(batch_has_each_result_on_its_own)
{
    struct picture picture = picture_make(PICTURE_JPEG, 400, 300);
    struct reply *reply;

    start(NULL);
    ck_assert_int_eq(upload(picture.data, picture.size)->status, 201);
    ck_assert_int_eq(upload(picture.data, picture.size / 2)->status, 201); /* Its head is whole. */
    ck_assert_int_eq(upload_kind(PICTURE_WEBP_ALPHA, 50, 50), 3);
    free(picture.data);
    ck_assert_int_eq(get("/v1/thumbnails/3?width=100", NULL)->status, 200);
    reply = ask("{\"image_ids\":[1,2,3,4,1],\"width\":100}");
    ck_assert_msg(reply->status == 200, "%s", reply->body);
    ck_assert_uint_eq(json_array_size(reply_at(reply, "thumbnails")), 5);
    ck_assert_int_eq(reply_i64(reply, "failed"), 2);
    ck_assert_int_eq(reply_i64(reply, "thumbnails.0.image_id"), 1);
    ck_assert_str_eq(reply_str(reply, "thumbnails.0.type"), "image/jpeg");
    ck_assert_int_eq(reply_i64(reply, "thumbnails.0.width"), 100);
    ck_assert_int_eq(reply_i64(reply, "thumbnails.0.height"), 75);
    /* Asked for twice; who came first to the database is open. */
    ck_assert(json_is_true(reply_at(reply, "thumbnails.0.made")) ||
              json_is_true(reply_at(reply, "thumbnails.4.made")));
    ck_assert_int_eq(reply_i64(reply, "thumbnails.1.image_id"), 2);
    ck_assert_str_eq(reply_str(reply, "thumbnails.1.error.code"), "invalid");
    ck_assert_ptr_nonnull(strstr(reply_str(reply, "thumbnails.1.error.detail"), "broken JPEG"));
    ck_assert_str_eq(reply_str(reply, "thumbnails.2.type"), "image/png");
    ck_assert_int_eq(reply_i64(reply, "thumbnails.2.width"), 50);
    ck_assert(json_is_false(reply_at(reply, "thumbnails.2.made")));
    ck_assert_str_eq(reply_str(reply, "thumbnails.3.error.code"), "not_found");
    ck_assert_str_eq(reply_str(reply, "thumbnails.3.error.detail"), "there is no image 4");
    ck_assert_int_eq(reply_i64(reply, "thumbnails.4.image_id"), 1);
    ck_assert_int_eq(count("thumbnails"), 2);
    reply = get(reply_str(reply, "thumbnails.0.url"), NULL);
    ck_assert_int_eq(reply->status, 200);
    expect_problem(get("/v1/thumbnails/2", NULL), 422, "unprocessable", "broken JPEG");
    expect_problem(get("/v1/thumbnails/4", NULL), 404, "not_found", "there is no image 4");
    expect_problem(get("/v1/images/4", NULL), 404, "not_found", "there is no image 4");
}
END_TEST

static const struct {
    const char *body;
    int status;
    const char *word;
} bad_batches[] = {
    {"", 400, "empty"},
    {"[]", 422, "must be a JSON object"},
    {"{}", 422, "image_ids must be an array of 1 to 100 integers"},
    {"{\"image_ids\":[]}", 422, "image_ids must be an array of 1 to 100 integers"},
    {"{\"image_ids\":7}", 422, "image_ids must be an array of 1 to 100 integers"},
    {"{\"image_ids\":[1,0]}", 422, "image_ids[1] must be an integer from 1"},
    {"{\"image_ids\":[\"1\"]}", 422, "image_ids[0] must be an integer from 1"},
    {"{\"image_ids\":[1],\"width\":15}", 422, "width must be an integer from 16 to 2048"},
    {"{\"image_ids\":[1],\"width\":2049}", 422, "width must be an integer from 16 to 2048"},
    {"{\"image_ids\":[1],\"height\":20}", 422, "height is not known here"},
};

START_TEST(batch_that_cannot_be_is_refused)
{
    start(NULL);
    for (int i = 0; i < N(bad_batches); i++) {
        expect_problem(ask(bad_batches[i].body), bad_batches[i].status,
                       bad_batches[i].status == 400 ? "invalid" : "unprocessable",
                       bad_batches[i].word);
    }
}
END_TEST

/* An answer at the deadline, and no work behind it; what was asked for again is made then. */
START_TEST(deadline_ends_a_batch_and_its_work)
{
    const char *body;
    struct reply *reply;
    int64_t since_ns;
    int64_t sent_ns;
    int64_t took_ns;

    start(NULL);
    body = upload_forty(3);
    since_ns = cpu_ns();
    sent_ns = cf_now_ns();
    reply = post("/v1/thumbnails", "Content-Type: application/json\r\nRequest-Timeout-Ms: 500\r\n",
                 body, strlen(body));
    took_ns = cf_now_ns() - sent_ns;
    expect_problem(reply, 504, "deadline_exceeded", "");
    ck_assert_int_ge(took_ns, 500 * CF_MS);
    ck_assert_int_lt(took_ns, bound(1500 * CF_MS));
    ck_assert_int_gt(cpu_ns() - since_ns, 50 * CF_MS); /* It was at work. */
    expect_rest();
    ck_assert_int_lt(count("thumbnails"), 40);
    ck_assert_int_eq(get("/v1/thumbnails/1?width=64", NULL)->status, 200);
}
END_TEST

START_TEST(client_that_leaves_ends_its_work)
{
    const char *body;
    json_t *line;
    int fd;

    start(NULL);
    body = upload_forty(1);
    fd = begin("/v1/thumbnails", "Content-Type: application/json\r\n", body, strlen(body));
    pause_ms(300);
    (void)close(fd);
    line = service_find_line(service, "cancel_cause", "client_gone", CLIENT_WAIT_NS);
    ck_assert_ptr_nonnull(line);
    json_decref(line);
    expect_rest();
    ck_assert_int_eq(get("/v1/thumbnails/1?width=64", NULL)->status, 200);
}
END_TEST

/* The teardown sees that it ends in order. */
START_TEST(stop_ends_the_work)
{
    const char *body;
    int fd;

    start(NULL);
    body = upload_forty(1);
    fd = begin("/v1/thumbnails", "Content-Type: application/json\r\n", body, strlen(body));
    pause_ms(100);
    service_signal(service, SIGTERM);
    ck_assert_int_eq(service_wait(service, bound(5 * CF_SECOND)), 0);
    (void)close(fd);
}
END_TEST

/* Each insert is counted, also one that finds that somebody was first. */
START_TEST(crowd_has_one_made)
{
    int fds[50];

    pgview_exec(pg, "create table inserts (n int);"
                    "create function count_insert() returns trigger language plpgsql as"
                    " 'begin insert into inserts values (1); return new; end';"
                    "create trigger t before insert on thumbnails for each row"
                    " execute function count_insert()");
    start(NULL);
    ck_assert_int_eq(upload_kind(PICTURE_PNG, 2000, 1500), 1);
    for (int i = 0; i < N(fds); i++) {
        fds[i] = client_open(service->api_port);
        client_request(fds[i], "GET", "/v1/thumbnails/1?width=200", NULL);
    }
    for (int i = 0; i < N(fds); i++) {
        ck_assert_int_eq(client_recv(fds[i], "GET")->status, 200);
        (void)close(fds[i]);
    }
    ck_assert_int_eq(count("inserts"), 1);
}
END_TEST

/* With room for one at a time, all are made, one after another. */
START_TEST(memory_for_one_makes_all)
{
    struct reply *reply;

    start("CURFEW_IMAGE_MEMORY=14m");
    for (int i = 1; i <= 6; i++) {
        ck_assert_int_eq(upload_kind(PICTURE_PNG_INTERLACED, 1500, 1000), i);
    }
    reply = ask("{\"image_ids\":[1,2,3,4,5,6],\"width\":100}");
    ck_assert_msg(reply->status == 200, "%s", reply->body);
    ck_assert_int_eq(reply_i64(reply, "failed"), 0);
    ck_assert_int_eq(count("thumbnails"), 6);
}
END_TEST

START_TEST(image_that_was_deleted_has_no_thumbnails)
{
    start(NULL);
    ck_assert_int_eq(upload_kind(PICTURE_JPEG, 100, 100), 1);
    ck_assert_int_eq(get("/v1/thumbnails/1?width=50", NULL)->status, 200);
    pgview_exec(pg, "delete from images");
    ck_assert_int_eq(count("thumbnails"), 0);
    ck_assert_int_eq(count("image_pieces"), 0);
    expect_problem(get("/v1/thumbnails/1?width=50", NULL), 404, "not_found", "there is no image 1");
}
END_TEST

Suite *suite_images(void)
{
    Suite *suite = suite_create("images");
    TCase *uploads = tcase_create("upload");
    TCase *batch = tcase_create("thumbnails");

    tcase_add_checked_fixture(uploads, setup, teardown);
    tcase_add_loop_test(uploads, image_of_each_kind_is_kept_and_made_small, 0, PICTURE_KINDS);
    tcase_add_test(uploads, image_of_many_pieces_is_whole);
    tcase_add_test(uploads, thumbnail_is_never_enlarged);
    tcase_add_loop_test(uploads, upload_that_is_no_image_is_refused, 0, N(bad_uploads));
    tcase_add_test(uploads, upload_of_too_many_pixels_is_refused);
    tcase_add_test(uploads, upload_that_takes_too_much_memory_is_refused);
    tcase_add_test(uploads, upload_of_too_many_bytes_is_refused);
    tcase_add_test(uploads, upload_that_is_slow_ends_at_the_bodys_deadline);
    tcase_set_timeout(uploads, 30);
    suite_add_tcase(suite, uploads);

    tcase_add_checked_fixture(batch, setup, teardown);
    tcase_add_test(batch, batch_has_each_result_on_its_own);
    tcase_add_test(batch, batch_that_cannot_be_is_refused);
    tcase_add_test(batch, deadline_ends_a_batch_and_its_work);
    tcase_add_test(batch, client_that_leaves_ends_its_work);
    tcase_add_test(batch, stop_ends_the_work);
    tcase_add_test(batch, crowd_has_one_made);
    tcase_add_test(batch, memory_for_one_makes_all);
    tcase_add_test(batch, image_that_was_deleted_has_no_thumbnails);
    tcase_set_timeout(batch, 60);
    suite_add_tcase(suite, batch);
    return suite;
}
