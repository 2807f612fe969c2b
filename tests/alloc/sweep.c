/* SPDX-License-Identifier: MIT */
/* Sweeps and their workers: see sweep.h. */
#include "sweep.h"

#include <check.h>
#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "curfewd/reserve.h"
#include "places.h"

/* How often in a row nothing may have failed before there is nothing left to fail. What the process
 * does besides, its housekeeping, makes the number of allocations vary. */
#define CLEAN_RUNS 3

/* A run is waiting for the most part, and where it is not, so many are enough for two cores. */
#define WORKERS 6

/* Of a process under test that is a worker. */
#define THREADS_MAX 24
#define STACK_SIZE ((size_t)256 * 1024)

/* A block that is not free by then is lost. */
#define LOST_NS (20 * CF_SECOND)

static struct nth_memory *shared;

/* Internal helpers */

static void make_worker(struct worker *out, int number)
{
    *out = (struct worker){.number = number};
    out->nth = nth_part(shared, number, out->env);
}

/* libcheck knows a child that check_fork() has made: what fails there, fails the test. */
static void start_worker(int number, worker_fn fn, void *arg)
{
    pid_t test = getpid();
    pid_t pid = check_fork();

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        struct worker worker;

        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != test) {
            _exit(1);
        }
        make_worker(&worker, number);
        fn(&worker, arg);
        _exit(0);
    }
}

static void *meet(void *barrier)
{
    (void)pthread_barrier_wait(barrier);
    return NULL;
}

/* The C library keeps the stacks of threads that have ended, and what belongs to them: have it keep
 * as many as there will ever be threads at once. It keeps 40 MiB at most. */
static void make_stacks(void)
{
    pthread_t threads[THREADS_MAX];
    pthread_barrier_t barrier;
    pthread_attr_t attr;

    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, STACK_SIZE);
    ck_assert_int_eq(pthread_setattr_default_np(&attr), 0);
    (void)pthread_barrier_init(&barrier, NULL, THREADS_MAX);
    for (int i = 0; i < THREADS_MAX; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, meet, &barrier), 0);
    }
    for (int i = 0; i < THREADS_MAX; i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    }
}

/* How many threads this process has. Of those but the caller, each that runs is waited for until it
 * sleeps. */
static int count_asleep(void)
{
    DIR *tasks = opendir("/proc/self/task");
    const struct dirent *entry;
    int n = 0;

    ck_assert_ptr_nonnull(tasks);
    while ((entry = readdir(tasks)) != NULL) {
        int tid = atoi(entry->d_name); /* 0 of those with dots. */

        n += tid != 0 && (tid == (int)syscall(SYS_gettid) || place_wait_asleep(tid));
    }
    (void)closedir(tasks);
    return n;
}

/* The n of the next run; -1: there is none. */
static long next_n(const struct worker *worker, struct nth_sweep *sweep)
{
    const char *only = getenv("CF_TEST_N");
    char *end;
    long n;

    if (only == NULL) {
        return worker->every_n || getenv("CF_TEST_LONG") != NULL
                   ? atomic_fetch_add(&sweep->next, 1) + 1
                   : NTH_NEW;
    }
    n = strtol(only, &end, 10) + atomic_fetch_add(&sweep->next, 1);
    return n <= strtol(*end == '-' ? end + 1 : only, NULL, 10) ? n : -1;
}

/* Life cycle */

void sweep_init(struct worker *out_test)
{
    shared = nth_new();
    make_worker(out_test, SWEEP_TEST);
}

/* Operations */

void sweep_share(worker_fn fn, void *arg)
{
    for (int i = 0; i < WORKERS; i++) {
        start_worker(i, fn, arg);
    }
    for (int i = 0; i < WORKERS; i++) {
        int status = -1;

        if (wait(&status) < 0 || status != 0) {
            atomic_store(&shared->failed, true); /* The others end their sweep in order. */
        }
    }
    /* What the worker said is there already, and is the first to count. */
    ck_assert_msg(!atomic_load(&shared->failed), "a worker has failed");
}

void sweep_attach(const struct worker *worker, size_t n_loops, size_t n_descriptors)
{
    void (*nth_attach)(int fd, int part);
    struct cf_err err;

    *(void **)&nth_attach = dlsym(RTLD_DEFAULT, "nth_attach");
    ck_assert_msg(nth_attach != NULL, "the library must be loaded: run `make test-alloc`");
    nth_attach(nth_fd(), worker->number);
    ck_assert_int_eq(reserve_for_libuv(n_loops, n_descriptors, &err), CF_OK);
    make_stacks();
}

long sweep_blocks_at_rest(const struct worker *worker, int threads_max)
{
    EVENTUALLY(count_asleep() <= threads_max);
    return atomic_load(&worker->nth->live);
}

void sweep_wait_freed(const struct worker *worker, long blocks)
{
    int64_t until_ns = cf_now_ns() + LOST_NS;

    while (atomic_load(&worker->nth->live) != blocks) {
        ck_assert_msg(cf_now_ns() < until_ns, "%s: %ld blocks are left, and were %ld",
                      nth_say(worker->nth), atomic_load(&worker->nth->live), blocks);
        (void)usleep(100);
    }
}

void sweep_run(struct worker *worker, int sweep, enum nth_mode mode, sweep_fn fn, void *arg)
{
    struct nth_sweep *of = &shared->sweeps[sweep];
    int clean = 0;

    while (clean < CLEAN_RUNS && !atomic_load(&shared->failed)) {
        long n = next_n(worker, of);

        if (n < 0) {
            return;
        }
        nth_arm(worker->nth, sweep, n, mode);
        fn(worker, arg);
        clean = nth_off(worker->nth) ? 0 : clean + 1;
        (void)atomic_fetch_add(&of->failed, clean == 0);
    }
    ck_assert(atomic_load(&of->failed) > 0 || atomic_load(&shared->failed));
}

void sweep_print(int sweep, const char *what, const char *how)
{
    if (getenv("CF_TEST_PRINT") != NULL) {
        (void)fprintf(stderr, "%6ld  %s, %s\n", atomic_load(&shared->sweeps[sweep].failed), what,
                      how);
    }
}
