/* SPDX-License-Identifier: MIT */
/* A connection that the pool makes again, in which an allocation fails, or all from one on. Its
 * host is a name, so that it is resolved; a second connection is there for requests meanwhile. */
#include <check.h>

#include <curfew/clock.h>

#include "pgview.h"
#include "subject.h"

#define CONNECT_NS (10 * CF_SECOND)

/* How long the lack of memory lasts, counted from its beginning. */
#define LACK_MS 20

/* Helpers */

/* Take a connection away, and wait until there is another one, or could be none. */
static void reconnect(struct subject *of)
{
    int64_t until_ns = cf_now_ns() + bound(CONNECT_NS);
    int before = subject_sessions(of);

    PQclear(pgview_query(of->pg,
                         "select pg_terminate_backend(min(pid), 5000) from pg_stat_activity"
                         " where application_name = $1",
                         (const char *[]){of->schema, NULL}));
    while (subject_sessions(of) < before) {
        ck_assert_msg(cf_now_ns() < until_ns, "%s: does not connect", subject_say(of));
        if (atomic_load(&of->nth->struck) > 0) {
            pause_ms(LACK_MS);
            return;
        }
        pause_ms(1);
    }
}

/* connect */

START_TEST(connect_without_memory)
{
    subject_examine(&(struct examination){.schema = "alloc_connect",
                                          .pool = 3,
                                          .cancel = "pqcancel",
                                          .by_name = true,
                                          .scenarios = {{"connect", reconnect}}});
}
END_TEST

Suite *suite_connect(void)
{
    Suite *suite = suite_create("connect");
    TCase *tc = tcase_create("connect");

    tcase_add_test(tc, connect_without_memory);
    tcase_set_timeout(tc, SWEEP_TIMEOUT);
    suite_add_tcase(suite, tc);
    return suite;
}
