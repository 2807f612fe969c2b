/* SPDX-License-Identifier: MIT */
/* UTF-8, for the two places where text of unknown origin meets a format that demands it: the
 * request's target and the JSON writer. */
#ifndef CURFEW_HTTP_UTF8_H
#define CURFEW_HTTP_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of the character that the `size` bytes at `text` start with: 1 to 4. 0 if they start with
 * none: truncated, overlong, a surrogate, or above U+10FFFF. */
size_t cf__utf8_char_size(const char *text, size_t size);

/* Whether the text is UTF-8 throughout. */
bool cf__utf8_valid(const char *text, size_t size);

#endif
