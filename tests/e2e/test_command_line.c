/* SPDX-License-Identifier: MIT */
/* How the program is called: flags, environment, exit status, and the messages to a person. */
#include <check.h>
#include <signal.h>
#include <string.h>

#include "client.h"
#include "service.h"

/* Fixture */

static struct service_run run;

static void teardown(void)
{
    service_stop_all();
    client_free_all();
}

/* Helpers */

#define ARGS(...) ((const char *[]){__VA_ARGS__, NULL})

/* "curfewd: ...", one line, and nothing on standard output but log lines. */
static void expect_complaint(int status, const char *mentions)
{
    ck_assert_msg(run.status == status, "status %d, not %d; it said: %s%s", run.status, status,
                  run.err, run.out);
    ck_assert_msg(strncmp(run.err, "curfewd: ", 9) == 0, "said: %s", run.err);
    ck_assert_msg(strstr(run.err, mentions) != NULL, "\"%s\" is not in: %s", mentions, run.err);
    ck_assert_msg(strchr(run.err, '\n') == run.err + strlen(run.err) - 1, "not one line: %s",
                  run.err);
}

/* flags */

START_TEST(help_prints_every_flag)
{
    static const char *const words[] = {
        "Usage:",       "--listen", "CURFEW_LISTEN", "127.0.0.1:8080",
        "DATABASE_URL", "--grace",  "--version",     "78"};

    service_run(ARGS("--help"), NULL, &run);
    ck_assert_int_eq(run.status, 0);
    ck_assert_str_eq(run.err, "");
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        ck_assert_msg(strstr(run.out, words[i]) != NULL, "no \"%s\" in: %s", words[i], run.out);
    }
}
END_TEST

START_TEST(version_names_libraries)
{
    static const char *const words[] = {("curfewd " CF_VERSION), "libmicrohttpd ", "libpq ",
                                        "libuv ", "jansson "};

    service_run(ARGS("--version"), NULL, &run);
    ck_assert_int_eq(run.status, 0);
    ck_assert_str_eq(run.err, "");
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        ck_assert_msg(strstr(run.out, words[i]) != NULL, "no \"%s\" in: %s", words[i], run.out);
    }
}
END_TEST

static const struct {
    const char *args[3];
    int status;
    const char *mentions;
} bad_flags[] = {
    {{"--nonsense"}, 2, "--nonsense"},
    {{"--nonsense=1"}, 2, "--help"},
    {{"serve"}, 2, "serve"},
    {{"--listen"}, 2, "--listen"},
    {{"--database-url", "postgresql://"}, 2, "--database-url"},
    {{"--pool", "many"}, 78, "--pool"},
    {{"--pool=0"}, 78, "from 1 to"},
    {{"--pool", "99999999999999999999"}, 78, "--pool"},
    {{"--grace=5"}, 78, "5s"},
    {{"--cancel=maybe"}, 78, "control"},
    {{"--demo=perhaps"}, 78, "--demo"},
    {{"--listen=nowhere"}, 78, "nowhere"},
    {{"--listen=127.0.0.1:99999"}, 78, "99999"},
    {{"--admin=127.0.0.1:http"}, 78, "127.0.0.1:http"},
};

START_TEST(bad_flag_is_named)
{
    service_run(bad_flags[_i].args, NULL, &run);
    expect_complaint(bad_flags[_i].status, bad_flags[_i].mentions);
}
END_TEST

START_TEST(more_loops_than_pool_is_refused)
{
    service_run(ARGS("--loops=4", "--pool=2"), NULL, &run);
    expect_complaint(78, "4 loops");
}
END_TEST

/* environment */

static const struct {
    const char *setting;
    const char *mentions;
} bad_settings[] = {
    {"CURFEW_POOL=-1", "CURFEW_POOL"},
    {"CURFEW_DEFAULT_TIMEOUT=soon", "CURFEW_DEFAULT_TIMEOUT"},
    {"CURFEW_CANCEL=never", "CURFEW_CANCEL"},
    {"DATABASE_URL=postgresql://[::1", "database URL"},
};

START_TEST(bad_setting_is_named)
{
    service_run(NULL, ARGS(bad_settings[_i].setting), &run);
    expect_complaint(78, bad_settings[_i].mentions);
}
END_TEST

START_TEST(flag_wins_over_environment)
{
    service_run(ARGS("--pool=none"), ARGS("CURFEW_POOL=8"), &run);
    expect_complaint(78, "--pool");
}
END_TEST

/* port */

START_TEST(taken_port_is_refused)
{
    struct service *first = service_start(NULL, NULL);
    char listen[64];
    char port[16];

    (void)snprintf(listen, sizeof(listen), "CURFEW_LISTEN=127.0.0.1:%d", first->api_port);
    (void)snprintf(port, sizeof(port), "%d", first->api_port);
    service_run(NULL, ARGS(listen), &run);
    expect_complaint(1, port);
    ck_assert_int_eq(client_get(first->api_port, "/livez", NULL)->status, 200);
}
END_TEST

START_TEST(taken_admin_port_is_refused)
{
    struct service *first = service_start(NULL, NULL);
    char admin[64];
    char port[16];

    (void)snprintf(admin, sizeof(admin), "CURFEW_ADMIN=127.0.0.1:%d", first->admin_port);
    (void)snprintf(port, sizeof(port), "%d", first->admin_port);
    service_run(NULL, ARGS(admin), &run);
    expect_complaint(1, port);
}
END_TEST

START_TEST(port_of_ended_service_is_free)
{
    struct service *first = service_start_ready(NULL, NULL);
    struct service *second;
    char listen[64];

    (void)snprintf(listen, sizeof(listen), "CURFEW_LISTEN=127.0.0.1:%d", first->api_port);
    ck_assert_int_eq(client_get(first->api_port, "/v1/users/1", NULL)->status, 200);
    service_signal(first, SIGTERM);
    ck_assert_int_eq(service_wait(first, 3 * CF_SECOND), 0);
    second = service_start(NULL, ARGS(listen));
    ck_assert_uint_eq(second->api_port, first->api_port);
}
END_TEST

Suite *suite_command_line(void)
{
    Suite *suite = suite_create("command_line");
    TCase *flags = tcase_create("flags");
    TCase *environment = tcase_create("environment");
    TCase *port = tcase_create("port");

    tcase_add_test(flags, help_prints_every_flag);
    tcase_add_test(flags, version_names_libraries);
    tcase_add_loop_test(flags, bad_flag_is_named, 0, sizeof(bad_flags) / sizeof(bad_flags[0]));
    tcase_add_test(flags, more_loops_than_pool_is_refused);
    tcase_set_timeout(flags, 15);
    suite_add_tcase(suite, flags);

    tcase_add_loop_test(environment, bad_setting_is_named, 0,
                        sizeof(bad_settings) / sizeof(bad_settings[0]));
    tcase_add_test(environment, flag_wins_over_environment);
    tcase_set_timeout(environment, 15);
    suite_add_tcase(suite, environment);

    tcase_add_checked_fixture(port, NULL, teardown);
    tcase_add_test(port, taken_port_is_refused);
    tcase_add_test(port, taken_admin_port_is_refused);
    tcase_add_test(port, port_of_ended_service_is_free);
    tcase_set_timeout(port, 30);
    suite_add_tcase(suite, port);
    return suite;
}
