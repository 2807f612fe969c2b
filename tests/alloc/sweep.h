/* SPDX-License-Identifier: MIT */
/* A sweep: something is done again and again, and each time another allocation fails, until there
 * is none left that has not.
 *
 * In the short form each place fails once, which is an allocation with all its callers; with
 * CF_TEST_LONG each n does, however alike they are. CF_TEST_N=17, or 17-40, is for who has to see
 * some n again. Several workers, each a process with all that it needs of its own, share a sweep,
 * because most of a run is waiting.
 *
 *     static void work(struct worker *worker, void *arg)
 *     {
 *         ... start something that worker->env is for ...
 *         sweep_run(worker, 0, NTH_ONCE, use_it, arg);
 *     }
 *     ...
 *     sweep_share(work, arg);
 *     sweep_print(0, "use", "once");
 *
 * Thread safety: the test's thread, and that of each worker. */
#ifndef SWEEP_H
#define SWEEP_H

#include <stddef.h>

#include "nth.h"

struct worker {
    int number;   /* From 0; of the test itself, which does not sweep: SWEEP_TEST. */
    bool every_n; /* In the short form too: runs cost nothing. */
    struct nth *nth;
    const char *env[NTH_SETTINGS]; /* Of the process under test. */
};

#define SWEEP_TEST (NTH_PARTS - 1)

/* Of a test that shares sweeps, in seconds: for its long form. */
#define SWEEP_TIMEOUT 1800

typedef void (*worker_fn)(struct worker *worker, void *arg);

/* What is done in a sweep: `worker->nth` is armed, and it calls nth_off() in time. */
typedef void (*sweep_fn)(struct worker *worker, void *arg);

/* Life cycle: on the test's side, first of all */

/* Make what the workers share, with no sweep begun. */
void sweep_init(struct worker *out_test);

/* Operations */

/* Run `fn` in every worker and wait for them all. Fails if one of them does. */
void sweep_share(worker_fn fn, void *arg);

/* In a worker: have its own process be the one under test, with so many loops and descriptors. */
void sweep_attach(const struct worker *worker, size_t n_loops, size_t n_descriptors);

/* In a worker that is attached: as many blocks as there are when no more than so many threads are
 * left, and all others sleep: one that has ended may be on its way out still, and that for timers
 * frees what it has woken. What is made once must have been made. */
long sweep_blocks_at_rest(const struct worker *worker, int threads_max);

/* In a worker that is attached: wait until so many blocks are left. Fails if that does not come. */
void sweep_wait_freed(const struct worker *worker, long blocks);

/* In a worker: do it until nothing is left, or another worker has failed. `sweep` is a number below
 * NTH_SWEEPS; that nothing failed in it at all is a failure. */
void sweep_run(struct worker *worker, int sweep, enum nth_mode mode, sweep_fn fn, void *arg);

/* Of the test: with CF_TEST_PRINT, say in how many runs of a sweep something failed. */
void sweep_print(int sweep, const char *what, const char *how);

#endif
