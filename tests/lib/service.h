/* SPDX-License-Identifier: MIT */
/* A curfewd of the test's own: the binary that CF_TEST_BIN names, on free ports.
 *
 * Its standard output and error go to memory (memfd), where the log lines are looked up; what it
 * said last is printed when a test fails. It dies with the test, whatever happens to that.
 *
 * Invariant: service_stop_all(), the teardown of every fixture, fails the test if a service did not
 * end by itself with status 0 when asked to.
 *
 *     struct service *service = service_start(NULL, (const char *[]){"CURFEW_POOL=4", NULL});
 *     client_get(service->api_port, "/livez", NULL);
 *
 * Thread safety: the test's thread only. */
#ifndef SERVICE_H
#define SERVICE_H

#include <jansson.h>
#include <sys/types.h>

#include <curfew/base.h>

struct service {
    pid_t pid; /* 0: it has ended and was waited for. */
    uint16_t api_port;
    uint16_t admin_port;
    int status; /* Exit status once it has ended, or minus the number of a signal. */
    int out_fd; /* Private from here. */
    int err_fd;
    int watch_fd;
    pid_t watcher;
    struct service *next;
};

/* What a run that ends by itself left behind. */
struct service_run {
    int status;
    int64_t took_ns;
    char out[8192];
    char err[4096];
};

/* Life cycle */

/* Start a service on a database (NULL: CF_TEST_PG_URL) and wait until it listens; that it is ready
 * too, only service_start_ready() waits for. `env` are settings, "NAME=value", NULL-terminated;
 * without them CURFEW_DEMO=1, a grace of 200 ms, and no cache. Lives until service_stop_all(). */
struct service *service_start(const char *url, const char *const *env);
struct service *service_start_ready(const char *url, const char *const *env);

/* Start it under another program, "valgrind --quiet": NULL-terminated. */
struct service *service_start_under(const char *const *wrapper, const char *url,
                                    const char *const *env);

/* Start it and wait until it listens, has ended (service_runs() says), or has said neither in time:
 * then its ports are 0. */
struct service *service_try_start(const char *url, const char *const *env, int64_t timeout_ns);

/* Stop every service that runs still, and free all. */
void service_stop_all(void);

/* Run the binary with arguments until it ends, at most ten seconds. */
void service_run(const char *const *args, const char *const *env, struct service_run *out);

/* Operations */

void service_signal(struct service *service, int number);

/* Wait until it has ended; returns its status. Later than `timeout_ns` fails the test. */
int service_wait(struct service *service, int64_t timeout_ns);

/* Wait until /readyz says 200. */
void service_wait_ready(struct service *service, int64_t timeout_ns);

/* See a hundred dashboards in a row, 98 of them within half a second. */
void service_expect_normal(struct service *service);

/* Queries */

/* True while it runs: no crash so far. */
bool service_runs(struct service *service);

/* True if it has said that it listens: then its ports are known. */
bool service_listens(struct service *service);

/* What it said on standard error so far, cut to `size`. */
void service_read_err(const struct service *service, char *out, size_t size);

/* The first log line whose member `key` is the string `value`, or NULL if none comes in time.
 * The caller owns it. */
json_t *service_find_line(struct service *service, const char *key, const char *value,
                          int64_t timeout_ns);

/* How many of its log lines have this member. */
size_t service_count_lines(struct service *service, const char *key, const char *value);

/* Wait until it has begun so many times to listen for changes;
 * each time it drops what it had cached. */
void service_wait_listening(struct service *service, size_t times);

/* Whether it has said this anywhere, in its log or on its standard error. */
bool service_has_said(struct service *service, const char *text);

/* Its database backends, by the log, as an array literal: "{1,2,3}". */
void service_backends(struct service *service, char *out, size_t size);

/* Resident memory, open descriptors, threads. */
size_t service_rss_bytes(struct service *service);
size_t service_fds(struct service *service);
size_t service_threads(struct service *service);

/* What has come to its port and it has not taken: bytes that it has not read, connections that it
 * has not accepted. */
unsigned long service_unread(const struct service *service);

#endif
