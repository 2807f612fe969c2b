/* SPDX-License-Identifier: MIT */
/* What is made for the test of a fault: a PostgreSQL of its suite's own, mostly a relay before it,
 * a service, and what that has when all is well.
 *
 *     tcase_add_unchecked_fixture(tc, fault_create_started, fault_destroy);
 *     tcase_add_checked_fixture(tc, setup, fault_teardown);
 *
 *     fault_start_behind(to_cluster, (const char *[]){"CURFEW_POOL=4", NULL});
 *     ... a fault, what is expected of it, and its end ...
 *     expect_recovery(&fault.baseline, "what it was");
 *
 * Thread safety: the test's thread only, but for the routes, which are the relay's. */
#ifndef FAULT_FIXTURE_H
#define FAULT_FIXTURE_H

#include "recovery.h"
#include "relay.h"

struct fault {
    struct cluster cluster;
    struct relay relay;
    struct service *service;
    struct baseline baseline;
};

extern struct fault fault;

/* Once a case: make the cluster, and start it too, when nothing happens to it; destroy it. */
void fault_create(void);
void fault_create_started(void);
void fault_destroy(void);

/* Start the cluster if it does not run, and the service on it; take the baseline. */
void fault_start(const char *const *env);

/* The same, with the relay between them. */
void fault_start_behind(relay_route route, const char *const *env);

/* A route. */
int to_cluster(size_t number);

/* Stop the service and the relay; and the cluster as well. */
void fault_teardown(void);
void fault_teardown_all(void);

#endif
