/* SPDX-License-Identifier: MIT */
/* Making rows of pixels fewer and smaller: the sink of the codecs, and the last step.
 *
 * The sink takes the mean of squares of whole numbers of pixels, which costs little and can be done
 * while rows come, and stops short of twice the thumbnail's width; from there to the exact size
 * stb_image_resize filters. */
#ifndef CURFEWD_IMAGES_SHRINK_H
#define CURFEWD_IMAGES_SHRINK_H

#include "curfewd/images/codec.h"

/* Begins as {.plan = ...}. */
struct sink {
    const struct image_plan *plan;
    uint32_t width; /* Of what comes. */
    uint32_t height;
    uint32_t factor;      /* So many columns, and rows, become one. */
    uint32_t n_rows;      /* Summed up so far, */
    uint32_t y;           /* for this row. */
    uint64_t *sums;       /* Owned. NULL: factor is 1. */
    struct pixels pixels; /* Owned. With 4 channels, colours are multiplied by alpha. */
    bool is_opaque;       /* Nothing that can be seen through has come. */
};

/* All rows have come: the pixels are whole, with 3 channels if alpha says nothing.
 * Fails with CF_EINTERNAL: some are missing. */
CF_MUST enum cf_code sink_end(struct sink *sink, struct cf_err *err);
void sink_fini(struct sink *sink);

/* Resize to exactly this. 4 channels: of multiplied colours, as the result.
 * Ownership: takes the pixels' data if nothing is to be done; the caller owns out->data, free().
 * Fails with CF_ENOMEM, and as `ctx` does, which is looked at after each stripe. */
CF_MUST enum cf_code resize(struct cf_ctx *ctx, struct pixels *pixels, uint32_t width,
                            uint32_t height, struct pixels *out, struct cf_err *err);

#endif
