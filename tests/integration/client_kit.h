/* SPDX-License-Identifier: MIT */
/* What the tests of the HTTP client share: a client on a loop, a peer, and requests on fibers.
 *
 *     use_peer(OK_REPLY, PEER_KEEP);
 *     use_client((struct cf_client_options){0});
 *     expect_code(get(url), CF_OK);
 *
 * Thread safety: the test's thread only. */
#ifndef CLIENT_KIT_H
#define CLIENT_KIT_H

#include <curfew/client.h>

#include <check.h>

#include <curfew/clock.h>

#include "peer.h"

#define HERE "http://127.0.0.1:" /* A rule for each port is made from it. */
#define OK_REPLY "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi"

/* Fixture */

extern struct cf_loop *loop;
extern struct cf_client *client; /* NULL before a test makes it, */
extern struct peer *peer;        /* and so is this. */
extern char url[64];             /* A path of the peer's. */

void setup_client(void);
void teardown_client(void);

/* A case with that fixture. */
TCase *add_client_case(Suite *suite, const char *name);

/* Helpers */

/* Make the peer, and `url`. */
void use_peer(const char *reply, enum peer_then then);

/* Make the client; what it may reach, if nothing is said, is the peer. */
void use_client(struct cf_client_options options);

/* A request on a fiber, and what became of it. */
struct job {
    struct cf_client_request request;
    struct cf_ctx *ctx; /* NULL: the background. */
    struct cf_client_reply *reply;
    enum cf_code code;
    struct cf_err err;
    int64_t took_ns;
    struct cf_ctx *done; /* NULL, or cancelled at the end. */
};

/* Make a job's request: for a fiber. */
void run_job(void *arg);

/* Make a request on a fiber, and wait for its end. */
struct job do_request(struct cf_client_request request, struct cf_ctx *ctx);
struct job get(const char *where);

#define expect_code(job, wanted)                                                                   \
    ck_assert_msg((job).code == (wanted), "%s: %s", cf_code_name((job).code), (job).err.msg)

#endif
