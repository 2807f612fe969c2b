/* SPDX-License-Identifier: MIT */
/* What the tests of contexts share: making one or failing, and looking at one from all sides. */
#ifndef CTX_KIT_H
#define CTX_KIT_H

#include <stdatomic.h>

#include <curfew/ctx.h>

#include "curfew/core/ctx_waiter.h"
#include "vclock.h"

#define LONG_NS (3600 * CF_SECOND) /* On the virtual clock: nothing waits for it. */

extern struct vclock vclock;
extern struct cf_err err;

/* What stands for an error of the program in a cause: "because", CF_ECONFLICT; "too slow",
 * CF_ELIMIT. */
extern const struct cf_err because;
extern const struct cf_err too_slow;

/* Make a context; a failure fails the test. */
struct cf_ctx *with_cancel(struct cf_ctx *parent);
struct cf_ctx *with_timeout(struct cf_ctx *parent, int64_t timeout_ns);
struct cf_ctx *with_deadline(struct cf_ctx *parent, int64_t deadline_ns);
struct cf_ctx *with_deadline_cause(struct cf_ctx *parent, int64_t deadline_ns,
                                   const struct cf_err *why);
struct cf_ctx *with_value(struct cf_ctx *parent, const void *key, const void *value);
struct cf_ctx *without_cancel(struct cf_ctx *parent);

/* Whether the descriptor is readable: unlike cf_ctx_err(), this does not look at the clock, so it
 * shows whether a timer or a cancel has come. */
bool told(struct cf_ctx *ctx);

/* It has not ended, from all sides: Go's ctx.Done() blocks, ctx.Err() is nil. */
void assert_live(struct cf_ctx *ctx);

/* It has ended with `code`, for `reason`, and everything agrees on it. */
void assert_done(struct cf_ctx *ctx, enum cf_code code, enum cf_reason reason);

/* The message of the cause, or NULL while it lives. Valid until the next call. */
const char *cause_text(struct cf_ctx *ctx);

/* Wait until it has ended, on the real clock, with a limit: Go's <-ctx.Done(). */
void wait_done(struct cf_ctx *ctx);

/* A waiter that counts how often it was told. */
struct counter {
    struct cf__ctx_waiter waiter;
    atomic_uint fired;
};

void counter_init(struct counter *counter);

#endif
