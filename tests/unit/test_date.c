/* SPDX-License-Identifier: MIT */
/* Dates of replies. */
#include <check.h>
#include <stdint.h>

#include "curfew/http/date.h"

#define N(array) (sizeof(array) / sizeof(*(array)))

static const struct {
    int64_t at;
    const char *written;
} dates[] = {
    {784111777, "Sun, 06 Nov 1994 08:49:37 GMT"}, /* RFC 9110 */
    {0, "Thu, 01 Jan 1970 00:00:00 GMT"},
    {951782400, "Tue, 29 Feb 2000 00:00:00 GMT"},
    {1798761599, "Thu, 31 Dec 2026 23:59:59 GMT"},
    {4102444800, "Fri, 01 Jan 2100 00:00:00 GMT"},
    {253402300799, "Fri, 31 Dec 9999 23:59:59 GMT"},
    {-1, "Thu, 01 Jan 1970 00:00:00 GMT"},
    {INT64_MAX, "Fri, 31 Dec 9999 23:59:59 GMT"},
};

START_TEST(write_is_as_the_rfc_says)
{
    char date[CF__DATE_SIZE];

    cf__date_write(dates[_i].at, date);
    ck_assert_str_eq(date, dates[_i].written);
}
END_TEST

Suite *suite_date(void)
{
    Suite *suite = suite_create("date");
    TCase *tc = tcase_create("write");

    tcase_add_loop_test(tc, write_is_as_the_rfc_says, 0, (int)N(dates));
    suite_add_tcase(suite, tc);
    return suite;
}
