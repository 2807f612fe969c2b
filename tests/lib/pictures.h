/* SPDX-License-Identifier: MIT */
/* Pictures for the tests, made by the libraries themselves, whose pixels are known.
 *
 * A picture is a slope: red grows from left to right, green from top to bottom, blue is the same
 * everywhere. So any correct way to make it smaller gives the slope at the middle of each new
 * pixel, and what a pixel has to be can be said without decoding anything. With alpha, the left
 * half cannot be seen, and is black, which must not darken the rest.
 *
 * Thread safety: any. */
#ifndef PICTURES_H
#define PICTURES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum picture_kind {
    PICTURE_JPEG,
    PICTURE_JPEG_PROGRESSIVE,
    PICTURE_JPEG_GRAY, /* Of the red of the slope. */
    PICTURE_JPEG_CMYK, /* As Adobe writes it. */
    PICTURE_PNG,
    PICTURE_PNG_ALPHA,
    PICTURE_PNG_INTERLACED,
    PICTURE_PNG_GRAY16, /* Of the red of the slope. */
    PICTURE_PNG_OPAQUE, /* With an alpha that is 255 everywhere. */
    PICTURE_WEBP,
    PICTURE_WEBP_ALPHA,
    PICTURE_WEBP_LOSSLESS,
    PICTURE_KINDS
};

struct picture {
    uint8_t *data; /* Owned: free(). */
    size_t size;
};

#define PICTURE_BLUE 64

/* Make one, or fail the test. */
struct picture picture_make(enum picture_kind kind, uint32_t width, uint32_t height);

/* What a channel (0 to 2) of a slope is at a place from 0 to 1. */
double picture_slope(unsigned channel, double x, double y);

bool picture_is_gray(enum picture_kind kind);
bool picture_has_alpha(enum picture_kind kind);
const char *picture_media_type(enum picture_kind kind);
const char *picture_name(enum picture_kind kind);

/* Decode a JPEG or a PNG, as a thumbnail is one, into pixels of 4 channels, or fail the test. The
 * caller frees them. */
uint8_t *picture_decode(const void *data, size_t size, uint32_t *out_width, uint32_t *out_height);

#endif
