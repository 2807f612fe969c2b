/* SPDX-License-Identifier: MIT */
/* Once, from plain threads and from fibers, in both its forms. A comment "Go: TestFoo" names the
 * test of Go's sync package whose behaviour is asked for; tests/README.md has all of them. */
#include <curfew/once.h>

#include <check.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/wait.h>

#include "crowd.h"
#include "effort.h"
#include "waits.h"

/* Fixture */

/* What is done once, and what became of it. */
struct job {
    struct cf_ctx *gate; /* Wait for it first; NULL: do not. */
    bool heeds;          /* Its own context, while it waits. */
    enum cf_code code;   /* What it returns. */
    const char *msg;     /* What it says then; NULL: nothing. */
    atomic_int runs;
    struct cf_ctx *ctx; /* Which it was given. */
    int value;          /* Written by it, read by who is told of success. */
};

static struct cf_once once;
static struct job job;
static struct cf_ctx *gate;

static void setup(void)
{
    setup_waits();
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &gate, &failure), CF_OK);
    memset(&once, 0, sizeof(once));
    job = (struct job){.code = CF_OK};
}

static void teardown(void)
{
    cf_ctx_free(gate);
    teardown_waits();
}

/* Helpers */

static enum cf_code work(struct cf_ctx *of, void *arg, struct cf_err *err)
{
    struct job *self = arg;

    self->ctx = of;
    (void)atomic_fetch_add(&self->runs, 1);
    if (self->gate != NULL && self->heeds) {
        enum cf_code code = cf_wait_done(of, self->gate, err);

        if (code != CF_OK) {
            return code;
        }
    } else if (self->gate != NULL) {
        place_wait(self->gate);
    }
    self->value++;
    if (self->msg != NULL) {
        (void)cf_err_set(err, self->code == CF_OK ? CF_EIO : self->code, "%s", self->msg);
    }
    return self->code;
}

static enum cf_code do_once(struct cf_ctx *of, struct call *call)
{
    return cf_once_do(of, &once, work, &job, &call->err);
}

static enum cf_code do_retry(struct cf_ctx *of, struct call *call)
{
    return cf_once_retry(of, &once, work, &job, &call->err);
}

static void call_once(void *arg)
{
    make_call(do_once, arg);
}

static void call_retry(void *arg)
{
    make_call(do_retry, arg);
}

#define FORMS 2

static const place_fn forms[FORMS] = {call_once, call_retry};
static const call_fn form_fns[FORMS] = {do_once, do_retry};

/* A caller that runs the job, and stands at the gate meanwhile. */
struct runner {
    struct call call;
    struct visit visit;
};

static void start_runner(struct runner *runner, int place, place_fn form)
{
    job.gate = gate;
    runner->call = endless();
    runner->call.ctx = cf_ctx_background();
    visit_start(&runner->visit, place, form, &runner->call);
    EVENTUALLY(atomic_load(&job.runs) == 1);
    visit_wait_parked(&runner->visit);
}

static void end_runner(struct runner *runner)
{
    cf_ctx_cancel(gate);
    visit_join(&runner->visit);
}

/* Callers that wait for it, one after the other. */
#define WAITERS 3

struct waiters {
    struct call calls[WAITERS];
    struct visit visits[WAITERS];
};

static void start_waiters(struct waiters *waiters, int place, place_fn form)
{
    for (int i = 0; i < WAITERS; i++) {
        waiters->calls[i] = endless();
        ck_assert_int_eq(cf_ctx_with_cancel(ctx, &waiters->calls[i].ctx, &failure), CF_OK);
        visit_start(&waiters->visits[i], (place + i) % PLACES, form, &waiters->calls[i]);
        visit_wait_parked(&waiters->visits[i]);
    }
}

static void join_waiters(struct waiters *waiters)
{
    for (int i = 0; i < WAITERS; i++) {
        visit_join(&waiters->visits[i]);
        cf_ctx_free(waiters->calls[i].ctx);
    }
}

/* Both forms: it runs once */

/* Go: TestOnceValue, TestOnceValues, and TestOnceFunc without what it allocates. */
START_TEST(once_runs_with_the_callers_context)
{
    struct call call = endless();

    call.fail_nth = 1;
    for (int i = 0; i < 10; i++) {
        place_run(_i % PLACES, forms[_i / PLACES], &call);
        ck_assert_int_eq(call.code, CF_OK);
        ck_assert(!call.struck); /* It needs no memory. */
        ck_assert_int_eq(atomic_load(&job.runs), 1);
        ck_assert_int_eq(job.value, 1);
        ck_assert_ptr_eq(job.ctx, ctx);
    }
}
END_TEST

static void be_one_of_many(void *arg, unsigned *seed)
{
    call_fn fn = *(call_fn *)arg;
    struct call call = {.ctx = cf_ctx_background()};

    (void)seed;
    EXPECT(fn(call.ctx, &call) == CF_OK);
    EXPECT(atomic_load(&job.runs) == 1);
    EXPECT(job.value == 1);
}

/* Go: TestOnce */
START_TEST(once_by_a_crowd_runs_once)
{
    for (int i = 0; i < effort_count(50, 10); i++) {
        memset(&once, 0, sizeof(once));
        job = (struct job){.code = CF_OK};
        crowd_run(be_one_of_many, (void *)&form_fns[_i]);
        ck_assert_int_eq(job.value, 1);
    }
}
END_TEST

START_TEST(once_is_waited_for_by_all_others)
{
    struct runner runner;
    struct waiters waiters;

    start_runner(&runner, _i % PLACES, forms[_i / PLACES]);
    start_waiters(&waiters, _i % PLACES, forms[_i / PLACES]);
    end_runner(&runner);
    join_waiters(&waiters);
    ck_assert_int_eq(runner.call.code, CF_OK);
    for (int i = 0; i < WAITERS; i++) {
        ck_assert_int_eq(waiters.calls[i].code, CF_OK);
    }
    ck_assert_int_eq(atomic_load(&job.runs), 1);
}
END_TEST

/* There is nothing to wait for any more. */
START_TEST(once_that_has_run_does_not_look_at_the_context)
{
    struct call call = endless();

    place_run(_i % PLACES, forms[_i / PLACES], &call);
    cf_ctx_cancel(ctx);
    place_run(_i % PLACES, forms[_i / PLACES], &call);
    ck_assert_int_eq(call.code, CF_OK);
    ck_assert_int_eq(atomic_load(&job.runs), 1);
}
END_TEST

/* What every waiter is told of a failure: all of it. */
START_TEST(once_that_fails_tells_all_who_wait)
{
    struct runner runner;
    struct waiters waiters;

    job.code = CF_EUNAVAIL;
    job.msg = "no route to the database";
    start_runner(&runner, _i % PLACES, forms[_i / PLACES]);
    start_waiters(&waiters, _i % PLACES, forms[_i / PLACES]);
    end_runner(&runner);
    join_waiters(&waiters);
    ck_assert_int_eq(runner.call.code, CF_EUNAVAIL);
    ck_assert_str_eq(runner.call.err.msg, job.msg);
    for (int i = 0; i < WAITERS; i++) {
        ck_assert_int_eq(waiters.calls[i].code, CF_EUNAVAIL);
        ck_assert_int_eq(waiters.calls[i].err.code, CF_EUNAVAIL);
        ck_assert_str_eq(waiters.calls[i].err.msg, job.msg);
    }
    ck_assert_int_eq(atomic_load(&job.runs), 1);
}
END_TEST

static void run_without_err(void *arg)
{
    EXPECT(cf_once_do(ctx, &once, work, arg, NULL) == CF_EIO);
    EXPECT(cf_once_do(ctx, &once, work, arg, NULL) == CF_EIO);
    memset(&once, 0, sizeof(once));
    EXPECT(cf_once_retry(ctx, &once, work, arg, NULL) == CF_EIO);
}

START_TEST(once_that_fails_without_a_word_has_its_codes)
{
    struct call call = endless();

    job.code = CF_EIO;
    place_run(_i % PLACES, forms[_i / PLACES], &call);
    ck_assert_int_eq(call.code, CF_EIO);
    ck_assert_int_eq(call.err.code, CF_EIO);
    ck_assert_str_eq(call.err.msg, cf_code_text(CF_EIO));
    memset(&once, 0, sizeof(once));
    place_run(_i % PLACES, run_without_err, &job);
}
END_TEST

/* It mended what it had complained of. */
START_TEST(once_that_succeeds_with_words_is_success)
{
    struct call call = endless();

    job.msg = "the first try failed";
    call.err.code = CF_OK;
    place_run(_i % PLACES, forms[_i / PLACES], &call);
    ck_assert_int_eq(call.code, CF_OK);
    ck_assert_int_eq(call.err.code, CF_OK);
}
END_TEST

/* Both forms: the matrix */

/* Nothing runs for who is gone, and the next one finds it undone. */
START_TEST(once_already_canceled)
{
    struct call call = endless();

    check_already_canceled(_i % PLACES, forms[_i / PLACES]);
    ck_assert_int_eq(atomic_load(&job.runs), 0);
    call.ctx = cf_ctx_background();
    place_run(_i % PLACES, forms[_i / PLACES], &call);
    ck_assert_int_eq(call.code, CF_OK);
    ck_assert_int_eq(atomic_load(&job.runs), 1);
}
END_TEST

START_TEST(once_already_late)
{
    check_already_late(_i % PLACES, forms[_i / PLACES]);
    ck_assert_int_eq(atomic_load(&job.runs), 0);
}
END_TEST

START_TEST(once_canceled_while_waiting)
{
    struct runner runner;

    start_runner(&runner, _i % PLACES, forms[_i / PLACES]);
    check_canceled_while_waiting(_i % PLACES, forms[_i / PLACES]);
    end_runner(&runner); /* It went on. */
    ck_assert_int_eq(runner.call.code, CF_OK);
    ck_assert_int_eq(atomic_load(&job.runs), 1);
}
END_TEST

START_TEST(once_deadline_while_waiting)
{
    struct runner runner;

    start_runner(&runner, _i % PLACES, forms[_i / (2 * PLACES)]);
    check_deadline_while_waiting(_i % (2 * PLACES), forms[_i / (2 * PLACES)]);
    end_runner(&runner);
    ck_assert_int_eq(runner.call.code, CF_OK);
    ck_assert_int_eq(atomic_load(&job.runs), 1);
}
END_TEST

/* One of several waiters leaves; the others are told. */
START_TEST(once_canceled_among_others_leaves_alone)
{
    struct runner runner;
    struct waiters waiters;

    start_runner(&runner, _i % PLACES, forms[_i / PLACES]);
    start_waiters(&waiters, _i % PLACES, forms[_i / PLACES]);
    cf_ctx_cancel(waiters.calls[1].ctx);
    EVENTUALLY(atomic_load(&waiters.visits[1].ended));
    visit_wait_parked(&waiters.visits[0]);
    visit_wait_parked(&waiters.visits[2]);
    end_runner(&runner);
    join_waiters(&waiters);
    ck_assert_int_eq(waiters.calls[0].code, CF_OK);
    ck_assert_int_eq(waiters.calls[1].code, CF_ECANCELED);
    ck_assert_int_eq(waiters.calls[2].code, CF_OK);
}
END_TEST

START_TEST(once_that_waits_needs_no_memory)
{
    struct call call = endless();
    struct runner runner;
    struct visit visit;

    start_runner(&runner, _i % PLACES, forms[_i / PLACES]);
    call.fail_nth = 1;
    visit_start(&visit, _i % PLACES, forms[_i / PLACES], &call);
    visit_wait_parked(&visit);
    end_runner(&runner);
    visit_join(&visit);
    ck_assert_int_eq(call.code, CF_OK);
    ck_assert(!call.struck);
}
END_TEST

static _Atomic(call_fn) racing_form;

/* Takes some time, more or less. */
static enum cf_code work_a_while(struct cf_ctx *of, void *arg, struct cf_err *err)
{
    struct rival *rival = arg;

    (void)of;
    (void)err;
    (void)atomic_fetch_add(&job.runs, 1);
    for (int i = rand_r(&rival->seed) % 16; i > 0; i--) {
        (void)sched_yield();
    }
    job.value++;
    return CF_OK;
}

/* The rival runs it. */
static void run_once(struct rival *rival)
{
    bool retries = atomic_load(&racing_form) == do_retry;

    if ((retries ? cf_once_retry : cf_once_do)(cf_ctx_background(), &once, work_a_while, rival,
                                               NULL) != CF_OK) {
        abort();
    }
}

/* Success means that it has run to its end; and whoever fails, it does. */
static void race_once(void *arg)
{
    struct race *race = arg;
    int64_t until_ns = effort_until_ns();

    while (race_goes_on(race, until_ns)) {
        struct call call = {.ctx = new_ctx()};
        bool has_run;

        memset(&once, 0, sizeof(once));
        job = (struct job){.code = CF_OK};
        atomic_store(&race->canceler.ctx, call.ctx);
        rival_ask(&race->giver);
        while (atomic_load(&job.runs) == 0) {
            (void)sched_yield();
        }
        rival_ask(&race->canceler);
        make_call(atomic_load(&racing_form), &call);
        has_run = call.code == CF_OK && job.value == 1;
        rival_settle(&race->canceler);
        rival_settle(&race->giver);
        EXPECT(atomic_load(&job.runs) == 1);
        EXPECT(job.value == 1);
        judge(race, call.code, has_run, call.ctx);
        cf_ctx_free(call.ctx);
    }
}

START_TEST(once_success_races_cancel)
{
    atomic_store(&racing_form, form_fns[_i / PLACES]);
    check_race(_i % PLACES, race_once, run_once);
}
END_TEST

/* It waits for itself, until its context ends. */
static enum cf_code ask_again(struct cf_ctx *of, void *arg, struct cf_err *err)
{
    (void)atomic_fetch_add((atomic_int *)arg, 1);
    return cf_once_retry(of, &once, ask_again, arg, err);
}

static enum cf_code do_ask_again(struct cf_ctx *of, struct call *call)
{
    return cf_once_retry(of, &once, ask_again, &call->rounds, &call->err);
}

static void call_ask_again(void *arg)
{
    make_call(do_ask_again, arg);
}

START_TEST(once_from_itself_ends_with_the_context)
{
    struct call call = endless();
    struct call after = endless();
    struct visit visit;

    visit_start(&visit, _i, call_ask_again, &call);
    visit_wait_parked(&visit);
    cf_ctx_cancel(ctx);
    visit_join(&visit);
    ck_assert_int_eq(call.code, CF_ECANCELED);
    ck_assert_int_eq(atomic_load(&call.rounds), 1);
    after.ctx = cf_ctx_background();
    place_run(_i, call_retry, &after); /* And is undone. */
    ck_assert_int_eq(after.code, CF_OK);
}
END_TEST

/* do */

static enum cf_code never(struct cf_ctx *of, void *arg, struct cf_err *err)
{
    (void)of;
    (void)arg;
    return cf_err_set(err, CF_EINTERNAL, "called twice");
}

/* Go: TestOncePanic, TestOnceFuncPanic, TestOnceValuePanic, TestOnceValuesPanic: a failure is what
 * a panic is there. */
START_TEST(do_remembers_a_failure)
{
    struct call call = endless();

    job.code = CF_ECONFLICT;
    job.msg = "somebody else was here";
    for (int i = 0; i < 3; i++) {
        place_run(_i, call_once, &call);
        ck_assert_int_eq(call.code, CF_ECONFLICT);
        ck_assert_int_eq(call.err.code, CF_ECONFLICT);
        ck_assert_str_eq(call.err.msg, job.msg);
        call.err = (struct cf_err){.code = CF_OK};
    }
    ck_assert_int_eq(atomic_load(&job.runs), 1);
    ck_assert_int_eq(cf_once_do(ctx, &once, never, NULL, &failure), CF_ECONFLICT);
    cf_ctx_cancel(ctx); /* What is known needs no context. */
    ck_assert_int_eq(cf_once_do(ctx, &once, never, NULL, &failure), CF_ECONFLICT);
}
END_TEST

/* Its waiters' contexts live, and it does not run again: that is what once means. */
START_TEST(do_that_fails_with_its_context_stays_failed)
{
    struct runner runner;
    struct waiters waiters;
    struct cf_ctx *ending;

    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &ending, &failure), CF_OK);
    job = (struct job){.gate = gate, .heeds = true};
    runner.call = endless();
    runner.call.ctx = ending;
    visit_start(&runner.visit, _i, call_once, &runner.call);
    EVENTUALLY(atomic_load(&job.runs) == 1);
    start_waiters(&waiters, _i, call_once);
    cf_ctx_cancel(ending);
    visit_join(&runner.visit);
    join_waiters(&waiters);
    ck_assert_int_eq(runner.call.code, CF_ECANCELED);
    for (int i = 0; i < WAITERS; i++) {
        ck_assert_int_eq(waiters.calls[i].code, CF_ECANCELED);
        ck_assert_str_eq(waiters.calls[i].err.msg, "context canceled");
    }
    ck_assert_int_eq(cf_once_do(ctx, &once, never, NULL, &failure), CF_ECANCELED);
    ck_assert_int_eq(atomic_load(&job.runs), 1);
    cf_ctx_free(ending);
}
END_TEST

/* retry */

START_TEST(retry_runs_again_after_a_failure_and_not_after_success)
{
    struct call call = endless();

    job.code = CF_EUNAVAIL;
    for (int i = 1; i <= 3; i++) {
        place_run(_i, call_retry, &call);
        ck_assert_int_eq(call.code, CF_EUNAVAIL);
        ck_assert_int_eq(atomic_load(&job.runs), i);
    }
    job.code = CF_OK;
    for (int i = 0; i < 3; i++) {
        place_run(_i, call_retry, &call);
        ck_assert_int_eq(call.code, CF_OK);
        ck_assert_int_eq(atomic_load(&job.runs), 4);
    }
    ck_assert_int_eq(cf_once_retry(ctx, &once, never, NULL, &failure), CF_OK);
}
END_TEST

/* A runner that heeds its context, with others that wait. */
struct relay {
    struct cf_ctx *ending; /* The runner's. */
    struct runner runner;
    struct waiters waiters;
};

static void start_relay(struct relay *relay, int place)
{
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &relay->ending, &failure), CF_OK);
    job = (struct job){.gate = gate, .heeds = true};
    relay->runner.call = endless();
    relay->runner.call.ctx = relay->ending;
    visit_start(&relay->runner.visit, place, call_retry, &relay->runner.call);
    EVENTUALLY(atomic_load(&job.runs) == 1);
    visit_wait_parked(&relay->runner.visit);
    start_waiters(&relay->waiters, place, call_retry);
}

static void end_relay(struct relay *relay)
{
    visit_join(&relay->runner.visit);
    join_waiters(&relay->waiters);
    cf_ctx_free(relay->ending);
}

START_TEST(retry_whose_runner_is_canceled_is_run_by_the_longest_waiter)
{
    struct relay relay;

    start_relay(&relay, _i);
    cf_ctx_cancel(relay.ending);
    EVENTUALLY(atomic_load(&job.runs) == 2);
    ck_assert_ptr_eq(job.ctx, relay.waiters.calls[0].ctx);
    cf_ctx_cancel(relay.waiters.calls[0].ctx);
    EVENTUALLY(atomic_load(&job.runs) == 3);
    ck_assert_ptr_eq(job.ctx, relay.waiters.calls[1].ctx);
    cf_ctx_cancel(gate);
    end_relay(&relay);
    ck_assert_int_eq(relay.runner.call.code, CF_ECANCELED);
    ck_assert_int_eq(relay.waiters.calls[0].code, CF_ECANCELED);
    ck_assert_int_eq(relay.waiters.calls[1].code, CF_OK);
    ck_assert_int_eq(relay.waiters.calls[2].code, CF_OK); /* Told by the one before. */
    ck_assert_int_eq(atomic_load(&job.runs), 3);
}
END_TEST

START_TEST(retry_passes_over_waiters_that_left)
{
    struct relay relay;

    start_relay(&relay, _i);
    cf_ctx_cancel(relay.waiters.calls[0].ctx);
    EVENTUALLY(atomic_load(&relay.waiters.visits[0].ended));
    cf_ctx_cancel(relay.ending);
    EVENTUALLY(atomic_load(&job.runs) == 2);
    ck_assert_ptr_eq(job.ctx, relay.waiters.calls[1].ctx);
    cf_ctx_cancel(gate);
    end_relay(&relay);
    ck_assert_int_eq(relay.waiters.calls[0].code, CF_ECANCELED);
    ck_assert_int_eq(relay.waiters.calls[1].code, CF_OK);
    ck_assert_int_eq(relay.waiters.calls[2].code, CF_OK);
}
END_TEST

/* One that comes while a waiter has taken over waits for that one. */
START_TEST(retry_that_comes_after_the_handover_waits)
{
    struct call call = endless();
    struct relay relay;
    struct visit visit;

    start_relay(&relay, _i);
    cf_ctx_cancel(relay.ending);
    EVENTUALLY(atomic_load(&job.runs) == 2);
    visit_start(&visit, _i, call_retry, &call);
    visit_wait_parked(&visit);
    cf_ctx_cancel(gate);
    end_relay(&relay);
    visit_join(&visit);
    ck_assert_int_eq(call.code, CF_OK);
    ck_assert_int_eq(atomic_load(&job.runs), 2);
}
END_TEST

START_TEST(retry_whose_runner_is_canceled_without_waiters_is_undone)
{
    struct call call = endless();
    struct visit visit;

    ck_assert_int_eq(cf_ctx_with_cancel(ctx, &call.ctx, &failure), CF_OK);
    job = (struct job){.gate = gate, .heeds = true};
    visit_start(&visit, _i, call_retry, &call);
    EVENTUALLY(atomic_load(&job.runs) == 1);
    cf_ctx_cancel(call.ctx);
    visit_join(&visit);
    ck_assert_int_eq(call.code, CF_ECANCELED);
    cf_ctx_free(call.ctx);
    cf_ctx_cancel(gate);
    call = endless();
    place_run(_i, call_retry, &call);
    ck_assert_int_eq(call.code, CF_OK);
    ck_assert_int_eq(atomic_load(&job.runs), 2);
}
END_TEST

/* The turn is handed to a waiter whose context ends before it runs: on fibers that is certain. It
 * goes on to the next, and is lost by nobody. */
struct handover {
    struct call runner;
    struct call first;
    struct call second;
};

static void hand_over_and_cancel(void *arg)
{
    struct handover *self = arg;
    struct cf_loop *loop = cf_loop_current();

    EXPECT(cf_loop_spawn(loop, call_retry, &self->runner, NULL) == CF_OK);
    place_yield();
    EXPECT(cf_loop_spawn(loop, call_retry, &self->first, NULL) == CF_OK);
    EXPECT(cf_loop_spawn(loop, call_retry, &self->second, NULL) == CF_OK);
    place_yield();
    cf_ctx_cancel(self->runner.ctx);
    place_yield();
    EXPECT(self->runner.code == CF_ECANCELED); /* It has handed the turn to the first, */
    EXPECT(atomic_load(&job.runs) == 1);       /* which has not run. */
    cf_ctx_cancel(self->first.ctx);
    while (atomic_load(&job.runs) == 1) {
        place_yield();
    }
    cf_ctx_cancel(gate);
}

START_TEST(retry_granted_and_canceled_before_it_runs_hands_on)
{
    struct handover self = {endless(), endless(), endless()};

    job = (struct job){.gate = gate, .heeds = true};
    ck_assert_int_eq(cf_ctx_with_cancel(ctx, &self.runner.ctx, &failure), CF_OK);
    ck_assert_int_eq(cf_ctx_with_cancel(ctx, &self.first.ctx, &failure), CF_OK);
    place_run(PLACE_FIBER, hand_over_and_cancel, &self);
    ck_assert_int_eq(self.runner.code, CF_ECANCELED);
    ck_assert_int_eq(self.first.code, CF_ECANCELED);
    ck_assert_int_eq(self.second.code, CF_OK);
    ck_assert_ptr_eq(job.ctx, self.second.ctx);
    ck_assert_int_eq(atomic_load(&job.runs), 2); /* Not for the first, which is gone. */
    cf_ctx_free(self.runner.ctx);
    cf_ctx_free(self.first.ctx);
}
END_TEST

/* Stress: one after the other is tried until it succeeds, by callers that leave at any time. */

#define ONCES 20000

struct attempt {
    struct cf_once once;
    atomic_int running;
    int value; /* Not atomic: success has to publish it. */
};

struct campaign {
    struct attempt *attempts; /* ONCES. */
    int64_t until_ns;
    atomic_int current;
    atomic_long successes; /* Calls. */
    atomic_long failures;
    atomic_long timeouts;
};

struct
try {
    struct attempt *attempt;
    unsigned *seed;
};

static enum cf_code attempt_it(struct cf_ctx *of, void *arg, struct cf_err *err)
{
    struct try *self = arg;
    enum cf_code code = CF_OK;
    unsigned dice = (unsigned)rand_r(self->seed);

    EXPECT(atomic_fetch_add(&self->attempt->running, 1) == 0);
    EXPECT(self->attempt->value == 0);
    if (dice % 4 == 0) {
        code = cf_sleep(of, dice % (200 * CF_US), err);
    } else if (dice % 4 == 1) {
        code = cf_yield(of, err);
    }
    if (code == CF_OK && dice / 4 % 64 != 0) {
        code = cf_err_set(err, CF_EUNAVAIL, "not yet");
    }
    if (code == CF_OK) {
        self->attempt->value = 42;
    }
    (void)atomic_fetch_sub(&self->attempt->running, 1);
    return code;
}

static bool had_all(struct campaign *self)
{
    return atomic_load(&self->successes) > 0 && atomic_load(&self->failures) > 0 &&
           atomic_load(&self->timeouts) > 0;
}

static void join_campaign(void *arg, unsigned *seed)
{
    struct campaign *self = arg;
    int current;

    while ((current = atomic_load(&self->current)) < ONCES &&
           EFFORT_GOES_ON(self->until_ns, had_all(self))) {
        struct try try = {&self->attempts[current], seed};
        struct cf_ctx *brief = NULL;
        struct cf_err err;
        enum cf_code code;

        EXPECT(cf_ctx_with_timeout(cf_ctx_background(), rand_r(seed) % CF_MS, &brief, NULL) ==
               CF_OK);
        code = cf_once_retry(brief, &try.attempt->once, attempt_it, &try, &err);
        if (code == CF_OK) {
            EXPECT(try.attempt->value == 42);
            (void)atomic_fetch_add(&self->successes, 1);
            (void)atomic_compare_exchange_strong(&self->current, &current, current + 1);
        } else if (code == CF_EUNAVAIL) {
            EXPECT(strcmp(err.msg, "not yet") == 0);
            (void)atomic_fetch_add(&self->failures, 1);
        } else {
            EXPECT(code == CF_EDEADLINE);
            EXPECT(cf_ctx_err(brief) == CF_EDEADLINE);
            (void)atomic_fetch_add(&self->timeouts, 1);
        }
        cf_ctx_free(brief);
        place_yield();
    }
}

START_TEST(retry_race)
{
    struct campaign self = {.until_ns = effort_stress_until_ns()};

    self.attempts = calloc(ONCES, sizeof(*self.attempts));
    ck_assert_ptr_nonnull(self.attempts);
    crowd_run(join_campaign, &self);
    ck_assert(had_all(&self));
    free(self.attempts);
}
END_TEST

static TCase *add(Suite *suite, const char *name)
{
    TCase *tc = tcase_create(name);

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 30);
    suite_add_tcase(suite, tc);
    return tc;
}

Suite *suite_once(void)
{
    Suite *suite = suite_create("once");
    TCase *tc = add(suite, "both");

    tcase_add_loop_test(tc, once_runs_with_the_callers_context, 0, FORMS * PLACES);
    tcase_add_loop_test(tc, once_by_a_crowd_runs_once, 0, FORMS);
    tcase_add_loop_test(tc, once_is_waited_for_by_all_others, 0, FORMS * PLACES);
    tcase_add_loop_test(tc, once_that_has_run_does_not_look_at_the_context, 0, FORMS * PLACES);
    tcase_add_loop_test(tc, once_that_fails_tells_all_who_wait, 0, FORMS * PLACES);
    tcase_add_loop_test(tc, once_that_fails_without_a_word_has_its_codes, 0, FORMS * PLACES);
    tcase_add_loop_test(tc, once_that_succeeds_with_words_is_success, 0, FORMS * PLACES);
    tcase_add_loop_test(tc, once_already_canceled, 0, FORMS * PLACES);
    tcase_add_loop_test(tc, once_already_late, 0, FORMS * PLACES);
    tcase_add_loop_test(tc, once_canceled_while_waiting, 0, FORMS * PLACES);
    tcase_add_loop_test(tc, once_deadline_while_waiting, 0, FORMS * 2 * PLACES);
    tcase_add_loop_test(tc, once_canceled_among_others_leaves_alone, 0, FORMS * PLACES);
    tcase_add_loop_test(tc, once_that_waits_needs_no_memory, 0, FORMS * PLACES);
    tcase_add_loop_test(tc, once_success_races_cancel, 0, FORMS * PLACES);
    tcase_add_loop_test(tc, once_from_itself_ends_with_the_context, 0, PLACES);

    tc = add(suite, "do");
    tcase_add_loop_test(tc, do_remembers_a_failure, 0, PLACES);
    tcase_add_loop_test(tc, do_that_fails_with_its_context_stays_failed, 0, PLACES);

    tc = add(suite, "retry");
    tcase_add_loop_test(tc, retry_runs_again_after_a_failure_and_not_after_success, 0, PLACES);
    tcase_add_loop_test(tc, retry_whose_runner_is_canceled_is_run_by_the_longest_waiter, 0, PLACES);
    tcase_add_loop_test(tc, retry_passes_over_waiters_that_left, 0, PLACES);
    tcase_add_loop_test(tc, retry_that_comes_after_the_handover_waits, 0, PLACES);
    tcase_add_loop_test(tc, retry_whose_runner_is_canceled_without_waiters_is_undone, 0, PLACES);
    tcase_add_test(tc, retry_granted_and_canceled_before_it_runs_hands_on);

    tc = add(suite, "race");
    tcase_set_timeout(tc, EFFORT_STRESS_SECONDS_MAX);
    tcase_add_test(tc, retry_race);
    return suite;
}
