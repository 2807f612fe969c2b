/* SPDX-License-Identifier: MIT */
/* The start, in which an allocation fails, or all from one on. */
#include <check.h>
#include <signal.h>
#include <string.h>

#include <curfew/clock.h>

#include "subject.h"

#define START_NS (10 * CF_SECOND)

/* After this a service that runs will not say any more that it listens: there was no memory for the
 * line, which is counted and dropped like any other. */
#define SILENT_NS CF_SECOND

/* Fixture */

static struct subject subject;

static void setup(void)
{
    subject_init(&subject, "alloc_start", 2, "control");
}

static void teardown(void)
{
    subject_fini(&subject);
}

/* Helpers */

/* It has given up: it must have said why, and that it is not the configuration. */
static void expect_complaint(const struct service *service)
{
    char err[4096];

    service_read_err(service, err, sizeof(err));
    ck_assert_msg(service->status == 1, "%ld, %s: ended with %d: %s", subject.n, subject.nth->where,
                  service->status, err);
    ck_assert_msg(strncmp(err, "curfewd: ", strlen("curfewd: ")) == 0, "%ld, %s: says \"%s\"",
                  subject.n, subject.nth->where, err);
}

/* It runs, and nobody knows where it listens: then that it stops in order has to do. */
static bool expect_stop(struct service *service)
{
    bool struck = nth_off(subject.nth);

    ck_assert(struck);
    service_signal(service, SIGTERM);
    ck_assert_int_eq(service_wait(service, 5 * CF_SECOND), 0);
    return struck;
}

/* It serves, once it has memory. */
static bool expect_service(struct service *service, enum nth_mode mode)
{
    int64_t until_ns = cf_now_ns() + bound(START_NS);
    bool struck = false;
    struct reply *reply;

    /* What it does behind, to be ready, is part of the start. */
    while (mode == NTH_ONCE
               ? !service_is_ready(service)
               : atomic_load(&subject.nth->struck) == 0 && !service_is_ready(service)) {
        ck_assert_msg(cf_now_ns() < until_ns, "%ld, %s: not ready", subject.n, subject.nth->where);
        pause_ms(1);
    }
    struck = nth_off(subject.nth);
    service_wait_ready(service, START_NS);
    reply = client_get(service->api_port, SUBJECT_DASHBOARD, NULL);
    ck_assert_msg(reply->status == 200, "after %ld, %s: %d %s", subject.n, subject.nth->where,
                  reply->status, reply->body);
    service_signal(service, SIGTERM);
    ck_assert_int_eq(service_wait(service, 5 * CF_SECOND), 0);
    return struck;
}

/* *out_served: it listened before anything had failed. */
static bool start_once(enum nth_mode mode, bool *out_served)
{
    struct service *service;
    bool struck = true;

    *out_served = false;

    nth_arm(subject.nth, subject.n, mode);
    service = service_try_start(subject.url, subject.env, SILENT_NS);
    if (!service_runs(service)) {
        expect_complaint(service);
    } else if (service->api_port == 0) {
        struck = expect_stop(service);
    } else {
        *out_served = atomic_load(&subject.nth->struck) == 0;
        struck = expect_service(service, mode);
    }
    service_stop_all();
    client_free_all();
    return struck;
}

/* What fails once it serves is a connection, and test_connect.c has all of that. */
static void start_often(enum nth_mode mode)
{
    bool served;

    subject.n = 1;
    while (start_once(mode, &served)) {
        subject.n += nth_step(subject.nth, served);
    }
}

/* start */

START_TEST(start_without_one_allocation)
{
    start_often(NTH_ONCE);
}
END_TEST

START_TEST(start_without_any_from_one_on)
{
    start_often(NTH_FROM_NOW);
}
END_TEST

Suite *suite_start(void)
{
    Suite *suite = suite_create("start");
    TCase *tc = tcase_create("start");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, start_without_one_allocation);
    tcase_add_test(tc, start_without_any_from_one_on);
    tcase_set_timeout(tc, 900);
    suite_add_tcase(suite, tc);
    return suite;
}
