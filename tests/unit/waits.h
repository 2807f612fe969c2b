/* SPDX-License-Identifier: MIT */
/* What the tests of cf_sleep(), cf_yield(), cf_wait_done() and cf_wait_fd() share: a call as a
 * value, the matrix of situations that each of them is put into,
 * and races against other threads. */
#ifndef WAITS_H
#define WAITS_H

#include "places.h"

/* What a machine with other things to do may be late by: it stands still for ten seconds, at times.
 * What misses its end altogether waits for ever, or for more than this. */
#define LATE_NS (15 * CF_SECOND)

/* Fixture */

extern struct cf_ctx *ctx;    /* Of the calls. */
extern struct cf_ctx *target; /* What wait_done waits for. */
extern int ends[2];           /* A pair of connected sockets. */
extern struct cf_err failure;

void setup_waits(void);
void teardown_waits(void);

/* Calls */

/* One call: what it is given, and what came of it. */
struct call {
    struct cf_ctx *ctx;
    int64_t timeout_ns; /* More than 0: call with a child of ctx that is made where the call is. */
    int64_t period_ns;
    struct cf_ctx *target;
    int fd;
    int events;
    unsigned fail_nth; /* The allocation that is to fail; 0: none. */

    enum cf_code code;
    struct cf_err err;
    int out_events;
    bool struck; /* An allocation did fail. */
    int64_t began_ns;
    int64_t ended_ns;
    atomic_int rounds;
};

typedef enum cf_code (*call_fn)(struct cf_ctx *of, struct call *call);

enum cf_code do_sleep(struct cf_ctx *of, struct call *call);
enum cf_code do_sleep_until(struct cf_ctx *of, struct call *call);
enum cf_code do_yield(struct cf_ctx *of, struct call *call);
enum cf_code do_yields(struct cf_ctx *of, struct call *call); /* Until it fails. */
enum cf_code do_wait_done(struct cf_ctx *of, struct call *call);
enum cf_code do_wait_fd(struct cf_ctx *of, struct call *call);

void make_call(call_fn fn, struct call *call);

/* make_call() of a struct call, for a place. */
void call_sleep(void *arg);
void call_sleep_until(void *arg);
void call_yields(void *arg);
void call_wait_done(void *arg);
void call_wait_fd(void *arg);

/* A call that would wait for ever, whichever it is. */
struct call endless(void);

/* The matrix */

void check_already_canceled(int place, place_fn fn);
void check_already_late(int place, place_fn fn);
void check_canceled_while_waiting(int place, place_fn fn);

/* `i` below 2 * PLACES: the deadline of a context made at the place (its loop's timer), and of one
 * made elsewhere. */
void check_deadline_while_waiting(int i, place_fn fn);

/* Fail each allocation of the call in turn, then none. Returns how many there were. */
int check_out_of_memory(int place, place_fn fn, struct call *call);

/* Races */

/* Another thread that does something in each round, at about the same time as the test's place. */
struct rival {
    pthread_t thread;
    void (*act)(struct rival *rival);
    struct cf_ctx *_Atomic ctx; /* Of this round, as is what follows. */
    struct cf_ctx *_Atomic target;
    atomic_int fd;
    atomic_int asked; /* Rounds. */
    atomic_int acted;
    atomic_bool stop;
    unsigned seed;
};

void rival_ask(struct rival *rival);
void rival_settle(struct rival *rival); /* On the place's thread: it has nothing else to do. */

struct race {
    struct rival canceler; /* Cancels its ctx. */
    struct rival giver;    /* Gives what the call waits for. */
    long successes;
    long cancels;
    char wrong[128]; /* The first thing that was wrong, or "". */
};

/* Run `fn(race)` at `place`: it makes its rounds and judges them. Both outcomes have to occur. */
void check_race(int place, place_fn fn, void (*give)(struct rival *rival));

/* Whether there is another round: until then, and on until both outcomes have occurred, where one
 * thread hardly ever runs. check_race() has the last word. */
bool race_goes_on(const struct race *race, int64_t until_ns);

/* Count the outcome of one round; what is neither success nor cancel is wrong. */
void judge(struct race *race, enum cf_code code, bool success_is_true, struct cf_ctx *of);

/* Givers. */
void give_nothing(struct rival *rival);
void cancel_target(struct rival *rival);
void write_byte(struct rival *rival);

/* On the place. */
struct cf_ctx *new_ctx(void);

#endif
