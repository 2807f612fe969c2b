/* SPDX-License-Identifier: MIT */
/* Tables that others hold, change, or may not be written: what a service without writes can meet.
 * Serialization failures, deadlocks and commits are in tests/integration/test_pg_tx.c. */
#include <check.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "fault_fixture.h"
#include "pgview.h"

/* Fixture */

static PGconn *pg;

static void setup(void)
{
    fault_start((const char *[]){"CURFEW_POOL=4", "CURFEW_LOOPS=2", NULL});
    pg = pgview_open(fault.cluster.url);
}

static void teardown(void)
{
    fault_teardown();
    PQfinish(pg);
}

/* locked */

START_TEST(locked_table_ends_at_the_deadline_and_leaves_nothing_behind)
{
    PGconn *locker = pgview_open(fault.cluster.url);

    pgview_exec(locker, "begin; lock table orders in access exclusive mode");
    for (int i = 0; i < 10; i++) {
        struct reply *reply =
            answer(ask(fault.service, "/v1/dashboard?user_id=1&require=all&timeout=200ms"));

        ck_assert_int_eq(reply->status, 504);
        count_refused(reply, 200 * CF_MS);
        ck_assert_int_eq(client_get(fault.service->api_port, "/v1/users/1", NULL)->status, 200);
    }
    /* The reply does not wait for its sections' end on the server. */
    WAIT_FOR(pgview_i64(pg,
                        "select count(*) from pg_stat_activity"
                        " where application_name = 'curfewd' and state <> 'idle'",
                        NULL) == 0);
    PQfinish(locker);
    expect_recovery(&fault.baseline, "locked table");
}
END_TEST

/* read_only */

/* As on a standby: no session may write. */
START_TEST(read_only_server_serves_as_ever)
{
    pgview_exec(pg, "alter database postgres set default_transaction_read_only = on");
    pgview_exec(pg, "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where application_name = 'curfewd'");
    expect_recovery(&fault.baseline, "read-only server");
    pgview_exec(pg, "set transaction_read_only = off;"
                    "alter database postgres reset default_transaction_read_only");
}
END_TEST

/* changed */

/* The statement is prepared anew, and its rows are not those that are read:
 * a failure, not an end. */
START_TEST(changed_column_is_a_failure_until_it_is_changed_back)
{
    struct reply *reply;

    pgview_exec(pg, "alter table orders alter total_cents type numeric");
    for (int i = 0; i < 20; i++) {
        reply = client_get(fault.service->api_port, "/v1/orders?user_id=1", NULL);
        ck_assert_int_eq(reply->status, 500);
        ck_assert_str_eq(reply_str(reply, "code"), "internal");
    }
    ck_assert(service_has_said(fault.service, "column 4 is of type 1700"));
    expect_alive(fault.service);
    pgview_exec(pg, "alter table orders alter total_cents type bigint");
    expect_recovery(&fault.baseline, "changed column");
}
END_TEST

Suite *suite_rows(void)
{
    Suite *suite = suite_create("rows");
    TCase *tc = tcase_create("rows");

    tcase_add_unchecked_fixture(tc, fault_create_started, fault_destroy);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, locked_table_ends_at_the_deadline_and_leaves_nothing_behind);
    tcase_add_test(tc, read_only_server_serves_as_ever);
    tcase_add_test(tc, changed_column_is_a_failure_until_it_is_changed_back);
    tcase_set_timeout(tc, 30);
    suite_add_tcase(suite, tc);
    return suite;
}
