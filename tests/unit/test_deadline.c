/* SPDX-License-Identifier: MIT */
/* Deadlines that requests ask for. */
#include "curfew/http/deadline.h"

#include <check.h>
#include <string.h>

/* Fixture */

static struct cf__deadline deadline;
static struct cf_err err;

static void setup(void)
{
    cf__deadline_init(&deadline);
}

/* Helpers */

static enum cf_code take(const char *name, const char *value)
{
    return cf__deadline_header(&deadline, name, strlen(name), value, &err);
}

/* header */

#define ABSENT CF_NEVER

static const struct {
    const char *name;
    const char *value;
    int64_t timeout_ns;
    const char *source;
} headers[] = {
    {"Request-Timeout-Ms", "50", 50 * CF_MS, "Request-Timeout-Ms"},
    {"request-timeout-ms", " 50\t", 50 * CF_MS, "Request-Timeout-Ms"},
    {"Request-Timeout-Ms", "0", 0, "Request-Timeout-Ms"},
    {"Request-Timeout-Ms", "-1", 0, "Request-Timeout-Ms"},
    {"Request-Timeout-Ms", "0000000050", 50 * CF_MS, "Request-Timeout-Ms"},
    {"Request-Timeout-Ms", "9999999999", 9999999999 * CF_MS, "Request-Timeout-Ms"},
    {"X-Request-Timeout-Ms", "50", 50 * CF_MS, "X-Request-Timeout-Ms"},
    {"X-Request-Timeout-Ms", "-50", 0, "X-Request-Timeout-Ms"},
    {"X-Request-Timeout-Ms", "-", ABSENT, "default"},
    {"X-Request-Timeout-Ms", "--50", ABSENT, "default"},
    {"X-Request-Timeout-Ms", "+50", ABSENT, "default"},
    {"X-Request-Timeout-Ms", "50ms", ABSENT, "default"},
    {"X-Request-Timeout-Ms", "5 0", ABSENT, "default"},
    {"X-Request-Timeout-Ms", "", ABSENT, "default"},
    {"X-Request-Timeout-Ms", "12345678901", ABSENT, "default"},
    {"connect-timeout-ms", "1500", 1500 * CF_MS, "connect-timeout-ms"},
    {"x-envoy-expected-rq-timeout-ms", "7", 7 * CF_MS, "x-envoy-expected-rq-timeout-ms"},
    {"grpc-timeout", "50m", 50 * CF_MS, "grpc-timeout"},
    {"grpc-timeout", "2H", 7200 * CF_SECOND, "grpc-timeout"},
    {"grpc-timeout", "3M", 180 * CF_SECOND, "grpc-timeout"},
    {"grpc-timeout", "4S", 4 * CF_SECOND, "grpc-timeout"},
    {"grpc-timeout", "5u", 5 * CF_US, "grpc-timeout"},
    {"grpc-timeout", "6n", 6, "grpc-timeout"},
    {"grpc-timeout", "50", ABSENT, "default"},
    {"grpc-timeout", "50ms", ABSENT, "default"},
    {"grpc-timeout", "50s", ABSENT, "default"},
    {"grpc-timeout", "-5m", ABSENT, "default"},
    {"grpc-timeout", "m", ABSENT, "default"},
    {"grpc-timeout", "123456789m", ABSENT, "default"},
    {"Prefer", "wait=10", 10 * CF_SECOND, "Prefer"},
    {"Prefer", "respond-async, WAIT = \"3\" ; x=y, wait=1", 3 * CF_SECOND, "Prefer"},
    {"Prefer", "wait=0", 0, "Prefer"},
    {"Prefer", "wait=1.5", ABSENT, "default"},
    {"Prefer", "wait", ABSENT, "default"},
    {"Prefer", "waiting=5", ABSENT, "default"},
    {"Prefer", "wait=\"", ABSENT, "default"},
    {"Prefer", ",,;,", ABSENT, "default"},
    {"Timeout", "5", ABSENT, "default"},
    {"Request-Timeout", "5", ABSENT, "default"},
};

START_TEST(header_gives_its_timeout)
{
    ck_assert_int_eq(take(headers[_i].name, headers[_i].value), CF_OK);
    ck_assert_int_eq(deadline.timeout_ns, headers[_i].timeout_ns);
    ck_assert_str_eq(deadline.source, headers[_i].source);
}
END_TEST

static const char *const malformed[] = {"",    "-", "- 1", "+1",          "1.5", "50ms", "1e3",
                                        "0x1", "a", "1 2", "12345678901", " ",   "1,2"};

START_TEST(header_of_ours_that_is_malformed_is_an_error)
{
    ck_assert_int_eq(take("Request-Timeout-Ms", malformed[_i]), CF_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.msg, "as in Request-Timeout-Ms: 250"));
    ck_assert_int_eq(deadline.timeout_ns, CF_NEVER);
}
END_TEST

START_TEST(header_shortest_of_several_wins)
{
    ck_assert_int_eq(take("X-Request-Timeout-Ms", "300"), CF_OK);
    ck_assert_int_eq(take("grpc-timeout", "200m"), CF_OK);
    ck_assert_int_eq(take("Request-Timeout-Ms", "250"), CF_OK);
    ck_assert_int_eq(cf__deadline_query(&deadline, "210ms", &err), CF_OK);
    ck_assert_int_eq(deadline.timeout_ns, 200 * CF_MS);
    ck_assert_str_eq(deadline.source, "grpc-timeout");
}
END_TEST

START_TEST(header_of_centuries_is_clamped)
{
    ck_assert_int_eq(take("grpc-timeout", "99999999H"), CF_OK);
    ck_assert_int_gt(deadline.timeout_ns, INT64_C(99) * 365 * 86400 * CF_SECOND);
    ck_assert_int_lt(deadline.timeout_ns, CF_NEVER / 2);
}
END_TEST

/* query */

static const struct {
    const char *value;
    int64_t timeout_ns;
} durations[] = {
    {"50ms", 50 * CF_MS},
    {"2s", 2 * CF_SECOND},
    {"1m", 60 * CF_SECOND},
    {"1.5s", 1500 * CF_MS},
    {"0.25ms", 250 * CF_US},
    {"0.5m", 30 * CF_SECOND},
    {"0s", 0},
    {"0", 0},
    {"-50ms", 0},
    {"-9999999999.9999999999m", 0},
    {"0.0000000001s", 0},
    {"1.9999999999s", 1999999999},
    {"9999999999s", 3153600000 * CF_SECOND}, /* Clamped to a century. */
    {"9999999999.9999999999m", 3153600000 * CF_SECOND + 59999999994},
};

START_TEST(query_gives_its_timeout)
{
    ck_assert_int_eq(cf__deadline_query(&deadline, durations[_i].value, &err), CF_OK);
    ck_assert_int_le(deadline.timeout_ns, durations[_i].timeout_ns);
    ck_assert_int_ge(deadline.timeout_ns, durations[_i].timeout_ns - 10);
    ck_assert_str_eq(deadline.source, "timeout");
}
END_TEST

static const char *const bad_durations[] = {"",
                                            "50",
                                            "ms",
                                            "-",
                                            "-ms",
                                            "--5ms",
                                            "-50",
                                            "00",
                                            "+1s",
                                            "1h",
                                            "1 s",
                                            " 1s",
                                            "1s ",
                                            ".5s",
                                            "1.s",
                                            "1.5.5s",
                                            "1e3s",
                                            "1,5s",
                                            "s",
                                            "1us",
                                            "12345678901s",
                                            "1.12345678901s",
                                            "1S",
                                            "1msms"};

START_TEST(query_that_is_malformed_is_an_error)
{
    ck_assert_int_eq(cf__deadline_query(&deadline, bad_durations[_i], &err), CF_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.msg, "as in timeout=250ms or timeout=1.5s"));
    ck_assert_int_eq(deadline.timeout_ns, CF_NEVER);
}
END_TEST

/* limit */

START_TEST(limit_gives_the_default_when_nothing_was_asked)
{
    cf__deadline_limit(&deadline, 5 * CF_SECOND, 60 * CF_SECOND);
    ck_assert_int_eq(deadline.timeout_ns, 5 * CF_SECOND);
    ck_assert_str_eq(deadline.source, "default");
}
END_TEST

START_TEST(limit_caps_what_was_asked)
{
    ck_assert_int_eq(cf__deadline_query(&deadline, "10m", &err), CF_OK);
    cf__deadline_limit(&deadline, 5 * CF_SECOND, 60 * CF_SECOND);
    ck_assert_int_eq(deadline.timeout_ns, 60 * CF_SECOND);
    ck_assert_str_eq(deadline.source, "timeout");
}
END_TEST

START_TEST(limit_keeps_what_is_shorter)
{
    ck_assert_int_eq(cf__deadline_query(&deadline, "0s", &err), CF_OK);
    cf__deadline_limit(&deadline, 5 * CF_SECOND, 60 * CF_SECOND);
    ck_assert_int_eq(deadline.timeout_ns, 0);
}
END_TEST

#define N(table) (int)(sizeof(table) / sizeof((table)[0]))

Suite *suite_deadline(void)
{
    Suite *suite = suite_create("deadline");
    TCase *tc = tcase_create("deadline");

    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_loop_test(tc, header_gives_its_timeout, 0, N(headers));
    tcase_add_loop_test(tc, header_of_ours_that_is_malformed_is_an_error, 0, N(malformed));
    tcase_add_test(tc, header_shortest_of_several_wins);
    tcase_add_test(tc, header_of_centuries_is_clamped);
    tcase_add_loop_test(tc, query_gives_its_timeout, 0, N(durations));
    tcase_add_loop_test(tc, query_that_is_malformed_is_an_error, 0, N(bad_durations));
    tcase_add_test(tc, limit_gives_the_default_when_nothing_was_asked);
    tcase_add_test(tc, limit_caps_what_was_asked);
    tcase_add_test(tc, limit_keeps_what_is_shorter);
    suite_add_tcase(suite, tc);
    return suite;
}
