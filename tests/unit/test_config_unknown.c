/* SPDX-License-Identifier: MIT */
/* Which variables of the environment look like settings and are none. */
#include "curfewd/config.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* Whatever whoever runs the tests has there is none of theirs. */
static void clear_environment(void)
{
    char **at = environ;

    while (*at != NULL) {
        char name[64];

        (void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(*at, "="), *at);
        if (strncmp(name, "CURFEW_", 7) == 0) {
            ck_assert_int_eq(unsetenv(name), 0);
            at = environ; /* They were moved. */
        } else {
            at++;
        }
    }
}

static const struct {
    const char *name;
    const char *value;
    bool is_unknown;
} variables[] = {
    {"CURFEW_POOl", "3", true},
    {"CURFEW_NOSUCH", "1", true},
    {"CURFEW_", "", true},
    {"CURFEW_POOL_FILE", "/dev/null", true},
    {"CURFEW_PORT", "8080", true}, /* What a person would write who means CURFEW_LISTEN. */
    {"CURFEW_PORT_HTTP", "8080", true},
    {"CURFEW_TEST_CURFEW_SERVICE_HOSTS", "1", true},
    {"CURFEW_POOL", "3", false},
    {"CURFEW", "1", false},
    {"XCURFEW_POOl", "1", false},
    {"CURFEW_SERVICE_HOST", "10.0.0.11", false},
    {"CURFEW_SERVICE_PORT", "8080", false},
    {"CURFEW_SERVICE_PORT_HTTP", "8080", false},
    {"CURFEW_PORT", "tcp://10.0.0.11:8080", false},
    {"CURFEW_PORT_8080_TCP", "tcp://10.0.0.11:8080", false},
    {"CURFEW_PORT_8080_TCP_PROTO", "tcp", false},
    {"CURFEW_PORT_8080_TCP_PORT", "8080", false},
    {"CURFEW_PORT_8080_TCP_ADDR", "10.0.0.11", false},
    {"CURFEW_PORT_53_UDP", "udp://10.0.0.11:53", false},
    {"CURFEW_API_V2_SERVICE_HOST", "10.0.0.11", false}, /* curfew-api-v2 */
    {"CURFEW_ADMIN_PORT_8081_TCP_ADDR", "10.0.0.11", false},
};

START_TEST(unknown_has_what_is_neither_ours_nor_of_kubernetes)
{
    char names[CONFIG_UNKNOWN_SIZE];

    clear_environment();
    ck_assert_int_eq(setenv(variables[_i].name, variables[_i].value, 1), 0);
    ck_assert_int_eq(config_unknown(names), variables[_i].is_unknown);
    ck_assert_str_eq(names, variables[_i].is_unknown ? variables[_i].name : "");
    ck_assert_int_eq(unsetenv(variables[_i].name), 0);
}
END_TEST

START_TEST(unknown_of_many_is_cut)
{
    static const char two[] = "CURFEW_NAME_0, CURFEW_NAME_1, ";
    char names[CONFIG_UNKNOWN_SIZE];
    char name[32];

    clear_environment();
    for (int i = 0; i < 100; i++) {
        (void)snprintf(name, sizeof(name), "CURFEW_NAME_%d", i);
        ck_assert_int_eq(setenv(name, "", 1), 0);
    }
    ck_assert(config_unknown(names));
    ck_assert_int_eq(strncmp(names, two, strlen(two)), 0);
    ck_assert_uint_gt(strlen(names), sizeof(names) - 40);
    ck_assert_str_eq(names + strlen(names) - 5, ", ...");
    clear_environment();
}
END_TEST

Suite *suite_config_unknown(void)
{
    Suite *suite = suite_create("config_unknown");
    TCase *unknown = tcase_create("unknown");

    tcase_add_loop_test(unknown, unknown_has_what_is_neither_ours_nor_of_kubernetes, 0,
                        LENGTH(variables));
    tcase_add_test(unknown, unknown_of_many_is_cut);
    suite_add_tcase(suite, unknown);
    return suite;
}
