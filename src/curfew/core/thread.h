/* SPDX-License-Identifier: MIT */
/* Threads of the library's own: signals are for the program's threads, so these take none. */
#ifndef CURFEW_CORE_THREAD_H
#define CURFEW_CORE_THREAD_H

#include <pthread.h>
#include <signal.h>

/* Everything but the faults of the thread itself, which the kernel would answer by killing the
 * process without a word if they were blocked. */
void cf__thread_signals(sigset_t *out);

/* Start `run(arg)` on a thread called `name` (15 bytes are shown). `out` NULL: it is detached.
 * Returns 0 or an errno. */
int cf__thread_start(const char *name, void *(*run)(void *arg), void *arg, pthread_t *out);

#endif
