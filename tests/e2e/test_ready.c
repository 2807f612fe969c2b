/* SPDX-License-Identifier: MIT */
/* curfewd --ready: what a health check without a shell is told. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "peer.h"
#include "service.h"

/* Fixture */

static struct service_run run;
static struct peer *peer;

static void teardown(void)
{
    if (peer != NULL) {
        peer_free(peer);
    }
    service_stop_all();
}

/* Helpers */

#define ARGS(...) ((const char *[]){__VA_ARGS__, NULL})

/* Ask the admin listener of `host`. */
static void ask(const char *host, uint16_t port)
{
    char admin[64];

    (void)snprintf(admin, sizeof(admin), "--admin=%s:%u", host, port);
    service_run(ARGS("--ready", admin), NULL, &run);
}

/* One line to a person, which is kept with the state of a container. */
static void expect_complaint(int status, const char *mentions)
{
    ck_assert_msg(run.status == status, "status %d, not %d; it said: %s", run.status, status,
                  run.err);
    ck_assert_str_eq(run.out, "");
    ck_assert_msg(strncmp(run.err, "curfewd: ", 9) == 0, "said: %s", run.err);
    ck_assert_msg(strstr(run.err, mentions) != NULL, "\"%s\" is not in: %s", mentions, run.err);
    ck_assert_msg(strchr(run.err, '\n') == run.err + strlen(run.err) - 1, "not one line: %s",
                  run.err);
}

/* ready */

START_TEST(ready_service_is_ready)
{
    struct service *service = service_start_ready(NULL, NULL);
    static const char *const hosts[] = {"127.0.0.1", "localhost", "0.0.0.0", ""};

    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        ask(hosts[i], service->admin_port);
        ck_assert_msg(run.status == 0, "%s: %s", hosts[i], run.err);
        ck_assert_str_eq(run.err, "");
        ck_assert_str_eq(run.out, "");
    }
}
END_TEST

START_TEST(service_without_database_is_not_ready)
{
    struct service *service = service_start("postgresql://127.0.0.1:1/none", NULL);

    ask("127.0.0.1", service->admin_port);
    expect_complaint(1, ": not ready: 503 {\"status\":\"unavailable\",\"reason\":\"");
}
END_TEST

START_TEST(service_that_is_away_is_not_ready)
{
    ask("127.0.0.1", 1);
    expect_complaint(1, "127.0.0.1:1: cannot connect: Connection refused");
}
END_TEST

START_TEST(peer_that_says_nothing_is_not_waited_for)
{
    peer = peer_new(NULL, PEER_KEEP);
    ask("127.0.0.1", peer_port(peer));
    expect_complaint(1, "deadline");
    ck_assert_int_ge(run.took_ns, 2 * CF_SECOND);
}
END_TEST

static const char *const nonsense[] = {
    "SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "HTTP/1.1 503 Service Unavailable\r\n",
    "\r\n",
};

START_TEST(peer_of_another_kind_is_not_ready)
{
    peer = peer_new(nonsense[_i], PEER_CLOSE);
    ask("127.0.0.1", peer_port(peer));
    expect_complaint(1, "not a reply of HTTP/1.1");
}
END_TEST

START_TEST(address_that_none_can_listen_on_is_wrong)
{
    service_run(ARGS("--ready", "--admin=127.0.0.1:0"), NULL, &run);
    expect_complaint(78, "--admin: 127.0.0.1:0: not host:port, with a port from 1 to 65535");
    service_run(ARGS("--ready", "--admin=nowhere"), NULL, &run);
    expect_complaint(78, "--admin=\"nowhere\": should be host:port");
}
END_TEST

Suite *suite_ready(void)
{
    Suite *suite = suite_create("ready");
    TCase *ready = tcase_create("ready");

    tcase_add_checked_fixture(ready, NULL, teardown);
    tcase_add_test(ready, ready_service_is_ready);
    tcase_add_test(ready, service_without_database_is_not_ready);
    tcase_add_test(ready, service_that_is_away_is_not_ready);
    tcase_add_test(ready, peer_that_says_nothing_is_not_waited_for);
    tcase_add_loop_test(ready, peer_of_another_kind_is_not_ready, 0,
                        sizeof(nonsense) / sizeof(nonsense[0]));
    tcase_add_test(ready, address_that_none_can_listen_on_is_wrong);
    tcase_set_timeout(ready, 30);
    suite_add_tcase(suite, ready);
    return suite;
}
