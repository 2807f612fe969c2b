/* SPDX-License-Identifier: MIT */
/* The two places from which a call that waits may be made, a plain thread and a fiber, so that one
 * test asks both; and how a test sees that the call does wait.
 *
 *     START_TEST(sleep_canceled_while_waiting)
 *     {
 *         visit_start(&visit, _i, call_sleep, &call);
 *         visit_wait_parked(&visit);
 *         cf_ctx_cancel(call.ctx);
 *         visit_join(&visit);
 *         ck_assert_int_eq(call.code, CF_ECANCELED);
 *     }
 *     ...
 *     tcase_add_loop_test(tc, sleep_canceled_while_waiting, 0, PLACES);
 *
 * What runs at a place records or EXPECT()s, and the test's own thread asserts: an assertion that
 * fails must not jump from one stack to another. */
#ifndef PLACES_H
#define PLACES_H

#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include <curfew/clock.h>
#include <curfew/ctx.h>
#include <curfew/loop.h>

enum place {
    PLACE_THREAD,
    PLACE_FIBER,
    PLACES, /* How many there are, for tcase_add_loop_test(). */
};

typedef void (*place_fn)(void *arg);

/* One function at one place, with a thread or a loop of its own. */
struct visit {
    place_fn fn;
    void *arg;
    pthread_t thread;
    struct cf_loop *loop; /* NULL: a plain thread. */
    atomic_int tid;       /* Of the thread that it runs on, once it does. */
    atomic_bool ended;    /* The function has returned. */
};

/* Start `fn(arg)` at `place`. */
void visit_start(struct visit *visit, int place, place_fn fn, void *arg);

/* Return when its thread sleeps in the kernel, so that `fn` waits. Fails the test if `fn` returns
 * instead. */
void visit_wait_parked(struct visit *visit);

/* Wait for the end of `fn`; fail the test if an EXPECT() did. */
void visit_join(struct visit *visit);

/* Start and join. */
void place_run(int place, place_fn fn, void *arg);

/* From a fiber or a thread: wait until `gate` has been cancelled; let others run. */
void place_wait(struct cf_ctx *gate);
void place_yield(void);

/* Wait until a thread of this process sleeps in the kernel. False: it has ended. */
bool place_wait_asleep(int tid);

/* At a place: note a condition that does not hold, for visit_join(). The first one counts. */
#define EXPECT(condition)                                                                          \
    ((condition) ? (void)0 : place_expect_failed(#condition, __FILE__, __LINE__))
void place_expect_failed(const char *condition, const char *file, int line);

/* On the test's own thread: wait for what other threads bring about; fail if it never comes. */
#define EVENTUALLY(condition)                                                                      \
    do {                                                                                           \
        int64_t give_up_ns_ = cf_now_ns() + 20 * CF_SECOND;                                        \
        while (!(condition)) {                                                                     \
            ck_assert_msg(cf_now_ns() < give_up_ns_, "never came: %s", #condition);                \
            (void)nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);                          \
        }                                                                                          \
    } while (0)

#endif
