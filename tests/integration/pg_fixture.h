/* SPDX-License-Identifier: MIT */
/* A database of the library under test, queries that a test starts and looks at, and a view of the
 * server that does not go through it.
 *
 * A test runs on its own thread and a query on a fiber: job_start() sends it there, job_wait() is
 * when it has ended, and what happened stands in the job. In between the test can cancel, look, or
 * kill. Nothing sleeps to make something happen: WAIT_FOR() waits for a condition, with a bound.
 *
 *     fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
 *     job_init(&job, &sleep_long);
 *     job_start(&job);
 *     WAIT_FOR(pgview_active(fixture_view(), "sleep_long") == 1);
 *     cf_ctx_cancel(job.ctx);
 *     job_wait(&job);
 *     ck_assert_int_eq(job.code, CF_ECANCELED);
 *
 * Thread safety: the test's thread only, but for what is atomic. */
#ifndef PG_FIXTURE_H
#define PG_FIXTURE_H

#include <semaphore.h>
#include <stdatomic.h>

#include <check.h>

#include <curfew/clock.h>
#include <curfew/pg.h>

#include "client.h"
#include "pgview.h"
#include "relay.h"

/* What no wait of a test may take. Generous: sanitizers and two busy cores. */
#define PATIENCE_NS (20 * CF_SECOND)

/* What is "at once": a tenth of a millisecond as a rule; more only because a machine is busy. */
#define AT_ONCE_NS (100 * CF_MS)

#define N(table) (int)(sizeof(table) / sizeof((table)[0]))

/* Fixture */

struct fixture {
    struct cf_loop *loops[4];
    size_t n_loops;
    struct cf_pg *pg;
    char app[32];       /* The application_name of this test's sessions, which no other has. */
    struct relay relay; /* For who starts it; stopped by the teardown. */
    int server_port;    /* Of CF_TEST_PG_URL, from fixture_setup_server() on. */
};

extern struct fixture fixture;

void fixture_setup(void);
void fixture_teardown(void);

/* fixture_setup(), and look where the server of CF_TEST_PG_URL is; then fixture_to_server() leads
 * the relay there. */
void fixture_setup_server(void);
int fixture_to_server(size_t number);

/* Make the loops and the database. What `options` leaves open: the url is CF_TEST_PG_URL's,
 * application_name the test's own, on_event the recorder below. */
void fixture_open(struct cf_pg_options options, size_t n_loops);

/* The same, but a failure is handed out, and then nothing was made. */
enum cf_code fixture_try_open(struct cf_pg_options options, size_t n_loops, struct cf_err *err);

/* Free both. The teardown does it too. */
void fixture_close(void);

/* A connection of the test's own to CF_TEST_PG_URL, opened on the first call. */
PGconn *fixture_view(void);

/* How many sessions the database has on the server that `view` is connected to. */
int fixture_backends(PGconn *view);

/* Wait until one session of the database runs a statement that sleeps; its pid. */
int fixture_wait_sleeper(void);

/* SIGSTOP, and wait until it has stopped; SIGCONT. Should the test fail, it is continued too. */
void fixture_freeze(int pid);
void fixture_thaw(int pid);

/* End a session as an administrator does, and wait until it is gone. */
void fixture_terminate(int pid);

struct cf_pg_stats fixture_stats(void);

/* How many cancels ended so; how many in each way, for what a test says when it fails; in all. */
uint64_t outcomes(enum cf_pg_outcome outcome);
const char *outcomes_text(void);
uint64_t outcomes_sum(void);

/* Wait until nothing is under way in the pools, and check that no slot was lost. */
void fixture_settle(void);

/* Start a statement of a minute, wait until the server runs it, and cancel it. */
void fixture_cancel_one(void);

/* Make a conninfo that is `url` (NULL: CF_TEST_PG_URL) but for the settings given: keyword, value,
 * ..., NULL. */
void fixture_url(char *out, size_t size, const char *url, const char *const *settings);

/* Start the relay, and make the conninfo of `url` (NULL: CF_TEST_PG_URL) as it is reached through
 * it, with this sslmode. It lives until the next is made. */
const char *fixture_url_behind(relay_route route, const char *url, const char *sslmode);

/* Start the relay, and open a database behind it on one loop. */
void fixture_open_behind(relay_route route, struct cf_pg_options options);

/* Events */

#define EVENTS_MAX 4096

/* How many there were of a kind so far, and the n-th of them, from 0. */
size_t events_count(enum cf_pg_event_kind kind);
struct cf_pg_event events_get(enum cf_pg_event_kind kind, size_t n);

/* When the n-th of a kind came. */
int64_t events_at_ns(enum cf_pg_event_kind kind, size_t n);

/* Jobs */

struct job {
    const struct cf_pg_stmt *stmt;
    struct cf_pg_param params[CF_PG_PARAMS_MAX];
    size_t n_params;
    size_t loop;         /* Which of the fixture's. */
    struct cf_ctx *ctx;  /* Made by job_init(), for cf_ctx_cancel(). */
    int64_t timeout_ns;  /* > 0: under a child of `ctx` with this deadline, made on the loop. */
    unsigned fault;      /* > 0: this allocation on the loop fails, */
    bool fault_for_good; /* and all that come after. */
    bool no_err;         /* Pass no error to fill. */

    enum cf_code code; /* From here valid after job_wait(). */
    struct cf_err err;
    struct cf_pg_rows *rows;
    bool struck;      /* The fault was met. */
    size_t place;     /* Among all jobs of the test, by when their query returned. */
    int64_t began_ns; /* Just before cf_pg_query(), and just after. */
    int64_t ended_ns;
    sem_t done;
    bool started;
};

void job_init(struct job *job, const struct cf_pg_stmt *stmt);

/* Free the rows and the context. */
void job_fini(struct job *job);

void job_start(struct job *job);
void job_wait(struct job *job);

/* Start and wait; what was left of a run before is freed. */
void job_run(struct job *job);

/* Run a statement once and expect success. The rows are the caller's. */
struct cf_pg_rows *query(const struct cf_pg_stmt *stmt, const struct cf_pg_param *params,
                         size_t n_params);

/* Run a statement that is to fail, and hand out how. */
struct cf_err query_error(const struct cf_pg_stmt *stmt, const struct cf_pg_param *params,
                          size_t n_params);

/* The first column of the only row. */
int64_t query_i64(const struct cf_pg_stmt *stmt, const struct cf_pg_param *params, size_t n_params);

/* The server's process that the next query of loop 0 is run by, when no other is under way. */
int backend_pid(void);

/* SELECT pg_sleep($1), in seconds. */
extern const struct cf_pg_stmt sleep_stmt;

#define SLEEP_PATTERN "^SELECT pg_sleep"

/* A job that sleeps for so long. */
void job_init_sleep(struct job *job, double seconds);

/* Have what asks for the advisory lock getpid() wait until it is woken. */
void fixture_hold(void);
void fixture_wake(void);

/* A job that sleeps so, also by SLEEP_PATTERN; holds. */
void job_init_sleep_until_woken(struct job *job);

#endif
