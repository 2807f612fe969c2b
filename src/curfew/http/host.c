/* SPDX-License-Identifier: MIT */
/* Names of our own: see host.h. */
#include "curfew/http/host.h"

#include <string.h>
#include <strings.h>

#include "curfew/http/address.h"
#include "curfew/http/words.h"

#define SEPARATORS ", \t"

/* Internal helpers */

static bool is_named(const char *want, const char *name, size_t size)
{
    return strlen(want) == size && strncasecmp(want, name, size) == 0;
}

static bool is_listed(const char *names, const char *name, size_t size)
{
    const char *word;
    size_t n;

    while (cf__words_next(&names, SEPARATORS, &word, &n)) {
        if (n == size && strncasecmp(word, name, size) == 0) {
            return true;
        }
    }
    return false;
}

/* Queries */

bool cf__host_is_ours(const char *host, const char *names)
{
    struct cf__address address;
    size_t size = strcspn(host, ":");

    if (cf__address_read(host, strlen(host), &address)) {
        return true;
    }
    if (size > 0 && host[size - 1] == '.') {
        size--; /* A name that says it is complete. */
    }
    return size > 0 && (is_named("localhost", host, size) || is_listed(names, host, size));
}
