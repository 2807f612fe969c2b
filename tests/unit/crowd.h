/* SPDX-License-Identifier: MIT */
/* A crowd for stress tests: one function on several threads and on the fibers of several loops, all
 * at once, so that waits of every kind meet.
 *
 *     crowd_run(use_sem, &sem);
 *
 * Each member has its own seed, and EXPECT()s what should hold; the test's thread asserts after. */
#ifndef CROWD_H
#define CROWD_H

#include "places.h"

#define CROWD_THREADS 3
#define CROWD_LOOPS 2
#define CROWD_FIBERS 6 /* Of each loop. */
#define CROWD_SIZE (CROWD_THREADS + CROWD_LOOPS * CROWD_FIBERS)

typedef void (*crowd_fn)(void *arg, unsigned *seed);

/* Run `fn(arg, seed)` as every member, and wait until all have returned. */
void crowd_run(crowd_fn fn, void *arg);

#endif
