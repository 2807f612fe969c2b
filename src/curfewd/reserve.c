/* SPDX-License-Identifier: MIT */
/* Pieces of one mapping, which are handed out once and never taken back: see reserve.h.
 *
 * That is enough for ever. A table doubles, so all that one loop can ask for until its table has
 * its last size is less than twice that size. A piece has its size in front, to be copied from. */
#include "curfewd/reserve.h"

#include <errno.h>
#include <malloc.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <uv.h>

/* libuv rounds a table up to a power of two of pointers, two of which are its own. */
#define TABLE_MIN ((size_t)64)
#define TABLE_OWN 2

struct piece {
    alignas(max_align_t) size_t size;
};

static char *pages; /* Constant once set, as is the size. */
static size_t pages_size;
static atomic_size_t used;

/* Internal helpers */

static bool is_ours(const void *block)
{
    return (uintptr_t)block >= (uintptr_t)pages && (uintptr_t)block < (uintptr_t)pages + pages_size;
}

static size_t size_of(void *block)
{
    return is_ours(block) ? ((struct piece *)block - 1)->size : malloc_usable_size(block);
}

static void *take(size_t size)
{
    size_t whole = sizeof(struct piece) +
                   (size + sizeof(struct piece) - 1) / sizeof(struct piece) * sizeof(struct piece);
    size_t at = atomic_fetch_add(&used, whole);
    struct piece *piece;

    if (at > pages_size || whole > pages_size - at) {
        return NULL;
    }
    piece = (struct piece *)(void *)(pages + at);
    piece->size = size;
    return piece + 1;
}

static void release(void *block)
{
    if (!is_ours(block)) {
        free(block);
    }
}

/* Life cycle */

enum cf_code reserve_for_libuv(size_t n_loops, size_t n_descriptors, struct cf_err *err)
{
    size_t table = TABLE_MIN;
    void *mapping;

    while (table < n_descriptors + TABLE_OWN) {
        table *= 2;
    }
    pages_size = n_loops * 2 * (table * sizeof(void *) + 2 * sizeof(struct piece));
    mapping = mmap(NULL, pages_size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) {
        pages_size = 0;
        return cf_err_set_sys(err, CF_ENOMEM, errno, "set memory aside for libuv");
    }
    pages = mapping;
    (void)uv_replace_allocator(malloc, reserve_realloc, calloc, release); /* None is NULL. */
    return CF_OK;
}

/* Operations */

void *reserve_realloc(void *old, size_t size)
{
    void *block = is_ours(old) ? malloc(size) : realloc(old, size);
    size_t kept;

    if (!is_ours(old) && block != NULL) {
        return block;
    }
    if (block == NULL) {
        block = take(size);
    }
    if (block != NULL && old != NULL) {
        kept = size_of(old);
        memcpy(block, old, kept < size ? kept : size);
        release(old);
    }
    return block;
}
