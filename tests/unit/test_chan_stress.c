/* SPDX-License-Identifier: MIT */
/* Channels under everything at once: senders and receivers on fibers and on threads, each with
 * plain calls, selects and tries, whose contexts are cancelled and run out at random. What was sent
 * by the calls that succeeded is what was received, and nothing else. */
#include <curfew/chan.h>

#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <curfew/group.h>

#include "effort.h"
#include "places.h"

#define CHANNELS 3
#define WORKERS 3 /* Tasks at each place of each side. */
#define CREWS (2 * (int)PLACES)
#define SLOTS (CREWS * WORKERS)

/* Fixture */

/* The context of a worker's call, for the canceler. */
struct slot {
    pthread_mutex_t mu;
    struct cf_ctx *ctx; /* Guarded by mu: NULL while there is none. */
};

static struct cf_chan *channels[CHANNELS];
static struct slot slots[SLOTS];
static atomic_bool stop;     /* For senders and canceler. Receivers end with the channels. */
static atomic_int next_slot; /* Workers hired. */
static atomic_llong sums[2]; /* By enum cf_chan_op: of the elements. */
static atomic_llong counts[2];
static atomic_long ends[CF_EINTERNAL + 1]; /* Calls by what they returned. */

static void setup(void)
{
    static const size_t capacities[CHANNELS] = {0, 1, 8};
    struct cf_err err;

    for (int i = 0; i < CHANNELS; i++) {
        ck_assert_int_eq(cf_chan_new(sizeof(int64_t), capacities[i], &channels[i], &err), CF_OK);
    }
    for (int i = 0; i < SLOTS; i++) {
        ck_assert_int_eq(pthread_mutex_init(&slots[i].mu, NULL), 0);
    }
}

static void teardown(void)
{
    for (int i = 0; i < CHANNELS; i++) {
        cf_chan_free(channels[i]);
    }
}

/* Helpers */

static void show(struct slot *slot, struct cf_ctx *ctx)
{
    (void)pthread_mutex_lock(&slot->mu);
    slot->ctx = ctx;
    (void)pthread_mutex_unlock(&slot->mu);
}

static void cancel_at_random(void *arg)
{
    unsigned seed = 1;

    (void)arg;
    while (!atomic_load(&stop)) {
        struct slot *slot = &slots[(unsigned)rand_r(&seed) % SLOTS];

        (void)pthread_mutex_lock(&slot->mu);
        if (slot->ctx != NULL) {
            cf_ctx_cancel(slot->ctx);
        }
        (void)pthread_mutex_unlock(&slot->mu);
        for (volatile unsigned i = 0; i < (unsigned)rand_r(&seed) % 20000; i++) {
        }
    }
}

/* One call of any kind on the channels of `open` (a bit for each), which is not 0. *out_closed is
 * the one that turned out to be closed, or CHANNELS. */
static enum cf_code call_one(struct cf_ctx *ctx, enum cf_chan_op op, unsigned open, unsigned dice,
                             int64_t *value, size_t *out_closed)
{
    struct cf_chan_case cases[CHANNELS];
    size_t which = dice % CHANNELS;
    size_t index = CHANNELS;
    enum cf_code code;

    for (size_t i = 0; i < CHANNELS; i++) {
        cases[i] = (struct cf_chan_case){op, (open >> i & 1) != 0 ? channels[i] : NULL, value};
    }
    while ((open >> which & 1) == 0) {
        which = (which + 1) % CHANNELS;
    }
    switch (dice / CHANNELS % 5) {
    case 0:
        code = cf_chan_try_select(cases, CHANNELS, &index, NULL);
        break;
    case 1:
    case 2:
        code = cf_chan_select(ctx, cases, CHANNELS, &index, NULL);
        break;
    default:
        code = op == CF_CHAN_SEND ? cf_chan_send(ctx, channels[which], value, NULL)
                                  : cf_chan_recv(ctx, channels[which], value, NULL);
        index = which;
        break;
    }
    *out_closed = code == CF_ECLOSED ? index : CHANNELS;
    return code;
}

/* A task: calls until `stop` (a sender), or until all channels are closed (a receiver). */
static enum cf_code work(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    enum cf_chan_op op = *(enum cf_chan_op *)arg;
    int number = atomic_fetch_add(&next_slot, 1);
    unsigned seed = (unsigned)number + 2;
    unsigned open = (1U << CHANNELS) - 1;

    while (open != 0 && (op == CF_CHAN_RECV || !atomic_load(&stop))) {
        unsigned dice = (unsigned)rand_r(&seed);
        int64_t value = op == CF_CHAN_SEND ? (int64_t)(1 + dice % 1000) : -1;
        struct cf_ctx *mine;
        size_t closed;
        enum cf_code code;

        code = cf_ctx_with_timeout(ctx, dice % 7 == 0 ? dice % 2000 * CF_US : 20 * CF_SECOND, &mine,
                                   err);
        if (code != CF_OK) {
            return code;
        }
        show(&slots[number], mine);
        code = call_one(mine, op, open, dice, &value, &closed);
        show(&slots[number], NULL);
        cf_ctx_free(mine);
        (void)atomic_fetch_add(&ends[code], 1);
        if (code == CF_OK) {
            (void)atomic_fetch_add(&sums[op], value);
            (void)atomic_fetch_add(&counts[op], 1);
        } else if (code == CF_ECLOSED) {
            open &= ~(1U << closed);
        } else {
            EXPECT(op == CF_CHAN_SEND || value == -1);
            place_yield(); /* A try that finds nothing would keep a fiber running. */
        }
    }
    return CF_OK;
}

static void run_crew(void *arg)
{
    struct cf_group *group;

    if (cf_group_new(cf_ctx_background(), &group, NULL) != CF_OK) {
        abort();
    }
    for (int i = 0; i < WORKERS; i++) {
        cf_group_go(group, work, arg);
    }
    EXPECT(cf_group_wait(group, NULL) == CF_OK);
    cf_group_free(group);
}

static bool was_a_stress(void)
{
    return atomic_load(&ends[CF_OK]) > 1000 && atomic_load(&ends[CF_ECANCELED]) > 0 &&
           atomic_load(&ends[CF_EDEADLINE]) > 0 && atomic_load(&ends[CF_EUNAVAIL]) > 0;
}

START_TEST(everything_at_once_keeps_the_sum)
{
    enum cf_chan_op ops[2] = {CF_CHAN_SEND, CF_CHAN_RECV};
    struct visit senders[PLACES];
    struct visit receivers[PLACES];
    struct visit canceler;
    int64_t until_ns = effort_stress_until_ns();

    for (int i = 0; i < PLACES; i++) {
        visit_start(&senders[i], i, run_crew, &ops[0]);
        visit_start(&receivers[i], i, run_crew, &ops[1]);
    }
    visit_start(&canceler, PLACE_THREAD, cancel_at_random, NULL);
    while (EFFORT_GOES_ON(until_ns, was_a_stress())) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    atomic_store(&stop, true);
    visit_join(&canceler);
    for (int i = 0; i < PLACES; i++) {
        visit_join(&senders[i]); /* The receivers are still there for what is being sent. */
    }
    for (int i = 0; i < CHANNELS; i++) {
        cf_chan_close(channels[i]);
    }
    for (int i = 0; i < PLACES; i++) {
        visit_join(&receivers[i]);
    }
    ck_assert_int_eq(atomic_load(&counts[CF_CHAN_RECV]), atomic_load(&counts[CF_CHAN_SEND]));
    ck_assert_int_eq(atomic_load(&sums[CF_CHAN_RECV]), atomic_load(&sums[CF_CHAN_SEND]));
    ck_assert(was_a_stress());
}
END_TEST

Suite *suite_chan_stress(void)
{
    Suite *suite = suite_create("chan_stress");
    TCase *tc = tcase_create("all");

    tcase_set_tags(tc, "stress");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, EFFORT_STRESS_SECONDS_MAX);
    tcase_add_test(tc, everything_at_once_keeps_the_sum);
    suite_add_tcase(suite, tc);
    return suite;
}
