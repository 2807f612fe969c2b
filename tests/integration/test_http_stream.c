/* SPDX-License-Identifier: MIT */
/* Streamed replies: whole, broken, late, stopped. */
#include "stream_kit.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* stream */

static const size_t sizes[] = {1, 26, 1000, 65535, 65536, 65537, 70000, 1000000};

START_TEST(stream_of_every_size_is_whole)
{
    struct seen record;
    struct chunks chunks;
    char target[64];
    int fd = client_open(site.port);

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
    int fd = client_open(site.port);
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
    int fd = client_open(site.port);
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
    struct seen record;
    int fd = client_open(site.port);
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
    int fd = client_open(site.port);
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
    ck_assert_str_eq(client_get(site.port, "/plain", NULL)->body, "no stream after all");
}
END_TEST

START_TEST(stream_leaves_the_connection_to_what_was_pipelined)
{
    struct chunks chunks;
    int fd = client_open(site.port);

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
    int fd = client_open(site.port);
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
    struct reply *reply = client_get(site.port, "/failing?size=0", NULL);

    ck_assert_int_eq(reply->status, 500);
    ck_assert_str_eq(reply_header(reply, "Content-Type"), "application/problem+json");
}
END_TEST

START_TEST(failure_for_want_of_memory_is_a_problem)
{
    struct reply *reply = client_get(site.port, "/poor", NULL);

    ck_assert_int_eq(reply->status, 503);
    ck_assert_str_eq(reply_str(reply, "code"), "out_of_memory");
    ck_assert_int_eq(wait_ended(), CF_ENOMEM);
}
END_TEST

START_TEST(failure_of_a_header_is_a_problem)
{
    ck_assert_int_eq(client_get(site.port, "/spoilt", NULL)->status, 500);
    ck_assert_int_eq(wait_ended(), CF_EINTERNAL);
}
END_TEST

static const size_t failing_sizes[] = {1, 1000, 65536, 1000000};

START_TEST(failure_in_the_middle_has_last_words_and_no_end)
{
    size_t want = failing_sizes[_i];
    struct seen record;
    struct chunks chunks;
    char target[64];
    int fd = client_open(site.port);
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

/* deadline */

START_TEST(deadline_ends_a_write_that_waits)
{
    struct seen record;
    struct chunks chunks;
    int fd = open_and_stall("/endless?timeout=200ms", &chunks);

    ck_assert_int_eq(wait_ended(), CF_EDEADLINE);
    free(chunks_read_all(&chunks, NULL));
    ck_assert(!chunks.is_whole);
    record = wait_done(1);
    ck_assert_int_eq(record.status, 200);
    ck_assert(record.is_broken);
    ck_assert_int_eq(record.code, CF_EDEADLINE);
    ck_assert_int_eq(record.reason, CF_REASON_DEADLINE);
    (void)close(fd);
    expect_nothing_left();
}
END_TEST

START_TEST(deadline_leaves_time_for_last_words)
{
    struct chunks chunks;
    int fd = client_open(site.port);
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
    int fd = client_open(site.port);

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
    ck_assert_int_eq(client_get(site.port, "/endless?timeout=0ms", NULL)->status, 504);
    ck_assert_uint_eq(atomic_load(&stream.written), 0);
}
END_TEST

/* stop */

static void *stop_with_grace(void *arg)
{
    (void)arg;
    cf_http_server_stop(site.server, CLIENT_WAIT_NS);
    return NULL;
}

START_TEST(stop_waits_for_a_stream_in_its_grace)
{
    struct chunks chunks;
    int fd = client_open(site.port);
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
    struct seen record;
    struct chunks chunks;
    int fd = open_and_stall("/endless", &chunks);

    cf_http_server_stop(site.server, 0);
    ck_assert_int_eq(wait_ended(), CF_ECANCELED);
    free(chunks_read_all(&chunks, NULL));
    ck_assert(!chunks.is_whole);
    record = wait_done(1);
    ck_assert_int_eq(record.status, 200);
    ck_assert(record.is_broken);
    ck_assert_int_eq(record.reason, CF_REASON_SHUTDOWN);
    (void)close(fd);
}
END_TEST

START_TEST(stop_waits_for_a_handler_whose_connection_has_ended)
{
    struct chunks chunks;
    int fd = open_and_stall("/heedless", &chunks);

    client_reset(fd);
    wait_count(count_connections, 0);
    cf_http_server_stop(site.server, 0);
    ck_assert_int_eq(sem_trywait(&stream.ended), 0);
    ck_assert_int_eq(wait_done(1).status, 499);
}
END_TEST

Suite *suite_http_stream(void)
{
    Suite *suite = suite_create("http_stream");
    TCase *tc = stream_add_case(suite, "stream");

    tcase_add_loop_test(tc, stream_of_every_size_is_whole, 0, N(sizes));
    tcase_add_test(tc, stream_without_a_piece_is_whole);
    tcase_add_test(tc, stream_to_http_1_0_ends_with_the_connection);
    tcase_add_test(tc, stream_to_head_is_its_head);
    tcase_add_test(tc, stream_pieces_come_as_they_are_written);
    tcase_add_test(tc, stream_that_another_reply_replaces_is_none);
    tcase_add_test(tc, stream_leaves_the_connection_to_what_was_pipelined);
    tcase_add_test(tc, stream_is_written_by_a_task);

    tc = stream_add_case(suite, "asserted");
    tcase_add_test_raise_signal(tc, stream_written_by_two_at_once_asserts, SIGABRT);
    tcase_set_tags(tc, "fork");

    tc = stream_add_case(suite, "failure");
    tcase_add_test(tc, failure_before_the_first_piece_is_a_problem);
    tcase_add_test(tc, failure_for_want_of_memory_is_a_problem);
    tcase_add_test(tc, failure_of_a_header_is_a_problem);
    tcase_add_loop_test(tc, failure_in_the_middle_has_last_words_and_no_end, 0, N(failing_sizes));

    tc = stream_add_case(suite, "deadline");
    tcase_add_test(tc, deadline_ends_a_write_that_waits);
    tcase_add_test(tc, deadline_leaves_time_for_last_words);
    tcase_add_test(tc, deadline_behind_the_last_piece_is_no_failure);
    tcase_add_test(tc, deadline_passed_already_is_a_problem);

    tc = stream_add_case(suite, "stop");
    tcase_add_test(tc, stop_waits_for_a_stream_in_its_grace);
    tcase_add_test(tc, stop_cuts_a_write_that_waits);
    tcase_add_test(tc, stop_waits_for_a_handler_whose_connection_has_ended);
    return suite;
}
