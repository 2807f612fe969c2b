/* SPDX-License-Identifier: MIT */
/* SIEVE: see sieve.h. */
#include "curfew/sync/sieve.h"

/* Internal helpers */

/* Let the hand leave a node that goes. */
static void step_off(struct cf__sieve *sieve, const struct cf__sieve_node *node)
{
    if (sieve->hand == &node->node) {
        sieve->hand = node->node.next;
    }
}

/* Life cycle */

void cf__sieve_init(struct cf__sieve *sieve)
{
    cf__list_init(&sieve->queue);
    sieve->hand = &sieve->queue;
}

/* Operations */

void cf__sieve_insert(struct cf__sieve *sieve, struct cf__sieve_node *node)
{
    atomic_init(&node->used, false);
    cf__list_push(&sieve->queue, &node->node);
}

void cf__sieve_replace(struct cf__sieve *sieve, struct cf__sieve_node *old,
                       struct cf__sieve_node *node)
{
    atomic_init(&node->used, true);
    cf__list_push(&old->node, &node->node); /* Before it. */
    if (sieve->hand == &old->node) {
        sieve->hand = &node->node;
    }
    cf__list_unlink(&old->node);
}

void cf__sieve_remove(struct cf__sieve *sieve, struct cf__sieve_node *node)
{
    step_off(sieve, node);
    cf__list_unlink(&node->node);
}

/* Ends: after one round no mark is left. */
struct cf__sieve_node *cf__sieve_evict(struct cf__sieve *sieve)
{
    if (cf__list_empty(&sieve->queue)) {
        return NULL;
    }
    for (;; sieve->hand = sieve->hand->next) {
        struct cf__sieve_node *node;

        if (sieve->hand == &sieve->queue) {
            continue;
        }
        node = CF__CONTAINER(sieve->hand, struct cf__sieve_node, node);
        if (!atomic_load_explicit(&node->used, memory_order_relaxed)) { /* See cf__sieve_use(). */
            cf__sieve_remove(sieve, node);
            return node;
        }
        atomic_store_explicit(&node->used, false, memory_order_relaxed);
    }
}
