/* SPDX-License-Identifier: MIT */
/* Hashes of keys that clients choose: SipHash, with a seed that they cannot know. */
#ifndef CURFEW_SYNC_HASH_H
#define CURFEW_SYNC_HASH_H

#include <stddef.h>
#include <stdint.h>

struct cf__hash_seed {
    uint64_t k[2];
};

/* A seed of its own for each table, so that what is learnt of one tells nothing of another. */
void cf__hash_seed(struct cf__hash_seed *out);

/* The hash of a string: SipHash-1-3. */
uint64_t cf__hash(const struct cf__hash_seed *seed, const char *key);

/* SipHash-c-d of `size` bytes. For the tests: its authors' vector is one of SipHash-2-4. */
uint64_t cf__siphash(const struct cf__hash_seed *seed, const void *data, size_t size, int c, int d);

#endif
