/* SPDX-License-Identifier: MIT */
/* Compressing what is sent: gzip, by zlib.
 *
 * A compressor is some 270 KB that zlib takes most of its time to make, for bodies as ours are; so
 * a loop makes one when it first needs it, and uses it again for each reply.
 *
 * Thread safety: one owner. */
#ifndef CURFEW_HTTP_GZIP_H
#define CURFEW_HTTP_GZIP_H

#include <stddef.h>

/* For a reply that is compressed to be sent once: ~10 us, and 3 to 5 us a KiB of JSON (level 6:
 * 12 us a KiB, for a tenth less). For what is kept, level 9 does not matter. */
#define CF__GZIP_LEVEL_ONCE 2
#define CF__GZIP_LEVEL_KEPT 9

/* zlib's z_stream. */
struct z_stream_s;

/* Make one. NULL: out of memory. */
struct z_stream_s *cf__gzip_new(int level);
void cf__gzip_free(struct z_stream_s *gzip); /* NULL is allowed. */

/* Room for whatever becomes of `size` bytes. */
size_t cf__gzip_room(struct z_stream_s *gzip, size_t size);

/* Compress into `out`, which has that room. Returns how much it became. */
size_t cf__gzip(struct z_stream_s *gzip, const void *data, size_t size, void *out, size_t room);

#endif
