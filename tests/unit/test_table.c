/* SPDX-License-Identifier: MIT */
/* Tables of fixed size, and the hash of their keys. */
#include "curfew/sync/table.h"

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "curfew/sync/hash.h"
#include "fault.h"

/* hash */

/* The vector in appendix A of the SipHash paper. */
START_TEST(hash_is_siphash)
{
    struct cf__hash_seed seed = {{UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)}};
    unsigned char bytes[15];

    for (unsigned char i = 0; i < sizeof(bytes); i++) {
        bytes[i] = i;
    }
    ck_assert_uint_eq(cf__siphash(&seed, bytes, sizeof(bytes), 2, 4), UINT64_C(0xa129ca6149be45e5));
}
END_TEST

START_TEST(hash_depends_on_the_seed)
{
    struct cf__hash_seed seeds[2];

    cf__hash_seed(&seeds[0]);
    cf__hash_seed(&seeds[1]);
    ck_assert_uint_ne(cf__hash(&seeds[0], "key"), cf__hash(&seeds[1], "key"));
    ck_assert_uint_eq(cf__hash(&seeds[0], "key"), cf__hash(&seeds[0], "key"));
    ck_assert_uint_eq(cf__hash(&seeds[0], "key"), cf__siphash(&seeds[0], "key", 3, 1, 3));
}
END_TEST

/* table */

#define NODES 1000

START_TEST(table_finds_what_is_in_it)
{
    static struct cf__table_node nodes[NODES];
    static char keys[NODES][16];
    struct cf__table table;

    /* As many as it is made for, far more, and all in one bucket: a hash of 0 to 3. */
    ck_assert(cf__table_init(&table, _i == 0 ? NODES : 10));
    for (int i = 0; i < NODES; i++) {
        (void)snprintf(keys[i], sizeof(keys[i]), "key %d", i);
        nodes[i] =
            (struct cf__table_node){.hash = (uint64_t)i & (_i == 2 ? 3 : ~0U), .key = keys[i]};
        ck_assert_ptr_null(cf__table_find(&table, keys[i], nodes[i].hash));
        cf__table_insert(&table, &nodes[i]);
    }
    for (int i = 0; i < NODES; i += 2) {
        cf__table_remove(&table, &nodes[i]);
    }
    for (int i = 0; i < NODES; i++) {
        ck_assert_ptr_eq(cf__table_find(&table, keys[i], nodes[i].hash),
                         i % 2 == 0 ? NULL : &nodes[i]);
    }
    cf__table_fini(&table);
}
END_TEST

START_TEST(table_out_of_memory)
{
    struct cf__table table;

    fault_alloc(1, false);
    ck_assert(!cf__table_init(&table, 10));
    ck_assert(fault_off());
    cf__table_fini(&table);
}
END_TEST

START_TEST(table_remove_of_what_is_not_in_it_asserts)
{
    struct cf__table_node node = {.hash = 1, .key = "key"};
    struct cf__table table;

    ck_assert(cf__table_init(&table, 10));
    cf__table_remove(&table, &node);
}
END_TEST

Suite *suite_table(void)
{
    Suite *suite = suite_create("table");
    TCase *tc = tcase_create("hash");

    tcase_add_test(tc, hash_is_siphash);
    tcase_add_test(tc, hash_depends_on_the_seed);
    suite_add_tcase(suite, tc);

    tc = tcase_create("table");
    tcase_add_loop_test(tc, table_finds_what_is_in_it, 0, 3);
    tcase_add_test(tc, table_out_of_memory);
    suite_add_tcase(suite, tc);

    tc = tcase_create("asserts");
    tcase_set_tags(tc, "fork");
    tcase_add_test_raise_signal(tc, table_remove_of_what_is_not_in_it_asserts, SIGABRT);
    suite_add_tcase(suite, tc);
    return suite;
}
