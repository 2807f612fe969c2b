/* SPDX-License-Identifier: MIT */
/* UTF-8, against jansson's. */
#include "curfew/http/utf8.h"

#include <stdlib.h>
#include <string.h>

#include "kit.h"

/* Bytes of the first character: the least that are UTF-8 on their own. */
static size_t first_char(const char *text, size_t size)
{
    for (size_t n = 1; n <= 4 && n <= size; n++) {
        if (fuzz_is_utf8(text, n)) {
            return n;
        }
    }
    return 0;
}

FUZZ_TARGET(utf8)
{
    char *text = malloc(size + 1); /* As of fuzz_string(), which would stop at a NUL. */
    size_t at = 0;
    size_t n = 1;

    FUZZ_CHECK(text != NULL);
    for (size_t i = 0; i < size; i++) {
        text[1 + i] = (char)data[i];
    }
    while (at < size && n > 0) {
        n = cf__utf8_char_size(text + 1 + at, size - at);
        FUZZ_CHECK(n == first_char(text + 1 + at, size - at));
        at += n;
    }
    FUZZ_CHECK(cf__utf8_valid(text + 1, size) == (at == size));
    FUZZ_CHECK(cf__utf8_valid(text + 1, size) == fuzz_is_utf8(text + 1, size));
    free(text);
    return 0;
}
