/* SPDX-License-Identifier: MIT */
/* An HTTP/1.1 server whose requests carry a deadline and notice a client that leaves.
 *
 * A server listens on every loop it is given. Each request runs its handler as a fiber, under a
 * context whose deadline is the least of those the client asked for (Request-Timeout-Ms and its
 * aliases, ?timeout=) and the caps of route and server. It is cancelled when the client hangs up,
 * and carries the request's trace (trace.h): the client's, by its traceparent, with a span of the
 * server's own, or a new one. If a handler returns an error, the reply is a problem document
 * (RFC 9457). Every reply has an X-Request-Id and a traceparent.
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
 * its request: to its handler, and to the tasks of its groups on the same loop. */
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

/* Connections beyond connections_max that a loop accepts, only to answer 503. */
#define CF_HTTP_SPARE_CONNECTIONS 32

/* Bytes of a streamed reply that may wait for the client, in our memory and, unsent, in the
 * kernel's; and additional room for the last words of a stream that fails. */
#define CF_HTTP_STREAM_SIZE 65536
#define CF_HTTP_STREAM_SPARE 4096

/* A reply is compressed for a client that accepts gzip if it has at least this many bytes, because
 * smaller ones gain little, and at most this many, because it is done on the loop: 3 to 5 us a
 * KiB. */
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
    const char *types;      /* "application/json", or several with commas, one of which it answers
                             * with: a client that accepts none of them gets 406, and the handler
                             * does not run. NULL: Accept is ignored. */
    size_t body_size_max;   /* Bytes of a body, in place of the server's limit. 0: that limit. */
};

/* What is known about a request when it is answered: for a log line. Borrowed for the call. */
struct cf_http_record {
    const char *method;
    const char *target; /* As received, with its escapes. */
    const char *route;  /* The template, or "" when none matched. */
    const char *request_id;
    const struct cf_trace *trace; /* Its trace, and the server's span in it (trace.h). */
    const char *client;  /* Address, without port; the one that a trusted proxy forwarded. */
    int status;          /* 499 if the client had gone. */
    bool is_broken;      /* A stream that failed, or lost its client, after its status was sent. */
    size_t body_size;    /* Of a stream: the bytes handed over for the client. */
    int64_t duration_ns; /* From the head of the request to its reply, or a stream's end. */
    int64_t timeout_ns;  /* Its deadline, from its head; CF_NEVER: refused before it had one. */
    const char *timeout_source; /* "Request-Timeout-Ms", "timeout", ..., or "default". */
    struct cf_cause cause;      /* Why its context ended; CF_REASON_NONE if it did not. */
    enum cf_code code;          /* How the handler ended. */
    const struct cf_err *err;   /* Its error, if it failed. */
};

struct cf_http_options {
    const char *listen;                 /* "127.0.0.1:8080", "[::1]:8080"; port 0: any. Copied. */
    const struct cf_http_route *routes; /* Borrowed until the server is freed. */
    size_t n_routes;
    void *app;                  /* For cf_http_app(). */
    int64_t timeout_default_ns; /* Deadline of a request that sets none. 0: 5 s. */
    int64_t timeout_max_ns;     /* Longest deadline of any request. 0: 60 s. */
    bool route_caps_win;        /* A route's cap may be longer than timeout_max_ns. */
    int64_t idle_timeout_ns;    /* An idle connection is closed after this. 0: 60 s. */
    int64_t head_timeout_ns;    /* To receive a head; then 408, up to a quarter late. 0: 10 s. */
    int64_t body_timeout_ns;    /* To receive a body, from the end of its head. 0: 30 s. */
    int64_t send_timeout_ns;    /* For a client to read a whole reply, or CF_HTTP_STREAM_SIZE bytes
                                 * of a stream that wait for it; then it is closed. 0: 30 s. */
    size_t connections_max;     /* Client connections; more get 503 and are closed. 0: 10,000. */
    size_t in_flight_max;       /* Requests at once; more get 503. 0: 8,192. */
    size_t head_size_max;       /* Bytes, counting 64 per header; larger get 431. 0: 14 KiB. */
    size_t target_size_max;     /* Bytes of path and query; longer get 414. 0: 8 KiB. */
    size_t fields_max;          /* Headers per request; more get 431. 0: 100. */
    size_t body_size_max;       /* Bytes of a body; larger get 413. 0: 1 MiB. */
    size_t bodies_size_max;     /* Bytes of all bodies in memory; beyond it, 503. Each loop has its
                                 * share, and room for one of the largest. 0: 64 MiB. */
    size_t gzip_size_min;       /* The smallest and */
    size_t gzip_size_max;       /* the largest reply of JSON or text to compress, if its client
                                 * accepts gzip. 0: CF_HTTP_GZIP_SIZE_...; min SIZE_MAX: none. */
    bool half_close_allowed;    /* A client that shuts down its sending side has not gone. */

    /* Connections per client (an IPv4 address, an IPv6 /64), over all loops; more get 429 and are
     * closed. Behind a trusted proxy: its requests at once. 0: no limit. */
    size_t connections_per_address_max;

    /* Addresses and networks, "10.0.0.0/8, ::1", of proxies whose X-Forwarded-For and Forwarded are
     * believed: the client is the last address in there that is not one of these. Copied. NULL:
     * none. */
    const char *trusted_proxies;

    /* Names that a Host may have besides localhost and IP addresses, "curfew, curfew.internal";
     * others get 421. Protects against web pages whose own name is made to resolve to this machine.
     * Borrowed until the server is freed. NULL: any Host is served. */
    const char *hosts;

    /* Called on a loop once a request was answered or abandoned. Must not wait. May be NULL. */
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
 * Blocks: for a turn of each loop.
 * Fails with CF_EINVAL (address, route), CF_ECONFLICT (another process listens there), CF_EIO,
 * CF_ENOMEM. Call from: a plain thread. */
CF_API CF_MUST enum cf_code cf_http_server_new(const struct cf_http_options *options,
                                               struct cf_loop *const *loops, size_t n_loops,
                                               struct cf_http_server **out, struct cf_err *err);

/* Stop: serve the connections that the kernel has accepted, refuse new ones, and reply with
 * Connection: close; after `grace_ns` cancel what still runs (cause shutdown) and wait for its
 * handlers. Idempotent.
 * Blocks: until the last request was answered. Call from: a plain thread. */
CF_API void cf_http_server_stop(struct cf_http_server *server, int64_t grace_ns);

/* End the grace period of a cf_http_server_stop() on another thread now. Never blocks. */
CF_API void cf_http_server_hurry(struct cf_http_server *server);

/* Free a server that was stopped. NULL is allowed. */
CF_API void cf_http_server_free(struct cf_http_server *server);

/* The port it listens on. */
CF_API uint16_t cf_http_server_port(const struct cf_http_server *server);

/* Sums over all loops, each read at its own instant. Any thread. */
CF_API void cf_http_server_stats(const struct cf_http_server *server, struct cf_http_stats *out);

/* Whether an option has the form that cf_http_options says, to be asked before a server is made:
 * its `listen`, of which no name is resolved; its `trusted_proxies`; its `hosts`.
 * Fails with CF_EINVAL, CF_ENOMEM. */
CF_API CF_MUST enum cf_code cf_http_listen_check(const char *listen, struct cf_err *err);
CF_API CF_MUST enum cf_code cf_http_proxies_check(const char *trusted_proxies, struct cf_err *err);
CF_API CF_MUST enum cf_code cf_http_hosts_check(const char *hosts, struct cf_err *err);

/* Request: strings live as long as the request. None of these blocks. */

/* The `app` of the server's options. */
CF_API void *cf_http_app(const struct cf_http *http);

/* The method, "HEAD" too where the route is that of GET. */
CF_API const char *cf_http_method(const struct cf_http *http);

/* The path, decoded and without the query. */
CF_API const char *cf_http_path(const struct cf_http *http);

/* The client's X-Request-Id if it was valid, at most 128 characters, else the id of the request's
 * trace. */
CF_API const char *cf_http_request_id(const struct cf_http *http);

/* The first header of that name (in any case), or NULL. */
CF_API const char *cf_http_header(const struct cf_http *http, const char *name);

/* Whether the client has a current copy: its If-None-Match names `etag` ("\"1a2b\""), or the gzip
 * of that, which is sent as "\"1a2b-gzip\"". */
CF_API bool cf_http_has_etag(const struct cf_http *http, const char *etag);

/* Whether the request is meant for the version with `etag`, a strong one: its If-Match names that,
 * or the gzip of it, or is "*". False without If-Match. */
CF_API bool cf_http_matches(const struct cf_http *http, const char *etag);

/* Whether the client's Accept-Encoding accepts gzip, and prefers nothing else. */
CF_API bool cf_http_takes_gzip(const struct cf_http *http);

/* How old an answer from a cache may be by the request's Cache-Control (no-cache, no-store,
 * max-age): 0 if it must be new, CF_NEVER if any age will do. */
CF_API int64_t cf_http_age_max_ns(const struct cf_http *http);

/* Whether the client wants a cached answer or none (only-if-cached, RFC 9111 5.2.1.7); if there is
 * none, fail with cf_http_fail_as() and 504. */
CF_API bool cf_http_only_if_cached(const struct cf_http *http);

/* How acceptable a reply of `type` ("text/csv") is by the client's Accept: from 0, not at all, to
 * 1,000. */
CF_API int cf_http_accepts(const struct cf_http *http, const char *type);

/* The decoded segment that matched `{name}`, which must be in the route's template (asserted). */
CF_API const char *cf_http_param(const struct cf_http *http, const char *name);

/* The decoded value of the query argument, or NULL. */
CF_API const char *cf_http_query(const struct cf_http *http, const char *name);

/* The same as numbers from `min` to `max`; an absent query argument gives `fallback`.
 * Fail with CF_EINVAL, naming the parameter and the range. */
CF_API CF_MUST enum cf_code cf_http_param_i64(const struct cf_http *http, const char *name,
                                              int64_t min, int64_t max, int64_t *out,
                                              struct cf_err *err);
CF_API CF_MUST enum cf_code cf_http_query_i64(const struct cf_http *http, const char *name,
                                              int64_t min, int64_t max, int64_t fallback,
                                              int64_t *out, struct cf_err *err);
CF_API CF_MUST enum cf_code cf_http_query_f64(const struct cf_http *http, const char *name,
                                              double min, double max, double fallback, double *out,
                                              struct cf_err *err);

/* The body of a POST, PUT or PATCH, and its size if `out_size` is not NULL. Terminated; "" if there
 * is none. Lives as long as the handler runs. The body of any other method is dropped. */
CF_API const char *cf_http_body(const struct cf_http *http, size_t *out_size);

/* The body as JSON: json_t of <jansson.h>. A name that is twice in an object, and more than 64
 * levels, are refused. The first one puts the library between jansson and its allocator, to learn
 * where that fails; set another allocator before.
 *
 * Ownership: the caller owns *out: json_decref().
 * Fails with CF_EINVAL, saying where; CF_ENOMEM. */
struct json_t;
CF_API CF_MUST enum cf_code cf_http_body_json(const struct cf_http *http, struct json_t **out,
                                              struct cf_err *err);

/* Zeroed memory that lives as long as the request. NULL if there is none. */
CF_API void *cf_http_alloc(struct cf_http *http, size_t size);

/* Reply */

/* Start a JSON reply, and return its writer. The last call wins; if the handler fails, a problem
 * document replaces its reply. Never NULL: lack of memory shows when the reply is sent (503). */
CF_API struct cf_json *cf_http_reply_json(struct cf_http *http, int status);

/* Start a plain text reply (copied). */
CF_API void cf_http_reply_text(struct cf_http *http, int status, const char *text);

/* Start a reply of existing bytes that others may be sending too: `data`, which is inside `value`
 * and is not copied. `type` is static. With status 304 they are not sent, but counted in
 * Content-Length. Keeps a reference to `value`. */
CF_API void cf_http_reply_shared(struct cf_http *http, int status, const char *type,
                                 const void *data, size_t size, struct cf_value *value);

/* Add to the shared reply the gzip of its `data`, for clients that accept it, so that it need not
 * be compressed for each. Keeps a reference to `value`. */
CF_API void cf_http_reply_gzip(struct cf_http *http, const void *data, size_t size,
                               struct cf_value *value);

/* Compress something for that as well as possible, to keep it. Deterministic. Never blocks, but
 * takes some 15 us a KiB, and 50 to begin with.
 * Ownership: copies `data`; the caller owns a reference, *out: cf_value_unref().
 * Fails with CF_ENOMEM. */
CF_API CF_MUST enum cf_code cf_http_gzip(const void *data, size_t size, struct cf_value **out,
                                         struct cf_err *err);

/* Start a reply whose body is written piece by piece with cf_http_stream_write() until the handler
 * returns: chunked, or for HTTP/1.0 up to the end of the connection. `type` (its Content-Type) is
 * static.
 *
 * Nothing is sent before the first write, so the failure of a handler until then is answered as any
 * other. After that its failure breaks the stream: what it has written is still sent, but not the
 * end, so that the client can tell. If it returns CF_OK the stream is complete, even after the
 * deadline. `status` must have a body: not 204, 205 or 304 (asserted). */
CF_API void cf_http_reply_stream(struct cf_http *http, int status, const char *type);

/* Append to the stream; sent as soon as the loop gets to it. One fiber at a time (asserted).
 *
 * Ownership: borrows `data` (copied).
 * Blocks: while CF_HTTP_STREAM_SIZE bytes wait for the client, or until `ctx` is done.
 * Fails with CF_ECANCELED (the client has gone, ...), CF_EDEADLINE, CF_ECLOSED (nobody reads: the
 * connection has ended, or the method is HEAD), CF_ENOMEM. A part may have been written. */
CF_API CF_MUST enum cf_code cf_http_stream_write(struct cf_ctx *ctx, struct cf_http *http,
                                                 const void *data, size_t size, struct cf_err *err);

/* Append all or nothing, without waiting and whatever the context: for the last words of a stream
 * that fails. There is room for CF_HTTP_STREAM_SPARE bytes once. False: no room, or nobody
 * reads. */
CF_API bool cf_http_stream_try_write(struct cf_http *http, const void *data, size_t size);

/* Add a header to the reply (name static, value copied), also to a problem document, where those
 * that describe a body (ETag, Cache-Control, ...) are left out. Not after the first write to a
 * stream (asserted). An empty value, or one with a control character, makes the reply a 500. An
 * ETag is that of the plain reply; Content-Encoding says that the handler has compressed the body
 * itself. */
CF_API void cf_http_reply_header(struct cf_http *http, const char *name, const char *value);

/* Have the failure with which the handler now ends answered with `status`, 403, 406, 412, 415, 422,
 * 428 or 504 (only-if-cached; any other is asserted), instead of the status of `code`, unless its
 * context has ended as well. Returns `code`. */
CF_API enum cf_code cf_http_fail_as(struct cf_http *http, int status, enum cf_code code);

/* How long a client should wait before it tries again, for a 503: sets Retry-After. */
CF_API void cf_http_retry_after(struct cf_http *http, int64_t retry_ns);

/* Add an entry to Server-Timing ("pool", 800,000 ns). `name` is a static token. Entries that do not
 * fit into 256 bytes in all are left out. */
CF_API void cf_http_timing(struct cf_http *http, const char *name, int64_t took_ns);

/* The same for a word instead of a time ("cache", "hit"). Both are static tokens. */
CF_API void cf_http_timing_note(struct cf_http *http, const char *name, const char *note);

/* The status of a failure whose context ended for `reason`: the one place that maps. */
CF_API int cf_http_status(enum cf_code code, enum cf_reason reason);

#ifdef __cplusplus
}
#endif

#endif
