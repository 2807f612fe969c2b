/* SPDX-License-Identifier: MIT */
/* Rate limiters: a number of events per second, and a burst. Go's golang.org/x/time/rate.
 *
 * A limiter is a bucket of `burst` tokens, full at first, that fills at `per_second` tokens; an
 * event takes one. If there is none, cf_limiter_allow() refuses, cf_limiter_reserve() says how long
 * to wait, and cf_limiter_wait() waits. Reserved tokens are taken in advance: the bucket is then
 * less than empty, and later callers wait longer.
 *
 * Invariant: in any time t no more than burst + per_second * t events are let through. The tokens
 * of a wait that fails are given back.
 *
 *     code = cf_limiter_wait(ctx, limiter, 1, err);
 *     if (code != CF_OK) { return code; }       // canceled, or it would be too late
 *     code = fetch(ctx, url, err);
 *
 * Thread safety: any thread; wait from any fiber and any plain thread, not from a callback of the
 * loop. Time is what the calling thread's timer source shows (clock.h). */
#ifndef CURFEW_LIMITER_H
#define CURFEW_LIMITER_H

#include <curfew/base.h>
#include <curfew/ctx.h>
#include <curfew/err.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The rate that lets everything through, whatever the burst. */
#define CF_LIMITER_INFINITE 1.7976931348623157e308

struct cf_limiter;

/* Tokens that were taken in advance. A value; for one caller at a time. */
struct cf_reservation {
    struct cf_limiter *limiter; /* Borrowed. */
    int tokens;                 /* To give back: 0 once cancelled. */
    int64_t at_ns;              /* When its holder may act; CF_NEVER: no tokens flow. */
    double per_second;          /* The rate when it was made. */
};

/* Life cycle */

/* Make a limiter with a full bucket. A rate that is negative or not a number counts as zero: the
 * bucket does not fill. A burst of less than one lets no event through, unless the rate is
 * infinite.
 * Ownership: the caller owns *out, cf_limiter_free(). Fails with CF_ENOMEM. */
CF_API CF_MUST enum cf_code cf_limiter_new(double per_second, int burst, struct cf_limiter **out,
                                           struct cf_err *err);

/* Free the limiter. No call may be waiting, and no reservation be used after it. NULL allowed. */
CF_API void cf_limiter_free(struct cf_limiter *limiter);

/* Operations */

/* Take `n` tokens (0 or more: asserted, also below) if there are that many, and return true; else
 * do nothing and return false: for events that may be dropped. Never blocks. */
CF_API CF_MUST bool cf_limiter_allow(struct cf_limiter *limiter, int n);

/* Take `n` tokens, in advance if necessary: the caller may act at out->at_ns. False, and nothing is
 * taken, if `n` is more than the burst, so that they would never be there at once. Never blocks. */
CF_API CF_MUST bool cf_limiter_reserve(struct cf_limiter *limiter, int n,
                                       struct cf_reservation *out);

/* The holder will not act: give back the tokens that no later reservation depends on. Does nothing
 * once its time has passed, because it may have acted, or when called again. Never blocks. */
CF_API void cf_reservation_cancel(struct cf_reservation *reservation);

/* Take `n` tokens, and wait for them. If they would come too late for the deadline of `ctx`, fail
 * at once with CF_EDEADLINE; err->retry_after_ns says when, as things stand, there would be no
 * wait.
 * Blocks: until they are there, or `ctx` is done.
 * Fails with CF_ECANCELED, CF_EDEADLINE, CF_EINVAL (`n` is more than the burst), CF_ENOMEM. On
 * failure the tokens are given back as by cf_reservation_cancel(), however late it is. */
CF_API CF_MUST enum cf_code cf_limiter_wait(struct cf_ctx *ctx, struct cf_limiter *limiter, int n,
                                            struct cf_err *err);

/* Change the rate, or the burst, from now on. Reservations keep their time, even if that is sooner
 * or later than the new rate allows. Tokens that no longer fit are lost. */
CF_API void cf_limiter_set_limit(struct cf_limiter *limiter, double per_second);
CF_API void cf_limiter_set_burst(struct cf_limiter *limiter, int burst);

/* Queries */

/* How long the holder of `reservation` still has to wait: 0 if it may act; CF_NEVER if never. */
CF_API int64_t cf_reservation_delay_ns(const struct cf_reservation *reservation);

/* The tokens in the bucket now; less than zero if more are reserved. */
CF_API double cf_limiter_tokens(struct cf_limiter *limiter);

/* The rate and the burst. */
CF_API double cf_limiter_limit(struct cf_limiter *limiter);
CF_API int cf_limiter_burst(struct cf_limiter *limiter);

/* The rate of one event every `period_ns`; infinite if that is less than one. */
CF_API double cf_limiter_every(int64_t period_ns);

#ifdef __cplusplus
}
#endif

#endif
