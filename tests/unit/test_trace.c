/* SPDX-License-Identifier: MIT */
/* Traces: W3C Trace Context's grammar, ids, and how a context carries one. */
#include <curfew/trace.h>

#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctx_kit.h"
#include "curfew/core/ctx_private.h"
#include "fault.h"

#define LENGTH(array) (int)(sizeof(array) / sizeof((array)[0]))

#define TRACE_ID "0af7651916cd43dd8448eb211c80319c"
#define SPAN_ID "b7ad6b7169203331"
#define ZEROES "00000000000000000000000000000000"
#define GOOD "00-" TRACE_ID "-" SPAN_ID "-01"

/* Fixture */

static struct cf_trace trace;

static void setup(void)
{
    memset(&trace, 'x', sizeof(trace));
}

/* Helpers */

static bool is_hex(const char *text, size_t size)
{
    return strlen(text) == size && strspn(text, "0123456789abcdef") == size &&
           strspn(text, "0") < size;
}

/* The state that comes out of `text`; "" if it is refused. */
static const char *state_of(const char *text)
{
    ck_assert(cf_trace_read(GOOD, text, &trace));
    return trace.state;
}

/* A text of `n` pieces and their separator. The caller frees it. */
static char *repeated(const char *piece, const char *separator, size_t n)
{
    size_t room = n * (strlen(piece) + strlen(separator)) + 1;
    char *text = calloc(1, room);

    ck_assert_ptr_nonnull(text);
    for (size_t i = 0; i < n; i++) {
        strcat(text, i > 0 ? separator : "");
        strcat(text, piece);
    }
    return text;
}

/* init */

START_TEST(init_makes_ids_that_are_new)
{
    struct cf_trace other;

    cf_trace_init(&trace);
    cf_trace_init(&other);
    ck_assert(is_hex(trace.trace_id, 32));
    ck_assert(is_hex(trace.span_id, 16));
    ck_assert_uint_eq(trace.flags, CF_TRACE_RANDOM);
    ck_assert_str_eq(trace.state, "");
    ck_assert_str_ne(trace.trace_id, other.trace_id);
    ck_assert_str_ne(trace.span_id, other.span_id);
}
END_TEST

#define MANY 10000

static int compare_ids(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* That of a birthday among so many numbers of 56 bits is once in a billion runs. */
START_TEST(init_makes_ids_whose_last_digits_differ)
{
    static char ids[MANY][15];

    for (int i = 0; i < MANY; i++) {
        cf_trace_init(&trace);
        memcpy(ids[i], trace.trace_id + 32 - 14, 15);
    }
    qsort(ids, MANY, sizeof(ids[0]), compare_ids);
    for (int i = 1; i < MANY; i++) {
        ck_assert_str_ne(ids[i - 1], ids[i]);
    }
}
END_TEST

static void *init_trace(void *arg)
{
    cf_trace_init(arg);
    return NULL;
}

START_TEST(init_of_two_threads_differs)
{
    struct cf_trace traces[2];
    pthread_t threads[2];

    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, init_trace, &traces[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    }
    ck_assert_str_ne(traces[0].trace_id, traces[1].trace_id);
}
END_TEST

/* A server that forks its workers after it has begun a trace of its own. */
START_TEST(init_after_a_fork_differs)
{
    struct cf_trace theirs;
    int ends[2];
    int status;
    pid_t pid;

    cf_trace_init(&trace); /* Seeded. */
    ck_assert_int_eq(pipe(ends), 0);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        cf_trace_init(&trace);
        _exit(write(ends[1], &trace, sizeof(trace)) == (ssize_t)sizeof(trace) ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    ck_assert_int_eq(read(ends[0], &theirs, sizeof(theirs)), (ssize_t)sizeof(theirs));
    (void)close(ends[0]);
    (void)close(ends[1]);
    cf_trace_init(&trace);
    ck_assert(is_hex(theirs.trace_id, 32));
    ck_assert_str_ne(theirs.trace_id, trace.trace_id);
    ck_assert_str_ne(theirs.span_id, trace.span_id);
}
END_TEST

/* read */

static const struct {
    const char *text;
    unsigned flags;
} good[] = {
    {GOOD, 1},
    {"00-" TRACE_ID "-" SPAN_ID "-00", 0},
    {"00-" TRACE_ID "-" SPAN_ID "-02", 2},
    {"00-" TRACE_ID "-" SPAN_ID "-03", 3},
    {"00-" TRACE_ID "-" SPAN_ID "-ff", 3}, /* Of the reserved ones we know nothing. */
    {"00-" TRACE_ID "-" SPAN_ID "-f8", 0},
    {"01-" TRACE_ID "-" SPAN_ID "-01", 1}, /* To come. */
    {"cc-" TRACE_ID "-" SPAN_ID "-03-what-the-future-brings", 3},
    {"fe-" TRACE_ID "-" SPAN_ID "-01-", 1},
    {" \t" GOOD, 1},
    {GOOD "\t ", 1},
};

START_TEST(read_takes_a_good_one)
{
    ck_assert(cf_trace_read(good[_i].text, NULL, &trace));
    ck_assert_str_eq(trace.trace_id, TRACE_ID);
    ck_assert_str_eq(trace.span_id, SPAN_ID);
    ck_assert_uint_eq(trace.flags, good[_i].flags);
    ck_assert_str_eq(trace.state, "");
}
END_TEST

static const char *const bad[] = {
    NULL,
    "",
    " ",
    "-",
    "00",
    "00-" TRACE_ID,
    "00-" TRACE_ID "-" SPAN_ID,
    "00-" TRACE_ID "-" SPAN_ID "-",
    "00-" TRACE_ID "-" SPAN_ID "-0",
    "00-" TRACE_ID "-" SPAN_ID "-0 ",
    GOOD "0",
    GOOD "-",
    GOOD "-more", /* Not of version 00, */
    GOOD ".",
    GOOD "," GOOD,
    "cc-" TRACE_ID "-" SPAN_ID "-01.more", /* nor so of any. */
    "cc-" TRACE_ID "-" SPAN_ID "-01 more",
    "cc-" TRACE_ID "-" SPAN_ID "-010",
    "ff-" TRACE_ID "-" SPAN_ID "-01", /* No version. */
    "ff-" TRACE_ID "-" SPAN_ID "-01-more",
    "FE-" TRACE_ID "-" SPAN_ID "-01",
    "0g-" TRACE_ID "-" SPAN_ID "-01",
    "0-" TRACE_ID "-" SPAN_ID "-01",
    "000-" TRACE_ID "-" SPAN_ID "-01",
    "00-" ZEROES "-" SPAN_ID "-01",
    "00-" TRACE_ID "-0000000000000000-01",
    "00-0AF7651916CD43DD8448EB211C80319C-" SPAN_ID "-01",
    "00-" TRACE_ID "-B7AD6B7169203331-01",
    "00-" TRACE_ID "-" SPAN_ID "-0A",
    "00-" TRACE_ID "-" SPAN_ID "-.0",
    "00-0af7651916cd43dd8448eb211c80319-" SPAN_ID "-01", /* A digit short, and so shifted. */
    "00-0af7651916cd43dd8448eb211c80319cc-" SPAN_ID "-01",
    "00-" TRACE_ID "-b7ad6b716920333-01",
    "00-0af7651916cd43dd8448eb211c80319.-" SPAN_ID "-01",
    "00-" TRACE_ID "-b7ad6b716920333.-01",
    "00_" TRACE_ID "_" SPAN_ID "_01",
    "00 -" TRACE_ID "-" SPAN_ID "-01",
    "\"" GOOD "\"",
};

START_TEST(read_refuses_a_bad_one_and_leaves_out_alone)
{
    struct cf_trace before = trace;

    ck_assert(!cf_trace_read(bad[_i], "congo=t61rcWkgMzE", &trace));
    ck_assert_int_eq(memcmp(&before, &trace, sizeof(trace)), 0);
}
END_TEST

static const char *const good_states[] = {
    "congo=t61rcWkgMzE",
    "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
    "foo=1 \t , \t bar=2, \t baz=3",
    "foo=1,",
    ",foo=1,,bar=2",
    "0=1",
    "a_-*/z9=1",
    "fw529a3039@dt=FfAAAA",
    "foo=1,foo=1", /* For whoever wrote it to settle. */
    "foo= 1  2",
    "foo= !\"#$%&'()*+-./0123456789:;<>?@ABCXYZ[\\]^_`abcxyz{|}~",
};

START_TEST(read_keeps_a_good_state_as_it_came)
{
    ck_assert_ptr_eq(state_of(good_states[_i]), good_states[_i]);
}
END_TEST

static const char *const bad_states[] = {
    "foo",         "foo=",      "=1",         "foo =1",       "FOO=1",    "foo.bar=1",
    "@foo=1",      "_foo=1",    "foo=1=2",    "foo=\xc3\xa9", "foo=a\tb", "foo=a\x7f",
    "foo=1;bar=2", "foo=1,bar", "foo=1,bar=", "f\xc3\xb6=1",  "foo=1\n",  "foo=1, bar = 2",
};

START_TEST(read_drops_a_bad_state)
{
    ck_assert_str_eq(state_of(bad_states[_i]), "");
    ck_assert_str_eq(trace.trace_id, TRACE_ID);
}
END_TEST

START_TEST(read_drops_a_state_beyond_its_limits)
{
    char *most = repeated("a=1", ",", CF_TRACESTATE_MEMBERS_MAX);
    char *too_many = repeated("a=1", ",", CF_TRACESTATE_MEMBERS_MAX + 1);
    char *key = repeated("k", "", 257);
    char *value = repeated("v", "", 257);
    char text[600];

    ck_assert_ptr_eq(state_of(most), most);
    ck_assert_str_eq(state_of(too_many), "");
    (void)snprintf(text, sizeof(text), "%.256s=1", key);
    ck_assert_ptr_eq(state_of(text), text);
    (void)snprintf(text, sizeof(text), "%.257s=1", key);
    ck_assert_str_eq(state_of(text), "");
    (void)snprintf(text, sizeof(text), "k=%.256s", value);
    ck_assert_ptr_eq(state_of(text), text);
    (void)snprintf(text, sizeof(text), "k=%.257s", value);
    ck_assert_str_eq(state_of(text), "");
    (void)snprintf(text, sizeof(text), "%.254s=%.250s,a=%s", key, value, "1234");
    ck_assert_uint_eq(strlen(text), CF_TRACESTATE_SIZE_MAX);
    ck_assert_ptr_eq(state_of(text), text);
    strcat(text, "5");
    ck_assert_str_eq(state_of(text), "");
    free(most);
    free(too_many);
    free(key);
    free(value);
}
END_TEST

/* write */

START_TEST(write_is_read_again)
{
    char text[CF_TRACEPARENT_SIZE];
    struct cf_trace again;

    for (int i = 0; i < LENGTH(good); i++) {
        ck_assert(cf_trace_read(good[i].text, NULL, &trace));
        cf_trace_write(&trace, text);
        ck_assert_uint_eq(strlen(text), CF_TRACEPARENT_SIZE - 1);
        ck_assert_int_eq(strncmp(text, "00-" TRACE_ID "-" SPAN_ID "-0", 54), 0);
        ck_assert(cf_trace_read(text, NULL, &again));
        ck_assert_uint_eq(again.flags, trace.flags);
    }
    cf_trace_init(&trace);
    trace.flags |= CF_TRACE_SAMPLED;
    cf_trace_write(&trace, text);
    ck_assert(cf_trace_read(text, NULL, &again));
    ck_assert_str_eq(again.trace_id, trace.trace_id);
    ck_assert_str_eq(again.span_id, trace.span_id);
    ck_assert_str_eq(text + 53, "03");
}
END_TEST

/* child */

START_TEST(child_has_a_span_id_of_its_own)
{
    struct cf_trace child;

    ck_assert(cf_trace_read(GOOD, "congo=t61rcWkgMzE", &trace));
    cf_trace_child(&trace, &child);
    ck_assert_str_eq(child.trace_id, TRACE_ID);
    ck_assert(is_hex(child.span_id, 16));
    ck_assert_str_ne(child.span_id, SPAN_ID);
    ck_assert_uint_eq(child.flags, CF_TRACE_SAMPLED);
    ck_assert_ptr_eq(child.state, trace.state);
    ck_assert_str_eq(trace.span_id, SPAN_ID);
    cf_trace_child(&trace, &trace);
    ck_assert_str_eq(trace.trace_id, TRACE_ID);
    ck_assert_str_ne(trace.span_id, SPAN_ID);
}
END_TEST

/* ctx */

START_TEST(ctx_trace_is_that_of_the_nearest)
{
    struct cf_trace inner;
    struct cf_ctx *outer_ctx;
    struct cf_ctx *below;
    struct cf_ctx *inner_ctx;

    cf_trace_init(&trace);
    cf_trace_child(&trace, &inner);
    ck_assert_ptr_null(cf_ctx_trace(cf_ctx_background()));
    ck_assert_int_eq(cf_ctx_with_trace(cf_ctx_background(), &trace, &outer_ctx, NULL), CF_OK);
    below = with_cancel(outer_ctx);
    ck_assert_int_eq(cf_ctx_with_trace(below, &inner, &inner_ctx, NULL), CF_OK);
    ck_assert_ptr_eq(cf_ctx_trace(outer_ctx), &trace);
    ck_assert_ptr_eq(cf_ctx_trace(below), &trace);
    ck_assert_ptr_eq(cf_ctx_trace(inner_ctx), &inner);
    cf_ctx_cancel(below);
    assert_done(inner_ctx, CF_ECANCELED, CF_REASON_CANCELED);
    ck_assert_ptr_eq(cf_ctx_trace(inner_ctx), &inner);
    cf_ctx_free(inner_ctx);
    cf_ctx_free(below);
    cf_ctx_free(outer_ctx);
}
END_TEST

START_TEST(ctx_with_trace_out_of_memory)
{
    struct cf_ctx *ctx = NULL;
    struct cf_err failed;

    cf_trace_init(&trace);
    fault_alloc(1, false);
    ck_assert_int_eq(cf_ctx_with_trace(cf_ctx_background(), &trace, &ctx, &failed), CF_ENOMEM);
    ck_assert(fault_off());
    ck_assert_ptr_null(ctx);
    ck_assert_int_eq(failed.code, CF_ENOMEM);
}
END_TEST

START_TEST(carried_by_a_scope_it_is_found_as_any_value)
{
    static const char key;
    struct cf_ctx *scope = with_cancel(cf_ctx_background());
    struct cf_ctx *child = with_timeout(scope, LONG_NS);
    struct cf_ctx *cleanup = without_cancel(child);

    cf_trace_init(&trace);
    fault_alloc(1, true);
    cf__ctx_carry_trace(scope, &trace);
    ck_assert(!fault_off());
    ck_assert_ptr_eq(cf_ctx_trace(scope), &trace);
    ck_assert_ptr_eq(cf_ctx_trace(child), &trace);
    ck_assert_ptr_eq(cf_ctx_trace(cleanup), &trace);
    ck_assert_ptr_null(cf_ctx_value(child, &key));
    cf_ctx_free(cleanup);
    cf_ctx_free(child);
    cf_ctx_free(scope);
}
END_TEST

Suite *suite_trace(void)
{
    Suite *suite = suite_create("trace");
    TCase *tc = tcase_create("init");

    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_test(tc, init_makes_ids_that_are_new);
    tcase_add_test(tc, init_makes_ids_whose_last_digits_differ);
    tcase_add_test(tc, init_of_two_threads_differs);
    suite_add_tcase(suite, tc);

    tc = tcase_create("init_fork");
    tcase_set_tags(tc, "fork");
    tcase_add_test(tc, init_after_a_fork_differs);
    suite_add_tcase(suite, tc);

    tc = tcase_create("read");
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_loop_test(tc, read_takes_a_good_one, 0, LENGTH(good));
    tcase_add_loop_test(tc, read_refuses_a_bad_one_and_leaves_out_alone, 0, LENGTH(bad));
    tcase_add_loop_test(tc, read_keeps_a_good_state_as_it_came, 0, LENGTH(good_states));
    tcase_add_loop_test(tc, read_drops_a_bad_state, 0, LENGTH(bad_states));
    tcase_add_test(tc, read_drops_a_state_beyond_its_limits);
    suite_add_tcase(suite, tc);

    tc = tcase_create("write");
    tcase_add_test(tc, write_is_read_again);
    suite_add_tcase(suite, tc);

    tc = tcase_create("child");
    tcase_add_test(tc, child_has_a_span_id_of_its_own);
    suite_add_tcase(suite, tc);

    tc = tcase_create("ctx");
    tcase_add_test(tc, ctx_trace_is_that_of_the_nearest);
    tcase_add_test(tc, ctx_with_trace_out_of_memory);
    tcase_add_test(tc, carried_by_a_scope_it_is_found_as_any_value);
    suite_add_tcase(suite, tc);
    return suite;
}
