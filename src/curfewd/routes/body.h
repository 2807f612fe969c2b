/* SPDX-License-Identifier: MIT */
/* What comes with a request that changes something: a JSON object whose members are all known.
 *
 * What is no JSON is a 400, what is another type a 415; a member that is unknown, of a wrong type
 * or out of its range is a 422 that names it.
 *
 *     code = body_read(http, "application/json", members, 2, &body, err);
 *     if (code == CF_OK) { code = body_i64(http, body, "count", 1, 10, &count, err); }
 *     json_decref(body); */
#ifndef CURFEWD_ROUTES_BODY_H
#define CURFEWD_ROUTES_BODY_H

#include <curfew/http.h>

struct json_t;

/* Read the body. `members` are all that it may have; `type` is what its Content-Type has to be,
 * without parameters, or application/json.
 * Ownership: the caller owns *out, json_decref(). Fails with CF_EINVAL, CF_ENOMEM. */
CF_MUST enum cf_code body_read(struct cf_http *http, const char *type, const char *const *members,
                               size_t n_members, struct json_t **out, struct cf_err *err);

/* Whether it has this member. */
bool body_has(const struct json_t *body, const char *name);

/* A member that has to be there. Fail with CF_EINVAL. */
CF_MUST enum cf_code body_i64(struct cf_http *http, const struct json_t *body, const char *name,
                              int64_t min, int64_t max, int64_t *out, struct cf_err *err);

/* *out is one of `choices`. */
CF_MUST enum cf_code body_choice(struct cf_http *http, const struct json_t *body, const char *name,
                                 const char *const *choices, size_t n_choices, const char **out,
                                 struct cf_err *err);

/* The failure of a body that can be read but not done. */
enum cf_code body_refuse(struct cf_http *http, struct cf_err *err, const char *format, ...)
    CF_PRINTF(3, 4);

#endif
