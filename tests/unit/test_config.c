/* SPDX-License-Identifier: MIT */
/* Where a setting comes from, what it may be, and what is said when it is something else. */
#include "curfewd/config.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Fixture: every setting there is, as the interface promises it. */

static const struct {
    const char *flag;
    const char *env;
    const char *fallback;
    const char *bad; /* NULL: any text is good, or what is said of a bad one is tested below. */
} settings[] = {
    {"--listen", "CURFEW_LISTEN", "127.0.0.1:8080", "nowhere"},
    {"--admin", "CURFEW_ADMIN", "127.0.0.1:8081", "[::1]"},
    {NULL, "DATABASE_URL", "", NULL},
    {"--pool", "CURFEW_POOL", "16", "many"},
    {"--loops", "CURFEW_LOOPS", "0", "-1"},
    {"--cancel", "CURFEW_CANCEL", "auto", "never"},
    {"--default-timeout", "CURFEW_DEFAULT_TIMEOUT", "5s", "soon"},
    {"--max-timeout", "CURFEW_MAX_TIMEOUT", "60s", "2h"},
    {"--export-timeout", "CURFEW_EXPORT_TIMEOUT", "10m", "25h"},
    {"--exports", "CURFEW_EXPORTS", "4", "0"},
    {"--grace", "CURFEW_GRACE", "8s", "8"},
    {"--idle-timeout", "CURFEW_IDLE_TIMEOUT", "60s", "500ms"},
    {"--head-timeout", "CURFEW_HEAD_TIMEOUT", "10s", "99ms"},
    {"--body-timeout", "CURFEW_BODY_TIMEOUT", "30s", "0"},
    {"--send-timeout", "CURFEW_SEND_TIMEOUT", "30s", "30"},
    {"--in-flight", "CURFEW_IN_FLIGHT", "8192", "0"},
    {"--waiters", "CURFEW_WAITERS", "0", "-1"},
    {"--connections", "CURFEW_CONNECTIONS", "10000", "1e4"},
    {"--connections-per-address", "CURFEW_CONNECTIONS_PER_ADDRESS", "0", "few"},
    {"--trusted-proxies", "CURFEW_TRUSTED_PROXIES", "", NULL},
    {"--admin-hosts", "CURFEW_ADMIN_HOSTS", "", NULL},
    {"--fetch-allow", "CURFEW_FETCH_ALLOW", "", NULL},
    {"--head-size", "CURFEW_HEAD_SIZE", "14k", "31k"},
    {"--target-size", "CURFEW_TARGET_SIZE", "8k", "8kB"},
    {"--fields", "CURFEW_FIELDS", "100", "9"},
    {"--body-size", "CURFEW_BODY_SIZE", "1m", "0"},
    {"--bodies-size", "CURFEW_BODIES_SIZE", "64m", "64g"},
    {"--image-size", "CURFEW_IMAGE_SIZE", "10m", "257m"},
    {"--image-pixels", "CURFEW_IMAGE_PIXELS", "40000000", "40m"},
    {"--image-memory", "CURFEW_IMAGE_MEMORY", "256m", "3m"},
    {"--image-threads", "CURFEW_IMAGE_THREADS", "0", "257"},
    {"--cache-ttl", "CURFEW_CACHE_TTL", "2s", "2"},
    {"--cache-stale", "CURFEW_CACHE_STALE", "10s", "2h"},
    {"--cache-stale-if-error", "CURFEW_CACHE_STALE_IF_ERROR", "60s", "25h"},
    {"--cache-negative-ttl", "CURFEW_CACHE_NEGATIVE_TTL", "1s", "-1s"},
    {"--cache-entries", "CURFEW_CACHE_ENTRIES", "20000", "0"},
    {"--cache-size", "CURFEW_CACHE_SIZE", "64m", "1k"},
    {"--notify", "CURFEW_NOTIFY", "1", "on"},
    {"--idempotency-ttl", "CURFEW_IDEMPOTENCY_TTL", "1440m", "1d"},
    {"--half-close", "CURFEW_HALF_CLOSE", "0", "yes"},
    {"--core-dumps", "CURFEW_CORE_DUMPS", "0", "no"},
    {"--demo", "CURFEW_DEMO", "0", "2"},
};

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
#define N_SETTINGS LENGTH(settings)

static char program[] = "curfewd";
static struct config config;
static struct cf_err err;

/* Settings of whoever runs the tests are none of theirs. */
static void setup(void)
{
    for (size_t i = 0; i < N_SETTINGS; i++) {
        (void)unsetenv(settings[i].env);
    }
    (void)unsetenv("PGPORT");
    config_free(&config);
    memset(&config, 0, sizeof(config));
    memset(&err, 0, sizeof(err));
}

/* Helpers */

/* Up to three arguments; the first NULL ends them. */
static enum config_outcome load(const char *first, const char *second, const char *third)
{
    char *argv[] = {program, (char *)(uintptr_t)first, (char *)(uintptr_t)second,
                    (char *)(uintptr_t)third, NULL};
    int argc = 0;

    while (argv[argc] != NULL) {
        argc++;
    }
    return config_load(argc, argv, &config, &err);
}

static void expect(enum config_outcome got, enum config_outcome wanted)
{
    ck_assert_msg(got == wanted, "outcome %d, not %d; it said: %s", got, wanted, err.msg);
}

static void expect_mention(const char *text)
{
    ck_assert_msg(strstr(err.msg, text) != NULL, "\"%s\" is not in: %s", text, err.msg);
}

/* A person reads it: one line, that is whole. */
static void expect_one_line(void)
{
    for (const char *c = err.msg; *c != '\0'; c++) {
        ck_assert_msg((unsigned char)*c >= 0x20 && *c != 0x7F, "control character in: %s", err.msg);
    }
    ck_assert_uint_lt(strlen(err.msg), sizeof(err.msg) - 1);
}

static char *help(void)
{
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);

    ck_assert_ptr_nonnull(file);
    config_print_help(file);
    ck_assert_int_eq(fclose(file), 0);
    return text;
}

/* load: where a value comes from */

START_TEST(load_of_nothing_gives_defaults)
{
    expect(load(NULL, NULL, NULL), CONFIG_OK);
    ck_assert_str_eq(config.listen, "127.0.0.1:8080");
    ck_assert_str_eq(config.admin, "127.0.0.1:8081");
    ck_assert_str_eq(config.database_url, "");
    ck_assert_int_eq(config.pool, 16);
    ck_assert_int_eq(config.loops, 0);
    ck_assert_int_eq(config.cancel, CF_PG_CANCEL_AUTO);
    ck_assert_int_eq(config.default_timeout_ns, 5 * CF_SECOND);
    ck_assert_int_eq(config.max_timeout_ns, 60 * CF_SECOND);
    ck_assert_int_eq(config.export_timeout_ns, 600 * CF_SECOND);
    ck_assert_int_eq(config.exports, 4);
    ck_assert_int_eq(config.grace_ns, 8 * CF_SECOND);
    ck_assert_int_eq(config.idle_timeout_ns, 60 * CF_SECOND);
    ck_assert_int_eq(config.head_timeout_ns, 10 * CF_SECOND);
    ck_assert_int_eq(config.body_timeout_ns, 30 * CF_SECOND);
    ck_assert_int_eq(config.send_timeout_ns, 30 * CF_SECOND);
    ck_assert_int_eq(config.in_flight, 8192);
    ck_assert_int_eq(config.waiters, 0);
    ck_assert_int_eq(config.connections, 10000);
    ck_assert_int_eq(config.connections_per_address, 0);
    ck_assert_str_eq(config.trusted_proxies, "");
    ck_assert_str_eq(config.admin_hosts, "");
    ck_assert_str_eq(config.fetch_allow, "");
    ck_assert_int_eq(config.head_size, 14 * 1024);
    ck_assert_int_eq(config.target_size, 8 * 1024);
    ck_assert_int_eq(config.fields, 100);
    ck_assert_int_eq(config.body_size, 1024 * 1024);
    ck_assert_int_eq(config.bodies_size, 64 * 1024 * 1024);
    ck_assert_int_eq(config.image_size, 10 * 1024 * 1024);
    ck_assert_int_eq(config.image_pixels, 40000000);
    ck_assert_int_eq(config.image_memory, 256 * 1024 * 1024);
    ck_assert_int_eq(config.image_threads, 0);
    ck_assert_int_eq(config.cache_ttl_ns, 2 * CF_SECOND);
    ck_assert_int_eq(config.cache_stale_ns, 10 * CF_SECOND);
    ck_assert_int_eq(config.cache_stale_if_error_ns, 60 * CF_SECOND);
    ck_assert_int_eq(config.cache_negative_ttl_ns, CF_SECOND);
    ck_assert_int_eq(config.cache_entries, 20000);
    ck_assert_int_eq(config.cache_size, 64 * 1024 * 1024);
    ck_assert(!config.half_close);
    ck_assert(!config.core_dumps);
    ck_assert(!config.demo);
}
END_TEST

/* Each to a value that is not its default, so that a mix-up of two fields shows. */
static void expect_others(void)
{
    ck_assert_str_eq(config.listen, "[::1]:1");
    ck_assert_str_eq(config.admin, "localhost:2");
    ck_assert_str_eq(config.database_url, "postgresql://host/database");
    ck_assert_int_eq(config.pool, 3);
    ck_assert_int_eq(config.loops, 2);
    ck_assert_int_eq(config.cancel, CF_PG_CANCEL_CONTROL);
    ck_assert_int_eq(config.default_timeout_ns, 4 * CF_SECOND);
    ck_assert_int_eq(config.max_timeout_ns, 300 * CF_SECOND);
    ck_assert_int_eq(config.export_timeout_ns, 420 * CF_SECOND);
    ck_assert_int_eq(config.exports, 5);
    ck_assert_int_eq(config.grace_ns, 6 * CF_MS);
    ck_assert_int_eq(config.idle_timeout_ns, 11 * CF_SECOND);
    ck_assert_int_eq(config.head_timeout_ns, 12 * CF_SECOND);
    ck_assert_int_eq(config.body_timeout_ns, 13 * CF_SECOND);
    ck_assert_int_eq(config.send_timeout_ns, 14 * CF_SECOND);
    ck_assert_int_eq(config.in_flight, 7);
    ck_assert_int_eq(config.waiters, 8);
    ck_assert_int_eq(config.connections, 9);
    ck_assert_int_eq(config.connections_per_address, 10);
    ck_assert_str_eq(config.trusted_proxies, "10.0.0.0/8");
    ck_assert_str_eq(config.admin_hosts, "curfew");
    ck_assert_str_eq(config.fetch_allow, "api.example.org");
    ck_assert_int_eq(config.head_size, 5000);
    ck_assert_int_eq(config.target_size, 4 * 1024);
    ck_assert_int_eq(config.fields, 50);
    ck_assert_int_eq(config.body_size, 2 * 1024 * 1024);
    ck_assert_int_eq(config.bodies_size, 3 * 1024 * 1024);
    ck_assert_int_eq(config.image_size, 5 * 1024 * 1024);
    ck_assert_int_eq(config.image_pixels, 1000);
    ck_assert_int_eq(config.image_memory, 6 * 1024 * 1024);
    ck_assert_int_eq(config.image_threads, 19);
    ck_assert_int_eq(config.cache_ttl_ns, 0);
    ck_assert_int_eq(config.cache_stale_ns, 15 * CF_SECOND);
    ck_assert_int_eq(config.cache_stale_if_error_ns, 16 * CF_SECOND);
    ck_assert_int_eq(config.cache_negative_ttl_ns, 17 * CF_SECOND);
    ck_assert_int_eq(config.cache_entries, 18);
    ck_assert_int_eq(config.cache_size, 4 * 1024 * 1024);
    ck_assert(!config.notify);
    ck_assert_int_eq(config.idempotency_ttl_ns, 90 * CF_SECOND);
    ck_assert(config.half_close);
    ck_assert(config.core_dumps);
    ck_assert(config.demo);
}

static const char *const others[N_SETTINGS] = {
    "[::1]:1",
    "localhost:2",
    "postgresql://host/database",
    "3",
    "2",
    "control",
    "4s",
    "5m",
    "7m",
    "5",
    "6ms",
    "11s",
    "12s",
    "13s",
    "14s",
    "7",
    "8",
    "9",
    "10",
    "10.0.0.0/8",
    "curfew",
    "api.example.org",
    "5000",
    "4k",
    "50",
    "2m",
    "3072k",
    "5m",
    "1000",
    "6m",
    "19",
    "0",
    "15s",
    "16s",
    "17s",
    "18",
    "4m",
    "0",
    "90s",
    "1",
    "1",
    "true",
};

static bool is_switch(const char *flag)
{
    return strcmp(flag, "--notify") == 0 || strcmp(flag, "--half-close") == 0 ||
           strcmp(flag, "--core-dumps") == 0 || strcmp(flag, "--demo") == 0;
}

START_TEST(load_reads_every_variable)
{
    for (size_t i = 0; i < N_SETTINGS; i++) {
        ck_assert_int_eq(setenv(settings[i].env, others[i], 1), 0);
    }
    expect(load(NULL, NULL, NULL), CONFIG_OK);
    expect_others();
}
END_TEST

/* "--flag value" where _i is 0, else "--flag=value".
 * A flag of 0 or 1 takes the second form only. */
START_TEST(load_reads_every_flag)
{
    static char joined[N_SETTINGS][64];
    char *argv[2 * N_SETTINGS + 2] = {program};
    int argc = 1;

    ck_assert_int_eq(setenv("DATABASE_URL", others[2], 1), 0);
    for (size_t i = 0; i < N_SETTINGS; i++) {
        if (settings[i].flag == NULL) {
            continue;
        }
        if (_i == 0 && !is_switch(settings[i].flag)) {
            argv[argc++] = (char *)(uintptr_t)settings[i].flag;
            argv[argc++] = (char *)(uintptr_t)others[i];
            continue;
        }
        (void)snprintf(joined[i], sizeof(joined[i]), "%s=%s", settings[i].flag, others[i]);
        argv[argc++] = joined[i];
    }
    expect(config_load(argc, argv, &config, &err), CONFIG_OK);
    expect_others();
}
END_TEST

START_TEST(load_flag_wins_over_variable)
{
    ck_assert_int_eq(setenv("CURFEW_POOL", "8", 1), 0);
    ck_assert_int_eq(setenv("CURFEW_DEMO", "1", 1), 0);
    expect(load("--pool=4", "--demo=0", NULL), CONFIG_OK);
    ck_assert_int_eq(config.pool, 4);
    ck_assert(!config.demo);
}
END_TEST

/* What loses is not looked at. */
START_TEST(load_flag_wins_over_bad_variable)
{
    ck_assert_int_eq(setenv("CURFEW_POOL", "many", 1), 0);
    expect(load("--pool=5", NULL, NULL), CONFIG_OK);
    ck_assert_int_eq(config.pool, 5);
}
END_TEST

START_TEST(load_last_flag_wins)
{
    expect(load("--pool=4", "--pool", "5"), CONFIG_OK);
    ck_assert_int_eq(config.pool, 5);
}
END_TEST

START_TEST(load_value_may_hold_an_equals_sign)
{
    expect(load("--pool=a=b", NULL, NULL), CONFIG_BAD);
    expect_mention("--pool=\"a=b\"");
    expect(load("--pool", "c=d", NULL), CONFIG_BAD);
    expect_mention("--pool=\"c=d\"");
}
END_TEST

START_TEST(load_switch_alone_means_1)
{
    expect(load("--demo", "--pool", "2"), CONFIG_OK);
    ck_assert(config.demo);
    ck_assert_int_eq(config.pool, 2);
    expect(load("--demo", "0", NULL), CONFIG_USAGE); /* No value of it: as --help says. */
}
END_TEST

START_TEST(load_writes_nothing_on_failure)
{
    config.pool = 77;
    expect(load("--pool=4", "--grace=never", NULL), CONFIG_BAD);
    ck_assert_int_eq(config.pool, 77);
    ck_assert_ptr_null(config.listen);
}
END_TEST

/* load: values */

static const struct {
    const char *arg;
    size_t offset;
    int64_t value;
} good[] = {
    {"--pool=1", offsetof(struct config, pool), 1},
    {"--pool=10000", offsetof(struct config, pool), 10000},
    {"--pool=007", offsetof(struct config, pool), 7},
    {"--loops=0", offsetof(struct config, loops), 0},
    {"--in-flight=1", offsetof(struct config, in_flight), 1},
    {"--in-flight=9999", offsetof(struct config, in_flight), 9999},
    {"--connections=1", offsetof(struct config, connections), 1},
    {"--connections=1000000", offsetof(struct config, connections), 1000000},
    {"--default-timeout=1ms", offsetof(struct config, default_timeout_ns), CF_MS},
    {"--default-timeout=1m", offsetof(struct config, default_timeout_ns), 60 * CF_SECOND},
    {"--default-timeout=1.5s", offsetof(struct config, default_timeout_ns), 1500 * CF_MS},
    {"--max-timeout=1ms", offsetof(struct config, max_timeout_ns), CF_MS},
    {"--max-timeout=3600s", offsetof(struct config, max_timeout_ns), 3600 * CF_SECOND},
    {"--max-timeout=3600000ms", offsetof(struct config, max_timeout_ns), 3600 * CF_SECOND},
    {"--max-timeout=0.5m", offsetof(struct config, max_timeout_ns), 30 * CF_SECOND},
    {"--grace=0ms", offsetof(struct config, grace_ns), 0},
    {"--grace=0s", offsetof(struct config, grace_ns), 0},
    {"--grace=0.5ms", offsetof(struct config, grace_ns), CF_MS / 2},
    {"--head-size=4k", offsetof(struct config, head_size), 4096},
    {"--head-size=30720", offsetof(struct config, head_size), 30720},
    {"--body-size=1", offsetof(struct config, body_size), 1},
    {"--body-size=64m", offsetof(struct config, body_size), 64 * 1024 * 1024},
    {"--bodies-size=1048576m", offsetof(struct config, bodies_size), INT64_C(1) << 40},
    {"--cancel=auto", offsetof(struct config, cancel), CF_PG_CANCEL_AUTO},
    {"--cancel=control", offsetof(struct config, cancel), CF_PG_CANCEL_CONTROL},
    {"--cancel=pqcancel", offsetof(struct config, cancel), CF_PG_CANCEL_PQCANCEL},
};

START_TEST(load_takes_good_value)
{
    int64_t value;

    expect(load(good[_i].arg, NULL, NULL), CONFIG_OK);
    memcpy(&value, (const char *)&config + good[_i].offset, sizeof(value));
    ck_assert_int_eq(value, good[_i].value);
}
END_TEST

START_TEST(load_takes_as_many_loops_as_pool)
{
    expect(load("--loops=256", "--pool=256", NULL), CONFIG_OK);
    ck_assert_int_eq(config.loops, 256);
}
END_TEST

static const struct {
    const char *text;
    bool value;
} booleans[] = {{"1", true}, {"true", true}, {"0", false}, {"false", false}, {"", false}};

START_TEST(load_takes_boolean)
{
    char demo[16];
    char half_close[32];

    (void)snprintf(demo, sizeof(demo), "--demo=%s", booleans[_i].text);
    (void)snprintf(half_close, sizeof(half_close), "--half-close=%s", booleans[_i].text);
    expect(load(demo, half_close, NULL), CONFIG_OK);
    ck_assert_int_eq(config.demo, booleans[_i].value);
    ck_assert_int_eq(config.half_close, booleans[_i].value);
}
END_TEST

static const struct {
    const char *arg;
    const char *right; /* What the message offers instead. */
} bad[] = {
    {"--pool=0", "a number from 1 to 10000"},
    {"--pool=10001", "a number from 1 to 10000"},
    {"--pool=-1", "a number from 1 to 10000"},
    {"--pool=", "a number from 1 to 10000"},
    {"--pool=4x", "a number from 1 to 10000"},
    {"--pool=4 ", "a number from 1 to 10000"},
    {"--pool=0x10", "a number from 1 to 10000"},
    {"--pool=1.5", "a number from 1 to 10000"},
    {"--pool= 4", "a number from 1 to 10000"},
    {"--pool=+4", "a number from 1 to 10000"},
    {"--pool=9223372036854775808", "a number from 1 to 10000"},
    {"--pool=18446744073709551617", "a number from 1 to 10000"},
    {"--loops=-1", "a number from 0 to 256"},
    {"--loops=257", "a number from 0 to 256"},
    {"--in-flight=0", "a number from 1 to 999999"},
    {"--in-flight=1000000", "a number from 1 to 999999"},
    {"--connections=0", "a number from 1 to 1000000"},
    {"--connections=1000001", "a number from 1 to 1000000"},
    {"--default-timeout=0ms", "from 1ms to 3600s"},
    {"--default-timeout=0.999ms", "from 1ms to 3600s"},
    {"--default-timeout=61m", "from 1ms to 3600s"},
    {"--max-timeout=0s", "from 1ms to 3600s"},
    {"--max-timeout=3600001ms", "from 1ms to 3600s"},
    {"--grace=-1ms", "from 0ms to 3600s"},
    {"--grace=3601s", "from 0ms to 3600s"},
    {"--grace=", "250ms, 5s or 1m"},
    {"--grace=5", "250ms, 5s or 1m"},
    {"--grace=s", "250ms, 5s or 1m"},
    {"--grace=5 s", "250ms, 5s or 1m"},
    {"--grace=5S", "250ms, 5s or 1m"},
    {"--grace=5sec", "250ms, 5s or 1m"},
    {"--grace=1m30s", "250ms, 5s or 1m"},
    {"--grace=1us", "250ms, 5s or 1m"},
    {"--grace=nans", "250ms, 5s or 1m"},
    {"--grace=infs", "250ms, 5s or 1m"},
    {"--grace= 5s", "250ms, 5s or 1m"},
    {"--grace=+5s", "250ms, 5s or 1m"},
    {"--grace=0x5s", "250ms, 5s or 1m"},
    {"--grace=5e2ms", "250ms, 5s or 1m"},
    {"--grace=.s", "250ms, 5s or 1m"},
    {"--grace=-infs", "250ms, 5s or 1m"},
    {"--grace=1e400s", "250ms, 5s or 1m"},
    {"--head-size=4095", "from 4096 to 30720 bytes"},
    {"--head-size=31k", "from 4096 to 30720 bytes"},
    {"--body-size=", "20000, 64k or 1m"},
    {"--body-size=-1", "20000, 64k or 1m"},
    {"--body-size=1K", "20000, 64k or 1m"},
    {"--body-size=1.5m", "20000, 64k or 1m"},
    {"--body-size=1 k", "20000, 64k or 1m"},
    {"--body-size=9007199254740992k", "20000, 64k or 1m"},
    {"--demo=yes", "1 or 0"},
    {"--demo=2", "1 or 0"},
    {"--demo=TRUE", "1 or 0"},
    {"--half-close=01", "1 or 0"},
    {"--listen=\"[::1]:1\"", "without quotes around it"},
    {"--listen='[::1]:1'", "without quotes around it"},
    {"--listen=", "host:port, with a port from 0 to 65535"},
    {"--listen=127.0.0.1:99999", "host:port, with a port from 0 to 65535"},
    {"--admin=127.0.0.1:http", "host:port, with a port from 0 to 65535"},
    {"--cancel=", "auto, control, async or pqcancel"},
    {"--cancel=Auto", "auto, control, async or pqcancel"},
    {"--cancel=control,pqcancel", "auto, control, async or pqcancel"},
};

START_TEST(load_refuses_bad_value)
{
    char named[128];
    int length = (int)strcspn(bad[_i].arg, "=");

    expect(load(bad[_i].arg, NULL, NULL), CONFIG_BAD);
    ck_assert_int_eq(err.code, CF_EINVAL);
    (void)snprintf(named, sizeof(named), "%.*s=\"%s\": should be ", length, bad[_i].arg,
                   bad[_i].arg + length + 1);
    ck_assert_msg(strncmp(err.msg, named, strlen(named)) == 0, "not \"%s...\": %s", named, err.msg);
    expect_mention(bad[_i].right);
    expect_one_line();
}
END_TEST

/* The door that a value came through is the one to mend it at. */
START_TEST(load_names_bad_variable)
{
    char named[64];

    if (settings[_i].bad == NULL) {
        return;
    }
    ck_assert_int_eq(setenv(settings[_i].env, settings[_i].bad, 1), 0);
    expect(load(NULL, NULL, NULL), CONFIG_BAD);
    (void)snprintf(named, sizeof(named), "%s=\"%s\": should be ", settings[_i].env,
                   settings[_i].bad);
    ck_assert_msg(strncmp(err.msg, named, strlen(named)) == 0, "not \"%s...\": %s", named, err.msg);
}
END_TEST

static const struct {
    const char *arg;
    const char *said;
} bad_lists[] = {
    {"--trusted-proxies=10.0.0.0/8,bogus",
     "--trusted-proxies: \"bogus\" is neither an address nor a network such as 10.0.0.0/8"},
    {"--admin-hosts=a http://b", "--admin-hosts: \"http://b\" is no host: should be like "
                                 "curfew.internal, without scheme and port"},
    {"--fetch-allow=ftp://b", "--fetch-allow: \"ftp://b\" is no rule: should be like "
                              "api.example.org, https://*.example.org:8443, * or 10.0.0.0/8"},
    {"--fetch-allow=* 10.0.0.0/33",
     "--fetch-allow: \"10.0.0.0/33\" is neither an address nor a network such as 10.0.0.0/8"},
};

START_TEST(load_names_what_is_wrong_in_a_list)
{
    expect(load(bad_lists[_i].arg, NULL, NULL), CONFIG_BAD);
    ck_assert_str_eq(err.msg, bad_lists[_i].said);
    expect_one_line();
}
END_TEST

START_TEST(load_refuses_bad_url)
{
    ck_assert_int_eq(setenv("DATABASE_URL", "mysql://u:sesame@host/database", 1), 0);
    expect(load("--dump-config", NULL, NULL), CONFIG_BAD);
    ck_assert_str_eq(err.msg, "DATABASE_URL: the database URL cannot be read: should be "
                              "postgresql://user@host:port/database or key=value pairs");
    ck_assert_int_eq(unsetenv("DATABASE_URL"), 0);
    ck_assert_int_eq(setenv("PGPORT", "abc", 1), 0);
    expect(load(NULL, NULL, NULL), CONFIG_BAD);
    ck_assert_str_eq(err.msg, "PGPORT: should be a number from 1 to 65535, or one for each host");
}
END_TEST

START_TEST(load_asks_whether_libpq_can_cancel_so)
{
    bool can = cf_pg_can_cancel(CF_PG_CANCEL_ASYNC);

    expect(load("--cancel=async", NULL, NULL), can ? CONFIG_OK : CONFIG_BAD);
    if (!can) {
        ck_assert_str_eq(err.msg, "--cancel=\"async\": should be auto, control or pqcancel: this "
                                  "libpq is older than 17");
    }
}
END_TEST

/* Else the second would be told that the first is another process. */
START_TEST(load_refuses_one_address_for_both_listeners)
{
    expect(load("--admin=127.0.0.1:8080", NULL, NULL), CONFIG_BAD);
    ck_assert_str_eq(err.msg,
                     "--admin=\"127.0.0.1:8080\": should be another address than that of --listen");
    ck_assert_int_eq(setenv("CURFEW_LISTEN", ":81", 1), 0);
    ck_assert_int_eq(setenv("CURFEW_ADMIN", ":81", 1), 0);
    expect(load(NULL, NULL, NULL), CONFIG_BAD);
    ck_assert_str_eq(err.msg,
                     "CURFEW_ADMIN=\":81\": should be another address than that of --listen");
    expect(load("--listen=127.0.0.1:8081", "--admin=127.0.0.1:8082", NULL), CONFIG_OK);
    expect(load("--listen=:0", "--admin=:0", NULL), CONFIG_OK); /* Any that are free. */
    expect(load("--listen=:00", "--admin=:00", NULL), CONFIG_OK);
}
END_TEST

START_TEST(load_refuses_listen_on_the_admin_address_that_nobody_chose)
{
    expect(load("--listen=127.0.0.1:8081", NULL, NULL), CONFIG_BAD);
    ck_assert_str_eq(err.msg,
                     "--listen=\"127.0.0.1:8081\": should be another address than that of --admin");
}
END_TEST

/* name */

START_TEST(name_is_that_of_the_door)
{
    char name[CONFIG_NAME_SIZE];

    ck_assert_int_eq(setenv("CURFEW_POOL", "8", 1), 0);
    expect(load("--listen=:1", NULL, NULL), CONFIG_OK);
    ck_assert_str_eq(config_name(&config, &config.listen, name), "--listen");
    ck_assert_str_eq(config_name(&config, &config.pool, name), "CURFEW_POOL");
    ck_assert_str_eq(config_name(&config, &config.admin, name), "--admin"); /* By default. */
    ck_assert_str_eq(config_name(&config, &config.database_url, name), "DATABASE_URL");
}
END_TEST

/* It would be cut for every request, and nobody told. */
START_TEST(load_refuses_default_timeout_above_max)
{
    ck_assert_int_eq(setenv("CURFEW_DEFAULT_TIMEOUT", "90s", 1), 0);
    expect(load(NULL, NULL, NULL), CONFIG_BAD);
    ck_assert_str_eq(err.msg, "CURFEW_DEFAULT_TIMEOUT=\"90s\": should be no longer than "
                              "--max-timeout, 60s");
    expect(load("--max-timeout=90s", NULL, NULL), CONFIG_OK);
    ck_assert_int_eq(config.default_timeout_ns, 90 * CF_SECOND);
}
END_TEST

START_TEST(load_cuts_default_timeout_that_nobody_chose)
{
    expect(load("--max-timeout=250ms", NULL, NULL), CONFIG_OK);
    ck_assert_int_eq(config.default_timeout_ns, 250 * CF_MS);
    ck_assert_int_eq(config.max_timeout_ns, 250 * CF_MS);
}
END_TEST

/* It would never be reached: too many requests would find their connections closed, not be told. */
START_TEST(load_refuses_as_many_requests_as_connections)
{
    expect(load("--in-flight=10000", "--connections=5", NULL), CONFIG_BAD);
    ck_assert_str_eq(err.msg, "--in-flight=\"10000\": should be at most 4, as --connections is 5");
    expect(load("--in-flight=5", "--connections=5", NULL), CONFIG_BAD);
    expect(load("--in-flight=2", "--connections=1", NULL), CONFIG_BAD);
    ck_assert_str_eq(err.msg, "--in-flight=\"2\": should be at most 1, as --connections is 1");
    ck_assert_int_eq(setenv("CURFEW_IN_FLIGHT", "10000", 1), 0);
    expect(load(NULL, NULL, NULL), CONFIG_BAD);
    ck_assert_str_eq(
        err.msg, "CURFEW_IN_FLIGHT=\"10000\": should be at most 9999, as --connections is 10000");
    expect(load("--in-flight=4", "--connections=5", NULL), CONFIG_OK);
    expect(load("--in-flight=1", "--connections=1", NULL), CONFIG_OK); /* There is no fewer. */
    expect(load("--in-flight=999999", "--connections=1000000", NULL), CONFIG_OK);
}
END_TEST

START_TEST(load_cuts_requests_that_nobody_chose)
{
    expect(load("--connections=8193", NULL, NULL), CONFIG_OK);
    ck_assert_int_eq(config.in_flight, 8192);
    expect(load("--connections=8192", NULL, NULL), CONFIG_OK);
    ck_assert_int_eq(config.in_flight, 8191);
    config_free(&config);
    expect(load("--connections=1", NULL, NULL), CONFIG_OK);
    ck_assert_int_eq(config.in_flight, 1);
    config_free(&config);
}
END_TEST

START_TEST(load_refuses_more_loops_than_pool)
{
    expect(load("--loops=5", "--pool=4", NULL), CONFIG_BAD);
    expect_mention("5 loops");
    expect_mention("pool");
    expect_mention("not 4");
}
END_TEST

START_TEST(load_refuses_a_body_larger_than_all)
{
    expect(load("--body-size=2m", "--bodies-size=1m", NULL), CONFIG_BAD);
    expect_mention("2097152");
    expect_mention("1048576");
}
END_TEST

/* load: usage */

static const struct {
    const char *args[3];
    const char *said;
} misused[] = {
    {{"--nonsense"}, "unknown flag --nonsense: --help lists them"},
    {{"--poo"}, "unknown flag --poo: --help lists them"},
    {{"--pools"}, "unknown flag --pools: --help lists them"},
    {{"--Pool", "4"}, "unknown flag --Pool: --help lists them"},
    {{"---pool=4"}, "unknown flag ---pool: --help lists them"},
    {{"--"}, "unknown flag --: --help lists them"},
    {{"--=4"}, "unknown flag --: --help lists them"},
    {{""}, "unexpected argument \"\": --help says more"},
    {{"-v"}, "unexpected argument \"-v\": --help says more"},
    {{"pool=4"}, "unexpected argument \"pool=4\": --help says more"},
    {{"--pool=4", "serve"}, "unexpected argument \"serve\": --help says more"},
    {{"--pool"}, "--pool needs a value: connections to PostgreSQL for queries, in all"},
    {{"--demo", "--listen"}, "--listen needs a value: address and port of the API"},
    {{"--listen", "--pool", "4"}, "--listen needs a value: address and port of the API"},
    {{"--config"}, "--config needs a value: a file of settings"},
    {{"--configs=a"}, "unknown flag --configs: --help lists them"},
    {{"--help=1"}, "--help takes no value"},
    {{"--version="}, "--version takes no value"},
    {{"--ready=1"}, "--ready takes no value"},
    {{"--dump-config=/tmp/a"}, "--dump-config takes no value"},
    {{"--demo", "1"},
     "unexpected argument \"1\": a value of --demo follows an equals sign, --demo=1"},
    {{"--half-close", "serve"},
     "unexpected argument \"serve\": a value of --half-close follows an equals sign, "
     "--half-close=1"},
    {{"--demo=0", "1"}, "unexpected argument \"1\": --help says more"},
    {{"--ready", "1"}, "unexpected argument \"1\": --help says more"},
};

START_TEST(load_refuses_misuse)
{
    expect(load(misused[_i].args[0], misused[_i].args[1], misused[_i].args[2]), CONFIG_USAGE);
    ck_assert_str_eq(err.msg, misused[_i].said);
}
END_TEST

/* Standard error goes to a log, and an argument is no place for a password. */
START_TEST(load_does_not_repeat_value_of_unknown_flag)
{
    expect(load("--database-url=postgresql://u:sesame@host/database", NULL, NULL), CONFIG_USAGE);
    ck_assert_str_eq(err.msg, "unknown flag --database-url: --help lists them");
}
END_TEST

START_TEST(load_keeps_complaint_to_a_line)
{
    static const char *const args[] = {"a\nb",        "--a\nb",       "--\x7F=1",
                                       "--pool=4\n5", "--grace=5\ts", "--demo=\x1B[2J"};

    for (size_t i = 0; i < LENGTH(args); i++) {
        ck_assert_int_ne(load(args[i], NULL, NULL), CONFIG_OK);
        expect_one_line();
        expect_mention("?");
    }
}
END_TEST

/* What is right stands behind what was wrong, and must not be cut off. */
START_TEST(load_shortens_long_value)
{
    static const struct {
        const char *before;
        const char *right;
        const char *said;
    } longs[] = {
        {"", "--help says more", "unexpected argument \"11"},
        {"--", "--help lists them", "unknown flag --11"},
        {"--pool=", "should be a number from 1 to 10000", "--pool=\"11"},
        {"--default-timeout=", "from 1ms to 3600s", "--default-timeout=\"11"},
        {"--cancel=", "auto, control, async or pqcancel", "--cancel=\"11"},
        {"--demo=", "should be 1 or 0", "--demo=\"11"},
    };
    static char arg[8192];

    for (size_t i = 0; i < LENGTH(longs); i++) {
        size_t length = strlen(longs[i].before);

        memset(arg, '1', sizeof(arg) - 1);
        memcpy(arg, longs[i].before, length);
        ck_assert_int_ne(load(arg, NULL, NULL), CONFIG_OK);
        ck_assert_int_eq(strncmp(err.msg, longs[i].said, strlen(longs[i].said)), 0);
        expect_mention("...");
        expect_mention(longs[i].right);
        expect_one_line();
    }
}
END_TEST

/* A cut falls between two characters, at whichever byte they begin. */
START_TEST(load_shortens_between_characters)
{
    char arg[256] = "--pool=";
    char *value = arg + strlen(arg);
    const char *end;

    memset(value, '1', (size_t)_i);
    for (char *at = value + _i; at + 4 < arg + sizeof(arg); at += 3) {
        memcpy(at, "\xE2\x82\xAC", 4); /* A euro sign. */
    }
    expect(load(arg, NULL, NULL), CONFIG_BAD);
    end = strstr(err.msg, "...");
    ck_assert_ptr_nonnull(end);
    ck_assert_int_eq((end - strchr(err.msg, '"') - 1 - _i) % 3, 0);
}
END_TEST

/* load: help and version */

START_TEST(load_asked_for_help_reads_nothing_else)
{
    static const char *const flags[] = {"--help", "-h"};

    ck_assert_int_eq(setenv("CURFEW_POOL", "many", 1), 0);
    for (size_t i = 0; i < LENGTH(flags); i++) {
        expect(load(flags[i], NULL, NULL), CONFIG_HELP);
        expect(load("--nonsense", "--grace=5", flags[i]), CONFIG_HELP);
    }
}
END_TEST

START_TEST(load_asked_for_version_reads_nothing_else)
{
    ck_assert_int_eq(setenv("CURFEW_POOL", "many", 1), 0);
    expect(load("--version", NULL, NULL), CONFIG_VERSION);
    expect(load("serve", "--version", "--help"), CONFIG_VERSION);
}
END_TEST

START_TEST(load_asked_for_ready_reads_the_settings)
{
    expect(load("--ready", "--admin", ":9"), CONFIG_READY);
    ck_assert_str_eq(config.admin, ":9");
    config_free(&config);
    expect(load("--ready", "--pool=0", NULL), CONFIG_BAD);
}
END_TEST

/* print_help */

/* Its line is "  --flag  VARIABLE  default  what it is". */
START_TEST(print_help_has_setting_with_default)
{
    const char *flag = settings[_i].flag != NULL ? settings[_i].flag : "";
    char name[64];
    char *text = help();
    char *line;
    char *at;

    (void)snprintf(name, sizeof(name), " %s ", settings[_i].env);
    at = strstr(text, name);
    ck_assert_msg(at != NULL, "no %s in: %s", settings[_i].env, text);
    for (line = at; line > text && line[-1] != '\n'; line--) {
    }
    line += strspn(line, " ");
    ck_assert_int_eq(strncmp(line, flag, strlen(flag)), 0);
    at += strlen(name);
    at += strspn(at, " ");
    ck_assert_msg(strncmp(at, settings[_i].fallback, strlen(settings[_i].fallback)) == 0,
                  "the default of %s is not %s but: %.20s", name, settings[_i].fallback, at);
    at += strlen(settings[_i].fallback);
    at += strspn(at, " ");
    ck_assert_msg(*at != '\n' && *at != '\0', "%s is not explained", name);
    free(text);
}
END_TEST

/* What is new in the module has to come into the table above too. */
START_TEST(print_help_has_no_other_setting)
{
    char *text = help();
    size_t count = 0;

    for (const char *at = text; (at = strstr(at, " CURFEW_")) != NULL; at++) {
        count++;
    }
    ck_assert_uint_eq(count + 1, N_SETTINGS); /* And DATABASE_URL. */
    free(text);
}
END_TEST

START_TEST(print_help_hides_what_is_set)
{
    char *text;

    ck_assert_int_eq(setenv("DATABASE_URL", "postgresql://u:sesame@host/database", 1), 0);
    text = help();
    ck_assert_ptr_null(strstr(text, "sesame"));
    free(text);
}
END_TEST

Suite *suite_config(void)
{
    Suite *suite = suite_create("config");
    TCase *source = tcase_create("source");
    TCase *value = tcase_create("value");
    TCase *usage = tcase_create("usage");
    TCase *print_help = tcase_create("help");

    tcase_add_checked_fixture(source, setup, setup);
    tcase_add_test(source, load_of_nothing_gives_defaults);
    tcase_add_test(source, load_reads_every_variable);
    tcase_add_loop_test(source, load_reads_every_flag, 0, 2);
    tcase_add_test(source, load_flag_wins_over_variable);
    tcase_add_test(source, load_flag_wins_over_bad_variable);
    tcase_add_test(source, load_last_flag_wins);
    tcase_add_test(source, load_value_may_hold_an_equals_sign);
    tcase_add_test(source, load_switch_alone_means_1);
    tcase_add_test(source, load_writes_nothing_on_failure);
    tcase_add_test(source, name_is_that_of_the_door);
    suite_add_tcase(suite, source);

    tcase_add_checked_fixture(value, setup, setup);
    tcase_add_loop_test(value, load_takes_good_value, 0, LENGTH(good));
    tcase_add_test(value, load_takes_as_many_loops_as_pool);
    tcase_add_loop_test(value, load_takes_boolean, 0, LENGTH(booleans));
    tcase_add_loop_test(value, load_refuses_bad_value, 0, LENGTH(bad));
    tcase_add_loop_test(value, load_names_bad_variable, 0, N_SETTINGS);
    tcase_add_loop_test(value, load_names_what_is_wrong_in_a_list, 0, LENGTH(bad_lists));
    tcase_add_test(value, load_refuses_bad_url);
    tcase_add_test(value, load_asks_whether_libpq_can_cancel_so);
    tcase_add_test(value, load_refuses_one_address_for_both_listeners);
    tcase_add_test(value, load_refuses_listen_on_the_admin_address_that_nobody_chose);
    tcase_add_test(value, load_refuses_as_many_requests_as_connections);
    tcase_add_test(value, load_cuts_requests_that_nobody_chose);
    tcase_add_test(value, load_refuses_more_loops_than_pool);
    tcase_add_test(value, load_refuses_a_body_larger_than_all);
    tcase_add_test(value, load_refuses_default_timeout_above_max);
    tcase_add_test(value, load_cuts_default_timeout_that_nobody_chose);
    suite_add_tcase(suite, value);

    tcase_add_checked_fixture(usage, setup, setup);
    tcase_add_loop_test(usage, load_refuses_misuse, 0, LENGTH(misused));
    tcase_add_test(usage, load_does_not_repeat_value_of_unknown_flag);
    tcase_add_test(usage, load_keeps_complaint_to_a_line);
    tcase_add_test(usage, load_shortens_long_value);
    tcase_add_loop_test(usage, load_shortens_between_characters, 0, 3);
    tcase_add_test(usage, load_asked_for_help_reads_nothing_else);
    tcase_add_test(usage, load_asked_for_version_reads_nothing_else);
    tcase_add_test(usage, load_asked_for_ready_reads_the_settings);
    suite_add_tcase(suite, usage);

    tcase_add_checked_fixture(print_help, setup, setup);
    tcase_add_loop_test(print_help, print_help_has_setting_with_default, 0, N_SETTINGS);
    tcase_add_test(print_help, print_help_has_no_other_setting);
    tcase_add_test(print_help, print_help_hides_what_is_set);
    suite_add_tcase(suite, print_help);
    return suite;
}
