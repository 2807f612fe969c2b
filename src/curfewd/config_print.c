/* SPDX-License-Identifier: MIT */
/* The table as --help and --dump-config print it. */
#include "curfewd/config_private.h"

#include <string.h>
#include <unistd.h>

#include "curfewd/config_file.h"

/* Constants */

#define MASK "********"

/* Internal helpers */

static const char *name_of_door(const struct config *config, size_t i, char out[CONFIG_NAME_SIZE])
{
    const struct config_value *value = &config->values[i];
    char quoted[CONFIG_QUOTED_SIZE];

    switch (value->door) {
    case CONFIG_DEFAULT:
        if (value->text == config_options[i].fallback) {
            return "default";
        }
        return config_options[i].offset == offsetof(struct config, in_flight)
                   ? "default, cut below --connections"
                   : "default, cut to --max-timeout";
    case CONFIG_FILE:
        (void)snprintf(out, CONFIG_NAME_SIZE, "%s:%u",
                       config_quote(config->file, strlen(config->file), quoted), value->line);
        return out;
    case CONFIG_ENVIRONMENT:
        return "environment";
    case CONFIG_FLAG:
        return "command line";
    }
    return "";
}

/* What libpq will find in the environment: it is a part of the configuration too. */
static void dump_libpq(FILE *file)
{
    for (char **at = environ; *at != NULL; at++) {
        size_t length = strcspn(*at, "=");

        if (!config_is_libpq(*at, length) || (*at)[length] == '\0') {
            continue;
        }
        if (strncmp(*at, "PGPASSWORD=", strlen("PGPASSWORD=")) == 0 || config_has_control(*at)) {
            (void)fprintf(file, "\n# libpq's (environment)\n#%.*s=%s\n", (int)length, *at, MASK);
        } else {
            (void)fprintf(file, "\n# libpq's (environment)\n%s\n", *at);
        }
    }
}

/* Flags that are no settings. */
static void print_actions(FILE *file)
{
    static const struct {
        const char *flag;
        const char *help;
    } actions[] = {
        {"--config FILE", "read settings from a file"},
        {"--dump-config",
         "print every setting with its value, secrets masked, in the format of --config"},
        {"--ready", "ask the service that runs with these settings whether it is ready"},
        {"--help", "print this help"},
        {"--version", "print the versions of the service and its libraries"},
    };

    for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++) {
        (void)fprintf(file, "  %-73s %s\n", actions[i].flag, actions[i].help);
    }
    (void)fprintf(file, "\n");
}

/* Operations */

void config_dump(const struct config *config, FILE *file)
{
    (void)fprintf(file, "# Every setting of curfewd, where its value comes from, and the value;\n"
                        "# what is secret is masked, and so commented out. A file for --config.\n");
    for (size_t i = 0; i < config_n_options; i++) {
        const struct config_value *value = &config->values[i];
        bool is_secret = config_options[i].type == TYPE_URL && !value->is_path;
        char where[CONFIG_NAME_SIZE];

        (void)fprintf(file, "\n# %s (%s)\n", config_options[i].help,
                      name_of_door(config, i, where));
        if (is_secret) {
            (void)fprintf(file, "#%s=%s\n", config_options[i].env,
                          value->text[0] != '\0' ? MASK : "");
        } else {
            (void)fprintf(file, "%s%s=%s\n", config_options[i].env,
                          value->is_path ? CONFIG_FILE_SUFFIX : "", value->text);
        }
    }
    dump_libpq(file);
}

void config_print_help(FILE *file)
{
    (void)fprintf(file,
                  "Usage: curfewd [--FLAG VALUE]...\n\n"
                  "An HTTP service over PostgreSQL whose requests end when their deadline passes\n"
                  "or their client hangs up, and whose queries end with them.\n\n"
                  "  %-25s %-30s %-16s %s\n",
                  "flag", "environment", "default", "");
    for (size_t i = 0; i < config_n_options; i++) {
        const struct config_option *option = &config_options[i];
        char flag[32] = "";

        if (option->flag != NULL) {
            (void)snprintf(flag, sizeof(flag), "--%s", option->flag);
        }
        (void)fprintf(file, "  %-25s %-30s %-16s %s\n", flag, option->env, option->fallback,
                      option->help);
        if (option->type == TYPE_URL) {
            (void)fprintf(file, "  %-25s %s%-*s %-16s %s\n", "", option->env,
                          30 - (int)strlen(option->env), CONFIG_FILE_SUFFIX, "",
                          "file that contains it");
        }
    }
    print_actions(file);
    (void)fprintf(
        file,
        "A flag overrides its environment variable, which overrides the file, which overrides\n"
        "the default. A switch (0 or 1) without a value means 1; a value follows an equals\n"
        "sign: --demo, --demo=0; an empty one (CURFEW_DEMO=) means 0. The file has\n"
        "lines of VARIABLE=VALUE, like docker's --env-file and systemd's EnvironmentFile, and may\n"
        "also set libpq's PG* variables.\n\n"
        "Exit status: 0 stopped as asked, 1 failure, 2 wrong usage, 78 wrong configuration.\n");
}
