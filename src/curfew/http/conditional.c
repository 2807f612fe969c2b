/* SPDX-License-Identifier: MIT */
/* What a client says of the answers that it has, or would take, from a cache: RFC 9110, section 13,
 * and RFC 9111, section 5.2.1. What cannot be read asks for nothing:
 * the answer is then a whole one.
 *
 * The gzip of what has the tag "1" has the tag "1-gzip", so that no cache takes one for the other.
 * Both are names of one state: a client that has either may go on from it, or change it. Only one
 * that takes no gzip any more has no use for that. */
#include <string.h>

#include "curfew/http/field.h"
#include "curfew/http/items.h"
#include "curfew/http/server_private.h"

/* Of a max-age: more is as good as any. */
#define AGE_DIGITS_MAX 9

/* Internal helpers: If-None-Match, If-Match */

struct etag_search {
    const char *etag; /* From its first quote. */
    size_t size;
    bool is_strong; /* A weak tag is no match. */
    unsigned found; /* CF__TAG_... */
};

/* Where the quotes of a tag begin: weak ones compare as strong ones do. */
static const char *opaque_of(const char *tag)
{
    return strncmp(tag, "W/", 2) == 0 ? tag + 2 : tag;
}

static unsigned match(const struct etag_search *search, struct cf__span item)
{
    static const char suffix[] = CF__GZIP_SUFFIX "\"";
    size_t n_suffix = sizeof(suffix) - 1;
    size_t n = search->size - 1; /* Before the last quote. */
    bool is_weak = item.size >= 2 && memcmp(item.at, "W/", 2) == 0;

    if (is_weak) {
        item.at += 2;
        item.size -= 2;
    }
    if ((is_weak && search->is_strong) || item.size < search->size ||
        memcmp(item.at, search->etag, n) != 0) {
        return 0;
    }
    if (item.size == search->size) {
        return item.at[n] == '"' ? CF__TAG_PLAIN : 0;
    }
    return item.size == n + n_suffix && memcmp(item.at + n, suffix, n_suffix) == 0 ? CF__TAG_GZIP
                                                                                   : 0;
}

/* Look through one header: "*", or a list of tags, in which there may be commas. */
static void find_etag(void *arg, const char *value)
{
    struct etag_search *search = arg;
    struct cf__span rest = cf__span_of(value);
    struct cf__span item;

    while (cf__tag_next(&rest, &item)) {
        search->found |=
            cf__span_is(item, "*") ? CF__TAG_PLAIN | CF__TAG_GZIP : match(search, item);
    }
}

/* Internal helpers: Cache-Control */

/* How old an answer may be by one directive: CF_NEVER if it does not say. */
static int64_t read_age(struct cf__span directive)
{
    struct cf__span value;
    struct cf__span name = cf__item_name(directive, &value);
    int64_t seconds = 0;

    if (cf__span_is(name, "no-cache") || cf__span_is(name, "no-store")) {
        return 0;
    }
    if (!cf__span_is(name, "max-age") || value.size == 0 || value.size > AGE_DIGITS_MAX) {
        return CF_NEVER;
    }
    for (size_t i = 0; i < value.size; i++) {
        if (value.at[i] < '0' || value.at[i] > '9') {
            return CF_NEVER;
        }
        seconds = seconds * 10 + (value.at[i] - '0');
    }
    return seconds * CF_SECOND;
}

/* Look through one header; `arg` says whether the word was there. */
static void find_only_if_cached(void *arg, const char *value)
{
    struct cf__span rest = cf__span_of(value);
    struct cf__span item;
    bool *found = arg;

    while (cf__item_next(&rest, ',', &item)) {
        *found = *found || cf__span_is(item, "only-if-cached");
    }
}

/* Look through one header; `arg` is the least age so far. */
static void find_age(void *arg, const char *value)
{
    struct cf__span rest = cf__span_of(value);
    struct cf__span item;
    int64_t *age_ns = arg;

    while (cf__item_next(&rest, ',', &item)) {
        int64_t asked_ns = read_age(item);

        *age_ns = asked_ns < *age_ns ? asked_ns : *age_ns;
    }
}

/* Queries */

unsigned cf__etags_had(const struct cf_http *http, const char *etag)
{
    struct etag_search search = {.etag = opaque_of(etag)};

    search.size = strlen(search.etag);
    cf__each_field(http->mhd, "If-None-Match", find_etag, &search);
    if ((search.found & CF__TAG_GZIP) != 0 && !cf_http_takes_gzip(http)) {
        search.found &= ~CF__TAG_GZIP;
    }
    return search.found;
}

bool cf_http_has_etag(const struct cf_http *http, const char *etag)
{
    return cf__etags_had(http, etag) != 0;
}

bool cf_http_matches(const struct cf_http *http, const char *etag)
{
    struct etag_search search = {.etag = etag, .is_strong = true};

    search.size = strlen(etag);
    cf__each_field(http->mhd, "If-Match", find_etag, &search);
    return search.found != 0;
}

int64_t cf_http_age_max_ns(const struct cf_http *http)
{
    int64_t age_ns = CF_NEVER;

    cf__each_field(http->mhd, "Cache-Control", find_age, &age_ns);
    return age_ns;
}

bool cf_http_only_if_cached(const struct cf_http *http)
{
    bool found = false;

    cf__each_field(http->mhd, "Cache-Control", find_only_if_cached, &found);
    return found;
}
