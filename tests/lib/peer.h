/* SPDX-License-Identifier: MIT */
/* A scripted HTTP server: whatever it is asked, it answers with the bytes that the test gave it.
 *
 * Invariant: serves every connection at once, from one thread, until it is freed.
 *
 *     struct peer *peer = peer_new("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", PEER_KEEP);
 *     ... http://127.0.0.1:<peer_port(peer)>/ ...
 *     ck_assert_ptr_nonnull(strstr(peer_request(peer), "GET / HTTP/1.1\r\n"));
 *     peer_free(peer);
 *
 * Thread safety: life cycle on the test's thread, the rest on any. */
#ifndef PEER_H
#define PEER_H

#include <stddef.h>
#include <stdint.h>

#define PEER_PORT "@PORT@" /* In a reply: the peer's own port. */

/* What follows the reply. */
enum peer_then {
    PEER_KEEP,  /* The next request. */
    PEER_CLOSE, /* The end of the connection. */
    PEER_FLOOD, /* The reply's last 16 bytes, again and again, until the client leaves. */
};

struct peer;

/* `reply` is borrowed; NULL: none is ever sent. */
struct peer *peer_new(const char *reply, enum peer_then then);

/* Close everything. */
void peer_free(struct peer *peer);

uint16_t peer_port(const struct peer *peer);

/* The last whole request, head and body. Lives until the next call. */
const char *peer_request(struct peer *peer);

/* Connections so far, and those of them that have ended. */
int peer_accepted(struct peer *peer);
int peer_closed(struct peer *peer);

/* Requests that have come whole. */
int peer_requests(struct peer *peer);

#endif
