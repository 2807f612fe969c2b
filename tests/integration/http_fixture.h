/* SPDX-License-Identifier: MIT */
/* An HTTP server in this process, with handlers that a test can wait for, and what it said about
 * each request when it was through.
 *
 * Nothing sleeps to make something happen: a handler that waits says so by a semaphore, a request
 * that it is through by on_done(), and every wait has a bound.
 *
 *     site_setup_loops();
 *     site.options.in_flight_max = 1;
 *     site_start(1);
 *     client_request(fd, "GET", "/nap", NULL);
 *     wait_started();
 *     client_reset(fd);
 *     ck_assert_int_eq(wait_done(1).status, 499);
 *
 * Thread safety: the test's thread, but for the handlers. */
#ifndef HTTP_FIXTURE_H
#define HTTP_FIXTURE_H

#include <semaphore.h>
#include <stdatomic.h>

#include <check.h>

#include <curfew/clock.h>
#include <curfew/http.h>

#include "client.h"

/* What no wait of a test may take. Generous: sanitizers and two busy cores. */
#define PATIENCE_NS CLIENT_WAIT_NS

/* What is "at once": a millisecond as a rule; more only because a machine is busy. */
#define AT_ONCE_NS (200 * CF_MS)

#define N(table) (int)(sizeof(table) / sizeof((table)[0]))

/* Fixture */

struct site {
    struct cf_loop *loops[2];
    struct cf_http_options options; /* Of the next site_start(). */
    struct cf_http_server *server;  /* NULL: none. */
    uint16_t port;
    sem_t started;     /* A handler has begun to wait. */
    atomic_int runs;   /* Handlers begun. */
    atomic_int caught; /* Why the last nap was ended: enum cf_reason. */
};

extern struct site site;

/* Make the loops, and options: a free port, the routes below, and the recorder below. */
void site_setup_loops(void);

/* Start a server on one or two of the loops, with the options as they are. */
void site_start(size_t n_loops);

/* Both, on two loops. */
void site_setup(void);

/* Stop the server, so that another can be started. */
void site_stop(void);

void site_teardown(void);

/* A case that is set up in one of these ways, or in one of its own that ends with one of them. */
TCase *site_add_case(Suite *suite, const char *name, void (*set_up)(void));

/* Handlers: what they count and post is in the site. */

/* GET and POST /hello: "hello", as JSON. */
enum cf_code serve_hello(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);

/* /nap?ms=: parks that long (a minute), then answers with the time as text.
 * /nap/capped: 100 ms at most. */
enum cf_code serve_nap(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);

/* /stubborn: goes on for a while after its context has ended, and succeeds. */
enum cf_code serve_stubborn(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);

/* /fan-out: three tasks that wait for each other's end. */
enum cf_code serve_fan_out(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);

/* /large?size=: that many bytes. */
enum cf_code serve_large(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);

/* /echo/{id}: everything that can be asked of a request. */
enum cf_code serve_echo(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);

/* POST /body: the body again. */
enum cf_code serve_body(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err);

/* Wait for a post; what it means that there is none is said when the test fails. */
void wait_sem(sem_t *sem, const char *otherwise);

/* Wait until a handler has begun to wait. */
void wait_started(void);

/* What on_done() was told */

/* A copy of it. */
struct seen {
    char method[16];
    char target[256];
    char route[64];
    char request_id[129];
    char client[64];
    char timeout_source[64];
    int status;
    bool is_broken;
    size_t body_size;
    int64_t duration_ns;
    int64_t timeout_ns;
    enum cf_reason reason;
    enum cf_code code;
    int64_t at_ns;
};

/* The n-th request that was done, counted from 1; the last of all. */
struct seen wait_done(size_t n);
struct seen last_done(void);

/* How many are, and how many of them with this status. */
size_t count_done(void);
size_t count_done_with(int status);

/* Looks at the server */

size_t count_connections(void);
size_t count_in_flight(void);

/* Of this process. */
size_t count_descriptors(void);

/* Look until `count` gives `want`. */
void wait_count(size_t (*count)(void), size_t want);

/* Clients */

/* A client whose kernel takes little for it. */
int open_narrow(void);

/* Send a body, on a connection of its own. */
struct reply *post(const char *target, const char *body);

bool is_readable(int fd, int64_t within_ms);

/* All that comes until the other side closes; what is more than `size` is left. */
void read_to_end(int fd, char *out, size_t size);

/* The reply is a problem document of this status and code, with all that belongs to it. */
void expect_problem(struct reply *reply, int status, const char *code);

#endif
