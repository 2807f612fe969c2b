/* SPDX-License-Identifier: MIT */
/* The JSON writer, with jansson, printf and gmtime_r() as its judges. */
#include <curfew/json.h>

#include <check.h>
#include <float.h>
#include <inttypes.h>
#include <jansson.h>
#include <locale.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Fixture */

static struct cf_json json;

static void setup(void)
{
    cf_json_init(&json);
}

static void teardown(void)
{
    cf_json_fini(&json);
}

/* Helpers */

/* The text so far, which must be complete. */
static const char *text(void)
{
    static char copy[4096];
    const char *data;
    size_t size;

    ck_assert_int_eq(cf_json_finish(&json, &data, &size, NULL), CF_OK);
    ck_assert_uint_lt(size, sizeof(copy));
    memcpy(copy, data, size);
    copy[size] = '\0';
    return copy;
}

/* What jansson reads from the text so far. */
static json_t *parsed(void)
{
    const char *data;
    size_t size;
    json_error_t error;
    json_t *value;

    ck_assert_int_eq(cf_json_finish(&json, &data, &size, NULL), CF_OK);
    value =
        json_loadb(data, size, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    ck_assert_msg(value != NULL, "%s in %.*s", error.text, (int)size, data);
    return value;
}

static uint64_t random_state;

static uint64_t next_random(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return random_state >> 20;
}

/* A random valid UTF-8 string of characters from every length and every escape. */
static void random_text(char *out, size_t characters)
{
    static const char *const pieces[] = {"a",    "\"",       "\\",           "/",
                                         "\n",   "\t",       "\x01",         "\x1f",
                                         "\x7f", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x92\xa9",
                                         " ",    "\r",       "\b",           "\f",
                                         "<"};

    out[0] = '\0';
    while (characters-- > 0) {
        strcat(out, pieces[next_random() % (sizeof(pieces) / sizeof(pieces[0]))]);
    }
}

/* Write a random value to the writer and return the same as jansson's. */
static json_t *random_value(unsigned depth)
{
    char string[128];
    unsigned kind = (unsigned)(next_random() % (depth > 0 ? 7 : 5));
    size_t n = (size_t)(next_random() % 5);
    json_t *value;

    switch (kind) {
    case 0:
        cf_json_null(&json);
        return json_null();
    case 1:
        cf_json_bool(&json, n % 2 == 0);
        return json_boolean(n % 2 == 0);
    case 2:
        random_text(string, n * 5);
        cf_json_str(&json, string);
        return json_string(string);
    case 3: {
        int64_t number = (int64_t)(next_random() << (next_random() % 40)) * (n % 2 == 0 ? 1 : -1);

        cf_json_i64(&json, number);
        return json_integer(number);
    }
    case 4: {
        double number = (double)(next_random() % 1000000) / 64;

        cf_json_f64(&json, number, 6); /* Sixty-fourths have six digits: exact. */
        return json_real(number);
    }
    case 5:
        value = json_array();
        cf_json_array(&json);
        for (size_t i = 0; i < n; i++) {
            (void)json_array_append_new(value, random_value(depth - 1));
        }
        break;
    default:
        value = json_object();
        cf_json_object(&json);
        for (size_t i = 0; i < n; i++) {
            random_text(string, (size_t)(next_random() % 8));
            (void)snprintf(string + strlen(string), 16, "%zu", i); /* Keys differ. */
            cf_json_key(&json, string);
            (void)json_object_set_new(value, string, random_value(depth - 1));
        }
        break;
    }
    cf_json_end(&json);
    return value;
}

/* Writer and jansson */

START_TEST(random_documents_read_back_as_written)
{
    for (unsigned i = 0; i < 2000; i++) {
        json_t *want;
        json_t *have;

        random_state = i;
        cf_json_reset(&json);
        want = random_value(5);
        have = parsed();
        ck_assert_msg(json_equal(want, have) == 1, "document of seed %u: %s", i, text());
        json_decref(want);
        json_decref(have);
    }
}
END_TEST

/* Structure */

START_TEST(object_and_array_place_commas)
{
    cf_json_object(&json);
    cf_json_key(&json, "a");
    cf_json_array(&json);
    cf_json_i64(&json, 1);
    cf_json_array(&json);
    cf_json_end(&json);
    cf_json_i64(&json, 2);
    cf_json_end(&json);
    cf_json_key(&json, "b");
    cf_json_object(&json);
    cf_json_end(&json);
    cf_json_key(&json, "c");
    cf_json_null(&json);
    cf_json_end(&json);
    ck_assert_str_eq(text(), "{\"a\":[1,[],2],\"b\":{},\"c\":null}");
}
END_TEST

START_TEST(nesting_reaches_the_limit)
{
    for (int i = 0; i < CF_JSON_DEPTH_MAX; i++) {
        cf_json_array(&json);
    }
    for (int i = 0; i < CF_JSON_DEPTH_MAX; i++) {
        cf_json_end(&json);
    }
    ck_assert_uint_eq(strlen(text()), 2 * CF_JSON_DEPTH_MAX);
}
END_TEST

START_TEST(nesting_over_the_limit_is_asserted)
{
    for (int i = 0; i <= CF_JSON_DEPTH_MAX; i++) {
        cf_json_array(&json);
    }
}
END_TEST

START_TEST(value_without_its_key_is_asserted)
{
    cf_json_object(&json);
    cf_json_i64(&json, 1);
}
END_TEST

START_TEST(key_in_an_array_is_asserted)
{
    cf_json_array(&json);
    cf_json_key(&json, "a");
}
END_TEST

START_TEST(end_after_a_key_is_asserted)
{
    cf_json_object(&json);
    cf_json_key(&json, "a");
    cf_json_end(&json);
}
END_TEST

START_TEST(second_value_is_asserted)
{
    cf_json_i64(&json, 1);
    cf_json_i64(&json, 2);
}
END_TEST

START_TEST(finish_of_an_open_object_is_asserted)
{
    const char *data;
    size_t size;

    cf_json_object(&json);
    ck_assert_int_eq(cf_json_finish(&json, &data, &size, NULL), CF_OK);
}
END_TEST

/* Strings */

START_TEST(str_null_is_null)
{
    cf_json_str(&json, NULL);
    ck_assert_str_eq(text(), "null");
}
END_TEST

static const struct {
    const char *in;
    const char *out;
} strings[] = {
    {"", "\"\""},
    {"plain", "\"plain\""},
    {"\"\\/\b\f\n\r\t", "\"\\\"\\\\/\\b\\f\\n\\r\\t\""},
    {"\x01\x1f\x7f", "\"\\u0001\\u001f\x7f\""},
    {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x92\xa9", "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x92\xa9\""},
    {"a\xff"
     "b",
     "\"a\xef\xbf\xbd"
     "b\""},                                                      /* Never in UTF-8. */
    {"\xc0\xaf", "\"\xef\xbf\xbd\xef\xbf\xbd\""},                 /* Overlong. */
    {"\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""}, /* A surrogate. */
    {"\xf4\x90\x80\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
    {"x\xe2\x82", "\"x\xef\xbf\xbd\xef\xbf\xbd\""}, /* Cut short. */
};

START_TEST(str_escapes_and_mends)
{
    cf_json_str(&json, strings[_i].in);
    ck_assert_str_eq(text(), strings[_i].out);
}
END_TEST

/* Numbers */

START_TEST(integers_equal_printf)
{
    static const int64_t numbers[] = {0, 1, -1, 9, 10, 99, 100, -100, INT64_MAX, INT64_MIN};
    char want[32];

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        cf_json_reset(&json);
        cf_json_i64(&json, numbers[i]);
        (void)snprintf(want, sizeof(want), "%" PRId64, numbers[i]);
        ck_assert_str_eq(text(), want);
    }
    cf_json_reset(&json);
    cf_json_u64(&json, UINT64_MAX);
    ck_assert_str_eq(text(), "18446744073709551615");
}
END_TEST

START_TEST(f64_rounds_as_printf)
{
    static const double numbers[] = {0,          -0.0,  0.5,   1.5,     0.125,   1.005,
                                     -12345.678, 1e300, 1e-30, DBL_MAX, DBL_MIN, 1.0 / 3};
    char want[400];

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        for (int digits = 0; digits <= 9; digits++) {
            cf_json_reset(&json);
            cf_json_f64(&json, numbers[i], digits);
            (void)snprintf(want, sizeof(want), "%.*f", digits, numbers[i]);
            ck_assert_str_eq(text(), want);
        }
    }
}
END_TEST

static void expect_as_printf(double number, int digits)
{
    char want[400];

    cf_json_reset(&json);
    cf_json_f64(&json, number, digits);
    (void)snprintf(want, sizeof(want), "%.*f", digits, number);
    ck_assert_str_eq(text(), want);
}

/* Numbers whose last digit is the hardest to say: in the middle between two, and next to it, on
 * both sides of the size at which they are left to printf. */
START_TEST(f64_rounds_as_printf_in_the_middle)
{
    uint64_t random = 1;

    for (int i = 0; i < 20000; i++) {
        int digits = i % 10;
        double middle;

        random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
        middle = ((double)(random >> (20 + random % 40)) + 0.5) / pow(10, digits);
        middle = (random & 1024) != 0 ? middle : -middle;
        expect_as_printf(middle, digits);
        expect_as_printf(nextafter(middle, 0), digits);
        expect_as_printf(nextafter(middle, 2 * middle), digits);
        expect_as_printf(middle * 1.37, digits);
    }
}
END_TEST

START_TEST(f64_that_is_not_finite_is_null)
{
    cf_json_array(&json);
    cf_json_f64(&json, (double)NAN, 2);
    cf_json_f64(&json, (double)INFINITY, 2);
    cf_json_f64(&json, -(double)INFINITY, 2);
    cf_json_end(&json);
    ck_assert_str_eq(text(), "[null,null,null]");
}
END_TEST

START_TEST(f64_has_a_point_in_any_locale)
{
    static const char *const locales[] = {"de_DE.UTF-8", "de_DE", "fr_FR.UTF-8", "ps_AF"};

    for (size_t i = 0; i < sizeof(locales) / sizeof(locales[0]); i++) {
        (void)setlocale(LC_ALL, locales[i]); /* Where it is not installed nothing changes. */
        cf_json_reset(&json);
        cf_json_f64(&json, -1234.5, 2);
        ck_assert_str_eq(text(), "-1234.50");
    }
    (void)setlocale(LC_ALL, "C");
}
END_TEST

/* Instants */

START_TEST(time_us_equals_gmtime)
{
    for (unsigned i = 0; i < 200000; i++) {
        /* From year 0 to 9999. */
        int64_t second = INT64_C(-62167219200) + (int64_t)(next_random() % UINT64_C(315569520000));
        time_t unix_time = (time_t)second;
        char want[100];
        struct tm tm;

        if (i == 0) {
            unix_time = 0;
        }
        ck_assert_ptr_nonnull(gmtime_r(&unix_time, &tm));
        (void)snprintf(want, sizeof(want), "\"%04d-%02d-%02dT%02d:%02d:%02d.%06uZ\"",
                       tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min,
                       tm.tm_sec, i);
        cf_json_reset(&json);
        cf_json_time_us(&json, (int64_t)unix_time * 1000000 + i);
        ck_assert_str_eq(text(), want);
    }
}
END_TEST

START_TEST(time_us_before_the_epoch_rounds_down)
{
    cf_json_time_us(&json, -1);
    ck_assert_str_eq(text(), "\"1969-12-31T23:59:59.999999Z\"");
}
END_TEST

START_TEST(time_us_without_four_digits_of_year_is_null)
{
    cf_json_array(&json);
    cf_json_time_us(&json, INT64_MIN);
    cf_json_time_us(&json, INT64_MAX);
    cf_json_time_us(&json, INT64_C(253402300800) * 1000000); /* 10000-01-01 */
    cf_json_time_us(&json, INT64_C(253402300800) * 1000000 - 1);
    cf_json_end(&json);
    ck_assert_str_eq(text(), "[null,null,null,\"9999-12-31T23:59:59.999999Z\"]");
}
END_TEST

/* Memory */

START_TEST(reset_keeps_the_buffer)
{
    const char *first;
    const char *second;
    size_t size;

    cf_json_str(&json, "one");
    ck_assert_int_eq(cf_json_finish(&json, &first, &size, NULL), CF_OK);
    cf_json_reset(&json);
    cf_json_str(&json, "two");
    ck_assert_int_eq(cf_json_finish(&json, &second, &size, NULL), CF_OK);
    ck_assert_ptr_eq(first, second);
}
END_TEST

START_TEST(text_grows_beyond_the_first_buffer)
{
    json_t *value;

    cf_json_array(&json);
    for (int i = 0; i < 100000; i++) {
        cf_json_i64(&json, i);
    }
    cf_json_end(&json);
    value = parsed();
    ck_assert_uint_eq(json_array_size(value), 100000);
    json_decref(value);
}
END_TEST

START_TEST(finish_tells_of_lost_memory)
{
    struct cf_err err;
    const char *data;
    size_t size;

    cf_json_object(&json);
    json.failed = true; /* As after a realloc() that failed. */
    cf_json_key(&json, "a");
    cf_json_str(&json, "b");
    cf_json_end(&json);
    ck_assert_int_eq(cf_json_finish(&json, &data, &size, &err), CF_ENOMEM);
    ck_assert_int_eq(err.code, CF_ENOMEM);
}
END_TEST

Suite *suite_json(void)
{
    Suite *suite = suite_create("json");
    TCase *tc = tcase_create("documents");
    const int n_strings = sizeof(strings) / sizeof(strings[0]);

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, random_documents_read_back_as_written);
    tcase_add_test(tc, object_and_array_place_commas);
    tcase_add_test(tc, nesting_reaches_the_limit);
    tcase_add_loop_test(tc, str_escapes_and_mends, 0, n_strings);
    tcase_add_test(tc, str_null_is_null);
    tcase_add_test(tc, integers_equal_printf);
    tcase_add_test(tc, f64_rounds_as_printf);
    tcase_add_test(tc, f64_rounds_as_printf_in_the_middle);
    tcase_add_test(tc, f64_that_is_not_finite_is_null);
    tcase_add_test(tc, f64_has_a_point_in_any_locale);
    tcase_add_test(tc, time_us_equals_gmtime);
    tcase_add_test(tc, time_us_before_the_epoch_rounds_down);
    tcase_add_test(tc, time_us_without_four_digits_of_year_is_null);
    tcase_add_test(tc, reset_keeps_the_buffer);
    tcase_add_test(tc, text_grows_beyond_the_first_buffer);
    tcase_add_test(tc, finish_tells_of_lost_memory);
    tcase_set_timeout(tc, 60);
    suite_add_tcase(suite, tc);

    tc = tcase_create("asserted");
    tcase_set_tags(tc, "fork");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test_raise_signal(tc, nesting_over_the_limit_is_asserted, SIGABRT);
    tcase_add_test_raise_signal(tc, value_without_its_key_is_asserted, SIGABRT);
    tcase_add_test_raise_signal(tc, key_in_an_array_is_asserted, SIGABRT);
    tcase_add_test_raise_signal(tc, end_after_a_key_is_asserted, SIGABRT);
    tcase_add_test_raise_signal(tc, second_value_is_asserted, SIGABRT);
    tcase_add_test_raise_signal(tc, finish_of_an_open_object_is_asserted, SIGABRT);
    suite_add_tcase(suite, tc);
    return suite;
}
