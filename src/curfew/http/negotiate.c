/* SPDX-License-Identifier: MIT */
/* What a client would rather be sent: see negotiate.h. */
#include "curfew/http/negotiate.h"

#include <string.h>
#include <strings.h>

#include "curfew/http/field.h"
#include "curfew/http/server_private.h"
#include "curfew/http/words.h"

/* Internal helpers: Accept */

/* "text/csv", "text/" and a star, or two of them; also the lone star of old Java. */
static bool is_range(struct cf__span range)
{
    return cf__span_is(range, "*") ||
           (range.size >= 3 && memchr(range.at + 1, '/', range.size - 2) != NULL);
}

/* How closely a range matches: 3 "text/csv", 2 "text/" and a star, 1 any, 0 not at all. */
static int closeness(struct cf__span range, struct cf__span type)
{
    const char *slash = memchr(type.at, '/', type.size);
    size_t n_major = slash != NULL ? (size_t)(slash - type.at) + 1 : type.size;

    if (range.size == type.size && strncasecmp(range.at, type.at, type.size) == 0) {
        return 3;
    }
    if (range.size == n_major + 1 && range.at[n_major] == '*' &&
        strncasecmp(range.at, type.at, n_major) == 0) {
        return 2;
    }
    return cf__span_is(range, "*/*") || cf__span_is(range, "*") ? 1 : 0;
}

static void look_at_accept(void *arg, const char *value)
{
    cf__accept_header(arg, value);
}

static void look_at_encoding(void *arg, const char *value)
{
    cf__encodings_header(arg, value);
}

static int quality_of(const struct cf_http *http, struct cf__span type)
{
    struct cf__accept accept;

    cf__accept_init(&accept, type);
    cf__each_field(http->mhd, "Accept", look_at_accept, &accept);
    return cf__accept_quality(&accept);
}

/* Operations */

void cf__accept_init(struct cf__accept *accept, struct cf__span type)
{
    *accept = (struct cf__accept){.type = type};
}

void cf__accept_header(struct cf__accept *accept, const char *value)
{
    struct cf__span rest = cf__span_of(value);
    struct cf__span item;
    struct cf__span range;

    while (cf__item_next(&rest, ',', &item)) {
        int weight = cf__item_weight(item, &range);
        int close;

        if (!is_range(range)) {
            continue;
        }
        accept->is_said = true;
        close = closeness(range, accept->type);
        if (close > accept->closeness ||
            (close == accept->closeness && close > 0 && weight > accept->quality)) {
            accept->closeness = close;
            accept->quality = weight;
        }
    }
}

void cf__encodings_init(struct cf__encodings *encodings)
{
    *encodings = (struct cf__encodings){-1, -1, -1};
}

void cf__encodings_header(struct cf__encodings *encodings, const char *value)
{
    struct cf__span rest = cf__span_of(value);
    struct cf__span item;
    struct cf__span name;

    while (cf__item_next(&rest, ',', &item)) {
        int weight = cf__item_weight(item, &name);

        if (cf__span_is(name, "gzip") || cf__span_is(name, "x-gzip")) {
            encodings->gzip = weight;
        } else if (cf__span_is(name, "identity")) {
            encodings->identity = weight;
        } else if (cf__span_is(name, "*")) {
            encodings->any = weight;
        }
    }
}

/* Queries */

/* What is not named at all goes without saying only if it is plain, and then as a last resort. */
enum cf__coding cf__encodings_choice(const struct cf__encodings *encodings)
{
    int gzip = encodings->gzip >= 0 ? encodings->gzip : encodings->any;

    if (gzip <= 0 || encodings->identity > gzip) {
        return CF__PLAIN;
    }
    if (encodings->identity == 0 || (encodings->identity < 0 && encodings->any == 0)) {
        return CF__GZIP_ONLY;
    }
    return CF__GZIP;
}

enum cf__coding cf__coding_of(const struct cf_http *http)
{
    struct cf__encodings encodings;

    cf__encodings_init(&encodings);
    cf__each_field(http->mhd, "Accept-Encoding", look_at_encoding, &encodings);
    return cf__encodings_choice(&encodings);
}

bool cf_http_takes_gzip(const struct cf_http *http)
{
    return cf__coding_of(http) != CF__PLAIN;
}

int cf__accept_quality(const struct cf__accept *accept)
{
    return accept->is_said ? accept->quality : CF__WEIGHT_MAX;
}

bool cf__accepts_any(const struct cf_http *http, const char *types)
{
    const char *word;
    size_t size;
    bool any = false;

    while (!any && cf__words_next(&types, CF__TYPE_SEPARATORS, &word, &size)) {
        any = quality_of(http, (struct cf__span){word, size}) > 0;
    }
    return any;
}

int cf_http_accepts(const struct cf_http *http, const char *type)
{
    return quality_of(http, cf__span_of(type));
}
