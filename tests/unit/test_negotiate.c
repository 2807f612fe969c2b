/* SPDX-License-Identifier: MIT */
/* What Accept headers say of text/csv, and Accept-Encoding of gzip. */
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

/* encodings */

static const struct {
    const char *headers[2];
    enum cf__coding choice;
} encodings[] = {
    {{NULL}, CF__PLAIN},
    {{""}, CF__PLAIN},
    {{"gzip"}, CF__GZIP},
    {{"GZIP"}, CF__GZIP},
    {{"x-gzip"}, CF__GZIP},
    {{"gzip, deflate, br"}, CF__GZIP},
    {{"deflate, br", "gzip"}, CF__GZIP},
    {{"gzip;q=0.001"}, CF__GZIP},
    {{"*"}, CF__GZIP},
    {{"*;q=0.5, gzip;q=0"}, CF__PLAIN},
    {{"gzip;q=0"}, CF__PLAIN},
    {{"deflate, br"}, CF__PLAIN},
    {{"identity"}, CF__PLAIN},
    {{"identity, gzip"}, CF__GZIP},
    {{"identity, gzip;q=0.5"}, CF__PLAIN},
    {{"identity;q=0.5, gzip;q=0.5"}, CF__GZIP},
    {{"identity;q=0.4, *;q=0.5"}, CF__GZIP},
    {{"identity;q=0, gzip"}, CF__GZIP_ONLY},
    {{"identity;q=0, *;q=0.1"}, CF__GZIP_ONLY},
    {{"gzip, *;q=0"}, CF__GZIP_ONLY},
    {{"gzip;q=0.5, identity, *;q=0"}, CF__PLAIN},
    /* There is nothing that it takes: it is sent what everybody can read. */
    {{"identity;q=0"}, CF__PLAIN},
    {{"*;q=0"}, CF__PLAIN},
    {{"br, identity;q=0"}, CF__PLAIN},
    {{"gzip/2"}, CF__PLAIN},
    {{"gzip;q=x"}, CF__GZIP},
};

START_TEST(encodings_choose_gzip_where_nothing_is_liked_better)
{
    struct cf__encodings said;

    cf__encodings_init(&said);
    for (int i = 0; i < 2 && encodings[_i].headers[i] != NULL; i++) {
        cf__encodings_header(&said, encodings[_i].headers[i]);
    }
    ck_assert_int_eq(cf__encodings_choice(&said), encodings[_i].choice);
}
END_TEST

Suite *suite_negotiate(void)
{
    Suite *suite = suite_create("negotiate");
    TCase *tc = tcase_create("negotiate");

    tcase_add_loop_test(tc, accept_says_what_its_closest_range_does, 0, LENGTH(accepts));
    tcase_add_loop_test(tc, encodings_choose_gzip_where_nothing_is_liked_better, 0,
                        LENGTH(encodings));
    suite_add_tcase(suite, tc);
    return suite;
}
