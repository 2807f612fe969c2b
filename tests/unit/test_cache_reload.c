/* SPDX-License-Identifier: MIT */
/* Caches: a load of a key whose value is there, fresh. */
#include "cache_kit.h"

#include <sched.h>

#include "effort.h"
#include "fault.h"

/* cf_cache_reload */

static struct call reload_of(const char *text)
{
    struct call call = call_of(text);

    put_text("key", "old");
    call.reload = true;
    return call;
}

static struct call reload_at_gate(const char *text)
{
    struct call call = reload_of(text);

    call.script.gate = gate;
    return call;
}

/* The old value is what a get still gets. */
static void expect_old(int place)
{
    struct call call = call_of("none");

    expect_got(place, &call, CF_CACHE_HIT, "old");
}

START_TEST(reload_replaces_what_is_fresh)
{
    struct call call = reload_of("new");
    struct call later = call_of("none");

    expect_got(_i, &call, CF_CACHE_MISS, "new");
    expect_got(_i, &later, CF_CACHE_HIT, "new");
    ck_assert_int_eq(atomic_load(&begun), 1);
}
END_TEST

START_TEST(reload_that_fails_leaves_what_is_there)
{
    struct call call = reload_of("");

    call.script.fails = CF_EIO;
    expect_failed(_i, &call, CF_CACHE_MISS, CF_EIO);
    expect_old(_i);
}
END_TEST

START_TEST(reload_by_two_makes_one_load)
{
    struct call first = reload_at_gate("new");
    struct call second = first;

    start_loading(&first, _i);
    visit_start(&second.visit, _i, do_get, &second);
    visit_wait_parked(&second.visit);
    expect_old(_i);
    cf_ctx_cancel(gate);
    visit_join(&first.visit);
    visit_join(&second.visit);
    ck_assert_str_eq(first.got, "new");
    ck_assert_str_eq(second.got, "new");
    ck_assert_int_eq(atomic_load(&begun), 1);
}
END_TEST

START_TEST(reload_already_canceled)
{
    struct call call = reload_of("new");

    cf_ctx_cancel(caller_ctx);
    place_run(_i, do_get, &call);
    ck_assert_int_eq(call.code, CF_ECANCELED);
    ck_assert_int_eq(atomic_load(&begun), 0);
}
END_TEST

START_TEST(reload_canceled_while_waiting)
{
    struct call call = reload_at_gate("new");

    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &call.ctx, &cache_err), CF_OK);
    start_loading(&call, _i);
    cf_ctx_cancel(call.ctx);
    visit_join(&call.visit);
    ck_assert_int_eq(call.code, CF_ECANCELED);
    cf_ctx_free(call.ctx);
    expect_old(_i);
}
END_TEST

START_TEST(reload_deadline_while_waiting)
{
    struct call call = reload_at_gate("new");
    int64_t began_ns = cf_now_ns();

    call.timeout_ns = 20 * CF_MS;
    place_run(_i, do_get, &call);
    ck_assert_int_eq(call.code, CF_EDEADLINE);
    ck_assert_int_ge(cf_now_ns() - began_ns, call.timeout_ns);
    expect_old(_i);
}
END_TEST

START_TEST(reload_closed_while_waiting)
{
    struct call call = reload_at_gate("new");

    start_loading(&call, _i);
    cf_cache_stop(cache);
    visit_join(&call.visit);
    ck_assert_int_eq(call.code, CF_ECLOSED);
    place_run(_i, do_get, &call);
    ck_assert_int_eq(call.code, CF_ECLOSED);
    expect_old(_i);
}
END_TEST

START_TEST(reload_limit_reached)
{
    struct cf_cache_options options = {.loads_max = 1};
    struct call call = call_at_gate("a");
    struct call other;

    use_options(&options);
    other = reload_of("new");
    call.key = "other";
    start_loading(&call, _i);
    place_run(_i, do_get, &other);
    ck_assert_int_eq(other.code, CF_ELIMIT);
    expect_old(_i);
    cf_ctx_cancel(gate);
    visit_join(&call.visit);
    ck_assert_int_eq(call.code, CF_OK);
}
END_TEST

static void fail_each_allocation_of_a_reload(void *arg)
{
    int *failed = arg;
    bool struck = true;

    for (unsigned nth = 1; struck; nth++) {
        struct call call = call_of("new");

        call.reload = true;
        fault_alloc(nth, false);
        do_get(&call);
        struck = fault_off();
        EXPECT(call.code == CF_OK || (struck && call.code == CF_ENOMEM));
        *failed += struck;
    }
}

START_TEST(reload_out_of_memory)
{
    int failed = 0;

    place_run(_i, fail_each_allocation_of_a_reload, &failed);
    ck_assert_int_ge(failed, 2);
}
END_TEST

START_TEST(reload_success_races_cancel)
{
    int64_t until_ns = effort_until_ns();

    while (cf_now_ns() < until_ns) {
        struct call call = reload_of("new");
        int before = atomic_load(&begun);

        ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &call.ctx, &cache_err), CF_OK);
        visit_start(&call.visit, _i, do_get, &call);
        for (int looks = 0; looks < 10000 && atomic_load(&begun) == before; looks++) {
            (void)sched_yield(); /* The load is what it is to race with. */
        }
        cf_ctx_cancel(call.ctx);
        visit_join(&call.visit);
        ck_assert(call.code == CF_OK || call.code == CF_ECANCELED);
        ck_assert(is_there("key"));
        cf_ctx_free(call.ctx);
    }
}
END_TEST

Suite *suite_cache_reload(void)
{
    Suite *suite = suite_create("cache_reload");
    TCase *tc = add_cache_case(suite, "reload");

    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, reload_replaces_what_is_fresh, 0, PLACES);
    tcase_add_loop_test(tc, reload_that_fails_leaves_what_is_there, 0, PLACES);
    tcase_add_loop_test(tc, reload_by_two_makes_one_load, 0, PLACES);
    tcase_add_loop_test(tc, reload_already_canceled, 0, PLACES);
    tcase_add_loop_test(tc, reload_canceled_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, reload_deadline_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, reload_closed_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, reload_limit_reached, 0, PLACES);
    tcase_add_loop_test(tc, reload_out_of_memory, 0, PLACES);
    tcase_add_loop_test(tc, reload_success_races_cancel, 0, PLACES);
    return suite;
}
