/* SPDX-License-Identifier: MIT */
/* What is said of a request and of the database, and with which names. */
#include "curfewd/observe/events.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/trace.h>

#include "log_lines.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* Fixture */

static struct cf_err err;
static struct cf_http_record record;
static struct cf_trace trace;
static struct cf_pg_event event;

static void setup(void)
{
    ck_assert(
        cf_trace_read("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03", NULL, &trace));
    record = (struct cf_http_record){
        .method = "GET",
        .target = "/v1/users/7?limit=1",
        .route = "/v1/users/{id}",
        .request_id = "abc",
        .trace = &trace,
        .client = "192.0.2.1",
        .status = 200,
        .body_size = 17,
        .duration_ns = 1234567,
        .timeout_ns = 50 * CF_MS,
        .timeout_source = "Request-Timeout-Ms",
    };
    memset(&event, 0, sizeof(event));
    log_lines_start();
}

/* Helpers */

/* The only line, which the caller owns. */
static json_t *only_line(void)
{
    json_t *lines = log_lines_stop();
    json_t *line;

    ck_assert_uint_eq(json_array_size(lines), 1);
    line = json_incref(log_lines_at(lines, 0));
    json_decref(lines);
    return line;
}

static void expect_ms(const json_t *line, const char *name, double ms)
{
    const json_t *value = json_object_get(line, name);

    ck_assert_msg(json_is_number(value), "no number \"%s\"", name);
    ck_assert_double_eq_tol(json_number_value(value), ms, 1e-9);
}

/* log_request */

START_TEST(log_request_has_every_member)
{
    json_t *line;

    (void)cf_err_set(&err, CF_EDEADLINE, "user 7: too late");
    (void)cf_err_phase(&err, CF_EDEADLINE, "query");
    memcpy(err.sqlstate, "57014", sizeof(err.sqlstate));
    record.status = 504;
    record.code = CF_EDEADLINE;
    record.err = &err;
    record.cause.reason = CF_REASON_DEADLINE;
    events_log_request(NULL, &record);
    line = only_line();
    ck_assert_str_eq(log_lines_str(line, "msg"), "request");
    ck_assert_str_eq(log_lines_str(line, "level"), "warn");
    ck_assert_str_eq(log_lines_str(line, "request_id"), "abc");
    ck_assert_str_eq(log_lines_str(line, "trace_id"), "4bf92f3577b34da6a3ce929d0e0e4736");
    ck_assert_str_eq(log_lines_str(line, "span_id"), "00f067aa0ba902b7");
    ck_assert_str_eq(log_lines_str(line, "trace_flags"), "03");
    ck_assert_str_eq(log_lines_str(line, "http.request.method"), "GET");
    ck_assert_str_eq(log_lines_str(line, "url.path"), "/v1/users/7?limit=1");
    ck_assert_str_eq(log_lines_str(line, "http.route"), "/v1/users/{id}");
    ck_assert_int_eq(log_lines_i64(line, "http.response.status_code"), 504);
    ck_assert_int_eq(log_lines_i64(line, "http.response.body.size"), 17);
    ck_assert_str_eq(log_lines_str(line, "client.address"), "192.0.2.1");
    expect_ms(line, "duration_ms", 1.235);
    expect_ms(line, "deadline_ms", 50);
    ck_assert_str_eq(log_lines_str(line, "deadline_source"), "Request-Timeout-Ms");
    ck_assert_str_eq(log_lines_str(line, "cancel_cause"), cf_reason_name(CF_REASON_DEADLINE));
    ck_assert_str_eq(log_lines_str(line, "code"), "deadline_exceeded");
    ck_assert_str_eq(log_lines_str(line, "error"), "user 7: too late");
    ck_assert_str_eq(log_lines_str(line, "phase"), "query");
    ck_assert_str_eq(log_lines_str(line, "db.response.status_code"), "57014");
    json_decref(line);
}
END_TEST

START_TEST(log_request_leaves_out_what_is_not_known)
{
    static const char *const absent[] = {
        "deadline_ms", "deadline_source", "cancel_cause",           "code",
        "error",       "phase",           "db.response.status_code"};
    json_t *line;

    record.timeout_ns = CF_NEVER;
    record.timeout_source = NULL;
    record.err = &err; /* Of something before: the handler succeeded. */
    record.code = CF_OK;
    events_log_request(NULL, &record);
    line = only_line();
    for (size_t i = 0; i < LENGTH(absent); i++) {
        ck_assert_msg(json_object_get(line, absent[i]) == NULL, "%s", absent[i]);
    }
    json_decref(line);
}
END_TEST

static const struct {
    int status;
    const char *level;
} levels[] = {
    {200, "info"}, {304, "info"}, {400, "info"}, {404, "info"},
    {499, "info"}, {500, "warn"}, {503, "warn"}, {504, "warn"},
};

START_TEST(log_request_warns_of_our_failures_only)
{
    json_t *line;

    record.status = levels[_i].status;
    events_log_request(NULL, &record);
    line = only_line();
    ck_assert_str_eq(log_lines_str(line, "level"), levels[_i].level);
    json_decref(line);
}
END_TEST

static const struct {
    const char *route;
    int status;
    bool said;
} probes[] = {
    {"/livez", 200, false}, {"/readyz", 200, false}, {"/livez", 503, true},
    {"/readyz", 503, true}, {"/version", 200, true}, {"", 404, true},
};

START_TEST(log_request_is_quiet_about_probes_that_succeed)
{
    json_t *lines;

    record.route = probes[_i].route;
    record.status = probes[_i].status;
    events_log_request(NULL, &record);
    lines = log_lines_stop();
    ck_assert_uint_eq(json_array_size(lines), probes[_i].said);
    json_decref(lines);
}
END_TEST

/* Whatever a client puts into its target stays inside its member. */
START_TEST(log_request_holds_any_target)
{
    static const char *const targets[] = {"", "/\n{\"msg\":\"forged\"}\n", "/\"\\\x01\x7F",
                                          "/%00%0A", "/\xE2\x82\xAC"};
    json_t *lines;

    for (size_t i = 0; i < LENGTH(targets); i++) {
        record.target = targets[i];
        events_log_request(NULL, &record);
    }
    record.target = "/\xFF\xC3";
    events_log_request(NULL, &record);
    lines = log_lines_stop();
    ck_assert_uint_eq(json_array_size(lines), LENGTH(targets) + 1);
    for (size_t i = 0; i < LENGTH(targets); i++) {
        ck_assert_str_eq(log_lines_str(log_lines_at(lines, i), "url.path"), targets[i]);
    }
    ck_assert_str_eq(log_lines_str(log_lines_at(lines, LENGTH(targets)), "url.path"),
                     "/\xEF\xBF\xBD\xEF\xBF\xBD");
    json_decref(lines);
}
END_TEST

START_TEST(log_request_holds_long_target)
{
    size_t size = 100000;
    char *target = malloc(size + 1);
    json_t *line;

    ck_assert_ptr_nonnull(target);
    memset(target, '\n', size); /* Each becomes two characters. */
    target[size] = '\0';
    record.target = target;
    events_log_request(NULL, &record);
    line = only_line();
    ck_assert(strcmp(log_lines_str(line, "url.path"), target) == 0);
    json_decref(line);
    free(target);
}
END_TEST

/* log_pg */

static const struct {
    enum cf_pg_event_kind kind;
    const char *level;
} kinds[] = {
    {CF_PG_EVENT_CONNECTED, "info"}, {CF_PG_EVENT_CONNECT_FAILED, "warn"},
    {CF_PG_EVENT_LOST, "warn"},      {CF_PG_EVENT_CLOSED, "info"},
    {CF_PG_EVENT_CANCELED, "info"},
};

START_TEST(log_pg_says_kind_and_what_belongs_to_it)
{
    enum cf_pg_event_kind kind = kinds[_i].kind;
    json_t *line;

    event.kind = kind;
    event.backend_pid = _i == 0 ? 4711 : 0;
    event.outcome = CF_PG_EFFECTIVE;
    event.took_ns = 1500 * CF_US;
    event.retry_ns = 250 * CF_MS;
    if (kind == CF_PG_EVENT_LOST) {
        (void)cf_err_set(&event.err, CF_EUNAVAIL, "gone");
    }
    events_log_pg(NULL, &event);
    line = only_line();
    ck_assert_str_eq(log_lines_str(line, "msg"), "postgresql");
    ck_assert_str_eq(log_lines_str(line, "event"), cf_pg_event_name(kind));
    ck_assert_str_eq(log_lines_str(line, "level"), kinds[_i].level);
    ck_assert_int_eq(json_object_get(line, "backend_pid") != NULL, _i == 0);
    ck_assert_int_eq(json_object_get(line, "error") != NULL, kind == CF_PG_EVENT_LOST);
    ck_assert_int_eq(json_object_get(line, "outcome") != NULL, kind == CF_PG_EVENT_CANCELED);
    ck_assert_int_eq(json_object_get(line, "retry_ms") != NULL, kind == CF_PG_EVENT_CONNECT_FAILED);
    if (kind == CF_PG_EVENT_CANCELED) {
        ck_assert_str_eq(log_lines_str(line, "outcome"), "effective");
        expect_ms(line, "took_ms", 1.5);
    }
    if (kind == CF_PG_EVENT_CONNECT_FAILED) {
        expect_ms(line, "retry_ms", 250);
    }
    json_decref(line);
}
END_TEST

/* A server that is away is tried again and again: said once,
 * until it was there or says otherwise. */
START_TEST(log_pg_says_the_same_failure_once)
{
    json_t *lines;

    for (int i = 0; i < 10; i++) {
        event.kind = CF_PG_EVENT_CONNECT_FAILED;
        (void)cf_err_set(&event.err, CF_EUNAVAIL, i < 8 ? "refused" : "no such role");
        events_log_pg(NULL, &event);
        if (i == 5) {
            event = (struct cf_pg_event){.kind = CF_PG_EVENT_CONNECTED};
            events_log_pg(NULL, &event);
        }
    }
    lines = log_lines_stop();
    ck_assert_uint_eq(json_array_size(lines), 4);
    ck_assert_int_eq(log_lines_i64(log_lines_at(lines, 0), "unsaid"), 0);
    ck_assert_str_eq(log_lines_str(log_lines_at(lines, 1), "event"), "connected");
    ck_assert_int_eq(log_lines_i64(log_lines_at(lines, 2), "unsaid"), 5);
    ck_assert_int_eq(log_lines_i64(log_lines_at(lines, 3), "unsaid"), 1);
    json_decref(lines);
}
END_TEST

Suite *suite_events(void)
{
    Suite *suite = suite_create("events");
    TCase *log_request = tcase_create("log_request");
    TCase *log_pg = tcase_create("log_pg");

    tcase_add_checked_fixture(log_request, setup, NULL);
    tcase_add_test(log_request, log_request_has_every_member);
    tcase_add_test(log_request, log_request_leaves_out_what_is_not_known);
    tcase_add_loop_test(log_request, log_request_warns_of_our_failures_only, 0, LENGTH(levels));
    tcase_add_loop_test(log_request, log_request_is_quiet_about_probes_that_succeed, 0,
                        LENGTH(probes));
    tcase_add_test(log_request, log_request_holds_any_target);
    tcase_add_test(log_request, log_request_holds_long_target);
    suite_add_tcase(suite, log_request);

    tcase_add_checked_fixture(log_pg, setup, NULL);
    tcase_add_loop_test(log_pg, log_pg_says_kind_and_what_belongs_to_it, 0, LENGTH(kinds));
    tcase_add_test(log_pg, log_pg_says_the_same_failure_once);
    suite_add_tcase(suite, log_pg);
    return suite;
}
