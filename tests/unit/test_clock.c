/* SPDX-License-Identifier: MIT */
/* The clock, timer sources, the heap of timers and the timer thread. */
#include <curfew/clock.h>

#include <check.h>
#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "curfew/core/list.h"
#include "curfew/core/timer_heap.h"
#include "curfew/core/timer_thread.h"
#include "fault.h"
#include "onboth.h"
#include "vclock.h"

/* Fixture */

#define PATIENCE_NS (20 * CF_SECOND) /* How long a test waits for what must come. */

#define ALARMS 8

/* A timer that writes down when it fired, and as which. */
struct alarm {
    struct cf_timer timer;
    struct cf_deferred deferred;
    int64_t fired_ns;
    unsigned place; /* 1: the first of all; 0: not yet. */
};

static struct alarm alarms[ALARMS];
static struct cf_timer_source *source;

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER; /* Guards everything below and alarms. */
static pthread_cond_t changed;
static unsigned fired;
static pthread_t fired_on;

static void record(struct alarm *alarm)
{
    (void)pthread_mutex_lock(&mu);
    alarm->fired_ns = cf_now_ns();
    alarm->place = ++fired;
    fired_on = pthread_self();
    (void)pthread_cond_broadcast(&changed);
    (void)pthread_mutex_unlock(&mu);
}

static void on_timer(struct cf_timer *timer)
{
    record(CF__CONTAINER(timer, struct alarm, timer));
}

static void on_deferred(struct cf_deferred *deferred)
{
    record(CF__CONTAINER(deferred, struct alarm, deferred));
}

static void setup(void)
{
    pthread_condattr_t attributes;

    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&changed, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    source = cf__timer_thread();
    fired = 0;
    for (int i = 0; i < ALARMS; i++) {
        alarms[i] = (struct alarm){.timer.fire = on_timer, .deferred.run = on_deferred};
    }
}

static void teardown(void)
{
    (void)pthread_cond_destroy(&changed);
}

/* Helpers */

static void arm_in(struct alarm *alarm, int64_t period_ns)
{
    ck_assert(source->arm(source, &alarm->timer, cf_now_ns() + period_ns));
}

/* Wait until `count` have fired. */
static void wait_fired(unsigned count)
{
    int64_t until_ns = cf_now_ns() + PATIENCE_NS;
    struct timespec until = {until_ns / CF_SECOND, until_ns % CF_SECOND};
    int late = 0;
    bool all;

    (void)pthread_mutex_lock(&mu);
    while (fired < count && late == 0) {
        late = pthread_cond_timedwait(&changed, &mu, &until);
    }
    all = fired >= count; /* It may be late, and yet they have. */
    (void)pthread_mutex_unlock(&mu);
    ck_assert(all);
}

/* As if nothing had fired: all that were armed have. */
static void forget_fired(void)
{
    (void)pthread_mutex_lock(&mu);
    fired = 0;
    for (int i = 0; i < ALARMS; i++) {
        alarms[i].place = 0;
    }
    (void)pthread_mutex_unlock(&mu);
}

static sem_t released;
static struct cf_deferred holder;

static void wait_released(struct cf_deferred *deferred)
{
    (void)deferred;
    (void)sem_wait(&released);
}

/* Keep the timer thread from all that is asked of it from now on. */
static void hold_thread(void)
{
    ck_assert_int_eq(sem_init(&released, 0, 0), 0);
    ck_assert(cf__timer_thread_start());
    holder.run = wait_released;
    source->defer(source, &holder);
}

/* The caller destroys `released`, once it has seen that the thread has gone on. */
static void release_thread(void)
{
    ck_assert_int_eq(sem_post(&released), 0);
}

static uint64_t random_state;

static uint32_t next_random(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (uint32_t)(random_state >> 33);
}

/* now */

START_TEST(now_never_goes_back)
{
    int64_t last_ns = cf_now_ns();
    struct timespec monotonic;

    ck_assert_int_eq(clock_gettime(CLOCK_MONOTONIC, &monotonic), 0);
    ck_assert_int_ge((int64_t)monotonic.tv_sec * CF_SECOND + monotonic.tv_nsec, last_ns);
    for (int i = 0; i < 100000; i++) {
        int64_t now_ns = cf_now_ns();

        if (now_ns < last_ns) {
            ck_abort_msg("%jd after %jd", (intmax_t)now_ns, (intmax_t)last_ns);
        }
        last_ns = now_ns;
    }
}
END_TEST

/* timer_source */

START_TEST(timer_source_of_a_plain_thread_is_the_timer_thread)
{
    ck_assert_ptr_eq(cf_timer_source(), cf__timer_thread());
}
END_TEST

static void look_at_source(void *arg)
{
    *(struct cf_timer_source **)arg = cf_timer_source();
}

START_TEST(timer_source_of_a_fiber_is_its_loop)
{
    struct cf_timer_source *first = NULL;
    struct cf_timer_source *other = NULL;
    struct cf_loop *loop;

    ck_assert_int_eq(cf_loop_new(NULL, &loop, NULL), CF_OK);
    ck_assert_int_eq(cf_loop_call(loop, look_at_source, &first, NULL), CF_OK);
    ck_assert_int_eq(cf_loop_call(loop, look_at_source, &other, NULL), CF_OK);
    cf_loop_free(loop);
    ck_assert_ptr_nonnull(first);
    ck_assert_ptr_eq(other, first);
    ck_assert_ptr_ne(first, cf__timer_thread());
}
END_TEST

START_ONBOTH(timer_source_use_returns_the_one_before)
{
    struct cf_timer_source *own = cf_timer_source();
    struct cf_timer_source one = {0};
    struct cf_timer_source other = {0};
    struct cf_timer_source *before = cf_timer_source_use(&one);

    ck_assert_ptr_eq(cf_timer_source(), &one);
    ck_assert_ptr_eq(cf_timer_source_use(&other), &one);
    ck_assert_ptr_eq(cf_timer_source(), &other);
    ck_assert_ptr_eq(cf_timer_source_use(NULL), &other);
    ck_assert_ptr_eq(cf_timer_source(), cf__timer_thread());
    ck_assert_ptr_null(cf_timer_source_use(before));
    ck_assert_ptr_eq(cf_timer_source(), own);
}
END_ONBOTH

static void *look_at_source_on_thread(void *arg)
{
    look_at_source(arg);
    return NULL;
}

START_TEST(timer_source_use_concerns_the_calling_thread_only)
{
    struct cf_timer_source mine = {0};
    struct cf_timer_source *others = NULL;
    pthread_t thread;

    (void)cf_timer_source_use(&mine);
    ck_assert_int_eq(pthread_create(&thread, NULL, look_at_source_on_thread, &others), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    (void)cf_timer_source_use(NULL);
    ck_assert_ptr_eq(others, cf__timer_thread());
}
END_TEST

/* deadline_in */

static const struct {
    int64_t now_ns;
    int64_t timeout_ns;
    int64_t deadline_ns;
} sums[] = {
    {0, 0, 0},
    {100, 50, 150},
    {100, -50, 50},
    {100, -150, -50},
    {0, CF_NEVER, CF_NEVER},
    {1, CF_NEVER, CF_NEVER},
    {-1, CF_NEVER, CF_NEVER - 1},
    {CF_NEVER, 0, CF_NEVER},
    {CF_NEVER, 1, CF_NEVER},
    {CF_NEVER, CF_NEVER, CF_NEVER},
    {CF_NEVER, -1, CF_NEVER - 1},
    {CF_NEVER - 1, 1, CF_NEVER},
    {CF_NEVER - 1, 2, CF_NEVER},
    {CF_NEVER, INT64_MIN, -1},
    {0, INT64_MIN, INT64_MIN},
    {-1, INT64_MIN, INT64_MIN},
    {INT64_MIN, 0, INT64_MIN},
    {INT64_MIN, -1, INT64_MIN},
    {INT64_MIN + 1, -1, INT64_MIN},
    {INT64_MIN + 1, -2, INT64_MIN},
    {INT64_MIN, INT64_MIN, INT64_MIN},
    {INT64_MIN, CF_NEVER, -1},
};

START_TEST(deadline_in_never_overflows)
{
    ck_assert_int_eq(cf_deadline_in(sums[_i].now_ns, sums[_i].timeout_ns), sums[_i].deadline_ns);
}
END_TEST

/* timer heap */

START_TEST(timer_heap_empty_has_nothing)
{
    struct cf__timer_heap heap = {0};

    ck_assert_int_eq(cf__timer_heap_next_ns(&heap), CF_NEVER);
    ck_assert_ptr_null(cf__timer_heap_pop(&heap, CF_NEVER));
    ck_assert(!cf__timer_heap_remove(&heap, &alarms[0].timer));
    cf__timer_heap_fini(&heap);
}
END_TEST

START_TEST(timer_heap_pops_in_order_and_never_early)
{
    static const int64_t at_ns[] = {50, 10, 40, 10, 30, INT64_MIN, 20, CF_NEVER};
    static const int64_t sorted_ns[] = {INT64_MIN, 10, 10, 20, 30, 40, 50, CF_NEVER};
    struct cf__timer_heap heap = {0};

    for (int i = 0; i < ALARMS; i++) {
        ck_assert(cf__timer_heap_insert(&heap, &alarms[i].timer, at_ns[i]));
    }
    for (int i = 0; i < ALARMS; i++) {
        struct cf_timer *timer;

        ck_assert_int_eq(cf__timer_heap_next_ns(&heap), sorted_ns[i]);
        if (sorted_ns[i] > INT64_MIN) {
            ck_assert_ptr_null(cf__timer_heap_pop(&heap, sorted_ns[i] - 1));
        }
        timer = cf__timer_heap_pop(&heap, sorted_ns[i]);
        ck_assert_ptr_nonnull(timer);
        ck_assert_int_eq(timer->at_ns, sorted_ns[i]);
        ck_assert(!cf__timer_heap_remove(&heap, timer));
    }
    ck_assert_uint_eq(heap.count, 0);
    cf__timer_heap_fini(&heap);
}
END_TEST

/* What makes it a heap. */
static bool is_heap(const struct cf__timer_heap *heap)
{
    for (size_t i = 0; i < heap->count; i++) {
        if (heap->timers[i]->slot != i + 1 ||
            heap->timers[i]->at_ns < heap->timers[i > 0 ? (i - 1) / 2 : 0]->at_ns) {
            return false;
        }
    }
    return true;
}

/* The last one moves into the gap: up, when it came from below another branch. */
START_TEST(timer_heap_remove_from_the_middle_keeps_the_order)
{
    static const int64_t at_ns[] = {1, 50, 2, 60, 70, 3, 4};
    struct cf__timer_heap heap = {0};

    for (int i = 0; i < 7; i++) {
        ck_assert(cf__timer_heap_insert(&heap, &alarms[i].timer, at_ns[i]));
    }
    ck_assert(cf__timer_heap_remove(&heap, &alarms[_i].timer));
    ck_assert(!cf__timer_heap_remove(&heap, &alarms[_i].timer));
    ck_assert(is_heap(&heap));
    for (int64_t last_ns = INT64_MIN, left = 6; left > 0; left--) {
        struct cf_timer *timer = cf__timer_heap_pop(&heap, CF_NEVER);

        ck_assert_ptr_nonnull(timer);
        ck_assert_ptr_ne(timer, &alarms[_i].timer);
        ck_assert_int_ge(timer->at_ns, last_ns);
        last_ns = timer->at_ns;
    }
    ck_assert_uint_eq(heap.count, 0);
    cf__timer_heap_fini(&heap);
}
END_TEST

START_TEST(timer_heap_insert_out_of_memory_changes_nothing)
{
    static struct cf_timer timers[1000];
    struct cf__timer_heap heap = {0};
    unsigned failures = 0;

    for (int i = 0; i < 1000; i++) {
        bool ok;

        fault_alloc(1, false);
        ok = cf__timer_heap_insert(&heap, &timers[i], 1000 - i);
        if (!fault_off()) {
            ck_assert(ok);
            continue;
        }
        ck_assert(!ok);
        failures++;
        ck_assert_uint_eq(heap.count, i);
        ck_assert_int_eq(cf__timer_heap_next_ns(&heap), i == 0 ? CF_NEVER : 1000 - i + 1);
        ck_assert(!cf__timer_heap_remove(&heap, &timers[i]));
        ck_assert(cf__timer_heap_insert(&heap, &timers[i], 1000 - i));
    }
    ck_assert_uint_ge(failures, 2); /* The first allocation, and one that grows. */
    for (int i = 999; i >= 0; i--) {
        ck_assert_ptr_eq(cf__timer_heap_pop(&heap, CF_NEVER), &timers[i]);
    }
    cf__timer_heap_fini(&heap);
}
END_TEST

/* What the heap is compared with: every timer that is in, in an array sorted by time. */
#define MODEL_MAX 200

struct model {
    struct cf_timer *timers[MODEL_MAX];
    size_t count;
};

static void model_insert(struct model *model, struct cf_timer *timer)
{
    size_t i = model->count++;

    for (; i > 0 && model->timers[i - 1]->at_ns > timer->at_ns; i--) {
        model->timers[i] = model->timers[i - 1];
    }
    model->timers[i] = timer;
}

static bool model_remove(struct model *model, const struct cf_timer *timer)
{
    for (size_t i = 0; i < model->count; i++) {
        if (model->timers[i] == timer) {
            model->count--;
            for (; i < model->count; i++) {
                model->timers[i] = model->timers[i + 1];
            }
            return true;
        }
    }
    return false;
}

/* libcheck writes a line to a file for each assertion that holds: too slow here. */
#define CHECK(expr)                                                                                \
    do {                                                                                           \
        if (!(expr)) {                                                                             \
            ck_abort_msg("seed %" PRIu64 ", step %d: %s", seed, step, #expr);                      \
        }                                                                                          \
    } while (0)

START_TEST(timer_heap_does_as_a_sorted_array)
{
    static struct cf_timer timers[MODEL_MAX];
    uint64_t seed = 20240501 + (uint64_t)_i;
    struct cf__timer_heap heap = {0};
    struct model model = {.count = 0};

    memset(timers, 0, sizeof(timers)); /* Without a fork, the last loop's are in them. */
    random_state = seed;
    for (int step = 0; step < 20000; step++) {
        struct cf_timer *timer = &timers[next_random() % MODEL_MAX];
        /* Few different times, so that many are equal. */
        int64_t at_ns = next_random() % 50;

        if (next_random() % 3 == 0) {
            struct cf_timer *popped = cf__timer_heap_pop(&heap, at_ns);

            CHECK((popped != NULL) == (model.count > 0 && model.timers[0]->at_ns <= at_ns));
            /* Which one of equals comes first is not said. */
            CHECK(popped == NULL || popped->at_ns == model.timers[0]->at_ns);
            CHECK(popped == NULL || model_remove(&model, popped));
        } else if (timer->slot != 0 || next_random() % 4 == 0) {
            CHECK(cf__timer_heap_remove(&heap, timer) == model_remove(&model, timer));
        } else {
            CHECK(cf__timer_heap_insert(&heap, timer, at_ns));
            model_insert(&model, timer);
        }
        CHECK(heap.count == model.count);
        CHECK(is_heap(&heap));
        CHECK(cf__timer_heap_next_ns(&heap) ==
              (model.count == 0 ? CF_NEVER : model.timers[0]->at_ns));
    }
    cf__timer_heap_fini(&heap);
}
END_TEST

/* timer thread */

START_TEST(timer_thread_now_is_the_monotonic_clock)
{
    int64_t before_ns = cf_now_ns();
    int64_t now_ns = source->now_ns(source);

    ck_assert_int_ge(now_ns, before_ns);
    ck_assert_int_le(now_ns, cf_now_ns());
}
END_TEST

START_TEST(timer_thread_fires_never_early_and_on_a_thread_of_its_own)
{
    /* So near to each other that the next is nearly due when the thread looks. */
    for (int i = 0; i < ALARMS; i++) {
        arm_in(&alarms[i], 5 * CF_MS + i * 50 * CF_US);
    }
    wait_fired(ALARMS);
    (void)pthread_mutex_lock(&mu);
    for (int i = 0; i < ALARMS; i++) {
        ck_assert_int_ge(alarms[i].fired_ns, alarms[i].timer.at_ns);
        ck_assert_int_lt(alarms[i].fired_ns, alarms[i].timer.at_ns + PATIENCE_NS);
    }
    ck_assert(!pthread_equal(fired_on, pthread_self()));
    (void)pthread_mutex_unlock(&mu);
}
END_TEST

START_TEST(timer_thread_fires_the_earliest_first)
{
    int64_t at_ns = cf_now_ns() + 20 * CF_MS;

    hold_thread(); /* None fires before all are armed, however long that takes. */
    for (int i = 0; i < ALARMS; i++) {
        /* 0 3 6 1 4 7 2 5: neither up nor down. */
        ck_assert(source->arm(source, &alarms[i].timer, at_ns + i * 3 % ALARMS));
    }
    release_thread();
    wait_fired(ALARMS);
    (void)pthread_mutex_lock(&mu);
    for (int i = 0; i < ALARMS; i++) {
        ck_assert_uint_eq(alarms[i].place, i * 3 % ALARMS + 1);
    }
    (void)pthread_mutex_unlock(&mu);
    ck_assert_int_eq(sem_destroy(&released), 0);
}
END_TEST

START_TEST(timer_thread_fires_what_is_past_at_once)
{
    ck_assert(source->arm(source, &alarms[0].timer, INT64_MIN));
    wait_fired(1);
}
END_TEST

START_TEST(timer_thread_wakes_for_a_timer_that_is_earlier)
{
    arm_in(&alarms[0], 3600 * CF_SECOND);
    for (unsigned round = 1; round <= 10; round++) {
        arm_in(&alarms[1], CF_MS);
        wait_fired(round);
    }
    ck_assert(source->disarm(source, &alarms[0].timer));
    ck_assert_uint_eq(alarms[0].place, 0);
}
END_TEST

START_TEST(timer_thread_disarm_is_true_once_and_prevents)
{
    bool prevented = false;

    ck_assert(!source->disarm(source, &alarms[0].timer)); /* Not armed yet. */
    for (int tries = 0; !prevented; tries++) {
        ck_assert_int_lt(tries, 10);
        forget_fired();
        arm_in(&alarms[0], 20 * CF_MS);
        arm_in(&alarms[1], 20 * CF_MS);
        prevented = source->disarm(source, &alarms[0].timer);
        ck_assert(prevented || cf_now_ns() >= alarms[0].timer.at_ns); /* We were late. */
        ck_assert(!source->disarm(source, &alarms[0].timer));
        wait_fired(prevented ? 1 : 2);
    }
    ck_assert_uint_eq(alarms[0].place, 0);
    ck_assert_uint_eq(alarms[1].place, 1);
    ck_assert(!source->disarm(source, &alarms[1].timer)); /* It has fired. */
}
END_TEST

START_TEST(timer_thread_arms_again_what_fired)
{
    for (unsigned round = 1; round <= 3; round++) {
        arm_in(&alarms[0], 0);
        wait_fired(round);
    }
}
END_TEST

/* A callback that uses the source deadlocks if it is called with the source's lock. */
static void rearm(struct cf_timer *timer)
{
    struct alarm *alarm = CF__CONTAINER(timer, struct alarm, timer);
    bool again = fired < 2;

    if (again && !source->disarm(source, timer) && source->arm(source, timer, cf_now_ns())) {
        source->defer(source, &alarms[1].deferred);
    }
    record(alarm);
}

START_TEST(timer_thread_calls_without_its_lock)
{
    alarms[0].timer.fire = rearm;
    arm_in(&alarms[0], 0);
    wait_fired(3);
    ck_assert_uint_gt(alarms[1].place, 0);
}
END_TEST

START_TEST(timer_thread_defers_in_order)
{
    hold_thread();
    for (int i = 0; i < ALARMS; i++) {
        source->defer(source, &alarms[i].deferred);
    }
    release_thread();
    wait_fired(ALARMS);
    (void)pthread_mutex_lock(&mu);
    for (int i = 0; i < ALARMS; i++) {
        ck_assert_uint_eq(alarms[i].place, i + 1);
    }
    ck_assert(!pthread_equal(fired_on, pthread_self()));
    (void)pthread_mutex_unlock(&mu);
    ck_assert_int_eq(sem_destroy(&released), 0);
}
END_TEST

START_TEST(timer_thread_defers_while_it_waits_for_a_timer)
{
    arm_in(&alarms[0], 3600 * CF_SECOND);
    for (unsigned round = 1; round <= 10; round++) {
        source->defer(source, &alarms[1].deferred);
        wait_fired(round);
    }
    ck_assert(source->disarm(source, &alarms[0].timer));
}
END_TEST

START_TEST(timer_thread_out_of_memory_arms_nothing)
{
    static struct alarm many[5000];
    size_t armed = 0;
    bool struck = false;

    /* How many fit before the heap must grow depends on the tests before this one. */
    while (!struck) {
        bool ok;

        ck_assert_uint_lt(armed, 5000);
        many[armed].timer.fire = on_timer;
        fault_alloc(1, true);
        ok = source->arm(source, &many[armed].timer, cf_now_ns() + 3600 * CF_SECOND);
        struck = fault_off();
        if (ok == struck) {
            ck_abort_msg("arm said %d", ok);
        }
        armed += ok ? 1 : 0;
    }
    ck_assert(!source->disarm(source, &many[armed].timer));
    arm_in(&many[armed], 0); /* There is memory again: nothing was broken. */
    wait_fired(1);
    while (armed > 0) {
        armed--;
        ck_assert(source->disarm(source, &many[armed].timer));
    }
    ck_assert_uint_eq(fired, 1);
}
END_TEST

/* Timers that are disarmed while they fire: what disarm says is what happens. */
START_TEST(timer_thread_disarm_races_firing)
{
    int64_t until_ns = cf_now_ns() + (getenv("CF_TEST_LONG") != NULL ? 10 : 1) * CF_SECOND / 2;
    unsigned expected = 0;
    unsigned prevented = 0;

    for (unsigned round = 0; cf_now_ns() < until_ns || expected == 0 || prevented == 0; round++) {
        int64_t at_ns = cf_now_ns() + round % 64 * CF_US;

        alarms[0].place = 0;
        ck_assert(source->arm(source, &alarms[0].timer, at_ns));
        while (cf_now_ns() < at_ns + (int64_t)(round % 7) * 2 * CF_US) {
        }
        if (source->disarm(source, &alarms[0].timer)) {
            prevented++;
            ck_assert_uint_eq(alarms[0].place, 0);
        } else {
            expected++;
            wait_fired(expected);
        }
    }
    (void)pthread_mutex_lock(&mu);
    ck_assert_uint_eq(fired, expected);
    (void)pthread_mutex_unlock(&mu);
}
END_TEST

/* The virtual clock that other tests stand on */

START_ONBOTH(vclock_fires_in_order_at_the_times_asked_for)
{
    struct vclock clock;

    vclock_start(&clock);
    ck_assert_int_eq(cf_timer_source()->now_ns(cf_timer_source()), VCLOCK_START_NS);
    ck_assert(clock.source.arm(&clock.source, &alarms[0].timer, VCLOCK_START_NS + 2));
    ck_assert(clock.source.arm(&clock.source, &alarms[1].timer, VCLOCK_START_NS + 1));
    vclock_stall(&clock, 1);
    ck_assert_uint_eq(alarms[1].place, 0);
    vclock_advance(&clock, 0);
    ck_assert_uint_eq(alarms[1].place, 1);
    ck_assert_uint_eq(vclock_armed(&clock), 1);
    vclock_advance(&clock, 5);
    ck_assert_uint_eq(alarms[0].place, 2);
    ck_assert_int_eq(clock.now_ns, VCLOCK_START_NS + 6);
    vclock_stop(&clock);
}
END_ONBOTH

static TCase *add(Suite *suite, const char *name)
{
    TCase *tc = tcase_create(name);

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 30);
    suite_add_tcase(suite, tc);
    return tc;
}

Suite *suite_clock(void)
{
    Suite *suite = suite_create("clock");
    TCase *tc = add(suite, "now");

    tcase_add_test(tc, now_never_goes_back);

    tc = add(suite, "timer_source");
    tcase_add_test(tc, timer_source_of_a_plain_thread_is_the_timer_thread);
    tcase_add_test(tc, timer_source_of_a_fiber_is_its_loop);
    tcase_add_onboth(tc, timer_source_use_returns_the_one_before);
    tcase_add_test(tc, timer_source_use_concerns_the_calling_thread_only);

    tc = add(suite, "deadline_in");
    tcase_add_loop_test(tc, deadline_in_never_overflows, 0, sizeof(sums) / sizeof(sums[0]));

    tc = add(suite, "timer_heap");
    tcase_add_test(tc, timer_heap_empty_has_nothing);
    tcase_add_test(tc, timer_heap_pops_in_order_and_never_early);
    tcase_add_loop_test(tc, timer_heap_remove_from_the_middle_keeps_the_order, 0, 7);
    tcase_add_test(tc, timer_heap_insert_out_of_memory_changes_nothing);
    tcase_add_loop_test(tc, timer_heap_does_as_a_sorted_array, 0, 5);

    tc = add(suite, "timer_thread");
    tcase_add_test(tc, timer_thread_now_is_the_monotonic_clock);
    tcase_add_test(tc, timer_thread_fires_never_early_and_on_a_thread_of_its_own);
    tcase_add_test(tc, timer_thread_fires_the_earliest_first);
    tcase_add_test(tc, timer_thread_fires_what_is_past_at_once);
    tcase_add_test(tc, timer_thread_wakes_for_a_timer_that_is_earlier);
    tcase_add_test(tc, timer_thread_disarm_is_true_once_and_prevents);
    tcase_add_test(tc, timer_thread_arms_again_what_fired);
    tcase_add_test(tc, timer_thread_calls_without_its_lock);
    tcase_add_test(tc, timer_thread_defers_in_order);
    tcase_add_test(tc, timer_thread_defers_while_it_waits_for_a_timer);
    tcase_add_test(tc, timer_thread_out_of_memory_arms_nothing);
    tcase_add_test(tc, timer_thread_disarm_races_firing);

    tc = add(suite, "vclock");
    tcase_add_onboth(tc, vclock_fires_in_order_at_the_times_asked_for);
    return suite;
}
