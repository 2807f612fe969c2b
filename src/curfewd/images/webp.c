/* SPDX-License-Identifier: MIT */
/* WebP, by libwebp: see codec.h.
 *
 * Its decoder takes no callback, but data piece by piece: it is given little at once, and the
 * context is looked at in between. A piece is decoded as far as it goes, which of a picture that
 * says nearly nothing is far: then the limit of pixels bounds what is done at once. It scales while
 * it decodes, so the picture itself is never whole but in its own, compact, form. */
#include "curfewd/images/codec.h"

#include <stdlib.h>

#include <webp/decode.h>

/* Bytes between two looks at the context: so many pieces, and none smaller. */
#define PIECES 512
#define PIECE_SIZE_MIN 512

/* What WebPGetFeatures() calls lossless. */
#define FORMAT_LOSSLESS 2

/* Internal helpers */

static enum cf_code fail(VP8StatusCode status, struct cf_err *err)
{
    switch (status) {
    case VP8_STATUS_OUT_OF_MEMORY:
        return cf_err_set(err, CF_ENOMEM, "no memory for a WebP");
    case VP8_STATUS_SUSPENDED:
    case VP8_STATUS_NOT_ENOUGH_DATA:
        return codec_broken(err, "WebP", "it ends too early");
    case VP8_STATUS_UNSUPPORTED_FEATURE:
        return codec_broken(err, "WebP", "it is of an unknown kind");
    case VP8_STATUS_OK:
    case VP8_STATUS_INVALID_PARAM:
    case VP8_STATUS_BITSTREAM_ERROR:
    case VP8_STATUS_USER_ABORT:
        break;
    }
    return codec_broken(err, "WebP", "its data is wrong");
}

static enum cf_code read_features(const uint8_t *data, size_t size, WebPBitstreamFeatures *out,
                                  struct image_head *out_head, struct cf_err *err)
{
    VP8StatusCode status = WebPGetFeatures(data, size, out);

    if (status != VP8_STATUS_OK) {
        return fail(status, err);
    }
    if (out->has_animation) {
        return cf_err_set(err, CF_EINVAL, "a WebP that is animated is not supported");
    }
    out_head->width = (uint32_t)out->width;
    out_head->height = (uint32_t)out->height;
    out_head->is_buffered = out->format == FORMAT_LOSSLESS;
    return CF_OK;
}

/* Fill the pixels, which have the size that the picture is scaled to. */
static enum cf_code feed(struct cf_ctx *ctx, const uint8_t *data, size_t size,
                         WebPIDecoder *decoder, struct cf_err *err)
{
    size_t piece = size / PIECES > PIECE_SIZE_MIN ? size / PIECES : PIECE_SIZE_MIN;
    VP8StatusCode status = VP8_STATUS_SUSPENDED;
    enum cf_code code = CF_OK;

    for (size_t n = 0; n < size && status == VP8_STATUS_SUSPENDED && code == CF_OK;) {
        n = size - n > piece ? n + piece : size;
        status = WebPIUpdate(decoder, data, n);
        code = cf_ctx_check(ctx, err);
    }
    if (code == CF_OK && status != VP8_STATUS_OK) {
        code = fail(status, err);
    }
    return code;
}

static enum cf_code fill(struct cf_ctx *ctx, const uint8_t *data, size_t size,
                         const struct image_head *head, struct pixels *pixels, struct cf_err *err)
{
    size_t row_size = (size_t)pixels->width * pixels->channels;
    WebPDecoderConfig config;
    WebPIDecoder *decoder;
    enum cf_code code;

    if (!WebPInitDecoderConfig(&config)) {
        return cf_err_set(err, CF_EINTERNAL, "libwebp is of another version");
    }
    config.options.use_scaling = pixels->width != head->width || pixels->height != head->height;
    config.options.scaled_width = (int)pixels->width;
    config.options.scaled_height = (int)pixels->height;
    config.output.colorspace = pixels->channels == 4 ? MODE_RGBA : MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = pixels->data;
    config.output.u.RGBA.stride = (int)row_size;
    config.output.u.RGBA.size = row_size * pixels->height;
    decoder = WebPIDecode(NULL, 0, &config);
    if (decoder == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a WebP");
    }
    code = feed(ctx, data, size, decoder, err);
    WebPIDelete(decoder);
    WebPFreeDecBuffer(&config.output);
    return code;
}

/* Of the thumbnail's size up to twice as much is left for the filter. */
static void choose_scale(const struct image_plan *plan, struct pixels *out)
{
    uint32_t factor = plan->head.width / (2 * plan->width);

    factor = factor > 1 ? factor : 1;
    out->width = (plan->head.width + factor - 1) / factor;
    out->height = (plan->head.height + factor - 1) / factor;
    out->span_x = out->width; /* It is scaled to fill them. */
    out->span_y = out->height;
}

static enum cf_code hand_on(struct cf_ctx *ctx, const struct pixels *pixels, struct sink *sink,
                            struct cf_err *err)
{
    enum cf_code code = sink_begin(sink, pixels, err);

    for (uint32_t y = 0; y < pixels->height && code == CF_OK; y++) {
        sink_row(sink, pixels->data + (size_t)y * pixels->width * pixels->channels);
        if (y % STRIPE_ROWS == 0) {
            code = cf_ctx_check(ctx, err);
        }
    }
    return code;
}

/* Operations: of codec.h */

static enum cf_code read_head(const uint8_t *data, size_t size, struct image_head *out,
                              struct cf_err *err)
{
    WebPBitstreamFeatures features;

    return read_features(data, size, &features, out, err);
}

static enum cf_code decode(struct cf_ctx *ctx, const uint8_t *data, size_t size,
                           const struct image_plan *plan, struct sink *sink, struct cf_err *err)
{
    WebPBitstreamFeatures features;
    struct image_head head = plan->head;
    struct pixels pixels = {.data = NULL};
    enum cf_code code = read_features(data, size, &features, &head, err);

    if (code != CF_OK) {
        return code;
    }
    if (!codec_is_same(&head, &plan->head)) {
        return codec_broken(err, "WebP", "it is not what it was");
    }
    choose_scale(plan, &pixels);
    pixels.channels = features.has_alpha ? 4 : 3;
    pixels.data = calloc((size_t)pixels.width * pixels.height, pixels.channels);
    if (pixels.data == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for %u x %u pixels", pixels.width,
                          pixels.height);
    }
    code = fill(ctx, data, size, &head, &pixels, err);
    if (code == CF_OK) {
        code = hand_on(ctx, &pixels, sink, err);
    }
    free(pixels.data);
    return code;
}

const struct codec codec_webp = {read_head, decode};
