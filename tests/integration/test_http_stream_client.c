/* SPDX-License-Identifier: MIT */
/* Streamed replies and their clients: who read slowly, or nothing, leave, or are many. */
#include "stream_kit.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "effort.h"

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
        ck_assert_uint_lt(atomic_load(&stream.written) - read, HELD_MAX);
        if (i % 10 == 0) {
            ck_assert_str_eq(client_get(site.port, "/plain", NULL)->body, "no stream after all");
        }
    }
    client_reset(fd);
    ck_assert_int_eq(wait_ended(), CF_ECANCELED);
    expect_nothing_left();
}
END_TEST

START_TEST(client_that_leaves_ends_a_write_that_waits)
{
    struct seen record;
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
    ck_assert_uint_le(record.body_size, atomic_load(&stream.written) + CF_HTTP_STREAM_SIZE);
    expect_nothing_left();
}
END_TEST

START_TEST(client_that_leaves_ends_a_handler_that_has_nothing_to_send)
{
    struct seen record;
    int fd = client_open(site.port);

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
    struct seen record;
    struct chunks chunks;
    int fd = open_and_stall("/endless", &chunks);

    ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
    ck_assert_int_eq(wait_ended(), CF_ECANCELED);
    record = wait_done(1);
    expect_gone(&record);
    wait_count(count_connections, 0); /* Although it reads nothing. */
    (void)close(fd);
    expect_nothing_left();
}
END_TEST

START_TEST(client_that_leaves_is_told_also_without_a_context)
{
    struct seen record;
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
    struct seen record;
    struct chunks chunks;
    int64_t since_ns;
    int fd;

    stream_restart(400 * CF_MS);
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

    stream_restart(400 * CF_MS);
    since_ns = cf_now_ns();
    fd = open_and_stall("/endless", &chunks);
    while (sem_trywait(&stream.ended) != 0) {
        char sip[100];

        (void)recv(fd, sip, sizeof(sip), MSG_DONTWAIT);
        pause_ms(10);
        ck_assert_int_lt(cf_now_ns() - since_ns, CLIENT_WAIT_NS);
    }
    ck_assert_int_eq(atomic_load(&stream.ended_code), CF_ECANCELED);
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

    stream_restart(CF_SECOND);
    fd = client_open(site.port);
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

    stream_restart(200 * CF_MS);
    fd = client_open(site.port);
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
        int fd = client_open(site.port);
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
        int fd = client_open(site.port);

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

Suite *suite_http_stream_client(void)
{
    Suite *suite = suite_create("http_stream_client");
    TCase *tc = stream_add_case(suite, "client");

    tcase_add_test(tc, client_that_reads_slowly_holds_up_its_handler_only);
    tcase_add_loop_test(tc, client_that_leaves_ends_a_write_that_waits, 0, 2);
    tcase_add_loop_test(tc, client_that_leaves_ends_a_handler_that_has_nothing_to_send, 0, 2);
    tcase_add_test(tc, client_that_closes_its_half_has_gone);
    tcase_add_test(tc, client_that_leaves_is_told_also_without_a_context);
    tcase_add_test(tc, client_that_reads_nothing_is_reset_in_time);
    tcase_add_test(tc, client_that_sips_is_reset_in_time);
    tcase_add_test(tc, client_that_keeps_up_is_left_alone);
    tcase_add_test(tc, client_with_nothing_to_read_is_left_alone);
    tcase_add_test(tc, client_that_leaves_races_with_everything);
    tcase_add_test(tc, clients_at_once_have_each_their_own);
    return suite;
}
