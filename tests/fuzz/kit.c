/* SPDX-License-Identifier: MIT */
/* What fuzz targets share: see kit.h. */
#include "kit.h"

#include <jansson.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef CF_FUZZ
#include <check.h>
#endif

#define PATTERNS_MAX 8

void fuzz_failed(const char *file, int line, const char *promise)
{
#ifdef CF_FUZZ
    (void)fprintf(stderr, "%s:%d: not so: %s\n", file, line, promise);
#else
    ck_abort_msg("%s:%d: not so: %s", file, line, promise);
#endif
    abort();
}

char *fuzz_string(const uint8_t *data, size_t size)
{
    size_t length = size > 0 ? strnlen((const char *)data, size) : 0;
    char *text = malloc(length + 1);

    FUZZ_CHECK(text != NULL);
    if (length > 0) {
        memcpy(text, data, length);
    }
    text[length] = '\0';
    return text;
}

bool fuzz_is_utf8(const char *text, size_t size)
{
    json_t *string = json_stringn(text, size);

    json_decref(string);
    return string != NULL;
}

bool fuzz_has_control(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7F) {
            return true;
        }
    }
    return false;
}

fuzz_wide fuzz_digits(const char *text, const char **out_end)
{
    const fuzz_wide most = (fuzz_wide)1000000000000000 * 100000000000000;
    fuzz_wide value = 0;

    for (; *text >= '0' && *text <= '9'; text++) {
        value = value * 10 + (*text - '0');
        value = value < most ? value : most;
    }
    *out_end = text;
    return value;
}

bool fuzz_matches(const char *pattern, const char *text)
{
    static struct {
        const char *pattern;
        regex_t compiled;
    } known[PATTERNS_MAX];
    size_t i = 0;

    while (i < PATTERNS_MAX && known[i].pattern != NULL && known[i].pattern != pattern) {
        i++;
    }
    FUZZ_CHECK(i < PATTERNS_MAX);
    if (known[i].pattern == NULL) {
        FUZZ_CHECK(regcomp(&known[i].compiled, pattern, REG_EXTENDED | REG_NOSUB) == 0);
        known[i].pattern = pattern;
    }
    return regexec(&known[i].compiled, text, 0, NULL, 0) == 0;
}
