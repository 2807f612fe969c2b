/* SPDX-License-Identifier: MIT */
/* Images and their thumbnails in the database. As store.h has it, but for what is read whole: then
 * the rows are hidden in what is handed out. */
#ifndef CURFEWD_STORE_IMAGES_H
#define CURFEWD_STORE_IMAGES_H

#include <curfew/pg.h>

#include "curfewd/images/image.h"

/* What is known of an image without its data. */
struct store_image {
    int64_t id;
    struct image_head head;
    size_t size; /* Bytes. */
    int64_t created_at_us;
};

/* A thumbnail, read or to be kept. */
struct store_thumbnail {
    const char
        *media_type; /* Of one that was read, it lives as long as its rows; as the next two. */
    const char *etag;
    const void *data;
    size_t size;
    uint32_t width;
    uint32_t height;
};

/* Add an image, in a transaction: fills in *out from `head` and `size`, with its id and time. As
 * with any COMMIT, CF_EUNKNOWN is possible. */
CF_MUST enum cf_code store_add_image(struct cf_ctx *ctx, struct cf_pg *pg,
                                     const struct image_head *head, const void *data, size_t size,
                                     struct store_image *out, struct cf_err *err);

/* Fails with CF_ENOTFOUND; CF_EINTERNAL: the row is none of ours. */
CF_MUST enum cf_code store_image(struct cf_ctx *ctx, struct cf_pg *pg, int64_t id,
                                 struct store_image *out, struct cf_err *err);

/* Read its data.
 * Ownership: the caller owns *out, image->size bytes: free().
 * Fails with CF_ENOTFOUND: it was deleted. */
CF_MUST enum cf_code store_image_data(struct cf_ctx *ctx, struct cf_pg *pg,
                                      const struct store_image *image, void **out,
                                      struct cf_err *err);

/* The one of this width, or of the image's if that is less. CF_ENOTFOUND: it was not made yet, or
 * there is no such image. */
CF_MUST enum cf_code store_thumbnail(struct cf_ctx *ctx, struct cf_pg *pg, int64_t image_id,
                                     int64_t width, struct store_thumbnail *out,
                                     struct cf_pg_rows **out_rows, struct cf_err *err);

/* Keep one, unless somebody else was first. CF_ENOTFOUND: the image was deleted. */
CF_MUST enum cf_code store_keep_thumbnail(struct cf_ctx *ctx, struct cf_pg *pg, int64_t image_id,
                                          const struct store_thumbnail *thumbnail,
                                          struct cf_err *err);

#endif
