/* SPDX-License-Identifier: MIT */
/* EXIF's orientation: see exif.h. The rest of EXIF, a thumbnail of the camera's own included, is
 * not looked at, and is not in what is made. */
#include "curfewd/images/exif.h"

#include <stdlib.h>
#include <string.h>

#define TAG_ORIENTATION 0x0112
#define TYPE_SHORT 3
#define ENTRY_SIZE 12

/* Internal helpers */

/* A number of `size` bytes, in the order of this file. */
static uint32_t read_number(const uint8_t *at, unsigned size, bool is_little)
{
    uint32_t number = 0;

    for (unsigned i = 0; i < size; i++) {
        number = number << 8 | at[is_little ? size - 1 - i : i];
    }
    return number;
}

/* Of a TIFF's first directory. */
static unsigned find_orientation(const uint8_t *tiff, size_t size, bool is_little)
{
    size_t at = read_number(tiff + 4, 4, is_little);
    size_t n;

    if (at > size - 2) {
        return 0;
    }
    n = read_number(tiff + at, 2, is_little);
    for (at += 2; n > 0 && size - at >= ENTRY_SIZE; n--, at += ENTRY_SIZE) {
        if (read_number(tiff + at, 2, is_little) == TAG_ORIENTATION &&
            read_number(tiff + at + 2, 2, is_little) == TYPE_SHORT) {
            return read_number(tiff + at + 8, 2, is_little);
        }
    }
    return 0;
}

/* Where a pixel that is to be seen at (x, y) lies. */
static size_t place_of(const struct pixels *pixels, uint32_t x, uint32_t y)
{
    uint32_t right = pixels->width - 1;
    uint32_t bottom = pixels->height - 1;
    uint32_t column = x;
    uint32_t row = y;

    switch (pixels->orientation) {
    case 2:
        column = right - x;
        break;
    case 3:
        column = right - x;
        row = bottom - y;
        break;
    case 4:
        row = bottom - y;
        break;
    case 5:
        column = y;
        row = x;
        break;
    case 6:
        column = y;
        row = bottom - x;
        break;
    case 7:
        column = right - y;
        row = bottom - x;
        break;
    case 8:
        column = right - y;
        row = x;
        break;
    default:
        break;
    }
    return (size_t)row * pixels->width + column;
}

/* Operations */

unsigned exif_orientation(const uint8_t *data, size_t size)
{
    static const char mark[] = "Exif\0";
    const uint8_t *tiff = data + sizeof(mark);
    unsigned orientation = 0;

    if (size < sizeof(mark) + 8 || memcmp(data, mark, sizeof(mark)) != 0) {
        return 0;
    }
    if (memcmp(tiff, "II*\0", 4) == 0 || memcmp(tiff, "MM\0*", 4) == 0) {
        orientation = find_orientation(tiff, size - sizeof(mark), tiff[0] == 'I');
    }
    return orientation <= 8 ? orientation : 0;
}

bool exif_is_turned(unsigned orientation)
{
    return orientation >= 5;
}

enum cf_code exif_turn(struct pixels *pixels, struct cf_err *err)
{
    bool is_turned = exif_is_turned(pixels->orientation);
    struct pixels seen = *pixels;
    unsigned channels = pixels->channels;
    uint8_t *to;

    if (pixels->orientation <= 1) {
        return CF_OK;
    }
    seen.width = is_turned ? pixels->height : pixels->width;
    seen.height = is_turned ? pixels->width : pixels->height;
    seen.orientation = 1;
    seen.data = malloc((size_t)seen.width * seen.height * channels);
    if (seen.data == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for %u x %u pixels", seen.width, seen.height);
    }
    to = seen.data;
    for (uint32_t y = 0; y < seen.height; y++) {
        for (uint32_t x = 0; x < seen.width; x++, to += channels) {
            memcpy(to, pixels->data + place_of(pixels, x, y) * channels, channels);
        }
    }
    free(pixels->data);
    *pixels = seen;
    return CF_OK;
}
