/* SPDX-License-Identifier: MIT */
/* See rows.h. */
#include "rows.h"

#include <check.h>
#include <stdlib.h>

#include "pgview.h"

#define INT8_OID 20

void expect_row(json_t *object, const PGresult *result, int row)
{
    int n = PQnfields(result);

    ck_assert_int_lt(row, PQntuples(result));
    ck_assert(json_is_object(object));
    ck_assert_int_eq((int)json_object_size(object), n);
    for (int column = 0; column < n; column++) {
        const char *name = PQfname(result, column);
        const char *want = PQgetvalue(result, row, column);
        json_t *have = json_object_get(object, name);

        ck_assert_msg(have != NULL, "no member \"%s\"", name);
        if (PQftype(result, column) == INT8_OID) {
            ck_assert_msg(json_is_integer(have), "\"%s\" is no integer", name);
            ck_assert_msg(json_integer_value(have) == strtoll(want, NULL, 10),
                          "\"%s\" of row %d: %" JSON_INTEGER_FORMAT ", not %s", name, row,
                          json_integer_value(have), want);
        } else {
            ck_assert_msg(json_is_string(have), "\"%s\" is no string", name);
            ck_assert_str_eq(json_string_value(have), want);
        }
    }
}

void expect_rows(json_t *array, const PGresult *result)
{
    ck_assert(json_is_array(array));
    ck_assert_int_eq((int)json_array_size(array), PQntuples(result));
    for (int row = 0; row < PQntuples(result); row++) {
        expect_row(json_array_get(array, (size_t)row), result, row);
    }
}

void expect_metrics(json_t *object, PGconn *pg)
{
    PGresult *sums = pgview_query(pg,
                                  "select (select count(*) from users) as user_count,"
                                  " count(*) as order_count,"
                                  " coalesce(sum(total_cents), 0)::bigint as total_cents"
                                  " from orders",
                                  NULL);
    PGresult *statuses =
        pgview_query(pg, "select status, count(*) from orders group by status", NULL);
    json_t *by_status = json_object_get(object, "by_status");

    ck_assert(json_is_object(by_status));
    ck_assert_int_eq((int)json_object_size(by_status), PQntuples(statuses));
    for (int row = 0; row < PQntuples(statuses); row++) {
        json_t *count = json_object_get(by_status, PQgetvalue(statuses, row, 0));

        ck_assert(json_is_integer(count));
        ck_assert_int_eq(json_integer_value(count),
                         strtoll(PQgetvalue(statuses, row, 1), NULL, 10));
    }
    json_incref(by_status);
    ck_assert_int_eq(json_object_del(object, "by_status"), 0);
    expect_row(object, sums, 0);
    ck_assert_int_eq(json_object_set_new(object, "by_status", by_status), 0);
    PQclear(sums);
    PQclear(statuses);
}
