/* SPDX-License-Identifier: MIT */
/* The request's arena, and its id, which is too small for a file of its own. */
#include "curfew/http/arena.h"

#include <check.h>
#include <stdalign.h>
#include <stdint.h>
#include <string.h>

#include "curfew/http/request_id.h"

/* Fixture */

static alignas(max_align_t) char first[256];
static struct cf__arena arena;

static void setup(void)
{
    memset(first, 'x', sizeof(first));
    cf__arena_init(&arena, first, sizeof(first));
}

static void teardown(void)
{
    cf__arena_fini(&arena);
}

/* Helpers */

static bool in_first(const void *piece)
{
    return (const char *)piece >= first && (const char *)piece < first + sizeof(first);
}

/* alloc */

START_TEST(alloc_takes_the_first_buffer_first)
{
    ck_assert(in_first(cf__arena_alloc(&arena, 100)));
    ck_assert(in_first(cf__arena_alloc(&arena, 100)));
    ck_assert(!in_first(cf__arena_alloc(&arena, 100)));
    ck_assert(in_first(first));
}
END_TEST

START_TEST(alloc_is_zeroed_and_aligned)
{
    static const size_t sizes[] = {1, 15, 16, 17, 100, 1000, 5000, 3, 100000};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        char *piece = cf__arena_alloc(&arena, sizes[i]);

        ck_assert_ptr_nonnull(piece);
        ck_assert_uint_eq((uintptr_t)piece % alignof(max_align_t), 0);
        for (size_t at = 0; at < sizes[i]; at++) {
            ck_assert_int_eq(piece[at], 0);
        }
        memset(piece, 'y', sizes[i]);
    }
}
END_TEST

START_TEST(alloc_of_a_large_piece_keeps_the_rest_of_the_block)
{
    char *small = cf__arena_alloc(&arena, 16);
    char *large = cf__arena_alloc(&arena, 100000);
    char *next = cf__arena_alloc(&arena, 16);

    ck_assert_ptr_nonnull(large);
    ck_assert(in_first(small));
    ck_assert_ptr_eq(next, small + 16);
}
END_TEST

START_TEST(alloc_of_everything_fails)
{
    ck_assert_ptr_null(cf__arena_alloc(&arena, SIZE_MAX));
    ck_assert_ptr_null(cf__arena_copy(&arena, "", SIZE_MAX));
    ck_assert_ptr_nonnull(cf__arena_alloc(&arena, 1));
}
END_TEST

START_TEST(copy_ends_in_a_nul)
{
    char *copy = cf__arena_copy(&arena, "hello, world", 5);

    ck_assert_str_eq(copy, "hello");
}
END_TEST

/* request id */

START_TEST(request_id_valid_knows_its_alphabet_and_length)
{
    char longest[CF__REQUEST_ID_MAX + 2];

    memset(longest, 'a', sizeof(longest));
    longest[CF__REQUEST_ID_MAX] = '\0';
    ck_assert(cf__request_id_valid(longest));
    longest[CF__REQUEST_ID_MAX] = 'a';
    longest[CF__REQUEST_ID_MAX + 1] = '\0';
    ck_assert(!cf__request_id_valid(longest));
    ck_assert(cf__request_id_valid("aZ09._~+/=-"));
    ck_assert(cf__request_id_valid("4bf92f3577b34da6a3ce929d0e0e4736"));
    ck_assert(!cf__request_id_valid(""));
    ck_assert(!cf__request_id_valid("a b"));
    ck_assert(!cf__request_id_valid("a\r\nSet-Cookie: b"));
    ck_assert(!cf__request_id_valid("\xc3\xa9"));
    ck_assert(!cf__request_id_valid("a\"b"));
}
END_TEST

Suite *suite_arena(void)
{
    Suite *suite = suite_create("arena");
    TCase *tc = tcase_create("arena");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, alloc_takes_the_first_buffer_first);
    tcase_add_test(tc, alloc_is_zeroed_and_aligned);
    tcase_add_test(tc, alloc_of_a_large_piece_keeps_the_rest_of_the_block);
    tcase_add_test(tc, alloc_of_everything_fails);
    tcase_add_test(tc, copy_ends_in_a_nul);
    suite_add_tcase(suite, tc);

    tc = tcase_create("request_id");
    tcase_add_test(tc, request_id_valid_knows_its_alphabet_and_length);
    suite_add_tcase(suite, tc);
    return suite;
}
