/* SPDX-License-Identifier: MIT */
/* Two servers behind one address: a cancel reaches the one that it is for, or nobody.
 *
 * On clusters of this file's own, which have the same role, password and database, behind a relay
 * that is the balancer. */
#include "pg_fixture.h"

#include <stdio.h>
#include <string.h>

#include "cluster.h"

/* Fixture */

static struct cluster cluster;
static struct cluster other;

/* The library needs one URL for both: the second has the first one's password. */
static void match_passwords(void)
{
    PGconn *pg = pgview_open(other.url);
    PQconninfoOption *parsed = PQconninfoParse(cluster.url, NULL);
    char sql[128];
    char port[8];

    ck_assert_ptr_nonnull(parsed);
    for (PQconninfoOption *at = parsed; at->keyword != NULL; at++) {
        if (strcmp(at->keyword, "password") == 0) {
            (void)snprintf(sql, sizeof(sql), "alter role curfew password '%s'", at->val);
            pgview_exec(pg, sql);
        }
    }
    PQconninfoFree(parsed);
    PQfinish(pg);
    (void)snprintf(port, sizeof(port), "%d", other.port);
    fixture_url(other.url, sizeof(other.url), cluster.url,
                (const char *const[]){"port", port, NULL});
}

static void start_two(void)
{
    cluster_create(&cluster);
    cluster_start(&cluster);
    cluster_create(&other);
    cluster_start(&other);
    match_passwords();
}

static void destroy_two(void)
{
    cluster_destroy(&cluster);
    cluster_destroy(&other);
}

/* Helpers */

static void open_behind(relay_route route, struct cf_pg_options options)
{
    options.url = fixture_url_behind(route, cluster.url, NULL);
    fixture_open(options, 1);
}

/* Start a statement of a minute, wait until the server runs it, and cancel it. */
static void cancel_one(PGconn *view)
{
    struct job job;

    job_init_sleep(&job, 60);
    job_start(&job);
    ck_assert_int_ge(pgview_wait_active(view, SLEEP_PATTERN, 1, PATIENCE_NS), 0);
    cf_ctx_cancel(job.ctx);
    job_wait(&job);
    ck_assert_int_eq(job.code, CF_ECANCELED);
    job_fini(&job);
    fixture_settle();
}

/* The control connection is elsewhere */

/* The first connection is the pool's, the second the control connection. */
static int second_to_other(size_t number)
{
    return number == 1 ? other.port : cluster.port;
}

static const struct {
    enum cf_pg_cancel_way way;
    enum cf_pg_outcome outcome;
} same_server[] = {{CF_PG_CANCEL_AUTO, CF_PG_EFFECTIVE},
                   {CF_PG_CANCEL_CONTROL, CF_PG_DISPATCH_FAILED}};

/* A pid means something else there. On the other server runs a statement of somebody else with the
 * very pid or not: the control connection must not be used for it. */
START_TEST(cancel_is_not_sent_to_another_server)
{
    PGconn *view = pgview_open(cluster.url);
    PGconn *other_view = pgview_open(other.url);
    struct job job;

    open_behind(second_to_other,
                (struct cf_pg_options){.pool_max = 1, .cancel = same_server[_i].way});
    WAIT_FOR(fixture_stats().idle == 1);
    WAIT_FOR(fixture_backends(other_view) == 1); /* That is the control connection. */
    job_init_sleep(&job, 60);
    job_start(&job);
    ck_assert_int_ge(pgview_wait_active(view, SLEEP_PATTERN, 1, PATIENCE_NS), 0);
    cf_ctx_cancel(job.ctx);
    job_wait(&job);
    fixture_settle();
    ck_assert_msg(outcomes(same_server[_i].outcome) == 1, "cancels: %s; the query: %s: %s",
                  outcomes_text(), cf_code_name(job.code), job.err.msg);
    job_fini(&job);
    ck_assert_int_eq(pgview_i64(other_view,
                                "select count(*) from pg_stat_activity where query ~ $1"
                                " and pid <> pg_backend_pid()",
                                (const char *[]){"pg_cancel_backend", NULL}),
                     0); /* Nobody was asked to. */
    ck_assert_int_ge(pgview_wait_active(view, SLEEP_PATTERN, 0, PATIENCE_NS), 0);
    PQfinish(view);
    PQfinish(other_view);
}
END_TEST

START_TEST(control_connection_elsewhere_is_replaced)
{
    int64_t until_ns = cf_now_ns() + bound(PATIENCE_NS);
    PGconn *view = pgview_open(cluster.url);
    struct cf_pg_event event;

    open_behind(second_to_other,
                (struct cf_pg_options){.pool_max = 1, .cancel = CF_PG_CANCEL_CONTROL});
    do {
        ck_assert_msg(cf_now_ns() < until_ns, "the control connection is still elsewhere");
        cancel_one(view);
        pause_ms(outcomes(CF_PG_EFFECTIVE) == 0 ? 200 : 0); /* Each one costs a connection. */
    } while (outcomes(CF_PG_EFFECTIVE) == 0);
    event = events_get(CF_PG_EVENT_CANCELED, 0);
    ck_assert_int_eq(event.outcome, CF_PG_DISPATCH_FAILED);
    ck_assert_int_eq(event.err.code, CF_EINVAL);
    /* Not at once: the next may lead elsewhere, too. */
    ck_assert_int_ge(events_at_ns(CF_PG_EVENT_CANCELED, outcomes_sum() - 1) -
                         events_at_ns(CF_PG_EVENT_CANCELED, 0),
                     4500 * CF_MS);
    PQfinish(view);
}
END_TEST

/* All are anywhere */

/* Spreads over both, in an order that no retries fall in step with. */
static int to_either(size_t number)
{
    return __builtin_parityl(number) != 0 ? other.port : cluster.port;
}

/* Somebody else's session, whose statement nobody cancels. */
static PGconn *start_bystander(const char *url)
{
    PGconn *pg = pgview_open(url);

    ck_assert_int_eq(PQsendQuery(pg, "select /* bystander */ pg_sleep(60)"), 1);
    return pg;
}

static bool is_active(PGconn *view, int pid)
{
    char text[16];

    (void)snprintf(text, sizeof(text), "%d", pid);
    return pgview_i64(view,
                      "select count(*) from pg_stat_activity where pid = $1 and state = 'active'"
                      " and query ~ 'bystander'",
                      (const char *[]){text, NULL}) == 1;
}

static struct job sleepers[6];

static void cancel_sleepers(void *arg)
{
    (void)arg;
    for (int i = 0; i < N(sleepers); i++) {
        cf_ctx_cancel(sleepers[i].ctx);
    }
}

static const enum cf_pg_cancel_way balanced[] = {CF_PG_CANCEL_AUTO, CF_PG_CANCEL_CONTROL,
                                                 CF_PG_CANCEL_PQCANCEL,
#ifdef LIBPQ_HAS_ASYNC_CANCEL
                                                 CF_PG_CANCEL_ASYNC
#endif
};

/* The pool has connections to both. A cancel request that the balancer sends to the other server is
 * sent again, until it finds its own; the control connection, which leads to one, serves that. */
START_TEST(cancel_behind_a_balancer_hits_what_it_is_for)
{
    PGconn *views[] = {pgview_open(cluster.url), pgview_open(other.url)};
    PGconn *bystanders[] = {start_bystander(cluster.url), start_bystander(other.url)};

    open_behind(to_either, (struct cf_pg_options){.pool_max = N(sleepers),
                                                  .pool_min = N(sleepers),
                                                  .cancel = balanced[_i],
                                                  .cancel_timeout_ns = PATIENCE_NS});
    WAIT_FOR(fixture_stats().idle == N(sleepers));
    for (int i = 0; i < N(sleepers); i++) {
        job_init_sleep(&sleepers[i], 60);
        job_start(&sleepers[i]);
    }
    WAIT_FOR(pgview_active(views[0], SLEEP_PATTERN) + pgview_active(views[1], SLEEP_PATTERN) ==
             N(sleepers));
    ck_assert_int_gt(pgview_active(views[0], SLEEP_PATTERN), 0);
    ck_assert_int_gt(pgview_active(views[1], SLEEP_PATTERN), 0);
    ck_assert_int_eq(cf_loop_call(fixture.loops[0], cancel_sleepers, NULL, NULL), CF_OK);
    for (int i = 0; i < N(sleepers); i++) {
        job_wait(&sleepers[i]);
        job_fini(&sleepers[i]);
    }
    WAIT_FOR(events_count(CF_PG_EVENT_CANCELED) == N(sleepers));
    for (size_t i = 0; i < N(sleepers); i++) {
        struct cf_pg_event event = events_get(CF_PG_EVENT_CANCELED, i);
        bool elsewhere = event.outcome == CF_PG_DISPATCH_FAILED && event.err.code != CF_EIO;

        ck_assert(event.outcome == CF_PG_EFFECTIVE ||
                  (elsewhere && balanced[_i] == CF_PG_CANCEL_CONTROL));
    }
    for (int i = 0; i < 2; i++) {
        ck_assert_int_ge(pgview_wait_active(views[i], SLEEP_PATTERN, 0, PATIENCE_NS), 0);
        ck_assert(is_active(views[i], PQbackendPID(bystanders[i])));
        PQfinish(bystanders[i]);
        PQfinish(views[i]);
    }
}
END_TEST

/* Suite */

Suite *suite_pg_balancer(void)
{
    Suite *suite = suite_create("pg_balancer");
    TCase *tc = tcase_create("cancel");

    suite_add_tcase(suite, tc);
    tcase_set_timeout(tc, 30);
    tcase_add_unchecked_fixture(tc, start_two, destroy_two);
    tcase_add_checked_fixture(tc, fixture_setup, fixture_teardown);
    tcase_add_loop_test(tc, cancel_is_not_sent_to_another_server, 0, N(same_server));
    tcase_add_test(tc, control_connection_elsewhere_is_replaced);
    tcase_add_loop_test(tc, cancel_behind_a_balancer_hits_what_it_is_for, 0, N(balanced));
    return suite;
}
