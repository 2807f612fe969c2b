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

/* Of a request that waits for a lock; the client's leaving ends it before. */
#define TIMEOUT_NS (100 * CF_MS)
#define TIMEOUT "&timeout=100ms"
#define LONG_TIMEOUT "&timeout=60s"

/* A query that cannot begin ends those that wait for the lock. */
#define REQUIRE_ALL "&require=all"

/* A cancel is bounded by two seconds; after that the connection is closed. A request that nobody
 * cancels goes on for longer than this. */
#define CANCEL_NS (20 * CF_SECOND)

/* How soon queries run, or what they are for has failed. */
#define ASK_NS (20 * CF_SECOND)

/* Helpers */

static void lock(struct subject *of)
{
    pgview_exec(of->locker, "begin; lock table orders in access exclusive mode");
}

static void unlock(struct subject *of)
{
    int64_t until_ns = cf_now_ns() + bound(CANCEL_NS);

    while (subject_locked(of) > 0) {
        ck_assert_msg(cf_now_ns() < until_ns, "%s: its queries go on", subject_say(of));
        pause_ms(1);
    }
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
    int64_t until_ns = cf_now_ns() + bound(ASK_NS);
    struct pollfd answer = {.fd = client_open(of->service->api_port), .events = POLLIN};

    lock(of);
    client_request(answer.fd, "GET", SUBJECT_DASHBOARD LONG_TIMEOUT REQUIRE_ALL, NULL);
    while (subject_locked(of) < 2 && poll(&answer, 1, 1) == 0) {
        ck_assert_msg(cf_now_ns() < until_ns, "%s: neither runs nor fails", subject_say(of));
    }
    (void)close(answer.fd);
    unlock(of);
}

/* cancel */

static const char *const ways[] = {"control", "pqcancel"};

START_TEST(cancel_without_memory)
{
    subject_examine(&(struct examination){
        .schema = "alloc_cancel",
        .pool = 8,
        .cancel = ways[_i],
        .scenarios = {{"cancel by deadline", let_deadline_pass}, {"cancel by leaving", leave}}});
}
END_TEST

Suite *suite_cancel(void)
{
    Suite *suite = suite_create("cancel");
    TCase *tc = tcase_create("cancel");

    tcase_add_loop_test(tc, cancel_without_memory, 0, sizeof(ways) / sizeof(ways[0]));
    tcase_set_timeout(tc, SWEEP_TIMEOUT);
    suite_add_tcase(suite, tc);
    return suite;
}
