/* SPDX-License-Identifier: MIT */
/* Files that hold settings: KEY=VALUE lines, and files that hold one secret.
 *
 * The lines are what docker's --env-file and systemd's EnvironmentFile both read alike: a '#' at
 * the start of a line makes a comment, and a value goes from the first '=' to the end of its line,
 * as it stands there.
 *
 * Thread safety: values. */
#ifndef CURFEWD_CONFIG_FILE_H
#define CURFEWD_CONFIG_FILE_H

#include <stdbool.h>

#include <curfew/err.h>

/* Longest file that is read. */
#define CONFIG_FILE_SIZE_MAX ((size_t)64 * 1024)

/* A file's text, in a list of whatever the configuration points into. */
struct config_text {
    struct config_text *next;
    char data[]; /* Ends with a NUL, and has no other. */
};

/* Read the whole of a file, which may be a pipe.
 * Ownership: the caller frees *out with free(). Fails with CF_EINVAL, without naming the file. */
CF_MUST enum cf_code config_file_read(const char *path, struct config_text **out,
                                      struct cf_err *err);

/* Where one is in a file that is read line by line. */
struct config_lines {
    char *rest; /* The first line to come, in text that is cut into pieces. */
    unsigned number;
};

struct config_line {
    const char *key;
    const char *value;
};

/* Find the next line that is neither empty nor a comment; key NULL: there is none.
 * Fails with CF_EINVAL; lines->number is that of the line. */
CF_MUST enum cf_code config_file_next(struct config_lines *lines, struct config_line *out,
                                      struct cf_err *err);

/* Whether there is a control character in the text other than a tab. */
bool config_has_control(const char *text);

#endif
