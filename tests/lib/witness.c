/* SPDX-License-Identifier: MIT */
/* See witness.h. */
#include "witness.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <curfew/clock.h>

/* Shorter ones would cost a test too much of a processor: 1 ms takes 3 %, this takes 1 %. */
#define SLEEP_NS (5 * CF_MS)

/* What a busy machine may add to a sleep. One that is later still has met a stall. */
#define LATE_NS (20 * CF_MS)

static struct {
    pthread_mutex_t mu;
    int64_t asleep_ns;  /* Since when, or 0: there is no witness. Guarded by mu. */
    int64_t stalled_ns; /* In the sleeps before. Guarded by mu. */
    pthread_t thread;
    atomic_bool leaves;
} witness = {.mu = PTHREAD_MUTEX_INITIALIZER};

/* Whose children are tests, or 0. Constant after witness_use(). */
static pid_t runner_pid;

/* What the sleep of now has met of a stall until `now_ns`: rather a little more than was, as nobody
 * knows when in the sleep it began. */
static int64_t stall_ns(int64_t now_ns)
{
    int64_t slept_ns = now_ns - witness.asleep_ns;

    return slept_ns > SLEEP_NS + LATE_NS ? slept_ns : 0;
}

static void *watch(void *arg)
{
    const struct timespec pause = {.tv_nsec = SLEEP_NS};

    while (!atomic_load(&witness.leaves)) {
        int64_t now_ns;

        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL); /* No signal comes here. */
        (void)pthread_mutex_lock(&witness.mu);
        now_ns = cf_now_ns();
        witness.stalled_ns += stall_ns(now_ns);
        witness.asleep_ns = now_ns;
        (void)pthread_mutex_unlock(&witness.mu);
    }
    return arg;
}

static void start(void)
{
    sigset_t all;
    sigset_t before;

    witness.asleep_ns = cf_now_ns();
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&witness.thread, NULL, watch, NULL) != 0) {
        abort();
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* In the child of a fork: a test's, or what a test has started, which may be about to exec. The
 * lock is made again, as the witness may just have held it. */
static void begin_anew(void)
{
    (void)pthread_mutex_init(&witness.mu, NULL);
    witness.asleep_ns = 0;
    witness.stalled_ns = 0;
    if (getppid() == runner_pid) {
        start();
    }
}

void witness_use(SRunner *runner)
{
    if (pthread_atfork(NULL, NULL, begin_anew) != 0) {
        abort();
    }
    if (srunner_fork_status(runner) == CK_NOFORK) {
        start();
    } else {
        runner_pid = getpid();
    }
}

void witness_leave(void)
{
    if (witness.asleep_ns != 0) {
        atomic_store(&witness.leaves, true);
        (void)pthread_join(witness.thread, NULL);
        witness.asleep_ns = 0;
        atomic_store(&witness.leaves, false);
    }
}

/* With what the sleep of now has met so far: behind a stall the test may be run first. */
int64_t witness_stalled_ns(void)
{
    int64_t stalled_ns;

    (void)pthread_mutex_lock(&witness.mu);
    stalled_ns = witness.stalled_ns + (witness.asleep_ns != 0 ? stall_ns(cf_now_ns()) : 0);
    (void)pthread_mutex_unlock(&witness.mu);
    return stalled_ns;
}
