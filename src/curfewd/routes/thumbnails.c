/* SPDX-License-Identifier: MIT */
/* POST /v1/thumbnails, many at once, each result on its own;
 * and GET /v1/thumbnails/{id}?width=, one.
 *
 *     {"image_ids": [1, 2, 3], "width": 320}
 *
 * A task of the group makes one, as many at once as there are threads for it. An image that is not
 * there, broken or too large is a result like the others; whatever else fails (the database,
 * memory) fails the group, which ends the tasks. Past the deadline nothing is answered but 504;
 * what was made by then is stored, and the same request goes on from there. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include <curfew/group.h>

#include "curfewd/etag.h"
#include "curfewd/members.h"
#include "curfewd/routes/body.h"
#include "curfewd/routes/routes.h"
#include "curfewd/thumbnails/thumbnails.h"

/* Constants and types */

/* What an id and a width stand for never changes: an image is not replaced, but deleted. */
#define CACHE_CONTROL "public, max-age=31536000, immutable"

#define URL_SIZE 64

struct result {
    int64_t image_id;
    struct cf_value *value; /* A reference. NULL: it failed. */
    struct cf_err failure;
};

struct batch {
    struct thumbnails *thumbnails;
    struct result *results;
    size_t n_results;
    int64_t width;
    size_t next; /* Result that no task has begun. */
};

/* Internal helpers: the request */

static enum cf_code read_ids(struct cf_http *http, const json_t *ids, struct batch *batch,
                             struct cf_err *err)
{
    if (!json_is_array(ids) || json_array_size(ids) < 1 || json_array_size(ids) > THUMBNAILS_MAX) {
        return body_refuse(http, err, "image_ids must be an array of 1 to %d integers",
                           THUMBNAILS_MAX);
    }
    batch->results = cf_http_alloc(http, json_array_size(ids) * sizeof(*batch->results));
    if (batch->results == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for %zu thumbnails", json_array_size(ids));
    }
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);

        if (!json_is_integer(id) || json_integer_value(id) < 1) {
            return body_refuse(http, err, "image_ids[%zu] must be an integer from 1 to %" PRId64, i,
                               INT64_MAX);
        }
        batch->results[i].image_id = json_integer_value(id);
    }
    batch->n_results = json_array_size(ids);
    return CF_OK;
}

static enum cf_code read_batch(struct cf_http *http, struct batch *batch, struct cf_err *err)
{
    static const char *const members[] = {"image_ids", "width"};
    json_t *body;
    enum cf_code code = body_read(http, "application/json", members, 2, &body, err);

    if (code != CF_OK) {
        return code;
    }
    batch->width = THUMBNAIL_WIDTH_DEFAULT;
    code = read_ids(http, json_object_get(body, "image_ids"), batch, err);
    if (code == CF_OK && body_has(body, "width")) {
        code = body_i64(http, body, "width", IMAGE_THUMBNAIL_WIDTH_MIN, IMAGE_THUMBNAIL_WIDTH_MAX,
                        &batch->width, err);
    }
    json_decref(body);
    return code;
}

/* Internal helpers: the work */

static enum cf_code make_next(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct batch *batch = arg;
    struct result *result = &batch->results[batch->next++];
    enum cf_code code = thumbnails_get(ctx, batch->thumbnails, result->image_id,
                                       (uint32_t)batch->width, &result->value, &result->failure);

    if (code == CF_OK || code == CF_ENOTFOUND || code == CF_EINVAL) {
        return CF_OK;
    }
    *err = result->failure; /* A task's: not NULL. */
    return code;
}

static enum cf_code make_all(struct cf_ctx *ctx, struct batch *batch, struct cf_err *err)
{
    struct cf_group *group;
    enum cf_code code = cf_group_new(ctx, &group, err);

    if (code != CF_OK) {
        return code;
    }
    cf_group_set_limit(group, (int)thumbnails_threads(batch->thumbnails));
    for (size_t i = 0; i < batch->n_results; i++) {
        cf_group_go(group, make_next, batch);
    }
    code = cf_group_wait(group, err);
    cf_group_free(group);
    return code;
}

/* Internal helpers: the answer */

static void write_result(struct cf_json *json, const struct batch *batch,
                         const struct result *result)
{
    const struct thumbnail *thumbnail;
    char url[URL_SIZE];

    cf_json_object(json);
    member_i64(json, "image_id", result->image_id);
    if (result->value == NULL) {
        cf_json_key(json, "error");
        cf_json_object(json);
        member_str(json, "code", cf_code_name(result->failure.code));
        member_str(json, "detail", result->failure.msg);
        cf_json_end(json);
    } else {
        thumbnail = cf_value_data(result->value);
        (void)snprintf(url, sizeof(url), "/v1/thumbnails/%" PRId64 "?width=%" PRId64,
                       result->image_id, batch->width);
        member_str(json, "url", url);
        member_str(json, "type", image_media_type(thumbnail->type));
        member_u64(json, "width", thumbnail->width);
        member_u64(json, "height", thumbnail->height);
        member_u64(json, "bytes", thumbnail->size);
        member_bool(json, "made", thumbnail->is_made);
    }
    cf_json_end(json);
}

static void write_batch(struct cf_json *json, const struct batch *batch)
{
    uint64_t n_failed = 0;

    cf_json_object(json);
    cf_json_key(json, "thumbnails");
    cf_json_array(json);
    for (size_t i = 0; i < batch->n_results; i++) {
        write_result(json, batch, &batch->results[i]);
        n_failed += batch->results[i].value == NULL;
    }
    cf_json_end(json);
    member_u64(json, "failed", n_failed);
    cf_json_end(json);
}

/* Handlers */

enum cf_code thumbnails_post(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    const struct app *app = cf_http_app(http);
    struct batch batch = {.thumbnails = app->thumbnails};
    enum cf_code code = read_batch(http, &batch, err);

    if (code == CF_OK) {
        code = make_all(ctx, &batch, err);
    }
    if (code == CF_OK) {
        write_batch(cf_http_reply_json(http, 200), &batch);
    }
    for (size_t i = 0; i < batch.n_results; i++) {
        cf_value_unref(batch.results[i].value);
    }
    return code;
}

enum cf_code thumbnail_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    const struct app *app = cf_http_app(http);
    const struct thumbnail *thumbnail;
    struct cf_value *value;
    char etag[ETAG_SIZE];
    int64_t width;
    int64_t id;
    enum cf_code code = cf_http_param_i64(http, "id", 1, INT64_MAX, &id, err);

    if (code == CF_OK) {
        code = cf_http_query_i64(http, "width", IMAGE_THUMBNAIL_WIDTH_MIN,
                                 IMAGE_THUMBNAIL_WIDTH_MAX, THUMBNAIL_WIDTH_DEFAULT, &width, err);
    }
    if (code != CF_OK) {
        return code;
    }
    code = thumbnails_get(ctx, app->thumbnails, id, (uint32_t)width, &value, err);
    if (code != CF_OK) {
        return code == CF_EINVAL ? cf_http_fail_as(http, 422, code) : code;
    }
    thumbnail = cf_value_data(value);
    etag_quote(thumbnail->etag, etag);
    cf_http_reply_shared(http, cf_http_has_etag(http, etag) ? 304 : 200,
                         image_media_type(thumbnail->type), thumbnail->data, thumbnail->size,
                         value);
    cf_http_reply_header(http, "ETag", etag);
    cf_http_reply_header(http, "Cache-Control", CACHE_CONTROL);
    cf_http_timing_note(http, "thumbnail", thumbnail->is_made ? "made" : "stored");
    cf_value_unref(value);
    return CF_OK;
}
