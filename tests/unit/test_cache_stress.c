/* SPDX-License-Identifier: MIT */
/* A cache under eight threads, half of them loops: its bounds hold, no value is freed while it is
 * read, and nobody gets what is older than the last change he knows of. */
#include <curfew/cache.h>

#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <curfew/wait.h>

#include "effort.h"
#include "places.h"
#include "rwlocks.h"

#define THREADS 8
#define FIBERS 4 /* On each thread that is a loop. */
#define KEYS 400
#define ENTRIES_MAX 128
#define BYTES_MAX (128 * 1024)

/* Fixture */

/* What is cached. A state of its own, so that a use after free shows even without a sanitizer. */
struct content {
    atomic_uint alive;
    int key;
    unsigned version;
};

#define ALIVE 0xa11feU
#define DEAD 0xdeadU

/* What the values are made of. A change is made to `version`, then the cache is told, and then
 * `told` says so. Versions of one key are made by one thread, so that they are told in order. */
struct source {
    atomic_uint version;
    atomic_uint told;
};

static struct cf_cache *cache;
static struct source sources[KEYS];
static atomic_long made; /* Values. */
static atomic_long dropped;
static atomic_long gotten;
static atomic_long given_up; /* Calls whose context ended. */
static _Atomic unsigned dice;
static int64_t until_ns;

static void setup(void)
{
    struct cf_cache_options options = {
        .entries_max = ENTRIES_MAX,
        .bytes_max = BYTES_MAX,
        .shards = 4,
        .ttl_ns = 2 * CF_MS,
        .stale_while_revalidate_ns = 2 * CF_MS,
        .stale_if_error_ns = 4 * CF_MS,
        .negative_ttl_ns = CF_MS / 2,
        .error_ttl_ns = CF_MS / 2,
    };
    struct cf_err err;

    ck_assert_int_eq(cf_cache_new(cf_ctx_background(), &options, &cache, &err), CF_OK);
    until_ns = effort_stress_until_ns();
}

static void teardown(void)
{
    cf_cache_free(cache);
}

/* Helpers */

static unsigned roll(unsigned sides)
{
    unsigned mixed = atomic_fetch_add(&dice, 1) * 2654435761U;

    return ((mixed ^ (mixed >> 15)) * 2246822519U >> 8) % sides;
}

static void drop_content(void *data)
{
    struct content *content = data;

    EXPECT(atomic_exchange(&content->alive, DEAD) == ALIVE);
    (void)atomic_fetch_add(&dropped, 1);
    free(content);
}

static enum cf_code make_value(int key, unsigned version, struct cf_value **out, struct cf_err *err)
{
    struct content *content = malloc(sizeof(*content));

    if (content == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a test");
    }
    atomic_init(&content->alive, ALIVE);
    content->key = key;
    content->version = version;
    (void)atomic_fetch_add(&made, 1);
    return cf_value_wrap(content, 100 + roll(4000), drop_content, out, err);
}

static enum cf_code load_content(struct cf_ctx *ctx, void *arg, struct cf_value **out,
                                 int64_t *ttl_ns, struct cf_err *err)
{
    int key = *(int *)arg;
    unsigned version = atomic_load(&sources[key].version);
    enum cf_code code = CF_OK;

    (void)ttl_ns;
    switch (roll(8)) {
    case 0:
        code = cf_sleep(ctx, roll(500) * CF_US, err);
        break;
    case 1:
        code = cf_yield(ctx, err);
        break;
    case 2:
        return cf_err_set(err, roll(2) == 0 ? CF_ENOTFOUND : CF_EIO, "as it happens");
    default:
        break;
    }
    return code == CF_OK ? make_value(key, version, out, err) : code;
}

static void read_content(struct cf_value *value, int key, unsigned at_least)
{
    const struct content *content = cf_value_data(value);

    for (int i = 0; i < 3; i++) { /* As long as a reply takes to be sent. */
        EXPECT(atomic_load(&((struct content *)content)->alive) == ALIVE);
        EXPECT(content->key == key);
        EXPECT(content->version >= at_least);
    }
    (void)atomic_fetch_add(&gotten, 1);
    cf_value_unref(value);
}

static void get(int key, const char *name)
{
    static const struct cf_cache_load load = {load_content, sizeof(int)};
    unsigned at_least = atomic_load(&sources[key].told);
    struct cf_cache_info info = {.state = CF_CACHE_MISS};
    struct rwlocks before;
    struct cf_value *value;
    struct cf_ctx *ctx;
    struct cf_err err;
    enum cf_code code;

    EXPECT(cf_ctx_with_timeout(cf_ctx_background(), (100 + roll(3000)) * CF_US, &ctx, NULL) ==
           CF_OK);
    before = rwlocks_taken();
    code = cf_cache_get(ctx, cache, name, &load, &key, &value, &info, &err);
    if (!cf_on_fiber() && info.state == CF_CACHE_HIT) { /* A load has a thread of its own then. */
        EXPECT(rwlocks_taken().writes == before.writes);
    }
    if (code == CF_OK) {
        read_content(value, key, at_least);
    } else {
        EXPECT(code == CF_EIO || code == CF_ENOTFOUND || code == CF_EDEADLINE);
        (void)atomic_fetch_add(&given_up, code == CF_EDEADLINE);
    }
    cf_ctx_free(ctx);
}

static bool is_it(const char *key, void *arg)
{
    return atoi(key) == *(int *)arg;
}

/* Change what is behind one of this thread's keys. */
static void change(int key, const char *name)
{
    unsigned version = atomic_fetch_add(&sources[key].version, 1) + 1;
    struct cf_value *value;
    struct cf_err err;

    switch (roll(40)) {
    case 0:
        cf_cache_flush(cache);
        break;
    case 1:
        (void)cf_cache_remove_if(cache, is_it, &key);
        break;
    case 2:
    case 3:
    case 4:
    case 5:
        EXPECT(make_value(key, version, &value, &err) == CF_OK);
        EXPECT(cf_cache_put(cache, name, value, &err) == CF_OK);
        cf_value_unref(value);
        break;
    default:
        (void)cf_cache_remove(cache, name);
        break;
    }
    atomic_store(&sources[key].told, version);
}

static void expect_within_bounds(void)
{
    struct cf_cache_stats stats;

    cf_cache_stats(cache, &stats);
    EXPECT(stats.entries <= ENTRIES_MAX);
    EXPECT(stats.bytes <= BYTES_MAX);
}

/* All that can come of a call has. */
static bool was_a_stress(void)
{
    struct cf_cache_stats stats;

    cf_cache_stats(cache, &stats);
    return stats.hits > 0 && stats.stale > 0 && stats.negative > 0 && stats.misses > 0 &&
           stats.evictions > 0 && atomic_load(&gotten) > 0 && atomic_load(&given_up) > 0;
}

/* One who reads, and changes what is behind the keys that leave `mine` over. */
static void use_cache(int mine)
{
    while (EFFORT_GOES_ON(until_ns, was_a_stress())) {
        int key = (int)(roll(2) == 0 ? roll(KEYS) : roll(KEYS / 10));
        char name[16];

        (void)snprintf(name, sizeof(name), "%d", key);
        get(key, name);
        if (key % (THREADS * FIBERS) == mine && roll(2) == 0) {
            change(key, name);
        }
        if (roll(64) == 0) {
            expect_within_bounds();
        }
        if (roll(16) == 0) {
            place_yield(); /* A hit does not give way. */
        }
    }
}

static void use_as_fiber(void *arg)
{
    use_cache((int)(intptr_t)arg);
}

static void use_at_place(void *arg)
{
    intptr_t thread = (intptr_t)arg;

    for (intptr_t i = 1; cf_on_fiber() && i < FIBERS; i++) {
        EXPECT(cf_loop_spawn(cf_loop_current(), use_as_fiber, (void *)(thread + i * THREADS),
                             NULL) == CF_OK);
    }
    use_cache((int)thread);
}

/* Stress */

START_TEST(stress_of_eight_threads)
{
    struct visit visits[THREADS];
    struct cf_value *last; /* So that something is kept whatever the last change was. */

    for (intptr_t i = 0; i < THREADS; i++) {
        visit_start(&visits[i], (int)i % PLACES, use_at_place, (void *)i);
    }
    for (int i = 0; i < THREADS; i++) {
        visit_join(&visits[i]);
    }
    cf_cache_stop(cache);
    expect_within_bounds();
    ck_assert(was_a_stress());
    ck_assert_int_eq(make_value(0, atomic_load(&sources[0].version), &last, NULL), CF_OK);
    ck_assert_int_eq(cf_cache_put(cache, "0", last, NULL), CF_OK);
    cf_value_unref(last);
    ck_assert_int_gt(atomic_load(&made), atomic_load(&dropped));
    cf_cache_flush(cache);
    ck_assert_int_eq(atomic_load(&made), atomic_load(&dropped));
}
END_TEST

/* Starvation */

#define READERS 64
#define WRITER_WAIT_MAX_NS (20 * CF_SECOND) /* Of 64 on a core or two, each has its turn. */

static atomic_bool over; /* For readers: the writer says so. A starved one never does. */

/* One who reads what is there, and that is all the time. */
static void *read_always(void *arg)
{
    (void)arg;
    while (!atomic_load(&over)) {
        struct cf_value *value;

        if (cf_cache_try_get(cache, "1", &value, NULL)) {
            read_content(value, 1, 0);
        }
    }
    return NULL;
}

/* All read one entry, whose lock is never free: who changes it gets it all the same. */
START_TEST(writer_among_readers_is_not_starved)
{
    pthread_t readers[READERS];
    int n_readers = effort_count(READERS, 8);
    int64_t longest_ns = 0;
    long writes = 0;

    atomic_store(&over, false);
    for (int i = 0; i < n_readers; i++) {
        ck_assert_int_eq(pthread_create(&readers[i], NULL, read_always, NULL), 0);
    }
    until_ns = effort_brief_stress_until_ns();
    while (EFFORT_GOES_ON(until_ns, writes > 1 && atomic_load(&gotten) > writes)) {
        struct cf_value *value;
        struct cf_err err;
        int64_t took_ns;

        ck_assert_int_eq(make_value(1, 0, &value, &err), CF_OK);
        took_ns = cf_now_ns();
        ck_assert_int_eq(cf_cache_put(cache, "1", value, &err), CF_OK);
        took_ns = cf_now_ns() - took_ns;
        cf_value_unref(value);
        longest_ns = took_ns > longest_ns ? took_ns : longest_ns;
        writes++;
    }
    atomic_store(&over, true);
    for (int i = 0; i < n_readers; i++) {
        ck_assert_int_eq(pthread_join(readers[i], NULL), 0);
    }
    if (getenv("CF_TEST_PRINT") != NULL) {
        (void)printf("  %d readers read %ld times, 1 writer wrote %ld times and waited %.1f ms"
                     " at most\n",
                     n_readers, atomic_load(&gotten), writes, (double)longest_ns / 1e6);
    }
    ck_assert_int_lt(longest_ns, WRITER_WAIT_MAX_NS);
    ck_assert_int_gt(writes, 1);
    ck_assert_int_gt(atomic_load(&gotten), writes);
}
END_TEST

Suite *suite_cache_stress(void)
{
    Suite *suite = suite_create("cache_stress");
    TCase *tc = tcase_create("stress");
    TCase *starvation = tcase_create("starvation");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, EFFORT_STRESS_SECONDS_MAX);
    tcase_add_test(tc, stress_of_eight_threads);
    suite_add_tcase(suite, tc);

    tcase_add_checked_fixture(starvation, setup, teardown);
    tcase_set_timeout(starvation, EFFORT_STRESS_SECONDS_MAX);
    tcase_set_tags(starvation, "stress");
    tcase_add_test(starvation, writer_among_readers_is_not_starved);
    suite_add_tcase(suite, starvation);
    return suite;
}
