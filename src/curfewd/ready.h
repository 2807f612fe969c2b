/* SPDX-License-Identifier: MIT */
/* Asking a running service whether it is ready: for a health check that has no shell and no curl.
 *
 *     code = ready_ask("127.0.0.1:8081", 2 * CF_SECOND, &err);
 *
 * Thread safety: a function of its arguments. */
#ifndef CURFEWD_READY_H
#define CURFEWD_READY_H

#include <curfew/err.h>

/* Ask for /readyz on the admin listener of `address`, as --admin has it; one that listens on every
 * address is asked by the loopback.
 *
 * Blocks: for the reply, `timeout_ns` at most; a name that has to be resolved takes what it takes.
 * Fails with CF_EINVAL (an address that none can listen on, or port 0), CF_EUNAVAIL (nobody there,
 * or not ready: what it said), CF_EDEADLINE, CF_EIO, CF_ENOMEM. */
CF_MUST enum cf_code ready_ask(const char *address, int64_t timeout_ns, struct cf_err *err);

#endif
