/* SPDX-License-Identifier: MIT */
/* Memory that is released all at once, when its request ends.
 *
 * The first bytes come from a buffer that the owner provides (the request's own block), so that a
 * common request allocates nothing; after that blocks are taken from the heap as needed.
 *
 * Invariant: what was handed out stays where it is until cf__arena_fini().
 *
 * Thread safety: one owner. */
#ifndef CURFEW_HTTP_ARENA_H
#define CURFEW_HTTP_ARENA_H

#include <stddef.h>

struct cf__arena_block;

struct cf__arena {
    char *at;                       /* Where the next piece starts; aligned. */
    char *end;                      /* Of the block that `at` is in. */
    struct cf__arena_block *blocks; /* From the heap; the first buffer is not among them. */
};

/* Start with `size` bytes at `first`, borrowed until fini, aligned as malloc() aligns. */
void cf__arena_init(struct cf__arena *arena, void *first, size_t size);
void cf__arena_fini(struct cf__arena *arena);

/* `size` bytes, zeroed and aligned as malloc() aligns. NULL when there is no memory. */
void *cf__arena_alloc(struct cf__arena *arena, size_t size);

/* A copy of the `size` bytes at `text` with a NUL behind it. NULL when there is no memory. */
char *cf__arena_copy(struct cf__arena *arena, const char *text, size_t size);

#endif
