/* SPDX-License-Identifier: MIT */
/* Half of all dashboards are abandoned, each at its own random moment: connections are neither lost
 * nor made, nor more than there may be, and whoever stays is served as ever. */
#include <check.h>
#include <stdlib.h>

#include <curfew/clock.h>

#include "load.h"
#include "pgview.h"
#include "recovery.h"

#define POOL 16
#define CLIENTS 24

/* Fixture */

static struct service *service;
static struct baseline baseline;
static PGconn *pg;

static void setup(void)
{
    pg = pgview_open(NULL);
    service = service_start_ready(NULL, (const char *[]){"CURFEW_POOL=16", NULL});
    baseline_take(&baseline, service, NULL);
}

static void teardown(void)
{
    service_stop_all();
    client_free_all();
    PQfinish(pg);
}

/* Helpers */

static struct load load;

/* Returns the most sessions that PostgreSQL had of the service meanwhile. */
static int64_t soak(int64_t ns, unsigned abandons)
{
    int64_t until_ns = cf_now_ns() + ns;
    int64_t most = 0;

    load_start(&load, service->api_port, CLIENTS, abandons);
    while (cf_now_ns() < until_ns) {
        int64_t n =
            pgview_i64(pg,
                       "select count(*) from pg_stat_activity where application_name = 'curfewd'"
                       " and backend_type = 'client backend'",
                       NULL);

        most = n > most ? n : most;
        pause_ms(20);
    }
    load_stop(&load);
    ck_assert_uint_eq(atomic_load(&load.failed), 0);
    return most;
}

/* soak */

START_TEST(half_of_all_abandoned_costs_no_connection)
{
    int64_t ns = (getenv("CF_TEST_LONG") != NULL ? 60 : 8) * CF_SECOND;
    size_t connected = service_count_lines(service, "event", "connected");
    size_t cancels;
    size_t calm;
    size_t served;
    int64_t most;

    (void)soak(ns / 8, 0);
    calm = atomic_load(&load.served) * 8;
    most = soak(ns, 2);
    served = atomic_load(&load.served);
    cancels = service_count_lines(service, "event", "canceled");
    connected = service_count_lines(service, "event", "connected") - connected;
    (void)fprintf(stderr,
                  "  fault soak of %d s: %.0f served/s, %.0f abandoned/s (undisturbed %.0f/s); %zu"
                  " cancels, %zu connections made anew, at most %d of %d sessions\n",
                  (int)(ns / CF_SECOND), (double)served * 1e9 / (double)ns,
                  (double)atomic_load(&load.abandoned) * 1e9 / (double)ns,
                  (double)calm * 1e9 / (double)ns, cancels, connected, (int)most, POOL + 1);
    ck_assert_uint_gt(cancels, 0);
    ck_assert_uint_gt(served, 0);
    ck_assert_int_le(most, POOL + 1);
    ck_assert_uint_le(connected * 100, cancels);
    expect_recovery(&baseline, "half of all abandoned");
}
END_TEST

Suite *suite_soak(void)
{
    Suite *suite = suite_create("soak");
    TCase *tc = tcase_create("soak");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, half_of_all_abandoned_costs_no_connection);
    tcase_set_timeout(tc, 120);
    suite_add_tcase(suite, tc);
    return suite;
}
