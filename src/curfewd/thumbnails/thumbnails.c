/* SPDX-License-Identifier: MIT */
/* Making thumbnails, and who waits for what: see thumbnails.h.
 *
 * A job owns all that its thread works with, the data of the image and a reference to the context
 * included: when its caller leaves, the thread goes on with it to its next look at the context,
 * then frees it and gives its memory back to the semaphore. That comes last, so that whoever has
 * all of the semaphore knows that no job is left. */
#include "curfewd/thumbnails/thumbnails.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/flight.h>
#include <curfew/lane.h>
#include <curfew/sem.h>

#include "curfewd/etag.h"
#include "curfewd/store/images.h"

/* Constants and types */

/* Heads take microseconds each. */
#define HEAD_THREADS 1
#define HEAD_QUEUE 256

/* Every job takes as much, so there are never more than the memory has of these. */
#define JOB_MEMORY_MIN ((size_t)1024 * 1024)

#define KEY_SIZE 48

struct thumbnails {
    struct thumbnails_options options; /* Constant after new, as are these. */
    struct cf_lane *lane;
    struct cf_lane *heads;
    struct cf_sem *memory; /* A permit a byte. */
    struct cf_flight *flight;
};

/* A thumbnail with what it lies in. */
struct kept {
    struct thumbnail thumbnail; /* First: what others see of it. */
    struct cf_pg_rows *rows;    /* Owned; NULL: it was made. */
    void *data;                 /* Owned; NULL: it was found. */
    char etag[ETAG_BARE_SIZE];
};

/* The making of one. */
struct job {
    struct cf_ctx *ctx; /* A reference. */
    struct cf_sem *memory;
    struct image_plan plan;
    void *data; /* Owned. */
    size_t size;

    enum cf_code code; /* The outcome. */
    struct cf_err err;
    struct image_thumbnail made; /* Owned. */
    char etag[ETAG_BARE_SIZE];
};

/* The reading of a head. */
struct inspection {
    struct image_head head;
    enum cf_code code;
    struct cf_err err;
    size_t size;
    uint8_t data[]; /* A copy of the beginning. */
};

struct query {
    struct thumbnails *thumbnails;
    int64_t id;
    uint32_t width;
};

/* Internal helpers: on the lanes' threads */

static void inspect(void *arg)
{
    struct inspection *inspection = arg;

    inspection->code =
        image_read_head(inspection->data, inspection->size, &inspection->head, &inspection->err);
}

static void make(void *arg)
{
    struct job *job = arg;

    job->code =
        image_make_thumbnail(job->ctx, job->data, job->size, &job->plan, &job->made, &job->err);
    if (job->code == CF_OK) {
        etag_make(job->made.data, job->made.size, job->etag);
    }
}

/* Also on a loop, if the job has ended or never began. */
static void job_free(void *arg)
{
    struct job *job = arg;
    struct cf_sem *memory = job->memory;
    int64_t taken = (int64_t)job->plan.memory;

    image_thumbnail_fini(&job->made);
    free(job->data);
    cf_ctx_unref(job->ctx);
    free(job);
    cf_sem_release(memory, taken);
}

/* Internal helpers: values */

static void kept_free(void *arg)
{
    struct kept *kept = arg;

    cf_pg_rows_free(kept->rows);
    free(kept->data);
    free(kept);
}

/* Those who share it may not change it, so it says once where it is from. */
static enum cf_code wrap(struct kept *own_kept, const struct store_thumbnail *stored,
                         struct cf_value **out, struct cf_err *err)
{
    enum image_type type;

    if (!image_type_of(stored->media_type, &type)) {
        kept_free(own_kept);
        return cf_err_set(err, CF_EINTERNAL, "a thumbnail of no known type");
    }
    own_kept->thumbnail = (struct thumbnail){
        .type = type,
        .etag = stored->etag,
        .width = stored->width,
        .height = stored->height,
        .data = stored->data,
        .size = stored->size,
        .is_made = own_kept->rows == NULL,
    };
    return cf_value_wrap(own_kept, sizeof(*own_kept) + stored->size, kept_free, out, err);
}

/* Internal helpers: finding */

static enum cf_code find(struct cf_ctx *ctx, struct thumbnails *thumbnails, int64_t id,
                         uint32_t width, struct cf_value **out, struct cf_err *err)
{
    struct kept *kept = calloc(1, sizeof(*kept));
    struct store_thumbnail stored = {.media_type = ""};
    enum cf_code code;

    if (kept == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a thumbnail");
    }
    code = store_thumbnail(ctx, thumbnails->options.pg, id, width, &stored, &kept->rows, err);
    if (code != CF_OK) {
        free(kept);
        return code;
    }
    return wrap(kept, &stored, out, err);
}

/* Internal helpers: making */

/* Whether one such image may be decoded here at all. */
static enum cf_code check_size(const struct thumbnails *thumbnails, const struct image_head *head,
                               size_t memory, struct cf_err *err)
{
    if ((size_t)head->width * head->height > thumbnails->options.pixels_max) {
        return cf_err_set(err, CF_EINVAL, "%u x %u pixels are more than %zu", head->width,
                          head->height, thumbnails->options.pixels_max);
    }
    if (memory > thumbnails->options.memory_max) {
        return cf_err_set(err, CF_EINVAL,
                          "%u x %u pixels of this kind take %zu bytes to decode, more than %zu",
                          head->width, head->height, memory, thumbnails->options.memory_max);
    }
    return CF_OK;
}

/* A job that has its memory, and the image. */
static enum cf_code job_new(struct cf_ctx *ctx, struct thumbnails *thumbnails,
                            const struct store_image *image, const struct image_plan *plan,
                            struct job **out, struct cf_err *err)
{
    struct job *job = NULL;
    enum cf_code code = cf_sem_acquire(ctx, thumbnails->memory, (int64_t)plan->memory, err);

    if (code != CF_OK) {
        return code;
    }
    job = calloc(1, sizeof(*job));
    if (job == NULL) {
        cf_sem_release(thumbnails->memory, (int64_t)plan->memory);
        return cf_err_set(err, CF_ENOMEM, "no memory for a thumbnail");
    }
    job->ctx = cf_ctx_ref(ctx);
    job->memory = thumbnails->memory;
    job->plan = *plan;
    job->size = image->size;
    code = store_image_data(ctx, thumbnails->options.pg, image, &job->data, err);
    if (code != CF_OK) {
        job_free(job);
        return code;
    }
    *out = job;
    return CF_OK;
}

/* Take what was made out of the job. */
static enum cf_code take(struct job *job, struct kept **out, struct store_thumbnail *out_stored,
                         struct cf_err *err)
{
    struct kept *kept = NULL;

    if (job->code != CF_OK) {
        *err = job->err; /* A load's: not NULL. */
        return job->code;
    }
    kept = calloc(1, sizeof(*kept));
    if (kept == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a thumbnail");
    }
    memcpy(kept->etag, job->etag, sizeof(kept->etag));
    kept->data = job->made.data;
    *out_stored = (struct store_thumbnail){
        .media_type = image_media_type(job->made.type),
        .etag = kept->etag,
        .data = job->made.data,
        .size = job->made.size,
        .width = job->made.width,
        .height = job->made.height,
    };
    job->made.data = NULL;
    *out = kept;
    return CF_OK;
}

/* Decode and resize on a thread, with the memory for it, which is free again when this returns. */
static enum cf_code run(struct cf_ctx *ctx, struct thumbnails *thumbnails,
                        const struct store_image *image, const struct image_plan *plan,
                        struct kept **out, struct store_thumbnail *out_stored, struct cf_err *err)
{
    struct job *job = NULL;
    enum cf_code code = job_new(ctx, thumbnails, image, plan, &job, err);

    if (code == CF_OK) {
        CF_ASSERT(job != NULL);
        code = cf_lane_run(ctx, thumbnails->lane, make, job_free, job, err);
        if (code == CF_OK) {
            code = take(job, out, out_stored, err);
            job_free(job);
        }
    }
    return code == CF_OK ? CF_OK : cf_err_phase(err, code, "thumbnail");
}

static enum cf_code load(struct cf_ctx *ctx, void *arg, struct cf_value **out, struct cf_err *err)
{
    const struct query *query = arg;
    struct thumbnails *thumbnails = query->thumbnails;
    struct store_thumbnail stored = {.media_type = ""};
    struct store_image image;
    struct image_plan plan;
    struct kept *kept = NULL;
    enum cf_code code = store_image(ctx, thumbnails->options.pg, query->id, &image, err);

    if (code == CF_OK) {
        code = image_plan(&image.head, image.size, query->width, &plan, err);
    }
    if (code == CF_OK) {
        code = check_size(thumbnails, &image.head, plan.memory, err);
    }
    if (code == CF_OK) {
        code = run(ctx, thumbnails, &image, &plan, &kept, &stored, err);
    }
    if (code != CF_OK) {
        return code;
    }
    CF_ASSERT(kept != NULL);
    code = store_keep_thumbnail(ctx, thumbnails->options.pg, query->id, &stored, err);
    if (code != CF_OK) {
        kept_free(kept);
        return code;
    }
    return wrap(kept, &stored, out, err);
}

/* Life cycle */

enum cf_code thumbnails_new(const struct thumbnails_options *options, struct thumbnails **out,
                            struct cf_err *err)
{
    struct thumbnails *thumbnails = calloc(1, sizeof(*thumbnails));
    struct cf_flight_options flights = {.load_timeout_ns = options->make_timeout_ns};
    enum cf_code code;

    if (thumbnails == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for thumbnails");
    }
    thumbnails->options = *options;
    code = cf_lane_new("images", options->threads_max, options->memory_max / JOB_MEMORY_MIN,
                       &thumbnails->lane, err);
    if (code == CF_OK) {
        code = cf_lane_new("image-heads", HEAD_THREADS, HEAD_QUEUE, &thumbnails->heads, err);
    }
    if (code == CF_OK) {
        code = cf_sem_new((int64_t)options->memory_max, &thumbnails->memory, err);
    }
    if (code == CF_OK) {
        code = cf_flight_new(cf_ctx_background(), &flights, &thumbnails->flight, err);
    }
    if (code != CF_OK) {
        thumbnails_free(thumbnails);
        return code;
    }
    *out = thumbnails;
    return CF_OK;
}

void thumbnails_free(struct thumbnails *thumbnails)
{
    if (thumbnails == NULL) {
        return;
    }
    if (thumbnails->flight != NULL) {
        int64_t all = (int64_t)thumbnails->options.memory_max;

        cf_flight_stop(thumbnails->flight);
        if (cf_sem_acquire(cf_ctx_background(), thumbnails->memory, all, NULL) == CF_OK) {
            cf_sem_release(thumbnails->memory, all); /* No job is left, nor can one come. */
        }
    }
    cf_flight_free(thumbnails->flight);
    cf_sem_free(thumbnails->memory);
    cf_lane_free(thumbnails->heads);
    cf_lane_free(thumbnails->lane);
    free(thumbnails);
}

/* Operations */

size_t thumbnails_threads(const struct thumbnails *thumbnails)
{
    return thumbnails->options.threads_max;
}

enum cf_code thumbnails_read_head(struct cf_ctx *ctx, struct thumbnails *thumbnails,
                                  const void *data, size_t size, struct image_head *out,
                                  struct cf_err *err)
{
    size_t kept = size < IMAGE_HEAD_SIZE_MAX ? size : IMAGE_HEAD_SIZE_MAX;
    struct inspection *inspection = calloc(1, sizeof(*inspection) + kept);
    struct image_plan smallest;
    struct image_head head;
    enum cf_code code;

    if (inspection == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for an image");
    }
    memcpy(inspection->data, data, kept);
    inspection->size = kept;
    code = cf_lane_run(ctx, thumbnails->heads, inspect, free, inspection, err);
    if (code != CF_OK) {
        return code;
    }
    code = inspection->code;
    head = inspection->head;
    if (code != CF_OK && err != NULL) {
        *err = inspection->err;
    }
    free(inspection);
    if (code == CF_OK) {
        code = image_plan(&head, size, IMAGE_THUMBNAIL_WIDTH_MIN, &smallest, err);
    }
    if (code == CF_OK) {
        code = check_size(thumbnails, &head, smallest.memory, err);
    }
    if (code == CF_OK) {
        *out = head;
    }
    return code;
}

enum cf_code thumbnails_get(struct cf_ctx *ctx, struct thumbnails *thumbnails, int64_t id,
                            uint32_t width, struct cf_value **out, struct cf_err *err)
{
    static const struct cf_flight_load load_thumbnail = {load, sizeof(struct query)};
    struct query query = {thumbnails, id, width};
    char key[KEY_SIZE];
    enum cf_code code = find(ctx, thumbnails, id, width, out, err);

    if (code != CF_ENOTFOUND) {
        return code;
    }
    (void)snprintf(key, sizeof(key), "%" PRId64 "/%u", id, width);
    return cf_flight_do(ctx, thumbnails->flight, key, &load_thumbnail, &query, out, NULL, err);
}
