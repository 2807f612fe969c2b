/* SPDX-License-Identifier: MIT */
/* The log in memory: see log_lines.h. */
#include "log_lines.h"

#include <check.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "curfewd/observe/log.h"

#define STOP_NS                                                                                    \
    (60 * CF_SECOND) /* Memory takes everything at once: only a deadlock lasts as long. */

static int fd = -1;

void log_lines_start(void)
{
    struct cf_err err = {.code = CF_OK};

    fd = memfd_create("log", MFD_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_msg(log_start(fd, &err) == CF_OK, "%s", err.msg);
}

void log_lines_wait(void)
{
    struct stat stat = {.st_size = 0};

    while (stat.st_size == 0) {
        ck_assert_int_eq(fstat(fd, &stat), 0);
        (void)sched_yield();
    }
}

json_t *log_lines_stop(void)
{
    struct stat stat;
    json_t *lines;
    char *text;

    log_stop(STOP_NS);
    ck_assert_int_eq(fstat(fd, &stat), 0);
    text = malloc((size_t)stat.st_size + 1);
    ck_assert_ptr_nonnull(text);
    ck_assert_int_eq(pread(fd, text, (size_t)stat.st_size, 0), stat.st_size);
    ck_assert_int_eq(close(fd), 0);
    lines = log_lines_parse(text, (size_t)stat.st_size);
    free(text);
    return lines;
}

json_t *log_lines_at(json_t *lines, size_t index)
{
    ck_assert_uint_lt(index, json_array_size(lines));
    return json_array_get(lines, index);
}

const char *log_lines_str(const json_t *line, const char *name)
{
    const char *text = json_string_value(json_object_get(line, name));

    ck_assert_msg(text != NULL, "no string \"%s\"", name);
    return text;
}

int64_t log_lines_i64(const json_t *line, const char *name)
{
    const json_t *value = json_object_get(line, name);

    ck_assert_msg(json_is_integer(value), "no integer \"%s\"", name);
    return json_integer_value(value);
}

json_t *log_lines_parse(const char *text, size_t size)
{
    json_t *lines = json_array();
    const char *end;

    ck_assert_ptr_nonnull(lines);
    for (const char *at = text; at < text + size; at = end + 1) {
        json_error_t error;
        json_t *line;

        end = memchr(at, '\n', size - (size_t)(at - text));
        ck_assert_msg(end != NULL, "the last line has no end");
        line = json_loadb(at, (size_t)(end - at), JSON_REJECT_DUPLICATES, &error);
        ck_assert_msg(json_is_object(line), "%s: %.*s", error.text, (int)(end - at), at);
        ck_assert_int_eq(json_array_append_new(lines, line), 0);
    }
    return lines;
}
