/* SPDX-License-Identifier: MIT */
/* What each client has, counted. */
#include "curfew/http/quota.h"

#include <check.h>
#include <pthread.h>
#include <string.h>

#include "fault.h"

/* Fixture */

static struct cf__quota *quota;

static void setup(void)
{
    ck_assert_int_eq(cf__quota_new(2, &quota, NULL), CF_OK);
}

static void teardown(void)
{
    ck_assert_uint_eq(cf__quota_clients(quota), 0);
    cf__quota_free(quota);
}

/* Helpers */

/* The n-th of many clients, alike but for a few bits, as those of one who wants collisions are. */
static struct cf__address client(unsigned n)
{
    struct cf__address address = {{0x20, 0x01}};

    memcpy(address.bytes + 2, &n, sizeof(n));
    return address;
}

static enum cf__quota_state take(unsigned n)
{
    struct cf__address address = client(n);

    return cf__quota_take(quota, &address);
}

static void give(unsigned n)
{
    struct cf__address address = client(n);

    cf__quota_give(quota, &address);
}

/* take */

START_TEST(take_limit_reached)
{
    ck_assert_int_eq(take(1), CF__QUOTA_WITHIN);
    ck_assert_int_eq(take(1), CF__QUOTA_WITHIN);
    ck_assert_int_eq(take(1), CF__QUOTA_OVER);
    ck_assert_int_eq(take(1), CF__QUOTA_OVER);
    ck_assert_int_eq(take(1), CF__QUOTA_FAR_OVER);
    ck_assert_int_eq(take(2), CF__QUOTA_WITHIN); /* Another's is another's. */
    for (int i = 0; i < 4; i++) {
        give(1);
    }
    ck_assert_int_eq(take(1), CF__QUOTA_WITHIN); /* What was over counted too. */
    give(1);
    give(1);
    give(2);
}
END_TEST

START_TEST(take_remembers_only_who_has_something)
{
    for (unsigned i = 0; i < 10000; i++) {
        ck_assert_int_eq(take(i), CF__QUOTA_WITHIN);
    }
    ck_assert_uint_eq(cf__quota_clients(quota), 10000);
    for (unsigned i = 0; i < 10000; i++) {
        give(i);
    }
}
END_TEST

static void *take_and_give(void *arg)
{
    unsigned n = *(unsigned *)arg;

    for (unsigned i = 0; i < 20000; i++) {
        ck_assert_int_ne(take(i % 7), CF__QUOTA_UNCOUNTED);
        ck_assert_int_ne(take(100 + n), CF__QUOTA_UNCOUNTED);
        give(i % 7);
        give(100 + n);
    }
    return NULL;
}

START_TEST(take_from_many_threads)
{
    pthread_t threads[4];
    unsigned names[4] = {0, 1, 2, 3};

    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, take_and_give, &names[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        (void)pthread_join(threads[i], NULL);
    }
}
END_TEST

/* An entry, the table, its buckets, and when it has grown, other ones. */
START_TEST(take_out_of_memory_counts_nothing)
{
    static bool counted[1000];
    bool failed = true;

    for (unsigned nth = 1; failed; nth++) {
        size_t n = 0;

        fault_alloc(nth, false);
        for (unsigned i = 0; i < 1000; i++) {
            counted[i] = take(i) != CF__QUOTA_UNCOUNTED;
            n += counted[i];
        }
        failed = fault_off();
        ck_assert_uint_eq(n, failed ? 999 : 1000);
        ck_assert_uint_eq(cf__quota_clients(quota), n);
        for (unsigned i = 0; i < 1000; i++) {
            if (counted[i]) {
                give(i);
            }
        }
    }
}
END_TEST

START_TEST(new_out_of_memory)
{
    struct cf__quota *other = NULL;

    fault_alloc(1, false);
    ck_assert_int_eq(cf__quota_new(1, &other, NULL), CF_ENOMEM);
    ck_assert(fault_off());
    ck_assert_ptr_null(other);
}
END_TEST

Suite *suite_quota(void)
{
    Suite *suite = suite_create("quota");
    TCase *take = tcase_create("take");

    tcase_add_checked_fixture(take, setup, teardown);
    tcase_add_test(take, take_limit_reached);
    tcase_add_test(take, take_remembers_only_who_has_something);
    tcase_add_test(take, take_from_many_threads);
    tcase_add_test(take, take_out_of_memory_counts_nothing);
    tcase_add_test(take, new_out_of_memory);
    suite_add_tcase(suite, take);
    return suite;
}
