/* SPDX-License-Identifier: MIT */
/* What is between the codecs and the rest of this directory: rows of pixels.
 *
 * A codec hands its rows, from top to bottom, to a sink, in whatever scale it can decode well that
 * is not below what is wanted. Pixels are red, green, blue; with alpha behind them, the colours are
 * not multiplied by it. */
#ifndef CURFEWD_IMAGES_CODEC_H
#define CURFEWD_IMAGES_CODEC_H

#include "curfewd/images/image.h"

/* Rows between two looks at the context. */
#define STRIPE_ROWS 16

/* Pixels in memory, without gaps. */
struct pixels {
    uint8_t *data; /* Owned: free(). */
    uint32_t width;
    uint32_t height;
    unsigned channels;

    /* As many of them, from the left and the top, are the picture: what a division leaves over is
     * only a part of the last one. */
    double span_x;
    double span_y;
    unsigned orientation; /* EXIF's: how they have to be turned. 0: not at all. */
};

/* How wide the rows that a codec decodes have to become: of a picture that lies on its side, as
 * wide as the thumbnail is high. */
uint32_t codec_target(const struct image_plan *plan, unsigned orientation);

/* Takes what a codec decodes: shrink.c. */
struct sink;

/* The rows that come have the width, height, channels (3 or 4) and spans of `decoded`, whose data
 * means nothing. Once, before the first. Fails with CF_ENOMEM. */
CF_MUST enum cf_code sink_begin(struct sink *sink, const struct pixels *decoded,
                                struct cf_err *err);

/* The next row. Borrows it. */
void sink_row(struct sink *sink, const uint8_t *row);

/* The encoded picture, which grows. */
struct output {
    uint8_t *data; /* Owned: free(). */
    size_t size;
    size_t room;
};

/* Room for `size` more bytes behind output->size, or NULL: out of memory. */
uint8_t *output_reserve(struct output *output, size_t size);

struct codec {
    /* Fill in width, height, is_buffered. */
    enum cf_code (*read_head)(const uint8_t *data, size_t size, struct image_head *out,
                              struct cf_err *err);

    /* Hand all rows to the sink. */
    enum cf_code (*decode)(struct cf_ctx *ctx, const uint8_t *data, size_t size,
                           const struct image_plan *plan, struct sink *sink, struct cf_err *err);
};

extern const struct codec codec_jpeg;
extern const struct codec codec_png;
extern const struct codec codec_webp;

/* Write pixels of 3 channels as a JPEG, of 4 as a PNG. What was written is in *output also on
 * failure. Fail with CF_ENOMEM, and as `ctx` does. */
CF_MUST enum cf_code jpeg_encode(struct cf_ctx *ctx, const struct pixels *pixels,
                                 struct output *output, struct cf_err *err);
CF_MUST enum cf_code png_encode(struct cf_ctx *ctx, const struct pixels *pixels,
                                struct output *output, struct cf_err *err);

/* Whether a picture is still what a plan was made from. */
bool codec_is_same(const struct image_head *head, const struct image_head *other);

/* How the codecs fail: "broken JPEG: " and what is wrong with it. */
CF_MUST enum cf_code codec_broken(struct cf_err *err, const char *what, const char *why);

#endif
