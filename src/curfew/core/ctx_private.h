/* SPDX-License-Identifier: MIT */
/* A value that a context which can end carries by itself, without a context of value below it.
 *
 * Thread safety: before anybody else knows the context. */
#ifndef CURFEW_CORE_CTX_PRIVATE_H
#define CURFEW_CORE_CTX_PRIVATE_H

#include <curfew/ctx.h>

/* Carry `value` (borrowed) under `key`: once, and of a context that can be cancelled
 * (both asserted). */
void cf__ctx_carry(struct cf_ctx *ctx, const void *key, void *value);

/* The same for what cf_ctx_trace() looks for. */
struct cf_trace;
void cf__ctx_carry_trace(struct cf_ctx *ctx, const struct cf_trace *trace);

#endif
