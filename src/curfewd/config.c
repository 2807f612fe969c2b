/* SPDX-License-Identifier: MIT */
/* One table makes the defaults, the parsing and --help: see config.h. */
#include "curfewd/config.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Constants and types */

enum type {
    TYPE_STRING,
    TYPE_COUNT,
    TYPE_DURATION,
    TYPE_SIZE,
    TYPE_BOOL,
    TYPE_CANCEL,
};

struct option {
    const char
        *flag; /* Without dashes. NULL: not on a command line, where everybody can read it. */
    const char *env;
    enum type type;
    size_t offset; /* In struct config. */
    const char *fallback;
    int64_t min; /* Of counts, of durations in nanoseconds, of sizes in bytes. */
    int64_t max;
    const char *help;
};

#define FIELD(name) offsetof(struct config, name)
#define HOUR (3600 * CF_SECOND)
#define KIB INT64_C(1024)
#define MIB (1024 * KIB)
#define TIB (MIB * MIB)

/* How much of what was typed an error repeats: what would be right has to fit behind it. */
#define QUOTED_MAX 64
#define QUOTED_SIZE (QUOTED_MAX + sizeof("..."))

static const struct option options[] = {
    {"listen", "CURFEW_LISTEN", TYPE_STRING, FIELD(listen), "127.0.0.1:8080", 0, 0,
     "address and port of the API"},
    {"admin", "CURFEW_ADMIN", TYPE_STRING, FIELD(admin), "127.0.0.1:8081", 0, 0,
     "address and port of the admin listener"},
    {NULL, "DATABASE_URL", TYPE_STRING, FIELD(database_url), "", 0, 0,
     "libpq URL or conninfo; without it, the PG* variables"},
    {"pool", "CURFEW_POOL", TYPE_COUNT, FIELD(pool), "16", 1, 10000,
     "connections to PostgreSQL for queries, in all"},
    {"loops", "CURFEW_LOOPS", TYPE_COUNT, FIELD(loops), "0", 0, 256,
     "event loops; 0: the least of cores, CPU quota and pool"},
    {"cancel", "CURFEW_CANCEL", TYPE_CANCEL, FIELD(cancel), "auto", 0, 0,
     "how a query is cancelled: auto, control, async (libpq 17) or pqcancel"},
    {"default-timeout", "CURFEW_DEFAULT_TIMEOUT", TYPE_DURATION, FIELD(default_timeout_ns), "5s",
     CF_MS, HOUR, "deadline of a request that asks for none"},
    {"max-timeout", "CURFEW_MAX_TIMEOUT", TYPE_DURATION, FIELD(max_timeout_ns), "60s", CF_MS, HOUR,
     "longest deadline that a request can ask for"},
    {"grace", "CURFEW_GRACE", TYPE_DURATION, FIELD(grace_ns), "8s", 0, HOUR,
     "on SIGTERM, how long running requests may go on"},
    {"idle-timeout", "CURFEW_IDLE_TIMEOUT", TYPE_DURATION, FIELD(idle_timeout_ns), "60s", CF_SECOND,
     HOUR, "a client's connection that says nothing is closed"},
    {"head-timeout", "CURFEW_HEAD_TIMEOUT", TYPE_DURATION, FIELD(head_timeout_ns), "10s",
     100 * CF_MS, HOUR, "for a whole request head to come, then 408"},
    {"body-timeout", "CURFEW_BODY_TIMEOUT", TYPE_DURATION, FIELD(body_timeout_ns), "30s",
     100 * CF_MS, HOUR, "for a whole request body to come, then 408"},
    {"send-timeout", "CURFEW_SEND_TIMEOUT", TYPE_DURATION, FIELD(send_timeout_ns), "30s",
     100 * CF_MS, HOUR, "for a client to take a whole reply, then closed"},
    {"in-flight", "CURFEW_IN_FLIGHT", TYPE_COUNT, FIELD(in_flight), "8192", 1, 1000000,
     "requests at once; more get 503"},
    {"waiters", "CURFEW_WAITERS", TYPE_COUNT, FIELD(waiters), "0", 0, 1000000,
     "queries of a loop that wait for a connection; more get 503; 0: as in-flight"},
    {"connections", "CURFEW_CONNECTIONS", TYPE_COUNT, FIELD(connections), "10000", 1, 1000000,
     "clients' connections at once; more get 503 and are closed"},
    {"connections-per-address", "CURFEW_CONNECTIONS_PER_ADDRESS", TYPE_COUNT,
     FIELD(connections_per_address), "0", 0, 1000000,
     "of one client, or behind a trusted proxy its requests; more get 429; 0: any"},
    {"trusted-proxies", "CURFEW_TRUSTED_PROXIES", TYPE_STRING, FIELD(trusted_proxies), "", 0, 0,
     "addresses, networks whose X-Forwarded-For and Forwarded name the client"},
    {"admin-hosts", "CURFEW_ADMIN_HOSTS", TYPE_STRING, FIELD(admin_hosts), "", 0, 0,
     "names the admin listener goes by, beside localhost and addresses"},
    {"head-size", "CURFEW_HEAD_SIZE", TYPE_SIZE, FIELD(head_size), "14k", 4 * KIB, 30 * KIB,
     "of a request head, with 64 bytes for each header; more gets 431"},
    {"target-size", "CURFEW_TARGET_SIZE", TYPE_SIZE, FIELD(target_size), "8k", 256, 30 * KIB,
     "of a request's path and query; more gets 414"},
    {"fields", "CURFEW_FIELDS", TYPE_COUNT, FIELD(fields), "100", 10, 400,
     "headers of a request; more get 431"},
    {"body-size", "CURFEW_BODY_SIZE", TYPE_SIZE, FIELD(body_size), "1m", 1, 1024 * MIB,
     "of a request body; more gets 413"},
    {"bodies-size", "CURFEW_BODIES_SIZE", TYPE_SIZE, FIELD(bodies_size), "64m", 64 * KIB, TIB,
     "of all request bodies in memory; more get 503"},
    {"half-close", "CURFEW_HALF_CLOSE", TYPE_BOOL, FIELD(half_close), "0", 0, 0,
     "serve a client that has shut down its sending side"},
    {"demo", "CURFEW_DEMO", TYPE_BOOL, FIELD(demo), "0", 0, 0, "serve /v1/sleep"},
};

#define N_OPTIONS (sizeof(options) / sizeof(options[0]))

/* Internal helpers */

static void *field(struct config *config, const struct option *option)
{
    return (char *)config + option->offset;
}

/* What was typed, as a message of one line can hold it: cut, and without control characters. */
static const char *quote(const char *text, size_t length, char out[QUOTED_SIZE])
{
    size_t n = length;

    if (length > QUOTED_MAX) {
        n = QUOTED_MAX;
        while (n > 0 && ((unsigned char)text[n] & 0xC0) == 0x80) {
            n--; /* Not in the middle of a character. */
        }
    }
    for (size_t i = 0; i < n; i++) {
        out[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7F ? '?' : text[i];
    }
    memcpy(out + n, "...", sizeof("..."));
    if (n == length) {
        out[n] = '\0';
    }
    return out;
}

/* How a value is to be named in an error: by the door it came through. */
static enum cf_code bad(const char *where, const char *text, const char *right, struct cf_err *err)
{
    char quoted[QUOTED_SIZE];

    return cf_err_set(err, CF_EINVAL, "%s=\"%s\": should be %s", where,
                      quote(text, strlen(text), quoted), right);
}

static enum cf_code parse_count(const struct option *option, const char *where, const char *text,
                                int64_t *out, struct cf_err *err)
{
    char right[96];
    char *end;
    long long value;

    errno = 0;
    value = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < option->min || value > option->max) {
        (void)snprintf(right, sizeof(right), "a number from %" PRId64 " to %" PRId64, option->min,
                       option->max);
        return bad(where, text, right, err);
    }
    *out = value;
    return CF_OK;
}

static enum cf_code parse_size(const struct option *option, const char *where, const char *text,
                               int64_t *out, struct cf_err *err)
{
    static const struct {
        const char *name;
        int64_t bytes;
    } units[] = {{"", 1}, {"k", KIB}, {"m", MIB}};
    char right[96];
    char *end;
    long long value;

    errno = 0;
    value = strtoll(text, &end, 10);
    for (size_t i = 0; errno == 0 && end != text && i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(end, units[i].name) == 0 && value <= option->max / units[i].bytes &&
            value * units[i].bytes >= option->min) {
            *out = value * units[i].bytes;
            return CF_OK;
        }
    }
    (void)snprintf(right, sizeof(right),
                   "a size such as 20000, 64k or 1m, from %" PRId64 " to %" PRId64 " bytes",
                   option->min, option->max);
    return bad(where, text, right, err);
}

static enum cf_code parse_duration(const struct option *option, const char *where, const char *text,
                                   int64_t *out, struct cf_err *err)
{
    static const struct {
        const char *name;
        int64_t ns;
    } units[] = {{"ms", CF_MS}, {"s", CF_SECOND}, {"m", 60 * CF_SECOND}};
    char right[96];
    char *end;
    double value = strtod(text, &end);

    for (size_t i = 0; end != text && i < sizeof(units) / sizeof(units[0]); i++) {
        double ns = value * (double)units[i].ns;

        if (strcmp(end, units[i].name) == 0 && ns >= (double)option->min &&
            ns <= (double)option->max) {
            *out = (int64_t)ns;
            return CF_OK;
        }
    }
    (void)snprintf(right, sizeof(right),
                   "a duration such as 250ms, 5s or 1m, from %" PRId64 "ms to %" PRId64 "s",
                   option->min / CF_MS, option->max / CF_SECOND);
    return bad(where, text, right, err);
}

static enum cf_code parse_bool(const char *where, const char *text, bool *out, struct cf_err *err)
{
    if (strcmp(text, "1") == 0 || strcmp(text, "true") == 0) {
        *out = true;
    } else if (strcmp(text, "0") == 0 || strcmp(text, "false") == 0 || text[0] == '\0') {
        *out = false;
    } else {
        return bad(where, text, "1 or 0", err);
    }
    return CF_OK;
}

static enum cf_code parse_cancel(const char *where, const char *text, int64_t *out,
                                 struct cf_err *err)
{
    static const char *const names[] = {[CF_PG_CANCEL_AUTO] = "auto",
                                        [CF_PG_CANCEL_CONTROL] = "control",
                                        [CF_PG_CANCEL_ASYNC] = "async",
                                        [CF_PG_CANCEL_PQCANCEL] = "pqcancel"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = (int64_t)i;
            return CF_OK;
        }
    }
    return bad(where, text, "auto, control, async or pqcancel", err);
}

static enum cf_code set(struct config *config, const struct option *option, const char *where,
                        const char *text, struct cf_err *err)
{
    switch (option->type) {
    case TYPE_STRING:
        *(const char **)field(config, option) = text;
        return CF_OK;
    case TYPE_COUNT:
        return parse_count(option, where, text, field(config, option), err);
    case TYPE_DURATION:
        return parse_duration(option, where, text, field(config, option), err);
    case TYPE_SIZE:
        return parse_size(option, where, text, field(config, option), err);
    case TYPE_BOOL:
        return parse_bool(where, text, field(config, option), err);
    case TYPE_CANCEL:
        return parse_cancel(where, text, field(config, option), err);
    }
    return cf_err_set(err, CF_EINTERNAL, "option of unknown type");
}

static const struct option *find_flag(const char *name, size_t length)
{
    for (size_t i = 0; i < N_OPTIONS; i++) {
        if (options[i].flag != NULL && strlen(options[i].flag) == length &&
            memcmp(options[i].flag, name, length) == 0) {
            return &options[i];
        }
    }
    return NULL;
}

static enum cf_code load_environment(struct config *config, struct cf_err *err)
{
    for (size_t i = 0; i < N_OPTIONS; i++) {
        const char *text = getenv(options[i].env);
        enum cf_code code;

        code = text != NULL ? set(config, &options[i], options[i].env, text, err)
                            : set(config, &options[i], options[i].env, options[i].fallback, err);
        if (code != CF_OK) {
            return code;
        }
    }
    return CF_OK;
}

/* One argument, "--name=value" or "--name value"; *i is moved past what was used. */
static enum config_outcome load_flag(int argc, char **argv, int *i, struct config *config,
                                     struct cf_err *err)
{
    const char *name = argv[*i] + 2;
    const char *equals = strchr(name, '=');
    size_t length = equals != NULL ? (size_t)(equals - name) : strlen(name);
    const struct option *option = find_flag(name, length);
    const char *value = equals != NULL ? equals + 1 : NULL;
    char quoted[QUOTED_SIZE];
    char where[64];

    if (option == NULL) {
        /* Without its value: that of a --database-url, which is none of ours, holds a password. */
        (void)cf_err_set(err, CF_EINVAL, "unknown flag --%s: --help lists them",
                         quote(name, length, quoted));
        return CONFIG_USAGE;
    }
    if (value == NULL && option->type == TYPE_BOOL) {
        value = "1";
    } else if (value == NULL) {
        *i += 1;
        value = *i < argc && strncmp(argv[*i], "--", 2) != 0 ? argv[*i] : NULL;
    }
    if (value == NULL) {
        (void)cf_err_set(err, CF_EINVAL, "--%s needs a value: %s", option->flag, option->help);
        return CONFIG_USAGE;
    }
    (void)snprintf(where, sizeof(where), "--%s", option->flag);
    return set(config, option, where, value, err) == CF_OK ? CONFIG_OK : CONFIG_BAD;
}

/* Operations */

enum config_outcome config_load(int argc, char **argv, struct config *out, struct cf_err *err)
{
    struct config config = {.listen = NULL};

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            return CONFIG_HELP;
        }
        if (strcmp(argv[i], "--version") == 0) {
            return CONFIG_VERSION;
        }
    }
    if (load_environment(&config, err) != CF_OK) {
        return CONFIG_BAD;
    }
    for (int i = 1; i < argc; i++) {
        enum config_outcome outcome;
        char quoted[QUOTED_SIZE];

        if (strncmp(argv[i], "--", 2) != 0) {
            (void)cf_err_set(err, CF_EINVAL, "unexpected argument \"%s\": --help says more",
                             quote(argv[i], strlen(argv[i]), quoted));
            return CONFIG_USAGE;
        }
        outcome = load_flag(argc, argv, &i, &config, err);
        if (outcome != CONFIG_OK) {
            return outcome;
        }
    }
    if (config.body_size > config.bodies_size) {
        (void)cf_err_set(err, CF_EINVAL,
                         "a body size of %" PRId64 " bytes does not fit into %" PRId64
                         " bytes for all bodies",
                         config.body_size, config.bodies_size);
        return CONFIG_BAD;
    }
    if (config.loops > config.pool) {
        (void)cf_err_set(err, CF_EINVAL,
                         "%" PRId64
                         " loops need a pool of at least as many connections, not %" PRId64,
                         config.loops, config.pool);
        return CONFIG_BAD;
    }
    *out = config;
    return CONFIG_OK;
}

void config_print_help(FILE *file)
{
    (void)fprintf(file,
                  "Usage: curfewd [--FLAG VALUE]...\n\n"
                  "An HTTP service over PostgreSQL whose requests end when their deadline passes\n"
                  "or their client hangs up, and whose queries end with them.\n\n"
                  "  %-25s %-30s %-16s %s\n",
                  "flag", "environment", "default", "");
    for (size_t i = 0; i < N_OPTIONS; i++) {
        const struct option *option = &options[i];
        char flag[32] = "";

        if (option->flag != NULL) {
            (void)snprintf(flag, sizeof(flag), "--%s", option->flag);
        }
        (void)fprintf(file, "  %-25s %-30s %-16s %s\n", flag, option->env, option->fallback,
                      option->help);
    }
    (void)fprintf(file, "  %-73s %s\n  %-73s %s\n\n", "--help", "print this", "--version",
                  "print the versions of the service and its libraries");
    (void)fprintf(
        file, "A flag wins over its environment variable. A flag of 0 or 1 stands alone for 1,\n"
              "or takes its value behind an equals sign: --demo, --demo=0.\n\n"
              "Exit status: 0 clean, 1 failed, 2 wrong usage, 78 wrong configuration.\n");
}
