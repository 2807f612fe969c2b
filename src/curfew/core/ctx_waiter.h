/* SPDX-License-Identifier: MIT */
/* How the layers above core are told that a context is done.
 *
 * A waiter is embedded in what waits. Between subscribe and unsubscribe the context calls `fire` at
 * most once, with its own lock held: `fire` must not wait, and must not call the context. */
#ifndef CURFEW_CORE_CTX_WAITER_H
#define CURFEW_CORE_CTX_WAITER_H

#include <curfew/ctx.h>

#include "curfew/core/list.h"

struct cf__ctx_waiter {
    struct cf__list node; /* In the list of the context that can end; guarded by its mu. */
    void (*fire)(struct cf__ctx_waiter *waiter);
};

/* Register. False if the context is done already: then nothing was registered. A context that can
 * never end registers nothing and returns true. */
bool cf__ctx_subscribe(struct cf_ctx *ctx, struct cf__ctx_waiter *waiter);

/* Unregister. When it returns, `fire` has returned or will never be called. True: never. */
bool cf__ctx_unsubscribe(struct cf_ctx *ctx, struct cf__ctx_waiter *waiter);

#endif
