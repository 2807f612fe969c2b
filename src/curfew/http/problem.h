/* SPDX-License-Identifier: MIT */
/* What a client is told when its request fails: problem documents (RFC 9457).
 *
 * Everything that can be wrong with a request has a row in one table: status, stable code, title,
 * and the sentence that replaces its own message when that is not for clients.
 *
 * Thread safety: values. */
#ifndef CURFEW_HTTP_PROBLEM_H
#define CURFEW_HTTP_PROBLEM_H

#include <curfew/ctx.h>
#include <curfew/json.h>

/* X(kind, status, code, title, sentence). The sentence is the detail of every 5xx and 499, and of
 * others where there is no better one. */
#define CF__PROBLEMS(X)                                                                            \
    X(DEADLINE, 504, "deadline_exceeded", "Deadline exceeded",                                     \
      "The request did not finish before its deadline.")                                           \
    X(CLIENT_GONE, 499, "client_gone", "Client gone", "The client closed the connection.")         \
    X(CANCELED, 499, "canceled", "Canceled", "The request was cancelled by an operator.")          \
    X(SHUTTING_DOWN, 503, "shutting_down", "Shutting down",                                        \
      "The service is stopping; another instance may answer.")                                     \
    X(OVERLOADED, 503, "overloaded", "Overloaded", "The service is overloaded; try again later.")  \
    X(UNAVAILABLE, 503, "unavailable", "Unavailable",                                              \
      "Something that the service depends on is unavailable; try again later.")                    \
    X(NO_MEMORY, 503, "out_of_memory", "Out of memory",                                            \
      "The service is short of memory; try again later.")                                          \
    X(OUTCOME_UNKNOWN, 500, "outcome_unknown", "Outcome unknown",                                  \
      "The change may have been made; check before repeating it.")                                 \
    X(INTERNAL, 500, "internal", "Internal error", "The service failed to answer.")                \
    X(NOT_IMPLEMENTED, 501, "not_implemented", "Not implemented",                                  \
      "The service does not know this method.")                                                    \
    X(INVALID, 400, "invalid", "Invalid request", "The request is invalid.")                       \
    X(FORBIDDEN, 403, "forbidden", "Forbidden", "The service is not configured to do this.")       \
    X(NOT_FOUND, 404, "not_found", "Not found", "There is no such resource.")                      \
    X(METHOD_NOT_ALLOWED, 405, "method_not_allowed", "Method not allowed",                         \
      "This path does not support that method.")                                                   \
    X(NOT_ACCEPTABLE, 406, "not_acceptable", "Not acceptable",                                     \
      "No available type is acceptable to the client.")                                            \
    X(CONFLICT, 409, "conflict", "Conflict", "The request conflicts with the current state.")      \
    X(PRECONDITION_FAILED, 412, "precondition_failed", "Precondition failed",                      \
      "The resource has changed since the version named in If-Match.")                             \
    X(TOO_LARGE, 413, "too_large", "Content too large", "The request body is too large.")          \
    X(REQUEST_TIMEOUT, 408, "request_timeout", "Request timeout",                                  \
      "The request did not arrive in time.")                                                       \
    X(TARGET_TOO_LONG, 414, "target_too_long", "Target too long",                                  \
      "The request target is too long.")                                                           \
    X(UNSUPPORTED_TYPE, 415, "unsupported_media_type", "Unsupported media type",                   \
      "The request body has a type that this path does not support.")                              \
    X(MISDIRECTED, 421, "misdirected", "Misdirected request",                                      \
      "The Host header does not name this service.")                                               \
    X(UNPROCESSABLE, 422, "unprocessable", "Unprocessable content",                                \
      "The request can be parsed, but not processed.")                                             \
    X(PRECONDITION_REQUIRED, 428, "precondition_required", "Precondition required",                \
      "The request must say which version it is meant for.")                                       \
    X(QUOTA_EXCEEDED, 429, "quota_exceeded", "Quota exceeded",                                     \
      "This client has too many connections, or requests at once.")                                \
    X(HEAD_TOO_LARGE, 431, "head_too_large", "Request header fields too large",                    \
      "The request headers are too large.")                                                        \
    X(NOT_CACHED, 504, "not_cached", "Not cached",                                                 \
      "Only a cached answer was asked for, and there is none.")

enum cf__problem_kind {
#define CF__PROBLEM_ENUM(kind, status, code, title, sentence) CF__PROBLEM_##kind,
    CF__PROBLEMS(CF__PROBLEM_ENUM)
#undef CF__PROBLEM_ENUM
};

struct cf__problem {
    enum cf__problem_kind kind;
    const char *detail; /* For a 4xx but 499; NULL: the kind's sentence. */
    const char *phase;  /* What was being waited for, or NULL. */
    int64_t timeout_ns; /* The request's deadline; CF_NEVER: it had none yet. */
    int64_t elapsed_ns;
    const char *request_id; /* Or NULL, */
    const char *trace_id;   /* as this. */
    bool is_unsafe;         /* It asks for a change, which may have been made even if it is late. */
};

/* The kind of a failure: `code` is what failed, `reason` why its context ended, if it did. */
enum cf__problem_kind cf__problem_of(enum cf_code code, enum cf_reason reason);

/* The kind for a status that a handler chose (cf_http_fail_as(); other statuses are asserted). */
enum cf__problem_kind cf__problem_chosen(int status);

int cf__problem_status(enum cf__problem_kind kind);
const char *cf__problem_code(enum cf__problem_kind kind);

/* Append the document to `json`, which is empty. */
void cf__problem_write(const struct cf__problem *problem, struct cf_json *json);

#endif
