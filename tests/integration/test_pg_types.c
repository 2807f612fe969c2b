/* SPDX-License-Identifier: MIT */
/* What goes to PostgreSQL and what comes back: parameters, rows, columns. */
#include "pg_fixture.h"

#include <float.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCHEMA "curfew_test_pg_types"

/* Fixture */

static void setup(void)
{
    fixture_setup();
    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
}

/* The schema is this file's own; what an earlier run left is dropped. */
static void setup_schema(void)
{
    setup();
    pgview_exec(fixture_view(), "drop schema if exists " SCHEMA " cascade; create schema " SCHEMA);
}

/* Parameters and columns */

static const int64_t integers[] = {0,         1,         -1,        INT16_MAX, INT16_MIN,
                                   INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN};

START_TEST(param_i64_round_trips)
{
    static const struct cf_pg_stmt echo = {.name = "echo_i64", .sql = "SELECT $1, $1::text"};
    struct cf_pg_rows *rows = query(&echo, (struct cf_pg_param[]){cf_pg_i64(integers[_i])}, 1);

    ck_assert_int_eq(cf_pg_get_i64(rows, 0, 0), integers[_i]);
    ck_assert_int_eq(strtoll(cf_pg_get_text(rows, 0, 1), NULL, 10), integers[_i]);
    cf_pg_rows_free(rows);
}
END_TEST

START_TEST(get_i64_reads_every_width)
{
    static const struct cf_pg_stmt widths = {
        .name = "widths",
        .sql = "SELECT 32767::int2, (-32768)::int2, (-1)::int2, 2147483647::int4,"
               " (-2147483648)::int4, (-1)::int4, 9223372036854775807::int8,"
               " (-9223372036854775808)::int8, (-1)::int8",
    };
    static const int64_t want[] = {INT16_MAX, INT16_MIN, -1,        INT32_MAX, INT32_MIN,
                                   -1,        INT64_MAX, INT64_MIN, -1};
    struct cf_pg_rows *rows = query(&widths, NULL, 0);

    for (int i = 0; i < N(want); i++) {
        ck_assert_int_eq(cf_pg_get_i64(rows, 0, (size_t)i), want[i]);
    }
    cf_pg_rows_free(rows);
}
END_TEST

static const double doubles[] = {
    0.0,     -0.0,      1.0 / 3,          -1e300,           5e-324,
    DBL_MAX, -DBL_MAX,  DBL_MIN,          (double)INFINITY, -(double)INFINITY,
    0.1,     1e15 + .5, (double)INT64_MAX};

/* The server prints the fewest digits that are this number and no other. */
START_TEST(param_f64_arrives_exactly)
{
    static const struct cf_pg_stmt echo = {.name = "echo_f64", .sql = "SELECT $1::text"};
    struct cf_pg_rows *rows = query(&echo, (struct cf_pg_param[]){cf_pg_f64(doubles[_i])}, 1);
    double value = strtod(cf_pg_get_text(rows, 0, 0), NULL);

    ck_assert_mem_eq(&value, &doubles[_i], sizeof(value));
    cf_pg_rows_free(rows);
}
END_TEST

START_TEST(param_f64_nan_arrives)
{
    static const struct cf_pg_stmt echo = {.name = "echo_nan", .sql = "SELECT $1::float8::text"};
    struct cf_pg_rows *rows = query(&echo, (struct cf_pg_param[]){cf_pg_f64((double)NAN)}, 1);

    ck_assert_str_eq(cf_pg_get_text(rows, 0, 0), "NaN");
    cf_pg_rows_free(rows);
}
END_TEST

/* Every width of UTF-8, its first and last code points, and what is easily mistaken for an end. */
static const struct {
    const char *text;
    int64_t characters;
} texts[] = {
    {"", 0},
    {" ", 1},
    {"a", 1},
    {"\x01\x7f", 2},
    {"\xc2\x80\xdf\xbf", 2},
    {"\xe0\xa0\x80\xef\xbf\xbf", 2},
    {"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", 2},
    {"a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 4},
    {"e\xcc\x81", 2},
    {"\\x00 \\N NULL '; DROP TABLE users; --", 36},
    {"line\nline\r\n\ttab", 15},
};

START_TEST(param_text_round_trips)
{
    static const struct cf_pg_stmt echo = {
        .name = "echo_text",
        .sql = "SELECT $1::text, octet_length($1), char_length($1), $1::varchar,"
               " $1 = '' OR $1 IS NOT NULL AND $1 <> ''",
    };
    const char *text = texts[_i].text;
    struct cf_pg_rows *rows = query(&echo, (struct cf_pg_param[]){cf_pg_str(text)}, 1);

    ck_assert(!cf_pg_is_null(rows, 0, 0));
    ck_assert_str_eq(cf_pg_get_text(rows, 0, 0), text);
    ck_assert_str_eq(cf_pg_get_text(rows, 0, 3), text);
    ck_assert_int_eq(cf_pg_get_i64(rows, 0, 1), (int64_t)strlen(text));
    ck_assert_int_eq(cf_pg_get_i64(rows, 0, 2), texts[_i].characters);
    cf_pg_rows_free(rows);
}
END_TEST

/* More than a socket takes at once, both ways. */
START_TEST(param_text_of_megabytes_round_trips)
{
    static const struct cf_pg_stmt echo = {.name = "echo_large", .sql = "SELECT $1::text, md5($1)"};
    size_t size = (size_t)8 << 20;
    char *text = malloc(size + 1);
    struct cf_pg_rows *rows;

    ck_assert_ptr_nonnull(text);
    for (size_t i = 0; i < size; i++) {
        text[i] = (char)('a' + i % 23);
    }
    text[size] = '\0';
    rows = query(&echo, (struct cf_pg_param[]){cf_pg_str(text)}, 1);
    ck_assert(strcmp(cf_pg_get_text(rows, 0, 0), text) == 0);
    cf_pg_rows_free(rows);
    free(text);
}
END_TEST

START_TEST(param_text_not_utf8_is_invalid)
{
    static const struct cf_pg_stmt echo = {.name = "echo_bad", .sql = "SELECT $1::text"};
    struct cf_err err = query_error(&echo, (struct cf_pg_param[]){cf_pg_str("\xc3(")}, 1);

    ck_assert_int_eq(err.code, CF_EINVAL);
    ck_assert_str_eq(err.sqlstate, "22021");
}
END_TEST

static const struct {
    const char *data;
    size_t size;
} byte_strings[] = {{"", 0}, {NULL, 0}, {"\0", 1}, {"a\0b\xff\xc3(\\x00'", 11}};

START_TEST(param_bytes_round_trip)
{
    static const struct cf_pg_stmt echo = {
        .name = "echo_bytes",
        .sql = "SELECT $1, octet_length($1), encode($1, 'hex'), $1 IS NULL",
    };
    const char *data = byte_strings[_i].data;
    size_t size = byte_strings[_i].size;
    struct cf_pg_rows *rows = query(&echo, (struct cf_pg_param[]){cf_pg_bytes(data, size)}, 1);
    const char *hex = cf_pg_get_text(rows, 0, 2);
    const void *back;
    size_t back_size;

    back = cf_pg_get_bytes(rows, 0, 0, &back_size);
    ck_assert(!cf_pg_is_null(rows, 0, 0));
    ck_assert_ptr_nonnull(back);
    ck_assert_uint_eq(back_size, size);
    ck_assert(size == 0 || memcmp(back, data, size) == 0);
    ck_assert_int_eq(cf_pg_get_i64(rows, 0, 1), (int64_t)size);
    for (size_t i = 0; i < size; i++) {
        char byte[3];

        (void)snprintf(byte, sizeof(byte), "%02x", (unsigned char)data[i]);
        ck_assert(memcmp(hex + 2 * i, byte, 2) == 0);
    }
    cf_pg_rows_free(rows);
}
END_TEST

/* The same statement with a NULL first, whose type the server then chooses. */
START_TEST(param_bytes_after_null_are_bytes)
{
    static const struct cf_pg_stmt echo = {.name = "null_bytes", .sql = "SELECT $1::bytea"};
    struct cf_pg_rows *rows = query(&echo, (struct cf_pg_param[]){{.type = CF_PG_NULL}}, 1);
    size_t size = 1;

    ck_assert(cf_pg_is_null(rows, 0, 0));
    ck_assert_ptr_nonnull(cf_pg_get_bytes(rows, 0, 0, &size));
    ck_assert_uint_eq(size, 0);
    cf_pg_rows_free(rows);
    rows = query(&echo, (struct cf_pg_param[]){cf_pg_bytes("\0x", 2)}, 1);
    ck_assert_mem_eq(cf_pg_get_bytes(rows, 0, 0, &size), "\0x", 2);
    ck_assert_uint_eq(size, 2);
    cf_pg_rows_free(rows);
}
END_TEST

START_TEST(column_of_bytes_is_checked)
{
    static const struct cf_pg_stmt good = {
        .name = "good_bytes", .sql = "SELECT '\\x00ff'::bytea", .columns = "b"};
    static const struct cf_pg_stmt bad = {
        .name = "bad_bytes", .sql = "SELECT '\\x00ff'::text", .columns = "b"};
    struct cf_err err;

    cf_pg_rows_free(query(&good, NULL, 0));
    err = query_error(&bad, NULL, 0);
    ck_assert_int_eq(err.code, CF_EINTERNAL);
}
END_TEST

START_TEST(get_text_reads_its_types)
{
    static const struct cf_pg_stmt types = {
        .name = "text_types",
        .sql = "SELECT 'a'::text, 'b'::varchar, 'c'::name, 'd'::char(3), 'e'",
    };
    static const char *const want[] = {"a", "b", "c", "d  ", "e"};
    struct cf_pg_rows *rows = query(&types, NULL, 0);

    for (int i = 0; i < N(want); i++) {
        ck_assert_str_eq(cf_pg_get_text(rows, 0, (size_t)i), want[i]);
    }
    cf_pg_rows_free(rows);
}
END_TEST

/* 1970 and around it, 2000, years 1 and 9999, and the first that PostgreSQL knows, 4714 BC. */
static const int64_t times_us[] = {
    0,
    1,
    -1,
    -1000000,
    INT64_C(946684800000000),
    INT64_C(946684799999999),
    INT64_C(1700000000123456),
    INT64_C(-62135596800000000),
    INT64_C(253402300799999999),
    INT64_C(-210866803200000000),
    INT64_MAX - 1,
};

START_TEST(param_time_round_trips)
{
    static const struct cf_pg_stmt echo = {
        .name = "echo_time",
        .sql = "SELECT $1, (extract(epoch FROM $1) * 1000000)::bigint",
    };
    struct cf_pg_rows *rows = query(&echo, (struct cf_pg_param[]){cf_pg_time_us(times_us[_i])}, 1);

    ck_assert_int_eq(cf_pg_get_time_us(rows, 0, 0), times_us[_i]);
    ck_assert_int_eq(cf_pg_get_i64(rows, 0, 1), times_us[_i]);
    cf_pg_rows_free(rows);
}
END_TEST

static const struct {
    int64_t us;
    const char *name;
} infinities[] = {{INT64_MAX, "infinity"}, {INT64_MIN, "-infinity"}};

START_TEST(param_time_infinity_round_trips)
{
    static const struct cf_pg_stmt echo = {
        .name = "echo_infinity",
        .sql = "SELECT $1, $1::text, $2::text::timestamptz",
    };
    struct cf_pg_rows *rows = query(
        &echo,
        (struct cf_pg_param[]){cf_pg_time_us(infinities[_i].us), cf_pg_str(infinities[_i].name)},
        2);

    ck_assert_str_eq(cf_pg_get_text(rows, 0, 1), infinities[_i].name);
    ck_assert_int_eq(cf_pg_get_time_us(rows, 0, 0), infinities[_i].us);
    ck_assert_int_eq(cf_pg_get_time_us(rows, 0, 2), infinities[_i].us);
    cf_pg_rows_free(rows);
}
END_TEST

/* Before the first instant that the server knows. */
static const int64_t times_out_of_range_us[] = {INT64_MIN + 1, INT64_C(-210866803200000001)};

START_TEST(param_time_out_of_range_is_invalid)
{
    static const struct cf_pg_stmt echo = {.name = "echo_range", .sql = "SELECT $1 > now()"};
    struct cf_err err =
        query_error(&echo, (struct cf_pg_param[]){cf_pg_time_us(times_out_of_range_us[_i])}, 1);

    ck_assert_int_eq(err.code, CF_EINVAL);
    ck_assert_str_eq(err.sqlstate, "22008");
}
END_TEST

START_TEST(get_time_later_than_fits_is_the_last)
{
    static const struct cf_pg_stmt last = {
        .name = "last_time",
        .sql = "SELECT timestamptz '294276-12-31 23:59:59.999999+00'",
    };
    struct cf_pg_rows *rows = query(&last, NULL, 0);

    ck_assert_int_eq(cf_pg_get_time_us(rows, 0, 0), INT64_MAX);
    cf_pg_rows_free(rows);
}
END_TEST

START_TEST(null_reads_as_nothing_of_its_type)
{
    static const struct cf_pg_stmt nulls = {
        .name = "nulls",
        .sql = "SELECT NULL::int2, NULL::int4, NULL::int8, NULL::text, NULL::varchar,"
               " NULL::timestamptz, $1::text, $2::bigint",
    };
    struct cf_pg_param params[] = {cf_pg_str(NULL), {.type = CF_PG_NULL}};
    struct cf_pg_rows *rows = query(&nulls, params, 2);

    for (size_t i = 0; i < 8; i++) {
        ck_assert(cf_pg_is_null(rows, 0, i));
    }
    ck_assert_int_eq(cf_pg_get_i64(rows, 0, 0), 0);
    ck_assert_int_eq(cf_pg_get_i64(rows, 0, 1), 0);
    ck_assert_int_eq(cf_pg_get_i64(rows, 0, 2), 0);
    ck_assert_str_eq(cf_pg_get_text(rows, 0, 3), "");
    ck_assert_str_eq(cf_pg_get_text(rows, 0, 4), "");
    ck_assert_int_eq(cf_pg_get_time_us(rows, 0, 5), 0);
    ck_assert_str_eq(cf_pg_get_text(rows, 0, 6), "");
    ck_assert_int_eq(cf_pg_get_i64(rows, 0, 7), 0);
    cf_pg_rows_free(rows);
}
END_TEST

START_TEST(query_takes_sixteen_parameters)
{
    static const struct cf_pg_stmt many = {
        .name = "sixteen",
        .sql = "SELECT concat_ws(' ', $1::int, $2::int, $3::int, $4::int, $5::int, $6::int,"
               " $7::int, $8::int, $9::int, $10::int, $11::int, $12::int, $13::int, $14::int,"
               " $15::int, $16::int)",
    };
    struct cf_pg_param params[CF_PG_PARAMS_MAX];
    struct cf_pg_rows *rows;

    for (int i = 0; i < CF_PG_PARAMS_MAX; i++) {
        params[i] = cf_pg_i64(i + 1);
    }
    rows = query(&many, params, CF_PG_PARAMS_MAX);
    ck_assert_str_eq(cf_pg_get_text(rows, 0, 0), "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16");
    cf_pg_rows_free(rows);
}
END_TEST

/* Rows */

START_TEST(rows_none_are_counted_zero)
{
    static const struct cf_pg_stmt none = {.name = "rows_none", .sql = "SELECT 1 WHERE false"};
    struct cf_pg_rows *rows = query(&none, NULL, 0);

    ck_assert_uint_eq(cf_pg_rows_count(rows), 0);
    cf_pg_rows_free(rows);
}
END_TEST

START_TEST(rows_of_a_command_are_counted_zero)
{
    static const struct cf_pg_stmt create = {.name = "rows_command",
                                             .sql = "CREATE TABLE " SCHEMA ".made (id int)"};
    static const struct cf_pg_stmt insert = {.name = "rows_insert",
                                             .sql = "INSERT INTO " SCHEMA ".made VALUES (1), (2)"};
    struct cf_pg_rows *rows = query(&create, NULL, 0);

    ck_assert_uint_eq(cf_pg_rows_count(rows), 0);
    cf_pg_rows_free(rows);
    rows = query(&insert, NULL, 0);
    ck_assert_uint_eq(cf_pg_rows_count(rows), 0);
    cf_pg_rows_free(rows);
    ck_assert_int_eq(pgview_i64(fixture_view(), "select count(*) from " SCHEMA ".made", NULL), 2);
}
END_TEST

START_TEST(rows_hundred_thousand_are_all_there)
{
    static const struct cf_pg_stmt many = {
        .name = "rows_many",
        .sql = "SELECT n, 'row ' || n FROM generate_series(1, 100000) n",
    };
    struct cf_pg_rows *rows = query(&many, NULL, 0);
    char text[32];

    ck_assert_uint_eq(cf_pg_rows_count(rows), 100000);
    for (size_t i = 0; i < 100000; i++) {
        if (cf_pg_get_i64(rows, i, 0) != (int64_t)i + 1) {
            ck_abort_msg("row %zu has another's number", i);
        }
    }
    (void)snprintf(text, sizeof(text), "row %d", 100000);
    ck_assert_str_eq(cf_pg_get_text(rows, 99999, 1), text);
    cf_pg_rows_free(rows);
}
END_TEST

START_TEST(rows_free_null_does_nothing)
{
    cf_pg_rows_free(NULL);
}
END_TEST

START_TEST(rows_outlive_the_database)
{
    static const struct cf_pg_stmt word = {.name = "rows_word", .sql = "SELECT 'still here'"};
    struct cf_pg_rows *rows = query(&word, NULL, 0);

    fixture_close();
    ck_assert_str_eq(cf_pg_get_text(rows, 0, 0), "still here");
    cf_pg_rows_free(rows);
}
END_TEST

static void read_row_out_of_range(const struct cf_pg_rows *rows)
{
    (void)cf_pg_get_i64(rows, 1, 0);
}

static void read_column_out_of_range(const struct cf_pg_rows *rows)
{
    (void)cf_pg_is_null(rows, 0, 3);
}

static void read_text_as_i64(const struct cf_pg_rows *rows)
{
    (void)cf_pg_get_i64(rows, 0, 1);
}

static void read_i64_as_text(const struct cf_pg_rows *rows)
{
    (void)cf_pg_get_text(rows, 0, 0);
}

static void read_i64_as_time(const struct cf_pg_rows *rows)
{
    (void)cf_pg_get_time_us(rows, 0, 0);
}

static const struct {
    const char *what;
    void (*read)(const struct cf_pg_rows *rows);
} mistakes[5] = {
    {"row", read_row_out_of_range}, {"column", read_column_out_of_range},
    {"text", read_text_as_i64},     {"number", read_i64_as_text},
    {"time", read_i64_as_time},
};

START_TEST(get_what_is_not_there_is_asserted)
{
    static const struct cf_pg_stmt row = {.name = "rows_row",
                                          .sql = "SELECT 1::bigint, 'a'::text, now()"};
    struct cf_pg_rows *rows = query(&row, NULL, 0);

    mistakes[_i].read(rows);
    ck_abort_msg("%s: nothing happened", mistakes[_i].what);
}
END_TEST

/* Suite */

static TCase *add_case(Suite *suite, const char *name, void (*set_up)(void))
{
    TCase *tc = tcase_create(name);

    tcase_add_checked_fixture(tc, set_up, fixture_teardown);
    tcase_set_timeout(tc, 30);
    suite_add_tcase(suite, tc);
    return tc;
}

static void add_params(Suite *suite)
{
    TCase *tc = add_case(suite, "param", setup_schema);

    tcase_add_loop_test(tc, param_i64_round_trips, 0, N(integers));
    tcase_add_test(tc, get_i64_reads_every_width);
    tcase_add_loop_test(tc, param_f64_arrives_exactly, 0, N(doubles));
    tcase_add_test(tc, param_f64_nan_arrives);
    tcase_add_loop_test(tc, param_text_round_trips, 0, N(texts));
    tcase_add_test(tc, param_text_of_megabytes_round_trips);
    tcase_add_test(tc, param_text_not_utf8_is_invalid);
    tcase_add_loop_test(tc, param_bytes_round_trip, 0, N(byte_strings));
    tcase_add_test(tc, param_bytes_after_null_are_bytes);
    tcase_add_test(tc, column_of_bytes_is_checked);
    tcase_add_test(tc, get_text_reads_its_types);
    tcase_add_loop_test(tc, param_time_round_trips, 0, N(times_us));
    tcase_add_loop_test(tc, param_time_infinity_round_trips, 0, N(infinities));
    tcase_add_loop_test(tc, param_time_out_of_range_is_invalid, 0, N(times_out_of_range_us));
    tcase_add_test(tc, get_time_later_than_fits_is_the_last);
    tcase_add_test(tc, null_reads_as_nothing_of_its_type);
    tcase_add_test(tc, query_takes_sixteen_parameters);
}

static void add_rows(Suite *suite)
{
    TCase *tc = add_case(suite, "rows", setup_schema);

    tcase_add_test(tc, rows_none_are_counted_zero);
    tcase_add_test(tc, rows_of_a_command_are_counted_zero);
    tcase_add_test(tc, rows_hundred_thousand_are_all_there);
    tcase_add_test(tc, rows_free_null_does_nothing);
    tcase_add_test(tc, rows_outlive_the_database);

    tc = add_case(suite, "mistakes", setup);
    tcase_set_tags(tc, "fork");
    tcase_add_loop_test_raise_signal(tc, get_what_is_not_there_is_asserted, SIGABRT, 0,
                                     N(mistakes));
}

Suite *suite_pg_types(void)
{
    Suite *suite = suite_create("pg_types");

    add_params(suite);
    add_rows(suite);
    return suite;
}
