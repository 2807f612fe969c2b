/* SPDX-License-Identifier: MIT */
/* The behaviour that golang.org/x/sync/errgroup's own tests ask for, asked of cf_group, from a
 * plain thread and from a fiber. tests/README.md has the table of all its cases. */
#include <curfew/group.h>

#include <check.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <curfew/wait.h>

#include "places.h"

/* Helpers */

/* What a task returns: a failure of its own, or none. */
struct result {
    enum cf_code code;
    const char *msg;
};

static const struct result fine = {CF_OK, ""};
static const struct result doomed = {CF_EIO, "doomed"};
static const struct result late_doom = {CF_ECONFLICT, "doomed too"};

static enum cf_code return_result(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    const struct result *result = arg;

    (void)ctx;
    return result->code == CF_OK ? CF_OK : cf_err_set(err, result->code, "%s", result->msg);
}

static struct cf_group *new_group(void)
{
    struct cf_group *group = NULL;

    EXPECT(cf_group_new(cf_ctx_background(), &group, NULL) == CF_OK);
    return group;
}

/* Wait, and expect that first failure, or none. */
static void expect_wait(struct cf_group *group, const struct result *first)
{
    struct cf_err err = {.code = CF_OK};

    EXPECT(cf_group_wait(group, &err) == first->code);
    if (first->code != CF_OK) {
        EXPECT(err.code == first->code);
        EXPECT(strcmp(err.msg, first->msg) == 0);
    }
}

/* Tasks of a group and what it is to wait for. */
struct script {
    int count;
    const struct result *tasks[3];
    const struct result *first;
};

static const struct script scripts[] = {
    {0, {NULL}, &fine},
    {1, {&fine}, &fine},
    {1, {&doomed}, &doomed},
    {2, {&doomed, &fine}, &doomed},
};

/* wait */

static void wait_after_each(void *arg)
{
    static const struct script more[] = {
        {0, {NULL}, &fine},
        {1, {&fine}, &fine},
        {1, {&doomed}, &doomed},
        {2, {&doomed, &fine}, &doomed},
        {3, {&doomed, &fine, &late_doom}, &doomed},
    };

    (void)arg;
    for (size_t i = 0; i < sizeof(more) / sizeof(more[0]); i++) {
        struct cf_group *group = new_group();
        const struct result *first = &fine;

        for (int k = 0; k < more[i].count; k++) {
            cf_group_go(group, return_result, (void *)more[i].tasks[k]);
            first = first->code == CF_OK ? more[i].tasks[k] : first;
            expect_wait(group, first);
        }
        expect_wait(group, more[i].first);
        cf_group_free(group);
    }
}

/* TestZeroGroup: a group is used on after a wait, and its first failure stays the first. There is
 * no group without a context here, so it is one of the background. */
START_TEST(wait_again_keeps_the_first_failure)
{
    place_run(_i, wait_after_each, NULL);
}
END_TEST

static void wait_for_scripts(void *arg)
{
    (void)arg;
    for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
        struct cf_group *group = new_group();

        for (int k = 0; k < scripts[i].count; k++) {
            cf_group_go(group, return_result, (void *)scripts[i].tasks[k]);
        }
        expect_wait(group, scripts[i].first);
        EXPECT(cf_ctx_err(cf_group_ctx(group)) == CF_ECANCELED);
        cf_group_free(group);
    }
}

/* TestWithContext: the first failure is returned, and the context is done after the wait. */
START_TEST(wait_returns_the_first_failure_and_ends_the_context)
{
    place_run(_i, wait_for_scripts, NULL);
}
END_TEST

static void ask_for_causes(void *arg)
{
    (void)arg;
    for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
        struct cf_group *group = new_group();
        struct cf_cause cause;

        for (int k = 0; k < scripts[i].count; k++) {
            EXPECT(cf_group_try_go(group, return_result, (void *)scripts[i].tasks[k]));
        }
        expect_wait(group, scripts[i].first);
        EXPECT(cf_ctx_cause(cf_group_ctx(group), &cause));
        if (scripts[i].first->code == CF_OK) {
            EXPECT(cause.reason == CF_REASON_CANCELED);
            EXPECT(cause.err.code == CF_ECANCELED);
        } else {
            EXPECT(cause.reason == CF_REASON_SIBLING_FAILED);
            EXPECT(cause.err.code == scripts[i].first->code);
            EXPECT(strcmp(cause.err.msg, scripts[i].first->msg) == 0);
        }
        cf_group_free(group);
    }
}

/* TestCancelCause: the cause of the context is the first failure, or that it was cancelled. */
START_TEST(wait_leaves_the_first_failure_as_the_cause)
{
    place_run(_i, ask_for_causes, NULL);
}
END_TEST

/* try_go */

static enum cf_code wait_at(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    (void)ctx; /* Done already once the group has been waited for. */
    (void)err;
    place_wait(arg);
    return CF_OK;
}

/* Start as many tasks as `expected`, find that one more is refused, and let them end. */
static void try_up_to(struct cf_group *group, int expected)
{
    struct cf_ctx *gate = NULL;

    EXPECT(cf_ctx_with_cancel(cf_ctx_background(), &gate, NULL) == CF_OK);
    for (int i = 0; i < expected; i++) {
        EXPECT(cf_group_try_go(group, wait_at, gate));
    }
    EXPECT(!cf_group_try_go(group, wait_at, gate));
    cf_ctx_cancel(gate);
    expect_wait(group, &fine);
    cf_ctx_free(gate);
}

static void try_limits(void *arg)
{
    struct cf_group *group = new_group();

    (void)arg;
    cf_group_set_limit(group, 42);
    try_up_to(group, 42);
    try_up_to(group, 42); /* All slots came back. */
    cf_group_set_limit(group, 1);
    try_up_to(group, 1);
    cf_group_set_limit(group, 0);
    for (int i = 0; i < 1024; i++) {
        EXPECT(!cf_group_try_go(group, wait_at, NULL));
    }
    expect_wait(group, &fine);
    cf_group_free(group);
}

/* TestTryGo: the limit refuses, slots come back, and the limit may be changed between. */
START_TEST(try_go_up_to_the_limit)
{
    place_run(_i, try_limits, NULL);
}
END_TEST

/* go */

#define LIMIT 10

static enum cf_code count_active(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    atomic_int *active = arg;
    int now = atomic_fetch_add(active, 1) + 1;
    enum cf_code code;

    if (now > LIMIT) {
        return cf_err_set(err, CF_EINTERNAL, "%d tasks at once", now);
    }
    code = cf_sleep(ctx, CF_US, err); /* Others get their chance to be too many. */
    (void)atomic_fetch_sub(active, 1);
    return code;
}

static void go_often(void *arg)
{
    struct cf_group *group = new_group();
    atomic_int active = 0;

    (void)arg;
    cf_group_set_limit(group, LIMIT);
    for (int i = 0; i <= 1024; i++) {
        cf_group_go(group, count_active, &active);
    }
    expect_wait(group, &fine);
    cf_group_free(group);
}

/* TestGoLimit: never more at once than the limit. */
START_TEST(go_keeps_to_the_limit)
{
    place_run(_i, go_often, NULL);
}
END_TEST

struct search {
    const char *kind;
    char found[32];
};

static enum cf_code find(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct search *search = arg;

    (void)snprintf(search->found, sizeof(search->found), "%s result", search->kind);
    return cf_yield(ctx, err);
}

static void search_all(void *arg)
{
    struct search searches[] = {{"web", ""}, {"image", ""}, {"video", ""}};
    struct cf_group *group = new_group();

    (void)arg;
    for (int i = 0; i < 3; i++) {
        cf_group_go(group, find, &searches[i]);
    }
    expect_wait(group, &fine);
    EXPECT(strcmp(searches[0].found, "web result") == 0);
    EXPECT(strcmp(searches[1].found, "image result") == 0);
    EXPECT(strcmp(searches[2].found, "video result") == 0);
    cf_group_free(group);
}

/* ExampleGroup_parallel: each task has a place of its own for what it finds; after the wait they
 * may all be read. */
START_TEST(go_in_parallel_fills_what_wait_waits_for)
{
    place_run(_i, search_all, NULL);
}
END_TEST

Suite *suite_errgroup(void)
{
    Suite *suite = suite_create("errgroup");
    TCase *tc = tcase_create("wait");

    tcase_add_loop_test(tc, wait_again_keeps_the_first_failure, 0, PLACES);
    tcase_add_loop_test(tc, wait_returns_the_first_failure_and_ends_the_context, 0, PLACES);
    tcase_add_loop_test(tc, wait_leaves_the_first_failure_as_the_cause, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("try_go");
    tcase_add_loop_test(tc, try_go_up_to_the_limit, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("go");
    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, go_keeps_to_the_limit, 0, PLACES);
    tcase_add_loop_test(tc, go_in_parallel_fills_what_wait_waits_for, 0, PLACES);
    suite_add_tcase(suite, tc);
    return suite;
}
