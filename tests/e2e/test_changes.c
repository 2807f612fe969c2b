/* SPDX-License-Identifier: MIT */
/* A change is seen through every instance, long before what was kept is too old.
 *
 * In a schema of the test's own. What is kept is fresh for a minute here, so that nothing but a
 * notification can make it new. */
#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "client.h"
#include "effort.h"
#include "pgview.h"
#include "relay.h"
#include "service.h"

#define SCHEMA "e2e_changes"
#define SEEN_NS (100 * CF_MS)
#define PATIENCE_NS (20 * CF_SECOND)
#define ROUNDS 100

#define USERS 150
#define OF_STORE "/v1/dashboard"
#define OF_USER "/v1/dashboard?user_id=2"

/* Fixture */

static struct service *one;
static struct service *other;
static struct relay relay;
static char url[512];
static PGconn *pg;
static int server_port;

static const char *const settings[] = {"CURFEW_POOL=4", "CURFEW_CACHE_TTL=60s", NULL};

static void setup(void)
{
    pgview_make_schema(SCHEMA, url, sizeof(url));
    pg = pgview_open(url);
    pgview_exec(pg, "insert into users (email, name)"
                    " select 'user' || n || '@example.org', 'User' from generate_series(1, 150) n;"
                    "insert into orders (user_id, status, total_cents)"
                    " select n, 'pending', 500 from generate_series(1, 150) n");
}

static void teardown(void)
{
    service_stop_all();
    relay_stop(&relay);
    client_free_all();
    PQfinish(pg);
    pgview_drop_schema(SCHEMA);
}

/* Helpers */

static struct service *start(const char *on)
{
    struct service *service = service_start_ready(on, settings);

    service_wait_listening(service, 1);
    return service;
}

static int64_t cents(struct service *service, const char *target)
{
    struct reply *reply = client_get(service->api_port, target, NULL);

    ck_assert_msg(reply->status == 200, "%d %s", reply->status, reply->body);
    return reply_i64(reply, "metrics.total_cents");
}

/* Whether the answer to two requests is kept, so that a third means something. */
static void expect_kept(struct service *service, const char *target)
{
    struct reply *reply;

    (void)client_get(service->api_port, target, NULL);
    reply = client_get(service->api_port, target, NULL);
    ck_assert_ptr_nonnull(reply_header(reply, "Age"));
}

/* Wait until `target` shows this sum; returns how long it took. */
static int64_t wait_cents(struct service *service, const char *target, int64_t sum)
{
    int64_t since_ns = cf_now_ns();

    while (cents(service, target) != sum) {
        ck_assert_msg(cf_now_ns() - since_ns < bound(PATIENCE_NS), "%s never shows %" PRId64,
                      target, sum);
        pause_ms(1);
    }
    return cf_now_ns() - since_ns;
}

static void post(struct service *service, int number)
{
    static const char body[] = "{\"user_id\":2,\"total_cents\":1}";
    int fd = client_open(service->api_port);
    char request[512];

    (void)snprintf(request, sizeof(request),
                   "POST /v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
                   "\r\nIdempotency-Key: order-%d\r\nContent-Length: %zu\r\n\r\n%s",
                   number, strlen(body), body);
    client_send(fd, request);
    ck_assert_int_eq(client_recv(fd, "POST")->status, 201);
    (void)close(fd);
}

static int to_server(size_t number)
{
    (void)number;
    return server_port;
}

/* An instance whose every connection goes through the relay. */
static struct service *start_behind(void)
{
    char relayed[600];
    char port[16];
    const char *at;

    server_port = (int)strtol(PQport(pg), NULL, 10);
    relay_start(&relay, to_server);
    (void)snprintf(port, sizeof(port), ":%s/", PQport(pg));
    at = strstr(url, port);
    ck_assert_msg(at != NULL, "CF_TEST_PG_URL has no port in it");
    (void)snprintf(relayed, sizeof(relayed), "%.*s:%u/%s", (int)(at - url), url, relay.port,
                   at + strlen(port));
    return start(relayed);
}

/* seen */

/* All in time, unless the machine was busy with something else just then. */
START_TEST(change_through_one_is_seen_through_the_other)
{
    int64_t took_ns[ROUNDS];
    int64_t p90_ns;

    one = start(url);
    other = start(url);
    for (int i = 0; i < ROUNDS; i++) {
        expect_kept(other, i % 2 == 0 ? OF_USER : OF_STORE);
        post(one, i);
        took_ns[i] = i % 2 == 0 ? wait_cents(other, OF_USER, 500 + i + 1)
                                : wait_cents(other, OF_STORE, USERS * 500 + i + 1);
    }
    p90_ns = permille(took_ns, ROUNDS, 900);
    (void)fprintf(stderr, "  e2e   change seen elsewhere, %d rounds: p90 %.1f, max %.1f ms\n",
                  ROUNDS, (double)p90_ns / 1e6, (double)took_ns[ROUNDS - 1] / 1e6);
    ck_assert_int_le(p90_ns, bound(SEEN_NS));
    ck_assert_int_le(took_ns[ROUNDS - 1], bound(getenv("CF_TEST_LONG") ? SEEN_NS : CF_SECOND));
}
END_TEST

static const struct {
    const char *sql;
    const char *target;
    int64_t cents;
} changes[] = {
    {"update orders set total_cents = 501", OF_USER, 501}, /* Of more than can be named. */
    {"update orders set total_cents = 502", OF_STORE, USERS * 502},
    {"update orders set user_id = 2 where user_id = 1", "/v1/dashboard?user_id=1", 0},
    {"update orders set user_id = 2 where user_id = 3", OF_USER, 3 * 502},
    {"delete from orders where user_id = 2", OF_USER, 0},
    {"truncate orders", OF_STORE, 0},
};

START_TEST(change_by_whomever_is_seen)
{
    int64_t until_ns = cf_now_ns() + bound(PATIENCE_NS);

    other = start(url);
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        expect_kept(other, changes[i].target);
        pgview_exec(pg, changes[i].sql);
        (void)wait_cents(other, changes[i].target, changes[i].cents);
    }
    expect_kept(other, OF_USER);
    pgview_exec(pg, "update users set name = 'Renamed' where id = 2");
    while (strcmp(reply_str(client_get(other->api_port, OF_USER, NULL), "user.name"), "Renamed")) {
        ck_assert_int_lt(cf_now_ns(), until_ns);
        pause_ms(1);
    }
}
END_TEST

/* What is rolled back is not said, and what another dashboard shows stays. */
START_TEST(change_drops_no_more_than_it_must)
{
    other = start(url);
    expect_kept(other, OF_USER);
    expect_kept(other, OF_STORE);
    pgview_exec(pg, "begin; update orders set total_cents = 501; rollback");
    pgview_exec(pg, "update orders set total_cents = 501 where user_id = 3");
    (void)wait_cents(other, OF_STORE,
                     USERS * 500 + 1); /* So the second was heard, behind the first. */
    expect_kept(other, OF_USER);
    ck_assert_ptr_nonnull(reply_header(client_get(other->api_port, OF_USER, NULL), "Age"));
}
END_TEST

/* What it has written itself, it does not have to be told. */
START_TEST(change_is_not_listened_for_where_it_is_turned_off)
{
    one = service_start_ready(
        url, (const char *[]){"CURFEW_POOL=4", "CURFEW_CACHE_TTL=60s", "CURFEW_NOTIFY=0", NULL});
    other = start(url);
    expect_kept(one, OF_STORE);
    expect_kept(other, OF_STORE);
    pgview_exec(pg, "update orders set total_cents = 501");
    (void)wait_cents(other, OF_STORE, USERS * 501);
    ck_assert_int_eq(cents(one, OF_STORE), USERS * 500);
    ck_assert_uint_eq(service_count_lines(one, "event", "listening"), 0);
    for (int i = 0; i < 20; i++) {
        post(one, i);
        ck_assert_int_eq(cents(one, OF_STORE), USERS * 501 + i + 1);
        ck_assert_int_eq(cents(one, OF_USER), 501 + i + 1);
    }
}
END_TEST

/* missed */

/* The line is cut, and nobody gets through. What was kept is older than a change that nobody told
 * of: once the instance listens again it does not serve it any more. */
START_TEST(change_missed_while_cut_off_is_seen_after_it)
{
    other = start_behind();
    expect_kept(other, OF_USER);
    relay_deafen(&relay);
    relay_cut(&relay);
    ck_assert_ptr_nonnull(service_find_line(other, "event", "deaf", bound(PATIENCE_NS)));
    pgview_exec(pg, "update orders set total_cents = 777 where user_id = 2");
    ck_assert_int_eq(cents(other, OF_USER), 500);
    relay_hear(&relay);
    service_wait_listening(other, 2);
    ck_assert_int_eq(cents(other, OF_USER), 777);
}
END_TEST

/* The same with a line that says nothing, for five seconds: the end of it is noticed by asking. */
START_TEST(change_missed_in_silence_is_seen_after_it)
{
    int64_t since_ns;

    other = start_behind();
    expect_kept(other, OF_USER);
    since_ns = cf_now_ns();
    relay_fault(&relay,
                &(struct relay_faults){.to_client = {.hold = true}, .to_server = {.hold = true}});
    pgview_exec(pg, "update orders set total_cents = 777 where user_id = 2");
    ck_assert_ptr_nonnull(service_find_line(other, "event", "deaf", bound(PATIENCE_NS)));
    ck_assert_int_eq(cents(other, OF_USER), 500);
    while (cf_now_ns() - since_ns < 5 * CF_SECOND) {
        pause_ms(10);
    }
    relay_cut(&relay);
    relay_fault(&relay, NULL);
    service_wait_listening(other, 2);
    ck_assert_int_eq(cents(other, OF_USER), 777);
}
END_TEST

Suite *suite_changes(void)
{
    Suite *suite = suite_create("changes");
    TCase *seen = tcase_create("seen");
    TCase *missed = tcase_create("missed");

    tcase_add_checked_fixture(seen, setup, teardown);
    tcase_add_test(seen, change_through_one_is_seen_through_the_other);
    tcase_add_test(seen, change_by_whomever_is_seen);
    tcase_add_test(seen, change_drops_no_more_than_it_must);
    tcase_add_test(seen, change_is_not_listened_for_where_it_is_turned_off);
    tcase_set_timeout(seen, 60);
    suite_add_tcase(suite, seen);

    tcase_add_checked_fixture(missed, setup, teardown);
    tcase_add_test(missed, change_missed_while_cut_off_is_seen_after_it);
    tcase_add_test(missed, change_missed_in_silence_is_seen_after_it);
    tcase_set_timeout(missed, 60);
    suite_add_tcase(suite, missed);
    return suite;
}
