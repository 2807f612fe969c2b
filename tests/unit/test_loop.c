/* SPDX-License-Identifier: MIT */
/* Loops and their fibers, as the public header promises them. test_turn.c has what pg and http need
 * of them beyond that. */
#include <curfew/loop.h>

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <curfew/ctx.h>
#include <curfew/wait.h>

#include "fault.h"
#include "places.h"

/* More than an address space has: a loop that cannot map a single stack. */
#define STACK_TOO_LARGE ((size_t)1 << 47)

/* Fixture */

static struct cf_loop *loop;
static struct cf_err err;
static struct cf_ctx *gate; /* Cancelled to let fibers go. */

static void setup(void)
{
    ck_assert_int_eq(cf_loop_new(NULL, &loop, &err), CF_OK);
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &gate, &err), CF_OK);
}

/* Wait for the last fiber. */
static void end_loop(void)
{
    cf_loop_free(loop);
    loop = NULL;
}

static void teardown(void)
{
    end_loop();
    cf_ctx_free(gate);
}

/* Helpers */

struct log {
    atomic_int count;
    int entries[64];
};

struct entry {
    struct log *log;
    int value;
};

static void note(struct log *log, int value)
{
    int at = atomic_fetch_add(&log->count, 1);

    if (at < 64) {
        log->entries[at] = value;
    }
}

static void note_entry(void *arg)
{
    struct entry *entry = arg;

    note(entry->log, entry->value);
}

static void wait_at_gate(void *arg)
{
    place_wait(gate);
    if (arg != NULL) {
        (void)atomic_fetch_add((atomic_int *)arg, 1);
    }
}

static void must_spawn(struct cf_loop *on, cf_fiber_fn fn, void *arg)
{
    if (cf_loop_spawn(on, fn, arg, NULL) != CF_OK) {
        abort();
    }
}

static void count_up(void *arg)
{
    (void)atomic_fetch_add((atomic_int *)arg, 1);
}

static int open_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    int count = 0;

    ck_assert_ptr_nonnull(directory);
    while (readdir(directory) != NULL) {
        count++;
    }
    (void)closedir(directory);
    return count;
}

/* new */

struct self {
    pthread_t thread;
    char name[16];
    bool blocks_signals;
};

static void describe_self(void *arg)
{
    struct self *self = arg;
    sigset_t blocked;

    self->thread = pthread_self();
    (void)pthread_getname_np(pthread_self(), self->name, sizeof(self->name));
    (void)pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    self->blocks_signals =
        sigismember(&blocked, SIGTERM) == 1 && sigismember(&blocked, SIGINT) == 1;
}

START_TEST(new_starts_a_thread_that_takes_no_signals)
{
    struct self self = {.blocks_signals = false};
    sigset_t blocked;

    ck_assert_int_eq(cf_loop_call(loop, describe_self, &self, &err), CF_OK);
    ck_assert(!pthread_equal(self.thread, pthread_self()));
    ck_assert_str_eq(self.name, "cf-loop");
    ck_assert(self.blocks_signals);
    (void)pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    ck_assert_int_eq(sigismember(&blocked, SIGTERM), 0);
}
END_TEST

START_TEST(new_out_of_memory)
{
    struct cf_loop *none = NULL;
    unsigned failed = 0;

    for (unsigned nth = 1;; nth++) {
        enum cf_code code;

        fault_alloc(nth, false);
        code = cf_loop_new(NULL, &none, &err);
        if (!fault_off()) {
            ck_assert_int_eq(code, CF_OK);
            break;
        }
        ck_assert_int_eq(code, CF_ENOMEM);
        ck_assert_int_eq(err.code, CF_ENOMEM);
        ck_assert_ptr_null(none);
        failed++;
    }
    ck_assert_uint_gt(failed, 0);
    cf_loop_free(none);
}
END_TEST

/* Leave a little more room each time, so that a later step fails. By two, and what stays open is
 * not counted: libuv 1.44 forgets its epoll descriptor when a later step
 * of uv_loop_init() fails. */
START_TEST(new_without_descriptors_fails)
{
    struct rlimit before;
    enum cf_code code = CF_EIO;
    int failed = 0;

    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    for (rlim_t room = 3; code != CF_OK; room += 2) {
        struct rlimit few = {.rlim_cur = room, .rlim_max = before.rlim_max};
        struct cf_loop *none = NULL;

        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
        code = cf_loop_new(NULL, &none, &err);
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
        if (code != CF_OK) {
            ck_assert_int_eq(code, CF_EIO);
            ck_assert_int_eq(err.sys, EMFILE);
            ck_assert_ptr_null(none);
            failed++;
        }
        cf_loop_free(none);
    }
    ck_assert_int_gt(failed, 1);
}
END_TEST

/* free */

START_TEST(free_of_null_does_nothing)
{
    cf_loop_free(NULL);
}
END_TEST

static void free_loop(void *arg)
{
    cf_loop_free(arg);
}

START_TEST(free_waits_for_the_last_fiber)
{
    atomic_int ended = 0;
    struct visit visit;

    for (int i = 0; i < 3; i++) {
        must_spawn(loop, wait_at_gate, &ended);
    }
    visit_start(&visit, PLACE_THREAD, free_loop, loop);
    loop = NULL;
    visit_wait_parked(&visit);
    ck_assert_int_eq(atomic_load(&ended), 0);
    cf_ctx_cancel(gate);
    visit_join(&visit);
    ck_assert_int_eq(atomic_load(&ended), 3);
}
END_TEST

START_TEST(free_runs_what_was_spawned_before)
{
    atomic_int ran = 0;

    for (int i = 0; i < 500; i++) {
        must_spawn(loop, count_up, &ran);
    }
    end_loop();
    ck_assert_int_eq(atomic_load(&ran), 500);
}
END_TEST

static void spawn_a_chain(void *arg)
{
    if (atomic_fetch_add((atomic_int *)arg, 1) < 99) {
        must_spawn(cf_loop_current(), spawn_a_chain, arg);
    }
}

START_TEST(free_runs_what_its_last_fibers_spawn)
{
    atomic_int ran = 0;

    must_spawn(loop, spawn_a_chain, &ran);
    end_loop();
    ck_assert_int_eq(atomic_load(&ran), 100);
}
END_TEST

START_TEST(free_leaves_no_descriptor)
{
    int open_before = open_descriptors();

    for (int i = 0; i < 20; i++) {
        struct cf_loop *other;

        ck_assert_int_eq(cf_loop_new(NULL, &other, &err), CF_OK);
        cf_loop_free(other);
    }
    ck_assert_int_eq(open_descriptors(), open_before);
}
END_TEST

START_TEST(free_from_a_fiber_asserts)
{
    struct cf_loop *other;

    ck_assert_int_eq(cf_loop_new(NULL, &other, &err), CF_OK);
    /* Its own loop, which could never end, and another, for which it would block its own. */
    ck_assert_int_eq(cf_loop_call(loop, free_loop, _i == 0 ? loop : other, &err), CF_OK);
}
END_TEST

/* spawn */

START_TEST(spawn_from_a_thread_runs_in_order)
{
    struct log log = {.count = 0};
    struct entry entries[64];

    for (int i = 0; i < 64; i++) {
        entries[i] = (struct entry){&log, i};
        ck_assert_int_eq(cf_loop_spawn(loop, note_entry, &entries[i], &err), CF_OK);
    }
    end_loop();
    ck_assert_int_eq(atomic_load(&log.count), 64);
    for (int i = 0; i < 64; i++) {
        ck_assert_int_eq(log.entries[i], i);
    }
}
END_TEST

static void spawn_and_go_on(void *arg)
{
    struct entry *entries = arg;

    for (int i = 1; i <= 3; i++) {
        must_spawn(cf_loop_current(), note_entry, &entries[i]);
    }
    note_entry(&entries[0]);
    place_yield();
    note_entry(&entries[4]);
}

START_TEST(spawn_from_a_fiber_returns_before_it_starts)
{
    struct log log = {.count = 0};
    struct entry entries[5];

    for (int i = 0; i < 5; i++) {
        entries[i] = (struct entry){&log, i};
    }
    ck_assert_int_eq(cf_loop_call(loop, spawn_and_go_on, entries, &err), CF_OK);
    ck_assert_int_eq(atomic_load(&log.count), 5);
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(log.entries[i], i);
    }
}
END_TEST

#define SPAWNERS 4
#define SPAWNS 300

struct spawner {
    int next;     /* Loop thread only, as is the next. */
    int disorder; /* Fibers that were not the next of their sender. */
    struct spawned {
        struct spawner *spawner;
        int value;
    } spawned[SPAWNS];
};

static void expect_next(void *arg)
{
    struct spawned *spawned = arg;

    spawned->spawner->disorder += spawned->value != spawned->spawner->next;
    spawned->spawner->next++;
}

static void spawn_many(void *arg)
{
    struct spawner *spawner = arg;

    for (int i = 0; i < SPAWNS; i++) {
        spawner->spawned[i] = (struct spawned){spawner, i};
        must_spawn(loop, expect_next, &spawner->spawned[i]);
    }
}

START_TEST(spawn_from_many_places_runs_each_once_and_in_its_order)
{
    static struct spawner spawners[SPAWNERS];
    struct visit visits[SPAWNERS];

    memset(spawners, 0, sizeof(spawners));
    for (int i = 0; i < SPAWNERS; i++) {
        visit_start(&visits[i], i % PLACES, spawn_many, &spawners[i]);
    }
    for (int i = 0; i < SPAWNERS; i++) {
        visit_join(&visits[i]);
    }
    end_loop();
    for (int i = 0; i < SPAWNERS; i++) {
        ck_assert_int_eq(spawners[i].next, SPAWNS);
        ck_assert_int_eq(spawners[i].disorder, 0);
    }
}
END_TEST

START_TEST(spawn_out_of_memory)
{
    static const struct cf_loop_options options = {.stack_size = STACK_TOO_LARGE};
    atomic_int ran = 0;
    struct cf_loop *full;

    ck_assert_int_eq(cf_loop_new(&options, &full, &err), CF_OK);
    ck_assert_int_eq(cf_loop_spawn(full, count_up, &ran, &err), CF_ENOMEM);
    ck_assert_int_eq(err.code, CF_ENOMEM);
    ck_assert_int_eq(cf_loop_spawn(full, count_up, &ran, NULL), CF_ENOMEM);
    ck_assert_uint_eq(cf_loop_fibers(full), 0);
    cf_loop_free(full);
    ck_assert_int_eq(atomic_load(&ran), 0);
}
END_TEST

/* call */

static void yield_and_count(void *arg)
{
    for (int i = 0; i < 100; i++) {
        place_yield();
    }
    count_up(arg);
}

START_TEST(call_returns_after_its_end)
{
    atomic_int ran = 0;

    for (int i = 1; i <= 20; i++) {
        ck_assert_int_eq(cf_loop_call(loop, yield_and_count, &ran, &err), CF_OK);
        ck_assert_int_eq(atomic_load(&ran), i);
    }
}
END_TEST

static void call_loop(void *arg)
{
    for (int i = 0; i < 200; i++) {
        if (cf_loop_call(loop, count_up, arg, NULL) != CF_OK) {
            abort();
        }
    }
}

START_TEST(call_from_many_threads)
{
    atomic_int ran = 0;
    struct visit visits[4];

    for (int i = 0; i < 4; i++) {
        visit_start(&visits[i], PLACE_THREAD, call_loop, &ran);
    }
    for (int i = 0; i < 4; i++) {
        visit_join(&visits[i]);
    }
    ck_assert_int_eq(atomic_load(&ran), 800);
}
END_TEST

static void call_gate(void *arg)
{
    if (cf_loop_call(loop, wait_at_gate, arg, NULL) != CF_OK) {
        abort();
    }
}

START_TEST(call_waits_while_its_fiber_waits)
{
    atomic_int ended = 0;
    struct visit visit;

    visit_start(&visit, PLACE_THREAD, call_gate, &ended);
    visit_wait_parked(&visit);
    cf_ctx_cancel(gate);
    visit_join(&visit);
    ck_assert_int_eq(atomic_load(&ended), 1);
}
END_TEST

START_TEST(call_out_of_memory)
{
    static const struct cf_loop_options options = {.stack_size = STACK_TOO_LARGE};
    atomic_int ran = 0;
    struct cf_loop *full;

    ck_assert_int_eq(cf_loop_new(&options, &full, &err), CF_OK);
    ck_assert_int_eq(cf_loop_call(full, count_up, &ran, &err), CF_ENOMEM);
    ck_assert_int_eq(err.code, CF_ENOMEM);
    cf_loop_free(full);
    ck_assert_int_eq(atomic_load(&ran), 0);
}
END_TEST

static void call_from_fiber(void *arg)
{
    atomic_int ran = 0;

    if (cf_loop_call(arg, count_up, &ran, NULL) != CF_OK) {
        return;
    }
}

START_TEST(call_from_a_fiber_asserts)
{
    struct cf_loop *other;

    ck_assert_int_eq(cf_loop_new(NULL, &other, &err), CF_OK);
    ck_assert_int_eq(cf_loop_call(loop, call_from_fiber, _i == 0 ? loop : other, &err), CF_OK);
}
END_TEST

/* current, on_fiber */

struct here {
    struct cf_loop *loop;
    bool on_fiber;
};

static void look(void *arg)
{
    struct here *here = arg;

    place_yield();
    here->loop = cf_loop_current();
    here->on_fiber = cf_on_fiber();
}

START_TEST(current_is_the_loop_of_the_fiber)
{
    struct here one;
    struct here two;
    struct cf_loop *other;

    ck_assert_int_eq(cf_loop_new(NULL, &other, &err), CF_OK);
    ck_assert_int_eq(cf_loop_call(loop, look, &one, &err), CF_OK);
    ck_assert_int_eq(cf_loop_call(other, look, &two, &err), CF_OK);
    ck_assert_ptr_eq(one.loop, loop);
    ck_assert_ptr_eq(two.loop, other);
    ck_assert(one.on_fiber);
    ck_assert(two.on_fiber);
    cf_loop_free(other);
}
END_TEST

START_TEST(current_is_null_on_a_plain_thread)
{
    ck_assert_ptr_null(cf_loop_current());
    ck_assert(!cf_on_fiber());
}
END_TEST

/* fibers */

static void count_fibers(void *arg)
{
    *(size_t *)arg = cf_loop_fibers(cf_loop_current());
}

START_TEST(fibers_counts_those_that_have_not_ended)
{
    size_t seen = 0;

    ck_assert_uint_eq(cf_loop_fibers(loop), 0);
    for (size_t i = 1; i <= 10; i++) {
        must_spawn(loop, wait_at_gate, NULL);
        ck_assert_uint_eq(cf_loop_fibers(loop), i); /* They wait, whether or not they began. */
    }
    ck_assert_int_eq(cf_loop_call(loop, count_fibers, &seen, &err), CF_OK);
    ck_assert_uint_eq(seen, 11);
    cf_ctx_cancel(gate);
    EVENTUALLY(cf_loop_fibers(loop) == 0);
}
END_TEST

Suite *suite_loop(void)
{
    Suite *suite = suite_create("loop");
    TCase *tc = tcase_create("new");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, new_starts_a_thread_that_takes_no_signals);
    tcase_add_test(tc, new_out_of_memory);
    tcase_add_test(tc, new_without_descriptors_fails);
    suite_add_tcase(suite, tc);

    tc = tcase_create("free");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, free_of_null_does_nothing);
    tcase_add_test(tc, free_waits_for_the_last_fiber);
    tcase_add_test(tc, free_runs_what_was_spawned_before);
    tcase_add_test(tc, free_runs_what_its_last_fibers_spawn);
    tcase_add_test(tc, free_leaves_no_descriptor);
    suite_add_tcase(suite, tc);

    tc = tcase_create("spawn");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, spawn_from_a_thread_runs_in_order);
    tcase_add_test(tc, spawn_from_a_fiber_returns_before_it_starts);
    tcase_add_test(tc, spawn_from_many_places_runs_each_once_and_in_its_order);
    tcase_add_test(tc, spawn_out_of_memory);
    suite_add_tcase(suite, tc);

    tc = tcase_create("call");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, call_returns_after_its_end);
    tcase_add_test(tc, call_from_many_threads);
    tcase_add_test(tc, call_waits_while_its_fiber_waits);
    tcase_add_test(tc, call_out_of_memory);
    suite_add_tcase(suite, tc);

    tc = tcase_create("current");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, current_is_the_loop_of_the_fiber);
    tcase_add_test(tc, current_is_null_on_a_plain_thread);
    suite_add_tcase(suite, tc);

    tc = tcase_create("fibers");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, fibers_counts_those_that_have_not_ended);
    suite_add_tcase(suite, tc);

    tc = tcase_create("asserts");
    tcase_set_tags(tc, "fork");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test_raise_signal(tc, free_from_a_fiber_asserts, SIGABRT, 0, 2);
    tcase_add_loop_test_raise_signal(tc, call_from_a_fiber_asserts, SIGABRT, 0, 2);
    suite_add_tcase(suite, tc);
    return suite;
}
