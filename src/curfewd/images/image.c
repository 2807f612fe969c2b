/* SPDX-License-Identifier: MIT */
/* From bytes to a thumbnail: see image.h. */
#include "curfewd/images/image.h"

#include <stdlib.h>
#include <string.h>

#include "curfewd/images/codec.h"
#include "curfewd/images/exif.h"
#include "curfewd/images/shrink.h"

/* Constants and types */

static const struct {
    const char *media_type;
    const char *name;
    const struct codec *codec;
} types[] = {
    [IMAGE_JPEG] = {"image/jpeg", "JPEG", &codec_jpeg},
    [IMAGE_PNG] = {"image/png", "PNG", &codec_png},
    [IMAGE_WEBP] = {"image/webp", "WebP", &codec_webp},
};

/* What libraries and the encoded thumbnail need beside what grows with the picture. */
#define MEMORY_FIXED ((size_t)1024 * 1024)

/* Internal helpers */

/* `n` times `size` is far from overflowing: sides are below 2^16, and a pixel has few bytes. */
static size_t area(uint32_t width, uint32_t height)
{
    return (size_t)width * height;
}

/* Bytes for each pixel of a picture that is decoded as a whole: of a JPEG the coefficients of at
 * most four components, of the others the pixels. A WebP keeps its alpha whole even
 * if not the rest. */
static size_t whole_memory(const struct image_head *head)
{
    switch (head->type) {
    case IMAGE_JPEG: /* In blocks, of which the last ones are not full. */
        return head->is_buffered ? (size_t)8 * area(head->width + 32, head->height + 32) : 0;
    case IMAGE_PNG:
        return head->is_buffered ? (size_t)4 * area(head->width, head->height) : 0;
    case IMAGE_WEBP:
        return (size_t)(head->is_buffered ? 6 : 2) * area(head->width, head->height);
    case IMAGE_TYPE_COUNT:
        break;
    }
    return 0;
}

/* What is left after shrinking has fewer than four times the thumbnail's columns, and as many rows
 * as are in proportion. WebP has it twice. */
static size_t shrunk_memory(const struct image_plan *plan)
{
    size_t width = 4 * (size_t)plan->width;
    size_t height;

    width = width < plan->head.width ? width : plan->head.width;
    height = width * plan->head.height / plan->head.width + 2;
    return (size_t)2 * 4 * width * height;
}

/* Rows of the codecs, and of those that are summed up and resized. */
static size_t rows_memory(const struct image_plan *plan)
{
    return 512 * (size_t)plan->head.width + 1024 * (size_t)plan->width;
}

static size_t memory_of(const struct image_plan *plan, size_t data_size)
{
    /* Its pixels, turned ones, and twice as much for what they are encoded to, which doubles. */
    size_t thumbnail = (size_t)4 * 4 * area(plan->width, plan->height);

    return MEMORY_FIXED + data_size + whole_memory(&plan->head) + shrunk_memory(plan) +
           rows_memory(plan) + thumbnail;
}

static enum cf_code encode(struct cf_ctx *ctx, const struct pixels *pixels,
                           struct image_thumbnail *out, struct cf_err *err)
{
    bool is_opaque = pixels->channels == 3;
    struct output output = {NULL, 0, 0};
    enum cf_code code =
        is_opaque ? jpeg_encode(ctx, pixels, &output, err) : png_encode(ctx, pixels, &output, err);

    if (code != CF_OK) {
        free(output.data);
        return code;
    }
    *out = (struct image_thumbnail){
        .type = is_opaque ? IMAGE_JPEG : IMAGE_PNG,
        .width = pixels->width,
        .height = pixels->height,
        .data = output.data,
        .size = output.size,
    };
    return CF_OK;
}

/* What the codecs share */

enum cf_code codec_broken(struct cf_err *err, const char *what, const char *why)
{
    return cf_err_set(err, CF_EINVAL, "broken %s: %s", what, why);
}

bool codec_is_same(const struct image_head *head, const struct image_head *other)
{
    return head->type == other->type && head->width == other->width &&
           head->height == other->height && head->is_buffered == other->is_buffered;
}

uint32_t codec_target(const struct image_plan *plan, unsigned orientation)
{
    return exif_is_turned(orientation) ? plan->height : plan->width;
}

uint8_t *output_reserve(struct output *output, size_t size)
{
    size_t room = output->room > 0 ? output->room : (size_t)16 * 1024;
    uint8_t *data;

    while (room - output->size < size) {
        room *= 2; /* No overflow: a thumbnail's pixels are some megabytes. */
    }
    if (room > output->room) {
        data = realloc(output->data, room);
        if (data == NULL) {
            return NULL;
        }
        output->data = data;
        output->room = room;
    }
    return output->data + output->size;
}

/* Queries */

const char *image_media_type(enum image_type type)
{
    return types[type].media_type;
}

bool image_type_of(const char *media_type, enum image_type *out)
{
    for (int i = 0; i < IMAGE_TYPE_COUNT; i++) {
        if (strcmp(types[i].media_type, media_type) == 0) {
            *out = (enum image_type)i;
            return true;
        }
    }
    return false;
}

bool image_sniff(const void *data, size_t size, enum image_type *out)
{
    const char *at = data;

    if (size >= 3 && memcmp(at, "\xFF\xD8\xFF", 3) == 0) {
        *out = IMAGE_JPEG;
    } else if (size >= 8 && memcmp(at, "\x89PNG\r\n\x1A\n", 8) == 0) {
        *out = IMAGE_PNG;
    } else if (size >= 12 && memcmp(at, "RIFF", 4) == 0 && memcmp(at + 8, "WEBP", 4) == 0) {
        *out = IMAGE_WEBP;
    } else {
        return false;
    }
    return true;
}

/* Operations */

enum cf_code image_read_head(const void *data, size_t size, struct image_head *out,
                             struct cf_err *err)
{
    struct image_head head = {.width = 0};
    enum cf_code code;

    if (!image_sniff(data, size, &head.type)) {
        return cf_err_set(err, CF_EINVAL, "this is no JPEG, PNG or WebP");
    }
    size = size < IMAGE_HEAD_SIZE_MAX ? size : IMAGE_HEAD_SIZE_MAX;
    code = types[head.type].codec->read_head(data, size, &head, err);
    if (code != CF_OK) {
        return code;
    }
    if (head.width < 1 || head.width > IMAGE_SIDE_MAX || head.height < 1 ||
        head.height > IMAGE_SIDE_MAX) {
        return cf_err_set(err, CF_EINVAL, "a side of %u x %u pixels is longer than %d", head.width,
                          head.height, IMAGE_SIDE_MAX);
    }
    *out = head;
    return CF_OK;
}

enum cf_code image_plan(const struct image_head *head, size_t data_size, uint32_t width,
                        struct image_plan *out, struct cf_err *err)
{
    struct image_plan plan = {.head = *head};
    uint64_t height;

    plan.width = width < head->width ? width : head->width;
    height = ((uint64_t)head->height * plan.width + head->width / 2) / head->width;
    plan.height = height > 0 ? (uint32_t)height : 1;
    if (plan.height > IMAGE_THUMBNAIL_HEIGHT_MAX) {
        return cf_err_set(err, CF_EINVAL, "%u pixels wide it would be %u high, more than %d",
                          plan.width, plan.height, IMAGE_THUMBNAIL_HEIGHT_MAX);
    }
    plan.memory = memory_of(&plan, data_size);
    *out = plan;
    return CF_OK;
}

enum cf_code image_make_thumbnail(struct cf_ctx *ctx, const void *data, size_t size,
                                  const struct image_plan *plan, struct image_thumbnail *out,
                                  struct cf_err *err)
{
    const struct codec *codec = types[plan->head.type].codec;
    struct sink sink = {.plan = plan};
    struct pixels small = {.data = NULL};
    enum cf_code code = cf_ctx_check(ctx, err);

    if (code == CF_OK) {
        code = codec->decode(ctx, data, size, plan, &sink, err);
    }
    if (code == CF_OK) {
        code = sink_end(&sink, err);
    }
    if (code == CF_OK) {
        bool is_turned = exif_is_turned(sink.pixels.orientation);

        code = resize(ctx, &sink.pixels, is_turned ? plan->height : plan->width,
                      is_turned ? plan->width : plan->height, &small, err);
    }
    if (code == CF_OK) {
        code = exif_turn(&small, err);
    }
    if (code == CF_OK) {
        code = encode(ctx, &small, out, err);
    }
    free(small.data);
    sink_fini(&sink);
    return code;
}

void image_thumbnail_fini(struct image_thumbnail *thumbnail)
{
    free(thumbnail->data);
    thumbnail->data = NULL;
}
