/* SPDX-License-Identifier: MIT */
/* Names that nobody resolves, and that come to mean another address.
 *
 * The service gets files of the test's own in place of /etc/hosts and /etc/resolv.conf, in a mount
 * namespace. Whoever may make none (root may, and users where the kernel lets them) has no test
 * here, and is told so. */
#include <arpa/inet.h>
#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "fault_fixture.h"
#include "pgview.h"

#define NAME "db.curfew.test"

/* Fixture */

static struct relay old;
static struct relay new;
static char hosts[96];
static char resolv[96];

/* In place: what is mounted is the file, not its name. */
static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (int)strlen(text));
    (void)close(fd);
}

/* False: not here. */
static bool start(void)
{
    static char script[512];
    bool is_root = geteuid() == 0;
    const char *const wrapper[] = {
        "unshare", "--mount", is_root ? "--propagation=private" : "--map-root-user", "sh", "-c",
        script,    NULL};
    const char *head = strstr(fault.cluster.url, "//");
    char url[300];

    if (system(is_root ? "unshare --mount true" : "unshare --mount --map-root-user true") != 0) {
        (void)fprintf(stderr, "  fault names: not asked, there is no mount namespace to be had\n");
        return false;
    }
    (void)snprintf(hosts, sizeof(hosts), "%s/hosts", fault.cluster.dir);
    (void)snprintf(resolv, sizeof(resolv), "%s/resolv.conf", fault.cluster.dir);
    write_file(hosts, "127.0.0.1 " NAME "\n");
    write_file(resolv, "nameserver 127.99.99.99\noptions timeout:5 attempts:2\n");
    (void)snprintf(script, sizeof(script),
                   "mount --bind %s /etc/hosts && mount --bind %s /etc/resolv.conf && exec \"$0\"",
                   hosts, resolv);
    relay_start(&old, to_cluster);
    relay_start_on(&new, "127.0.0.2", old.port, to_cluster);
    (void)snprintf(url, sizeof(url), "postgresql:%.*s@" NAME ":%d/postgres",
                   (int)strcspn(head, "@"), head, old.port);
    fault.service = service_start_under(wrapper, url,
                                        (const char *[]){"CURFEW_POOL=4", "CURFEW_LOOPS=2", NULL});
    service_wait_ready(fault.service, 5 * CF_SECOND);
    baseline_take(&fault.baseline, fault.service, fault.cluster.url);
    return true;
}

static void teardown(void)
{
    fault_teardown();
    relay_stop(&old);
    relay_stop(&new);
}

/* Helpers */

/* A name server that takes questions and answers none. Returns -1 where nobody may be one. */
static int open_silent_name_server(void)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(53)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    (void)inet_pton(AF_INET, "127.99.99.99", &name.sin_addr);
    if (bind(fd, (struct sockaddr *)&name, sizeof(name)) != 0) {
        (void)close(fd);
        return -1; /* Then the name server's host refuses: the name fails at once. */
    }
    return fd;
}

/* names */

START_TEST(name_that_nobody_resolves_blocks_no_request)
{
    int64_t until_ns;
    int fd;

    if (!start()) {
        return;
    }
    fd = open_silent_name_server();
    write_file(hosts, "127.0.0.1 localhost\n");
    relay_cut(&old);
    until_ns = cf_now_ns() + 2 * CF_SECOND;
    while (cf_now_ns() < until_ns) {
        count_refused(answer(ask(fault.service, "/v1/users/1?timeout=200ms")), 200 * CF_MS);
        count_alive(fault.service);
    }
    ck_assert_uint_eq(atomic_load(&old.open), 0);
    write_file(hosts, "127.0.0.1 " NAME "\n");
    (void)close(fd);
    expect_recovery(&fault.baseline, "name server silent");
}
END_TEST

START_TEST(name_that_means_another_address_is_followed)
{
    if (!start()) {
        return;
    }
    ck_assert_uint_eq(atomic_load(&new.accepted), 0);
    write_file(hosts, "127.0.0.2 " NAME "\n");
    relay_cut(&old);
    expect_recovery(&fault.baseline, "name of another address");
    ck_assert_uint_ge(atomic_load(&new.open), 4);
    ck_assert_uint_eq(atomic_load(&old.open), 0);
}
END_TEST

Suite *suite_names(void)
{
    Suite *suite = suite_create("names");
    TCase *tc = tcase_create("names");

    tcase_add_unchecked_fixture(tc, fault_create_started, fault_destroy);
    tcase_add_checked_fixture(tc, NULL, teardown);
    tcase_add_test(tc, name_that_nobody_resolves_blocks_no_request);
    tcase_add_test(tc, name_that_means_another_address_is_followed);
    tcase_set_timeout(tc, 30);
    suite_add_tcase(suite, tc);
    return suite;
}
