/* SPDX-License-Identifier: MIT */
/* Weighted semaphores, from plain threads and from fibers. A comment "Go: TestFoo" names the test
 * of golang.org/x/sync/semaphore whose behaviour is asked for; tests/README.md has all of them. */
#include <curfew/sem.h>

#include <check.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <curfew/wait.h>

#include "crowd.h"
#include "effort.h"
#include "fault.h"
#include "waits.h"

/* Fixture */

static struct cf_sem *sem; /* Of two permits. */

static void setup(void)
{
    setup_waits();
    ck_assert_int_eq(cf_sem_new(2, &sem, &failure), CF_OK);
}

static void teardown(void)
{
    cf_sem_free(sem);
    sem = NULL;
    teardown_waits();
}

/* Helpers */

/* Instead of the fixture's, one of `size` permits. */
static void resize(int64_t size)
{
    cf_sem_free(sem);
    ck_assert_int_eq(cf_sem_new(size, &sem, &failure), CF_OK);
}

static void hold(int64_t n)
{
    ck_assert(cf_sem_try_acquire(sem, n));
}

/* How many permits are free, when nobody waits. */
static int64_t count_free(void)
{
    int64_t n = 0;

    while (cf_sem_try_acquire(sem, 1)) {
        n++;
    }
    cf_sem_release(sem, n);
    return n;
}

/* One call for `period_ns` permits. */
static enum cf_code do_acquire(struct cf_ctx *of, struct call *call)
{
    return cf_sem_acquire(of, sem, call->period_ns, &call->err);
}

static void call_acquire(void *arg)
{
    make_call(do_acquire, arg);
}

static enum cf_code do_acquire_one(struct cf_ctx *of, struct call *call)
{
    return cf_sem_acquire(of, sem, 1, &call->err);
}

static void call_acquire_one(void *arg)
{
    make_call(do_acquire_one, arg);
}

static struct call want(int64_t n)
{
    struct call call = endless();

    call.period_ns = n;
    return call;
}

/* new, free */

START_TEST(new_out_of_memory)
{
    struct cf_sem *made = NULL;

    fault_alloc(1, false);
    ck_assert_int_eq(cf_sem_new(1, &made, &failure), CF_ENOMEM);
    ck_assert(fault_off());
    ck_assert_int_eq(failure.code, CF_ENOMEM);
    ck_assert_ptr_null(made);
}
END_TEST

/* Go: TestWeightedNegativeSizePanic. A size can come from a configuration,
 * so it is no assertion. */
START_TEST(new_of_less_than_nothing_is_invalid)
{
    struct cf_sem *made = NULL;

    ck_assert_int_eq(cf_sem_new(-1, &made, &failure), CF_EINVAL);
    ck_assert_int_eq(failure.code, CF_EINVAL);
    ck_assert_int_eq(cf_sem_new(INT64_MIN, &made, NULL), CF_EINVAL);
    ck_assert_ptr_null(made);
}
END_TEST

START_TEST(new_of_the_largest_size_counts_right)
{
    resize(INT64_MAX);
    hold(INT64_MAX);
    ck_assert(!cf_sem_try_acquire(sem, 1));
    ck_assert(!cf_sem_try_acquire(sem, INT64_MAX));
    cf_sem_release(sem, INT64_MAX);
    hold(1);
    ck_assert(!cf_sem_try_acquire(sem, INT64_MAX));
    cf_sem_release(sem, 1);
}
END_TEST

START_TEST(free_of_null_does_nothing)
{
    cf_sem_free(NULL);
}
END_TEST

START_TEST(free_while_held_asserts)
{
    hold(1);
    cf_sem_free(sem);
}
END_TEST

/* acquire: who gets what */

struct step {
    int64_t held;
    int64_t n;
    bool taken;
};

static const struct step steps[] = {
    {0, 0, true}, {0, 1, true},  {0, 2, true}, {0, 3, false}, {0, INT64_MAX, false}, {1, 0, true},
    {1, 1, true}, {1, 2, false}, {2, 0, true}, {2, 1, false}, {2, 2, false},
};

static void acquire_each(void *arg)
{
    (void)arg;
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct call call = want(steps[i].n);

        EXPECT(cf_sem_try_acquire(sem, steps[i].held));
        call.timeout_ns = steps[i].taken ? 0 : 100 * CF_US;
        make_call(do_acquire, &call);
        EXPECT(call.code == (steps[i].taken ? CF_OK : CF_EDEADLINE));
        cf_sem_release(sem, steps[i].held + (steps[i].taken ? steps[i].n : 0));
    }
}

START_TEST(acquire_takes_what_is_free_and_no_more)
{
    place_run(_i, acquire_each, NULL);
    ck_assert_int_eq(count_free(), 2);
}
END_TEST

START_TEST(acquire_at_the_limit_waits)
{
    struct call call = want(1);
    struct visit visit;

    hold(2);
    visit_start(&visit, _i, call_acquire, &call);
    visit_wait_parked(&visit);
    cf_sem_release(sem, 1);
    visit_join(&visit);
    ck_assert_int_eq(call.code, CF_OK);
    ck_assert(!cf_sem_try_acquire(sem, 1)); /* It is the waiter's. */
    cf_sem_release(sem, 2);
    ck_assert_int_eq(count_free(), 2);
}
END_TEST

START_TEST(acquire_waits_until_all_of_it_is_free)
{
    struct call call = want(2);
    struct visit visit;

    hold(2);
    visit_start(&visit, _i, call_acquire, &call);
    visit_wait_parked(&visit);
    cf_sem_release(sem, 1);
    visit_wait_parked(&visit);
    cf_sem_release(sem, 1);
    visit_join(&visit);
    ck_assert_int_eq(call.code, CF_OK);
    ck_assert(!cf_sem_try_acquire(sem, 1));
    cf_sem_release(sem, 2);
}
END_TEST

#define QUEUE 6

struct queued {
    atomic_int *next;
    int came_as;
    struct call call;
    struct visit visit;
};

static void acquire_in_order(void *arg)
{
    struct queued *self = arg;

    make_call(do_acquire, &self->call);
    self->came_as = atomic_fetch_add(self->next, 1);
    cf_sem_release(sem, self->call.period_ns);
}

/* With one permit it is certain who goes on: whoever has it. */
START_TEST(acquire_is_first_come_first_served)
{
    struct queued queue[QUEUE];
    atomic_int next = 0;

    resize(1);
    hold(1);
    for (int i = 0; i < QUEUE; i++) {
        queue[i].next = &next;
        queue[i].call = want(1);
        visit_start(&queue[i].visit, (_i + i) % PLACES, acquire_in_order, &queue[i]);
        visit_wait_parked(&queue[i].visit);
    }
    cf_sem_release(sem, 1);
    for (int i = 0; i < QUEUE; i++) {
        visit_join(&queue[i].visit);
        ck_assert_int_eq(queue[i].call.code, CF_OK);
    }
    for (int i = 0; i < QUEUE; i++) {
        ck_assert_int_eq(queue[i].came_as, i);
    }
}
END_TEST

/* One permit is free, but who came first wants two. */
START_TEST(acquire_behind_a_large_one_waits)
{
    struct call large = want(2);
    struct call small = want(1);
    struct visit first;
    struct visit second;

    hold(1);
    visit_start(&first, _i, call_acquire, &large);
    visit_wait_parked(&first);
    visit_start(&second, _i, call_acquire, &small);
    visit_wait_parked(&second);
    cf_sem_release(sem, 1);
    visit_join(&first);
    ck_assert_int_eq(large.code, CF_OK);
    visit_wait_parked(&second);
    cf_sem_release(sem, 2);
    visit_join(&second);
    ck_assert_int_eq(small.code, CF_OK);
    cf_sem_release(sem, 1);
}
END_TEST

/* Go: TestAllocCancelDoesntStarve. Here it is certain that the small ones wait behind the large one
 * when that gives up: all of them that fit go on, and one that does not fit waits. */
START_TEST(acquire_canceled_at_the_head_lets_in_those_behind)
{
    struct call large = want(3);
    struct call small[3] = {want(1), want(1), want(1)};
    struct visit first;
    struct visit behind[3];

    resize(3);
    hold(1);
    ck_assert_int_eq(cf_ctx_with_cancel(ctx, &large.ctx, &failure), CF_OK);
    visit_start(&first, _i, call_acquire, &large);
    visit_wait_parked(&first);
    for (int i = 0; i < 3; i++) {
        visit_start(&behind[i], (_i + i) % PLACES, call_acquire, &small[i]);
        visit_wait_parked(&behind[i]);
    }
    cf_ctx_cancel(large.ctx);
    visit_join(&first);
    ck_assert_int_eq(large.code, CF_ECANCELED);
    visit_join(&behind[0]);
    visit_join(&behind[1]);
    visit_wait_parked(&behind[2]);
    cf_sem_release(sem, 1);
    visit_join(&behind[2]);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(small[i].code, CF_OK);
    }
    cf_sem_release(sem, 3);
    ck_assert_int_eq(count_free(), 3);
    cf_ctx_free(large.ctx);
}
END_TEST

/* In the middle of the queue: it changes nothing for the others. */
START_TEST(acquire_canceled_behind_the_head_leaves_the_queue)
{
    struct call calls[3] = {want(2), want(1), want(1)};
    struct visit visits[3];

    hold(1);
    ck_assert_int_eq(cf_ctx_with_cancel(ctx, &calls[1].ctx, &failure), CF_OK);
    for (int i = 0; i < 3; i++) {
        visit_start(&visits[i], _i, call_acquire, &calls[i]);
        visit_wait_parked(&visits[i]);
    }
    cf_ctx_cancel(calls[1].ctx);
    visit_join(&visits[1]);
    ck_assert_int_eq(calls[1].code, CF_ECANCELED);
    visit_wait_parked(&visits[0]);
    visit_wait_parked(&visits[2]);
    cf_sem_release(sem, 1);
    visit_join(&visits[0]);
    visit_wait_parked(&visits[2]);
    cf_sem_release(sem, 2);
    visit_join(&visits[2]);
    ck_assert_int_eq(calls[0].code, CF_OK);
    ck_assert_int_eq(calls[2].code, CF_OK);
    cf_sem_release(sem, 1);
    ck_assert_int_eq(count_free(), 2);
    cf_ctx_free(calls[1].ctx);
}
END_TEST

/* Go: TestWeightedDoesntBlockIfTooBig */
START_TEST(acquire_of_more_than_there_are_waits_for_its_end_and_in_nobodys_way)
{
    struct call huge = want(3);
    struct call small = want(1);
    struct visit first;
    struct visit second;

    hold(2);
    visit_start(&first, _i, call_acquire, &huge);
    visit_wait_parked(&first);
    visit_start(&second, _i, call_acquire, &small);
    visit_wait_parked(&second);
    cf_sem_release(sem, 1);
    visit_join(&second);
    ck_assert_int_eq(small.code, CF_OK);
    cf_sem_release(sem, 2);
    ck_assert_int_eq(count_free(), 2);
    visit_wait_parked(&first);
    cf_ctx_cancel(ctx);
    visit_join(&first);
    ck_assert_int_eq(huge.code, CF_ECANCELED);
    ck_assert_int_eq(count_free(), 2);
}
END_TEST

/* acquire: the matrix */

START_TEST(acquire_already_canceled)
{
    check_already_canceled(_i, call_acquire_one); /* Though there are two. */
    ck_assert_int_eq(count_free(), 2);
}
END_TEST

START_TEST(acquire_already_late)
{
    check_already_late(_i, call_acquire_one);
    ck_assert_int_eq(count_free(), 2);
}
END_TEST

START_TEST(acquire_canceled_while_waiting)
{
    hold(2);
    check_canceled_while_waiting(_i, call_acquire_one);
    cf_sem_release(sem, 2);
    ck_assert_int_eq(count_free(), 2);
}
END_TEST

START_TEST(acquire_deadline_while_waiting)
{
    hold(2);
    check_deadline_while_waiting(_i, call_acquire_one);
    cf_sem_release(sem, 2);
    ck_assert_int_eq(count_free(), 2);
}
END_TEST

START_TEST(acquire_needs_no_memory)
{
    struct call call = want(1);
    struct visit visit;

    call.fail_nth = 1;
    hold(2);
    visit_start(&visit, _i, call_acquire, &call);
    visit_wait_parked(&visit);
    cf_sem_release(sem, 1);
    visit_join(&visit);
    ck_assert_int_eq(call.code, CF_OK);
    ck_assert(!call.struck);
    cf_sem_release(sem, 2);
}
END_TEST

static void release_one(struct rival *rival)
{
    (void)rival;
    cf_sem_release(sem, 1);
}

/* The permit that the rival gives is ours if, and only if, the call said so. */
static void race_acquire(void *arg)
{
    struct race *race = arg;
    int64_t until_ns = effort_until_ns();

    while (race_goes_on(race, until_ns)) {
        struct call call = want(2);
        bool all;

        call.ctx = new_ctx();
        EXPECT(cf_sem_try_acquire(sem, 1)); /* The rival's. */
        atomic_store(&race->canceler.ctx, call.ctx);
        rival_ask(&race->canceler);
        rival_ask(&race->giver);
        make_call(do_acquire, &call);
        rival_settle(&race->canceler);
        rival_settle(&race->giver);
        all = !cf_sem_try_acquire(sem, 1);
        cf_sem_release(sem, all ? 2 : 1);
        EXPECT(all == (call.code == CF_OK));
        judge(race, call.code, all, call.ctx);
        cf_ctx_free(call.ctx);
    }
}

START_TEST(acquire_success_races_cancel)
{
    check_race(_i, race_acquire, release_one);
    ck_assert_int_eq(count_free(), 2);
}
END_TEST

/* Its context ends after the permit was handed to it, and before it runs:
 * on fibers that is certain. */
static void release_and_cancel(void *arg)
{
    struct call *call = arg;

    EXPECT(cf_loop_spawn(cf_loop_current(), call_acquire, call, NULL) == CF_OK);
    place_yield();
    cf_sem_release(sem, 2);
    cf_ctx_cancel(call->ctx);
}

START_TEST(acquire_granted_and_canceled_before_it_runs_gives_back)
{
    struct call call = want(2);

    hold(2);
    place_run(PLACE_FIBER, release_and_cancel, &call);
    ck_assert_int_eq(call.code, CF_ECANCELED);
    ck_assert_int_eq(call.err.code, CF_ECANCELED);
    ck_assert_int_eq(count_free(), 2);
}
END_TEST

/* acquire: Go's */

static void acquire_brief(bool expected)
{
    struct call call = want(1);

    call.timeout_ns = expected ? 20 * CF_SECOND : 10 * CF_MS; /* What succeeds may be slow. */
    make_call(do_acquire, &call);
    EXPECT(call.code == (expected ? CF_OK : CF_EDEADLINE));
}

static void acquire_four_times(void *arg)
{
    (void)arg;
    EXPECT(cf_sem_acquire(cf_ctx_background(), sem, 1, NULL) == CF_OK);
    acquire_brief(true);
    acquire_brief(false);
    cf_sem_release(sem, 2);
    acquire_brief(true);
    EXPECT(cf_sem_acquire(cf_ctx_background(), sem, 1, NULL) == CF_OK);
    acquire_brief(false);
    cf_sem_release(sem, 2);
}

/* Go: TestWeightedAcquire */
START_TEST(acquire_fails_when_none_comes_in_time)
{
    place_run(_i, acquire_four_times, NULL);
}
END_TEST

struct crowded {
    int64_t size;
    int64_t until_ns;
    atomic_llong active;   /* Permits in use. */
    atomic_long successes; /* Calls. */
    atomic_long failures;
};

static void use_permits(struct crowded *crowded, int64_t n, unsigned *seed)
{
    EXPECT(atomic_fetch_add(&crowded->active, n) + n <= crowded->size);
    if (rand_r(seed) % 8 == 0) {
        EXPECT(cf_sleep(cf_ctx_background(), rand_r(seed) % (50 * CF_US), NULL) == CF_OK);
    } else {
        place_yield();
    }
    (void)atomic_fetch_sub(&crowded->active, n);
    cf_sem_release(sem, n);
}

/* Each member has a weight of its own, from nothing up to all there are. */
static void hammer(void *arg, unsigned *seed)
{
    struct crowded *crowded = arg;
    int64_t n = *seed % ((unsigned)crowded->size + 1);

    for (int i = 0; i < 200; i++) {
        EXPECT(cf_sem_acquire(cf_ctx_background(), sem, n, NULL) == CF_OK);
        use_permits(crowded, n, seed);
    }
}

/* Go: TestWeighted */
START_TEST(acquire_by_a_crowd_ends)
{
    struct crowded crowded = {.size = 4};

    resize(4);
    crowd_run(hammer, &crowded);
    ck_assert_int_eq(count_free(), 4);
}
END_TEST

/* Members that always have a permit, but for an instant. */
static void cycle(void *arg, unsigned *seed)
{
    atomic_bool *running = arg;

    (void)seed;
    while (atomic_load(running)) {
        place_yield();
        cf_sem_release(sem, 1);
        EXPECT(cf_sem_acquire(cf_ctx_background(), sem, 1, NULL) == CF_OK);
    }
    cf_sem_release(sem, 1);
}

static void acquire_all(void *arg)
{
    EXPECT(cf_sem_acquire(cf_ctx_background(), sem, CROWD_SIZE, NULL) == CF_OK);
    atomic_store((atomic_bool *)arg, false);
    cf_sem_release(sem, CROWD_SIZE);
}

/* Go: TestLargeAcquireDoesntStarve. That it ends is the success. */
START_TEST(acquire_of_all_does_not_starve)
{
    atomic_bool running = true;
    struct visit visit;

    resize(CROWD_SIZE);
    hold(CROWD_SIZE);
    visit_start(&visit, _i, acquire_all, &running);
    crowd_run(cycle, &running);
    visit_join(&visit);
    ck_assert_int_eq(count_free(), CROWD_SIZE);
}
END_TEST

/* Go: TestWeightedAcquireCanceled. Canceled first and released then: it must not be had. */
START_TEST(acquire_canceled_before_the_release_fails)
{
    struct call call = want(2);
    struct visit visit;

    hold(1);
    visit_start(&visit, _i, call_acquire, &call);
    while (cf_sem_try_acquire(sem, 1)) {
        cf_sem_release(sem, 1);
    }
    cf_ctx_cancel(ctx);
    cf_sem_release(sem, 1);
    visit_join(&visit);
    ck_assert_int_eq(call.code, CF_ECANCELED);
    ck_assert_int_eq(count_free(), 2);
    ck_assert_int_eq(cf_sem_acquire(ctx, sem, 1, &failure), CF_ECANCELED);
    ck_assert_int_eq(count_free(), 2);
}
END_TEST

/* Anything at once: waits that end in time, too late, and by somebody's cancel. */
static void ask_for_some(void *arg, unsigned *seed)
{
    struct crowded *crowded = arg;

    while (EFFORT_GOES_ON(crowded->until_ns, atomic_load(&crowded->successes) > 0 &&
                                                 atomic_load(&crowded->failures) > 0)) {
        int64_t n = rand_r(seed) % 8 == 0 ? crowded->size : rand_r(seed) % 3;
        struct cf_ctx *brief = NULL;
        enum cf_code code;

        EXPECT(cf_ctx_with_timeout(cf_ctx_background(),
                                   rand_r(seed) % 3 == 0 ? CF_SECOND : rand_r(seed) % (2 * CF_MS),
                                   &brief, NULL) == CF_OK);
        code = cf_sem_acquire(brief, sem, n, NULL);
        if (code == CF_OK) {
            (void)atomic_fetch_add(&crowded->successes, 1);
            use_permits(crowded, n, seed);
        } else {
            EXPECT(code == CF_EDEADLINE);
            (void)atomic_fetch_add(&crowded->failures, 1);
            place_yield();
        }
        cf_ctx_free(brief);
    }
}

START_TEST(acquire_and_release_race)
{
    struct crowded crowded = {.size = 4, .until_ns = effort_stress_until_ns()};

    resize(4);
    crowd_run(ask_for_some, &crowded);
    ck_assert_int_eq(atomic_load(&crowded.active), 0);
    ck_assert_int_gt(atomic_load(&crowded.successes), 0);
    ck_assert_int_gt(atomic_load(&crowded.failures), 0);
    ck_assert_int_eq(count_free(), 4);
}
END_TEST

START_TEST(acquire_of_less_than_nothing_asserts)
{
    (void)!cf_sem_acquire(ctx, sem, -1, NULL);
}
END_TEST

/* try_acquire */

static void try_four_times(void *arg)
{
    (void)arg;
    EXPECT(cf_sem_acquire(ctx, sem, 1, NULL) == CF_OK);
    EXPECT(cf_sem_try_acquire(sem, 1));
    EXPECT(!cf_sem_try_acquire(sem, 1));
    cf_sem_release(sem, 2);
    EXPECT(cf_sem_try_acquire(sem, 1));
    EXPECT(cf_sem_acquire(ctx, sem, 1, NULL) == CF_OK);
    EXPECT(!cf_sem_try_acquire(sem, 1));
    cf_sem_release(sem, 2);
}

/* Go: TestWeightedTryAcquire */
START_TEST(try_acquire_takes_what_is_free)
{
    place_run(_i, try_four_times, NULL);
}
END_TEST

static void try_nothing(void *arg)
{
    (void)arg;
    EXPECT(cf_sem_try_acquire(sem, 0));
    EXPECT(!cf_sem_try_acquire(sem, 1));
}

/* Go: TestWeightedZeroSize */
START_TEST(try_acquire_of_nothing_where_nothing_is)
{
    resize(0);
    place_run(_i, try_nothing, NULL);
}
END_TEST

/* One is free, but somebody waits for two. */
START_TEST(try_acquire_does_not_overtake)
{
    struct call call = want(2);
    struct visit visit;

    hold(1);
    visit_start(&visit, _i, call_acquire, &call);
    visit_wait_parked(&visit);
    ck_assert(!cf_sem_try_acquire(sem, 1));
    ck_assert(!cf_sem_try_acquire(sem, 0));
    cf_sem_release(sem, 1);
    visit_join(&visit);
    ck_assert_int_eq(call.code, CF_OK);
    cf_sem_release(sem, 2);
}
END_TEST

START_TEST(try_acquire_of_less_than_nothing_asserts)
{
    (void)!cf_sem_try_acquire(sem, -1);
}
END_TEST

/* release */

START_TEST(release_lets_in_all_that_fit)
{
    struct call calls[3] = {want(1), want(1), want(1)};
    struct visit visits[3];

    hold(2);
    for (int i = 0; i < 3; i++) {
        visit_start(&visits[i], (_i + i) % PLACES, call_acquire, &calls[i]);
        visit_wait_parked(&visits[i]);
    }
    cf_sem_release(sem, 2);
    visit_join(&visits[0]);
    visit_join(&visits[1]);
    visit_wait_parked(&visits[2]);
    cf_sem_release(sem, 1);
    visit_join(&visits[2]);
    cf_sem_release(sem, 2);
    ck_assert_int_eq(count_free(), 2);
}
END_TEST

/* Go: TestWeightedPanic */
START_TEST(release_of_more_than_is_held_asserts)
{
    hold(1);
    cf_sem_release(sem, 2);
}
END_TEST

/* Go: TestWeightedNegativeWeightPanic; as are the other two of less than nothing. */
START_TEST(release_of_less_than_nothing_asserts)
{
    hold(1);
    cf_sem_release(sem, -1);
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

Suite *suite_sem(void)
{
    Suite *suite = suite_create("sem");
    TCase *tc = add(suite, "new");

    tcase_add_test(tc, new_out_of_memory);
    tcase_add_test(tc, new_of_less_than_nothing_is_invalid);
    tcase_add_test(tc, new_of_the_largest_size_counts_right);
    tcase_add_test(tc, free_of_null_does_nothing);

    tc = add(suite, "acquire");
    tcase_add_loop_test(tc, acquire_takes_what_is_free_and_no_more, 0, PLACES);
    tcase_add_loop_test(tc, acquire_at_the_limit_waits, 0, PLACES);
    tcase_add_loop_test(tc, acquire_waits_until_all_of_it_is_free, 0, PLACES);
    tcase_add_loop_test(tc, acquire_is_first_come_first_served, 0, PLACES);
    tcase_add_loop_test(tc, acquire_behind_a_large_one_waits, 0, PLACES);
    tcase_add_loop_test(tc, acquire_canceled_at_the_head_lets_in_those_behind, 0, PLACES);
    tcase_add_loop_test(tc, acquire_canceled_behind_the_head_leaves_the_queue, 0, PLACES);
    tcase_add_loop_test(tc, acquire_of_more_than_there_are_waits_for_its_end_and_in_nobodys_way, 0,
                        PLACES);
    tcase_add_loop_test(tc, acquire_already_canceled, 0, PLACES);
    tcase_add_loop_test(tc, acquire_already_late, 0, PLACES);
    tcase_add_loop_test(tc, acquire_canceled_while_waiting, 0, PLACES);
    tcase_add_loop_test(tc, acquire_deadline_while_waiting, 0, 2 * PLACES);
    tcase_add_loop_test(tc, acquire_needs_no_memory, 0, PLACES);
    tcase_add_loop_test(tc, acquire_success_races_cancel, 0, PLACES);
    tcase_add_test(tc, acquire_granted_and_canceled_before_it_runs_gives_back);
    tcase_add_loop_test(tc, acquire_fails_when_none_comes_in_time, 0, PLACES);
    tcase_add_test(tc, acquire_by_a_crowd_ends);
    tcase_add_loop_test(tc, acquire_of_all_does_not_starve, 0, PLACES);
    tcase_add_loop_test(tc, acquire_canceled_before_the_release_fails, 0, PLACES);

    tc = add(suite, "try_acquire");
    tcase_add_loop_test(tc, try_acquire_takes_what_is_free, 0, PLACES);
    tcase_add_loop_test(tc, try_acquire_of_nothing_where_nothing_is, 0, PLACES);
    tcase_add_loop_test(tc, try_acquire_does_not_overtake, 0, PLACES);

    tc = add(suite, "release");
    tcase_add_loop_test(tc, release_lets_in_all_that_fit, 0, PLACES);

    tc = add(suite, "race");
    tcase_set_timeout(tc, EFFORT_STRESS_SECONDS_MAX);
    tcase_add_test(tc, acquire_and_release_race);

    tc = add(suite, "asserts");
    tcase_set_tags(tc, "fork");
    tcase_add_test_raise_signal(tc, free_while_held_asserts, SIGABRT);
    tcase_add_test_raise_signal(tc, acquire_of_less_than_nothing_asserts, SIGABRT);
    tcase_add_test_raise_signal(tc, try_acquire_of_less_than_nothing_asserts, SIGABRT);
    tcase_add_test_raise_signal(tc, release_of_more_than_is_held_asserts, SIGABRT);
    tcase_add_test_raise_signal(tc, release_of_less_than_nothing_asserts, SIGABRT);
    return suite;
}
