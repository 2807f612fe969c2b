/* SPDX-License-Identifier: MIT */
/* What of a database URL, and of libpq's variables, is refused before anything connects. */
#include <curfew/pg.h>

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH(array) (int)(sizeof(array) / sizeof((array)[0]))

/* Fixture: an environment in which libpq finds nothing */

static void setup(void)
{
    static const char *const variables[] = {"PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE"};

    for (int i = 0; i < LENGTH(variables); i++) {
        (void)unsetenv(variables[i]);
    }
}

/* url_check */

static const struct {
    const char *url;
    const char *port; /* PGPORT, or NULL. */
} good[] = {
    {"", NULL},
    {"", "5433"},
    {"", ""},
    {NULL, NULL},
    {"postgresql://user@host:5432/database", NULL},
    {"postgresql://user@host:5432/database", "abc"}, /* Not looked at. */
    {"postgresql://a:1,b:65535,c/database", NULL},
    {"host=a,b port=5432", NULL},
    {"host=a,b port=,5433", NULL},
    {"host=a port=' 5432 '", NULL},
    {"hostaddr=127.0.0.1,::1 port=1,2", NULL},
    {"dbname=database", "5432"},
};

START_TEST(url_check_takes_what_libpq_takes)
{
    struct cf_err err = {.msg = ""};

    if (good[_i].port != NULL) {
        ck_assert_int_eq(setenv("PGPORT", good[_i].port, 1), 0);
    }
    ck_assert_msg(cf_pg_url_check(good[_i].url, &err) == CF_OK, "%s: %s", good[_i].url, err.msg);
}
END_TEST

#define OF_URL "the port in the database URL"
#define PORTS ": should be a number from 1 to 65535, or one for each host"
#define FORM                                                                                       \
    "the database URL cannot be read: should be postgresql://user@host:port/database or "          \
    "key=value pairs"
#define SERVICE                                                                                    \
    "service files are not served: should be host, port and dbname, in the URL or as PGHOST, "     \
    "PGPORT, PGDATABASE"

static const struct {
    const char *url;
    const char *variable;
    const char *value;
    const char *said;
} bad[] = {
    {"mysql://host/database", NULL, NULL, FORM},
    {"postgresql://[::1", NULL, NULL, FORM},
    {"host=a nonsense=1", NULL, NULL, FORM},
    {"postgresql://host:port/database", NULL, NULL, OF_URL PORTS},
    {"postgresql://user:sesame/x@host/database", NULL, NULL, OF_URL PORTS}, /* Not repeated. */
    {"postgresql://host:0/database", NULL, NULL, OF_URL PORTS},
    {"postgresql://host:65536/database", NULL, NULL, OF_URL PORTS},
    {"postgresql://a:1,b:c/database", NULL, NULL, OF_URL PORTS},
    {"port=-1", NULL, NULL, OF_URL PORTS},
    {"port=99999999999999999999", NULL, NULL, OF_URL PORTS},
    {"port='1 2'", NULL, NULL, OF_URL PORTS},
    {"host=a,b,c port=1,2", NULL, NULL, OF_URL PORTS},
    {"host=a,b hostaddr=127.0.0.1 port=1,2", NULL, NULL, OF_URL PORTS},
    {"", "PGPORT", "abc", "PGPORT" PORTS},
    {"postgresql://host/database", "PGPORT", "5432 or so", "PGPORT" PORTS},
    {"postgresql://host/database", "PGPORT", "5432,5433", "PGPORT" PORTS},
    {"", "PGPORT", "5432,", "PGPORT" PORTS},
    {"service=a", NULL, NULL, SERVICE},
    {"", "PGSERVICE", "a", "PGSERVICE: " SERVICE},
};

START_TEST(url_check_says_what_is_wrong)
{
    struct cf_err err;

    if (bad[_i].variable != NULL) {
        ck_assert_int_eq(setenv(bad[_i].variable, bad[_i].value, 1), 0);
    }
    ck_assert_int_eq(cf_pg_url_check(bad[_i].url, &err), CF_EINVAL);
    ck_assert_str_eq(err.msg, bad[_i].said);
}
END_TEST

Suite *suite_conninfo(void)
{
    Suite *suite = suite_create("conninfo");
    TCase *check = tcase_create("check");

    tcase_add_checked_fixture(check, setup, setup);
    tcase_add_loop_test(check, url_check_takes_what_libpq_takes, 0, LENGTH(good));
    tcase_add_loop_test(check, url_check_says_what_is_wrong, 0, LENGTH(bad));
    suite_add_tcase(suite, check);
    return suite;
}
