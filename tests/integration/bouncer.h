/* SPDX-License-Identifier: MIT */
/* A PgBouncer between the library and the server of CF_TEST_PG_URL.
 *
 *     bouncer_start(&bouncer, "transaction");
 *     ... a conninfo with port=bouncer.port ...
 *     bouncer_stop(&bouncer);
 *
 * It knows the server's password and asks its clients for none. Its process dies with the test.
 *
 * Thread safety: the test's thread only. */
#ifndef BOUNCER_H
#define BOUNCER_H

#include <sys/types.h>

#include <curfew/base.h>

struct bouncer {
    char dir[64];
    uint16_t port;
    pid_t pid; /* 0: not running. */
};

/* Start one that lends sessions as `pool_mode` says, and wait until it can be connected to. */
void bouncer_start(struct bouncer *bouncer, const char *pool_mode);

/* End it and remove its files. What was never started is left alone. */
void bouncer_stop(struct bouncer *bouncer);

#endif
