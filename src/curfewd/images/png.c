/* SPDX-License-Identifier: MIT */
/* PNG, by libpng: see codec.h. Errors are left by longjmp(), as in jpeg.c, where the rules are.
 *
 * Chunks that do not change the pixels are skipped unread: compressed texts and profiles would only
 * be a way to have memory filled. Whatever libpng and zlib allocate they ask us for, so that lack
 * of memory can be told from a broken picture. */
#include "curfewd/images/codec.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>

struct file {
    png_structp png;
    png_infop info;
    jmp_buf jump;
    enum cf_code code;
    struct cf_err *err;
    struct cf_ctx *ctx;
    bool is_short_of_memory;

    const uint8_t *data; /* Of one that is read: what is left. */
    size_t size;
    uint8_t *rows; /* Owned: one, or of an interlaced picture all. */

    struct output *output; /* Of one that is written. */
};

/* Internal helpers: what libpng calls */

static _Noreturn void fail_with(struct file *file, enum cf_code code)
{
    file->code = code;
    longjmp(file->jump, 1);
}

static _Noreturn void fail_for_memory(struct file *file)
{
    fail_with(file, cf_err_set(file->err, CF_ENOMEM, "no memory for a PNG"));
}

static void on_error(png_structp png, png_const_charp why)
{
    struct file *file = png_get_error_ptr(png);

    if (file->is_short_of_memory) {
        fail_for_memory(file);
    }
    fail_with(file, codec_broken(file->err, "PNG", why));
}

static void on_warning(png_structp png, png_const_charp why)
{
    (void)png;
    (void)why;
}

static png_voidp on_malloc(png_structp png, png_alloc_size_t size)
{
    struct file *file = png_get_mem_ptr(png);
    void *block = malloc(size);

    file->is_short_of_memory = file->is_short_of_memory || block == NULL;
    return block;
}

static void on_free(png_structp png, png_voidp block)
{
    (void)png;
    free(block);
}

static void on_read(png_structp png, png_bytep to, size_t size)
{
    struct file *file = png_get_io_ptr(png);

    if (size > file->size) {
        png_error(png, "it ends too early");
    }
    memcpy(to, file->data, size);
    file->data += size;
    file->size -= size;
}

static void on_write(png_structp png, png_bytep from, size_t size)
{
    struct file *file = png_get_io_ptr(png);
    uint8_t *to = output_reserve(file->output, size);

    if (to == NULL) {
        fail_for_memory(file);
    }
    memcpy(to, from, size);
    file->output->size += size;
}

static void on_flush(png_structp png)
{
    (void)png;
}

/* Internal helpers: reading. Each fails by a jump. */

static void look_at_context(struct file *file)
{
    enum cf_code code = cf_ctx_check(file->ctx, file->err);

    if (code != CF_OK) {
        fail_with(file, code);
    }
}

static void skip_what_is_not_pixels(png_structp png)
{
    static const png_byte chunks[] = "bKGD\0cHRM\0eXIf\0gAMA\0hIST\0iCCP\0iTXt\0oFFs\0pCAL\0"
                                     "pHYs\0sBIT\0sCAL\0sPLT\0sRGB\0sTER\0tEXt\0tIME\0zTXt";

    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, 0);
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, chunks, sizeof(chunks) / 5);
}

static void read_info(struct file *file, struct image_head *out)
{
    file->png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, file, on_error, on_warning, file,
                                         on_malloc, on_free);
    if (file->png == NULL) {
        fail_for_memory(file);
    }
    file->info = png_create_info_struct(file->png);
    if (file->info == NULL) {
        fail_for_memory(file);
    }
    skip_what_is_not_pixels(file->png);
    png_set_read_fn(file->png, file, on_read);
    png_read_info(file->png, file->info);
    out->width = png_get_image_width(file->png, file->info);
    out->height = png_get_image_height(file->png, file->info);
    out->is_buffered = png_get_interlace_type(file->png, file->info) != PNG_INTERLACE_NONE;
}

/* Have everything come as eight bits of red, green and blue, and alpha if there is some. */
static unsigned choose_format(struct file *file)
{
    png_set_expand(file->png);
    png_set_scale_16(file->png);
    png_set_gray_to_rgb(file->png);
    (void)png_set_interlace_handling(file->png);
    png_read_update_info(file->png, file->info);
    return png_get_channels(file->png, file->info);
}

static void read_rows(struct file *file, const struct image_head *head, struct sink *sink)
{
    for (uint32_t y = 0; y < head->height; y++) {
        png_read_row(file->png, file->rows, NULL);
        sink_row(sink, file->rows);
        if (y % STRIPE_ROWS == 0) {
            look_at_context(file);
        }
    }
}

/* Seven passes, each of which fills in more of the same rows. */
static void read_interlaced(struct file *file, const struct image_head *head, size_t row_size,
                            struct sink *sink)
{
    for (int pass = 0; pass < PNG_INTERLACE_ADAM7_PASSES; pass++) {
        for (uint32_t y = 0; y < head->height; y++) {
            png_read_row(file->png, file->rows + y * row_size, NULL);
            if (y % STRIPE_ROWS == 0) {
                look_at_context(file);
            }
        }
    }
    for (uint32_t y = 0; y < head->height; y++) {
        sink_row(sink, file->rows + y * row_size);
        if (y % STRIPE_ROWS == 0) {
            look_at_context(file);
        }
    }
}

static void decode_all(struct file *file, const struct image_plan *plan, struct sink *sink)
{
    struct image_head head = plan->head;
    unsigned channels;
    size_t row_size;

    read_info(file, &head);
    if (!codec_is_same(&head, &plan->head)) {
        fail_with(file, codec_broken(file->err, "PNG", "it is not what it was"));
    }
    channels = choose_format(file);
    row_size = png_get_rowbytes(file->png, file->info);
    if ((channels != 3 && channels != 4) || row_size != (size_t)head.width * channels) {
        fail_with(file, codec_broken(file->err, "PNG", "it has other pixels than it says"));
    }
    file->rows = calloc(head.is_buffered ? head.height : 1, row_size);
    if (file->rows == NULL) {
        fail_for_memory(file);
    }
    file->code = sink_begin(
        sink, &(struct pixels){NULL, head.width, head.height, channels, head.width, head.height, 0},
        file->err);
    if (file->code != CF_OK) {
        return;
    }
    if (head.is_buffered) {
        read_interlaced(file, &head, row_size, sink);
    } else {
        read_rows(file, &head, sink);
    }
}

static void try_head(struct file *file, struct image_head *out)
{
    if (setjmp(file->jump) == 0) {
        read_info(file, out);
    }
}

static void try_decode(struct file *file, const struct image_plan *plan, struct sink *sink)
{
    if (setjmp(file->jump) == 0) {
        decode_all(file, plan, sink);
    }
}

static enum cf_code read_head(const uint8_t *data, size_t size, struct image_head *out,
                              struct cf_err *err)
{
    struct file file = {.data = data, .size = size, .err = err};

    try_head(&file, out);
    png_destroy_read_struct(&file.png, &file.info, NULL);
    return file.code;
}

static enum cf_code decode(struct cf_ctx *ctx, const uint8_t *data, size_t size,
                           const struct image_plan *plan, struct sink *sink, struct cf_err *err)
{
    struct file file = {.data = data, .size = size, .err = err, .ctx = ctx};

    try_decode(&file, plan, sink);
    png_destroy_read_struct(&file.png, &file.info, NULL);
    free(file.rows);
    return file.code;
}

const struct codec codec_png = {read_head, decode};

/* Internal helpers: writing */

/* The colours as they were before they were multiplied by alpha. */
static void divide_row(const uint8_t *from, uint32_t width, uint8_t *to)
{
    for (uint32_t x = 0; x < width; x++, from += 4, to += 4) {
        unsigned alpha = from[3];

        for (unsigned i = 0; i < 3; i++) {
            unsigned colour = alpha > 0 ? (from[i] * 255U + alpha / 2) / alpha : 0;

            to[i] = (uint8_t)(colour < 255 ? colour : 255);
        }
        to[3] = (uint8_t)alpha;
    }
}

static void encode_all(struct file *file, const struct pixels *pixels)
{
    size_t row_size = 4 * (size_t)pixels->width;

    file->png = png_create_write_struct_2(PNG_LIBPNG_VER_STRING, file, on_error, on_warning, file,
                                          on_malloc, on_free);
    if (file->png == NULL) {
        fail_for_memory(file);
    }
    file->info = png_create_info_struct(file->png);
    file->rows = malloc(row_size);
    if (file->info == NULL || file->rows == NULL) {
        fail_for_memory(file);
    }
    png_set_write_fn(file->png, file, on_write, on_flush);
    png_set_IHDR(file->png, file->info, pixels->width, pixels->height, 8, PNG_COLOR_TYPE_RGBA,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(file->png, file->info);
    for (uint32_t y = 0; y < pixels->height; y++) {
        divide_row(pixels->data + y * row_size, pixels->width, file->rows);
        png_write_row(file->png, file->rows);
        if (y % STRIPE_ROWS == 0) {
            look_at_context(file);
        }
    }
    png_write_end(file->png, NULL);
}

static void try_encode(struct file *file, const struct pixels *pixels)
{
    if (setjmp(file->jump) == 0) {
        encode_all(file, pixels);
    }
}

enum cf_code png_encode(struct cf_ctx *ctx, const struct pixels *pixels, struct output *output,
                        struct cf_err *err)
{
    struct file file = {.err = err, .ctx = ctx, .output = output};

    try_encode(&file, pixels);
    png_destroy_write_struct(&file.png, &file.info);
    free(file.rows);
    return file.code;
}
