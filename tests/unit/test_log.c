/* SPDX-License-Identifier: MIT */
/* The log: what a line is, and that nobody who writes one ever waits. */
#include "curfewd/observe/log.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "effort.h"
#include "fault.h"
#include "log_lines.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
#define LONG_NS (60 * CF_SECOND) /* What is waited for comes at once, or never. */

/* Bytes of a line beside its message. */
#define AROUND                                                                                     \
    (sizeof("{\"ts\":\"2026-01-31T09:30:00.000000Z\",\"level\":\"info\",\"msg\":\"\"}\n") - 1)

/* Fixture: a pipe, whose reader the test is. */

static int ends[2];
static struct cf_err err;

static void setup_pipe(void)
{
    (void)signal(SIGPIPE, SIG_IGN); /* As the service does. */
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
}

static void teardown_pipe(void)
{
    (void)close(ends[0]);
    (void)close(ends[1]);
    (void)signal(SIGPIPE, SIG_DFL);
}

/* Helpers */

/* All have the same size, so that no line fits where an earlier one did not. */
static void log_number(unsigned number)
{
    struct cf_json json;
    char text[16];

    (void)snprintf(text, sizeof(text), "%010u", number);
    log_begin(&json, LOG_INFO, "numbered");
    cf_json_key(&json, "number");
    cf_json_str(&json, text);
    log_end(&json, LOG_INFO);
}

static bool is_number(const json_t *line)
{
    return strcmp(log_lines_str(line, "msg"), "numbered") == 0;
}

static unsigned number_of(const json_t *line)
{
    return (unsigned)strtoul(log_lines_str(line, "number"), NULL, 10);
}

/* Lines that somebody logged, and not the log itself. */
static size_t count_logged(const json_t *lines)
{
    size_t count = 0;
    size_t index;
    json_t *line;

    json_array_foreach(lines, index, line)
    {
        count += strcmp(log_lines_str(line, "msg"), "log lines dropped") != 0;
    }
    return count;
}

static json_t *read_line(FILE *file)
{
    char text[256];
    json_t *lines;
    json_t *line;

    ck_assert_ptr_nonnull(fgets(text, sizeof(text), file));
    lines = log_lines_parse(text, strlen(text));
    line = json_incref(log_lines_at(lines, 0));
    json_decref(lines);
    return line;
}

/* The next line of the log: a number, or how many are missing here. Returns the number to come. */
static unsigned expect_line(FILE *file, unsigned expected)
{
    json_t *line = read_line(file);

    if (is_number(line)) {
        ck_assert_uint_eq(number_of(line), expected);
        expected++;
    } else {
        ck_assert_str_eq(log_lines_str(line, "msg"), "log lines dropped");
        ck_assert_str_eq(log_lines_str(line, "level"), "warn");
        ck_assert_uint_eq(strlen(log_lines_str(line, "ts")), strlen("2026-01-31T09:30:00.000000Z"));
        ck_assert_int_gt(log_lines_i64(line, "count"), 0);
        expected += (unsigned)log_lines_i64(line, "count");
    }
    json_decref(line);
    return expected;
}

/* start, stop */

START_TEST(start_without_memory_leaves_nothing)
{
    unsigned nth;

    for (nth = 1;; nth++) {
        enum cf_code code;

        fault_alloc(nth, false);
        code = log_start(ends[1], &err);
        if (!fault_off()) {
            ck_assert_int_eq(code, CF_OK);
            break;
        }
        ck_assert_int_eq(code, CF_ENOMEM);
    }
    ck_assert_uint_eq(nth, 3);
    log_stop(LONG_NS);
}
END_TEST

START_TEST(stop_writes_what_is_buffered)
{
    enum {
        COUNT = 5000
    };
    json_t *lines;

    log_lines_start();
    for (unsigned i = 0; i < COUNT; i++) {
        log_number(i);
    }
    lines = log_lines_stop();
    ck_assert_uint_eq(json_array_size(lines), COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        ck_assert_uint_eq(number_of(log_lines_at(lines, i)), i);
    }
    ck_assert_uint_eq(log_dropped(), 0);
    json_decref(lines);
}
END_TEST

START_TEST(stop_of_nothing_writes_nothing)
{
    json_t *lines;

    log_lines_start();
    lines = log_lines_stop();
    ck_assert_uint_eq(json_array_size(lines), 0);
    json_decref(lines);
}
END_TEST

START_TEST(start_after_stop_begins_anew)
{
    for (int round = 0; round < 3; round++) {
        json_t *lines;

        log_lines_start();
        ck_assert_uint_eq(log_dropped(), 0);
        log_number(1);
        log_lines_wait();
        log_number(2); /* The thread is there still. */
        lines = log_lines_stop();
        ck_assert_uint_eq(json_array_size(lines), 2);
        json_decref(lines);
        log_number(3); /* Nobody writes it any more. */
        ck_assert_uint_eq(log_dropped(), 1);
    }
}
END_TEST

/* The process ends whether or not somebody reads its last words: those that are being written, and
 * where _i is 1 those that wait behind them. Leaves a thread behind. */
START_TEST(stop_with_blocked_reader_ends_in_time)
{
    const int64_t timeout_ns = 50 * CF_MS;
    struct pollfd full = {.fd = ends[1], .events = POLLOUT};
    size_t size = (size_t)fcntl(ends[1], F_GETPIPE_SZ) + 1;
    char *text = malloc(size + 1);
    uint64_t dropped;
    int64_t since_ns;
    int64_t took_ns;

    ck_assert_ptr_nonnull(text);
    memset(text, 'x', size);
    text[size] = '\0';
    ck_assert_int_eq(log_start(ends[1], &err), CF_OK);
    log_line(LOG_INFO, text, NULL);
    while (poll(&full, 1, 0) != 0) {
        (void)sched_yield();
    }
    if (_i == 1) {
        log_number(1);
    }
    since_ns = cf_now_ns();
    log_stop(timeout_ns);
    took_ns = cf_now_ns() - since_ns;
    ck_assert_int_ge(took_ns, timeout_ns);
    ck_assert_int_lt(took_ns, 20 * CF_SECOND);
    dropped = log_dropped();
    log_number(2); /* Goes nowhere. */
    ck_assert_uint_eq(log_dropped(), dropped + 1);
    free(text);
}
END_TEST

/* begin, end, line */

START_TEST(line_has_time_level_and_message)
{
    static const char *const levels[] = {
        [LOG_INFO] = "info", [LOG_WARN] = "warn", [LOG_ERROR] = "error"};
    struct timespec now;
    json_t *lines;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    log_lines_start();
    for (size_t i = 0; i < LENGTH(levels); i++) {
        log_line((enum log_level)i, "hello", NULL);
    }
    lines = log_lines_stop();
    ck_assert_uint_eq(json_array_size(lines), LENGTH(levels));
    for (size_t i = 0; i < LENGTH(levels); i++) {
        const json_t *line = log_lines_at(lines, i);
        const char *ts = log_lines_str(line, "ts");
        struct tm tm = {0};
        const char *rest = strptime(ts, "%Y-%m-%dT%H:%M:%S", &tm);

        ck_assert_str_eq(log_lines_str(line, "level"), levels[i]);
        ck_assert_str_eq(log_lines_str(line, "msg"), "hello");
        ck_assert_uint_eq(json_object_size(line), 3);
        ck_assert_msg(rest != NULL && rest[0] == '.' && strspn(rest + 1, "0123456789") == 6, "%s",
                      ts);
        ck_assert_str_eq(rest + 7, "Z");
        ck_assert_int_ge(timegm(&tm), now.tv_sec);
        ck_assert_int_le(timegm(&tm), now.tv_sec + 600);
    }
    json_decref(lines);
}
END_TEST

START_TEST(line_has_error)
{
    json_t *lines;
    const json_t *line;

    (void)cf_err_set(&err, CF_EUNAVAIL, "no database");
    log_lines_start();
    log_line(LOG_ERROR, "start", &err);
    lines = log_lines_stop();
    line = log_lines_at(lines, 0);
    ck_assert_str_eq(log_lines_str(line, "code"), "unavailable");
    ck_assert_str_eq(log_lines_str(line, "error"), "no database");
    json_decref(lines);
}
END_TEST

static const struct {
    const char *text;
    const char *read; /* NULL: the same. */
} texts[] = {
    {"", NULL},
    {"a\nb\r\n{\"msg\":\"forged\"}\n", NULL},
    {"\x01\x02\x1F\x7F\b\f\t", NULL},
    {"\x1B[31mred", NULL},
    {"\"quoted\" \\ and / more", NULL},
    {"\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80", NULL},
    {"\xE2\x80\xA8 \xE2\x80\xA9", NULL},
    {"\xFF", "\xEF\xBF\xBD"},
    {"a\xC3", "a\xEF\xBF\xBD"},
    {"\xC0\x80z", "\xEF\xBF\xBD\xEF\xBF\xBDz"},
};

START_TEST(line_holds_any_text)
{
    const char *text = texts[_i].text;
    const char *expected = texts[_i].read != NULL ? texts[_i].read : text;
    json_t *lines;
    const json_t *line;

    (void)cf_err_set(&err, CF_EIO, "%s", text);
    log_lines_start();
    log_line(LOG_INFO, text, &err);
    lines = log_lines_stop();
    ck_assert_uint_eq(json_array_size(lines), 1);
    line = log_lines_at(lines, 0);
    ck_assert_str_eq(log_lines_str(line, "msg"), expected);
    ck_assert_str_eq(log_lines_str(line, "error"), expected);
    json_decref(lines);
}
END_TEST

/* Every byte there is, in a value: what is one line stays one, and is JSON. */
START_TEST(line_holds_any_byte)
{
    json_t *lines;

    log_lines_start();
    for (int byte = 1; byte < 256; byte++) {
        char text[] = {'a', (char)byte, 'b', '\0'};

        log_line(LOG_INFO, text, NULL);
    }
    lines = log_lines_stop();
    ck_assert_uint_eq(json_array_size(lines), 255);
    json_decref(lines);
}
END_TEST

START_TEST(end_without_memory_drops_and_counts)
{
    json_t *lines;

    log_lines_start();
    fault_alloc(1, true);
    log_line(LOG_INFO, "lost", NULL);
    ck_assert(fault_off());
    ck_assert_uint_eq(log_dropped(), 1);
    log_line(LOG_INFO, "kept", NULL);
    lines = log_lines_stop();
    ck_assert_uint_eq(log_dropped(), 1);
    ck_assert_uint_eq(json_array_size(lines), 2); /* And one that says so. */
    json_decref(lines);
}
END_TEST

/* The buffer takes a line of its size with the line feed, and none that is a byte longer. */
START_TEST(end_line_longer_than_buffer_is_dropped)
{
    size_t fits = LOG_BUFFER_MAX - AROUND;
    char *text = malloc(fits + 2);
    json_t *lines;

    ck_assert_ptr_nonnull(text);
    memset(text, 'x', fits + 1);
    text[fits + 1] = '\0';
    log_lines_start();
    log_line(LOG_INFO, text, NULL);
    ck_assert_uint_eq(log_dropped(), 1);
    text[fits] = '\0';
    log_line(LOG_INFO, text, NULL);
    lines = log_lines_stop();
    ck_assert_uint_eq(log_dropped(), 1);
    ck_assert_uint_eq(json_array_size(lines), 2);
    /* Not a megabyte in a message. */
    ck_assert(strcmp(log_lines_str(log_lines_at(lines, 0), "msg"), text) == 0);
    ck_assert_str_eq(log_lines_str(log_lines_at(lines, 1), "msg"), "log lines dropped");
    json_decref(lines);
    free(text);
}
END_TEST

/* dropped */

/* That the loop below ends at all is the point: nobody reads. Then the reader wakes up, and sees
 * every line that was kept, in order, and at each gap how many are missing. */
START_TEST(dropped_with_blocked_reader_is_counted_and_said)
{
    enum {
        COUNT = 30000
    }; /* Of about 80 bytes, where two buffers and a pipe hold 2 MiB. */
    FILE *file = fdopen(dup(ends[0]), "r");
    unsigned expected = 0;
    uint64_t dropped;

    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(log_start(ends[1], &err), CF_OK);
    for (unsigned i = 0; i < COUNT; i++) {
        log_number(i);
    }
    dropped = log_dropped();
    ck_assert_uint_gt(dropped, 0);
    while (expected < COUNT) {
        expected = expect_line(file, expected);
    }
    ck_assert_uint_eq(expected, COUNT);
    log_number(COUNT); /* There is room again. */
    ck_assert_uint_eq(expect_line(file, expected), COUNT + 1);
    log_stop(LONG_NS);
    ck_assert_uint_eq(log_dropped(), dropped);
    (void)fclose(file);
}
END_TEST

/* Nothing takes a line any more: requests go on, and each line is counted. */
START_TEST(dropped_by_failing_writes_is_counted)
{
    enum {
        COUNT = 40000
    };
    int full = -1;

    if (_i == 0) {
        full = open("/dev/full", O_WRONLY | O_CLOEXEC);
        ck_assert_int_ge(full, 0);
    } else {
        (void)close(ends[0]);
    }
    ck_assert_int_eq(log_start(_i == 0 ? full : ends[1], &err), CF_OK);
    for (unsigned i = 0; i < COUNT; i++) {
        log_number(i);
    }
    log_stop(LONG_NS);
    ck_assert_uint_eq(log_dropped(), COUNT);
    (void)close(full);
}
END_TEST

/* As a parent may have left it: a write that would wait fails instead. */
START_TEST(end_waits_for_slow_reader_of_nonblocking_pipe)
{
    enum {
        COUNT = 10000
    }; /* More than a pipe holds, less than the buffer. */
    FILE *file = fdopen(dup(ends[0]), "r");
    struct pollfd full = {.fd = ends[1], .events = POLLOUT};

    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
    ck_assert_int_eq(log_start(ends[1], &err), CF_OK);
    for (unsigned i = 0; i < COUNT; i++) {
        log_number(i);
    }
    while (poll(&full, 1, 0) != 0) {
        (void)sched_yield();
    }
    for (unsigned i = 0; i < COUNT; i++) {
        json_t *line = read_line(file);

        ck_assert_uint_eq(number_of(line), i);
        json_decref(line);
    }
    log_stop(LONG_NS);
    ck_assert_uint_eq(log_dropped(), 0);
    (void)fclose(file);
}
END_TEST

/* A reader that leaves when the pipe holds all of a line but this, and another that comes. */
static const struct {
    size_t missing; /* Bytes, with the line feed. */
    uint64_t lost;
} torn[] = {{1, 1}, {2, 2}, {500, 2}};

START_TEST(end_after_torn_line_starts_another)
{
    size_t size = (size_t)fcntl(ends[1], F_GETPIPE_SZ) + torn[_i].missing - AROUND;
    struct pollfd full = {.fd = ends[1], .events = POLLOUT};
    char *text = malloc(size + 1);
    char *line = NULL;
    size_t room = 0;
    json_t *parsed;
    char path[64];
    FILE *file;

    ck_assert_ptr_nonnull(text);
    memset(text, 'x', size);
    text[size] = '\0';
    ck_assert_int_eq(log_start(ends[1], &err), CF_OK);
    log_line(LOG_INFO, text, NULL);
    while (poll(&full, 1, 0) != 0) {
        (void)sched_yield();
    }
    (void)close(ends[0]); /* What the pipe holds stays in it. */
    log_number(7);
    while (log_dropped() < torn[_i].lost) {
        (void)sched_yield();
    }
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", ends[1]);
    ends[0] = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(ends[0], 0);
    file = fdopen(dup(ends[0]), "r");
    ck_assert_ptr_nonnull(file);

    log_number(8);
    ck_assert_int_gt(getline(&line, &room, file), 0);
    parsed = json_loads(line, 0, NULL);
    ck_assert_int_eq(parsed != NULL, torn[_i].missing == 1);
    json_decref(parsed);
    ck_assert_uint_eq(expect_line(file, 8), 9);
    ck_assert_uint_eq(expect_line(file, 0), torn[_i].lost);
    log_stop(LONG_NS);
    ck_assert_uint_eq(log_dropped(), torn[_i].lost);
    (void)fclose(file);
    free(line);
    free(text);
}
END_TEST

/* When lines are written. Each write is a datagram here, so that they can be told apart. */

static void setup_datagrams(void)
{
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    ck_assert_int_eq(log_start(ends[1], &err), CF_OK);
}

static void teardown_datagrams(void)
{
    log_stop(LONG_NS);
    teardown_pipe();
}

/* Wait for one write. */
static void read_write(void)
{
    char text[4096];

    ck_assert_int_gt(recv(ends[0], text, sizeof(text), 0), 0);
}

/* However fast lines come, the thread is not woken for each. */
START_TEST(end_of_fast_lines_writes_them_together)
{
    int64_t since_ns = cf_now_ns();
    int writes = 0;
    char text[65536];

    while (cf_now_ns() - since_ns < 100 * CF_MS) {
        log_number(1);
        while (recv(ends[0], text, sizeof(text), MSG_DONTWAIT) > 0) {
            writes++;
        }
        (void)sched_yield();
    }
    ck_assert_int_le(writes, (cf_now_ns() - since_ns) / LOG_LINGER_NS + 1);
}
END_TEST

/* The first line after a silence, and one that matters, are not kept for others: such a one comes
 * sooner after the write before it than any other could. What a tool watches is too slow
 * for that. */
START_TEST(end_of_a_warning_writes_at_once)
{
    int64_t until_ns = cf_now_ns() + 20 * CF_SECOND;
    int64_t since_ns;

    do {
        ck_assert_int_lt(cf_now_ns(), until_ns);
        since_ns = cf_now_ns();
        log_line(LOG_WARN, "first", NULL);
        read_write();
        log_line(LOG_INFO, "taken along", NULL);
        log_line(_i == 0 ? LOG_WARN : LOG_ERROR, "second", NULL);
        read_write();
    } while (cf_now_ns() - since_ns >= LOG_LINGER_NS && !effort_is_watched());
}
END_TEST

/* Such a line is longer than a datagram: that it is lost says that it was tried. It is written
 * before the clock runs. */
START_TEST(end_of_half_a_buffer_writes_at_once)
{
    int64_t until_ns = cf_now_ns() + 20 * CF_SECOND;
    char *text = calloc(1, LOG_BUFFER_MAX / 2 + 1);
    int64_t since_ns;

    ck_assert_ptr_nonnull(text);
    memset(text, 'x', LOG_BUFFER_MAX / 2);
    do {
        struct cf_json json;

        teardown_datagrams();
        setup_datagrams();
        ck_assert_int_lt(cf_now_ns(), until_ns);
        log_begin(&json, LOG_INFO, text);
        since_ns = cf_now_ns();
        log_line(LOG_INFO, "first", NULL);
        read_write();
        log_end(&json, LOG_INFO);
        while (log_dropped() == 0) {
            (void)sched_yield();
        }
    } while (cf_now_ns() - since_ns >= LOG_LINGER_NS && !effort_is_watched());
    free(text);
}
END_TEST

/* Threads */

enum {
    THREADS = 8,
    LINES = 1000
};

/* Of lengths that differ, so that a mix of two would not look like either. */
static void *log_many(void *arg)
{
    const int *thread = arg;
    char text[512];

    for (int i = 0; i < LINES; i++) {
        struct cf_json json;

        memset(text, 'a' + *thread, sizeof(text));
        text[(i * 37) % (int)sizeof(text)] = '\0';
        log_begin(&json, LOG_INFO, text);
        cf_json_key(&json, "thread");
        cf_json_i64(&json, *thread);
        cf_json_key(&json, "i");
        cf_json_i64(&json, i);
        log_end(&json, LOG_INFO);
    }
    return NULL;
}

START_TEST(end_of_many_threads_never_mixes_lines)
{
    pthread_t threads[THREADS];
    int ids[THREADS];
    int64_t next[THREADS] = {0};
    json_t *lines;
    json_t *line;
    size_t index;

    log_lines_start();
    for (int i = 0; i < THREADS; i++) {
        ids[i] = i;
        ck_assert_int_eq(pthread_create(&threads[i], NULL, log_many, &ids[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    }
    lines = log_lines_stop();
    ck_assert_uint_eq(count_logged(lines) + log_dropped(), THREADS * LINES);
    json_array_foreach(lines, index, line)
    {
        const char *text = log_lines_str(line, "msg");
        int64_t thread;
        int64_t i;

        if (json_object_get(line, "count") != NULL) {
            continue; /* That lines were dropped. */
        }
        thread = log_lines_i64(line, "thread");
        i = log_lines_i64(line, "i");
        ck_assert_int_ge(i, next[thread]); /* Its own lines keep their order. */
        next[thread] = i + 1;
        ck_assert_uint_eq(strlen(text), (size_t)(i * 37) % 512);
        ck_assert_uint_eq(strspn(text, (char[]){(char)('a' + thread), '\0'}), strlen(text));
    }
    json_decref(lines);
}
END_TEST

/* Lines that come while the log is stopped are dropped or written, and counted if dropped. */
START_TEST(stop_races_lines)
{
    for (int round = 0; round < 20; round++) {
        int id = 0;
        pthread_t thread;
        json_t *lines;

        log_lines_start();
        ck_assert_int_eq(pthread_create(&thread, NULL, log_many, &id), 0);
        lines = log_lines_stop();
        ck_assert_int_eq(pthread_join(thread, NULL), 0);
        ck_assert_uint_eq(count_logged(lines) + log_dropped(), LINES);
        json_decref(lines);
    }
}
END_TEST

Suite *suite_log(void)
{
    Suite *suite = suite_create("log");
    TCase *life = tcase_create("life");
    TCase *left = tcase_create("left");
    TCase *line = tcase_create("line");
    TCase *dropped = tcase_create("dropped");
    TCase *pace = tcase_create("pace");
    TCase *threads = tcase_create("threads");

    tcase_add_checked_fixture(life, setup_pipe, teardown_pipe);
    tcase_add_test(life, start_without_memory_leaves_nothing);
    tcase_add_test(life, stop_writes_what_is_buffered);
    tcase_add_test(life, stop_of_nothing_writes_nothing);
    tcase_add_test(life, start_after_stop_begins_anew);
    suite_add_tcase(suite, life);

    tcase_set_tags(left, "fork"); /* The thread that is left behind holds the log. */
    tcase_add_checked_fixture(left, setup_pipe, NULL);
    tcase_add_loop_test(left, stop_with_blocked_reader_ends_in_time, 0, 2);
    tcase_set_timeout(left, 30);
    suite_add_tcase(suite, left);

    tcase_add_test(line, line_has_time_level_and_message);
    tcase_add_test(line, line_has_error);
    tcase_add_loop_test(line, line_holds_any_text, 0, LENGTH(texts));
    tcase_add_test(line, line_holds_any_byte);
    tcase_add_test(line, end_without_memory_drops_and_counts);
    tcase_add_test(line, end_line_longer_than_buffer_is_dropped);
    suite_add_tcase(suite, line);

    tcase_add_checked_fixture(dropped, setup_pipe, teardown_pipe);
    tcase_add_test(dropped, dropped_with_blocked_reader_is_counted_and_said);
    tcase_add_loop_test(dropped, dropped_by_failing_writes_is_counted, 0, 2);
    tcase_add_test(dropped, end_waits_for_slow_reader_of_nonblocking_pipe);
    tcase_add_loop_test(dropped, end_after_torn_line_starts_another, 0, LENGTH(torn));
    tcase_set_timeout(dropped, 30);
    suite_add_tcase(suite, dropped);

    tcase_add_checked_fixture(pace, setup_datagrams, teardown_datagrams);
    tcase_add_test(pace, end_of_fast_lines_writes_them_together);
    tcase_add_loop_test(pace, end_of_a_warning_writes_at_once, 0, 2);
    tcase_add_test(pace, end_of_half_a_buffer_writes_at_once);
    tcase_set_timeout(pace, 30);
    suite_add_tcase(suite, pace);

    tcase_add_test(threads, end_of_many_threads_never_mixes_lines);
    tcase_add_test(threads, stop_races_lines);
    tcase_set_timeout(threads, 30);
    suite_add_tcase(suite, threads);
    return suite;
}
