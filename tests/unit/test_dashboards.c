/* SPDX-License-Identifier: MIT */
/* Dashboards without a database: which sections are loaded when, what is served of them, and what
 * is not kept. The clock of what is kept is the tests'; deadlines are on the real one. */
#include "curfewd/cache/dashboards.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/wait.h>

#include "effort.h"
#include "fault.h"
#include "gunzip.h"
#include "places.h"

#define TTL_NS (10 * CF_SECOND)
#define STALE_NS (5 * CF_SECOND)
#define IF_ERROR_NS (60 * CF_SECOND)
#define NEGATIVE_NS (3 * CF_SECOND)

/* Long enough that what does not wait has ended. */
#define SHORT_NS (400 * CF_MS)

#define CROWD 50

/* Fixture */

static struct dashboards *dashboards;
static struct cf_ctx *ctx;  /* Of callers. */
static struct cf_ctx *gate; /* Cancelled to let loads end. */
static struct cf_err err;
static _Atomic int64_t clock_ns;

/* What the store does, section by section. */
static atomic_int begun[DASHBOARD_SECTION_COUNT];
static atomic_int version; /* Of what it has. */
static atomic_bool waits[DASHBOARD_SECTION_COUNT];
static atomic_int fails[DASHBOARD_SECTION_COUNT];
static atomic_size_t padding; /* Of what it has: that many more bytes. */

static int64_t read_clock(void *arg)
{
    (void)arg;
    return atomic_load(&clock_ns);
}

static void pass(int64_t by_ns)
{
    (void)atomic_fetch_add(&clock_ns, by_ns);
}

/* The version is that of the load's beginning, as a database's snapshot is. */
static enum cf_code fetch(struct cf_ctx *of, void *arg, int64_t user_id,
                          enum dashboard_section section, struct cf_json *json,
                          struct cf_err *fetch_err)
{
    int seen = atomic_load(&version);
    enum cf_code code = CF_OK;

    (void)arg;
    (void)atomic_fetch_add(&begun[section], 1);
    if (atomic_load(&waits[section])) {
        code = cf_wait_done(of, gate, fetch_err);
    }
    if (code == CF_OK && atomic_load(&fails[section]) != CF_OK) {
        code = cf_err_set(fetch_err, (enum cf_code)atomic_load(&fails[section]), "as it should");
    }
    if (code == CF_OK && atomic_load(&padding) > 0) {
        char text[4096];

        memset(text, 'a' + seen, sizeof(text));
        text[atomic_load(&padding)] = '\0';
        cf_json_str(json, text);
    } else if (code == CF_OK) {
        cf_json_i64(json, user_id * 100 + seen);
    }
    return code;
}

static void use_ttl(int64_t ttl_ns)
{
    struct dashboards_options options = {
        .fetch = fetch,
        .ttl_ns = ttl_ns,
        .stale_ns = STALE_NS,
        .stale_if_error_ns = IF_ERROR_NS,
        .negative_ttl_ns = NEGATIVE_NS,
        .now_ns = read_clock,
    };

    dashboards_free(dashboards);
    dashboards = NULL;
    ck_assert_int_eq(dashboards_new(&options, &dashboards, &err), CF_OK);
}

static void setup(void)
{
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &gate, &err), CF_OK);
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &ctx, &err), CF_OK);
    atomic_store(&clock_ns, 1000 * CF_SECOND);
    atomic_store(&version, 1);
    for (size_t i = 0; i < DASHBOARD_SECTION_COUNT; i++) {
        atomic_store(&begun[i], 0);
        atomic_store(&waits[i], false);
        atomic_store(&fails[i], CF_OK);
    }
    atomic_store(&padding, 0);
    dashboards = NULL;
    use_ttl(TTL_NS);
}

static void teardown(void)
{
    dashboards_free(dashboards);
    cf_ctx_free(ctx);
    cf_ctx_free(gate);
}

/* Helpers */

struct call {
    struct dashboard_wish wish;
    int64_t timeout_ns; /* More than 0: with a deadline, made where the call is. */

    enum cf_code code;
    struct cf_err err;
    int64_t took_ns;
    char body[256];   /* As it would be sent. */
    char etag[64];    /* "": it is partial. */
    const char *page; /* Only to be compared. */
    const char *gzip; /* The same; NULL: there is none. */
    size_t gzip_size;
    size_t unpacked_size; /* Of that, if it is what the page is. */
    struct dashboard_part parts[DASHBOARD_SECTION_COUNT];
    struct visit visit;
};

static void note_gzip(struct call *call, const struct dashboard *dashboard)
{
    struct dashboard_page page = dashboard_page(dashboard);
    struct dashboard_page gzip;
    char *text;

    call->gzip = NULL;
    if (dashboard->gzip != NULL) {
        gzip = dashboard_gzip(dashboard);
        call->gzip = gzip.body;
        call->gzip_size = gzip.size;
        text = gunzip(gzip.body, gzip.size, &call->unpacked_size);
        EXPECT(call->unpacked_size == page.size && memcmp(text, page.body, page.size) == 0);
        EXPECT(strcmp(gzip.etag, page.etag) == 0);
        free(text);
    }
}

static void note_body(struct call *call, const struct dashboard *dashboard)
{
    struct cf_json json;
    const char *text;
    size_t size;

    if (dashboard->page != NULL) {
        struct dashboard_page page = dashboard_page(dashboard);

        call->page = page.body;
        (void)snprintf(call->body, sizeof(call->body), "%.*s", (int)page.size, page.body);
        (void)snprintf(call->etag, sizeof(call->etag), "%s", page.etag);
        note_gzip(call, dashboard);
        return;
    }
    cf_json_init(&json);
    dashboard_write_partial(dashboard, &json);
    EXPECT(cf_json_finish(&json, &text, &size, NULL) == CF_OK);
    (void)snprintf(call->body, sizeof(call->body), "%.*s", (int)size, text);
    cf_json_fini(&json);
}

static void do_get(void *arg)
{
    struct call *call = arg;
    struct dashboard dashboard;
    struct cf_ctx *of = NULL;
    int64_t since_ns = cf_now_ns();

    if (call->timeout_ns > 0) {
        EXPECT(cf_ctx_with_timeout(ctx, call->timeout_ns, &of, NULL) == CF_OK);
    }
    call->etag[0] = '\0';
    call->code =
        dashboards_get(of != NULL ? of : ctx, dashboards, &call->wish, &dashboard, &call->err);
    call->took_ns = cf_now_ns() - since_ns;
    if (call->code == CF_OK) {
        note_body(call, &dashboard);
        memcpy(call->parts, dashboard.parts, sizeof(call->parts));
        dashboard_fini(&dashboard);
    } else {
        EXPECT(call->err.code == call->code);
    }
    cf_ctx_free(of);
}

static struct call call_of(int64_t user_id)
{
    return (struct call){.wish = {.user_id = user_id, .age_max_ns = CF_NEVER}};
}

static void expect_states(const struct call *call, enum dashboard_state users,
                          enum dashboard_state orders, enum dashboard_state metrics)
{
    ck_assert_msg(call->code == CF_OK, "%s", call->err.msg);
    ck_assert_int_eq(call->parts[DASHBOARD_USERS].state, users);
    ck_assert_int_eq(call->parts[DASHBOARD_ORDERS].state, orders);
    ck_assert_int_eq(call->parts[DASHBOARD_METRICS].state, metrics);
}

/* Make the call at `place`, and expect a dashboard whose sections are in these states. */
static void expect_got(int place, struct call *call, enum dashboard_state users,
                       enum dashboard_state orders, enum dashboard_state metrics)
{
    place_run(place, do_get, call);
    expect_states(call, users, orders, metrics);
}

static void expect_all(int place, struct call *call, enum dashboard_state state)
{
    expect_got(place, call, state, state, state);
}

static void expect_failed(int place, struct call *call, enum cf_code code)
{
    place_run(place, do_get, call);
    ck_assert_int_eq(call->code, code);
}

static void expect_begun(int each)
{
    for (size_t i = 0; i < DASHBOARD_SECTION_COUNT; i++) {
        ck_assert_int_eq(atomic_load(&begun[i]), each);
    }
}

static void fill(int place, int64_t user_id)
{
    struct call call = call_of(user_id);

    expect_all(place, &call, DASHBOARD_FRESH);
}

static void let_all(atomic_bool *which, bool value)
{
    for (size_t i = 0; i < DASHBOARD_SECTION_COUNT; i++) {
        atomic_store(&which[i], value);
    }
}

static void fail_all(enum cf_code code)
{
    for (size_t i = 0; i < DASHBOARD_SECTION_COUNT; i++) {
        atomic_store(&fails[i], code);
    }
}

/* get: whole */

START_TEST(get_of_what_is_there_asks_nobody_and_encodes_nothing)
{
    struct call first = call_of(42);
    struct call second = call_of(42);

    expect_all(_i, &first, DASHBOARD_FRESH);
    ck_assert_str_eq(first.body,
                     "{\"user\":4201,\"orders\":4201,\"metrics\":4201,\"partial\":false}");
    pass(CF_SECOND);
    expect_all(_i, &second, DASHBOARD_CACHED);
    ck_assert_ptr_eq(second.page, first.page);
    ck_assert_int_eq(second.parts[DASHBOARD_ORDERS].age_ns, CF_SECOND);
    ck_assert_int_gt(second.parts[DASHBOARD_ORDERS].fresh_ns, 0);
    expect_begun(1);
}
END_TEST

/* Compressed for the first who takes it, and kept; a small one is not. */
START_TEST(get_of_a_gzip_is_compressed_once)
{
    struct call plain = call_of(42);
    struct call first = call_of(42);
    struct call second = call_of(42);
    struct call later = call_of(42);

    first.wish.gzip = second.wish.gzip = later.wish.gzip = true;
    expect_all(_i, &first, DASHBOARD_FRESH);
    ck_assert_ptr_null(first.gzip);
    dashboards_drop(dashboards, 42);

    atomic_store(&padding, 1000);
    expect_all(_i, &plain, DASHBOARD_FRESH);
    ck_assert_ptr_null(plain.gzip);
    expect_all(_i, &first, DASHBOARD_CACHED);
    ck_assert_ptr_nonnull(first.gzip);
    ck_assert_uint_lt(first.gzip_size, 200);
    ck_assert_uint_gt(first.unpacked_size, 3000);
    expect_all(_i, &second, DASHBOARD_CACHED);
    ck_assert_ptr_eq(second.gzip, first.gzip);
    ck_assert_ptr_eq(second.page, plain.page);

    /* It goes with what it was made of. */
    atomic_store(&version, 2);
    dashboards_drop(dashboards, 42);
    expect_all(_i, &later, DASHBOARD_FRESH);
    ck_assert_ptr_nonnull(later.gzip);
    ck_assert_str_ne(later.etag, first.etag);
}
END_TEST

START_TEST(get_of_a_gzip_without_a_cache_leaves_it_to_the_server)
{
    struct call call = call_of(42);

    use_ttl(0);
    atomic_store(&padding, 1000);
    call.wish.gzip = true;
    expect_all(_i, &call, DASHBOARD_FRESH);
    ck_assert_ptr_null(call.gzip);
}
END_TEST

START_TEST(get_of_the_store_is_another)
{
    struct call call = call_of(0);

    fill(_i, 42);
    expect_all(_i, &call, DASHBOARD_FRESH);
    ck_assert_str_eq(call.body, "{\"users\":1,\"orders\":1,\"metrics\":1,\"partial\":false}");
}
END_TEST

START_TEST(get_of_the_same_again_has_the_same_etag)
{
    struct call first = call_of(42);
    struct call second = call_of(42);
    struct call third = call_of(42);

    expect_all(_i, &first, DASHBOARD_FRESH);
    dashboards_flush(dashboards);
    expect_all(_i, &second, DASHBOARD_FRESH);
    ck_assert_str_eq(second.etag, first.etag);
    atomic_store(&version, 2);
    dashboards_flush(dashboards);
    expect_all(_i, &third, DASHBOARD_FRESH);
    ck_assert_str_ne(third.etag, first.etag);
}
END_TEST

START_TEST(get_without_a_cache_asks_each_time)
{
    struct call call = call_of(42);

    use_ttl(0);
    ck_assert(!dashboards_is_on(dashboards));
    expect_all(_i, &call, DASHBOARD_FRESH);
    expect_all(_i, &call, DASHBOARD_FRESH);
    expect_begun(2);
    dashboards_drop(dashboards, 42);
    dashboards_flush(dashboards);
}
END_TEST

START_TEST(get_by_many_at_once_makes_one_load_a_section)
{
    static struct call calls[CROWD];
    int crowd = effort_count(CROWD, 10);
    int shared = 0;

    let_all(waits, true);
    for (int i = 0; i < crowd; i++) {
        calls[i] = call_of(42);
        visit_start(&calls[i].visit, PLACE_FIBER, do_get, &calls[i]);
        visit_wait_parked(&calls[i].visit);
    }
    cf_ctx_cancel(gate);
    for (int i = 0; i < crowd; i++) {
        visit_join(&calls[i].visit);
        ck_assert_int_eq(calls[i].code, CF_OK);
        ck_assert_str_ne(calls[i].etag, "");
        shared += calls[i].parts[DASHBOARD_USERS].is_shared;
    }
    expect_begun(1);
    ck_assert_int_eq(shared, crowd - 1);
}
END_TEST

START_TEST(get_past_its_time_is_stale_and_loaded_behind)
{
    struct call call = call_of(42);

    fill(_i, 42);
    atomic_store(&version, 2);
    pass(TTL_NS + CF_SECOND);
    expect_all(_i, &call, DASHBOARD_STALE);
    ck_assert_int_lt(call.parts[DASHBOARD_ORDERS].fresh_ns, 0);
    ck_assert_str_eq(call.body,
                     "{\"user\":4201,\"orders\":4201,\"metrics\":4201,\"partial\":false}");
    for (size_t i = 0; i < DASHBOARD_SECTION_COUNT; i++) {
        EVENTUALLY(atomic_load(&begun[i]) == 2);
    }
    do {
        place_run(_i, do_get, &call);
    } while (call.parts[0].state == DASHBOARD_STALE || call.parts[1].state == DASHBOARD_STALE ||
             call.parts[2].state == DASHBOARD_STALE);
    ck_assert_str_eq(call.body,
                     "{\"user\":4202,\"orders\":4202,\"metrics\":4202,\"partial\":false}");
    expect_begun(2);
}
END_TEST

START_TEST(get_with_an_age_loads_what_is_older)
{
    struct call call = call_of(42);

    fill(_i, 42);
    pass(3 * CF_SECOND);
    call.wish.age_max_ns = 3 * CF_SECOND;
    expect_all(_i, &call, DASHBOARD_CACHED);
    call.wish.age_max_ns = 2 * CF_SECOND;
    expect_all(_i, &call, DASHBOARD_FRESH);
    call.wish.age_max_ns = 0;
    expect_all(_i, &call, DASHBOARD_FRESH);
    expect_begun(3);
    fail_all(CF_EUNAVAIL);
    expect_failed(_i, &call, CF_EUNAVAIL); /* Who wants it new does not want an old one. */
    call = call_of(42);
    expect_all(_i, &call, DASHBOARD_CACHED);
}
END_TEST

/* get: in part */

START_TEST(get_of_a_late_section_has_the_rest)
{
    struct call call = call_of(42);

    atomic_store(&waits[DASHBOARD_ORDERS], true);
    for (call.timeout_ns = SHORT_NS; call.timeout_ns <= 16 * SHORT_NS; call.timeout_ns *= 2) {
        use_ttl(TTL_NS);
        place_run(_i, do_get, &call);
        if (call.code == CF_OK && call.parts[DASHBOARD_USERS].state != DASHBOARD_TIMED_OUT &&
            call.parts[DASHBOARD_METRICS].state != DASHBOARD_TIMED_OUT) {
            break; /* Otherwise what does not wait was late as well. */
        }
    }
    expect_states(&call, DASHBOARD_FRESH, DASHBOARD_TIMED_OUT, DASHBOARD_FRESH);
    ck_assert_str_eq(call.etag, "");
    ck_assert_str_eq(
        call.body, "{\"user\":4201,\"orders\":null,\"metrics\":4201,\"partial\":true,\"sections\":{"
                   "\"user\":{\"state\":\"fresh\",\"age_ms\":0},"
                   "\"orders\":{\"state\":\"timed_out\",\"error\":\"deadline_exceeded\"},"
                   "\"metrics\":{\"state\":\"fresh\",\"age_ms\":0}}}");
    /* It was not kept: what has come since is in the next one. */
    atomic_store(&waits[DASHBOARD_ORDERS], false);
    call.timeout_ns = 0;
    expect_got(_i, &call, DASHBOARD_CACHED, DASHBOARD_FRESH, DASHBOARD_CACHED);
    ck_assert_str_ne(call.etag, "");
}
END_TEST

START_TEST(get_of_a_failing_section_has_the_rest)
{
    struct call call = call_of(42);

    atomic_store(&fails[DASHBOARD_METRICS], CF_EUNAVAIL);
    expect_got(_i, &call, DASHBOARD_FRESH, DASHBOARD_FRESH, DASHBOARD_ERROR);
    ck_assert_ptr_nonnull(
        strstr(call.body, "\"metrics\":{\"state\":\"error\",\"error\":\"unavailable\"}"));
}
END_TEST

START_TEST(get_without_its_user_ends_the_other_sections)
{
    struct call call = call_of(42);

    atomic_store(&waits[DASHBOARD_ORDERS], true);
    atomic_store(&waits[DASHBOARD_METRICS], true);
    atomic_store(&fails[DASHBOARD_USERS], CF_ENOTFOUND);
    expect_failed(_i, &call, CF_ENOTFOUND);
    ck_assert_ptr_nonnull(strstr(call.err.msg, "as it should"));
}
END_TEST

START_TEST(get_of_no_user_is_known_for_a_while)
{
    struct call call = call_of(42);

    fail_all(CF_ENOTFOUND);
    expect_failed(PLACE_FIBER, &call, CF_ENOTFOUND);
    expect_failed(PLACE_FIBER, &call, CF_ENOTFOUND);
    ck_assert_int_eq(atomic_load(&begun[DASHBOARD_USERS]), 1);
    fail_all(CF_OK);
    pass(NEGATIVE_NS);
    expect_all(PLACE_FIBER, &call, DASHBOARD_FRESH);
}
END_TEST

START_TEST(get_of_no_user_says_whether_it_was_known)
{
    struct dashboard_wish wish = {.user_id = 42, .age_max_ns = CF_NEVER};
    struct dashboard dashboard;

    fail_all(CF_ENOTFOUND);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(dashboards_get(ctx, dashboards, &wish, &dashboard, &err), CF_ENOTFOUND);
        ck_assert(dashboard.was_known == (i == 1));
    }
    pass(NEGATIVE_NS);
    ck_assert_int_eq(dashboards_get(ctx, dashboards, &wish, &dashboard, &err), CF_ENOTFOUND);
    ck_assert(!dashboard.was_known);
}
END_TEST

START_TEST(get_of_what_is_kept_only_loads_nothing)
{
    struct call call = call_of(42);

    call.wish.only_kept = true;
    expect_failed(_i, &call, CF_EUNAVAIL);
    expect_begun(0);
    fill(_i, 42);
    expect_all(_i, &call, DASHBOARD_CACHED);
    pass(TTL_NS);
    expect_all(_i, &call, DASHBOARD_STALE);
    call.wish.age_max_ns = TTL_NS / 2;
    expect_failed(_i, &call, CF_EUNAVAIL);
    expect_begun(1);
}
END_TEST

START_TEST(get_that_requires_all_fails_with_one)
{
    struct call call = call_of(_i % 2 == 0 ? 42 : 0);

    call.wish.require_all = true;
    atomic_store(&fails[DASHBOARD_ORDERS], CF_EUNAVAIL);
    expect_failed(_i / 2, &call, CF_EUNAVAIL);
}
END_TEST

START_TEST(get_that_requires_all_is_late_with_one)
{
    struct call call = call_of(42);

    call.wish.require_all = true;
    call.timeout_ns = 50 * CF_MS;
    atomic_store(&waits[DASHBOARD_ORDERS], true);
    expect_failed(_i, &call, CF_EDEADLINE);
    ck_assert_int_ge(call.took_ns, call.timeout_ns);
}
END_TEST

/* A deadline ends nothing before it has passed, if there is nothing to be said. */
START_TEST(get_of_nothing_is_late_and_not_before)
{
    struct call call = call_of(0);

    call.timeout_ns = 50 * CF_MS;
    let_all(waits, true);
    expect_failed(_i, &call, CF_EDEADLINE);
    ck_assert_int_ge(call.took_ns, call.timeout_ns);
}
END_TEST

START_TEST(get_of_nothing_fails_as_the_first_did)
{
    struct call call = call_of(0);

    fail_all(CF_EUNAVAIL);
    expect_failed(_i, &call, CF_EUNAVAIL);
    ck_assert_str_eq(call.err.msg, "as it should");
}
END_TEST

/* get: old */

START_TEST(get_of_what_fails_is_served_old)
{
    struct call call = call_of(_i % 2 == 0 ? 42 : 0);

    fill(_i / 2, call.wish.user_id);
    fail_all(CF_EUNAVAIL);
    pass(TTL_NS + STALE_NS + CF_SECOND);
    expect_all(_i / 2, &call, DASHBOARD_STALE);
    ck_assert_str_ne(call.etag, "");
    pass(IF_ERROR_NS);
    expect_failed(_i / 2, &call, CF_EUNAVAIL);
}
END_TEST

/* The user, too, who otherwise would have all of the time. */
START_TEST(get_of_what_is_late_is_served_old)
{
    struct call call = call_of(42);

    fill(_i, 42);
    let_all(waits, true);
    pass(TTL_NS + STALE_NS + CF_SECOND);
    call.timeout_ns = SHORT_NS;
    for (int tries = 0; tries == 0 || (call.code == CF_EDEADLINE && tries < 10); tries++) {
        place_run(_i, do_get, &call);
        ck_assert(call.code != CF_EDEADLINE || call.took_ns >= call.timeout_ns);
    }
    expect_states(&call, DASHBOARD_STALE, DASHBOARD_STALE, DASHBOARD_STALE);
    ck_assert_str_ne(call.etag, "");
    ck_assert_int_eq(call.parts[DASHBOARD_USERS].age_ns, TTL_NS + STALE_NS + CF_SECOND);
}
END_TEST

/* get: contexts and memory */

START_TEST(get_already_canceled)
{
    struct call call = call_of(42);

    cf_ctx_cancel(ctx);
    expect_failed(_i, &call, CF_ECANCELED);
    expect_begun(0);
}
END_TEST

START_TEST(get_canceled_while_waiting)
{
    struct call call = call_of(_i % 2 == 0 ? 42 : 0);

    let_all(waits, true);
    visit_start(&call.visit, _i / 2, do_get, &call);
    for (size_t i = 0; i < DASHBOARD_SECTION_COUNT; i++) {
        EVENTUALLY(atomic_load(&begun[i]) == 1);
    }
    cf_ctx_cancel(ctx);
    visit_join(&call.visit);
    ck_assert_int_eq(call.code, CF_ECANCELED);
}
END_TEST

/* Everybody but one leaves: that one is served by the load that all had joined. */
START_TEST(get_left_by_the_others_goes_on)
{
    static struct call calls[CROWD];
    int crowd = effort_count(CROWD, 10);

    let_all(waits, true);
    for (int i = 0; i < crowd; i++) {
        calls[i] = call_of(42);
        calls[i].timeout_ns = i > 0 ? 10 * CF_MS : 0;
        visit_start(&calls[i].visit, PLACE_FIBER, do_get, &calls[i]);
        if (i == 0) {
            visit_wait_parked(&calls[i].visit);
        }
    }
    for (int i = 1; i < crowd; i++) {
        visit_join(&calls[i].visit);
        ck_assert_int_eq(calls[i].code, CF_EDEADLINE);
    }
    cf_ctx_cancel(gate);
    visit_join(&calls[0].visit);
    ck_assert_int_eq(calls[0].code, CF_OK);
    expect_begun(1);
}
END_TEST

/* As many allocations as the tasks' starter makes fail, one after the other: the answer is whole,
 * in part, or none for want of memory, and the next one is whole. */
static void get_with_faults(void *arg)
{
    struct call call = call_of(42);
    bool struck = true;

    (void)arg;
    for (unsigned nth = 1; struck; nth++) {
        dashboards_flush(dashboards);
        fault_alloc(nth, false);
        do_get(&call);
        struck = fault_off();
        EXPECT(call.code == CF_OK || call.code == CF_ENOMEM);
        pass(CF_SECOND); /* A failure is kept for a moment. */
        do_get(&call);
        EXPECT(call.code == CF_OK);
        EXPECT(call.etag[0] != '\0');
    }
}

START_TEST(get_out_of_memory)
{
    place_run(_i, get_with_faults, NULL);
}
END_TEST

/* drop, flush */

static void forget(int way)
{
    if (way == 0) {
        dashboards_drop(dashboards, 42);
    } else {
        dashboards_flush(dashboards);
    }
}

START_TEST(drop_while_a_load_runs_keeps_what_comes_after)
{
    int way = _i % 2;
    int place = _i / 2;
    struct call before = call_of(42);
    struct call after = call_of(42);

    let_all(waits, true);
    visit_start(&before.visit, place, do_get, &before);
    for (size_t i = 0; i < DASHBOARD_SECTION_COUNT; i++) {
        EVENTUALLY(atomic_load(&begun[i]) == 1);
    }
    atomic_store(&version, 2);
    forget(way);
    let_all(waits, false);
    expect_all(place, &after, DASHBOARD_FRESH);
    ck_assert_str_eq(after.body,
                     "{\"user\":4202,\"orders\":4202,\"metrics\":4202,\"partial\":false}");
    cf_ctx_cancel(gate);
    visit_join(&before.visit);
    /* It had asked before, and is told what was true then: it, and nobody else. */
    ck_assert_str_eq(before.body,
                     "{\"user\":4201,\"orders\":4201,\"metrics\":4201,\"partial\":false}");
    expect_all(place, &after, DASHBOARD_CACHED);
    ck_assert_str_eq(after.body,
                     "{\"user\":4202,\"orders\":4202,\"metrics\":4202,\"partial\":false}");
}
END_TEST

START_TEST(drop_is_of_the_user_and_the_store)
{
    struct call call = call_of(42);
    struct call store = call_of(0);
    struct call other = call_of(43);

    fill(_i, 42);
    fill(_i, 43);
    fill(_i, 0);
    dashboards_drop(dashboards, 42);
    expect_all(_i, &call, DASHBOARD_FRESH);
    expect_all(_i, &store, DASHBOARD_FRESH);
    expect_all(_i, &other, DASHBOARD_CACHED);
    dashboards_flush(dashboards);
    expect_all(_i, &other, DASHBOARD_FRESH);
}
END_TEST

/* free */

START_TEST(free_ends_what_loads_behind)
{
    struct call call = call_of(42);

    fill(PLACE_THREAD, 42);
    let_all(waits, true);
    pass(TTL_NS + CF_SECOND);
    expect_all(PLACE_THREAD, &call, DASHBOARD_STALE);
    dashboards_free(dashboards);
    dashboards = NULL;
}
END_TEST

Suite *suite_dashboards(void)
{
    Suite *suite = suite_create("dashboards");
    TCase *whole = tcase_create("whole");
    TCase *part = tcase_create("part");
    TCase *old = tcase_create("old");
    TCase *get = tcase_create("get");
    TCase *drop = tcase_create("drop");

    tcase_add_checked_fixture(whole, setup, teardown);
    tcase_add_loop_test(whole, get_of_what_is_there_asks_nobody_and_encodes_nothing, 0, PLACES);
    tcase_add_loop_test(whole, get_of_a_gzip_is_compressed_once, 0, PLACES);
    tcase_add_loop_test(whole, get_of_a_gzip_without_a_cache_leaves_it_to_the_server, 0, PLACES);
    tcase_add_loop_test(whole, get_of_the_store_is_another, 0, PLACES);
    tcase_add_loop_test(whole, get_of_the_same_again_has_the_same_etag, 0, PLACES);
    tcase_add_loop_test(whole, get_without_a_cache_asks_each_time, 0, PLACES);
    tcase_add_test(whole, get_by_many_at_once_makes_one_load_a_section);
    tcase_add_loop_test(whole, get_past_its_time_is_stale_and_loaded_behind, 0, PLACES);
    tcase_add_loop_test(whole, get_with_an_age_loads_what_is_older, 0, PLACES);
    tcase_set_timeout(whole, 30);
    suite_add_tcase(suite, whole);

    tcase_add_checked_fixture(part, setup, teardown);
    tcase_add_loop_test(part, get_of_a_late_section_has_the_rest, 0, PLACES);
    tcase_add_loop_test(part, get_of_a_failing_section_has_the_rest, 0, PLACES);
    tcase_add_loop_test(part, get_without_its_user_ends_the_other_sections, 0, PLACES);
    tcase_add_test(part, get_of_no_user_is_known_for_a_while);
    tcase_add_test(part, get_of_no_user_says_whether_it_was_known);
    tcase_add_loop_test(part, get_of_what_is_kept_only_loads_nothing, 0, PLACES);
    tcase_add_loop_test(part, get_that_requires_all_fails_with_one, 0, 2 * PLACES);
    tcase_add_loop_test(part, get_that_requires_all_is_late_with_one, 0, PLACES);
    tcase_add_loop_test(part, get_of_nothing_is_late_and_not_before, 0, PLACES);
    tcase_add_loop_test(part, get_of_nothing_fails_as_the_first_did, 0, PLACES);
    tcase_set_timeout(part, 30);
    suite_add_tcase(suite, part);

    tcase_add_checked_fixture(old, setup, teardown);
    tcase_add_loop_test(old, get_of_what_fails_is_served_old, 0, 2 * PLACES);
    tcase_add_loop_test(old, get_of_what_is_late_is_served_old, 0, PLACES);
    tcase_set_timeout(old, 30);
    suite_add_tcase(suite, old);

    tcase_add_checked_fixture(get, setup, teardown);
    tcase_add_loop_test(get, get_already_canceled, 0, PLACES);
    tcase_add_loop_test(get, get_canceled_while_waiting, 0, 2 * PLACES);
    tcase_add_test(get, get_left_by_the_others_goes_on);
    tcase_add_loop_test(get, get_out_of_memory, 0, PLACES);
    tcase_set_timeout(get, 30);
    suite_add_tcase(suite, get);

    tcase_add_checked_fixture(drop, setup, teardown);
    tcase_add_loop_test(drop, drop_while_a_load_runs_keeps_what_comes_after, 0, 2 * PLACES);
    tcase_add_loop_test(drop, drop_is_of_the_user_and_the_store, 0, PLACES);
    tcase_add_test(drop, free_ends_what_loads_behind);
    tcase_set_timeout(drop, 30);
    suite_add_tcase(suite, drop);
    return suite;
}
