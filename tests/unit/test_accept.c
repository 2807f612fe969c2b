/* SPDX-License-Identifier: MIT */
/* What Accept headers say of text/csv. */
#include "curfewd/export/accept.h"

#include <check.h>

#define LENGTH(array) (int)(sizeof(array) / sizeof((array)[0]))

static const struct {
    const char *accept;
    int quality;
} table[] = {
    {NULL, 1000},
    {"*/*", 1000},
    {"text/csv", 1000},
    {"TEXT/CSV", 1000},
    {"text/*", 1000},
    {"text/*;q=0.5", 500},
    {"text/csv;q=0.3, */*", 300},
    {"*/*, text/csv; q=0.3", 300},
    {"text/*;q=0.2, text/csv;q=0.7, */*;q=0.9", 700},
    {"text/csv;q=0", 0},
    {"text/csv;q=0.125", 125},
    {"application/json", 0},
    {"application/json, text/plain", 0},
    {"text/csvx", 0},
};

START_TEST(quality_is_that_of_the_most_specific_range)
{
    ck_assert_int_eq(accept_quality(table[_i].accept, "text/csv"), table[_i].quality);
}
END_TEST

Suite *suite_accept(void)
{
    Suite *suite = suite_create("accept");
    TCase *tc = tcase_create("accept");

    tcase_add_loop_test(tc, quality_is_that_of_the_most_specific_range, 0, LENGTH(table));
    suite_add_tcase(suite, tc);
    return suite;
}
