/* SPDX-License-Identifier: MIT */
/* POST /v1/fetch: many URLs, so many a second and so many at once, each result on its own.
 *
 *     {"urls": ["https://api.example.org/1", ...], "rps": 50, "concurrency": 10}
 *
 * A task of the group fetches one URL: it waits for the limiter, then for the answer, and writes a
 * line. Its failure is a line too, so that none ends the others; only a line that cannot be written
 * does, for then there is nobody to write to. A client that reads slowly holds up the tasks, and so
 * the fetching.
 *
 * There are two deadlines. The fetching has one a little before the request's: what is not fetched
 * by then is told as such, the last line has the totals, and the stream ends whole and in time. A
 * URL whose turn would come after it is told so at once. */
#include <jansson.h>
#include <string.h>

#include <curfew/client.h>
#include <curfew/clock.h>
#include <curfew/group.h>
#include <curfew/limiter.h>
#include <curfew/sem.h>

#include "curfewd/members.h"
#include "curfewd/routes/body.h"
#include "curfewd/routes/routes.h"

/* Kept of the request's time for the last lines: this part of it, and at most so much. */
#define MARGIN_DIVISOR 10
#define MARGIN_MAX_NS (250 * CF_MS)

/* What is the same for all URLs of a request. */
struct fetch {
    struct cf_http *http;
    json_t *body; /* Owned. Has the URLs. */
    json_t *urls; /* Borrowed from it. */
    double rps;
    int64_t concurrency;

    struct cf_limiter *limiter;
    struct cf_sem *writer; /* One permit: who writes a line. */
    struct cf_ctx *work;   /* Of the fetching. */
    int64_t since_ns;
    size_t next; /* URL that no task has taken yet. */
    size_t fetched;
    size_t failed;
    uint64_t bytes;
};

/* The request */

static enum cf_code read_urls(struct fetch *f, struct cf_err *err)
{
    f->urls = json_object_get(f->body, "urls");
    if (!json_is_array(f->urls) || json_array_size(f->urls) < 1 ||
        json_array_size(f->urls) > FETCH_URLS_MAX) {
        return body_refuse(f->http, err, "urls must be an array of 1 to %d URLs", FETCH_URLS_MAX);
    }
    for (size_t i = 0; i < json_array_size(f->urls); i++) {
        const json_t *url = json_array_get(f->urls, i);

        if (!json_is_string(url) || json_string_length(url) > FETCH_URL_SIZE_MAX) {
            return body_refuse(f->http, err, "urls[%zu] must be a string of at most %d bytes", i,
                               FETCH_URL_SIZE_MAX);
        }
    }
    return CF_OK;
}

static enum cf_code read_rps(struct fetch *f, struct cf_err *err)
{
    const json_t *rps = json_object_get(f->body, "rps");

    f->rps = rps != NULL ? json_number_value(rps) : FETCH_RPS_DEFAULT; /* 0 of what is none. */
    if (f->rps < FETCH_RPS_MIN || f->rps > FETCH_RPS_MAX) {
        return body_refuse(f->http, err, "rps must be a number from %.1f to %d", FETCH_RPS_MIN,
                           FETCH_RPS_MAX);
    }
    return CF_OK;
}

static enum cf_code read_body(struct fetch *f, struct cf_err *err)
{
    static const char *const members[] = {"urls", "rps", "concurrency"};
    enum cf_code code = body_read(f->http, "application/json", members,
                                  sizeof(members) / sizeof(members[0]), &f->body, err);

    f->concurrency = FETCH_CONCURRENCY_DEFAULT;
    if (code == CF_OK) {
        code = read_urls(f, err);
    }
    if (code == CF_OK) {
        code = read_rps(f, err);
    }
    if (code == CF_OK && body_has(f->body, "concurrency")) {
        code = body_i64(f->http, f->body, "concurrency", 1, FETCH_CONCURRENCY_MAX, &f->concurrency,
                        err);
    }
    return code;
}

/* The lines */

/* End the line's object and write it; frees it in any case. */
static enum cf_code write_line(struct cf_ctx *ctx, struct fetch *f, struct cf_json *own_json,
                               struct cf_err *err)
{
    const char *data;
    size_t size;
    enum cf_code code;

    cf_json_end(own_json);
    code = cf_json_finish(own_json, &data, &size, err);
    if (code == CF_OK) {
        code = cf_sem_acquire(ctx, f->writer, 1, err);
    }
    if (code == CF_OK) {
        code = cf_http_stream_write(ctx, f->http, data, size, err);
        code = code == CF_OK ? cf_http_stream_write(ctx, f->http, "\n", 1, err) : code;
        cf_sem_release(f->writer, 1);
    }
    cf_json_fini(own_json);
    return code;
}

/* Frees the reply before it waits for its turn: the line has all that is told of it. */
static enum cf_code write_answer(struct cf_ctx *ctx, struct fetch *f, size_t index,
                                 struct cf_client_reply *own_reply, struct cf_err *err)
{
    const char *url = json_string_value(json_array_get(f->urls, index));
    struct cf_json json;

    f->fetched++;
    f->bytes += own_reply->body_size;
    cf_json_init(&json);
    cf_json_object(&json);
    member_u64(&json, "index", index);
    member_str(&json, "url", url);
    if (strcmp(own_reply->url, url) != 0) {
        member_str(&json, "redirected_to", own_reply->url);
    }
    member_u64(&json, "status", (uint64_t)own_reply->status);
    member_u64(&json, "bytes", own_reply->body_size);
    member_ms(&json, "duration_ms", own_reply->took_ns);
    cf_client_reply_free(own_reply);
    return write_line(ctx, f, &json, err);
}

static enum cf_code write_failure(struct cf_ctx *ctx, struct fetch *f, size_t index,
                                  const struct cf_err *failure, int64_t took_ns, struct cf_err *err)
{
    struct cf_json json;

    f->failed++;
    cf_json_init(&json);
    cf_json_object(&json);
    member_u64(&json, "index", index);
    member_str(&json, "url", json_string_value(json_array_get(f->urls, index)));
    cf_json_key(&json, "error");
    cf_json_object(&json);
    member_str(&json, "code", cf_code_name(failure->code));
    member_str(&json, "detail", failure->msg);
    cf_json_end(&json);
    member_ms(&json, "duration_ms", took_ns);
    return write_line(ctx, f, &json, err);
}

static enum cf_code write_totals(struct cf_ctx *ctx, struct fetch *f, struct cf_err *err)
{
    struct cf_json json;

    cf_json_init(&json);
    cf_json_object(&json);
    member_bool(&json, "_end", true);
    member_u64(&json, "urls", json_array_size(f->urls));
    member_u64(&json, "fetched", f->fetched);
    member_u64(&json, "failed", f->failed);
    member_u64(&json, "bytes", f->bytes);
    member_ms(&json, "duration_ms", cf_now_ns() - f->since_ns);
    return write_line(ctx, f, &json, err);
}

/* The fetching */

/* One URL, from its turn to its line. `ctx` is the group's, and outlives the work. */
static enum cf_code fetch_next(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct fetch *f = arg;
    const struct app *app = cf_http_app(f->http);
    size_t index = f->next++;
    struct cf_client_request request = {.url = json_string_value(json_array_get(f->urls, index))};
    struct cf_client_reply *reply = NULL;
    struct cf_err failure;
    int64_t since_ns = cf_now_ns();
    enum cf_code code = cf_limiter_wait(f->work, f->limiter, 1, &failure);

    if (code == CF_OK) {
        since_ns = cf_now_ns();
        code = cf_client_do(f->work, app->fetcher, &request, &reply, &failure);
    }
    if (code == CF_OK) {
        return write_answer(ctx, f, index, reply, err);
    }
    return write_failure(ctx, f, index, &failure, cf_now_ns() - since_ns, err);
}

/* The work's context: it ends before the request does, and with the group. */
static enum cf_code begin_work(struct cf_ctx *ctx, struct cf_ctx *group, struct fetch *f,
                               struct cf_err *err)
{
    int64_t margin_ns = cf_ctx_remaining_ns(ctx) / MARGIN_DIVISOR;

    margin_ns = margin_ns < MARGIN_MAX_NS ? margin_ns : MARGIN_MAX_NS;
    return cf_ctx_with_deadline(group, cf_ctx_deadline_ns(ctx) - margin_ns, &f->work, err);
}

static enum cf_code fetch_all(struct cf_ctx *ctx, struct fetch *f, struct cf_err *err)
{
    struct cf_group *group;
    enum cf_code code = cf_group_new(ctx, &group, err);

    if (code != CF_OK) {
        return code;
    }
    code = begin_work(ctx, cf_group_ctx(group), f, err);
    if (code != CF_OK) {
        cf_group_free(group);
        return code;
    }
    cf_group_set_limit(group, (int)f->concurrency);
    for (size_t i = 0; i < json_array_size(f->urls); i++) {
        cf_group_go(group, fetch_next, f); /* Once a line could not be written, all fail. */
    }
    code = cf_group_wait(group, err);
    cf_ctx_free(f->work);
    cf_group_free(group);
    return code;
}

static enum cf_code answer(struct cf_ctx *ctx, struct fetch *f, struct cf_err *err)
{
    enum cf_code code = cf_limiter_new(f->rps, 1, &f->limiter, err);

    if (code == CF_OK) {
        code = cf_sem_new(1, &f->writer, err);
    }
    if (code != CF_OK) {
        return code;
    }
    cf_http_reply_header(f->http, "Cache-Control", "no-store");
    cf_http_reply_header(f->http, "X-Accel-Buffering", "no"); /* nginx would collect the lines. */
    cf_http_reply_stream(f->http, 200, "application/x-ndjson");
    code = fetch_all(ctx, f, err);
    return code == CF_OK ? write_totals(ctx, f, err) : code;
}

enum cf_code fetch_post(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    const struct app *app = cf_http_app(http);
    struct fetch f = {.http = http, .since_ns = cf_now_ns()};
    enum cf_code code;

    if (app->fetcher == NULL) {
        return cf_http_fail_as(
            http, 403,
            cf_err_set(err, CF_EINVAL, "nothing may be fetched: CURFEW_FETCH_ALLOW is empty"));
    }
    code = read_body(&f, err);
    if (code == CF_OK) {
        code = answer(ctx, &f, err);
    }
    cf_limiter_free(f.limiter);
    cf_sem_free(f.writer);
    json_decref(f.body);
    return code;
}
