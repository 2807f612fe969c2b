/* SPDX-License-Identifier: MIT */
/* The target of a request, decoded: "/v1/users/7?limit=10" as segments and arguments.
 *
 * Decoded exactly once, from what the client sent. The path is split at '/' before its escapes are
 * decoded, so that %2F stays inside its segment and cannot move a request to another route.
 *
 * Invariant: every string is valid UTF-8 without control characters; a NUL cannot cut one short.
 *
 * Thread safety: a value in its request's arena. */
#ifndef CURFEW_HTTP_TARGET_H
#define CURFEW_HTTP_TARGET_H

#include <curfew/err.h>

#include "curfew/http/arena.h"

/* Segments that are kept, and so the longest route. A longer path matches no route. */
#define CF__SEGMENTS_MAX 16

/* Arguments of a query: more is refused. */
#define CF__ARGS_MAX 100

struct cf__segment {
    const char *text; /* Inside `path`: ends at `size`, not at a NUL. */
    size_t size;
};

struct cf__arg {
    const char *name;
    const char *value; /* "" without '='. */
};

struct cf__target {
    const char *path;  /* Decoded, with the slashes. */
    size_t n_segments; /* Of the path; only the first CF__SEGMENTS_MAX are in `segments`. */
    struct cf__segment segments[CF__SEGMENTS_MAX];
    size_t n_args;
    const struct cf__arg *args; /* In their order; names may repeat. */
};

/* Decode `raw`, which is copied.
 * Fails with CF_EINVAL, saying what is wrong with it, and CF_ENOMEM. */
CF_MUST enum cf_code cf__target_decode(const char *raw, struct cf__arena *arena,
                                       struct cf__target *out, struct cf_err *err);

/* The value of the first argument of that name, or NULL. */
const char *cf__target_arg(const struct cf__target *target, const char *name);

#endif
