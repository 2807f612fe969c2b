/* SPDX-License-Identifier: MIT */
/* Whether a Host header means us.
 *
 * A web page can have its own name resolved to this machine's address, and its scripts may then ask
 * us whatever they like: they are of one origin. What they cannot do is send another Host than that
 * name. So an address is always ours, as is localhost, and a name only if it is on the list.
 *
 * Thread safety: a function of its arguments. */
#ifndef CURFEW_HTTP_HOST_H
#define CURFEW_HTTP_HOST_H

#include <stdbool.h>
#include <stddef.h>

/* `host` with or without a port; `names` separated by commas or spaces. */
bool cf__host_is_ours(const char *host, const char *names);

/* Whether it is made of what names of hosts are made of: no scheme, no port, no brackets. */
bool cf__host_is_name(const char *text, size_t size);

#endif
