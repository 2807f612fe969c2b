/* SPDX-License-Identifier: MIT */
/* Who is behind a proxy: see forwarded.h.
 *
 * The hops are read from left to right, over all headers of the name, and each one that is not
 * trusted replaces the one before. One that cannot be read ("unknown", a name made up for the
 * occasion) takes it away: the client is behind it, and unknown.
 *
 * A proxy knows one of the two headers and passes the other on as it came. So where both are there,
 * they have to agree. */
#include "curfew/http/forwarded.h"

#include <string.h>
#include <strings.h>

#include "curfew/http/items.h"

/* Internal helpers */

static void add_hop(struct cf__hops *hops, const struct cf__networks *trusted, struct cf__span node)
{
    struct cf__address address;

    if (!cf__address_read(node.at, node.size, &address)) {
        hops->known = false;
    } else if (!cf__networks_have(trusted, &address)) {
        hops->known = true;
        hops->last = address;
    }
}

/* "for=192.0.2.1;proto=http", "for=\"[2001:db8::1]:80\"": the node, of no size if there is none. */
static struct cf__span node_of(struct cf__span element)
{
    struct cf__span node = {"", 0};
    struct cf__span pair;
    struct cf__span value;

    while (cf__item_next(&element, ';', &pair)) {
        if (cf__span_is(cf__item_name(pair, &value), "for") && value.at != NULL) {
            node = value;
        }
    }
    return node;
}

static bool is_named(const char *want, const char *name, size_t size)
{
    return strlen(want) == size && strncasecmp(want, name, size) == 0;
}

/* Operations */

void cf__forwarded_init(struct cf__forwarded *forwarded, const struct cf__networks *trusted)
{
    memset(forwarded, 0, sizeof(*forwarded));
    forwarded->trusted = trusted;
}

void cf__forwarded_header(struct cf__forwarded *forwarded, const char *name, size_t size,
                          const char *value)
{
    struct cf__span rest = cf__span_of(value);
    struct cf__span element;

    if (is_named("X-Forwarded-For", name, size)) {
        forwarded->list.seen = true;
        while (cf__item_next(&rest, ',', &element)) {
            add_hop(&forwarded->list, forwarded->trusted, element);
        }
    } else if (is_named("Forwarded", name, size)) {
        forwarded->standard.seen = true;
        while (cf__item_next(&rest, ',', &element)) {
            add_hop(&forwarded->standard, forwarded->trusted, node_of(element));
        }
    }
}

bool cf__forwarded_client(const struct cf__forwarded *forwarded, struct cf__address *out)
{
    const struct cf__hops *list = &forwarded->list;
    const struct cf__hops *standard = &forwarded->standard;
    const struct cf__hops *hops = list->seen ? list : standard;

    if (list->seen && standard->seen &&
        (list->known != standard->known ||
         memcmp(&list->last, &standard->last, sizeof(list->last)) != 0)) {
        return false;
    }
    if (hops->known) {
        *out = hops->last;
    }
    return hops->known;
}
