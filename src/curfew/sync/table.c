/* SPDX-License-Identifier: MIT */
/* Hash tables of fixed size: see table.h. */
#include "curfew/sync/table.h"

#include <stdlib.h>
#include <string.h>

#include <curfew/base.h>

#define BUCKETS_MIN 8
#define BUCKETS_MAX ((size_t)1 << 24) /* 128 MiB of them. */

/* Internal helpers */

/* The link that holds `node`, or the end of its bucket. */
static struct cf__table_node **link_of(const struct cf__table *table,
                                       const struct cf__table_node *node)
{
    struct cf__table_node **link = &table->buckets[node->hash & table->mask];

    while (*link != NULL && *link != node) {
        link = &(*link)->next;
    }
    return link;
}

/* Life cycle */

bool cf__table_init(struct cf__table *table, size_t nodes_max)
{
    size_t buckets = BUCKETS_MIN;

    while (buckets < nodes_max && buckets < BUCKETS_MAX) {
        buckets *= 2;
    }
    table->buckets = calloc(buckets, sizeof(struct cf__table_node *));
    table->mask = buckets - 1;
    return table->buckets != NULL;
}

void cf__table_fini(struct cf__table *table)
{
    free(table->buckets);
    table->buckets = NULL;
}

/* Operations */

struct cf__table_node *cf__table_find(const struct cf__table *table, const char *key, uint64_t hash)
{
    struct cf__table_node *node = table->buckets[hash & table->mask];

    while (node != NULL && (node->hash != hash || strcmp(node->key, key) != 0)) {
        node = node->next;
    }
    return node;
}

void cf__table_insert(struct cf__table *table, struct cf__table_node *node)
{
    struct cf__table_node **bucket = &table->buckets[node->hash & table->mask];

    node->next = *bucket;
    *bucket = node;
}

void cf__table_remove(struct cf__table *table, struct cf__table_node *node)
{
    struct cf__table_node **link = link_of(table, node);

    CF_ASSERT(*link == node);
    *link = node->next;
    node->next = NULL;
}
