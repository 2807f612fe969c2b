/* SPDX-License-Identifier: MIT */
/* What is said of changes, and which dashboards it drops. */
#include "curfewd/cache/changes.h"

#include <check.h>
#include <stdatomic.h>

#include <curfew/clock.h>
#include <curfew/loop.h>

#include "curfewd/cache/dashboards.h"

#define N(table) (int)(sizeof(table) / sizeof((table)[0]))

/* Fixture */

static struct cf_loop *loop;
static struct dashboards *dashboards;
static atomic_int n_loads;

static enum cf_code load(struct cf_ctx *ctx, void *arg, int64_t user_id,
                         enum dashboard_section section, struct cf_json *json, struct cf_err *err)
{
    (void)ctx;
    (void)arg;
    (void)section;
    (void)err;
    atomic_fetch_add(&n_loads, 1);
    cf_json_i64(json, user_id);
    return CF_OK;
}

static void setup(void)
{
    struct dashboards_options options = {
        .fetch = load, .ttl_ns = 3600 * CF_SECOND, .load_timeout_ns = 60 * CF_SECOND};

    ck_assert_int_eq(cf_loop_new(NULL, &loop, NULL), CF_OK);
    ck_assert_int_eq(dashboards_new(&options, &dashboards, NULL), CF_OK);
}

static void teardown(void)
{
    dashboards_free(dashboards);
    cf_loop_free(loop);
}

/* Helpers */

struct visit {
    int64_t user_id;
    enum cf_code code;
};

static void get(void *arg)
{
    struct visit *visit = arg;
    struct dashboard_wish wish = {.user_id = visit->user_id, .age_max_ns = CF_NEVER};
    struct dashboard dashboard;

    visit->code = dashboards_get(cf_ctx_background(), dashboards, &wish, &dashboard, NULL);
    if (visit->code == CF_OK) {
        dashboard_fini(&dashboard);
    }
}

/* Whether the dashboard of a user, or the store's (0), had to be loaded. */
static bool has_loaded(int64_t user_id)
{
    struct visit visit = {.user_id = user_id};
    int before = atomic_load(&n_loads);

    ck_assert_int_eq(cf_loop_call(loop, get, &visit, NULL), CF_OK);
    ck_assert_int_eq(visit.code, CF_OK);
    return atomic_load(&n_loads) > before;
}

/* take */

static const struct {
    const char *payload;
    bool drops[4]; /* The store's, and those of the users 1 to 3. */
} said[] = {
    {"1", {true, true, false, false}},
    {"9223372036854775807", {true, false, false, false}},
    {"1,3", {true, true, false, true}},
    {"3,2,1", {true, true, true, true}},
    {"all", {true, true, true, true}},
    {"", {true, true, true, true}}, /* From here, what no trigger says. */
    {"0", {true, true, true, true}},
    {"-1", {true, true, true, true}},
    {"1,", {true, true, true, true}},
    {",1", {true, true, true, true}},
    {"1;2", {true, true, true, true}},
    {"1 ,2", {true, true, true, true}},
    {"1,x", {true, true, true, true}},
    {"9223372036854775808", {true, true, true, true}},
};

START_TEST(take_drops_what_was_named)
{
    for (int i = 0; i < N(said); i++) {
        for (int64_t user_id = 0; user_id < 4; user_id++) {
            (void)has_loaded(user_id);
            ck_assert(!has_loaded(user_id));
        }
        changes_take(dashboards, CHANGES_CHANNEL, said[i].payload);
        for (int64_t user_id = 0; user_id < 4; user_id++) {
            ck_assert_msg(has_loaded(user_id) == said[i].drops[user_id], "\"%s\": user %d",
                          said[i].payload, (int)user_id);
        }
    }
}
END_TEST

/* missed */

START_TEST(missed_drops_all)
{
    (void)has_loaded(0);
    (void)has_loaded(2);
    changes_missed(dashboards);
    ck_assert(has_loaded(0));
    ck_assert(has_loaded(2));
}
END_TEST

Suite *suite_changes(void)
{
    Suite *suite = suite_create("changes");
    TCase *take = tcase_create("take");
    TCase *missed = tcase_create("missed");

    tcase_add_checked_fixture(take, setup, teardown);
    tcase_add_test(take, take_drops_what_was_named);
    suite_add_tcase(suite, take);
    tcase_add_checked_fixture(missed, setup, teardown);
    tcase_add_test(missed, missed_drops_all);
    suite_add_tcase(suite, missed);
    return suite;
}
