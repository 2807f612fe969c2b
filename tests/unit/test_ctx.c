/* SPDX-License-Identifier: MIT */
/* Making contexts, and what they inherit, on a clock that the tests move.
 *
 * A comment "Go: TestFoo" names the test of Go's context package whose behaviour is asked for; the
 * table in tests/README.md has them all, and says which have no meaning here. How contexts end is
 * in test_ctx_cancel.c, what is called then in test_ctx_after.c, and races in test_ctx_race.c. */
#include <curfew/ctx.h>

#include <check.h>
#include <signal.h>
#include <string.h>

#include <curfew/wait.h>

#include "ctx_kit.h"
#include "fault.h"
#include "onboth.h"

#define DEEP 10000

static const char key_a;
static const char key_b;
static const char key_c;

/* background */

/* Go: TestBackground */
START_ONBOTH(background_is_never_done)
{
    struct cf_ctx *ctx = cf_ctx_background();
    struct cf_cause cause;
    int fd = -7;

    ck_assert_ptr_nonnull(ctx);
    ck_assert_ptr_eq(ctx, cf_ctx_background());
    ck_assert_int_eq(cf_ctx_err(ctx), CF_OK);
    ck_assert_int_eq(cf_ctx_check(ctx, &err), CF_OK);
    ck_assert(!cf_ctx_cause(ctx, &cause));
    ck_assert_int_eq(cf_ctx_deadline_ns(ctx), CF_NEVER);
    ck_assert_int_eq(cf_ctx_remaining_ns(ctx), CF_NEVER);
    ck_assert_ptr_null(cf_ctx_value(ctx, &fd));
    ck_assert_int_eq(cf_ctx_done_fd(ctx, &fd, &err), CF_EINVAL);
    ck_assert_int_eq(fd, -7);
}
END_ONBOTH

START_ONBOTH(background_free_and_unref_do_nothing)
{
    struct cf_ctx *ctx = cf_ctx_background();

    ck_assert_ptr_eq(cf_ctx_ref(ctx), ctx);
    cf_ctx_unref(ctx);
    cf_ctx_unref(ctx);
    cf_ctx_free(ctx);
    cf_ctx_free(ctx);
    cf_ctx_free(with_cancel(ctx));
    ck_assert_int_eq(cf_ctx_err(ctx), CF_OK);
}
END_ONBOTH

/* with_cancel */

/* Go: TestWithCancel, where a context of value stands for Go's foreign one. */
START_ONBOTH(with_cancel_canceled_is_done_with_all_below)
{
    struct cf_ctx *parent = with_cancel(cf_ctx_background());
    struct cf_ctx *value = with_value(parent, &key_a, NULL);
    struct cf_ctx *child = with_cancel(value);

    assert_live(parent);
    assert_live(value);
    assert_live(child);
    cf_ctx_cancel(parent);
    assert_done(parent, CF_ECANCELED, CF_REASON_CANCELED);
    assert_done(value, CF_ECANCELED, CF_REASON_CANCELED);
    assert_done(child, CF_ECANCELED, CF_REASON_CANCELED);
    cf_ctx_free(child);
    cf_ctx_free(value);
    cf_ctx_free(parent);
}
END_ONBOTH

static void note_call(void *arg)
{
    struct cf_ctx *called = cf_ctx_ref(arg);

    cf_ctx_cancel(called);
    cf_ctx_unref(called);
}

/* Go: TestParentFinishesChild. Its look at the parent's map of children is here the timer that is
 * disarmed, what is called, and the memory checkers. */
START_ONBOTH(with_cancel_parent_finishes_child)
{
    struct cf_ctx *parent;
    struct cf_ctx *cancel_child;
    struct cf_ctx *value_child;
    struct cf_ctx *timer_child;
    struct cf_ctx *born_late;
    struct cf_ctx *called = with_cancel(cf_ctx_background());
    struct cf_ctx_after *after;

    vclock_start(&vclock);
    parent = with_cancel(cf_ctx_background());
    cancel_child = with_cancel(parent);
    value_child = with_value(parent, &key_a, NULL);
    timer_child = with_timeout(value_child, LONG_NS);
    ck_assert_int_eq(cf_ctx_after(parent, note_call, called, &after, &err), CF_OK);
    assert_live(parent);
    assert_live(cancel_child);
    assert_live(value_child);
    assert_live(timer_child);
    ck_assert_uint_eq(vclock_armed(&vclock), 1);

    cf_ctx_cancel(parent);
    ck_assert_uint_eq(vclock_armed(&vclock), 0);
    assert_done(parent, CF_ECANCELED, CF_REASON_CANCELED);
    assert_done(cancel_child, CF_ECANCELED, CF_REASON_CANCELED);
    assert_done(value_child, CF_ECANCELED, CF_REASON_CANCELED);
    assert_done(timer_child, CF_ECANCELED, CF_REASON_CANCELED);
    wait_done(called);
    ck_assert(!cf_ctx_after_stop(after));
    born_late = with_value(parent, &key_a, NULL);
    assert_done(born_late, CF_ECANCELED, CF_REASON_CANCELED);

    cf_ctx_free(parent); /* Before its children, which hold it. */
    cf_ctx_free(cancel_child);
    cf_ctx_free(value_child);
    cf_ctx_free(timer_child);
    cf_ctx_free(born_late);
    cf_ctx_free(called);
    vclock_stop(&vclock);
}
END_ONBOTH

/* Go: TestChildFinishesFirst */
START_ONBOTH(with_cancel_child_finishes_first)
{
    struct cf_ctx *cancelable = with_cancel(cf_ctx_background());
    struct cf_ctx *parents[] = {cf_ctx_background(), cancelable};

    for (int i = 0; i < 2; i++) {
        struct cf_ctx *child = with_cancel(parents[i]);

        assert_live(child);
        cf_ctx_cancel(child);
        assert_done(child, CF_ECANCELED, CF_REASON_CANCELED);
        ck_assert_int_eq(cf_ctx_err(parents[i]), CF_OK);
        cf_ctx_free(child);
    }
    assert_live(cancelable);
    cf_ctx_free(cancelable);
}
END_ONBOTH

/* Go: TestWithCancelCanceledParent */
START_ONBOTH(with_cancel_of_a_canceled_parent_is_done_from_birth)
{
    struct cf_ctx *parent = with_cancel(cf_ctx_background());
    struct cf_ctx *child;
    struct cf_ctx *grandchild;

    cf_ctx_cancel_cause(parent, CF_REASON_USER, &because);
    child = with_cancel(parent);
    grandchild = with_cancel(child);
    assert_done(child, CF_ECANCELED, CF_REASON_USER);
    ck_assert_str_eq(cause_text(child), "because");
    assert_done(grandchild, CF_ECANCELED, CF_REASON_USER);
    ck_assert_str_eq(cause_text(grandchild), "because");
    cf_ctx_free(parent);
    ck_assert_str_eq(cause_text(grandchild), "because"); /* It holds whose cause it is. */
    cf_ctx_free(child);
    ck_assert_str_eq(cause_text(grandchild), "because");
    cf_ctx_free(grandchild);
}
END_ONBOTH

/* with_deadline, with_timeout */

/* Go: TestDeadline, TestTimeout */
START_ONBOTH(with_deadline_fires_at_its_time_and_not_before)
{
    struct counter counter;
    struct cf_ctx *ctx;
    struct cf_cause cause;

    vclock_start(&vclock);
    counter_init(&counter);
    ctx = with_deadline(cf_ctx_background(), VCLOCK_START_NS + 100);
    ck_assert(cf__ctx_subscribe(ctx, &counter.waiter));
    assert_live(ctx);
    vclock_advance(&vclock, 99);
    assert_live(ctx);
    ck_assert_uint_eq(counter.fired, 0);
    vclock_advance(&vclock, 1);
    ck_assert_uint_eq(counter.fired, 1); /* Before anybody asked. */
    assert_done(ctx, CF_EDEADLINE, CF_REASON_DEADLINE);
    ck_assert(cf_ctx_cause(ctx, &cause));
    ck_assert_int_eq(cause.err.code, CF_EDEADLINE);
    ck_assert_str_eq(cause.err.msg, "context deadline exceeded");
    ck_assert_ptr_null(cause.file);
    ck_assert_int_eq(cause.line, 0);
    ck_assert_int_eq(cause.at_ns, VCLOCK_START_NS + 100);
    ck_assert_int_eq(cause.budget_ns, 0);
    ck_assert(!cf__ctx_unsubscribe(ctx, &counter.waiter));
    cf_ctx_free(ctx);
    vclock_stop(&vclock);
}
END_ONBOTH

/* Go: TestDeadline, TestTimeout: a foreign context between the two. */
START_ONBOTH(with_deadline_later_than_the_parents_ends_with_it)
{
    struct cf_ctx *parent;
    struct cf_ctx *value;
    struct cf_ctx *child;
    struct cf_ctx *same;

    vclock_start(&vclock);
    parent = with_timeout(cf_ctx_background(), 100);
    value = with_value(parent, &key_a, NULL);
    child = with_timeout(value, LONG_NS);
    same = with_timeout(value, 100);
    ck_assert_uint_eq(vclock_armed(&vclock), 1); /* One timer does for all. */
    ck_assert_int_eq(cf_ctx_deadline_ns(child), VCLOCK_START_NS + 100);
    vclock_advance(&vclock, 100);
    assert_done(parent, CF_EDEADLINE, CF_REASON_DEADLINE);
    assert_done(value, CF_EDEADLINE, CF_REASON_DEADLINE);
    assert_done(child, CF_EDEADLINE, CF_REASON_DEADLINE);
    assert_done(same, CF_EDEADLINE, CF_REASON_DEADLINE);
    cf_ctx_free(same);
    cf_ctx_free(child);
    cf_ctx_free(value);
    cf_ctx_free(parent);
    vclock_stop(&vclock);
}
END_ONBOTH

START_ONBOTH(with_deadline_earlier_than_the_parents_leaves_the_parent)
{
    struct cf_ctx *parent;
    struct cf_ctx *child;
    struct cf_ctx *grandchild;

    vclock_start(&vclock);
    parent = with_timeout(cf_ctx_background(), 200);
    child = with_timeout(parent, 100);
    grandchild = with_cancel(child);
    ck_assert_int_eq(cf_ctx_deadline_ns(grandchild), VCLOCK_START_NS + 100);
    vclock_advance(&vclock, 100);
    assert_done(child, CF_EDEADLINE, CF_REASON_DEADLINE);
    assert_done(grandchild, CF_EDEADLINE, CF_REASON_DEADLINE);
    assert_live(parent);
    vclock_advance(&vclock, 100);
    assert_done(parent, CF_EDEADLINE, CF_REASON_DEADLINE);
    cf_ctx_free(grandchild);
    cf_ctx_free(child);
    cf_ctx_free(parent);
    vclock_stop(&vclock);
}
END_ONBOTH

/* Go: TestDeadline: in the past, and now. */
START_ONBOTH(with_deadline_that_has_passed_is_done_from_birth)
{
    static const int64_t passed_ns[] = {VCLOCK_START_NS, VCLOCK_START_NS - 1, 0, -1, INT64_MIN};
    struct cf_ctx *parent;

    vclock_start(&vclock);
    parent = with_cancel(cf_ctx_background());
    for (size_t i = 0; i < sizeof(passed_ns) / sizeof(passed_ns[0]); i++) {
        struct cf_ctx *ctx = with_deadline(parent, passed_ns[i]);

        ck_assert_uint_eq(vclock_armed(&vclock), 0);
        ck_assert_int_eq(cf_ctx_deadline_ns(ctx), passed_ns[i]);
        assert_done(ctx, CF_EDEADLINE, CF_REASON_DEADLINE);
        cf_ctx_free(ctx);
    }
    assert_live(parent);
    cf_ctx_free(parent);
    vclock_stop(&vclock);
}
END_ONBOTH

START_ONBOTH(with_deadline_of_a_canceled_parent_takes_the_parents_cause)
{
    struct cf_ctx *parent;

    vclock_start(&vclock);
    parent = with_cancel(cf_ctx_background());
    cf_ctx_cancel_cause(parent, CF_REASON_SHUTDOWN, &because);
    for (int64_t timeout_ns = -1; timeout_ns <= 1; timeout_ns++) {
        struct cf_ctx *child = with_timeout(parent, timeout_ns);

        ck_assert_uint_eq(vclock_armed(&vclock), 0);
        assert_done(child, CF_ECANCELED, CF_REASON_SHUTDOWN);
        ck_assert_str_eq(cause_text(child), "because");
        cf_ctx_free(child);
    }
    cf_ctx_free(parent);
    vclock_stop(&vclock);
}
END_ONBOTH

/* Go: TestCanceledTimeout */
START_ONBOTH(with_timeout_canceled_is_canceled_and_not_late)
{
    struct cf_ctx *parent;
    struct cf_ctx *value;
    struct cf_ctx *child;

    vclock_start(&vclock);
    parent = with_timeout(cf_ctx_background(), LONG_NS);
    value = with_value(parent, &key_a, NULL);
    child = with_timeout(value, CF_SECOND);
    ck_assert_uint_eq(vclock_armed(&vclock), 2);
    cf_ctx_cancel(child);
    ck_assert_uint_eq(vclock_armed(&vclock), 1);
    assert_done(child, CF_ECANCELED, CF_REASON_CANCELED);
    vclock_advance(&vclock, 2 * CF_SECOND);
    assert_done(child, CF_ECANCELED, CF_REASON_CANCELED); /* Done is for ever, and as it was. */
    assert_live(parent);
    cf_ctx_free(child);
    cf_ctx_free(value);
    cf_ctx_free(parent);
    vclock_stop(&vclock);
}
END_ONBOTH

START_ONBOTH(with_timeout_of_for_ever_has_no_deadline)
{
    static const int64_t timeouts_ns[] = {CF_NEVER, CF_NEVER - VCLOCK_START_NS};

    vclock_start(&vclock);
    for (int i = 0; i < 2; i++) {
        struct cf_ctx *ctx = with_timeout(cf_ctx_background(), timeouts_ns[i]);

        ck_assert_int_eq(cf_ctx_deadline_ns(ctx), CF_NEVER);
        ck_assert_int_eq(cf_ctx_remaining_ns(ctx), CF_NEVER);
        ck_assert_uint_eq(vclock_armed(&vclock), 0);
        assert_live(ctx);
        cf_ctx_free(ctx);
    }
    vclock_stop(&vclock);
}
END_ONBOTH

START_ONBOTH(with_timeout_negative_is_done_from_birth)
{
    static const int64_t timeouts_ns[] = {-1, INT64_MIN};

    vclock_start(&vclock);
    for (int i = 0; i < 2; i++) {
        struct cf_ctx *ctx = with_timeout(cf_ctx_background(), timeouts_ns[i]);

        assert_done(ctx, CF_EDEADLINE, CF_REASON_DEADLINE);
        cf_ctx_free(ctx);
    }
    vclock_stop(&vclock);
}
END_ONBOTH

/* Go: TestDeadline, TestTimeout on the real clock: the timer thread's, and the loop's. */
START_ONBOTH(with_timeout_on_the_real_clock_is_never_early)
{
    int64_t before_ns = cf_now_ns();
    struct cf_ctx *ctx = with_timeout(cf_ctx_background(), 20 * CF_MS);
    struct cf_cause cause;

    wait_done(ctx);
    ck_assert_int_ge(cf_now_ns(), before_ns + 20 * CF_MS);
    assert_done(ctx, CF_EDEADLINE, CF_REASON_DEADLINE);
    ck_assert(cf_ctx_cause(ctx, &cause));
    ck_assert_int_ge(cause.at_ns, cf_ctx_deadline_ns(ctx));
    ck_assert_int_lt(cause.at_ns, cf_ctx_deadline_ns(ctx) + 20 * CF_SECOND);
    cf_ctx_free(ctx);
}
END_ONBOTH

/* A context made under one clock lives by that, wherever it is looked at. */
START_ONBOTH(with_deadline_keeps_the_clock_it_was_made_under)
{
    struct cf_ctx *ctx;
    struct cf_ctx *child;
    struct cf_timer_source *own;

    vclock_start(&vclock);
    ctx = with_timeout(cf_ctx_background(), 100);
    own = cf_timer_source_use(vclock.before); /* As another thread would. */
    child = with_cancel(ctx);
    ck_assert_int_eq(cf_ctx_remaining_ns(child), 100);
    assert_live(child);
    vclock_advance(&vclock, 100);
    assert_done(child, CF_EDEADLINE, CF_REASON_DEADLINE);
    cf_ctx_free(child);
    cf_ctx_free(ctx);
    (void)cf_timer_source_use(own);
    vclock_stop(&vclock);
}
END_ONBOTH

/* with_deadline_cause */

START_ONBOTH(with_deadline_cause_is_the_cause_if_late)
{
    struct cf_err why = too_slow;
    struct cf_ctx *ctx;
    struct cf_ctx *child;
    struct cf_cause cause;

    vclock_start(&vclock);
    ctx = with_deadline_cause(cf_ctx_background(), VCLOCK_START_NS + 1, &why);
    child = with_cancel(ctx);
    memset(&why, 'x', sizeof(why)); /* It was copied. */
    vclock_advance(&vclock, 1);
    assert_done(ctx, CF_EDEADLINE, CF_REASON_DEADLINE);
    ck_assert(cf_ctx_cause(child, &cause));
    ck_assert_int_eq(cause.err.code, CF_ELIMIT);
    ck_assert_str_eq(cause.err.msg, "too slow");
    cf_ctx_free(child);
    cf_ctx_free(ctx);
    vclock_stop(&vclock);
}
END_ONBOTH

START_ONBOTH(with_deadline_cause_is_not_the_cause_of_the_parents_deadline)
{
    struct cf_ctx *parent;
    struct cf_ctx *ctx;

    vclock_start(&vclock);
    parent = with_timeout(cf_ctx_background(), 1);
    ctx = with_deadline_cause(parent, VCLOCK_START_NS + 1, &too_slow);
    vclock_advance(&vclock, 1);
    assert_done(ctx, CF_EDEADLINE, CF_REASON_DEADLINE);
    ck_assert_str_eq(cause_text(ctx), "context deadline exceeded");
    cf_ctx_free(ctx);
    cf_ctx_free(parent);
    vclock_stop(&vclock);
}
END_ONBOTH

/* with_value */

static void assert_values(struct cf_ctx *ctx, const char *a, const char *b, const char *c)
{
    ck_assert_pstr_eq(cf_ctx_value(ctx, &key_a), a);
    ck_assert_pstr_eq(cf_ctx_value(ctx, &key_b), b);
    ck_assert_pstr_eq(cf_ctx_value(ctx, &key_c), c);
}

/* Go: TestValues */
START_ONBOTH(with_value_nearest_wins_and_null_hides)
{
    struct cf_ctx *one = with_value(cf_ctx_background(), &key_a, "1a");
    struct cf_ctx *two = with_value(one, &key_b, "2b");
    struct cf_ctx *scope = with_cancel(two);
    struct cf_ctx *three = with_value(scope, &key_c, "3c");
    struct cf_ctx *four = with_value(three, &key_a, NULL);
    struct cf_ctx *apart = without_cancel(four);
    struct cf_ctx *five = with_value(apart, &key_c, "5c");
    struct cf_ctx *six = with_value(five, &key_c, NULL);

    assert_values(cf_ctx_background(), NULL, NULL, NULL);
    assert_values(one, "1a", NULL, NULL);
    assert_values(two, "1a", "2b", NULL);
    assert_values(scope, "1a", "2b", NULL);
    assert_values(three, "1a", "2b", "3c");
    assert_values(four, NULL, "2b", "3c");
    assert_values(apart, NULL, "2b", "3c");
    assert_values(five, NULL, "2b", "5c");
    assert_values(six, NULL, "2b", NULL);
    cf_ctx_cancel(scope);
    assert_values(four, NULL, "2b", "3c"); /* Values do not end. */
    cf_ctx_free(one);
    cf_ctx_free(two);
    cf_ctx_free(three);
    cf_ctx_free(four);
    cf_ctx_free(apart);
    assert_values(five, NULL, "2b", "5c");
    cf_ctx_free(scope);
    cf_ctx_free(five);
    assert_values(six, NULL, "2b", NULL);
    cf_ctx_free(six);
}
END_ONBOTH

START_ONBOTH(with_value_has_the_deadline_of_its_parent)
{
    struct cf_ctx *parent;
    struct cf_ctx *ctx;

    vclock_start(&vclock);
    parent = with_timeout(cf_ctx_background(), 100);
    ctx = with_value(parent, &key_a, "a");
    ck_assert_int_eq(cf_ctx_deadline_ns(ctx), VCLOCK_START_NS + 100);
    ck_assert_int_eq(cf_ctx_remaining_ns(ctx), 100);
    cf_ctx_free(ctx); /* Ends nothing: a context of value has nothing to end. */
    assert_live(parent);
    cf_ctx_free(parent);
    vclock_stop(&vclock);
}
END_ONBOTH

/* Go: TestWithValueChecksKey. Comparable types are a matter of Go's; here a key is an address. */
START_TEST(with_value_without_a_key_asserts)
{
    (void)with_value(cf_ctx_background(), NULL, "value");
}
END_TEST

START_ONBOTH(with_value_long_chain_is_freed_without_recursion)
{
    static char keys[DEEP];
    static struct cf_ctx *chain[DEEP];
    struct cf_ctx *ctx = cf_ctx_background();

    for (int i = 0; i < DEEP; i++) {
        chain[i] = ctx = with_value(ctx, &keys[i], &keys[i]);
    }
    for (int i = 0; i < DEEP; i += 999) {
        ck_assert_ptr_eq(cf_ctx_value(ctx, &keys[i]), &keys[i]);
    }
    for (int i = 0; i < DEEP; i++) {
        cf_ctx_free(chain[i]); /* The last one holds all others. */
    }
}
END_ONBOTH

/* without_cancel */

/* Go: TestWithoutCancel */
START_ONBOTH(without_cancel_keeps_values_only)
{
    struct cf_ctx *parent;
    struct cf_ctx *value;
    struct cf_ctx *ctx;
    struct cf_cause cause;
    int fd;

    vclock_start(&vclock);
    parent = with_timeout(cf_ctx_background(), 1);
    value = with_value(parent, &key_a, "a");
    ctx = without_cancel(value);
    vclock_advance(&vclock, 1);
    assert_done(value, CF_EDEADLINE, CF_REASON_DEADLINE);
    ck_assert_int_eq(cf_ctx_deadline_ns(ctx), CF_NEVER);
    ck_assert_int_eq(cf_ctx_remaining_ns(ctx), CF_NEVER);
    ck_assert_int_eq(cf_ctx_done_fd(ctx, &fd, &err), CF_EINVAL);
    ck_assert_int_eq(cf_ctx_err(ctx), CF_OK);
    ck_assert(!cf_ctx_cause(ctx, &cause));
    ck_assert_str_eq(cf_ctx_value(ctx, &key_a), "a");
    cf_ctx_free(value);
    cf_ctx_free(parent);
    ck_assert_str_eq(cf_ctx_value(ctx, &key_a), "a");
    cf_ctx_free(ctx);
    vclock_stop(&vclock);
}
END_ONBOTH

START_ONBOTH(without_cancel_children_end_by_themselves)
{
    struct cf_ctx *parent;
    struct cf_ctx *apart;
    struct cf_ctx *child;

    vclock_start(&vclock);
    parent = with_timeout(cf_ctx_background(), 10);
    apart = without_cancel(parent);
    child = with_timeout(apart, 20);
    ck_assert_int_eq(cf_ctx_deadline_ns(child), VCLOCK_START_NS + 20);
    cf_ctx_cancel(parent);
    assert_live(child);
    vclock_advance(&vclock, 20);
    assert_done(child, CF_EDEADLINE, CF_REASON_DEADLINE);
    cf_ctx_free(child);
    cf_ctx_free(apart);
    cf_ctx_free(parent);
    vclock_stop(&vclock);
}
END_ONBOTH

/* free, ref, unref */

START_ONBOTH(free_cancels_what_is_kept)
{
    struct cf_ctx *ctx;
    struct cf_ctx *child;
    struct cf_cause cause;

    vclock_start(&vclock);
    ctx = with_timeout(cf_ctx_background(), 100);
    child = with_cancel(ctx);
    ck_assert_ptr_eq(cf_ctx_ref(ctx), ctx);
    vclock_advance(&vclock, 30);
    cf_ctx_free(ctx);
    ck_assert_uint_eq(vclock_armed(&vclock), 0);
    assert_done(ctx, CF_ECANCELED, CF_REASON_CANCELED);
    assert_done(child, CF_ECANCELED, CF_REASON_CANCELED);
    ck_assert(cf_ctx_cause(ctx, &cause));
    ck_assert_str_eq(cause.err.msg, "context canceled");
    ck_assert_int_eq(cause.at_ns, VCLOCK_START_NS + 30);
    ck_assert_int_eq(cause.budget_ns, 70);
    cf_ctx_unref(ctx);
    cf_ctx_free(child);
    vclock_stop(&vclock);
}
END_ONBOTH

START_ONBOTH(free_of_what_is_done_keeps_its_cause)
{
    struct cf_ctx *ctx = with_cancel(cf_ctx_background());

    cf_ctx_cancel_cause(ctx, CF_REASON_OPERATOR, &because);
    (void)cf_ctx_ref(ctx);
    cf_ctx_free(ctx);
    assert_done(ctx, CF_ECANCELED, CF_REASON_OPERATOR);
    ck_assert_str_eq(cause_text(ctx), "because");
    cf_ctx_unref(ctx);
}
END_ONBOTH

START_ONBOTH(free_and_unref_of_null_do_nothing)
{
    cf_ctx_free(NULL);
    cf_ctx_unref(NULL);
}
END_ONBOTH

START_ONBOTH(ref_of_a_value_keeps_what_it_is_made_from)
{
    struct cf_ctx *parent = with_cancel(cf_ctx_background());
    struct cf_ctx *value = with_value(parent, &key_a, "a");

    (void)cf_ctx_ref(value);
    cf_ctx_free(value);
    cf_ctx_free(parent);
    assert_done(value, CF_ECANCELED, CF_REASON_CANCELED);
    ck_assert_str_eq(cf_ctx_value(value, &key_a), "a");
    cf_ctx_unref(value);
}
END_ONBOTH

/* out of memory */

/* Every way to make a context, as a function of the same shape. */
enum way {
    CANCEL,
    DEADLINE,
    TIMEOUT,
    DEADLINE_CAUSE,
    VALUE,
    WITHOUT_CANCEL,
    WAYS
};

static enum cf_code make(enum way way, struct cf_ctx *parent, struct cf_ctx **out,
                         struct cf_err *out_err)
{
    switch (way) {
    case CANCEL:
        return cf_ctx_with_cancel(parent, out, out_err);
    case DEADLINE:
        return cf_ctx_with_deadline(parent, VCLOCK_START_NS + 1, out, out_err);
    case TIMEOUT:
        return cf_ctx_with_timeout(parent, 1, out, out_err);
    case DEADLINE_CAUSE:
        return cf_ctx_with_deadline_cause(parent, VCLOCK_START_NS + 1, &too_slow, out, out_err);
    case VALUE:
        return cf_ctx_with_value(parent, &key_a, NULL, out, out_err);
    case WITHOUT_CANCEL:
        return cf_ctx_without_cancel(parent, out, out_err);
    case WAYS:
        break;
    }
    ck_abort_msg("no such way");
    return CF_OK;
}

START_ONBOTH(out_of_memory_makes_nothing_and_changes_nothing)
{
    /* The context; and for a deadline the place in the heap; and for its cause a copy. */
    static const unsigned allocations[WAYS] = {1, 2, 2, 3, 1, 1};

    for (enum way way = CANCEL; way < WAYS; way++) {
        struct cf_ctx *parent;
        struct cf_ctx *ctx;
        unsigned nth = 1;

        vclock_start(&vclock); /* Anew, because an empty heap allocates. */
        parent = with_cancel(cf_ctx_background());
        for (;; nth++) {
            enum cf_code code;

            ctx = NULL;
            fault_alloc(nth, false);
            code = make(way, parent, &ctx, &err);
            if (!fault_off()) {
                ck_assert_int_eq(code, CF_OK);
                break;
            }
            ck_assert_int_eq(code, CF_ENOMEM);
            ck_assert_int_eq(err.code, CF_ENOMEM);
            ck_assert_ptr_null(ctx);
            ck_assert_uint_eq(vclock_armed(&vclock), 0);
            assert_live(parent);

            fault_alloc(nth, false);
            code = make(way, parent, &ctx, NULL);
            (void)fault_off();
            ck_assert_int_eq(code, CF_ENOMEM);
        }
        ck_assert_uint_eq(nth - 1, allocations[way]);
        ck_assert_int_eq(cf_ctx_err(ctx), CF_OK);
        cf_ctx_cancel(parent);
        ck_assert_int_eq(cf_ctx_err(ctx), way == WITHOUT_CANCEL ? CF_OK : CF_ECANCELED);
        cf_ctx_free(ctx);
        cf_ctx_free(parent);
        vclock_stop(&vclock);
    }
}
END_ONBOTH

/* A context's life, from its making to its free, and how it ends. */
struct life {
    enum way way;
    int64_t timeout_ns; /* Of TIMEOUT. */
    bool cancel;
    enum cf_code end;
    unsigned allocations_max;
};

static enum cf_code live(const struct life *life)
{
    struct cf_ctx *background = cf_ctx_background();
    struct cf_ctx *ctx = NULL;
    enum cf_code code = life->way == TIMEOUT
                            ? cf_ctx_with_timeout(background, life->timeout_ns, &ctx, NULL)
                            : make(life->way, background, &ctx, NULL);

    if (code != CF_OK) {
        return code;
    }
    (void)cf_ctx_value(ctx, &key_a);
    if (life->cancel) {
        cf_ctx_cancel(ctx);
    }
    if (life->end != CF_OK) {
        code = cf_wait_done(background, ctx, NULL);
    }
    if (code == CF_OK) {
        code = cf_ctx_check(ctx, &err);
    }
    cf_ctx_free(ctx);
    return code;
}

/* Go: TestAllocs. A context is used, ended and freed without more memory than it was made with. */
START_ONBOTH(allocations_of_a_life_are_those_of_its_making)
{
    static const struct life lives[] = {
        {VALUE, 0, false, CF_OK, 1},
        {TIMEOUT, 1, false, CF_EDEADLINE, 2},
        {CANCEL, 0, true, CF_ECANCELED, 1},
        {TIMEOUT, LONG_NS, true, CF_ECANCELED, 2},
    };

    for (size_t i = 0; i < sizeof(lives) / sizeof(lives[0]); i++) {
        enum cf_code code;
        bool struck;

        fault_alloc(lives[i].allocations_max + 1, true);
        code = live(&lives[i]);
        struck = fault_off();
        ck_assert_msg(!struck, "life %zu: more than %u", i, lives[i].allocations_max);
        ck_assert_int_eq(code, lives[i].end);
    }
}
END_ONBOTH

/* Go: TestInvalidDerivedFail */
START_TEST(with_parent_of_null_asserts)
{
    struct cf_ctx *ctx;

    (void)!make((enum way)_i, NULL, &ctx, NULL);
}
END_TEST

static TCase *add(Suite *suite, const char *name)
{
    TCase *tc = tcase_create(name);

    tcase_set_timeout(tc, 30);
    suite_add_tcase(suite, tc);
    return tc;
}

Suite *suite_ctx(void)
{
    Suite *suite = suite_create("ctx");
    TCase *tc;

    tc = add(suite, "background");
    tcase_add_onboth(tc, background_is_never_done);
    tcase_add_onboth(tc, background_free_and_unref_do_nothing);

    tc = add(suite, "with_cancel");
    tcase_add_onboth(tc, with_cancel_canceled_is_done_with_all_below);
    tcase_add_onboth(tc, with_cancel_parent_finishes_child);
    tcase_add_onboth(tc, with_cancel_child_finishes_first);
    tcase_add_onboth(tc, with_cancel_of_a_canceled_parent_is_done_from_birth);

    tc = add(suite, "with_deadline");
    tcase_add_onboth(tc, with_deadline_fires_at_its_time_and_not_before);
    tcase_add_onboth(tc, with_deadline_later_than_the_parents_ends_with_it);
    tcase_add_onboth(tc, with_deadline_earlier_than_the_parents_leaves_the_parent);
    tcase_add_onboth(tc, with_deadline_that_has_passed_is_done_from_birth);
    tcase_add_onboth(tc, with_deadline_of_a_canceled_parent_takes_the_parents_cause);
    tcase_add_onboth(tc, with_timeout_canceled_is_canceled_and_not_late);
    tcase_add_onboth(tc, with_timeout_of_for_ever_has_no_deadline);
    tcase_add_onboth(tc, with_timeout_negative_is_done_from_birth);
    tcase_add_onboth(tc, with_timeout_on_the_real_clock_is_never_early);
    tcase_add_onboth(tc, with_deadline_keeps_the_clock_it_was_made_under);
    tcase_add_onboth(tc, with_deadline_cause_is_the_cause_if_late);
    tcase_add_onboth(tc, with_deadline_cause_is_not_the_cause_of_the_parents_deadline);

    tc = add(suite, "with_value");
    tcase_add_onboth(tc, with_value_nearest_wins_and_null_hides);
    tcase_add_onboth(tc, with_value_has_the_deadline_of_its_parent);
    tcase_add_onboth(tc, with_value_long_chain_is_freed_without_recursion);

    tc = add(suite, "without_cancel");
    tcase_add_onboth(tc, without_cancel_keeps_values_only);
    tcase_add_onboth(tc, without_cancel_children_end_by_themselves);

    tc = add(suite, "free");
    tcase_add_onboth(tc, free_cancels_what_is_kept);
    tcase_add_onboth(tc, free_of_what_is_done_keeps_its_cause);
    tcase_add_onboth(tc, free_and_unref_of_null_do_nothing);
    tcase_add_onboth(tc, ref_of_a_value_keeps_what_it_is_made_from);

    tc = add(suite, "out_of_memory");
    tcase_add_onboth(tc, out_of_memory_makes_nothing_and_changes_nothing);
    tcase_add_onboth(tc, allocations_of_a_life_are_those_of_its_making);

    tc = add(suite, "asserts");
    tcase_set_tags(tc, "fork");
    tcase_add_test_raise_signal(tc, with_value_without_a_key_asserts, SIGABRT);
    tcase_add_loop_test_raise_signal(tc, with_parent_of_null_asserts, SIGABRT, 0, WAYS);
    return suite;
}
