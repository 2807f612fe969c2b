/* SPDX-License-Identifier: MIT */
/* Hash tables of a size that is known beforehand, of nodes that are embedded in what is looked up.
 *
 * uthash serves where a table grows. Here the number of nodes has a limit anyway, so the buckets
 * are made once: inserting cannot fail, and nobody waits behind a lock while all of them are moved.
 * Guarded by whatever guards its owner; look-ups change nothing. */
#ifndef CURFEW_SYNC_TABLE_H
#define CURFEW_SYNC_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cf__table_node {
    struct cf__table_node *next; /* In its bucket. */
    uint64_t hash;               /* Constant, as is the key. */
    const char *key;             /* Lives as long as the node. */
};

struct cf__table {
    struct cf__table_node **buckets;
    size_t mask; /* Buckets less one: a power of two less one. */
};

/* Make a table for about `nodes_max` nodes: more only make it slower. False: out of memory. */
bool cf__table_init(struct cf__table *table, size_t nodes_max);

/* Free the buckets. What is in them is the owner's. */
void cf__table_fini(struct cf__table *table);

/* The node of `key`, or NULL. */
struct cf__table_node *cf__table_find(const struct cf__table *table, const char *key,
                                      uint64_t hash);

/* Put in a node whose hash and key are set, and whose key is not in it. */
void cf__table_insert(struct cf__table *table, struct cf__table_node *node);

/* Take out a node that is in it. */
void cf__table_remove(struct cf__table *table, struct cf__table_node *node);

#endif
