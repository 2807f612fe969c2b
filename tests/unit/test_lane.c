/* SPDX-License-Identifier: MIT */
/* Offload lanes: whose the argument is when a call ends, in every state that its job can be in. */
#include <curfew/lane.h>

#include <check.h>
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <curfew/clock.h>
#include <curfew/ctx.h>
#include <curfew/loop.h>

#include "effort.h"
#include "fault.h"
#include "places.h"

/* Fixture */

static struct cf_ctx *ctx;
static struct cf_ctx *gate; /* Cancelled to let the work go on. */
static struct cf_lane *lane;
static struct cf_err err;

/* How many threads of this process have that name. */
static int threads_named(const char *name)
{
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *entry;
    int count = 0;

    ck_assert_ptr_nonnull(tasks);
    while ((entry = readdir(tasks)) != NULL) {
        char path[300];
        char comm[32] = "";
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/self/task/%s/comm", entry->d_name);
        file = fopen(path, "re");
        if (file != NULL) {
            if (fgets(comm, sizeof(comm), file) != NULL) {
                comm[strcspn(comm, "\n")] = '\0';
                count += strcmp(comm, name) == 0;
            }
            (void)fclose(file);
        }
    }
    (void)closedir(tasks);
    return count;
}

static void setup(void)
{
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &ctx, &err), CF_OK);
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &gate, &err), CF_OK);
    lane = NULL;
    /* Where all tests are in one process, those of the one before may be on their way out. */
    EVENTUALLY(threads_named("test-lane") == 0);
}

static void teardown(void)
{
    cf_lane_free(lane);
    cf_ctx_free(ctx);
    cf_ctx_free(gate);
}

/* Helpers */

static void new_lane(size_t threads_max, size_t queue_max)
{
    ck_assert_int_eq(cf_lane_new("test-lane", threads_max, queue_max, &lane, &err), CF_OK);
}

/* What a job does and what became of it. */
struct job {
    struct cf_ctx *gate; /* The work waits for its end. NULL: it does not. */
    atomic_int *running; /* Jobs that are at work, and the most there were; or NULL. */
    atomic_int *most;
    atomic_int *next; /* Numbers the works; or NULL. */

    atomic_int works;
    atomic_int drops;
    atomic_bool done; /* The work has returned. */
    int worked_as;
    int tid;
    bool on_loop;
    bool blocks_signals;
    char thread_name[16];
};

static void work(void *arg)
{
    struct job *job = arg;
    sigset_t blocked;

    job->tid = (int)syscall(SYS_gettid);
    job->on_loop = cf_loop_current() != NULL;
    (void)pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    job->blocks_signals = sigismember(&blocked, SIGTERM) == 1;
    (void)pthread_getname_np(pthread_self(), job->thread_name, sizeof(job->thread_name));
    job->worked_as = job->next != NULL ? atomic_fetch_add(job->next, 1) : 0;
    if (job->running != NULL) {
        int now = atomic_fetch_add(job->running, 1) + 1;
        int most = atomic_load(job->most);

        while (now > most && !atomic_compare_exchange_weak(job->most, &most, now)) {
        }
    }
    (void)atomic_fetch_add(&job->works, 1);
    if (job->gate != NULL) {
        place_wait(job->gate);
    }
    if (job->running != NULL) {
        (void)atomic_fetch_sub(job->running, 1);
    }
    atomic_store(&job->done, true);
}

static void drop(void *arg)
{
    (void)atomic_fetch_add(&((struct job *)arg)->drops, 1);
}

/* One call of cf_lane_run(). */
struct run {
    struct cf_ctx *ctx;
    struct job job;
    unsigned fail_nth;

    enum cf_code code;
    struct cf_err err;
    bool struck;
    int drops_at_return;
    int64_t returned_ns;
    struct visit visit;
};

static void call_run(void *arg)
{
    struct run *run = arg;

    fault_alloc(run->fail_nth, false);
    run->code = cf_lane_run(run->ctx, lane, work, drop, &run->job, &run->err);
    run->struck = fault_off();
    run->drops_at_return = atomic_load(&run->job.drops);
    run->returned_ns = cf_now_ns();
}

static struct run new_run(struct cf_ctx *work_gate)
{
    return (struct run){.ctx = ctx, .job.gate = work_gate};
}

/* Start a call whose work waits at the gate, and wait for the work. */
static void start_working(int place, struct run *run)
{
    *run = new_run(gate);
    visit_start(&run->visit, place, call_run, run);
    EVENTUALLY(atomic_load(&run->job.works) == 1);
}

/* Start a call that finds all threads at work, and wait until it waits. */
static void start_queued(int place, struct run *run)
{
    visit_start(&run->visit, place, call_run, run);
    visit_wait_parked(&run->visit);
    ck_assert_int_eq(atomic_load(&run->job.works), 0);
}

static void check_given_back(struct run *run)
{
    ck_assert_int_eq(run->code, CF_OK);
    ck_assert_int_eq(atomic_load(&run->job.works), 1);
    ck_assert_int_eq(atomic_load(&run->job.drops), 0);
    ck_assert(atomic_load(&run->job.done));
}

/* Refused or given up before its work began: dropped before the call returned. */
static void check_never_worked(struct run *run, enum cf_code code)
{
    ck_assert_int_eq(run->code, code);
    ck_assert_int_eq(run->err.code, code);
    ck_assert_int_eq(run->drops_at_return, 1);
    ck_assert_int_eq(atomic_load(&run->job.drops), 1);
    ck_assert_int_eq(atomic_load(&run->job.works), 0);
}

/* new */

START_TEST(new_without_threads_is_refused)
{
    ck_assert_int_eq(cf_lane_new("none", 0, 1, &lane, &err), CF_EINVAL);
    ck_assert_ptr_null(lane);
    ck_assert_str_eq(err.msg, "lane none needs at least one thread");
}
END_TEST

START_TEST(new_out_of_memory)
{
    fault_alloc(1, false);
    ck_assert_int_eq(cf_lane_new("none", 1, 1, &lane, &err), CF_ENOMEM);
    ck_assert(fault_off());
    ck_assert_ptr_null(lane);
}
END_TEST

START_TEST(new_copies_15_bytes_of_the_name)
{
    char name[] = "a-rather-long-name-for-a-thread";
    struct run run = new_run(NULL);

    ck_assert_int_eq(cf_lane_new(name, 1, 1, &lane, &err), CF_OK);
    memset(name, 'x', sizeof(name) - 1);
    call_run(&run);
    check_given_back(&run);
    ck_assert_str_eq(run.job.thread_name, "a-rather-long-n");
}
END_TEST

START_TEST(new_starts_no_thread)
{
    new_lane(4, 4);
    ck_assert_int_eq(threads_named("test-lane"), 0);
}
END_TEST

/* free */

START_TEST(free_of_null_does_nothing)
{
    cf_lane_free(NULL);
}
END_TEST

START_TEST(free_ends_idle_threads)
{
    struct run runs[3];

    new_lane(3, 3);
    for (int i = 0; i < 3; i++) {
        start_working(PLACE_THREAD, &runs[i]);
    }
    ck_assert_int_eq(threads_named("test-lane"), 3);
    cf_ctx_cancel(gate);
    for (int i = 0; i < 3; i++) {
        visit_join(&runs[i].visit);
    }
    cf_lane_free(lane);
    lane = NULL;
    EVENTUALLY(threads_named("test-lane") == 0);
}
END_TEST

START_TEST(free_while_abandoned_work_runs_leaves_it_to_drop)
{
    struct run run;

    new_lane(2, 2);
    start_working(_i, &run);
    cf_ctx_cancel(ctx);
    visit_join(&run.visit);
    cf_lane_free(lane);
    lane = NULL;
    ck_assert_int_eq(atomic_load(&run.job.drops), 0);
    cf_ctx_cancel(gate);
    EVENTUALLY(atomic_load(&run.job.drops) == 1);
    EVENTUALLY(threads_named("test-lane") == 0);
    ck_assert_int_eq(atomic_load(&run.job.drops), 1);
}
END_TEST

START_TEST(free_while_a_job_is_queued_asserts)
{
    struct run working;
    struct run queued = new_run(NULL);

    new_lane(1, 1);
    start_working(PLACE_THREAD, &working);
    start_queued(PLACE_THREAD, &queued);
    cf_lane_free(lane);
}
END_TEST

/* run */

START_TEST(run_works_elsewhere_and_gives_the_argument_back)
{
    struct run run = new_run(NULL);

    new_lane(1, 1);
    place_run(_i, call_run, &run);
    check_given_back(&run);
    ck_assert(!run.job.on_loop);
    ck_assert(run.job.blocks_signals);
    ck_assert_str_eq(run.job.thread_name, "test-lane");
}
END_TEST

START_TEST(run_one_after_the_other_needs_one_thread)
{
    struct run first = new_run(NULL);

    new_lane(8, 8);
    place_run(_i, call_run, &first);
    for (int i = 0; i < 10; i++) {
        struct run run = new_run(NULL);

        place_run(_i, call_run, &run);
        check_given_back(&run);
        ck_assert_int_eq(run.job.tid, first.job.tid);
    }
    ck_assert_int_eq(threads_named("test-lane"), 1);
}
END_TEST

START_TEST(run_uses_all_threads_and_no_more)
{
    struct run runs[6];
    atomic_int running = 0;
    atomic_int most = 0;

    new_lane(3, 3);
    for (int i = 0; i < 6; i++) {
        runs[i] = new_run(gate);
        runs[i].job.running = &running;
        runs[i].job.most = &most;
        visit_start(&runs[i].visit, (_i + i) % PLACES, call_run, &runs[i]);
    }
    EVENTUALLY(atomic_load(&running) == 3); /* Parallel indeed: none ends before the gate opens. */
    for (int i = 0; i < 6; i++) {
        visit_wait_parked(&runs[i].visit);
    }
    ck_assert_int_eq(threads_named("test-lane"), 3);
    cf_ctx_cancel(gate);
    for (int i = 0; i < 6; i++) {
        visit_join(&runs[i].visit);
        check_given_back(&runs[i]);
    }
    ck_assert_int_eq(atomic_load(&most), 3);
}
END_TEST

static void run_two_at_once(void *arg)
{
    struct run *runs = arg;

    for (int i = 0; i < 2; i++) {
        if (cf_loop_spawn(cf_loop_current(), call_run, &runs[i], NULL) != CF_OK) {
            abort();
        }
    }
}

/* A thread that is idle has perhaps been told of an earlier job already: it counts for that one
 * only. Two jobs come in a burst, and the second must not wait until the first has ended. */
START_TEST(run_in_a_burst_does_not_count_on_one_thread_twice)
{
    int rounds = effort_count(200, 20);

    for (int round = 0; round < rounds; round++) {
        struct run first = new_run(NULL);
        struct run runs[2];
        struct visit visit;

        new_lane(2, 2);
        call_run(&first); /* Now there is one thread, and it is idle. */
        ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &runs[0].job.gate, &err), CF_OK);
        runs[0] = new_run(runs[0].job.gate);
        runs[1] = new_run(runs[0].job.gate);
        visit_start(&visit, PLACE_FIBER, run_two_at_once, runs);
        EVENTUALLY(atomic_load(&runs[0].job.works) == 1);
        EVENTUALLY(atomic_load(&runs[1].job.works) == 1);
        cf_ctx_cancel(runs[0].job.gate);
        visit_join(&visit);
        check_given_back(&runs[0]);
        check_given_back(&runs[1]);
        cf_ctx_free(runs[0].job.gate);
        cf_lane_free(lane);
        lane = NULL;
    }
}
END_TEST

START_TEST(run_takes_the_queue_in_order)
{
    struct run working;
    struct run runs[4];
    atomic_int next = 0;

    new_lane(1, 4);
    start_working(_i, &working);
    for (int i = 0; i < 4; i++) {
        runs[i] = new_run(NULL);
        runs[i].job.next = &next;
        start_queued(_i, &runs[i]);
    }
    cf_ctx_cancel(gate);
    for (int i = 0; i < 4; i++) {
        visit_join(&runs[i].visit);
        check_given_back(&runs[i]);
        ck_assert_int_eq(runs[i].job.worked_as, i);
    }
    visit_join(&working.visit);
}
END_TEST

START_TEST(run_already_canceled)
{
    struct run run = new_run(NULL);

    new_lane(1, 1);
    cf_ctx_cancel(ctx);
    place_run(_i, call_run, &run);
    check_never_worked(&run, CF_ECANCELED);
    ck_assert_int_eq(threads_named("test-lane"), 0);
}
END_TEST

START_TEST(run_already_late)
{
    struct run run = new_run(NULL);

    new_lane(1, 1);
    ck_assert_int_eq(cf_ctx_with_deadline(ctx, cf_now_ns() - 1, &run.ctx, &err), CF_OK);
    place_run(_i, call_run, &run);
    check_never_worked(&run, CF_EDEADLINE);
    cf_ctx_free(run.ctx);
}
END_TEST

START_TEST(run_canceled_while_queued)
{
    struct run working;
    struct run queued = new_run(NULL);
    struct run next = new_run(NULL);

    new_lane(1, 1);
    start_working(_i, &working);
    ck_assert_int_eq(cf_ctx_with_cancel(ctx, &queued.ctx, &err), CF_OK);
    start_queued(_i, &queued);
    cf_ctx_cancel(queued.ctx);
    visit_join(&queued.visit);
    check_never_worked(&queued, CF_ECANCELED);

    /* Its place in the queue is free again. */
    start_queued(_i, &next);
    cf_ctx_cancel(gate);
    visit_join(&next.visit);
    check_given_back(&next);
    visit_join(&working.visit);
    check_given_back(&working);
    ck_assert_int_eq(atomic_load(&queued.job.works), 0);
    cf_ctx_free(queued.ctx);
}
END_TEST

START_TEST(run_canceled_while_working)
{
    struct run run;

    new_lane(1, 1);
    start_working(_i, &run);
    visit_wait_parked(&run.visit);
    cf_ctx_cancel(ctx);
    visit_join(&run.visit); /* Although the work goes on. */
    ck_assert_int_eq(run.code, CF_ECANCELED);
    ck_assert_int_eq(run.err.code, CF_ECANCELED);
    ck_assert_int_eq(run.drops_at_return, 0);
    ck_assert(!atomic_load(&run.job.done));
    cf_ctx_cancel(gate);
    EVENTUALLY(atomic_load(&run.job.drops) == 1);
    ck_assert(atomic_load(&run.job.done));
}
END_TEST

static void run_until_deadline(int place, struct run *run)
{
    int64_t deadline_ns = cf_now_ns() + 200 * CF_MS; /* The work has begun by then, mostly. */

    *run = new_run(gate);
    ck_assert_int_eq(cf_ctx_with_deadline(ctx, deadline_ns, &run->ctx, &err), CF_OK);
    place_run(place, call_run, run);
    cf_ctx_free(run->ctx);
    ck_assert_int_eq(run->code, CF_EDEADLINE);
    ck_assert_int_ge(run->returned_ns, deadline_ns);
    ck_assert_int_lt(run->returned_ns, deadline_ns + 15 * CF_SECOND);
}

START_TEST(run_deadline_while_working)
{
    struct run run;
    int tries = 1;

    new_lane(1, 1);
    for (run_until_deadline(_i, &run); run.drops_at_return > 0; run_until_deadline(_i, &run)) {
        check_never_worked(&run, CF_EDEADLINE);
        ck_assert_int_lt(tries++, 5);
    }
    cf_ctx_cancel(gate);
    EVENTUALLY(atomic_load(&run.job.drops) == 1);
}
END_TEST

START_TEST(run_deadline_while_queued)
{
    struct run working;
    struct run queued = new_run(NULL);
    int64_t deadline_ns;

    new_lane(1, 1);
    start_working(_i, &working);
    deadline_ns = cf_now_ns() + 10 * CF_MS;
    ck_assert_int_eq(cf_ctx_with_deadline(ctx, deadline_ns, &queued.ctx, &err), CF_OK);
    place_run(_i, call_run, &queued);
    check_never_worked(&queued, CF_EDEADLINE);
    ck_assert_int_ge(queued.returned_ns, deadline_ns);
    cf_ctx_cancel(gate);
    visit_join(&working.visit);
    cf_ctx_free(queued.ctx);
}
END_TEST

START_TEST(run_out_of_memory)
{
    struct run run = new_run(NULL);

    new_lane(1, 1);
    run.fail_nth = 1;
    place_run(_i, call_run, &run);
    ck_assert(run.struck);
    check_never_worked(&run, CF_ENOMEM);
}
END_TEST

START_TEST(run_limit_reached)
{
    struct run working;
    struct run queued[2] = {new_run(NULL), new_run(NULL)};
    struct run refused = new_run(NULL);
    struct run later = new_run(NULL);

    new_lane(1, 2);
    start_working(_i, &working);
    start_queued(_i, &queued[0]);
    start_queued(_i, &queued[1]);
    place_run(_i, call_run, &refused);
    check_never_worked(&refused, CF_ELIMIT);
    ck_assert_str_eq(refused.err.msg, "the queue of lane test-lane is full (2 jobs)");
    cf_ctx_cancel(gate);
    visit_join(&working.visit);
    visit_join(&queued[0].visit);
    visit_join(&queued[1].visit);
    check_given_back(&queued[0]);
    check_given_back(&queued[1]);
    place_run(_i, call_run, &later);
    check_given_back(&later);
    ck_assert_int_eq(atomic_load(&refused.job.works), 0);
}
END_TEST

/* Then a job is taken only by a thread that is idle, or may be started. */
START_TEST(run_without_a_queue)
{
    struct run working[2];
    struct run refused = new_run(NULL);

    new_lane(2, 0);
    start_working(_i, &working[0]);
    start_working(_i, &working[1]);
    place_run(_i, call_run, &refused);
    check_never_worked(&refused, CF_ELIMIT);
    cf_ctx_cancel(gate);
    for (int i = 0; i < 2; i++) {
        struct run later = new_run(NULL);

        visit_join(&working[i].visit);
        place_run(_i, call_run, &later);
        check_given_back(&later);
    }
}
END_TEST

static void limit_address_space(struct rlimit *before)
{
    FILE *statm = fopen("/proc/self/statm", "re");
    unsigned long pages = 0;
    struct rlimit tight;

    ck_assert_ptr_nonnull(statm);
    ck_assert_int_eq(fscanf(statm, "%lu", &pages), 1);
    (void)fclose(statm);
    ck_assert_int_eq(getrlimit(RLIMIT_AS, before), 0);
    tight = (struct rlimit){.rlim_cur = pages * (rlim_t)sysconf(_SC_PAGESIZE) + 1024 * 1024,
                            .rlim_max = before->rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &tight), 0);
}

/* The stack of a thread cannot be mapped: the first thread is missed, a second one is not. */
START_TEST(run_without_threads_is_unavailable)
{
    struct run refused = new_run(NULL);
    struct run later = new_run(NULL);
    struct rlimit before;

    if (effort_is_watched()) {
        return; /* These tools need more address space than any limit would leave. */
    }
    new_lane(2, 1);
    limit_address_space(&before);
    call_run(&refused);
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &before), 0);
    check_never_worked(&refused, CF_EUNAVAIL);
    call_run(&later);
    check_given_back(&later);
}
END_TEST

/* Races */

struct storm {
    atomic_bool stop;
    atomic_long given_back;
    atomic_long dropped;
    atomic_long refused;
    atomic_long works;
    atomic_int running;
    atomic_int most;
    int64_t until_ns;
};

/* On the heap, so that a second drop, or a use after it, is seen by ASan too. */
struct gust {
    struct storm *storm;
    unsigned spins;
    struct job job;
};

static void gust_work(void *arg)
{
    struct gust *gust = arg;

    work(&gust->job);
    for (volatile unsigned i = 0; i < gust->spins; i++) {
    }
    (void)atomic_fetch_add(&gust->storm->works, 1);
}

static void gust_drop(void *arg)
{
    struct gust *gust = arg;

    EXPECT(atomic_load(&gust->job.drops) == 0);
    EXPECT(atomic_load(&gust->job.works) <= 1);
    (void)atomic_fetch_add(&gust->job.drops, 1);
    (void)atomic_fetch_add(&gust->storm->dropped, 1);
    free(gust);
}

/* Work that takes about as long as its context lives: a call ends in every state of its job. */
static void blow(void *arg)
{
    struct storm *storm = arg;
    unsigned seed = (unsigned)cf_now_ns();

    while (EFFORT_GOES_ON(storm->until_ns, atomic_load(&storm->given_back) > 0 &&
                                               atomic_load(&storm->refused) > 0)) {
        struct gust *gust = calloc(1, sizeof(*gust));
        struct cf_ctx *brief;
        enum cf_code code;

        if (gust == NULL || cf_ctx_with_timeout(cf_ctx_background(), rand_r(&seed) % (150 * CF_US),
                                                &brief, NULL) != CF_OK) {
            abort();
        }
        gust->storm = storm;
        gust->spins = (unsigned)rand_r(&seed) % 100000;
        gust->job.running = &storm->running;
        gust->job.most = &storm->most;
        code = cf_lane_run(brief, lane, gust_work, gust_drop, gust, NULL);
        if (code == CF_OK) {
            EXPECT(atomic_load(&gust->job.works) == 1);
            EXPECT(atomic_load(&gust->job.drops) == 0);
            (void)atomic_fetch_add(&storm->given_back, 1);
            free(gust);
        } else {
            EXPECT(code == CF_EDEADLINE || code == CF_ELIMIT);
            (void)atomic_fetch_add(&storm->refused, 1);
        }
        cf_ctx_free(brief);
    }
}

/* Several fibers on one loop. */
static void blow_on_fibers(void *arg)
{
    for (int i = 0; i < 3; i++) {
        if (cf_loop_spawn(cf_loop_current(), blow, arg, NULL) != CF_OK) {
            abort();
        }
    }
}

START_TEST(run_success_races_cancel)
{
    struct storm storm = {.until_ns = effort_brief_stress_until_ns()};
    struct visit visits[4];

    new_lane(3, 2);
    for (int i = 0; i < 4; i++) {
        visit_start(&visits[i], i % PLACES, i % PLACES == PLACE_FIBER ? blow_on_fibers : blow,
                    &storm);
    }
    for (int i = 0; i < 4; i++) {
        visit_join(&visits[i]);
    }
    EVENTUALLY(atomic_load(&storm.dropped) == atomic_load(&storm.refused));
    EVENTUALLY(atomic_load(&storm.running) == 0);
    cf_lane_free(lane);
    lane = NULL;
    EVENTUALLY(threads_named("test-lane") == 0);
    ck_assert_int_eq(atomic_load(&storm.dropped), atomic_load(&storm.refused));
    ck_assert_int_gt(atomic_load(&storm.given_back), 0);
    ck_assert_int_gt(atomic_load(&storm.refused), 0);
    ck_assert_int_le(atomic_load(&storm.most), 3);
}
END_TEST

/* The loop meanwhile */

static void open_gate(void *arg)
{
    (void)arg;
    cf_ctx_cancel(gate);
}

static void run_and_open(void *arg)
{
    if (cf_loop_spawn(cf_loop_current(), open_gate, NULL, NULL) != CF_OK) {
        abort();
    }
    call_run(arg);
}

/* The gate is opened by another fiber of the loop, while this one waits for the work. */
START_TEST(run_does_not_hold_the_loop)
{
    struct run run = new_run(gate);

    new_lane(1, 1);
    place_run(PLACE_FIBER, run_and_open, &run);
    check_given_back(&run);
}
END_TEST

Suite *suite_lane(void)
{
    Suite *suite = suite_create("lane");
    TCase *tc = tcase_create("new");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, new_without_threads_is_refused);
    tcase_add_test(tc, new_out_of_memory);
    tcase_add_test(tc, new_copies_15_bytes_of_the_name);
    tcase_add_test(tc, new_starts_no_thread);
    suite_add_tcase(suite, tc);

    tc = tcase_create("free");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, free_of_null_does_nothing);
    tcase_add_test(tc, free_ends_idle_threads);
    tcase_add_loop_test(tc, free_while_abandoned_work_runs_leaves_it_to_drop, 0, PLACES);
    suite_add_tcase(suite, tc);

    tc = tcase_create("run");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, run_works_elsewhere_and_gives_the_argument_back, 0, PLACES);
    tcase_add_loop_test(tc, run_one_after_the_other_needs_one_thread, 0, PLACES);
    tcase_add_loop_test(tc, run_uses_all_threads_and_no_more, 0, PLACES);
    tcase_add_test(tc, run_in_a_burst_does_not_count_on_one_thread_twice);
    tcase_add_loop_test(tc, run_takes_the_queue_in_order, 0, PLACES);
    tcase_add_loop_test(tc, run_already_canceled, 0, PLACES);
    tcase_add_loop_test(tc, run_already_late, 0, PLACES);
    tcase_add_loop_test(tc, run_canceled_while_queued, 0, PLACES);
    tcase_add_loop_test(tc, run_canceled_while_working, 0, PLACES);
    tcase_add_loop_test(tc, run_deadline_while_working, 0, PLACES);
    tcase_add_loop_test(tc, run_deadline_while_queued, 0, PLACES);
    tcase_add_loop_test(tc, run_out_of_memory, 0, PLACES);
    tcase_add_loop_test(tc, run_limit_reached, 0, PLACES);
    tcase_add_loop_test(tc, run_without_a_queue, 0, PLACES);
    tcase_add_test(tc, run_does_not_hold_the_loop);
    suite_add_tcase(suite, tc);

    tc = tcase_create("run"); /* Of its own kernel: see tests/README.md. */
    tcase_set_tags(tc, "kernel");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, run_without_threads_is_unavailable);
    suite_add_tcase(suite, tc);

    tc = tcase_create("race");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, EFFORT_STRESS_SECONDS_MAX);
    tcase_add_test(tc, run_success_races_cancel);
    suite_add_tcase(suite, tc);

    tc = tcase_create("asserts");
    tcase_set_tags(tc, "fork");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test_raise_signal(tc, free_while_a_job_is_queued_asserts, SIGABRT);
    suite_add_tcase(suite, tc);
    return suite;
}
