/* SPDX-License-Identifier: MIT */
/* Pages: what may be asked for, and where the next one begins. */
#include "curfewd/routes/paging.h"

#include <check.h>
#include <string.h>

#include "curfewd/routes/routes.h"
#include "request.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* Fixture */

static struct cf_http *http;
static struct cf_err err;
static struct paging paging;

static void teardown(void)
{
    request_free(http);
}

/* read */

static const struct {
    const char *target;
    int64_t limit;
    int64_t after;
} good[] = {
    {"/v1/users", 20, 0},
    {"/v1/users?limit=1", 1, 0},
    {"/v1/users?limit=200", 200, 0},
    {"/v1/users?after=1", 20, 1},
    {"/v1/users?after=9223372036854775807", 20, INT64_MAX},
    {"/v1/users?limit=007&after=0042", 7, 42},
    {"/v1/users?after=5&limit=4", 4, 5},
    {"/v1/users?limit=3&limit=x", 3, 0}, /* The first counts. */
    {"/v1/users?limit=%31%30", 10, 0},
    {"/v1/users?Limit=x&limits=y", 20, 0}, /* Others are nobody's. */
};

START_TEST(read_takes_good_page)
{
    http = request_new(NULL, good[_i].target);
    ck_assert_msg(paging_read(http, &paging, &err) == CF_OK, "%s", err.msg);
    ck_assert_int_eq(paging.limit, good[_i].limit);
    ck_assert_int_eq(paging.after, good[_i].after);
}
END_TEST

static const char *const LIMIT = "limit must be an integer from 1 to 200";
static const char *const AFTER = "after must be an integer from 1 to 9223372036854775807";

static const struct {
    const char *target;
    const char *const *said;
} bad[] = {
    {"/v1/users?limit=", &LIMIT},
    {"/v1/users?limit", &LIMIT},
    {"/v1/users?limit=0", &LIMIT},
    {"/v1/users?limit=201", &LIMIT},
    {"/v1/users?limit=-1", &LIMIT},
    {"/v1/users?limit=%2B1", &LIMIT},
    {"/v1/users?limit=+1", &LIMIT}, /* A space. */
    {"/v1/users?limit=1%20", &LIMIT},
    {"/v1/users?limit=1.0", &LIMIT},
    {"/v1/users?limit=1e1", &LIMIT},
    {"/v1/users?limit=0x10", &LIMIT},
    {"/v1/users?limit=all", &LIMIT},
    {"/v1/users?limit=18446744073709551617", &LIMIT},
    {"/v1/users?limit=%D9%A1", &LIMIT}, /* An Arabic one. */
    {"/v1/users?after=", &AFTER},
    {"/v1/users?after=0", &AFTER},
    {"/v1/users?after=-1", &AFTER},
    {"/v1/users?after=9223372036854775808", &AFTER},
    {"/v1/users?after=-9223372036854775809", &AFTER},
    {"/v1/users?after=1%3BDROP", &AFTER},
    {"/v1/users?limit=5&after=x", &AFTER},
};

START_TEST(read_refuses_bad_page)
{
    paging = (struct paging){.limit = -7, .after = -8};
    http = request_new(NULL, bad[_i].target);
    ck_assert_int_eq(paging_read(http, &paging, &err), CF_EINVAL);
    ck_assert_str_eq(err.msg, *bad[_i].said);
    ck_assert_int_eq(paging.limit, -7); /* Untouched. */
    ck_assert_int_eq(paging.after, -8);
}
END_TEST

/* write */

static void write_id(struct cf_json *json, const struct cf_pg_rows *rows, size_t row)
{
    cf_json_i64(json, cf_pg_get_i64(rows, row, 0));
}

static const struct {
    int64_t limit;
    int64_t rows;
    int64_t shown;
} pages[] = {
    {1, 0, 0}, {1, 1, 1}, {1, 2, 1},       {5, 4, 4},
    {5, 5, 5}, {5, 6, 5}, {200, 200, 200}, {200, 201, 200},
};

/* Ids go down, as those of orders do: the cursor is the last one's, not the greatest. */
START_TEST(write_shows_limit_and_says_what_is_next)
{
    struct cf_pg_rows *rows = rows_new("i");
    const json_t *data;
    const json_t *next;
    json_t *body;

    paging = (struct paging){.limit = pages[_i].limit};
    for (int64_t i = 0; i < pages[_i].rows; i++) {
        rows_add(rows, 1000 - i);
    }
    http = request_new(NULL, "/v1/orders");
    paging_write(http, &paging, rows, write_id);
    ck_assert_int_eq(request_status(http), 200);
    body = request_body(http);
    ck_assert_uint_eq(json_object_size(body), 2);
    data = json_object_get(body, "data");
    ck_assert_uint_eq(json_array_size(data), (size_t)pages[_i].shown);
    for (int64_t i = 0; i < pages[_i].shown; i++) {
        ck_assert_int_eq(json_integer_value(json_array_get(data, (size_t)i)), 1000 - i);
    }
    next = json_object_get(body, "next");
    if (pages[_i].rows > pages[_i].limit) {
        ck_assert(json_is_integer(next));
        ck_assert_int_eq(json_integer_value(next), 1000 - (pages[_i].limit - 1));
    } else {
        ck_assert(json_is_null(next));
    }
    json_decref(body);
    cf_pg_rows_free(rows);
}
END_TEST

static const struct {
    const char *target;
    const char *link; /* NULL: there is none. */
} links[] = {
    {"/v1/users", "<?after=1000>; rel=\"next\""},
    {"/v1/users?limit=1", "<?limit=1&after=1000>; rel=\"next\""},
    {"/v1/users?after=7&limit=01", "<?limit=1&after=1000>; rel=\"next\""},
    {"/v1/users?timeout=1.5s&x=%3E&limit=1", "<?limit=1&timeout=1.5s&after=1000>; rel=\"next\""},
    {"/v1/users?limit=2", NULL},
};

START_TEST(write_links_to_the_next_page_that_there_is)
{
    struct cf_pg_rows *rows = rows_new("i");

    http = request_new(NULL, links[_i].target);
    ck_assert_int_eq(paging_read(http, &paging, &err), CF_OK);
    paging.limit = paging.limit == PAGE_DEFAULT ? 1 : paging.limit;
    rows_add(rows, INT64_C(1000));
    rows_add(rows, INT64_C(999));
    paging_write(http, &paging, rows, write_id);
    if (links[_i].link != NULL) {
        ck_assert_str_eq(request_header(http, "Link"), links[_i].link);
    } else {
        ck_assert_ptr_null(request_header(http, "Link"));
    }
    cf_pg_rows_free(rows);
}
END_TEST

/* The longest that a list can be asked for. */
START_TEST(keep_has_room_for_all)
{
    http = request_new(NULL, "/v1/users?limit=200&timeout=9999999999.9999999999ms");
    ck_assert_int_eq(paging_read(http, &paging, &err), CF_OK);
    paging_keep_i64(&paging, "user_id", INT64_MAX);
    paging_keep(&paging, "status", "cancelled");
    paging_keep_i64(&paging, "none", 0);
    paging_keep(&paging, "none", NULL);
    ck_assert_str_eq(paging.kept, "limit=200&timeout=9999999999.9999999999ms&"
                                  "user_id=9223372036854775807&status=cancelled&");
    ck_assert_uint_eq(paging.kept_size, strlen(paging.kept));
}
END_TEST

Suite *suite_paging(void)
{
    Suite *suite = suite_create("paging");
    TCase *read = tcase_create("read");
    TCase *write = tcase_create("write");

    tcase_add_checked_fixture(read, NULL, teardown);
    tcase_add_loop_test(read, read_takes_good_page, 0, LENGTH(good));
    tcase_add_loop_test(read, read_refuses_bad_page, 0, LENGTH(bad));
    suite_add_tcase(suite, read);

    tcase_add_checked_fixture(write, NULL, teardown);
    tcase_add_loop_test(write, write_shows_limit_and_says_what_is_next, 0, LENGTH(pages));
    tcase_add_loop_test(write, write_links_to_the_next_page_that_there_is, 0, LENGTH(links));
    tcase_add_test(write, keep_has_room_for_all);
    suite_add_tcase(suite, write);
    return suite;
}
