/* SPDX-License-Identifier: MIT */
/* What a header may be made of, on its way in and out: RFC 9110, section 5. */
#ifndef CURFEW_HTTP_FIELD_H
#define CURFEW_HTTP_FIELD_H

#include <stdbool.h>
#include <stddef.h>

/* A name. */
bool cf__is_token(const char *text, size_t size);

/* Visible characters, spaces and tabs, and whatever is not ASCII. */
bool cf__is_field_value(const char *text, size_t size);

#endif
