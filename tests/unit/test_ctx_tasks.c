/* SPDX-License-Identifier: MIT */
/* Contexts that tasks share: one waits for them, others end them. These are those of Go's tests
 * that start goroutines, and its examples, which are tests there too. See test_ctx.c.
 *
 * What is a goroutine there is here a thread, a fiber of the same loop, or a fiber of another loop:
 * each test runs in all three ways, on the real clock and with the loops' own timers. Races played
 * many times are in test_ctx_race.c. */
#include <curfew/ctx.h>

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <curfew/chan.h>
#include <curfew/clock.h>
#include <curfew/loop.h>
#include <curfew/wait.h>

#include "ctx_kit.h"
#include "onboth.h"
#include "places.h"

/* Helpers */

/* What tasks are. */
enum tasks {
    TASKS_THREADS,
    TASKS_OF_ONE_LOOP,
    TASKS_OF_TWO_LOOPS,
    TASKS_WAYS, /* How many there are, for tcase_add_loop_test(). */
};

#define STARTS_MAX 128

struct start {
    cf_fiber_fn fn;
    void *arg;
    pthread_t thread;
};

static struct start starts[STARTS_MAX]; /* If tasks are threads. */
static unsigned started;
static struct cf_loop *loops[2]; /* If they are fibers: one, or two. */
static unsigned n_loops;

static void *be_thread(void *arg)
{
    struct start *start = arg;

    start->fn(start->arg);
    return NULL;
}

/* Go's `go fn(arg)`. With two loops the first one is a fiber of the other. */
static void go(cf_fiber_fn fn, void *arg)
{
    ck_assert_uint_lt(started, STARTS_MAX);
    if (n_loops > 0) {
        ck_assert_int_eq(cf_loop_spawn(loops[++started % n_loops], fn, arg, &err), CF_OK);
    } else {
        struct start *start = &starts[started++];

        *start = (struct start){.fn = fn, .arg = arg};
        ck_assert_int_eq(pthread_create(&start->thread, NULL, be_thread, start), 0);
    }
}

/* Run fn(NULL), where go() makes such tasks, and wait for all of them. */
static void run(int tasks, cf_fiber_fn fn)
{
    started = 0;
    if (tasks == TASKS_THREADS) {
        fn(NULL);
        for (unsigned i = 0; i < started; i++) {
            ck_assert_int_eq(pthread_join(starts[i].thread, NULL), 0);
        }
        return;
    }
    n_loops = tasks == TASKS_OF_ONE_LOOP ? 1 : 2;
    for (unsigned i = 0; i < n_loops; i++) {
        ck_assert_int_eq(cf_loop_new(NULL, &loops[i], &err), CF_OK);
    }
    ck_assert_int_eq(cf_loop_call(loops[0], fn, NULL, &err), CF_OK);
    while (n_loops > 0) {
        cf_loop_free(loops[--n_loops]);
    }
}

/* Let other tasks run in every other round: on one loop that decides who comes first. */
static void let_run(int round)
{
    if (round % 2 == 1) {
        place_yield();
    }
}

/* As a task: cancel, and give up the reference that it was started with. */
static void cancel_and_unref(void *arg)
{
    struct cf_ctx *ctx = arg;

    cf_ctx_cancel_cause(ctx, CF_REASON_USER, &because);
    cf_ctx_unref(ctx);
}

/* cancel */

#define TREE 101 /* As many as Go's: rows of four below each until there are at least 100. */

static struct cf_ctx *tree[TREE];
static atomic_int returned; /* Tasks whose cancel has. */

static void make_tree(void)
{
    for (int i = 0; i < TREE; i++) {
        struct cf_ctx *above = i == 0 ? cf_ctx_background() : tree[(i - 1) / 4];

        tree[i] = i % 10 == 9 ? with_timeout(above, LONG_NS - i * CF_SECOND) : with_cancel(above);
    }
}

static void cancel_one(void *arg)
{
    cf_ctx_cancel((struct cf_ctx *)arg);
    (void)atomic_fetch_add(&returned, 1);
}

/* TREE is a prime number, so that each stride comes to all of them. */
static void cancel_and_await_all(void *arg)
{
    int64_t give_up_ns = cf_now_ns() + 20 * CF_SECOND;

    (void)arg;
    atomic_store(&returned, 0);
    make_tree();
    for (int i = 0; i < TREE; i++) {
        go(cancel_one, tree[i * 37 % TREE]);
    }
    for (int i = 0; i < TREE; i++) {
        wait_done(tree[i * 61 % TREE]);
    }
    while (atomic_load(&returned) < TREE) {
        ck_assert_msg(cf_now_ns() < give_up_ns, "a cancel does not return");
        place_yield();
    }
    for (int i = 0; i < TREE; i++) {
        assert_done(tree[i], CF_ECANCELED, CF_REASON_CANCELED);
    }
    for (int i = 0; i < TREE; i++) {
        cf_ctx_free(tree[i]);
    }
}

/* Go: TestSimultaneousCancels. One task for each context of a tree, and one that waits for each. */
START_TEST(cancel_all_of_a_tree_while_each_is_waited_for)
{
    run(_i, cancel_and_await_all);
}
END_TEST

struct pair {
    struct cf_ctx *parent;
    struct cf_ctx *child;
};

static void await_parent_and_cancel_child(void *arg)
{
    struct pair pair = *(struct pair *)arg;

    place_wait(pair.parent);
    cf_ctx_unref(pair.parent);
    cancel_and_unref(pair.child);
}

static void cancel_the_parent(void *arg)
{
    static struct pair pairs[10]; /* Not the stack's: a task may start late. */

    (void)arg;
    for (int round = 0; round < 10; round++) {
        struct cf_ctx *parent = with_cancel(cf_ctx_background());
        struct cf_ctx *child = with_cancel(parent);

        pairs[round] = (struct pair){cf_ctx_ref(parent), cf_ctx_ref(child)};
        go(await_parent_and_cancel_child, &pairs[round]);
        let_run(round);
        cf_ctx_cancel(parent);
        wait_done(child);
        ck_assert_int_eq(cf_ctx_err(child), CF_ECANCELED);
        cf_ctx_free(child);
        cf_ctx_free(parent);
    }
}

/* Go: TestInterlockedCancels */
START_TEST(cancel_by_who_waits_for_the_parent)
{
    run(_i, cancel_the_parent);
}
END_TEST

static void poll_for_the_cause(void *arg)
{
    (void)arg;
    for (int round = 0; round < 10; round++) {
        struct cf_ctx *ctx = with_cancel(cf_ctx_background());
        struct cf_cause cause;

        go(cancel_and_unref, cf_ctx_ref(ctx));
        while (!cf_ctx_cause(ctx, &cause)) {
            place_yield();
        }
        ck_assert_int_eq(cause.reason, CF_REASON_USER);
        ck_assert_int_eq(cause.err.code, because.code);
        ck_assert_str_eq(cause.err.msg, because.msg);
        cf_ctx_free(ctx);
    }
}

/* Go: TestCauseRace. Who sees a cause sees all of it. */
START_TEST(cancel_while_its_cause_is_polled)
{
    run(_i, poll_for_the_cause);
}
END_TEST

/* with_cancel */

static void bear_while_canceled(void *arg)
{
    (void)arg;
    for (int round = 0; round < 100; round++) {
        struct cf_ctx *parent = with_cancel(cf_ctx_background());
        struct cf_ctx *child;

        go(cancel_and_unref, cf_ctx_ref(parent));
        let_run(round);
        child = with_cancel(parent);
        wait_done(child);
        assert_done(child, CF_ECANCELED, CF_REASON_USER);
        ck_assert_str_eq(cause_text(child), because.msg);
        cf_ctx_free(child);
        cf_ctx_free(parent);
    }
}

/* Go: TestWithCancelSimultaneouslyCanceledParent */
START_TEST(with_cancel_while_a_task_cancels_the_parent)
{
    run(_i, bear_while_canceled);
}
END_TEST

/* done_fd */

static void poll_for_the_err(void *arg)
{
    (void)arg;
    for (int round = 0; round < 10; round++) {
        struct cf_ctx *ctx = with_cancel(cf_ctx_background());

        ck_assert(!told(ctx)); /* Makes the descriptor. */
        go(cancel_and_unref, cf_ctx_ref(ctx));
        while (cf_ctx_err(ctx) == CF_OK) {
            place_yield();
        }
        ck_assert(told(ctx));
        cf_ctx_free(ctx);
    }
}

/* Go: TestContextErrDoneRace */
START_TEST(done_fd_tells_who_polled_the_err)
{
    run(_i, poll_for_the_err);
}
END_TEST

/* Examples */

/* A task that sends 1, 2, 3 until its context ends. */
struct generator {
    struct cf_ctx *ctx;
    struct cf_chan *numbers;
    enum cf_code code; /* Why it ended. */
};

static struct generator generator;

static void generate(void *arg)
{
    (void)arg;
    for (int n = 1; generator.code == CF_OK; n++) {
        generator.code = cf_chan_send(generator.ctx, generator.numbers, &n, NULL);
    }
}

static void receive_five(void *arg)
{
    (void)arg;
    go(generate, NULL);
    for (int i = 1; i <= 5; i++) {
        int n = 0;

        ck_assert_int_eq(cf_chan_recv(cf_ctx_background(), generator.numbers, &n, &err), CF_OK);
        ck_assert_int_eq(n, i);
    }
    cf_ctx_cancel(generator.ctx);
}

/* Go: ExampleWithCancel. run() waits for the task: it would never end if it was leaked. */
START_TEST(cancel_ends_the_task_that_sends)
{
    generator = (struct generator){.ctx = with_cancel(cf_ctx_background())};
    ck_assert_int_eq(cf_chan_new(sizeof(int), 0, &generator.numbers, &err), CF_OK);
    run(_i, receive_five);
    ck_assert_int_eq(generator.code, CF_ECANCELED);
    cf_chan_free(generator.numbers);
    cf_ctx_free(generator.ctx);
}
END_TEST

/* Go: ExampleWithDeadline, ExampleWithTimeout. What is waited for never comes. */
START_ONBOTH(deadline_ends_the_wait_for_what_never_comes)
{
    struct cf_ctx *ctxs[] = {with_deadline(cf_ctx_background(), cf_now_ns() + CF_MS),
                             with_timeout(cf_ctx_background(), CF_MS)};
    struct cf_chan *never;

    ck_assert_int_eq(cf_chan_new(sizeof(int), 0, &never, &err), CF_OK);
    for (int i = 0; i < 2; i++) {
        struct cf_chan_case cases[] = {{.op = CF_CHAN_RECV, .ch = never}};
        size_t index = 7;

        ck_assert_int_eq(cf_chan_select(ctxs[i], cases, 1, &index, &err), CF_EDEADLINE);
        ck_assert_str_eq(err.msg, "context deadline exceeded");
        ck_assert_uint_eq(index, 7);
        ck_assert_int_eq(cf_chan_recv(ctxs[i], never, NULL, &err), CF_EDEADLINE);
        assert_done(ctxs[i], CF_EDEADLINE, CF_REASON_DEADLINE);
        cf_ctx_free(ctxs[i]);
    }
    cf_chan_free(never);
}
END_ONBOTH

/* A context made from one, and ended with the cause of another too. */
struct merge {
    struct cf_ctx *ctx;
    struct cf_ctx *other;
};

static void end_merged(void *arg)
{
    struct merge *merge = arg;
    struct cf_ctx *ctx = cf_ctx_ref(merge->ctx);
    struct cf_cause cause;

    if (cf_ctx_cause(merge->other, &cause)) {
        cf_ctx_cancel_cause(ctx, cause.reason, &cause.err);
    }
    cf_ctx_unref(ctx);
}

/* Go: ExampleAfterFunc_merge, of each of the two. */
START_ONBOTH(after_merges_the_ends_of_two)
{
    for (int first = 0; first < 2; first++) {
        struct cf_ctx *two[] = {with_cancel(cf_ctx_background()), with_cancel(cf_ctx_background())};
        struct merge merge = {.ctx = with_cancel(two[0]), .other = two[1]};
        struct cf_ctx_after *after;

        ck_assert_int_eq(cf_ctx_after(two[1], end_merged, &merge, &after, &err), CF_OK);
        assert_live(merge.ctx);
        cf_ctx_cancel_cause(two[first], CF_REASON_USER, first == 0 ? &because : &too_slow);
        wait_done(merge.ctx);
        assert_done(merge.ctx, CF_ECANCELED, CF_REASON_USER);
        ck_assert_str_eq(cause_text(merge.ctx), first == 0 ? "because" : "too slow");
        assert_live(two[1 - first]);
        ck_assert_int_eq(cf_ctx_after_stop(after), first == 0);
        cf_ctx_free(merge.ctx);
        cf_ctx_free(two[0]);
        cf_ctx_free(two[1]);
    }
}
END_ONBOTH

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static atomic_int late;

/* With the lock, or it could come between the look at the context and the wait. */
static void wake_waiters(void *arg)
{
    (void)arg;
    (void)pthread_mutex_lock(&mu);
    (void)pthread_cond_broadcast(&changed);
    (void)pthread_mutex_unlock(&mu);
}

static void wait_for_condition(void *arg)
{
    struct cf_ctx *ctx = with_timeout(cf_ctx_background(), CF_MS);
    struct cf_ctx_after *after;

    (void)arg;
    (void)pthread_mutex_lock(&mu);
    EXPECT(cf_ctx_after(ctx, wake_waiters, NULL, &after, NULL) == CF_OK);
    do {
        (void)pthread_cond_wait(&changed, &mu);
    } while (cf_ctx_err(ctx) == CF_OK);
    (void)pthread_mutex_unlock(&mu);
    (void)cf_ctx_after_stop(after);
    (void)atomic_fetch_add(&late, cf_ctx_err(ctx) == CF_EDEADLINE);
    cf_ctx_free(ctx);
}

/* Go: ExampleAfterFunc_cond. Of threads only: a fiber must not wait for a condition of pthreads. */
START_TEST(after_ends_the_wait_for_a_condition)
{
    struct visit visits[4];

    atomic_store(&late, 0);
    for (int i = 0; i < 4; i++) {
        visit_start(&visits[i], PLACE_THREAD, wait_for_condition, NULL);
    }
    for (int i = 0; i < 4; i++) {
        visit_join(&visits[i]);
    }
    ck_assert_int_eq(atomic_load(&late), 4);
}
END_TEST

struct reading {
    int fd;
    struct cf_ctx *stopped; /* Done once nobody will be at the descriptor any more. */
};

static void stop_reading(void *arg)
{
    struct reading *reading = arg;
    struct cf_ctx *stopped = cf_ctx_ref(reading->stopped);

    (void)shutdown(reading->fd, SHUT_RD);
    cf_ctx_cancel(stopped);
    cf_ctx_unref(stopped);
}

/* Go: ExampleAfterFunc_connection. A call that knows no context, on a thread: on a fiber it would
 * hold up its loop, and cf_wait_fd() is there for that. */
START_TEST(after_ends_a_read_that_knows_no_context)
{
    struct cf_ctx *ctx = with_timeout(cf_ctx_background(), CF_MS);
    struct reading reading = {.stopped = with_cancel(cf_ctx_background())};
    struct cf_ctx_after *after;
    char byte;
    int ends[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    reading.fd = ends[0];
    ck_assert_int_eq(cf_ctx_after(ctx, stop_reading, &reading, &after, &err), CF_OK);
    ck_assert_int_eq(read(ends[0], &byte, 1), 0);
    ck_assert(!cf_ctx_after_stop(after));
    wait_done(reading.stopped);
    assert_done(ctx, CF_EDEADLINE, CF_REASON_DEADLINE);
    ck_assert_int_eq(close(ends[0]), 0);
    ck_assert_int_eq(close(ends[1]), 0);
    cf_ctx_free(reading.stopped);
    cf_ctx_free(ctx);
}
END_TEST

static TCase *add(Suite *suite, const char *name)
{
    TCase *tc = tcase_create(name);

    tcase_set_timeout(tc, 30);
    suite_add_tcase(suite, tc);
    return tc;
}

Suite *suite_ctx_tasks(void)
{
    Suite *suite = suite_create("ctx_tasks");
    TCase *tc;

    tc = add(suite, "cancel");
    tcase_add_loop_test(tc, cancel_all_of_a_tree_while_each_is_waited_for, 0, TASKS_WAYS);
    tcase_add_loop_test(tc, cancel_by_who_waits_for_the_parent, 0, TASKS_WAYS);
    tcase_add_loop_test(tc, cancel_while_its_cause_is_polled, 0, TASKS_WAYS);

    tc = add(suite, "with_cancel");
    tcase_add_loop_test(tc, with_cancel_while_a_task_cancels_the_parent, 0, TASKS_WAYS);

    tc = add(suite, "done_fd");
    tcase_add_loop_test(tc, done_fd_tells_who_polled_the_err, 0, TASKS_WAYS);

    tc = add(suite, "examples");
    tcase_add_loop_test(tc, cancel_ends_the_task_that_sends, 0, TASKS_WAYS);
    tcase_add_onboth(tc, deadline_ends_the_wait_for_what_never_comes);
    tcase_add_onboth(tc, after_merges_the_ends_of_two);
    tcase_add_test(tc, after_ends_the_wait_for_a_condition);
    tcase_add_test(tc, after_ends_a_read_that_knows_no_context);
    return suite;
}
