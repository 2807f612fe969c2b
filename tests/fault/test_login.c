/* SPDX-License-Identifier: MIT */
/* The server is there, and does not let the service in: the password is another, the role or the
 * database is gone. */
#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "fault_fixture.h"
#include "pgview.h"

#define SECRET "hunter2-secret"

/* Fixture */

static char admin_url[300];

/* The service has a role and a database of its own, which somebody else can take away. */
static void create(void)
{
    PGconn *pg;

    fault_create_started();
    (void)snprintf(admin_url, sizeof(admin_url), "%s", fault.cluster.url);
    strcpy(strrchr(admin_url, '/'), "/template1");
    pg = pgview_open(admin_url);
    pgview_exec(pg, "create role service superuser login password '" SECRET "'");
    pgview_exec(pg, "create database store template postgres");
    PQfinish(pg);
}

static void setup(void)
{
    char url[300];

    (void)snprintf(url, sizeof(url), "postgresql://service:" SECRET "@127.0.0.1:%d/store",
                   fault.cluster.port);
    fault.service =
        service_start_ready(url, (const char *[]){"CURFEW_POOL=4", "CURFEW_LOOPS=2", NULL});
    baseline_take(&fault.baseline, fault.service, admin_url);
}

/* Helpers */

static const char throw_out[] = "select pg_terminate_backend(pid) from pg_stat_activity"
                                " where application_name = 'curfewd'";

static void expect_no_secret(const struct reply *reply)
{
    char path[64];
    char text[4096] = "";
    static const char *const files[] = {"cmdline", "comm"};

    ck_assert_ptr_null(strstr(reply->body, SECRET));
    ck_assert(!service_has_said(fault.service, SECRET));
    for (size_t i = 0; i < 2; i++) {
        ssize_t n;
        int fd;

        (void)snprintf(path, sizeof(path), "/proc/%d/%s", fault.service->pid, files[i]);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        n = read(fd, text, sizeof(text));
        ck_assert_int_ge(n, 0);
        ck_assert_ptr_null(memmem(text, (size_t)n, SECRET, strlen(SECRET)));
        (void)close(fd);
    }
}

/* refused */

static const struct {
    const char *name;
    const char *off;      /* Before those who are in are thrown out, */
    const char *off_then; /* and behind that. */
    const char *on;
    const char *said;
} locks[] = {
    {"wrong password", "alter role service password 'another'", "select 1",
     "alter role service password '" SECRET "'", "password authentication failed"},
    {"role missing", "alter role service rename to nobody_s", "select 1",
     "alter role nobody_s rename to service; alter role service password '" SECRET "'",
     "password authentication failed"},
    {"database missing", "alter database store connection limit 0; alter role service nosuperuser",
     "alter database store rename to gone",
     "alter role service superuser; alter database gone connection limit -1;"
     "alter database gone rename to store",
     "does not exist"},
};

/* Said once, however often it is tried; and once more if the first who was refused was in the door
 * already, and was told something else. */
START_TEST(refused_is_not_ready_said_once_and_no_secret_with_it)
{
    PGconn *pg = pgview_open(admin_url);
    int64_t until_ns;
    size_t n_said;

    pgview_exec(pg, locks[_i].off);
    pgview_exec(pg, throw_out);
    pause_ms(100); /* Until those are gone who are in the door. */
    pgview_exec(pg, locks[_i].off_then);
    until_ns = cf_now_ns() + 2500 * CF_MS;
    while (cf_now_ns() < until_ns) {
        struct reply *reply = answer(ask(fault.service, "/v1/users/1?timeout=1s"));

        count_refused(reply, CF_SECOND);
        expect_no_secret(reply);
        pause_ms(20);
    }
    expect_no_secret(client_get(fault.service->api_port, "/readyz", NULL));
    ck_assert_int_eq(client_get(fault.service->api_port, "/readyz", NULL)->status, 503);
    expect_alive(fault.service);
    ck_assert(service_has_said(fault.service, locks[_i].said));
    n_said = service_count_lines(fault.service, "event", "connect_failed");
    ck_assert_msg(n_said >= 1 && n_said <= 2, "said %zu times", n_said);
    pgview_exec(pg, locks[_i].on);
    PQfinish(pg);
    expect_recovery(&fault.baseline, locks[_i].name);
}
END_TEST

Suite *suite_login(void)
{
    Suite *suite = suite_create("login");
    TCase *tc = tcase_create("login");

    tcase_add_unchecked_fixture(tc, create, fault_destroy);
    tcase_add_checked_fixture(tc, setup, fault_teardown);
    tcase_add_loop_test(tc, refused_is_not_ready_said_once_and_no_secret_with_it, 0, 3);
    tcase_set_timeout(tc, 30);
    suite_add_tcase(suite, tc);
    return suite;
}
