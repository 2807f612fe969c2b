/* SPDX-License-Identifier: MIT */
/* The one way to wait: a wait that ends once, whoever ends it, and whose wake-up is neither lost
 * nor left over for the next. */
#include "curfew/runtime/waiting.h"

#include <check.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <curfew/clock.h>
#include <curfew/ctx.h>

#include "effort.h"
#include "places.h"

/* Fixture */

static struct cf_ctx *ctx;
static struct cf_err failure;

static void setup(void)
{
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &ctx, &failure), CF_OK);
}

static void teardown(void)
{
    cf_ctx_free(ctx);
}

/* Helpers */

/* What ended a wait, and whether it was the only one. */
struct ending {
    enum cf__wait_outcome outcome;
    bool first_end;
    bool second_end;
    bool in_ctx;       /* Parked, it left itself in the context. */
    int64_t parked_ns; /* How long the next wait took. */
    enum cf__wait_outcome next_outcome;
};

/* A wait that nobody but a timeout ends. Had an earlier one left a wake-up, it would not last. */
static void wait_once_more(struct ending *ending)
{
    struct cf__wait wait;
    struct cf_ctx *brief;
    int64_t began_ns = cf_now_ns();

    if (cf_ctx_with_timeout(cf_ctx_background(), 5 * CF_MS, &brief, NULL) != CF_OK) {
        abort();
    }
    cf__wait_init(&wait);
    ending->next_outcome = cf__wait_park(brief, &wait);
    ending->parked_ns = cf_now_ns() - began_ns;
    cf_ctx_free(brief);
}

static void check_next(const struct ending *ending)
{
    ck_assert_int_eq(ending->next_outcome, CF__WAIT_CTX_DONE);
    ck_assert_int_ge(ending->parked_ns, 5 * CF_MS);
}

/* end, before the park */

static void end_before_park(void *arg)
{
    struct ending *ending = arg;
    struct cf__wait wait;

    cf__wait_init(&wait);
    ending->first_end = cf__wait_end(&wait, CF__WAIT_CLOSED);
    ending->second_end = cf__wait_end(&wait, CF__WAIT_READY);
    ending->outcome = cf__wait_park(ctx, &wait);
    ending->in_ctx = !cf__list_empty(&wait.on_ctx.node);
    wait_once_more(ending);
}

START_TEST(end_before_park_is_what_park_returns)
{
    struct ending ending = {.outcome = CF__WAIT_PENDING};

    place_run(_i, end_before_park, &ending);
    ck_assert(ending.first_end);
    ck_assert(!ending.second_end);
    ck_assert_int_eq(ending.outcome, CF__WAIT_CLOSED);
    ck_assert(!ending.in_ctx);
    check_next(&ending);
}
END_TEST

/* The context is done too, but it is not what ended the wait. */
START_TEST(end_before_park_wins_over_a_done_context)
{
    struct ending ending = {.outcome = CF__WAIT_PENDING};

    cf_ctx_cancel(ctx);
    place_run(_i, end_before_park, &ending);
    ck_assert_int_eq(ending.outcome, CF__WAIT_CLOSED);
    check_next(&ending);
}
END_TEST

static void end_without_ctx(void *arg)
{
    struct ending *ending = arg;
    struct cf__wait wait;

    cf__wait_init(&wait);
    ending->first_end = cf__wait_end(&wait, CF__WAIT_READY);
    ending->outcome = cf__wait_park(NULL, &wait);
    wait_once_more(ending);
}

START_TEST(end_before_park_without_a_context)
{
    struct ending ending = {.outcome = CF__WAIT_PENDING};

    place_run(_i, end_without_ctx, &ending);
    ck_assert_int_eq(ending.outcome, CF__WAIT_READY);
    check_next(&ending);
}
END_TEST

/* park */

struct parked {
    struct cf__wait wait;
    atomic_bool begun; /* The wait may be ended. */
    struct cf_ctx *ctx;
    struct ending ending;
};

static void park(void *arg)
{
    struct parked *parked = arg;

    cf__wait_init(&parked->wait);
    atomic_store(&parked->begun, true);
    parked->ending.outcome = cf__wait_park(parked->ctx, &parked->wait);
    parked->ending.in_ctx = !cf__list_empty(&parked->wait.on_ctx.node);
    wait_once_more(&parked->ending);
}

START_TEST(park_with_a_done_context_returns_at_once)
{
    struct parked parked = {.ctx = ctx};

    cf_ctx_cancel(ctx);
    place_run(_i, park, &parked);
    ck_assert_int_eq(parked.ending.outcome, CF__WAIT_CTX_DONE);
    ck_assert(!cf__wait_end(&parked.wait, CF__WAIT_READY));
    check_next(&parked.ending);
}
END_TEST

/* With a context, with one that never ends, and with none. */
START_TEST(park_ends_when_somebody_ends_it)
{
    struct cf_ctx *contexts[] = {ctx, cf_ctx_background(), NULL};
    struct parked parked = {.ctx = contexts[_i / PLACES]};
    struct visit visit;

    visit_start(&visit, _i % PLACES, park, &parked);
    EVENTUALLY(atomic_load(&parked.begun));
    visit_wait_parked(&visit);
    ck_assert(cf__wait_end(&parked.wait, CF__WAIT_READY));
    visit_join(&visit);
    ck_assert_int_eq(parked.ending.outcome, CF__WAIT_READY);
    ck_assert(!parked.ending.in_ctx); /* The context would fire into a frame that is gone. */
    check_next(&parked.ending);
}
END_TEST

START_TEST(park_ends_when_the_context_does)
{
    struct parked parked = {.ctx = ctx};
    struct visit visit;

    visit_start(&visit, _i, park, &parked);
    visit_wait_parked(&visit);
    cf_ctx_cancel(ctx);
    visit_join(&visit);
    ck_assert_int_eq(parked.ending.outcome, CF__WAIT_CTX_DONE);
    ck_assert(!cf__wait_end(&parked.wait, CF__WAIT_READY));
    check_next(&parked.ending);
}
END_TEST

/* Races */

/* A resource as the modules above have them, a place for one wait under a lock; and a context that
 * is cancelled at the same time. In each round one rival of each kind acts. */
struct resource {
    pthread_mutex_t mu;
    struct cf__wait *waits;     /* Guarded by mu. */
    bool granted;               /* Guarded by mu: the ender did end it. */
    enum cf__wait_outcome with; /* Guarded by mu: as what. */
    struct cf_ctx *_Atomic ctx; /* Of the round. */
    _Atomic unsigned long round;
    atomic_int acted; /* Rivals that are done with the round. */
    atomic_bool stop;

    long outcomes[CF__WAIT_CLOSED + 1]; /* Of the place. */
    long wrong;
};

/* Both rivals of a round wait equally long, now less than a park takes and now more, and then act
 * within nanoseconds of each other. */
static void wait_for_the_moment(unsigned long round, unsigned *seed)
{
    unsigned spins = (unsigned)(round * 2654435761UL % 16384) + (unsigned)rand_r(seed) % 1024;

    for (volatile unsigned i = 0; i < spins; i++) {
    }
}

/* Wait for the round after `seen`. False: there is none. */
static bool next_round(struct resource *resource, unsigned long *seen)
{
    while (atomic_load(&resource->round) == *seen) {
        if (atomic_load(&resource->stop)) {
            return false;
        }
        (void)sched_yield();
    }
    (*seen)++;
    return true;
}

static void end_rounds(void *arg)
{
    struct resource *resource = arg;
    unsigned long seen = 0;
    unsigned seed = 1;

    while (next_round(resource, &seen)) {
        enum cf__wait_outcome with = seen % 2 == 0 ? CF__WAIT_READY : CF__WAIT_CLOSED;

        wait_for_the_moment(seen, &seed);
        (void)pthread_mutex_lock(&resource->mu);
        if (resource->waits != NULL && cf__wait_end(resource->waits, with)) {
            resource->granted = true;
            resource->with = with;
            resource->wrong += cf__wait_end(resource->waits, with); /* It has ended. */
        }
        (void)pthread_mutex_unlock(&resource->mu);
        (void)atomic_fetch_add(&resource->acted, 1);
    }
}

static void cancel_rounds(void *arg)
{
    struct resource *resource = arg;
    unsigned long seen = 0;
    unsigned seed = 2;

    while (next_round(resource, &seen)) {
        wait_for_the_moment(seen, &seed);
        cf_ctx_cancel(atomic_load(&resource->ctx));
        (void)atomic_fetch_add(&resource->acted, 1);
    }
}

static bool ended_in_every_way(const struct resource *resource)
{
    return resource->outcomes[CF__WAIT_READY] > 0 && resource->outcomes[CF__WAIT_CLOSED] > 0 &&
           resource->outcomes[CF__WAIT_CTX_DONE] > 0;
}

static void wait_rounds(void *arg)
{
    struct resource *resource = arg;
    int64_t until_ns = effort_brief_stress_until_ns();

    while (EFFORT_GOES_ON(until_ns, ended_in_every_way(resource))) {
        struct cf_ctx *mine;
        struct cf__wait wait;
        enum cf__wait_outcome outcome;

        if (cf_ctx_with_cancel(cf_ctx_background(), &mine, NULL) != CF_OK) {
            abort();
        }
        cf__wait_init(&wait);
        (void)pthread_mutex_lock(&resource->mu);
        resource->waits = &wait;
        resource->granted = false;
        (void)pthread_mutex_unlock(&resource->mu);
        atomic_store(&resource->ctx, mine);
        atomic_store(&resource->acted, 0);
        (void)atomic_fetch_add(&resource->round, 1);
        outcome = cf__wait_park(mine, &wait);
        (void)pthread_mutex_lock(&resource->mu);
        resource->waits = NULL;
        /* Who waited and who ended agree on how. */
        resource->outcomes[outcome]++;
        if (outcome == CF__WAIT_CTX_DONE) {
            resource->wrong += resource->granted || cf_ctx_err(mine) != CF_ECANCELED;
        } else {
            resource->wrong += !resource->granted || outcome != resource->with;
        }
        (void)pthread_mutex_unlock(&resource->mu);
        while (atomic_load(&resource->acted) < 2) {
            (void)sched_yield();
        }
        cf_ctx_free(mine);
    }
    atomic_store(&resource->stop, true);
}

START_TEST(ends_race_and_one_wins)
{
    struct resource resource = {.mu = PTHREAD_MUTEX_INITIALIZER};
    struct visit ender;
    struct visit canceler;

    visit_start(&ender, PLACE_THREAD, end_rounds, &resource);
    visit_start(&canceler, PLACE_THREAD, cancel_rounds, &resource);
    place_run(_i, wait_rounds, &resource);
    visit_join(&ender);
    visit_join(&canceler);
    ck_assert_int_eq(resource.wrong, 0);
    ck_assert_int_eq(resource.outcomes[CF__WAIT_PENDING], 0);
    ck_assert(ended_in_every_way(&resource));
}
END_TEST

/* Two places that wake each other and wait: a wake-up that is lost ends the test. */
struct ping {
    pthread_mutex_t mu;
    struct cf__wait *waits[2]; /* Guarded by mu. */
    bool ball[2];              /* Guarded by mu: who waits has it. */
    long hits[2];
    long goal;
};

struct player {
    struct ping *ping;
    int side;
};

static void hit(struct ping *ping, int to)
{
    (void)pthread_mutex_lock(&ping->mu);
    if (ping->waits[to] != NULL) {
        (void)cf__wait_end(ping->waits[to], CF__WAIT_READY); /* Nobody else ends it. */
        ping->waits[to] = NULL;
    } else {
        ping->ball[to] = true;
    }
    (void)pthread_mutex_unlock(&ping->mu);
}

static void play(void *arg)
{
    struct player *player = arg;
    struct ping *ping = player->ping;
    int side = player->side;

    while (ping->hits[side] < ping->goal) {
        struct cf__wait wait;
        bool has_ball;

        (void)pthread_mutex_lock(&ping->mu);
        has_ball = ping->ball[side];
        ping->ball[side] = false;
        if (!has_ball) {
            cf__wait_init(&wait);
            ping->waits[side] = &wait;
        }
        (void)pthread_mutex_unlock(&ping->mu);
        if (!has_ball) {
            (void)cf__wait_park(NULL, &wait); /* Ends in one way. */
        }
        ping->hits[side]++;
        hit(ping, 1 - side);
    }
}

START_TEST(wake_ups_are_not_lost_between_two_places)
{
    struct ping ping = {.mu = PTHREAD_MUTEX_INITIALIZER, .goal = effort_count(5000, 1000)};
    struct player players[2] = {{&ping, 0}, {&ping, 1}};
    struct visit visits[2];

    hit(&ping, 0);
    visit_start(&visits[0], _i / PLACES, play, &players[0]);
    visit_start(&visits[1], _i % PLACES, play, &players[1]);
    visit_join(&visits[0]);
    visit_join(&visits[1]);
    ck_assert_int_eq(ping.hits[0], ping.goal);
    ck_assert_int_eq(ping.hits[1], ping.goal);
}
END_TEST

Suite *suite_waiting(void)
{
    Suite *suite = suite_create("waiting");
    TCase *tc = tcase_create("end");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, end_before_park_is_what_park_returns, 0, PLACES);
    tcase_add_loop_test(tc, end_before_park_wins_over_a_done_context, 0, PLACES);
    tcase_add_loop_test(tc, end_before_park_without_a_context, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("park");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, park_with_a_done_context_returns_at_once, 0, PLACES);
    tcase_add_loop_test(tc, park_ends_when_somebody_ends_it, 0, 3 * PLACES);
    tcase_add_loop_test(tc, park_ends_when_the_context_does, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("race");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, EFFORT_STRESS_SECONDS_MAX);
    tcase_add_loop_test(tc, ends_race_and_one_wins, 0, PLACES);
    tcase_add_loop_test(tc, wake_ups_are_not_lost_between_two_places, 0, PLACES * PLACES);
    suite_add_tcase(suite, tc);
    return suite;
}
