/* SPDX-License-Identifier: MIT */
/* Traces: what the HTTP client tells of its context's, and whom. */
#include "client_kit.h"

#include <stdio.h>
#include <string.h>

#include <curfew/trace.h>

#include "peer.h"

#define REDIRECT(to) "HTTP/1.1 302 Found\r\nLocation: " to "\r\nContent-Length: 0\r\n\r\n"

/* Helpers */

#define TRACE_ID "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN_ID "00f067aa0ba902b7"
#define TRACEPARENT "00-" TRACE_ID "-" SPAN_ID "-01"

/* A request under a context that carries a trace. */
static struct job do_traced(const char *state, struct cf_client_header *headers, size_t n_headers)
{
    struct cf_client_request request = {.url = url, .headers = headers, .n_headers = n_headers};
    struct cf_trace trace;
    struct cf_ctx *ctx;
    struct job job;

    ck_assert(cf_trace_read(TRACEPARENT, state, &trace));
    ck_assert_int_eq(cf_ctx_with_trace(cf_ctx_background(), &trace, &ctx, NULL), CF_OK);
    job = do_request(request, ctx);
    cf_ctx_free(ctx);
    if (job.code == CF_OK) {
        cf_client_reply_free(job.reply);
    }
    return job;
}

/* The trace that `from` was told of, which has to be told once. Its state ends with a line. */
static struct cf_trace told_trace(struct peer *from)
{
    static char traceparent[CF_TRACEPARENT_SIZE];
    const char *request = peer_request(from);
    const char *at = strstr(request, "\r\ntraceparent: ");
    const char *state = strstr(request, "\r\ntracestate: ");
    struct cf_trace trace;

    ck_assert_msg(at != NULL, "no trace in %s", request);
    ck_assert_ptr_null(strcasestr(at + 2, "\r\ntraceparent"));
    at += strlen("\r\ntraceparent: ");
    ck_assert_uint_eq(strcspn(at, "\r"), CF_TRACEPARENT_SIZE - 1);
    memcpy(traceparent, at, CF_TRACEPARENT_SIZE - 1);
    ck_assert(cf_trace_read(traceparent, NULL, &trace));
    trace.state = state != NULL ? state + strlen("\r\ntracestate: ") : "\r";
    return trace;
}

/* cf_client_do */

START_TEST(do_tells_the_trace_with_a_span_of_its_own)
{
    struct cf_trace first;
    struct cf_trace second;

    use_peer(OK_REPLY, PEER_KEEP);
    use_client((struct cf_client_options){.tells_trace = true});
    expect_code(do_traced("rojo=1,congo=t61rcWkgMzE", NULL, 0), CF_OK);
    first = told_trace(peer);
    ck_assert_str_eq(first.trace_id, TRACE_ID);
    ck_assert_str_ne(first.span_id, SPAN_ID);
    ck_assert_uint_eq(first.flags, CF_TRACE_SAMPLED);
    ck_assert_int_eq(strncmp(first.state, "rojo=1,congo=t61rcWkgMzE\r", 25), 0);
    expect_code(do_traced(NULL, NULL, 0), CF_OK);
    second = told_trace(peer);
    ck_assert_str_eq(second.trace_id, TRACE_ID);
    ck_assert_str_ne(second.span_id, first.span_id);
    ck_assert_ptr_null(strstr(peer_request(peer), "tracestate"));
}
END_TEST

START_TEST(do_tells_no_trace_that_is_not_there)
{
    struct job job;

    use_peer(OK_REPLY, PEER_KEEP);
    use_client((struct cf_client_options){.tells_trace = true});
    job = get(url);
    expect_code(job, CF_OK);
    cf_client_reply_free(job.reply);
    ck_assert_ptr_null(strstr(peer_request(peer), "trace"));
}
END_TEST

START_TEST(do_tells_no_trace_unless_told_to)
{
    use_peer(OK_REPLY, PEER_KEEP);
    use_client((struct cf_client_options){.tells_budget = true});
    expect_code(do_traced("congo=t61rcWkgMzE", NULL, 0), CF_OK);
    ck_assert_ptr_null(strstr(peer_request(peer), "trace"));
}
END_TEST

START_TEST(do_tells_the_trace_of_its_request_if_it_has_one)
{
    struct cf_client_header parent = {"TraceParent", "00-" TRACE_ID "-0000000000000001-00"};
    struct cf_client_header state = {"tracestate", "own=1"};

    use_peer(OK_REPLY, PEER_KEEP);
    use_client((struct cf_client_options){.tells_trace = true});
    expect_code(do_traced("congo=t61rcWkgMzE", &parent, 1), CF_OK);
    ck_assert_ptr_nonnull(
        strstr(peer_request(peer), "\r\nTraceParent: 00-" TRACE_ID "-0000000000000001-00\r\n"));
    ck_assert_ptr_null(
        strstr(peer_request(peer), "traceparent")); /* Nor a state, which belongs to */
    ck_assert_ptr_null(strstr(peer_request(peer), "tracestate")); /* the one that is not told. */
    expect_code(do_traced("congo=t61rcWkgMzE", &state, 1), CF_OK);
    ck_assert_int_eq(strncmp(told_trace(peer).state, "own=1\r", 6), 0);
    ck_assert_ptr_null(strstr(peer_request(peer), "congo"));
}
END_TEST

/* Not read from a header, where it would have been dropped. */
START_TEST(do_refuses_a_trace_that_would_forge)
{
    struct cf_trace trace;
    struct cf_ctx *ctx;
    struct job job;

    use_peer(OK_REPLY, PEER_KEEP);
    use_client((struct cf_client_options){.tells_trace = true});
    cf_trace_init(&trace);
    trace.state = "a=1\r\nX-C: d";
    ck_assert_int_eq(cf_ctx_with_trace(cf_ctx_background(), &trace, &ctx, NULL), CF_OK);
    job = do_request((struct cf_client_request){.url = url}, ctx);
    expect_code(job, CF_EINVAL);
    cf_ctx_free(ctx);
    ck_assert_int_eq(peer_accepted(peer), 0);
}
END_TEST

/* The trace goes on to another path, and not to another port; nor does one of the caller's own. */
START_TEST(do_follows_with_the_trace_to_the_same_origin_only)
{
    struct cf_client_header own = {"traceparent", TRACEPARENT};
    struct peer *target = peer_new(OK_REPLY, PEER_KEEP);
    char rules[128];
    char reply[160];

    (void)snprintf(reply, sizeof(reply), REDIRECT(HERE "%u/new"), peer_port(target));
    use_peer(reply, PEER_KEEP);
    (void)snprintf(rules, sizeof(rules), HERE "%u " HERE "%u", peer_port(peer), peer_port(target));
    use_client((struct cf_client_options){
        .allow = rules, .redirects_max = 1, .tells_trace = true, .tells_budget = true});
    for (size_t n = 0; n < 2; n++) {
        expect_code(do_traced("congo=t61rcWkgMzE", &own, n), CF_OK);
        ck_assert_str_eq(told_trace(peer).trace_id, TRACE_ID);
        ck_assert_ptr_null(strcasestr(peer_request(target), "trace"));
        ck_assert_int_eq(peer_requests(target), (int)n + 1);
    }
    peer_free(target);
    peer_free(peer);
    cf_client_free(client);
    use_peer(REDIRECT("/again"), PEER_KEEP);
    use_client((struct cf_client_options){.redirects_max = 2, .tells_trace = true});
    expect_code(do_traced(NULL, NULL, 0), CF_ELIMIT);
    ck_assert_ptr_nonnull(strstr(peer_request(peer), "GET /again "));
    ck_assert_str_eq(told_trace(peer).trace_id, TRACE_ID);
}
END_TEST

Suite *suite_client_trace(void)
{
    Suite *suite = suite_create("client_trace");
    TCase *tc = add_client_case(suite, "do");

    tcase_add_test(tc, do_tells_the_trace_with_a_span_of_its_own);
    tcase_add_test(tc, do_tells_no_trace_that_is_not_there);
    tcase_add_test(tc, do_tells_no_trace_unless_told_to);
    tcase_add_test(tc, do_tells_the_trace_of_its_request_if_it_has_one);
    tcase_add_test(tc, do_refuses_a_trace_that_would_forge);
    tcase_add_test(tc, do_follows_with_the_trace_to_the_same_origin_only);
    return suite;
}
