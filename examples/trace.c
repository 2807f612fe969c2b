/* SPDX-License-Identifier: MIT */
/* A trace goes through two services: the one that is asked carries it in its context, its client
 * sends it on, and the other, behind it, finds itself in the same trace. */
#include <stdio.h>
#include <string.h>

#include <curfew/client.h>
#include <curfew/http.h>
#include <curfew/trace.h>

/* What came with the message that the first one works on. */
#define TRACEPARENT "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
#define TRACESTATE "congo=t61rcWkgMzE"

struct front {
    struct cf_client *client;
    char url[64];
    enum cf_code code;
    struct cf_err err;
};

static void log_line(struct cf_ctx *ctx, const char *who)
{
    const struct cf_trace *trace = cf_ctx_trace(ctx);

    printf("%s: trace_id=%s flags=%02x state=%s, %s\n", who, trace->trace_id, trace->flags,
           trace->state,
           strstr(TRACEPARENT, trace->span_id) != NULL ? "the caller's span" : "a span of its own");
}

static enum cf_code behind(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    (void)err;
    log_line(ctx, "behind");
    cf_http_reply_text(http, 200, "done");
    return CF_OK;
}

static enum cf_code ask_behind(struct cf_ctx *ctx, struct front *front, struct cf_err *err)
{
    struct cf_client_request request = {.url = front->url};
    struct cf_client_reply *reply;
    enum cf_code code = cf_client_do(ctx, front->client, &request, &reply, err);

    if (code == CF_OK) {
        printf("front: %d %s\n", reply->status, reply->body);
        cf_client_reply_free(reply);
    }
    return code;
}

/* As a fiber: what a consumer of messages would do, where there is no HTTP server to do it. */
static void handle_message(void *arg)
{
    struct front *front = arg;
    struct cf_trace trace;
    struct cf_ctx *ctx;

    if (cf_trace_read(TRACEPARENT, TRACESTATE, &trace)) {
        cf_trace_child(&trace, &trace);
    } else {
        cf_trace_init(&trace);
    }
    front->code = cf_ctx_with_trace(cf_ctx_background(), &trace, &ctx, &front->err);
    if (front->code == CF_OK) {
        log_line(ctx, "front");
        front->code = ask_behind(ctx, front, &front->err);
        cf_ctx_free(ctx);
    }
}

int main(void)
{
    static const struct cf_http_route routes[] = {{"GET", "/", behind, 0, NULL, 0}};
    struct cf_http_options options = {.listen = "127.0.0.1:0", .routes = routes, .n_routes = 1};
    struct cf_client_options to = {.tells_trace = true};
    struct cf_http_server *server = NULL;
    struct cf_loop *loop = NULL;
    struct front front = {.client = NULL};

    front.code = cf_loop_new(NULL, &loop, &front.err);
    if (front.code == CF_OK) {
        front.code = cf_http_server_new(&options, &loop, 1, &server, &front.err);
    }
    if (front.code == CF_OK) {
        (void)snprintf(front.url, sizeof(front.url), "http://127.0.0.1:%u",
                       cf_http_server_port(server));
        to.allow = front.url; /* A rule that names this service alone. */
        front.code = cf_client_new(&to, &loop, 1, &front.client, &front.err);
    }
    if (front.code == CF_OK) {
        enum cf_code code = cf_loop_call(loop, handle_message, &front, &front.err);

        front.code = code != CF_OK ? code : front.code;
    }
    if (front.code != CF_OK) {
        fprintf(stderr, "%s\n", front.err.msg);
    }
    cf_client_free(front.client);
    if (server != NULL) {
        cf_http_server_stop(server, CF_SECOND);
    }
    cf_http_server_free(server);
    cf_loop_free(loop);
    return front.code == CF_OK ? 0 : 1;
}
