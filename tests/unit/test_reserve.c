/* SPDX-License-Identifier: MIT */
/* Tables that grow without memory: see curfewd/reserve.h. */
#include <check.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "curfewd/reserve.h"

#include "fault.h"

/* realloc */

START_TEST(realloc_out_of_memory_takes_from_the_reserve)
{
    struct cf_err err;
    bool is_kept = true;
    char *table;

    ck_assert_int_eq(reserve_for_libuv(1, 1024, &err), CF_OK);
    table = reserve_realloc(NULL, 64);
    ck_assert_ptr_nonnull(table);
    memset(table, 'x', 64);
    fault_alloc(1, true); /* libcheck asserts with memory: not until it is off. */
    for (size_t size = 128; size <= 1024 * sizeof(void *) && table != NULL; size *= 2) {
        table = reserve_realloc(table, size);
        is_kept = is_kept && table != NULL && table[0] == 'x' && table[size / 2 - 1] == 'x';
        if (table != NULL) {
            memset(table, 'x', size);
        }
    }
    ck_assert(fault_off());
    ck_assert_ptr_nonnull(table);
    ck_assert(is_kept);

    /* And back to the heap, once there is one. */
    table = reserve_realloc(table, 64);
    ck_assert_ptr_nonnull(table);
    ck_assert_int_eq(table[63], 'x');
    free(table);
}
END_TEST

START_TEST(realloc_beyond_the_reserve_fails_and_keeps_the_old)
{
    struct cf_err err;
    char *table;
    void *grown;

    ck_assert_int_eq(reserve_for_libuv(1, 64, &err), CF_OK);
    table = reserve_realloc(NULL, 64);
    ck_assert_ptr_nonnull(table);
    table[0] = 'x';
    fault_alloc(1, true);
    grown = reserve_realloc(table, (size_t)1 << 20);
    ck_assert(fault_off());
    ck_assert_ptr_null(grown);
    ck_assert_int_eq(table[0], 'x');
    free(table);
}
END_TEST

Suite *suite_reserve(void)
{
    Suite *suite = suite_create("reserve");
    TCase *tc = tcase_create("realloc");

    tcase_add_test(tc, realloc_out_of_memory_takes_from_the_reserve);
    tcase_add_test(tc, realloc_beyond_the_reserve_fails_and_keeps_the_old);
    suite_add_tcase(suite, tc);
    return suite;
}
