/* SPDX-License-Identifier: MIT */
/* For whom a proxy asks: X-Forwarded-For and Forwarded (RFC 7239).
 *
 * Both name hops, each proxy adding the one it was asked by to the right. What is to the left of
 * the last hop that is not one of our proxies, anybody may have written,
 * so that last hop is the client.
 *
 * Only the headers of a proxy that is trusted may be given to this.
 *
 *     cf__forwarded_init(&forwarded, networks);
 *     cf__forwarded_header(&forwarded, name, name_size, value);    for each header, in order
 *     if (cf__forwarded_client(&forwarded, &address)) ...
 *
 * Thread safety: a value. */
#ifndef CURFEW_HTTP_FORWARDED_H
#define CURFEW_HTTP_FORWARDED_H

#include "curfew/http/address.h"

/* The last hop that is not trusted, of one kind of header. */
struct cf__hops {
    bool seen;  /* There was such a header. */
    bool known; /* And a hop that can be read and is not trusted, with nothing unreadable behind. */
    struct cf__address last;
};

struct cf__forwarded {
    const struct cf__networks *trusted; /* Borrowed. */
    struct cf__hops list;               /* X-Forwarded-For */
    struct cf__hops standard;           /* Forwarded */
};

void cf__forwarded_init(struct cf__forwarded *forwarded, const struct cf__networks *trusted);

/* Take a header into account, if it is one of these. */
void cf__forwarded_header(struct cf__forwarded *forwarded, const char *name, size_t size,
                          const char *value);

/* The client. False: no header says who, or two disagree, of which one may be the client's own. */
bool cf__forwarded_client(const struct cf__forwarded *forwarded, struct cf__address *out);

#endif
