/* SPDX-License-Identifier: MIT */
/* The service's log on a file in memory, and its lines as JSON.
 *
 *     log_lines_start();
 *     log_line(LOG_INFO, "hello", NULL);
 *     lines = log_lines_stop();            // an array; the caller owns it
 *
 * Invariant: a line that is no JSON object, or that names a member twice, fails the test.
 *
 * Thread safety: the test's thread only, but for what log.h allows. */
#ifndef LOG_LINES_H
#define LOG_LINES_H

#include <jansson.h>

#include <curfew/base.h>

void log_lines_start(void);

/* Wait until the first line was written. */
void log_lines_wait(void);
json_t *log_lines_stop(void);

/* Of an array or of one line: fails the test if there is no such thing. */
json_t *log_lines_at(json_t *lines, size_t index);
const char *log_lines_str(const json_t *line, const char *name);
int64_t log_lines_i64(const json_t *line, const char *name);

/* All objects in a text whose lines end in a line feed. The caller owns the array. */
json_t *log_lines_parse(const char *text, size_t size);

#endif
