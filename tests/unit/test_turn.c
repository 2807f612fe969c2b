/* SPDX-License-Identifier: MIT */
/* A loop's turn, as pg and http use it: messages, hooks, watches, timers, deferred functions, and
 * that none of them starves for the others. */
#include "curfew/runtime/loop_private.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <curfew/ctx.h>
#include <curfew/wait.h>

#include "effort.h"
#include "fault.h"
#include "places.h"

/* Fixture */

static struct cf_loop *loop;
static struct cf_err err;
static int ends[2]; /* A pair of connected sockets. */

static void setup(void)
{
    ck_assert_int_eq(cf_loop_new(NULL, &loop, &err), CF_OK);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
}

static void end_loop(void)
{
    cf_loop_free(loop);
    loop = NULL;
}

static void teardown(void)
{
    end_loop();
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* Helpers */

static void run(cf_fiber_fn fn, void *arg)
{
    ck_assert_int_eq(cf_loop_call(loop, fn, arg, &err), CF_OK);
}

/* A message that has the loop, off its fibers, call a function; and that can be waited for. */
struct request {
    struct cf__message message;
    void (*fn)(void *arg);
    void *arg;
    atomic_bool done;
};

static void serve(struct cf__message *message)
{
    struct request *request = CF__CONTAINER(message, struct request, message);

    request->fn(request->arg);
    atomic_store(&request->done, true);
}

static void on_loop(void (*fn)(void *arg), void *arg)
{
    struct request request = {.message.run = serve, .fn = fn, .arg = arg};

    cf__loop_post(loop, &request.message);
    EVENTUALLY(atomic_load(&request.done));
}

static void do_nothing(void *arg)
{
    (void)arg;
}

/* post */

#define SENDERS 4
#define MESSAGES 1000

struct sender {
    int next; /* Loop thread only, as is the next. */
    int disorder;
    struct numbered {
        struct cf__message message;
        struct sender *sender;
        int value;
    } numbered[MESSAGES];
};

static void expect_next(struct cf__message *message)
{
    struct numbered *numbered = CF__CONTAINER(message, struct numbered, message);

    numbered->sender->disorder += numbered->value != numbered->sender->next;
    numbered->sender->next++;
}

static void send_all(void *arg)
{
    struct sender *sender = arg;

    for (int i = 0; i < MESSAGES; i++) {
        sender->numbered[i] = (struct numbered){{.run = expect_next}, sender, i};
        cf__loop_post(loop, &sender->numbered[i].message);
    }
}

START_TEST(post_from_many_places_runs_each_once_and_in_its_order)
{
    static struct sender senders[SENDERS];
    struct visit visits[SENDERS];

    memset(senders, 0, sizeof(senders));
    for (int i = 0; i < SENDERS; i++) {
        visit_start(&visits[i], i % PLACES, send_all, &senders[i]);
    }
    for (int i = 0; i < SENDERS; i++) {
        visit_join(&visits[i]);
    }
    end_loop(); /* Behind all messages. */
    for (int i = 0; i < SENDERS; i++) {
        ck_assert_int_eq(senders[i].next, MESSAGES);
        ck_assert_int_eq(senders[i].disorder, 0);
    }
}
END_TEST

struct where {
    struct cf_loop *loop;
    bool on_fiber;
};

static void look(void *arg)
{
    struct where *where = arg;

    where->loop = cf_loop_current();
    where->on_fiber = cf_on_fiber();
}

START_TEST(post_runs_on_the_loop_and_off_its_fibers)
{
    struct where where = {.on_fiber = true};

    on_loop(look, &where);
    ck_assert_ptr_eq(where.loop, loop);
    ck_assert(!where.on_fiber);
}
END_TEST

/* A message that is sent again from its own run: the node is free by then. */
struct again {
    struct cf__message message;
    atomic_int left;
};

static void send_again(struct cf__message *message)
{
    struct again *again = CF__CONTAINER(message, struct again, message);

    if (atomic_fetch_sub(&again->left, 1) > 1) {
        cf__loop_post(loop, message);
    }
}

START_TEST(post_from_a_message_runs_in_a_later_turn)
{
    struct again again = {.message.run = send_again, .left = 100};

    cf__loop_post(loop, &again.message);
    EVENTUALLY(atomic_load(&again.left) == 0);
}
END_TEST

/* fiber_run */

struct trail {
    int at;
    int steps[8];
    enum cf_code code;
};

static void step(struct trail *trail, int value)
{
    trail->steps[trail->at++] = value;
}

static void park_once(void *arg)
{
    step(arg, 1);
    place_yield();
    step(arg, 3);
}

static void run_parking_fiber(void *arg)
{
    struct trail *trail = arg;

    step(trail, 0);
    trail->code = cf__fiber_run(cf_loop_current(), park_once, arg, NULL);
    step(trail, 2);
}

START_TEST(fiber_run_returns_when_it_has_parked)
{
    struct trail trail = {.at = 0};

    on_loop(run_parking_fiber, &trail);
    end_loop();
    ck_assert_int_eq(trail.code, CF_OK);
    ck_assert_int_eq(trail.at, 4);
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(trail.steps[i], i);
    }
}
END_TEST

START_TEST(fiber_run_out_of_memory)
{
    static const struct cf_loop_options options = {.stack_size = (size_t)1 << 47};
    struct trail trail = {.at = 0};

    end_loop();
    ck_assert_int_eq(cf_loop_new(&options, &loop, &err), CF_OK);
    on_loop(run_parking_fiber, &trail);
    ck_assert_int_eq(trail.code, CF_ENOMEM);
    ck_assert_int_eq(trail.at, 2);
    ck_assert_uint_eq(cf_loop_fibers(loop), 0);
}
END_TEST

START_TEST(fiber_run_from_a_fiber_asserts)
{
    struct trail trail = {.at = 0};

    run(run_parking_fiber, &trail);
}
END_TEST

/* hook */

struct probe {
    struct cf__hook hook;
    atomic_int runs;
    struct trail *trail;
    int value;
    bool once;
    bool on_fiber;
    int fibers_to_start;
};

static void on_hook(struct cf__hook *hook)
{
    struct probe *probe = CF__CONTAINER(hook, struct probe, hook);

    probe->on_fiber = cf_on_fiber();
    if (probe->trail != NULL && probe->trail->at < 8) {
        step(probe->trail, probe->value);
    }
    if (probe->once) {
        cf__loop_hook_remove(hook);
    }
    if (probe->fibers_to_start > 0 && cf_loop_spawn(loop, do_nothing, NULL, NULL) == CF_OK) {
        probe->fibers_to_start--;
    }
    (void)atomic_fetch_add(&probe->runs, 1);
}

static void add_hook(void *arg)
{
    cf__loop_hook_add(loop, &((struct probe *)arg)->hook);
}

static void remove_hook(void *arg)
{
    cf__loop_hook_remove(&((struct probe *)arg)->hook);
}

START_TEST(hook_runs_after_each_turn_in_which_something_happened)
{
    struct probe probe = {.hook.run = on_hook, .on_fiber = true};

    on_loop(add_hook, &probe);
    for (int i = 0; i < 20; i++) {
        int before;

        EVENTUALLY(atomic_load(&probe.runs) > 0);
        before = atomic_load(&probe.runs);
        on_loop(do_nothing, NULL);
        EVENTUALLY(atomic_load(&probe.runs) > before);
    }
    ck_assert(!probe.on_fiber);
    on_loop(remove_hook, &probe);
}
END_TEST

START_TEST(hook_runs_in_the_order_of_adding)
{
    struct trail trail = {.at = 0};
    struct probe one = {.hook.run = on_hook, .trail = &trail, .value = 1, .once = true};
    struct probe two = {.hook.run = on_hook, .trail = &trail, .value = 2, .once = true};
    struct probe three = {.hook.run = on_hook, .trail = &trail, .value = 3, .once = true};

    on_loop(add_hook, &one);
    on_loop(add_hook, &two);
    on_loop(add_hook, &three);
    end_loop();
    /* Each may have run in a turn of its own; none twice, none before an earlier one. */
    ck_assert_int_eq(trail.at, 3);
    ck_assert_int_eq(trail.steps[0], 1);
    ck_assert_int_eq(trail.steps[1], 2);
    ck_assert_int_eq(trail.steps[2], 3);
}
END_TEST

static void add_three(void *arg)
{
    struct probe *probes = arg;

    for (int i = 0; i < 3; i++) {
        cf__loop_hook_add(loop, &probes[i].hook);
    }
}

/* The one in the middle goes while the loop stands on it. */
START_TEST(hook_may_remove_itself)
{
    struct probe probes[3] = {
        {.hook.run = on_hook}, {.hook.run = on_hook, .once = true}, {.hook.run = on_hook}};

    on_loop(add_three, probes);
    EVENTUALLY(atomic_load(&probes[2].runs) > 0);
    on_loop(do_nothing, NULL);
    EVENTUALLY(atomic_load(&probes[2].runs) > 1);
    ck_assert_int_eq(atomic_load(&probes[1].runs), 1);
    on_loop(remove_hook, &probes[0]);
    on_loop(remove_hook, &probes[2]);
}
END_TEST

/* It makes ten fibers, one in each round, and the loop does not sleep before the last has run. */
START_TEST(hook_runs_again_until_nothing_is_ready)
{
    struct probe probe = {.hook.run = on_hook, .fibers_to_start = 10};

    on_loop(add_hook, &probe);
    EVENTUALLY(atomic_load(&probe.runs) > 10);
    EVENTUALLY(cf_loop_fibers(loop) == 0);
    on_loop(remove_hook, &probe);
    ck_assert_int_eq(probe.fibers_to_start, 0);
}
END_TEST

START_TEST(hook_does_not_run_after_its_removal)
{
    struct probe probe = {.hook.run = on_hook};
    int before;

    on_loop(add_hook, &probe);
    on_loop(remove_hook, &probe);
    before = atomic_load(&probe.runs);
    for (int i = 0; i < 5; i++) {
        on_loop(do_nothing, NULL);
    }
    run(do_nothing, NULL);
    ck_assert_int_eq(atomic_load(&probe.runs), before);
}
END_TEST

/* watch */

struct watching {
    int fd;
    int events;
    bool drain; /* Read what came. */
    struct cf__watch *watch;
    enum cf_code code;
    struct cf_err err;
    atomic_int calls;
    atomic_int seen; /* Events, or-ed together. */
    atomic_int status;
};

static void on_watch(void *arg, int status, int events)
{
    struct watching *watching = arg;
    char byte;

    (void)atomic_fetch_or(&watching->seen, events);
    atomic_store(&watching->status, status);
    if (watching->drain) {
        while (read(watching->fd, &byte, 1) == 1) {
        }
    }
    (void)atomic_fetch_add(&watching->calls, 1);
}

static void open_watch(void *arg)
{
    struct watching *watching = arg;

    watching->code =
        cf__watch_open(loop, watching->fd, on_watch, watching, &watching->watch, &watching->err);
    if (watching->code == CF_OK && watching->events != 0) {
        cf__watch_events(watching->watch, watching->events);
    }
}

static void set_events(void *arg)
{
    struct watching *watching = arg;

    cf__watch_events(watching->watch, watching->events);
}

static void close_watch(void *arg)
{
    cf__watch_close(((struct watching *)arg)->watch);
}

static void write_byte(int fd)
{
    ck_assert_int_eq(write(fd, "x", 1), 1);
}

START_TEST(watch_starts_with_no_events)
{
    struct watching watching = {.fd = ends[0]};

    write_byte(ends[1]);
    on_loop(open_watch, &watching);
    ck_assert_int_eq(watching.code, CF_OK);
    for (int i = 0; i < 5; i++) {
        on_loop(do_nothing, NULL);
    }
    ck_assert_int_eq(atomic_load(&watching.calls), 0);
    watching.events = UV_READABLE;
    watching.drain = true;
    on_loop(set_events, &watching);
    EVENTUALLY(atomic_load(&watching.calls) > 0);
    on_loop(close_watch, &watching);
    ck_assert_int_eq(atomic_load(&watching.seen), UV_READABLE);
    ck_assert_int_eq(atomic_load(&watching.status), 0);
}
END_TEST

START_TEST(watch_tells_again_while_it_is_ready)
{
    struct watching watching = {.fd = ends[0], .events = UV_READABLE};
    char byte;

    on_loop(open_watch, &watching);
    write_byte(ends[1]);
    EVENTUALLY(atomic_load(&watching.calls) > 10);
    ck_assert_int_eq(read(ends[0], &byte, 1), 1);
    on_loop(close_watch, &watching);
}
END_TEST

START_TEST(watch_with_no_events_is_silent)
{
    struct watching watching = {.fd = ends[0], .events = UV_READABLE | UV_WRITABLE};
    int before;

    on_loop(open_watch, &watching);
    write_byte(ends[1]);
    EVENTUALLY(atomic_load(&watching.calls) > 0);
    watching.events = 0;
    on_loop(set_events, &watching);
    before = atomic_load(&watching.calls);
    for (int i = 0; i < 5; i++) {
        on_loop(do_nothing, NULL);
    }
    ck_assert_int_eq(atomic_load(&watching.calls), before);
    on_loop(close_watch, &watching);
}
END_TEST

START_TEST(watch_sees_the_other_side_go)
{
    struct watching watching = {.fd = ends[0], .events = UV_DISCONNECT};

    on_loop(open_watch, &watching);
    on_loop(do_nothing, NULL);
    ck_assert_int_eq(atomic_load(&watching.calls), 0);
    ck_assert_int_eq(shutdown(ends[1], SHUT_WR), 0);
    EVENTUALLY(atomic_load(&watching.calls) > 0);
    ck_assert_int_eq(atomic_load(&watching.seen), UV_DISCONNECT);
    on_loop(close_watch, &watching);
}
END_TEST

START_TEST(watch_is_silent_once_closed)
{
    struct watching watching = {.fd = ends[0], .events = UV_READABLE};
    int before;

    on_loop(open_watch, &watching);
    write_byte(ends[1]);
    EVENTUALLY(atomic_load(&watching.calls) > 0);
    on_loop(close_watch, &watching);
    before = atomic_load(&watching.calls);
    for (int i = 0; i < 5; i++) {
        on_loop(do_nothing, NULL);
    }
    ck_assert_int_eq(atomic_load(&watching.calls), before);
    cf__watch_close(NULL);
}
END_TEST

/* The descriptor may be watched again in the turn in which its first watch was closed. */
static void close_and_open(void *arg)
{
    close_watch(arg);
    open_watch(arg);
}

START_TEST(watch_of_a_descriptor_follows_another)
{
    struct watching watching = {.fd = ends[0], .events = UV_READABLE, .drain = true};

    on_loop(open_watch, &watching);
    for (int i = 0; i < 10; i++) {
        on_loop(close_and_open, &watching);
        ck_assert_int_eq(watching.code, CF_OK);
    }
    write_byte(ends[1]);
    EVENTUALLY(atomic_load(&watching.calls) > 0);
    on_loop(close_watch, &watching);
}
END_TEST

START_TEST(watch_of_what_cannot_be_watched_fails)
{
    struct watching nothing = {.fd = open("/dev/null", O_RDONLY | O_CLOEXEC)};
    struct watching regular = {.fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC)};

    (void)close(nothing.fd);
    on_loop(open_watch, &nothing);
    ck_assert_int_eq(nothing.code, CF_EIO);
    ck_assert_int_eq(nothing.err.sys, EBADF);
    on_loop(open_watch, &regular);
    ck_assert_int_eq(regular.code, CF_EIO);
    ck_assert_int_eq(regular.err.sys, EPERM);
    ck_assert_ptr_null(regular.watch);
    (void)close(regular.fd);
}
END_TEST

static void open_watch_without_memory(void *arg)
{
    fault_alloc(1, false);
    open_watch(arg);
    if (!fault_off()) {
        abort();
    }
}

START_TEST(watch_out_of_memory)
{
    struct watching watching = {.fd = ends[0]};

    on_loop(open_watch_without_memory, &watching);
    ck_assert_int_eq(watching.code, CF_ENOMEM);
    ck_assert_int_eq(watching.err.code, CF_ENOMEM);
    ck_assert_ptr_null(watching.watch);
}
END_TEST

/* starving */

/* More than EVENTUALLY() waits for what is starved, less than the time limit. */
#define BUSY_NS (25 * CF_SECOND)

struct busy {
    atomic_bool stop;
    atomic_bool gave_up; /* Whatever came after that had been starved. */
    atomic_long yields;
};

/* Never leaves the loop without a ready fiber. */
static void stay_busy(void *arg)
{
    struct busy *busy = arg;
    int64_t give_up_ns = cf_now_ns() + BUSY_NS;

    while (!atomic_load(&busy->stop) && !atomic_load(&busy->gave_up)) {
        place_yield();
        (void)atomic_fetch_add(&busy->yields, 1);
        if (cf_now_ns() >= give_up_ns) {
            atomic_store(&busy->gave_up, true);
        }
    }
}

static void start_busy(struct busy *busy)
{
    ck_assert_int_eq(cf_loop_spawn(loop, stay_busy, busy, &err), CF_OK);
    EVENTUALLY(atomic_load(&busy->yields) > 0);
}

static void end_busy(struct busy *busy)
{
    atomic_store(&busy->stop, true);
    end_loop();
    ck_assert_msg(!atomic_load(&busy->gave_up), "starved until the busy fiber gave up");
}

START_TEST(busy_fiber_does_not_starve_messages)
{
    struct busy busy = {.yields = 0};

    start_busy(&busy);
    on_loop(do_nothing, NULL);
    end_busy(&busy);
}
END_TEST

START_TEST(busy_fiber_does_not_starve_descriptors)
{
    struct watching watching = {.fd = ends[0], .events = UV_READABLE, .drain = true};
    struct busy busy = {.yields = 0};

    on_loop(open_watch, &watching);
    start_busy(&busy);
    write_byte(ends[1]);
    EVENTUALLY(atomic_load(&watching.calls) > 0);
    on_loop(close_watch, &watching);
    end_busy(&busy);
}
END_TEST

static void sleep_and_stop(void *arg)
{
    struct busy *busy = arg;

    if (cf_sleep(cf_ctx_background(), 5 * CF_MS, NULL) == CF_OK) {
        atomic_store(&busy->stop, true);
    }
}

START_TEST(busy_fiber_does_not_starve_timers)
{
    struct busy busy = {.yields = 0};

    start_busy(&busy);
    ck_assert_int_eq(cf_loop_spawn(loop, sleep_and_stop, &busy, &err), CF_OK);
    EVENTUALLY(atomic_load(&busy.stop));
    end_busy(&busy);
}
END_TEST

START_TEST(busy_fiber_does_not_starve_hooks)
{
    struct probe probe = {.hook.run = on_hook};
    struct busy busy = {.yields = 0};

    on_loop(add_hook, &probe);
    start_busy(&busy);
    EVENTUALLY(atomic_load(&probe.runs) > 100);
    on_loop(remove_hook, &probe);
    end_busy(&busy);
}
END_TEST

static void take_turns(void *arg)
{
    struct trail *trail = arg;

    for (int i = 0; i < 4; i++) {
        step(trail, i);
        place_yield();
    }
}

static void start_two(void *arg)
{
    if (cf_loop_spawn(loop, take_turns, arg, NULL) != CF_OK ||
        cf_loop_spawn(loop, take_turns, arg, NULL) != CF_OK) {
        abort();
    }
}

START_TEST(busy_fibers_take_turns)
{
    static const int expected[] = {0, 0, 1, 1, 2, 2, 3, 3};
    struct trail trail = {.at = 0};

    run(start_two, &trail);
    end_loop();
    ck_assert_int_eq(trail.at, 8);
    ck_assert_mem_eq(trail.steps, expected, sizeof(expected));
}
END_TEST

Suite *suite_turn(void)
{
    Suite *suite = suite_create("turn");
    TCase *tc = tcase_create("post");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, post_from_many_places_runs_each_once_and_in_its_order);
    tcase_add_test(tc, post_runs_on_the_loop_and_off_its_fibers);
    tcase_add_test(tc, post_from_a_message_runs_in_a_later_turn);
    suite_add_tcase(suite, tc);

    tc = tcase_create("fiber_run");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, fiber_run_returns_when_it_has_parked);
    tcase_add_test(tc, fiber_run_out_of_memory);
    suite_add_tcase(suite, tc);

    tc = tcase_create("hook");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, hook_runs_after_each_turn_in_which_something_happened);
    tcase_add_test(tc, hook_runs_in_the_order_of_adding);
    tcase_add_test(tc, hook_may_remove_itself);
    tcase_add_test(tc, hook_runs_again_until_nothing_is_ready);
    tcase_add_test(tc, hook_does_not_run_after_its_removal);
    suite_add_tcase(suite, tc);

    tc = tcase_create("watch");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, watch_starts_with_no_events);
    tcase_add_test(tc, watch_tells_again_while_it_is_ready);
    tcase_add_test(tc, watch_with_no_events_is_silent);
    tcase_add_test(tc, watch_sees_the_other_side_go);
    tcase_add_test(tc, watch_is_silent_once_closed);
    tcase_add_test(tc, watch_of_a_descriptor_follows_another);
    tcase_add_test(tc, watch_of_what_cannot_be_watched_fails);
    tcase_add_test(tc, watch_out_of_memory);
    suite_add_tcase(suite, tc);

    tc = tcase_create("starving");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, busy_fiber_does_not_starve_messages);
    tcase_add_test(tc, busy_fiber_does_not_starve_descriptors);
    tcase_add_test(tc, busy_fiber_does_not_starve_timers);
    tcase_add_test(tc, busy_fiber_does_not_starve_hooks);
    tcase_add_test(tc, busy_fibers_take_turns);
    suite_add_tcase(suite, tc);

    tc = tcase_create("asserts");
    tcase_set_tags(tc, "fork");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test_raise_signal(tc, fiber_run_from_a_fiber_asserts, SIGABRT);
    suite_add_tcase(suite, tc);
    return suite;
}
