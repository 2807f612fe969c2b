/* SPDX-License-Identifier: MIT */
/* Entity tags: see etag.h. */
#include "curfewd/etag.h"

#include <inttypes.h>
#include <stdio.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

void etag_make(const void *data, size_t size, char out[ETAG_BARE_SIZE])
{
    XXH128_hash_t hash = XXH3_128bits(data, size);

    (void)snprintf(out, ETAG_BARE_SIZE, "%016" PRIx64 "%016" PRIx64, (uint64_t)hash.high64,
                   (uint64_t)hash.low64);
}

void etag_quote(const char *bare, char out[ETAG_SIZE])
{
    (void)snprintf(out, ETAG_SIZE, "\"%.*s\"", (int)ETAG_BARE_SIZE - 1, bare);
}
