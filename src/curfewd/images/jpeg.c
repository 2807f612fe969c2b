/* SPDX-License-Identifier: MIT */
/* JPEG, by libjpeg-turbo: see codec.h.
 *
 * It reports errors by a function that must not return, so we leave it by longjmp(). What has to be
 * known behind such a jump is in a struct of the caller's, never in a variable of the function that
 * calls setjmp(): that may have been in a register. libjpeg's memory is freed with its object, and
 * ours by the callers of the decoder.
 *
 * A progressive JPEG is decoded scan by scan, each a pass over all its coefficients, before there
 * is a first row; a small file can ask for thousands. The context is looked at in each row of
 * blocks of each, and there is a limit to their number. */
#include "curfewd/images/codec.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

#include "curfewd/images/exif.h"

/* Of a thumbnail. */
#define QUALITY 85

/* What both directions have to report. */
struct failure {
    struct jpeg_error_mgr errors; /* First: libjpeg knows this part. */
    jmp_buf jump;
    enum cf_code code;
    struct cf_err *err;
};

struct reader {
    struct jpeg_decompress_struct info;
    struct failure failure;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    struct cf_ctx *ctx;
    unsigned orientation; /* The first that is said; 0: none so far. */
};

struct writer {
    struct jpeg_compress_struct info;
    struct failure failure;
    struct jpeg_destination_mgr destination;
    struct output *output;
};

/* Internal helpers: failures */

static _Noreturn void fail_with(struct failure *failure, enum cf_code code)
{
    failure->code = code;
    longjmp(failure->jump, 1);
}

static void on_error(j_common_ptr info)
{
    struct failure *failure = (struct failure *)info->err;
    char why[JMSG_LENGTH_MAX];
    enum cf_code code;

    switch (info->err->msg_code) {
    case JERR_OUT_OF_MEMORY:
        code = cf_err_set(failure->err, CF_ENOMEM, "no memory for a JPEG");
        break;
    case JERR_NO_BACKING_STORE:
        code = codec_broken(failure->err, "JPEG", "it takes more memory than its size says");
        break;
    default:
        info->err->format_message(info, why);
        code = codec_broken(failure->err, "JPEG", why);
    }
    fail_with(failure, code);
}

/* Warnings (below zero) are silent, unless they say that what is decoded is not what was encoded:
 * half a picture is none. */
static void on_message(j_common_ptr info, int level)
{
    if (level >= 0) {
        return;
    }
    info->err->num_warnings++;
    switch (info->err->msg_code) {
    case JWRN_JPEG_EOF:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_MUST_RESYNC:
        on_error(info);
        break;
    default:
        break;
    }
}

static struct jpeg_error_mgr *failure_init(struct failure *failure, struct cf_err *err)
{
    (void)jpeg_std_error(&failure->errors);
    failure->errors.error_exit = on_error;
    failure->errors.emit_message = on_message;
    failure->code = CF_OK;
    failure->err = err;
    return &failure->errors;
}

/* Internal helpers: reading */

static void on_source(j_decompress_ptr info)
{
    (void)info;
}

static boolean on_source_empty(j_decompress_ptr info)
{
    ERREXIT(info, JERR_INPUT_EOF);
    return FALSE;
}

static void on_source_skip(j_decompress_ptr info, long size)
{
    if (size > 0 && (size_t)size > info->src->bytes_in_buffer) {
        ERREXIT(info, JERR_INPUT_EOF);
    }
    if (size > 0) {
        info->src->next_input_byte += size;
        info->src->bytes_in_buffer -= (size_t)size;
    }
}

/* An APP1 segment, which is whole in memory: look at it, and go on behind it. */
static boolean on_app1(j_decompress_ptr info)
{
    struct reader *reader = (struct reader *)info;
    const uint8_t *at = info->src->next_input_byte;
    size_t left = info->src->bytes_in_buffer;
    size_t size = left >= 2 ? (size_t)at[0] << 8 | at[1] : 0;

    if (left < 2 || size > left) {
        ERREXIT(info, JERR_INPUT_EOF);
    }
    if (size < 2) {
        ERREXIT(info, JERR_BAD_LENGTH);
    }
    if (reader->orientation == 0) {
        reader->orientation = exif_orientation(at + 2, size - 2);
    }
    info->src->next_input_byte += size;
    info->src->bytes_in_buffer -= size;
    return TRUE;
}

/* Called for each row of blocks of each scan, and for each row that is read. */
static void on_progress(j_common_ptr info)
{
    struct reader *reader = (struct reader *)info;
    enum cf_code code;

    if (reader->info.input_scan_number > IMAGE_SCANS_MAX) {
        fail_with(&reader->failure,
                  codec_broken(reader->failure.err, "JPEG", "it has too many scans"));
    }
    code = cf_ctx_check(reader->ctx, reader->failure.err);
    if (code != CF_OK) {
        fail_with(&reader->failure, code);
    }
}

/* Read up to the picture. Fails by a jump, as all below. */
static void read_header(struct reader *reader, const uint8_t *data, size_t size)
{
    jpeg_create_decompress(&reader->info);
    reader->source.init_source = on_source;
    reader->source.fill_input_buffer = on_source_empty;
    reader->source.skip_input_data = on_source_skip;
    reader->source.resync_to_restart = jpeg_resync_to_restart;
    reader->source.term_source = on_source;
    reader->source.next_input_byte = data;
    reader->source.bytes_in_buffer = size;
    reader->info.src = &reader->source;
    jpeg_set_marker_processor(&reader->info, JPEG_APP0 + 1, on_app1);
    (void)jpeg_read_header(&reader->info, TRUE);
}

static void describe(struct reader *reader, struct image_head *out)
{
    bool is_turned = exif_is_turned(reader->orientation);

    out->width = is_turned ? reader->info.image_height : reader->info.image_width;
    out->height = is_turned ? reader->info.image_width : reader->info.image_height;
    out->is_buffered = jpeg_has_multiple_scans(&reader->info) != 0;
}

/* The smallest scale that is no smaller than what is wanted;
 * those between take longer than they save. */
static void choose_scale(struct reader *reader, const struct image_plan *plan)
{
    uint64_t target = codec_target(plan, reader->orientation);
    unsigned eighths = 1;

    while (eighths < 8 && (uint64_t)reader->info.image_width * eighths < 8 * target) {
        eighths *= 2;
    }
    reader->info.scale_num = eighths;
    reader->info.scale_denom = 8;
}

/* libjpeg makes red, green and blue of everything but of four inks. */
static void choose_colours(struct reader *reader)
{
    switch (reader->info.jpeg_color_space) {
    case JCS_CMYK:
    case JCS_YCCK:
        reader->info.out_color_space = JCS_CMYK;
        break;
    default:
        reader->info.out_color_space = JCS_RGB;
        break;
    }
}

/* Adobe, and nearly everybody after it, writes inks upside down: 255 is none. In place. */
static void separate_inks(const struct reader *reader, uint8_t *row)
{
    const uint8_t *from = row;
    unsigned flip = reader->info.saw_Adobe_marker ? 0 : 255;

    for (uint32_t x = 0; x < reader->info.output_width; x++, from += 4, row += 3) {
        unsigned black = from[3] ^ flip;

        for (unsigned i = 0; i < 3; i++) {
            row[i] = (uint8_t)(((from[i] ^ flip) * black + 127) / 255);
        }
    }
}

static void read_rows(struct reader *reader, struct sink *sink)
{
    j_decompress_ptr info = &reader->info;
    JSAMPARRAY rows =
        info->mem->alloc_sarray((j_common_ptr)info, JPOOL_IMAGE,
                                info->output_width * (JDIMENSION)info->output_components, 1);

    while (info->output_scanline < info->output_height) {
        (void)jpeg_read_scanlines(info, rows, 1);
        if (info->out_color_space == JCS_CMYK) {
            separate_inks(reader, rows[0]);
        }
        sink_row(sink, rows[0]);
    }
}

static void head_all(struct reader *reader, const uint8_t *data, size_t size,
                     struct image_head *out)
{
    read_header(reader, data, size);
    describe(reader, out);
}

static void decode_all(struct reader *reader, const uint8_t *data, size_t size,
                       const struct image_plan *plan, struct sink *sink)
{
    struct image_head head = plan->head;
    struct pixels decoded;

    read_header(reader, data, size);
    describe(reader, &head);
    if (!codec_is_same(&head, &plan->head)) {
        fail_with(&reader->failure,
                  codec_broken(reader->failure.err, "JPEG", "it is not what it was"));
    }
    reader->progress.progress_monitor = on_progress;
    reader->info.progress = &reader->progress;
    reader->info.mem->max_memory_to_use = (long)plan->memory;
    choose_scale(reader, plan);
    choose_colours(reader);
    (void)jpeg_start_decompress(&reader->info);
    decoded = (struct pixels){
        .width = reader->info.output_width,
        .height = reader->info.output_height,
        .channels = 3,
        .span_x = (double)reader->info.image_width * reader->info.scale_num / 8,
        .span_y = (double)reader->info.image_height * reader->info.scale_num / 8,
        .orientation = reader->orientation,
    };
    reader->failure.code = sink_begin(sink, &decoded, reader->failure.err);
    if (reader->failure.code == CF_OK) {
        read_rows(reader, sink);
    }
}

/* Each has nothing of its own that a jump could spoil. */

static void try_head(struct reader *reader, const uint8_t *data, size_t size,
                     struct image_head *out)
{
    if (setjmp(reader->failure.jump) == 0) {
        head_all(reader, data, size, out);
    }
}

static void try_decode(struct reader *reader, const uint8_t *data, size_t size,
                       const struct image_plan *plan, struct sink *sink)
{
    if (setjmp(reader->failure.jump) == 0) {
        decode_all(reader, data, size, plan, sink);
    }
}

static enum cf_code read_head(const uint8_t *data, size_t size, struct image_head *out,
                              struct cf_err *err)
{
    struct reader reader = {.ctx = NULL};

    reader.info.err = failure_init(&reader.failure, err);
    try_head(&reader, data, size, out);
    jpeg_destroy_decompress(&reader.info);
    return reader.failure.code;
}

static enum cf_code decode(struct cf_ctx *ctx, const uint8_t *data, size_t size,
                           const struct image_plan *plan, struct sink *sink, struct cf_err *err)
{
    struct reader reader = {.ctx = ctx};

    reader.info.err = failure_init(&reader.failure, err);
    try_decode(&reader, data, size, plan, sink);
    jpeg_destroy_decompress(&reader.info);
    return reader.failure.code;
}

const struct codec codec_jpeg = {read_head, decode};

/* Internal helpers: writing */

/* Hand out what room there is, and more of it. */
static void give_room(struct writer *writer)
{
    uint8_t *room = output_reserve(writer->output, 4096);

    if (room == NULL) {
        fail_with(&writer->failure,
                  cf_err_set(writer->failure.err, CF_ENOMEM, "no memory for a JPEG"));
    }
    writer->destination.next_output_byte = room;
    writer->destination.free_in_buffer = writer->output->room - writer->output->size;
}

static void on_destination(j_compress_ptr info)
{
    give_room((struct writer *)info);
}

static boolean on_destination_full(j_compress_ptr info)
{
    struct writer *writer = (struct writer *)info;

    writer->output->size = writer->output->room; /* All of it, whatever is said to be left. */
    give_room(writer);
    return TRUE;
}

static void on_destination_end(j_compress_ptr info)
{
    struct writer *writer = (struct writer *)info;

    writer->output->size = writer->output->room - writer->destination.free_in_buffer;
}

static void encode_all(struct cf_ctx *ctx, struct writer *writer, const struct pixels *pixels)
{
    j_compress_ptr info = &writer->info;
    size_t row_size = 3 * (size_t)pixels->width;

    jpeg_create_compress(info);
    writer->destination.init_destination = on_destination;
    writer->destination.empty_output_buffer = on_destination_full;
    writer->destination.term_destination = on_destination_end;
    info->dest = &writer->destination;
    info->image_width = pixels->width;
    info->image_height = pixels->height;
    info->input_components = 3;
    info->in_color_space = JCS_RGB;
    jpeg_set_defaults(info);
    jpeg_set_quality(info, QUALITY, TRUE);
    jpeg_start_compress(info, TRUE);
    while (info->next_scanline < info->image_height) {
        JSAMPROW row = pixels->data + info->next_scanline * row_size;

        (void)jpeg_write_scanlines(info, &row, 1);
        if (info->next_scanline % STRIPE_ROWS == 0) {
            enum cf_code code = cf_ctx_check(ctx, writer->failure.err);

            if (code != CF_OK) {
                fail_with(&writer->failure, code);
            }
        }
    }
    jpeg_finish_compress(info);
}

static void try_encode(struct cf_ctx *ctx, struct writer *writer, const struct pixels *pixels)
{
    if (setjmp(writer->failure.jump) == 0) {
        encode_all(ctx, writer, pixels);
    }
}

enum cf_code jpeg_encode(struct cf_ctx *ctx, const struct pixels *pixels, struct output *output,
                         struct cf_err *err)
{
    struct writer writer = {.output = output};

    writer.info.err = failure_init(&writer.failure, err);
    try_encode(ctx, &writer, pixels);
    jpeg_destroy_compress(&writer.info);
    return writer.failure.code;
}
