/* SPDX-License-Identifier: MIT */
/* Request ids: taken from the client where it sent a decent one, made up otherwise.
 *
 * An id made here is 32 hexadecimal digits, the form of a trace id. It is unique, not secret.
 *
 * Thread safety: one generator per loop. */
#ifndef CURFEW_HTTP_REQUEST_ID_H
#define CURFEW_HTTP_REQUEST_ID_H

#include <curfew/err.h>

/* Longest id taken from a client. */
#define CF__REQUEST_ID_MAX 128

/* Digits of an id made here. */
#define CF__REQUEST_ID_DIGITS 32

struct cf__request_ids {
    uint64_t state[2]; /* Never both 0. */
};

/* Seed from the system's random numbers. Fails with CF_EIO. */
CF_MUST enum cf_code cf__request_ids_init(struct cf__request_ids *ids, struct cf_err *err);

/* Write a new id, with its NUL. */
void cf__request_id_next(struct cf__request_ids *ids, char out[CF__REQUEST_ID_DIGITS + 1]);

/* Whether a client's id may be taken over: 1 to 128 of A-Z a-z 0-9 . _ ~ + / = - */
bool cf__request_id_valid(const char *text);

#endif
