/* SPDX-License-Identifier: MIT */
/* A JSON writer that only appends: for replies on a hot path.
 *
 * It appends to one growing buffer, and takes care of commas and escapes. That is twenty times
 * cheaper than building and dumping a tree. Use jansson to parse.
 *
 * Invariant: cf_json_finish() hands out one complete, valid JSON text in UTF-8. Lack of memory is
 * remembered and reported there, so that a hundred appends need no check. Values out of order (a
 * value without a key, an object that is not ended) are asserted.
 *
 *     cf_json_object(json);
 *     cf_json_key(json, "id");
 *     cf_json_i64(json, user->id);
 *     cf_json_end(json);
 *
 * Thread safety: one owner. */
#ifndef CURFEW_JSON_H
#define CURFEW_JSON_H

#include <curfew/base.h>
#include <curfew/err.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Open levels at once (asserted). */
#define CF_JSON_DEPTH_MAX 32

struct cf_json {
    char *data; /* The text so far; private until cf_json_finish(). */
    size_t size;
    size_t capacity;
    uint32_t is_object; /* A bit per open level: an object, or an array. */
    uint32_t has_items; /* A bit per open level: needs a comma before the next. */
    unsigned depth;     /* Open levels. */
    bool after_key;     /* A key waits for its value. */
    bool failed;        /* Out of memory: appends do nothing from here on. */
};

/* Life cycle */

/* Start empty; allocates nothing. End with cf_json_fini(), which frees the text. */
CF_API void cf_json_init(struct cf_json *json);
CF_API void cf_json_fini(struct cf_json *json);

/* Start over, keeping the buffer. */
CF_API void cf_json_reset(struct cf_json *json);

/* Operations: each appends. One value in all, or one after each key, or any number in an array. */

/* Begin an object or an array, as a value. */
CF_API void cf_json_object(struct cf_json *json);
CF_API void cf_json_array(struct cf_json *json);

/* End the innermost object or array. */
CF_API void cf_json_end(struct cf_json *json);

/* Begin a member of the innermost object; its value is next. Escaped as cf_json_str(). A name that
 * is there twice is not noticed. */
CF_API void cf_json_key(struct cf_json *json, const char *key);

/* Values. Bytes that are not UTF-8 are written as U+FFFD; NULL as null. */
CF_API void cf_json_str(struct cf_json *json, const char *value);
CF_API void cf_json_i64(struct cf_json *json, int64_t value);
CF_API void cf_json_u64(struct cf_json *json, uint64_t value);

/* With `digits` (0 to 9) after the point; infinities and NaN as null. */
CF_API void cf_json_f64(struct cf_json *json, double value, int digits);
CF_API void cf_json_bool(struct cf_json *json, bool value);
CF_API void cf_json_null(struct cf_json *json);

/* A value that is already complete, valid JSON: another writer's text. */
CF_API void cf_json_raw(struct cf_json *json, const char *text, size_t size);

/* An instant as RFC 3339 in UTC with microseconds: "2026-01-31T09:30:00.000000Z". */
CF_API void cf_json_time_us(struct cf_json *json, int64_t unix_us);

/* Hand out the text, which the writer owns and which is valid until the next change. Every object
 * and array must be ended (asserted). Fails with CF_ENOMEM. */
CF_API CF_MUST enum cf_code cf_json_finish(struct cf_json *json, const char **out_data,
                                           size_t *out_size, struct cf_err *err);

#ifdef __cplusplus
}
#endif

#endif
