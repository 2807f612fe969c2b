/* SPDX-License-Identifier: MIT */
/* Caches: what is put in, and what takes it out again: limits, removal, invalidation. */
#include "cache_kit.h"

#include <stdlib.h>

#include <stdio.h>
#include <string.h>

#include "fault.h"

/* put */

START_TEST(put_replaces)
{
    struct call call = call_of("c");

    put_text("key", "a");
    pass(TTL_NS - 1);
    put_text("key", "b");
    pass(TTL_NS - 1);
    expect_got(_i, &call, CF_CACHE_HIT, "b");
    ck_assert_uint_eq(stats().entries, 1);
}
END_TEST

START_TEST(put_out_of_memory_changes_nothing)
{
    struct cf_value *value;

    put_text("key", "a");
    ck_assert_int_eq(cf_value_new("b", 2, &value, &cache_err), CF_OK);
    fault_alloc(1, false);
    ck_assert_int_eq(cf_cache_put(cache, "key", value, &cache_err), CF_ENOMEM);
    ck_assert(fault_off());
    cf_value_unref(value);
    ck_assert(cf_cache_try_get(cache, "key", &value, NULL));
    ck_assert_str_eq(cf_value_data(value), "a");
    cf_value_unref(value);
}
END_TEST

START_TEST(put_of_what_is_too_large_removes)
{
    struct cf_cache_options options = {.entries_max = 10, .bytes_max = 1000};
    struct cf_value *value;

    use_options(&options);
    put_text("key", "a");
    ck_assert_int_eq(cf_value_wrap(strdup("b"), SIZE_MAX, free, &value, &cache_err), CF_OK);
    ck_assert_int_eq(cf_cache_put(cache, "key", value, &cache_err), CF_OK);
    cf_value_unref(value);
    ck_assert(!is_there("key"));
    ck_assert_uint_eq(stats().refused, 1);
    ck_assert_uint_eq(stats().bytes, 0);
}
END_TEST

/* Bounds: of entries, and of bytes when one grows in its place. */
START_TEST(put_keeps_to_the_limits)
{
    struct cf_cache_options options = {.entries_max = 8, .bytes_max = 3000, .shards = 1};
    char text[1200];

    use_options(&options);
    for (int i = 0; i < 1000; i++) {
        char key[16];

        (void)snprintf(key, sizeof(key), "%d", i * 7 % 13);
        memset(text, 'x', sizeof(text));
        text[i * 31 % (int)sizeof(text)] = '\0';
        text[sizeof(text) - 1] = '\0';
        put_text(key, text);
        ck_assert_uint_le(stats().entries, 8);
        ck_assert_uint_le(stats().bytes, 3000);
        ck_assert_uint_gt(stats().entries, 0);
    }
    ck_assert_uint_gt(stats().evictions, 100);
}
END_TEST

/* Invalidation */

static bool starts_with_k(const char *key, void *arg)
{
    (void)arg;
    return key[0] == 'k';
}

static bool never(const char *key, void *arg)
{
    (void)key;
    (void)arg;
    return false;
}

/* The ways to make "key" out of date. */
static void invalidate(int way)
{
    switch (way) {
    case 0:
        (void)cf_cache_remove(cache, "key");
        break;
    case 1:
        (void)cf_cache_remove_if(cache, starts_with_k, NULL);
        break;
    case 2:
        cf_cache_flush(cache);
        break;
    default:
        put_text("key", "put");
        break;
    }
}

#define WAYS 4

/* A load that began before is not kept, and joined by nobody who comes after. */
START_TEST(invalidate_while_a_load_runs)
{
    int way = _i / PLACES;
    struct call before = call_at_gate("old");
    struct call after = call_of("new");

    start_loading(&before, _i % PLACES);
    invalidate(way);
    expect_got(_i % PLACES, &after, way == 3 ? CF_CACHE_HIT : CF_CACHE_MISS,
               way == 3 ? "put" : "new");
    cf_ctx_cancel(gate);
    visit_join(&before.visit);
    ck_assert_str_eq(before.got, "old"); /* It had asked before. */
    expect_got(_i % PLACES, &after, CF_CACHE_HIT, way == 3 ? "put" : "new");
}
END_TEST

/* Neither is its failure, although the answer would be kept. */
START_TEST(invalidate_while_a_load_fails)
{
    int way = _i / PLACES;
    struct call before = call_at_gate("old");

    before.script.fails = CF_ENOTFOUND;
    start_loading(&before, _i % PLACES);
    invalidate(way);
    cf_ctx_cancel(gate);
    visit_join(&before.visit);
    ck_assert_int_eq(before.code, CF_ENOTFOUND);
    ck_assert_uint_eq(stats().entries, way == 3);
    ck_assert_int_eq(is_there("key"), way == 3);
}
END_TEST

/* Others are left alone. */
START_TEST(invalidate_what_another_loads)
{
    struct call call = call_at_gate("kept");

    start_loading(&call, _i);
    (void)cf_cache_remove(cache, "other");
    (void)cf_cache_remove_if(cache, never, NULL);
    put_text("other", "a");
    cf_ctx_cancel(gate);
    visit_join(&call.visit);
    ck_assert(is_there("key"));
}
END_TEST

START_TEST(remove_says_what_was_there)
{
    put_text("key", "a");
    put_text("kind", "b");
    put_text("other", "c");
    ck_assert(!cf_cache_remove(cache, "none"));
    ck_assert(cf_cache_remove(cache, "key"));
    ck_assert(!cf_cache_remove(cache, "key"));
    put_text("key", "a");
    ck_assert_uint_eq(cf_cache_remove_if(cache, starts_with_k, NULL), 2);
    ck_assert_uint_eq(stats().entries, 1);
    ck_assert(is_there("other"));
    cf_cache_flush(cache);
    ck_assert_uint_eq(stats().entries, 0);
    ck_assert_uint_eq(stats().bytes, 0);
}
END_TEST

Suite *suite_cache_drop(void)
{
    Suite *suite = suite_create("cache_drop");
    TCase *tc = add_cache_case(suite, "put");

    tcase_add_loop_test(tc, put_replaces, 0, PLACES);
    tcase_add_test(tc, put_out_of_memory_changes_nothing);
    tcase_add_test(tc, put_of_what_is_too_large_removes);
    tcase_add_test(tc, put_keeps_to_the_limits);

    tc = add_cache_case(suite, "invalidate");
    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, invalidate_while_a_load_runs, 0, WAYS * PLACES);
    tcase_add_loop_test(tc, invalidate_while_a_load_fails, 0, WAYS * PLACES);
    tcase_add_loop_test(tc, invalidate_what_another_loads, 0, PLACES);

    tc = add_cache_case(suite, "remove");
    tcase_set_timeout(tc, 30);
    tcase_add_test(tc, remove_says_what_was_there);
    return suite;
}
