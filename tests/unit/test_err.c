/* SPDX-License-Identifier: MIT */
/* Errors as values. */
#include <curfew/err.h>

#include <check.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

/* Fixture */

static struct cf_err err;

/* Every byte is something, so that a field which is not written shows. */
static void setup(void)
{
    memset(&err, 'x', sizeof(err));
}

/* Helpers */

static const char long_text[] =
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123"
    "4567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567"
    "8901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901"
    "23456789";

/* Whether no character of the text was cut in two, by what a leading byte says of its length. */
static bool whole_characters(const char *text)
{
    while (*text != '\0') {
        unsigned char lead = (unsigned char)*text++;
        int more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : lead >= 0xC0 ? 1 : 0;

        if ((lead & 0xC0) == 0x80) {
            return false;
        }
        while (more-- > 0) {
            if (((unsigned char)*text++ & 0xC0) != 0x80) {
                return false;
            }
        }
    }
    return true;
}

/* Wrap until nothing of the first message can be left. */
static void wrap_deeply(void)
{
    for (int layer = 0; layer < 100; layer++) {
        ck_assert_int_eq(cf_err_wrap(&err, err.code, "layer %d", layer), err.code);
        ck_assert_uint_lt(strnlen(err.msg, sizeof(err.msg)), sizeof(err.msg));
    }
}

/* set */

START_TEST(set_fills_every_field)
{
    ck_assert_int_eq(cf_err_set(&err, CF_ENOTFOUND, "user %d of %s", 7, "all"), CF_ENOTFOUND);
    ck_assert_int_eq(err.code, CF_ENOTFOUND);
    ck_assert_int_eq(err.cause, CF_OK);
    ck_assert_int_eq(err.sys, 0);
    ck_assert_int_eq(err.retry_after_ns, 0);
    ck_assert_ptr_null(err.phase);
    ck_assert_str_eq(err.sqlstate, "");
    ck_assert_str_eq(err.msg, "user 7 of all");
}
END_TEST

START_TEST(set_of_a_long_message_is_cut_and_terminated)
{
    (void)cf_err_set(&err, CF_EIO, "%s", long_text);
    ck_assert_uint_eq(strlen(err.msg), CF_ERR_MSG_SIZE - 1);
    ck_assert_mem_eq(err.msg, long_text, CF_ERR_MSG_SIZE - 1);
}
END_TEST

/* The last character that fits in part only, at every place where the cut can be. */
static const char *const characters[] = {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x92\xa9"};

START_TEST(set_of_a_long_message_cuts_no_character)
{
    for (int before = CF_ERR_MSG_SIZE - 6; before < CF_ERR_MSG_SIZE; before++) {
        (void)cf_err_set(&err, CF_EIO, "%.*s%s", before, long_text, characters[_i]);
        ck_assert_msg(whole_characters(err.msg), "after %d bytes: %s", before, err.msg);
        ck_assert_uint_ge(strlen(err.msg), CF_ERR_MSG_SIZE - 6);
    }
}
END_TEST

START_TEST(set_without_err_returns_the_code)
{
    ck_assert_int_eq(cf_err_set(NULL, CF_ELIMIT, "%d", 1), CF_ELIMIT);
}
END_TEST

/* set_sys */

START_TEST(set_sys_keeps_errno_and_appends_its_text)
{
    ck_assert_int_eq(cf_err_set_sys(&err, CF_EIO, ENOENT, "open %s", "a"), CF_EIO);
    ck_assert_int_eq(err.code, CF_EIO);
    ck_assert_int_eq(err.cause, CF_OK);
    ck_assert_int_eq(err.sys, ENOENT);
    ck_assert_ptr_null(err.phase);
    ck_assert_str_eq(err.sqlstate, "");
    ck_assert_str_eq(err.msg, "open a: No such file or directory");
}
END_TEST

START_TEST(set_sys_without_err_returns_the_code)
{
    ck_assert_int_eq(cf_err_set_sys(NULL, CF_EIO, ENOENT, "open"), CF_EIO);
}
END_TEST

/* wrap */

START_TEST(wrap_puts_the_outer_before_the_inner)
{
    (void)cf_err_set(&err, CF_ENOTFOUND, "no row");
    ck_assert_int_eq(cf_err_wrap(&err, CF_ENOTFOUND, "load user %d", 7), CF_ENOTFOUND);
    ck_assert_int_eq(cf_err_wrap(&err, CF_ENOTFOUND, "dashboard"), CF_ENOTFOUND);
    ck_assert_str_eq(err.msg, "dashboard: load user 7: no row");
}
END_TEST

START_TEST(wrap_of_an_empty_message_is_the_message)
{
    (void)cf_err_set(&err, CF_EIO, "%s", "");
    (void)cf_err_wrap(&err, CF_EIO, "outer");
    ck_assert_str_eq(err.msg, "outer");
}
END_TEST

START_TEST(wrap_may_use_the_message_itself)
{
    (void)cf_err_set(&err, CF_EIO, "inner");
    (void)cf_err_wrap(&err, CF_EIO, "not %s", err.msg);
    ck_assert_str_eq(err.msg, "not inner: inner");
}
END_TEST

START_TEST(wrap_of_a_deep_chain_cuts_the_inner_text_only)
{
    (void)cf_err_set_sys(&err, CF_EIO, ECONNRESET, "read");
    memcpy(err.sqlstate, "57014", sizeof(err.sqlstate));
    (void)cf_err_phase(&err, CF_EIO, "query");
    (void)cf_err_retry_after(&err, CF_EIO, 7 * CF_SECOND);
    (void)cf_err_recode(&err, CF_EUNAVAIL);
    wrap_deeply();
    ck_assert_int_eq(err.code, CF_EUNAVAIL);
    ck_assert_int_eq(err.cause, CF_EIO);
    ck_assert_int_eq(err.sys, ECONNRESET);
    ck_assert_int_eq(err.retry_after_ns, 7 * CF_SECOND);
    ck_assert_str_eq(err.phase, "query");
    ck_assert_str_eq(err.sqlstate, "57014");
    ck_assert_ptr_eq(strstr(err.msg, "layer 99: layer 98: layer 97: "), err.msg);
    ck_assert_ptr_null(strstr(err.msg, "read"));
    ck_assert_uint_eq(strlen(err.msg), CF_ERR_MSG_SIZE - 1);
}
END_TEST

START_TEST(wrap_cuts_no_character)
{
    for (int before = 0; before < 8; before++) {
        (void)cf_err_set(&err, CF_EIO, "%.*s", before, long_text);
        for (int i = 0; i < 200; i++) {
            (void)cf_err_wrap(&err, CF_EIO, "%s", characters[_i]);
            ck_assert_msg(whole_characters(err.msg), "%s", err.msg);
        }
        (void)cf_err_wrap(&err, CF_EIO, "%.*s%s", CF_ERR_MSG_SIZE - 2, long_text, characters[_i]);
        ck_assert_msg(whole_characters(err.msg), "%s", err.msg);
    }
}
END_TEST

START_TEST(wrap_in_a_text_that_fills_all_leaves_nothing_of_the_inner)
{
    (void)cf_err_set(&err, CF_EIO, "inner");
    (void)cf_err_wrap(&err, CF_EIO, "%.*s", CF_ERR_MSG_SIZE - 3, long_text);
    ck_assert_uint_eq(strlen(err.msg), CF_ERR_MSG_SIZE - 3);
    ck_assert_mem_eq(err.msg, long_text, CF_ERR_MSG_SIZE - 3);
}
END_TEST

START_TEST(wrap_without_err_returns_the_code)
{
    ck_assert_int_eq(cf_err_wrap(NULL, CF_EIO, "outer"), CF_EIO);
}
END_TEST

START_TEST(wrap_with_another_code_asserts)
{
    (void)cf_err_set(&err, CF_EIO, "inner");
    (void)cf_err_wrap(&err, CF_EINVAL, "outer");
}
END_TEST

/* recode */

START_TEST(recode_keeps_the_first_code_as_the_cause)
{
    (void)cf_err_set(&err, CF_EIO, "read");
    ck_assert_int_eq(cf_err_recode(&err, CF_EUNAVAIL), CF_EUNAVAIL);
    ck_assert_int_eq(err.code, CF_EUNAVAIL);
    ck_assert_int_eq(err.cause, CF_EIO);
    ck_assert_int_eq(cf_err_recode(&err, CF_EINTERNAL), CF_EINTERNAL);
    ck_assert_int_eq(err.code, CF_EINTERNAL);
    ck_assert_int_eq(err.cause, CF_EIO);
    ck_assert_str_eq(err.msg, "read");
}
END_TEST

START_TEST(recode_without_err_returns_the_code)
{
    ck_assert_int_eq(cf_err_recode(NULL, CF_EIO), CF_EIO);
}
END_TEST

/* phase */

START_TEST(phase_of_the_outermost_wins)
{
    (void)cf_err_set(&err, CF_EDEADLINE, "late");
    ck_assert_int_eq(cf_err_phase(&err, CF_EDEADLINE, "pool"), CF_EDEADLINE);
    ck_assert_str_eq(err.phase, "pool");
    (void)cf_err_phase(&err, CF_EDEADLINE, "query");
    ck_assert_str_eq(err.phase, "query");
    ck_assert_str_eq(err.msg, "late");
}
END_TEST

START_TEST(phase_without_err_returns_the_code)
{
    ck_assert_int_eq(cf_err_phase(NULL, CF_EDEADLINE, "pool"), CF_EDEADLINE);
}
END_TEST

START_TEST(phase_with_another_code_asserts)
{
    (void)cf_err_set(&err, CF_EDEADLINE, "late");
    (void)cf_err_phase(&err, CF_ECANCELED, "pool");
}
END_TEST

/* retry_after */

START_TEST(retry_after_is_kept_beside_the_rest)
{
    (void)cf_err_set(&err, CF_EDEADLINE, "late");
    ck_assert_int_eq(cf_err_retry_after(&err, CF_EDEADLINE, CF_SECOND), CF_EDEADLINE);
    ck_assert_int_eq(err.retry_after_ns, CF_SECOND);
    ck_assert_int_eq(err.code, CF_EDEADLINE);
    ck_assert_str_eq(err.msg, "late");
    (void)cf_err_set(&err, CF_EDEADLINE, "later"); /* Another error knows nothing of it. */
    ck_assert_int_eq(err.retry_after_ns, 0);
}
END_TEST

START_TEST(retry_after_without_err_returns_the_code)
{
    ck_assert_int_eq(cf_err_retry_after(NULL, CF_EDEADLINE, CF_SECOND), CF_EDEADLINE);
}
END_TEST

START_TEST(retry_after_with_another_code_asserts)
{
    (void)cf_err_set(&err, CF_EDEADLINE, "late");
    (void)cf_err_retry_after(&err, CF_ECANCELED, CF_SECOND);
}
END_TEST

/* is */

START_TEST(is_knows_code_and_cause)
{
    (void)cf_err_set(&err, CF_ECANCELED, "gone");
    ck_assert(cf_err_is(&err, CF_ECANCELED));
    ck_assert(!cf_err_is(&err, CF_EUNAVAIL));
    ck_assert(!cf_err_is(&err, CF_OK)); /* It has no cause, which is not the cause "no error". */
    (void)cf_err_recode(&err, CF_EUNAVAIL);
    ck_assert(cf_err_is(&err, CF_ECANCELED));
    ck_assert(cf_err_is(&err, CF_EUNAVAIL));
    ck_assert(!cf_err_is(&err, CF_EDEADLINE));
}
END_TEST

/* names */

static const struct {
    enum cf_code code;
    const char *name;
    const char *text;
} names[] = {
    /* They stand in logs, problem documents and metrics: changing one breaks what reads those. */
    {CF_OK, "ok", "no error"},
    {CF_ECANCELED, "canceled", "context canceled"},
    {CF_EDEADLINE, "deadline_exceeded", "context deadline exceeded"},
    {CF_ECLOSED, "closed", "closed"},
    {CF_EINVAL, "invalid", "invalid input"},
    {CF_ENOTFOUND, "not_found", "not found"},
    {CF_ECONFLICT, "conflict", "conflict"},
    {CF_ELIMIT, "limit", "limit reached"},
    {CF_EUNAVAIL, "unavailable", "unavailable"},
    {CF_ENOMEM, "out_of_memory", "out of memory"},
    {CF_EIO, "io", "input or output failed"},
    {CF_EINTERNAL, "internal", "internal error"},
    {(enum cf_code)99, "unknown", "unknown error"},
    {(enum cf_code) - 1, "unknown", "unknown error"},
};

START_TEST(names_are_stable)
{
    ck_assert_str_eq(cf_code_name(names[_i].code), names[_i].name);
    ck_assert_str_eq(cf_code_text(names[_i].code), names[_i].text);
}
END_TEST

static TCase *add(Suite *suite, const char *name)
{
    TCase *tc = tcase_create(name);

    tcase_add_checked_fixture(tc, setup, NULL);
    suite_add_tcase(suite, tc);
    return tc;
}

Suite *suite_err(void)
{
    Suite *suite = suite_create("err");
    TCase *tc = add(suite, "set");

    tcase_add_test(tc, set_fills_every_field);
    tcase_add_test(tc, set_of_a_long_message_is_cut_and_terminated);
    tcase_add_loop_test(tc, set_of_a_long_message_cuts_no_character, 0, 3);
    tcase_add_test(tc, set_without_err_returns_the_code);

    tc = add(suite, "set_sys");
    tcase_add_test(tc, set_sys_keeps_errno_and_appends_its_text);
    tcase_add_test(tc, set_sys_without_err_returns_the_code);

    tc = add(suite, "wrap");
    tcase_add_test(tc, wrap_puts_the_outer_before_the_inner);
    tcase_add_test(tc, wrap_of_an_empty_message_is_the_message);
    tcase_add_test(tc, wrap_may_use_the_message_itself);
    tcase_add_test(tc, wrap_of_a_deep_chain_cuts_the_inner_text_only);
    tcase_add_loop_test(tc, wrap_cuts_no_character, 0, 3);
    tcase_add_test(tc, wrap_in_a_text_that_fills_all_leaves_nothing_of_the_inner);
    tcase_add_test(tc, wrap_without_err_returns_the_code);

    tc = add(suite, "recode");
    tcase_add_test(tc, recode_keeps_the_first_code_as_the_cause);
    tcase_add_test(tc, recode_without_err_returns_the_code);

    tc = add(suite, "phase");
    tcase_add_test(tc, phase_of_the_outermost_wins);
    tcase_add_test(tc, phase_without_err_returns_the_code);

    tc = add(suite, "retry_after");
    tcase_add_test(tc, retry_after_is_kept_beside_the_rest);
    tcase_add_test(tc, retry_after_without_err_returns_the_code);

    tc = add(suite, "is");
    tcase_add_test(tc, is_knows_code_and_cause);

    tc = add(suite, "names");
    tcase_add_loop_test(tc, names_are_stable, 0, sizeof(names) / sizeof(names[0]));

    tc = add(suite, "asserts");
    tcase_set_tags(tc, "fork");
    tcase_add_test_raise_signal(tc, wrap_with_another_code_asserts, SIGABRT);
    tcase_add_test_raise_signal(tc, phase_with_another_code_asserts, SIGABRT);
    tcase_add_test_raise_signal(tc, retry_after_with_another_code_asserts, SIGABRT);
    return suite;
}
