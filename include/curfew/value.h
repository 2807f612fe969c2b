/* SPDX-License-Identifier: MIT */
/* Shared values that never change: what flights and caches hand out.
 *
 * A value is some bytes and a count of references. Because it never changes, the holder of a
 * reference may read it without a lock, on any thread, even after the cache has dropped it.
 *
 * Invariant: the bytes stay as they were until the last reference is given up, which frees them.
 *
 *     code = cf_value_new(body, body_size, &value, err);
 *     if (code != CF_OK) { return code; }
 *     send(fd, cf_value_data(value), cf_value_size(value), 0);
 *     cf_value_unref(value);
 *
 * Thread safety: every function may be called from any thread and any callback, and none waits. */
#ifndef CURFEW_VALUE_H
#define CURFEW_VALUE_H

#include <curfew/base.h>
#include <curfew/err.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cf_value;

typedef void (*cf_value_drop_fn)(void *data);

/* Life cycle */

/* Make a value of `size` bytes at `data`, which may be NULL if there are none.
 * Ownership: copies `data`; the caller owns a reference, *out: cf_value_unref().
 * Fails with CF_ENOMEM. */
CF_API CF_MUST enum cf_code cf_value_new(const void *data, size_t size, struct cf_value **out,
                                         struct cf_err *err);

/* Make a value of an existing structure of the caller's, which counts as `size` bytes.
 * Ownership: owns `own_data`, also on failure: `drop(own_data)` is called once, when the last
 * reference is given up. Fails with CF_ENOMEM. */
CF_API CF_MUST enum cf_code cf_value_wrap(void *own_data, size_t size, cf_value_drop_fn drop,
                                          struct cf_value **out, struct cf_err *err);

/* Take one more reference, which is returned; give one up. unref(NULL) does nothing. */
CF_API struct cf_value *cf_value_ref(struct cf_value *value);
CF_API void cf_value_unref(struct cf_value *value);

/* Queries */

/* The bytes, and their number. Borrowed: valid while the caller holds its reference. */
CF_API const void *cf_value_data(const struct cf_value *value);
CF_API size_t cf_value_size(const struct cf_value *value);

#ifdef __cplusplus
}
#endif

#endif
