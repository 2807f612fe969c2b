/* SPDX-License-Identifier: MIT */
/* Pictures: what they are told to be, what their thumbnails look like,
 * and how the making of one ends early. */
#include "curfewd/images/image.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jpeglib.h>

#include <curfew/clock.h>

#include "effort.h"
#include "fault.h"
#include "pictures.h"

#define LENGTH(array) (int)(sizeof(array) / sizeof((array)[0]))

/* Fixture */

static struct picture picture;
static struct image_thumbnail thumbnail;
static struct cf_err err;

static void teardown(void)
{
    free(picture.data);
    picture.data = NULL;
    image_thumbnail_fini(&thumbnail);
}

/* Helpers */

static struct image_plan plan_of(uint32_t width)
{
    struct image_head head;
    struct image_plan plan;

    ck_assert_msg(image_read_head(picture.data, picture.size, &head, &err) == CF_OK, "%s", err.msg);
    ck_assert_msg(image_plan(&head, picture.size, width, &plan, &err) == CF_OK, "%s", err.msg);
    return plan;
}

static enum cf_code make(struct cf_ctx *ctx, const struct image_plan *plan)
{
    image_thumbnail_fini(&thumbnail);
    memset(&err, 0, sizeof(err));
    return image_make_thumbnail(ctx, picture.data, picture.size, plan, &thumbnail, &err);
}

static void make_well(uint32_t width)
{
    struct image_plan plan = plan_of(width);

    ck_assert_msg(make(cf_ctx_background(), &plan) == CF_OK, "%s", err.msg);
    ck_assert_uint_eq(thumbnail.width, plan.width);
    ck_assert_uint_eq(thumbnail.height, plan.height);
}

/* Head, plan and thumbnail of bytes that may be anything. */
static enum cf_code try_bytes(const uint8_t *data, size_t size, uint32_t width)
{
    struct image_head head;
    struct image_plan plan;
    enum cf_code code = image_read_head(data, size, &head, &err);

    image_thumbnail_fini(&thumbnail);
    if (code == CF_OK && (size_t)head.width * head.height > 1000000) {
        code = CF_EINVAL; /* As the service would. */
    }
    if (code == CF_OK) {
        code = image_plan(&head, size, width, &plan, &err);
    }
    if (code == CF_OK) {
        code = image_make_thumbnail(cf_ctx_background(), data, size, &plan, &thumbnail, &err);
    }
    return code;
}

static int64_t cpu_ns(void)
{
    struct timespec now;

    ck_assert_int_eq(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now), 0);
    return now.tv_sec * CF_SECOND + now.tv_nsec;
}

/* sniff */

START_TEST(sniff_knows_each_by_its_first_bytes)
{
    static const char *const names[] = {"image/jpeg", "image/png", "image/webp"};
    enum image_type type = IMAGE_TYPE_COUNT;

    picture = picture_make((enum picture_kind)_i, 5, 4);
    ck_assert(image_sniff(picture.data, picture.size, &type));
    ck_assert_str_eq(image_media_type(type), picture_media_type((enum picture_kind)_i));
    ck_assert_str_eq(image_media_type(type), names[type]);
    ck_assert(image_type_of(names[type], &type));
    ck_assert(!image_sniff(picture.data, 2, &type));
    picture.data[0] ^= 1;
    ck_assert(!image_sniff(picture.data, picture.size, &type));
    ck_assert(!image_type_of("image/gif", &type));
}
END_TEST

static const struct {
    const char *data;
    size_t size;
} others[] = {
    {"", 0},
    {"GIF89a\1\0\1\0\0\0\0", 13},
    {"BM", 2},
    {"\xFF\xD8", 2},
    {"\x89PNG\r\n\x1A\r", 8},
    {"RIFF\4\0\0\0WAVE", 12},
    {"{\"image\":1}", 11},
};

START_TEST(read_head_of_what_is_none_is_invalid)
{
    struct image_head head;

    ck_assert_int_eq(image_read_head(others[_i].data, others[_i].size, &head, &err), CF_EINVAL);
    ck_assert_str_eq(err.msg, "this is no JPEG, PNG or WebP");
}
END_TEST

/* read_head */

START_TEST(read_head_says_size_and_kind)
{
    enum picture_kind kind = (enum picture_kind)_i;
    bool is_buffered = kind == PICTURE_JPEG_PROGRESSIVE || kind == PICTURE_PNG_INTERLACED ||
                       kind == PICTURE_WEBP_LOSSLESS;
    struct image_head head;

    picture = picture_make(kind, 70, 31);
    ck_assert_msg(image_read_head(picture.data, picture.size, &head, &err) == CF_OK, "%s", err.msg);
    ck_assert_uint_eq(head.width, 70);
    ck_assert_uint_eq(head.height, 31);
    ck_assert_msg(head.is_buffered == is_buffered, "%s", picture_name(kind));
}
END_TEST

/* Behind it there may be anything: it is not read. */
START_TEST(read_head_needs_no_more_than_the_head)
{
    struct image_head whole;
    struct image_head head;
    size_t least = 0;

    picture = picture_make((enum picture_kind)_i, 70, 31);
    ck_assert_int_eq(image_read_head(picture.data, picture.size, &whole, &err), CF_OK);
    for (size_t size = 0; size < picture.size; size++) {
        uint8_t *part = malloc(size + (size == 0)); /* So that ASan sees who reads on. */

        ck_assert_ptr_nonnull(part);
        memcpy(part, picture.data, size);
        if (image_read_head(part, size, &head, &err) == CF_OK) {
            ck_assert_uint_eq(head.width, whole.width);
            ck_assert_uint_eq(head.height, whole.height);
        } else {
            ck_assert_int_eq(err.code, CF_EINVAL);
            least = size + 1;
        }
        free(part);
    }
    ck_assert_uint_lt(least, picture.size);
}
END_TEST

START_TEST(read_head_of_too_long_a_side_is_invalid)
{
    struct image_head head;

    picture = picture_make(PICTURE_PNG, 65536, 1);
    ck_assert_int_eq(image_read_head(picture.data, picture.size, &head, &err), CF_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.msg, "65536 x 1 pixels"));
}
END_TEST

START_TEST(read_head_of_an_animated_webp_is_invalid)
{
    static const uint8_t animated[] = "RIFF\x32\0\0\0WEBPVP8X\x0A\0\0\0\x02\0\0\0\4\0\0\4\0\0"
                                      "ANIM\6\0\0\0\0\0\0\0\0\0ANMF\x10\0\0\0\0\0\0\0\0\0\0\0\0\0";
    struct image_head head;

    ck_assert_int_eq(image_read_head(animated, sizeof(animated) - 1, &head, &err), CF_EINVAL);
    ck_assert_str_eq(err.msg, "a WebP that is animated is not supported");
}
END_TEST

/* plan */

static const struct {
    uint32_t width;
    uint32_t height;
    uint32_t want;
    uint32_t plan_width;
    uint32_t plan_height; /* 0: too high. */
} plans[] = {
    {4000, 3000, 320, 320, 240},
    {3000, 4000, 320, 320, 427},
    {100, 50, 320, 100, 50},
    {320, 1, 320, 320, 1},
    {65535, 1, 16, 16, 1},
    {1, 1, 2048, 1, 1},
    {1, 4096, 16, 1, 4096},
    {1, 4097, 16, 1, 0},
    {16, 65535, 16, 16, 0},
    {2048, 2048, 2048, 2048, 2048},
    {65535, 65535, 2048, 2048, 2048},
};

START_TEST(plan_keeps_the_proportions_and_never_enlarges)
{
    struct image_head head = {IMAGE_PNG, plans[_i].width, plans[_i].height, false};
    struct image_plan plan;
    enum cf_code code = image_plan(&head, 1000, plans[_i].want, &plan, &err);

    if (plans[_i].plan_height == 0) {
        ck_assert_int_eq(code, CF_EINVAL);
        ck_assert_ptr_nonnull(strstr(err.msg, "more than 4096"));
        return;
    }
    ck_assert_int_eq(code, CF_OK);
    ck_assert_uint_eq(plan.width, plans[_i].plan_width);
    ck_assert_uint_eq(plan.height, plans[_i].plan_height);
}
END_TEST

/* 12 million pixels: rows take little, the whole takes several bytes for each. */
START_TEST(plan_counts_memory_by_kind)
{
    static const size_t mib = 1024 * 1024;

    for (int type = 0; type < IMAGE_TYPE_COUNT; type++) {
        struct image_head head = {(enum image_type)type, 4000, 3000, false};
        struct image_plan rows;
        struct image_plan whole;

        ck_assert_int_eq(image_plan(&head, 5 * mib, 320, &rows, &err), CF_OK);
        head.is_buffered = true;
        ck_assert_int_eq(image_plan(&head, 5 * mib, 320, &whole, &err), CF_OK);
        ck_assert_uint_gt(rows.memory, 6 * mib);
        ck_assert_uint_lt(rows.memory, 48 * mib);
        ck_assert_uint_gt(whole.memory, rows.memory + 4 * 12000000 - 1);
    }
}
END_TEST

/* make */

static const uint32_t widths[] = {16, 37, 100, 199, 200};

#define N_MAKES (PICTURE_KINDS * LENGTH(widths))

/* What cannot be seen has no colour that could be asked for,
 * and at its border there is a bit of both. */
START_TEST(make_gives_the_slope)
{
    enum picture_kind kind = (enum picture_kind)(_i / LENGTH(widths));
    uint32_t width = widths[_i % LENGTH(widths)];
    /* An opaque one is a JPEG, whose colours have half the pixels. */
    double most = kind == PICTURE_PNG_ALPHA    ? 1
                  : kind == PICTURE_WEBP_ALPHA ? 5
                                               : 6 + 255.0 / width;
    uint32_t got_width;
    uint32_t got_height;
    uint8_t *pixels;

    picture = picture_make(kind, 200, 150);
    make_well(width);
    ck_assert_int_eq(thumbnail.type, picture_has_alpha(kind) ? IMAGE_PNG : IMAGE_JPEG);
    pixels = picture_decode(thumbnail.data, thumbnail.size, &got_width, &got_height);
    ck_assert_uint_eq(got_width, thumbnail.width);
    ck_assert_uint_eq(got_height, thumbnail.height);
    for (uint32_t y = 0; y < got_height; y++) {
        for (uint32_t x = 0; x < got_width; x++) {
            const uint8_t *at = pixels + 4 * ((size_t)y * got_width + x);
            double middle = (x + 0.5) / got_width;
            bool is_border = middle > 0.5 - 4.0 / got_width && middle < 0.5 + 4.0 / got_width;
            bool is_seen = !picture_has_alpha(kind) || middle > 0.5;

            if (picture_has_alpha(kind) && is_border) {
                continue;
            }
            if (at[3] != (is_seen ? 255 : 0)) { /* An assertion that holds costs a system call. */
                ck_abort_msg("alpha at %u, %u is %d", x, y, at[3]);
            }
            for (unsigned i = 0; i < 3 && is_seen; i++) {
                double want =
                    picture_slope(picture_is_gray(kind) ? 0 : i, middle, (y + 0.5) / got_height);

                if (at[i] - want > most || want - at[i] > most) {
                    ck_abort_msg("%s, %u wide: channel %u at %u, %u is %d, not %.1f",
                                 picture_name(kind), width, i, x, y, at[i], want);
                }
            }
        }
    }
    free(pixels);
}
END_TEST

/* Where the first row and the first column are to be seen, as EXIF 2.3 has it: so red, which grows
 * along the rows, and green, which grows down the columns, grow to these sides. */
static const struct {
    int red_x; /* To the right: 1; to the left: -1; else up or down. */
    int red_y;
    int green_x;
    int green_y;
} turns[] = {
    {1, 0, 0, 1},   /* 1: first row at the top, first column on the left. */
    {-1, 0, 0, 1},  /* 2: top, right. */
    {-1, 0, 0, -1}, /* 3: bottom, right. */
    {1, 0, 0, -1},  /* 4: bottom, left. */
    {0, 1, 1, 0},   /* 5: left, top. */
    {0, 1, -1, 0},  /* 6: right, top. */
    {0, -1, -1, 0}, /* 7: right, bottom. */
    {0, -1, 1, 0},  /* 8: left, bottom. */
};

/* Put an APP1 segment behind the first mark: a TIFF whose only entry is the orientation. */
static void add_orientation(unsigned orientation, bool is_little)
{
    static const uint8_t little[] =
        "\xFF\xE1\0\x22"
        "Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\0\0\0\0\0\0\0\0";
    static const uint8_t big[] =
        "\xFF\xE1\0\x22"
        "Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\0\0\0\0\0\0\0";
    const size_t size = sizeof(big) - 1;
    uint8_t *data = malloc(picture.size + size);

    ck_assert_uint_eq(sizeof(little), sizeof(big));
    ck_assert_uint_eq(size, 2 + 0x22);
    ck_assert_ptr_nonnull(data);
    memcpy(data, picture.data, 2);
    memcpy(data + 2, is_little ? little : big, size);
    memcpy(data + 2 + size, picture.data + 2, picture.size - 2);
    data[2 + 28 + !is_little] = (uint8_t)orientation;
    free(picture.data);
    picture = (struct picture){data, picture.size + size};
}

static double along(int x_sign, int y_sign, double x, double y)
{
    double at = x_sign != 0 ? x : y;

    return x_sign + y_sign > 0 ? at : 1 - at;
}

START_TEST(make_turns_what_was_taken_on_its_side)
{
    unsigned orientation = 1 + (unsigned)_i / 2;
    bool is_turned = orientation >= 5;
    uint32_t width;
    uint32_t height;
    uint8_t *pixels;

    picture = picture_make(PICTURE_JPEG, 200, 120);
    add_orientation(orientation, _i % 2 == 0);
    ck_assert_uint_eq(plan_of(2048).width, is_turned ? 120 : 200);
    ck_assert_uint_eq(plan_of(2048).height, is_turned ? 200 : 120);
    make_well(50);
    pixels = picture_decode(thumbnail.data, thumbnail.size, &width, &height);
    ck_assert_uint_eq(width, 50);
    ck_assert_uint_eq(height, is_turned ? 83 : 30);
    for (uint32_t i = 0; i < width * height; i++) {
        double x = (i % width + 0.5) / width;
        double y = (i / width + 0.5) / height;
        double red = 255 * along(turns[orientation - 1].red_x, turns[orientation - 1].red_y, x, y);
        double green =
            255 * along(turns[orientation - 1].green_x, turns[orientation - 1].green_y, x, y);

        if (pixels[4 * i] < red - 14 || pixels[4 * i] > red + 14 ||
            pixels[4 * i + 1] < green - 14 || pixels[4 * i + 1] > green + 14) {
            ck_abort_msg("%u: pixel %u is %d, %d, not %.0f, %.0f", orientation, i, pixels[4 * i],
                         pixels[4 * i + 1], red, green);
        }
    }
    free(pixels);
}
END_TEST

/* One that is none is not believed, and what is cut is not read behind its end. */
START_TEST(make_of_a_wrong_orientation_is_as_it_lies)
{
    static const unsigned wrong[] = {0, 9, 255};

    picture = picture_make(PICTURE_JPEG, 200, 120);
    add_orientation(wrong[_i], true);
    make_well(50);
    ck_assert_uint_eq(thumbnail.height, 30);
    memcpy(picture.data + 16, "\xFF\xFF\xFF\xFF", 4); /* Where its directory is. */
    make_well(50);
    ck_assert_uint_eq(thumbnail.height, 30);
    memcpy(picture.data + 16, "\x18\0\0\0", 4); /* At its end. */
    make_well(50);
    ck_assert_uint_eq(thumbnail.height, 30);
}
END_TEST

/* Where a part of the picture cannot be seen, its black must not come into what can. */
START_TEST(make_keeps_what_is_hidden_out_of_what_is_seen)
{
    bool is_blurred = (_i & 1) != 0; /* A WebP, whose colours have spread already. */
    uint32_t width;
    uint32_t height;
    uint8_t *pixels;

    picture = picture_make((_i & 1) != 0 ? PICTURE_WEBP_ALPHA : PICTURE_PNG_ALPHA, 201, 150);
    make_well(widths[_i / 2]);
    pixels = picture_decode(thumbnail.data, thumbnail.size, &width, &height);
    for (uint32_t i = 0; i < width * height; i++) {
        int blue = pixels[4 * i + 2];

        if (pixels[4 * i + 3] > 64 && (blue < PICTURE_BLUE - (is_blurred ? 16 : 2) ||
                                       (!is_blurred && blue > PICTURE_BLUE + 2))) {
            ck_abort_msg("pixel %u is %d blue", i, blue);
        }
    }
    free(pixels);
}
END_TEST

static const struct {
    uint32_t width;
    uint32_t height;
} shapes[] = {{1, 1}, {1, 300}, {300, 1}, {15, 17}, {16, 16}, {1000, 3}, {3, 1000}, {33, 31}};

START_TEST(make_takes_every_shape)
{
    enum picture_kind kind = (enum picture_kind)(_i / LENGTH(shapes));
    uint32_t width;
    uint32_t height;

    picture =
        picture_make(kind, shapes[_i % LENGTH(shapes)].width, shapes[_i % LENGTH(shapes)].height);
    make_well(16);
    free(picture_decode(thumbnail.data, thumbnail.size, &width, &height));
    ck_assert_uint_eq(width, thumbnail.width);
    ck_assert_uint_eq(height, thumbnail.height);
}
END_TEST

/* A part of it is broken, or was all that is needed: then it is the same. */
START_TEST(make_of_every_beginning_is_whole_or_invalid)
{
    struct image_thumbnail whole;
    size_t n_whole = 0;

    picture = picture_make((enum picture_kind)_i, 40, 30);
    make_well(20);
    whole = thumbnail;
    thumbnail.data = NULL;
    for (size_t size = 0; size < picture.size; size++) {
        uint8_t *part = malloc(size + (size == 0));
        enum cf_code code;

        ck_assert_ptr_nonnull(part);
        memcpy(part, picture.data, size);
        code = try_bytes(part, size, 20);
        ck_assert_msg(code == CF_OK || code == CF_EINVAL, "%zu: %d, %s", size, code, err.msg);
        if (code == CF_OK) {
            ck_assert_uint_eq(thumbnail.size, whole.size);
            ck_assert_mem_eq(thumbnail.data, whole.data, whole.size);
            n_whole++;
        }
        free(part);
    }
    ck_assert_msg(n_whole <= 20, "%s: %zu of %zu beginnings are whole",
                  picture_name((enum picture_kind)_i), n_whole, picture.size);
    image_thumbnail_fini(&whole);
}
END_TEST

/* Every byte once, to something else: never more than a refusal. */
START_TEST(make_of_every_changed_byte_is_a_picture_or_invalid)
{
    picture = picture_make((enum picture_kind)_i, 40, 30);
    for (size_t i = 0; i < picture.size; i++) {
        uint8_t was = picture.data[i];

        for (unsigned k = 0; k < 2; k++) {
            enum cf_code code;

            picture.data[i] = (uint8_t)(k == 0 ? ~was : was + 1);
            code = try_bytes(picture.data, picture.size, 20);
            ck_assert_msg(code == CF_OK || code == CF_EINVAL, "%zu: %d, %s", i, code, err.msg);
        }
        picture.data[i] = was;
    }
}
END_TEST

/* A head that is not that of the data: what was planned for one picture is not done to another. */
START_TEST(make_of_another_picture_is_invalid)
{
    struct image_plan plan;

    picture = picture_make((enum picture_kind)_i, 40, 30);
    plan = plan_of(20);
    free(picture.data);
    picture = picture_make((enum picture_kind)_i, 400, 300);
    ck_assert_int_eq(make(cf_ctx_background(), &plan), CF_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.msg, "it is not what it was"));
}
END_TEST

/* As many scans as a script can have that each bring one coefficient of one component. */
static void make_many_scans(int n_scans)
{
    static jpeg_scan_info scans[3 * 63 + 1] = {{3, {0, 1, 2}, 0, 0, 0, 0}};
    struct jpeg_compress_struct info;
    struct jpeg_error_mgr errors;
    unsigned char *data = NULL;
    unsigned long size = 0;
    JSAMPLE pixels[16 * 3] = {0};
    JSAMPROW row = pixels;

    for (int i = 1; i < n_scans; i++) {
        scans[i] = (jpeg_scan_info){1, {(i - 1) % 3}, 1 + (i - 1) / 3, 1 + (i - 1) / 3, 0, 0};
    }
    info.err = jpeg_std_error(&errors);
    jpeg_create_compress(&info);
    jpeg_mem_dest(&info, &data, &size);
    info.image_width = info.image_height = 16;
    info.input_components = 3;
    info.in_color_space = JCS_RGB;
    jpeg_set_defaults(&info);
    info.scan_info = scans;
    info.num_scans = n_scans;
    jpeg_start_compress(&info, TRUE);
    while (info.next_scanline < info.image_height) {
        (void)jpeg_write_scanlines(&info, &row, 1);
    }
    jpeg_finish_compress(&info);
    jpeg_destroy_compress(&info);
    picture = (struct picture){data, size};
}

START_TEST(make_of_very_many_scans_is_invalid)
{
    struct image_plan plan;

    make_many_scans(IMAGE_SCANS_MAX);
    make_well(16);
    free(picture.data);
    make_many_scans(IMAGE_SCANS_MAX + 1);
    plan = plan_of(16);
    ck_assert_int_eq(make(cf_ctx_background(), &plan), CF_EINVAL);
    ck_assert_str_eq(err.msg, "broken JPEG: it has too many scans");
}
END_TEST

START_TEST(make_already_canceled)
{
    struct image_plan plan;
    struct cf_ctx *ctx;

    picture = picture_make((enum picture_kind)_i, 40, 30);
    plan = plan_of(20);
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &ctx, &err), CF_OK);
    cf_ctx_cancel(ctx);
    ck_assert_int_eq(make(ctx, &plan), CF_ECANCELED);
    ck_assert_ptr_null(thumbnail.data);
    cf_ctx_free(ctx);
}
END_TEST

#define N_WAYS 6 /* To decode. */

/* Of the time that the whole takes, it gets a little, and takes hardly more. In the thread's own
 * time: the deadline is far enough off the whole for a busy machine. */
START_TEST(make_deadline_while_decoding)
{
    static const enum picture_kind ways[N_WAYS] = {PICTURE_JPEG, PICTURE_JPEG_PROGRESSIVE,
                                                   PICTURE_PNG,  PICTURE_PNG_INTERLACED,
                                                   PICTURE_WEBP, PICTURE_WEBP_LOSSLESS};
    struct image_plan plan;
    struct cf_ctx *ctx;
    int64_t since_ns;
    int64_t whole_ns;
    int64_t took_ns;

    picture = picture_make(ways[_i], 1200, 800);
    plan = plan_of(1000);
    since_ns = cpu_ns();
    ck_assert_msg(make(cf_ctx_background(), &plan) == CF_OK, "%s", err.msg);
    whole_ns = cpu_ns() - since_ns;

    ck_assert_int_eq(cf_ctx_with_timeout(cf_ctx_background(), whole_ns / 10, &ctx, &err), CF_OK);
    since_ns = cpu_ns();
    ck_assert_int_eq(make(ctx, &plan), CF_EDEADLINE);
    took_ns = cpu_ns() - since_ns;
    cf_ctx_free(ctx);
    /* A tool that runs one thread at a time tells the deadline late. */
    ck_assert_msg(effort_is_watched() || took_ns < whole_ns / 2, "%s: %lld us of %lld",
                  picture_name(ways[_i]), (long long)(took_ns / CF_US),
                  (long long)(whole_ns / CF_US));
}
END_TEST

/* Every allocation of ours, and of libpng, fails once. */
START_TEST(make_out_of_memory)
{
    static const struct {
        uint32_t width;
        uint32_t height;
    } sizes[] = {{40, 30}, {400, 300}};
    struct image_plan plan;
    unsigned nth = 1;

    picture = picture_make((enum picture_kind)(_i / 2), sizes[_i % 2].width, sizes[_i % 2].height);
    plan = plan_of(20);
    for (;; nth++) {
        enum cf_code code;

        fault_alloc(nth, false);
        code = make(cf_ctx_background(), &plan);
        if (!fault_off()) {
            ck_assert_msg(code == CF_OK, "%s", err.msg);
            break;
        }
        ck_assert_msg(code == CF_ENOMEM || code == CF_OK, "%u: %d, %s", nth, code, err.msg);
    }
    ck_assert_uint_ge(nth, 3);
}
END_TEST

static TCase *add_case(Suite *suite, const char *name)
{
    TCase *tc = tcase_create(name);

    tcase_add_checked_fixture(tc, NULL, teardown);
    suite_add_tcase(suite, tc);
    return tc;
}

Suite *suite_images(void)
{
    Suite *suite = suite_create("images");
    TCase *head = add_case(suite, "head");
    TCase *plan = add_case(suite, "plan");
    TCase *made = add_case(suite, "make");

    tcase_add_loop_test(head, sniff_knows_each_by_its_first_bytes, 0, PICTURE_KINDS);
    tcase_add_loop_test(head, read_head_of_what_is_none_is_invalid, 0, LENGTH(others));
    tcase_add_loop_test(head, read_head_says_size_and_kind, 0, PICTURE_KINDS);
    tcase_add_loop_test(head, read_head_needs_no_more_than_the_head, 0, PICTURE_KINDS);
    tcase_add_test(head, read_head_of_too_long_a_side_is_invalid);
    tcase_add_test(head, read_head_of_an_animated_webp_is_invalid);

    tcase_add_loop_test(plan, plan_keeps_the_proportions_and_never_enlarges, 0, LENGTH(plans));
    tcase_add_test(plan, plan_counts_memory_by_kind);

    tcase_add_loop_test(made, make_gives_the_slope, 0, N_MAKES);
    tcase_add_loop_test(made, make_keeps_what_is_hidden_out_of_what_is_seen, 0, 2 * LENGTH(widths));
    tcase_add_loop_test(made, make_turns_what_was_taken_on_its_side, 0, 2 * LENGTH(turns));
    tcase_add_loop_test(made, make_of_a_wrong_orientation_is_as_it_lies, 0, 3);
    tcase_add_loop_test(made, make_takes_every_shape, 0, PICTURE_KINDS * LENGTH(shapes));
    tcase_add_loop_test(made, make_of_every_beginning_is_whole_or_invalid, 0, PICTURE_KINDS);
    tcase_add_loop_test(made, make_of_every_changed_byte_is_a_picture_or_invalid, 0, PICTURE_KINDS);
    tcase_add_loop_test(made, make_of_another_picture_is_invalid, 0, PICTURE_KINDS);
    tcase_add_test(made, make_of_very_many_scans_is_invalid);
    tcase_add_loop_test(made, make_already_canceled, 0, PICTURE_KINDS);
    tcase_add_loop_test(made, make_deadline_while_decoding, 0, N_WAYS);
    tcase_add_loop_test(made, make_out_of_memory, 0, 2 * PICTURE_KINDS);
    tcase_set_timeout(made, 30);
    return suite;
}
