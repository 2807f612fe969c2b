/* SPDX-License-Identifier: MIT */
/* Names of our own: see host.h. */
#include "curfew/http/host.h"

#include <string.h>
#include <strings.h>

#include <curfew/http.h>

#include "curfew/http/address.h"
#include "curfew/http/words.h"

#define SEPARATORS ", \t"
#define QUOTED_MAX 64

/* Internal helpers */

static bool is_named(const char *want, const char *name, size_t size)
{
    return strlen(want) == size && strncasecmp(want, name, size) == 0;
}

/* Without the dot of a name that says it is complete. */
static size_t bare_size(const char *name, size_t size)
{
    return size > 0 && name[size - 1] == '.' ? size - 1 : size;
}

static bool is_listed(const char *names, const char *name, size_t size)
{
    const char *word;
    size_t n;

    while (cf__words_next(&names, SEPARATORS, &word, &n)) {
        if (bare_size(word, n) == size && strncasecmp(word, name, size) == 0) {
            return true;
        }
    }
    return false;
}

/* Queries */

bool cf__host_is_name(const char *text, size_t size)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789-_.";

    for (size_t i = 0; i < size; i++) {
        if (text[i] == '\0' || strchr(letters, text[i]) == NULL) {
            return false;
        }
    }
    return size > 0;
}

enum cf_code cf_http_hosts_check(const char *hosts, struct cf_err *err)
{
    const char *word;
    size_t size;

    while (hosts != NULL && cf__words_next(&hosts, SEPARATORS, &word, &size)) {
        if (!cf__host_is_name(word, size)) {
            return cf_err_set(err, CF_EINVAL,
                              "\"%.*s\" is no host: should be like curfew.internal, without scheme "
                              "and port",
                              (int)(size < QUOTED_MAX ? size : QUOTED_MAX), word);
        }
    }
    return CF_OK;
}

bool cf__host_is_ours(const char *host, const char *names)
{
    struct cf__address address;
    size_t size = bare_size(host, strcspn(host, ":"));

    if (cf__address_read(host, strlen(host), &address)) {
        return true;
    }
    return size > 0 && (is_named("localhost", host, size) || is_listed(names, host, size));
}
