/* SPDX-License-Identifier: MIT */
/* See cache_kit.h. */
#include "cache_kit.h"

#include <stdio.h>
#include <string.h>

#include <curfew/wait.h>

/* Fixture */

struct cf_ctx *parent;
struct cf_ctx *gate;
struct cf_ctx *caller_ctx;
struct cf_cache *cache;
struct cf_err cache_err;
_Atomic int64_t clock_ns;
atomic_int begun;

int64_t read_clock(void *arg)
{
    (void)arg;
    return atomic_load(&clock_ns);
}

void pass(int64_t by_ns)
{
    (void)atomic_fetch_add(&clock_ns, by_ns);
}

struct cf_cache_options all_options(void)
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

void use_options(const struct cf_cache_options *options)
{
    cf_cache_free(cache);
    ck_assert_int_eq(cf_cache_new(parent, options, &cache, &cache_err), CF_OK);
}

void use_plain(void)
{
    struct cf_cache_options options = {
        .ttl_ns = TTL_NS, .jitter_percent = -1, .now_ns = read_clock};

    use_options(&options);
}

static void setup(void)
{
    struct cf_cache_options options = all_options();

    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &parent, &cache_err), CF_OK);
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &gate, &cache_err), CF_OK);
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &caller_ctx, &cache_err), CF_OK);
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
    cf_ctx_free(caller_ctx);
    cf_ctx_free(gate);
    cf_ctx_free(parent);
}

/* Helpers: loads */

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

void do_get(void *arg)
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

struct call call_of(const char *text)
{
    return (struct call){.key = "key", .script = {.text = text}, .ctx = caller_ctx};
}

struct call call_to_fail(enum cf_code fails)
{
    return (struct call){.key = "key", .script = {.text = "", .fails = fails}, .ctx = caller_ctx};
}

struct call call_at_gate(const char *text)
{
    return (struct call){.key = "key", .script = {.text = text, .gate = gate}, .ctx = caller_ctx};
}

void expect_got(int place, struct call *call, enum cf_cache_state state, const char *text)
{
    place_run(place, do_get, call);
    ck_assert_int_eq(call->code, CF_OK);
    ck_assert_int_eq(call->info.state, state);
    ck_assert_str_eq(call->got, text);
}

void expect_failed(int place, struct call *call, enum cf_cache_state state, enum cf_code code)
{
    place_run(place, do_get, call);
    ck_assert_int_eq(call->code, code);
    ck_assert_int_eq(call->info.state, state);
}

void fill(int place, const char *text)
{
    struct call call = call_of(text);

    expect_got(place, &call, CF_CACHE_MISS, text);
    atomic_store(&begun, 0);
}

void start_loading(struct call *call, int place)
{
    int before = atomic_load(&begun);

    visit_start(&call->visit, place, do_get, call);
    EVENTUALLY(atomic_load(&begun) == before + 1);
    visit_wait_parked(&call->visit);
}

struct cf_cache_stats stats(void)
{
    struct cf_cache_stats now;

    cf_cache_stats(cache, &now);
    return now;
}

bool is_there(const char *key)
{
    struct cf_value *value = NULL;
    bool there = cf_cache_try_get(cache, key, &value, NULL);

    cf_value_unref(value);
    return there;
}

void put_text(const char *key, const char *text)
{
    struct cf_value *value;

    ck_assert_int_eq(cf_value_new(text, strlen(text) + 1, &value, &cache_err), CF_OK);
    ck_assert_int_eq(cf_cache_put(cache, key, value, &cache_err), CF_OK);
    cf_value_unref(value);
}

TCase *add_cache_case(Suite *suite, const char *name)
{
    TCase *tc = tcase_create(name);

    tcase_add_checked_fixture(tc, setup, teardown);
    suite_add_tcase(suite, tc);
    return tc;
}
