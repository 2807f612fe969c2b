/* SPDX-License-Identifier: MIT */
/* What is in a gzip. Thread safety: any. */
#ifndef GUNZIP_H
#define GUNZIP_H

#include <stddef.h>

/* Unpack a whole one, of which nothing may be left over. The result is terminated, and the
 * caller's: free(). What is no gzip fails the test. */
char *gunzip(const void *data, size_t size, size_t *out_size);

#endif
