/* SPDX-License-Identifier: MIT */
/* Sweeps and their workers: see sweep.h. */
#include "sweep.h"

#include <check.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "curfewd/reserve.h"

/* How often in a row nothing may have failed before there is nothing left to fail. What the process
 * does besides, its housekeeping, makes the number of allocations vary. */
#define CLEAN_RUNS 3

/* A run is waiting for the most part, and where it is not, so many are enough for two cores. */
#define WORKERS 6

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
