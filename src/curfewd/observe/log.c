/* SPDX-License-Identifier: MIT */
/* Two buffers: loops append to one under a lock that is never held across a write, the thread
 * writes the other. See log.h.
 *
 * Waking the thread for each line would cost a loop as much as half the request that the line is
 * about. So only the first line after a silence wakes it; having written, it leaves the next lines
 * together for LOG_LINGER_NS, unless one of them is urgent or the buffer is half full. */
#include "curfewd/observe/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "curfewd/members.h"

static struct {
    int fd; /* Constant after start, as are these. */
    pthread_t thread;
    pthread_cond_t changed;

    bool torn; /* The thread's: the last line that was written lacks its end. */

    pthread_mutex_t mu; /* Guards everything below. */
    char *filling;      /* LOG_BUFFER_MAX bytes. */
    char *writing;      /* The thread's while busy. */
    size_t filled;
    bool idle;   /* The thread waits for a first line. */
    bool urgent; /* What is there is to be written now. */
    bool busy;
    bool stopping;
    bool running;
    uint64_t dropped;
    uint64_t dropped_said; /* Of them, those that a line has told of. */
} self = {.fd = -1, .mu = PTHREAD_MUTEX_INITIALIZER};

/* Internal helpers */

/* Write all of it, or as much as the descriptor takes before it fails; returns how much. */
static size_t put(const char *data, size_t size)
{
    size_t done = 0;

    while (done < size) {
        struct pollfd pollfd = {.fd = self.fd, .events = POLLOUT};
        ssize_t n = write(self.fd, data + done, size - done);

        if (n > 0) {
            done += (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            (void)poll(&pollfd, 1, -1); /* We were given a descriptor that does not block. */
        } else if (n == 0 || errno != EINTR) {
            break; /* The reader is gone, or the disk full: requests go on. */
        }
    }
    return done;
}

/* Write whole lines; returns how many were lost. */
static uint64_t put_lines(const char *data, size_t size)
{
    size_t done = 0;
    uint64_t lost = 0;

    /* If the last write failed in the middle of a line, what follows must not become part of it. */
    if (!self.torn || put("\n", 1) == 1) {
        done = put(data, size);
        self.torn = done > 0 && data[done - 1] != '\n';
        done += self.torn && data[done] == '\n'; /* Lacks nothing else: it is not lost. */
    }
    for (size_t i = done; i < size; i++) {
        lost += data[i] == '\n';
    }
    return lost;
}

/* True: it was said. */
static bool put_dropped(uint64_t count)
{
    struct cf_json json;
    const char *data;
    char line[192];
    size_t size;
    bool said = false;

    log_begin(&json, LOG_WARN, "log lines dropped");
    member_u64(&json, "count", count);
    cf_json_end(&json);
    if (cf_json_finish(&json, &data, &size, NULL) == CF_OK && size < sizeof(line)) {
        memcpy(line, data, size);
        line[size] = '\n';
        said = put_lines(line, size + 1) == 0;
    }
    cf_json_fini(&json);
    return said;
}

static bool wait_until(int64_t at_ns)
{
    struct timespec at = {.tv_sec = at_ns / CF_SECOND, .tv_nsec = at_ns % CF_SECOND};

    return pthread_cond_timedwait(&self.changed, &self.mu, &at) == 0;
}

/* Wait for lines, and for the time or a reason to write them. With mu held. */
static void await_lines(int64_t not_before_ns)
{
    while (self.filled == 0 && !self.stopping) {
        self.idle = true;
        (void)pthread_cond_wait(&self.changed, &self.mu);
    }
    self.idle = false;
    while (!self.urgent && !self.stopping && wait_until(not_before_ns)) {
        /* Woken by log_end(), or by nobody. */
    }
    self.urgent = false;
}

/* What was dropped until now was so because it came behind the lines taken here: it is said behind
 * them. If they are lost themselves, that is said behind the next. */
static void *run(void *arg)
{
    int64_t not_before_ns = 0;

    (void)pthread_mutex_lock(&self.mu);
    for (await_lines(0); self.filled > 0; await_lines(not_before_ns)) {
        char *data = self.filling;
        size_t size = self.filled;
        uint64_t unsaid = self.dropped - self.dropped_said;
        uint64_t lost;
        bool said;

        self.filling = self.writing;
        self.writing = data;
        self.filled = 0;
        self.busy = true;
        (void)pthread_mutex_unlock(&self.mu);
        lost = put_lines(data, size);
        said = unsaid > 0 && put_dropped(unsaid);
        not_before_ns = cf_now_ns() + LOG_LINGER_NS;
        (void)pthread_mutex_lock(&self.mu);
        self.dropped += lost;
        self.dropped_said += said ? unsaid : 0;
        self.busy = false;
        (void)pthread_cond_broadcast(&self.changed);
    }
    (void)pthread_mutex_unlock(&self.mu);
    return arg;
}

/* Append a line. With mu held. */
static bool append(const char *line, size_t size)
{
    if (!self.running || size + 1 > LOG_BUFFER_MAX - self.filled) {
        return false;
    }
    memcpy(self.filling + self.filled, line, size);
    self.filling[self.filled + size] = '\n';
    self.filled += size + 1;
    return true;
}

/* Wake the thread if there is a reason, and once for each. With mu held, and while running: the
 * condition is there. */
static void wake(enum log_level level)
{
    bool urgent = !self.urgent && (level != LOG_INFO || self.filled >= LOG_BUFFER_MAX / 2);

    if (self.idle || urgent) {
        self.idle = false;
        self.urgent = self.urgent || urgent;
        (void)pthread_cond_broadcast(&self.changed);
    }
}

static const char *level_name(enum log_level level)
{
    switch (level) {
    case LOG_INFO:
        return "info";
    case LOG_WARN:
        return "warn";
    case LOG_ERROR:
        return "error";
    }
    return "unknown";
}

static void free_buffers(void)
{
    free(self.filling);
    free(self.writing);
    self.filling = NULL;
    self.writing = NULL;
}

/* Life cycle */

enum cf_code log_start(int fd, struct cf_err *err)
{
    pthread_condattr_t attributes;
    int sys;

    self.fd = fd;
    self.filling = malloc(LOG_BUFFER_MAX);
    self.writing = malloc(LOG_BUFFER_MAX);
    if (self.filling == NULL || self.writing == NULL) {
        free_buffers();
        return cf_err_set(err, CF_ENOMEM, "no memory for the log");
    }
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&self.changed, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    self.torn = false;
    self.filled = 0;
    self.idle = false;
    self.urgent = false;
    self.stopping = false;
    self.dropped = 0;
    self.dropped_said = 0;
    self.running = true;
    sys = pthread_create(&self.thread, NULL, run, NULL);
    if (sys != 0) {
        self.running = false;
        (void)pthread_cond_destroy(&self.changed);
        free_buffers();
        return cf_err_set_sys(err, CF_EIO, sys, "start the log's thread");
    }
    (void)pthread_setname_np(self.thread, "log");
    return CF_OK;
}

void log_stop(int64_t timeout_ns)
{
    int64_t until_ns = cf_deadline_in(cf_now_ns(), timeout_ns);
    bool in_time = true;

    (void)pthread_mutex_lock(&self.mu);
    self.running = false;
    self.stopping = true;
    (void)pthread_cond_broadcast(&self.changed);
    while (in_time && (self.busy || self.filled > 0)) {
        in_time = wait_until(until_ns);
    }
    (void)pthread_mutex_unlock(&self.mu);
    if (in_time) {
        (void)pthread_join(self.thread, NULL);
        (void)pthread_cond_destroy(&self.changed);
        free_buffers();
    }
}

/* Operations */

void log_begin(struct cf_json *json, enum log_level level, const char *msg)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    cf_json_init(json);
    cf_json_object(json);
    member_time_us(json, "ts", (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000);
    member_str(json, "level", level_name(level));
    member_str(json, "msg", msg);
}

void log_end(struct cf_json *json, enum log_level level)
{
    const char *data = NULL;
    size_t size = 0;

    cf_json_end(json);
    (void)pthread_mutex_lock(&self.mu);
    if (cf_json_finish(json, &data, &size, NULL) != CF_OK || !append(data, size)) {
        self.dropped++;
    } else {
        wake(level);
    }
    (void)pthread_mutex_unlock(&self.mu);
    cf_json_fini(json);
}

void log_line(enum log_level level, const char *msg, const struct cf_err *err)
{
    struct cf_json json;

    log_begin(&json, level, msg);
    if (err != NULL) {
        member_str(&json, "code", cf_code_name(err->code));
        member_str(&json, "error", err->msg);
    }
    log_end(&json, level);
}

/* Queries */

uint64_t log_dropped(void)
{
    uint64_t dropped;

    (void)pthread_mutex_lock(&self.mu);
    dropped = self.dropped;
    (void)pthread_mutex_unlock(&self.mu);
    return dropped;
}
