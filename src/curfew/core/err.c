/* SPDX-License-Identifier: MIT */
/* Errors as values: see err.h.
 *
 * The message is one fixed buffer that grows to the left: wrapping moves what is there and writes
 * the prefix before it. What does not fit is cut at the end, where the innermost, least useful text
 * for a reader stands; the fields keep what a program needs. */
#include <curfew/err.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Internal helpers */

/* How much of `text` fits into `size` bytes without cutting a UTF-8 sequence. */
static size_t fit(const char *text, size_t size)
{
    size_t length = strlen(text);

    if (length <= size) {
        return length;
    }
    while (size > 0 && ((unsigned char)text[size] & 0xC0) == 0x80) {
        size--;
    }
    return size;
}

/* Print into a buffer of CF_ERR_MSG_SIZE bytes. What does not fit is cut,
 * but between characters. */
static void CF_PRINTF(2, 0) print(char *out, const char *format, va_list args)
{
    size_t end = CF_ERR_MSG_SIZE - 1;
    size_t start = end;
    unsigned char lead;

    if (vsnprintf(out, CF_ERR_MSG_SIZE, format, args) < CF_ERR_MSG_SIZE) {
        return;
    }
    do { /* To the last leading byte, which says how many should follow. */
        start--;
    } while (start > end - 4 && ((unsigned char)out[start] & 0xC0) == 0x80);
    lead = (unsigned char)out[start];
    if (start + (lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1) > end) {
        out[start] = '\0';
    }
}

/* Put "prefix: " before the message, or make it the message if there is none. */
static void prepend(struct cf_err *err, const char *prefix)
{
    char inner[CF_ERR_MSG_SIZE];
    size_t n = fit(prefix, CF_ERR_MSG_SIZE - 1);
    size_t n_inner;

    memcpy(inner, err->msg, sizeof(inner));
    memcpy(err->msg, prefix, n);
    if (inner[0] != '\0' && n + 2 < CF_ERR_MSG_SIZE - 1) {
        memcpy(err->msg + n, ": ", 2);
        n += 2;
        n_inner = fit(inner, CF_ERR_MSG_SIZE - 1 - n);
        memcpy(err->msg + n, inner, n_inner);
        n += n_inner;
    }
    err->msg[n] = '\0';
}

static void clear(struct cf_err *err, enum cf_code code)
{
    memset(err, 0, offsetof(struct cf_err, msg));
    err->code = code;
    err->cause = CF_OK;
    err->msg[0] = '\0';
}

/* Operations */

enum cf_code cf_err_set(struct cf_err *err, enum cf_code code, const char *format, ...)
{
    va_list args;

    if (err != NULL) {
        clear(err, code);
        va_start(args, format);
        print(err->msg, format, args);
        va_end(args);
    }
    return code;
}

enum cf_code cf_err_set_sys(struct cf_err *err, enum cf_code code, int sys, const char *format, ...)
{
    char prefix[CF_ERR_MSG_SIZE];
    char text[CF_ERR_MSG_SIZE];
    va_list args;

    if (err != NULL) {
        clear(err, code);
        err->sys = sys;
        va_start(args, format);
        print(prefix, format, args);
        va_end(args);
        (void)snprintf(err->msg, sizeof(err->msg), "%s", strerror_r(sys, text, sizeof(text)));
        prepend(err, prefix);
    }
    return code;
}

enum cf_code cf_err_wrap(struct cf_err *err, enum cf_code code, const char *format, ...)
{
    char prefix[CF_ERR_MSG_SIZE];
    va_list args;

    if (err != NULL) {
        CF_ASSERT(err->code == code);
        va_start(args, format);
        print(prefix, format, args);
        va_end(args);
        prepend(err, prefix);
    }
    return code;
}

enum cf_code cf_err_recode(struct cf_err *err, enum cf_code code)
{
    if (err != NULL) {
        if (err->cause == CF_OK) {
            err->cause = err->code;
        }
        err->code = code;
    }
    return code;
}

enum cf_code cf_err_phase(struct cf_err *err, enum cf_code code, const char *phase)
{
    if (err != NULL) {
        CF_ASSERT(err->code == code);
        err->phase = phase;
    }
    return code;
}

enum cf_code cf_err_retry_after(struct cf_err *err, enum cf_code code, int64_t retry_after_ns)
{
    if (err != NULL) {
        CF_ASSERT(err->code == code);
        err->retry_after_ns = retry_after_ns;
    }
    return code;
}

/* Queries */

bool cf_err_is(const struct cf_err *err, enum cf_code code)
{
    return err->code == code || (err->cause != CF_OK && err->cause == code);
}

const char *cf_code_name(enum cf_code code)
{
    switch (code) {
#define CF_CODE_NAME(symbol, name, text)                                                           \
    case symbol:                                                                                   \
        return name;
        CF_CODES(CF_CODE_NAME)
#undef CF_CODE_NAME
    }
    return "unknown";
}

const char *cf_code_text(enum cf_code code)
{
    switch (code) {
#define CF_CODE_TEXT(symbol, name, text)                                                           \
    case symbol:                                                                                   \
        return text;
        CF_CODES(CF_CODE_TEXT)
#undef CF_CODE_TEXT
    }
    return "unknown error";
}

/* Of base.h: here, because it is the one thing that everything may use. */
void cf_assert_failed(const char *expr, const char *file, int line)
{
    (void)fprintf(stderr, "curfew: %s:%d: assertion failed: %s\n", file, line, expr);
    abort();
}
