/* SPDX-License-Identifier: MIT */
/* Pictures: what they are, how large they would be in memory, and small copies of them.
 *
 * An image is told by its content: JPEG, PNG or WebP. Its head is read first, and says how many
 * pixels there are to come; only then is anything decoded. A thumbnail is made in stripes: a few
 * rows are decoded, shrunk by a whole factor as they come, and let go; what is left is resized at
 * the end. So one from a large picture takes little memory, unless the format has to be decoded as
 * a whole (`is_buffered`).
 *
 * A JPEG is turned as EXIF says it has to be; other metadata, and profiles of colours, are ignored.
 *
 * Invariant: between two stripes the context is looked at; when it is done, the work ends, and all
 * that was allocated is freed, as it is on every other way out.
 *
 *     code = image_read_head(data, size, &head, err);
 *     if (code == CF_OK) { code = image_plan(&head, size, 320, &plan, err); }
 *     if (code == CF_OK) { code = image_make_thumbnail(ctx, data, size, &plan, &thumbnail, err); }
 *
 * CPU work, which waits for nothing: for a thread of a lane, not for a loop. Thread safety: any
 * thread; values. */
#ifndef CURFEWD_IMAGES_IMAGE_H
#define CURFEWD_IMAGES_IMAGE_H

#include <curfew/ctx.h>
#include <curfew/err.h>

/* X(symbol, media type) */
#define IMAGE_TYPES(X)                                                                             \
    X(IMAGE_JPEG, "image/jpeg")                                                                    \
    X(IMAGE_PNG, "image/png")                                                                      \
    X(IMAGE_WEBP, "image/webp")

enum image_type {
#define IMAGE_TYPE_ENUM(symbol, media_type) symbol,
    IMAGE_TYPES(IMAGE_TYPE_ENUM)
#undef IMAGE_TYPE_ENUM
    IMAGE_TYPE_COUNT
};

/* The longest side that any of the three can have, but for PNG. */
#define IMAGE_SIDE_MAX 65535

/* Of a thumbnail. */
#define IMAGE_THUMBNAIL_WIDTH_MIN 16
#define IMAGE_THUMBNAIL_WIDTH_MAX 2048
#define IMAGE_THUMBNAIL_HEIGHT_MAX 4096

/* How much of the data has to hold the head. */
#define IMAGE_HEAD_SIZE_MAX ((size_t)1024 * 1024)

/* Scans of a progressive JPEG: those that programs write have some ten, and each is a pass over the
 * whole picture. */
#define IMAGE_SCANS_MAX 100

struct image_head {
    enum image_type type;
    uint32_t width; /* As it is to be seen; from 1 to IMAGE_SIDE_MAX, as is the height. */
    uint32_t height;
    bool is_buffered; /* Decoded as a whole: progressive, interlaced, lossless WebP. */
};

/* How a thumbnail is to be made. */
struct image_plan {
    struct image_head head;
    uint32_t width; /* Of the thumbnail. */
    uint32_t height;
    size_t memory; /* Bytes that it takes at most, with the data. */
};

/* Ownership: image_thumbnail_fini(). */
struct image_thumbnail {
    enum image_type type; /* JPEG, or PNG for what can be seen through. */
    uint32_t width;
    uint32_t height;
    void *data;
    size_t size;
};

/* Static. */
const char *image_media_type(enum image_type type);

/* The type of that name. False: there is none. */
bool image_type_of(const char *media_type, enum image_type *out);

/* What it is, by its first bytes. False: none of the three. */
bool image_sniff(const void *data, size_t size, enum image_type *out);

/* Read the head, which is within the first IMAGE_HEAD_SIZE_MAX bytes.
 * Fails with CF_EINVAL: no image, a broken one, or one that is not supported; CF_ENOMEM. */
CF_MUST enum cf_code image_read_head(const void *data, size_t size, struct image_head *out,
                                     struct cf_err *err);

/* Plan a thumbnail of `data_size` bytes of an image: `width` wide, or as wide as the image is, if
 * that is less. Fails with CF_EINVAL: it would be too high. */
CF_MUST enum cf_code image_plan(const struct image_head *head, size_t data_size, uint32_t width,
                                struct image_plan *out, struct cf_err *err);

/* Make it. The head has to be what the plan was made from.
 * Fails with CF_EINVAL (a broken image), CF_ENOMEM; CF_ECANCELED, CF_EDEADLINE, when `ctx` ends. */
CF_MUST enum cf_code image_make_thumbnail(struct cf_ctx *ctx, const void *data, size_t size,
                                          const struct image_plan *plan,
                                          struct image_thumbnail *out, struct cf_err *err);
void image_thumbnail_fini(struct image_thumbnail *thumbnail);

#endif
