/* SPDX-License-Identifier: MIT */
/* A section of the dashboard that fails ends the others, also one that would run for long.
 *
 * In a schema of the test's own, because a lock on its orders, held by the test, is what makes a
 * section run for long. */
#include <check.h>
#include <unistd.h>

#include "client.h"
#include "pgview.h"
#include "service.h"

#define SCHEMA "e2e_siblings"
#define ON_ORDERS "FROM orders"
#define ROUNDS 100

/* Fixture */

static struct service *service;
static char url[512];
static PGconn *pg;
static PGconn *locker;

static void setup(void)
{
    pgview_make_schema(SCHEMA, url, sizeof(url));
    pg = pgview_open(url);
    locker = pgview_open(url);
    pgview_exec(pg, "insert into users (email, name) values ('a@example.org', 'A');"
                    "insert into orders (user_id, status, total_cents) values (1, 'paid', 5)");
    service = service_start_ready(url, NULL);
    ck_assert_int_ge(pgview_wait_active(pg, ON_ORDERS, 0, 5 * CF_SECOND), 0);
}

static void teardown(void)
{
    PQfinish(locker);
    service_stop_all();
    client_free_all();
    PQfinish(pg);
    pgview_drop_schema(SCHEMA);
}

/* Helpers */

static void lock_orders(void)
{
    pgview_exec(locker, "begin; lock table orders in access exclusive mode");
}

/* missing user */

/* For each PQcancel the server forks, and late where it is busy. */
static const struct {
    const char *setting;
    unsigned prompt_permille; /* So many are ended within 100 ms. */
} ways[] = {{"CURFEW_CANCEL=control", 900}, {"CURFEW_CANCEL=pqcancel", 500}};

/* Again and again, because a cancel that comes before its statement was read does nothing: the
 * first of these queries is on its way for less than a millisecond when the user turns out to be
 * missing. */
static bool ends_in_time(struct service *other, unsigned prompt_permille)
{
    int64_t took_ns[ROUNDS];
    int64_t ended_ns[ROUNDS];

    for (int i = 0; i < ROUNDS; i++) {
        struct reply *reply =
            client_get(other->api_port, "/v1/dashboard?user_id=999&timeout=10s", NULL);

        ck_assert_int_eq(reply->status, 404);
        ck_assert_str_eq(reply_str(reply, "code"), "not_found");
        took_ns[i] = reply->done_ns - reply->sent_ns;
        ended_ns[i] = pgview_wait_active(pg, ON_ORDERS, 0, CF_SECOND);
        ck_assert_int_ge(ended_ns[i], 0);
    }
    return permille(took_ns, ROUNDS, 980) < bound(250 * CF_MS) &&
           permille(ended_ns, ROUNDS, prompt_permille) < bound(100 * CF_MS);
}

/* In one of four times. */
START_TEST(missing_user_ends_blocked_sections)
{
    struct service *other = service_start_ready(url, (const char *[]){ways[_i].setting, NULL});
    bool in_time = false;

    lock_orders();
    for (int i = 0; i < 4 && !in_time; i++) {
        in_time = ends_in_time(other, ways[_i].prompt_permille);
    }
    ck_assert(in_time);
}
END_TEST

/* That there was something to end: the pool has cancelled it, on the server. */
START_TEST(blocked_section_was_running_and_is_canceled)
{
    json_t *line = NULL;

    lock_orders();
    /* The first of them find connections on which their statements have to be prepared, and the
     * missing user may be known before the others are on their way. */
    for (int i = 0; i < 50 && line == NULL; i++) {
        ck_assert_int_eq(client_get(service->api_port, "/v1/dashboard?user_id=999", NULL)->status,
                         404);
        line = service_find_line(service, "outcome", "effective", 50 * CF_MS);
    }
    ck_assert_ptr_nonnull(line);
    ck_assert_str_eq(json_string_value(json_object_get(line, "event")), "canceled");
    json_decref(line);
    ck_assert_int_ge(pgview_wait_active(pg, ON_ORDERS, 0, 100 * CF_MS), 0);
}
END_TEST

START_TEST(log_line_of_the_request_blames_no_one)
{
    json_t *line;

    lock_orders();
    (void)client_get(service->api_port, "/v1/dashboard?user_id=999", "X-Request-Id: missing\r\n");
    line = service_find_line(service, "request_id", "missing", CF_SECOND);
    ck_assert_ptr_nonnull(line);
    ck_assert_int_eq(json_integer_value(json_object_get(line, "http.response.status_code")), 404);
    ck_assert_str_eq(json_string_value(json_object_get(line, "code")), "not_found");
    ck_assert_ptr_null(json_object_get(line, "cancel_cause"));
    json_decref(line);
}
END_TEST

/* present user */

START_TEST(deadline_ends_all_sections)
{
    struct reply *reply;

    lock_orders();
    reply =
        client_get(service->api_port, "/v1/dashboard?user_id=1&timeout=200ms&require=all", NULL);
    ck_assert_int_eq(reply->status, 504);
    ck_assert_str_eq(reply_str(reply, "code"), "deadline_exceeded");
    ck_assert_int_ge(reply->done_ns - reply->sent_ns, 200 * CF_MS);
    ck_assert_int_ge(pgview_wait_active(pg, ON_ORDERS, 0, 100 * CF_MS), 0);
}
END_TEST

START_TEST(section_waits_out_a_short_lock)
{
    int fd = client_open(service->api_port);
    struct reply *reply;

    lock_orders();
    client_request(fd, "GET", "/v1/dashboard?user_id=1", NULL);
    ck_assert_int_ge(pgview_wait_active(pg, ON_ORDERS, 2, 2 * CF_SECOND), 0);
    pgview_exec(locker, "commit");
    reply = client_recv(fd, "GET");
    ck_assert_int_eq(reply->status, 200);
    ck_assert_int_eq(reply_i64(reply, "metrics.total_cents"), 5);
    (void)close(fd);
}
END_TEST

Suite *suite_siblings(void)
{
    Suite *suite = suite_create("siblings");
    TCase *missing = tcase_create("missing_user");
    TCase *present = tcase_create("present_user");

    tcase_add_checked_fixture(missing, setup, teardown);
    tcase_add_loop_test(missing, missing_user_ends_blocked_sections, 0, 2);
    tcase_add_test(missing, blocked_section_was_running_and_is_canceled);
    tcase_add_test(missing, log_line_of_the_request_blames_no_one);
    tcase_set_timeout(missing, 90);
    suite_add_tcase(suite, missing);

    tcase_add_checked_fixture(present, setup, teardown);
    tcase_add_test(present, deadline_ends_all_sections);
    tcase_add_test(present, section_waits_out_a_short_lock);
    tcase_set_timeout(present, 30);
    suite_add_tcase(suite, present);
    return suite;
}
