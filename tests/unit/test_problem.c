/* SPDX-License-Identifier: MIT */
/* Problem documents, and which failure is which. */
#include "curfew/http/problem.h"

#include <check.h>
#include <jansson.h>
#include <string.h>

#include <curfew/http.h>

/* Helpers */

static json_t *written(const struct cf__problem *problem)
{
    struct cf_json json;
    const char *data;
    size_t size;
    json_t *document;

    cf_json_init(&json);
    cf__problem_write(problem, &json);
    ck_assert_int_eq(cf_json_finish(&json, &data, &size, NULL), CF_OK);
    document = json_loadb(data, size, JSON_REJECT_DUPLICATES, NULL);
    ck_assert_ptr_nonnull(document);
    cf_json_fini(&json);
    return document;
}

static const char *member(const json_t *document, const char *name)
{
    return json_string_value(json_object_get(document, name));
}

/* of, status */

static const struct {
    enum cf_code code;
    enum cf_reason reason;
    int status;
    const char *name;
} mapping[] = {
    {CF_EDEADLINE, CF_REASON_DEADLINE, 504, "deadline_exceeded"},
    {CF_ENOTFOUND, CF_REASON_DEADLINE, 504, "deadline_exceeded"},
    {CF_EDEADLINE, CF_REASON_NONE, 504, "deadline_exceeded"},
    {CF_ECANCELED, CF_REASON_CLIENT_GONE, 499, "client_gone"},
    {CF_ECANCELED, CF_REASON_OPERATOR, 499, "canceled"},
    {CF_ECANCELED, CF_REASON_SHUTDOWN, 503, "shutting_down"},
    {CF_ECANCELED, CF_REASON_SHED, 503, "overloaded"},
    {CF_ENOTFOUND, CF_REASON_SIBLING_FAILED, 404, "not_found"},
    {CF_ECONFLICT, CF_REASON_USER, 409, "conflict"},
    {CF_ECANCELED, CF_REASON_NONE, 500, "internal"},
    {CF_ECANCELED, CF_REASON_CANCELED, 500, "internal"},
    {CF_EINVAL, CF_REASON_NONE, 400, "invalid"},
    {CF_ENOTFOUND, CF_REASON_NONE, 404, "not_found"},
    {CF_ECONFLICT, CF_REASON_NONE, 409, "conflict"},
    {CF_ELIMIT, CF_REASON_NONE, 503, "overloaded"},
    {CF_EUNAVAIL, CF_REASON_NONE, 503, "unavailable"},
    {CF_ENOMEM, CF_REASON_NONE, 503, "out_of_memory"},
    {CF_EUNKNOWN, CF_REASON_NONE, 500, "outcome_unknown"},
    {CF_EUNKNOWN, CF_REASON_DEADLINE, 500, "outcome_unknown"},
    {CF_ECLOSED, CF_REASON_NONE, 500, "internal"},
    {CF_EIO, CF_REASON_NONE, 500, "internal"},
    {CF_EINTERNAL, CF_REASON_NONE, 500, "internal"},
};

START_TEST(of_maps_reason_before_code)
{
    enum cf__problem_kind kind = cf__problem_of(mapping[_i].code, mapping[_i].reason);

    ck_assert_int_eq(cf__problem_status(kind), mapping[_i].status);
    ck_assert_str_eq(cf__problem_code(kind), mapping[_i].name);
    ck_assert_int_eq(cf_http_status(mapping[_i].code, mapping[_i].reason), mapping[_i].status);
}
END_TEST

START_TEST(chosen_is_the_kind_of_that_status)
{
    static const int statuses[] = {412, 415, 422, 428, 504};

    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        ck_assert_int_eq(cf__problem_status(cf__problem_chosen(statuses[i])), statuses[i]);
    }
}
END_TEST

START_TEST(status_of_success_is_200)
{
    ck_assert_int_eq(cf_http_status(CF_OK, CF_REASON_NONE), 200);
}
END_TEST

/* write */

START_TEST(write_has_every_member)
{
    struct cf__problem problem = {CF__PROBLEM_DEADLINE,
                                  "query users: SELECT secret",
                                  "query",
                                  50 * CF_MS,
                                  50123456,
                                  "abc",
                                  "4bf92f3577b34da6a3ce929d0e0e4736"};
    json_t *document = written(&problem);

    ck_assert_str_eq(member(document, "type"), "/problems/deadline-exceeded");
    ck_assert_str_eq(member(document, "title"), "Deadline exceeded");
    ck_assert_int_eq(json_integer_value(json_object_get(document, "status")), 504);
    ck_assert_str_eq(member(document, "detail"), "The request did not finish before its deadline.");
    ck_assert_str_eq(member(document, "code"), "deadline_exceeded");
    ck_assert_str_eq(member(document, "phase"), "query");
    ck_assert_int_eq(json_integer_value(json_object_get(document, "deadline_ms")), 50);
    ck_assert_double_eq_tol(json_real_value(json_object_get(document, "elapsed_ms")), 50.123, 1e-9);
    ck_assert_str_eq(member(document, "request_id"), "abc");
    ck_assert_str_eq(member(document, "trace_id"), "4bf92f3577b34da6a3ce929d0e0e4736");
    json_decref(document);
}
END_TEST

START_TEST(write_says_that_a_late_change_may_have_been_made)
{
    struct cf__problem problem = {.kind = CF__PROBLEM_DEADLINE, .is_unsafe = true};
    json_t *document = written(&problem);

    ck_assert_str_eq(member(document, "detail"),
                     "The request did not finish before its deadline. The change that it asked for "
                     "may have been made.");
    json_decref(document);
}
END_TEST

START_TEST(write_leaves_out_what_is_not_known)
{
    struct cf__problem problem = {CF__PROBLEM_NOT_FOUND, NULL, NULL, CF_NEVER, 0, NULL};
    json_t *document = written(&problem);

    ck_assert_str_eq(member(document, "detail"), "There is no such resource.");
    ck_assert_ptr_null(json_object_get(document, "phase"));
    ck_assert_ptr_null(json_object_get(document, "deadline_ms"));
    ck_assert_ptr_null(json_object_get(document, "request_id"));
    ck_assert_ptr_null(json_object_get(document, "trace_id"));
    json_decref(document);
}
END_TEST

START_TEST(write_tells_the_client_its_own_mistakes_only)
{
    for (int kind = CF__PROBLEM_DEADLINE; kind <= CF__PROBLEM_HEAD_TOO_LARGE; kind++) {
        struct cf__problem problem = {
            (enum cf__problem_kind)kind, "own words", NULL, CF_NEVER, 0, NULL};
        json_t *document = written(&problem);
        int64_t status = json_integer_value(json_object_get(document, "status"));
        bool told = strcmp(member(document, "detail"), "own words") == 0;

        ck_assert_int_eq(told, status >= 400 && status < 499);
        ck_assert_int_eq(strncmp(member(document, "type"), "/problems/", 10), 0);
        ck_assert_ptr_null(strchr(member(document, "type"), '_'));
        json_decref(document);
    }
}
END_TEST

Suite *suite_problem(void)
{
    Suite *suite = suite_create("problem");
    TCase *tc = tcase_create("problem");

    tcase_add_loop_test(tc, of_maps_reason_before_code, 0, sizeof(mapping) / sizeof(mapping[0]));
    tcase_add_test(tc, chosen_is_the_kind_of_that_status);
    tcase_add_test(tc, status_of_success_is_200);
    tcase_add_test(tc, write_has_every_member);
    tcase_add_test(tc, write_says_that_a_late_change_may_have_been_made);
    tcase_add_test(tc, write_leaves_out_what_is_not_known);
    tcase_add_test(tc, write_tells_the_client_its_own_mistakes_only);
    suite_add_tcase(suite, tc);
    return suite;
}
