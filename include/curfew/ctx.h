/* SPDX-License-Identifier: MIT */
/* Contexts: deadline, cancellation, cause and values for one piece of work. Go's context, in C.
 *
 * A context is made from a parent and freed by its maker. It is done when it is cancelled, when
 * its deadline passes, or when its parent is done; done is for ever. cf_ctx_err() says which of the
 * two sentinels it is (CF_ECANCELED, CF_EDEADLINE), cf_ctx_cause() says why: who, where, when.
 *
 * Invariant: a done parent makes a done child, a child never outlives its parent's deadline, and
 * the first cause wins. Cancelling is synchronous through the whole tree.
 *
 *     struct cf_ctx *ctx;
 *     code = cf_ctx_with_timeout(parent, 50 * CF_MS, &ctx, err);
 *     if (code != CF_OK) { return code; }
 *     code = fetch(ctx, url, err);
 *     cf_ctx_free(ctx);                       // what Go writes as defer cancel()
 *
 * Thread safety: every function may be called from any thread and any callback, and none waits. */
#ifndef CURFEW_CTX_H
#define CURFEW_CTX_H

#include <curfew/base.h>
#include <curfew/err.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cf_ctx;

/* Who ended a context. X(symbol, name): the name stands in logs, problem documents and metrics. */
#define CF_REASONS(X)                                                                              \
    X(CF_REASON_NONE, "none")                     /* Not done. */                                  \
    X(CF_REASON_CANCELED, "canceled")             /* cf_ctx_cancel() or cf_ctx_free(). */          \
    X(CF_REASON_DEADLINE, "deadline")             /* Its deadline, or an ancestor's, passed. */    \
    X(CF_REASON_CLIENT_GONE, "client_gone")       /* The client hung up. */                        \
    X(CF_REASON_SIBLING_FAILED, "sibling_failed") /* Another task of its group failed. */          \
    X(CF_REASON_OPERATOR, "operator")             /* A person asked for it. */                     \
    X(CF_REASON_SHUTDOWN, "shutdown")             /* The process is stopping. */                   \
    X(CF_REASON_SHED, "shed")                     /* Too much work: this was dropped. */           \
    X(CF_REASON_USER, "user")                     /* The program's own: see the error. */

enum cf_reason {
#define CF_REASON_ENUM(symbol, name) symbol,
    CF_REASONS(CF_REASON_ENUM)
#undef CF_REASON_ENUM
};

/* Why a context ended. */
struct cf_cause {
    enum cf_reason reason; /* Who. */
    struct cf_err err;     /* What: the error given, or the sentinel's text. */
    const char *file;      /* Where cancel was called; static; NULL for a deadline or a free. */
    int line;
    int64_t at_ns;     /* When, on the clock of its deadline. */
    int64_t budget_ns; /* What was left until the deadline; CF_NEVER without one, 0 if passed. */
};

typedef void (*cf_ctx_after_fn)(void *arg);

struct cf_ctx_after;

/* Life cycle */

/* The root: never done, no values, no deadline. Static: freeing it does nothing. */
CF_API struct cf_ctx *cf_ctx_background(void);

/* Make a child that can be cancelled. Keeps a reference to `parent`, which is not NULL (asserted;
 * also true below).
 *
 * Ownership: the caller owns *out: cf_ctx_free(), on every path.
 * Fails with CF_ENOMEM. A parent that is done is no failure: the child is then done from birth. */
CF_API CF_MUST enum cf_code cf_ctx_with_cancel(struct cf_ctx *parent, struct cf_ctx **out,
                                               struct cf_err *err);

/* Make a child with the earlier of its parent's deadline and `deadline_ns` (on the clock of the
 * current timer source). A deadline that has passed makes a child that is done from birth. */
CF_API CF_MUST enum cf_code cf_ctx_with_deadline(struct cf_ctx *parent, int64_t deadline_ns,
                                                 struct cf_ctx **out, struct cf_err *err);

/* As cf_ctx_with_deadline(), now + `timeout_ns`. */
CF_API CF_MUST enum cf_code cf_ctx_with_timeout(struct cf_ctx *parent, int64_t timeout_ns,
                                                struct cf_ctx **out, struct cf_err *err);

/* As cf_ctx_with_deadline(); if that deadline is what ends it, its cause carries *why (copied).
 * An own cancel keeps the cause of the cancel: Go's WithDeadlineCause. */
CF_API CF_MUST enum cf_code cf_ctx_with_deadline_cause(struct cf_ctx *parent, int64_t deadline_ns,
                                                       const struct cf_err *why,
                                                       struct cf_ctx **out, struct cf_err *err);

/* Make a child that carries `value` (borrowed; may be NULL) under `key`, an address. For what
 * belongs to the request and crosses layers, not for parameters. It is done when its parent is. */
CF_API CF_MUST enum cf_code cf_ctx_with_value(struct cf_ctx *parent, const void *key, void *value,
                                              struct cf_ctx **out, struct cf_err *err);

/* Make a child that keeps its parent's values and nothing else: it is not done when the parent is,
 * and has no deadline. For the roll-back that must run after its request has ended. */
CF_API CF_MUST enum cf_code cf_ctx_without_cancel(struct cf_ctx *parent, struct cf_ctx **out,
                                                  struct cf_err *err);

/* Cancel the context if it can be cancelled on its own, and give up its maker's reference. `ctx`
 * may be NULL. */
CF_API void cf_ctx_free(struct cf_ctx *ctx);

/* Keep a context beyond its maker's free, when it will be done; give up that reference. NULL
 * allowed. */
CF_API struct cf_ctx *cf_ctx_ref(struct cf_ctx *ctx);
CF_API void cf_ctx_unref(struct cf_ctx *ctx);

/* Operations */

/* Cancel `ctx` and all its descendants. Idempotent: a call that comes while another is still
 * walking the tree returns at once. Not for contexts of value or without_cancel (asserted). The
 * macros record file and line.
 *
 * Ownership: the caller holds the context, as its owner or by cf_ctx_ref(), until this returns: a
 * task that is woken by it may give up its own reference. */
#define cf_ctx_cancel(ctx) cf_ctx_cancel_at((ctx), CF_REASON_CANCELED, NULL, __FILE__, __LINE__)
#define cf_ctx_cancel_cause(ctx, reason, why)                                                      \
    cf_ctx_cancel_at((ctx), (reason), (why), __FILE__, __LINE__)
CF_API void cf_ctx_cancel_at(struct cf_ctx *ctx, enum cf_reason reason, const struct cf_err *why,
                             const char *file, int line);

/* Have `fn(arg)` called once when `ctx` is done (at once if it is): as a fiber of the loop that
 * this is called on; on the library's timer thread when it is called off the loops, where it must
 * not wait. Cancel never waits for it. Go's AfterFunc.
 *
 * Ownership: *out is the caller's: cf_ctx_after_stop() exactly once, at any time, also from `fn`.
 * Fails with CF_ENOMEM. */
CF_API CF_MUST enum cf_code cf_ctx_after(struct cf_ctx *ctx, cf_ctx_after_fn fn, void *arg,
                                         struct cf_ctx_after **out, struct cf_err *err);

/* Take back a cf_ctx_after(). True if this call prevented `fn` from being called; false if it has
 * been called or is about to be. Does not wait for it. Frees `own_after`. */
CF_API bool cf_ctx_after_stop(struct cf_ctx_after *own_after);

/* Queries */

/* CF_OK while the context lives, then CF_ECANCELED or CF_EDEADLINE. Looks at the clock too, so that
 * a long computation learns of its deadline although it leaves its timer no time to fire. */
CF_API enum cf_code cf_ctx_err(struct cf_ctx *ctx);

/* As cf_ctx_err(), and says why in `err`, for `return cf_ctx_check(ctx, err)`. */
CF_API enum cf_code cf_ctx_check(struct cf_ctx *ctx, struct cf_err *err);

/* Why the context ended. False, and *out with CF_REASON_NONE, while it lives. */
CF_API bool cf_ctx_cause(struct cf_ctx *ctx, struct cf_cause *out);

/* The deadline, or CF_NEVER; and the time left until then: 0 once it has passed. */
CF_API int64_t cf_ctx_deadline_ns(const struct cf_ctx *ctx);
CF_API int64_t cf_ctx_remaining_ns(const struct cf_ctx *ctx);

/* The value that the nearest of `ctx` and its ancestors carries under `key`, or NULL. */
CF_API void *cf_ctx_value(const struct cf_ctx *ctx, const void *key);

/* A descriptor that is readable once the context is done, for code with its own poll loop. Made on
 * the first call, owned by the context: do not read from it, do not close it.
 * Fails with CF_EIO when there are no descriptors, CF_EINVAL for a context that can never end. */
CF_API CF_MUST enum cf_code cf_ctx_done_fd(struct cf_ctx *ctx, int *out_fd, struct cf_err *err);

/* The stable name of a reason ("client_gone"). Static. */
CF_API const char *cf_reason_name(enum cf_reason reason);

#ifdef __cplusplus
}
#endif

#endif
