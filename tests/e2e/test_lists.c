/* SPDX-License-Identifier: MIT */
/* Users, orders and metrics: one, a page, all pages; against what PostgreSQL says. */
#include <check.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

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

/* The target of the page that a Link leads to, resolved as RFC 3986 has a reference that is a query
 * only; "" without a Link. */
static void follow(struct reply *reply, const char *target, char *out, size_t size)
{
    const char *link = reply_header(reply, "Link");
    int n_path = (int)strcspn(target, "?");
    char query[128];

    out[0] = '\0';
    if (link != NULL) {
        ck_assert_int_eq(sscanf(link, "<%127[^>]>; rel=\"next\"", query), 1);
        ck_assert_int_eq(query[0], '?');
        (void)snprintf(out, size, "%.*s%s", n_path, target, query);
    }
}

/* Follow Link from the first page of `base` to the last. Every page but the last must be full,
 * and all together must be the rows of `result`, in this order: nothing skipped, nothing twice. */
static void walk_pages(const char *base, int limit, const PGresult *result)
{
    int fd = client_open(service->api_port);
    char target[256];
    int row = 0;

    (void)snprintf(target, sizeof(target), "%slimit=%d", base, limit);
    while (target[0] != '\0') {
        char next_target[256];
        struct reply *reply;
        json_t *data;
        json_t *next;

        client_request(fd, "GET", target, NULL);
        reply = client_recv(fd, "GET");
        ck_assert_msg(reply->status == 200, "%s: %d %s", target, reply->status, reply->body);
        ck_assert_uint_eq(json_object_size(reply->json), 2);
        data = reply_at(reply, "data");
        next = reply_at(reply, "next");
        for (size_t i = 0; i < json_array_size(data); i++) {
            expect_row(json_array_get(data, i), result, row++);
        }
        follow(reply, target, next_target, sizeof(next_target));
        ck_assert_int_eq(json_is_null(next), next_target[0] == '\0');
        if (!json_is_null(next)) {
            ck_assert_int_eq((int)json_array_size(data), limit);
            ck_assert_int_eq(json_integer_value(next),
                             json_integer_value(json_object_get(
                                 json_array_get(data, json_array_size(data) - 1), "id")));
        }
        memcpy(target, next_target, sizeof(target));
    }
    ck_assert_int_eq(row, PQntuples(result));
    (void)close(fd);
}

/* users */

START_TEST(user_equals_sql)
{
    struct reply *reply = client_get(service->api_port, "/v1/users/42", NULL);
    PGresult *user = pgview_query(pg, SQL_USER "where id = 42", NULL);

    ck_assert_int_eq(reply->status, 200);
    expect_row(reply->json, user, 0);
    PQclear(user);
}
END_TEST

START_TEST(unknown_user_is_404)
{
    struct reply *reply = client_get(service->api_port, "/v1/users/999999999", NULL);

    ck_assert_int_eq(reply->status, 404);
    ck_assert_str_eq(reply_str(reply, "code"), "not_found");
    ck_assert_ptr_nonnull(strstr(reply_str(reply, "detail"), "999999999"));
}
END_TEST

START_TEST(pages_of_users_have_no_gap_and_no_repeat)
{
    PGresult *users = pgview_query(pg, SQL_USER "order by id", NULL);

    walk_pages("/v1/users?", 200, users);
    PQclear(users);
}
END_TEST

START_TEST(page_of_users_has_twenty_by_default)
{
    struct reply *reply = client_get(service->api_port, "/v1/users", NULL);
    PGresult *users = pgview_query(pg, SQL_USER "order by id limit 20", NULL);

    expect_rows(reply_at(reply, "data"), users);
    ck_assert_int_eq(reply_i64(reply, "next"), reply_i64(reply, "data.19.id"));
    PQclear(users);
}
END_TEST

/* A list whose length is a multiple of the limit ends with a full page, not with an empty one. */
START_TEST(last_page_that_is_full_has_no_next)
{
    struct reply *reply;
    char target[64];

    (void)snprintf(target, sizeof(target), "/v1/users?limit=5&after=%" PRId64,
                   pgview_i64(pg, "select id from users order by id desc offset 5 limit 1", NULL));
    reply = client_get(service->api_port, target, NULL);
    ck_assert_uint_eq(json_array_size(reply_at(reply, "data")), 5);
    ck_assert(json_is_null(reply_at(reply, "next")));
}
END_TEST

START_TEST(page_behind_the_last_is_empty)
{
    struct reply *reply = client_get(service->api_port, "/v1/users?after=999999999", NULL);

    ck_assert_int_eq(reply->status, 200);
    ck_assert_uint_eq(json_array_size(reply_at(reply, "data")), 0);
    ck_assert(json_is_null(reply_at(reply, "next")));
}
END_TEST

/* orders */

/* Of the user with most orders, by pages of seven: times that are equal fall on borders too. */
START_TEST(pages_of_orders_of_one_user_have_no_gap_and_no_repeat)
{
    char id[24];
    char base[64];
    const char *const params[] = {id, NULL};
    PGresult *orders;

    (void)snprintf(id, sizeof(id), "%" PRId64,
                   pgview_i64(pg,
                              "select user_id from orders group by user_id"
                              " order by count(*) - count(distinct created_at) desc, user_id"
                              " limit 1",
                              NULL));
    (void)snprintf(base, sizeof(base), "/v1/orders?user_id=%s&", id);
    orders = pgview_query(pg, SQL_ORDER "where user_id = $1" SQL_NEWEST_FIRST, params);
    ck_assert_int_gt(pgview_i64(pg,
                                "select count(*) - count(distinct created_at) from orders"
                                " where user_id = $1",
                                params),
                     5);
    walk_pages(base, 7, orders);
    PQclear(orders);
}
END_TEST

/* One order a page: every border is tried, also between two of one instant. */
START_TEST(single_steps_over_equal_times_lose_nothing)
{
    char id[24];
    char base[64];
    PGresult *orders;

    (void)snprintf(id, sizeof(id), "%" PRId64,
                   pgview_i64(pg,
                              "select user_id from orders group by user_id"
                              " having count(*) between 20 and 60"
                              " and count(distinct created_at) < count(*)"
                              " order by user_id limit 1",
                              NULL));
    (void)snprintf(base, sizeof(base), "/v1/orders?user_id=%s&", id);
    orders = pgview_query(pg, SQL_ORDER "where user_id = $1" SQL_NEWEST_FIRST,
                          (const char *[]){id, NULL});
    walk_pages(base, 1, orders);
    PQclear(orders);
}
END_TEST

START_TEST(orders_of_all_users_begin_with_the_newest)
{
    struct reply *first = client_get(service->api_port, "/v1/orders?limit=30", NULL);
    struct reply *second;
    char target[64];
    PGresult *orders = pgview_query(pg, SQL_ORDER SQL_NEWEST_FIRST "limit 30", NULL);
    PGresult *next = pgview_query(pg, SQL_ORDER SQL_NEWEST_FIRST "offset 30 limit 30", NULL);

    expect_rows(reply_at(first, "data"), orders);
    (void)snprintf(target, sizeof(target), "/v1/orders?limit=30&after=%" PRId64,
                   reply_i64(first, "next"));
    second = client_get(service->api_port, target, NULL);
    expect_rows(reply_at(second, "data"), next);
    PQclear(orders);
    PQclear(next);
}
END_TEST

/* Of one user and of all, every status: no page has another one, and no order is left out. */
START_TEST(pages_of_orders_of_one_status_have_no_gap_and_no_repeat)
{
    static const char *const statuses[] = {"pending", "paid", "shipped", "cancelled"};
    char newest[128];
    char base[96];
    char id[24];
    PGresult *orders;

    (void)snprintf(id, sizeof(id), "%" PRId64,
                   pgview_i64(pg,
                              "select user_id from orders group by user_id"
                              " order by count(*) desc, user_id limit 1",
                              NULL));
    for (int i = 0; i < 4; i++) {
        (void)snprintf(base, sizeof(base), "/v1/orders?status=%s&user_id=%s&", statuses[i], id);
        orders = pgview_query(pg, SQL_ORDER "where user_id = $1 and status = $2" SQL_NEWEST_FIRST,
                              (const char *[]){id, statuses[i], NULL});
        ck_assert_int_gt(PQntuples(orders), 3);
        walk_pages(base, 3, orders);
        PQclear(orders);

        orders = pgview_query(pg, SQL_ORDER "where status = $1" SQL_NEWEST_FIRST "limit 30",
                              (const char *[]){statuses[i], NULL});
        (void)snprintf(newest, sizeof(newest), "/v1/orders?status=%s&limit=15", statuses[i]);
        for (int page = 0; page < 2; page++) {
            struct reply *reply = client_get(service->api_port, newest, NULL);
            char next[128];

            for (int row = 0; row < 15; row++) {
                expect_row(json_array_get(reply_at(reply, "data"), (size_t)row), orders,
                           page * 15 + row);
            }
            follow(reply, newest, next, sizeof(next));
            (void)snprintf(newest, sizeof(newest), "%s", next);
        }
        PQclear(orders);
    }
}
END_TEST

/* The cursor is a place in the list. */
START_TEST(order_of_another_status_is_a_cursor)
{
    char target[96];
    char after[24];
    PGresult *orders;
    struct reply *reply;

    (void)snprintf(after, sizeof(after), "%" PRId64,
                   pgview_i64(pg,
                              "select id from orders where status = 'paid'" SQL_NEWEST_FIRST
                              "offset 10 limit 1",
                              NULL));
    orders = pgview_query(
        pg,
        SQL_ORDER "where status = 'shipped' and (created_at, id) <"
                  " (select created_at, id from orders where id = $1)" SQL_NEWEST_FIRST "limit 20",
        (const char *[]){after, NULL});
    (void)snprintf(target, sizeof(target), "/v1/orders?status=shipped&after=%s", after);
    reply = client_get(service->api_port, target, NULL);
    expect_rows(reply_at(reply, "data"), orders);
    PQclear(orders);
}
END_TEST

/* An empty page would say that the list has ended. */
START_TEST(order_of_another_user_is_no_cursor)
{
    char target[96];
    struct reply *reply;

    (void)snprintf(target, sizeof(target), "/v1/orders?user_id=42&after=%" PRId64,
                   pgview_i64(pg, "select max(id) from orders where user_id <> 42", NULL));
    reply = client_get(service->api_port, target, NULL);
    ck_assert_int_eq(reply->status, 400);
    ck_assert_str_eq(reply_str(reply, "code"), "invalid");
    ck_assert_ptr_nonnull(strstr(reply_str(reply, "detail"), "is not of user 42"));
}
END_TEST

START_TEST(order_that_is_none_is_no_cursor)
{
    static const char *const targets[] = {"/v1/orders?after=999999999",
                                          "/v1/orders?user_id=42&after=999999999",
                                          "/v1/orders?status=paid&after=999999999"};

    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        struct reply *reply = client_get(service->api_port, targets[i], NULL);

        ck_assert_int_eq(reply->status, 400);
        ck_assert_ptr_nonnull(strstr(reply_str(reply, "detail"), "there is no order 999999999"));
    }
}
END_TEST

START_TEST(page_behind_the_last_order_is_empty)
{
    char target[96];
    struct reply *reply;

    (void)snprintf(target, sizeof(target), "/v1/orders?user_id=42&after=%" PRId64,
                   pgview_i64(pg,
                              "select id from orders where user_id = 42"
                              " order by created_at, id limit 1",
                              NULL));
    reply = client_get(service->api_port, target, NULL);
    ck_assert_int_eq(reply->status, 200);
    ck_assert_uint_eq(json_array_size(reply_at(reply, "data")), 0);
    ck_assert(json_is_null(reply_at(reply, "next")));
}
END_TEST

/* metrics */

START_TEST(metrics_equal_sql)
{
    struct reply *reply = client_get(service->api_port, "/v1/metrics", NULL);

    ck_assert_int_eq(reply->status, 200);
    expect_metrics(reply->json, pg);
}
END_TEST

/* empty store */

START_TEST(store_without_rows_is_served)
{
    struct service *empty;
    struct reply *reply;
    char url[512];

    pgview_make_schema("e2e_lists", url, sizeof(url));
    empty = service_start_ready(url, NULL);
    reply = client_get(empty->api_port, "/v1/metrics", NULL);
    ck_assert_int_eq(reply->status, 200);
    ck_assert_int_eq(reply_i64(reply, "user_count"), 0);
    ck_assert_int_eq(reply_i64(reply, "order_count"), 0);
    ck_assert_int_eq(reply_i64(reply, "total_cents"), 0);
    ck_assert_uint_eq(json_object_size(reply_at(reply, "by_status")), 0);
    reply = client_get(empty->api_port, "/v1/dashboard", NULL);
    ck_assert_int_eq(reply->status, 200);
    ck_assert_uint_eq(json_array_size(reply_at(reply, "users")), 0);
    ck_assert_uint_eq(json_array_size(reply_at(reply, "orders")), 0);
    reply = client_get(empty->api_port, "/v1/users", NULL);
    ck_assert_uint_eq(json_array_size(reply_at(reply, "data")), 0);
    ck_assert(json_is_null(reply_at(reply, "next")));
    service_stop_all();
    pgview_drop_schema("e2e_lists");
}
END_TEST

Suite *suite_lists(void)
{
    Suite *suite = suite_create("lists");
    TCase *users = tcase_create("users");
    TCase *orders = tcase_create("orders");
    TCase *metrics = tcase_create("metrics");

    tcase_add_checked_fixture(users, setup, teardown);
    tcase_add_test(users, user_equals_sql);
    tcase_add_test(users, unknown_user_is_404);
    tcase_add_test(users, pages_of_users_have_no_gap_and_no_repeat);
    tcase_add_test(users, page_of_users_has_twenty_by_default);
    tcase_add_test(users, last_page_that_is_full_has_no_next);
    tcase_add_test(users, page_behind_the_last_is_empty);
    tcase_set_timeout(users, 30);
    suite_add_tcase(suite, users);

    tcase_add_checked_fixture(orders, setup, teardown);
    tcase_add_test(orders, pages_of_orders_of_one_user_have_no_gap_and_no_repeat);
    tcase_add_test(orders, single_steps_over_equal_times_lose_nothing);
    tcase_add_test(orders, orders_of_all_users_begin_with_the_newest);
    tcase_add_test(orders, pages_of_orders_of_one_status_have_no_gap_and_no_repeat);
    tcase_add_test(orders, order_of_another_status_is_a_cursor);
    tcase_add_test(orders, order_of_another_user_is_no_cursor);
    tcase_add_test(orders, order_that_is_none_is_no_cursor);
    tcase_add_test(orders, page_behind_the_last_order_is_empty);
    tcase_set_timeout(orders, 30);
    suite_add_tcase(suite, orders);

    tcase_add_checked_fixture(metrics, setup, teardown);
    tcase_add_test(metrics, metrics_equal_sql);
    tcase_add_test(metrics, store_without_rows_is_served);
    tcase_set_timeout(metrics, 30);
    suite_add_tcase(suite, metrics);
    return suite;
}
