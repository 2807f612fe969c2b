/* SPDX-License-Identifier: MIT */
/* Lists in headers (RFC 9110, section 5.6): the one reader of "a, b;q=0.5, c=\"d, e\"".
 *
 * A header's value is cut at its commas, an element of it at its semicolons, and a parameter at its
 * equals sign; what stands within quotes is cut nowhere. Nothing is copied, and nothing refused:
 * what an element means, and whether one that is empty or makes no sense counts, is for who asks.
 *
 *     struct cf__span rest = cf__span_of(value);
 *
 *     while (cf__item_next(&rest, ',', &item)) { ... }
 *
 * Thread safety: values. */
#ifndef CURFEW_HTTP_ITEMS_H
#define CURFEW_HTTP_ITEMS_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* A piece of a text, which it borrows. */
struct cf__span {
    const char *at; /* NULL: there is none. */
    size_t size;
};

/* The largest weight: "q=1". */
#define CF__WEIGHT_MAX 1000

static inline struct cf__span cf__span_of(const char *text)
{
    return (struct cf__span){text, strlen(text)};
}

/* Without the spaces and tabs at its ends. */
struct cf__span cf__span_trim(struct cf__span span);

/* Whether it is this word, in any case. */
bool cf__span_is(struct cf__span span, const char *word);

/* Cut the piece before the next `separator` off *rest, which goes on behind it; trimmed, and
 * perhaps empty. A backslash within quotes takes what follows it along.
 * False: there is none left. */
bool cf__item_next(struct cf__span *rest, char separator, struct cf__span *out);

/* The same in a list of entity tags, where a backslash stands for itself. */
bool cf__tag_next(struct cf__span *rest, struct cf__span *out);

/* The name of "name=value", and into *out_value its value without quotes around it: of no text
 * where there is no equals sign. */
struct cf__span cf__item_name(struct cf__span item, struct cf__span *out_value);

/* What an element is weighed ("text/csv;q=0.25": 250), and into *out_item the element before its
 * parameters. Without a weight that can be read CF__WEIGHT_MAX: better too much than nothing. */
int cf__item_weight(struct cf__span item, struct cf__span *out_item);

#endif
