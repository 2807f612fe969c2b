/* SPDX-License-Identifier: MIT */
/* Images and thumbnails: see images.h. */
#include "curfewd/store/images.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/pg_tx.h>

#include "curfewd/store/outcome.h"

/* Bytes of an image that are kept in one row, and so are written and read at once: what libpq
 * copies in some 0.1 ms. */
#define PIECE_SIZE ((size_t)256 * 1024)

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
    .sql = "INSERT INTO images (media_type, width, height, is_buffered, size)"
           " VALUES ($1, $2::bigint, $3::bigint, $4::bigint::int::boolean, $5)"
           " RETURNING id, created_at",
    .columns = "iz",
};

static const struct cf_pg_stmt add_piece = {
    .name = "add_image_piece",
    .sql = "INSERT INTO image_pieces (image_id, number, data) VALUES ($1, $2::bigint, $3)",
};

static const struct cf_pg_stmt find_image = {
    .name = "find_image",
    .sql = "SELECT media_type, width, height, is_buffered::int, size, created_at"
           " FROM images WHERE id = $1",
    .columns = "tiiiiz",
};

static const struct cf_pg_stmt find_piece = {
    .name = "find_image_piece",
    .sql = "SELECT data FROM image_pieces WHERE image_id = $1 AND number = $2::bigint",
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

/* How many bytes the piece has that begins `at`. */
static size_t piece_size(size_t size, size_t at)
{
    return size - at < PIECE_SIZE ? size - at : PIECE_SIZE;
}

/* One piece, to where it belongs. */
static enum cf_code read_piece(struct cf_ctx *ctx, struct cf_pg *pg,
                               const struct store_image *image, size_t at, uint8_t *data,
                               struct cf_err *err)
{
    struct cf_pg_param params[] = {cf_pg_i64(image->id), cf_pg_i64((int64_t)(at / PIECE_SIZE))};
    size_t size = piece_size(image->size, at);
    struct cf_pg_rows *rows;
    const void *piece;
    size_t got = 0;
    enum cf_code code = cf_pg_query(ctx, pg, &find_piece, params, 2, &rows, err);

    if (code != CF_OK) {
        return cf_err_wrap(err, code, "image %" PRId64, image->id);
    }
    if (cf_pg_rows_count(rows) > 0) {
        piece = cf_pg_get_bytes(rows, 0, 0, &got);
        memcpy(data + at, piece, got < size ? got : size);
    }
    cf_pg_rows_free(rows);
    return got == size ? CF_OK : no_image(image->id, err);
}

static enum cf_code add_head(struct cf_ctx *ctx, struct cf_pg_tx *tx, const struct image_head *head,
                             size_t size, struct store_image *out, struct cf_err *err)
{
    struct cf_pg_param params[] = {cf_pg_str(image_media_type(head->type)), cf_pg_i64(head->width),
                                   cf_pg_i64(head->height), cf_pg_i64(head->is_buffered),
                                   cf_pg_i64((int64_t)size)};
    struct cf_pg_rows *rows;
    enum cf_code code = cf_pg_tx_query(ctx, tx, &add_image, params, 5, &rows, err);

    if (code != CF_OK) {
        return code;
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

static enum cf_code add_pieces(struct cf_ctx *ctx, struct cf_pg_tx *tx,
                               const struct store_image *image, const uint8_t *data,
                               struct cf_err *err)
{
    enum cf_code code = CF_OK;

    for (size_t at = 0; at < image->size && code == CF_OK; at += PIECE_SIZE) {
        struct cf_pg_param params[] = {cf_pg_i64(image->id), cf_pg_i64((int64_t)(at / PIECE_SIZE)),
                                       cf_pg_bytes(data + at, piece_size(image->size, at))};
        struct cf_pg_rows *rows = NULL;

        code = cf_pg_tx_query(ctx, tx, &add_piece, params, 3, &rows, err);
        cf_pg_rows_free(rows);
    }
    return code;
}

/* Operations */

enum cf_code store_add_image(struct cf_ctx *ctx, struct cf_pg *pg, const struct image_head *head,
                             const void *data, size_t size, struct store_image *out,
                             struct cf_err *err)
{
    struct store_image image;
    struct cf_pg_tx *tx;
    enum cf_code code = cf_pg_begin(ctx, pg, NULL, &tx, err);

    if (code == CF_OK) {
        code = add_head(ctx, tx, head, size, &image, err);
        if (code == CF_OK) {
            code = add_pieces(ctx, tx, &image, data, err);
        }
        if (code == CF_OK) {
            code = cf_pg_commit(ctx, tx, err);
        } else {
            cf_pg_rollback(tx);
        }
    }
    if (code != CF_OK) {
        return cf_err_wrap(err, code, "add an image");
    }
    *out = image;
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
        code = read_piece(ctx, pg, image, at, data, err);
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
