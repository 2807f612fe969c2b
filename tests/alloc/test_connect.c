/* SPDX-License-Identifier: MIT */
/* A connection that the pool makes again, in which an allocation fails, or all from one on. Its host
 * is a name, so that it is resolved; a second connection is there for requests meanwhile. */
#include <check.h>
#include <string.h>

#include <curfew/clock.h>

#include "pgview.h"
#include "subject.h"

#define CONNECT_NS (5 * CF_SECOND)

/* How long the lack of memory lasts, counted from its beginning. */
#define LACK_MS 20

/* Fixture */

static struct subject subject;

static void setup(void)
{
    subject_init(&subject, "alloc_connect", 3, "pqcancel");
    char *address = strstr(subject.url, "127.0.0.1");

    /* Both have nine letters. */
    ck_assert_ptr_nonnull(address);
    memcpy(address, "localhost", strlen("localhost"));
}

static void teardown(void)
{
    subject_fini(&subject);
}

/* Helpers */

/* Take a connection away, and wait until there is another one, or could be none. */
static void reconnect(struct subject *of)
{
    int64_t until_ns = cf_now_ns() + bound(CONNECT_NS);
    int before = subject_sessions(of);

    pgview_exec(of->pg, "select pg_terminate_backend(min(pid), 5000) from pg_stat_activity"
                        " where application_name = 'alloc_connect'");
    while (subject_sessions(of) < before) {
        ck_assert_msg(cf_now_ns() < until_ns, "%ld, %s: does not connect", of->n, of->nth->where);
        if (atomic_load(&of->nth->struck) > 0) {
            pause_ms(LACK_MS);
            return;
        }
    }
}

/* connect */

START_TEST(connect_without_one_allocation)
{
    subject_examine(&subject, NTH_ONCE, reconnect);
}
END_TEST

START_TEST(connect_without_any_from_one_on)
{
    subject_examine(&subject, NTH_FROM_NOW, reconnect);
}
END_TEST

Suite *suite_connect(void)
{
    Suite *suite = suite_create("connect");
    TCase *tc = tcase_create("connect");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, connect_without_one_allocation);
    tcase_add_test(tc, connect_without_any_from_one_on);
    tcase_set_timeout(tc, 600);
    suite_add_tcase(suite, tc);
    return suite;
}
