/* SPDX-License-Identifier: MIT */
/* The request filter: see filter.h.
 *
 * One table of rules, looked at when libmicrohttpd shows the head and before it reads a body. What
 * it lets through and we refuse (0.9.75, measured): names that are no token ("Content-Length ",
 * which it does not obey and others do); control characters in values; two lengths that differ, of
 * which it takes the first; a length and a Transfer-Encoding together; an encoding that is not
 * exactly "chunked", for whose body it waits for ever; missing and repeated Hosts; any method and
 * target. A reply that is queued this early makes libmicrohttpd close the connection, which is what
 * a request deserves that may have been two.
 *
 * What its parser does not show at all is found by verbatim.c. */
#include "curfew/http/filter.h"

#include <curfew/http.h>

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "curfew/http/field.h"
#include "curfew/http/host.h"

/* What libmicrohttpd notes of a header, or of a cookie, in the memory of the connection. */
#define NOTE_SIZE 64

/* Reading */

struct reading {
    struct cf__head *head;
    enum cf_code code; /* Of the deadline. */
    struct cf_err *err;
};

static bool is_named(const char *want, size_t want_size, const char *name, size_t size)
{
    return want_size == size && strncasecmp(want, name, size) == 0;
}

#define IS_NAMED(want) is_named(want, sizeof(want) - 1, name, size)

static enum MHD_Result read_header(void *arg, enum MHD_ValueKind kind, const char *name,
                                   size_t size, const char *value, size_t value_size)
{
    struct reading *reading = arg;
    struct cf__head *head = reading->head;
    enum cf_code code;

    (void)kind;
    value = value != NULL ? value : "";
    head->has_bad_name = head->has_bad_name || !cf__is_token(name, size);
    head->has_bad_value = head->has_bad_value || !cf__is_field_value(value, value_size);
    head->n_fields++;
    if (IS_NAMED("Host")) {
        head->n_hosts++;
        head->host = value;
    } else if (IS_NAMED("Content-Length")) {
        head->n_lengths++;
        head->length = strtoull(value, NULL, 10); /* libmicrohttpd has seen to its form. */
    } else if (IS_NAMED("Transfer-Encoding")) {
        head->n_encodings++;
        head->is_chunked = head->is_chunked && strcasecmp(value, "chunked") == 0;
    } else if (IS_NAMED("Cookie")) {
        head->size += value_size; /* It is copied to be split. */
    } else if (IS_NAMED("X-Request-Id")) {
        head->request_id = head->request_id != NULL ? head->request_id : value;
    } else if (IS_NAMED("traceparent")) {
        head->n_traceparents++;
        head->traceparent = value;
    } else if (IS_NAMED("tracestate")) {
        head->n_tracestates++;
    } else {
        code = cf__deadline_header(&head->deadline, name, size, value, reading->err);
        reading->code = code != CF_OK ? code : reading->code;
    }
    return MHD_YES;
}

static size_t size_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    int n_notes = MHD_get_connection_values_n(mhd, MHD_HEADER_KIND | MHD_COOKIE_KIND, NULL, NULL);

    return info->header_size + (size_t)n_notes * NOTE_SIZE;
}

enum cf_code cf__head_read(struct cf__head *head, struct MHD_Connection *mhd, const char *method,
                           const char *version, uint64_t length_max, struct cf_err *err)
{
    struct reading reading = {head, CF_OK, err};

    memset(head, 0, sizeof(*head));
    head->method = cf__method_of(method);
    head->needs_host = strcmp(version, MHD_HTTP_VERSION_1_0) != 0;
    head->is_chunked = true;
    head->length_max = length_max;
    head->size = size_of(mhd);
    cf__deadline_init(&head->deadline);
    (void)MHD_get_connection_values_n(mhd, MHD_HEADER_KIND, read_header, &reading);
    return reading.code;
}

void cf__head_limit(struct cf__head *head, const struct cf_http_options *options,
                    size_t target_size)
{
    head->size_max = options->head_size_max;
    head->fields_max = options->fields_max;
    head->target_size = target_size;
    head->target_size_max = options->target_size_max;
    head->hosts = options->hosts;
}

/* Rules */

static bool has_altered_line(const struct cf__head *head)
{
    return head->verbatim == CF__LINE_ALTERED;
}

static bool is_altered(const struct cf__head *head)
{
    return head->verbatim != CF__VERBATIM;
}

static bool has_bad_name(const struct cf__head *head)
{
    return head->has_bad_name;
}

static bool has_bad_value(const struct cf__head *head)
{
    return head->has_bad_value;
}

static bool has_length_and_encoding(const struct cf__head *head)
{
    return head->n_lengths > 0 && head->n_encodings > 0;
}

static bool has_several_lengths(const struct cf__head *head)
{
    return head->n_lengths > 1;
}

static bool has_other_encoding(const struct cf__head *head)
{
    return head->n_encodings > 1 || !head->is_chunked;
}

static bool lacks_host(const struct cf__head *head)
{
    return head->needs_host && head->n_hosts == 0;
}

static bool has_several_hosts(const struct cf__head *head)
{
    return head->n_hosts > 1;
}

static bool has_unknown_method(const struct cf__head *head)
{
    return head->method == CF__UNKNOWN_METHOD;
}

static bool has_unserved_method(const struct cf__head *head)
{
    return head->method == CF__TRACE || head->method == CF__CONNECT;
}

static bool is_too_large(const struct cf__head *head)
{
    return head->length > head->length_max;
}

static bool is_head_too_large(const struct cf__head *head)
{
    return head->size > head->size_max;
}

static bool has_too_many_fields(const struct cf__head *head)
{
    return head->n_fields > head->fields_max;
}

static bool has_long_target(const struct cf__head *head)
{
    return head->target_size > head->target_size_max;
}

static bool is_misdirected(const struct cf__head *head)
{
    return head->hosts != NULL && head->host != NULL && !cf__host_is_ours(head->host, head->hosts);
}

/* In the order in which they are tried: first what leaves no room for a reply, then what makes the
 * end of the request uncertain. */
static const struct {
    bool (*is_broken)(const struct cf__head *head);
    struct cf__refusal refusal;
} rules[] = {
    {is_head_too_large, {CF__PROBLEM_HEAD_TOO_LARGE, NULL}},
    {has_too_many_fields, {CF__PROBLEM_HEAD_TOO_LARGE, "too many headers"}},
    {has_long_target, {CF__PROBLEM_TARGET_TOO_LONG, NULL}},
    {has_altered_line,
     {CF__PROBLEM_INVALID, "the request line has more than one space behind the method, or a NUL"}},
    {is_altered,
     {CF__PROBLEM_INVALID,
      "a line of the head ends without CR LF, is folded, begins with a colon or has a NUL"}},
    {has_bad_name, {CF__PROBLEM_INVALID, "a header's name is not a token"}},
    {has_bad_value, {CF__PROBLEM_INVALID, "a header's value has a control character"}},
    {has_length_and_encoding,
     {CF__PROBLEM_INVALID, "Content-Length and Transfer-Encoding exclude each other"}},
    {has_several_lengths, {CF__PROBLEM_INVALID, "more than one Content-Length"}},
    {has_other_encoding, {CF__PROBLEM_INVALID, "the only Transfer-Encoding served is chunked"}},
    {lacks_host, {CF__PROBLEM_INVALID, "no Host"}},
    {has_several_hosts, {CF__PROBLEM_INVALID, "more than one Host"}},
    {is_misdirected, {CF__PROBLEM_MISDIRECTED, NULL}},
    {has_unknown_method, {CF__PROBLEM_NOT_IMPLEMENTED, NULL}},
    {has_unserved_method, {CF__PROBLEM_METHOD_NOT_ALLOWED, NULL}},
    {is_too_large, {CF__PROBLEM_TOO_LARGE, NULL}},
};

const struct cf__refusal *cf__head_refusal(const struct cf__head *head)
{
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        if (rules[i].is_broken(head)) {
            return &rules[i].refusal;
        }
    }
    return NULL;
}
