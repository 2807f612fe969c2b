/* SPDX-License-Identifier: MIT */
/* Trace context. Input: the value of traceparent, a newline, and that of tracestate. */
#include <curfew/trace.h>

#include <stdlib.h>
#include <string.h>

#include "kit.h"

#define SPACE "[ \t]*"
#define ID(digits) "[0-9a-f]{" digits "}"
#define REST "-" ID("32") "-" ID("16") "-" ID("2")

/* The forms, as W3C has them. */
#define FORM_00 "^" SPACE "00" REST SPACE "$"
#define FORM_LATER "^" SPACE ID("2") REST "(-.*)?" SPACE "$"
#define FORM_STATE "^(" MEMBER "(," MEMBER ")*)$"
#define MEMBER SPACE "([a-z0-9][a-z0-9_*/@-]{0,255}=[ -+.-<>-~-]{0,255}[!-+.-<>-~-])?" SPACE

#define TRACE_ID_AT 3
#define SPAN_ID_AT 36

static bool is_zero(const char *text, size_t size)
{
    return strspn(text, "0") >= size;
}

static bool is_traceparent(const char *text)
{
    const char *version = text + strspn(text, " \t");
    bool is_00 = strncmp(version, "00", 2) == 0;

    return fuzz_matches(is_00 ? FORM_00 : FORM_LATER, text) && strncmp(version, "ff", 2) != 0 &&
           !is_zero(version + TRACE_ID_AT, 32) && !is_zero(version + SPAN_ID_AT, 16);
}

static bool is_tracestate(const char *text)
{
    size_t commas = 0;

    for (const char *c = text; *c != '\0'; c++) {
        commas += *c == ',';
    }
    return strlen(text) <= CF_TRACESTATE_SIZE_MAX && commas < CF_TRACESTATE_MEMBERS_MAX &&
           fuzz_matches(FORM_STATE, text);
}

FUZZ_TARGET(trace)
{
    char *text = fuzz_string(data, size);
    char *state = text + strcspn(text, "\n");
    char written[CF_TRACEPARENT_SIZE];
    struct cf_trace trace = {.state = NULL};
    struct cf_trace again;
    bool good;

    if (*state != '\0') {
        *state++ = '\0';
    }
    good = is_traceparent(text);
    FUZZ_CHECK(cf_trace_read(text, state, &trace) == good);
    if (good) {
        const char *version = text + strspn(text, " \t");

        FUZZ_CHECK(strlen(trace.trace_id) == 32 && strlen(trace.span_id) == 16);
        FUZZ_CHECK(strncmp(trace.trace_id, version + TRACE_ID_AT, 32) == 0);
        FUZZ_CHECK(strncmp(trace.span_id, version + SPAN_ID_AT, 16) == 0);
        FUZZ_CHECK(trace.state == state ? is_tracestate(state) : trace.state[0] == '\0');
        FUZZ_CHECK(trace.state == state || !is_tracestate(state));
        cf_trace_write(&trace, written);
        FUZZ_CHECK(cf_trace_read(written, NULL, &again));
        FUZZ_CHECK(strcmp(again.trace_id, trace.trace_id) == 0 && again.flags == trace.flags);
        FUZZ_CHECK(strcmp(again.span_id, trace.span_id) == 0);
    } else {
        FUZZ_CHECK(trace.state == NULL && trace.trace_id[0] == '\0');
    }
    free(text);
    return 0;
}
