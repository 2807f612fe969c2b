/* SPDX-License-Identifier: MIT */
/* A dashboard that is cancelled in the middle of its queries, because its client leaves or its
 * deadline passes, and in which an allocation fails, or all from one on.
 *
 * A lock that the test holds keeps two of its three queries waiting. */
#include <check.h>
#include <poll.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "pgview.h"
#include "subject.h"

#define ON_ORDERS "FROM orders"

/* Of a request that waits for a lock; the client's leaving ends it before. */
#define TIMEOUT_NS (100 * CF_MS)
#define TIMEOUT "&timeout=100ms"
#define LONG_TIMEOUT "&timeout=10s"

/* A cancel is bounded by two seconds; after that the connection is closed. */
#define CANCEL_NS (3 * CF_SECOND)

/* Fixture */

static struct subject subject;

static const struct {
    const char *way;
    enum nth_mode mode;
} variants[] = {
    {"control", NTH_ONCE},
    {"control", NTH_FROM_NOW},
    {"pqcancel", NTH_ONCE},
    {"pqcancel", NTH_FROM_NOW},
};

#define N_VARIANTS ((int)(sizeof(variants) / sizeof(variants[0])))

static void teardown(void)
{
    subject_fini(&subject);
}

/* Helpers */

static void lock(struct subject *of)
{
    pgview_exec(of->locker, "begin; lock table orders in access exclusive mode");
}

static void unlock(struct subject *of)
{
    ck_assert_msg(pgview_wait_active(of->pg, ON_ORDERS, 0, CANCEL_NS) >= 0,
                  "%ld, %s: its queries go on", of->n, of->nth->where);
    pgview_exec(of->locker, "commit");
}

static void let_deadline_pass(struct subject *of)
{
    lock(of);
    subject_expect_answer(of, client_get(of->service->api_port, SUBJECT_DASHBOARD TIMEOUT, NULL),
                          TIMEOUT_NS);
    unlock(of);
}

/* As soon as its queries wait, or it has failed before. */
static void leave(struct subject *of)
{
    int64_t until_ns = cf_now_ns() + bound(CF_SECOND);
    struct pollfd answer = {.fd = client_open(of->service->api_port), .events = POLLIN};

    lock(of);
    client_request(answer.fd, "GET", SUBJECT_DASHBOARD LONG_TIMEOUT, NULL);
    while (pgview_active(of->pg, ON_ORDERS) < 2 && poll(&answer, 1, 0) == 0) {
        ck_assert_msg(cf_now_ns() < until_ns, "%ld, %s: neither runs nor fails", of->n,
                      of->nth->where);
    }
    (void)close(answer.fd);
    unlock(of);
}

/* cancel */

START_TEST(cancel_by_deadline)
{
    subject_init(&subject, "alloc_cancel", 8, variants[_i].way);
    subject_examine(&subject, variants[_i].mode, let_deadline_pass);
}
END_TEST

START_TEST(cancel_by_leaving)
{
    subject_init(&subject, "alloc_cancel", 8, variants[_i].way);
    subject_examine(&subject, variants[_i].mode, leave);
}
END_TEST

Suite *suite_cancel(void)
{
    Suite *suite = suite_create("cancel");
    TCase *tc = tcase_create("cancel");

    tcase_add_checked_fixture(tc, NULL, teardown);
    tcase_add_loop_test(tc, cancel_by_deadline, 0, N_VARIANTS);
    tcase_add_loop_test(tc, cancel_by_leaving, 0, N_VARIANTS);
    tcase_set_timeout(tc, 600);
    suite_add_tcase(suite, tc);
    return suite;
}
