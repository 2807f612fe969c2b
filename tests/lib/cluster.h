/* SPDX-License-Identifier: MIT */
/* A PostgreSQL of the test's own, to be absent, stopped, frozen and restarted.
 *
 * A throw-away cluster in a new directory under /tmp, run by an unprivileged user (`postgres` when
 * the test runs as root), on a free port below 32768, with the service's tables and a few rows. The
 * postmaster is a child of the test, so that it dies with it.
 *
 * Made once a suite, in an unchecked fixture, and started by each test:
 *
 *     cluster_create(&cluster);   cluster_destroy(&cluster);   (unchecked set-up and teardown)
 *     cluster_start(&cluster);    cluster_stop(&cluster, SIGINT);
 *
 * Thread safety: the test's thread only. */
#ifndef CLUSTER_H
#define CLUSTER_H

#include <sys/types.h>

#include <curfew/base.h>

struct cluster {
    char dir[64];
    char url[256];
    uint16_t port;
    pid_t pid; /* Of the postmaster; 0: not running. */
};

/* Life cycle */

/* Make it, with users 1 to 20 and three orders each, and leave it stopped. */
void cluster_create(struct cluster *cluster);

/* Have one that is stopped serve TLS, with a certificate of its own. */
void cluster_encrypt(struct cluster *cluster);

/* Kill what is left of it, also what a failed test froze, and remove the directory. */
void cluster_destroy(struct cluster *cluster);

/* Operations */

/* Start the postmaster and wait until it accepts connections. */
void cluster_start(struct cluster *cluster);

/* Stop it and wait: SIGINT (fast), SIGQUIT (immediate), SIGKILL. */
void cluster_stop(struct cluster *cluster, int number);

/* SIGSTOP, SIGCONT: the postmaster, and with `all` every process of the server too. */
void cluster_freeze(const struct cluster *cluster, bool all);
void cluster_thaw(const struct cluster *cluster);

/* A free port below 32768, for a server that has to know it beforehand. */
uint16_t cluster_choose_port(void);

#endif
