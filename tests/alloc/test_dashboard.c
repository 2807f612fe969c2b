/* SPDX-License-Identifier: MIT */
/* One dashboard, in which an allocation fails, or all from one on. */
#include <check.h>

#include <curfew/clock.h>

#include "subject.h"

#define TIMEOUT_NS (2 * CF_SECOND)
#define TIMEOUT "&timeout=2s"

/* Fixture */

static struct subject subject;

static void setup(void)
{
    subject_init(&subject, "alloc_dashboard", 8, "control");
}

static void teardown(void)
{
    subject_fini(&subject);
}

/* Helpers */

static void ask(struct subject *of)
{
    subject_expect_answer(of, client_get(of->service->api_port, SUBJECT_DASHBOARD TIMEOUT, NULL),
                          TIMEOUT_NS);
}

/* dashboard */

START_TEST(dashboard_without_one_allocation)
{
    subject_examine(&subject, NTH_ONCE, ask);
}
END_TEST

START_TEST(dashboard_without_any_from_one_on)
{
    subject_examine(&subject, NTH_FROM_NOW, ask);
}
END_TEST

Suite *suite_dashboard(void)
{
    Suite *suite = suite_create("dashboard");
    TCase *tc = tcase_create("dashboard");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, dashboard_without_one_allocation);
    tcase_add_test(tc, dashboard_without_any_from_one_on);
    tcase_set_timeout(tc, 300);
    suite_add_tcase(suite, tc);
    return suite;
}
