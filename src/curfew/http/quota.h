/* SPDX-License-Identifier: MIT */
/* How much each client has at a time: a connection of its own, or a request that a proxy brings.
 *
 * A client has an entry as long as it has anything, so there are never more entries than
 * connections and requests.
 *
 *     code = cf__quota_new(100, &quota, err);
 *     how = cf__quota_take(quota, &address);
 *     if (how != CF__QUOTA_UNCOUNTED) cf__quota_give(quota, &address);
 *
 * Thread safety: any thread. Never waits longer than for a look into a table. */
#ifndef CURFEW_HTTP_QUOTA_H
#define CURFEW_HTTP_QUOTA_H

#include "curfew/http/address.h"

struct cf__quota;

/* What a client has with what it has just taken. */
enum cf__quota_state {
    CF__QUOTA_UNCOUNTED, /* There was no memory to count it: it is not to be given back. */
    CF__QUOTA_WITHIN,
    CF__QUOTA_OVER,     /* More than it may have. */
    CF__QUOTA_FAR_OVER, /* More than twice that. */
};

/* Life cycle */

/* The caller owns *out. Fails with CF_ENOMEM, CF_EIO (no random numbers). */
CF_MUST enum cf_code cf__quota_new(size_t each_max, struct cf__quota **out, struct cf_err *err);

/* Free a quota that everything was given back to. NULL is allowed. */
void cf__quota_free(struct cf__quota *quota);

/* Operations */

/* Count one more for the client (see cf__address_client()). What is over is counted too. */
enum cf__quota_state cf__quota_take(struct cf__quota *quota, const struct cf__address *client);

/* Count one less. */
void cf__quota_give(struct cf__quota *quota, const struct cf__address *client);

/* Queries */

/* Clients that have anything. */
size_t cf__quota_clients(struct cf__quota *quota);

#endif
