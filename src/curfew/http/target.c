/* SPDX-License-Identifier: MIT */
/* Decoding a request's target: see target.h.
 *
 * libmicrohttpd decodes it as well, and is not believed: it cuts the path at %00, keeps bad escapes
 * in one version and empties the argument in the next. Everything here that is not a plain, decoded
 * text ends in an error that says which part of the target and what about it. */
#include "curfew/http/target.h"

#include <string.h>

#include "curfew/http/utf8.h"

/* What is being decoded. */
struct piece {
    const char *part; /* "path", "query": for the error. */
    const char *raw;
    size_t size;
    bool plus_is_space; /* In a query only. */
};

/* Internal helpers */

/* The value of a hexadecimal digit, or -1. */
static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

/* The byte that "%hh" at `at` stands for, or -1. */
static int escape_value(const struct piece *piece, size_t at)
{
    int high = at + 1 < piece->size ? hex_value(piece->raw[at + 1]) : -1;
    int low = at + 2 < piece->size ? hex_value(piece->raw[at + 2]) : -1;

    return high >= 0 && low >= 0 ? high * 16 + low : -1;
}

/* Decode into `out`, which has room for piece->size bytes and a NUL. */
static enum cf_code decode(const struct piece *piece, char *out, size_t *out_size,
                           struct cf_err *err)
{
    size_t n = 0;

    for (size_t i = 0; i < piece->size; i++) {
        unsigned char c = (unsigned char)piece->raw[i];

        if (c == '%') {
            int value = escape_value(piece, i);

            if (value < 0) {
                return cf_err_set(err, CF_EINVAL, "bad escape in the %s: %% wants two hex digits",
                                  piece->part);
            }
            c = (unsigned char)value;
            i += 2;
        } else if (c == ' ') {
            return cf_err_set(err, CF_EINVAL, "space in the %s", piece->part);
        } else if (c == '+' && piece->plus_is_space) {
            c = ' ';
        }
        if (c < 0x20 || c == 0x7F) {
            return cf_err_set(err, CF_EINVAL, "control character %%%02X in the %s", c, piece->part);
        }
        out[n++] = (char)c;
    }
    if (!cf__utf8_valid(out, n)) {
        return cf_err_set(err, CF_EINVAL, "the %s is not UTF-8", piece->part);
    }
    out[n] = '\0';
    *out_size = n;
    return CF_OK;
}

/* Decode "/a/b" segment by segment, putting the slashes back between them. */
static enum cf_code decode_path(const char *raw, size_t size, char *path, struct cf__target *target,
                                struct cf_err *err)
{
    size_t at = 0;
    size_t n = 0;

    target->path = path;
    target->n_segments = 0;
    while (at < size) { /* raw[at] is the slash before the next segment. */
        const char *start = raw + at + 1;
        const char *slash = memchr(start, '/', size - at - 1);
        struct piece piece = {"path", start, 0, false};
        size_t decoded = 0;
        enum cf_code code;

        piece.size = slash != NULL ? (size_t)(slash - start) : size - at - 1;
        path[n++] = '/';
        code = decode(&piece, path + n, &decoded, err);
        if (code != CF_OK) {
            return code;
        }
        if (target->n_segments < CF__SEGMENTS_MAX) {
            target->segments[target->n_segments] = (struct cf__segment){path + n, decoded};
        }
        target->n_segments++;
        n += decoded;
        at += piece.size + 1;
    }
    return CF_OK;
}

/* Decode "name=value" into `text`, which has room for `size` bytes and two NULs. */
static enum cf_code decode_arg(const char *raw, size_t size, char *text, struct cf__arg *arg,
                               struct cf_err *err)
{
    const char *equals = memchr(raw, '=', size);
    size_t n_name = equals != NULL ? (size_t)(equals - raw) : size;
    struct piece name = {"query", raw, n_name, true};
    struct piece value = {"query", raw + size, 0, true};
    size_t n = 0;
    enum cf_code code;

    if (equals != NULL) {
        value.raw = equals + 1;
        value.size = size - n_name - 1;
    }
    code = decode(&name, text, &n, err);
    if (code != CF_OK) {
        return code;
    }
    arg->name = text;
    arg->value = text + n + 1;
    return decode(&value, text + n + 1, &n, err);
}

static size_t count_args(const char *query)
{
    size_t n = 1;

    for (; *query != '\0'; query++) {
        n += *query == '&';
    }
    return n;
}

static enum cf_code decode_query(const char *query, struct cf__arena *arena,
                                 struct cf__target *target, struct cf_err *err)
{
    size_t n_max = count_args(query);
    struct cf__arg *args;

    if (n_max > CF__ARGS_MAX) {
        return cf_err_set(err, CF_EINVAL, "more than %d arguments in the query", CF__ARGS_MAX);
    }
    args = cf__arena_alloc(arena, n_max * sizeof(*args));
    if (args == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for the query");
    }
    target->args = args;
    while (*query != '\0') {
        size_t size = strcspn(query, "&");

        if (size > 0) { /* Nothing between two ampersands is no argument. */
            char *text = cf__arena_alloc(arena, size + 2);
            enum cf_code code;

            if (text == NULL) {
                return cf_err_set(err, CF_ENOMEM, "no memory for the query");
            }
            code = decode_arg(query, size, text, &args[target->n_args], err);
            if (code != CF_OK) {
                return code;
            }
            target->n_args++;
        }
        query += size;
        query += *query == '&';
    }
    return CF_OK;
}

/* Operations */

enum cf_code cf__target_decode(const char *raw, struct cf__arena *arena, struct cf__target *out,
                               struct cf_err *err)
{
    size_t size = strcspn(raw, "?");
    char *path;
    enum cf_code code;

    if (raw[0] != '/') {
        return cf_err_set(err, CF_EINVAL, "the target must be a path that starts with /");
    }
    path = cf__arena_alloc(arena, size + 1);
    if (path == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for the path");
    }
    out->args = NULL;
    out->n_args = 0;
    code = decode_path(raw, size, path, out, err);
    if (code == CF_OK && raw[size] == '?') {
        code = decode_query(raw + size + 1, arena, out, err);
    }
    return code;
}

/* Queries */

const char *cf__target_arg(const struct cf__target *target, const char *name)
{
    for (size_t i = 0; i < target->n_args; i++) {
        if (strcmp(target->args[i].name, name) == 0) {
            return target->args[i].value;
        }
    }
    return NULL;
}
