/* SPDX-License-Identifier: MIT */
/* See fault_fixture.h. */
#include "fault_fixture.h"

#include <signal.h>

struct fault fault;

void fault_create(void)
{
    cluster_create(&fault.cluster);
}

void fault_create_started(void)
{
    cluster_create(&fault.cluster);
    cluster_start(&fault.cluster);
}

void fault_destroy(void)
{
    cluster_destroy(&fault.cluster);
}

static void start(const char *url, const char *const *env)
{
    fault.service = service_start_ready(url, env);
    baseline_take(&fault.baseline, fault.service, fault.cluster.url);
}

static void start_cluster(void)
{
    if (fault.cluster.pid == 0) {
        cluster_start(&fault.cluster);
    }
}

void fault_start(const char *const *env)
{
    start_cluster();
    start(fault.cluster.url, env);
}

void fault_start_behind(relay_route route, const char *const *env)
{
    char url[300];

    start_cluster();
    relay_start(&fault.relay, route);
    url_through(url, sizeof(url), &fault.cluster, fault.relay.port);
    start(url, env);
}

int to_cluster(size_t number)
{
    (void)number;
    return fault.cluster.port;
}

void fault_teardown(void)
{
    service_stop_all();
    client_free_all();
    relay_stop(&fault.relay);
}

void fault_teardown_all(void)
{
    fault_teardown();
    if (fault.cluster.pid != 0) {
        cluster_thaw(&fault.cluster);
        cluster_stop(&fault.cluster, SIGINT);
    }
}
