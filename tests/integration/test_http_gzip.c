/* SPDX-License-Identifier: MIT */
/* Compressed replies: which are, what they say of themselves,
 * and by which tag a client has them. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/http.h>

#include "client.h"
#include "gunzip.h"

#define N(table) (int)(sizeof(table) / sizeof((table)[0]))
#define GZIP "Accept-Encoding: gzip\r\n"
#define SIZE_DEFAULT 5000

/* Fixture */

static struct cf_loop *loop;
static struct cf_http_server *server;
static uint16_t port;

/* Letters of which a gzip is smaller, in quotes. */
static void write_letters(struct cf_json *json, int64_t size)
{
    char *text = malloc((size_t)size - 1);

    ck_assert_ptr_nonnull(text);
    for (int64_t i = 0; i < size - 2; i++) {
        text[i] = (char)('a' + i * i % 23);
    }
    text[size - 2] = '\0';
    cf_json_str(json, text);
    free(text);
}

/* ?size=&type=&encoding=: JSON of that size, with the ETag "1". */
static enum cf_code sized(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    const char *type = cf_http_query(http, "type");
    const char *encoding = cf_http_query(http, "encoding");
    int64_t size;

    (void)ctx;
    if (cf_http_query_i64(http, "size", 2, 100000000, SIZE_DEFAULT, &size, err) != CF_OK) {
        return CF_EINVAL;
    }
    write_letters(cf_http_reply_json(http, cf_http_has_etag(http, "\"1\"") ? 304 : 200), size);
    cf_http_reply_header(http, "ETag", "\"1\"");
    if (type != NULL) {
        cf_http_reply_header(http, "Content-Type", type);
    }
    if (encoding != NULL) {
        cf_http_reply_header(http, "Content-Encoding", encoding);
    }
    return CF_OK;
}

static enum cf_code change(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    (void)ctx;
    (void)err;
    cf_http_reply_text(http, cf_http_matches(http, "\"1\"") ? 200 : 202, "changed");
    return CF_OK;
}

/* Shared bytes with what is to be taken for their gzip. */
static enum cf_code shared(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    static const char data[] = "plain";
    struct cf_value *gzip;
    struct cf_value *value;
    enum cf_code code = cf_value_new(data, sizeof(data) - 1, &value, err);

    (void)ctx;
    ck_assert_int_eq(code, CF_OK);
    ck_assert_int_eq(cf_http_gzip("compressed", 10, &gzip, err), CF_OK);
    cf_http_reply_shared(http, 200, "text/plain", cf_value_data(value), cf_value_size(value),
                         value);
    cf_http_reply_gzip(http, cf_value_data(gzip), cf_value_size(gzip), gzip);
    cf_value_unref(gzip);
    cf_value_unref(value);
    return CF_OK;
}

static void start(size_t size_min)
{
    static const struct cf_http_route routes[] = {{"GET", "/sized", sized, 0, NULL},
                                                  {"PATCH", "/sized", change, 0, NULL},
                                                  {"GET", "/shared", shared, 0, NULL}};
    struct cf_http_options options = {.listen = "127.0.0.1:0",
                                      .routes = routes,
                                      .n_routes = sizeof(routes) / sizeof(routes[0]),
                                      .gzip_size_min = size_min};
    struct cf_err err = {.msg = ""};

    ck_assert_int_eq(cf_loop_new(NULL, &loop, NULL), CF_OK);
    ck_assert_msg(cf_http_server_new(&options, &loop, 1, &server, &err) == CF_OK, "%s", err.msg);
    port = cf_http_server_port(server);
}

static void setup(void)
{
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

static bool is_gzip(struct reply *reply)
{
    const char *encoding = reply_header(reply, "Content-Encoding");

    return encoding != NULL && strcmp(encoding, "gzip") == 0;
}

/* The text that came, unpacked, is that of the same target without a gzip. */
static void expect_same(struct reply *reply, const char *target)
{
    struct reply *plain = client_get(port, target, NULL);
    size_t size;
    char *text = gunzip(reply->body, reply->body_size, &size);

    ck_assert_uint_eq(size, plain->body_size);
    ck_assert_int_eq(memcmp(text, plain->body, size), 0);
    ck_assert_uint_lt(reply->body_size, size);
    free(text);
}

/* size, type */

static const struct {
    const char *target;
    const char *headers;
    bool is_gzip;
    bool varies;
} replies[] = {
    {"/sized?size=1023", GZIP, false, true},
    {"/sized?size=1024", GZIP, true, true},
    {"/sized?size=131072", GZIP, true, true},
    {"/sized?size=131073", GZIP, false, true},
    {"/sized", NULL, false, true},
    {"/sized", "Accept-Encoding: br\r\n", false, true},
    {"/sized", "Accept-Encoding: br\r\nAccept-Encoding: x, GZip;q=0.1\r\n", true, true},
    /* Nothing plain: also what is small, unless it would get larger. */
    {"/sized?size=200", "Accept-Encoding: gzip, identity;q=0\r\n", true, true},
    {"/sized?size=2", "Accept-Encoding: gzip, identity;q=0\r\n", false, true},
    {"/sized?size=131073", "Accept-Encoding: gzip, *;q=0\r\n", false, true},
    {"/sized?type=text/plain;charset=utf-8", GZIP, true, true},
    {"/sized?type=Application/JSON", GZIP, true, true},
    {"/sized?type=image/png", GZIP, false, false},
    {"/sized?type=text", GZIP, false, false},
    {"/sized?encoding=br", GZIP, false, false},
    {"/sized?size=x", GZIP, false, false}, /* A problem. */
    {"/nowhere", GZIP, false, false},
};

START_TEST(gzip_is_for_what_is_worth_it)
{
    struct reply *reply = client_get(port, replies[_i].target, replies[_i].headers);
    struct reply *head = client_call(port, "HEAD", replies[_i].target, replies[_i].headers);
    static const char *const same[] = {"Content-Length", "Content-Type", "Content-Encoding", "Vary",
                                       "ETag"};
    const char *vary = reply_header(reply, "Vary");

    ck_assert_int_eq(is_gzip(reply), replies[_i].is_gzip);
    ck_assert_int_eq(vary != NULL && strcmp(vary, "Accept-Encoding") == 0, replies[_i].varies);
    if (replies[_i].is_gzip) {
        ck_assert_str_eq(reply_header(reply, "ETag"), "\"1-gzip\"");
        expect_same(reply, replies[_i].target);
    } else if (reply->status == 200) {
        ck_assert_str_eq(reply_header(reply, "ETag"), "\"1\"");
    }
    ck_assert_int_eq(head->status, reply->status);
    ck_assert_uint_eq(head->body_size, 0);
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]) && reply->status == 200; i++) {
        ck_assert_pstr_eq(reply_header(head, same[i]), reply_header(reply, same[i]));
    }
}
END_TEST

START_TEST(gzip_of_what_is_shared_is_the_handlers)
{
    struct reply *reply = client_get(port, "/shared", GZIP);
    size_t size;
    char *text;

    ck_assert(is_gzip(reply));
    text = gunzip(reply->body, reply->body_size, &size);
    ck_assert_str_eq(text, "compressed");
    free(text);
    reply = client_get(port, "/shared", NULL);
    ck_assert_str_eq(reply->body, "plain");
    ck_assert_str_eq(reply_header(reply, "Vary"), "Accept-Encoding");
}
END_TEST

START_TEST(gzip_that_is_off_leaves_no_trace)
{
    struct reply *reply;

    start(SIZE_MAX);
    reply = client_get(port, "/sized", "Accept-Encoding: gzip, identity;q=0\r\n");
    ck_assert(!is_gzip(reply));
    ck_assert_ptr_null(reply_header(reply, "Vary"));
    ck_assert_uint_eq(reply->body_size, SIZE_DEFAULT);
}
END_TEST

/* tags */

static const struct {
    const char *headers;
    int status;
    const char *etag;
} conditions[] = {
    {"If-None-Match: \"1\"\r\n", 304, "\"1\""},
    {"If-None-Match: W/\"1\"\r\n", 304, "\"1\""},
    {"If-None-Match: \"2\", \"1-gzi\", \"1-gzip2\", \"1\r\n", 200, "\"1\""},
    {GZIP "If-None-Match: \"1-gzip\"\r\n", 304, "\"1-gzip\""},
    {GZIP "If-None-Match: \"0\", W/\"1-gzip\"\r\n", 304, "\"1-gzip\""},
    {GZIP "If-None-Match: *\r\n", 304, "\"1-gzip\""},
    {GZIP "If-None-Match: \"2-gzip\"\r\n", 200, "\"1-gzip\""},
    /* A cache that has both is told of the one that it would be sent. */
    {GZIP "If-None-Match: \"1\", \"1-gzip\"\r\n", 304, "\"1-gzip\""},
    {"If-None-Match: \"1\", \"1-gzip\"\r\n", 304, "\"1\""},
    /* One that has the other keeps it, if it can read it. */
    {GZIP "If-None-Match: \"1\"\r\n", 304, "\"1\""},
    {"If-None-Match: \"1-gzip\"\r\n", 200, "\"1\""},
};

START_TEST(tag_of_each_form_is_known)
{
    struct reply *reply = client_get(port, "/sized", conditions[_i].headers);
    struct reply *whole =
        client_get(port, "/sized", strstr(conditions[_i].etag, "gzip") != NULL ? GZIP : NULL);

    ck_assert_int_eq(reply->status, conditions[_i].status);
    ck_assert_str_eq(reply_header(reply, "ETag"), conditions[_i].etag);
    ck_assert_str_eq(reply_header(reply, "Vary"), "Accept-Encoding");
    ck_assert_str_eq(reply_header(reply, "Content-Length"), reply_header(whole, "Content-Length"));
    if (reply->status == 304) {
        ck_assert_uint_eq(reply->body_size, 0);
        ck_assert_ptr_null(reply_header(reply, "Content-Encoding"));
    }
}
END_TEST

static const struct {
    const char *headers;
    int status;
} matches[] = {
    {"If-Match: \"1\"\r\n", 200},
    {"If-Match: \"1-gzip\"\r\n", 200},
    {GZIP "If-Match: \"0\", \"1-gzip\"\r\n", 200},
    {"If-Match: *\r\n", 200},
    {"If-Match: W/\"1-gzip\"\r\n", 202},
    {"If-Match: W/\"1\"\r\n", 202},
    {"If-Match: \"1-gzip-gzip\"\r\n", 202},
    {NULL, 202},
};

START_TEST(tag_of_either_form_changes_the_same_thing)
{
    struct reply *reply = client_call(port, "PATCH", "/sized", matches[_i].headers);

    ck_assert_int_eq(reply->status, matches[_i].status);
}
END_TEST

Suite *suite_http_gzip(void)
{
    Suite *suite = suite_create("http_gzip");
    TCase *gzip = tcase_create("gzip");
    TCase *off = tcase_create("off");
    TCase *tag = tcase_create("tag");

    tcase_add_checked_fixture(gzip, setup, teardown);
    tcase_add_loop_test(gzip, gzip_is_for_what_is_worth_it, 0, N(replies));
    tcase_add_test(gzip, gzip_of_what_is_shared_is_the_handlers);
    suite_add_tcase(suite, gzip);

    tcase_add_checked_fixture(off, NULL, teardown);
    tcase_add_test(off, gzip_that_is_off_leaves_no_trace);
    suite_add_tcase(suite, off);

    tcase_add_checked_fixture(tag, setup, teardown);
    tcase_add_loop_test(tag, tag_of_each_form_is_known, 0, N(conditions));
    tcase_add_loop_test(tag, tag_of_either_form_changes_the_same_thing, 0, N(matches));
    suite_add_tcase(suite, tag);
    return suite;
}
