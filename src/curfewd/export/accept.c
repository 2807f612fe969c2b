/* SPDX-License-Identifier: MIT */
/* Accept: see accept.h. */
#include "curfewd/export/accept.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

#define QUALITY_MAX 1000

/* Internal helpers */

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

/* Cut what is blank off both ends. */
static void trim(const char **text, size_t *size)
{
    while (*size > 0 && is_space((*text)[0])) {
        (*text)++;
        (*size)--;
    }
    while (*size > 0 && is_space((*text)[*size - 1])) {
        (*size)--;
    }
}

/* "0.25" as 250, "1" as 1000; -1 for what is no weight. */
static int read_weight(const char *text, size_t size)
{
    int value;

    if (size == 0 || size > 5 || (text[0] != '0' && text[0] != '1') ||
        (size > 1 && text[1] != '.')) {
        return -1;
    }
    value = text[0] == '1' ? QUALITY_MAX : 0;
    for (size_t i = 2, unit = QUALITY_MAX / 10; i < size; i++, unit /= 10) {
        if (text[i] < '0' || text[i] > '9') {
            return -1;
        }
        value += (text[i] - '0') * (int)unit;
    }
    return value <= QUALITY_MAX ? value : -1;
}

/* How closely a range matches: 3 "text/csv", 2 "text/" and a star, 1 two stars, 0 not at all. */
static int closeness(const char *range, size_t size, const char *type)
{
    size_t n_major = strcspn(type, "/") + 1;

    if (size == strlen(type) && strncasecmp(range, type, size) == 0) {
        return 3;
    }
    if (size == n_major + 1 && range[size - 1] == '*' && strncasecmp(range, type, n_major) == 0) {
        return 2;
    }
    return size == 3 && memcmp(range, "*/*", 3) == 0 ? 1 : 0;
}

/* One element: "text/csv; q=0.5". Its closeness, and its weight into *out. */
static int read_element(const char *element, size_t size, const char *type, int *out)
{
    const char *end = element + size;
    const char *at = memchr(element, ';', size);
    size_t n_range = at != NULL ? (size_t)(at - element) : size;

    *out = QUALITY_MAX;
    trim(&element, &n_range);
    while (at != NULL) {
        const char *param = at + 1;
        size_t n;

        at = memchr(param, ';', (size_t)(end - param));
        n = (size_t)((at != NULL ? at : end) - param);
        trim(&param, &n);
        if (n > 2 && (param[0] == 'q' || param[0] == 'Q') && param[1] == '=') {
            int weight = read_weight(param + 2, n - 2);

            *out = weight >= 0 ? weight : QUALITY_MAX;
        }
    }
    return closeness(element, n_range, type);
}

/* Queries */

int accept_quality(const char *accept, const char *type)
{
    int best = 0;
    int quality = 0;

    if (accept == NULL || accept[strspn(accept, " \t,")] == '\0') {
        return QUALITY_MAX;
    }
    while (*accept != '\0') {
        size_t size = strcspn(accept, ",");
        int weight;
        int close = read_element(accept, size, type, &weight);

        if (close > best) {
            best = close;
            quality = weight;
        }
        accept += size + (accept[size] == ',');
    }
    return quality;
}
