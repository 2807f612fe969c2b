/* SPDX-License-Identifier: MIT */
/* An HTTP client whose requests end when their context does.
 *
 * cf_client_do() sends one request and waits, parked, for the whole reply. When the context ends it
 * returns at once, and the transfer is aborted. What is left of the deadline can be sent along
 * (Request-Timeout-Ms), less the time of the way back; and so can the trace that the context
 * carries (trace.h), with a new span id for each request.
 *
 * What a client may reach is set when it is made, as a list of rules:
 *
 *     api.example.org                  this host, by http or https, on their usual ports
 *     *.example.org:8443               every host below it, on this port
 *     http://127.0.0.1:9000            this address, by http, on this port
 *     *                                every host, but only on the usual ports; *:8443: on this one
 *     10.0.0.0/8                       no host; but a host that another rule names may have an
 *                                      address in this network, although it is not public
 *
 * A host is checked against the rules for hosts, and the address that it resolves to against those
 * for addresses, where the socket opens: a name that is made to resolve to 127.0.0.1,
 * 169.254.169.254 or a private network gains nothing.
 *
 * Invariant: no byte goes to a host that no rule names, nor to an address that is neither public
 * nor named by a rule. A redirect is checked against both again.
 *
 *     struct cf_client_request request = {.url = "https://api.example.org/v1/prices"};
 *     struct cf_client_reply *reply;
 *     code = cf_client_do(ctx, client, &request, &reply, err);
 *     if (code != CF_OK) { return code; }
 *     printf("%d %.*s\n", reply->status, (int)reply->body_size, reply->body);
 *     cf_client_reply_free(reply);
 *
 * Thread safety: requests on fibers of the client's loops (asserted), life cycle on a plain thread.
 * A reply belongs to one owner. */
#ifndef CURFEW_CLIENT_H
#define CURFEW_CLIENT_H

#include <curfew/base.h>
#include <curfew/ctx.h>
#include <curfew/err.h>
#include <curfew/loop.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cf_client;

struct cf_client_options {
    const char *allow;      /* The rules, separated by commas or spaces, copied. "": nothing. */
    const char *user_agent; /* Copied. NULL: "curfew/" and the version. */
    const char *ca_file;    /* Trusted certificate authorities (PEM), copied. NULL: the system's.
                             * Read once, by cf_client_new(), if a rule allows https. */
    size_t connections_max; /* Per loop; more requests wait for one. 0: 64. */
    size_t host_max;        /* Of those, to one host. 0: 16. */
    size_t body_size_max;   /* Of a reply, in bytes; then CF_ELIMIT. 0: 1 MiB. */
    size_t head_size_max;   /* The same of its head. 0: 64 KiB. */
    int redirects_max;      /* Followed for GET and HEAD; then CF_ELIMIT. 0: none is followed. */
    int64_t timeout_max_ns; /* Of one request, whatever its context allows. 0: 30 s. */
    int64_t connect_timeout_ns; /* Of that, to connect. 0: 5 s. */
    bool tells_budget;          /* Send Request-Timeout-Ms, unless the request has one of its own:
                                 * for your own services. */
    bool tells_trace;           /* Send the context's trace, unless the request has a traceparent of
                                 * its own; never to another origin by a redirect. The same. */
};

struct cf_client_header {
    const char *name;
    const char *value;
};

struct cf_client_request {
    const char *method; /* NULL: GET, or POST with a body. */
    const char *url;    /* http or https, without a user name in it. */
    const struct cf_client_header *headers;
    size_t n_headers;
    const void *body; /* Borrowed until cf_client_do() returns. NULL: none. */
    size_t body_size;
};

/* The fields may be read; all is freed with the reply. */
struct cf_client_reply {
    int status;
    const char *url;  /* Where it came from, after redirects. */
    const char *body; /* Terminated; the terminator is not counted. */
    size_t body_size;
    int64_t took_ns;
};

/* Life cycle */

/* Make a client for fibers of `loops`, which must outlive it.
 *
 * Ownership: the caller owns *out, cf_client_free().
 * Blocks: for a turn of each loop, and while certificates are read.
 * Fails with CF_EINVAL (a rule, or ca_file, named), CF_ENOMEM, CF_EIO.
 * Call from: a plain thread. */
CF_API CF_MUST enum cf_code cf_client_new(const struct cf_client_options *options,
                                          struct cf_loop *const *loops, size_t n_loops,
                                          struct cf_client **out, struct cf_err *err);

/* Close its connections and free it. No request may be running (asserted). NULL is allowed.
 * Blocks: until each loop has let go of it. Call from: a plain thread. */
CF_API void cf_client_free(struct cf_client *client);

/* Free a reply with all its strings. Any thread; NULL is allowed. */
CF_API void cf_client_reply_free(struct cf_client_reply *reply);

/* Operations */

/* Send a request and wait for its whole reply, whatever its status is.
 *
 * Ownership: the caller owns *out, cf_client_reply_free().
 * Blocks: until the reply is there, or `ctx` is done.
 * Fails with CF_ECANCELED, CF_EDEADLINE; CF_EINVAL (malformed, or no rule allows it), CF_EUNAVAIL
 * (no such name, no connection, no trust, no certificates to trust), CF_EIO (the reply is not HTTP,
 * or ended early), CF_ELIMIT; CF_ENOMEM, also when another request of the loop lacked memory. */
CF_API CF_MUST enum cf_code cf_client_do(struct cf_ctx *ctx, struct cf_client *client,
                                         const struct cf_client_request *request,
                                         struct cf_client_reply **out, struct cf_err *err);

/* Queries */

/* The reply's first header of that name (in any case), or NULL. Lives as long as the reply. */
CF_API const char *cf_client_reply_header(const struct cf_client_reply *reply, const char *name);

/* Whether `allow` has the form that cf_client_options says, to be asked before a client is made.
 * Fails with CF_EINVAL (a rule, named), CF_ENOMEM. */
CF_API CF_MUST enum cf_code cf_client_allow_check(const char *allow, struct cf_err *err);

#ifdef __cplusplus
}
#endif

#endif
