/* SPDX-License-Identifier: MIT */
/* Files that hold settings: see config_file.h. */
#include "curfewd/config_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Internal helpers */

/* Read until the end, or until there is a byte more than may be. Returns the bytes, or -1. */
static ssize_t read_all(int fd, char *to)
{
    size_t size = 0;
    ssize_t n = 1;

    while (n != 0 && size <= CONFIG_FILE_SIZE_MAX) {
        n = read(fd, to + size, CONFIG_FILE_SIZE_MAX + 1 - size);
        if (n < 0 && errno != EINTR) {
            return -1;
        }
        size += n > 0 ? (size_t)n : 0;
    }
    return (ssize_t)size;
}

static enum cf_code read_text(int fd, struct config_text *text, struct cf_err *err)
{
    ssize_t size = read_all(fd, text->data);

    if (size < 0) {
        return cf_err_set_sys(err, CF_EINVAL, errno, "cannot read it");
    }
    if ((size_t)size > CONFIG_FILE_SIZE_MAX) {
        return cf_err_set(err, CF_EINVAL, "larger than %zu KiB", CONFIG_FILE_SIZE_MAX / 1024);
    }
    if (memchr(text->data, '\0', (size_t)size) != NULL) {
        return cf_err_set(err, CF_EINVAL, "not a text: there is a NUL in it");
    }
    text->data[size] = '\0';
    text->next = NULL;
    return CF_OK;
}

/* Operations */

enum cf_code config_file_read(const char *path, struct config_text **out, struct cf_err *err)
{
    struct config_text *text = malloc(sizeof(*text) + CONFIG_FILE_SIZE_MAX + 2);
    enum cf_code code;
    int fd;

    if (text == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory to read it");
    }
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        code = cf_err_set_sys(err, CF_EINVAL, errno, "cannot open it");
    } else {
        code = read_text(fd, text, err);
        (void)close(fd);
    }
    if (code != CF_OK) {
        free(text);
        return code;
    }
    *out = text;
    return CF_OK;
}

enum cf_code config_file_next(struct config_lines *lines, struct config_line *out,
                              struct cf_err *err)
{
    char *line;
    char *equals;

    out->key = NULL;
    do {
        if (lines->rest == NULL) {
            return CF_OK;
        }
        lines->number++;
        line = strsep(&lines->rest, "\n");
        line += strspn(line, " \t");
    } while (line[0] == '\0' || line[0] == '#');

    equals = strchr(line, '=');
    if (equals == NULL || equals == line) {
        /* Without the line: it may be the rest of a password. */
        return cf_err_set(err, CF_EINVAL, "should be KEY=VALUE, or a comment that starts with #");
    }
    *equals = '\0';
    out->key = line;
    out->value = equals + 1;
    return CF_OK;
}

/* Queries */

bool config_has_control(const char *text)
{
    for (; *text != '\0'; text++) {
        if (((unsigned char)*text < 0x20 && *text != '\t') || *text == 0x7F) {
            return true;
        }
    }
    return false;
}
