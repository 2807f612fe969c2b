/* SPDX-License-Identifier: MIT */
/* The n-th allocation of another process fails.
 *
 * Memory that the test shares with the process under test, and a library that is loaded into that
 * (LD_PRELOAD, tests/alloc/preload/nth.c). There malloc and its kin, anonymous mappings and the
 * making of threads are counted, whoever calls: our code, libmicrohttpd, libpq, libuv, the C
 * library. While it is armed, the n-th of them fails, or that and all that follow, on whichever
 * thread it is.
 *
 *     nth_arm(nth, 17, NTH_ONCE);
 *     ... have the process do something ...
 *     if (!nth_off(nth)) { ... there were fewer than 17 ... }
 *
 * Thread safety: the fields are atomic, and the two sides are two processes. */
#ifndef NTH_H
#define NTH_H

#include <stdatomic.h>
#include <stdbool.h>

/* Names the descriptor of the shared memory to the process under test. */
#define NTH_ENV "NTH_FD"

enum nth_mode {
    NTH_OFF,
    NTH_ONCE,     /* Only the n-th fails. */
    NTH_FROM_NOW, /* All fail from the n-th on, until it is off. */
};

struct nth {
    atomic_int mode;
    atomic_long left;   /* Until the first that fails, which takes it from 1 to 0. */
    atomic_long struck; /* How many were made to fail. */
    atomic_long live;   /* Blocks that were allocated and not freed. */
    atomic_int loaded;  /* The library is in place. */
    char where[256];    /* What failed first, and in which module: for people. */
};

/* Life cycle: of the test's side */

/* How many settings the process under test needs. */
#define NTH_SETTINGS 2

/* Make the shared memory, in a descriptor that a child inherits, and the settings for that child,
 * "NAME=value". All live as long as the test. */
struct nth *nth_new(const char *out_env[NTH_SETTINGS]);

/* Operations */

void nth_arm(struct nth *nth, long n, enum nth_mode mode);

/* Let all succeed again. Whether one was made to fail. */
bool nth_off(struct nth *nth);

/* From the allocation that failed to the next that is to fail: 1. Proving a password makes 2,300
 * allocations in libcrypto, and its start another 100, one like the other: of those one in so many
 * fails, and all with CF_TEST_LONG. `is_alike`: so is this one, though not libcrypto's. */
#define NTH_STEP 37
long nth_step(const struct nth *nth, bool is_alike);

#endif
