/* SPDX-License-Identifier: MIT */
/* Which trace a piece of work belongs to, as W3C Trace Context hands it from service to service.
 *
 * A trace is all the work that one request causes, wherever it is done; a span is one piece of it,
 * and knows by its id who asked for it. Two headers bring both along:
 *
 *     traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
 *     tracestate: congo=t61rcWkgMzE
 *
 * A context carries a trace as it carries any value: there is nothing here that a program could not
 * write with cf_ctx_with_value(). A request of the HTTP server has one (http.h), the HTTP client
 * sends it on (client.h, tells_trace), and a program writes it into its log.
 * Spans are not recorded.
 *
 * Invariant: ids are lowercase hex and never all zeroes. The trace id and what others keep in
 * `state` go on as they came; each piece of work has a span id of its own.
 *
 *     struct cf_trace trace;
 *     if (cf_trace_read(traceparent, tracestate, &trace)) {
 *         cf_trace_child(&trace, &trace);       // a span of ours, in the trace of who asks
 *     } else {
 *         cf_trace_init(&trace);
 *     }
 *     code = cf_ctx_with_trace(parent, &trace, &ctx, err);
 *
 * Thread safety: values, and every function may be called from any thread; none waits. */
#ifndef CURFEW_TRACE_H
#define CURFEW_TRACE_H

#include <curfew/base.h>
#include <curfew/ctx.h>
#include <curfew/err.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Room for an id, or a traceparent, and its NUL. */
#define CF_TRACE_ID_SIZE 33
#define CF_SPAN_ID_SIZE 17
#define CF_TRACEPARENT_SIZE 56

/* A tracestate with more bytes or members is not handed on. */
#define CF_TRACESTATE_SIZE_MAX 512
#define CF_TRACESTATE_MEMBERS_MAX 32

/* Flags. Others are reserved, and not handed on. */
#define CF_TRACE_SAMPLED 0x01U /* Who asks may have recorded its span. */
#define CF_TRACE_RANDOM 0x02U  /* The trace id's last 7 bytes, at least, are random. */

struct cf_trace {
    char trace_id[CF_TRACE_ID_SIZE];
    char span_id[CF_SPAN_ID_SIZE];
    unsigned char flags; /* CF_TRACE_... */
    const char *state;   /* The tracestate. Borrowed; "" if there is none. */
};

/* Life cycle */

/* Begin a trace: new ids, CF_TRACE_RANDOM, and not sampled, for that is up to who records. The ids
 * are random numbers that are unique, not secret. */
CF_API void cf_trace_init(struct cf_trace *out);

/* Make a child that carries `trace`.
 *
 * Ownership: the caller owns *out: cf_ctx_free(). Borrows `trace` and its state for as long as a
 * context that carries them lives.
 * Fails with CF_ENOMEM. */
CF_API CF_MUST enum cf_code cf_ctx_with_trace(struct cf_ctx *parent, const struct cf_trace *trace,
                                              struct cf_ctx **out, struct cf_err *err);

/* Operations */

/* Read both headers; either may be NULL, blanks around them do not matter, and several tracestates
 * are to be joined with commas. False: there is no valid traceparent, and nothing changed. A
 * tracestate that is malformed or beyond its limits is left out.
 *
 * Ownership: out->state is `tracestate`, or "". */
CF_API bool cf_trace_read(const char *traceparent, const char *tracestate, struct cf_trace *out);

/* Write a traceparent, of version 00. */
CF_API void cf_trace_write(const struct cf_trace *trace, char out[CF_TRACEPARENT_SIZE]);

/* Make a span of the same trace, with an id of its own: for what is asked of others, or is worth a
 * line in a log by itself. `out` may be `parent`. */
CF_API void cf_trace_child(const struct cf_trace *parent, struct cf_trace *out);

/* Queries */

/* The trace that the nearest of `ctx` and its ancestors carries, or NULL. That of a request lives
 * as long as its handler runs. */
CF_API const struct cf_trace *cf_ctx_trace(const struct cf_ctx *ctx);

#ifdef __cplusplus
}
#endif

#endif
