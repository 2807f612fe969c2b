/* SPDX-License-Identifier: MIT */
/* Faults that a review found, each at the moment when it showed: an answer that is lost behind a
 * cancel that was not, a context that ends between two turns, a server that is full, a session that
 * ends with a word and without a FIN, statements that are no queries.
 *
 * Most of them happen behind a relay, which does to a connection what a test says. With a pool of
 * one, connection 0 is the pool's and 1 the control connection. */
#include "pg_fixture.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <curfew/wait.h>

#include "cluster.h"
#include "fault.h"

#define SCHEMA "curfew_test_pg_faults"

/* Fixture */

static struct relay relay;
static struct cluster other;

static int server_port; /* Of CF_TEST_PG_URL. */
static char relay_url[1024];

static const struct cf_pg_stmt one = {.name = "faults_one", .sql = "SELECT 1"};

static int to_server(size_t number)
{
    (void)number;
    return server_port;
}

static void setup(void)
{
    fixture_setup();
    server_port = (int)strtol(PQport(fixture_view()), NULL, 10);
}

static void teardown(void)
{
    fixture_teardown();
    relay_stop(&relay);
}

/* A server for the control connection to stray to, with the same role, password and database. */
static void start_other(void)
{
    char sql[512];
    PGconn *view;
    PGconn *pg;
    char *role;
    char *password;
    char *database;

    cluster_create(&other);
    cluster_start(&other);
    pg = pgview_open(other.url);
    view = pgview_open(NULL);
    role = PQescapeIdentifier(pg, PQuser(view), strlen(PQuser(view)));
    password = PQescapeLiteral(pg, PQpass(view), strlen(PQpass(view)));
    database = PQescapeIdentifier(pg, PQdb(view), strlen(PQdb(view)));
    if (strcmp(PQuser(view), PQuser(pg)) != 0) {
        (void)snprintf(sql, sizeof(sql), "create role %s login", role);
        pgview_exec(pg, sql);
    }
    (void)snprintf(sql, sizeof(sql), "alter role %s password %s", role, password);
    pgview_exec(pg, sql);
    if (strcmp(PQdb(view), PQdb(pg)) != 0) {
        (void)snprintf(sql, sizeof(sql), "create database %s", database);
        pgview_exec(pg, sql);
    }
    PQfreemem(role);
    PQfreemem(password);
    PQfreemem(database);
    PQfinish(view);
    PQfinish(pg);
}

static void destroy_other(void)
{
    cluster_destroy(&other);
}

/* Helpers */

static void make_tables(void)
{
    pgview_exec(fixture_view(), "drop schema if exists " SCHEMA " cascade; create schema " SCHEMA
                                "; create table " SCHEMA ".parent (id int primary key)"
                                "; create table " SCHEMA ".child (id int references " SCHEMA
                                ".parent deferrable initially deferred)");
}

static uint64_t cancels(void)
{
    uint64_t sum = 0;

    for (int i = 0; i < CF_PG_OUTCOME_COUNT; i++) {
        sum += outcomes((enum cf_pg_outcome)i);
    }
    return sum;
}

/* Start a statement of a minute, wait until the server runs it, and cancel it. */
static void cancel_one(void)
{
    struct job job;

    job_init_sleep(&job, 60);
    job_start(&job);
    (void)fixture_wait_sleeper();
    cf_ctx_cancel(job.ctx);
    job_wait(&job);
    ck_assert_int_eq(job.code, CF_ECANCELED);
    job_fini(&job);
    fixture_settle();
}

static bool is_session(int pid)
{
    char text[16];

    (void)snprintf(text, sizeof(text), "%d", pid);
    return pgview_i64(fixture_view(), "select count(*) from pg_stat_activity where pid = $1",
                      (const char *[]){text, NULL}) != 0;
}

/* The pid of the only session of ours that is not `pid`; 0 if there is none. */
static int other_backend(int pid)
{
    char text[16];

    (void)snprintf(text, sizeof(text), "%d", pid);
    return (int)pgview_i64(fixture_view(),
                           "select coalesce(max(pid), 0) from pg_stat_activity"
                           " where application_name = $1 and pid <> $2",
                           (const char *[]){fixture.app, text, NULL});
}

static int64_t cpu_ns(void)
{
    struct timespec time;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return time.tv_sec * CF_SECOND + time.tv_nsec;
}

static int64_t resident_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    long pages = 0;

    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fscanf(file, "%*d %ld", &pages), 1);
    (void)fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

/* The control connection */

/* The cancels that went over it: how many, and whether one of them was for `wanted_pid`. */
static struct {
    atomic_size_t n;
    atomic_int wanted_pid;
    atomic_bool seen;
} asked;

static void hear_cancels(size_t number, const char *bytes, size_t size)
{
    char pid[16];

    (void)number;
    if (memmem(bytes, size, "cf_cancel_backends", strlen("cf_cancel_backends")) == NULL) {
        return;
    }
    (void)snprintf(pid, sizeof(pid), "%d", atomic_load(&asked.wanted_pid));
    if (memmem(bytes, size, pid, strlen(pid)) != NULL) {
        atomic_store(&asked.seen, true);
    }
    (void)atomic_fetch_add(&asked.n, 1);
}

static void listen_for(int pid)
{
    atomic_store(&asked.wanted_pid, pid);
    atomic_store(&asked.seen, false);
    atomic_store(&relay.tap, hear_cancels);
}

static const enum cf_pg_cancel_way control_ways[] = {CF_PG_CANCEL_AUTO, CF_PG_CANCEL_CONTROL};

/* The cancel is with the control session, which is stopped, when its socket breaks: it will be
 * carried out later. Whoever has the backend then must not be hit. */
START_TEST(control_answer_lost_spares_the_next_query)
{
    struct job victim;
    struct job next;
    int control;
    int pid;

    fixture_open_behind(&relay, to_server,
                        (struct cf_pg_options){.pool_max = 1, .cancel = control_ways[_i]});
    pid = backend_pid();
    cancel_one();
    control = other_backend(pid);
    listen_for(pid);

    job_init_sleep(&victim, 60);
    job_start(&victim);
    (void)fixture_wait_sleeper();
    fixture_freeze(control);
    cf_ctx_cancel(victim.ctx);
    job_wait(&victim);
    WAIT_FOR(atomic_load(&asked.seen));
    relay_reset(&relay, 1);
    fixture_settle();

    job_init_sleep(&next, 1);
    job_start(&next);
    (void)fixture_wait_sleeper();
    fixture_thaw(control);
    job_wait(&next);
    ck_assert_msg(next.code == CF_OK, "the next query: %s %s", next.err.sqlstate, next.err.msg);
    WAIT_FOR(!is_session(control));

    ck_assert_uint_eq(outcomes(CF_PG_CONNECTION_DROPPED), 1);
    ck_assert_int_eq(events_get(CF_PG_EVENT_CANCELED, 1).err.code, CF_EIO);
    ck_assert_int_eq(events_get(CF_PG_EVENT_CLOSED, 0).backend_pid, pid);
    ck_assert_int_ne(backend_pid(), pid);
    job_fini(&victim);
    job_fini(&next);
}
END_TEST

/* The third is the control connection's second, which comes no further for a while. */
static atomic_bool is_held;

static int hold_third(size_t number)
{
    return number == 2 && atomic_load(&is_held) ? RELAY_HOLD : server_port;
}

/* It takes so long to connect that the bound on the cancel passes. By the time it could ask, the
 * victim's connection is closed, and its pid may be anybody's. */
START_TEST(control_request_that_nobody_waits_for_is_not_sent)
{
    struct job victim;
    int pid;

    atomic_store(&is_held, true);
    fixture_open_behind(&relay, hold_third,
                        (struct cf_pg_options){.pool_max = 1,
                                               .cancel = CF_PG_CANCEL_CONTROL,
                                               .connect_timeout_ns = 15 * CF_SECOND,
                                               .cancel_timeout_ns = 200 * CF_MS});
    pid = backend_pid();
    cancel_one();
    listen_for(pid);
    fixture_terminate(other_backend(pid));

    job_init_sleep(&victim, 60);
    job_start(&victim);
    (void)fixture_wait_sleeper();
    cf_ctx_cancel(victim.ctx);
    job_wait(&victim);
    job_fini(&victim);
    fixture_settle();
    ck_assert_uint_eq(outcomes(CF_PG_DISPATCH_FAILED), 1);
    ck_assert_uint_eq(atomic_load(&asked.n), 0);
    ck_assert_int_ne(backend_pid(), pid);
    WAIT_FOR(!is_session(pid)); /* The next one that sleeps is another. */

    atomic_store(&is_held, false);
    relay_release(&relay);
    cancel_one(); /* Behind the old request in the line. */
    ck_assert_uint_eq(outcomes(CF_PG_EFFECTIVE), 2);
    ck_assert_uint_ge(atomic_load(&asked.n), 1);
    ck_assert(!atomic_load(&asked.seen));
}
END_TEST

static int second_to_other(size_t number)
{
    return number == 1 ? other.port : server_port;
}

START_TEST(control_connection_elsewhere_is_replaced)
{
    int64_t until_ns = cf_now_ns() + bound(PATIENCE_NS);
    struct cf_pg_event event;

    fixture_open_behind(&relay, second_to_other,
                        (struct cf_pg_options){.pool_max = 1, .cancel = CF_PG_CANCEL_CONTROL});
    do {
        ck_assert_msg(cf_now_ns() < until_ns, "the control connection is still elsewhere");
        cancel_one();
        pause_ms(outcomes(CF_PG_EFFECTIVE) == 0 ? 200 : 0); /* Each one costs a connection. */
    } while (outcomes(CF_PG_EFFECTIVE) == 0);
    event = events_get(CF_PG_EVENT_CANCELED, 0);
    ck_assert_int_eq(event.outcome, CF_PG_DISPATCH_FAILED);
    ck_assert_int_eq(event.err.code, CF_EINVAL);
    /* Not at once: the next may lead elsewhere, too. */
    ck_assert_int_ge(events_at_ns(CF_PG_EVENT_CANCELED, cancels() - 1) -
                         events_at_ns(CF_PG_EVENT_CANCELED, 0),
                     4500 * CF_MS);
}
END_TEST

/* Waiting in line */

static struct job holder;
static struct job inserter;
static struct job follower;

/* On the loop, whose turn this is from the lending to the end: the one who is lent the connection
 * has not had its own turn when its context ends. */
static void lend_and_cancel(void *arg)
{
    static const struct cf_pg_stmt nap = {.name = "faults_nap", .sql = "SELECT pg_sleep(0.05)"};
    struct cf_pg_rows *rows = NULL;

    (void)arg;
    job_start(&inserter);
    job_start(&follower);
    holder.code = cf_pg_query(cf_ctx_background(), fixture.pg, &nap, NULL, 0, &rows, NULL);
    cf_ctx_cancel(inserter.ctx);
    cf_pg_rows_free(rows);
}

START_TEST(waiter_canceled_before_its_turn_sends_nothing)
{
    static const struct cf_pg_stmt insert = {.name = "faults_insert",
                                             .sql = "INSERT INTO " SCHEMA ".parent VALUES (1)"};
    uint64_t queries;

    make_tables();
    fixture_open((struct cf_pg_options){.pool_max = 1, .cancel = CF_PG_CANCEL_PQCANCEL}, 1);
    (void)backend_pid();
    queries = fixture_stats().queries;
    job_init(&inserter, &insert);
    job_init(&follower, &one);
    ck_assert_int_eq(cf_loop_call(fixture.loops[0], lend_and_cancel, NULL, NULL), CF_OK);
    job_wait(&inserter);
    job_wait(&follower);
    fixture_settle();
    ck_assert_int_eq(holder.code, CF_OK);
    ck_assert_int_eq(inserter.code, CF_ECANCELED);
    ck_assert_str_eq(inserter.err.phase, "pool");
    ck_assert_int_eq(pgview_i64(fixture_view(), "select count(*) from " SCHEMA ".parent", NULL), 0);
    ck_assert_uint_eq(fixture_stats().queries, queries + 2);
    ck_assert_int_eq(follower.code, CF_OK);
    ck_assert_uint_eq(fixture_stats().opened, 1);
    ck_assert_uint_eq(cancels(), 0);
    job_fini(&inserter);
    job_fini(&follower);
}
END_TEST

/* A server that has no room for a second connection: where the relay sends it, if not there. */
static atomic_int refusal; /* 0: it has room. */
static size_t n_before;    /* Connections before it was full, and attempts that failed. */
static size_t n_failed_before;

static int unless_full(size_t number)
{
    int word = atomic_load(&refusal);

    (void)number;
    return word != 0 ? word : server_port;
}

static size_t n_failed(void)
{
    return events_count(CF_PG_EVENT_CONNECT_FAILED) - n_failed_before;
}

/* With one connection open, and busy. */
static void open_on_full_server(int word)
{
    atomic_store(&refusal, 0);
    fixture_open_behind(&relay, unless_full,
                        (struct cf_pg_options){.pool_max = 2,
                                               .cancel = CF_PG_CANCEL_PQCANCEL,
                                               .connect_timeout_ns = 500 * CF_MS});
    WAIT_FOR(fixture_stats().idle == 1);
    n_before = atomic_load(&relay.accepted);
    n_failed_before = events_count(CF_PG_EVENT_CONNECT_FAILED);
    atomic_store(&refusal, word);
    job_init_sleep(&holder, 60);
    job_start(&holder);
    (void)fixture_wait_sleeper();
}

static void end_holder(void)
{
    atomic_store(&refusal, 0);
    cf_ctx_cancel(holder.ctx);
    job_wait(&holder);
    job_fini(&holder);
    fixture_settle();
}

START_TEST(waiter_gets_the_second_connection_when_the_server_has_room_again)
{
    struct job job;

    open_on_full_server(RELAY_CLOSE);
    job_init(&job, &one);
    job_start(&job);
    WAIT_FOR(n_failed() >= 3); /* Repeated, with nobody new, */
    WAIT_FOR(atomic_load(&relay.accepted) >= n_before + 3);
    ck_assert_int_lt(relay.at_ns[n_before + 2] - relay.at_ns[n_before],
                     bound(1500 * CF_MS)); /* and before the housekeeper has come twice. */
    ck_assert_uint_eq(fixture_stats().waiting, 1);
    atomic_store(&refusal, 0);
    job_wait(&job);
    ck_assert_int_eq(job.code, CF_OK);
    ck_assert_uint_eq(fixture_stats().busy, 1); /* The holder is not what it waited for. */
    job_fini(&job);
    end_holder();
}
END_TEST

/* A query that gives up soon, and makes the pool try. */
static void wait_briefly(void)
{
    struct job job;

    job_init(&job, &one);
    job.timeout_ns = 5 * CF_MS;
    job_run(&job);
    ck_assert_int_eq(job.code, CF_EDEADLINE);
    job_fini(&job);
}

/* An attempt that fails when the queries that it was for have gone. */
static void fail_behind_its_back(void)
{
    size_t accepted = atomic_load(&relay.accepted);

    atomic_store(&refusal, RELAY_HOLD);
    WAIT_FOR((wait_briefly(), atomic_load(&relay.accepted) > accepted));
    atomic_store(&refusal, RELAY_CLOSE);
    relay_release(&relay);
    WAIT_FOR(fixture_stats().opening == 0);
}

/* Once there is always somebody in line, once nobody when an attempt fails. */
START_TEST(waiters_do_not_hasten_the_next_attempt)
{
    size_t n = 4;

    open_on_full_server(RELAY_CLOSE);
    while (n_failed() <= n) {
        (_i == 0 ? wait_briefly : fail_behind_its_back)();
    }
    WAIT_FOR(atomic_load(&relay.accepted) > n_before + n);
    for (size_t i = 0; i < n; i++) {
        int64_t retry_ns = events_get(CF_PG_EVENT_CONNECT_FAILED, n_failed_before + i).retry_ns;
        const int64_t *at_ns = &relay.at_ns[n_before + i];

        ck_assert_int_ge(retry_ns, (50 * CF_MS) << i);
        ck_assert_int_ge(at_ns[1] - at_ns[0], retry_ns);
    }
    end_holder();
}
END_TEST

/* The housekeeper */

static bool starved;

/* Without memory on the loop until the housekeeper has had a turn, and has to sleep again. */
static void starve(void *arg)
{
    size_t before = events_count(CF_PG_EVENT_CLOSED);
    int64_t until_ns = cf_now_ns() + PATIENCE_NS;

    (void)arg;
    fault_alloc(1, true);
    while (events_count(CF_PG_EVENT_CLOSED) == before && cf_now_ns() < until_ns) {
        (void)!cf_yield(cf_ctx_background(), NULL);
    }
    (void)!cf_yield(cf_ctx_background(), NULL);
    starved = fault_off();
}

/* Nobody asks for a connection: only the housekeeper replaces the one that is too old. */
START_TEST(housekeeper_outlives_a_lack_of_memory)
{
    uint64_t opened;

    fixture_open((struct cf_pg_options){.pool_max = 1,
                                        .lifetime_ns = 100 * CF_MS,
                                        .cancel = CF_PG_CANCEL_PQCANCEL},
                 1);
    WAIT_FOR(fixture_stats().idle == 1);
    ck_assert_int_eq(cf_loop_call(fixture.loops[0], starve, NULL, NULL), CF_OK);
    ck_assert(starved);
    opened = fixture_stats().opened;
    WAIT_FOR(fixture_stats().opened >= opened + 2); /* And the one after that. */
}
END_TEST

/* Hosts */

static int to_nobody(size_t number)
{
    (void)number;
    return RELAY_IGNORE;
}

/* First one that is silent, then the server, whose port is %. Silent are: port @ of 127.0.0.1, port
 * & of 127.0.0.2, and the Unix socket in $. */
static const struct {
    const char *host;
    const char *hostaddr;
    const char *port;
    size_t failures_max;
    bool in_env;
} silent_first[] = {
    {"127.0.0.1,127.0.0.1", NULL, "@,%", 1, false},
    {"127.0.0.1,127.0.0.1,127.0.0.1", NULL, "@,@,%", 2, false},
    {"no.such.host,no.such.host", "127.0.0.1,127.0.0.1", "@,%", 1, false},
    {NULL, "127.0.0.1,127.0.0.1", "@,%", 1, false},
    {NULL, "127.0.0.2,127.0.0.1", "&,%", 1, false},
    {"localhost,localhost", NULL, "@,%", 2, false}, /* Each may be two addresses. */
    {"localhost,127.0.0.1", NULL, "@,%", 2, false},
    {"$,127.0.0.1", NULL, "%", 1, false},
    {"$,localhost", NULL, "%", 1, false},
    {"127.0.0.1,127.0.0.1", NULL, "@,%", 1, true},
};

static char socket_place[sizeof(fixture.app) + 1];

/* One can connect to it, and nobody accepts. In the abstract name space: no file is left. */
static void make_silent_socket(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int size;

    (void)snprintf(socket_place, sizeof(socket_place), "@%s", fixture.app);
    size = snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "%s/.s.PGSQL.%d",
                    fixture.app, server_port);
    size += (int)offsetof(struct sockaddr_un, sun_path) + 1;
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, (socklen_t)size), 0);
    ck_assert_int_eq(listen(fd, 64), 0); /* It ends with the test. */
}

static int silent_port;

static void make_silent_listener(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(fd, 64), 0); /* It ends with the test, too. */
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    silent_port = ntohs(address.sin_port);
}

/* The list filled in; NULL stays. */
static const char *fill_in(const char *list, char *out, size_t size)
{
    FILE *file;

    if (list == NULL) {
        return NULL;
    }
    file = fmemopen(out, size, "we");
    ck_assert_ptr_nonnull(file);
    for (; *list != '\0'; list++) {
        switch (*list) {
        case '@':
            (void)fprintf(file, "%d", relay.port);
            break;
        case '%':
            (void)fprintf(file, "%d", server_port);
            break;
        case '&':
            (void)fprintf(file, "%d", silent_port);
            break;
        case '$':
            (void)fputs(socket_place, file);
            break;
        default:
            (void)fputc(*list, file);
            break;
        }
    }
    ck_assert_int_eq(fclose(file), 0);
    return out;
}

static void make_list_url(int i)
{
    char host[128];
    char hostaddr[128];
    char port[128];
    const char *settings[] = {
        "host",     fill_in(silent_first[i].host, host, sizeof(host)),
        "hostaddr", fill_in(silent_first[i].hostaddr, hostaddr, sizeof(hostaddr)),
        "port",     fill_in(silent_first[i].port, port, sizeof(port)),
        "sslmode",  "disable",
        NULL,
    };

    if (silent_first[i].in_env) {
        ck_assert_int_eq(setenv("PGHOST", settings[1], 1), 0);
        ck_assert_int_eq(setenv("PGPORT", settings[5], 1), 0);
        settings[1] = NULL;
        settings[5] = NULL;
    }
    fixture_url(relay_url, sizeof(relay_url), NULL, settings);
}

/* Each attempt starts with the next; libpq alone would never come to it. The control connection is
 * there, too, after some more. */
START_TEST(silent_host_is_not_first_for_ever)
{
    size_t failures_max = silent_first[_i].failures_max;
    int64_t since_ns;

    relay_start(&relay, to_nobody);
    make_silent_socket();
    make_silent_listener();
    make_list_url(_i);
    since_ns = cf_now_ns();
    fixture_open(
        (struct cf_pg_options){.url = relay_url, .pool_max = 1, .connect_timeout_ns = 500 * CF_MS},
        1);
    WAIT_FOR(events_count(CF_PG_EVENT_CONNECTED) > 0);
    ck_assert_int_ge(events_count(CF_PG_EVENT_CONNECT_FAILED), 1);
    ck_assert_int_le(events_count(CF_PG_EVENT_CONNECT_FAILED), failures_max);
    ck_assert_int_lt(events_at_ns(CF_PG_EVENT_CONNECTED, 0) - since_ns,
                     (int64_t)failures_max * 700 * CF_MS + bound(500 * CF_MS));
    WAIT_FOR((cancel_one(), fixture_backends(fixture_view()) == 2));
    ck_assert_uint_eq(fixture_stats().opened, 1);
}
END_TEST

/* The end of a session */

START_TEST(reset_in_mid_query_is_told_in_libpqs_words)
{
    struct job job;
    int pid;

    fixture_open_behind(&relay, to_server,
                        (struct cf_pg_options){.pool_max = 1, .cancel = CF_PG_CANCEL_PQCANCEL});
    pid = backend_pid();
    job_init_sleep(&job, 60);
    job_start(&job);
    (void)fixture_wait_sleeper();
    relay_reset(&relay, 0);
    job_wait(&job);
    ck_assert_int_eq(job.code, CF_EUNAVAIL);
    ck_assert_msg(strstr(job.err.msg, "server closed the connection") != NULL, "%s", job.err.msg);
    ck_assert_int_ne(backend_pid(), pid);
    ck_assert_uint_eq(cancels(), 0);
    ck_assert_uint_eq(events_count(CF_PG_EVENT_LOST), 1);
    ck_assert_int_eq(events_get(CF_PG_EVENT_LOST, 0).backend_pid, pid);
    job_fini(&job);
}
END_TEST

/* An ErrorResponse, as a server that shuts down sends it. */
static const char last_word[] = "E\0\0\0\x4e"
                                "SFATAL\0VFATAL\0C57P01\0"
                                "Mterminating connection for a test\0"
                                "Ftest.c\0L1\0RTest\0";

static void mute_first(void *arg)
{
    struct job *job = arg;
    struct cf_ctx *ctx;

    ck_assert_int_eq(cf_ctx_with_timeout(cf_ctx_background(), 5 * CF_SECOND, &ctx, NULL), CF_OK);
    relay_mute(&relay, 0, last_word, sizeof(last_word));
    job->code = cf_pg_query(ctx, fixture.pg, &one, NULL, 0, &job->rows, &job->err);
    cf_ctx_free(ctx);
}

/* The word has come and the FIN has not. Once the loop sees it by itself; once it has no turn
 * between, and the look before lending must see it. */
START_TEST(fatal_without_an_end_is_not_lent)
{
    struct job job;
    int pid;

    fixture_open_behind(&relay, to_server,
                        (struct cf_pg_options){.pool_max = 1, .cancel = CF_PG_CANCEL_PQCANCEL});
    pid = backend_pid();
    job_init(&job, &one);
    if (_i == 0) {
        relay_mute(&relay, 0, last_word, sizeof(last_word));
        WAIT_FOR(events_count(CF_PG_EVENT_LOST) == 1);
        job_run(&job);
    } else {
        ck_assert_int_eq(cf_loop_call(fixture.loops[0], mute_first, &job, NULL), CF_OK);
    }
    ck_assert_msg(job.code == CF_OK, "%s", job.err.msg);
    job_fini(&job);
    ck_assert_int_ne(backend_pid(), pid);
    ck_assert_int_eq(events_get(CF_PG_EVENT_LOST, 0).backend_pid, pid);
    ck_assert_uint_eq(fixture_stats().opened, 2);
}
END_TEST

START_TEST(fatal_in_mid_query_without_an_end_is_its_error)
{
    struct job job;
    int pid;

    fixture_open_behind(&relay, to_server,
                        (struct cf_pg_options){.pool_max = 1, .cancel = CF_PG_CANCEL_PQCANCEL});
    pid = backend_pid();
    job_init_sleep(&job, 60);
    job.timeout_ns = 5 * CF_SECOND;
    job_start(&job);
    (void)fixture_wait_sleeper();
    relay_mute(&relay, 0, last_word, sizeof(last_word));
    job_wait(&job);
    ck_assert_msg(job.code == CF_EUNAVAIL, "%s", job.err.msg);
    ck_assert_str_eq(job.err.sqlstate, "57P01");
    job_fini(&job);
    ck_assert_int_ne(backend_pid(), pid);
    ck_assert_uint_eq(cancels(), 0);
}
END_TEST

/* Statements */

/* The rows come before what takes them back. */
START_TEST(deferred_constraint_takes_the_rows_back)
{
    static const struct cf_pg_stmt insert = {
        .name = "faults_deferred",
        .sql = "INSERT INTO " SCHEMA ".child VALUES (999) RETURNING repeat('x', 1000000)",
    };
    int64_t before = 0;
    struct job job;
    int pid;

    make_tables();
    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    pid = backend_pid();
    job_init(&job, &insert);
    for (int i = 0; i < 70; i++) {
        before = i == 6 ? resident_bytes() : before;
        job_run(&job);
        ck_assert_int_eq(job.code, CF_ECONFLICT);
        ck_assert_str_eq(job.err.sqlstate, "23503");
        ck_assert_ptr_null(job.rows);
    }
    ck_assert_int_lt(resident_bytes() - before, bound(16000000)); /* Of 64 million. */
    job_fini(&job);
    ck_assert_int_eq(backend_pid(), pid);
}
END_TEST

static const struct {
    struct cf_pg_stmt stmt;
    bool discards; /* There is no way on to the Sync. */
} no_queries[] = {
    {{.name = "faults_copy_out", .sql = "COPY " SCHEMA ".parent TO STDOUT"}, true},
    {{.name = "faults_copy_in", .sql = "COPY " SCHEMA ".parent FROM STDIN"}, true},
    {{.name = "faults_empty", .sql = ""}, false},
    {{.name = "faults_comment", .sql = "/* nothing */"}, false},
};

START_TEST(what_is_no_query_is_refused)
{
    int64_t cpu_before_ns;
    struct job job;
    int pid;

    make_tables();
    fixture_open((struct cf_pg_options){.pool_max = 1, .cancel = CF_PG_CANCEL_PQCANCEL}, 1);
    pid = backend_pid();
    job_init(&job, &no_queries[_i].stmt);
    job.timeout_ns = 3 * CF_SECOND;
    cpu_before_ns = cpu_ns();
    job_run(&job);
    ck_assert_msg(job.code == CF_EINTERNAL, "%d %s", job.code, job.err.msg);
    ck_assert_int_eq(backend_pid() != pid, no_queries[_i].discards);
    ck_assert_int_lt(cpu_ns() - cpu_before_ns, bound(200 * CF_MS));
    ck_assert_uint_eq(cancels(), 0);
    job_fini(&job);
}
END_TEST

/* Two statements of one name: what the server has and what the connection knows of it differ, as
 * after a Parse whose answer found no memory. */
START_TEST(statement_out_of_step_discards_the_connection)
{
    static const struct cf_pg_stmt first = {.name = "faults_twin", .sql = "SELECT 1"};
    static const struct cf_pg_stmt second = {.name = "faults_twin", .sql = "SELECT 2"};
    struct job job;
    int pid;

    fixture_open((struct cf_pg_options){.pool_max = 1}, 1);
    pid = backend_pid();
    ck_assert_int_eq(query_i64(&first, NULL, 0), 1);
    job_init(&job, &second);
    job_run(&job);
    ck_assert_str_eq(job.err.sqlstate, "42P05");
    job_fini(&job);
    ck_assert_int_eq(query_i64(&second, NULL, 0), 2);
    ck_assert_int_eq(events_get(CF_PG_EVENT_LOST, 0).backend_pid, pid);
    ck_assert_uint_eq(fixture_stats().opened, 2);
}
END_TEST

/* Options */

/* The server knows milliseconds, and 0 as none. To set up the session may take longer than one. */
START_TEST(statement_timeout_of_less_than_a_millisecond_is_one)
{
    struct job job;

    fixture_open((struct cf_pg_options){.pool_max = 1,
                                        .statement_timeout_ns = 500000,
                                        .backoff_max_ns = 50 * CF_MS},
                 1);
    job_init_sleep(&job, 60);
    job.timeout_ns = 5 * CF_SECOND;
    WAIT_FOR((job_run(&job), job.code != CF_EUNAVAIL));
    ck_assert_int_eq(job.code, CF_EDEADLINE);
    ck_assert_str_eq(job.err.sqlstate, "57014");
    job_fini(&job);
}
END_TEST

static const struct {
    const char *url;
    const char *env;
} services[] = {
    {"service=somewhere", NULL}, {"postgresql:///db?service=somewhere", NULL}, {NULL, "somewhere"}};

/* Its host would be resolved by libpq, on the loop. */
START_TEST(service_file_is_refused)
{
    struct cf_err err = {.code = CF_OK};

    if (services[_i].env != NULL) {
        ck_assert_int_eq(setenv("PGSERVICE", services[_i].env, 1), 0);
    }
    ck_assert_int_eq(
        fixture_try_open((struct cf_pg_options){.url = services[_i].url, .pool_max = 1}, 1, &err),
        CF_EINVAL);
    ck_assert_int_eq(err.code, CF_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.msg, "service"));
    ck_assert_ptr_null(fixture.pg);
}
END_TEST

/* Suite */

static TCase *add_case(Suite *suite, const char *name)
{
    TCase *tc = tcase_create(name);

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 30);
    suite_add_tcase(suite, tc);
    return tc;
}

Suite *suite_pg_faults(void)
{
    Suite *suite = suite_create("pg_faults");
    TCase *tc = add_case(suite, "control");

    tcase_add_loop_test(tc, control_answer_lost_spares_the_next_query, 0, N(control_ways));
    tcase_add_test(tc, control_request_that_nobody_waits_for_is_not_sent);
    tc = add_case(suite, "elsewhere");
    tcase_add_unchecked_fixture(tc, start_other, destroy_other);
    tcase_add_test(tc, control_connection_elsewhere_is_replaced);
    tc = add_case(suite, "line");
    tcase_add_test(tc, waiter_canceled_before_its_turn_sends_nothing);
    tcase_add_test(tc, waiter_gets_the_second_connection_when_the_server_has_room_again);
    tcase_add_loop_test(tc, waiters_do_not_hasten_the_next_attempt, 0, 2);
    tc = add_case(suite, "housekeeper");
    tcase_add_test(tc, housekeeper_outlives_a_lack_of_memory);
    tc = add_case(suite, "hosts");
    tcase_add_loop_test(tc, silent_host_is_not_first_for_ever, 0, N(silent_first));
    tc = add_case(suite, "end");
    tcase_add_test(tc, reset_in_mid_query_is_told_in_libpqs_words);
    tcase_add_loop_test(tc, fatal_without_an_end_is_not_lent, 0, 2);
    tcase_add_test(tc, fatal_in_mid_query_without_an_end_is_its_error);
    tc = add_case(suite, "statements");
    tcase_add_test(tc, deferred_constraint_takes_the_rows_back);
    tcase_add_loop_test(tc, what_is_no_query_is_refused, 0, N(no_queries));
    tcase_add_test(tc, statement_out_of_step_discards_the_connection);
    tc = add_case(suite, "options");
    tcase_add_test(tc, statement_timeout_of_less_than_a_millisecond_is_one);
    tcase_add_loop_test(tc, service_file_is_refused, 0, N(services));
    return suite;
}
