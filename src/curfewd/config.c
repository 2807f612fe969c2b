/* SPDX-License-Identifier: MIT */
/* One table makes the defaults, the parsing, --help and --dump-config: see config.h. */
#include "curfewd/config_private.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "curfewd/config_file.h"
#include "curfewd/images/image.h"

/* Constants and types */

#define FIELD(name) offsetof(struct config, name)
#define HOUR (3600 * CF_SECOND)
#define KIB CONFIG_KIB
#define MIB CONFIG_MIB
#define TIB (MIB * MIB)

const struct config_option config_options[] = {
    {"listen", "CURFEW_LISTEN", TYPE_LISTEN, FIELD(listen), "127.0.0.1:8080", 0, 0,
     "address and port of the API"},
    {"admin", "CURFEW_ADMIN", TYPE_LISTEN, FIELD(admin), "127.0.0.1:8081", 0, 0,
     "address and port of the admin listener"},
    {NULL, "DATABASE_URL", TYPE_URL, FIELD(database_url), "", 0, 0,
     "libpq URL or connection string; without it, the PG* variables"},
    {"pool", "CURFEW_POOL", TYPE_COUNT, FIELD(pool), "16", 1, 10000,
     "connections to PostgreSQL for queries, in all"},
    {"loops", "CURFEW_LOOPS", TYPE_COUNT, FIELD(loops), "0", 0, CONFIG_LOOPS_MAX,
     "event loops; 0: the least of cores, CPU quota and pool"},
    {"cancel", "CURFEW_CANCEL", TYPE_CANCEL, FIELD(cancel), "auto", 0, 0,
     "how queries are cancelled: auto, control, async (libpq 17) or pqcancel"},
    {"default-timeout", "CURFEW_DEFAULT_TIMEOUT", TYPE_DURATION, FIELD(default_timeout_ns), "5s",
     CF_MS, HOUR, "deadline of a request that sets none"},
    {"max-timeout", "CURFEW_MAX_TIMEOUT", TYPE_DURATION, FIELD(max_timeout_ns), "60s", CF_MS, HOUR,
     "longest deadline that a request may set"},
    {"export-timeout", "CURFEW_EXPORT_TIMEOUT", TYPE_DURATION, FIELD(export_timeout_ns), "10m",
     CF_MS, 24 * HOUR, "deadline of an export, and the longest that it may set"},
    {"exports", "CURFEW_EXPORTS", TYPE_COUNT, FIELD(exports), "4", 1, 10000,
     "exports at once, each on a connection of the pool; more get 503"},
    {"grace", "CURFEW_GRACE", TYPE_DURATION, FIELD(grace_ns), "8s", 0, HOUR,
     "how long running requests may continue after SIGTERM"},
    {"idle-timeout", "CURFEW_IDLE_TIMEOUT", TYPE_DURATION, FIELD(idle_timeout_ns), "60s", CF_SECOND,
     HOUR, "how long a client's connection may be idle before it is closed"},
    {"head-timeout", "CURFEW_HEAD_TIMEOUT", TYPE_DURATION, FIELD(head_timeout_ns), "10s",
     100 * CF_MS, HOUR, "time to receive a whole request head; then 408"},
    {"body-timeout", "CURFEW_BODY_TIMEOUT", TYPE_DURATION, FIELD(body_timeout_ns), "30s",
     100 * CF_MS, HOUR, "time to receive a whole request body; then 408"},
    {"send-timeout", "CURFEW_SEND_TIMEOUT", TYPE_DURATION, FIELD(send_timeout_ns), "30s",
     100 * CF_MS, HOUR,
     "time for a client to read a whole reply, or 64 KiB of a stream; then closed"},
    {"in-flight", "CURFEW_IN_FLIGHT", TYPE_COUNT, FIELD(in_flight), "8192", 1, 999999,
     "requests at once; more get 503; fewer than connections"},
    {"waiters", "CURFEW_WAITERS", TYPE_COUNT, FIELD(waiters), "0", 0, 1000000,
     "queries per loop that may wait for a connection; more get 503; 0: same as in-flight"},
    {"connections", "CURFEW_CONNECTIONS", TYPE_COUNT, FIELD(connections), "10000", 1, 1000000,
     "client connections at once; more get 503 and are closed"},
    {"connections-per-address", "CURFEW_CONNECTIONS_PER_ADDRESS", TYPE_COUNT,
     FIELD(connections_per_address), "0", 0, 1000000,
     "connections per client (behind a trusted proxy: requests at once); more get 429; 0: no "
     "limit"},
    {"trusted-proxies", "CURFEW_TRUSTED_PROXIES", TYPE_PROXIES, FIELD(trusted_proxies), "", 0, 0,
     "addresses and networks whose X-Forwarded-For and Forwarded are believed"},
    {"admin-hosts", "CURFEW_ADMIN_HOSTS", TYPE_HOSTS, FIELD(admin_hosts), "", 0, 0,
     "host names of the admin listener, besides localhost and IP addresses"},
    {"fetch-allow", "CURFEW_FETCH_ALLOW", TYPE_ALLOW, FIELD(fetch_allow), "", 0, 0,
     "hosts that /v1/fetch may reach (none by default); a network only lets them have non-public "
     "addresses"},
    {"head-size", "CURFEW_HEAD_SIZE", TYPE_SIZE, FIELD(head_size), "14k", 4 * KIB, 30 * KIB,
     "largest request head, counting 64 bytes per header; larger gets 431"},
    {"target-size", "CURFEW_TARGET_SIZE", TYPE_SIZE, FIELD(target_size), "8k", 256, 30 * KIB,
     "longest path and query of a request; longer gets 414"},
    {"fields", "CURFEW_FIELDS", TYPE_COUNT, FIELD(fields), "100", 10, 400,
     "headers per request; more get 431"},
    {"body-size", "CURFEW_BODY_SIZE", TYPE_SIZE, FIELD(body_size), "1m", 1, 1024 * MIB,
     "largest request body; larger gets 413"},
    {"bodies-size", "CURFEW_BODIES_SIZE", TYPE_SIZE, FIELD(bodies_size), "64m", 64 * KIB, TIB,
     "memory for all request bodies; beyond it, 503"},
    {"image-size", "CURFEW_IMAGE_SIZE", TYPE_SIZE, FIELD(image_size), "10m", 1, 256 * MIB,
     "largest image that may be uploaded; larger gets 413"},
    {"image-pixels", "CURFEW_IMAGE_PIXELS", TYPE_COUNT, FIELD(image_pixels), "40000000", 1,
     (int64_t)IMAGE_SIDE_MAX *IMAGE_SIDE_MAX, "pixels per image; more get 422"},
    {"image-memory", "CURFEW_IMAGE_MEMORY", TYPE_SIZE, FIELD(image_memory), "256m", 4 * MIB, TIB,
     "memory for decoding images; others wait; an image that needs more gets 422"},
    {"image-threads", "CURFEW_IMAGE_THREADS", TYPE_COUNT, FIELD(image_threads), "0", 0, 256,
     "images decoded at once; 0: one per core"},
    {"cache-ttl", "CURFEW_CACHE_TTL", TYPE_DURATION, FIELD(cache_ttl_ns), "2s", 0, HOUR,
     "how long a cached dashboard is fresh; 0: no cache"},
    {"cache-stale", "CURFEW_CACHE_STALE", TYPE_DURATION, FIELD(cache_stale_ns), "10s", 0, HOUR,
     "how long after cache-ttl it is served while a new one is loaded"},
    {"cache-stale-if-error", "CURFEW_CACHE_STALE_IF_ERROR", TYPE_DURATION,
     FIELD(cache_stale_if_error_ns), "60s", 0, 24 * HOUR,
     "how long after cache-ttl it is served if no new one can be loaded"},
    {"cache-negative-ttl", "CURFEW_CACHE_NEGATIVE_TTL", TYPE_DURATION, FIELD(cache_negative_ttl_ns),
     "1s", 0, HOUR, "how long it is remembered that a user does not exist"},
    {"cache-entries", "CURFEW_CACHE_ENTRIES", TYPE_COUNT, FIELD(cache_entries), "20000", 1,
     10000000, "dashboards in the cache; at the limit one is evicted"},
    {"cache-size", "CURFEW_CACHE_SIZE", TYPE_SIZE, FIELD(cache_size), "64m", 64 * KIB, TIB,
     "memory for cached dashboards; at the limit one is evicted"},
    {"notify", "CURFEW_NOTIFY", TYPE_BOOL, FIELD(notify), "1", 0, 0,
     "listen for notifications from PostgreSQL, and drop dashboards that others change"},
    {"idempotency-ttl", "CURFEW_IDEMPOTENCY_TTL", TYPE_DURATION, FIELD(idempotency_ttl_ns), "1440m",
     CF_MS, INT64_C(8760) * HOUR, "how long the answer to a POST with an Idempotency-Key is kept"},
    {"half-close", "CURFEW_HALF_CLOSE", TYPE_BOOL, FIELD(half_close), "0", 0, 0,
     "serve clients that have shut down their sending side"},
    {"core-dumps", "CURFEW_CORE_DUMPS", TYPE_BOOL, FIELD(core_dumps), "0", 0, 0,
     "dump core after a crash, including the secrets in memory"},
    {"demo", "CURFEW_DEMO", TYPE_BOOL, FIELD(demo), "0", 0, 0, "serve /v1/sleep"},
};

#define N_OPTIONS (sizeof(config_options) / sizeof(config_options[0]))

const size_t config_n_options = N_OPTIONS;

_Static_assert(N_OPTIONS <= CONFIG_SETTINGS_MAX, "config.h has room for every setting");

/* Internal helpers: where values come from */

static const struct config_option *find_flag(const char *name, size_t length)
{
    for (size_t i = 0; i < N_OPTIONS; i++) {
        if (config_options[i].flag != NULL && strlen(config_options[i].flag) == length &&
            memcmp(config_options[i].flag, name, length) == 0) {
            return &config_options[i];
        }
    }
    return NULL;
}

static struct config_value *value_of(struct config *config, const struct config_option *option)
{
    return &config->values[option - config_options];
}

/* Take a value, unless there is one of a door that wins. In the same door the last one counts, but
 * a secret and its file are two answers to one question. */
static enum cf_code offer(struct config *config, const struct config_option *option,
                          struct config_value value, struct cf_err *err)
{
    struct config_value *current = value_of(config, option);

    if (option->type == TYPE_URL && value.door == current->door &&
        value.is_path != current->is_path) {
        return cf_err_set(err, CF_EINVAL, "%s and %s%s are both set: should be one of them",
                          option->env, option->env, CONFIG_FILE_SUFFIX);
    }
    if (value.door >= current->door) {
        *current = value;
    }
    return CF_OK;
}

static void offer_defaults(struct config *config)
{
    for (size_t i = 0; i < N_OPTIONS; i++) {
        config->values[i] = (struct config_value){.text = config_options[i].fallback};
    }
}

/* Of a secret's variables an empty one is none, as when compose passes on what is not set. */
static enum cf_code offer_environment(struct config *config, struct cf_err *err)
{
    enum cf_code code = CF_OK;

    for (size_t i = 0; code == CF_OK && i < N_OPTIONS; i++) {
        struct config_value value = {.text = getenv(config_options[i].env),
                                     .door = CONFIG_ENVIRONMENT};
        bool is_secret = config_options[i].type == TYPE_URL;
        char name[64];

        if (value.text != NULL && (!is_secret || value.text[0] != '\0')) {
            code = offer(config, &config_options[i], value, err);
        }
        (void)snprintf(name, sizeof(name), "%s%s", config_options[i].env, CONFIG_FILE_SUFFIX);
        value.text = is_secret ? getenv(name) : NULL;
        value.is_path = true;
        if (code == CF_OK && value.text != NULL && value.text[0] != '\0') {
            code = offer(config, &config_options[i], value, err);
        }
    }
    return code;
}

static enum cf_code offer_line(struct config *config, const struct config_line *line,
                               unsigned number, struct cf_err *err)
{
    struct config_value value = {.text = line->value, .door = CONFIG_FILE, .line = number};
    const struct config_option *option =
        config_find_variable(line->key, strlen(line->key), &value.is_path);
    char quoted[CONFIG_QUOTED_SIZE];

    if (option != NULL) {
        return offer(config, option, value, err);
    }
    if (!config_is_libpq(line->key, strlen(line->key))) {
        return cf_err_set(err, CF_EINVAL, "unknown setting %s: --help lists them",
                          config_quote(line->key, strlen(line->key), quoted));
    }
    if (config_has_control(line->value)) {
        return cf_err_set(err, CF_EINVAL, "%s: should be without control characters", line->key);
    }
    return setenv(line->key, line->value, 0) == 0
               ? CF_OK
               : cf_err_set(err, CF_ENOMEM, "no memory for %s", line->key);
}

/* Have the configuration own the text of a file. */
static enum cf_code keep_text(struct config *config, const char *path, char **out,
                              struct cf_err *err)
{
    struct config_text *text;
    enum cf_code code = config_file_read(path, &text, err);

    if (code != CF_OK) {
        return code;
    }
    text->next = config->texts;
    config->texts = text;
    *out = text->data;
    return CF_OK;
}

static enum cf_code offer_file(struct config *config, struct cf_err *err)
{
    char quoted[CONFIG_QUOTED_SIZE];
    const char *name = config_quote(config->file, strlen(config->file), quoted);
    struct config_lines lines = {.rest = NULL};
    struct config_line line;
    enum cf_code code = keep_text(config, config->file, &lines.rest, err);

    if (code != CF_OK) {
        return cf_err_wrap(err, code, "--config %s", name);
    }
    do {
        code = config_file_next(&lines, &line, err);
        if (code == CF_OK && line.key != NULL) {
            code = offer_line(config, &line, lines.number, err);
        }
    } while (code == CF_OK && line.key != NULL);
    return code == CF_OK ? CF_OK : cf_err_wrap(err, code, "%s:%u", name, lines.number);
}

/* The value of a flag: "--name=value" or "--name value", where *i is moved past what was used. A
 * flag of 0 or 1 stands alone for 1. NULL: there is none. */
static const char *flag_value(int argc, char **argv, int *i, bool is_switch)
{
    const char *equals = strchr(argv[*i], '=');

    if (equals != NULL) {
        return equals + 1;
    }
    if (is_switch) {
        return "1";
    }
    *i += 1;
    return *i < argc && strncmp(argv[*i], "--", 2) != 0 ? argv[*i] : NULL;
}

/* Flags that are no settings, and stand alone. */
static bool is_action(const char *name, size_t length)
{
    static const char *const actions[] = {"help", "version", "ready", "dump-config"};

    for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++) {
        if (strlen(actions[i]) == length && memcmp(actions[i], name, length) == 0) {
            return true;
        }
    }
    return false;
}

static enum cf_code offer_flag(int argc, char **argv, int *i, struct config *config,
                               struct cf_err *err)
{
    const char *name = argv[*i] + 2;
    size_t length = strcspn(name, "=");
    bool is_file = length == strlen("config") && strncmp(name, "config", length) == 0;
    const struct config_option *option = find_flag(name, length);
    struct config_value value = {.door = CONFIG_FLAG};
    char quoted[CONFIG_QUOTED_SIZE];

    if (is_action(name, length)) {
        return cf_err_set(err, CF_EINVAL, "--%.*s takes no value", (int)length, name);
    }
    if (option == NULL && !is_file) {
        /* Without its value: that of a --database-url, which is none of ours, holds a password. */
        return cf_err_set(err, CF_EINVAL, "unknown flag --%s: --help lists them",
                          config_quote(name, length, quoted));
    }
    value.text = flag_value(argc, argv, i, option != NULL && option->type == TYPE_BOOL);
    if (value.text == NULL) {
        return cf_err_set(err, CF_EINVAL, "--%.*s needs a value: %s", (int)length, name,
                          option != NULL ? option->help : "a file of settings");
    }
    if (option != NULL) {
        return offer(config, option, value, err);
    }
    config->file = value.text;
    return CF_OK;
}

/* What is neither a flag nor the value of one: perhaps it was to be that of the switch before. */
static enum cf_code bad_argument(const char *before, const char *argument, struct cf_err *err)
{
    const struct config_option *option =
        strncmp(before, "--", 2) == 0 ? find_flag(before + 2, strlen(before + 2)) : NULL;
    char quoted[CONFIG_QUOTED_SIZE];
    const char *text = config_quote(argument, strlen(argument), quoted);

    if (option != NULL && option->type == TYPE_BOOL) {
        return cf_err_set(err, CF_EINVAL,
                          "unexpected argument \"%s\": a value of %s follows an equals sign, %s=1",
                          text, before, before);
    }
    return cf_err_set(err, CF_EINVAL, "unexpected argument \"%s\": --help says more", text);
}

/* *out_asked: what to do instead of serving, if anything. */
static enum cf_code offer_flags(int argc, char **argv, struct config *config,
                                enum config_outcome *out_asked, struct cf_err *err)
{
    enum cf_code code = CF_OK;

    for (int i = 1; code == CF_OK && i < argc; i++) {
        if (strcmp(argv[i], "--dump-config") == 0) {
            *out_asked = CONFIG_DUMP;
        } else if (strcmp(argv[i], "--ready") == 0) {
            *out_asked = CONFIG_READY;
        } else if (strncmp(argv[i], "--", 2) == 0) {
            code = offer_flag(argc, argv, &i, config, err);
        } else {
            code = bad_argument(argv[i - 1], argv[i], err);
        }
    }
    return code;
}

/* Internal helpers: what they come to */

/* How an error names a setting: by the door that its value came through. */
static const char *name_of(const struct config *config, size_t i, char out[CONFIG_NAME_SIZE])
{
    const struct config_value *value = &config->values[i];
    const char *suffix = value->is_path ? CONFIG_FILE_SUFFIX : "";
    char quoted[CONFIG_QUOTED_SIZE];

    if (config_options[i].flag != NULL &&
        (value->door == CONFIG_FLAG || value->door == CONFIG_DEFAULT)) {
        (void)snprintf(out, CONFIG_NAME_SIZE, "--%s", config_options[i].flag);
    } else if (value->door == CONFIG_FILE) {
        (void)snprintf(out, CONFIG_NAME_SIZE, "%s:%u: %s%s",
                       config_quote(config->file, strlen(config->file), quoted), value->line,
                       config_options[i].env, suffix);
    } else {
        (void)snprintf(out, CONFIG_NAME_SIZE, "%s%s", config_options[i].env, suffix);
    }
    return out;
}

/* Read what a secret's file holds: everything but the newline at its end. */
static enum cf_code read_secret(struct config *config, size_t i, const char **out,
                                struct cf_err *err)
{
    const char *path = config->values[i].text;
    char where[CONFIG_NAME_SIZE];
    char quoted[CONFIG_QUOTED_SIZE];
    char *text;
    enum cf_code code = keep_text(config, path, &text, err);

    if (code != CF_OK) {
        return cf_err_wrap(err, code, "%s %s", name_of(config, i, where),
                           config_quote(path, strlen(path), quoted));
    }
    text[strcspn(text, "\r\n")] = '\0';
    if (text[strspn(text, " \t")] == '\0') {
        /* It would mean another thing than the value that was to be there. */
        return cf_err_set(err, CF_EINVAL, "%s %s: its first line is empty",
                          name_of(config, i, where), config_quote(path, strlen(path), quoted));
    }
    *out = text;
    return CF_OK;
}

static enum cf_code set_all(struct config *config, struct cf_err *err)
{
    enum cf_code code = CF_OK;

    for (size_t i = 0; code == CF_OK && i < N_OPTIONS; i++) {
        const char *text = config->values[i].text;
        char where[CONFIG_NAME_SIZE];

        if (config->values[i].is_path) {
            code = read_secret(config, i, &text, err);
        }
        if (code == CF_OK) {
            code = config_set(config, &config_options[i], name_of(config, i, where), text, err);
        }
    }
    return code;
}

static size_t index_of(size_t offset)
{
    size_t i = 0;

    while (config_options[i].offset != offset) {
        i++;
    }
    return i;
}

/* A default timeout that nobody chose follows a lower cap;
 * one that was chosen is not cut silently. */
static enum cf_code check_default_timeout(struct config *config, struct cf_err *err)
{
    size_t at = index_of(FIELD(default_timeout_ns));
    const struct config_value *cap = &config->values[index_of(FIELD(max_timeout_ns))];
    char where[CONFIG_NAME_SIZE];
    char right[96];
    char quoted[CONFIG_QUOTED_SIZE];

    if (config->default_timeout_ns <= config->max_timeout_ns) {
        return CF_OK;
    }
    if (config->values[at].door == CONFIG_DEFAULT) {
        config->values[at].text = cap->text;
        config->default_timeout_ns = config->max_timeout_ns;
        return CF_OK;
    }
    (void)snprintf(right, sizeof(right), "no longer than --max-timeout, %s",
                   config_quote(cap->text, strlen(cap->text), quoted));
    return config_bad(name_of(config, at, where), config->values[at].text, right, err);
}

/* Have the configuration own the text of a number that takes the place of a default. */
static enum cf_code keep_number(struct config *config, int64_t number, const char **out,
                                struct cf_err *err)
{
    size_t size = sizeof("-9223372036854775808");
    struct config_text *text = malloc(sizeof(*text) + size);

    if (text == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a setting");
    }
    (void)snprintf(text->data, size, "%" PRId64, number);
    text->next = config->texts;
    config->texts = text;
    *out = text->data;
    return CF_OK;
}

/* The limit of requests lies below that of connections, or it would never be reached: who is beyond
 * it is told and keeps the connection. As above, a default follows. */
static enum cf_code check_in_flight(struct config *config, struct cf_err *err)
{
    struct config_value *value = &config->values[index_of(FIELD(in_flight))];
    int64_t most = config->connections > 1 ? config->connections - 1 : 1;
    char name[CONFIG_NAME_SIZE];
    char right[96];

    if (config->in_flight <= most) {
        return CF_OK;
    }
    if (value->door == CONFIG_DEFAULT) {
        config->in_flight = most;
        return keep_number(config, most, &value->text, err);
    }
    (void)snprintf(right, sizeof(right), "at most %" PRId64 ", as --connections is %" PRId64, most,
                   config->connections);
    return config_bad(config_name(config, &config->in_flight, name), value->text, right, err);
}

static bool has_any_port(const char *address)
{
    return strtol(strrchr(address, ':') + 1, NULL, 10) == 0;
}

/* Of two that are equal, the one to complain of is one that was chosen. */
static enum cf_code check_listeners(const struct config *config, struct cf_err *err)
{
    bool by_default = config->values[index_of(FIELD(admin))].door == CONFIG_DEFAULT;
    char name[CONFIG_NAME_SIZE];

    if (strcmp(config->listen, config->admin) != 0 || has_any_port(config->listen)) {
        return CF_OK;
    }
    if (by_default) {
        return config_bad(config_name(config, &config->listen, name), config->listen,
                          "another address than that of --admin", err);
    }
    return config_bad(config_name(config, &config->admin, name), config->admin,
                      "another address than that of --listen", err);
}

/* What each may be alone, and not together. */
static enum cf_code check_together(struct config *config, struct cf_err *err)
{
    if (config->body_size > config->bodies_size) {
        return cf_err_set(err, CF_EINVAL,
                          "a body size of %" PRId64 " bytes does not fit into %" PRId64
                          " bytes for all bodies",
                          config->body_size, config->bodies_size);
    }
    if (config->loops > config->pool) {
        return cf_err_set(err, CF_EINVAL,
                          "%" PRId64
                          " loops need a pool of at least as many connections, not %" PRId64,
                          config->loops, config->pool);
    }
    if (check_listeners(config, err) != CF_OK || check_default_timeout(config, err) != CF_OK) {
        return CF_EINVAL;
    }
    return check_in_flight(config, err);
}

static enum cf_code load_values(struct config *config, struct cf_err *err)
{
    enum cf_code code = config->file != NULL ? offer_file(config, err) : CF_OK;

    if (code == CF_OK) {
        code = offer_environment(config, err);
    }
    if (code == CF_OK) {
        code = set_all(config, err);
    }
    return code == CF_OK ? check_together(config, err) : code;
}

/* Operations */

enum config_outcome config_load(int argc, char **argv, struct config *out, struct cf_err *err)
{
    struct config config = {.listen = NULL};
    enum config_outcome asked = CONFIG_OK;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            return CONFIG_HELP;
        }
        if (strcmp(argv[i], "--version") == 0) {
            return CONFIG_VERSION;
        }
    }
    offer_defaults(&config);
    if (offer_flags(argc, argv, &config, &asked, err) != CF_OK) {
        return CONFIG_USAGE;
    }
    if (load_values(&config, err) != CF_OK) {
        config_free(&config);
        return CONFIG_BAD;
    }
    *out = config;
    return asked;
}

void config_free(struct config *config)
{
    while (config->texts != NULL) {
        struct config_text *text = config->texts;

        config->texts = text->next;
        free(text);
    }
}

/* Queries */

const struct config_option *config_find_variable(const char *name, size_t length, bool *out_is_path)
{
    for (size_t i = 0; i < N_OPTIONS; i++) {
        size_t size = strlen(config_options[i].env);
        size_t rest = length - size; /* Looked at only if there is one. */

        if (length < size || memcmp(name, config_options[i].env, size) != 0) {
            continue;
        }
        if (rest == 0 ||
            (config_options[i].type == TYPE_URL && rest == strlen(CONFIG_FILE_SUFFIX) &&
             memcmp(name + size, CONFIG_FILE_SUFFIX, rest) == 0)) {
            *out_is_path = rest > 0;
            return &config_options[i];
        }
    }
    return NULL;
}

const char *config_name(const struct config *config, const void *field, char out[CONFIG_NAME_SIZE])
{
    return name_of(config, index_of((size_t)((const char *)field - (const char *)config)), out);
}
