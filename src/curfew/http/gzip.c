/* SPDX-License-Identifier: MIT */
/* See gzip.h. The head of a gzip has neither name nor time, so the same bytes become the same. */
#include "curfew/http/gzip.h"

#include <limits.h>
#include <stdlib.h>
#include <zlib.h>

#include <curfew/http.h>

/* zlib's, for a window of 32 KiB and a gzip's head, and how much memory: as by default. */
#define WINDOW_BITS (15 + 16)
#define MEMORY_LEVEL 8

/* Life cycle */

struct z_stream_s *cf__gzip_new(int level)
{
    struct z_stream_s *gzip = calloc(1, sizeof(*gzip));

    if (gzip != NULL && deflateInit2(gzip, level, Z_DEFLATED, WINDOW_BITS, MEMORY_LEVEL,
                                     Z_DEFAULT_STRATEGY) != Z_OK) {
        free(gzip); /* There is no other reason than memory. */
        return NULL;
    }
    return gzip;
}

void cf__gzip_free(struct z_stream_s *gzip)
{
    if (gzip != NULL) {
        (void)deflateEnd(gzip);
        free(gzip);
    }
}

/* Operations */

size_t cf__gzip_room(struct z_stream_s *gzip, size_t size)
{
    return deflateBound(gzip, size);
}

size_t cf__gzip(struct z_stream_s *gzip, const void *data, size_t size, void *out, size_t room)
{
    size_t written;
    int result;

    CF_ASSERT(size <= UINT_MAX);
    CF_ASSERT(room <= UINT_MAX);
    gzip->next_in =
        (z_const Bytef *)(uintptr_t)data; /* Not written to: only the const is lacking. */
    gzip->avail_in = (uInt)size;
    gzip->next_out = out;
    gzip->avail_out = (uInt)room;
    result = deflate(gzip, Z_FINISH);
    CF_ASSERT(result == Z_STREAM_END); /* The room is enough for anything. */
    written = gzip->total_out;
    (void)deflateReset(
        gzip); /* Now: until it is, deflateBound() forgets the head of the next one. */
    return written;
}

enum cf_code cf_http_gzip(const void *data, size_t size, struct cf_value **out, struct cf_err *err)
{
    struct z_stream_s *gzip = cf__gzip_new(CF__GZIP_LEVEL_KEPT);
    size_t room = gzip != NULL ? cf__gzip_room(gzip, size) : 0;
    void *text = gzip != NULL ? malloc(room) : NULL;
    enum cf_code code;

    if (text == NULL) {
        cf__gzip_free(gzip);
        return cf_err_set(err, CF_ENOMEM, "no memory to compress %zu bytes", size);
    }
    code = cf_value_new(text, cf__gzip(gzip, data, size, text, room), out, err);
    free(text);
    cf__gzip_free(gzip);
    return code;
}
