/* SPDX-License-Identifier: MIT */
/* Errors: a code to act on, and a value that says what happened.
 *
 * Every operation that can fail returns an enum cf_code and fills a struct cf_err, the last
 * parameter. The codes are few: they tell what the caller can do, not where it happened. The value
 * is plain memory: it is copied through groups and across threads and needs no freeing, so
 * describing an error cannot itself fail.
 *
 * Invariant: `msg` is always terminated and reads "outer: inner"; what a program acts on (code,
 * cause, sys, sqlstate, retry_after_ns) is in fields of its own, which a long chain cannot cut off.
 *
 *     code = cf_pg_query(ctx, pg, &find_user, params, 1, &rows, err);
 *     if (code != CF_OK) {
 *         return cf_err_wrap(err, code, "load user %" PRId64, id);
 *     }
 *
 * Thread safety: values; whoever owns one may use it. */
#ifndef CURFEW_ERR_H
#define CURFEW_ERR_H

#include <curfew/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* X(symbol, name, text): the one list that enum, names and texts are made from. */
#define CF_CODES(X)                                                                                \
    X(CF_OK, "ok", "no error")                                                                     \
    X(CF_ECANCELED, "canceled", "context canceled")                   /* give up: nobody waits */  \
    X(CF_EDEADLINE, "deadline_exceeded", "context deadline exceeded") /* give up: too late */      \
    X(CF_ECLOSED, "closed", "closed")                    /* the other side has ended */            \
    X(CF_EINVAL, "invalid", "invalid input")             /* fix the input */                       \
    X(CF_ENOTFOUND, "not_found", "not found")            /* there is no such thing */              \
    X(CF_ECONFLICT, "conflict", "conflict")              /* somebody else was first */             \
    X(CF_ELIMIT, "limit", "limit reached")               /* a named limit: retry later */          \
    X(CF_EUNAVAIL, "unavailable", "unavailable")         /* retry later */                         \
    X(CF_ENOMEM, "out_of_memory", "out of memory")       /* retry later */                         \
    X(CF_EUNKNOWN, "outcome_unknown", "outcome unknown") /* it may have been done: look */         \
    X(CF_EIO, "io", "input or output failed")            /* the operating system said */           \
    X(CF_EINTERNAL, "internal", "internal error")        /* a bug, ours or theirs */

enum cf_code {
#define CF_CODE_ENUM(symbol, name, text) symbol,
    CF_CODES(CF_CODE_ENUM)
#undef CF_CODE_ENUM
};

#define CF_ERR_MSG_SIZE 256

struct cf_err {
    enum cf_code code;         /* What the caller acts on. */
    enum cf_code cause;        /* The code before cf_err_recode(), or CF_OK. */
    int sys;                   /* errno, or 0. */
    int64_t retry_after_ns;    /* When another try makes sense, after this one; 0: unknown. */
    const char *phase;         /* What it was waiting for: "pool", "query", ...; static, or NULL. */
    char sqlstate[6];          /* Five characters from PostgreSQL, or "". */
    char msg[CF_ERR_MSG_SIZE]; /* "outer: inner", lower case, no full stop. */
};

/* Operations */

/* Fill *err with `code` and a message; return `code`, so that a failure is one line. */
CF_API enum cf_code cf_err_set(struct cf_err *err, enum cf_code code, const char *format, ...)
    CF_PRINTF(3, 4);

/* As cf_err_set(), for a call of the system that failed: keeps `sys` and appends its text. */
CF_API enum cf_code cf_err_set_sys(struct cf_err *err, enum cf_code code, int sys,
                                   const char *format, ...) CF_PRINTF(4, 5);

/* Put "message: " in front of the message of *err, as Go's fmt.Errorf("...: %w", err). Returns
 * `code`, which must be the code in *err. Once per layer, with the operand. */
CF_API enum cf_code cf_err_wrap(struct cf_err *err, enum cf_code code, const char *format, ...)
    CF_PRINTF(3, 4);

/* Change the code, keeping the first one as the cause. Returns `code`. */
CF_API enum cf_code cf_err_recode(struct cf_err *err, enum cf_code code);

/* Note what was being waited for when the error came: a static string ("pool"). Returns the
 * code. */
CF_API enum cf_code cf_err_phase(struct cf_err *err, enum cf_code code, const char *phase);

/* Note how long after the error another try makes sense: CF_NEVER if never. Returns the code. */
CF_API enum cf_code cf_err_retry_after(struct cf_err *err, enum cf_code code,
                                       int64_t retry_after_ns);

/* Queries */

/* Whether the error or its cause is `code`: Go's errors.Is. */
CF_API bool cf_err_is(const struct cf_err *err, enum cf_code code);

/* The stable name ("deadline_exceeded") of a code, and a sentence about it. Static strings. */
CF_API const char *cf_code_name(enum cf_code code);
CF_API const char *cf_code_text(enum cf_code code);

#ifdef __cplusplus
}
#endif

#endif
