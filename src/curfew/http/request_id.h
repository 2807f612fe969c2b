/* SPDX-License-Identifier: MIT */
/* Request ids: taken from the client where it sent a decent one; else it is the request's trace id.
 *
 * Thread safety: any thread. */
#ifndef CURFEW_HTTP_REQUEST_ID_H
#define CURFEW_HTTP_REQUEST_ID_H

#include <stdbool.h>

/* Longest id taken from a client. */
#define CF__REQUEST_ID_MAX 128

/* Whether a client's id may be taken over: 1 to 128 of A-Z a-z 0-9 . _ ~ + / = - */
bool cf__request_id_valid(const char *text);

#endif
