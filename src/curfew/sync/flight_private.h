/* SPDX-License-Identifier: MIT */
/* What the cache needs of the flights beyond flight.h: to know in its load whether that load's
 * result may still be kept, and to start a load that nobody waits for. */
#ifndef CURFEW_SYNC_FLIGHT_PRIVATE_H
#define CURFEW_SYNC_FLIGHT_PRIVATE_H

#include <stdatomic.h>

#include <curfew/flight.h>

/* A load to be. Copied when it starts, and `key` and `arg` with it. */
struct cf__flight_job {
    enum cf_code (*run)(struct cf__flight_job *job, struct cf_ctx *ctx, struct cf_value **out,
                        struct cf_err *err);
    void *owner;      /* For `run`. */
    void (*fn)(void); /* For `run`: what the user gave, to be cast back. */
    const char *key;
    const void *arg;
    size_t arg_size; /* 0: `arg` is not copied. */

    /* Whether whoever comes starts a new load. Set with the flights' lock held, for good, before
     * cf_flight_forget() returns. False in a job that is given. */
    atomic_bool forgotten;
};

/* As cf_flight_do(). */
enum cf_code cf__flight_do(struct cf_ctx *ctx, struct cf_flight *flight,
                           const struct cf__flight_job *job, struct cf_value **out,
                           bool *out_shared, struct cf_err *err);

/* Start the load unless one runs already, and do not wait for it. It has one caller that never
 * leaves. Fails with CF_ECLOSED, CF_ELIMIT, CF_ENOMEM, CF_EUNAVAIL. */
enum cf_code cf__flight_start(struct cf_flight *flight, const struct cf__flight_job *job,
                              struct cf_err *err);

/* As cf_flight_forget(), of every key that `match` says yes to, which is called with the flights'
 * lock held. NULL: of every key. */
void cf__flight_forget_if(struct cf_flight *flight, bool (*match)(const char *key, void *arg),
                          void *arg);

#endif
