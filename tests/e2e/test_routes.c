/* SPDX-License-Identifier: MIT */
/* Every route is asked the same: is it answered, is each bad input told, does its deadline end what
 * it waits for, and does a client that leaves?
 *
 * In a schema of the test's own, whose tables the test locks to make a query wait. What is fetched
 * is a peer that says nothing. Of the two images there, the second is half of the first. A new
 * route is a line of `routes`, and one of `bad` for each bad input. */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "chunks.h"
#include "client.h"
#include "peer.h"
#include "pgview.h"
#include "pictures.h"
#include "service.h"

#define SCHEMA "e2e_routes"
#define PATIENCE_NS (10 * CF_SECOND)
#define TIMEOUT_MS 150
#define N(table) (int)(sizeof(table) / sizeof((table)[0]))

#define JSON "Content-Type: application/json\r\n"
#define KEY JSON "Idempotency-Key: \"k\"\r\n"
#define ORDER "{\"user_id\":1,\"total_cents\":7}"
#define PATCH JSON "If-Match: \"1\"\r\n"
#define PAID "{\"status\":\"paid\"}"
#define IDS "{\"image_ids\":[1],\"width\":16}"

/* The routes */

/* What a route waits for when it is held. */
enum holds {
    TABLES, /* All are locked. */
    ITSELF, /* It waits by itself. */
    PEER,   /* It asks a peer, and streams what becomes of that: no 504, but a line that says so. */
    NOTHING, /* It has nothing to wait for. */
};

static const struct route {
    const char *method;
    const char *target; /* With an argument, so that one can be added. */
    const char *headers;
    const char *body; /* "#": the peer's port; "@": a picture. */
    int status;
    const char *said; /* In its body. */
    enum holds holds;
    bool is_streamed;
    const char *held; /* Another target where it is to wait; NULL: the same. */
} routes[] = {
    {"GET", "/v1/users/1?", "", "", 200, "\"email\":\"a@example.org\"", TABLES, false, NULL},
    {"GET", "/v1/users?limit=1", "", "", 200, "\"email\":\"a@", TABLES, false, NULL},
    {"GET", "/v1/orders?user_id=1", "", "", 200, "\"total_cents\":5", TABLES, false, NULL},
    {"GET", "/v1/orders/1?", "", "", 200, "\"total_cents\":5", TABLES, false, NULL},
    {"POST", "/v1/orders?", KEY, ORDER, 201, "\"total_cents\":7", TABLES, false, NULL},
    {"PATCH", "/v1/orders/1?", PATCH, PAID, 200, "\"status\":\"paid\"", TABLES, false, NULL},
    {"GET", "/v1/metrics?", "", "", 200, "\"order_count\":", TABLES, false, NULL},
    {"GET", "/v1/dashboard?", "", "", 200, "\"users\":[{", TABLES, false, NULL},
    {"GET", "/v1/dashboard?user_id=1", "", "", 200, "\"user\":{", TABLES, false, NULL},
    {"GET", "/v1/orders/export?", "", "", 200, "\"_end\":true", TABLES, true, NULL},
    {"POST", "/v1/fetch?", JSON, "{\"urls\":[\"http://127.0.0.1:#/\"]}", 200, "\"_end\":true", PEER,
     true, NULL},
    {"POST", "/v1/images?", "", "@", 201, "\"type\":\"image/png\"", TABLES, false, NULL},
    {"GET", "/v1/images/1?", "", "", 200, "\"width\":32", TABLES, false, NULL},
    {"POST", "/v1/thumbnails?", JSON, IDS, 200, "\"failed\":0", TABLES, false, NULL},
    {"GET", "/v1/thumbnails/1?width=24", "", "", 200, "JFIF", TABLES, false, NULL},
    {"GET", "/v1/sleep?seconds=0", "", "", 200, "\"slept_seconds\":0", ITSELF, false,
     "/v1/sleep?seconds=30"},
    {"GET", "/livez?", "", "", 200, "alive", NOTHING, false, NULL},
    {"GET", "/readyz?", "", "", 200, "ready", NOTHING, false, NULL},
    {"GET", "/version?", "", "", 200, "libmicrohttpd", NOTHING, false, NULL},
};

static const struct {
    const char *method;
    const char *target;
    const char *headers;
    const char *body;
    int status;
    const char *said; /* In the detail. */
} bad[] = {
    {"GET", "/v1/users/0", "", "", 400, "id must be"},
    {"GET", "/v1/users/x", "", "", 400, "id must be"},
    {"GET", "/v1/users/9", "", "", 404, "user"},
    {"GET", "/v1/users/1?timeout=soon", "", "", 400, "timeout"},
    {"GET", "/v1/users?limit=0", "", "", 400, "limit must be"},
    {"GET", "/v1/users?limit=201", "", "", 400, "limit must be"},
    {"GET", "/v1/users?after=x", "", "", 400, "after must be"},
    {"POST", "/v1/users", "", "", 405, ""},
    {"GET", "/v1/orders?user_id=0", "", "", 400, "user_id must be"},
    {"GET", "/v1/orders?limit=x", "", "", 400, "limit must be"},
    {"GET", "/v1/orders?after=0", "", "", 400, "after must be"},
    {"GET", "/v1/orders/0", "", "", 400, "id must be"},
    {"GET", "/v1/orders/9", "", "", 404, "order"},
    {"POST", "/v1/orders", JSON, ORDER, 400, "Idempotency-Key"},
    {"POST", "/v1/orders", "Idempotency-Key: \"k\"\r\n", ORDER, 415, "application/json"},
    {"POST", "/v1/orders", KEY, "{", 400, "JSON"},
    {"POST", "/v1/orders", KEY, "{\"user_id\":1}", 422, "total_cents"},
    {"POST", "/v1/orders", KEY, "{\"user_id\":9,\"total_cents\":7}", 422, "user"},
    {"PATCH", "/v1/orders/x", PATCH, PAID, 400, "id must be"},
    {"PATCH", "/v1/orders/9", PATCH, PAID, 404, "order"},
    {"PATCH", "/v1/orders/1", JSON, PAID, 428, "If-Match"},
    {"PATCH", "/v1/orders/1", JSON "If-Match: \"2\"\r\n", PAID, 412, ""},
    {"PATCH", "/v1/orders/1", PATCH, "{\"status\":\"lost\"}", 422, "status must be"},
    {"GET", "/v1/metrics?timeout=1h", "", "", 400, "timeout"},
    {"DELETE", "/v1/metrics", "", "", 405, ""},
    {"GET", "/v1/dashboard?user_id=x", "", "", 400, "user_id must be"},
    {"GET", "/v1/dashboard?user_id=9", "", "", 404, "user"},
    {"GET", "/v1/dashboard?require=some", "", "", 400, "require must be"},
    {"GET", "/v1/orders/export?format=xml", "", "", 400, "format must be"},
    {"GET", "/v1/orders/export?status=lost", "", "", 400, "status must be"},
    {"POST", "/v1/fetch", JSON, "[]", 422, "object"},
    {"POST", "/v1/fetch", "", "{\"urls\":[\"http://a/\"]}", 415, "application/json"},
    {"POST", "/v1/fetch", JSON, "{\"urls\":[]}", 422, "urls"},
    {"POST", "/v1/fetch", JSON, "{\"urls\":[\"http://a/\"],\"rps\":0}", 422, "rps"},
    {"POST", "/v1/fetch", JSON, "{\"urls\":[\"http://a/\"],\"concurrency\":99}", 422,
     "concurrency"},
    {"POST", "/v1/images", "", "", 400, "empty"},
    {"POST", "/v1/images?timeout=soon", "", "@", 400, "timeout"},
    {"POST", "/v1/images", "Accept: image/png\r\n", "@", 406, ""},
    {"POST", "/v1/images", "", "GIF89a", 415, "a JPEG, a PNG or a WebP"},
    {"POST", "/v1/images", "", "\x89PNG\r\n\x1A\n", 422, "broken PNG"},
    {"PUT", "/v1/images", "", "@", 405, ""},
    {"GET", "/v1/images/0", "", "", 400, "id must be"},
    {"GET", "/v1/images/x", "", "", 400, "id must be"},
    {"GET", "/v1/images/9", "", "", 404, "image 9"},
    {"POST", "/v1/thumbnails", "", IDS, 415, "application/json"},
    {"POST", "/v1/thumbnails", JSON, "{", 400, "JSON"},
    {"POST", "/v1/thumbnails", JSON, "[]", 422, "object"},
    {"POST", "/v1/thumbnails", JSON, "{}", 422, "image_ids must be"},
    {"POST", "/v1/thumbnails", JSON, "{\"image_ids\":[1,0]}", 422, "image_ids[1] must be"},
    {"POST", "/v1/thumbnails", JSON, "{\"image_ids\":[1],\"width\":15}", 422, "width must be"},
    {"POST", "/v1/thumbnails", JSON, "{\"image_ids\":[1],\"height\":9}", 422,
     "height is not known"},
    {"GET", "/v1/thumbnails/0", "", "", 400, "id must be"},
    {"GET", "/v1/thumbnails/1?width=15", "", "", 400, "width must be"},
    {"GET", "/v1/thumbnails/1?width=2049", "", "", 400, "width must be"},
    {"GET", "/v1/thumbnails/1?width=x", "", "", 400, "width must be"},
    {"GET", "/v1/thumbnails/1", "Accept: image/webp\r\n", "", 406, ""},
    {"GET", "/v1/thumbnails/2", "", "", 422, "broken PNG"},
    {"GET", "/v1/thumbnails/9", "", "", 404, "image 9"},
    {"GET", "/v1/sleep?seconds=-1", "", "", 400, "seconds must be"},
    {"GET", "/v1/sleep?seconds=long", "", "", 400, "seconds must be"},
    {"POST", "/livez", "", "", 405, ""},
    {"POST", "/readyz", "", "", 405, ""},
    {"POST", "/version", "", "", 405, ""},
};

/* Fixture */

static struct service *service;
static struct peer *peer;
static char url[512];
static PGconn *pg;
static PGconn *locker;
static struct picture picture;

/* `answer`: the peer's; NULL: it says nothing. */
static void start(const char *answer)
{
    static char allow[64];

    peer = peer_new(answer, PEER_KEEP);
    (void)snprintf(allow, sizeof(allow), "CURFEW_FETCH_ALLOW=127.0.0.1:%u", peer_port(peer));
    service = service_start_ready(
        url, (const char *[]){"CURFEW_POOL=4", "CURFEW_LOOPS=1", "CURFEW_DEMO=1", allow, NULL});
}

static void add_images(void)
{
    const char *data[] = {(const char *)picture.data};
    int sizes[] = {(int)picture.size};
    PGresult *result =
        PQexecParams(pg,
                     "with given as (select number, part from unnest(array[$1::bytea,"
                     " substring($1 for length($1) / 2)]) with ordinality as t (part, number)),"
                     " added as (insert into images (media_type, width, height, is_buffered, size)"
                     " select 'image/png', 32, 32, false, length(part) from given order by number"
                     " returning id)"
                     " insert into image_pieces select number, 0, part from given",
                     1, NULL, data, sizes, (const int[]){1}, 0);

    ck_assert_msg(PQresultStatus(result) == PGRES_COMMAND_OK, "%s", PQerrorMessage(pg));
    PQclear(result);
}

static void setup(void)
{
    pgview_make_schema(SCHEMA, url, sizeof(url));
    pg = pgview_open(url);
    locker = pgview_open(url);
    pgview_exec(pg, "insert into users (email, name) values ('a@example.org', 'A');"
                    "insert into orders (user_id, status, total_cents) values (1, 'pending', 5)");
    picture = picture_make(PICTURE_PNG, 32, 32);
    add_images();
}

static void teardown(void)
{
    PQfinish(locker);
    service_stop_all();
    peer_free(peer);
    client_free_all();
    PQfinish(pg);
    pgview_drop_schema(SCHEMA);
    free(picture.data);
}

/* Helpers */

static int send_to(const char *method, const char *target, const char *headers, const char *form)
{
    char text[256];
    char head[1024];
    const char *at = strchrnul(form, '#');
    bool is_picture = strcmp(form, "@") == 0;
    const void *body = is_picture ? (const void *)picture.data : text;
    size_t size;
    int fd = client_open(service->api_port);

    (void)snprintf(text, sizeof(text), "%s", form);
    if (*at == '#') {
        (void)snprintf(text, sizeof(text), "%.*s%u%s", (int)(at - form), form, peer_port(peer),
                       at + 1);
    }
    size = is_picture ? picture.size : strlen(text);
    ck_assert_int_lt(snprintf(head, sizeof(head),
                              "%s %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %zu\r\n\r\n",
                              method, target, headers, size),
                     (int)sizeof(head));
    client_send(fd, head);
    client_send_bytes(fd, body, size);
    return fd;
}

/* Ask a route, held or not, with one more argument. */
static int ask(const struct route *route, bool held, const char *argument)
{
    const char *base = held && route->held != NULL ? route->held : route->target;
    char target[128];
    char headers[256];

    (void)snprintf(target, sizeof(target), "%s&%s", base, argument);
    (void)snprintf(headers, sizeof(headers), "X-Request-Id: route-%d\r\n%s", (int)(route - routes),
                   route->headers);
    return send_to(route->method, target, headers, route->body);
}

/* The status and the body of what came; the caller frees it. */
static char *read_stream(int fd, int *out_status)
{
    struct chunks chunks;
    char *body;

    chunks_begin(&chunks, fd);
    *out_status = chunks.status;
    body = chunks_read_all(&chunks, NULL);
    ck_assert(chunks.is_whole);
    return body;
}

static void lock_tables(void)
{
    pgview_exec(locker, "begin; lock table users, orders, images, image_pieces, thumbnails in "
                        "access exclusive mode");
}

static void unlock_tables(void)
{
    pgview_exec(locker, "rollback");
}

/* What the service has its database do: that is not idle, or that waits for a lock or asleep. */
static int64_t working(bool waiting)
{
    return pgview_i64(pg,
                      waiting ? "select count(*) from pg_stat_activity where state = 'active' and"
                                " application_name = 'curfewd' and"
                                " wait_event_type in ('Lock', 'Timeout')"
                              : "select count(*) from pg_stat_activity where state <> 'idle' and"
                                " application_name = 'curfewd'",
                      NULL);
}

static void wait_held(const struct route *route, int requests)
{
    int64_t until_ns = cf_now_ns() + bound(PATIENCE_NS);

    while (route->holds == PEER ? peer_requests(peer) == requests : working(true) == 0) {
        ck_assert_msg(cf_now_ns() < until_ns, "%s %s waits for nothing", route->method,
                      route->target);
        pause_ms(1);
    }
}

static void expect_nothing_runs(const struct route *route)
{
    int64_t until_ns = cf_now_ns() + bound(CF_SECOND);

    while (working(false) > 0) {
        ck_assert_msg(cf_now_ns() < until_ns, "%s %s still runs", route->method, route->target);
    }
}

/* Nothing of what was asked for in vain. */
static void expect_nothing_done(void)
{
    ck_assert_int_eq(pgview_i64(pg, "select count(*) from orders where status = 'pending'", NULL),
                     1);
    ck_assert_int_eq(pgview_i64(pg, "select count(*) from images", NULL), 2);
    ck_assert_int_eq(pgview_i64(pg, "select count(*) from thumbnails", NULL), 0);
}

/* The questions */

static void expect_answer(const struct route *route)
{
    int fd = ask(route, false, "timeout=5s");
    int status;

    if (route->is_streamed) {
        char *body = read_stream(fd, &status);

        ck_assert_msg(strstr(body, route->said) != NULL, "%s: %s", route->target, body);
        free(body);
    } else {
        struct reply *reply = client_recv(fd, route->method);

        status = reply->status;
        ck_assert_msg(memmem(reply->body, reply->body_size, route->said, strlen(route->said)) !=
                          NULL,
                      "%s: %s", route->target, reply->body);
    }
    ck_assert_msg(status == route->status, "%s: %d", route->target, status);
    (void)close(fd);
}

static void expect_late(const struct route *route)
{
    int64_t took_ns = cf_now_ns();
    int fd = ask(route, true, "timeout=150ms");

    if (route->holds == PEER) {
        int status;
        char *body = read_stream(fd, &status);

        ck_assert_ptr_nonnull(strstr(body, "\"code\":\"deadline_exceeded\""));
        ck_assert_ptr_nonnull(strstr(body, "\"failed\":1"));
        free(body);
        took_ns = cf_now_ns() - took_ns;
    } else {
        struct reply *reply = client_recv(fd, route->method);

        took_ns = cf_now_ns() - took_ns;
        ck_assert_msg(reply->status == 504, "%s: %d %s", route->target, reply->status, reply->body);
        ck_assert_str_eq(reply_str(reply, "code"), "deadline_exceeded");
        ck_assert_int_eq(reply_i64(reply, "deadline_ms"), TIMEOUT_MS);
        ck_assert_int_ge(took_ns, TIMEOUT_MS * CF_MS);
    }
    ck_assert_int_lt(took_ns, bound((TIMEOUT_MS + 500) * CF_MS));
    expect_nothing_runs(route);
    (void)close(fd);
}

static void expect_left(const struct route *route)
{
    int requests = peer_requests(peer);
    int fd = ask(route, true, "timeout=30s");
    char id[32];
    json_t *line;

    wait_held(route, requests);
    (void)close(fd);
    expect_nothing_runs(route);
    (void)snprintf(id, sizeof(id), "route-%d", (int)(route - routes));
    line = service_find_line(service, "request_id", id, 2 * CF_SECOND);
    ck_assert_msg(line != NULL, "%s is not logged", route->target);
    ck_assert_int_eq(json_integer_value(json_object_get(line, "http.response.status_code")), 499);
    ck_assert_str_eq(json_string_value(json_object_get(line, "cancel_cause")), "client_gone");
    json_decref(line);
}

/* route */

START_TEST(route_is_answered)
{
    start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    for (int i = 0; i < N(routes); i++) {
        expect_answer(&routes[i]);
    }
}
END_TEST

START_TEST(route_tells_what_is_bad)
{
    start(NULL);
    for (int i = 0; i < N(bad); i++) {
        int fd = send_to(bad[i].method, bad[i].target, bad[i].headers, bad[i].body);
        struct reply *reply = client_recv(fd, bad[i].method);

        ck_assert_msg(reply->status == bad[i].status, "%s %s %s: %d %s", bad[i].method,
                      bad[i].target, bad[i].body, reply->status, reply->body);
        ck_assert_str_eq(reply_header(reply, "Content-Type"), "application/problem+json");
        ck_assert_int_eq(reply_i64(reply, "status"), bad[i].status);
        ck_assert_msg(strstr(reply_str(reply, "detail"), bad[i].said) != NULL, "%s %s %s: %s",
                      bad[i].method, bad[i].target, bad[i].body, reply->body);
        (void)close(fd);
    }
}
END_TEST

START_TEST(route_ends_at_its_deadline)
{
    start(NULL);
    lock_tables();
    for (int i = 0; i < N(routes); i++) {
        if (routes[i].holds != NOTHING) {
            expect_late(&routes[i]);
        }
    }
    unlock_tables();
    expect_nothing_done();
}
END_TEST

START_TEST(route_ends_with_its_client)
{
    start(NULL);
    lock_tables();
    for (int i = 0; i < N(routes); i++) {
        if (routes[i].holds != NOTHING) {
            expect_left(&routes[i]);
        }
    }
    unlock_tables();
    expect_nothing_done();
}
END_TEST

Suite *suite_routes(void)
{
    Suite *suite = suite_create("routes");
    TCase *tc = tcase_create("route");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, route_is_answered);
    tcase_add_test(tc, route_tells_what_is_bad);
    tcase_add_test(tc, route_ends_at_its_deadline);
    tcase_add_test(tc, route_ends_with_its_client);
    tcase_set_timeout(tc, 60);
    suite_add_tcase(suite, tc);
    return suite;
}
