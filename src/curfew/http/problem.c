/* SPDX-License-Identifier: MIT */
/* Problem documents and the mapping of failures to them: see problem.h.
 *
 * Why a context ended says more than the code that came out of it: both a client that left and an
 * operator's cancel come back as CF_ECANCELED. So the reason is asked first, and the code decides
 * where nobody ended the request. A CF_ECANCELED or CF_EDEADLINE of a living request is that of a
 * part of it: a time limit of its own is a 504 like any other, a cancel that nobody asked for is a
 * fault of ours.
 *
 * Neither switch has a default: the compiler finds what a new code or reason leaves open. */
#include "curfew/http/problem.h"

#include <curfew/http.h>

static const struct {
    int status;
    const char *code;
    const char *title;
    const char *sentence;
} kinds[] = {
#define KIND_ROW(kind, status, code, title, sentence)                                              \
    [CF__PROBLEM_##kind] = {status, code, title, sentence},
    CF__PROBLEMS(KIND_ROW)
#undef KIND_ROW
};

/* Internal helpers */

static enum cf__problem_kind kind_of_code(enum cf_code code)
{
    switch (code) {
    case CF_EDEADLINE:
        return CF__PROBLEM_DEADLINE;
    case CF_EINVAL:
        return CF__PROBLEM_INVALID;
    case CF_ENOTFOUND:
        return CF__PROBLEM_NOT_FOUND;
    case CF_ECONFLICT:
        return CF__PROBLEM_CONFLICT;
    case CF_ELIMIT:
        return CF__PROBLEM_OVERLOADED;
    case CF_EUNAVAIL:
        return CF__PROBLEM_UNAVAILABLE;
    case CF_ENOMEM:
        return CF__PROBLEM_NO_MEMORY;
    case CF_EUNKNOWN:
        return CF__PROBLEM_OUTCOME_UNKNOWN;
    case CF_OK: /* Nobody asks. */
    case CF_ECANCELED:
    case CF_ECLOSED:
    case CF_EIO:
    case CF_EINTERNAL:
        break;
    }
    return CF__PROBLEM_INTERNAL;
}

/* "/problems/deadline-exceeded" from "deadline_exceeded". */
static void write_type(const char *code, struct cf_json *json)
{
    char type[64] = "/problems/";
    size_t n = sizeof("/problems/") - 1;

    for (; *code != '\0' && n < sizeof(type) - 1; code++) {
        type[n++] = *code == '_' ? '-' : *code;
    }
    type[n] = '\0';
    cf_json_key(json, "type");
    cf_json_str(json, type);
}

/* Whether the failure's own words are for the client: what it did wrong is, what we did is not. */
static bool tells_detail(int status)
{
    return status >= 400 && status < 499;
}

static const char *detail_of(const struct cf__problem *problem)
{
    if (problem->detail != NULL && tells_detail(kinds[problem->kind].status)) {
        return problem->detail;
    }
    if (problem->kind == CF__PROBLEM_DEADLINE && problem->is_unsafe) {
        return "The request did not finish before its deadline. The change that it asked for may "
               "have been made.";
    }
    return kinds[problem->kind].sentence;
}

/* Operations */

void cf__problem_write(const struct cf__problem *problem, struct cf_json *json)
{
    int status = kinds[problem->kind].status;

    cf_json_object(json);
    write_type(kinds[problem->kind].code, json);
    cf_json_key(json, "title");
    cf_json_str(json, kinds[problem->kind].title);
    cf_json_key(json, "status");
    cf_json_i64(json, status);
    cf_json_key(json, "detail");
    cf_json_str(json, detail_of(problem));
    cf_json_key(json, "code");
    cf_json_str(json, kinds[problem->kind].code);
    if (problem->phase != NULL) {
        cf_json_key(json, "phase");
        cf_json_str(json, problem->phase);
    }
    if (problem->timeout_ns != CF_NEVER) {
        cf_json_key(json, "deadline_ms");
        cf_json_i64(json, problem->timeout_ns / CF_MS + (problem->timeout_ns % CF_MS > 0));
    }
    cf_json_key(json, "elapsed_ms");
    cf_json_f64(json, (double)problem->elapsed_ns / (double)CF_MS, 3);
    if (problem->request_id != NULL) {
        cf_json_key(json, "request_id");
        cf_json_str(json, problem->request_id);
    }
    if (problem->trace_id != NULL) {
        cf_json_key(json, "trace_id");
        cf_json_str(json, problem->trace_id);
    }
    cf_json_end(json);
}

/* Queries */

enum cf__problem_kind cf__problem_of(enum cf_code code, enum cf_reason reason)
{
    if (code == CF_EUNKNOWN) {
        /* Whatever ended it: "too late" would invite a repeat. */
        return CF__PROBLEM_OUTCOME_UNKNOWN;
    }
    switch (reason) {
    case CF_REASON_DEADLINE:
        return CF__PROBLEM_DEADLINE;
    case CF_REASON_CLIENT_GONE:
        return CF__PROBLEM_CLIENT_GONE;
    case CF_REASON_OPERATOR:
        return CF__PROBLEM_CANCELED;
    case CF_REASON_SHUTDOWN:
        return CF__PROBLEM_SHUTTING_DOWN;
    case CF_REASON_SHED:
        return CF__PROBLEM_OVERLOADED;
    case CF_REASON_NONE: /* Nobody ended it, or who did left an error that says more. */
    case CF_REASON_CANCELED:
    case CF_REASON_SIBLING_FAILED:
    case CF_REASON_USER:
        break;
    }
    return kind_of_code(code);
}

enum cf__problem_kind cf__problem_chosen(int status)
{
    static const enum cf__problem_kind chosen[] = {
        CF__PROBLEM_FORBIDDEN,        CF__PROBLEM_NOT_ACCEPTABLE, CF__PROBLEM_PRECONDITION_FAILED,
        CF__PROBLEM_UNSUPPORTED_TYPE, CF__PROBLEM_UNPROCESSABLE,  CF__PROBLEM_PRECONDITION_REQUIRED,
        CF__PROBLEM_NOT_CACHED};
    size_t i = 0;

    while (kinds[chosen[i]].status != status) {
        i++;
        CF_ASSERT(i < sizeof(chosen) / sizeof(chosen[0])); /* Another follows from a code. */
    }
    return chosen[i];
}

int cf__problem_status(enum cf__problem_kind kind)
{
    return kinds[kind].status;
}

const char *cf__problem_code(enum cf__problem_kind kind)
{
    return kinds[kind].code;
}

int cf_http_status(enum cf_code code, enum cf_reason reason)
{
    if (code == CF_OK && reason == CF_REASON_NONE) {
        return 200;
    }
    return cf__problem_status(cf__problem_of(code, reason));
}
