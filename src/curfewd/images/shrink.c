/* SPDX-License-Identifier: MIT */
/* The sink: see shrink.h. */
#include "curfewd/images/shrink.h"

#include <stdlib.h>
#include <string.h>

/* Internal helpers */

static uint32_t divide_up(uint32_t n, uint32_t by)
{
    return n / by + (n % by > 0);
}

/* Half a unit is rounded up. */
static uint8_t multiply(uint32_t colour, uint32_t alpha)
{
    return (uint8_t)((colour * alpha + 127) / 255);
}

/* Take a row as it is. */
static void copy_row(struct sink *sink, const uint8_t *row)
{
    unsigned channels = sink->pixels.channels;
    uint8_t *to = sink->pixels.data + (size_t)sink->y * sink->width * channels;

    if (channels == 3) {
        memcpy(to, row, (size_t)sink->width * channels);
        return;
    }
    for (uint32_t x = 0; x < sink->width; x++, row += 4, to += 4) {
        for (unsigned i = 0; i < 3; i++) {
            to[i] = multiply(row[i], row[3]);
        }
        to[3] = row[3];
        sink->is_opaque = sink->is_opaque && row[3] == 255;
    }
}

/* Sum up squares of pixels without alpha. The inner sums fit: a row has fewer than 2^16 of them. */
static void add_opaque(struct sink *sink, const uint8_t *row)
{
    uint64_t *sums = sink->sums;

    for (uint32_t x = 0; x < sink->width; sums += 3) {
        uint32_t end = sink->width - x > sink->factor ? x + sink->factor : sink->width;
        uint32_t sum[3] = {0, 0, 0};

        for (; x < end; x++, row += 3) {
            sum[0] += row[0];
            sum[1] += row[1];
            sum[2] += row[2];
        }
        sums[0] += sum[0];
        sums[1] += sum[1];
        sums[2] += sum[2];
    }
}

/* The same of colours that count as much as they are seen. */
static void add_alpha(struct sink *sink, const uint8_t *row)
{
    uint64_t *sums = sink->sums;
    bool is_opaque = true;

    for (uint32_t x = 0; x < sink->width; sums += 4) {
        uint32_t end = sink->width - x > sink->factor ? x + sink->factor : sink->width;
        uint64_t sum[4] = {0, 0, 0, 0};

        for (; x < end; x++, row += 4) {
            sum[0] += (uint64_t)row[0] * row[3];
            sum[1] += (uint64_t)row[1] * row[3];
            sum[2] += (uint64_t)row[2] * row[3];
            sum[3] += row[3];
            is_opaque = is_opaque && row[3] == 255;
        }
        for (unsigned i = 0; i < 4; i++) {
            sums[i] += sum[i];
        }
    }
    sink->is_opaque = sink->is_opaque && is_opaque;
}

/* The means of what was summed up become a row. */
static void finish_row(struct sink *sink)
{
    unsigned channels = sink->pixels.channels;
    size_t row_size = (size_t)sink->pixels.width * channels;
    uint8_t *to = sink->pixels.data + sink->y * row_size;
    uint64_t *sums = sink->sums;

    for (uint32_t x = 0; x < sink->pixels.width; x++) {
        uint32_t left = sink->width - x * sink->factor;
        uint64_t count = (uint64_t)(left < sink->factor ? left : sink->factor) * sink->n_rows;

        for (unsigned i = 0; i < channels; i++, sums++, to++) {
            uint64_t weight = channels == 4 && i < 3 ? count * 255 : count;

            CF_ASSERT(weight > 0);
            *to = (uint8_t)((*sums + weight / 2) / weight);
            *sums = 0;
        }
    }
    sink->n_rows = 0;
    sink->y++;
}

/* Alpha says nothing: leave it out. */
static void drop_alpha(struct pixels *pixels)
{
    const uint8_t *from = pixels->data;
    uint8_t *to = pixels->data;

    for (size_t i = 0; i < (size_t)pixels->width * pixels->height; i++, from += 4, to += 3) {
        to[0] = from[0];
        to[1] = from[1];
        to[2] = from[2];
    }
    pixels->channels = 3;
}

/* Operations */

enum cf_code sink_begin(struct sink *sink, const struct pixels *decoded, struct cf_err *err)
{
    uint32_t target = codec_target(sink->plan, decoded->orientation);
    uint32_t factor = decoded->width / (2 * target);

    sink->width = decoded->width;
    sink->height = decoded->height;
    sink->factor = factor > 1 ? factor : 1;
    sink->is_opaque = true;
    sink->pixels = (struct pixels){
        .width = divide_up(decoded->width, sink->factor),
        .height = divide_up(decoded->height, sink->factor),
        .channels = decoded->channels,
        .span_x = decoded->span_x / sink->factor,
        .span_y = decoded->span_y / sink->factor,
        .orientation = decoded->orientation,
    };
    sink->pixels.data =
        malloc((size_t)sink->pixels.width * sink->pixels.height * sink->pixels.channels);
    if (sink->pixels.data != NULL && sink->factor > 1) {
        sink->sums =
            calloc((size_t)sink->pixels.width * sink->pixels.channels, sizeof(*sink->sums));
    }
    if (sink->pixels.data == NULL || (sink->factor > 1 && sink->sums == NULL)) {
        return cf_err_set(err, CF_ENOMEM, "no memory for %u x %u pixels", sink->pixels.width,
                          sink->pixels.height);
    }
    return CF_OK;
}

void sink_row(struct sink *sink, const uint8_t *row)
{
    CF_ASSERT(sink->y < sink->pixels.height);
    CF_ASSERT(sink->factor > 0);
    if (sink->factor == 1) {
        copy_row(sink, row);
        sink->y++;
        return;
    }
    if (sink->pixels.channels == 3) {
        add_opaque(sink, row);
    } else {
        add_alpha(sink, row);
    }
    sink->n_rows++;
    if (sink->n_rows == sink->factor || sink->y * sink->factor + sink->n_rows == sink->height) {
        finish_row(sink);
    }
}

enum cf_code sink_end(struct sink *sink, struct cf_err *err)
{
    if (sink->y != sink->pixels.height) {
        return cf_err_set(err, CF_EINTERNAL, "%u of %u rows", sink->y, sink->pixels.height);
    }
    if (sink->pixels.channels == 4 && sink->is_opaque) {
        drop_alpha(&sink->pixels);
    }
    return CF_OK;
}

void sink_fini(struct sink *sink)
{
    free(sink->sums);
    free(sink->pixels.data);
    sink->sums = NULL;
    sink->pixels.data = NULL;
}
