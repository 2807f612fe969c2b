/* SPDX-License-Identifier: MIT */
/* SIEVE: which has to go, and how often a cache that goes by it hits, beside simulations of SIEVE
 * and of LRU that share nothing with it. */
#include "curfew/sync/sieve.h"

#include <curfew/cache.h>

#include <check.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "effort.h"

/* Helpers: a queue of letters */

struct letter {
    struct cf__sieve_node node;
    char name;
};

static struct cf__sieve sieve;
static struct letter letters[26];

static struct letter *letter(char name)
{
    letters[name - 'a'].name = name;
    return &letters[name - 'a'];
}

/* Insert the letters of `names`, use those of `used`. */
static void setup_letters(const char *names, const char *used)
{
    cf__sieve_init(&sieve);
    for (; *names != '\0'; names++) {
        cf__sieve_insert(&sieve, &letter(*names)->node);
    }
    for (; *used != '\0'; used++) {
        cf__sieve_use(&letter(*used)->node);
    }
}

static char evict(void)
{
    struct cf__sieve_node *node = cf__sieve_evict(&sieve);

    return node != NULL ? CF__CONTAINER(node, struct letter, node)->name : '-';
}

/* evict */

START_TEST(evict_of_nothing)
{
    setup_letters("", "");
    ck_assert_int_eq(evict(), '-');
    setup_letters("a", "a");
    ck_assert_int_eq(evict(), 'a'); /* Used, and yet there is no other. */
    ck_assert_int_eq(evict(), '-');
}
END_TEST

START_TEST(evict_takes_the_oldest_that_was_not_used)
{
    setup_letters("abcde", "ac");
    ck_assert_int_eq(evict(), 'b');
    ck_assert_int_eq(evict(), 'd'); /* c had been used. */
    cf__sieve_insert(&sieve, &letter('f')->node);
    ck_assert_int_eq(evict(), 'e'); /* The hand goes on, to the newest, */
    ck_assert_int_eq(evict(), 'f');
    ck_assert_int_eq(evict(), 'a'); /* and begins with the oldest again. */
    ck_assert_int_eq(evict(), 'c');
    ck_assert_int_eq(evict(), '-');
}
END_TEST

START_TEST(remove_under_the_hand)
{
    setup_letters("abcd", "");
    ck_assert_int_eq(evict(), 'a');
    cf__sieve_remove(&sieve, &letter('b')->node); /* Where the hand is. */
    ck_assert_int_eq(evict(), 'c');
    cf__sieve_remove(&sieve, &letter('d')->node);
    ck_assert_int_eq(evict(), '-');
}
END_TEST

START_TEST(replace_keeps_the_place_as_a_use)
{
    setup_letters("abc", "");
    ck_assert_int_eq(evict(), 'a');
    cf__sieve_replace(&sieve, &letter('b')->node, &letter('x')->node); /* Where the hand is. */
    ck_assert_int_eq(evict(), 'c');
    ck_assert_int_eq(evict(), 'x');
}
END_TEST

/* Helpers: traces */

#define THINGS 20000
#define ROOM 2000
#define REQUESTS 400000

struct trace {
    double skew; /* Zipf's exponent. */
    bool scans;  /* Now and then somebody reads many things once. */
};

static const struct trace traces[] = {
    {0.7, false}, {0.9, false}, {1.0, false}, {1.2, false}, {1.0, true}};

static unsigned requests[REQUESTS];
static int count; /* Of the requests: fewer where each takes long. */

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Which of `sums`' ranges `at` falls into. */
static unsigned find_range(const double *sums, double at)
{
    unsigned low = 0;
    unsigned high = THINGS - 1;

    while (low < high) {
        unsigned middle = (low + high) / 2;

        if (sums[middle] < at) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void make_trace(const struct trace *trace)
{
    static double sums[THINGS];
    uint64_t state = UINT64_C(88172645463325252);
    double sum = 0;
    unsigned once = THINGS;

    for (unsigned i = 0; i < THINGS; i++) {
        sum += 1 / pow(i + 1, trace->skew);
        sums[i] = sum;
    }
    for (unsigned i = 0; i < (unsigned)count; i++) {
        double share = (double)(next_random(&state) >> 11) / 9007199254740992.0;

        requests[i] = trace->scans && i % 20000 < 4000 ? once++ : find_range(sums, share * sum);
    }
}

/* Hits of SIEVE as its paper has it, with a list of indices: head is the newest. */
static int simulate_sieve(void)
{
    enum {
        NONE = -1
    };
    static int slot_of[THINGS + REQUESTS];
    static struct {
        int thing, newer, older;
        bool visited;
    } slots[ROOM];
    int head = NONE, tail = NONE, hand = NONE;
    int filled = 0;
    int hits = 0;

    memset(slot_of, 0xff, sizeof(slot_of));
    for (int i = 0; i < count; i++) {
        int thing = (int)requests[i];
        int slot = slot_of[thing];

        if (slot != NONE) {
            slots[slot].visited = true;
            hits++;
            continue;
        }
        if (filled < ROOM) {
            slot = filled++;
        } else {
            slot = hand != NONE ? hand : tail;
            while (slots[slot].visited) {
                slots[slot].visited = false;
                slot = slots[slot].newer != NONE ? slots[slot].newer : tail;
            }
            hand = slots[slot].newer;
            if (slots[slot].newer != NONE) {
                slots[slots[slot].newer].older = slots[slot].older;
            } else {
                head = slots[slot].older;
            }
            if (slots[slot].older != NONE) {
                slots[slots[slot].older].newer = slots[slot].newer;
            } else {
                tail = slots[slot].newer;
            }
            slot_of[slots[slot].thing] = NONE;
        }
        slots[slot].thing = thing;
        slots[slot].visited = false;
        slots[slot].newer = NONE;
        slots[slot].older = head;
        if (head != NONE) {
            slots[head].newer = slot;
        } else {
            tail = slot;
        }
        head = slot;
        slot_of[thing] = slot;
    }
    return hits;
}

/* Hits of LRU: what was used longest ago goes. */
static int simulate_lru(void)
{
    static int used_at[THINGS + REQUESTS]; /* When last, plus one; 0: it is not there. */
    static bool is_last[REQUESTS];         /* Whether this use is the last one of what is there. */
    int filled = 0;
    int oldest = 0;
    int hits = 0;

    memset(used_at, 0, sizeof(used_at));
    memset(is_last, 0, sizeof(is_last));
    for (int i = 0; i < count; i++) {
        int *at = &used_at[requests[i]];

        if (*at != 0) {
            is_last[*at - 1] = false;
            hits++;
        } else if (filled < ROOM) {
            filled++;
        } else {
            while (!is_last[oldest]) {
                oldest++;
            }
            is_last[oldest] = false;
            used_at[requests[oldest]] = 0;
        }
        *at = i + 1;
        is_last[i] = true;
    }
    return hits;
}

static int run_cache(size_t shards)
{
    struct cf_cache_options options = {
        .entries_max = ROOM, .bytes_max = (size_t)1 << 30, .shards = shards};
    struct cf_cache *cache;
    struct cf_value *value;
    struct cf_cache_stats stats;

    ck_assert_int_eq(cf_cache_new(cf_ctx_background(), &options, &cache, NULL), CF_OK);
    ck_assert_int_eq(cf_value_new(NULL, 0, &value, NULL), CF_OK);
    for (int i = 0; i < count; i++) {
        struct cf_value *got;
        char key[16];

        (void)snprintf(key, sizeof(key), "%u", requests[i]);
        if (cf_cache_try_get(cache, key, &got, NULL)) {
            cf_value_unref(got);
        } else {
            ck_assert_int_eq(cf_cache_put(cache, key, value, NULL), CF_OK);
        }
    }
    cf_cache_stats(cache, &stats);
    ck_assert_uint_eq(stats.entries, ROOM);
    cf_cache_free(cache);
    cf_value_unref(value);
    return (int)stats.hits;
}

/* Hit rates */

START_TEST(cache_hits_as_often_as_sieve_and_more_than_lru)
{
    int by_sieve;
    int by_lru;
    int by_cache;

    count = effort_count(REQUESTS, REQUESTS / 10);
    make_trace(&traces[_i]);
    by_sieve = simulate_sieve();
    by_lru = simulate_lru();
    by_cache = run_cache(8); /* Each shard sieves its own: a little luck is in it. */
    ck_assert_int_eq(run_cache(1), by_sieve);
    ck_assert_int_le(abs(by_cache - by_sieve), count / 100);
    ck_assert_int_gt(by_cache, by_lru);
    if (getenv("CF_TEST_PRINT") != NULL) {
        (void)printf("zipf %.1f%s: sieve %.4f lru %.4f cache of 8 shards %.4f\n", traces[_i].skew,
                     traces[_i].scans ? " with scans" : "", by_sieve / (double)count,
                     by_lru / (double)count, by_cache / (double)count);
    }
}
END_TEST

Suite *suite_sieve(void)
{
    Suite *suite = suite_create("sieve");
    TCase *tc = tcase_create("evict");

    tcase_add_test(tc, evict_of_nothing);
    tcase_add_test(tc, evict_takes_the_oldest_that_was_not_used);
    tcase_add_test(tc, remove_under_the_hand);
    tcase_add_test(tc, replace_keeps_the_place_as_a_use);
    suite_add_tcase(suite, tc);

    tc = tcase_create("cache");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, cache_hits_as_often_as_sieve_and_more_than_lru, 0,
                        sizeof(traces) / sizeof(traces[0]));
    suite_add_tcase(suite, tc);
    return suite;
}
