/* SPDX-License-Identifier: MIT */
/* SipHash (Aumasson and Bernstein, 2012): see hash.h.
 *
 * Keys come out of requests. With a hash that anybody can compute, a client could send keys that
 * all fall into one bucket and make every look-up a walk. One round a word and three at the end is
 * what several languages use for their tables: no key can be found that collides more often than
 * chance, which is all that a table needs. */
#include "curfew/sync/hash.h"

#include <string.h>
#include <sys/random.h>

#include <curfew/clock.h>

/* Internal helpers */

static inline uint64_t rotate(uint64_t word, int bits)
{
    return (word << bits) | (word >> (64 - bits));
}

static inline void mix(uint64_t v[4], int rounds)
{
    for (int i = 0; i < rounds; i++) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] = rotate(v[0], 32);
        v[2] += v[1];
        v[0] += v[3];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] = rotate(v[2], 32);
    }
}

/* Up to eight bytes as a little-endian number: every machine that we run on is one. */
static inline uint64_t word_at(const unsigned char *bytes, size_t size)
{
    uint64_t word = 0;

    memcpy(&word, bytes, size);
    return word;
}

static inline uint64_t siphash(const struct cf__hash_seed *seed, const unsigned char *bytes,
                               size_t size, int c, int d)
{
    uint64_t v[4] = {
        seed->k[0] ^ UINT64_C(0x736f6d6570736575), /* "somepseudorandomlygeneratedbytes" */
        seed->k[1] ^ UINT64_C(0x646f72616e646f6d),
        seed->k[0] ^ UINT64_C(0x6c7967656e657261),
        seed->k[1] ^ UINT64_C(0x7465646279746573),
    };
    uint64_t last = (uint64_t)size << 56;
    size_t at = 0;

    for (; size - at >= sizeof(uint64_t); at += sizeof(uint64_t)) {
        uint64_t word = word_at(bytes + at, sizeof(word));

        v[3] ^= word;
        mix(v, c);
        v[0] ^= word;
    }
    last |= word_at(bytes + at, size - at);
    v[3] ^= last;
    mix(v, c);
    v[0] ^= last;
    v[2] ^= 0xff;
    mix(v, d);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* Operations */

void cf__hash_seed(struct cf__hash_seed *out)
{
    if (getrandom(out, sizeof(*out), GRND_NONBLOCK) != (ssize_t)sizeof(*out)) {
        /* Untested: the kernel has no randomness yet. What an outsider can least guess instead. */
        out->k[0] = (uint64_t)cf_now_ns();
        out->k[1] = (uint64_t)(uintptr_t)out;
    }
}

uint64_t cf__hash(const struct cf__hash_seed *seed, const char *key)
{
    return siphash(seed, (const unsigned char *)key, strlen(key), 1, 3);
}

uint64_t cf__siphash(const struct cf__hash_seed *seed, const void *data, size_t size, int c, int d)
{
    return siphash(seed, data, size, c, d);
}
