/* SPDX-License-Identifier: MIT */
/* The trace of a request, and its id: see trace.h.
 *
 * The ids are copied into the request, and a tracestate into its arena: the handler of a stream may
 * outlive the headers, which are libmicrohttpd's. Where there is no memory for it, it is dropped,
 * for the trace is whole without it. Of several traceparents none is better than the other:
 * all are ignored. */
#include <string.h>

#include "curfew/http/field.h"
#include "curfew/http/server_private.h"

/* Constants and types */

/* All tracestates of a request, joined with commas. */
struct states {
    char text[CF_TRACESTATE_SIZE_MAX + 1];
    size_t size;
    bool is_too_long;
};

/* Internal helpers */

static void take_state(void *arg, const char *value)
{
    struct states *states = arg;
    size_t size = strlen(value);
    size_t comma = states->size > 0;

    if (comma + size > CF_TRACESTATE_SIZE_MAX - states->size) {
        states->is_too_long = true;
        return;
    }
    memcpy(states->text + states->size, ",", comma);
    memcpy(states->text + states->size + comma, value, size);
    states->size += comma + size;
}

/* NULL: there is none, or too much of it. */
static const char *join_states(struct cf_http *http, struct states *states)
{
    if (http->head.n_tracestates == 0) {
        return NULL;
    }
    states->size = 0;
    states->is_too_long = false;
    cf__each_field(http->mhd, "tracestate", take_state, states);
    states->text[states->size] = '\0';
    return states->is_too_long ? NULL : states->text;
}

/* The client's trace, with a span of ours. False: what it sent is none. */
static bool take_over(struct cf_http *http)
{
    struct cf_trace *trace = &http->trace;
    struct states states;

    if (!cf_trace_read(http->head.traceparent, join_states(http, &states), trace)) {
        return false;
    }
    if (trace->state[0] != '\0') {
        trace->state = cf__arena_copy(&http->arena, trace->state, strlen(trace->state));
    }
    if (trace->state == NULL) {
        trace->state = ""; /* Untested: the request's first 4 KiB have room for it. */
    }
    cf_trace_child(trace, trace);
    return true;
}

/* Operations */

void cf__trace_take(struct cf_http *http)
{
    const char *id = http->head.request_id;

    if (http->head.n_traceparents != 1 || !take_over(http)) {
        cf_trace_init(&http->trace);
    }
    if (id == NULL || !cf__request_id_valid(id)) {
        id = http->trace.trace_id;
    }
    memcpy(http->request_id, id, strlen(id) + 1);
}

void cf__trace_make(struct cf_http *http)
{
    cf_trace_init(&http->trace);
    memcpy(http->request_id, http->trace.trace_id, sizeof(http->trace.trace_id));
}
