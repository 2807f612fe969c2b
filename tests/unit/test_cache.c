/* SPDX-License-Identifier: MIT */
/* Caches: what is served fresh, by whom it is loaded, and what is counted. On a clock that the
 * tests move, from plain threads and from fibers. What holds under load
 * is in test_cache_stress.c. */
#include "cache_kit.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>

#include <curfew/clock.h>

#include "effort.h"
#include "fault.h"
#include "rwlocks.h"

/* new, free */

START_TEST(new_out_of_memory)
{
    struct cf_cache_options options = {.entries_max = 64, .shards = 4};
    struct cf_cache *made = NULL;
    unsigned failed = 0;

    for (unsigned nth = 1;; nth++) {
        enum cf_code code;

        fault_alloc(nth, false);
        code = cf_cache_new(parent, &options, &made, &cache_err);
        if (!fault_off()) {
            ck_assert_int_eq(code, CF_OK);
            break;
        }
        ck_assert_int_eq(code, CF_ENOMEM);
        ck_assert_ptr_null(made);
        failed++;
    }
    ck_assert_uint_gt(failed, 6);
    cf_cache_free(made);
    cf_cache_free(NULL);
}
END_TEST

START_TEST(new_with_options_that_make_no_sense)
{
    static const struct cf_cache_options options[] = {
        {.shards = 3},
        {.shards = 16, .entries_max = 8},
        {.jitter_percent = 101},
    };
    struct cf_cache *made = NULL;

    ck_assert_int_eq(cf_cache_new(parent, &options[_i], &made, &cache_err), CF_EINVAL);
    ck_assert_int_eq(cache_err.code, CF_EINVAL);
    ck_assert_ptr_null(made);
}
END_TEST

/* get: fresh */

START_TEST(get_loads_once_and_then_hits)
{
    struct call call = call_of("a");
    struct call later = call_of("b");

    expect_got(_i, &call, CF_CACHE_MISS, "a");
    ck_assert_int_eq(call.info.age_ns, 0);
    pass(TTL_NS - 1);
    expect_got(_i, &later, CF_CACHE_HIT, "a");
    ck_assert_int_eq(later.info.age_ns, TTL_NS - 1);
    ck_assert_int_eq(atomic_load(&begun), 1);
}
END_TEST

START_TEST(get_past_its_time_loads_again)
{
    struct call call = call_of("b");

    use_plain();
    fill(_i, "a");
    pass(TTL_NS);
    expect_got(_i, &call, CF_CACHE_MISS, "b");
    expect_got(_i, &call, CF_CACHE_HIT, "b");
    ck_assert_int_eq(atomic_load(&begun), 1);
}
END_TEST

#define KEYS 1000

/* How many of KEYS keys are fresh. */
static int count_fresh(void)
{
    int fresh = 0;

    for (int i = 0; i < KEYS; i++) {
        char key[16];

        (void)snprintf(key, sizeof(key), "%d", i);
        fresh += is_there(key);
    }
    return fresh;
}

START_TEST(get_is_fresh_for_a_time_that_differs)
{
    struct cf_cache_options options = {
        .ttl_ns = TTL_NS, .jitter_percent = 20, .now_ns = read_clock};

    use_options(&options);
    for (int i = 0; i < KEYS; i++) {
        char key[16];

        (void)snprintf(key, sizeof(key), "%d", i);
        put_text(key, "a");
    }
    pass(TTL_NS / 10 * 8 - 1); /* None is fresh for less, */
    ck_assert_int_eq(count_fresh(), KEYS);
    pass(TTL_NS / 10); /* about half of them for more, */
    ck_assert_int_gt(count_fresh(), KEYS / 3);
    ck_assert_int_lt(count_fresh(), KEYS / 3 * 2);
    pass(TTL_NS / 10 + 1); /* and none for longer. */
    ck_assert_int_eq(count_fresh(), 0);
}
END_TEST

START_TEST(get_keeps_as_long_as_the_load_says)
{
    int64_t ttl_ns = _i / PLACES == 0 ? 0 : CF_SECOND;
    struct call call = call_of("a");

    use_plain();
    call.script.ttl_ns = &ttl_ns;
    expect_got(_i % PLACES, &call, CF_CACHE_MISS, "a");
    ck_assert_int_eq(is_there("key"), ttl_ns > 0);
    pass(CF_SECOND);
    ck_assert(!is_there("key"));
}
END_TEST

START_TEST(get_shares_one_load)
{
    struct call calls[2 * PLACES];

    for (int i = 0; i < 2 * PLACES; i++) {
        calls[i] = call_at_gate(i == 0 ? "a" : "b");
        if (i == 0) {
            start_loading(&calls[i], _i);
        } else {
            visit_start(&calls[i].visit, i % PLACES, do_get, &calls[i]);
            visit_wait_parked(&calls[i].visit);
        }
    }
    cf_ctx_cancel(gate);
    for (int i = 0; i < 2 * PLACES; i++) {
        visit_join(&calls[i].visit);
        ck_assert_int_eq(calls[i].code, CF_OK);
        ck_assert_int_eq(calls[i].info.state, CF_CACHE_MISS);
        ck_assert_str_eq(calls[i].got, "a");
    }
    ck_assert_int_eq(atomic_load(&begun), 1);
}
END_TEST

/* Who comes when a load has just ended finds what it brought, and starts none. */
#define RUNNERS 4

#define RUN_KEYS 3000

static void get_one_after_the_other(void *arg)
{
    int keys = *(int *)arg;

    for (int i = 0; i < keys; i++) {
        struct call call = call_of("a");
        char key[16];

        (void)snprintf(key, sizeof(key), "%d", i);
        call.key = key;
        do_get(&call);
        EXPECT(call.code == CF_OK);
    }
}

START_TEST(get_by_many_at_once_makes_one_load_a_key)
{
    int keys = effort_count(RUN_KEYS, RUN_KEYS / 10);
    struct visit visits[RUNNERS];

    for (int i = 0; i < RUNNERS; i++) {
        visit_start(&visits[i], i % PLACES, get_one_after_the_other, &keys);
    }
    for (int i = 0; i < RUNNERS; i++) {
        visit_join(&visits[i]);
    }
    ck_assert_int_eq(atomic_load(&begun), keys);
    ck_assert_uint_eq(stats().loads, (uint64_t)keys);
}
END_TEST

START_TEST(get_holds_a_value_that_the_cache_drops)
{
    struct cf_value *value;

    put_text("key", "a");
    ck_assert(cf_cache_try_get(cache, "key", &value, NULL));
    put_text("key", "b");
    cf_cache_flush(cache);
    ck_assert_str_eq(cf_value_data(value), "a");
    cf_value_unref(value);
}
END_TEST

/* get: the rest of the matrix */

START_TEST(get_already_canceled)
{
    struct call call = call_of("b");

    if (_i / PLACES != 0) {
        put_text("key", "a");
    }
    cf_ctx_cancel(caller_ctx);
    place_run(_i % PLACES, do_get, &call);
    ck_assert_int_eq(call.code, CF_ECANCELED);
    ck_assert_int_eq(atomic_load(&begun), 0);
}
END_TEST

START_TEST(get_canceled_while_waiting)
{
    struct call call = call_at_gate("a");

    start_loading(&call, _i);
    cf_ctx_cancel(caller_ctx);
    visit_join(&call.visit);
    ck_assert_int_eq(call.code, CF_ECANCELED);
    ck_assert_uint_eq(stats().misses, 1);
}
END_TEST

START_TEST(get_deadline_while_waiting)
{
    struct call call = call_at_gate("a");
    int64_t began_ns = cf_now_ns();

    call.timeout_ns = 20 * CF_MS;
    place_run(_i, do_get, &call);
    ck_assert_int_eq(call.code, CF_EDEADLINE);
    ck_assert_int_ge(cf_now_ns() - began_ns, call.timeout_ns);
}
END_TEST

START_TEST(get_closed_while_waiting)
{
    struct call call = call_at_gate("a");
    struct call hit = call_of("a");

    put_text("other", "kept");
    start_loading(&call, _i);
    cf_cache_stop(cache);
    visit_join(&call.visit);
    ck_assert_int_eq(call.code, CF_ECLOSED);
    place_run(_i, do_get, &call);
    ck_assert_int_eq(call.code, CF_ECLOSED);
    hit.key = "other";
    expect_got(_i, &hit, CF_CACHE_HIT, "kept");
}
END_TEST

START_TEST(get_limit_reached)
{
    struct cf_cache_options options = {.loads_max = 1};
    struct call call = call_at_gate("a");
    struct call other = call_of("b");

    use_options(&options);
    start_loading(&call, _i);
    other.key = "other";
    place_run(_i, do_get, &other);
    ck_assert_int_eq(other.code, CF_ELIMIT);
    cf_ctx_cancel(gate);
    visit_join(&call.visit);
    ck_assert_int_eq(call.code, CF_OK);
}
END_TEST

static void fail_each_allocation(void *arg)
{
    int *failed = arg;

    for (unsigned nth = 1;; nth++) {
        struct call call = call_of("a");
        bool struck;

        fault_alloc(nth, false);
        do_get(&call);
        struck = fault_off();
        EXPECT(call.code == CF_OK || (struck && call.code == CF_ENOMEM));
        *failed += struck;
        (void)cf_cache_remove(cache, "key");
        if (!struck) {
            break;
        }
    }
}

START_TEST(get_out_of_memory)
{
    int failed = 0;

    use_plain();
    place_run(_i, fail_each_allocation, &failed);
    ck_assert_int_ge(failed, 2);
}
END_TEST

START_TEST(get_success_races_cancel)
{
    int64_t until_ns = effort_until_ns();
    int done[2] = {0, 0};

    for (int round = 0; EFFORT_GOES_ON(until_ns, done[0] > 0 && done[1] > 0); round++) {
        /* The load is what it is to race with. Where one thread runs at a time it has ended by the
         * time that it is seen: every other round does not look. */
        int looks_max = round % 2 == 0 ? 10000 : 0;
        struct call call = call_of("a");
        int before = atomic_load(&begun);

        ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &call.ctx, &cache_err), CF_OK);
        visit_start(&call.visit, _i, do_get, &call);
        for (int looks = 0; looks < looks_max && atomic_load(&begun) == before; looks++) {
            (void)sched_yield();
        }
        cf_ctx_cancel(call.ctx);
        visit_join(&call.visit);
        ck_assert(call.code == CF_OK || call.code == CF_ECANCELED);
        done[call.code != CF_OK]++;
        cf_ctx_free(call.ctx);
        (void)cf_cache_remove(cache, "key");
    }
    ck_assert_int_gt(done[0], 0);
    ck_assert_int_gt(done[1], 0);
}
END_TEST

/* get: locks */

static void count_locks(void *arg)
{
    struct rwlocks before = rwlocks_taken();
    struct call call = call_of("b");

    (void)arg;
    for (int i = 0; i < 100; i++) {
        do_get(&call);
        EXPECT(call.info.state == CF_CACHE_HIT);
    }
    EXPECT(rwlocks_taken().reads - before.reads == 100);
    EXPECT(rwlocks_taken().writes == before.writes);
}

START_TEST(get_of_a_hit_takes_the_lock_for_reading_only)
{
    put_text("key", "a");
    place_run(_i, count_locks, NULL);
}
END_TEST

/* try_get */

START_TEST(try_get_serves_what_needs_no_load)
{
    struct cf_cache_info info;
    struct cf_value *value;

    ck_assert(!cf_cache_try_get(cache, "key", &value, &info));
    put_text("key", "a");
    ck_assert(cf_cache_try_get(cache, "key", &value, &info));
    ck_assert_int_eq(info.state, CF_CACHE_HIT);
    cf_value_unref(value);
    pass(TTL_NS + CF_SECOND);
    ck_assert(cf_cache_try_get(cache, "key", &value, &info));
    ck_assert_int_eq(info.state, CF_CACHE_STALE);
    ck_assert_int_eq(info.age_ns, TTL_NS + CF_SECOND);
    cf_value_unref(value);
    pass(REVALIDATE_NS);
    ck_assert(!cf_cache_try_get(cache, "key", &value, &info));
    ck_assert_uint_eq(stats().loads, 0);
}
END_TEST

/* stats */

START_TEST(stats_count_every_call_once)
{
    struct call works = call_of("a");
    struct call fails = call_to_fail(CF_EIO);
    struct call gone = call_to_fail(CF_ENOTFOUND);
    struct cf_cache_stats now;

    gone.key = "gone";
    expect_got(_i, &works, CF_CACHE_MISS, "a");
    expect_got(_i, &works, CF_CACHE_HIT, "a");
    pass(TTL_NS + REVALIDATE_NS);
    expect_got(_i, &fails, CF_CACHE_STALE, "a");
    expect_failed(_i, &gone, CF_CACHE_MISS, CF_ENOTFOUND);
    expect_failed(_i, &gone, CF_CACHE_NEGATIVE, CF_ENOTFOUND);
    now = stats();
    ck_assert_uint_eq(now.misses, 2);
    ck_assert_uint_eq(now.hits, 1);
    ck_assert_uint_eq(now.stale, 1);
    ck_assert_uint_eq(now.negative, 1);
    ck_assert_uint_eq(now.loads, 3);
    ck_assert_uint_eq(now.failures, 2);
    ck_assert_uint_eq(now.entries, 2);
    ck_assert_uint_gt(now.bytes, 0);
}
END_TEST

START_TEST(state_names_are_stable)
{
    ck_assert_str_eq(cf_cache_state_name(CF_CACHE_MISS), "miss");
    ck_assert_str_eq(cf_cache_state_name(CF_CACHE_HIT), "hit");
    ck_assert_str_eq(cf_cache_state_name(CF_CACHE_STALE), "stale");
    ck_assert_str_eq(cf_cache_state_name(CF_CACHE_NEGATIVE), "negative");
    ck_assert_str_eq(cf_cache_state_name((enum cf_cache_state)99), "unknown");
}
END_TEST

Suite *suite_cache(void)
{
    Suite *suite = suite_create("cache");
    TCase *tc = add_cache_case(suite, "get");

    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, get_loads_once_and_then_hits, 0, PLACES);
    tcase_add_loop_test(tc, get_past_its_time_loads_again, 0, PLACES);
    tcase_add_test(tc, get_is_fresh_for_a_time_that_differs);
    tcase_add_loop_test(tc, get_keeps_as_long_as_the_load_says, 0, 2 * PLACES);
    tcase_add_loop_test(tc, get_shares_one_load, 0, PLACES);
    tcase_add_test(tc, get_by_many_at_once_makes_one_load_a_key);
    tcase_add_test(tc, get_holds_a_value_that_the_cache_drops);
    tcase_add_loop_test(tc, get_already_canceled, 0, 2 * PLACES);
    tcase_add_loop_test(tc, get_canceled_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, get_deadline_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, get_closed_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, get_limit_reached, 0, PLACES);
    tcase_add_loop_test(tc, get_out_of_memory, 0, PLACES);
    tcase_add_loop_test(tc, get_success_races_cancel, 0, PLACES);
    tcase_add_loop_test(tc, get_of_a_hit_takes_the_lock_for_reading_only, 0, PLACES);

    tc = add_cache_case(suite, "new");
    tcase_add_test(tc, new_out_of_memory);
    tcase_add_loop_test(tc, new_with_options_that_make_no_sense, 0, 3);

    tc = add_cache_case(suite, "try_get");
    tcase_add_test(tc, try_get_serves_what_needs_no_load);

    tc = add_cache_case(suite, "stats");
    tcase_add_loop_test(tc, stats_count_every_call_once, 0, PLACES);
    tcase_add_test(tc, state_names_are_stable);
    return suite;
}
