/* SPDX-License-Identifier: MIT */
/* An allocation of another process fails.
 *
 * Memory that the test shares with the process under test, and a library that is loaded into that
 * (LD_PRELOAD, tests/alloc/preload/nth.c). There malloc and its kin, anonymous mappings and the
 * making of threads are counted, whoever calls: our code, libmicrohttpd, libpq, libuv, the C
 * library. While it is armed one of them fails, or that and all that follow, on whichever thread it
 * is: the n-th, or the first that is made where none has failed yet in this sweep, with other
 * callers, or callers of callers.
 *
 *     nth_arm(nth, sweep, 17, NTH_ONCE);
 *     ... have the process do something ...
 *     if (!nth_off(nth)) { ... there were fewer than 17 ... }
 *
 * Thread safety: the fields are atomic, and the two sides are two processes. Several tests with a
 * process each can share a sweep: no place fails twice. */
#ifndef NTH_H
#define NTH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Names the descriptor of the shared memory, and the part of it that is its own, to the process
 * under test: "descriptor,part". */
#define NTH_ENV "NTH"

#define NTH_PARTS 16
#define NTH_SWEEPS 4

/* How many places a sweep has room for: a start has 400. A power of two. */
#define NTH_PLACES 32768

/* So many callers make a place, the library itself among them. */
#define NTH_DEPTH 4

/* Instead of an n: where none has failed yet. */
#define NTH_NEW 0

enum nth_mode {
    NTH_OFF,
    NTH_ONCE,     /* Only this one fails. */
    NTH_FROM_NOW, /* All fail from this one on, until it is off. */
};

/* What the tests that share it have done so far. */
struct nth_sweep {
    atomic_long next;   /* The last n that somebody took. */
    atomic_long failed; /* Runs in which something failed. */
    _Atomic uint64_t places[NTH_PLACES];
};

struct nth {
    atomic_int mode;
    atomic_int sweep;
    atomic_long n;      /* Or NTH_NEW. */
    atomic_long seen;   /* Allocations since it was armed. */
    atomic_long struck; /* How many were made to fail. */
    atomic_long live;   /* Blocks that were allocated and not freed. */
    atomic_int loaded;  /* The library is in place. */
    long first;         /* Which failed first, of those seen; */
    char where[256];    /* and what it was, in which module: for people. */
};

struct nth_memory {
    atomic_bool failed; /* One of the tests that share it. */
    struct nth_sweep sweeps[NTH_SWEEPS];
    struct nth parts[NTH_PARTS];
};

/* Life cycle: of the test's side */

/* How many settings the process under test needs. */
#define NTH_SETTINGS 2

/* Make the shared memory, in a descriptor that children inherit; the sweeps are new. Lives as long
 * as the test. */
struct nth_memory *nth_new(void);

/* The settings of a process under test, "NAME=value". They live as long as the test, in which there
 * are no others. */
struct nth *nth_part(struct nth_memory *memory, int part, const char *out_env[NTH_SETTINGS]);

/* Operations */

void nth_arm(struct nth *nth, int sweep, long n, enum nth_mode mode);

/* Let all succeed again. Whether one was made to fail. */
bool nth_off(struct nth *nth);

/* Queries */

/* The descriptor of the shared memory, for nth_attach() of the library. */
int nth_fd(void);

/* What failed, for a message. Valid until the next call. */
const char *nth_say(const struct nth *nth);

#endif
