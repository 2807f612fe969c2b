/* SPDX-License-Identifier: MIT */
/* Listening sockets: one per loop, all on one port.
 *
 * Invariant: either every socket of the set listens, or none is left open. */
#ifndef CURFEW_HTTP_LISTEN_H
#define CURFEW_HTTP_LISTEN_H

#include <curfew/err.h>

/* Listen `n` times on "host:port", "[::1]:port" or ":port" (every address); port 0: any one. Blocks
 * on a name that has to be resolved.
 *
 * Ownership: the caller owns the descriptors.
 * Fails with CF_EINVAL (no such name, or not an address of this machine), CF_ECONFLICT (another
 * process has the port), CF_EIO (no name server, for one), CF_ENOMEM. */
CF_MUST enum cf_code cf__listen(const char *address, size_t n, int *out_fds, uint16_t *out_port,
                                struct cf_err *err);

/* Have the kernel drop whatever would begin a connection to the descriptor; those under way are
 * still made. What is accepted then until none is queued is all there will be, and closing the
 * descriptor resets nobody who was connected: a client that comes meanwhile asks again
 * and is refused.
 * Best effort: without (no memory, a kernel that knows no filters),
 * who comes in between is reset. */
void cf__listen_turn_away(int fd);

#endif
