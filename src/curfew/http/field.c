/* SPDX-License-Identifier: MIT */
/* See field.h. */
#include "curfew/http/field.h"

#include <string.h>

static bool is_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

bool cf__is_token(const char *text, size_t size)
{
    size_t n = 0;

    while (n < size && is_token_char(text[n])) {
        n++;
    }
    return n == size && size > 0;
}

bool cf__is_field_value(const char *text, size_t size)
{
    size_t n = 0;

    while (n < size && ((unsigned char)text[n] >= ' ' || text[n] == '\t') && text[n] != 0x7F) {
        n++;
    }
    return n == size;
}
