/* SPDX-License-Identifier: MIT */
/* --config's file, files of secrets, and --dump-config, whose output is such a file again. */
#include "curfewd/config_file.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "curfewd/config.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* Fixture: two files in a directory of their own, and an environment without settings */

static char directory[] = "/tmp/curfew-test-XXXXXX";
static char path[64];
static char secret[64];
static char program[] = "curfewd";
static struct config config;
static struct cf_err err;

static const char *const variables[] = {
    "CURFEW_LISTEN", "CURFEW_POOL",       "CURFEW_LOOPS", "CURFEW_GRACE", "CURFEW_MAX_TIMEOUT",
    "DATABASE_URL",  "DATABASE_URL_FILE", "PGHOST",       "PGPASSWORD",
};

static void setup(void)
{
    for (size_t i = 0; i < LENGTH(variables); i++) {
        (void)unsetenv(variables[i]);
    }
    memset(&config, 0, sizeof(config));
    memset(&err, 0, sizeof(err));
    (void)memcpy(directory + strlen(directory) - 6, "XXXXXX", 6);
    ck_assert_ptr_nonnull(mkdtemp(directory));
    (void)snprintf(path, sizeof(path), "%s/f", directory);
    (void)snprintf(secret, sizeof(secret), "%s/s", directory);
}

static void teardown(void)
{
    config_free(&config);
    (void)unlink(path);
    (void)unlink(secret);
    (void)rmdir(directory);
    (void)unsetenv("PGHOST"); /* Of this process, where all tests run in one. */
    (void)unsetenv("PGPASSWORD");
}

/* Helpers */

static void write_bytes(const char *to, const char *text, size_t size)
{
    FILE *file = fopen(to, "we");

    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(text, 1, size, file), size);
    ck_assert_int_eq(fclose(file), 0);
}

static void write_text(const char *to, const char *text)
{
    write_bytes(to, text, strlen(text));
}

static void set(const char *name, const char *value)
{
    ck_assert_int_eq(setenv(name, value, 1), 0);
}

/* With --config before up to two arguments; the first NULL ends them. */
static void load(enum config_outcome wanted, const char *first, const char *second)
{
    char config_flag[] = "--config";
    char *argv[] = {program, config_flag, path, (char *)(uintptr_t)first, (char *)(uintptr_t)second,
                    NULL};
    enum config_outcome got;
    int argc = 0;

    while (argv[argc] != NULL) {
        argc++;
    }
    config_free(&config);
    got = config_load(argc, argv, &config, &err);
    ck_assert_msg(got == wanted, "outcome %d, not %d; it said: %s", got, wanted, err.msg);
}

static void load_text(enum config_outcome wanted, const char *text)
{
    write_text(path, text);
    load(wanted, NULL, NULL);
}

/* The text of the error is the path and this. */
static void expect_said(const char *before, const char *file, const char *after)
{
    char said[256];

    (void)snprintf(said, sizeof(said), "%s%s%s", before, file, after);
    ck_assert_str_eq(err.msg, said);
}

/* The caller frees it. */
static char *dump(void)
{
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);

    ck_assert_ptr_nonnull(file);
    config_dump(&config, file);
    ck_assert_int_eq(fclose(file), 0);
    return text;
}

static void expect_line(const char *text, const char *line)
{
    char whole[256];

    (void)snprintf(whole, sizeof(whole), "\n%s\n", line);
    ck_assert_msg(strstr(text, whole) != NULL, "no line \"%s\" in: %s", line, text);
}

/* config_file_next */

START_TEST(next_finds_lines)
{
    char text[] = "# comment\n\n \t\n  KEY=a=b \n#=\nempty=\n\tlast=\"x\"";
    static const struct config_line want[] = {{"KEY", "a=b "}, {"empty", ""}, {"last", "\"x\""}};
    static const unsigned numbers[] = {4, 6, 7};
    struct config_lines lines = {.rest = text};
    struct config_line line;

    for (size_t i = 0; i < LENGTH(want); i++) {
        ck_assert_int_eq(config_file_next(&lines, &line, &err), CF_OK);
        ck_assert_str_eq(line.key, want[i].key);
        ck_assert_str_eq(line.value, want[i].value);
        ck_assert_uint_eq(lines.number, numbers[i]);
    }
    ck_assert_int_eq(config_file_next(&lines, &line, &err), CF_OK);
    ck_assert_ptr_null(line.key);
}
END_TEST

/* load */

START_TEST(load_takes_file_over_default_only)
{
    write_text(path, "CURFEW_POOL=3\nCURFEW_LOOPS=2\nCURFEW_GRACE=1s\n");
    set("CURFEW_LOOPS", "1");
    set("CURFEW_GRACE", "never");
    load(CONFIG_OK, "--grace=2s", NULL);
    ck_assert_int_eq(config.pool, 3);
    ck_assert_int_eq(config.loops, 1);
    ck_assert_int_eq(config.grace_ns, 2 * CF_SECOND);
    ck_assert_str_eq(config.listen, "127.0.0.1:8080");
}
END_TEST

START_TEST(load_last_line_of_file_wins)
{
    load_text(CONFIG_OK, "CURFEW_POOL=many\nCURFEW_POOL=4");
    ck_assert_int_eq(config.pool, 4);
}
END_TEST

/* As docker's --env-file would, and without a say where the environment has one. */
START_TEST(load_passes_variables_of_libpq_on)
{
    set("PGPASSWORD", "sesame");
    load_text(CONFIG_OK, "PGHOST=/run\nPGPASSWORD=other\n");
    ck_assert_str_eq(getenv("PGHOST"), "/run");
    ck_assert_str_eq(getenv("PGPASSWORD"), "sesame");
}
END_TEST

static const struct {
    const char *text;
    const char *said; /* Behind the path. */
} bad[] = {
    {"\nCURFEW_POOL=many\n", ":2: CURFEW_POOL=\"many\": should be a number from 1 to 10000"},
    {"CURFW_POOL=4\n", ":1: unknown setting CURFW_POOL: --help lists them"},
    {"#\nCURFEW_POOL\n", ":2: should be KEY=VALUE, or a comment that starts with #"},
    {"=4\n", ":1: should be KEY=VALUE, or a comment that starts with #"},
    {"CURFEW_POOL =4\n", ":1: unknown setting CURFEW_POOL : --help lists them"},
    {"CURFEW_POOL_FILE=/dev/null\n", ":1: unknown setting CURFEW_POOL_FILE: --help lists them"},
    {"CURFEW_LISTEN='a:1'\n", ":1: CURFEW_LISTEN=\"'a:1'\": should be one line, without quotes "
                              "around it or control characters"},
    {"CURFEW_LISTEN=a:1\r\n", ":1: CURFEW_LISTEN=\"a:1?\": should be one line, without quotes "
                              "around it or control characters"},
    {"DATABASE_URL='sesame'\n", ":1: DATABASE_URL: should be one line, without quotes around it or "
                                "control characters"},
    {"\nCURFEW_LISTEN=nowhere\n",
     ":2: CURFEW_LISTEN=\"nowhere\": should be host:port, with a port from 0 to 65535"},
    {"CURFEW_TRUSTED_PROXIES=bogus\n",
     ":1: CURFEW_TRUSTED_PROXIES: \"bogus\" is neither an address "
     "nor a network such as 10.0.0.0/8"},
    {"CURFEW_FETCH_ALLOW=b:0\n", ":1: CURFEW_FETCH_ALLOW: \"b:0\" is no rule: should be like "
                                 "api.example.org, https://*.example.org:8443, * or 10.0.0.0/8"},
    {"PGHOST=a\x01\n", ":1: PGHOST: should be without control characters"},
    {"DATABASE_URL=a\nDATABASE_URL_FILE=b\n",
     ":2: DATABASE_URL and DATABASE_URL_FILE are both set: should be one of them"},
};

START_TEST(load_names_file_and_line)
{
    load_text(CONFIG_BAD, bad[_i].text);
    expect_said("", path, bad[_i].said);
}
END_TEST

START_TEST(load_refuses_what_is_no_file)
{
    static char large[CONFIG_FILE_SIZE_MAX + 1];

    load(CONFIG_BAD, NULL, NULL);
    expect_said("--config ", path, ": cannot open it: No such file or directory");
    load(CONFIG_BAD, "--config", directory);
    expect_said("--config ", directory, ": cannot read it: Is a directory");

    write_bytes(path, "a=\0", 3);
    load(CONFIG_BAD, NULL, NULL);
    expect_said("--config ", path, ": not a text: there is a NUL in it");

    memset(large, '\n', sizeof(large));
    write_bytes(path, large, sizeof(large) - 1);
    load(CONFIG_OK, NULL, NULL);
    write_bytes(path, large, sizeof(large));
    load(CONFIG_BAD, NULL, NULL);
    expect_said("--config ", path, ": larger than 64 KiB");
}
END_TEST

/* load: secrets */

START_TEST(load_reads_secret_from_its_file)
{
    write_text(secret, "postgresql://u:sesame@host/database\n");
    set("DATABASE_URL_FILE", secret);
    set("DATABASE_URL", ""); /* As compose passes on what is not set. */
    load_text(CONFIG_OK, "DATABASE_URL=postgresql://elsewhere\n");
    ck_assert_str_eq(config.database_url, "postgresql://u:sesame@host/database");
}
END_TEST

START_TEST(load_refuses_secret_given_twice)
{
    set("DATABASE_URL_FILE", secret);
    set("DATABASE_URL", "postgresql://");
    load_text(CONFIG_BAD, "");
    expect_said("", "DATABASE_URL and DATABASE_URL_FILE", " are both set: should be one of them");
}
END_TEST

START_TEST(load_names_file_of_secret_that_is_not_there)
{
    set("DATABASE_URL_FILE", secret);
    load_text(CONFIG_BAD, "");
    expect_said("DATABASE_URL_FILE ", secret, ": cannot open it: No such file or directory");
}
END_TEST

/* Else libpq would look for a server of its own. */
START_TEST(load_refuses_empty_file_of_secret)
{
    static const char *const texts[] = {"", "\n", " \t\r\n", "\npostgresql://host/database\n"};

    for (size_t i = 0; i < LENGTH(texts); i++) {
        write_text(secret, texts[i]);
        set("DATABASE_URL_FILE", secret);
        load_text(CONFIG_BAD, "");
        expect_said("DATABASE_URL_FILE ", secret, ": its first line is empty");
    }
}
END_TEST

/* dump */

START_TEST(dump_says_where_values_come_from)
{
    char from[128];
    char *text;

    write_text(path, "\nCURFEW_LOOPS=2\n");
    set("CURFEW_POOL", "007");
    load(CONFIG_DUMP, "--demo", "--dump-config");
    text = dump();
    expect_line(text, "# connections to PostgreSQL for queries, in all (environment)\n"
                      "CURFEW_POOL=007");
    (void)snprintf(from, sizeof(from), "quota and pool (%s:2)\nCURFEW_LOOPS=2\n", path);
    ck_assert_msg(strstr(text, from) != NULL, "no \"%s\" in: %s", from, text);
    expect_line(text, "# serve /v1/sleep (command line)\nCURFEW_DEMO=1");
    ck_assert_ptr_nonnull(strstr(text, "(default)\nCURFEW_LISTEN=127.0.0.1:8080\n"));
    free(text);

    load(CONFIG_OK, "--max-timeout=1s", NULL);
    text = dump();
    ck_assert_ptr_nonnull(
        strstr(text, "(default, cut to --max-timeout)\nCURFEW_DEFAULT_TIMEOUT=1s\n"));
    free(text);

    load(CONFIG_OK, "--connections=100", NULL);
    text = dump();
    ck_assert_ptr_nonnull(
        strstr(text, "(default, cut below --connections)\nCURFEW_IN_FLIGHT=99\n"));
    write_text(path, text);
    load(CONFIG_OK, NULL, NULL); /* And can be read again. */
    free(text);
}
END_TEST

START_TEST(dump_masks_secrets)
{
    char line[128];
    char *text;

    set("DATABASE_URL", "postgresql://u:sesame@host/database");
    set("PGPASSWORD", "sesame");
    set("PGHOST", "somewhere");
    load_text(CONFIG_OK, "");
    text = dump();
    ck_assert_ptr_null(strstr(text, "sesame"));
    expect_line(text, "#DATABASE_URL=********");
    expect_line(text, "#PGPASSWORD=********");
    expect_line(text, "PGHOST=somewhere");
    free(text);

    write_text(secret, "postgresql://u:sesame@host/database\n");
    (void)unsetenv("DATABASE_URL");
    set("DATABASE_URL_FILE", secret);
    load(CONFIG_OK, NULL, NULL);
    text = dump();
    ck_assert_ptr_null(strstr(text, "sesame"));
    (void)snprintf(line, sizeof(line), "DATABASE_URL_FILE=%s", secret);
    expect_line(text, line);
    free(text);

    (void)unsetenv("DATABASE_URL_FILE");
    load(CONFIG_OK, NULL, NULL);
    text = dump();
    expect_line(text, "#DATABASE_URL=");
    free(text);
}
END_TEST

/* Nothing else than where a value comes from differs. */
START_TEST(dump_is_a_file_of_the_same_settings)
{
    struct config first;
    char *text;

    write_text(secret, "postgresql://u:sesame@host/database\n");
    set("DATABASE_URL_FILE", secret);
    set("CURFEW_LISTEN", "[::1]:1");
    set("CURFEW_ADMIN_HOSTS", "curfew, curfew.internal");
    write_text(path, "CURFEW_POOL=3\nCURFEW_MAX_TIMEOUT=2s\n");
    load(CONFIG_OK, "--grace=0.5ms", "--demo");
    first = config;
    config.texts = NULL; /* Of `first` now. */
    text = dump();

    (void)unsetenv("DATABASE_URL_FILE");
    (void)unsetenv("CURFEW_LISTEN");
    (void)unsetenv("CURFEW_ADMIN_HOSTS");
    load_text(CONFIG_OK, text);
    ck_assert_str_eq(config.listen, first.listen);
    ck_assert_str_eq(config.admin, first.admin);
    ck_assert_str_eq(config.database_url, first.database_url);
    ck_assert_str_eq(config.trusted_proxies, first.trusted_proxies);
    ck_assert_str_eq(config.admin_hosts, first.admin_hosts);
    ck_assert_int_eq(memcmp(&config.pool, &first.pool, /* All that are numbers. */
                            offsetof(struct config, half_close) - offsetof(struct config, pool)),
                     0);
    ck_assert_int_eq(config.half_close, first.half_close);
    ck_assert_int_eq(config.core_dumps, first.core_dumps);
    ck_assert_int_eq(config.demo, first.demo);
    config_free(&first);
    free(text);
}
END_TEST

Suite *suite_config_file(void)
{
    Suite *suite = suite_create("config_file");
    TCase *next = tcase_create("next");
    TCase *source = tcase_create("load");
    TCase *secrets = tcase_create("secret");
    TCase *dumped = tcase_create("dump");

    tcase_add_test(next, next_finds_lines);
    suite_add_tcase(suite, next);

    tcase_add_checked_fixture(source, setup, teardown);
    tcase_add_test(source, load_takes_file_over_default_only);
    tcase_add_test(source, load_last_line_of_file_wins);
    tcase_add_test(source, load_passes_variables_of_libpq_on);
    tcase_add_loop_test(source, load_names_file_and_line, 0, LENGTH(bad));
    tcase_add_test(source, load_refuses_what_is_no_file);
    suite_add_tcase(suite, source);

    tcase_add_checked_fixture(secrets, setup, teardown);
    tcase_add_test(secrets, load_reads_secret_from_its_file);
    tcase_add_test(secrets, load_refuses_secret_given_twice);
    tcase_add_test(secrets, load_names_file_of_secret_that_is_not_there);
    tcase_add_test(secrets, load_refuses_empty_file_of_secret);
    suite_add_tcase(suite, secrets);

    tcase_add_checked_fixture(dumped, setup, teardown);
    tcase_add_test(dumped, dump_says_where_values_come_from);
    tcase_add_test(dumped, dump_masks_secrets);
    tcase_add_test(dumped, dump_is_a_file_of_the_same_settings);
    suite_add_tcase(suite, dumped);
    return suite;
}
