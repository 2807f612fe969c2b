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

/* A piece of a header's value. */
struct text {
    const char *at;
    size_t size;
};

/* Internal helpers */

static struct text trim(struct text text)
{
    while (text.size > 0 && (text.at[0] == ' ' || text.at[0] == '\t')) {
        text.at++;
        text.size--;
    }
    while (text.size > 0 && (text.at[text.size - 1] == ' ' || text.at[text.size - 1] == '\t')) {
        text.size--;
    }
    return text;
}

/* Cut the piece before the next `separator` that is not within quotes off *rest. False: none left. */
static bool cut(struct text *rest, char separator, struct text *out)
{
    bool quoted = false;
    size_t n = 0;

    if (rest->at == NULL) {
        return false;
    }
    while (n < rest->size && (quoted || rest->at[n] != separator)) {
        quoted = quoted != (rest->at[n] == '"');
        n++;
    }
    *out = trim((struct text){rest->at, n});
    if (n < rest->size) {
        rest->at += n + 1;
        rest->size -= n + 1;
    } else {
        rest->at = NULL;
    }
    return true;
}

static void add_hop(struct cf__hops *hops, const struct cf__networks *trusted, struct text node)
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
static struct text node_of(struct text element)
{
    struct text node = {"", 0};
    struct text pair;

    while (cut(&element, ';', &pair)) {
        if (pair.size >= 4 && strncasecmp(pair.at, "for=", 4) == 0) {
            node = (struct text){pair.at + 4, pair.size - 4};
        }
    }
    if (node.size >= 2 && node.at[0] == '"' && node.at[node.size - 1] == '"') {
        node.at++;
        node.size -= 2;
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
    struct text rest = {value, strlen(value)};
    struct text element;

    if (is_named("X-Forwarded-For", name, size)) {
        forwarded->list.seen = true;
        while (cut(&rest, ',', &element)) {
            add_hop(&forwarded->list, forwarded->trusted, element);
        }
    } else if (is_named("Forwarded", name, size)) {
        forwarded->standard.seen = true;
        while (cut(&rest, ',', &element)) {
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
