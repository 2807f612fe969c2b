/* SPDX-License-Identifier: MIT */
/* One dashboard, in which an allocation fails, or all from one on. */
#include <check.h>

#include <curfew/clock.h>

#include "subject.h"

#define TIMEOUT_NS (2 * CF_SECOND)
#define TIMEOUT "&timeout=2s"

/* Helpers */

static void ask(struct subject *of)
{
    subject_expect_answer(of, client_get(of->service->api_port, SUBJECT_DASHBOARD TIMEOUT, NULL),
                          TIMEOUT_NS);
}

/* dashboard */

START_TEST(dashboard_without_memory)
{
    subject_examine(&(struct examination){.schema = "alloc_dashboard",
                                          .pool = 8,
                                          .cancel = "control",
                                          .scenarios = {{"dashboard", ask}}});
}
END_TEST

Suite *suite_dashboard(void)
{
    Suite *suite = suite_create("dashboard");
    TCase *tc = tcase_create("dashboard");

    tcase_add_test(tc, dashboard_without_memory);
    tcase_set_timeout(tc, SWEEP_TIMEOUT);
    suite_add_tcase(suite, tc);
    return suite;
}
