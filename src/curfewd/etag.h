/* SPDX-License-Identifier: MIT */
/* Entity tags by what is sent and nothing else: every instance says the same of the same, and what
 * was made again and has not changed is what the client has already.
 *
 *     etag_make(body, size, bare);
 *     etag_quote(bare, etag);
 *     cf_http_reply_header(http, "ETag", etag); */
#ifndef CURFEWD_ETAG_H
#define CURFEWD_ETAG_H

#include <stddef.h>

/* 128 bits in hexadecimal, as they are stored; and in their quotes, as HTTP has them. */
#define ETAG_BARE_SIZE sizeof("0123456789abcdef0123456789abcdef")
#define ETAG_SIZE (ETAG_BARE_SIZE + 2)

void etag_make(const void *data, size_t size, char out[ETAG_BARE_SIZE]);
void etag_quote(const char *bare, char out[ETAG_SIZE]);

#endif
