/* SPDX-License-Identifier: MIT */
/* The behaviour that Go's own tests ask of sync.RWMutex and sync.Mutex, asked of a semaphore that
 * is used as one: one permit a reader, all of them for a writer. The locks inside the library are
 * pthread's. tests/README.md has the table of all their cases. */
#include <curfew/sem.h>

#include <check.h>
#include <stdatomic.h>

#include <curfew/group.h>

#include "crowd.h"
#include "effort.h"
#include "places.h"

#define ALL 1000 /* Permits: more than there are readers. */
#define WRITER 10000

/* Fixture */

static struct cf_sem *lock;
static atomic_int activity; /* Readers, and WRITER for each writer. */

static void setup(void)
{
    struct cf_err err;

    ck_assert_int_eq(cf_sem_new(ALL, &lock, &err), CF_OK);
}

static void teardown(void)
{
    cf_sem_free(lock);
}

/* Helpers */

static void take(int64_t permits)
{
    EXPECT(cf_sem_acquire(cf_ctx_background(), lock, permits, NULL) == CF_OK);
}

static void read_once(void)
{
    int active;

    take(1);
    active = atomic_fetch_add(&activity, 1) + 1;
    EXPECT(active >= 1 && active < WRITER);
    place_yield();
    (void)atomic_fetch_sub(&activity, 1);
    cf_sem_release(lock, 1);
}

static void write_once(void)
{
    take(ALL);
    EXPECT(atomic_fetch_add(&activity, WRITER) == 0);
    place_yield();
    (void)atomic_fetch_sub(&activity, WRITER);
    cf_sem_release(lock, ALL);
}

/* Readers */

#define READERS 4

struct readers {
    struct cf_ctx *gate;
    atomic_int inside;
};

static enum cf_code read_until_all_do(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct readers *readers = arg;
    enum cf_code code = cf_sem_acquire(ctx, lock, 1, err);

    if (code != CF_OK) {
        return code;
    }
    if (atomic_fetch_add(&readers->inside, 1) + 1 == READERS) {
        cf_ctx_cancel(readers->gate);
    }
    place_wait(readers->gate);
    cf_sem_release(lock, 1);
    return CF_OK;
}

static void read_together(void *arg)
{
    struct readers readers = {.gate = NULL};
    struct cf_group *group = NULL;

    (void)arg;
    EXPECT(cf_ctx_with_cancel(cf_ctx_background(), &readers.gate, NULL) == CF_OK);
    EXPECT(cf_group_new(cf_ctx_background(), &group, NULL) == CF_OK);
    for (int i = 0; i < READERS; i++) {
        cf_group_go(group, read_until_all_do, &readers);
    }
    EXPECT(cf_group_wait(group, NULL) == CF_OK);
    EXPECT(atomic_load(&readers.inside) == READERS);
    cf_group_free(group);
    cf_ctx_free(readers.gate);
}

/* Go: TestParallelReaders. None leaves before all are in. */
START_TEST(readers_hold_it_together)
{
    place_run(_i, read_together, NULL);
}
END_TEST

/* Writers */

static void write_in(void *arg)
{
    take(ALL);
    atomic_store((atomic_bool *)arg, true);
}

/* Go: TestRLocker. A writer waits for the last of two readers, and a reader for the writer. */
START_TEST(writer_waits_for_the_last_reader)
{
    atomic_bool written = false;
    struct visit writer;

    for (int round = 0; round < 10; round++) {
        atomic_store(&written, false);
        take(1);
        take(1);
        visit_start(&writer, _i, write_in, &written);
        visit_wait_parked(&writer);
        cf_sem_release(lock, 1);
        visit_wait_parked(&writer);
        ck_assert(!atomic_load(&written));
        cf_sem_release(lock, 1);
        visit_join(&writer);
        ck_assert(atomic_load(&written));
        ck_assert(!cf_sem_try_acquire(lock, 1));
        cf_sem_release(lock, ALL);
    }
}
END_TEST

/* Go: TestRWMutex and TestMutex, what is tried. */
START_TEST(try_takes_what_goes_together)
{
    ck_assert(cf_sem_try_acquire(lock, ALL));
    ck_assert(!cf_sem_try_acquire(lock, ALL));
    ck_assert(!cf_sem_try_acquire(lock, 1));
    cf_sem_release(lock, ALL);
    ck_assert(cf_sem_try_acquire(lock, 1));
    ck_assert(cf_sem_try_acquire(lock, 1));
    ck_assert(!cf_sem_try_acquire(lock, ALL));
    cf_sem_release(lock, 1);
    cf_sem_release(lock, 1);
}
END_TEST

/* Readers and writers at once */

static atomic_int next_member;

/* The first two write, as in Go's. */
static void hammer(void *arg, unsigned *seed)
{
    bool writes = atomic_fetch_add(&next_member, 1) < 2;

    (void)seed;
    for (int i = 0; i < *(int *)arg; i++) {
        if (writes) {
            write_once();
        } else {
            read_once();
        }
    }
}

/* Go: TestRWMutex, HammerRWMutex. */
START_TEST(writers_are_alone_among_readers)
{
    int times = effort_count(1000, 50);

    crowd_run(hammer, &times);
    ck_assert_int_eq(atomic_load(&activity), 0);
}
END_TEST

static void hammer_alone(void *arg, unsigned *seed)
{
    (void)seed;
    for (int i = 0; i < *(int *)arg; i++) {
        write_once();
    }
}

/* Go: TestMutex, HammerMutex. */
START_TEST(writers_are_alone_among_writers)
{
    int times = effort_count(1000, 50);

    crowd_run(hammer_alone, &times);
    ck_assert_int_eq(atomic_load(&activity), 0);
}
END_TEST

struct long_holder {
    atomic_bool stop;
    atomic_bool began;
};

static void hold_long(void *arg)
{
    struct long_holder *holder = arg;

    while (!atomic_load(&holder->stop)) {
        take(ALL);
        atomic_store(&holder->began, true);
        place_yield();
        cf_sem_release(lock, ALL);
    }
}

/* Go: TestMutexFairness. One takes it again as soon as he has released it; the other gets it all
 * the same, each time: it ends. */
START_TEST(writer_gets_it_between_one_who_always_wants_it)
{
    struct long_holder holder = {.stop = false};
    struct visit visit;

    visit_start(&visit, _i, hold_long, &holder);
    EVENTUALLY(atomic_load(&holder.began));
    for (int i = 0; i < 10; i++) {
        take(ALL);
        cf_sem_release(lock, ALL);
    }
    atomic_store(&holder.stop, true);
    visit_join(&visit);
}
END_TEST

Suite *suite_rwmutex(void)
{
    Suite *suite = suite_create("rwmutex");
    TCase *tc = tcase_create("lock");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 30);
    tcase_add_loop_test(tc, readers_hold_it_together, 0, PLACES);
    tcase_add_loop_test(tc, writer_waits_for_the_last_reader, 0, PLACES);
    tcase_add_test(tc, try_takes_what_goes_together);
    tcase_add_test(tc, writers_are_alone_among_readers);
    tcase_add_test(tc, writers_are_alone_among_writers);
    tcase_add_loop_test(tc, writer_gets_it_between_one_who_always_wants_it, 0, PLACES);
    suite_add_tcase(suite, tc);
    return suite;
}
