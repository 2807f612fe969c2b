/* SPDX-License-Identifier: MIT */
/* Lists of words in one string, as settings have them: "a, b c".
 * (What headers have, items.h reads.)
 *
 *     while (cf__words_next(&text, SEPARATORS, &word, &size)) { ... }
 */
#ifndef CURFEW_HTTP_WORDS_H
#define CURFEW_HTTP_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Find the next word, and move *text behind it. False: there is none. */
static inline bool cf__words_next(const char **text, const char *separators, const char **out,
                                  size_t *out_size)
{
    *out = *text + strspn(*text, separators);
    *out_size = strcspn(*out, separators);
    *text = *out + *out_size;
    return *out_size > 0;
}

static inline size_t cf__words_count(const char *text, const char *separators)
{
    const char *word;
    size_t size;
    size_t n = 0;

    while (cf__words_next(&text, separators, &word, &size)) {
        n++;
    }
    return n;
}

#endif
