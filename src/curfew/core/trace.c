/* SPDX-License-Identifier: MIT */
/* Traces: see trace.h, and W3C Trace Context levels 1 and 2 for the grammar.
 *
 * Ids are kept as text: nobody computes with them, and they come, go and are logged in hex. What a
 * traceparent of a higher version has behind its first 55 characters is not for us to know.
 *
 * A tracestate is not taken apart: whoever adds no member of its own has to hand on the list as it
 * came. It is looked at only to tell whether it is a list, in one pass. That a key stands there
 * once is the business of who wrote it. */
#include <curfew/trace.h>

#include <stdint.h>
#include <string.h>

#include "curfew/core/ctx_private.h"
#include "curfew/core/ids.h"

/* Constants and types */

#define TRACE_ID_DIGITS (CF_TRACE_ID_SIZE - 1)
#define SPAN_ID_DIGITS (CF_SPAN_ID_SIZE - 1)

/* version "-" trace-id "-" parent-id "-" trace-flags */
#define TRACE_ID_AT 3
#define SPAN_ID_AT (TRACE_ID_AT + TRACE_ID_DIGITS + 1)
#define FLAGS_AT (SPAN_ID_AT + SPAN_ID_DIGITS + 1)
#define TRACEPARENT_LENGTH (CF_TRACEPARENT_SIZE - 1)

#define FLAGS_KNOWN (CF_TRACE_SAMPLED | CF_TRACE_RANDOM)

/* Of a member of a tracestate. */
#define KEY_SIZE_MAX 256
#define VALUE_SIZE_MAX 256

static const char HEX[] = "0123456789abcdef";
static const char KEY_FIRST[] = "abcdefghijklmnopqrstuvwxyz0123456789";
static const char KEY_REST[] = "abcdefghijklmnopqrstuvwxyz0123456789_-*/@";

static const char trace_key; /* Its address is the key. */

/* Internal helpers: traceparent */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* Without the blanks around it. */
static const char *trim(const char *text, size_t *out_size)
{
    size_t size;

    while (is_blank(*text)) {
        text++;
    }
    size = strlen(text);
    while (size > 0 && is_blank(text[size - 1])) {
        size--;
    }
    *out_size = size;
    return text;
}

static bool is_hex(const char *text, size_t size)
{
    bool good = true;

    for (size_t i = 0; i < size; i++) {
        good = good && ((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f'));
    }
    return good;
}

static bool is_id(const char *text, size_t size)
{
    return is_hex(text, size) && strspn(text, "0") < size;
}

static unsigned char hex_value(char digit)
{
    return (unsigned char)(strchr(HEX, digit) - HEX);
}

/* Whether what has the length of a traceparent, or more, is one. */
static bool is_traceparent(const char *text, size_t size)
{
    bool is_00 = strncmp(text, "00", 2) == 0;

    return is_hex(text, 2) && strncmp(text, "ff", 2) != 0 && text[TRACE_ID_AT - 1] == '-' &&
           is_id(text + TRACE_ID_AT, TRACE_ID_DIGITS) && text[SPAN_ID_AT - 1] == '-' &&
           is_id(text + SPAN_ID_AT, SPAN_ID_DIGITS) && text[FLAGS_AT - 1] == '-' &&
           is_hex(text + FLAGS_AT, 2) &&
           (size == TRACEPARENT_LENGTH || (!is_00 && text[TRACEPARENT_LENGTH] == '-'));
}

/* Internal helpers: tracestate */

/* A member's value: spaces and visible characters, but no equals sign. */
static bool is_value(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] < ' ' || text[i] > '~' || text[i] == '=') {
            return false;
        }
    }
    return size > 0 && size <= VALUE_SIZE_MAX;
}

/* "key=value", with blanks around it; or nothing but those. */
static bool is_member(const char *text, size_t size)
{
    size_t key_size;

    while (size > 0 && is_blank(text[0])) {
        text++;
        size--;
    }
    while (size > 0 && is_blank(text[size - 1])) {
        size--;
    }
    if (size == 0) {
        return true;
    }
    key_size = strspn(text, KEY_REST);
    return strchr(KEY_FIRST, text[0]) != NULL && key_size <= KEY_SIZE_MAX && key_size < size &&
           text[key_size] == '=' && is_value(text + key_size + 1, size - key_size - 1);
}

static bool is_tracestate(const char *text)
{
    size_t members = 0;
    bool more = strlen(text) <= CF_TRACESTATE_SIZE_MAX;
    bool good = more;

    while (good && more) {
        size_t size = strcspn(text, ",");

        good = is_member(text, size) && ++members <= CF_TRACESTATE_MEMBERS_MAX;
        more = text[size] == ',';
        text += size + 1;
    }
    return good;
}

/* Life cycle */

void cf_trace_init(struct cf_trace *out)
{
    cf__id_write(TRACE_ID_DIGITS / CF__ID_DIGITS, out->trace_id);
    cf__id_write(SPAN_ID_DIGITS / CF__ID_DIGITS, out->span_id);
    out->flags = CF_TRACE_RANDOM;
    out->state = "";
}

enum cf_code cf_ctx_with_trace(struct cf_ctx *parent, const struct cf_trace *trace,
                               struct cf_ctx **out, struct cf_err *err)
{
    /* Not written to: a value only lacks the const. */
    return cf_ctx_with_value(parent, &trace_key, (void *)(uintptr_t)trace, out, err);
}

void cf__ctx_carry_trace(struct cf_ctx *ctx, const struct cf_trace *trace)
{
    cf__ctx_carry(ctx, &trace_key, (void *)(uintptr_t)trace);
}

/* Operations */

bool cf_trace_read(const char *traceparent, const char *tracestate, struct cf_trace *out)
{
    size_t size = 0;
    const char *text = traceparent != NULL ? trim(traceparent, &size) : "";

    if (size < TRACEPARENT_LENGTH || !is_traceparent(text, size)) {
        return false;
    }
    memcpy(out->trace_id, text + TRACE_ID_AT, TRACE_ID_DIGITS);
    memcpy(out->span_id, text + SPAN_ID_AT, SPAN_ID_DIGITS);
    out->trace_id[TRACE_ID_DIGITS] = '\0';
    out->span_id[SPAN_ID_DIGITS] = '\0';
    out->flags = hex_value(text[FLAGS_AT + 1]) & FLAGS_KNOWN;
    out->state = tracestate != NULL && is_tracestate(tracestate) ? tracestate : "";
    return true;
}

void cf_trace_write(const struct cf_trace *trace, char out[CF_TRACEPARENT_SIZE])
{
    memcpy(out, "00-", TRACE_ID_AT);
    memcpy(out + TRACE_ID_AT, trace->trace_id, TRACE_ID_DIGITS);
    out[SPAN_ID_AT - 1] = '-';
    memcpy(out + SPAN_ID_AT, trace->span_id, SPAN_ID_DIGITS);
    out[FLAGS_AT - 1] = '-';
    out[FLAGS_AT] = '0';
    out[FLAGS_AT + 1] = HEX[trace->flags & FLAGS_KNOWN];
    out[TRACEPARENT_LENGTH] = '\0';
}

void cf_trace_child(const struct cf_trace *parent, struct cf_trace *out)
{
    if (out != parent) {
        *out = *parent;
    }
    cf__id_write(SPAN_ID_DIGITS / CF__ID_DIGITS, out->span_id);
}

/* Queries */

const struct cf_trace *cf_ctx_trace(const struct cf_ctx *ctx)
{
    return cf_ctx_value(ctx, &trace_key);
}
