/* SPDX-License-Identifier: MIT */
/* The log: one JSON object a line on standard output, written by a thread of its own.
 *
 * A loop must not wait for a pipe or a disk, so lines go to a buffer in memory; what does not fit
 * into LOG_BUFFER_MAX, because the reader has stopped, is dropped and counted, and so is what
 * cannot be written. A line of its own says the count, behind the next lines that get through.
 *
 * Lines that come fast are written together: the last of them, of LOG_LINGER_NS at most, are lost
 * if the process is killed. A warning or an error is written at once, with all before it.
 *
 * Thread safety: log_line() and the functions on it from any thread. */
#ifndef CURFEWD_OBSERVE_LOG_H
#define CURFEWD_OBSERVE_LOG_H

#include <curfew/clock.h>
#include <curfew/err.h>
#include <curfew/json.h>

#define LOG_BUFFER_MAX ((size_t)1 << 20)

/* Between two writes, if nothing is urgent. */
#define LOG_LINGER_NS (5 * CF_MS)

enum log_level {
    LOG_INFO,
    LOG_WARN,
    LOG_ERROR
};

/* Start the writer, which only a log_stop() in time allows again. Fails with CF_ENOMEM, CF_EIO. */
CF_MUST enum cf_code log_start(int fd, struct cf_err *err);

/* Write what is buffered, for at most `timeout_ns`, and stop. */
void log_stop(int64_t timeout_ns);

/* Begin a line: "ts", "level" and "msg" stand in it, the caller adds members to `json`. */
void log_begin(struct cf_json *json, enum log_level level, const char *msg);

/* End the line, hand it to the writer, and free what `json` holds. `level` is that of the begin:
 * what is more than LOG_INFO is written at once. */
void log_end(struct cf_json *json, enum log_level level);

/* A whole line with an error. `err` may be NULL. */
void log_line(enum log_level level, const char *msg, const struct cf_err *err);

/* Lines that were dropped since the start. */
uint64_t log_dropped(void);

#endif
