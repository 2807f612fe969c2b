/* SPDX-License-Identifier: MIT */
/* Values: copied or wrapped, and gone with the last reference. */
#include <curfew/value.h>

#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "fault.h"

/* Helpers */

static int dropped;

static void drop(void *data)
{
    dropped++;
    free(data);
}

/* new */

START_TEST(new_copies_its_bytes)
{
    char bytes[] = "body";
    struct cf_value *value;
    struct cf_err err;

    ck_assert_int_eq(cf_value_new(bytes, sizeof(bytes), &value, &err), CF_OK);
    memset(bytes, 'x', sizeof(bytes));
    ck_assert_uint_eq(cf_value_size(value), sizeof(bytes));
    ck_assert_str_eq(cf_value_data(value), "body");
    cf_value_unref(value);
}
END_TEST

START_TEST(new_of_nothing_is_empty)
{
    struct cf_value *value;

    ck_assert_int_eq(cf_value_new(NULL, 0, &value, NULL), CF_OK);
    ck_assert_uint_eq(cf_value_size(value), 0);
    ck_assert_ptr_nonnull(cf_value_data(value));
    cf_value_unref(value);
    cf_value_unref(NULL);
}
END_TEST

START_TEST(new_out_of_memory)
{
    struct cf_value *value = NULL;
    struct cf_err err;

    fault_alloc(1, false);
    ck_assert_int_eq(cf_value_new("a", 1, &value, &err), CF_ENOMEM);
    ck_assert(fault_off());
    ck_assert_int_eq(err.code, CF_ENOMEM);
    ck_assert_int_eq(cf_value_new("a", SIZE_MAX, &value, &err), CF_ENOMEM);
    ck_assert_ptr_null(value);
}
END_TEST

/* wrap */

START_TEST(wrap_drops_with_the_last_reference)
{
    char *data = strdup("own");
    struct cf_value *value;

    ck_assert_int_eq(cf_value_wrap(data, 1000, drop, &value, NULL), CF_OK);
    ck_assert_ptr_eq(cf_value_data(value), data);
    ck_assert_uint_eq(cf_value_size(value), 1000); /* What the caller says. */
    ck_assert_ptr_eq(cf_value_ref(value), value);
    cf_value_unref(value);
    ck_assert_int_eq(dropped, 0);
    cf_value_unref(value);
    ck_assert_int_eq(dropped, 1);
}
END_TEST

START_TEST(wrap_out_of_memory_drops)
{
    struct cf_value *value = NULL;
    struct cf_err err;

    fault_alloc(1, false);
    ck_assert_int_eq(cf_value_wrap(strdup("own"), 4, drop, &value, &err), CF_ENOMEM);
    ck_assert(fault_off());
    ck_assert_int_eq(dropped, 1);
    ck_assert_ptr_null(value);
}
END_TEST

/* ref, unref */

#define THREADS 4
#define REFS 10000

static void *ref_and_unref(void *arg)
{
    struct cf_value *value = arg;

    for (int i = 0; i < REFS; i++) {
        struct cf_value *mine = cf_value_ref(value);

        cf_value_unref(mine);
    }
    cf_value_unref(value);
    return NULL;
}

START_TEST(unref_by_many_threads_drops_once)
{
    pthread_t threads[THREADS];
    struct cf_value *value;

    ck_assert_int_eq(cf_value_wrap(strdup("own"), 4, drop, &value, NULL), CF_OK);
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, ref_and_unref, cf_value_ref(value)), 0);
    }
    cf_value_unref(value);
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    }
    ck_assert_int_eq(dropped, 1);
}
END_TEST

static void setup(void)
{
    dropped = 0;
}

Suite *suite_value(void)
{
    Suite *suite = suite_create("value");
    TCase *tc = tcase_create("new");

    tcase_add_test(tc, new_copies_its_bytes);
    tcase_add_test(tc, new_of_nothing_is_empty);
    tcase_add_test(tc, new_out_of_memory);
    suite_add_tcase(suite, tc);

    tc = tcase_create("wrap");
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_test(tc, wrap_drops_with_the_last_reference);
    tcase_add_test(tc, wrap_out_of_memory_drops);
    suite_add_tcase(suite, tc);

    tc = tcase_create("unref");
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_test(tc, unref_by_many_threads_drops_once);
    suite_add_tcase(suite, tc);
    return suite;
}
