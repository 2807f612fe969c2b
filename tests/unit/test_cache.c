/* SPDX-License-Identifier: MIT */
/* Caches: what is served when, what is kept, and what is not. On a clock that the tests move, from
 * plain threads and from fibers. What holds under load is in test_cache_stress.c. */
#include <curfew/cache.h>

#include <check.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/wait.h>

#include "effort.h"
#include "fault.h"
#include "places.h"
#include "rwlocks.h"

#define TTL_NS (10 * CF_SECOND)
#define REVALIDATE_NS (5 * CF_SECOND)
#define IF_ERROR_NS (60 * CF_SECOND)
#define NEGATIVE_NS (3 * CF_SECOND)
#define ERROR_NS CF_SECOND

/* Fixture */

static struct cf_ctx *parent; /* Of the cache. */
static struct cf_ctx *gate;   /* Cancelled to let loads end. */
static struct cf_ctx *ctx;    /* Of callers. */
static struct cf_cache *cache;
static struct cf_err err;
static _Atomic int64_t clock_ns;
static atomic_int begun; /* Loads. */

static int64_t read_clock(void *arg)
{
    (void)arg;
    return atomic_load(&clock_ns);
}

static void pass(int64_t by_ns)
{
    (void)atomic_fetch_add(&clock_ns, by_ns);
}

/* Everything that a value or a failure can be kept for. */
static struct cf_cache_options all_options(void)
{
    return (struct cf_cache_options){
        .ttl_ns = TTL_NS,
        .jitter_percent = -1,
        .stale_while_revalidate_ns = REVALIDATE_NS,
        .stale_if_error_ns = IF_ERROR_NS,
        .negative_ttl_ns = NEGATIVE_NS,
        .error_ttl_ns = ERROR_NS,
        .now_ns = read_clock,
    };
}

static void use_options(const struct cf_cache_options *options)
{
    cf_cache_free(cache);
    ck_assert_int_eq(cf_cache_new(parent, options, &cache, &err), CF_OK);
}

/* Values only, and no longer than they are fresh. */
static void use_plain(void)
{
    struct cf_cache_options options = {
        .ttl_ns = TTL_NS, .jitter_percent = -1, .now_ns = read_clock};

    use_options(&options);
}

static void setup(void)
{
    struct cf_cache_options options = all_options();

    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &parent, &err), CF_OK);
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &gate, &err), CF_OK);
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &ctx, &err), CF_OK);
    atomic_store(&clock_ns, 1000 * CF_SECOND);
    atomic_store(&begun, 0);
    cache = NULL;
    use_options(&options);
}

static void teardown(void)
{
    cf_ctx_cancel(gate);
    cf_cache_stop(cache);
    cf_cache_free(cache);
    cf_ctx_free(ctx);
    cf_ctx_free(gate);
    cf_ctx_free(parent);
}

/* Helpers: loads */

/* What a load does: copied with the call. */
struct script {
    const char *text;    /* The value. */
    enum cf_code fails;  /* Or how it fails. */
    struct cf_ctx *gate; /* What it waits for first, or NULL. */
    bool stubborn;       /* It does so whatever becomes of its context. */
    bool mislead;        /* If its context ends, it says that this was something else. */
    int64_t *ttl_ns;     /* What it sets, or NULL. */
};

static enum cf_code play(struct cf_ctx *of, void *arg, struct cf_value **out, int64_t *ttl_ns,
                         struct cf_err *load_err)
{
    const struct script *script = arg;
    enum cf_code code = CF_OK;

    (void)atomic_fetch_add(&begun, 1);
    if (script->gate != NULL) {
        code = cf_wait_done(script->stubborn ? cf_ctx_background() : of, script->gate, load_err);
    }
    if (code != CF_OK) {
        return script->mislead ? cf_err_set(load_err, CF_EIO, "connection lost") : code;
    }
    if (script->fails != CF_OK) {
        return cf_err_set(load_err, script->fails, "as it should");
    }
    if (script->ttl_ns != NULL) {
        EXPECT(*ttl_ns == TTL_NS);
        *ttl_ns = *script->ttl_ns;
    }
    return cf_value_new(script->text, strlen(script->text) + 1, out, load_err);
}

static const struct cf_cache_load load = {play, sizeof(struct script)};

/* Helpers: calls */

struct call {
    const char *key;
    struct script script;
    struct cf_ctx *ctx;
    int64_t timeout_ns; /* More than 0: call with a child of ctx that is made where the call is. */
    bool reload;        /* By cf_cache_reload(). */

    enum cf_code code;
    struct cf_err err;
    struct cf_cache_info info;
    char got[64];
    struct visit visit;
};

static void do_get(void *arg)
{
    struct call *call = arg;
    struct cf_value *value = NULL;
    struct cf_ctx *of = NULL;

    if (call->timeout_ns > 0) {
        EXPECT(cf_ctx_with_timeout(call->ctx, call->timeout_ns, &of, NULL) == CF_OK);
    }
    call->code = (call->reload ? cf_cache_reload : cf_cache_get)(of != NULL ? of : call->ctx, cache,
                                                                 call->key, &load, &call->script,
                                                                 &value, &call->info, &call->err);
    if (call->code == CF_OK) {
        (void)snprintf(call->got, sizeof(call->got), "%s", (const char *)cf_value_data(value));
        cf_value_unref(value);
    } else {
        EXPECT(value == NULL);
        EXPECT(call->err.code == call->code);
    }
    cf_ctx_free(of);
}

static struct call call_of(const char *text)
{
    return (struct call){.key = "key", .script = {.text = text}, .ctx = ctx};
}

static struct call call_to_fail(enum cf_code fails)
{
    return (struct call){.key = "key", .script = {.text = "", .fails = fails}, .ctx = ctx};
}

static struct call call_at_gate(const char *text)
{
    return (struct call){.key = "key", .script = {.text = text, .gate = gate}, .ctx = ctx};
}

/* Make the call at `place`, and expect a value. */
static void expect_got(int place, struct call *call, enum cf_cache_state state, const char *text)
{
    place_run(place, do_get, call);
    ck_assert_int_eq(call->code, CF_OK);
    ck_assert_int_eq(call->info.state, state);
    ck_assert_str_eq(call->got, text);
}

static void expect_failed(int place, struct call *call, enum cf_cache_state state,
                          enum cf_code code)
{
    place_run(place, do_get, call);
    ck_assert_int_eq(call->code, code);
    ck_assert_int_eq(call->info.state, state);
}

/* A value from a load that is put in now. */
static void fill(int place, const char *text)
{
    struct call call = call_of(text);

    expect_got(place, &call, CF_CACHE_MISS, text);
    atomic_store(&begun, 0);
}

/* Start a call whose load has begun. */
static void start_loading(struct call *call, int place)
{
    int before = atomic_load(&begun);

    visit_start(&call->visit, place, do_get, call);
    EVENTUALLY(atomic_load(&begun) == before + 1);
    visit_wait_parked(&call->visit);
}

static struct cf_cache_stats stats(void)
{
    struct cf_cache_stats now;

    cf_cache_stats(cache, &now);
    return now;
}

/* Without a load. */
static bool is_there(const char *key)
{
    struct cf_value *value = NULL;
    bool there = cf_cache_try_get(cache, key, &value, NULL);

    cf_value_unref(value);
    return there;
}

static void put_text(const char *key, const char *text)
{
    struct cf_value *value;

    ck_assert_int_eq(cf_value_new(text, strlen(text) + 1, &value, &err), CF_OK);
    ck_assert_int_eq(cf_cache_put(cache, key, value, &err), CF_OK);
    cf_value_unref(value);
}

/* new, free */

START_TEST(new_out_of_memory)
{
    struct cf_cache_options options = {.entries_max = 64, .shards = 4};
    struct cf_cache *made = NULL;
    unsigned failed = 0;

    for (unsigned nth = 1;; nth++) {
        enum cf_code code;

        fault_alloc(nth, false);
        code = cf_cache_new(parent, &options, &made, &err);
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

    ck_assert_int_eq(cf_cache_new(parent, &options[_i], &made, &err), CF_EINVAL);
    ck_assert_int_eq(err.code, CF_EINVAL);
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
    expect_got(_i, &(struct call){.key = "key", .script = {.text = "c"}, .ctx = ctx},
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
    cf_ctx_cancel(ctx);
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
    cf_ctx_cancel(ctx);
    EVENTUALLY(atomic_load(&call.visit.ended));
    cf_ctx_cancel(gate);
    visit_join(&call.visit);
    cf_cache_stop(cache);
    ck_assert_uint_eq(stats().entries, 0);
}
END_TEST

/* get: the rest of the matrix */

START_TEST(get_already_canceled)
{
    struct call call = call_of("b");

    if (_i / PLACES != 0) {
        put_text("key", "a");
    }
    cf_ctx_cancel(ctx);
    place_run(_i % PLACES, do_get, &call);
    ck_assert_int_eq(call.code, CF_ECANCELED);
    ck_assert_int_eq(atomic_load(&begun), 0);
}
END_TEST

START_TEST(get_canceled_while_waiting)
{
    struct call call = call_at_gate("a");

    start_loading(&call, _i);
    cf_ctx_cancel(ctx);
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

    while (cf_now_ns() < until_ns) {
        struct call call = call_of("a");
        int before = atomic_load(&begun);

        ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &call.ctx, &err), CF_OK);
        visit_start(&call.visit, _i, do_get, &call);
        for (int looks = 0; looks < 10000 && atomic_load(&begun) == before; looks++) {
            (void)sched_yield(); /* The load is what it is to race with. */
        }
        cf_ctx_cancel(call.ctx);
        visit_join(&call.visit);
        ck_assert(call.code == CF_OK || call.code == CF_ECANCELED);
        done[call.code != CF_OK]++;
        cf_ctx_free(call.ctx);
        (void)cf_cache_remove(cache, "key");
    }
    ck_assert_int_gt(done[0] + done[1], 0);
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

/* reload: of a key whose value is there, fresh */

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

    cf_ctx_cancel(ctx);
    place_run(_i, do_get, &call);
    ck_assert_int_eq(call.code, CF_ECANCELED);
    ck_assert_int_eq(atomic_load(&begun), 0);
}
END_TEST

START_TEST(reload_canceled_while_waiting)
{
    struct call call = reload_at_gate("new");

    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &call.ctx, &err), CF_OK);
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

        ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &call.ctx, &err), CF_OK);
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
    ck_assert_int_eq(cf_value_new("b", 2, &value, &err), CF_OK);
    fault_alloc(1, false);
    ck_assert_int_eq(cf_cache_put(cache, "key", value, &err), CF_ENOMEM);
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
    ck_assert_int_eq(cf_value_wrap(strdup("b"), SIZE_MAX, free, &value, &err), CF_OK);
    ck_assert_int_eq(cf_cache_put(cache, "key", value, &err), CF_OK);
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

static void add_get(Suite *suite)
{
    TCase *tc = tcase_create("get");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, get_loads_once_and_then_hits, 0, PLACES);
    tcase_add_loop_test(tc, get_past_its_time_loads_again, 0, PLACES);
    tcase_add_test(tc, get_is_fresh_for_a_time_that_differs);
    tcase_add_loop_test(tc, get_keeps_as_long_as_the_load_says, 0, 2 * PLACES);
    tcase_add_loop_test(tc, get_shares_one_load, 0, PLACES);
    tcase_add_test(tc, get_by_many_at_once_makes_one_load_a_key);
    tcase_add_test(tc, get_holds_a_value_that_the_cache_drops);
    tcase_add_loop_test(tc, get_stale_is_served_and_loaded_behind, 0, PLACES);
    tcase_add_loop_test(tc, get_stale_whose_load_fails_is_tried_again_later, 0, PLACES);
    tcase_add_loop_test(tc, get_stale_without_memory_is_served, 0, PLACES);
    tcase_add_loop_test(tc, get_stale_if_the_load_fails, 0, 4 * PLACES);
    tcase_add_loop_test(tc, get_not_found_is_no_error_to_serve_stale_for, 0, 2 * PLACES);
    tcase_add_loop_test(tc, get_stale_is_not_for_who_gives_up, 0, PLACES);
    tcase_add_loop_test(tc, get_keeps_a_failure, 0, 2 * PLACES);
    tcase_add_loop_test(tc, get_without_ttl_keeps_no_failure, 0, 2 * PLACES);
    tcase_add_loop_test(tc, get_keeps_no_failure_that_came_from_a_cancel, 0, 6 * PLACES);
    tcase_add_loop_test(tc, get_keeps_nothing_of_a_load_that_was_left, 0, 2 * PLACES);
    tcase_add_loop_test(tc, get_already_canceled, 0, 2 * PLACES);
    tcase_add_loop_test(tc, get_canceled_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, get_deadline_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, get_closed_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, get_limit_reached, 0, PLACES);
    tcase_add_loop_test(tc, get_out_of_memory, 0, PLACES);
    tcase_add_loop_test(tc, get_success_races_cancel, 0, PLACES);
    tcase_add_loop_test(tc, get_of_a_hit_takes_the_lock_for_reading_only, 0, PLACES);
    suite_add_tcase(suite, tc);
}

static void add_reload(Suite *suite)
{
    TCase *tc = tcase_create("reload");

    tcase_add_checked_fixture(tc, setup, teardown);
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
    suite_add_tcase(suite, tc);
}

Suite *suite_cache(void)
{
    Suite *suite = suite_create("cache");
    TCase *tc = tcase_create("new");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, new_out_of_memory);
    tcase_add_loop_test(tc, new_with_options_that_make_no_sense, 0, 3);
    suite_add_tcase(suite, tc);

    add_get(suite);
    add_reload(suite);

    tc = tcase_create("put");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, try_get_serves_what_needs_no_load);
    tcase_add_loop_test(tc, put_replaces, 0, PLACES);
    tcase_add_test(tc, put_out_of_memory_changes_nothing);
    tcase_add_test(tc, put_of_what_is_too_large_removes);
    tcase_add_test(tc, put_keeps_to_the_limits);
    suite_add_tcase(suite, tc);

    tc = tcase_create("remove");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 20);
    tcase_add_loop_test(tc, invalidate_while_a_load_runs, 0, WAYS * PLACES);
    tcase_add_loop_test(tc, invalidate_while_a_load_fails, 0, WAYS * PLACES);
    tcase_add_loop_test(tc, invalidate_what_another_loads, 0, PLACES);
    tcase_add_test(tc, remove_says_what_was_there);
    suite_add_tcase(suite, tc);

    tc = tcase_create("stats");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, stats_count_every_call_once, 0, PLACES);
    tcase_add_test(tc, state_names_are_stable);
    suite_add_tcase(suite, tc);
    return suite;
}
