/* SPDX-License-Identifier: MIT */
/* Addresses of clients, and lists of networks to find them in.
 *
 * Invariant: an IPv4 address has one form, that of an IPv6 address which maps it, whichever socket
 * or header it came from.
 *
 *     code = cf__networks_new("10.0.0.0/8, ::1", &networks, err);
 *     trusted = cf__networks_have(networks, &address);
 *
 * Thread safety: an address is a value, a list constant after new. */
#ifndef CURFEW_HTTP_ADDRESS_H
#define CURFEW_HTTP_ADDRESS_H

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdint.h>

#include <curfew/err.h>

struct cf__address {
    uint8_t bytes[16]; /* All zero: none. */
};

struct cf__networks;

/* Life cycle */

/* Read addresses and networks ("10.0.0.0/8"), separated by commas or spaces; none of them in "".
 *
 * Ownership: the caller owns *out, cf__networks_free().
 * Fails with CF_EINVAL, naming the one that is none; CF_ENOMEM. */
CF_MUST enum cf_code cf__networks_new(const char *text, struct cf__networks **out,
                                      struct cf_err *err);
void cf__networks_free(struct cf__networks *networks);

/* Operations */

/* That of a socket; none if it is of another family, or NULL. */
void cf__address_of(const struct sockaddr *socket, struct cf__address *out);

/* Read "192.0.2.1", "192.0.2.1:80", "2001:db8::1" or "[2001:db8::1]:80". False: none of these. */
bool cf__address_read(const char *text, size_t size, struct cf__address *out);

/* In its usual form; "" of none. */
void cf__address_write(const struct cf__address *address, char out[INET6_ADDRSTRLEN]);

/* What a client is known by: its address, or of IPv6 the /64, all of which is one client's. */
struct cf__address cf__address_client(const struct cf__address *address);

/* Queries */

bool cf__networks_have(const struct cf__networks *networks, const struct cf__address *address);

#endif
