/* SPDX-License-Identifier: MIT */
/* See pg_fixture.h. */
#include "pg_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fault.h"

struct fixture fixture;

static PGconn *own_view;
static atomic_size_t places;

const struct cf_pg_stmt sleep_stmt = {.name = "test_sleep", .sql = "SELECT pg_sleep($1)"};

static const struct cf_pg_stmt pid_stmt = {.name = "test_pid", .sql = "SELECT pg_backend_pid()"};

/* Events */

static struct {
    pthread_mutex_t mu;
    size_t n;
    struct cf_pg_event events[EVENTS_MAX];
    int64_t at_ns[EVENTS_MAX];
} seen = {.mu = PTHREAD_MUTEX_INITIALIZER};

static void on_event(void *arg, const struct cf_pg_event *event)
{
    /* No assertion: libcheck allocates for each, and an allocation may be failing just now. */
    (void)pthread_mutex_lock(&seen.mu);
    if (arg == &seen && seen.n < EVENTS_MAX) {
        seen.events[seen.n] = *event;
        seen.at_ns[seen.n] = cf_now_ns();
        seen.n++;
    }
    (void)pthread_mutex_unlock(&seen.mu);
}

/* The index of the n-th event of a kind; `*count` becomes how many there are. */
static size_t find_event(enum cf_pg_event_kind kind, size_t n, size_t *count)
{
    size_t found = EVENTS_MAX;

    *count = 0;
    for (size_t i = 0; i < seen.n; i++) {
        if (seen.events[i].kind == kind && (*count)++ == n) {
            found = i;
        }
    }
    return found;
}

size_t events_count(enum cf_pg_event_kind kind)
{
    size_t count;

    (void)pthread_mutex_lock(&seen.mu);
    (void)find_event(kind, 0, &count);
    (void)pthread_mutex_unlock(&seen.mu);
    return count;
}

struct cf_pg_event events_get(enum cf_pg_event_kind kind, size_t n)
{
    struct cf_pg_event event;
    size_t count;
    size_t at;

    (void)pthread_mutex_lock(&seen.mu);
    at = find_event(kind, n, &count);
    ck_assert_msg(at < EVENTS_MAX, "only %zu events: %s", count, cf_pg_event_name(kind));
    event = seen.events[at];
    (void)pthread_mutex_unlock(&seen.mu);
    return event;
}

int64_t events_at_ns(enum cf_pg_event_kind kind, size_t n)
{
    int64_t at_ns;
    size_t count;
    size_t at;

    (void)pthread_mutex_lock(&seen.mu);
    at = find_event(kind, n, &count);
    ck_assert_msg(at < EVENTS_MAX, "only %zu events: %s", count, cf_pg_event_name(kind));
    at_ns = seen.at_ns[at];
    (void)pthread_mutex_unlock(&seen.mu);
    return at_ns;
}

/* Fixture */

void fixture_setup(void)
{
    memset(&fixture, 0, sizeof(fixture));
    (void)snprintf(fixture.app, sizeof(fixture.app), "curfew-test-%d", (int)getpid());
    seen.n = 0;
    atomic_store(&places, 0);
    own_view = NULL;
}

enum cf_code fixture_try_open(struct cf_pg_options options, size_t n_loops, struct cf_err *err)
{
    enum cf_code code = CF_OK;

    ck_assert_uint_le(n_loops, sizeof(fixture.loops) / sizeof(fixture.loops[0]));
    options.url = options.url != NULL ? options.url : getenv("CF_TEST_PG_URL");
    options.application_name = fixture.app;
    if (options.on_event == NULL) {
        options.on_event = on_event;
        options.arg = &seen;
    }
    while (code == CF_OK && fixture.n_loops < n_loops) {
        code = cf_loop_new(NULL, &fixture.loops[fixture.n_loops], err);
        fixture.n_loops += code == CF_OK;
    }
    if (code == CF_OK) {
        code = cf_pg_new(&options, fixture.loops, n_loops, &fixture.pg, err);
    }
    if (code != CF_OK) {
        fixture_close();
    }
    return code;
}

void fixture_open(struct cf_pg_options options, size_t n_loops)
{
    struct cf_err err;

    ck_assert_msg(fixture_try_open(options, n_loops, &err) == CF_OK, "%s", err.msg);
}

void fixture_close(void)
{
    cf_pg_free(fixture.pg);
    fixture.pg = NULL;
    while (fixture.n_loops > 0) {
        cf_loop_free(fixture.loops[--fixture.n_loops]);
    }
}

void fixture_teardown(void)
{
    fixture_close();
    PQfinish(own_view);
    own_view = NULL;
    relay_stop(&fixture.relay);
}

void fixture_setup_server(void)
{
    fixture_setup();
    fixture.server_port = (int)strtol(PQport(fixture_view()), NULL, 10);
}

int fixture_to_server(size_t number)
{
    (void)number;
    return fixture.server_port;
}

PGconn *fixture_view(void)
{
    if (own_view == NULL) {
        own_view = pgview_open(NULL);
    }
    return own_view;
}

int fixture_backends(PGconn *view)
{
    return (int)pgview_i64(view,
                           "select count(*) from pg_stat_activity where application_name = $1",
                           (const char *[]){fixture.app, NULL});
}

int fixture_wait_sleeper(void)
{
    int pid;

    /* By its application name: what an earlier test has left may be asleep still. */
    WAIT_FOR((pid = (int)pgview_i64(fixture_view(),
                                    "select case count(*) when 1 then max(pid) else 0 end"
                                    " from pg_stat_activity"
                                    " where application_name = $1 and state = 'active'"
                                    " and query ~ $2",
                                    (const char *[]){fixture.app, SLEEP_PATTERN, NULL})) != 0);
    return pid;
}

static char process_state(int pid)
{
    char path[32];
    char state = '?';
    FILE *file;

    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    file = fopen(path, "re");
    if (file != NULL) {
        (void)!fscanf(file, "%*d (%*[^)]) %c", &state);
        (void)fclose(file);
    }
    return state;
}

/* Continue the process when ours ends, whatever ends it: a server with a frozen process could not
 * be stopped any more. In a session of its own, because libcheck kills a failed test's group. */
static void watch_over(int pid)
{
    int ends[2];
    pid_t watcher;

    ck_assert_int_eq(pipe(ends), 0);
    watcher = fork();
    ck_assert_int_ge(watcher, 0);
    if (watcher == 0) {
        char byte;

        (void)setsid();
        (void)close(ends[1]);
        (void)close_range(3, (unsigned)ends[0] - 1, 0); /* The test's connections. */
        (void)close_range((unsigned)ends[0] + 1, ~0U, 0);
        (void)!read(ends[0], &byte, 1);
        (void)kill(pid, SIGCONT);
        _exit(0);
    }
    (void)close(ends[0]); /* The other end stays open as long as this process lives. */
}

void fixture_freeze(int pid)
{
    watch_over(pid);
    ck_assert_int_eq(kill(pid, SIGSTOP), 0);
    WAIT_FOR(process_state(pid) == 'T');
}

void fixture_thaw(int pid)
{
    ck_assert_int_eq(kill(pid, SIGCONT), 0);
}

void fixture_terminate(int pid)
{
    char text[16];

    (void)snprintf(text, sizeof(text), "%d", pid);
    ck_assert_int_eq(pgview_i64(fixture_view(), "select pg_terminate_backend($1, 10000)::int",
                                (const char *[]){text, NULL}),
                     1);
}

struct cf_pg_stats fixture_stats(void)
{
    struct cf_pg_stats stats;

    cf_pg_stats(fixture.pg, &stats);
    return stats;
}

uint64_t outcomes(enum cf_pg_outcome outcome)
{
    return fixture_stats().cancels[outcome];
}

const char *outcomes_text(void)
{
    static char text[512];
    size_t n = 0;

    text[0] = '\0';
    for (int i = 0; i < CF_PG_OUTCOME_COUNT; i++) {
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s %llu", i > 0 ? ", " : "",
                              cf_pg_outcome_name((enum cf_pg_outcome)i),
                              (unsigned long long)outcomes((enum cf_pg_outcome)i));
        ck_assert_uint_lt(n, sizeof(text));
    }
    return text;
}

uint64_t outcomes_sum(void)
{
    uint64_t sum = 0;

    for (int i = 0; i < CF_PG_OUTCOME_COUNT; i++) {
        sum += outcomes((enum cf_pg_outcome)i);
    }
    return sum;
}

/* On its way from a cancel to the idle ones a slot is busy for a moment. */
void fixture_settle(void)
{
    struct cf_pg_stats stats;

    do {
        WAIT_FOR((stats = fixture_stats(), stats.canceling + stats.opening + stats.busy == 0));
        stats = fixture_stats();
    } while (stats.canceling + stats.opening + stats.busy != 0);
    ck_assert_uint_eq(stats.waiting, 0);
    ck_assert_uint_le(stats.idle, stats.pool_max);
}

void fixture_cancel_one(void)
{
    struct job job;

    job_init_sleep(&job, 60);
    job_start(&job);
    (void)fixture_wait_sleeper();
    cf_ctx_cancel(job.ctx);
    job_wait(&job);
    ck_assert_int_eq(job.code, CF_ECANCELED);
    job_fini(&job);
}

/* A value in a conninfo's quotes. */
static void append_setting(char *out, size_t size, const char *keyword, const char *value)
{
    size_t n = strlen(out);

    ck_assert_uint_lt(n + strlen(keyword) + 2 * strlen(value) + 8, size);
    n += (size_t)snprintf(out + n, size - n, "%s%s='", n > 0 ? " " : "", keyword);
    for (; *value != '\0'; value++) {
        if (*value == '\'' || *value == '\\') {
            out[n++] = '\\';
        }
        out[n++] = *value;
    }
    (void)snprintf(out + n, size - n, "'");
}

void fixture_url(char *out, size_t size, const char *url, const char *const *settings)
{
    PQconninfoOption *parsed;
    char *why = NULL;

    url = url != NULL ? url : getenv("CF_TEST_PG_URL");
    parsed = PQconninfoParse(url, &why);
    ck_assert_msg(parsed != NULL, "%s", why);
    out[0] = '\0';
    for (PQconninfoOption *at = parsed; at->keyword != NULL; at++) {
        const char *value = at->val;

        for (size_t i = 0; settings[i] != NULL; i += 2) {
            value = strcmp(settings[i], at->keyword) == 0 ? settings[i + 1] : value;
        }
        if (value != NULL) {
            append_setting(out, size, at->keyword, value);
        }
    }
    PQconninfoFree(parsed);
}

const char *fixture_url_behind(relay_route route, const char *url, const char *sslmode)
{
    static char behind[1024];
    char port[8];

    relay_start(&fixture.relay, route);
    (void)snprintf(port, sizeof(port), "%d", fixture.relay.port);
    fixture_url(behind, sizeof(behind), url,
                (const char *const[]){"host", "127.0.0.1", "port", port, "sslmode", sslmode, NULL});
    return behind;
}

void fixture_open_behind(relay_route route, struct cf_pg_options options)
{
    options.url = fixture_url_behind(route, NULL, "disable");
    fixture_open(options, 1);
}

/* Jobs */

void job_init(struct job *job, const struct cf_pg_stmt *stmt)
{
    *job = (struct job){.stmt = stmt};
    ck_assert_int_eq(cf_ctx_with_cancel(cf_ctx_background(), &job->ctx, NULL), CF_OK);
    ck_assert_int_eq(sem_init(&job->done, 0, 0), 0);
}

static void call_with_pid(const char *sql)
{
    char text[16];

    (void)snprintf(text, sizeof(text), "%d", (int)getpid());
    PQclear(pgview_query(fixture_view(), sql, (const char *[]){text, NULL}));
}

void fixture_hold(void)
{
    call_with_pid("select pg_advisory_lock($1)");
}

void fixture_wake(void)
{
    call_with_pid("select pg_advisory_unlock($1)");
}

void job_init_sleep_until_woken(struct job *job)
{
    static const struct cf_pg_stmt until_woken = {
        .name = "test_sleep_until_woken",
        .sql = "SELECT pg_sleep(0)::text, pg_advisory_xact_lock($1)::text"};

    job_init(job, &until_woken);
    job->params[0] = cf_pg_i64(getpid());
    job->n_params = 1;
    fixture_hold();
}

void job_init_sleep(struct job *job, double seconds)
{
    job_init(job, &sleep_stmt);
    job->params[0] = cf_pg_f64(seconds);
    job->n_params = 1;
}

void job_fini(struct job *job)
{
    ck_assert(!job->started);
    cf_pg_rows_free(job->rows);
    cf_ctx_free(job->ctx);
    (void)sem_destroy(&job->done);
    job->rows = NULL;
    job->ctx = NULL;
}

static void run_job(void *arg)
{
    struct job *job = arg;
    struct cf_ctx *ctx = job->ctx;

    if (job->timeout_ns > 0) {
        ck_assert_int_eq(cf_ctx_with_timeout(job->ctx, job->timeout_ns, &ctx, NULL), CF_OK);
    }
    if (job->fault > 0) {
        fault_alloc(job->fault, job->fault_for_good);
    }
    job->began_ns = cf_now_ns();
    job->code = cf_pg_query(ctx, fixture.pg, job->stmt, job->params, job->n_params, &job->rows,
                            job->no_err ? NULL : &job->err);
    job->ended_ns = cf_now_ns();
    job->place = atomic_fetch_add(&places, 1);
    job->struck = job->fault > 0 && fault_off();
    if (job->timeout_ns > 0) {
        cf_ctx_free(ctx);
    }
    (void)sem_post(&job->done);
}

void job_start(struct job *job)
{
    ck_assert(!job->started);
    cf_pg_rows_free(job->rows);
    job->rows = NULL;
    job->code = CF_OK;
    memset(&job->err, 0, sizeof(job->err));
    job->started = true;
    ck_assert_int_eq(cf_loop_spawn(fixture.loops[job->loop], run_job, job, NULL), CF_OK);
}

void job_wait(struct job *job)
{
    struct timespec over;

    ck_assert(job->started);
    (void)clock_gettime(CLOCK_REALTIME, &over);
    over.tv_sec += bound(PATIENCE_NS) / CF_SECOND;
    while (sem_timedwait(&job->done, &over) != 0) {
        ck_assert_msg(errno == EINTR, "%s does not return", job->stmt->name);
    }
    job->started = false;
}

void job_run(struct job *job)
{
    job_start(job);
    job_wait(job);
}

struct cf_pg_rows *query(const struct cf_pg_stmt *stmt, const struct cf_pg_param *params,
                         size_t n_params)
{
    struct cf_pg_rows *rows;
    struct job job;

    job_init(&job, stmt);
    if (n_params > 0) {
        memcpy(job.params, params, n_params * sizeof(*params));
    }
    job.n_params = n_params;
    job_run(&job);
    ck_assert_msg(job.code == CF_OK, "%s: %s %s", stmt->name, job.err.sqlstate, job.err.msg);
    rows = job.rows;
    job.rows = NULL;
    job_fini(&job);
    return rows;
}

struct cf_err query_error(const struct cf_pg_stmt *stmt, const struct cf_pg_param *params,
                          size_t n_params)
{
    struct job job;

    job_init(&job, stmt);
    if (n_params > 0) {
        memcpy(job.params, params, n_params * sizeof(*params));
    }
    job.n_params = n_params;
    job_run(&job);
    ck_assert_int_ne(job.code, CF_OK);
    ck_assert_int_eq(job.code, job.err.code);
    ck_assert_ptr_null(job.rows);
    job_fini(&job);
    return job.err;
}

int64_t query_i64(const struct cf_pg_stmt *stmt, const struct cf_pg_param *params, size_t n_params)
{
    struct cf_pg_rows *rows = query(stmt, params, n_params);
    int64_t value;

    ck_assert_uint_eq(cf_pg_rows_count(rows), 1);
    value = cf_pg_get_i64(rows, 0, 0);
    cf_pg_rows_free(rows);
    return value;
}

int backend_pid(void)
{
    return (int)query_i64(&pid_stmt, NULL, 0);
}
