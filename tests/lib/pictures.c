/* SPDX-License-Identifier: MIT */
/* Pictures: see pictures.h. Errors of the libraries end the test by their own exit(). */
#include "pictures.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <png.h>
#include <webp/encode.h>

static const struct {
    const char *name;
    const char *media_type;
} kinds[PICTURE_KINDS] = {
    [PICTURE_JPEG] = {"jpeg", "image/jpeg"},
    [PICTURE_JPEG_PROGRESSIVE] = {"progressive jpeg", "image/jpeg"},
    [PICTURE_JPEG_GRAY] = {"gray jpeg", "image/jpeg"},
    [PICTURE_JPEG_CMYK] = {"cmyk jpeg", "image/jpeg"},
    [PICTURE_PNG] = {"png", "image/png"},
    [PICTURE_PNG_ALPHA] = {"png with alpha", "image/png"},
    [PICTURE_PNG_INTERLACED] = {"interlaced png", "image/png"},
    [PICTURE_PNG_GRAY16] = {"gray png of 16 bits", "image/png"},
    [PICTURE_PNG_OPAQUE] = {"opaque png with alpha", "image/png"},
    [PICTURE_WEBP] = {"webp", "image/webp"},
    [PICTURE_WEBP_ALPHA] = {"webp with alpha", "image/webp"},
    [PICTURE_WEBP_LOSSLESS] = {"lossless webp", "image/webp"},
};

/* Helpers */

double picture_slope(unsigned channel, double x, double y)
{
    return channel == 0 ? 255 * x : channel == 1 ? 255 * y : PICTURE_BLUE;
}

/* A row of `channels` bytes a pixel; the fourth is alpha. */
static void fill_row(uint8_t *row, uint32_t width, uint32_t height, uint32_t y, unsigned channels,
                     bool is_opaque)
{
    for (uint32_t x = 0; x < width; x++, row += channels) {
        bool seen = is_opaque || x >= width / 2;

        for (unsigned i = 0; i < channels && i < 3; i++) {
            double value = picture_slope(i, (x + 0.5) / width, (y + 0.5) / height);

            row[i] = seen || channels < 4 ? (uint8_t)(value + 0.5) : 0;
        }
        if (channels == 4) {
            row[3] = seen ? 255 : 0;
        }
    }
}

/* What libjpeg and libpng write to. */
static FILE *open_file(char **data, size_t *size)
{
    FILE *file = open_memstream(data, size);

    ck_assert_ptr_nonnull(file);
    return file;
}

static struct picture close_file(FILE *file, char **data, const size_t *size)
{
    ck_assert_int_eq(fclose(file), 0);
    return (struct picture){(uint8_t *)*data, *size};
}

static struct picture make_jpeg(enum picture_kind kind, uint32_t width, uint32_t height)
{
    struct jpeg_compress_struct info;
    struct jpeg_error_mgr errors;
    uint8_t *row = malloc((size_t)width * 4);
    size_t size;
    char *data;
    FILE *file = open_file(&data, &size);

    ck_assert_ptr_nonnull(row);
    info.err = jpeg_std_error(&errors);
    jpeg_create_compress(&info);
    jpeg_stdio_dest(&info, file);
    info.image_width = width;
    info.image_height = height;
    info.input_components = kind == PICTURE_JPEG_GRAY ? 1 : kind == PICTURE_JPEG_CMYK ? 4 : 3;
    info.in_color_space = kind == PICTURE_JPEG_GRAY   ? JCS_GRAYSCALE
                          : kind == PICTURE_JPEG_CMYK ? JCS_CMYK
                                                      : JCS_RGB;
    jpeg_set_defaults(&info);
    jpeg_set_quality(&info, 95, TRUE);
    if (kind == PICTURE_JPEG_PROGRESSIVE) {
        jpeg_simple_progression(&info);
    }
    jpeg_start_compress(&info, TRUE);
    while (info.next_scanline < height) {
        fill_row(row, width, height, info.next_scanline, (unsigned)info.input_components, true);
        (void)jpeg_write_scanlines(&info, &row, 1); /* Upside down, the fourth ink is none: 255. */
    }
    jpeg_finish_compress(&info);
    jpeg_destroy_compress(&info);
    free(row);
    return close_file(file, &data, &size);
}

/* Its rows are all made first: an interlaced one is written in passes. */
static void write_png_rows(png_structp png, enum picture_kind kind, uint32_t width, uint32_t height,
                           unsigned channels)
{
    size_t row_size = (size_t)width * (kind == PICTURE_PNG_GRAY16 ? 2 : channels);
    uint8_t *all = malloc(row_size * height);
    png_bytep *rows = malloc(height * sizeof(*rows));

    ck_assert_ptr_nonnull(all);
    ck_assert_ptr_nonnull(rows);
    for (uint32_t y = 0; y < height; y++) {
        rows[y] = all + y * row_size;
        fill_row(rows[y], width, height, y, channels, kind != PICTURE_PNG_ALPHA);
        for (uint32_t x = width; kind == PICTURE_PNG_GRAY16 && x-- > 0;) {
            rows[y][2 * x] = rows[y][2 * x + 1] = rows[y][x];
        }
    }
    png_write_image(png, rows);
    free(rows);
    free(all);
}

static void on_png_write(png_structp png, png_bytep from, size_t size)
{
    ck_assert_uint_eq(fwrite(from, 1, size, png_get_io_ptr(png)), size);
}

static struct picture make_png(enum picture_kind kind, uint32_t width, uint32_t height)
{
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    unsigned channels = kind == PICTURE_PNG_GRAY16 ? 1 : 3;
    size_t size;
    char *data;
    FILE *file = open_file(&data, &size);

    if (kind == PICTURE_PNG_ALPHA || kind == PICTURE_PNG_OPAQUE) {
        channels = 4;
    }
    png_set_write_fn(png, file, on_png_write, NULL);
    png_set_compression_level(png, 1);
    png_set_IHDR(png, info, width, height, kind == PICTURE_PNG_GRAY16 ? 16 : 8,
                 channels == 1   ? PNG_COLOR_TYPE_GRAY
                 : channels == 4 ? PNG_COLOR_TYPE_RGBA
                                 : PNG_COLOR_TYPE_RGB,
                 kind == PICTURE_PNG_INTERLACED ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    write_png_rows(png, kind, width, height, channels);
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
    return close_file(file, &data, &size);
}

static struct picture make_webp(enum picture_kind kind, uint32_t width, uint32_t height)
{
    unsigned channels = kind == PICTURE_WEBP_ALPHA ? 4 : 3;
    int stride = (int)(width * channels);
    uint8_t *all = malloc((size_t)stride * height);
    struct picture made;
    uint8_t *data;

    ck_assert_ptr_nonnull(all);
    for (uint32_t y = 0; y < height; y++) {
        fill_row(all + (size_t)y * (size_t)stride, width, height, y, channels,
                 kind != PICTURE_WEBP_ALPHA);
    }
    if (kind == PICTURE_WEBP_LOSSLESS) {
        made.size = WebPEncodeLosslessRGB(all, (int)width, (int)height, stride, &data);
    } else if (channels == 4) {
        made.size = WebPEncodeRGBA(all, (int)width, (int)height, stride, 95, &data);
    } else {
        made.size = WebPEncodeRGB(all, (int)width, (int)height, stride, 95, &data);
    }
    ck_assert_uint_gt(made.size, 0);
    made.data = malloc(made.size);
    ck_assert_ptr_nonnull(made.data);
    memcpy(made.data, data, made.size);
    WebPFree(data);
    free(all);
    return made;
}

/* Operations */

struct picture picture_make(enum picture_kind kind, uint32_t width, uint32_t height)
{
    if (kind <= PICTURE_JPEG_CMYK) {
        return make_jpeg(kind, width, height);
    }
    return kind <= PICTURE_PNG_OPAQUE ? make_png(kind, width, height)
                                      : make_webp(kind, width, height);
}

bool picture_is_gray(enum picture_kind kind)
{
    return kind == PICTURE_JPEG_GRAY || kind == PICTURE_PNG_GRAY16;
}

bool picture_has_alpha(enum picture_kind kind)
{
    return kind == PICTURE_PNG_ALPHA || kind == PICTURE_WEBP_ALPHA;
}

const char *picture_media_type(enum picture_kind kind)
{
    return kinds[kind].media_type;
}

const char *picture_name(enum picture_kind kind)
{
    return kinds[kind].name;
}

static uint8_t *decode_jpeg(const void *data, size_t size, uint32_t *out_width,
                            uint32_t *out_height)
{
    struct jpeg_decompress_struct info;
    struct jpeg_error_mgr errors;
    uint8_t *pixels;

    info.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&info);
    jpeg_mem_src(&info, data, size);
    ck_assert_int_eq(jpeg_read_header(&info, TRUE), JPEG_HEADER_OK);
    info.out_color_space = JCS_EXT_RGBA;
    ck_assert(jpeg_start_decompress(&info));
    pixels = malloc((size_t)info.output_width * info.output_height * 4);
    ck_assert_ptr_nonnull(pixels);
    while (info.output_scanline < info.output_height) {
        JSAMPROW row = pixels + (size_t)info.output_scanline * info.output_width * 4;

        (void)jpeg_read_scanlines(&info, &row, 1);
    }
    *out_width = info.output_width;
    *out_height = info.output_height;
    ck_assert(jpeg_finish_decompress(&info));
    ck_assert_int_eq(errors.num_warnings, 0);
    jpeg_destroy_decompress(&info);
    return pixels;
}

uint8_t *picture_decode(const void *data, size_t size, uint32_t *out_width, uint32_t *out_height)
{
    png_image image = {.version = PNG_IMAGE_VERSION};
    uint8_t *pixels;

    if (size > 2 && memcmp(data, "\xFF\xD8", 2) == 0) {
        return decode_jpeg(data, size, out_width, out_height);
    }
    ck_assert_msg(png_image_begin_read_from_memory(&image, data, size), "%s", image.message);
    image.format = PNG_FORMAT_RGBA;
    pixels = malloc(PNG_IMAGE_SIZE(image));
    ck_assert_ptr_nonnull(pixels);
    ck_assert_msg(png_image_finish_read(&image, NULL, pixels, 0, NULL), "%s", image.message);
    *out_width = image.width;
    *out_height = image.height;
    return pixels;
}
