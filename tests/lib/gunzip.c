/* SPDX-License-Identifier: MIT */
/* See gunzip.h. */
#include "gunzip.h"

#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define ROOM ((size_t)16 * 1024 * 1024)

char *gunzip(const void *data, size_t size, size_t *out_size)
{
    char *text = malloc(ROOM + 1);
    z_stream stream;

    ck_assert_ptr_nonnull(text);
    memset(&stream, 0, sizeof(stream));
    stream.next_in = (z_const Bytef *)(uintptr_t)data;
    stream.avail_in = (uInt)size;
    stream.next_out = (Bytef *)text;
    stream.avail_out = (uInt)ROOM;
    ck_assert_int_eq(inflateInit2(&stream, 15 + 16), Z_OK);
    ck_assert_int_eq(inflate(&stream, Z_FINISH), Z_STREAM_END);
    ck_assert_uint_eq(stream.avail_in, 0);
    *out_size = stream.total_out;
    text[*out_size] = '\0';
    (void)inflateEnd(&stream);
    return text;
}
