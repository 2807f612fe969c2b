/* SPDX-License-Identifier: MIT */
/* The control connection: there is one and no more, it is replaced when it is lost, and whatever
 * becomes of a cancel on its way over it, nobody is hit whom it was not for.
 *
 * Behind a relay where a moment matters: with a pool of one, connection 0 is the pool's and 1 the
 * control connection. */
#include "pg_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Fixture */

/* Helpers */

/* A pool of one; the pid of its backend. */
static int open_alone(void)
{
    fixture_open((struct cf_pg_options){.pool_max = 1, .cancel = CF_PG_CANCEL_CONTROL}, 1);
    return backend_pid();
}

static bool is_session(int pid)
{
    char text[16];

    (void)snprintf(text, sizeof(text), "%d", pid);
    return pgview_i64(fixture_view(), "select count(*) from pg_stat_activity where pid = $1",
                      (const char *[]){text, NULL}) != 0;
}

/* The pid of the only session of ours that is not `pid` and has been set up; 0 if there is none. */
static int other_backend(int pid)
{
    char text[16];

    (void)snprintf(text, sizeof(text), "%d", pid);
    return (int)pgview_i64(fixture_view(),
                           "select coalesce(max(pid), 0) from pg_stat_activity"
                           " where application_name = $1 and pid <> $2 and state = 'idle'"
                           " and query <> ''",
                           (const char *[]){fixture.app, text, NULL});
}

/* The cancels that went over the control connection: how many, and whether one of them was for
 * `wanted_pid`. */
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
    atomic_store(&fixture.relay.tap, hear_cancels);
}

/* One that lives, or is lost */

START_TEST(control_connection_is_one_more_and_no_more)
{
    static struct job jobs[4];

    fixture_open((struct cf_pg_options){.pool_max = 4, .cancel = CF_PG_CANCEL_CONTROL}, 2);
    for (int i = 0; i < N(jobs); i++) {
        job_init_sleep(&jobs[i], 60);
        jobs[i].loop = (size_t)i % 2;
        job_start(&jobs[i]);
    }
    ck_assert_int_ge(pgview_wait_active(fixture_view(), SLEEP_PATTERN, 4, PATIENCE_NS), 0);
    WAIT_FOR(fixture_backends(fixture_view()) == 5);
    for (int i = 0; i < N(jobs); i++) {
        cf_ctx_cancel(jobs[i].ctx);
        job_wait(&jobs[i]);
        job_fini(&jobs[i]);
    }
    fixture_settle();
    ck_assert_uint_eq(outcomes(CF_PG_EFFECTIVE), 4);
    ck_assert_int_eq(fixture_backends(fixture_view()), 5);
}
END_TEST

START_TEST(control_connection_killed_is_replaced)
{
    int pid;
    int control;

    pid = open_alone();
    for (int i = 0; i < 3; i++) {
        WAIT_FOR((control = other_backend(pid)) != 0);
        fixture_terminate(control);
        fixture_cancel_one();
        fixture_settle();
    }
    ck_assert_int_ne(other_backend(pid), control);
    ck_assert_int_eq(backend_pid(), pid);
    ck_assert_uint_eq(outcomes(CF_PG_EFFECTIVE), 3);
    ck_assert_uint_eq(fixture_stats().opened, 1);
}
END_TEST

static struct {
    struct cf_ctx *ctx;
    int control;
} blind;

static void kill_and_cancel(void *arg)
{
    (void)arg;
    fixture_terminate(blind.control); /* On the loop, which sees nothing of it. */
    cf_ctx_cancel(blind.ctx);
}

START_TEST(control_connection_killed_behind_the_loops_back_is_replaced)
{
    struct job job;
    int pid;

    pid = open_alone();
    WAIT_FOR((blind.control = other_backend(pid)) != 0);
    job_init_sleep(&job, 60);
    job_start(&job);
    (void)fixture_wait_sleeper();
    blind.ctx = job.ctx;
    ck_assert_int_eq(cf_loop_call(fixture.loops[0], kill_and_cancel, NULL, NULL), CF_OK);
    job_wait(&job);
    job_fini(&job);
    ck_assert_int_eq(backend_pid(), pid);
    ck_assert_uint_eq(outcomes(CF_PG_EFFECTIVE), 1);
}
END_TEST

/* With the control connection frozen, AUTO has no other way in time, and says so. */
START_TEST(control_connection_frozen_fails_to_dispatch)
{
    struct job job;
    int pid;
    int control;

    fixture_open((struct cf_pg_options){.pool_max = 1, .cancel_timeout_ns = 200 * CF_MS}, 1);
    pid = backend_pid();
    WAIT_FOR((control = other_backend(pid)) != 0);
    fixture_freeze(control);
    job_init_sleep(&job, 60);
    job.timeout_ns = 50 * CF_MS;
    job_run(&job);
    ck_assert_int_eq(job.code, CF_EDEADLINE);
    job_fini(&job);
    ck_assert_int_ne(backend_pid(), pid);
    ck_assert_uint_eq(outcomes(CF_PG_DISPATCH_FAILED), 1);
    fixture_thaw(control); /* Or another one, which has to connect first. */
    WAIT_FOR((fixture_cancel_one(), fixture_settle(), outcomes(CF_PG_EFFECTIVE) > 0));
    WAIT_FOR(fixture_backends(fixture_view()) == 2);
}
END_TEST

/* What is on its way */

static const enum cf_pg_cancel_way control_ways[] = {CF_PG_CANCEL_AUTO, CF_PG_CANCEL_CONTROL};

/* The cancel is with the control session, which is stopped, when its socket breaks: it will be
 * carried out later. Whoever has the backend then must not be hit. */
START_TEST(control_answer_lost_spares_the_next_query)
{
    struct job victim;
    struct job next;
    int control;
    int pid;

    fixture_open_behind(fixture_to_server,
                        (struct cf_pg_options){.pool_max = 1, .cancel = control_ways[_i]});
    pid = backend_pid();
    fixture_cancel_one();
    fixture_settle();
    WAIT_FOR((control = other_backend(pid)) != 0);
    listen_for(pid);

    job_init_sleep(&victim, 60);
    job_start(&victim);
    (void)fixture_wait_sleeper();
    fixture_freeze(control);
    cf_ctx_cancel(victim.ctx);
    job_wait(&victim);
    WAIT_FOR(atomic_load(&asked.seen));
    relay_reset(&fixture.relay, 1);
    fixture_settle();
    WAIT_FOR(!is_session(pid)); /* The next one that sleeps is another. */

    job_init_sleep_until_woken(&next);
    job_start(&next);
    (void)fixture_wait_sleeper();
    fixture_thaw(control);
    WAIT_FOR(!is_session(control));
    fixture_wake();
    job_wait(&next);
    ck_assert_msg(next.code == CF_OK, "the next query: %s %s", next.err.sqlstate, next.err.msg);

    ck_assert_uint_eq(outcomes(CF_PG_CONNECTION_DROPPED), 1);
    ck_assert_int_eq(events_get(CF_PG_EVENT_CANCELED, 1).err.code, CF_EIO);
    ck_assert_int_eq(events_get(CF_PG_EVENT_CLOSED, 0).backend_pid, pid);
    ck_assert_int_ne(backend_pid(), pid);
    job_fini(&victim);
    job_fini(&next);
}
END_TEST

/* Where the third leads, which is the control connection's second. */
static atomic_int third;

static int route_third(size_t number)
{
    return number == 2 ? atomic_load(&third) : fixture.server_port;
}

/* It takes so long to connect that the bound on the cancel passes. By the time it could ask, the
 * victim's connection is closed, and its pid may be anybody's. */
START_TEST(control_request_that_nobody_waits_for_is_not_sent)
{
    struct job victim;
    int control;
    int pid;

    atomic_store(&third, RELAY_HOLD);
    fixture_open_behind(route_third, (struct cf_pg_options){.pool_max = 1,
                                                            .cancel = CF_PG_CANCEL_CONTROL,
                                                            .connect_timeout_ns = 15 * CF_SECOND,
                                                            .cancel_timeout_ns = CF_SECOND});
    pid = backend_pid();
    listen_for(pid);
    WAIT_FOR((control = other_backend(pid)) != 0);
    fixture_terminate(control);
    WAIT_FOR(atomic_load(&fixture.relay.open) == 1); /* Its end can be seen on this side, too. */

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

    atomic_store(&third, fixture.server_port);
    relay_release(&fixture.relay);
    /* Behind the old request in the line; again, if a second is too little for the machine. */
    WAIT_FOR((fixture_cancel_one(), fixture_settle(), outcomes(CF_PG_EFFECTIVE) > 0));
    ck_assert_uint_ge(atomic_load(&asked.n), 1);
    ck_assert(!atomic_load(&asked.seen));
}
END_TEST

/* It was asked for while the statement ran, and by the time it is refused that has ended. */
START_TEST(control_request_that_is_refused_too_late_costs_no_connection)
{
    struct job job;
    int control;
    int pid;

    atomic_store(&third, RELAY_HOLD);
    fixture_open_behind(route_third, (struct cf_pg_options){.pool_max = 1,
                                                            .cancel = CF_PG_CANCEL_CONTROL,
                                                            .connect_timeout_ns = PATIENCE_NS,
                                                            .cancel_timeout_ns = PATIENCE_NS});
    pid = backend_pid();
    WAIT_FOR((control = other_backend(pid)) != 0);
    fixture_terminate(control);
    WAIT_FOR(atomic_load(&fixture.relay.open) == 1); /* Its end can be seen on this side, too. */

    job_init_sleep_until_woken(&job);
    job_start(&job);
    (void)fixture_wait_sleeper();
    cf_ctx_cancel(job.ctx);
    job_wait(&job);
    ck_assert_int_eq(job.code, CF_ECANCELED);
    job_fini(&job);
    fixture_wake();
    ck_assert_int_ge(pgview_wait_active(fixture_view(), SLEEP_PATTERN, 0, PATIENCE_NS), 0);
    atomic_store(&third, RELAY_CLOSE);
    relay_release(&fixture.relay);
    fixture_settle();
    ck_assert_uint_eq(outcomes(CF_PG_NOT_SENT), 1);
    ck_assert_int_eq(backend_pid(), pid);
    atomic_store(&third, fixture.server_port);
}
END_TEST

/* Suite */

Suite *suite_pg_control(void)
{
    Suite *suite = suite_create("pg_control");
    TCase *tc = tcase_create("control");

    tcase_add_checked_fixture(tc, fixture_setup_server, fixture_teardown);
    tcase_set_timeout(tc, 30);
    tcase_add_test(tc, control_connection_is_one_more_and_no_more);
    tcase_add_test(tc, control_connection_killed_is_replaced);
    tcase_add_test(tc, control_connection_killed_behind_the_loops_back_is_replaced);
    tcase_add_test(tc, control_connection_frozen_fails_to_dispatch);
    tcase_add_loop_test(tc, control_answer_lost_spares_the_next_query, 0, N(control_ways));
    tcase_add_test(tc, control_request_that_nobody_waits_for_is_not_sent);
    tcase_add_test(tc, control_request_that_is_refused_too_late_costs_no_connection);
    suite_add_tcase(suite, tc);
    return suite;
}
