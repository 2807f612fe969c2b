/* SPDX-License-Identifier: MIT */
/* The matrix of a call that waits: see waits.h. */
#include "waits.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <curfew/wait.h>

#include "effort.h"
#include "fault.h"

/* Fixture */

struct cf_ctx *ctx;
struct cf_ctx *target;
struct cf_err failure;
int ends[2];

void setup_waits(void)
{
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &ctx, &failure), CF_OK);
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &target, &failure), CF_OK);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
}

void teardown_waits(void)
{
    cf_ctx_free(ctx);
    cf_ctx_free(target);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* Calls */

enum cf_code do_sleep(struct cf_ctx *of, struct call *call)
{
    return cf_sleep(of, call->period_ns, &call->err);
}

enum cf_code do_sleep_until(struct cf_ctx *of, struct call *call)
{
    return cf_sleep_until(of, cf_deadline_in(call->began_ns, call->period_ns), &call->err);
}

enum cf_code do_wait_done(struct cf_ctx *of, struct call *call)
{
    return cf_wait_done(of, call->target, &call->err);
}

enum cf_code do_wait_fd(struct cf_ctx *of, struct call *call)
{
    return cf_wait_fd(of, call->fd, call->events, &call->out_events, &call->err);
}

enum cf_code do_yield(struct cf_ctx *of, struct call *call)
{
    return cf_yield(of, &call->err);
}

/* A long loop that yields: it waits for nothing but its end. */
enum cf_code do_yields(struct cf_ctx *of, struct call *call)
{
    enum cf_code code;

    do {
        code = cf_yield(of, &call->err);
        (void)atomic_fetch_add(&call->rounds, 1);
    } while (code == CF_OK && cf_now_ns() < call->began_ns + 20 * CF_SECOND);
    return code;
}

void make_call(call_fn fn, struct call *call)
{
    struct cf_ctx *of = call->ctx;

    call->began_ns = cf_now_ns();
    if (call->timeout_ns > 0 &&
        cf_ctx_with_timeout(call->ctx, call->timeout_ns, &of, NULL) != CF_OK) {
        abort();
    }
    fault_alloc(call->fail_nth, false);
    call->code = fn(of, call);
    call->struck = fault_off();
    call->ended_ns = cf_now_ns();
    if (of != call->ctx) {
        cf_ctx_free(of);
    }
}

void call_sleep(void *arg)
{
    make_call(do_sleep, arg);
}

void call_sleep_until(void *arg)
{
    make_call(do_sleep_until, arg);
}

void call_wait_done(void *arg)
{
    make_call(do_wait_done, arg);
}

void call_wait_fd(void *arg)
{
    make_call(do_wait_fd, arg);
}

void call_yields(void *arg)
{
    make_call(do_yields, arg);
}

struct call endless(void)
{
    return (struct call){.ctx = ctx,
                         .period_ns = CF_NEVER,
                         .target = target,
                         .fd = ends[0],
                         .events = CF_READABLE,
                         .out_events = -1};
}

/* The matrix */

void check_already_canceled(int place, place_fn fn)
{
    struct call call = endless();

    cf_ctx_cancel(target);
    ck_assert_int_eq(write(ends[1], "x", 1), 1); /* What it asks for is there. */
    cf_ctx_cancel(ctx);
    place_run(place, fn, &call);
    ck_assert_int_eq(call.code, CF_ECANCELED);
    ck_assert_int_eq(call.err.code, CF_ECANCELED);
    ck_assert_int_eq(call.out_events, -1);
}

void check_already_late(int place, place_fn fn)
{
    struct call call = endless();

    ck_assert_int_eq(cf_ctx_with_deadline(ctx, cf_now_ns() - 1, &call.ctx, &failure), CF_OK);
    place_run(place, fn, &call);
    ck_assert_int_eq(call.code, CF_EDEADLINE);
    ck_assert_int_eq(call.err.code, CF_EDEADLINE);
    ck_assert_int_eq(call.out_events, -1);
    cf_ctx_free(call.ctx);
}

void check_canceled_while_waiting(int place, place_fn fn)
{
    struct call call = endless();
    struct cf_err why;
    struct visit visit;

    (void)cf_err_set(&why, CF_ECLOSED, "the shop has closed");
    visit_start(&visit, place, fn, &call);
    visit_wait_parked(&visit);
    cf_ctx_cancel_cause(ctx, CF_REASON_OPERATOR, &why);
    visit_join(&visit);
    ck_assert_int_eq(call.code, CF_ECANCELED);
    ck_assert_int_eq(call.err.code, CF_ECANCELED);
    ck_assert_str_eq(call.err.msg, "context canceled: the shop has closed");
    ck_assert_int_eq(call.out_events, -1);
}

void check_deadline_while_waiting(int i, place_fn fn)
{
    struct call call = endless();
    int64_t deadline_ns = cf_now_ns() + 20 * CF_MS;
    struct cf_ctx *late = NULL;

    if (i / PLACES == 0) {
        call.timeout_ns = 20 * CF_MS;
    } else {
        ck_assert_int_eq(cf_ctx_with_deadline(ctx, deadline_ns, &late, &failure), CF_OK);
        call.ctx = late;
    }
    place_run(i % PLACES, fn, &call);
    ck_assert_int_eq(call.code, CF_EDEADLINE);
    ck_assert_int_eq(call.err.code, CF_EDEADLINE);
    ck_assert_int_ge(call.ended_ns, deadline_ns);
    ck_assert_int_lt(call.ended_ns, deadline_ns + LATE_NS);
    ck_assert_int_eq(call.out_events, -1);
    cf_ctx_free(late);
}

int check_out_of_memory(int place, place_fn fn, struct call *call)
{
    for (unsigned nth = 1;; nth++) {
        call->fail_nth = nth;
        place_run(place, fn, call);
        if (!call->struck) {
            ck_assert_int_eq(call->code, CF_OK);
            return (int)nth - 1;
        }
        ck_assert_int_eq(call->code, CF_ENOMEM);
        ck_assert_int_eq(call->err.code, CF_ENOMEM);
    }
}

/* Races */

static void spin(unsigned times)
{
    for (volatile unsigned i = 0; i < times; i++) {
    }
}

/* A moment of random length. Valgrind runs one thread at a time, and for long: there only who
 * yields lets another be first. */
static void dawdle(unsigned *seed)
{
    spin((unsigned)rand_r(seed) % 4000);
    for (unsigned i = (unsigned)rand_r(seed) % 4; effort_is_watched() && i > 0; i--) {
        (void)sched_yield();
    }
}

static void *rival_run(void *arg)
{
    struct rival *rival = arg;

    while (!atomic_load(&rival->stop)) {
        if (atomic_load(&rival->asked) == atomic_load(&rival->acted)) {
            (void)sched_yield();
            continue;
        }
        dawdle(&rival->seed);
        rival->act(rival);
        (void)atomic_fetch_add(&rival->acted, 1);
    }
    return NULL;
}

static void rival_start(struct rival *rival, void (*act)(struct rival *rival), unsigned seed)
{
    *rival = (struct rival){.act = act, .seed = seed};
    ck_assert_int_eq(pthread_create(&rival->thread, NULL, rival_run, rival), 0);
}

static void rival_stop(struct rival *rival)
{
    atomic_store(&rival->stop, true);
    ck_assert_int_eq(pthread_join(rival->thread, NULL), 0);
}

void rival_ask(struct rival *rival)
{
    (void)atomic_fetch_add(&rival->asked, 1);
}

void rival_settle(struct rival *rival)
{
    while (atomic_load(&rival->asked) != atomic_load(&rival->acted)) {
        (void)sched_yield();
    }
}

static void cancel_ctx(struct rival *rival)
{
    cf_ctx_cancel(atomic_load(&rival->ctx));
}

void give_nothing(struct rival *rival)
{
    (void)rival;
}

void cancel_target(struct rival *rival)
{
    cf_ctx_cancel(atomic_load(&rival->target));
}

void write_byte(struct rival *rival)
{
    if (write(atomic_load(&rival->fd), "x", 1) != 1) {
        abort();
    }
}

void check_race(int place, place_fn fn, void (*give)(struct rival *rival))
{
    struct race race = {.successes = 0};

    rival_start(&race.canceler, cancel_ctx, 1);
    rival_start(&race.giver, give, 2);
    place_run(place, fn, &race);
    rival_stop(&race.canceler);
    rival_stop(&race.giver);
    ck_assert_str_eq(race.wrong, "");
    ck_assert_int_gt(race.successes, 0);
    ck_assert_int_gt(race.cancels, 0);
}

bool race_goes_on(const struct race *race, int64_t until_ns)
{
    return EFFORT_GOES_ON(until_ns, race->successes > 0 && race->cancels > 0);
}

void judge(struct race *race, enum cf_code code, bool success_is_true, struct cf_ctx *of)
{
    if (code == CF_OK && success_is_true) {
        race->successes++;
    } else if (code == CF_ECANCELED && cf_ctx_err(of) == CF_ECANCELED) {
        race->cancels++;
    } else if (race->wrong[0] == '\0') {
        (void)snprintf(race->wrong, sizeof(race->wrong), "%s, granted %d, context %s",
                       cf_code_name(code), success_is_true, cf_code_name(cf_ctx_err(of)));
    }
}

struct cf_ctx *new_ctx(void)
{
    struct cf_ctx *made;

    if (cf_ctx_with_cancel(cf_ctx_background(), &made, NULL) != CF_OK) {
        abort();
    }
    return made;
}
