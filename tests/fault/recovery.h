/* SPDX-License-Identifier: MIT */
/* What every test of a fault ends with: the fault is off, and the service is as it was.
 *
 * Recovered is: within five seconds a hundred requests in a row are answered 200, and the process
 * has its descriptors, threads, connections to PostgreSQL and memory back, give or take what is
 * said here.
 *
 *     baseline_take(&baseline, service, cluster.url);
 *     ... a fault, what is expected of it, and its end ...
 *     expect_recovery(&baseline, "what it was");
 *
 * Thread safety: the test's thread only. */
#ifndef RECOVERY_H
#define RECOVERY_H

#include "client.h"
#include "cluster.h"
#include "service.h"

#define RECOVERY_NS (5 * CF_SECOND)

/* What a request may end behind its deadline while nothing answers. */
#define LATE_NS (100 * CF_MS)

struct baseline {
    struct service *service;
    const char *url; /* Of the database, for those who look at it from outside. */
    size_t fds;
    size_t threads;
    int backends;
    size_t rss_bytes;
};

/* Warm the service up until its pool is full and it has cancelled too, and see what it has then.
 * From now on times are counted. */
void baseline_take(struct baseline *out, struct service *service, const char *url);

/* The fault is over, and this is how long it takes: see above. `what` is said with the figures.
 * Of the times that were counted since the baseline or the last recovery, one and one in a hundred
 * may have been late, by less than a second. */
void expect_recovery(const struct baseline *baseline, const char *what);

/* Helpers that the faults share */

/* A request that is under way, and its reply: when it was sent, too. */
struct asked {
    int fd;
    int64_t sent_ns;
};
struct asked ask(const struct service *service, const char *target);
struct reply *answer(struct asked asked);

/* The cluster's URL with another port, 0: its own. */
void url_through(char *out, size_t size, const struct cluster *cluster, uint16_t port);

/* Sessions of the service that PostgreSQL has. */
int count_backends(const char *url);

/* The backend that runs a matching statement, when there is one. */
int wait_backend(const char *url, const char *pattern);

/* Ended as it should while PostgreSQL is of no use: 503 or 504, and not behind its deadline. */
void expect_refused(const struct reply *reply, int64_t timeout_ns);

/* Neither is it dead, nor has it to wait for anything. */
void expect_alive(struct service *service);

/* The same for a client that asks again and again, one request after the other: the status is
 * judged at once, and the time by the next expect_recovery(). */
void count_refused(const struct reply *reply, int64_t timeout_ns);
void count_alive(struct service *service);

/* The time alone: behind its deadline, or too late for a request that has to wait for nothing. */
void count_time(const struct reply *reply, int64_t timeout_ns);

#endif
