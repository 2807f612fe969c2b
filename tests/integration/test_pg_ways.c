/* SPDX-License-Identifier: MIT */
/* The ways to cancel: libpq's own on the loop, the close of the socket when there is no other, what
 * a pooler between does to them, and how many are under way at once.
 *
 * What a way does when it works is in test_pg_cancel.c; see test_pg_balancer.c for balancers. */
#include "pg_fixture.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "bouncer.h"
#include "cluster.h"

/* Of the library: how soon the server looks for a client that has left. */
#define CLIENT_CHECK_NS (500 * CF_MS)

/* Fixture */

static struct bouncer bouncer;

static int server_port;   /* Where the relay leads to. */
static size_t n_pool;     /* The connections that come first, and are the pool's. */
static atomic_int beyond; /* Where all later ones go; 0: to the server too. */

static const enum cf_pg_cancel_way all_ways[] = {CF_PG_CANCEL_AUTO, CF_PG_CANCEL_CONTROL,
                                                 CF_PG_CANCEL_PQCANCEL,
#ifdef LIBPQ_HAS_ASYNC_CANCEL
                                                 CF_PG_CANCEL_ASYNC
#endif
};

/* Those that cost a process on the server. */
static const enum cf_pg_cancel_way costly[] = {CF_PG_CANCEL_PQCANCEL,
#ifdef LIBPQ_HAS_ASYNC_CANCEL
                                               CF_PG_CANCEL_ASYNC
#endif
};

static atomic_size_t most;       /* Of the later ones, at once. */
static atomic_size_t n_requests; /* Cancel requests in the clear. */
static atomic_bool asked_tls[RELAY_MAX];

static void setup(void)
{
    fixture_setup();
    server_port = (int)strtol(PQport(fixture_view()), NULL, 10);
    n_pool = 1;
    atomic_store(&beyond, 0);
    atomic_store(&most, 0);
    atomic_store(&n_requests, 0);
    for (size_t i = 0; i < RELAY_MAX; i++) {
        atomic_store(&asked_tls[i], false);
    }
}

static void teardown(void)
{
    fixture_teardown();
    bouncer_stop(&bouncer);
}

/* Helpers */

#define CANCEL_REQUEST "\x04\xd2\x16\x2e"
#define SSL_REQUEST "\x04\xd2\x16\x2f"

/* The code of a connection's first packet lies behind its length. */
static void hear_first_words(size_t number, const char *bytes, size_t size)
{
    if (size < 8) {
        return;
    }
    if (memcmp(bytes + 4, CANCEL_REQUEST, 4) == 0) {
        (void)atomic_fetch_add(&n_requests, 1);
    } else if (memcmp(bytes + 4, SSL_REQUEST, 4) == 0) {
        atomic_store(&asked_tls[number], true);
    }
}

static int pool_first(size_t number)
{
    int word = atomic_load(&beyond);
    size_t n = atomic_load(&fixture.relay.open) + 1 - n_pool;

    /* Not again for those that are released. */
    if (number == atomic_load(&fixture.relay.accepted) && number >= n_pool &&
        n > atomic_load(&most)) {
        atomic_store(&most, n);
    }
    return number < n_pool || word == 0 ? server_port : word;
}

/* Put the relay before the server, and open a database behind it, with all it has open. */
static void open_behind(struct cf_pg_options options, const char *url, const char *sslmode)
{
    options.url = fixture_url_behind(pool_first, url, sslmode);
    atomic_store(&fixture.relay.tap, hear_first_words);
    options.pool_max = n_pool;
    options.pool_min = n_pool;
    fixture_open(options, 1);
    WAIT_FOR(fixture_stats().idle == n_pool);
}

static void start_sleeper(struct job *job, PGconn *view)
{
    job_init_sleep(job, 60);
    job_start(job);
    ck_assert_int_ge(pgview_wait_active(view, SLEEP_PATTERN, 1, PATIENCE_NS), 0);
}

static void cancel_job(struct job *job)
{
    cf_ctx_cancel(job->ctx);
    job_wait(job);
    ck_assert_int_eq(job->code, CF_ECANCELED);
    job_fini(job);
}

/* By libpq, on the loop */

#ifdef LIBPQ_HAS_ASYNC_CANCEL

/* How many threads of this process have that name. */
static int threads_called(const char *name)
{
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *entry;
    int n = 0;

    ck_assert_ptr_nonnull(tasks);
    while ((entry = readdir(tasks)) != NULL) {
        char path[300];
        char comm[32] = "";
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/self/task/%s/comm", entry->d_name);
        file = fopen(path, "re");
        if (file != NULL) {
            (void)!fscanf(file, "%31[^\n]", comm);
            (void)fclose(file);
        }
        n += strcmp(comm, name) == 0;
    }
    (void)closedir(tasks);
    return n;
}

/* The server does not answer for a while: the loop goes on, and no thread waits for it. */
START_TEST(async_needs_no_thread)
{
    static const struct cf_pg_stmt one = {.name = "ways_one", .sql = "SELECT 1"};
    struct job job;

    n_pool = 2;
    open_behind(
        (struct cf_pg_options){.cancel = CF_PG_CANCEL_ASYNC, .cancel_timeout_ns = PATIENCE_NS},
        NULL, "disable");
    atomic_store(&beyond, RELAY_HOLD);
    start_sleeper(&job, fixture_view());
    cancel_job(&job);
    WAIT_FOR(atomic_load(&fixture.relay.open) == n_pool + 1);
    ck_assert_int_eq(query_i64(&one, NULL, 0), 1);
    ck_assert_int_eq(threads_called("cf-cancel"), 0);
    ck_assert_uint_eq(fixture_stats().canceling, 1);
    atomic_store(&beyond, 0);
    relay_release(&fixture.relay);
    fixture_settle();
    ck_assert_uint_eq(outcomes(CF_PG_EFFECTIVE), 1);
    ck_assert_int_eq(threads_called("cf-cancel"), 0);
    ck_assert_uint_eq(fixture_stats().opened, n_pool);
}
END_TEST

/* A firewall resets the connection of a cancel that was sent. The server may yet signal. */
START_TEST(async_reset_is_not_taken_for_the_end)
{
    struct job job;

    open_behind((struct cf_pg_options){.cancel = CF_PG_CANCEL_ASYNC}, NULL, "disable");
    atomic_store(&beyond, RELAY_IGNORE);
    start_sleeper(&job, fixture_view());
    cancel_job(&job);
    WAIT_FOR(atomic_load(&n_requests) == 1);
    atomic_store(&beyond, 0);
    relay_reset(&fixture.relay, 1);
    fixture_settle();
    ck_assert_uint_eq(outcomes(CF_PG_CONNECTION_DROPPED), 1);
    ck_assert_int_eq(events_get(CF_PG_EVENT_CANCELED, 0).err.code, CF_EIO);
    ck_assert_uint_eq(atomic_load(&n_requests), 1);
    ck_assert_uint_eq(events_count(CF_PG_EVENT_CLOSED), 1);
    ck_assert_int_ge(pgview_wait_active(fixture_view(), SLEEP_PATTERN, 0, PATIENCE_NS), 0);
}
END_TEST

/* TLS */

static struct cluster cluster;

static void start_encrypted(void)
{
    cluster_create(&cluster);
    cluster_encrypt(&cluster);
    cluster_start(&cluster);
}

static void destroy_cluster(void)
{
    cluster_destroy(&cluster);
}

/* By any way that AUTO may choose; CONTROL is a session as the others are. */
START_TEST(async_is_encrypted_as_its_connection)
{
    PGconn *view = pgview_open(cluster.url);
    struct job job;

    server_port = cluster.port;
    open_behind((struct cf_pg_options){.cancel = CF_PG_CANCEL_ASYNC}, cluster.url, "require");
    for (size_t i = 1; i <= 3; i++) {
        start_sleeper(&job, view);
        cancel_job(&job);
        fixture_settle();
        ck_assert_uint_eq(outcomes(CF_PG_EFFECTIVE), i);
    }
    ck_assert_uint_eq(fixture_stats().opened, 1);
    ck_assert(atomic_load(&asked_tls[1]));
    ck_assert_uint_eq(atomic_load(&n_requests), 0);
    PQfinish(view);
}
END_TEST

/* Whoever can break TLS must not have the key of the backend for it: every connection but the
 * pool's is reset when it has asked for TLS. */
START_TEST(auto_sends_no_request_in_the_clear)
{
    PGconn *view = pgview_open(cluster.url);
    size_t next = 1;
    struct job job;

    server_port = cluster.port;
    atomic_store(&beyond, RELAY_IGNORE);
    open_behind((struct cf_pg_options){.cancel = CF_PG_CANCEL_AUTO}, cluster.url, "require");
    start_sleeper(&job, view);
    cancel_job(&job);
    while (outcomes(CF_PG_DISPATCH_FAILED) == 0) {
        if (atomic_load(&fixture.relay.accepted) > next && atomic_load(&asked_tls[next])) {
            relay_reset(&fixture.relay, next++);
        }
        pause_ms(1);
    }
    ck_assert_uint_eq(atomic_load(&n_requests), 0);
    ck_assert_int_ge(pgview_wait_active(view, SLEEP_PATTERN, 0, PATIENCE_NS), 0);
    PQfinish(view);
}
END_TEST

#else

START_TEST(async_takes_libpq_17)
{
    struct cf_err err = {.code = CF_OK};

    ck_assert(!cf_pg_can_cancel(CF_PG_CANCEL_ASYNC));
    ck_assert_int_eq(
        fixture_try_open((struct cf_pg_options){.cancel = CF_PG_CANCEL_ASYNC}, 1, &err), CF_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.msg, "libpq 17"));
}
END_TEST

#endif

/* The last way */

/* From now on nobody listens at the relay's port. What it has passes on. */
static void refuse_connections(void)
{
    int quiet = eventfd(0, EFD_CLOEXEC);

    ck_assert_int_eq(dup2(quiet, fixture.relay.fd), fixture.relay.fd);
    (void)close(quiet);
    relay_release(&fixture.relay); /* Its poll(), which holds the old socket, returns. */
}

static void assert_closed_for(int pid)
{
    struct cf_pg_event event = events_get(CF_PG_EVENT_CANCELED, 0);

    ck_assert_int_ge(
        pgview_wait_active(fixture_view(), SLEEP_PATTERN, 0, CLIENT_CHECK_NS + bound(CF_SECOND)),
        0);
    ck_assert_int_eq(event.backend_pid, pid);
    ck_assert_int_ne(event.err.code, CF_OK);
    ck_assert_int_eq(events_get(CF_PG_EVENT_CLOSED, 0).backend_pid, pid);
}

/* No way can send it: the connection is closed, and the server notices. */
START_TEST(close_is_the_last_way)
{
    struct job job;
    int pid;

    atomic_store(&beyond, RELAY_CLOSE); /* No control connection. */
    open_behind((struct cf_pg_options){.cancel = all_ways[_i]}, NULL, "disable");
    pid = backend_pid();
    start_sleeper(&job, fixture_view());
    refuse_connections();
    cancel_job(&job);
    WAIT_FOR(events_count(CF_PG_EVENT_CANCELED) == 1);
    ck_assert_uint_eq(outcomes(CF_PG_DISPATCH_FAILED), 1);
    ck_assert_int_eq(events_get(CF_PG_EVENT_CANCELED, 0).err.code, CF_EUNAVAIL);
    assert_closed_for(pid);
    ck_assert_uint_eq(fixture_stats().idle + fixture_stats().busy, 0);
}
END_TEST

/* Whoever answers closes each connection at once, which may look like the end of a cancel: then it
 * is the second fence that is not passed. */
START_TEST(close_follows_cancels_that_are_swallowed)
{
    struct job job;
    int pid;

    atomic_store(&beyond, RELAY_CLOSE);
    open_behind((struct cf_pg_options){.cancel = all_ways[_i], .cancel_timeout_ns = 300 * CF_MS},
                NULL, "disable");
    pid = backend_pid();
    start_sleeper(&job, fixture_view());
    cancel_job(&job);
    WAIT_FOR(events_count(CF_PG_EVENT_CANCELED) == 1);
    ck_assert_uint_eq(outcomes(CF_PG_DISPATCH_FAILED) + outcomes(CF_PG_CONNECTION_DROPPED), 1);
    assert_closed_for(pid);
    atomic_store(&beyond, 0);
    WAIT_FOR(fixture_stats().idle == 1);
    ck_assert_int_ne(backend_pid(), pid);
    ck_assert_uint_eq(fixture_stats().opened, 2);
}
END_TEST

/* Poolers */

static const struct {
    const char *mode;
    enum cf_pg_cancel_way way;
} pooled[] = {
    {"session", CF_PG_CANCEL_AUTO},         {"transaction", CF_PG_CANCEL_AUTO},
    {"session", CF_PG_CANCEL_CONTROL},      {"transaction", CF_PG_CANCEL_CONTROL},
    {"transaction", CF_PG_CANCEL_PQCANCEL},
#ifdef LIBPQ_HAS_ASYNC_CANCEL
    {"session", CF_PG_CANCEL_ASYNC},        {"transaction", CF_PG_CANCEL_ASYNC},
#endif
};

static void open_behind_bouncer(const char *mode, enum cf_pg_cancel_way way)
{
    bouncer_start(&bouncer, mode);
    server_port = bouncer.port;
    open_behind((struct cf_pg_options){.cancel = way}, NULL, "disable");
}

/* Every way but the control connection leads through it; and it is the only one besides the pool's
 * that is opened. */
START_TEST(pooler_passes_a_cancel_on)
{
    struct job job;
    int pid;

    open_behind_bouncer(pooled[_i].mode, pooled[_i].way);
    ck_assert_int_eq(events_get(CF_PG_EVENT_CONNECTED, 0).err.code, CF_OK);
    pid = backend_pid();
    for (uint64_t i = 1; i <= 5; i++) {
        start_sleeper(&job, fixture_view());
        cancel_job(&job);
        fixture_settle();
        ck_assert_uint_eq(outcomes(CF_PG_EFFECTIVE), i);
        ck_assert_int_eq(backend_pid(), pid);
    }
    ck_assert_uint_eq(fixture_stats().opened, 1);
    ck_assert_uint_eq(atomic_load(&n_requests), atomic_load(&fixture.relay.accepted) - 1);
}
END_TEST

/* There is no way: it is said when the connection is made, and when it is closed for it. */
START_TEST(pooler_leaves_the_control_connection_no_way)
{
    struct cf_pg_event event;
    struct job job;
    int pid;

    open_behind_bouncer(pooled[_i].mode, CF_PG_CANCEL_CONTROL);
    event = events_get(CF_PG_EVENT_CONNECTED, 0);
    ck_assert_int_eq(event.err.code, CF_EINVAL);
    ck_assert_ptr_nonnull(strstr(event.err.msg, "pooler"));
    pid = backend_pid();
    start_sleeper(&job, fixture_view());
    cancel_job(&job);
    WAIT_FOR(events_count(CF_PG_EVENT_CANCELED) == 1);
    event = events_get(CF_PG_EVENT_CANCELED, 0);
    ck_assert_int_eq(event.outcome, CF_PG_DISPATCH_FAILED);
    ck_assert_int_eq(event.err.code, CF_EINVAL);
    ck_assert_ptr_nonnull(strstr(event.err.msg, "pooler"));
    ck_assert_int_ge(pgview_wait_active(fixture_view(), SLEEP_PATTERN, 0, PATIENCE_NS), 0);
    WAIT_FOR(fixture_stats().idle == 1);
    ck_assert_uint_eq(fixture_stats().opened, 2);
    ck_assert_int_ne(backend_pid(), pid);
    ck_assert_uint_eq(atomic_load(&fixture.relay.accepted),
                      2); /* No control connection was tried. */
}
END_TEST

static int second_to_bouncer(size_t number)
{
    return number == 1 ? bouncer.port : server_port;
}

/* A list of hosts, or a balancer, of which only some are poolers: what is said to one of them would
 * be done by the server that it chooses then. */
START_TEST(control_connection_through_a_pooler_is_not_kept)
{
    struct job job;

    bouncer_start(&bouncer, "transaction");
    fixture_open_behind(second_to_bouncer, (struct cf_pg_options){.pool_max = 1});
    WAIT_FOR(atomic_load(&fixture.relay.accepted) == 2 && atomic_load(&fixture.relay.open) == 1);
    start_sleeper(&job, fixture_view());
    cancel_job(&job);
    fixture_settle();
    ck_assert_uint_eq(outcomes(CF_PG_EFFECTIVE), 1);
    ck_assert_uint_eq(fixture_stats().opened, 1);
}
END_TEST

/* The budget */

#define CLIENTS 500

static struct job clients[CLIENTS];

static void leave_all(void *arg)
{
    (void)arg;
    for (size_t i = 0; i < CLIENTS; i++) {
        cf_ctx_cancel(clients[i].ctx);
    }
}

/* 500 clients leave at once, of whom 48 have a statement that runs. */
START_TEST(budget_is_kept_in_a_storm)
{
    static const struct cf_pg_stmt number = {.name = "ways_number",
                                             .sql = "SELECT $1::bigint FROM pg_sleep(0.02)"};
    static struct job next[96];
    size_t max = _i < N(costly) ? 8 : 3;

    n_pool = 48;
    open_behind((struct cf_pg_options){.cancel = costly[_i % N(costly)],
                                       .cancels_max = max == 8 ? 0 : max,
                                       .cancel_timeout_ns = PATIENCE_NS},
                NULL, "disable");
    atomic_store(&beyond, RELAY_HOLD);
    for (size_t i = 0; i < CLIENTS; i++) {
        job_init_sleep(&clients[i], 60);
        job_start(&clients[i]);
    }
    ck_assert_int_ge(pgview_wait_active(fixture_view(), SLEEP_PATTERN, (int)n_pool, PATIENCE_NS),
                     0);
    WAIT_FOR(fixture_stats().waiting == CLIENTS - n_pool);
    ck_assert_int_eq(cf_loop_call(fixture.loops[0], leave_all, NULL, NULL), CF_OK);
    for (size_t i = 0; i < CLIENTS; i++) {
        job_wait(&clients[i]);
        ck_assert_int_eq(clients[i].code, CF_ECANCELED);
        job_fini(&clients[i]);
    }
    WAIT_FOR(atomic_load(&fixture.relay.open) == n_pool + max);
    ck_assert_uint_eq(fixture_stats().canceling, n_pool); /* Its slots stay counted. */
    for (int i = 0; i < N(next); i++) {
        job_init(&next[i], &number);
        next[i].params[0] = cf_pg_i64(i);
        next[i].n_params = 1;
        job_start(&next[i]);
    }
    atomic_store(&beyond, 0);
    relay_release(&fixture.relay);
    for (int i = 0; i < N(next); i++) {
        job_wait(&next[i]);
        ck_assert_msg(next[i].code == CF_OK, "%s %s", next[i].err.sqlstate, next[i].err.msg);
        ck_assert_int_eq(cf_pg_get_i64(next[i].rows, 0, 0), i);
        job_fini(&next[i]);
    }
    fixture_settle();
    ck_assert_uint_eq(atomic_load(&most), max);
    ck_assert_uint_eq(outcomes(CF_PG_EFFECTIVE), n_pool);
    ck_assert_uint_eq(fixture_stats().idle, n_pool);
    ck_assert_uint_eq(fixture_stats().opened, n_pool);
}
END_TEST

/* One cancel hangs, and another waits for its permit. */
static void open_with_one_permit(enum cf_pg_cancel_way way, struct job *first, int64_t timeout_ns)
{
    n_pool = 2;
    open_behind(
        (struct cf_pg_options){.cancel = way, .cancels_max = 1, .cancel_timeout_ns = timeout_ns},
        NULL, "disable");
    atomic_store(&beyond, RELAY_HOLD);
    start_sleeper(first, fixture_view());
}

/* Its statement has ended by then: to cancel would hit nobody, or, in a worse library, the next. */
START_TEST(budget_line_is_left_by_a_statement_that_ends)
{
    struct job first;
    struct job second;

    open_with_one_permit(costly[_i], &first, PATIENCE_NS);
    job_init_sleep_until_woken(&second);
    job_start(&second);
    ck_assert_int_ge(pgview_wait_active(fixture_view(), SLEEP_PATTERN, 2, PATIENCE_NS), 0);
    cancel_job(&first);
    WAIT_FOR(atomic_load(&fixture.relay.open) == n_pool + 1);
    cancel_job(&second);
    fixture_wake();
    ck_assert_int_ge(pgview_wait_active(fixture_view(), SLEEP_PATTERN, 1, PATIENCE_NS), 0);
    ck_assert_uint_eq(fixture_stats().canceling, 2);
    atomic_store(&beyond, 0);
    relay_release(&fixture.relay);
    fixture_settle();
    ck_assert_uint_eq(outcomes(CF_PG_EFFECTIVE), 1);
    ck_assert_uint_eq(outcomes(CF_PG_NOT_SENT), 1);
    ck_assert_uint_eq(fixture_stats().opened, n_pool);
}
END_TEST

START_TEST(budget_line_is_bounded)
{
    int64_t since_ns;
    struct job first;
    struct job second;

    open_with_one_permit(costly[_i], &first, CF_SECOND);
    job_init_sleep(&second, 60);
    job_start(&second);
    ck_assert_int_ge(pgview_wait_active(fixture_view(), SLEEP_PATTERN, 2, PATIENCE_NS), 0);
    since_ns = cf_now_ns();
    cancel_job(&first);
    cancel_job(&second);
    WAIT_FOR(events_count(CF_PG_EVENT_CANCELED) == 2);
    ck_assert_uint_eq(outcomes(CF_PG_DISPATCH_FAILED), 2);
    ck_assert_int_ge(cf_now_ns() - since_ns, 999 * CF_MS);
    ck_assert_int_lt(cf_now_ns() - since_ns, CF_SECOND + bound(CF_SECOND));
    ck_assert_ptr_nonnull(strstr(events_get(CF_PG_EVENT_CANCELED, 1).err.msg, "wait to cancel"));
    ck_assert_uint_eq(atomic_load(&n_requests), 0);
    atomic_store(&beyond, 0);
    relay_release(&fixture.relay);
    ck_assert_int_ge(pgview_wait_active(fixture_view(), SLEEP_PATTERN, 0, PATIENCE_NS), 0);
    WAIT_FOR(fixture_stats().idle == n_pool);
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

Suite *suite_pg_ways(void)
{
    Suite *suite = suite_create("pg_ways");
    TCase *tc = add_case(suite, "close");

    tcase_add_loop_test(tc, close_is_the_last_way, 0, N(all_ways));
    tcase_add_loop_test(tc, close_follows_cancels_that_are_swallowed, 0, N(all_ways));
    tc = add_case(suite, "pooler");
    tcase_add_loop_test(tc, pooler_passes_a_cancel_on, 0, 2);
    tcase_add_loop_test(tc, pooler_leaves_the_control_connection_no_way, 2, 4);
    tcase_add_loop_test(tc, pooler_passes_a_cancel_on, 4, N(pooled));
    tcase_add_test(tc, control_connection_through_a_pooler_is_not_kept);
    tc = add_case(suite, "budget");
    tcase_add_loop_test(tc, budget_is_kept_in_a_storm, 0, 2 * N(costly));
    tcase_add_loop_test(tc, budget_line_is_left_by_a_statement_that_ends, 0, N(costly));
    tcase_add_loop_test(tc, budget_line_is_bounded, 0, N(costly));
    tc = add_case(suite, "async");
#ifdef LIBPQ_HAS_ASYNC_CANCEL
    tcase_add_test(tc, async_needs_no_thread);
    tcase_add_test(tc, async_reset_is_not_taken_for_the_end);
    tc = add_case(suite, "encrypted");
    tcase_add_unchecked_fixture(tc, start_encrypted, destroy_cluster);
    tcase_add_test(tc, async_is_encrypted_as_its_connection);
    tcase_add_test(tc, auto_sends_no_request_in_the_clear);
#else
    tcase_add_test(tc, async_takes_libpq_17);
#endif
    return suite;
}
