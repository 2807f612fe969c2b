/* SPDX-License-Identifier: MIT */
/* What is called when a context ends. See test_ctx.c. */
#include <curfew/ctx.h>

#include <check.h>
#include <pthread.h>
#include <string.h>

#include <curfew/loop.h>
#include <curfew/wait.h>

#include "ctx_kit.h"
#include "fault.h"
#include "onboth.h"

/* Helpers */

/* What is called, and what it saw. */
struct call {
    struct cf_ctx_after *after; /* Its handle, if it shall stop itself. */
    struct cf_ctx *wait_for;    /* What it waits for, or NULL. */
    struct cf_ctx *begun;       /* Done once it is called. */
    struct cf_ctx *ended;       /* Done once it has seen everything below. */
    atomic_uint times;
    pthread_t thread;
    struct cf_loop *loop;
    bool on_fiber;
    bool prevented; /* What stopping itself said. */
};

static void call_init(struct call *call)
{
    memset(call, 0, sizeof(*call));
    call->begun = with_cancel(cf_ctx_background());
    call->ended = with_cancel(cf_ctx_background());
}

static void call_fini(struct call *call)
{
    cf_ctx_free(call->begun);
    cf_ctx_free(call->ended);
}

/* `call` may be gone once `ended` is done: a reference keeps that
 * until cancelling it has returned. */
static void be_called(void *arg)
{
    struct call *call = arg;
    struct cf_ctx *ended = cf_ctx_ref(call->ended);

    (void)atomic_fetch_add(&call->times, 1);
    call->thread = pthread_self();
    call->loop = cf_loop_current();
    call->on_fiber = cf_on_fiber();
    cf_ctx_cancel(call->begun);
    if (call->after != NULL) {
        call->prevented = cf_ctx_after_stop(call->after);
    }
    if (call->wait_for != NULL) {
        wait_done(call->wait_for);
    }
    cf_ctx_cancel(ended);
    cf_ctx_unref(ended);
}

static struct cf_ctx_after *after(struct cf_ctx *ctx, struct call *call)
{
    struct cf_ctx_after *handle = NULL;

    ck_assert_int_eq(cf_ctx_after(ctx, be_called, call, &handle, &err), CF_OK);
    ck_assert_ptr_nonnull(handle);
    return handle;
}

/* Wait until all calls that were due before now have been made: they are made in order, and this
 * one is the last. */
static void wait_calls(void)
{
    struct cf_ctx *done = with_timeout(cf_ctx_background(), 0);
    struct cf_ctx_after *handle;
    struct call last;

    call_init(&last);
    handle = after(done, &last);
    wait_done(last.ended);
    ck_assert(!cf_ctx_after_stop(handle));
    call_fini(&last);
    cf_ctx_free(done);
}

/* after */

/* Go: TestAfterFuncCalledAfterCancel */
START_ONBOTH(after_is_called_when_canceled_and_not_before)
{
    struct cf_ctx *ctx = with_cancel(cf_ctx_background());
    struct cf_ctx_after *handle;
    struct call call;

    call_init(&call);
    handle = after(ctx, &call);
    wait_calls();
    ck_assert_uint_eq(call.times, 0);
    cf_ctx_cancel(ctx);
    wait_done(call.ended);
    ck_assert(!cf_ctx_after_stop(handle));
    cf_ctx_cancel(ctx);
    cf_ctx_free(ctx);
    wait_calls();
    ck_assert_uint_eq(call.times, 1);
    call_fini(&call);
}
END_ONBOTH

/* Go: TestAfterFuncCalledAfterTimeout */
START_ONBOTH(after_is_called_when_time_is_out)
{
    struct cf_ctx *ctx = with_timeout(cf_ctx_background(), CF_MS);
    struct cf_ctx_after *handle;
    struct call call;

    call_init(&call);
    handle = after(ctx, &call);
    wait_done(call.ended);
    ck_assert(!cf_ctx_after_stop(handle));
    assert_done(ctx, CF_EDEADLINE, CF_REASON_DEADLINE);
    cf_ctx_free(ctx);
    call_fini(&call);
}
END_ONBOTH

/* Go: TestAfterFuncCalledImmediately */
START_ONBOTH(after_of_what_is_done_is_called_at_once)
{
    struct cf_ctx *parent = with_cancel(cf_ctx_background());
    struct cf_ctx *child = with_cancel(parent);
    struct cf_ctx_after *handle;
    struct call call;

    cf_ctx_cancel(parent);
    call_init(&call);
    handle = after(child, &call);
    wait_done(call.ended);
    ck_assert(!cf_ctx_after_stop(handle));
    ck_assert_uint_eq(call.times, 1);
    cf_ctx_free(child);
    cf_ctx_free(parent);
    call_fini(&call);
}
END_ONBOTH

START_ONBOTH(after_a_deadline_that_no_timer_saw_is_called_at_once)
{
    struct cf_ctx_after *handle;
    struct cf_ctx *ctx;
    struct call call;

    call_init(&call);
    vclock_start(&vclock);
    ctx = with_timeout(cf_ctx_background(), 1);
    vclock_stall(&vclock, 1);
    handle = after(ctx, &call);
    wait_done(call.ended);
    ck_assert(!cf_ctx_after_stop(handle));
    cf_ctx_free(ctx);
    vclock_stop(&vclock);
    call_fini(&call);
}
END_ONBOTH

/* Go: TestAfterFuncCalledAsynchronously */
START_ONBOTH(after_is_not_waited_for_by_cancel)
{
    struct cf_ctx *ctx = with_cancel(cf_ctx_background());
    struct cf_ctx *canceled = with_cancel(cf_ctx_background());
    struct cf_ctx_after *handle;
    struct call call;

    call_init(&call);
    call.wait_for = canceled;
    handle = after(ctx, &call);
    cf_ctx_cancel(ctx);
    ck_assert_int_eq(cf_ctx_err(call.ended), CF_OK); /* It cannot end before the next line. */
    cf_ctx_cancel(canceled);
    wait_done(call.ended);
    ck_assert(!cf_ctx_after_stop(handle));
    cf_ctx_free(canceled);
    cf_ctx_free(ctx);
    call_fini(&call);
}
END_ONBOTH

START_ONBOTH(after_runs_as_a_fiber_of_its_loop_or_on_the_timer_thread)
{
    struct cf_loop *loop = cf_loop_current();
    struct cf_ctx *ctx = with_cancel(cf_ctx_background());
    struct cf_ctx_after *handle;
    struct call call;

    call_init(&call);
    handle = after(ctx, &call);
    cf_ctx_cancel(ctx);
    wait_done(call.ended);
    ck_assert_ptr_eq(call.loop, loop);
    ck_assert_int_eq(call.on_fiber, loop != NULL);
    ck_assert_int_eq(pthread_equal(call.thread, pthread_self()) != 0, loop != NULL);
    ck_assert(!cf_ctx_after_stop(handle));
    cf_ctx_free(ctx);
    call_fini(&call);
}
END_ONBOTH

static void *cancel_on_thread(void *arg)
{
    cf_ctx_cancel((struct cf_ctx *)arg);
    return NULL;
}

/* Where it was asked for counts, and not who cancels. */
START_ONBOTH(after_runs_where_it_was_asked_for)
{
    struct cf_loop *loop = cf_loop_current();
    struct cf_ctx *ctx = with_cancel(cf_ctx_background());
    struct cf_ctx_after *handle;
    pthread_t thread;
    struct call call;

    call_init(&call);
    handle = after(ctx, &call);
    ck_assert_int_eq(pthread_create(&thread, NULL, cancel_on_thread, ctx), 0);
    wait_done(call.ended);
    ck_assert_ptr_eq(call.loop, loop);
    ck_assert(!pthread_equal(call.thread, thread));
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert(!cf_ctx_after_stop(handle));
    cf_ctx_free(ctx);
    call_fini(&call);
}
END_ONBOTH

/* A source that cannot defer leaves it to the timer thread. */
START_ONBOTH(after_under_a_virtual_clock_runs_on_the_timer_thread)
{
    struct cf_ctx_after *handle;
    struct cf_ctx *ctx;
    struct call call;

    call_init(&call);
    vclock_start(&vclock);
    ctx = with_timeout(cf_ctx_background(), 1);
    handle = after(ctx, &call);
    vclock_advance(&vclock, 1);
    wait_done(call.ended);
    ck_assert_ptr_null(call.loop);
    ck_assert(!pthread_equal(call.thread, pthread_self()));
    ck_assert(!cf_ctx_after_stop(handle));
    cf_ctx_free(ctx);
    vclock_stop(&vclock);
    call_fini(&call);
}
END_ONBOTH

START_ONBOTH(after_keeps_its_context)
{
    struct cf_ctx *parent = with_cancel(cf_ctx_background());
    struct cf_ctx *ctx = with_value(parent, &parent, NULL);
    struct cf_ctx_after *handle;
    struct call call;

    call_init(&call);
    handle = after(ctx, &call);
    cf_ctx_free(ctx);
    cf_ctx_free(parent); /* Cancels, too. */
    wait_done(call.ended);
    ck_assert(!cf_ctx_after_stop(handle));
    call_fini(&call);
}
END_ONBOTH

START_ONBOTH(after_many_all_are_called)
{
    enum {
        MANY = 200
    };
    static struct call calls[MANY];
    static struct cf_ctx_after *handles[MANY];
    struct cf_ctx *ctx = with_cancel(cf_ctx_background());

    for (int i = 0; i < MANY; i++) {
        call_init(&calls[i]);
        handles[i] = after(ctx, &calls[i]);
    }
    for (int i = 0; i < MANY; i += 2) {
        ck_assert(cf_ctx_after_stop(handles[i]));
    }
    cf_ctx_cancel(ctx);
    wait_calls();
    for (int i = 0; i < MANY; i++) {
        ck_assert_uint_eq(calls[i].times, i % 2);
        ck_assert(i % 2 == 0 || !cf_ctx_after_stop(handles[i]));
        call_fini(&calls[i]);
    }
    cf_ctx_free(ctx);
}
END_ONBOTH

START_ONBOTH(after_out_of_memory_is_never_called)
{
    struct cf_ctx *live = with_cancel(cf_ctx_background());
    struct cf_ctx *done = with_timeout(cf_ctx_background(), 0);
    struct cf_ctx *ctxs[] = {live, done};
    struct call call;

    call_init(&call);
    for (int i = 0; i < 2; i++) {
        struct cf_ctx_after *handle = NULL;
        enum cf_code code;

        fault_alloc(1, false);
        code = cf_ctx_after(ctxs[i], be_called, &call, &handle, &err);
        ck_assert(fault_off());
        ck_assert_int_eq(code, CF_ENOMEM);
        ck_assert_int_eq(err.code, CF_ENOMEM);
        ck_assert_ptr_null(handle);
    }
    cf_ctx_free(live);
    cf_ctx_free(done);
    wait_calls();
    ck_assert_uint_eq(call.times, 0);
    call_fini(&call);
}
END_ONBOTH

/* Go: TestInterlockedCancels. Who is told of the parent's end cancels the child, which is being
 * cancelled. */
static void cancel_it(void *arg)
{
    struct cf_ctx *ctx = cf_ctx_ref(arg);

    cf_ctx_cancel(ctx);
    cf_ctx_unref(ctx);
}

START_ONBOTH(after_the_parent_its_child_may_be_canceled)
{
    struct cf_ctx *parent = with_cancel(cf_ctx_background());
    struct cf_ctx *child = with_cancel(parent);
    struct cf_ctx *called = with_cancel(cf_ctx_background());
    struct cf_ctx_after *first;
    struct cf_ctx_after *then;

    ck_assert_int_eq(cf_ctx_after(parent, cancel_it, child, &first, &err), CF_OK);
    ck_assert_int_eq(cf_ctx_after(parent, cancel_it, called, &then, &err), CF_OK);
    cf_ctx_cancel(parent);
    wait_done(child);
    wait_done(called);
    ck_assert(!cf_ctx_after_stop(first));
    ck_assert(!cf_ctx_after_stop(then));
    cf_ctx_free(called);
    cf_ctx_free(child);
    cf_ctx_free(parent);
}
END_ONBOTH

/* stop */

/* Go: TestAfterFuncNotCalledAfterStop */
START_ONBOTH(stop_prevents_the_call)
{
    struct cf_ctx *ctx = with_cancel(cf_ctx_background());
    struct call call;

    call_init(&call);
    ck_assert(cf_ctx_after_stop(after(ctx, &call)));
    cf_ctx_cancel(ctx);
    wait_calls();
    ck_assert_uint_eq(call.times, 0);
    cf_ctx_free(ctx);
    call_fini(&call);
}
END_ONBOTH

START_ONBOTH(stop_from_within_the_call_says_that_it_is_too_late)
{
    struct cf_ctx *ctx = with_cancel(cf_ctx_background());
    struct call call;

    call_init(&call);
    call.prevented = true;
    call.after = after(ctx, &call);
    cf_ctx_cancel(ctx);
    wait_done(call.ended);
    ck_assert(!call.prevented);
    ck_assert_uint_eq(call.times, 1);
    cf_ctx_free(ctx);
    call_fini(&call);
}
END_ONBOTH

START_ONBOTH(stop_while_it_is_called_does_not_wait)
{
    struct cf_ctx *ctx = with_cancel(cf_ctx_background());
    struct cf_ctx *stopped = with_cancel(cf_ctx_background());
    struct cf_ctx_after *handle;
    struct call call;

    call_init(&call);
    call.wait_for = stopped;
    handle = after(ctx, &call);
    cf_ctx_cancel(ctx);
    wait_done(call.begun);
    ck_assert(!cf_ctx_after_stop(handle));
    ck_assert_int_eq(cf_ctx_err(call.ended), CF_OK); /* It waits for the next line. */
    cf_ctx_cancel(stopped);
    wait_done(call.ended);
    cf_ctx_free(stopped);
    cf_ctx_free(ctx);
    call_fini(&call);
}
END_ONBOTH

START_ONBOTH(stop_of_what_never_ends_prevents_the_call)
{
    struct cf_ctx *parent = with_cancel(cf_ctx_background());
    struct cf_ctx *apart = without_cancel(parent);
    struct call call;

    call_init(&call);
    ck_assert(cf_ctx_after_stop(after(cf_ctx_background(), &call)));
    ck_assert(cf_ctx_after_stop(after(apart, &call)));
    cf_ctx_free(parent);
    cf_ctx_free(apart);
    wait_calls();
    ck_assert_uint_eq(call.times, 0);
    call_fini(&call);
}
END_ONBOTH

static TCase *add(Suite *suite, const char *name)
{
    TCase *tc = tcase_create(name);

    tcase_set_timeout(tc, 30);
    suite_add_tcase(suite, tc);
    return tc;
}

Suite *suite_ctx_after(void)
{
    Suite *suite = suite_create("ctx_after");
    TCase *tc;

    tc = add(suite, "after");
    tcase_add_onboth(tc, after_is_called_when_canceled_and_not_before);
    tcase_add_onboth(tc, after_is_called_when_time_is_out);
    tcase_add_onboth(tc, after_of_what_is_done_is_called_at_once);
    tcase_add_onboth(tc, after_a_deadline_that_no_timer_saw_is_called_at_once);
    tcase_add_onboth(tc, after_is_not_waited_for_by_cancel);
    tcase_add_onboth(tc, after_runs_as_a_fiber_of_its_loop_or_on_the_timer_thread);
    tcase_add_onboth(tc, after_runs_where_it_was_asked_for);
    tcase_add_onboth(tc, after_under_a_virtual_clock_runs_on_the_timer_thread);
    tcase_add_onboth(tc, after_keeps_its_context);
    tcase_add_onboth(tc, after_many_all_are_called);
    tcase_add_onboth(tc, after_out_of_memory_is_never_called);
    tcase_add_onboth(tc, after_the_parent_its_child_may_be_canceled);

    tc = add(suite, "stop");
    tcase_add_onboth(tc, stop_prevents_the_call);
    tcase_add_onboth(tc, stop_from_within_the_call_says_that_it_is_too_late);
    tcase_add_onboth(tc, stop_while_it_is_called_does_not_wait);
    tcase_add_onboth(tc, stop_of_what_never_ends_prevents_the_call);
    return suite;
}
