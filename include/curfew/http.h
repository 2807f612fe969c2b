/* SPDX-License-Identifier: MIT */
/* An HTTP/1.1 server whose requests carry a deadline and notice a client that leaves.
 *
 * A server listens on every loop it is given. Each request runs its handler as a fiber, under a
 * context whose deadline is the least of all that were asked for (Request-Timeout-Ms and its
 * aliases, ?timeout=) and the caps of route and server, and which is cancelled when the client hangs
 * up. The context carries the request's trace (trace.h): the client's, by its traceparent, with a span
 * of the server's own, or a new one. A handler that returns an error is answered for with a problem
 * document (RFC 9457). Every reply has an X-Request-Id and a traceparent.
 *
 * Invariant: a request that was accepted is answered exactly once, or its connection is closed; its
 * handler has ended before its memory is gone.
 *
 *     static enum cf_code hello(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
 *     {
 *         (void)ctx;
 *         struct cf_json *json = cf_http_reply_json(http, 200);
 *         cf_json_str(json, "hello");
 *         return CF_OK;
 *     }
 *     static const struct cf_http_route routes[] = {{"GET", "/hello", hello}};
 *
 * Thread safety: servers are made, stopped and freed on a plain thread. A struct cf_http belongs to
 * its request: its handler and the tasks of its groups on the same loop. */
#ifndef CURFEW_HTTP_H
#define CURFEW_HTTP_H

#include <curfew/base.h>
#include <curfew/ctx.h>
#include <curfew/err.h>
#include <curfew/json.h>
#include <curfew/loop.h>
#include <curfew/value.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cf_http_server;
struct cf_trace;

/* Connections beyond connections_max that a loop accepts, only to say that there are too many. */
#define CF_HTTP_SPARE_CONNECTIONS 32

/* Bytes of a streamed reply that may wait for its client, in our memory and, not yet sent, in the
 * kernel's; and room beside them for the last words of a stream that fails. */
#define CF_HTTP_STREAM_SIZE 65536
#define CF_HTTP_STREAM_SPARE 4096

/* A reply is compressed for a client that asks for gzip if it has at least so many bytes, for smaller
 * ones hardly get smaller; and at most so many, for it is done on the loop: at 3 to 5 us a KiB. */
#define CF_HTTP_GZIP_SIZE_MIN 1024
#define CF_HTTP_GZIP_SIZE_MAX ((size_t)128 * 1024)

/* One request and its reply. */
struct cf_http;

/* Answer a request: start one reply (cf_http_reply_...) and return CF_OK, or fail. Runs as a fiber;
 * `ctx` is the request's. `err` is never NULL. */
typedef enum cf_code (*cf_http_handler)(struct cf_ctx *ctx, struct cf_http *http,
                                        struct cf_err *err);

struct cf_http_route {
    const char *method; /* "GET": HEAD comes with it. */
    const char *path;   /* Template: "/v1/users/{id}"; a parameter fills one segment. */
    cf_http_handler handler;
    int64_t timeout_max_ns; /* Cap, and default, of this route. 0: the server's. */
    const char *types;      /* "application/json", or several with commas, of which it may answer
                             * with one: a client that takes none (Accept) gets 406, before the
                             * handler is run. NULL: not looked at. */
    size_t body_size_max;   /* Bytes of a body, in place of the server's limit. 0: that one. */
};

/* What is known of a request when it is answered: for a log line. Borrowed for the call. */
struct cf_http_record {
    const char *method;
    const char *target; /* As it came, escapes and all. */
    const char *route;  /* The template, or "" when none matched. */
    const char *request_id;
    /* Its trace, and the server's span in it (trace.h). */
    const struct cf_trace *trace;
    const char *client;  /* Address, without port; that which a trusted proxy forwarded. */
    int status;          /* 499 if the client had gone. */
    bool is_broken;      /* A stream that failed, or was left, after its status had been sent. */
    size_t body_size;    /* Of a stream: what was handed over for the client. */
    int64_t duration_ns; /* From the head of the request to its reply, or a stream's end. */
    int64_t timeout_ns;  /* What it was given. */
    const char *timeout_source; /* "Request-Timeout-Ms", "timeout", ..., or "default". */
    struct cf_cause cause;      /* Why its context ended; CF_REASON_NONE if it did not. */
    enum cf_code code;          /* How the handler ended. */
    const struct cf_err *err;   /* What it said, if it failed. */
};

struct cf_http_options {
    const char *listen;                 /* "127.0.0.1:8080", "[::1]:8080"; port 0: any. Copied. */
    const struct cf_http_route *routes; /* Borrowed until the server is freed. */
    size_t n_routes;
    void *app;                  /* For cf_http_app(). */
    int64_t timeout_default_ns; /* Of a request that asks for none. 0: 5 s. */
    int64_t timeout_max_ns;     /* Of any request. 0: 60 s. */
    bool route_caps_win;        /* A route's cap holds also where it is longer than this. */
    int64_t idle_timeout_ns;    /* A connection that says nothing is closed. 0: 60 s. */
    int64_t head_timeout_ns;    /* For a whole head, then 408, a quarter late at most. 0: 10 s. */
    int64_t body_timeout_ns;    /* The same for a body, from the end of its head. 0: 30 s. */
    int64_t send_timeout_ns;    /* For a client to take a whole reply, then closed; of a stream,
                                 * each CF_HTTP_STREAM_SIZE bytes that wait for it. 0: 30 s. */
    size_t connections_max;     /* Of the server; more get 503, and are closed. 0: 10,000. */
    size_t in_flight_max;       /* Requests; more get 503. 0: 8,192. */
    size_t head_size_max;       /* Of a request, as the server counts; more gets 431. 0: 14 KiB. */
    size_t target_size_max;     /* Bytes of path and query; more get 414. 0: 8 KiB. */
    size_t fields_max;          /* Headers of a request; more get 431. 0: 100. */
    size_t body_size_max;       /* Bytes; more get 413. 0: 1 MiB. */
    size_t bodies_size_max;     /* Bytes of all bodies that are kept; more get 503. A loop has its
                                 * share, and room for one of the largest. 0: 64 MiB. */
    size_t gzip_size_min;       /* A reply of JSON or text from so many bytes */
    size_t gzip_size_max;       /* to so many is compressed, if its client asks for gzip. 0: as
                                 * CF_HTTP_GZIP_SIZE_...; of the first, SIZE_MAX: none is. */
    bool half_close_allowed;    /* A client that shuts down its sending side has not gone. */

    /* Connections of one client (an IPv4 address, an IPv6 /64), over all loops; more get 429, and
     * are closed. Behind a trusted proxy: its requests at once. 0: as many as there are. */
    size_t connections_per_address_max;

    /* Addresses and networks, "10.0.0.0/8, ::1", of proxies whose X-Forwarded-For and Forwarded say
     * who the client is: the last address in there that is not one of these. Copied. NULL: none. */
    const char *trusted_proxies;

    /* Names that a Host may have beside localhost and any address, "curfew, curfew.internal"; others
     * get 421. Keeps web pages away that have their own name resolved to this machine. Borrowed
     * until the server is freed. NULL: any Host is served. */
    const char *hosts;

    /* Called on a loop once a request was answered or given up. Must not wait. May be NULL. */
    void (*on_done)(void *arg, const struct cf_http_record *record);
    void *arg;
};

struct cf_http_stats {
    size_t connections; /* Open now. */
    size_t in_flight;   /* Requests whose handler has not ended. */
    uint64_t requests;  /* Since the start. */
};

/* Life cycle */

/* Bind, listen and serve on `loops`, which must outlive the server.
 *
 * Ownership: the caller owns *out: cf_http_server_stop(), then cf_http_server_free().
 * Fails with CF_EINVAL (address, route), CF_ECONFLICT (another process listens there), CF_EIO,
 * CF_ENOMEM. */
CF_API CF_MUST enum cf_code cf_http_server_new(const struct cf_http_options *options,
                                               struct cf_loop *const *loops, size_t n_loops,
                                               struct cf_http_server **out, struct cf_err *err);

/* Stop: serve what the kernel has accepted, refuse new connections, answer with Connection: close;
 * after `grace_ns` cancel what still runs (cause shutdown) and wait for its handlers. Idempotent.
 * Blocks: until the last request was answered. Call from: a plain thread. */
CF_API void cf_http_server_stop(struct cf_http_server *server, int64_t grace_ns);

/* Cut a cf_http_server_stop() short that runs on another thread: its grace ends now. */
CF_API void cf_http_server_hurry(struct cf_http_server *server);

/* Free a server that was stopped. NULL is allowed. */
CF_API void cf_http_server_free(struct cf_http_server *server);

/* The port it listens on. */
CF_API uint16_t cf_http_server_port(const struct cf_http_server *server);

CF_API void cf_http_server_stats(const struct cf_http_server *server, struct cf_http_stats *out);

/* Request: strings live as long as the request. */

CF_API void *cf_http_app(const struct cf_http *http);
CF_API const char *cf_http_method(const struct cf_http *http);
CF_API const char *cf_http_path(const struct cf_http *http); /* Decoded. */

/* The client's X-Request-Id, if it sent one of A-Z a-z 0-9 . _ ~ + / = - and at most 128; else the id of
 * the request's trace. */
CF_API const char *cf_http_request_id(const struct cf_http *http);

/* The first header of that name (in any case), or NULL. */
CF_API const char *cf_http_header(const struct cf_http *http, const char *name);

/* Whether the client has what `etag` ("\"1a2b\"") stands for: its If-None-Match names it, or the gzip
 * of it, which is sent as "\"1a2b-gzip\"". */
CF_API bool cf_http_has_etag(const struct cf_http *http, const char *etag);

/* Whether the request is meant for what `etag`, a strong one, stands for: its If-Match names it, or the
 * gzip of it, or is "*". Without one it is false. */
CF_API bool cf_http_matches(const struct cf_http *http, const char *etag);

/* Whether the client would take a gzip, by its Accept-Encoding, and likes nothing better. */
CF_API bool cf_http_takes_gzip(const struct cf_http *http);

/* How old an answer from a cache may be, by the request's Cache-Control (no-cache, no-store,
 * max-age): 0 for none at all. CF_NEVER: it does not say. */
CF_API int64_t cf_http_age_max_ns(const struct cf_http *http);

/* Whether the client wants what is stored, or nothing (only-if-cached, RFC 9111 5.2.1.7): what is not
 * there is then cf_http_fail_as() 504. */
CF_API bool cf_http_only_if_cached(const struct cf_http *http);

/* How much the client wants a reply of `type` ("text/csv"), by its Accept: from 0, not at all, to 1,000. */
CF_API int cf_http_accepts(const struct cf_http *http, const char *type);

/* The decoded segment that filled `{name}`: asserted to be in the route's template. */
CF_API const char *cf_http_param(const struct cf_http *http, const char *name);

/* The decoded value of the query argument, or NULL. */
CF_API const char *cf_http_query(const struct cf_http *http, const char *name);

/* As numbers from `min` to `max`; a query argument that is absent gives `fallback`.
 * Fail with CF_EINVAL, naming the parameter and what would be right. */
CF_API CF_MUST enum cf_code cf_http_param_i64(const struct cf_http *http, const char *name,
                                              int64_t min, int64_t max, int64_t *out,
                                              struct cf_err *err);
CF_API CF_MUST enum cf_code cf_http_query_i64(const struct cf_http *http, const char *name,
                                              int64_t min, int64_t max, int64_t fallback,
                                              int64_t *out, struct cf_err *err);
CF_API CF_MUST enum cf_code cf_http_query_f64(const struct cf_http *http, const char *name,
                                              double min, double max, double fallback, double *out,
                                              struct cf_err *err);

/* What came with a POST, PUT or PATCH, and its size, if `out_size` is not NULL; terminated; "" if
 * there is none. Lives as long as the handler runs. With other methods it is read and dropped. */
CF_API const char *cf_http_body(const struct cf_http *http, size_t *out_size);

/* The body as JSON: json_t of <jansson.h>. No name twice in an object, at most 64 levels.
 *
 * Ownership: the caller owns *out: json_decref().
 * Fails with CF_EINVAL, saying where; CF_ENOMEM. */
struct json_t;
CF_API CF_MUST enum cf_code cf_http_body_json(const struct cf_http *http, struct json_t **out,
                                              struct cf_err *err);

/* Memory that lives as long as the request; zeroed. NULL when there is none. */
CF_API void *cf_http_alloc(struct cf_http *http, size_t size);

/* Reply */

/* Start a reply of JSON, and return its writer. The last call wins; a failing handler's reply is
 * replaced by a problem document. Never NULL: lack of memory shows when the reply is sent (503). */
CF_API struct cf_json *cf_http_reply_json(struct cf_http *http, int status);

/* Start a reply of plain text (copied). */
CF_API void cf_http_reply_text(struct cf_http *http, int status, const char *text);

/* Start a reply of bytes that are there already and that others may be sending too: `data`, which lies
 * in `value` and is not copied. `type` is static. With 304 they are what is not sent, and counted in
 * Content-Length. Keeps a reference to `value`. */
CF_API void cf_http_reply_shared(struct cf_http *http, int status, const char *type,
                                 const void *data, size_t size, struct cf_value *value);

/* Give the shared reply that was started the gzip of its `data`, which is sent to a client that takes
 * one: so that it is not compressed for each. Keeps a reference to `value`. */
CF_API void cf_http_reply_gzip(struct cf_http *http, const void *data, size_t size,
                               struct cf_value *value);

/* Compress something for that, as well as can be: to keep it. The same becomes the same.
 * Ownership: copies `data`; the caller owns a reference, *out: cf_value_unref().
 * Blocks: never, but works for some 15 us a KiB, and 50 to begin with. Fails with CF_ENOMEM. */
CF_API CF_MUST enum cf_code cf_http_gzip(const void *data, size_t size, struct cf_value **out,
                                         struct cf_err *err);

/* Start a reply whose body comes piece by piece, by cf_http_stream_write(), until the handler returns:
 * chunked, or for HTTP/1.0 up to the end of the connection. `type` (its Content-Type) is static.
 *
 * Nothing is sent before something is written, so a handler that fails until then is answered for as
 * any other. After that its failure breaks the stream: what it has written is still sent, but no end,
 * so that the client can tell. One that returns CF_OK has written the whole, even past its deadline.
 * `status` has a body: not 204, 205 or 304. */
CF_API void cf_http_reply_stream(struct cf_http *http, int status, const char *type);

/* Write more of the stream: sent as soon as the loop comes to it. One fiber at a time (asserted).
 *
 * Ownership: borrows `data` (copied).
 * Blocks: while CF_HTTP_STREAM_SIZE bytes wait for the client, or until `ctx` is done.
 * Fails with CF_ECANCELED (the client has gone, ...), CF_EDEADLINE, CF_ECLOSED (nobody reads: the
 * connection has ended, or the method is HEAD), CF_ENOMEM. A part may have been written. */
CF_API CF_MUST enum cf_code cf_http_stream_write(struct cf_ctx *ctx, struct cf_http *http,
                                                 const void *data, size_t size, struct cf_err *err);

/* Write all or nothing, without waiting and whatever the context: for the last words of a stream that
 * fails. CF_HTTP_STREAM_SPARE bytes always have room once. False: no room, or nobody reads. */
CF_API bool cf_http_stream_try_write(struct cf_http *http, const void *data, size_t size);

/* Add a header to the reply (name static, value copied), also to a problem document. Not once a
 * stream was written to (asserted). An ETag is that of the plain; a Content-Encoding means that the
 * handler has compressed by itself. */
CF_API void cf_http_reply_header(struct cf_http *http, const char *name, const char *value);

/* Have the failure with which the handler ends now told as `status`, 403, 406, 412, 415, 422, 428, or
 * 504 (only-if-cached; all asserted), instead of what `code` stands for, unless its context has ended,
 * too. Returns `code`. */
CF_API enum cf_code cf_http_fail_as(struct cf_http *http, int status, enum cf_code code);

/* Seconds that a client should wait before it tries again, for a 503: sets Retry-After. */
CF_API void cf_http_retry_after(struct cf_http *http, int64_t retry_ns);

/* Add an entry to Server-Timing ("pool", 800,000 ns). `name` is a static token. */
CF_API void cf_http_timing(struct cf_http *http, const char *name, int64_t took_ns);

/* Add an entry that is no time ("cache", "hit"). Both are static tokens. */
CF_API void cf_http_timing_note(struct cf_http *http, const char *name, const char *note);

/* The status that stands for a failure whose context ended for `reason`: the one place that maps. */
CF_API int cf_http_status(enum cf_code code, enum cf_reason reason);

#ifdef __cplusplus
}
#endif

#endif
