/* SPDX-License-Identifier: MIT */
/* What a client says that it takes: types (Accept), and codings (Accept-Encoding). */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client.h"
#include "gunzip.h"
#include "pgview.h"
#include "service.h"

#define N(table) (int)(sizeof(table) / sizeof((table)[0]))

#define PROBLEM "application/problem+json"
#define JSON "application/json"
#define NDJSON "application/x-ndjson"
#define CSV "text/csv; charset=utf-8; header=present"

/* Fixture */

static struct service *service;

static void setup(void)
{
    service = service_start_ready(NULL, NULL);
}

static void teardown(void)
{
    service_stop_all();
    client_free_all();
}

/* Accept */

#define ACCEPT(value) "Accept: " value "\r\n"

/* An export is asked for by HEAD, which says what would come. */
static const struct {
    const char *method;
    const char *target;
    const char *headers;
    int status;
    const char *type;
} accepts[] = {
    {"GET", "/v1/users/1", NULL, 200, JSON},
    {"GET", "/v1/users/1", ACCEPT(""), 200, JSON},
    {"GET", "/v1/users/1", ACCEPT("*/*"), 200, JSON},
    {"GET", "/v1/users/1", ACCEPT("application/*"), 200, JSON},
    {"GET", "/v1/users/1", ACCEPT("application/json;charset=utf-8"), 200, JSON},
    {"GET", "/v1/users/1", ACCEPT("text/html, application/json;q=0.001"), 200, JSON},
    {"GET", "/v1/users/1", ACCEPT("text/html") ACCEPT("application/json"), 200, JSON},
    {"GET", "/v1/users/1", ACCEPT("nonsense"), 200, JSON},
    {"GET", "/v1/users/1", ACCEPT("text/html"), 406, PROBLEM},
    {"GET", "/v1/users/1", ACCEPT("application/json;q=0"), 406, PROBLEM},
    {"GET", "/v1/users/1", ACCEPT("application/json;q=0, */*"), 406, PROBLEM},
    {"GET", "/v1/users/1", ACCEPT("*/*;q=0"), 406, PROBLEM},
    {"GET", "/v1/users/1", ACCEPT("application/problem+json"), 406, PROBLEM},
    {"HEAD", "/v1/users/1", ACCEPT("text/html"), 406, PROBLEM},
    {"OPTIONS", "/v1/users/1", ACCEPT("text/html"), 204, NULL},
    {"GET", "/v1/dashboard", ACCEPT("text/html"), 406, PROBLEM},
    /* A problem goes out whatever is asked for. */
    {"GET", "/v1/users/0", ACCEPT("application/json"), 400, PROBLEM},
    {"GET", "/nowhere", ACCEPT("text/html"), 404, PROBLEM},
    {"POST", "/v1/users/1", ACCEPT("text/html") "Content-Length: 0\r\n", 405, PROBLEM},
    /* And so does whether the process lives. */
    {"GET", "/livez", ACCEPT("text/plain"), 200, JSON},
    {"GET", "/readyz", ACCEPT("text/plain"), 200, JSON},
    {"HEAD", "/v1/orders/export", NULL, 200, NDJSON},
    {"HEAD", "/v1/orders/export", ACCEPT("*/*"), 200, NDJSON},
    {"HEAD", "/v1/orders/export", ACCEPT("text/csv"), 200, CSV},
    {"HEAD", "/v1/orders/export", ACCEPT("text/csv;q=0.5, application/x-ndjson"), 200, NDJSON},
    {"HEAD", "/v1/orders/export", ACCEPT("application/json"), 406, PROBLEM},
    {"HEAD", "/v1/orders/export", ACCEPT("text/csv;q=0"), 406, PROBLEM},
    {"HEAD", "/v1/orders/export?format=csv", ACCEPT("application/json"), 200, CSV},
    {"HEAD", "/v1/orders/export?format=ndjson", ACCEPT("text/csv"), 200, NDJSON},
    {"HEAD", "/v1/orders/export?format=xml", ACCEPT("application/xml"), 400, PROBLEM},
};

START_TEST(accept_of_nothing_that_there_is_gets_406)
{
    for (int i = 0; i < N(accepts); i++) {
        struct reply *reply = client_call(service->api_port, accepts[i].method, accepts[i].target,
                                          accepts[i].headers);
        const char *type = reply_header(reply, "Content-Type");

        ck_assert_msg(reply->status == accepts[i].status, "%s %s: %d", accepts[i].target,
                      accepts[i].headers, reply->status);
        if (accepts[i].type == NULL) {
            ck_assert_ptr_null(type);
        } else {
            ck_assert_str_eq(type, accepts[i].type);
        }
        if (reply->status == 406 && strcmp(accepts[i].method, "GET") == 0) {
            ck_assert_str_eq(reply_str(reply, "code"), "not_acceptable");
            ck_assert_str_eq(reply_str(reply, "detail"), "Accept must allow application/json");
        }
    }
}
END_TEST

/* What cannot be answered is not done. */
START_TEST(accept_of_nothing_leaves_a_write_undone)
{
    PGconn *pg = pgview_open(NULL);
    int64_t n = pgview_i64(pg, "select max(id) from orders", NULL);
    int fd = client_open(service->api_port);

    client_request(fd, "POST", "/v1/orders",
                   ACCEPT("text/html") "Idempotency-Key: 406\r\nContent-Type: application/json\r\n"
                                       "Content-Length: 29\r\n");
    client_send(fd, "{\"user_id\":1,\"total_cents\":1}");
    ck_assert_int_eq(client_recv(fd, "POST")->status, 406);
    ck_assert_int_eq(pgview_i64(pg, "select max(id) from orders", NULL), n);
    (void)close(fd);
    PQfinish(pg);
}
END_TEST

/* Accept-Encoding */

#define GZIP "Accept-Encoding: gzip\r\n"

static void expect_gzip_of(struct reply *reply, const struct reply *plain)
{
    size_t size;
    char *text;

    ck_assert_int_eq(reply->status, 200);
    ck_assert_str_eq(reply_header(reply, "Content-Encoding"), "gzip");
    ck_assert_str_eq(reply_header(reply, "Vary"), "Accept-Encoding");
    text = gunzip(reply->body, reply->body_size, &size);
    ck_assert_uint_lt(reply->body_size, size / 2);
    ck_assert_str_eq(text, plain->body);
    free(text);
}

START_TEST(gzip_of_a_list_is_the_list)
{
    struct reply *plain = client_get(service->api_port, "/v1/users?limit=200", NULL);

    expect_gzip_of(client_get(service->api_port, "/v1/users?limit=200", GZIP), plain);
    ck_assert_ptr_null(reply_header(plain, "Content-Encoding"));
    ck_assert_str_eq(reply_header(plain, "Vary"), "Accept-Encoding");
    ck_assert_ptr_null(
        reply_header(client_get(service->api_port, "/v1/users/1", GZIP), "Content-Encoding"));
}
END_TEST

/* Each form has its tag, and the answer to it. */
START_TEST(gzip_of_a_cached_dashboard_has_a_tag_of_its_own)
{
    static const char target[] = "/v1/dashboard";
    struct service *cached =
        service_start_ready(NULL, (const char *[]){"CURFEW_CACHE_TTL=1m", NULL});
    struct reply *plain = client_get(cached->api_port, target, NULL);
    char expected[64];
    char headers[160];

    (void)snprintf(expected, sizeof(expected), "%.33s-gzip\"", reply_header(plain, "ETag"));
    for (int i = 0; i < 2; i++) {
        struct reply *reply = client_get(cached->api_port, target, GZIP);
        struct reply *head = client_call(cached->api_port, "HEAD", target, GZIP);

        expect_gzip_of(reply, plain);
        ck_assert_str_eq(reply_header(reply, "ETag"), expected);
        ck_assert_str_eq(reply_header(head, "ETag"), expected);
        ck_assert_str_eq(reply_header(head, "Content-Length"),
                         reply_header(reply, "Content-Length"));
        (void)snprintf(headers, sizeof(headers), GZIP "If-None-Match: %s\r\n", expected);
        reply = client_get(cached->api_port, target, headers);
        ck_assert_int_eq(reply->status, 304);
        ck_assert_str_eq(reply_header(reply, "ETag"), expected);
        ck_assert_str_eq(reply_header(reply, "Vary"), "Accept-Encoding");
    }
    (void)snprintf(headers, sizeof(headers), "If-None-Match: %s\r\n", expected);
    ck_assert_int_eq(client_get(cached->api_port, target, headers)->status, 200);
    (void)snprintf(headers, sizeof(headers), "If-None-Match: %s\r\n", reply_header(plain, "ETag"));
    ck_assert_int_eq(client_get(cached->api_port, target, headers)->status, 304);
}
END_TEST

Suite *suite_negotiation(void)
{
    Suite *suite = suite_create("negotiation");
    TCase *accept = tcase_create("accept");
    TCase *encoding = tcase_create("encoding");

    tcase_add_checked_fixture(accept, setup, teardown);
    tcase_add_test(accept, accept_of_nothing_that_there_is_gets_406);
    tcase_add_test(accept, accept_of_nothing_leaves_a_write_undone);
    suite_add_tcase(suite, accept);

    tcase_add_checked_fixture(encoding, setup, teardown);
    tcase_add_test(encoding, gzip_of_a_list_is_the_list);
    tcase_add_test(encoding, gzip_of_a_cached_dashboard_has_a_tag_of_its_own);
    suite_add_tcase(suite, encoding);
    return suite;
}
