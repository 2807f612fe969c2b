/* SPDX-License-Identifier: MIT */
/* How long the machine stood still while a test ran.
 *
 * A machine that others use as well stops now and then, for seconds, and what a test measures then
 * says nothing of the code. A thread of the test's process does nothing but sleep, for a few
 * milliseconds at a time, and sees a stall by a sleep that is longer. bound() adds what was seen.
 *
 * It counts what the machine took, and not what the code under test takes: a thread that sleeps
 * nearly always is run at once when it wakes, though all processors be busy. (With dozens of busy
 * threads for each processor that would no longer hold; no test has so many.)
 *
 * Thread safety: witness_stalled_ns() is for any thread, the others are for the test's. */
#ifndef WITNESS_H
#define WITNESS_H

#include <check.h>
#include <stdint.h>

/* From now on each test has a witness: in the process of its own, from the fork on; with CK_FORK=no
 * there is one for all. What a test forks itself has none. */
void witness_use(SRunner *runner);

/* Send this process's away, for what only a process of one thread may do. It sees no more then. */
void witness_leave(void);

/* How long all stalls took, since the test began; 0 without a witness. */
int64_t witness_stalled_ns(void);

#endif
