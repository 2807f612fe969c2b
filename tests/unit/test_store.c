/* SPDX-License-Identifier: MIT */
/* How rows look in JSON. That the statements yield such rows, the end-to-end tests show. */
#include "curfewd/store/store.h"

#include <check.h>
#include <string.h>

#include "request.h"

#define NOON_US INT64_C(1767268800123456) /* 2026-01-01T12:00:00.123456Z */

/* Fixture */

static struct cf_json json;
static struct cf_pg_rows *rows;

static void setup(void)
{
    cf_json_init(&json);
}

static void teardown(void)
{
    cf_json_fini(&json);
    cf_pg_rows_free(rows);
}

/* Helpers */

static void expect(const char *expected)
{
    const char *data;
    size_t size;

    ck_assert_int_eq(cf_json_finish(&json, &data, &size, NULL), CF_OK);
    ck_assert_msg(size == strlen(expected) && memcmp(data, expected, size) == 0, "%.*s", (int)size,
                  data);
}

/* write_user, write_order, write_rows */

START_TEST(write_user_has_every_column)
{
    rows = rows_new("ittz");
    rows_add(rows, INT64_C(1), "other@example.org", "Other", INT64_C(0));
    rows_add(rows, INT64_MAX, "o'neil@example.org", "Zo\xC3\xAB \"Z\" O'Neil", NOON_US);
    store_write_user(&json, rows, 1);
    expect("{\"id\":9223372036854775807,\"email\":\"o'neil@example.org\","
           "\"name\":\"Zo\xC3\xAB \\\"Z\\\" O'Neil\","
           "\"created_at\":\"2026-01-01T12:00:00.123456Z\"}");
}
END_TEST

START_TEST(write_order_has_every_column)
{
    rows = rows_new("iitiz");
    rows_add(rows, INT64_C(7), INT64_C(42), "paid", INT64_C(-199), NOON_US);
    store_write_order(&json, rows, 0);
    expect("{\"id\":7,\"user_id\":42,\"status\":\"paid\",\"total_cents\":-199,"
           "\"created_at\":\"2026-01-01T12:00:00.123456Z\"}");
}
END_TEST

static void write_first(struct cf_json *out, const struct cf_pg_rows *all, size_t row)
{
    cf_json_i64(out, cf_pg_get_i64(all, row, 0));
}

START_TEST(write_rows_keeps_order)
{
    rows = rows_new("i");
    rows_add(rows, INT64_C(3));
    rows_add(rows, INT64_C(1));
    rows_add(rows, INT64_C(2));
    store_write_rows(&json, rows, write_first);
    expect("[3,1,2]");
}
END_TEST

START_TEST(write_rows_of_none_is_empty)
{
    rows = rows_new("i");
    store_write_rows(&json, rows, write_first);
    expect("[]");
}
END_TEST

/* write_metrics, write_user_metrics */

START_TEST(write_metrics_adds_up_statuses)
{
    rows = rows_new("tiii");
    rows_add(rows, "paid", INT64_C(3), INT64_C(4000000000), INT64_C(0));
    rows_add(rows, "shipped", INT64_C(2), INT64_C(-1), INT64_C(0));
    rows_add(rows, "", INT64_C(0), INT64_C(0), INT64_C(11));
    rows_null(rows, 0, 3);
    rows_null(rows, 1, 3);
    rows_null(rows, 2, 0);
    store_write_metrics(&json, rows);
    expect("{\"user_count\":11,\"order_count\":5,\"total_cents\":3999999999,"
           "\"by_status\":{\"paid\":3,\"shipped\":2}}");
}
END_TEST

START_TEST(write_metrics_without_orders_has_users)
{
    rows = rows_new("tiii");
    rows_add(rows, "", INT64_C(0), INT64_C(0), INT64_C(11));
    rows_null(rows, 0, 0);
    store_write_metrics(&json, rows);
    expect("{\"user_count\":11,\"order_count\":0,\"total_cents\":0,\"by_status\":{}}");
}
END_TEST

START_TEST(write_user_metrics_has_both)
{
    rows = rows_new("ii");
    rows_add(rows, INT64_C(2), INT64_C(300));
    store_write_user_metrics(&json, rows);
    expect("{\"order_count\":2,\"total_cents\":300}");
}
END_TEST

Suite *suite_store(void)
{
    Suite *suite = suite_create("store");
    TCase *write = tcase_create("write");

    tcase_add_checked_fixture(write, setup, teardown);
    tcase_add_test(write, write_user_has_every_column);
    tcase_add_test(write, write_order_has_every_column);
    tcase_add_test(write, write_rows_keeps_order);
    tcase_add_test(write, write_rows_of_none_is_empty);
    tcase_add_test(write, write_metrics_adds_up_statuses);
    tcase_add_test(write, write_metrics_without_orders_has_users);
    tcase_add_test(write, write_user_metrics_has_both);
    suite_add_tcase(suite, write);
    return suite;
}
