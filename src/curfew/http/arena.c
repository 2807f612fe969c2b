/* SPDX-License-Identifier: MIT */
/* An arena: see arena.h. A pointer that is pushed forward; a piece too large to share a block gets
 * one of its own, so that the rest of the current block is not lost. */
#include "curfew/http/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_SIZE ((size_t)4096)

/* Larger pieces get a block of their own. */
#define SHARED_SIZE_MAX (BLOCK_SIZE / 4)

struct cf__arena_block {
    struct cf__arena_block *next;
    alignas(max_align_t) char data[];
};

/* Internal helpers */

static size_t round_up(size_t size)
{
    size_t unit = alignof(max_align_t);

    return (size + unit - 1) / unit * unit;
}

static char *add_block(struct cf__arena *arena, size_t size)
{
    struct cf__arena_block *block = malloc(sizeof(*block) + size);

    if (block == NULL) {
        return NULL;
    }
    block->next = arena->blocks;
    arena->blocks = block;
    return block->data;
}

/* Life cycle */

void cf__arena_init(struct cf__arena *arena, void *first, size_t size)
{
    arena->at = first;
    arena->end = arena->at + size;
    arena->blocks = NULL;
}

void cf__arena_fini(struct cf__arena *arena)
{
    struct cf__arena_block *block = arena->blocks;

    while (block != NULL) {
        struct cf__arena_block *next = block->next;

        free(block);
        block = next;
    }
    arena->blocks = NULL;
    arena->at = NULL;
    arena->end = NULL;
}

/* Operations */

void *cf__arena_alloc(struct cf__arena *arena, size_t size)
{
    char *piece;

    if (size > SIZE_MAX / 2) {
        return NULL; /* Rounding up could overflow. */
    }
    size = round_up(size);
    if (size <= (size_t)(arena->end - arena->at)) {
        piece = arena->at;
        arena->at += size;
    } else if (size > SHARED_SIZE_MAX) {
        piece = add_block(arena, size);
    } else {
        piece = add_block(arena, BLOCK_SIZE);
        if (piece != NULL) {
            arena->at = piece + size;
            arena->end = piece + BLOCK_SIZE;
        }
    }
    return piece != NULL ? memset(piece, 0, size) : NULL;
}

char *cf__arena_copy(struct cf__arena *arena, const char *text, size_t size)
{
    char *copy = size < SIZE_MAX / 2 ? cf__arena_alloc(arena, size + 1) : NULL;

    if (copy != NULL) {
        memcpy(copy, text, size);
    }
    return copy;
}
