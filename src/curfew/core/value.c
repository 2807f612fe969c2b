/* SPDX-License-Identifier: MIT */
/* Values: see value.h. One allocation for a value and its copied bytes. */
#include <curfew/value.h>

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Constant after new, but for the count. */
struct cf_value {
    _Atomic size_t refs;
    size_t size;
    const void *data;      /* `bytes`, or what is dropped in the end. */
    cf_value_drop_fn drop; /* NULL: the bytes are in `bytes`. */
    unsigned char bytes[];
};

/* Life cycle */

enum cf_code cf_value_new(const void *data, size_t size, struct cf_value **out, struct cf_err *err)
{
    struct cf_value *value = NULL;

    if (size < SIZE_MAX - sizeof(*value)) {
        value = malloc(sizeof(*value) + size);
    }
    if (value == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a value of %zu bytes", size);
    }
    atomic_init(&value->refs, 1);
    value->size = size;
    value->data = value->bytes;
    value->drop = NULL;
    if (size > 0) {
        memcpy(value->bytes, data, size);
    }
    *out = value;
    return CF_OK;
}

enum cf_code cf_value_wrap(void *own_data, size_t size, cf_value_drop_fn drop,
                           struct cf_value **out, struct cf_err *err)
{
    struct cf_value *value = malloc(sizeof(*value));

    if (value == NULL) {
        drop(own_data);
        return cf_err_set(err, CF_ENOMEM, "no memory for a value");
    }
    atomic_init(&value->refs, 1);
    value->size = size;
    value->data = own_data;
    value->drop = drop;
    *out = value;
    return CF_OK;
}

struct cf_value *cf_value_ref(struct cf_value *value)
{
    /* Relaxed: the caller holds a reference, so this orders nothing. Its partner is in unref. */
    (void)atomic_fetch_add_explicit(&value->refs, 1, memory_order_relaxed);
    return value;
}

void cf_value_unref(struct cf_value *value)
{
    if (value == NULL || atomic_fetch_sub(&value->refs, 1) != 1) {
        return;
    }
    if (value->drop != NULL) {
        value->drop((void *)value->data); /* Given to us as not const. */
    }
    free(value);
}

/* Queries */

const void *cf_value_data(const struct cf_value *value)
{
    return value->data;
}

size_t cf_value_size(const struct cf_value *value)
{
    return value->size;
}
