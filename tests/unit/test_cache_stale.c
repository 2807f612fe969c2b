/* SPDX-License-Identifier: MIT */
/* Caches: what is served although it is out of date, and which failures are kept. */
#include "cache_kit.h"

#include <errno.h>

#include "fault.h"

/* get: stale */

START_TEST(get_stale_is_served_and_loaded_behind)
{
    struct call call = call_at_gate("b");

    fill(_i, "a");
    pass(TTL_NS + REVALIDATE_NS - 1);
    call.script.stubborn = true;
    visit_start(&call.visit, _i, do_get, &call);
    EVENTUALLY(atomic_load(&call.visit.ended)); /* It does not wait for the load. */
    ck_assert_str_eq(call.got, "a");
    ck_assert_int_eq(call.info.state, CF_CACHE_STALE);
    ck_assert_int_eq(call.info.age_ns, TTL_NS + REVALIDATE_NS - 1);
    EVENTUALLY(atomic_load(&begun) == 1);
    expect_got(_i, &(struct call){.key = "key", .script = {.text = "c"}, .ctx = caller_ctx},
               CF_CACHE_STALE, "a");
    ck_assert_int_eq(atomic_load(&begun), 1); /* One load behind it is enough. */
    cf_ctx_cancel(gate);
    visit_join(&call.visit);
    EVENTUALLY(stats().loads == 2 && is_there("key"));
    EVENTUALLY((place_run(_i, do_get, &call), call.info.state == CF_CACHE_HIT));
    ck_assert_str_eq(call.got, "b");
    ck_assert_int_eq(atomic_load(&begun), 1);
}
END_TEST

START_TEST(get_stale_whose_load_fails_is_tried_again_later)
{
    struct call fails = call_to_fail(CF_EIO);
    struct call works = call_of("b");

    fill(_i, "a");
    pass(TTL_NS);
    expect_got(_i, &fails, CF_CACHE_STALE, "a");
    EVENTUALLY(stats().failures == 1);
    for (int i = 0; i < 3; i++) {
        expect_got(_i, &works, CF_CACHE_STALE, "a");
    }
    ck_assert_uint_eq(stats().loads, 2);
    pass(ERROR_NS);
    expect_got(_i, &works, CF_CACHE_STALE, "a");
    EVENTUALLY((place_run(_i, do_get, &works), works.info.state == CF_CACHE_HIT));
    ck_assert_str_eq(works.got, "b");
    ck_assert_uint_eq(stats().loads, 3);
}
END_TEST

static void get_without_memory(void *arg)
{
    struct call *call = arg;

    fault_alloc(1, true);
    do_get(call);
    (void)fault_off();
}

/* A load behind it that cannot start is the next one's to start. */
START_TEST(get_stale_without_memory_is_served)
{
    struct call call = call_of("b");

    fill(_i, "a");
    pass(TTL_NS);
    place_run(_i, get_without_memory, &call);
    ck_assert_str_eq(call.got, "a");
    ck_assert_int_eq(atomic_load(&begun), 0);
    expect_got(_i, &call, CF_CACHE_STALE, "a");
    EVENTUALLY(atomic_load(&begun) == 1);
}
END_TEST

START_TEST(get_stale_if_the_load_fails)
{
    static const enum cf_code codes[] = {CF_EIO, CF_EUNAVAIL, CF_ELIMIT, CF_EDEADLINE};
    struct call fails = call_to_fail(codes[_i / PLACES]);
    int place = _i % PLACES;

    fill(place, "a");
    pass(TTL_NS + REVALIDATE_NS);
    expect_got(place, &fails, CF_CACHE_STALE, "a");
    ck_assert_int_eq(atomic_load(&begun), 1);
    expect_got(place, &fails, CF_CACHE_STALE, "a");
    ck_assert_int_eq(atomic_load(&begun), 1); /* It is not tried again so soon. */
    pass(ERROR_NS);
    expect_got(place, &fails, CF_CACHE_STALE, "a");
    ck_assert_int_eq(atomic_load(&begun), 2);
    atomic_store(&clock_ns, 1000 * CF_SECOND + TTL_NS + IF_ERROR_NS);
    expect_failed(place, &fails, CF_CACHE_MISS, codes[_i / PLACES]);
}
END_TEST

/* That there is no such thing is an answer, and what was there is not. */
START_TEST(get_not_found_is_no_error_to_serve_stale_for)
{
    struct cf_cache_options options = all_options();
    struct call gone = call_to_fail(CF_ENOTFOUND);

    options.negative_ttl_ns = _i / PLACES == 0 ? 0 : NEGATIVE_NS;
    use_options(&options);
    fill(_i % PLACES, "a");
    pass(TTL_NS + REVALIDATE_NS);
    expect_failed(_i % PLACES, &gone, CF_CACHE_MISS, CF_ENOTFOUND);
    expect_failed(_i % PLACES, &gone, _i / PLACES == 0 ? CF_CACHE_MISS : CF_CACHE_NEGATIVE,
                  CF_ENOTFOUND);
}
END_TEST

/* The caller's own end is not the load's. */
START_TEST(get_stale_is_not_for_who_gives_up)
{
    struct call call = call_at_gate("b");

    fill(_i, "a");
    pass(TTL_NS + REVALIDATE_NS);
    start_loading(&call, _i);
    cf_ctx_cancel(caller_ctx);
    visit_join(&call.visit);
    ck_assert_int_eq(call.code, CF_ECANCELED);
    ck_assert_int_eq(call.info.state, CF_CACHE_MISS);
}
END_TEST

/* get: failures that are kept */

START_TEST(get_keeps_a_failure)
{
    enum cf_code code = _i / PLACES == 0 ? CF_ENOTFOUND : CF_EIO;
    int64_t kept_ns = _i / PLACES == 0 ? NEGATIVE_NS : ERROR_NS;
    struct call fails = call_to_fail(code);
    struct call works = call_of("a");

    expect_failed(_i % PLACES, &fails, CF_CACHE_MISS, code);
    pass(kept_ns - 1);
    works.info.age_ns = 0;
    expect_failed(_i % PLACES, &works, CF_CACHE_NEGATIVE, code);
    ck_assert_int_eq(works.info.age_ns, kept_ns - 1);
    ck_assert_str_eq(works.err.msg, "as it should");
    ck_assert(!is_there("key"));
    pass(1);
    expect_got(_i % PLACES, &works, CF_CACHE_MISS, "a");
    ck_assert_int_eq(atomic_load(&begun), 2);
}
END_TEST

START_TEST(get_without_ttl_keeps_no_failure)
{
    struct call fails = call_to_fail(_i / PLACES == 0 ? CF_ENOTFOUND : CF_EIO);
    struct call works = call_of("a");

    use_plain();
    expect_failed(_i % PLACES, &fails, CF_CACHE_MISS, fails.script.fails);
    ck_assert_uint_eq(stats().entries, 0);
    expect_got(_i % PLACES, &works, CF_CACHE_MISS, "a");
}
END_TEST

/* What ends a load, if not its caller; and what the load says then. */
struct ending {
    bool by_deadline; /* Else by the parent. */
    bool mislead;
    enum cf_code says; /* More: it fails by itself, with this. */
};

START_TEST(get_keeps_no_failure_that_came_from_a_cancel)
{
    static const struct ending endings[] = {
        {true, false, CF_OK}, {true, true, CF_OK},          {false, false, CF_OK},
        {false, true, CF_OK}, {false, false, CF_ECANCELED}, {false, false, CF_EDEADLINE},
    };
    const struct ending *ending = &endings[_i / PLACES];
    struct cf_cache_options options = all_options();
    struct call call = call_at_gate("a");

    options.load_timeout_ns = ending->by_deadline ? 10 * CF_MS : 0;
    use_options(&options);
    call.script.mislead = ending->mislead;
    if (ending->says != CF_OK) {
        call = call_to_fail(ending->says);
        visit_start(&call.visit, _i % PLACES, do_get, &call);
    } else if (ending->by_deadline) {
        visit_start(&call.visit, _i % PLACES, do_get, &call);
    } else {
        start_loading(&call, _i % PLACES);
        cf_ctx_cancel(parent);
    }
    visit_join(&call.visit);
    ck_assert_int_ne(call.code, CF_OK);
    ck_assert_uint_eq(stats().failures, 1);
    ck_assert_uint_eq(stats().entries, 0);
}
END_TEST

START_TEST(get_keeps_nothing_of_a_load_that_was_left)
{
    struct call call = call_at_gate("a");

    call.script.stubborn = _i / PLACES == 0; /* It brings a value, or an error. */
    start_loading(&call, _i % PLACES);
    cf_ctx_cancel(caller_ctx);
    EVENTUALLY(atomic_load(&call.visit.ended));
    cf_ctx_cancel(gate);
    visit_join(&call.visit);
    cf_cache_stop(cache);
    ck_assert_uint_eq(stats().entries, 0);
}
END_TEST

Suite *suite_cache_stale(void)
{
    Suite *suite = suite_create("cache_stale");
    TCase *tc = add_cache_case(suite, "stale");

    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, get_stale_is_served_and_loaded_behind, 0, PLACES);
    tcase_add_loop_test(tc, get_stale_whose_load_fails_is_tried_again_later, 0, PLACES);
    tcase_add_loop_test(tc, get_stale_without_memory_is_served, 0, PLACES);
    tcase_add_loop_test(tc, get_stale_if_the_load_fails, 0, 4 * PLACES);
    tcase_add_loop_test(tc, get_not_found_is_no_error_to_serve_stale_for, 0, 2 * PLACES);
    tcase_add_loop_test(tc, get_stale_is_not_for_who_gives_up, 0, PLACES);

    tc = add_cache_case(suite, "failure");
    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, get_keeps_a_failure, 0, 2 * PLACES);
    tcase_add_loop_test(tc, get_without_ttl_keeps_no_failure, 0, 2 * PLACES);
    tcase_add_loop_test(tc, get_keeps_no_failure_that_came_from_a_cancel, 0, 6 * PLACES);
    tcase_add_loop_test(tc, get_keeps_nothing_of_a_load_that_was_left, 0, 2 * PLACES);
    return suite;
}
