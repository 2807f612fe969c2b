/* SPDX-License-Identifier: MIT */
/* What the machine does to the process: signals, no threads to be had, a clock that jumps, a log
 * that nobody reads. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "fault_fixture.h"
#include "load.h"
#include "pgview.h"

#define SLEEPING "pg_sleep"

/* Fixture */

static char work[64]; /* A directory of the test's own. */

static void setup(void)
{
    strcpy(work, "/tmp/curfew-fault-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(work));
}

static void teardown(void)
{
    char command[96];

    fault_teardown();
    (void)snprintf(command, sizeof(command), "rm -rf %s", work);
    (void)!system(command);
}

/* Helpers */

/* A service of which nobody reads a port: on this one, with its output there. */
static pid_t spawn(const char *const *wrapper, const char *url, uint16_t port, int out)
{
    const char *args[16] = {NULL};
    char listen[32];
    pid_t parent = getpid();
    sigset_t term;
    pid_t pid;
    size_t n = 0;

    for (; wrapper != NULL && *wrapper != NULL; wrapper++) {
        args[n++] = *wrapper;
    }
    args[n] = getenv("CF_TEST_BIN");
    ck_assert_ptr_nonnull(args[n]);
    (void)snprintf(listen, sizeof(listen), "127.0.0.1:%d", port);
    (void)sigemptyset(&term);
    (void)sigaddset(&term, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &term, NULL);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        (void)signal(SIGTERM, SIG_DFL); /* Here it is libcheck's, which ends all tests. */
        (void)sigprocmask(SIG_UNBLOCK, &term, NULL);
        (void)setenv("CURFEW_LISTEN", listen, 1);
        (void)setenv("CURFEW_ADMIN", "127.0.0.1:0", 1);
        (void)setenv("CURFEW_DEMO", "1", 1);
        (void)setenv("DATABASE_URL", url, 1);
        (void)dup2(out, STDOUT_FILENO);
        (void)dup2(out, STDERR_FILENO);
        if (getppid() == parent) {
            (void)execvp(args[0], (char *const *)args);
        }
        _exit(127);
    }
    (void)sigprocmask(SIG_UNBLOCK, &term, NULL);
    return pid;
}

/* Its exit status, or minus the number of the signal that ended it. */
static int wait_end(pid_t pid, int64_t timeout_ns)
{
    int64_t until_ns = cf_now_ns() + bound(timeout_ns);
    int status;

    while (waitpid(pid, &status, WNOHANG) != pid) {
        if (cf_now_ns() > until_ns) {
            (void)kill(pid, SIGKILL);
            ck_abort_msg("%d does not end", pid);
        }
        pause_ms(1);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void start(const char *const *wrapper, const char *const *env)
{
    fault.service = service_start_under(wrapper, fault.cluster.url, env);
    service_wait_ready(fault.service, 5 * CF_SECOND);
}

/* term */

#define ROUNDS (getenv("CF_TEST_LONG") != NULL ? 50 : 20)
#define CLIENTS 24

/* Each client keeps its connection, until a reply says that it ends. */
START_TEST(term_under_load_fails_no_request_that_was_accepted)
{
    static struct load load;
    int rounds = ROUNDS;
    size_t n_served = 0;

    for (int round = 0; round < rounds; round++) {
        start(NULL, (const char *[]){"CURFEW_POOL=4", "CURFEW_GRACE=5s", NULL});
        load_start(&load, fault.service->api_port, CLIENTS, 0);
        WAIT_FOR(atomic_load(&load.served) > 0);
        pause_ms(100 * round / rounds);
        service_signal(fault.service, SIGTERM);
        ck_assert_int_eq(service_wait(fault.service, 5 * CF_SECOND), 0);
        load_stop(&load);
        ck_assert_msg(load.failed == 0, "round %d: %zu of %zu failed, the first: %s", round,
                      atomic_load(&load.failed), atomic_load(&load.failed) + load.served,
                      load.failure);
        ck_assert_uint_gt(load.served, 0);
        n_served += load.served;
        service_stop_all();
    }
    (void)fprintf(stderr, "  fault SIGTERM under load, %d times: %zu served, none failed\n", rounds,
                  n_served);
}
END_TEST

/* From before it knows of signals until it serves: it ends by the signal, or as if asked. */
START_TEST(term_during_the_start_ends_it_clean)
{
    int out = open("/dev/null", O_WRONLY | O_CLOEXEC);
    int n_clean = 0;

    for (int ms = 0; ms < 30 || (n_clean == 0 && ms < 1000); ms += 1 + ms / 30) {
        pid_t pid = spawn(NULL, fault.cluster.url, 0, out);
        int status;

        pause_ms(ms);
        ck_assert_int_eq(kill(pid, SIGTERM), 0);
        status = wait_end(pid, 2 * CF_SECOND);
        ck_assert_msg(status == 0 || status == -SIGTERM, "after %d ms: %d", ms, status);
        n_clean += status == 0;
    }
    (void)close(out);
    ck_assert_int_gt(n_clean, 0);
}
END_TEST

/* Refused, and swallowed: it waits for neither. */
START_TEST(term_while_postgresql_is_away_ends_at_once)
{
    char url[300];
    int64_t stopped_ns;

    relay_start(&fault.relay, to_cluster);
    url_through(url, sizeof(url), &fault.cluster,
                _i == 0 ? cluster_choose_port() : fault.relay.port);
    relay_fault(&fault.relay, &(struct relay_faults){.to_server = {.hold = true}});
    fault.service = service_start(url, NULL);
    if (_i == 0) {
        WAIT_FOR(service_count_lines(fault.service, "event", "connect_failed") > 0);
    } else {
        WAIT_FOR(atomic_load(&fault.relay.accepted) > 0);
    }
    stopped_ns = cf_now_ns();
    service_signal(fault.service, SIGTERM);
    ck_assert_int_eq(service_wait(fault.service, 3 * CF_SECOND), 0);
    ck_assert_int_lt(cf_now_ns() - stopped_ns, bound(CF_SECOND));
}
END_TEST

/* kill */

START_TEST(killed_service_leaves_nothing_and_its_successor_is_whole)
{
    const char *const env[] = {"CURFEW_POOL=4", NULL};
    struct asked asked[4];
    PGconn *pg = pgview_open(fault.cluster.url);

    start(NULL, env);
    for (int i = 0; i < 4; i++) {
        asked[i] = ask(fault.service, "/v1/sleep?seconds=30&timeout=40s");
    }
    (void)pgview_wait_active(pg, SLEEPING, 4, 2 * CF_SECOND);
    service_signal(fault.service, SIGKILL);
    ck_assert_int_eq(service_wait(fault.service, CF_SECOND), -SIGKILL);
    for (int i = 0; i < 4; i++) {
        (void)answer(asked[i]);
    }
    ck_assert_int_ge(pgview_wait_active(pg, SLEEPING, 0, 2 * CF_SECOND), 0);
    ck_assert_int_eq(count_backends(fault.cluster.url), 0);
    PQfinish(pg);
    start(NULL, env);
    baseline_take(&fault.baseline, fault.service, fault.cluster.url);
    expect_recovery(&fault.baseline, "kill -9 of the service");
}
END_TEST

/* threads */

/* Root's limits do not bind it: so it becomes somebody who has none running. */
static const char *const nobody[] = {"setpriv",         "--reuid=54321",       "--clear-groups",
                                     "--inh-caps=-all", "--bounding-set=-all", NULL};
static const char *const alone[] = {
    "prlimit",         "--nproc=1",           "setpriv", "--reuid=54321", "--clear-groups",
    "--inh-caps=-all", "--bounding-set=-all", NULL};
static const char *const limited[] = {"prlimit", "--nproc=1", NULL};

/* From now on no more threads than it has, or again as many as it likes. By a process of its own
 * user, which may. */
static void limit_threads(bool limit)
{
    struct rlimit ours;
    char command[160];

    ck_assert_int_eq(getrlimit(RLIMIT_NPROC, &ours), 0);
    (void)snprintf(command, sizeof(command), "%s prlimit --pid=%d --nproc=%lld:",
                   geteuid() == 0 ? "setpriv --reuid=54321 --clear-groups" : "", fault.service->pid,
                   limit ? 1LL : (long long)ours.rlim_max);
    ck_assert_int_eq(system(command), 0);
}

START_TEST(threads_not_to_be_had_at_the_start_is_said)
{
    char path[96];
    char text[512] = "";
    int out;

    (void)snprintf(path, sizeof(path), "%s/out", work);
    out = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_ge(out, 0);
    ck_assert_int_eq(
        wait_end(spawn(geteuid() == 0 ? alone : limited, fault.cluster.url, 0, out), 5 * CF_SECOND),
        1);
    ck_assert_int_gt(pread(out, text, sizeof(text) - 1, 0), 0);
    ck_assert_msg(strstr(text, "thread") != NULL, "it says: %s", text);
    (void)close(out);
}
END_TEST

/* PQcancel needs threads: without them a connection is closed instead, and made anew. */
START_TEST(threads_not_to_be_had_later_costs_connections_only)
{
    start(geteuid() == 0 ? nobody : NULL,
          (const char *[]){"CURFEW_POOL=4", "CURFEW_LOOPS=2", "CURFEW_CANCEL=pqcancel", NULL});
    limit_threads(true);
    for (int i = 0; i < 8; i++) {
        count_refused(answer(ask(fault.service, "/v1/sleep?seconds=5&timeout=50ms")), 50 * CF_MS);
        ck_assert_int_eq(client_get(fault.service->api_port, "/v1/users/1", NULL)->status, 200);
        count_alive(fault.service);
    }
    ck_assert_uint_ge(service_count_lines(fault.service, "outcome", "dispatch_failed"), 1);
    limit_threads(false);
    WAIT_FOR(count_backends(fault.cluster.url) ==
             4); /* Those that were closed end by themselves. */
    baseline_take(&fault.baseline, fault.service, fault.cluster.url);
    expect_recovery(&fault.baseline, "no threads");
    limit_threads(true); /* It ends without another, too. */
}
END_TEST

/* clock */

static const char *const jumps[] = {"+1h", "-1h", "+5y", "+0"};

static void set_clock(const char *path, const char *offset)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    ck_assert_int_eq(dprintf(fd, "%s\n", offset), (int)strlen(offset) + 1);
    (void)close(fd);
}

START_TEST(clock_that_jumps_moves_no_deadline)
{
    char path[96];
    char file[160];
    char preload[512];
    size_t connected;
    glob_t found;

    ck_assert_msg(glob("/usr/lib/*/faketime/libfaketimeMT.so.1", 0, NULL, &found) == 0,
                  "faketime is not installed: make deps-fault");
    (void)snprintf(path, sizeof(path), "%s/clock", work);
    (void)snprintf(file, sizeof(file), "FAKETIME_TIMESTAMP_FILE=%s", path);
    (void)snprintf(preload, sizeof(preload), "LD_PRELOAD=%s", found.gl_pathv[0]);
    globfree(&found);
    set_clock(path, "+0");
    start(NULL, (const char *[]){preload, file, "FAKETIME_DONT_FAKE_MONOTONIC=1",
                                 "FAKETIME_NO_CACHE=1", "CURFEW_POOL=4", "CURFEW_LOOPS=2", NULL});
    baseline_take(&fault.baseline, fault.service, fault.cluster.url);
    connected = service_count_lines(fault.service, "event", "connected");
    for (size_t i = 0; i < sizeof(jumps) / sizeof(jumps[0]); i++) {
        char *date =
            strdup(reply_header(client_get(fault.service->api_port, "/version", NULL), "Date"));
        struct asked asked = ask(fault.service, "/v1/sleep?seconds=5&timeout=400ms");
        struct reply *reply;

        pause_ms(100);
        set_clock(path, jumps[i]);
        reply = answer(asked);
        ck_assert_int_eq(reply->status, 504);
        ck_assert_int_ge(reply->done_ns - reply->sent_ns, 400 * CF_MS);
        expect_refused(reply, 400 * CF_MS);
        reply = client_get(fault.service->api_port, "/v1/users/1", NULL);
        ck_assert_int_eq(reply->status, 200);
        ck_assert_str_ne(reply_header(reply, "Date"), date); /* It did jump. */
        free(date);
    }
    pause_ms(1100); /* Once more does the pool look for what is old. */
    ck_assert_uint_eq(service_count_lines(fault.service, "event", "connected"), connected);
    expect_recovery(&fault.baseline, "clock that jumps");
}
END_TEST

/* log */

START_TEST(log_that_cannot_be_written_fails_no_request)
{
    uint16_t port = cluster_choose_port();
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    pid_t pid = spawn(NULL, fault.cluster.url, port, full);
    int64_t until_ns = cf_now_ns() + bound(5 * CF_SECOND);
    int fd;

    while ((fd = client_try_open(port)) < 0) {
        ck_assert_int_lt(cf_now_ns(), until_ns);
        pause_ms(5);
    }
    (void)close(fd);
    for (int n = 0; n < 100;) {
        n = client_get(port, "/v1/users/1", NULL)->status == 200 ? n + 1 : 0;
        ck_assert_int_lt(cf_now_ns(), until_ns);
    }
    ck_assert_int_eq(kill(pid, SIGTERM), 0);
    ck_assert_int_eq(wait_end(pid, 3 * CF_SECOND), 0);
    (void)close(full);
}
END_TEST

/* The log goes through a pipe, whose reader is a process that can be stopped and killed. */
static pid_t start_with_reader(void)
{
    static char script[512];
    char path[96];
    char text[16] = "";
    int fd;

    (void)snprintf(script, sizeof(script),
                   "mkfifo %s/log && { cat <%s/log & echo $! >%s/reader; exec \"$0\" >%s/log; }",
                   work, work, work, work);
    start((const char *[]){"sh", "-c", script, NULL},
          (const char *[]){"CURFEW_POOL=4", "CURFEW_LOOPS=2", NULL});
    (void)snprintf(path, sizeof(path), "%s/reader", work);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_gt(read(fd, text, sizeof(text) - 1), 0);
    (void)close(fd);
    baseline_take(&fault.baseline, fault.service, fault.cluster.url);
    return atoi(text);
}

#define UNREAD 4500

/* A pipe holds 64 KiB and the service one MiB: what does not fit is dropped, and counted. */
START_TEST(log_that_nobody_reads_delays_no_request_and_counts_what_is_dropped)
{
    static int64_t took_ns[UNREAD];
    pid_t reader = start_with_reader();
    json_t *line;

    ck_assert_int_eq(kill(reader, SIGSTOP), 0);
    for (int i = 0; i < UNREAD; i++) {
        struct reply *reply = client_get(fault.service->api_port, "/v1/users/1", NULL);

        ck_assert_int_eq(reply->status, 200);
        took_ns[i] = reply->done_ns - reply->sent_ns;
        if (i % 500 == 0) {
            client_free_all();
        }
    }
    ck_assert_int_lt(permille(took_ns, UNREAD, 990), bound(LATE_NS));
    ck_assert_int_eq(kill(reader, SIGCONT), 0);
    ck_assert_int_eq(client_get(fault.service->api_port, "/v1/users/1", NULL)->status, 200);
    line = service_find_line(fault.service, "msg", "log lines dropped", 3 * CF_SECOND);
    ck_assert_ptr_nonnull(line);
    ck_assert_int_gt(json_integer_value(json_object_get(line, "count")), 0);
    json_decref(line);
    expect_recovery(&fault.baseline, "log that nobody reads");
}
END_TEST

START_TEST(log_whose_reader_ends_fails_no_request)
{
    pid_t reader = start_with_reader();

    ck_assert_int_eq(kill(reader, SIGKILL), 0);
    for (int i = 0; i < 200; i++) {
        ck_assert_int_eq(client_get(fault.service->api_port, "/v1/users/1", NULL)->status, 200);
    }
    expect_recovery(&fault.baseline, "log whose reader ended");
}
END_TEST

static TCase *add_case(Suite *suite, const char *name)
{
    TCase *tc = tcase_create(name);

    tcase_add_unchecked_fixture(tc, fault_create_started, fault_destroy);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 90);
    suite_add_tcase(suite, tc);
    return tc;
}

Suite *suite_process(void)
{
    Suite *suite = suite_create("process");
    TCase *tc;

    tc = add_case(suite, "term");
    tcase_add_test(tc, term_under_load_fails_no_request_that_was_accepted);
    tcase_add_test(tc, term_during_the_start_ends_it_clean);
    tcase_add_loop_test(tc, term_while_postgresql_is_away_ends_at_once, 0, 2);

    tc = add_case(suite, "kill");
    tcase_add_test(tc, killed_service_leaves_nothing_and_its_successor_is_whole);

    tc = add_case(suite, "machine");
    tcase_add_test(tc, threads_not_to_be_had_at_the_start_is_said);
    tcase_add_test(tc, threads_not_to_be_had_later_costs_connections_only);
    tcase_add_test(tc, clock_that_jumps_moves_no_deadline);

    tc = add_case(suite, "log");
    tcase_add_test(tc, log_that_cannot_be_written_fails_no_request);
    tcase_add_test(tc, log_that_nobody_reads_delays_no_request_and_counts_what_is_dropped);
    tcase_add_test(tc, log_whose_reader_ends_fails_no_request);
    return suite;
}
