/* SPDX-License-Identifier: MIT */
/* The table of settings, for the files that read it (config.c), parse what it describes
 * (config_value.c) and print it (config_print.c). Constant. */
#ifndef CURFEWD_CONFIG_PRIVATE_H
#define CURFEWD_CONFIG_PRIVATE_H

#include <stddef.h>

#include "curfewd/config.h"

enum config_type {
    TYPE_LISTEN,  /* What has a check of the library's, that resolves nothing. */
    TYPE_PROXIES, /* The same, as are the next three. */
    TYPE_HOSTS,
    TYPE_ALLOW,
    TYPE_URL, /* A secret: also by its variable's name and _FILE, a file that holds it. */
    TYPE_COUNT,
    TYPE_DURATION,
    TYPE_SIZE,
    TYPE_BOOL,
    TYPE_CANCEL,
};

struct config_option {
    const char
        *flag; /* Without dashes. NULL: not on a command line, where everybody can read it. */
    const char *env;
    enum config_type type;
    size_t offset; /* In struct config. */
    const char *fallback;
    int64_t min; /* Of counts, of durations in nanoseconds, of sizes in bytes. */
    int64_t max;
    const char *help;
};

extern const struct config_option config_options[];
extern const size_t config_n_options;

#define CONFIG_KIB INT64_C(1024)
#define CONFIG_MIB (1024 * CONFIG_KIB)

/* How much of what was typed an error repeats: what would be right has to fit behind it. */
#define CONFIG_QUOTED_MAX 64
#define CONFIG_QUOTED_SIZE (CONFIG_QUOTED_MAX + sizeof("..."))

#define CONFIG_FILE_SUFFIX "_FILE"

/* What was typed, as a message of one line can hold it: cut, and without control characters. */
const char *config_quote(const char *text, size_t length, char out[CONFIG_QUOTED_SIZE]);

/* Say that a value is not `right`. `where`: the door it came through. Returns CF_EINVAL. */
enum cf_code config_bad(const char *where, const char *text, const char *right, struct cf_err *err);

/* Parse a value into its field of *config. Fails with CF_EINVAL, as config_bad(). */
CF_MUST enum cf_code config_set(struct config *config, const struct config_option *option,
                                const char *where, const char *text, struct cf_err *err);

/* The option of a variable, NULL if there is none; *out_is_path: of the file that holds its
 * value. */
const struct config_option *config_find_variable(const char *name, size_t length,
                                                 bool *out_is_path);

/* Whether it is a variable of libpq's, by its form. */
bool config_is_libpq(const char *name, size_t length);

#endif
