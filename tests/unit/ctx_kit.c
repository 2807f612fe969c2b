/* SPDX-License-Identifier: MIT */
/* What the tests of contexts share: see ctx_kit.h. */
#include "ctx_kit.h"

#include <check.h>
#include <poll.h>

#include <curfew/clock.h>
#include <curfew/wait.h>

struct vclock vclock;
struct cf_err err;

const struct cf_err because = {.code = CF_ECONFLICT, .msg = "because"};
const struct cf_err too_slow = {.code = CF_ELIMIT, .msg = "too slow"};

/* Helpers: making */

struct cf_ctx *with_cancel(struct cf_ctx *parent)
{
    struct cf_ctx *ctx = NULL;

    ck_assert_int_eq(cf_ctx_with_cancel(parent, &ctx, &err), CF_OK);
    ck_assert_ptr_nonnull(ctx);
    return ctx;
}

struct cf_ctx *with_timeout(struct cf_ctx *parent, int64_t timeout_ns)
{
    struct cf_ctx *ctx = NULL;

    ck_assert_int_eq(cf_ctx_with_timeout(parent, timeout_ns, &ctx, &err), CF_OK);
    ck_assert_ptr_nonnull(ctx);
    return ctx;
}

struct cf_ctx *with_deadline(struct cf_ctx *parent, int64_t deadline_ns)
{
    struct cf_ctx *ctx = NULL;

    ck_assert_int_eq(cf_ctx_with_deadline(parent, deadline_ns, &ctx, &err), CF_OK);
    ck_assert_ptr_nonnull(ctx);
    return ctx;
}

struct cf_ctx *with_deadline_cause(struct cf_ctx *parent, int64_t deadline_ns,
                                   const struct cf_err *why)
{
    struct cf_ctx *ctx = NULL;

    ck_assert_int_eq(cf_ctx_with_deadline_cause(parent, deadline_ns, why, &ctx, &err), CF_OK);
    ck_assert_ptr_nonnull(ctx);
    return ctx;
}

struct cf_ctx *with_value(struct cf_ctx *parent, const void *key, const void *value)
{
    struct cf_ctx *ctx = NULL;

    ck_assert_int_eq(cf_ctx_with_value(parent, key, (void *)value, &ctx, &err), CF_OK);
    ck_assert_ptr_nonnull(ctx);
    return ctx;
}

struct cf_ctx *without_cancel(struct cf_ctx *parent)
{
    struct cf_ctx *ctx = NULL;

    ck_assert_int_eq(cf_ctx_without_cancel(parent, &ctx, &err), CF_OK);
    ck_assert_ptr_nonnull(ctx);
    return ctx;
}

/* Helpers: looking */

bool told(struct cf_ctx *ctx)
{
    struct pollfd fd = {.events = POLLIN};

    ck_assert_int_eq(cf_ctx_done_fd(ctx, &fd.fd, &err), CF_OK);
    ck_assert_int_ge(poll(&fd, 1, 0), 0);
    return (fd.revents & POLLIN) != 0;
}

void assert_live(struct cf_ctx *ctx)
{
    struct cf_cause cause;

    ck_assert(!told(ctx));
    ck_assert_int_eq(cf_ctx_err(ctx), CF_OK);
    ck_assert_int_eq(cf_ctx_check(ctx, &err), CF_OK);
    ck_assert(!cf_ctx_cause(ctx, &cause));
    ck_assert_int_eq(cause.reason, CF_REASON_NONE);
    ck_assert_int_eq(cause.budget_ns, CF_NEVER);
}

void assert_done(struct cf_ctx *ctx, enum cf_code code, enum cf_reason reason)
{
    struct cf_cause cause;

    ck_assert(told(ctx));
    ck_assert_int_eq(cf_ctx_err(ctx), code);
    ck_assert_int_eq(cf_ctx_check(ctx, &err), code);
    ck_assert_int_eq(err.code, code);
    ck_assert_int_eq(cf_ctx_check(ctx, NULL), code);
    ck_assert(cf_ctx_cause(ctx, &cause));
    ck_assert_int_eq(cause.reason, reason);
}

const char *cause_text(struct cf_ctx *ctx)
{
    static struct cf_cause cause;

    return cf_ctx_cause(ctx, &cause) ? cause.err.msg : NULL;
}

void wait_done(struct cf_ctx *ctx)
{
    /* The timer thread's clock, whatever the test uses. */
    struct cf_timer_source *before = cf_timer_source_use(NULL);
    struct cf_ctx *limit = with_timeout(cf_ctx_background(), 20 * CF_SECOND);

    (void)cf_timer_source_use(before);
    ck_assert_int_eq(cf_wait_done(limit, ctx, &err), CF_OK);
    cf_ctx_free(limit);
}

static void count(struct cf__ctx_waiter *waiter)
{
    (void)atomic_fetch_add(&CF__CONTAINER(waiter, struct counter, waiter)->fired, 1);
}

void counter_init(struct counter *counter)
{
    counter->waiter.fire = count;
    atomic_init(&counter->fired, 0);
}
