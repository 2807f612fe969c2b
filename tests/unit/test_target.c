/* SPDX-License-Identifier: MIT */
/* Decoding of a request's target. */
#include "curfew/http/target.h"

#include <check.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "curfew/http/utf8.h"

/* Fixture */

static alignas(max_align_t) char first[1024];
static struct cf__arena arena;
static struct cf__target target;
static struct cf_err err;

static void setup(void)
{
    cf__arena_init(&arena, first, sizeof(first));
}

static void teardown(void)
{
    cf__arena_fini(&arena);
}

/* Helpers */

static void assert_segment(size_t i, const char *want)
{
    ck_assert_uint_lt(i, target.n_segments);
    ck_assert_uint_eq(target.segments[i].size, strlen(want));
    ck_assert_mem_eq(target.segments[i].text, want, strlen(want));
}

/* path */

static const struct {
    const char *raw;
    const char *path;
    size_t n_segments;
} paths[] = {
    {"/", "/", 1},
    {"/a", "/a", 1},
    {"/a/", "/a/", 2},
    {"/a//b", "/a//b", 3},
    {"/v1/users/7", "/v1/users/7", 3},
    {"/a%20b+c", "/a b+c", 1}, /* Plus is a plus in a path. */
    {"/a%2Fb/c", "/a/b/c", 2}, /* An escaped slash parts nothing. */
    {"/%2e%2E/x", "/../x", 2},
    {"/%C3%A9/\xc3\xa9", "/\xc3\xa9/\xc3\xa9", 2},
    {"/%25%32%35", "/%25", 1}, /* Decoded once. */
    {"/a?b=c", "/a", 1},
    {"/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17/18",
     "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17/18", 18},
};

START_TEST(path_is_decoded_and_split)
{
    ck_assert_int_eq(cf__target_decode(paths[_i].raw, &arena, &target, &err), CF_OK);
    ck_assert_str_eq(target.path, paths[_i].path);
    ck_assert_uint_eq(target.n_segments, paths[_i].n_segments);
}
END_TEST

START_TEST(path_escaped_slash_stays_in_its_segment)
{
    ck_assert_int_eq(cf__target_decode("/users/a%2Fb/x", &arena, &target, &err), CF_OK);
    ck_assert_uint_eq(target.n_segments, 3);
    assert_segment(0, "users");
    assert_segment(1, "a/b");
    assert_segment(2, "x");
}
END_TEST

/* query */

START_TEST(query_is_decoded)
{
    ck_assert_int_eq(
        cf__target_decode("/?a=1&b=x+y%2Bz&&c&d=&e=f=g&a=2&%61b=3&", &arena, &target, &err), CF_OK);
    ck_assert_uint_eq(target.n_args, 7);
    ck_assert_str_eq(cf__target_arg(&target, "a"), "1"); /* The first counts. */
    ck_assert_str_eq(cf__target_arg(&target, "b"), "x y+z");
    ck_assert_str_eq(cf__target_arg(&target, "c"), "");
    ck_assert_str_eq(cf__target_arg(&target, "d"), "");
    ck_assert_str_eq(cf__target_arg(&target, "e"), "f=g");
    ck_assert_str_eq(cf__target_arg(&target, "ab"), "3");
    ck_assert_ptr_null(cf__target_arg(&target, "f"));
}
END_TEST

START_TEST(query_that_is_empty_has_no_arguments)
{
    ck_assert_int_eq(cf__target_decode("/?", &arena, &target, &err), CF_OK);
    ck_assert_uint_eq(target.n_args, 0);
    ck_assert_int_eq(cf__target_decode("/", &arena, &target, &err), CF_OK);
    ck_assert_uint_eq(target.n_args, 0);
    ck_assert_ptr_null(cf__target_arg(&target, ""));
}
END_TEST

static enum cf_code decode_args(int n)
{
    char raw[512] = "/?";

    for (int i = 0; i < n; i++) {
        strcat(raw, i > 0 ? "&a" : "a");
    }
    return cf__target_decode(raw, &arena, &target, &err);
}

START_TEST(query_limit_reached)
{
    ck_assert_int_eq(decode_args(CF__ARGS_MAX), CF_OK);
    ck_assert_uint_eq(target.n_args, CF__ARGS_MAX);
    ck_assert_int_eq(decode_args(CF__ARGS_MAX + 1), CF_EINVAL);
    ck_assert_str_eq(err.msg, "more than 100 arguments in the query");
}
END_TEST

/* refused */

static const struct {
    const char *raw;
    const char *message;
} refused[] = {
    {"", "the target must be a path that starts with /"},
    {"*", "the target must be a path that starts with /"},
    {"http://host/", "the target must be a path that starts with /"},
    {"?a=b", "the target must be a path that starts with /"},
    {"/%", "bad escape in the path: % wants two hex digits"},
    {"/%4", "bad escape in the path: % wants two hex digits"},
    {"/%zz", "bad escape in the path: % wants two hex digits"},
    {"/%4/1", "bad escape in the path: % wants two hex digits"},
    {"/%?a", "bad escape in the path: % wants two hex digits"},
    {"/?a=%", "bad escape in the query: % wants two hex digits"},
    {"/?a=%1&b", "bad escape in the query: % wants two hex digits"},
    {"/?%=a", "bad escape in the query: % wants two hex digits"},
    {"/a%00b", "control character %00 in the path"},
    {"/?a%00=b", "control character %00 in the query"},
    {"/a%0d%0ab", "control character %0D in the path"},
    {"/?a=%0A", "control character %0A in the query"},
    {"/a\tb", "control character %09 in the path"},
    {"/%7f", "control character %7F in the path"},
    {"/a b", "space in the path"},
    {"/?a b", "space in the query"},
    {"/\xff", "the path is not UTF-8"},
    {"/%c3/%a9", "the path is not UTF-8"}, /* One character, parted by the slash. */
    {"/%ed%a0%80", "the path is not UTF-8"},
    {"/?a=%c0%af", "the query is not UTF-8"},
    {"/?%c3=%a9", "the query is not UTF-8"},
};

START_TEST(decode_says_what_is_wrong)
{
    ck_assert_int_eq(cf__target_decode(refused[_i].raw, &arena, &target, &err), CF_EINVAL);
    ck_assert_str_eq(err.msg, refused[_i].message);
}
END_TEST

START_TEST(random_bytes_decode_to_clean_text_or_fail)
{
    unsigned seed = 1;

    for (int round = 0; round < 50000; round++) {
        static const char alphabet[] = "/?&=%+ab09fF\xc3\xa9\x01 ";
        char raw[64] = "/";
        size_t size = 1 + (size_t)(rand_r(&seed) % 40);

        for (size_t i = 1; i < size; i++) {
            raw[i] = alphabet[(size_t)rand_r(&seed) % (sizeof(alphabet) - 1)];
        }
        if (cf__target_decode(raw, &arena, &target, &err) == CF_OK) {
            ck_assert(cf__utf8_valid(target.path, strlen(target.path)));
            for (const char *c = target.path; *c != '\0'; c++) {
                ck_assert((unsigned char)*c >= 0x20);
            }
        }
        cf__arena_fini(&arena);
        cf__arena_init(&arena, first, sizeof(first));
    }
}
END_TEST

Suite *suite_target(void)
{
    Suite *suite = suite_create("target");
    TCase *tc = tcase_create("decode");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, path_is_decoded_and_split, 0, sizeof(paths) / sizeof(paths[0]));
    tcase_add_test(tc, path_escaped_slash_stays_in_its_segment);
    tcase_add_test(tc, query_is_decoded);
    tcase_add_test(tc, query_that_is_empty_has_no_arguments);
    tcase_add_test(tc, query_limit_reached);
    tcase_add_loop_test(tc, decode_says_what_is_wrong, 0, sizeof(refused) / sizeof(refused[0]));
    tcase_add_test(tc, random_bytes_decode_to_clean_text_or_fail);
    suite_add_tcase(suite, tc);
    return suite;
}
