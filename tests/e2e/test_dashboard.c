/* SPDX-License-Identifier: MIT */
/* GET /v1/dashboard against what PostgreSQL says of the same users and orders. */
#include <check.h>
#include <inttypes.h>
#include <string.h>

#include "client.h"
#include "pgview.h"
#include "rows.h"
#include "service.h"

/* Fixture */

static struct service *service;
static PGconn *pg;

static void setup(void)
{
    pg = pgview_open(NULL);
    service = service_start_ready(NULL, NULL);
}

static void teardown(void)
{
    service_stop_all();
    client_free_all();
    PQfinish(pg);
}

/* Helpers */

static struct reply *get_dashboard(int64_t user_id)
{
    char target[64];

    (void)snprintf(target, sizeof(target), "/v1/dashboard?user_id=%" PRId64, user_id);
    return client_get(service->api_port, target, NULL);
}

static void expect_dashboard_of(int64_t user_id)
{
    struct reply *reply = get_dashboard(user_id);
    char id[24];
    const char *const params[] = {id, NULL};
    PGresult *user;
    PGresult *orders;
    PGresult *metrics;

    (void)snprintf(id, sizeof(id), "%" PRId64, user_id);
    user = pgview_query(pg, SQL_USER "where id = $1", params);
    orders = pgview_query(pg, SQL_ORDER "where user_id = $1" SQL_NEWEST_FIRST "limit 10", params);
    metrics = pgview_query(pg,
                           "select count(*) as order_count, coalesce(sum(total_cents), 0)::bigint"
                           " as total_cents from orders where user_id = $1",
                           params);

    ck_assert_int_eq(reply->status, 200);
    ck_assert_str_eq(reply_header(reply, "Content-Type"), "application/json");
    ck_assert_uint_eq(json_object_size(reply->json), 4);
    ck_assert(json_is_false(reply_at(reply, "partial")));
    expect_row(reply_at(reply, "user"), user, 0);
    expect_rows(reply_at(reply, "orders"), orders);
    expect_row(reply_at(reply, "metrics"), metrics, 0);
    PQclear(user);
    PQclear(orders);
    PQclear(metrics);
}

/* of a user */

START_TEST(user_42_equals_sql)
{
    expect_dashboard_of(42);
}
END_TEST

START_TEST(user_without_orders_equals_sql)
{
    int64_t id = pgview_i64(pg,
                            "select min(id) from users where not exists"
                            " (select from orders where user_id = users.id)",
                            NULL);

    expect_dashboard_of(id);
}
END_TEST

START_TEST(user_with_most_orders_equals_sql)
{
    expect_dashboard_of(pgview_i64(pg,
                                   "select user_id from orders group by user_id"
                                   " order by count(*) desc, user_id limit 1",
                                   NULL));
}
END_TEST

/* Two of the newest ten have one time, so that the id has to decide between them. */
START_TEST(orders_of_one_instant_go_by_id)
{
    expect_dashboard_of(
        pgview_i64(pg,
                   "select user_id from (select user_id, created_at, row_number() over"
                   " (partition by user_id order by created_at desc, id desc) as place from orders)"
                   " as placed where place <= 10 group by user_id, created_at having count(*) > 1"
                   " order by user_id limit 1",
                   NULL));
}
END_TEST

START_TEST(user_with_foreign_letters_equals_sql)
{
    expect_dashboard_of(pgview_i64(pg, "select min(id) from users where name ~ '[^ -~]'", NULL));
}
END_TEST

START_TEST(many_users_equal_sql)
{
    for (int64_t id = 17; id < 10000; id += 211) {
        expect_dashboard_of(id);
    }
}
END_TEST

START_TEST(unknown_user_is_404)
{
    struct reply *reply = get_dashboard(999999999);

    ck_assert_int_eq(reply->status, 404);
    ck_assert_str_eq(reply_header(reply, "Content-Type"), "application/problem+json");
    ck_assert_str_eq(reply_str(reply, "code"), "not_found");
    ck_assert_ptr_nonnull(strstr(reply_str(reply, "detail"), "999999999"));
}
END_TEST

START_TEST(section_timings_are_in_the_header)
{
    const char *timing = reply_header(get_dashboard(42), "Server-Timing");
    static const char *const names[] = {"users;dur=", "orders;dur=", "metrics;dur=", "total;dur="};

    ck_assert_ptr_nonnull(timing);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        ck_assert_msg(strstr(timing, names[i]) != NULL, "no %s in %s", names[i], timing);
    }
}
END_TEST

/* of the store */

START_TEST(store_equals_sql)
{
    struct reply *reply = client_get(service->api_port, "/v1/dashboard", NULL);
    PGresult *users =
        pgview_query(pg, SQL_USER "order by users.created_at desc, id desc limit 10", NULL);
    PGresult *orders = pgview_query(pg, SQL_ORDER SQL_NEWEST_FIRST "limit 10", NULL);

    ck_assert_int_eq(reply->status, 200);
    ck_assert_uint_eq(json_object_size(reply->json), 4);
    ck_assert(json_is_false(reply_at(reply, "partial")));
    expect_rows(reply_at(reply, "users"), users);
    expect_rows(reply_at(reply, "orders"), orders);
    expect_metrics(reply_at(reply, "metrics"), pg);
    PQclear(users);
    PQclear(orders);
}
END_TEST

Suite *suite_dashboard(void)
{
    Suite *suite = suite_create("dashboard");
    TCase *of_user = tcase_create("of_user");
    TCase *of_store = tcase_create("of_store");

    tcase_add_checked_fixture(of_user, setup, teardown);
    tcase_add_test(of_user, user_42_equals_sql);
    tcase_add_test(of_user, user_without_orders_equals_sql);
    tcase_add_test(of_user, user_with_most_orders_equals_sql);
    tcase_add_test(of_user, orders_of_one_instant_go_by_id);
    tcase_add_test(of_user, user_with_foreign_letters_equals_sql);
    tcase_add_test(of_user, many_users_equal_sql);
    tcase_add_test(of_user, unknown_user_is_404);
    tcase_add_test(of_user, section_timings_are_in_the_header);
    tcase_set_timeout(of_user, 30);
    suite_add_tcase(suite, of_user);

    tcase_add_checked_fixture(of_store, setup, teardown);
    tcase_add_test(of_store, store_equals_sql);
    tcase_set_timeout(of_store, 30);
    suite_add_tcase(suite, of_store);
    return suite;
}
