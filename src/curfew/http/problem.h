/* SPDX-License-Identifier: MIT */
/* What a client is told when it does not get what it asked for: problem documents (RFC 9457).
 *
 * Everything that can be wrong with a request has a row in one table: status, stable code, title,
 * and the sentence that stands for it when its own words are not for strangers.
 *
 * Thread safety: values. */
#ifndef CURFEW_HTTP_PROBLEM_H
#define CURFEW_HTTP_PROBLEM_H

#include <curfew/ctx.h>
#include <curfew/json.h>

/* X(kind, status, code, title, sentence). The sentence is the detail of every 5xx and 499, and of
 * others where nothing better is known. */
#define CF__PROBLEMS(X)                                                                            \
    X(DEADLINE, 504, "deadline_exceeded", "Deadline exceeded",                                     \
      "The request did not finish before its deadline.")                                           \
    X(CLIENT_GONE, 499, "client_gone", "Client gone", "The client closed the connection.")         \
    X(CANCELED, 499, "canceled", "Canceled", "The request was cancelled by an operator.")          \
    X(SHUTTING_DOWN, 503, "shutting_down", "Shutting down",                                        \
      "The service is stopping; another instance may answer.")                                     \
    X(OVERLOADED, 503, "overloaded", "Overloaded",                                                 \
      "The service has more work than it can take; try again later.")                              \
    X(UNAVAILABLE, 503, "unavailable", "Unavailable",                                              \
      "Something that the service depends on is unavailable; try again later.")                    \
    X(NO_MEMORY, 503, "out_of_memory", "Out of memory",                                            \
      "The service is short of memory; try again later.")                                          \
    X(OUTCOME_UNKNOWN, 500, "outcome_unknown", "Outcome unknown",                                  \
      "What was asked for may have been done: look before you repeat it.")                         \
    X(INTERNAL, 500, "internal", "Internal error", "The service could not answer.")                \
    X(NOT_IMPLEMENTED, 501, "not_implemented", "Not implemented",                                  \
      "The service does not know this method.")                                                    \
    X(INVALID, 400, "invalid", "Invalid request", "The request is invalid.")                       \
    X(FORBIDDEN, 403, "forbidden", "Forbidden", "The service is not set up to do this.")           \
    X(NOT_FOUND, 404, "not_found", "Not found", "There is nothing here.")                          \
    X(METHOD_NOT_ALLOWED, 405, "method_not_allowed", "Method not allowed",                         \
      "This path does not serve that method.")                                                     \
    X(NOT_ACCEPTABLE, 406, "not_acceptable", "Not acceptable",                                     \
      "There is no answer of a type that the client takes.")                                       \
    X(CONFLICT, 409, "conflict", "Conflict", "The request conflicts with the present state.")      \
    X(PRECONDITION_FAILED, 412, "precondition_failed", "Precondition failed",                      \
      "It is not in the state any more that the request asks for.")                                \
    X(TOO_LARGE, 413, "too_large", "Content too large", "The request's body is too large.")        \
    X(REQUEST_TIMEOUT, 408, "request_timeout", "Request timeout",                                  \
      "The request did not come in time.")                                                         \
    X(TARGET_TOO_LONG, 414, "target_too_long", "Target too long",                                  \
      "The request's target is too long.")                                                         \
    X(UNSUPPORTED_TYPE, 415, "unsupported_media_type", "Unsupported media type",                   \
      "The request's body is of a type that this path does not take.")                             \
    X(MISDIRECTED, 421, "misdirected", "Misdirected request",                                      \
      "The service does not go by the name in Host.")                                              \
    X(UNPROCESSABLE, 422, "unprocessable", "Unprocessable content",                                \
      "The request can be read, but not done.")                                                    \
    X(PRECONDITION_REQUIRED, 428, "precondition_required", "Precondition required",                \
      "The request has to say which state it is meant for.")                                       \
    X(QUOTA_EXCEEDED, 429, "quota_exceeded", "Quota exceeded",                                     \
      "This client has as many connections, or requests at once, as it may have.")                 \
    X(HEAD_TOO_LARGE, 431, "head_too_large", "Request header fields too large",                    \
      "The request's headers are too large.")                                                      \
    X(NOT_CACHED, 504, "not_cached", "Not stored",                                                 \
      "Only what is stored was asked for, and this is not.")

enum cf__problem_kind {
#define CF__PROBLEM_ENUM(kind, status, code, title, sentence) CF__PROBLEM_##kind,
    CF__PROBLEMS(CF__PROBLEM_ENUM)
#undef CF__PROBLEM_ENUM
};

struct cf__problem {
    enum cf__problem_kind kind;
    const char *detail; /* For a 4xx but 499; NULL: the kind's sentence. */
    const char *phase;  /* What was waited for, or NULL. */
    int64_t timeout_ns; /* What the request was given; CF_NEVER: it did not come to that. */
    int64_t elapsed_ns;
    const char *request_id; /* Or NULL, */
    const char *trace_id;   /* as this. */
};

/* Which kind a failure is: `code` is what failed, `reason` why its context ended, if it did. */
enum cf__problem_kind cf__problem_of(enum cf_code code, enum cf_reason reason);

/* The one kind that has a status which handlers choose (cf_http_fail_as(); others are asserted). */
enum cf__problem_kind cf__problem_chosen(int status);

int cf__problem_status(enum cf__problem_kind kind);
const char *cf__problem_code(enum cf__problem_kind kind);

/* Append the document to `json`, which is empty. */
void cf__problem_write(const struct cf__problem *problem, struct cf_json *json);

#endif
