/* SPDX-License-Identifier: MIT */
/* Rate limiters: so many events a second, and a few at once. Go's golang.org/x/time/rate.
 *
 * A limiter is a bucket of `burst` tokens, full at first, into which `per_second` tokens flow; an
 * event takes one. Where there is none, cf_limiter_allow() refuses, cf_limiter_reserve() says how
 * long to wait, and cf_limiter_wait() waits. Reserved tokens are taken ahead of time: the bucket is
 * then less than empty, and who comes later waits longer.
 *
 * Invariant: in any time t no more than burst + per_second * t events are let through. Tokens of a
 * wait that does not come to its end are given back.
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

/* The rate at which everything is let through, and the burst does not matter. */
#define CF_LIMITER_INFINITE 1.7976931348623157e308

struct cf_limiter;

/* Tokens that were taken ahead of time. A value; for one caller at a time. */
struct cf_reservation {
    struct cf_limiter *limiter; /* Borrowed. */
    int tokens;                 /* To give back: 0 once cancelled. */
    int64_t at_ns;              /* When its holder may act; CF_NEVER: no tokens flow. */
    double per_second;          /* The rate when it was made. */
};

/* Life cycle */

/* Make a limiter whose bucket is full. A rate that is less than zero or no number is zero: nothing
 * flows in. A burst of less than one lets no event through, unless the rate is infinite.
 * Ownership: the caller owns *out, cf_limiter_free(). Fails with CF_ENOMEM. */
CF_API CF_MUST enum cf_code cf_limiter_new(double per_second, int burst, struct cf_limiter **out,
                                           struct cf_err *err);

/* Free the limiter. Nobody waits, no reservation is used after it. NULL allowed. */
CF_API void cf_limiter_free(struct cf_limiter *limiter);

/* Operations */

/* Take `n` tokens (0 or more: asserted, also below) if there are so many, and return true; else do
 * nothing and return false: for events that are dropped. Never blocks. */
CF_API CF_MUST bool cf_limiter_allow(struct cf_limiter *limiter, int n);

/* Take `n` tokens, if need be ahead of time: the caller may act at out->at_ns. False, and nothing
 * is taken: `n` is more than the burst, and so never there at once. Never blocks. */
CF_API CF_MUST bool cf_limiter_reserve(struct cf_limiter *limiter, int n,
                                       struct cf_reservation *out);

/* The holder will not act: give back the tokens that no later reservation depends on. Does nothing
 * once its time has passed, because he may have acted, nor when called again. Never blocks. */
CF_API void cf_reservation_cancel(struct cf_reservation *reservation);

/* Take `n` tokens, and wait for them. When they would come too late for the deadline of `ctx` it
 * fails at once with CF_EDEADLINE and err->retry_after_ns: when, as things stand, it would not wait.
 * Blocks: until they are there, or `ctx` is done.
 * Fails with CF_ECANCELED, CF_EDEADLINE, CF_EINVAL (`n` is more than the burst), CF_ENOMEM. On
 * failure the tokens are given back as by cf_reservation_cancel(), however late it is. */
CF_API CF_MUST enum cf_code cf_limiter_wait(struct cf_ctx *ctx, struct cf_limiter *limiter, int n,
                                            struct cf_err *err);

/* Change the rate, or the burst, from now on. What was reserved keeps its time, even if that is
 * sooner or later than the new one allows. Tokens that do not fit any more are lost. */
CF_API void cf_limiter_set_limit(struct cf_limiter *limiter, double per_second);
CF_API void cf_limiter_set_burst(struct cf_limiter *limiter, int burst);

/* Queries */

/* How long the holder of `reservation` has to wait still: 0 if he may act; CF_NEVER. */
CF_API int64_t cf_reservation_delay_ns(const struct cf_reservation *reservation);

/* The tokens in the bucket now; less than zero if more are reserved. */
CF_API double cf_limiter_tokens(struct cf_limiter *limiter);

/* The rate and the burst. */
CF_API double cf_limiter_limit(struct cf_limiter *limiter);
CF_API int cf_limiter_burst(struct cf_limiter *limiter);

/* The rate of one event every `period_ns`; less than one: infinite. */
CF_API double cf_limiter_every(int64_t period_ns);

#ifdef __cplusplus
}
#endif

#endif
