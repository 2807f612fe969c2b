/* SPDX-License-Identifier: MIT */
/* Replies: what a handler may write, and how it is sent.
 *
 * The body stays where it was written: libmicrohttpd sends from the request's own buffer, or from a
 * value that the request has a reference to, and either lives until the request is completed.
 * Headers are copied by libmicrohttpd.
 *
 * Memory can be short anywhere on the way. Then the handler's reply is spoilt and a problem
 * document goes out instead; if not even that can be made, a fixed one; and if libmicrohttpd has no
 * memory either, the connection is closed. */
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include <curfew/clock.h>

#include "curfew/http/date.h"
#include "curfew/http/digits.h"
#include "curfew/http/server_private.h"

/* Of an ETag of which there is a gzip. */
#define ETAG_SIZE_MAX 256

/* What a client is asked to wait when nobody knows better. */
#define RETRY_DEFAULT_NS CF_SECOND

static const char PROBLEM_TYPE[] = "application/problem+json";

/* When there is no memory to write one. */
static const char FIXED_PROBLEM[] =
    "{\"type\":\"/problems/out-of-memory\",\"title\":\"Out of memory\",\"status\":503,"
    "\"code\":\"out_of_memory\"}";

/* Internal helpers: what is sent */

static struct cf__body problem_body(struct cf_http *http)
{
    struct cf__problem problem = {
        .kind = http->problem,
        .detail = http->detail != NULL && http->detail[0] != '\0' ? http->detail : NULL,
        .phase = http->code != CF_OK ? http->err.phase : NULL,
        .timeout_ns = http->timeout_ns,
        .elapsed_ns = cf_now_ns() - http->started_ns,
        .request_id = http->request_id,
        .trace_id = http->trace.trace_id,
        .is_unsafe = http->head.method != CF__GET && http->head.method != CF__HEAD &&
                     http->head.method != CF__OPTIONS,
    };
    struct cf__body body = {.status = cf__problem_status(http->problem), .type = PROBLEM_TYPE};

    cf_json_reset(&http->json);
    cf__problem_write(&problem, &http->json);
    if (cf_json_finish(&http->json, &body.data, &body.size, NULL) != CF_OK) {
        body.status = cf__problem_status(CF__PROBLEM_NO_MEMORY);
        body.data = FIXED_PROBLEM;
        body.size = sizeof(FIXED_PROBLEM) - 1;
    }
    return body;
}

/* The handler's reply. False: it cannot be sent, http->spoilt says why. */
static bool written_body(struct cf_http *http, struct cf__body *out)
{
    struct cf__body body = {.status = http->status};

    CF_ASSERT(http->has_reply); /* A handler that returns CF_OK has started a reply. */
    if (http->stream.type != NULL) {
        body.type = http->stream.type;
    } else if (http->text != NULL) {
        body.data = http->text;
        body.size = http->text_size;
        body.type = body.size > 0 ? http->text_type : NULL;
    } else if (http->spoilt == CF_OK) {
        http->spoilt = cf_json_finish(&http->json, &body.data, &body.size, NULL);
        body.type = "application/json";
    }
    *out = body;
    return http->spoilt == CF_OK;
}

static struct cf__body choose_body(struct cf_http *http)
{
    struct cf__body body;

    if (!http->is_problem) {
        if (written_body(http, &body)) {
            return body;
        }
        http->is_problem = true;
        http->problem = cf__problem_of(http->spoilt, CF_REASON_NONE);
        http->detail = NULL;
    }
    return problem_body(http);
}

/* Internal helpers: headers */

struct sending {
    struct MHD_Response *response;
    bool ok; /* Every header so far was taken. */
};

static void add(struct sending *sending, const char *name, const char *value)
{
    if (MHD_add_response_header(sending->response, name, value) != MHD_YES) {
        sending->ok = false;
    }
}

/* A text within bounds, written piece by piece, without the cost of printf. */
struct text {
    char *at;
    const char *end; /* The room, but for the NUL. */
    bool ok;         /* All of it fitted. */
};

static struct text text_in(char *room, size_t size)
{
    return (struct text){room, room + size - 1, true};
}

static void put(struct text *text, const char *piece, size_t size)
{
    text->ok = text->ok && size <= (size_t)(text->end - text->at);
    if (text->ok) {
        memcpy(text->at, piece, size);
        text->at += size;
        *text->at = '\0';
    }
}

static void put_str(struct text *text, const char *piece)
{
    put(text, piece, strlen(piece));
}

static void put_u64(struct text *text, uint64_t value)
{
    char digits[CF__DIGITS_MAX];

    put(text, digits, cf__put_u64(digits, value));
}

/* "name;dur=1.234". By integers: printf's point would be the locale's. */
static void put_timing(struct text *text, const char *name, int64_t ns)
{
    uint64_t us = (uint64_t)(ns > 0 ? ns : 0) / CF_US;
    char rest[3];

    cf__put_digits(rest, us, sizeof(rest));
    put_str(text, name);
    put_str(text, ";dur=");
    put_u64(text, us / 1000);
    put(text, ".", 1);
    put(text, rest, sizeof(rest));
}

/* "name: prefix3", rounded up. */
static void add_seconds(struct sending *sending, const char *name, const char *prefix, int64_t ns)
{
    char value[48];
    struct text text = text_in(value, sizeof(value));

    put_str(&text, prefix);
    put_u64(&text, (uint64_t)(ns / CF_SECOND + (ns % CF_SECOND > 0)));
    add(sending, name, value);
}

/* What describes a body, or what was done, is the problem's own where a problem is sent. */
static bool describes_body(const char *name)
{
    static const char *const names[] = {
        "Content-Type",     "Cache-Control",      "ETag", "Last-Modified", "Age", "Location",
        "Content-Encoding", "Content-Disposition"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcasecmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* The tag of what is compressed: "1-gzip" of "1". Too long a one is left out. */
static void add_gzip_etag(struct sending *sending, const char *etag)
{
    char value[ETAG_SIZE_MAX];
    size_t size = strlen(etag) - 1; /* Without the last quote. */
    int n = snprintf(value, sizeof(value), "%.*s" CF__GZIP_SUFFIX "\"", (int)size, etag);

    if (n > 0 && (size_t)n < sizeof(value)) {
        add(sending, MHD_HTTP_HEADER_ETAG, value);
    }
}

static void add_written(struct sending *sending, const struct cf_http *http,
                        const struct cf__body *body)
{
    for (const struct cf__reply_header *header = http->headers; header != NULL;
         header = header->next) {
        if (http->is_problem && describes_body(header->name)) {
            continue;
        }
        if (body->is_gzip && strcasecmp(header->name, MHD_HTTP_HEADER_ETAG) == 0) {
            add_gzip_etag(sending, header->value);
        } else {
            add(sending, header->name, header->value);
        }
    }
}

static void add_encoding(struct sending *sending, const struct cf__body *body)
{
    if (body->varies) {
        add(sending, MHD_HTTP_HEADER_VARY, MHD_HTTP_HEADER_ACCEPT_ENCODING);
    }
    if (body->is_gzip && body->status != MHD_HTTP_NOT_MODIFIED) {
        add(sending, MHD_HTTP_HEADER_CONTENT_ENCODING, "gzip");
    }
}

static void add_timing(struct sending *sending, const struct cf_http *http)
{
    char value[CF__TIMING_SIZE + 48];
    struct text text = text_in(value, sizeof(value));

    put(&text, http->timing, http->timing_size);
    put_timing(&text, "total", cf_now_ns() - http->started_ns);
    add(sending, "Server-Timing", value);
}

/* What the request was given, and which preference that honours. */
static void add_timeout(struct sending *sending, const struct cf_http *http)
{
    char value[CF__DIGITS_MAX + 1];
    struct text text = text_in(value, sizeof(value));
    int64_t timeout_ms = http->timeout_ns / CF_MS + (http->timeout_ns % CF_MS > 0);

    if (http->timeout_ns == CF_NEVER) {
        return;
    }
    put_u64(&text, (uint64_t)timeout_ms);
    add(sending, "Request-Timeout-Ms", value);
    if (strcmp(http->head.deadline.source, "Prefer") == 0) {
        add_seconds(sending, "Preference-Applied", "wait=", http->timeout_ns);
    }
}

/* Which span the reply is of: its trace id is the client's, if it sent one. */
static void add_traceparent(struct sending *sending, const struct cf_http *http)
{
    char value[CF_TRACEPARENT_SIZE];

    cf_trace_write(&http->trace, value);
    add(sending, "traceparent", value);
}

/* Whether the same request may succeed later, so that the client is told when to try. */
static bool is_worth_a_retry(int status)
{
    return status == 503 || status == 429;
}

static void add_headers(struct sending *sending, const struct cf_http *http,
                        const struct cf__body *body)
{
    const struct cf__shard *shard = http->connection->shard;

    add(sending, "X-Request-Id", http->request_id);
    add_traceparent(sending, http);
    add_timing(sending, http);
    add_timeout(sending, http);
    if (body->type != NULL &&
        (http->is_problem || cf__reply_get_header(http, "Content-Type") == NULL)) {
        add(sending, MHD_HTTP_HEADER_CONTENT_TYPE, body->type);
    }
    add(sending, "X-Content-Type-Options", "nosniff");
    if (http->is_problem) {
        add(sending, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    }
    if (is_worth_a_retry(body->status) || http->retry_ns > 0) {
        add_seconds(sending, MHD_HTTP_HEADER_RETRY_AFTER, "",
                    http->retry_ns > 0 ? http->retry_ns : RETRY_DEFAULT_NS);
    }
    /* What may be hidden behind a Transfer-Encoding, no filter sees on 0.9.75: nothing that follows
     * on this connection is believed to be a request. */
    if (http->head.n_encodings > 0 || shard->phase != CF__SERVING || http->connection->is_refused) {
        add(sending, MHD_HTTP_HEADER_CONNECTION, "close");
    }
    add_encoding(sending, body);
    add_written(sending, http, body);
}

static struct MHD_Response *response_of(const struct cf__body *body)
{
    /* Not written to: libmicrohttpd's parameter only lacks the const. */
    return MHD_create_response_from_buffer(body->size, (void *)(uintptr_t)body->data,
                                           MHD_RESPMEM_PERSISTENT);
}

/* Reply: of http.h */

static void start_reply(struct cf_http *http, int status)
{
    CF_ASSERT(status >= 200);
    CF_ASSERT(status <= 599);
    CF_ASSERT(http->stream.ring == NULL); /* What was written is on its way. */
    http->stream.type = NULL;
    http->has_reply = true;
    http->status = status;
    http->text = NULL;
    cf_value_unref(http->text_owner);
    http->text_owner = NULL;
    cf_value_unref(http->gzip_owner);
    http->gzip_owner = NULL;
    http->gzip = NULL;
}

struct cf_json *cf_http_reply_json(struct cf_http *http, int status)
{
    start_reply(http, status);
    cf_json_reset(&http->json);
    return &http->json;
}

void cf_http_reply_text(struct cf_http *http, int status, const char *text)
{
    size_t size = strlen(text);

    start_reply(http, status);
    http->text = cf__arena_copy(&http->arena, text, size);
    http->text_size = size;
    http->text_type = "text/plain; charset=utf-8";
    if (http->text == NULL) {
        http->spoilt = CF_ENOMEM;
    }
}

void cf_http_reply_shared(struct cf_http *http, int status, const char *type, const void *data,
                          size_t size, struct cf_value *value)
{
    (void)cf_value_ref(value); /* First: it may be what the reply before this one was of. */
    start_reply(http, status);
    http->text = data;
    http->text_size = size;
    http->text_type = type;
    http->text_owner = value;
}

void cf_http_reply_gzip(struct cf_http *http, const void *data, size_t size, struct cf_value *value)
{
    CF_ASSERT(http->text_owner != NULL); /* A shared reply was started. */
    (void)cf_value_ref(value);
    cf_value_unref(http->gzip_owner);
    http->gzip = data;
    http->gzip_size = size;
    http->gzip_owner = value;
}

void cf_http_reply_stream(struct cf_http *http, int status, const char *type)
{
    CF_ASSERT(status != 204); /* Without a body, nobody would read it to its end. */
    CF_ASSERT(status != 205);
    CF_ASSERT(status != 304);
    start_reply(http, status);
    http->stream.type = type;
}

/* Whether libmicrohttpd takes it: visible characters, spaces, UTF-8; no line may end in it. */
static bool is_header_value(const char *value)
{
    for (const char *c = value; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7F) {
            return false;
        }
    }
    return value[0] != '\0';
}

void cf_http_reply_header(struct cf_http *http, const char *name, const char *value)
{
    struct cf__reply_header *header;

    CF_ASSERT(http->stream.ring == NULL); /* The head may have gone out. */
    if (!is_header_value(value)) {
        http->spoilt = CF_EINTERNAL;
        return;
    }
    header = cf__arena_alloc(&http->arena, sizeof(*header));
    if (header != NULL) {
        header->name = name;
        header->value = cf__arena_copy(&http->arena, value, strlen(value));
    }
    if (header == NULL || header->value == NULL) {
        http->spoilt = CF_ENOMEM;
        return;
    }
    *http->last_header = header;
    http->last_header = &header->next;
}

enum cf_code cf_http_fail_as(struct cf_http *http, int status, enum cf_code code)
{
    (void)cf__problem_chosen(status); /* Asserts it here, where the mistake is. */
    http->failure_status = status;
    return code;
}

void cf_http_retry_after(struct cf_http *http, int64_t retry_ns)
{
    http->retry_ns = retry_ns;
}

static struct text begin_timing(struct cf_http *http)
{
    return text_in(http->timing + http->timing_size, sizeof(http->timing) - http->timing_size);
}

/* An entry was written behind the others, if it found room. */
static void end_timing(struct cf_http *http, struct text *text)
{
    put(text, ", ", 2);
    if (text->ok) {
        http->timing_size = (size_t)(text->at - http->timing);
    }
}

void cf_http_timing(struct cf_http *http, const char *name, int64_t took_ns)
{
    struct text text = begin_timing(http);

    put_timing(&text, name, took_ns);
    end_timing(http, &text);
}

void cf_http_timing_note(struct cf_http *http, const char *name, const char *note)
{
    struct text text = begin_timing(http);

    put_str(&text, name);
    put_str(&text, ";desc=");
    put_str(&text, note);
    end_timing(http, &text);
}

/* What follows the head: libmicrohttpd leaves it out by itself. */
static size_t sent_size(const struct cf_http *http, const struct cf__body *body)
{
    return http->head.method == CF__HEAD || body->status == MHD_HTTP_NOT_MODIFIED ? 0 : body->size;
}

/* Operations */

const char *cf__reply_get_header(const struct cf_http *http, const char *name)
{
    for (const struct cf__reply_header *header = http->headers; header != NULL;
         header = header->next) {
        if (strcasecmp(header->name, name) == 0) {
            return header->value;
        }
    }
    return NULL;
}

enum MHD_Result cf__reply_send(struct cf_http *http)
{
    struct sending sending = {NULL, true};
    struct cf__body body;
    bool is_stream;

    if (http->cause.reason == CF_REASON_CLIENT_GONE) {
        cf__exchange_done(http, cf__problem_status(CF__PROBLEM_CLIENT_GONE), 0);
        return MHD_NO;
    }
    body = choose_body(http);
    is_stream = http->stream.type != NULL && !http->is_problem;
    if (!http->is_problem && !is_stream) {
        cf__encode(http, &body);
    }
    sending.response = is_stream ? cf__stream_response(http) : response_of(&body);
    if (sending.response != NULL) {
        add_headers(&sending, http, &body);
        if (sending.ok) {
            sending.ok = MHD_queue_response(http->mhd, (unsigned)body.status, sending.response);
        }
        MHD_destroy_response(sending.response); /* It keeps its own reference. */
    }
    if (sending.response == NULL || !sending.ok) {
        /* A handler that runs yet is told once the connection is closed. */
        if (http->stage != CF__RUNNING) {
            cf__exchange_done(http, cf__problem_status(CF__PROBLEM_NO_MEMORY), 0);
        }
        return MHD_NO;
    }
    if (is_stream && http->head.method != CF__HEAD) {
        cf__stream_open(http);
    } else {
        cf__exchange_done(http, body.status, sent_size(http, &body));
    }
    return MHD_YES;
}

void cf__reply_directly(struct cf_http *http, enum cf__problem_kind problem)
{
    char date[CF__DATE_SIZE];
    char traceparent[CF_TRACEPARENT_SIZE];
    struct cf__body body;
    char head[640];
    int n;

    http->is_problem = true;
    http->problem = problem;
    body = problem_body(http);
    body.size = http->head.method == CF__HEAD ? 0 : body.size;
    cf_trace_write(&http->trace, traceparent);
    cf__date_write(time(NULL), date);
    n = snprintf(head, sizeof(head),
                 "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                 "X-Request-Id: %s\r\ntraceparent: %s\r\nX-Content-Type-Options: nosniff\r\n"
                 "Cache-Control: no-store\r\n%sConnection: close\r\n\r\n",
                 body.status, MHD_get_reason_phrase_for((unsigned)body.status), date, body.type,
                 body.size, http->request_id, traceparent,
                 is_worth_a_retry(body.status) ? "Retry-After: 1\r\n" : "");
    /* The send buffer has room, as nothing else was sent; if not, the client is told less. */
    (void)send(http->connection->fd, head, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE);
    (void)send(http->connection->fd, body.data, body.size, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)shutdown(http->connection->fd, SHUT_WR);
    cf__exchange_done(http, body.status, body.size);
}

void cf__reply_dismissal(struct cf__connection *connection, enum cf__problem_kind problem)
{
    struct cf_http *http = connection->http;
    int status = cf__problem_status(problem);
    char date[CF__DATE_SIZE];
    char fixed[256];
    int n;

    connection->dismissed = true;
    if (http == NULL) {
        /* There is not even a first line to be logged. */
        cf__date_write(time(NULL), date);
        n = snprintf(
            fixed, sizeof(fixed),
            "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Length: 0\r\n%sConnection: close\r\n\r\n",
            status, MHD_get_reason_phrase_for((unsigned)status), date,
            is_worth_a_retry(status) ? "Retry-After: 1\r\n" : "");
        (void)send(connection->fd, fixed, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
        return;
    }
    if (!http->head_seen) {
        cf__trace_make(http);
    }
    cf__reply_directly(http, problem);
}
