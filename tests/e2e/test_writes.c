/* SPDX-License-Identifier: MIT */
/* Orders that are added and changed: once, whole, and by whom has seen what is changed.
 *
 * In a schema of the test's own. A lock on its orders, held by the test, is what keeps a write from
 * going on; one that a deferred trigger asks for, what keeps a COMMIT from being answered. */
#include <check.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "client.h"
#include "pgview.h"
#include "relay.h"
#include "rows.h"
#include "service.h"

#define SCHEMA "e2e_writes"
#define PATIENCE_NS (20 * CF_SECOND)
#define N(table) (int)(sizeof(table) / sizeof((table)[0]))

/* Fixture */

static struct service *service;
static struct relay relay;
static char url[512];
static PGconn *pg;
static PGconn *locker;
static int server_port;

static void setup(void)
{
    pgview_make_schema(SCHEMA, url, sizeof(url));
    pg = pgview_open(url);
    locker = pgview_open(url);
    pgview_exec(pg, "insert into users (email, name)"
                    " select 'user' || n || '@example.org', 'User' from generate_series(1, 3) n;"
                    "insert into orders (user_id, status, total_cents) values (1, 'pending', 500)");
    service = service_start_ready(url, (const char *[]){"CURFEW_POOL=4", NULL});
}

static void teardown(void)
{
    PQfinish(locker);
    service_stop_all();
    relay_stop(&relay);
    client_free_all();
    PQfinish(pg);
    pgview_drop_schema(SCHEMA);
}

/* Helpers */

#define JSON "Content-Type: application/json\r\n"
#define KEY(text) "Idempotency-Key: " text "\r\n"
#define ORDER "{\"user_id\":2,\"total_cents\":1999}"

/* `headers` are whole lines. */
static void send_body(int fd, const char *method, const char *target, const char *headers,
                      const char *body)
{
    char request[4096];

    ck_assert_int_lt(
        snprintf(request, sizeof(request),
                 "%s %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %zu\r\n\r\n%s", method,
                 target, headers, strlen(body), body),
        (int)sizeof(request));
    client_send(fd, request);
}

static struct reply *call(uint16_t port, const char *method, const char *target,
                          const char *headers, const char *body)
{
    int fd = client_open(port);
    struct reply *reply;

    send_body(fd, method, target, headers, body);
    reply = client_recv(fd, method);
    (void)close(fd);
    return reply;
}

static struct reply *post(const char *headers, const char *body)
{
    return call(service->api_port, "POST", "/v1/orders", headers, body);
}

static struct reply *patch(const char *headers, const char *body)
{
    return call(service->api_port, "PATCH", "/v1/orders/1", headers, body);
}

static int64_t n_orders(void)
{
    return pgview_i64(pg, "select count(*) from orders", NULL);
}

static void expect_order(const struct reply *reply, const char *id)
{
    PGresult *row = pgview_query(pg, SQL_ORDER "where id = $1", (const char *[]){id, NULL});

    expect_row(reply->json, row, 0);
    PQclear(row);
}

static void expect_same(struct reply *reply, struct reply *first)
{
    ck_assert_int_eq(reply->status, first->status);
    ck_assert_str_eq(reply->body, first->body);
    ck_assert_str_eq(reply_header(reply, "Location"), reply_header(first, "Location"));
    ck_assert_str_eq(reply_header(reply, "ETag"), reply_header(first, "ETag"));
}

static void expect_problem(struct reply *reply, int status, const char *code, const char *word)
{
    ck_assert_msg(reply->status == status, "%d, not %d: %s", reply->status, status, reply->body);
    ck_assert_str_eq(reply_str(reply, "code"), code);
    ck_assert_msg(word == NULL || strstr(reply_str(reply, "detail"), word) != NULL, "%s",
                  reply->body);
    ck_assert_ptr_null(reply_header(reply, "Location"));
}

/* Nobody writes an order from here on; who wants to waits. */
static void lock_orders(void)
{
    pgview_exec(locker, "begin; lock table orders in share mode");
}

static void unlock_orders(void)
{
    pgview_exec(locker, "rollback");
}

#define WAITING                                                                                    \
    "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and application_name ="  \
    " 'curfewd' and query ~ $1"

/* Wait until so many of the service's statements that match wait for a lock. */
static void wait_locked(const char *pattern, int n)
{
    int64_t until_ns = cf_now_ns() + bound(PATIENCE_NS);

    while (pgview_i64(pg, WAITING, (const char *[]){pattern, NULL}) != n) {
        ck_assert_msg(cf_now_ns() < until_ns, "never %d of %s", n, pattern);
        pause_ms(1);
    }
}

/* post */

START_TEST(post_adds_an_order)
{
    struct reply *reply = post(JSON KEY("\"one\""), ORDER);

    ck_assert_int_eq(reply->status, 201);
    ck_assert_str_eq(reply_header(reply, "Location"), "/v1/orders/2");
    ck_assert_str_eq(reply_header(reply, "ETag"), "\"1\"");
    ck_assert_str_eq(reply_str(reply, "status"), "pending");
    expect_order(reply, "2");
    reply = post(JSON KEY("two"), "{\"total_cents\":0,\"status\":\"paid\",\"user_id\":3}");
    ck_assert_int_eq(reply->status, 201);
    ck_assert_str_eq(reply_str(reply, "status"), "paid");
    expect_order(reply, "3");
    expect_order(client_get(service->api_port, "/v1/orders/3", NULL), "3");
}
END_TEST

/* In quotes as the draft has it, or bare as most send it: one key. */
START_TEST(post_again_gets_the_same_answer)
{
    struct reply *first = post(JSON KEY("\"a\\\"b c\""), ORDER);

    ck_assert_int_eq(first->status, 201);
    expect_same(post(JSON KEY("\"a\\\"b c\""), ORDER), first);
    ck_assert_int_eq(n_orders(), 2);
    first = post(JSON KEY("plain-1"), ORDER);
    pgview_exec(pg, "update orders set status = 'shipped'"); /* The answer is what was done then. */
    expect_same(post(JSON KEY("\"plain-1\""), ORDER), first);
    ck_assert_int_eq(n_orders(), 3);
}
END_TEST

START_TEST(post_of_another_body_with_the_key_is_422)
{
    ck_assert_int_eq(post(JSON KEY("k"), ORDER)->status, 201);
    expect_problem(post(JSON KEY("k"), "{\"user_id\":2,\"total_cents\":1998}"), 422,
                   "unprocessable", "Idempotency-Key");
    ck_assert_int_eq(n_orders(), 2);
}
END_TEST

/* A refusal has done nothing, and nothing is kept of it. */
START_TEST(post_refused_may_come_again)
{
    expect_problem(post(JSON KEY("k"), "{\"user_id\":4,\"total_cents\":1}"), 422, "unprocessable",
                   "user_id: there is no user 4");
    ck_assert_int_eq(pgview_i64(pg, "select count(*) from idempotency_keys", NULL), 0);
    pgview_exec(pg, "insert into users (id, email, name) values (4, 'user4@example.org', 'User')");
    ck_assert_int_eq(post(JSON KEY("k"), "{\"user_id\":4,\"total_cents\":1}")->status, 201);
}
END_TEST

/* All are under way before the first can do anything: more of them than there are connections. */
START_TEST(post_of_one_key_twenty_times_at_once_makes_one_order)
{
    struct reply *replies[20];
    int fds[20];

    lock_orders();
    for (int i = 0; i < 20; i++) {
        fds[i] = client_open(service->api_port);
        send_body(fds[i], "POST", "/v1/orders?timeout=30s", JSON KEY("twenty"), ORDER);
    }
    wait_locked("INSERT INTO orders", 1);
    wait_locked("INSERT INTO idempotency_keys", 3);
    unlock_orders();
    for (int i = 0; i < 20; i++) {
        replies[i] = client_recv(fds[i], "POST");
        ck_assert_int_eq(replies[i]->status, 201);
        expect_same(replies[i], replies[0]);
        (void)close(fds[i]);
    }
    ck_assert_int_eq(n_orders(), 2);
}
END_TEST

START_TEST(post_key_is_forgotten_in_time)
{
    struct reply *first = post(JSON KEY("k"), ORDER);

    pgview_exec(pg, "update idempotency_keys set created_at = now() - interval '23 hours'");
    expect_same(post(JSON KEY("k"), ORDER), first);
    pgview_exec(pg, "update idempotency_keys set created_at = now() - interval '25 hours'");
    ck_assert_int_eq(post(JSON KEY("k"), "{\"user_id\":1,\"total_cents\":7}")->status, 201);
    ck_assert_int_eq(n_orders(), 3);

    /* And those that nobody asks for again do not stay. */
    pgview_exec(pg, "insert into idempotency_keys (route, key, fingerprint, created_at)"
                    " select 'old', n::text, '', now() - interval '2 days' from"
                    " generate_series(1, 4) n");
    ck_assert_int_eq(post(JSON KEY("l"), ORDER)->status, 201);
    ck_assert_int_eq(post(JSON KEY("m"), ORDER)->status, 201);
    ck_assert_int_eq(pgview_i64(pg, "select count(*) from idempotency_keys", NULL), 3);
}
END_TEST

static const struct {
    const char *headers;
    const char *body;
    int status;
    const char *code;
    const char *word;
} bad_posts[] = {
    {JSON, ORDER, 400, "invalid", "Idempotency-Key"},
    {JSON KEY("\"open"), ORDER, 400, "invalid", "Idempotency-Key"},
    {JSON KEY("\"\""), ORDER, 400, "invalid", "Idempotency-Key"},
    {JSON KEY("\"a\" b"), ORDER, 400, "invalid", "Idempotency-Key"},
    {JSON KEY("two words"), ORDER, 400, "invalid", "Idempotency-Key"},
    {JSON KEY("\xC3\xA4"), ORDER, 400, "invalid", "Idempotency-Key"},
    {KEY("k"), ORDER, 415, "unsupported_media_type", "application/json"},
    {"Content-Type: text/plain\r\n" KEY("k"), ORDER, 415, "unsupported_media_type", NULL},
    {"Content-Type: application/jsonp\r\n" KEY("k"), ORDER, 415, "unsupported_media_type", NULL},
    {JSON KEY("k"), "", 400, "invalid", "empty"},
    {JSON KEY("k"), "{\"user_id\":2,", 400, "invalid", "JSON"},
    {JSON KEY("k"), "{\"user_id\":1,\"user_id\":2,\"total_cents\":1}", 400, "invalid", "twice"},
    {JSON KEY("k"), "[]", 422, "unprocessable", "object"},
    {JSON KEY("k"), "{\"total_cents\":1}", 422, "unprocessable", "user_id must be"},
    {JSON KEY("k"), "{\"user_id\":2}", 422, "unprocessable", "total_cents must be"},
    {JSON KEY("k"), "{\"user_id\":\"2\",\"total_cents\":1}", 422, "unprocessable", "user_id"},
    {JSON KEY("k"), "{\"user_id\":2.0,\"total_cents\":1}", 422, "unprocessable", "user_id"},
    {JSON KEY("k"), "{\"user_id\":0,\"total_cents\":1}", 422, "unprocessable", "user_id"},
    {JSON KEY("k"), "{\"user_id\":2,\"total_cents\":-1}", 422, "unprocessable", "total_cents"},
    {JSON KEY("k"), "{\"user_id\":2,\"total_cents\":100000000001}", 422, "unprocessable",
     "total_cents must be an integer from 0 to 100000000000"},
    {JSON KEY("k"), "{\"user_id\":2,\"total_cents\":null}", 422, "unprocessable", "total_cents"},
    {JSON KEY("k"), "{\"user_id\":2,\"total_cents\":1,\"status\":\"lost\"}", 422, "unprocessable",
     "status must be pending, paid, shipped or cancelled"},
    {JSON KEY("k"), "{\"user_id\":2,\"total_cents\":1,\"status\":\"paid\\u0000\"}", 400, "invalid",
     NULL},
    {JSON KEY("k"), "{\"user_id\":2,\"total_cents\":1,\"totalCents\":1}", 422, "unprocessable",
     "totalCents is not known"},
};

START_TEST(post_that_is_wrong_is_told_why)
{
    for (int i = 0; i < N(bad_posts); i++) {
        expect_problem(post(bad_posts[i].headers, bad_posts[i].body), bad_posts[i].status,
                       bad_posts[i].code, bad_posts[i].word);
    }
    ck_assert_int_eq(n_orders(), 1);
}
END_TEST

START_TEST(post_past_its_deadline_has_done_nothing)
{
    struct reply *reply;

    lock_orders();
    reply = call(service->api_port, "POST", "/v1/orders?timeout=200ms", JSON KEY("k"), ORDER);
    expect_problem(reply, 504, "deadline_exceeded", NULL);
    wait_locked("INSERT", 0);
    unlock_orders();
    ck_assert_int_eq(n_orders(), 1);
    ck_assert_int_eq(post(JSON KEY("k"), ORDER)->status, 201);
    ck_assert_int_eq(n_orders(), 2);
}
END_TEST

START_TEST(post_of_a_client_that_leaves_has_done_nothing)
{
    int fd = client_open(service->api_port);

    lock_orders();
    send_body(fd, "POST", "/v1/orders", JSON KEY("k"), ORDER);
    wait_locked("INSERT INTO orders", 1);
    (void)close(fd);
    wait_locked("INSERT INTO orders", 0);
    unlock_orders();
    ck_assert_int_eq(n_orders(), 1);
    ck_assert_int_eq(post(JSON KEY("k"), ORDER)->status, 201);
}
END_TEST

/* Who waits for the other one of its key has a deadline of its own, and ends nobody else. */
START_TEST(post_waits_for_its_twin_until_its_own_deadline)
{
    int fd = client_open(service->api_port);

    lock_orders();
    send_body(fd, "POST", "/v1/orders?timeout=30s", JSON KEY("k"), ORDER);
    wait_locked("INSERT INTO orders", 1);
    expect_problem(
        call(service->api_port, "POST", "/v1/orders?timeout=100ms", JSON KEY("k"), ORDER), 504,
        "deadline_exceeded", "may have been made");
    unlock_orders();
    ck_assert_int_eq(client_recv(fd, "POST")->status, 201);
    (void)close(fd);
    ck_assert_int_eq(n_orders(), 2);
}
END_TEST

/* commit */

/* A COMMIT waits for a lock that the test holds, and so does not end before the line is dead. */
static const char slow_commit[] =
    "create function wait_for_test() returns trigger language plpgsql as"
    " 'begin perform pg_advisory_xact_lock(5312); return null; end';"
    "create constraint trigger wait_for_test after insert on orders deferrable initially deferred"
    " for each row execute function wait_for_test()";

static int to_server(size_t number)
{
    (void)number;
    return server_port;
}

static void relayed_url(char *out, size_t size)
{
    char port[16];
    const char *at;

    (void)snprintf(port, sizeof(port), ":%s/", PQport(pg));
    at = strstr(url, port);
    ck_assert_msg(at != NULL, "CF_TEST_PG_URL has no port in it");
    (void)snprintf(out, size, "%.*s:%u/%s", (int)(at - url), url, relay.port, at + strlen(port));
}

static void wait_orders(int64_t n)
{
    int64_t until_ns = cf_now_ns() + bound(5 * CF_SECOND);

    while (n_orders() != n) {
        ck_assert_int_lt(cf_now_ns(), until_ns);
        pause_ms(1);
    }
}

/* Have a service behind the relay commit an order, and not hear of it. */
static struct service *commit_unheard(int *out_fd)
{
    char relayed[600];
    struct service *behind;

    pgview_exec(pg, slow_commit);
    pgview_exec(locker, "select pg_advisory_lock(5312)");
    server_port = (int)strtol(PQport(pg), NULL, 10);
    relay_start(&relay, to_server);
    relayed_url(relayed, sizeof(relayed));
    behind = service_start_ready(relayed, (const char *[]){"CURFEW_POOL=1", NULL});
    *out_fd = client_open(behind->api_port);
    send_body(*out_fd, "POST", "/v1/orders?timeout=30s", JSON KEY("k"), ORDER);
    wait_locked("COMMIT", 1);
    relay_fault(&relay, &(struct relay_faults){.to_client = {.hold = true}});
    pgview_exec(locker, "select pg_advisory_unlock(5312)");
    wait_orders(2);
    return behind;
}

static void expect_answer_and_one_order(void)
{
    struct reply *reply = post(JSON KEY("k"), ORDER);

    ck_assert_int_eq(reply->status, 201);
    ck_assert_str_eq(reply_header(reply, "Location"), "/v1/orders/2");
    expect_order(reply, "2");
    expect_same(post(JSON KEY("k"), ORDER), reply);
    ck_assert_int_eq(n_orders(), 2);
}

START_TEST(commit_and_kill_9_before_the_answer_is_one_order)
{
    int fd;
    struct service *behind = commit_unheard(&fd);

    service_signal(behind, SIGKILL);
    ck_assert_int_eq(service_wait(behind, 5 * CF_SECOND), -SIGKILL);
    ck_assert_int_eq(client_recv(fd, "POST")->status, 0);
    (void)close(fd);
    expect_answer_and_one_order();
}
END_TEST

START_TEST(commit_whose_answer_is_lost_is_unknown_and_one_order)
{
    int fd;
    struct reply *reply;

    (void)commit_unheard(&fd);
    relay_cut(&relay);
    relay_fault(&relay, NULL);
    reply = client_recv(fd, "POST");
    expect_problem(reply, 500, "outcome_unknown", NULL);
    (void)close(fd);
    expect_answer_and_one_order();
}
END_TEST

/* get */

START_TEST(get_has_an_etag_that_changes)
{
    struct reply *reply = client_get(service->api_port, "/v1/orders/1", NULL);

    ck_assert_int_eq(reply->status, 200);
    ck_assert_str_eq(reply_header(reply, "ETag"), "\"1\"");
    expect_order(reply, "1");
    reply = client_get(service->api_port, "/v1/orders/1", "If-None-Match: \"0\", W/\"1\"\r\n");
    ck_assert_int_eq(reply->status, 304);
    ck_assert_str_eq(reply_header(reply, "ETag"), "\"1\"");
    pgview_exec(pg, "update orders set total_cents = 501"); /* Whoever changes it. */
    reply = client_get(service->api_port, "/v1/orders/1", "If-None-Match: \"0\", W/\"1\"\r\n");
    ck_assert_int_eq(reply->status, 200);
    ck_assert_str_eq(reply_header(reply, "ETag"), "\"2\"");
    pgview_exec(pg, "update orders set total_cents = 501"); /* Nothing has changed. */
    reply = client_get(service->api_port, "/v1/orders/1", NULL);
    ck_assert_str_eq(reply_header(reply, "ETag"), "\"2\"");
}
END_TEST

START_TEST(get_of_none_is_404)
{
    expect_problem(client_get(service->api_port, "/v1/orders/99", NULL), 404, "not_found",
                   "order 99");
    expect_problem(client_get(service->api_port, "/v1/orders/none", NULL), 400, "invalid", "id");
}
END_TEST

START_TEST(get_past_its_deadline_is_504_and_a_client_may_leave)
{
    int fd = client_open(service->api_port);

    pgview_exec(locker, "begin; lock table orders in access exclusive mode");
    expect_problem(client_get(service->api_port, "/v1/orders/1?timeout=100ms", NULL), 504,
                   "deadline_exceeded", NULL);
    wait_locked("FROM orders", 0);
    client_request(fd, "GET", "/v1/orders/1", NULL);
    wait_locked("FROM orders", 1);
    (void)close(fd);
    wait_locked("FROM orders", 0);
    unlock_orders();
    ck_assert_int_eq(client_get(service->api_port, "/v1/orders/1", NULL)->status, 200);
}
END_TEST

/* patch */

#define MATCH(tags) "If-Match: " tags "\r\n"

START_TEST(patch_changes_what_was_seen)
{
    struct reply *reply = patch(JSON MATCH("\"1\""), "{\"status\":\"paid\"}");

    ck_assert_int_eq(reply->status, 200);
    ck_assert_str_eq(reply_header(reply, "ETag"), "\"2\"");
    ck_assert_str_eq(reply_str(reply, "status"), "paid");
    ck_assert_int_eq(reply_i64(reply, "total_cents"), 500);
    expect_order(reply, "1");
    reply = patch("Content-Type: application/merge-patch+json; charset=utf-8\r\n"
                  "If-Match: \"7\", W/\"2\" ,\"2\"\r\n",
                  "{\"total_cents\":0}");
    ck_assert_int_eq(reply->status, 200);
    ck_assert_int_eq(reply_i64(reply, "total_cents"), 0);
    ck_assert_str_eq(reply_str(reply, "status"), "paid");
    reply = patch(JSON MATCH("*"), "{\"total_cents\":9,\"status\":\"shipped\"}");
    ck_assert_int_eq(reply->status, 200);
    ck_assert_str_eq(reply_header(reply, "ETag"), "\"4\"");
    expect_order(reply, "1");
}
END_TEST

static const struct {
    const char *target;
    const char *headers;
    const char *body;
    int status;
    const char *code;
    const char *word;
} bad_patches[] = {
    {"/v1/orders/1", JSON, "{\"status\":\"paid\"}", 428, "precondition_required", "If-Match"},
    {"/v1/orders/1", JSON MATCH("\"2\""), "{\"status\":\"paid\"}", 412, "precondition_failed",
     "is now \"1\""},
    {"/v1/orders/1", JSON MATCH("W/\"1\""), "{\"status\":\"paid\"}", 412, "precondition_failed",
     NULL},
    {"/v1/orders/1", JSON MATCH("1"), "{\"status\":\"paid\"}", 412, "precondition_failed", NULL},
    {"/v1/orders/9", JSON MATCH("*"), "{\"status\":\"paid\"}", 404, "not_found", "order 9"},
    {"/v1/orders/0", JSON MATCH("*"), "{\"status\":\"paid\"}", 400, "invalid", "id"},
    {"/v1/orders/1", MATCH("\"1\""), "{\"status\":\"paid\"}", 415, "unsupported_media_type",
     "merge-patch"},
    {"/v1/orders/1", JSON MATCH("\"1\""), "{\"status\":", 400, "invalid", "JSON"},
    {"/v1/orders/1", JSON MATCH("\"1\""), "{}", 422, "unprocessable", "no member"},
    {"/v1/orders/1", JSON MATCH("\"1\""), "{\"user_id\":2}", 422, "unprocessable", "user_id"},
    {"/v1/orders/1", JSON MATCH("\"1\""), "{\"status\":null}", 422, "unprocessable", "status"},
    {"/v1/orders/1", JSON MATCH("\"1\""), "{\"status\":\"paid\",\"total_cents\":-1}", 422,
     "unprocessable", "total_cents"},
};

START_TEST(patch_that_is_wrong_is_told_why)
{
    for (int i = 0; i < N(bad_patches); i++) {
        expect_problem(call(service->api_port, "PATCH", bad_patches[i].target,
                            bad_patches[i].headers, bad_patches[i].body),
                       bad_patches[i].status, bad_patches[i].code, bad_patches[i].word);
    }
    ck_assert_int_eq(
        pgview_i64(pg, "select count(*) from orders where version = 1 and status = 'pending'",
                   NULL),
        1);
}
END_TEST

/* Two who have seen the same: one of them changes it, and the other is told. */
START_TEST(patch_of_one_state_twice_at_once_is_done_once)
{
    int fds[2];
    int sum = 0;

    lock_orders();
    for (int i = 0; i < 2; i++) {
        fds[i] = client_open(service->api_port);
        send_body(fds[i], "PATCH", "/v1/orders/1", JSON MATCH("\"1\""), "{\"status\":\"paid\"}");
    }
    wait_locked("UPDATE orders", 1);
    wait_locked("FOR UPDATE", 1);
    unlock_orders();
    for (int i = 0; i < 2; i++) {
        sum += client_recv(fds[i], "PATCH")->status;
        (void)close(fds[i]);
    }
    ck_assert_int_eq(sum, 200 + 412);
    ck_assert_int_eq(pgview_i64(pg, "select version from orders", NULL), 2);
}
END_TEST

START_TEST(patch_that_ends_early_has_done_nothing)
{
    int fd = client_open(service->api_port);

    lock_orders();
    expect_problem(call(service->api_port, "PATCH", "/v1/orders/1?timeout=100ms",
                        JSON MATCH("\"1\""), "{\"status\":\"paid\"}"),
                   504, "deadline_exceeded", NULL);
    wait_locked("UPDATE orders", 0);
    send_body(fd, "PATCH", "/v1/orders/1", JSON MATCH("\"1\""), "{\"status\":\"paid\"}");
    wait_locked("UPDATE orders", 1);
    (void)close(fd);
    wait_locked("UPDATE orders", 0);
    unlock_orders();
    ck_assert_int_eq(patch(JSON MATCH("\"1\""), "{\"status\":\"paid\"}")->status, 200);
}
END_TEST

Suite *suite_writes(void)
{
    Suite *suite = suite_create("writes");
    TCase *post_case = tcase_create("post");
    TCase *commit = tcase_create("commit");
    TCase *get = tcase_create("get");
    TCase *patch_case = tcase_create("patch");

    tcase_add_checked_fixture(post_case, setup, teardown);
    tcase_add_test(post_case, post_adds_an_order);
    tcase_add_test(post_case, post_again_gets_the_same_answer);
    tcase_add_test(post_case, post_of_another_body_with_the_key_is_422);
    tcase_add_test(post_case, post_refused_may_come_again);
    tcase_add_test(post_case, post_of_one_key_twenty_times_at_once_makes_one_order);
    tcase_add_test(post_case, post_key_is_forgotten_in_time);
    tcase_add_test(post_case, post_past_its_deadline_has_done_nothing);
    tcase_add_test(post_case, post_of_a_client_that_leaves_has_done_nothing);
    tcase_add_test(post_case, post_waits_for_its_twin_until_its_own_deadline);
    tcase_add_test(post_case, post_that_is_wrong_is_told_why);
    tcase_set_timeout(post_case, 60);
    suite_add_tcase(suite, post_case);

    tcase_add_checked_fixture(commit, setup, teardown);
    tcase_add_test(commit, commit_and_kill_9_before_the_answer_is_one_order);
    tcase_add_test(commit, commit_whose_answer_is_lost_is_unknown_and_one_order);
    tcase_set_timeout(commit, 60);
    suite_add_tcase(suite, commit);

    tcase_add_checked_fixture(get, setup, teardown);
    tcase_add_test(get, get_has_an_etag_that_changes);
    tcase_add_test(get, get_of_none_is_404);
    tcase_add_test(get, get_past_its_deadline_is_504_and_a_client_may_leave);
    tcase_set_timeout(get, 60);
    suite_add_tcase(suite, get);

    tcase_add_checked_fixture(patch_case, setup, teardown);
    tcase_add_test(patch_case, patch_changes_what_was_seen);
    tcase_add_test(patch_case, patch_that_is_wrong_is_told_why);
    tcase_add_test(patch_case, patch_of_one_state_twice_at_once_is_done_once);
    tcase_add_test(patch_case, patch_that_ends_early_has_done_nothing);
    tcase_set_timeout(patch_case, 60);
    suite_add_tcase(suite, patch_case);
    return suite;
}
