/* SPDX-License-Identifier: MIT */
/* A service whose allocations can be made to fail, in a schema of its own, and what is examined of
 * it: scenarios, each of them again and again, with another allocation failing each time, until
 * there are no more.
 *
 * Invariant: after each run of a scenario, once memory is there again, the very next request is a
 * 200, and within seconds there are as many descriptors and sessions as before. When the service
 * has stopped, as many blocks are left as of one that never lacked any.
 *
 *     static const struct examination dashboard = {
 *         .schema = "alloc_dashboard", .pool = 8, .cancel = "control",
 *         .scenarios = {{"dashboard", ask_for_dashboard}}};
 *
 *     subject_examine(&dashboard);
 *
 * Thread safety: the test's thread only. */
#ifndef SUBJECT_H
#define SUBJECT_H

#include <libpq-fe.h>

#include "client.h"
#include "service.h"
#include "sweep.h"

#define SUBJECT_DASHBOARD "/v1/dashboard?user_id=1"

/* Of what must succeed, however slow the machine is: who waits for ever is told by the client. */
#define SUBJECT_PATIENCE "&timeout=30s"

struct subject {
    struct nth *nth;
    struct service *service;
    PGconn *pg;     /* Looks. */
    PGconn *locker; /* Holds locks. */
    char url[512];
    char schema[64];                   /* The name of its sessions, too. */
    const char *env[NTH_SETTINGS + 4]; /* Of the service; NULL-terminated. */
    char pool_setting[32];
    char cancel_setting[32];
    int sessions; /* How many it has at rest. */
    int descriptors;
    int64_t late_ns; /* An answer has come so long after its time. 0: none. */
};

typedef void (*subject_fn)(struct subject *subject);

/* Each is examined without one allocation, and without any from one on: so many sweeps. */
#define SCENARIOS_MAX (NTH_SWEEPS / 2)

struct examination {
    const char *schema; /* Of these there is one for each worker. */
    int pool;
    const char *cancel; /* The way, "control" or "pqcancel". */
    bool every_n;       /* In the short form, too. */
    bool by_name;       /* The server's address is a name that has to be resolved. */
    struct {
        const char *name;
        subject_fn run;
    } scenarios[SCENARIOS_MAX];
};

/* Life cycle */

/* Make schema and settings, for a service with one loop in a process for which `worker` has
 * settings. */
void subject_init(struct subject *subject, const struct examination *of,
                  const struct worker *worker);

/* Stop what runs, and drop the schema. */
void subject_fini(struct subject *subject);

/* Operations */

/* Start a service in each worker, run each scenario with something else failing each time, and
 * stop. Then see that one in which nothing failed leaves as many blocks. */
void subject_examine(const struct examination *of);

/* Queries */

/* How many sessions the service has. */
int subject_sessions(const struct subject *subject);

/* How many of them wait for a lock. */
int subject_locked(const struct subject *subject);

/* What failed, for a message. */
const char *subject_say(const struct subject *subject);

/* Fail unless this is an answer that a request may have while there is no memory: that of a request
 * which got all it needed, a 503, or the end of the connection. Each within the deadline: one that
 * was late is noted, and what failed will fail again. */
void subject_expect_answer(struct subject *subject, const struct reply *reply, int64_t timeout_ns);

#endif
