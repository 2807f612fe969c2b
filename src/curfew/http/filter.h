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

/* Bytes of a head, with what libmicrohttpd notes of each header in the same memory. */
#define CF__HEAD_SIZE_MAX ((size_t)14 * 1024)

struct cf__head {
    enum cf__method method;
    bool needs_host; /* HTTP/1.1 and later. */
    unsigned n_hosts;
    unsigned n_lengths;
    unsigned n_encodings;
    size_t size;            /* As CF__HEAD_SIZE_MAX counts. */
    bool has_bad_name;      /* Of a header: no token. */
    bool has_bad_value;     /* Of a header: with a control character. */
    bool is_chunked;        /* Every Transfer-Encoding is exactly "chunked". */
    uint64_t length;        /* Of the body, if it is said. */
    uint64_t length_max;    /* What is served. */
    const char *request_id; /* The client's, or NULL. */
    struct cf__deadline deadline;
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

/* The first rule that the head breaks, or NULL. */
const struct cf__refusal *cf__head_refusal(const struct cf__head *head);

#endif
