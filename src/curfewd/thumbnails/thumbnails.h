/* SPDX-License-Identifier: MIT */
/* Thumbnails: those that are stored, and those that have to be made.
 *
 * One is made by the first who asks for it, and whoever asks meanwhile, on any loop, waits for the
 * same (a flight); if all of them leave, the making ends. Making takes its turn twice: for the
 * memory that it may need, which a semaphore counts in bytes, and for a thread of a lane that does
 * nothing else. Only then is the image read from the database.
 *
 * Invariant: however many are asked for, no more than `threads_max` are decoded at once, and no
 * more than `memory_max` bytes are taken by images and what is made of them.
 *
 * Thread safety: any fiber of the database's loops; life cycle on a plain thread. */
#ifndef CURFEWD_THUMBNAILS_THUMBNAILS_H
#define CURFEWD_THUMBNAILS_THUMBNAILS_H

#include <curfew/ctx.h>
#include <curfew/err.h>
#include <curfew/value.h>

#include "curfewd/images/image.h"

struct cf_pg;
struct thumbnails;

struct thumbnails_options {
    struct cf_pg *pg; /* Borrowed until thumbnails_free(). */
    size_t threads_max;
    size_t memory_max;       /* Bytes. */
    size_t pixels_max;       /* Of an image. */
    int64_t make_timeout_ns; /* For making one: the longest that somebody may wait. */
};

/* One of them: what lies in the value that thumbnails_get() hands out. */
struct thumbnail {
    enum image_type type;
    const char *etag; /* Without quotes. */
    uint32_t width;
    uint32_t height;
    const void *data;
    size_t size;
    bool is_made; /* Now, not found. */
};

/* Ownership: the caller owns *out, thumbnails_free(). Fails with CF_ENOMEM. */
CF_MUST enum cf_code thumbnails_new(const struct thumbnails_options *options,
                                    struct thumbnails **out, struct cf_err *err);

/* Waits for what is still at work, which ends at its next look at its context. NULL is allowed. */
void thumbnails_free(struct thumbnails *thumbnails);

/* How many are made at once. */
size_t thumbnails_threads(const struct thumbnails *thumbnails);

/* Read the head of an image that is to be stored, on a thread of its own.
 * Ownership: borrows `data` (copies what it needs).
 * Fails with CF_EINVAL: no image, a broken one, or too large to be decoded;
 * CF_ELIMIT, and as `ctx`. */
CF_MUST enum cf_code thumbnails_read_head(struct cf_ctx *ctx, struct thumbnails *thumbnails,
                                          const void *data, size_t size, struct image_head *out,
                                          struct cf_err *err);

/* The thumbnail of an image that is `width` wide, or as wide as the image is if that is less: a
 * struct thumbnail, in *out.
 * Ownership: the caller owns a reference, *out: cf_value_unref().
 * Blocks: until it is there or `ctx` is done.
 * Fails with CF_ENOTFOUND (no such image), CF_EINVAL (it is broken, or too large);
 * as cf_pg_query() does. */
CF_MUST enum cf_code thumbnails_get(struct cf_ctx *ctx, struct thumbnails *thumbnails, int64_t id,
                                    uint32_t width, struct cf_value **out, struct cf_err *err);

#endif
