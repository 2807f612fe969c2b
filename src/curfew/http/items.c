/* SPDX-License-Identifier: MIT */
/* Lists in headers: see items.h. */
#include "curfew/http/items.h"

#include <strings.h>

/* Of a weight: "0.125". */
#define WEIGHT_SIZE_MAX 5

/* Internal helpers */

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

static bool next(struct cf__span *rest, char separator, bool escapes, struct cf__span *out)
{
    bool quoted = false;
    size_t n = 0;

    if (rest->at == NULL) {
        return false;
    }
    while (n < rest->size && (quoted || rest->at[n] != separator)) {
        if (rest->at[n] == '"') {
            quoted = !quoted;
        } else if (quoted && escapes && rest->at[n] == '\\' && n + 1 < rest->size) {
            n++;
        }
        n++;
    }
    *out = cf__span_trim((struct cf__span){rest->at, n});
    if (n < rest->size) {
        rest->at += n + 1;
        rest->size -= n + 1;
    } else {
        *rest = (struct cf__span){NULL, 0};
    }
    return true;
}

/* "0.25" as 250, "1" as 1000; -1 for what is no weight. */
static int read_weight(struct cf__span text)
{
    int value;

    if (text.size == 0 || text.size > WEIGHT_SIZE_MAX || (text.at[0] != '0' && text.at[0] != '1') ||
        (text.size > 1 && text.at[1] != '.')) {
        return -1;
    }
    value = text.at[0] == '1' ? CF__WEIGHT_MAX : 0;
    for (size_t i = 2, unit = CF__WEIGHT_MAX / 10; i < text.size; i++, unit /= 10) {
        if (text.at[i] < '0' || text.at[i] > '9') {
            return -1;
        }
        value += (text.at[i] - '0') * (int)unit;
    }
    return value <= CF__WEIGHT_MAX ? value : -1;
}

/* Operations */

struct cf__span cf__span_trim(struct cf__span span)
{
    while (span.size > 0 && is_space(span.at[0])) {
        span.at++;
        span.size--;
    }
    while (span.size > 0 && is_space(span.at[span.size - 1])) {
        span.size--;
    }
    return span;
}

bool cf__span_is(struct cf__span span, const char *word)
{
    return strlen(word) == span.size && strncasecmp(span.at, word, span.size) == 0;
}

bool cf__item_next(struct cf__span *rest, char separator, struct cf__span *out)
{
    return next(rest, separator, true, out);
}

bool cf__tag_next(struct cf__span *rest, struct cf__span *out)
{
    return next(rest, ',', false, out);
}

struct cf__span cf__item_name(struct cf__span item, struct cf__span *out_value)
{
    struct cf__span rest = item;
    struct cf__span name = {item.at, 0};
    struct cf__span value;

    (void)next(&rest, '=', true, &name);
    value = rest.at != NULL ? cf__span_trim(rest) : rest;
    if (value.at != NULL && value.size >= 2 && value.at[0] == '"' &&
        value.at[value.size - 1] == '"') {
        value.at++;
        value.size -= 2;
    }
    *out_value = value;
    return name;
}

int cf__item_weight(struct cf__span item, struct cf__span *out_item)
{
    struct cf__span rest = item;
    struct cf__span param;
    struct cf__span value;
    int weight = CF__WEIGHT_MAX;

    *out_item = item;
    (void)next(&rest, ';', true, out_item);
    while (next(&rest, ';', true, &param)) {
        if (cf__span_is(cf__item_name(param, &value), "q")) {
            int read = read_weight(value);

            weight = read >= 0 ? read : CF__WEIGHT_MAX;
        }
    }
    return weight;
}
