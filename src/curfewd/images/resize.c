/* SPDX-License-Identifier: MIT */
/* The last step of a thumbnail, by stb_image_resize: see shrink.h.
 *
 * Both of its versions can make a part of the result, so it is made in stripes, and the context is
 * looked at between them. Version 1 (Debian 12) takes the place of a stripe as an offset in pixels,
 * a float, whose error is far below a pixel's; version 2 (Debian 13) makes stripes
 * that it was told of before. */
#include "curfewd/images/shrink.h"

#include <stdlib.h>

#ifdef CF_FUZZ
#define STBIR_ASSERT(promise) CF_ASSERT(promise)
#else
#define STBIR_ASSERT(promise)                                                                      \
    ((void)0) /* Of its own workings: what comes from outside is checked. */
#endif
#define STBIR_MALLOC(size, context) ((void)(context), malloc(size))
#define STBIR_FREE(block, context) ((void)(context), free(block))
#define STB_IMAGE_RESIZE_STATIC
#define STB_IMAGE_RESIZE_IMPLEMENTATION

/* Inlined into ours, its functions are no system header's any more. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#if __has_include(<stb/stb_image_resize2.h>)
#include <stb/stb_image_resize2.h>
#define HAS_VERSION_2
#else
#include <stb/stb_image_resize.h>
#endif
#pragma GCC diagnostic pop

/* Of a stripe, about: tens of milliseconds. Less, and what is done once for each takes longer
 * than the rest. */
#define STRIPE_PIXELS 262144

/* Of the filters that it takes by itself, in pixels of whichever side has the larger ones. */
#define FILTER_RADIUS 2

/* Internal helpers */

static uint32_t stripe_rows(const struct pixels *pixels)
{
    uint32_t rows = STRIPE_PIXELS / pixels->width;

    return rows > STRIPE_ROWS ? rows : STRIPE_ROWS;
}

#ifdef HAS_VERSION_2

static enum cf_code fill(struct cf_ctx *ctx, const struct pixels *in, struct pixels *out,
                         struct cf_err *err)
{
    STBIR_RESIZE resize;
    uint32_t stripe = stripe_rows(out);
    int n = (int)((out->height + stripe - 1) / stripe);
    enum cf_code code = CF_OK;

    stbir_resize_init(&resize, in->data, (int)in->width, (int)in->height, 0, out->data,
                      (int)out->width, (int)out->height, 0,
                      out->channels == 4 ? STBIR_RGBA_PM : STBIR_RGB, STBIR_TYPE_UINT8);
    (void)stbir_set_input_subrect(&resize, 0, 0, in->span_x / in->width, in->span_y / in->height);
    n = stbir_build_samplers_with_splits(&resize, n);
    if (n == 0) {
        return cf_err_set(err, CF_ENOMEM, "no memory to resize");
    }
    for (int i = 0; i < n && code == CF_OK; i++) {
        if (stbir_resize_extended_split(&resize, i, 1) == 0) {
            code = cf_err_set(err, CF_ENOMEM, "no memory to resize");
        } else {
            code = cf_ctx_check(ctx, err);
        }
    }
    stbir_free_samplers(&resize);
    return code;
}

#else

/* Rows of the input to both sides of a row of the output that its filter looks at,
 * and some more. */
static uint32_t margin_of(double scale)
{
    return (uint32_t)(FILTER_RADIUS / (scale < 1 ? scale : 1)) + 2;
}

/* Only of the rows that have a part in it: it works through all that it is given, each time. */
static bool fill_stripe(const struct pixels *in, struct pixels *out, uint32_t y, uint32_t rows)
{
    double scale = out->height / in->span_y;
    uint32_t margin = margin_of(scale);
    uint32_t first = (uint32_t)(y / scale);
    uint32_t end = (uint32_t)((y + rows) / scale) + margin;
    int has_alpha = out->channels == 4;

    first = first > margin ? first - margin : 0;
    end = end < in->height ? end : in->height;
    return stbir_resize_subpixel(
        in->data + (size_t)first * in->width * in->channels, (int)in->width, (int)(end - first), 0,
        out->data + (size_t)y * out->width * out->channels, (int)out->width, (int)rows, 0,
        STBIR_TYPE_UINT8, (int)out->channels, has_alpha ? 3 : STBIR_ALPHA_CHANNEL_NONE,
        has_alpha ? STBIR_FLAG_ALPHA_PREMULTIPLIED : 0, STBIR_EDGE_CLAMP, STBIR_EDGE_CLAMP,
        STBIR_FILTER_DEFAULT, STBIR_FILTER_DEFAULT, STBIR_COLORSPACE_LINEAR, NULL,
        (float)(out->width / in->span_x), (float)scale, 0, (float)(y - first * scale));
}

static enum cf_code fill(struct cf_ctx *ctx, const struct pixels *in, struct pixels *out,
                         struct cf_err *err)
{
    uint32_t stripe = stripe_rows(out);
    enum cf_code code = CF_OK;

    for (uint32_t y = 0; y < out->height && code == CF_OK; y += stripe) {
        uint32_t left = out->height - y;

        if (!fill_stripe(in, out, y, left < stripe ? left : stripe)) {
            code = cf_err_set(err, CF_ENOMEM, "no memory to resize");
        } else {
            code = cf_ctx_check(ctx, err);
        }
    }
    return code;
}

#endif

/* A filter that sharpens can leave a colour above its alpha:
 * more than all of it cannot be there. */
static void clamp_to_alpha(struct pixels *pixels)
{
    uint8_t *at = pixels->data;

    for (size_t i = 0; i < (size_t)pixels->width * pixels->height; i++, at += 4) {
        for (unsigned k = 0; k < 3; k++) {
            at[k] = at[k] < at[3] ? at[k] : at[3];
        }
    }
}

/* Operations */

enum cf_code resize(struct cf_ctx *ctx, struct pixels *pixels, uint32_t width, uint32_t height,
                    struct pixels *out, struct cf_err *err)
{
    struct pixels small = {
        NULL, width, height, pixels->channels, width, height, pixels->orientation};
    enum cf_code code;

    if (pixels->width == width && pixels->height == height) {
        *out = *pixels;
        pixels->data = NULL;
        return CF_OK;
    }
    small.data = malloc((size_t)width * height * small.channels);
    if (small.data == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for %u x %u pixels", width, height);
    }
    code = fill(ctx, pixels, &small, err);
    if (code != CF_OK) {
        free(small.data);
        return code;
    }
    if (small.channels == 4) {
        clamp_to_alpha(&small);
    }
    *out = small;
    return CF_OK;
}
