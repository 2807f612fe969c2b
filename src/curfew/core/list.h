/* SPDX-License-Identifier: MIT */
/* Intrusive doubly linked lists: the node is embedded in what is listed.
 *
 * Invariant: a node is in at most one list; one that is in none points to itself, so that
 * unlinking twice does nothing. Guarded by whatever guards its owner. */
#ifndef CURFEW_CORE_LIST_H
#define CURFEW_CORE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct cf__list {
    struct cf__list *next;
    struct cf__list *prev;
};

/* The object of `type` whose `member` is at `node`. */
#define CF__CONTAINER(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

static inline void cf__list_init(struct cf__list *list)
{
    list->next = list;
    list->prev = list;
}

static inline bool cf__list_empty(const struct cf__list *list)
{
    return list->next == list;
}

/* Append `node`, which is in no list. */
static inline void cf__list_push(struct cf__list *list, struct cf__list *node)
{
    node->next = list;
    node->prev = list->prev;
    list->prev->next = node;
    list->prev = node;
}

static inline void cf__list_unlink(struct cf__list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    cf__list_init(node);
}

/* Take the first node, or NULL. */
static inline struct cf__list *cf__list_pop(struct cf__list *list)
{
    struct cf__list *node = list->next;

    if (node == list) {
        return NULL;
    }
    cf__list_unlink(node);
    return node;
}

/* Move all nodes of `from` to the end of `to`. */
static inline void cf__list_splice(struct cf__list *to, struct cf__list *from)
{
    if (cf__list_empty(from)) {
        return;
    }
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    cf__list_init(from);
}

#endif
