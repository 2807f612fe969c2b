/* SPDX-License-Identifier: MIT */
/* Every order, streamed: whole, refused, late, and left by its client. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chunks.h"
#include "client.h"
#include "pgview.h"
#include "service.h"

#define EXPORTING "FROM orders ORDER BY id$"

/* Fixture */

static struct service *service;
static PGconn *pg;

static void setup(void)
{
    pg = pgview_open(NULL);
    service = service_start_ready(
        NULL, (const char *[]){"CURFEW_POOL=4", "CURFEW_LOOPS=1", "CURFEW_EXPORTS=1", NULL});
}

static void teardown(void)
{
    service_stop_all();
    client_free_all();
    PQfinish(pg);
}

/* export */

START_TEST(export_of_all_ends_with_their_number)
{
    struct chunks chunks;
    char end[64];
    size_t size;
    char *body;
    int fd = client_open(service->api_port);

    client_request(fd, "GET", "/v1/orders/export", NULL);
    chunks_begin(&chunks, fd);
    ck_assert_int_eq(chunks.status, 200);
    body = chunks_read_all(&chunks, &size);
    ck_assert(chunks.is_whole);
    (void)snprintf(end, sizeof(end), "{\"_end\":true,\"rows\":%lld}\n",
                   (long long)pgview_i64(pg, "select count(*) from orders", NULL));
    ck_assert_uint_gt(size, strlen(end));
    ck_assert_str_eq(body + size - strlen(end), end);
    free(body);
    (void)close(fd);
}
END_TEST

START_TEST(export_of_bad_arguments_is_refused)
{
    ck_assert_int_eq(client_get(service->api_port, "/v1/orders/export?format=xml", NULL)->status,
                     400);
    ck_assert_int_eq(client_get(service->api_port, "/v1/orders/export?status=lost", NULL)->status,
                     400);
}
END_TEST

/* Its place is taken until it leaves; then the query ends, and the next has the place. */
START_TEST(export_that_is_left_ends_its_query)
{
    struct chunks chunks;
    char byte;
    int fd = client_open(service->api_port);

    client_request(fd, "GET", "/v1/orders/export", NULL);
    chunks_begin(&chunks, fd);
    ck_assert_uint_eq(chunks_read(&chunks, &byte, 1), 1);
    ck_assert_int_ge(pgview_wait_active(pg, EXPORTING, 1, 5 * CF_SECOND), 0);
    ck_assert_int_eq(client_get(service->api_port, "/v1/orders/export", NULL)->status, 503);
    (void)close(fd);
    ck_assert_int_ge(pgview_wait_active(pg, EXPORTING, 0, 5 * CF_SECOND), 0);
}
END_TEST

Suite *suite_export(void)
{
    Suite *suite = suite_create("export");
    TCase *tc = tcase_create("export");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, export_of_all_ends_with_their_number);
    tcase_add_test(tc, export_of_bad_arguments_is_refused);
    tcase_add_test(tc, export_that_is_left_ends_its_query);
    tcase_set_timeout(tc, 60);
    suite_add_tcase(suite, tc);
    return suite;
}
