/* SPDX-License-Identifier: MIT */
/* The start, in which an allocation fails, or all from one on. It ends when the service is ready,
 * with its first connection and that which cancels; the others are like that of test_connect.c. */
#include <check.h>
#include <signal.h>
#include <string.h>

#include <curfew/clock.h>

#include "login.h"
#include "subject.h"

#define START_NS (20 * CF_SECOND)
#define STOP_NS (20 * CF_SECOND)

/* So long after something failed, a service that runs will not say any more that it listens: there
 * was no memory for the line, which is counted and dropped like any other. */
#define SILENT_NS CF_SECOND

static const struct examination options = {.schema = "alloc_start", .pool = 1, .cancel = "control"};

/* Of one worker. */
struct starting {
    struct subject subject;
    enum nth_mode mode;
};

/* Helpers */

/* It has given up: it must have said why, and that it is not the configuration. */
static void expect_complaint(const struct subject *of)
{
    char err[4096];

    service_read_err(of->service, err, sizeof(err));
    ck_assert_msg(of->service->status == 1, "%s: ended with %d: %s", subject_say(of),
                  of->service->status, err);
    ck_assert_msg(strncmp(err, "curfewd: ", strlen("curfewd: ")) == 0, "%s: says \"%s\"",
                  subject_say(of), err);
}

/* Wait until it listens, has ended, or says neither though something has failed. */
static void wait_listens(struct subject *of)
{
    int64_t until_ns = cf_now_ns() + bound(START_NS);
    int64_t silent_ns = INT64_MAX;

    while (service_runs(of->service) && !service_listens(of->service) && cf_now_ns() < silent_ns) {
        ck_assert_msg(cf_now_ns() < until_ns, "%s: does not listen", subject_say(of));
        if (silent_ns == INT64_MAX && atomic_load(&of->nth->struck) > 0) {
            silent_ns = cf_now_ns() + bound(SILENT_NS);
        }
        pause_ms(2);
    }
}

/* It runs, and nobody knows where it listens: then that it stops in order has to do. */
static void expect_stop(struct subject *of)
{
    (void)nth_off(of->nth);
    service_signal(of->service, SIGTERM);
    if (service_wait(of->service, STOP_NS) != 0) {
        expect_complaint(of); /* It was slow. */
    }
}

/* It serves, once it has memory. */
static void expect_service(struct subject *of, enum nth_mode mode)
{
    int64_t until_ns = cf_now_ns() + bound(START_NS);
    struct reply *reply;

    /* What it does behind, to have all its connections, is part of the start. */
    while (atomic_load(&of->nth->struck) == 0 && subject_sessions(of) < of->sessions) {
        ck_assert_msg(cf_now_ns() < until_ns, "%s: does not connect", subject_say(of));
        pause_ms(5);
    }
    if (mode == NTH_ONCE) {
        service_wait_ready(of->service, START_NS); /* What has failed is made up for. */
    }
    (void)nth_off(of->nth);
    service_wait_ready(of->service, START_NS);
    reply = client_get(of->service->api_port, SUBJECT_DASHBOARD SUBJECT_PATIENCE, NULL);
    ck_assert_msg(reply->status == 200, "after %s: %d %s", subject_say(of), reply->status,
                  reply->body);
    service_signal(of->service, SIGTERM);
    ck_assert_int_eq(service_wait(of->service, STOP_NS), 0);
}

static void start_once(struct worker *worker __attribute__((unused)), void *arg)
{
    struct starting *starting = arg;
    struct subject *of = &starting->subject;

    of->service = service_try_start(of->url, of->env, 0);
    wait_listens(of);
    if (!service_runs(of->service)) {
        expect_complaint(of);
    } else if (!service_listens(of->service)) {
        expect_stop(of);
    } else {
        expect_service(of, starting->mode);
    }
    service_stop_all();
    client_free_all();
}

static void start_often(struct worker *worker, void *arg __attribute__((unused)))
{
    struct starting starting;

    subject_init(&starting.subject, &options, worker);
    starting.mode = NTH_ONCE;
    sweep_run(worker, 0, NTH_ONCE, start_once, &starting);
    starting.mode = NTH_FROM_NOW;
    sweep_run(worker, 1, NTH_FROM_NOW, start_once, &starting);
    subject_fini(&starting.subject);
}

/* start */

START_TEST(start_without_memory)
{
    struct worker test;

    login_make();
    sweep_init(&test);
    sweep_share(start_often, NULL);
    login_drop();
    sweep_print(0, "start", "once");
    sweep_print(1, "start", "from then on");
}
END_TEST

Suite *suite_start(void)
{
    Suite *suite = suite_create("start");
    TCase *tc = tcase_create("start");

    tcase_add_test(tc, start_without_memory);
    tcase_set_timeout(tc, SWEEP_TIMEOUT);
    suite_add_tcase(suite, tc);
    return suite;
}
