/* SPDX-License-Identifier: MIT */
/* What a client says of the answers that it has, or would take, from a cache: RFC 9110, section 13, and
 * RFC 9111, section 5.2.1. What cannot be read asks for nothing: the answer is then a whole one. */
#include <string.h>
#include <strings.h>

#include "curfew/http/server_private.h"
#include "curfew/http/words.h"

/* Of a max-age: more is as good as any. */
#define AGE_DIGITS_MAX 9

/* Internal helpers: If-None-Match, If-Match */

struct etag_search {
    const char *header;
    const char *etag; /* From its first quote. */
    size_t size;
    bool is_strong; /* A weak tag is no match. */
    bool found;
};

/* Where the quotes of a tag begin: weak ones compare as strong ones do. */
static const char *opaque_of(const char *tag)
{
    return strncmp(tag, "W/", 2) == 0 ? tag + 2 : tag;
}

/* Look through one header: "*", or a list of tags, in which there may be commas. */
static enum MHD_Result find_etag(void *arg, enum MHD_ValueKind kind, const char *name,
                                 const char *value)
{
    struct etag_search *search = arg;
    const char *at = value != NULL && strcasecmp(name, search->header) == 0 ? value : "";

    (void)kind;
    if (strcmp(at, "*") == 0) {
        search->found = true;
    }
    while (!search->found) {
        const char *tag = at + strspn(at, ", \t");
        const char *end;

        at = opaque_of(tag);
        end = at[0] == '"' ? strchr(at + 1, '"') : NULL;
        if (end == NULL) {
            break;
        }
        end++;
        search->found = (at == tag || !search->is_strong) && (size_t)(end - at) == search->size &&
                        memcmp(at, search->etag, search->size) == 0;
        at = end;
    }
    return search->found ? MHD_NO : MHD_YES;
}

/* Internal helpers: Cache-Control */

/* The seconds of a max-age, or CF_NEVER if it is none. */
static int64_t read_age(const char *word, size_t size)
{
    static const char name[] = "max-age=";
    size_t at = sizeof(name) - 1;
    int64_t seconds = 0;

    if (size <= at || strncasecmp(word, name, at) != 0) {
        return CF_NEVER;
    }
    for (size_t digits = 0; at < size; at++, digits++) {
        if (word[at] < '0' || word[at] > '9' || digits == AGE_DIGITS_MAX) {
            return CF_NEVER;
        }
        seconds = seconds * 10 + (word[at] - '0');
    }
    return seconds * CF_SECOND;
}

static bool is_word(const char *word, size_t size, const char *name)
{
    return strlen(name) == size && strncasecmp(word, name, size) == 0;
}

/* Look through one header; `arg` is the least age so far. */
static enum MHD_Result find_age(void *arg, enum MHD_ValueKind kind, const char *name,
                                const char *value)
{
    const char *text = value != NULL && strcasecmp(name, "Cache-Control") == 0 ? value : "";
    int64_t *age_ns = arg;
    const char *word;
    size_t size;

    (void)kind;
    while (cf__words_next(&text, ", \t", &word, &size)) {
        int64_t asked_ns = is_word(word, size, "no-cache") || is_word(word, size, "no-store")
                               ? 0
                               : read_age(word, size);

        *age_ns = asked_ns < *age_ns ? asked_ns : *age_ns;
    }
    return MHD_YES;
}

/* Queries */

bool cf_http_has_etag(const struct cf_http *http, const char *etag)
{
    struct etag_search search = {.header = "If-None-Match", .etag = opaque_of(etag)};

    search.size = strlen(search.etag);
    (void)MHD_get_connection_values(http->mhd, MHD_HEADER_KIND, find_etag, &search);
    return search.found;
}

bool cf_http_matches(const struct cf_http *http, const char *etag)
{
    struct etag_search search = {.header = "If-Match", .etag = etag, .is_strong = true};

    search.size = strlen(etag);
    (void)MHD_get_connection_values(http->mhd, MHD_HEADER_KIND, find_etag, &search);
    return search.found;
}

int64_t cf_http_age_max_ns(const struct cf_http *http)
{
    int64_t age_ns = CF_NEVER;

    (void)MHD_get_connection_values(http->mhd, MHD_HEADER_KIND, find_age, &age_ns);
    return age_ns;
}
