/* SPDX-License-Identifier: MIT */
/* From method and path to a route.
 *
 * A template is a path whose segments are literals or "{name}", which any one segment that is not
 * empty fills. Where several templates match, the one with a literal further to the left wins.
 *
 * HEAD is served by the route of GET; OPTIONS is answered from the table.
 *
 * Invariant: two routes that would match the same requests are refused when the router is made.
 *
 * Thread safety: constant after new. */
#ifndef CURFEW_HTTP_ROUTER_H
#define CURFEW_HTTP_ROUTER_H

#include <curfew/http.h>

#include "curfew/http/target.h"

/* Parameters of one template. */
#define CF__PARAMS_MAX 8

/* Room for every method's name in an Allow header. */
#define CF__ALLOW_SIZE 64

/* The methods we know; a set of them is an or of these. X(symbol, bit). */
#define CF__METHODS(X)                                                                             \
    X(GET, 0)                                                                                      \
    X(HEAD, 1)                                                                                     \
    X(POST, 2)                                                                                     \
    X(PUT, 3)                                                                                      \
    X(PATCH, 4)                                                                                    \
    X(DELETE, 5)                                                                                   \
    X(OPTIONS, 6)                                                                                  \
    X(TRACE, 7)                                                                                    \
    X(CONNECT, 8)

enum cf__method {
    CF__UNKNOWN_METHOD = 0,
#define CF__METHOD_ENUM(name, bit) CF__##name = 1 << (bit),
    CF__METHODS(CF__METHOD_ENUM)
#undef CF__METHOD_ENUM
};

struct cf__route_param {
    const char *name; /* Inside the template: ends at `size`. */
    size_t size;
    size_t segment; /* Which segment of the path fills it. */
};

struct cf__route {
    const struct cf_http_route *route;
    enum cf__method method;
    size_t n_segments;
    struct cf__segment segments[CF__SEGMENTS_MAX]; /* A parameter has no text. */
    size_t n_params;
    struct cf__route_param params[CF__PARAMS_MAX];
};

struct cf__router;

/* Fails with CF_EINVAL, naming the bad route; CF_ENOMEM. Borrows `routes` until free. */
CF_MUST enum cf_code cf__router_new(const struct cf_http_route *routes, size_t n_routes,
                                    struct cf__router **out, struct cf_err *err);
void cf__router_free(struct cf__router *router);

/* The route for a request. If there is none, NULL, and *out_allowed is the set of methods that the
 * path has: empty if there is no such path. */
const struct cf__route *cf__router_find(const struct cf__router *router, enum cf__method method,
                                        const struct cf__target *target, unsigned *out_allowed);

/* The method of that name (in capitals, as HTTP has it). */
enum cf__method cf__method_of(const char *name);

/* Write a set of methods as the value of Allow: "GET, HEAD, OPTIONS". */
void cf__methods_write(unsigned methods, char out[CF__ALLOW_SIZE]);

#endif
