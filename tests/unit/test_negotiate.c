/* SPDX-License-Identifier: MIT */
/* What Accept headers say of text/csv. */
#include "curfew/http/negotiate.h"

#include <check.h>
#include <stddef.h>

#define LENGTH(array) (int)(sizeof(array) / sizeof((array)[0]))

/* accept */

/* Up to two headers. */
static const struct {
    const char *headers[2];
    int quality;
} accepts[] = {
    {{NULL}, 1000},
    {{""}, 1000},
    {{" , "}, 1000},
    {{"*/*"}, 1000},
    {{"text/csv"}, 1000},
    {{"TEXT/CSV"}, 1000},
    {{"text/*"}, 1000},
    {{"text/*;q=0.5"}, 500},
    {{"*/*;q=0.1"}, 100},
    {{"application/json, */*;q=0.1"}, 100},
    {{"application/json", "text/csv;q=0.7"}, 700},
    /* The closest range decides, wherever it stands. */
    {{"text/csv;q=0.3, */*"}, 300},
    {{"*/*, text/csv; q=0.3"}, 300},
    {{"*/*", "text/csv; q=0.3"}, 300},
    {{"text/*;q=0.2, text/csv;q=0.7, */*;q=0.9"}, 700},
    {{"text/csv;q=0.3, text/csv;q=0.6, text/csv;q=0.5"}, 600},
    {{"text/csv;q=0.125"}, 125},
    /* Parameters are not looked at. */
    {{"text/csv;charset=utf-8"}, 1000},
    {{"text/csv;header=\"a,b;q=0\";q=0.5"}, 500},
    /* Not wanted. */
    {{"text/csv;q=0"}, 0},
    {{"text/csv;q=0, */*"}, 0},
    {{"*/*;q=0"}, 0},
    {{"text/*;q=0, */*"}, 0},
    {{"application/json"}, 0},
    {{"application/json, text/plain"}, 0},
    {{"application/*"}, 0},
    {{"text/csvx"}, 0},
    {{"text/cs"}, 0},
    {{"*/csv"}, 0},
    {{"text/*x"}, 0},
    /* What is no range is passed over. */
    {{"garbage"}, 1000},
    {{"garbage", "text/csv;q=0"}, 0},
    {{"csv, ;q=0, /, text/"}, 1000},
    {{"text/csv;q=half"}, 1000},
    {{"text/html, image/gif, *; q=.2, */*; q=.2"}, 1000}, /* What Java sends. */
};

START_TEST(accept_says_what_its_closest_range_does)
{
    struct cf__accept accept;

    cf__accept_init(&accept, cf__span_of("text/csv"));
    for (int i = 0; i < 2 && accepts[_i].headers[i] != NULL; i++) {
        cf__accept_header(&accept, accepts[_i].headers[i]);
    }
    ck_assert_int_eq(cf__accept_quality(&accept), accepts[_i].quality);
}
END_TEST

Suite *suite_negotiate(void)
{
    Suite *suite = suite_create("negotiate");
    TCase *tc = tcase_create("accept");

    tcase_add_loop_test(tc, accept_says_what_its_closest_range_does, 0, LENGTH(accepts));
    suite_add_tcase(suite, tc);
    return suite;
}
