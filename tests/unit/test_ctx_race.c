/* SPDX-License-Identifier: MIT */
/* Contexts from several threads, or loops, at once. See test_ctx.c.
 *
 * Each test plays rounds: everything is set up, then each member of a crew does its part at nearly
 * the same instant, then all of it is looked at. Members are threads, or fibers with a loop each.
 * Much of what may go wrong here shows only under `make asan tsan valgrind`; what is asserted must
 * hold anyway. */
#include <curfew/ctx.h>

#include <check.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include <curfew/clock.h>

#include "ctx_kit.h"
#include "places.h"

/* Helpers */

#define CREW_MAX 3
#define JITTER_NS 3000

struct crew {
    int n;
    void (*parts[CREW_MAX])(void);
    void (*before)(void);
    void (*after)(void);

    pthread_barrier_t start; /* The thread of the test takes part in both. */
    pthread_barrier_t end;
    bool over; /* Written before start, read after it. */
};

struct member {
    struct crew *crew;
    void (*part)(void);
    uint32_t random_state;
};

/* Begin at a slightly different time in each round, or always the same one would be first. */
static void jitter(struct member *member)
{
    int64_t until_ns = cf_now_ns();

    member->random_state = member->random_state * 1664525 + 1013904223;
    until_ns += (member->random_state >> 8) % JITTER_NS;
    while (cf_now_ns() < until_ns) {
    }
}

/* A barrier holds up the loop of a fiber, but the member is alone on it. */
static void be_member(void *arg)
{
    struct member *member = arg;
    struct cf_timer_source *before = cf_timer_source_use(&vclock.source);

    for (;;) {
        (void)pthread_barrier_wait(&member->crew->start);
        if (member->crew->over) {
            break;
        }
        jitter(member);
        member->part();
        (void)pthread_barrier_wait(&member->crew->end);
    }
    (void)cf_timer_source_use(before);
}

/* Play rounds for less than half a second, or ten if time does not matter. */
static void play(int place, struct crew crew)
{
    int64_t until_ns =
        cf_now_ns() + (getenv("CF_TEST_LONG") != NULL ? 10 * CF_SECOND : 400 * CF_MS);
    struct member members[CREW_MAX];
    struct visit visits[CREW_MAX];

    vclock_start(&vclock);
    ck_assert_int_eq(pthread_barrier_init(&crew.start, NULL, (unsigned)crew.n + 1), 0);
    ck_assert_int_eq(pthread_barrier_init(&crew.end, NULL, (unsigned)crew.n + 1), 0);
    for (int i = 0; i < crew.n; i++) {
        members[i] = (struct member){&crew, crew.parts[i], (uint32_t)i};
        visit_start(&visits[i], place, be_member, &members[i]);
    }
    do {
        crew.before();
        (void)pthread_barrier_wait(&crew.start);
        (void)pthread_barrier_wait(&crew.end);
        crew.after();
    } while (cf_now_ns() < until_ns);
    crew.over = true;
    (void)pthread_barrier_wait(&crew.start);
    for (int i = 0; i < crew.n; i++) {
        visit_join(&visits[i]);
    }
    (void)pthread_barrier_destroy(&crew.start);
    (void)pthread_barrier_destroy(&crew.end);
    vclock_stop(&vclock);
}

/* libcheck writes to a file for each assertion that holds: too slow for every round. */
#define CHECK(expr)                                                                                \
    do {                                                                                           \
        if (!(expr)) {                                                                             \
            ck_abort_msg("%s", #expr);                                                             \
        }                                                                                          \
    } while (0)

/* The round's contexts. Written by the test's thread between rounds,
 * but for what says otherwise. */
static struct cf_ctx *parent;
static struct cf_ctx *child;
static struct cf_ctx *other;
static struct cf_ctx *born; /* Made by a part. */

static void make_two(void)
{
    parent = with_cancel(cf_ctx_background());
    child = with_cancel(parent);
}

static void free_two(void)
{
    cf_ctx_free(child);
    cf_ctx_free(parent);
}

static void cancel_parent(void)
{
    cf_ctx_cancel_cause(parent, CF_REASON_USER, &because);
}

static void cancel_parent_otherwise(void)
{
    cf_ctx_cancel_cause(parent, CF_REASON_OPERATOR, &too_slow);
}

static bool same_cause(const struct cf_cause *a, const struct cf_cause *b)
{
    return a->reason == b->reason && a->err.code == b->err.code &&
           strcmp(a->err.msg, b->err.msg) == 0 && a->file == b->file && a->line == b->line &&
           a->at_ns == b->at_ns && a->budget_ns == b->budget_ns;
}

/* cancel */

static struct cf_cause seen; /* Of the parent, by the part that watches. */
static enum cf_code seen_code;

static void watch_cause(void)
{
    while (!cf_ctx_cause(parent, &seen)) {
        (void)sched_yield();
    }
    seen_code = cf_ctx_err(parent);
}

static void check_first_cause(void)
{
    struct cf_cause cause;

    CHECK(seen_code == CF_ECANCELED);
    if (seen.reason == CF_REASON_USER) {
        CHECK(strcmp(seen.err.msg, "because") == 0);
    } else {
        CHECK(seen.reason == CF_REASON_OPERATOR);
        CHECK(strcmp(seen.err.msg, "too slow") == 0);
    }
    CHECK(cf_ctx_cause(parent, &cause) && same_cause(&cause, &seen));
    CHECK(cf_ctx_cause(child, &cause) && same_cause(&cause, &seen));
    CHECK(cf_ctx_err(child) == CF_ECANCELED);
    free_two();
}

/* Go: TestCauseRace */
START_TEST(cancel_from_many_threads_first_cause_wins)
{
    play(_i, (struct crew){.n = 3,
                           .parts = {cancel_parent, cancel_parent_otherwise, watch_cause},
                           .before = make_two,
                           .after = check_first_cause});
}
END_TEST

static void cancel_child(void)
{
    cf_ctx_cancel_cause(child, CF_REASON_OPERATOR, &too_slow);
}

static void check_child_has_one_cause(void)
{
    struct cf_cause cause;

    CHECK(cf_ctx_cause(parent, &cause) && cause.reason == CF_REASON_USER);
    CHECK(cf_ctx_cause(child, &cause));
    CHECK(cause.reason == CF_REASON_USER || cause.reason == CF_REASON_OPERATOR);
    CHECK(strcmp(cause.err.msg, cause.reason == CF_REASON_USER ? "because" : "too slow") == 0);
    free_two();
}

START_TEST(cancel_of_parent_races_cancel_of_child)
{
    play(_i, (struct crew){.n = 2,
                           .parts = {cancel_parent, cancel_child},
                           .before = make_two,
                           .after = check_child_has_one_cause});
}
END_TEST

static void make_two_with_deadline(void)
{
    parent = with_deadline_cause(cf_ctx_background(),
                                 cf_deadline_in(vclock.source.now_ns(&vclock.source), 1), &because);
    child = with_cancel(parent);
}

static void pass_the_deadline(void)
{
    vclock_advance(&vclock, 1);
}

static void check_err_agrees_with_cause(void)
{
    struct cf_cause cause;

    CHECK(cf_ctx_cause(parent, &cause));
    if (cf_ctx_err(parent) == CF_EDEADLINE) {
        CHECK(cause.reason == CF_REASON_DEADLINE);
        CHECK(strcmp(cause.err.msg, "because") == 0);
        CHECK(cause.budget_ns == 0);
        CHECK(cause.file == NULL);
    } else {
        CHECK(cf_ctx_err(parent) == CF_ECANCELED);
        CHECK(cause.reason == CF_REASON_OPERATOR);
        CHECK(strcmp(cause.err.msg, "too slow") == 0);
    }
    CHECK(same_cause(&cause, &seen));
    CHECK(seen_code == cf_ctx_err(parent));
    CHECK(cf_ctx_err(child) == cf_ctx_err(parent));
    CHECK(cf_ctx_cause(child, &cause) && same_cause(&cause, &seen));
    CHECK(vclock_armed(&vclock) == 0);
    free_two();
}

START_TEST(cancel_races_the_deadline)
{
    play(_i, (struct crew){.n = 3,
                           .parts = {cancel_parent_otherwise, pass_the_deadline, watch_cause},
                           .before = make_two_with_deadline,
                           .after = check_err_agrees_with_cause});
}
END_TEST

/* Go: TestSimultaneousCancels. A tree of which each thread cancels its share, in an order of its
 * own. */
#define TREE 99

static struct cf_ctx *tree[TREE];

static void make_tree(void)
{
    for (int i = 0; i < TREE; i++) {
        struct cf_ctx *above = i == 0 ? cf_ctx_background() : tree[(i - 1) / 4];

        tree[i] = i % 10 == 9 ? with_timeout(above, LONG_NS - i) : with_cancel(above);
    }
}

/* 7, 5 and 2 have no common divisor with 33: each of the shares is walked once. */
static void cancel_share(int share, int stride)
{
    for (int i = 0; i < TREE / 3; i++) {
        cf_ctx_cancel(tree[i * stride % (TREE / 3) * 3 + share]);
    }
}

static void cancel_share_0(void)
{
    cancel_share(0, 7);
}

static void cancel_share_1(void)
{
    cancel_share(1, 5);
}

static void cancel_share_2(void)
{
    cancel_share(2, 2);
}

static void check_tree(void)
{
    CHECK(vclock_armed(&vclock) == 0);
    for (int i = 0; i < TREE; i++) {
        CHECK(cf_ctx_err(tree[i]) == CF_ECANCELED);
    }
    for (int i = 0; i < TREE; i++) {
        cf_ctx_free(tree[i * 2 % TREE]);
    }
}

START_TEST(cancel_all_of_a_tree_at_once)
{
    play(_i, (struct crew){.n = 3,
                           .parts = {cancel_share_0, cancel_share_1, cancel_share_2},
                           .before = make_tree,
                           .after = check_tree});
}
END_TEST

/* making */

static void make_parent(void)
{
    parent = with_cancel(cf_ctx_background());
}

/* Without libcheck's assertions, which would slow it down to where there is no race. */
static void bear(void)
{
    CHECK(cf_ctx_with_cancel(parent, &born, NULL) == CF_OK);
}

static void bear_with_deadline(void)
{
    CHECK(cf_ctx_with_timeout(parent, LONG_NS, &child, NULL) == CF_OK);
}

static void check_born(void)
{
    struct cf_ctx *children[] = {born, child};

    CHECK(vclock_armed(&vclock) == 0);
    for (int i = 0; i < 2; i++) {
        struct cf_cause cause;

        CHECK(cf_ctx_err(children[i]) == CF_ECANCELED);
        CHECK(cf_ctx_cause(children[i], &cause));
        CHECK(cause.reason == CF_REASON_USER);
        CHECK(strcmp(cause.err.msg, "because") == 0);
        cf_ctx_free(children[i]);
    }
    cf_ctx_free(parent);
}

/* Go: TestWithCancelSimultaneouslyCanceledParent */
START_TEST(with_cancel_races_cancel_of_the_parent)
{
    play(_i, (struct crew){.n = 3,
                           .parts = {cancel_parent, bear, bear_with_deadline},
                           .before = make_parent,
                           .after = check_born});
}
END_TEST

/* free */

static void make_family(void)
{
    parent = with_timeout(cf_ctx_background(), LONG_NS);
    child = with_timeout(parent, LONG_NS - 1);
    other = with_cancel(child);
    (void)cf_ctx_ref(child); /* Given up by free_other(). */
}

static void free_child(void)
{
    cf_ctx_free(child);
}

static void free_other(void)
{
    cf_ctx_free(other);
    cf_ctx_unref(child);
}

static void check_family_is_gone(void)
{
    CHECK(cf_ctx_err(parent) == CF_ECANCELED);
    CHECK(vclock_armed(&vclock) == 0);
    cf_ctx_free(parent);
}

START_TEST(free_races_cancel_of_the_parent)
{
    play(_i, (struct crew){.n = 3,
                           .parts = {cancel_parent, free_child, free_other},
                           .before = make_family,
                           .after = check_family_is_gone});
}
END_TEST

static void make_late_family(void)
{
    parent = with_cancel(cf_ctx_background());
    child = with_timeout(parent, 1);
    other = with_cancel(child);
    (void)cf_ctx_ref(child);
}

static void check_late_family_is_gone(void)
{
    CHECK(cf_ctx_err(parent) == CF_OK);
    CHECK(vclock_armed(&vclock) == 0);
    cf_ctx_free(parent);
}

START_TEST(free_races_its_timer)
{
    play(_i, (struct crew){.n = 3,
                           .parts = {pass_the_deadline, free_child, free_other},
                           .before = make_late_family,
                           .after = check_late_family_is_gone});
}
END_TEST

/* The same with the timer thread, which fires while this thread frees. */
START_TEST(free_races_the_timer_thread)
{
    int64_t until_ns =
        cf_now_ns() + (getenv("CF_TEST_LONG") != NULL ? 10 * CF_SECOND : 400 * CF_MS);
    unsigned late = 0;
    unsigned in_time = 0;

    for (unsigned round = 0; cf_now_ns() < until_ns || late == 0 || in_time == 0; round++) {
        struct cf_ctx *ctx = with_timeout(cf_ctx_background(), round % 64 * CF_US);
        struct cf_ctx *below = with_cancel(ctx);
        struct cf_cause cause;

        (void)cf_ctx_ref(below);
        while (cf_now_ns() < cf_ctx_deadline_ns(ctx) + (int64_t)(round % 7) * 2 * CF_US) {
        }
        cf_ctx_free(ctx);
        cf_ctx_free(below);
        CHECK(cf_ctx_cause(below, &cause));
        if (cf_ctx_err(below) == CF_EDEADLINE) {
            CHECK(cause.reason == CF_REASON_DEADLINE);
            late++;
        } else {
            CHECK(cf_ctx_err(below) == CF_ECANCELED);
            CHECK(cause.reason == CF_REASON_CANCELED);
            in_time++;
        }
        cf_ctx_unref(below);
    }
}
END_TEST

/* subscribe, unsubscribe */

struct watch {
    bool subscribed;
    bool prevented;
    unsigned fired;
};

static struct watch watches[2]; /* Written by the parts. */

/* The counter is gone as soon as unsubscribe returned, as a frame on a stack would be. */
static void watch_shortly(struct watch *watch)
{
    struct counter *counter = malloc(sizeof(*counter));

    CHECK(counter != NULL);
    counter_init(counter);
    watch->subscribed = cf__ctx_subscribe(child, &counter->waiter);
    watch->prevented = watch->subscribed && cf__ctx_unsubscribe(child, &counter->waiter);
    watch->fired = counter->fired;
    memset(counter, 0xEE, sizeof(*counter));
    free(counter);
}

static void watch_0(void)
{
    watch_shortly(&watches[0]);
}

static void watch_1(void)
{
    watch_shortly(&watches[1]);
}

static void check_watches(void)
{
    for (int i = 0; i < 2; i++) {
        CHECK(watches[i].fired == (watches[i].subscribed && !watches[i].prevented ? 1 : 0));
    }
    free_two();
}

START_TEST(unsubscribe_races_cancel)
{
    play(_i, (struct crew){.n = 3,
                           .parts = {cancel_parent, watch_0, watch_1},
                           .before = make_two,
                           .after = check_watches});
}
END_TEST

/* A waiter that takes its time, with the lock of its context. */
static sem_t slow_begun;
static atomic_bool slow_runs;

static void be_slow(struct cf__ctx_waiter *waiter)
{
    int64_t until_ns = cf_now_ns() + 20 * CF_MS;

    (void)waiter;
    atomic_store(&slow_runs, true);
    (void)sem_post(&slow_begun);
    while (cf_now_ns() < until_ns) {
        (void)sched_yield();
    }
    atomic_store(&slow_runs, false);
}

static void *cancel_on_thread(void *arg)
{
    cf_ctx_cancel((struct cf_ctx *)arg);
    return NULL;
}

START_TEST(unsubscribe_returns_after_fire_has_returned)
{
    struct cf__ctx_waiter waiter = {.fire = be_slow};
    struct cf_ctx *ctx = with_cancel(cf_ctx_background());
    pthread_t thread;

    ck_assert_int_eq(sem_init(&slow_begun, 0, 0), 0);
    ck_assert(cf__ctx_subscribe(ctx, &waiter));
    ck_assert_int_eq(pthread_create(&thread, NULL, cancel_on_thread, ctx), 0);
    ck_assert_int_eq(sem_wait(&slow_begun), 0);
    ck_assert(!cf__ctx_unsubscribe(ctx, &waiter));
    ck_assert(!atomic_load(&slow_runs));
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_int_eq(sem_destroy(&slow_begun), 0);
    cf_ctx_free(ctx);
}
END_TEST

/* after, stop */

static struct cf_ctx_after *handle;
static atomic_uint calls;
static unsigned calls_expected;
static bool prevented; /* Written by a part. */

static void be_called(void *arg)
{
    (void)arg;
    (void)atomic_fetch_add(&calls, 1);
}

static void wait_calls(void)
{
    int64_t until_ns = cf_now_ns() + 20 * CF_SECOND;

    while (atomic_load(&calls) < calls_expected) {
        CHECK(cf_now_ns() < until_ns);
        (void)sched_yield();
    }
}

static void make_after(void)
{
    make_two();
    CHECK(cf_ctx_after(child, be_called, NULL, &handle, NULL) == CF_OK);
}

static void stop(void)
{
    prevented = cf_ctx_after_stop(handle);
}

static void check_called(void)
{
    calls_expected += prevented ? 0 : 1;
    wait_calls();
    CHECK(atomic_load(&calls) == calls_expected);
    free_two();
}

START_TEST(stop_races_cancel)
{
    struct cf_ctx *done = with_timeout(cf_ctx_background(), 0);

    atomic_init(&calls, 0);
    calls_expected = 0;
    play(_i,
         (struct crew){
             .n = 2, .parts = {cancel_parent, stop}, .before = make_after, .after = check_called});

    /* Calls are made in order: what should not have come has come before this one. */
    ck_assert_int_eq(cf_ctx_after(done, be_called, NULL, &handle, NULL), CF_OK);
    calls_expected++;
    wait_calls();
    ck_assert_uint_eq(calls, calls_expected);
    ck_assert(!cf_ctx_after_stop(handle));
    cf_ctx_free(done);
}
END_TEST

/* done_fd */

static int fd;
static bool readable; /* Written by a part. */

static void make_fd(void)
{
    make_two();
    CHECK(cf_ctx_done_fd(child, &fd, NULL) == CF_OK);
}

static void watch_err(void)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    while (cf_ctx_err(child) == CF_OK) {
        (void)sched_yield();
    }
    readable = poll(&poll_fd, 1, 0) == 1;
}

static void check_readable(void)
{
    CHECK(readable);
    free_two();
}

/* Go: TestContextErrDoneRace */
START_TEST(done_fd_is_readable_once_err_says_done)
{
    play(_i, (struct crew){.n = 2,
                           .parts = {cancel_parent, watch_err},
                           .before = make_fd,
                           .after = check_readable});
}
END_TEST

/* The descriptor of which a writer is held up just before it writes, or -1. */
static atomic_int held_fd = -1;
static sem_t hold_reached;
static sem_t hold_opened;

/* The linker's --wrap sends our calls here. */
int __real_eventfd_write(int to, eventfd_t value);

int __wrap_eventfd_write(int to, eventfd_t value)
{
    if (to == atomic_load(&held_fd)) {
        (void)sem_post(&hold_reached);
        (void)sem_wait(&hold_opened);
    }
    return __real_eventfd_write(to, value);
}

static void look_once(void *arg)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    (void)arg;
    seen_code = cf_ctx_err(child);
    readable = poll(&poll_fd, 1, 0) == 1;
}

/* The same for certain: the context says that it is done, and its descriptor is not written yet. */
START_TEST(done_fd_is_readable_before_err_says_done)
{
    struct visit visit;
    pthread_t thread;

    make_fd();
    ck_assert_int_eq(sem_init(&hold_reached, 0, 0), 0);
    ck_assert_int_eq(sem_init(&hold_opened, 0, 0), 0);
    atomic_store(&held_fd, fd);
    ck_assert_int_eq(pthread_create(&thread, NULL, cancel_on_thread, child), 0);
    ck_assert_int_eq(sem_wait(&hold_reached), 0);
    visit_start(&visit, _i, look_once, NULL);
    EVENTUALLY(atomic_load(&visit.tid) != 0);
    (void)place_wait_asleep(atomic_load(&visit.tid)); /* For the writer, or it is through. */
    ck_assert_int_eq(sem_post(&hold_opened), 0);
    visit_join(&visit);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    atomic_store(&held_fd, -1);
    ck_assert_int_eq(seen_code, CF_ECANCELED);
    ck_assert(readable);
    ck_assert_int_eq(sem_destroy(&hold_reached), 0);
    ck_assert_int_eq(sem_destroy(&hold_opened), 0);
    free_two();
}
END_TEST

/* The other way round, for who polls first. */
static void watch_fd(void)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    readable = poll(&poll_fd, 1, 20000) == 1;
    seen_code = cf_ctx_err(child);
}

static void check_err(void)
{
    CHECK(seen_code == CF_ECANCELED);
    check_readable();
}

START_TEST(done_fd_readable_means_that_err_says_done)
{
    play(_i,
         (struct crew){
             .n = 2, .parts = {cancel_parent, watch_fd}, .before = make_fd, .after = check_err});
}
END_TEST

static int fd_too; /* Written by a part. */

static void take_fd(void)
{
    CHECK(cf_ctx_done_fd(child, &fd, NULL) == CF_OK);
}

static void take_fd_too(void)
{
    CHECK(cf_ctx_done_fd(child, &fd_too, NULL) == CF_OK);
}

static void check_fd(void)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    CHECK(fd_too == fd);
    CHECK(poll(&poll_fd, 1, 0) == 1);
    free_two();
}

START_TEST(done_fd_made_while_canceled_is_readable)
{
    play(_i, (struct crew){.n = 3,
                           .parts = {cancel_parent, take_fd, take_fd_too},
                           .before = make_two,
                           .after = check_fd});
}
END_TEST

static TCase *add(Suite *suite, const char *name)
{
    TCase *tc = tcase_create(name);

    tcase_set_timeout(tc, 60);
    suite_add_tcase(suite, tc);
    return tc;
}

Suite *suite_ctx_race(void)
{
    Suite *suite = suite_create("ctx_race");
    TCase *tc;

    tc = add(suite, "cancel");
    tcase_add_loop_test(tc, cancel_from_many_threads_first_cause_wins, 0, PLACES);
    tcase_add_loop_test(tc, cancel_of_parent_races_cancel_of_child, 0, PLACES);
    tcase_add_loop_test(tc, cancel_races_the_deadline, 0, PLACES);
    tcase_add_loop_test(tc, cancel_all_of_a_tree_at_once, 0, PLACES);

    tc = add(suite, "with_cancel");
    tcase_add_loop_test(tc, with_cancel_races_cancel_of_the_parent, 0, PLACES);

    tc = add(suite, "free");
    tcase_add_loop_test(tc, free_races_cancel_of_the_parent, 0, PLACES);
    tcase_add_loop_test(tc, free_races_its_timer, 0, PLACES);
    tcase_add_test(tc, free_races_the_timer_thread);

    tc = add(suite, "unsubscribe");
    tcase_add_loop_test(tc, unsubscribe_races_cancel, 0, PLACES);
    tcase_add_test(tc, unsubscribe_returns_after_fire_has_returned);

    tc = add(suite, "stop");
    tcase_add_loop_test(tc, stop_races_cancel, 0, PLACES);

    tc = add(suite, "done_fd");
    tcase_add_loop_test(tc, done_fd_is_readable_once_err_says_done, 0, PLACES);
    tcase_add_loop_test(tc, done_fd_is_readable_before_err_says_done, 0, PLACES);
    tcase_add_loop_test(tc, done_fd_readable_means_that_err_says_done, 0, PLACES);
    tcase_add_loop_test(tc, done_fd_made_while_canceled_is_readable, 0, PLACES);
    return suite;
}
