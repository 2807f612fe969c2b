/* SPDX-License-Identifier: MIT */
/* A service whose allocations can be made to fail, in a schema of its own, and the sweep: a scenario
 * again and again, with the first allocation failing, the second, until there are no more.
 *
 * Invariant: after each run of a scenario, once memory is there again, the very next request is a
 * 200, and within seconds there are as many descriptors and sessions as before. When the service
 * has stopped, as many blocks are left as of one that never lacked any.
 *
 *     subject_init(&subject, "alloc_dashboard", 8, "control");
 *     subject_examine(&subject, NTH_ONCE, ask_for_dashboard);
 *     subject_fini(&subject);
 *
 * Thread safety: the test's thread only. */
#ifndef SUBJECT_H
#define SUBJECT_H

#include <libpq-fe.h>

#include "client.h"
#include "nth.h"
#include "service.h"

#define SUBJECT_DASHBOARD "/v1/dashboard?user_id=1"

struct subject {
    struct nth *nth;
    struct service *service;
    PGconn *pg;     /* Looks. */
    PGconn *locker; /* Holds locks. */
    char url[512];
    const char *schema;
    const char *env[NTH_SETTINGS + 4]; /* Of the service; NULL-terminated. */
    char pool_setting[32];
    char cancel_setting[32];
    int sessions; /* How many it has at rest. */
    int descriptors;
    long n; /* Which allocation fails now: for messages. */
};

typedef void (*subject_fn)(struct subject *subject);

/* Life cycle */

/* Make schema and shared memory, for a service with one loop, a pool of `pool` connections and a way
 * to `cancel`, "control" or "pqcancel". */
void subject_init(struct subject *subject, const char *schema, int pool, const char *cancel);

void subject_fini(struct subject *subject);

/* Operations */

/* Start, run `scenario` with the n-th allocation failing for each n up to that which is never
 * reached, and stop. Then see that the same without a failure leaves as many blocks. */
void subject_examine(struct subject *subject, enum nth_mode mode, subject_fn scenario);

/* Queries */

/* How many sessions the service has. */
int subject_sessions(const struct subject *subject);

/* Fail unless this is an answer that a request may have while there is no memory: that of a request
 * which got all it needed, a 503, or the end of the connection. Each within the deadline. */
void subject_expect_answer(const struct subject *subject, const struct reply *reply,
                           int64_t timeout_ns);

#endif
