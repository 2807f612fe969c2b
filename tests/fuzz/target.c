/* SPDX-License-Identifier: MIT */
/* The decoder of targets. Input: a target, as a client could send it. */
#include "curfew/http/target.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kit.h"

/* The oracle: the whole target is decoded in one go, which cannot tell where a piece ends, but does
 * tell whether any of it is bad. */
static bool is_good(const char *raw)
{
    size_t length = strlen(raw);
    char *decoded = malloc(length + 1);
    const char *query = strchr(raw, '?');
    size_t n = 0;
    size_t n_args = 1;
    bool good = raw[0] == '/' && strchr(raw, ' ') == NULL;

    FUZZ_CHECK(decoded != NULL);
    for (size_t i = 0; i < length; i++) {
        n_args += query != NULL && raw + i > query && raw[i] == '&';
        if (raw[i] != '%') {
            decoded[n++] = raw[i];
        } else if (isxdigit((unsigned char)raw[i + 1]) && isxdigit((unsigned char)raw[i + 2])) {
            char digits[] = {raw[i + 1], raw[i + 2], '\0'};

            decoded[n++] = (char)strtoul(digits, NULL, 16);
            i += 2;
        } else {
            good = false;
        }
    }
    good =
        good && n_args <= CF__ARGS_MAX && !fuzz_has_control(decoded, n) && fuzz_is_utf8(decoded, n);
    free(decoded);
    return good;
}

static void expect_plain(const char *text, size_t size)
{
    FUZZ_CHECK(!fuzz_has_control(text, size));
    FUZZ_CHECK(fuzz_is_utf8(text, size));
}

/* Write text as escapes throughout. Returns its end. */
static char *escape(char *to, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        to += sprintf(to, "%%%02x", (unsigned char)text[i]);
    }
    return to;
}

/* The path is the segments with slashes before them, as far as they are kept. */
static void check_path(const struct cf__target *target)
{
    size_t n = target->n_segments;
    size_t at = 0;

    FUZZ_CHECK(n > 0);
    expect_plain(target->path, strlen(target->path));
    for (size_t i = 0; i < n && i < CF__SEGMENTS_MAX; i++) {
        FUZZ_CHECK(target->path[at] == '/');
        FUZZ_CHECK(target->segments[i].text == target->path + at + 1);
        at += 1 + target->segments[i].size;
    }
    FUZZ_CHECK(n > CF__SEGMENTS_MAX ? target->path[at] == '/' : target->path[at] == '\0');
}

static void check_args(const struct cf__target *target)
{
    FUZZ_CHECK(target->n_args <= CF__ARGS_MAX);
    for (size_t i = 0; i < target->n_args; i++) {
        const char *found = cf__target_arg(target, target->args[i].name);
        size_t first = 0;

        expect_plain(target->args[i].name, strlen(target->args[i].name));
        expect_plain(target->args[i].value, strlen(target->args[i].value));
        while (strcmp(target->args[first].name, target->args[i].name) != 0) {
            first++;
        }
        FUZZ_CHECK(found == target->args[first].value);
    }
}

/* What was decoded, escaped and decoded again, is the same. */
static void check_again(const struct cf__target *target, size_t length)
{
    /* Each byte makes three, and what has no '=' gets one. */
    char *raw = malloc(4 * length + 8);
    char *at = raw;
    char first[512];
    struct cf__arena arena;
    struct cf__target again;

    FUZZ_CHECK(raw != NULL);
    for (size_t i = 0; i < target->n_segments; i++) {
        *at++ = '/';
        at = escape(at, target->segments[i].text, target->segments[i].size);
    }
    for (size_t i = 0; i < target->n_args; i++) {
        *at++ = i == 0 ? '?' : '&';
        at = escape(at, target->args[i].name, strlen(target->args[i].name));
        *at++ = '=';
        at = escape(at, target->args[i].value, strlen(target->args[i].value));
    }
    *at = '\0';
    cf__arena_init(&arena, first, 0);
    FUZZ_CHECK(cf__target_decode(raw, &arena, &again, NULL) == CF_OK);
    FUZZ_CHECK(strcmp(again.path, target->path) == 0);
    FUZZ_CHECK(again.n_segments == target->n_segments);
    FUZZ_CHECK(again.n_args == target->n_args);
    for (size_t i = 0; i < again.n_segments; i++) {
        FUZZ_CHECK(again.segments[i].size == target->segments[i].size);
    }
    for (size_t i = 0; i < again.n_args; i++) {
        FUZZ_CHECK(strcmp(again.args[i].name, target->args[i].name) == 0);
        FUZZ_CHECK(strcmp(again.args[i].value, target->args[i].value) == 0);
    }
    cf__arena_fini(&arena);
    free(raw);
}

FUZZ_TARGET(target)
{
    char *raw = fuzz_string(data, size);
    struct cf_err err = {.code = CF_OK};
    struct cf__target target;
    struct cf__arena arena;
    char first[512];
    enum cf_code code;

    cf__arena_init(&arena, first, 0); /* Every piece from the heap: ASan sees its end. */
    code = cf__target_decode(raw, &arena, &target, &err);
    FUZZ_CHECK((code == CF_OK) == is_good(raw));
    if (code == CF_OK) {
        check_path(&target);
        check_args(&target);
        if (target.n_segments <= CF__SEGMENTS_MAX) {
            check_again(&target, strlen(raw));
        }
    } else {
        FUZZ_CHECK(code == CF_EINVAL);
        expect_plain(err.msg, strlen(err.msg));
        FUZZ_CHECK(err.msg[0] != '\0');
    }
    cf__arena_fini(&arena);
    free(raw);
    return 0;
}
