/* SPDX-License-Identifier: MIT */
/* The head of a request: what matters of it, read in one pass, and whether it may be served.
 *
 * Thread safety: values. */
#ifndef CURFEW_HTTP_FILTER_H
#define CURFEW_HTTP_FILTER_H

#include <microhttpd.h>

#include "curfew/http/deadline.h"
#include "curfew/http/problem.h"
#include "curfew/http/router.h"
#include "curfew/http/verbatim.h"

struct cf__head {
    enum cf__method method;
    bool needs_host; /* HTTP/1.1 and later. */
    unsigned n_hosts;
    unsigned n_lengths;
    unsigned n_encodings;
    unsigned n_tracestates;
    unsigned n_traceparents;
    const char *traceparent; /* The last of them, or NULL. */

    size_t size; /* With what libmicrohttpd notes of each header in the same memory. */
    size_t n_fields;
    const char *request_id;     /* The client's, or NULL. */
    const char *host;           /* The same. */
    bool has_bad_name;          /* Of a header: no token. */
    bool has_bad_value;         /* Of a header: with a control character. */
    enum cf__verbatim verbatim; /* Whether it is what came. */
    bool is_chunked;            /* Every Transfer-Encoding is exactly "chunked". */
    uint64_t length;            /* Of the body, if it is said. */
    struct cf__deadline deadline;

    uint64_t length_max; /* What is served. */
    size_t size_max;     /* The same, as are all below: see cf__head_limit(). */
    size_t fields_max;
    size_t target_size; /* Of the request. */
    size_t target_size_max;
    const char *hosts; /* As cf_http_options has them. */
};

/* Why a request is not served. */
struct cf__refusal {
    enum cf__problem_kind kind;
    const char *detail;
};

/* Read the head of libmicrohttpd's request into *head, whose strings live as long as that.
 * Fails with CF_EINVAL if the deadline is malformed; the rest of *head is good even then. */
CF_MUST enum cf_code cf__head_read(struct cf__head *head, struct MHD_Connection *mhd,
                                   const char *method, const char *version, uint64_t length_max,
                                   struct cf_err *err);

/* Set what is served beside the length of a body, of a request with so long a target. */
void cf__head_limit(struct cf__head *head, const struct cf_http_options *options,
                    size_t target_size);

/* The first rule that the head breaks, or NULL. */
const struct cf__refusal *cf__head_refusal(const struct cf__head *head);

#endif
