/* SPDX-License-Identifier: MIT */
/* The configuration. Input: lines, each an argument if it begins with "--", a variable of the
 * environment if it begins with '!', and else one of --config's file. */
#include "curfewd/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kit.h"

#define ARGS_MAX 16
#define HOUR (3600 * CF_SECOND)

struct input {
    int argc;
    char *argv[ARGS_MAX + 3];
    char file_flag[64];
    int file;
};

static bool is_ours(const char *variable)
{
    return strncmp(variable, "CURFEW_", 7) == 0 || strncmp(variable, "DATABASE_URL", 12) == 0 ||
           strncmp(variable, "PG", 2) == 0;
}

static void clear_environment(void)
{
    char **at = environ;

    while (*at != NULL) {
        char *name = strndup(*at, strcspn(*at, "="));

        FUZZ_CHECK(name != NULL);
        if (is_ours(name)) {
            FUZZ_CHECK(unsetenv(name) == 0);
            at = environ; /* They were moved. */
        } else {
            at++;
        }
        free(name);
    }
}

static void set_variable(char *line)
{
    char *equals = strchr(line, '=');

    if (equals != NULL && equals - line < 60 && is_ours(line)) {
        *equals = '\0';
        (void)setenv(line, equals + 1, 1);
    }
}

/* A file in memory, and the flag that names it. */
static void make_file(struct input *input)
{
    input->file = memfd_create("config", MFD_CLOEXEC);
    FUZZ_CHECK(input->file >= 0);
    (void)snprintf(input->file_flag, sizeof(input->file_flag), "--config=/proc/self/fd/%d",
                   input->file);
    input->argv[0] = input->file_flag; /* Not looked at. */
    input->argv[1] = input->file_flag;
    input->argc = 2;
}

static void write_file(struct input *input, const char *text)
{
    FUZZ_CHECK(write(input->file, text, strlen(text)) == (ssize_t)strlen(text));
}

static void take_line(struct input *input, char *line)
{
    if (strncmp(line, "--", 2) != 0 && line[0] != '!') {
        write_file(input, line);
        write_file(input, "\n");
    } else if (line[0] == '!') {
        set_variable(line + 1);
    } else if (input->argc < ARGS_MAX && strncmp(line, "--config", 8) != 0) {
        input->argv[input->argc++] = line;
    }
}

static enum config_outcome load(struct input *input, struct config *out, struct cf_err *err)
{
    enum config_outcome outcome;

    input->argv[input->argc] = NULL;
    outcome = config_load(input->argc, input->argv, out, err);
    (void)close(input->file);
    return outcome;
}

static void check_ranges(const struct config *config)
{
    const int64_t durations[] = {config->default_timeout_ns, config->max_timeout_ns,
                                 config->idle_timeout_ns, config->head_timeout_ns,
                                 config->body_timeout_ns};

    FUZZ_CHECK(config->pool >= 1 && config->pool <= 10000);
    FUZZ_CHECK(config->loops >= 0 && config->loops <= config->pool);
    FUZZ_CHECK(config->in_flight >= 1 && config->connections >= 1);
    FUZZ_CHECK(config->in_flight < config->connections || config->connections == 1);
    FUZZ_CHECK(config->grace_ns >= 0 && config->grace_ns <= HOUR);
    FUZZ_CHECK(config->default_timeout_ns <= config->max_timeout_ns);
    for (size_t i = 0; i < sizeof(durations) / sizeof(durations[0]); i++) {
        FUZZ_CHECK(durations[i] >= CF_MS && durations[i] <= HOUR);
    }
    FUZZ_CHECK(strpbrk(config->listen, "\n\r") == NULL);
    FUZZ_CHECK(strpbrk(config->database_url, "\n\r") == NULL);
}

/* What the dump says, read again, is the same; but for the secret, which is not said. */
static void check_dump(const struct config *config)
{
    struct input input = {.argc = 0};
    struct config again;
    struct cf_err err;
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);

    FUZZ_CHECK(file != NULL);
    config_dump(config, file);
    FUZZ_CHECK(fclose(file) == 0);
    FUZZ_CHECK(strstr(text, "\nDATABASE_URL=") == NULL && strstr(text, "\nPGPASSWORD=") == NULL);

    clear_environment();
    if (config->database_url[0] != '\0') { /* It may stand for libpq's variables, which are said. */
        FUZZ_CHECK(setenv("DATABASE_URL", config->database_url, 1) == 0);
    }
    make_file(&input);
    write_file(&input, text);
    (void)lseek(input.file, 0, SEEK_SET);
    FUZZ_CHECK(load(&input, &again, &err) == CONFIG_OK);
    FUZZ_CHECK(strcmp(again.listen, config->listen) == 0);
    FUZZ_CHECK(strcmp(again.admin, config->admin) == 0);
    FUZZ_CHECK(again.pool == config->pool && again.loops == config->loops);
    FUZZ_CHECK(again.cancel == config->cancel && again.grace_ns == config->grace_ns);
    FUZZ_CHECK(again.default_timeout_ns == config->default_timeout_ns);
    FUZZ_CHECK(again.max_timeout_ns == config->max_timeout_ns);
    FUZZ_CHECK(again.idle_timeout_ns == config->idle_timeout_ns);
    FUZZ_CHECK(again.head_timeout_ns == config->head_timeout_ns);
    FUZZ_CHECK(again.body_timeout_ns == config->body_timeout_ns);
    FUZZ_CHECK(again.in_flight == config->in_flight && again.connections == config->connections);
    FUZZ_CHECK(again.half_close == config->half_close && again.demo == config->demo);
    FUZZ_CHECK(again.core_dumps == config->core_dumps);
    config_free(&again);
    free(text);
}

FUZZ_TARGET(config)
{
    char *text = fuzz_string(data, size);
    struct input input = {.argc = 0};
    struct config config = {.pool = -7};
    struct cf_err err = {.msg = ""};
    enum config_outcome outcome;
    char *rest = text;
    char *line;

    clear_environment();
    make_file(&input);
    while ((line = strsep(&rest, "\n")) != NULL) {
        take_line(&input, line);
    }
    (void)lseek(input.file, 0, SEEK_SET);
    outcome = load(&input, &config, &err);
    if (outcome == CONFIG_OK || outcome == CONFIG_DUMP || outcome == CONFIG_READY) {
        check_ranges(&config);
        check_dump(&config);
        config_free(&config);
    } else {
        bool is_wrong = outcome == CONFIG_USAGE || outcome == CONFIG_BAD;

        FUZZ_CHECK(config.pool == -7);
        FUZZ_CHECK((err.msg[0] != '\0') == is_wrong);
        FUZZ_CHECK(!fuzz_has_control(err.msg, strlen(err.msg)));
    }
    free(text);
    return 0;
}
