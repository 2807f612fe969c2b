/* SPDX-License-Identifier: MIT */
/* Records of CSV, byte by byte. */
#include "curfewd/export/csv.h"

#include <check.h>
#include <string.h>

#define LENGTH(array) (int)(sizeof(array) / sizeof((array)[0]))

static char out[64];

static struct csv make(size_t capacity)
{
    memset(out, '~', sizeof(out));
    return (struct csv){.out = out, .capacity = capacity};
}

static void expect(const struct csv *csv, const char *text)
{
    ck_assert(!csv->is_full);
    ck_assert_uint_eq(csv->size, strlen(text));
    ck_assert_mem_eq(csv->out, text, csv->size);
    ck_assert_int_eq(csv->out[csv->size], '~');
}

static const struct {
    const char *text;
    const char *field;
} texts[] = {
    {"", ""},
    {"plain", "plain"},
    {"with space ", "with space "},
    {"d'accord", "d'accord"},
    {"Gr\xc3\xbc\xc3\x9f", "Gr\xc3\xbc\xc3\x9f"},
    {"a,b", "\"a,b\""},
    {"a\"b", "\"a\"\"b\""},
    {"\"", "\"\"\"\""},
    {"a\nb", "\"a\nb\""},
    {"a\r\nb", "\"a\r\nb\""},
    {"=1+1", "'=1+1"},
    {"+1", "'+1"},
    {"-1", "'-1"},
    {"@SUM(A1)", "'@SUM(A1)"},
    {"\tx", "'\tx"},
    {"\rx", "\"'\rx\""},
    {"=\"a\",b", "\"'=\"\"a\"\",b\""},
    {"a=b", "a=b"},
};

START_TEST(text_is_quoted_and_harmless)
{
    struct csv csv = make(sizeof(out));

    csv_text(&csv, texts[_i].text);
    expect(&csv, texts[_i].field);
}
END_TEST

START_TEST(numbers_are_no_formulas)
{
    struct csv csv = make(sizeof(out));

    csv_i64(&csv, -5);
    csv_i64(&csv, INT64_MIN);
    csv_i64(&csv, 0);
    expect(&csv, "-5,-9223372036854775808,0");
}
END_TEST

START_TEST(records_end_and_begin_anew)
{
    struct csv csv = make(sizeof(out));

    csv_text(&csv, "");
    csv_text(&csv, "x");
    csv_end(&csv);
    csv_i64(&csv, 7);
    csv_end(&csv);
    expect(&csv, ",x\r\n7\r\n");
}
END_TEST

/* For every room that is too small: nothing beyond it, and it is said. */
START_TEST(nothing_is_written_beyond_its_room)
{
    for (size_t capacity = 0; capacity <= 9; capacity++) {
        struct csv csv = make(capacity);

        csv_i64(&csv, 12);
        csv_text(&csv, "a,b");
        ck_assert_int_eq(csv.is_full, capacity < strlen("12,\"a,b\""));
        ck_assert_uint_le(csv.size, capacity);
        for (size_t i = capacity; i < sizeof(out); i++) {
            ck_assert_int_eq(out[i], '~');
        }
    }
}
END_TEST

Suite *suite_csv(void)
{
    Suite *suite = suite_create("csv");
    TCase *tc = tcase_create("csv");

    tcase_add_loop_test(tc, text_is_quoted_and_harmless, 0, LENGTH(texts));
    tcase_add_test(tc, numbers_are_no_formulas);
    tcase_add_test(tc, records_end_and_begin_anew);
    tcase_add_test(tc, nothing_is_written_beyond_its_room);
    suite_add_tcase(suite, tc);
    return suite;
}
