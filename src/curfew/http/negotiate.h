/* SPDX-License-Identifier: MIT */
/* What a client would rather be sent: Accept and Accept-Encoding (RFC 9110, section 12.5).
 *
 * Each is read header by header, for a list may come in several, and then asked. What cannot be
 * read in one is passed over: a client that says nothing that makes sense is served
 * as if it said nothing.
 *
 * Thread safety: values. */
#ifndef CURFEW_HTTP_NEGOTIATE_H
#define CURFEW_HTTP_NEGOTIATE_H

#include "curfew/http/items.h"

struct cf_http;

/* What Accept says of one type: the closest range decides, and of ranges equally close the largest
 * weight. Their parameters are not looked at, but for the weight. */
struct cf__accept {
    struct cf__span type; /* "text/csv": without parameters. */
    bool is_said;         /* There was a range at all. */
    int closeness;        /* Of the closest one so far. */
    int quality;
};

void cf__accept_init(struct cf__accept *accept, struct cf__span type);
void cf__accept_header(struct cf__accept *accept, const char *value);

/* From 0, not to be sent, to CF__WEIGHT_MAX. */
int cf__accept_quality(const struct cf__accept *accept);

/* What Accept-Encoding says of gzip. */
struct cf__encodings {
    int gzip; /* Weights; -1: not named, as are the others. */
    int identity;
    int any;
};

enum cf__coding {
    CF__PLAIN,     /* No gzip. */
    CF__GZIP,      /* It, if that is worth it. */
    CF__GZIP_ONLY, /* And nothing that is plain, if there is a way. */
};

void cf__encodings_init(struct cf__encodings *encodings);
void cf__encodings_header(struct cf__encodings *encodings, const char *value);
enum cf__coding cf__encodings_choice(const struct cf__encodings *encodings);

/* What the request says. */
enum cf__coding cf__coding_of(const struct cf_http *http);

/* What is between the types of a list of ours: words.h. */
#define CF__TYPE_SEPARATORS ", "

/* Whether the client takes any type of the list. */
bool cf__accepts_any(const struct cf_http *http, const char *types);

#endif
