/* SPDX-License-Identifier: MIT */
/* Images and thumbnails: see images.h. */
#include "curfewd/store/images.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "curfewd/store/outcome.h"

/* Bytes of an image that are read at once. */
#define PIECE_SIZE ((size_t)512 * 1024)

enum {
    IMAGE_MEDIA_TYPE,
    IMAGE_WIDTH,
    IMAGE_HEIGHT,
    IMAGE_IS_BUFFERED,
    IMAGE_SIZE,
    IMAGE_CREATED_AT
};

enum {
    THUMBNAIL_MEDIA_TYPE,
    THUMBNAIL_ETAG,
    THUMBNAIL_WIDTH,
    THUMBNAIL_HEIGHT,
    THUMBNAIL_DATA
};

static const struct cf_pg_stmt add_image = {
    .name = "add_image",
    .sql = "INSERT INTO images (media_type, width, height, is_buffered, data)"
           " VALUES ($1, $2::bigint, $3::bigint, $4::bigint::int::boolean, $5)"
           " RETURNING id, created_at",
    .columns = "iz",
};

static const struct cf_pg_stmt find_image = {
    .name = "find_image",
    .sql = "SELECT media_type, width, height, is_buffered::int, octet_length(data), created_at"
           " FROM images WHERE id = $1",
    .columns = "tiiiiz",
};

static const struct cf_pg_stmt read_image = {
    .name = "read_image",
    .sql = "SELECT substring(data FROM $2::bigint::int FOR $3::bigint::int) FROM images"
           " WHERE id = $1",
    .columns = "b",
};

static const struct cf_pg_stmt find_thumbnail = {
    .name = "find_thumbnail",
    .sql = "SELECT t.media_type, t.etag, t.width, t.height, t.data"
           " FROM images i JOIN thumbnails t ON t.image_id = i.id AND t.width = least($2, i.width)"
           " WHERE i.id = $1",
    .columns = "ttiib",
};

static const struct cf_pg_stmt keep_thumbnail = {
    .name = "keep_thumbnail",
    .sql = "INSERT INTO thumbnails (image_id, width, height, media_type, etag, data)"
           " VALUES ($1, $2::bigint, $3::bigint, $4, $5, $6) ON CONFLICT DO NOTHING",
};

/* Internal helpers */

static enum cf_code no_image(int64_t id, struct cf_err *err)
{
    return cf_err_set(err, CF_ENOTFOUND, "there is no image %" PRId64, id);
}

/* One piece, to where it belongs. */
static enum cf_code read_piece(struct cf_ctx *ctx, struct cf_pg *pg, int64_t id, size_t at,
                               size_t size, uint8_t *to, struct cf_err *err)
{
    struct cf_pg_param params[] = {cf_pg_i64(id), cf_pg_i64((int64_t)at + 1),
                                   cf_pg_i64((int64_t)size)};
    struct cf_pg_rows *rows;
    const void *data;
    size_t got = 0;
    enum cf_code code = cf_pg_query(ctx, pg, &read_image, params, 3, &rows, err);

    if (code != CF_OK) {
        return cf_err_wrap(err, code, "image %" PRId64, id);
    }
    if (cf_pg_rows_count(rows) > 0) {
        data = cf_pg_get_bytes(rows, 0, 0, &got);
        memcpy(to, data, got < size ? got : size);
    }
    cf_pg_rows_free(rows);
    return got == size ? CF_OK : no_image(id, err);
}

/* Operations */

enum cf_code store_add_image(struct cf_ctx *ctx, struct cf_pg *pg, const struct image_head *head,
                             const void *data, size_t size, struct store_image *out,
                             struct cf_err *err)
{
    struct cf_pg_param params[] = {cf_pg_str(image_media_type(head->type)), cf_pg_i64(head->width),
                                   cf_pg_i64(head->height), cf_pg_i64(head->is_buffered),
                                   cf_pg_bytes(data, size)};
    struct cf_pg_rows *rows;
    enum cf_code code = cf_pg_query(ctx, pg, &add_image, params, 5, &rows, err);

    if (code != CF_OK) {
        return cf_err_wrap(err, code, "add an image");
    }
    *out = (struct store_image){
        .id = cf_pg_get_i64(rows, 0, 0),
        .head = *head,
        .size = size,
        .created_at_us = cf_pg_get_time_us(rows, 0, 1),
    };
    cf_pg_rows_free(rows);
    return CF_OK;
}

enum cf_code store_image(struct cf_ctx *ctx, struct cf_pg *pg, int64_t id, struct store_image *out,
                         struct cf_err *err)
{
    struct cf_pg_param params[] = {cf_pg_i64(id)};
    struct store_image image = {.id = id};
    struct cf_pg_rows *rows = NULL;
    enum cf_code code = cf_pg_query(ctx, pg, &find_image, params, 1, &rows, err);

    code = store_one(code, rows, "image", id, &rows, err);
    if (code != CF_OK) {
        return code;
    }
    if (!image_type_of(cf_pg_get_text(rows, 0, IMAGE_MEDIA_TYPE), &image.head.type)) {
        code = cf_err_set(err, CF_EINTERNAL, "image %" PRId64 " is of no known type", id);
    }
    image.head.width = (uint32_t)cf_pg_get_i64(rows, 0, IMAGE_WIDTH); /* The schema bounds both. */
    image.head.height = (uint32_t)cf_pg_get_i64(rows, 0, IMAGE_HEIGHT);
    image.head.is_buffered = cf_pg_get_i64(rows, 0, IMAGE_IS_BUFFERED) != 0;
    image.size = (size_t)cf_pg_get_i64(rows, 0, IMAGE_SIZE);
    image.created_at_us = cf_pg_get_time_us(rows, 0, IMAGE_CREATED_AT);
    cf_pg_rows_free(rows);
    if (code == CF_OK) {
        *out = image;
    }
    return code;
}

enum cf_code store_image_data(struct cf_ctx *ctx, struct cf_pg *pg, const struct store_image *image,
                              void **out, struct cf_err *err)
{
    uint8_t *data = malloc(image->size);
    enum cf_code code = CF_OK;

    if (data == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for an image");
    }
    for (size_t at = 0; at < image->size && code == CF_OK; at += PIECE_SIZE) {
        size_t left = image->size - at;

        code = read_piece(ctx, pg, image->id, at, left < PIECE_SIZE ? left : PIECE_SIZE, data + at,
                          err);
    }
    if (code != CF_OK) {
        free(data);
        return code;
    }
    *out = data;
    return CF_OK;
}

enum cf_code store_thumbnail(struct cf_ctx *ctx, struct cf_pg *pg, int64_t image_id, int64_t width,
                             struct store_thumbnail *out, struct cf_pg_rows **out_rows,
                             struct cf_err *err)
{
    struct cf_pg_param params[] = {cf_pg_i64(image_id), cf_pg_i64(width)};
    struct cf_pg_rows *rows = NULL;
    enum cf_code code = cf_pg_query(ctx, pg, &find_thumbnail, params, 2, &rows, err);

    code = store_one(code, rows, "thumbnail of image", image_id, &rows, err);
    if (code != CF_OK) {
        return code;
    }
    out->media_type = cf_pg_get_text(rows, 0, THUMBNAIL_MEDIA_TYPE);
    out->etag = cf_pg_get_text(rows, 0, THUMBNAIL_ETAG);
    out->width = (uint32_t)cf_pg_get_i64(rows, 0, THUMBNAIL_WIDTH);
    out->height = (uint32_t)cf_pg_get_i64(rows, 0, THUMBNAIL_HEIGHT);
    out->data = cf_pg_get_bytes(rows, 0, THUMBNAIL_DATA, &out->size);
    *out_rows = rows;
    return CF_OK;
}

enum cf_code store_keep_thumbnail(struct cf_ctx *ctx, struct cf_pg *pg, int64_t image_id,
                                  const struct store_thumbnail *thumbnail, struct cf_err *err)
{
    struct cf_pg_param params[] = {
        cf_pg_i64(image_id),          cf_pg_i64(thumbnail->width),
        cf_pg_i64(thumbnail->height), cf_pg_str(thumbnail->media_type),
        cf_pg_str(thumbnail->etag),   cf_pg_bytes(thumbnail->data, thumbnail->size)};
    struct cf_pg_rows *rows = NULL;
    enum cf_code code = cf_pg_query(ctx, pg, &keep_thumbnail, params, 6, &rows, err);

    cf_pg_rows_free(rows);
    if (store_refers_to_none(code, err)) {
        return no_image(image_id, err);
    }
    return code == CF_OK ? CF_OK
                         : cf_err_wrap(err, code, "keep a thumbnail of image %" PRId64, image_id);
}
