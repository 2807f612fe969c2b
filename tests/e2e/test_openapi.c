/* SPDX-License-Identifier: MIT */
/* What the service answers against what it says that it answers: each reply has the shape that
 * /openapi.json gives it, member by member. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "chunks.h"
#include "client.h"
#include "gunzip.h"
#include "pgview.h"
#include "pictures.h"
#include "schema.h"
#include "service.h"

#define SCHEMA "e2e_openapi"
#define N(table) (int)(sizeof(table) / sizeof((table)[0]))

/* Fixture */

static struct service *service;
static json_t *document; /* Borrowed from its reply. */

/* In the tables of this database; NULL: in those with the sample data. */
static void start(const char *url)
{
    static const char *const settings[] = {"CURFEW_FETCH_ALLOW=127.0.0.1:1", NULL};

    service = service_start_ready(url, settings);
    document = client_get(service->api_port, "/openapi.json", NULL)->json;
    ck_assert_ptr_nonnull(document);
}

static void setup(void)
{
    start(NULL);
}

static void teardown(void)
{
    service_stop_all();
    client_free_all();
}

/* For what writes, in a schema of the test's own. */
static void setup_empty(void)
{
    char url[512];

    pgview_make_schema(SCHEMA, url, sizeof(url));
    start(url);
}

static void teardown_empty(void)
{
    teardown();
    pgview_drop_schema(SCHEMA);
}

/* Helpers */

static json_t *operation_of(const char *path, const char *method)
{
    return json_object_get(json_object_get(json_object_get(document, "paths"), path), method);
}

static json_t *response_of(const char *path, const char *method, int status)
{
    json_t *response;
    char key[8];

    (void)snprintf(key, sizeof(key), "%d", status);
    response = json_object_get(json_object_get(operation_of(path, method), "responses"), key);
    ck_assert_msg(response != NULL, "%s %s has no %d", method, path, status);
    return schema_resolve(document, response);
}

/* The schema of a reply, by its status and type; NULL: of what is no JSON. */
static json_t *schema_of(const char *path, const char *method, int status, const char *type)
{
    json_t *response = response_of(path, method, status);
    json_t *content = json_object_get(json_object_get(response, "content"), type);

    ck_assert_msg(content != NULL, "%s %s %d has no %s", method, path, status, type);
    return json_object_get(content, "schema");
}

/* Headers of HTTP itself, and those that any reply may have,
 * which the document's introduction names. */
static bool is_general(const char *header)
{
    static const char *const names[] = {"Date",
                                        "Connection",
                                        "Content-Type",
                                        "Content-Length",
                                        "Content-Encoding",
                                        "Transfer-Encoding",
                                        "Allow",
                                        "X-Content-Type-Options"};
    const json_t *info = json_object_get(document, "info");

    for (int i = 0; i < N(names); i++) {
        if (strcmp(names[i], header) == 0) {
            return true;
        }
    }
    return strstr(json_string_value(json_object_get(info, "description")), header) != NULL;
}

/* Each header of the reply is one that the document has for it. */
static void expect_headers(const char *path, const char *method, struct reply *reply)
{
    const json_t *headers = json_object_get(response_of(path, method, reply->status), "headers");
    const char *type = reply_header(reply, "Content-Type");
    bool is_problem = type != NULL && strcmp(type, "application/problem+json") == 0;
    const char *line = strstr(reply->head, "\r\n") + 2;

    for (; *line != '\0' && *line != '\r'; line = strstr(line, "\r\n") + 2) {
        char name[64];

        (void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(line, ":"), line);
        if (is_problem && strcmp(name, "Cache-Control") == 0) {
            ck_assert_str_eq(reply_header(reply, name), "no-store");
        } else {
            ck_assert_msg(is_general(name) || json_object_get(headers, name) != NULL,
                          "%s %s %d has no %s", method, path, reply->status, name);
        }
    }
}

static void expect_shape(const char *path, const char *method, struct reply *reply)
{
    const char *type = reply_header(reply, "Content-Type");
    char why[SCHEMA_WHY_SIZE] = "";

    ck_assert_ptr_nonnull(reply_header(reply, "traceparent"));
    expect_headers(path, method, reply);
    ck_assert_msg(
        schema_has(document, schema_of(path, method, reply->status, type), reply->json, why),
        "%s %s %d: %s", method, path, reply->status, why);
}

/* get */

static const struct {
    const char *path;
    const char *target;
    const char *headers;
    int status;
} gets[] = {
    {"/v1/dashboard", "/v1/dashboard", NULL, 200},
    {"/v1/dashboard", "/v1/dashboard?user_id=42", NULL, 200},
    {"/v1/dashboard", "/v1/dashboard?user_id=999999999", NULL, 404},
    {"/v1/dashboard", "/v1/dashboard?require=some", NULL, 400},
    {"/v1/dashboard", "/v1/dashboard?user_id=7", "Cache-Control: only-if-cached\r\n", 504},
    {"/v1/users", "/v1/users?limit=3", NULL, 200},
    {"/v1/users", "/v1/users?after=999999999", NULL, 200},
    {"/v1/users", "/v1/users", "Accept: text/html\r\n", 406},
    {"/v1/users/{id}", "/v1/users/1", NULL, 200},
    {"/v1/users/{id}", "/v1/users/999999999", NULL, 404},
    {"/v1/orders", "/v1/orders?user_id=42&status=paid", NULL, 200},
    {"/v1/orders", "/v1/orders?status=lost", NULL, 400},
    {"/v1/orders/{id}", "/v1/orders/1", NULL, 200},
    {"/v1/metrics", "/v1/metrics", NULL, 200},
    {"/v1/sleep", "/v1/sleep?seconds=0", NULL, 200},
    {"/v1/sleep", "/v1/sleep?seconds=9&timeout=20ms", NULL, 504},
    {"/livez", "/livez", NULL, 200},
    {"/readyz", "/readyz", NULL, 200},
    {"/version", "/version", NULL, 200},
    {"/openapi.json", "/openapi.json", NULL, 200},
};

/* What has a test of its own below. */
static bool is_tried_elsewhere(const char *path)
{
    static const char *const paths[] = {"/v1/orders/export", "/v1/images/{id}",
                                        "/v1/thumbnails/{id}"};

    for (int i = 0; i < N(paths); i++) {
        if (strcmp(paths[i], path) == 0) {
            return true;
        }
    }
    return false;
}

START_TEST(get_has_the_shape_that_the_document_says)
{
    const char *path;
    json_t *item;

    for (int i = 0; i < N(gets); i++) {
        struct reply *reply = client_get(service->api_port, gets[i].target, gets[i].headers);

        ck_assert_msg(reply->status == gets[i].status, "%s: %d", gets[i].target, reply->status);
        expect_shape(gets[i].path, "get", reply);
    }
    json_object_foreach(json_object_get(document, "paths"), path, item)
    {
        bool is_tried = json_object_get(item, "get") == NULL || is_tried_elsewhere(path);

        for (int i = 0; i < N(gets) && !is_tried; i++) {
            is_tried = strcmp(gets[i].path, path) == 0 && gets[i].status == 200;
        }
        ck_assert_msg(is_tried, "nobody asks for %s", path);
    }
}
END_TEST

/* What has a tag is not sent again to whoever has it. */
START_TEST(get_of_what_the_client_has_is_as_the_document_says)
{
    int n = 0;

    for (int i = 0; i < N(gets); i++) {
        struct reply *reply = client_get(service->api_port, gets[i].target, gets[i].headers);
        char headers[128];

        if (reply_header(reply, "ETag") != NULL) {
            (void)snprintf(headers, sizeof(headers), "If-None-Match: %s\r\n",
                           reply_header(reply, "ETag"));
            reply = client_get(service->api_port, gets[i].target, headers);
            ck_assert_msg(reply->status == 304, "%s: %d", gets[i].target, reply->status);
            expect_headers(gets[i].path, "get", reply);
            n++;
        }
    }
    ck_assert_int_eq(n, 4); /* Two dashboards, an order, the document. */
}
END_TEST

/* One section is kept away by a lock on its table. */
START_TEST(get_of_a_partial_dashboard_has_its_shape)
{
    PGconn *locker = pgview_open(NULL);
    struct reply *reply;

    pgview_exec(locker, "begin; lock table orders in access exclusive mode");
    reply = client_get(service->api_port, "/v1/dashboard?timeout=300ms", NULL);
    expect_shape("/v1/dashboard", "get", reply);
    ck_assert(json_is_true(reply_at(reply, "partial")));
    reply = client_get(service->api_port, "/v1/dashboard?user_id=1&timeout=300ms", NULL);
    expect_shape("/v1/dashboard", "get", reply);
    ck_assert(json_is_true(reply_at(reply, "partial")));
    pgview_exec(locker, "rollback");
    PQfinish(locker);
}
END_TEST

START_TEST(export_has_lines_of_the_shape)
{
    const json_t *schema = schema_of("/v1/orders/export", "get", 200, "application/x-ndjson");
    struct chunks chunks;
    char *body;
    size_t size;
    int n = 0;
    int fd;

    expect_headers("/v1/orders/export", "get",
                   client_call(service->api_port, "HEAD", "/v1/orders/export", NULL));
    fd = client_open(service->api_port);
    client_request(fd, "GET", "/v1/orders/export?status=paid", NULL);
    chunks_begin(&chunks, fd);
    body = chunks_read_all(&chunks, &size);
    for (char *line = body; *line != '\0'; n++) {
        char *end = line + strcspn(line, "\n");
        bool is_looked_at = n < 100 || end[1] == '\0';
        char why[SCHEMA_WHY_SIZE] = "";
        json_t *value;

        *end = '\0';
        if (is_looked_at) {
            value = json_loads(line, 0, NULL);
            ck_assert_msg(value != NULL && schema_has(document, schema, value, why), "%s", why);
            json_decref(value);
        }
        line = end + 1;
    }
    ck_assert_int_gt(n, 100);
    free(body);
    (void)close(fd);
}
END_TEST

/* HEAD, OPTIONS */

/* The same answer, but for what it takes to say it again. */
static void expect_head(const char *target, const char *more)
{
    static const char *const same[] = {"Content-Type", "Content-Length",        "Content-Encoding",
                                       "ETag",         "Cache-Control",         "Link",
                                       "Vary",         "X-Content-Type-Options"};
    char headers[128];
    struct reply *get;
    struct reply *head;

    /* A problem has the time that it took in it: of so many digits. */
    (void)snprintf(headers, sizeof(headers), "X-Request-Id: same\r\nAccept-Encoding: gzip\r\n%s",
                   more != NULL ? more : "");
    get = client_get(service->api_port, target, headers);
    head = client_call(service->api_port, "HEAD", target, headers);
    ck_assert_int_eq(head->status, get->status);
    ck_assert_uint_eq(head->body_size, 0);
    for (int i = 0; i < N(same); i++) {
        if (get->status == 200 || strcmp(same[i], "Content-Length") != 0) {
            ck_assert_pstr_eq(reply_header(head, same[i]), reply_header(get, same[i]));
        }
    }
}

START_TEST(head_of_each_path_says_what_get_does)
{
    for (int i = 0; i < N(gets); i++) {
        if (gets[i].status != 504) { /* Has times in it. */
            expect_head(gets[i].target, gets[i].headers);
        }
    }
}
END_TEST

/* Whether a path is one of the template's: "/v1/orders/export" is also of "/v1/orders/{id}". */
static bool is_of(const char *template, const char *path)
{
    while (*template != '\0' && *path != '\0') {
        if (*template == '{') {
            template += strcspn(template, "/");
            path += strcspn(path, "/");
        } else if (*template ++ != *path++) {
            return false;
        }
    }
    return *template == *path;
}

static bool has_method(const char *path, const char *method)
{
    const char *template;
    json_t *item;

    json_object_foreach(json_object_get(document, "paths"), template, item)
    {
        if (is_of(template, path) && json_object_get(item, method) != NULL) {
            return true;
        }
    }
    return false;
}

START_TEST(options_of_each_path_allow_what_the_document_has)
{
    static const char *const methods[] = {"get", "post", "put", "patch", "delete"};
    const char *path;
    json_t *item;

    json_object_foreach(json_object_get(document, "paths"), path, item)
    {
        char allow[64] = "";
        char target[64];
        struct reply *reply;

        (void)snprintf(target, sizeof(target), "%.*s%s", (int)strcspn(path, "{"), path,
                       strchr(path, '{') != NULL ? "1" : "");
        for (int i = 0; i < N(methods); i++) {
            if (has_method(target, methods[i])) {
                (void)snprintf(allow + strlen(allow), sizeof(allow) - strlen(allow), "%s%s, ",
                               methods[i], i == 0 ? ", head" : "");
            }
        }
        (void)snprintf(allow + strlen(allow), sizeof(allow) - strlen(allow), "options");
        reply = client_call(service->api_port, "OPTIONS", target, NULL);
        ck_assert_int_eq(reply->status, 204);
        ck_assert_uint_eq(reply->body_size, 0);
        ck_assert_msg(strcasecmp(reply_header(reply, "Allow"), allow) == 0, "%s: %s, not %s", path,
                      reply_header(reply, "Allow"), allow);
        reply = client_call(service->api_port, "DELETE", target, NULL);
        ck_assert_int_eq(reply->status, 405);
        ck_assert(strcasecmp(reply_header(reply, "Allow"), allow) == 0);
    }
}
END_TEST

#define TARGET_SIZE 9000 /* More than is served, as is: */
#define HEADER_COUNT 101

/* A target of the path, or too long a one. */
static void write_target(const char *path, bool is_long, char *out, size_t size)
{
    int width = is_long ? TARGET_SIZE : 1;

    (void)snprintf(out, size, "%.*s%s?%0*d", (int)strcspn(path, "{"), path,
                   strchr(path, '{') != NULL ? "1" : "", width, 0);
}

static const struct {
    const char *method;
    bool has_long_target;
    bool has_many_headers;
    int status;
} refusals[] = {
    {"DELETE", false, false, 405},
    {"BREW", false, false, 501},
    {"GET", true, false, 414},
    {"GET", false, true, 431},
};

/* The refusals of the table, of each path; 408 and 413 are of the same kind, and take more. */
START_TEST(refusal_of_each_path_has_the_default_shape)
{
    static char target[TARGET_SIZE + 64];
    char headers[HEADER_COUNT * 6 + 1] = "";
    const char *path;
    json_t *item;

    for (int i = 0; i < HEADER_COUNT; i++) {
        memcpy(headers + (size_t)i * 6, "X: 1\r\n", 7);
    }
    json_object_foreach(json_object_get(document, "paths"), path, item)
    {
        const char *method = json_object_iter_key(json_object_iter(item));
        const json_t *responses = json_object_get(operation_of(path, method), "responses");
        const json_t *response = schema_resolve(document, json_object_get(responses, "default"));
        const json_t *content =
            json_object_get(json_object_get(response, "content"), "application/problem+json");
        const json_t *schema = json_object_get(content, "schema");

        for (int i = 0; i < N(refusals); i++) {
            char why[SCHEMA_WHY_SIZE] = "";
            struct reply *reply;

            write_target(path, refusals[i].has_long_target, target, sizeof(target));
            reply = client_call(service->api_port, refusals[i].method, target,
                                refusals[i].has_many_headers ? headers : NULL);
            ck_assert_msg(reply->status == refusals[i].status, "%s: %d, not %d", path,
                          reply->status, refusals[i].status);
            ck_assert_msg(schema_has(document, schema, reply->json, why), "%s: %s", path, why);
            ck_assert_int_eq(reply_header(reply, "Allow") != NULL, reply->status == 405);
        }
    }
}
END_TEST

/* bodies */

#define HEADERS "Idempotency-Key: k\r\nIf-Match: *\r\nContent-Type: application/json\r\n"

static struct reply *send_body(const char *method, const char *target, const char *body)
{
    char headers[256];
    struct reply *reply;
    int fd = client_open(service->api_port);

    (void)snprintf(headers, sizeof(headers), HEADERS "Content-Length: %zu\r\n", strlen(body));
    client_request(fd, method, target, headers);
    client_send(fd, body);
    reply = client_recv(fd, method);
    (void)close(fd);
    return reply;
}

static const struct {
    const char *path;
    const char *target;
    const char *method;
    const char *name;
} bodies[] = {
    {"/v1/orders", "/v1/orders", "POST", "post"},
    {"/v1/orders/{id}", "/v1/orders/1", "PATCH", "patch"},
    {"/v1/fetch", "/v1/fetch", "POST", "post"},
    {"/v1/thumbnails", "/v1/thumbnails", "POST", "post"},
};

/* An object of these members: each is right but the one of this name. */
static void write_body(json_t *members, const char *wrong, char *out, size_t size)
{
    static const char *const right[][2] = {
        {"user_id", "1"},     {"total_cents", "1"}, {"status", "\"paid\""},
        {"image_ids", "[1]"}, {"width", "16"},      {"urls", "[\"http://127.0.0.1:1/\"]"},
        {"rps", "1"},         {"concurrency", "1"},
    };
    const char *name;
    json_t *member;
    size_t n = 0;

    json_object_foreach(members, name, member)
    {
        const char *value = strcmp(name, wrong) == 0 ? "[]" : NULL;

        for (int i = 0; i < N(right) && value == NULL; i++) {
            value = strcmp(name, right[i][0]) == 0 ? right[i][1] : NULL;
        }
        ck_assert_msg(value != NULL, "what would be right as %s?", name);
        n += (size_t)snprintf(out + n, size - n, "%s\"%s\":%s", n == 0 ? "{" : ",", name, value);
    }
    ck_assert_int_lt(snprintf(out + n, size - n, "}"), (int)(size - n));
}

/* Each member of the document is known, and looked at; one that it does not have is not known. */
START_TEST(body_has_the_members_that_the_document_says)
{
    json_t *operation = operation_of(bodies[_i].path, bodies[_i].name);
    json_t *schema = json_object_get(
        json_object_get(json_object_get(json_object_get(operation, "requestBody"), "content"),
                        "application/json"),
        "schema");
    json_t *members = json_object_get(schema_resolve(document, schema), "properties");
    struct reply *reply;
    const char *name;
    json_t *member;
    char body[128];

    ck_assert_uint_ge(json_object_size(members), 2);
    json_object_foreach(members, name, member)
    {
        write_body(members, name, body, sizeof(body));
        reply = send_body(bodies[_i].method, bodies[_i].target, body);
        ck_assert_msg(reply->status == 422, "%s: %d %s", body, reply->status, reply->body);
        ck_assert_msg(strncmp(reply_str(reply, "detail"), name, strlen(name)) == 0, "%s",
                      reply->body);
        ck_assert_ptr_null(strstr(reply_str(reply, "detail"), "is not known"));
        expect_shape(bodies[_i].path, bodies[_i].name, reply);
    }
    reply = send_body(bodies[_i].method, bodies[_i].target, "{\"other\":1}");
    ck_assert_int_eq(reply->status, 422);
    ck_assert_ptr_nonnull(strstr(reply_str(reply, "detail"), "other is not known"));
}
END_TEST

/* calls */

#define BODY_JSON "Content-Type: application/json\r\n"
#define BODY_LARGE "Content-Length: 99999999999\r\n"
#define ANY_PICTURE "Accept: image/*\r\n"
#define LATE "Request-Timeout-Ms: 0\r\n"

/* In this order: the first three make the images 1 to 3, of which the second is broken. */
static const struct {
    const char *path;
    const char *method;
    const char *target;
    const char *headers;
    const char *body; /* "@": a picture, "@/2": half of it, "@a": one with alpha; NULL: none. */
    int status;
} calls[] = {
    {"/v1/images", "POST", "/v1/images", "", "@", 201},
    {"/v1/images", "POST", "/v1/images", "", "@/2", 201},
    {"/v1/images", "POST", "/v1/images", "", "@a", 201},
    {"/v1/images", "POST", "/v1/images", "", "", 400},
    {"/v1/images", "POST", "/v1/images", ANY_PICTURE, "@", 406},
    {"/v1/images", "POST", "/v1/images", BODY_LARGE, NULL, 413},
    {"/v1/images", "POST", "/v1/images", "", "GIF89a", 415},
    {"/v1/images", "POST", "/v1/images", "", "\xFF\xD8\xFF", 422},
    {"/v1/images", "POST", "/v1/images", LATE, "@", 504},
    {"/v1/images/{id}", "GET", "/v1/images/1", "", NULL, 200},
    {"/v1/images/{id}", "GET", "/v1/images/0", "", NULL, 400},
    {"/v1/images/{id}", "GET", "/v1/images/9", "", NULL, 404},
    {"/v1/images/{id}", "GET", "/v1/images/1", ANY_PICTURE, NULL, 406},
    {"/v1/images/{id}", "GET", "/v1/images/1", LATE, NULL, 504},
    {"/v1/thumbnails", "POST", "/v1/thumbnails", BODY_JSON, "{\"image_ids\":[1,2,3,9]}", 200},
    {"/v1/thumbnails", "POST", "/v1/thumbnails", BODY_JSON, "{", 400},
    {"/v1/thumbnails", "POST", "/v1/thumbnails", ANY_PICTURE BODY_JSON, "{}", 406},
    {"/v1/thumbnails", "POST", "/v1/thumbnails", BODY_JSON BODY_LARGE, NULL, 413},
    {"/v1/thumbnails", "POST", "/v1/thumbnails", "", "{}", 415},
    {"/v1/thumbnails", "POST", "/v1/thumbnails", BODY_JSON, "{}", 422},
    {"/v1/thumbnails", "POST", "/v1/thumbnails", BODY_JSON LATE, "{\"image_ids\":[1]}", 504},
    {"/v1/thumbnails/{id}", "GET", "/v1/thumbnails/1?width=20", "", NULL, 200},
    {"/v1/thumbnails/{id}", "GET", "/v1/thumbnails/3?width=20", "", NULL, 200},
    {"/v1/thumbnails/{id}", "GET", "/v1/thumbnails/1", "If-None-Match: *\r\n", NULL, 304},
    {"/v1/thumbnails/{id}", "GET", "/v1/thumbnails/1?width=15", "", NULL, 400},
    {"/v1/thumbnails/{id}", "GET", "/v1/thumbnails/9", "", NULL, 404},
    {"/v1/thumbnails/{id}", "GET", "/v1/thumbnails/1", "Accept: image/webp\r\n", NULL, 406},
    {"/v1/thumbnails/{id}", "GET", "/v1/thumbnails/2", "", NULL, 422},
    {"/v1/thumbnails/{id}", "GET", "/v1/thumbnails/1", LATE, NULL, 504},
    {"/v1/fetch", "POST", "/v1/fetch", "", "{}", 415},
};

static struct reply *call(int i)
{
    const char *form = calls[i].body;
    const void *body = form;
    size_t size = form != NULL ? strlen(form) : 0;
    struct picture picture = {NULL, 0};
    char headers[256];
    struct reply *reply;
    int fd = client_open(service->api_port);

    if (form != NULL && form[0] == '@') {
        picture = picture_make(strcmp(form, "@a") == 0 ? PICTURE_PNG_ALPHA : PICTURE_PNG, 32, 32);
        body = picture.data;
        size = strcmp(form, "@/2") == 0 ? picture.size / 2 : picture.size;
    }
    (void)snprintf(headers, sizeof(headers), "%s", calls[i].headers);
    if (form != NULL) {
        (void)snprintf(headers, sizeof(headers), "%sContent-Length: %zu\r\n", calls[i].headers,
                       size);
    }
    client_request(fd, calls[i].method, calls[i].target, headers);
    client_send_bytes(fd, body, size);
    free(picture.data);
    reply = client_recv(fd, calls[i].method);
    (void)close(fd);
    return reply;
}

static const char *name_of(int i)
{
    return strcmp(calls[i].method, "GET") == 0 ? "get" : "post";
}

/* A picture of a type that the document has, or nothing where it says so. */
static void expect_no_json(int i, struct reply *reply)
{
    const char *type = reply_header(reply, "Content-Type");
    uint32_t width;
    uint32_t height;

    ck_assert_ptr_nonnull(reply_header(reply, "ETag"));
    expect_headers(calls[i].path, "get", reply);
    if (reply->status == 304) {
        ck_assert_ptr_null(json_object_get(response_of(calls[i].path, "get", 304), "content"));
        ck_assert_uint_eq(reply->body_size, 0);
        return;
    }
    ck_assert_ptr_null(schema_of(calls[i].path, "get", reply->status, type));
    ck_assert_int_eq(strcmp(type, "image/png") == 0, (uint8_t)reply->body[0] == 0x89);
    free(picture_decode(reply->body, reply->body_size, &width, &height));
    ck_assert_uint_eq(width, 20);
}

/* Whether each status of an operation is tried, but those that take a crowd or a failure. */
static void expect_all_statuses(int of)
{
    const char *status;
    json_t *response;

    json_object_foreach(json_object_get(operation_of(calls[of].path, name_of(of)), "responses"),
                        status, response)
    {
        int number = atoi(status);
        bool is_default = strcmp(status, "default") == 0;
        bool is_tried = is_default || number == 429 || number == 500 || number == 503;

        for (int i = 0; i < N(calls) && !is_tried; i++) {
            is_tried = calls[i].status == number && strcmp(calls[i].path, calls[of].path) == 0 &&
                       strcmp(calls[i].method, calls[of].method) == 0;
        }
        ck_assert_msg(is_tried, "nobody makes %s %s a %s", calls[of].method, calls[of].path,
                      status);
    }
}

/* The table's batch is of two that are made, one that is broken and one that is not there. */
static void expect_batch(const struct reply *reply)
{
    ck_assert_int_eq(reply_i64(reply, "failed"), 2);
    ck_assert_str_eq(reply_str(reply, "thumbnails.1.error.code"), "invalid");
    ck_assert_str_eq(reply_str(reply, "thumbnails.3.error.code"), "not_found");
}

START_TEST(call_has_the_shape_that_the_document_says)
{
    for (int i = 0; i < N(calls); i++) {
        struct reply *reply = call(i);

        ck_assert_msg(reply->status == calls[i].status, "%d, %s %s: %d %s", i, calls[i].method,
                      calls[i].target, reply->status, reply->body);
        if (calls[i].status == 304 || (calls[i].status == 200 && reply->json == NULL)) {
            expect_no_json(i, reply);
        } else {
            expect_shape(calls[i].path, name_of(i), reply);
        }
        if (strcmp(calls[i].path, "/v1/fetch") != 0) {
            expect_all_statuses(i);
        }
        if (strcmp(calls[i].path, "/v1/thumbnails") == 0 && calls[i].status == 200) {
            expect_batch(reply);
        }
        if (strcmp(calls[i].method, "GET") == 0 && calls[i].status != 504) {
            expect_head(calls[i].target, calls[i].headers);
        }
    }
}
END_TEST

/* the document */

START_TEST(document_is_cached_by_its_tag_and_compressed)
{
    struct reply *plain = client_get(service->api_port, "/openapi.json", NULL);
    struct reply *reply =
        client_get(service->api_port, "/openapi.json", "Accept-Encoding: gzip\r\n");
    char headers[128];
    size_t size;
    char *text = gunzip(reply->body, reply->body_size, &size);

    ck_assert_str_eq(text, plain->body);
    ck_assert_uint_lt(reply->body_size, size / 5);
    free(text);
    ck_assert_str_eq(reply_header(plain, "Content-Type"), "application/json");
    ck_assert_str_eq(reply_header(plain, "Cache-Control"), "public, max-age=300");
    (void)snprintf(headers, sizeof(headers), "Accept-Encoding: gzip\r\nIf-None-Match: %s\r\n",
                   reply_header(reply, "ETag"));
    ck_assert_int_eq(client_get(service->api_port, "/openapi.json", headers)->status, 304);
    (void)snprintf(headers, sizeof(headers), "If-None-Match: %s\r\n", reply_header(plain, "ETag"));
    ck_assert_int_eq(client_get(service->api_port, "/openapi.json", headers)->status, 304);
}
END_TEST

Suite *suite_openapi(void)
{
    Suite *suite = suite_create("openapi");
    TCase *get = tcase_create("get");
    TCase *methods = tcase_create("methods");
    TCase *body = tcase_create("body");
    TCase *called = tcase_create("call");
    TCase *served = tcase_create("document");

    tcase_add_checked_fixture(get, setup, teardown);
    tcase_add_test(get, get_has_the_shape_that_the_document_says);
    tcase_add_test(get, get_of_what_the_client_has_is_as_the_document_says);
    tcase_add_test(get, get_of_a_partial_dashboard_has_its_shape);
    tcase_add_test(get, export_has_lines_of_the_shape);
    tcase_set_timeout(get, 30);
    suite_add_tcase(suite, get);

    tcase_add_checked_fixture(methods, setup, teardown);
    tcase_add_test(methods, head_of_each_path_says_what_get_does);
    tcase_add_test(methods, options_of_each_path_allow_what_the_document_has);
    tcase_add_test(methods, refusal_of_each_path_has_the_default_shape);
    suite_add_tcase(suite, methods);

    tcase_add_checked_fixture(body, setup, teardown);
    tcase_add_loop_test(body, body_has_the_members_that_the_document_says, 0, N(bodies));
    suite_add_tcase(suite, body);

    tcase_add_checked_fixture(called, setup_empty, teardown_empty);
    tcase_add_test(called, call_has_the_shape_that_the_document_says);
    tcase_set_timeout(called, 30);
    suite_add_tcase(suite, called);

    tcase_add_checked_fixture(served, setup, teardown);
    tcase_add_test(served, document_is_cached_by_its_tag_and_compressed);
    suite_add_tcase(suite, served);
    return suite;
}
