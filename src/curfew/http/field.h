/* SPDX-License-Identifier: MIT */
/* What a header may be made of, on its way in and out (RFC 9110, section 5),
 * and those of a request. */
#ifndef CURFEW_HTTP_FIELD_H
#define CURFEW_HTTP_FIELD_H

#include <stdbool.h>
#include <stddef.h>

struct MHD_Connection;

/* A name. */
bool cf__is_token(const char *text, size_t size);

/* Visible characters, spaces and tabs, and whatever is not ASCII. */
bool cf__is_field_value(const char *text, size_t size);

/* One of a request's headers; `value` is terminated. */
typedef void (*cf__field_fn)(void *arg, const char *value);

/* Call `fn` with the value of each header of this name, in their order. */
void cf__each_field(struct MHD_Connection *mhd, const char *name, cf__field_fn fn, void *arg);

#endif
