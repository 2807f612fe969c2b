/* SPDX-License-Identifier: MIT */
/* How the program is called: flags, environment, exit status, and the messages to a person. */
#include <check.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client.h"
#include "service.h"

/* Fixture */

static struct service_run run;

static void teardown(void)
{
    service_stop_all();
    client_free_all();
}

/* Helpers */

#define ARGS(...) ((const char *[]){__VA_ARGS__, NULL})

/* "curfewd: ...", one line, and nothing on standard output but log lines. */
static void expect_complaint(int status, const char *mentions)
{
    ck_assert_msg(run.status == status, "status %d, not %d; it said: %s%s", run.status, status,
                  run.err, run.out);
    ck_assert_msg(strncmp(run.err, "curfewd: ", 9) == 0, "said: %s", run.err);
    ck_assert_msg(strstr(run.err, mentions) != NULL, "\"%s\" is not in: %s", mentions, run.err);
    ck_assert_msg(strchr(run.err, '\n') == run.err + strlen(run.err) - 1, "not one line: %s",
                  run.err);
}

/* flags */

START_TEST(help_prints_every_flag)
{
    static const char *const words[] = {
        "Usage:",       "--listen", "CURFEW_LISTEN", "127.0.0.1:8080",
        "DATABASE_URL", "--grace",  "--version",     "78"};

    service_run(ARGS("--help"), NULL, &run);
    ck_assert_int_eq(run.status, 0);
    ck_assert_str_eq(run.err, "");
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        ck_assert_msg(strstr(run.out, words[i]) != NULL, "no \"%s\" in: %s", words[i], run.out);
    }
}
END_TEST

START_TEST(version_names_libraries)
{
    static const char *const words[] = {("curfewd " CF_VERSION),
                                        "libmicrohttpd ",
                                        "libpq ",
                                        "libuv ",
                                        "jansson ",
                                        "libcurl ",
                                        "zlib ",
                                        "libjpeg-turbo ",
                                        "libpng ",
                                        "libwebp "};

    service_run(ARGS("--version"), NULL, &run);
    ck_assert_int_eq(run.status, 0);
    ck_assert_str_eq(run.err, "");
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        ck_assert_msg(strstr(run.out, words[i]) != NULL, "no \"%s\" in: %s", words[i], run.out);
    }
}
END_TEST

static const struct {
    const char *args[3];
    int status;
    const char *mentions;
} bad_flags[] = {
    {{"--nonsense"}, 2, "--nonsense"},
    {{"--nonsense=1"}, 2, "--help"},
    {{"serve"}, 2, "serve"},
    {{"--listen"}, 2, "--listen"},
    {{"--database-url", "postgresql://"}, 2, "--database-url"},
    {{"--pool", "many"}, 78, "--pool"},
    {{"--pool=0"}, 78, "from 1 to"},
    {{"--pool", "99999999999999999999"}, 78, "--pool"},
    {{"--grace=5"}, 78, "5s"},
    {{"--cancel=maybe"}, 78, "control"},
    {{"--demo=perhaps"}, 78, "--demo"},
    {{"--listen=nowhere"}, 78, "--listen=\"nowhere\": should be host:port"},
    {{"--admin=127.0.0.1:http"}, 78, "--admin=\"127.0.0.1:http\": should be host:port"},
    {{"--trusted-proxies", "bogus"}, 78, "--trusted-proxies: \"bogus\" is neither"},
    {{"--fetch-allow", "b:0"}, 78, "--fetch-allow: \"b:0\" is no rule"},
    {{"--listen=127.0.0.1:81", "--admin=127.0.0.1:81"}, 78, "should be another address than"},
};

START_TEST(bad_flag_is_named)
{
    service_run(bad_flags[_i].args, NULL, &run);
    expect_complaint(bad_flags[_i].status, bad_flags[_i].mentions);
    ck_assert_str_eq(run.out, ""); /* Nothing was begun. */
}
END_TEST

START_TEST(more_loops_than_pool_is_refused)
{
    service_run(ARGS("--loops=4", "--pool=2"), NULL, &run);
    expect_complaint(78, "4 loops");
}
END_TEST

/* environment */

static const struct {
    const char *setting;
    const char *mentions;
} bad_settings[] = {
    {"CURFEW_POOL=-1", "CURFEW_POOL"},
    {"CURFEW_DEFAULT_TIMEOUT=soon", "CURFEW_DEFAULT_TIMEOUT"},
    {"CURFEW_CANCEL=never", "CURFEW_CANCEL"},
    {"DATABASE_URL=postgresql://[::1", "DATABASE_URL: "},
    {"DATABASE_URL=postgresql://[::1", "should be postgresql://user@host:port/database"},
    {"DATABASE_URL=mysql://host/database", "DATABASE_URL: "},
    {"DATABASE_URL=postgresql://host:port/database",
     "DATABASE_URL: the port in the database URL: "},
    {"CURFEW_LISTEN=nowhere", "CURFEW_LISTEN=\"nowhere\": should be host:port"},
    {"CURFEW_FETCH_ALLOW=b:0", "CURFEW_FETCH_ALLOW: \"b:0\" is no rule"},
};

START_TEST(bad_setting_is_named)
{
    service_run(NULL, ARGS(bad_settings[_i].setting), &run);
    expect_complaint(78, bad_settings[_i].mentions);
    ck_assert_str_eq(run.out, "");
    service_run(ARGS("--dump-config"), ARGS(bad_settings[_i].setting), &run);
    expect_complaint(78, bad_settings[_i].mentions);
}
END_TEST

/* libpq's own message would repeat all of it. */
START_TEST(password_of_bad_url_is_not_repeated)
{
    service_run(NULL, ARGS("DATABASE_URL=postgresql://user:sesame@[::1"), &run);
    expect_complaint(78, "DATABASE_URL");
    ck_assert_ptr_null(strstr(run.err, "sesame"));
    ck_assert_ptr_null(strstr(run.out, "sesame"));
}
END_TEST

START_TEST(flag_wins_over_environment)
{
    service_run(ARGS("--pool=none"), ARGS("CURFEW_POOL=8"), &run);
    expect_complaint(78, "--pool");
}
END_TEST

START_TEST(flag_wins_over_bad_setting)
{
    service_run(ARGS("--pool=3", "--dump-config"), ARGS("CURFEW_POOL=many"), &run);
    ck_assert_msg(run.status == 0, "%s", run.err);
    ck_assert_ptr_nonnull(strstr(run.out, "(command line)\nCURFEW_POOL=3\n"));
}
END_TEST

/* It may be there for another reason, so it is not refused; but it is said. */
START_TEST(unknown_variable_is_a_warning)
{
    struct service *service =
        service_start(NULL, ARGS("CURFEW_POOl=3", "CURFEW_SERVICE_HOST=10.0.0.11"));
    json_t *line =
        service_find_line(service, "msg", "unknown settings in the environment", CF_SECOND);

    ck_assert_ptr_nonnull(line);
    ck_assert_str_eq(json_string_value(json_object_get(line, "level")), "warn");
    ck_assert_str_eq(json_string_value(json_object_get(line, "variables")), "CURFEW_POOl");
    json_decref(line);

    service = service_start(NULL, ARGS("CURFEW_SERVICE_HOST=10.0.0.11"));
    ck_assert_uint_eq(service_count_lines(service, "msg", "unknown settings in the environment"),
                      0);
}
END_TEST

START_TEST(default_timeout_above_max_is_refused)
{
    service_run(NULL, ARGS("CURFEW_DEFAULT_TIMEOUT=2s", "CURFEW_MAX_TIMEOUT=1s"), &run);
    expect_complaint(78,
                     "CURFEW_DEFAULT_TIMEOUT=\"2s\": should be no longer than --max-timeout, 1s");
}
END_TEST

/* file */

/* A file in memory that a child can read by its path, which stays valid. */
static const char *file_of(const char *text)
{
    static char path[64];
    int fd = memfd_create("config", 0);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    (void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), fd);
    return path;
}

START_TEST(bad_line_of_file_is_named)
{
    service_run(ARGS("--config", file_of("CURFEW_POOL=4\nCURFEW_BOOL=4\n")), NULL, &run);
    expect_complaint(78, ":2: unknown setting CURFEW_BOOL: --help lists them");
    service_run(ARGS("--config=/nowhere"), NULL, &run);
    expect_complaint(78, "--config /nowhere: cannot open it: No such file or directory");
}
END_TEST

static void cut_comments(char *text)
{
    char *to = text;

    for (char *at = text; *at != '\0';) {
        size_t size = strcspn(at, "\n") + 1;

        if (*at != '#') {
            memmove(to, at, size);
            to += size;
        }
        at += size;
    }
    *to = '\0';
}

START_TEST(dump_can_be_used_as_file)
{
    static struct service_run again;

    service_run(ARGS("--dump-config", "--pool=3"),
                ARGS("CURFEW_HEAD_TIMEOUT=2s", "DATABASE_URL=postgresql://u:sesame@h/d"), &run);
    ck_assert_msg(run.status == 0, "%s", run.err);
    ck_assert_ptr_null(strstr(run.out, "sesame"));
    service_run(ARGS("--config", file_of(run.out), "--dump-config"), NULL, &again);
    ck_assert_msg(again.status == 0, "%s", again.err);
    cut_comments(run.out);
    cut_comments(again.out);
    ck_assert_ptr_nonnull(strstr(run.out, "CURFEW_POOL=3\n"));
    ck_assert_str_eq(run.out, again.out);
}
END_TEST

/* secrets */

/* The owner of a process's files in /proc is root if it leaves no core and nobody may look into its
 * memory, and else its user: so it runs as nobody if we are root. */
static struct service *start_with_cores(const char *setting)
{
    const char *const *wrapper = geteuid() == 0 ? ARGS("setpriv", "--reuid=65534", "--clear-groups",
                                                       "prlimit", "--core=0:unlimited")
                                                : ARGS("prlimit", "--core=0:unlimited");

    return service_start_under(wrapper, NULL, ARGS(setting));
}

static uid_t owner_of_memory(pid_t pid)
{
    struct stat stat_of;
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
    ck_assert_int_eq(stat(path, &stat_of), 0);
    return stat_of.st_uid;
}

/* The soft and the hard limit, "0 0". */
static void core_limit_of(pid_t pid, char out[64])
{
    char path[64];
    char line[256];
    FILE *file;
    char soft[24] = "";
    char hard[24] = "";

    (void)snprintf(path, sizeof(path), "/proc/%d/limits", (int)pid);
    file = fopen(path, "re");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "Max core file size %23s %23s", soft, hard) == 2) {
            break;
        }
    }
    (void)fclose(file);
    (void)snprintf(out, 64, "%s %s", soft, hard);
}

START_TEST(core_is_dumped_only_if_asked_for)
{
    struct service *service = start_with_cores("CURFEW_CORE_DUMPS=0");
    char limit[64];

    ck_assert_uint_eq(owner_of_memory(service->pid), 0);
    core_limit_of(service->pid, limit);
    ck_assert_str_eq(limit, "0 0");

    service = start_with_cores("CURFEW_CORE_DUMPS=1");
    ck_assert_uint_ne(owner_of_memory(service->pid), 0);
    core_limit_of(service->pid, limit);
    ck_assert_str_eq(limit, "0 unlimited");
}
END_TEST

/* descriptors */

/* Start it with a standard output of our own, or with none of the three. */
static pid_t start_on(const char *flag, const char *out)
{
    const char *binary = getenv("CF_TEST_BIN");
    pid_t pid;

    ck_assert_ptr_nonnull(binary);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)setenv("CURFEW_LISTEN", "127.0.0.1:0", 1);
        (void)setenv("CURFEW_ADMIN", "127.0.0.1:0", 1);
        if (out != NULL) {
            (void)dup2(open(out, O_WRONLY), STDOUT_FILENO);
            (void)dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
        } else {
            (void)close(STDIN_FILENO);
            (void)close(STDOUT_FILENO);
            (void)close(STDERR_FILENO);
        }
        (void)execl(binary, binary, flag, (char *)NULL);
        _exit(127);
    }
    return pid;
}

static int end_of(pid_t pid)
{
    int status;

    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void link_of(pid_t pid, int fd, char *out, size_t size)
{
    char path[64];
    ssize_t n;

    (void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
    n = readlink(path, out, size - 1);
    out[n > 0 ? n : 0] = '\0';
}

/* Else the log would go to whatever is opened first: an epoll, or somebody's connection. */
START_TEST(closed_descriptors_are_not_reused)
{
    pid_t pid = start_on(NULL, NULL);
    bool has_loops = false;
    char target[128];

    while (!has_loops) {
        for (int fd = 0; fd < 64 && !has_loops; fd++) {
            link_of(pid, fd, target, sizeof(target));
            has_loops = strstr(target, "eventpoll") != NULL;
        }
        ck_assert_int_eq(waitpid(pid, NULL, WNOHANG), 0);
        (void)sched_yield();
    }
    for (int fd = 0; fd <= STDERR_FILENO; fd++) {
        link_of(pid, fd, target, sizeof(target));
        ck_assert_str_eq(target, "/dev/null");
    }
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    (void)end_of(pid);
}
END_TEST

START_TEST(output_that_cannot_be_written_is_a_failure)
{
    ck_assert_int_eq(end_of(start_on("--help", "/dev/null")), 0);
    ck_assert_int_eq(end_of(start_on("--help", "/dev/full")), 1);
    ck_assert_int_eq(end_of(start_on("--version", "/dev/full")), 1);
    ck_assert_int_eq(end_of(start_on("--nonsense", "/dev/full")), 2); /* It had nothing to write. */
}
END_TEST

/* port */

START_TEST(taken_port_is_refused)
{
    struct service *first = service_start(NULL, NULL);
    char listen[64];
    char port[32];

    (void)snprintf(listen, sizeof(listen), "CURFEW_LISTEN=127.0.0.1:%d", first->api_port);
    (void)snprintf(port, sizeof(port), ":%d: another", first->api_port);
    service_run(NULL, ARGS(listen), &run);
    expect_complaint(1, port);
    expect_complaint(1, "CURFEW_LISTEN: ");
    ck_assert_int_eq(client_get(first->api_port, "/livez", NULL)->status, 200);
}
END_TEST

START_TEST(taken_admin_port_is_refused)
{
    struct service *first = service_start(NULL, NULL);
    char admin[64];
    char port[32];

    (void)snprintf(admin, sizeof(admin), "CURFEW_ADMIN=127.0.0.1:%d", first->admin_port);
    (void)snprintf(port, sizeof(port), ":%d: another", first->admin_port);
    service_run(NULL, ARGS(admin), &run);
    expect_complaint(1, port);
    expect_complaint(1, "CURFEW_ADMIN: ");
}
END_TEST

/* As two texts they differ: that the port is our own is found when it is taken. */
START_TEST(port_of_own_admin_listener_is_named)
{
    struct service *first = service_start(NULL, NULL);
    char listen[64];
    char admin[64];
    char said[128];

    service_signal(first, SIGTERM); /* Its port is free then, and not in use for a while. */
    ck_assert_int_eq(service_wait(first, 3 * CF_SECOND), 0);
    (void)snprintf(admin, sizeof(admin), "--admin=127.0.0.1:%d", first->admin_port);
    (void)snprintf(listen, sizeof(listen), "CURFEW_LISTEN=localhost:%d", first->admin_port);
    (void)snprintf(said, sizeof(said),
                   "CURFEW_LISTEN: cannot listen on localhost:%d: --admin has that port",
                   first->admin_port);
    service_run(ARGS(admin), ARGS(listen), &run);
    expect_complaint(1, said);
}
END_TEST

START_TEST(port_of_ended_service_is_free)
{
    struct service *first = service_start_ready(NULL, NULL);
    struct service *second;
    char listen[64];

    (void)snprintf(listen, sizeof(listen), "CURFEW_LISTEN=127.0.0.1:%d", first->api_port);
    ck_assert_int_eq(client_get(first->api_port, "/v1/users/1", NULL)->status, 200);
    service_signal(first, SIGTERM);
    ck_assert_int_eq(service_wait(first, 3 * CF_SECOND), 0);
    second = service_start(NULL, ARGS(listen));
    ck_assert_uint_eq(second->api_port, first->api_port);
}
END_TEST

Suite *suite_command_line(void)
{
    Suite *suite = suite_create("command_line");
    TCase *flags = tcase_create("flags");
    TCase *environment = tcase_create("environment");
    TCase *file = tcase_create("file");
    TCase *secrets = tcase_create("secrets");
    TCase *descriptors = tcase_create("descriptors");
    TCase *port = tcase_create("port");

    tcase_add_test(flags, help_prints_every_flag);
    tcase_add_test(flags, version_names_libraries);
    tcase_add_loop_test(flags, bad_flag_is_named, 0, sizeof(bad_flags) / sizeof(bad_flags[0]));
    tcase_add_test(flags, more_loops_than_pool_is_refused);
    tcase_set_timeout(flags, 30);
    suite_add_tcase(suite, flags);

    tcase_add_loop_test(environment, bad_setting_is_named, 0,
                        sizeof(bad_settings) / sizeof(bad_settings[0]));
    tcase_add_test(environment, password_of_bad_url_is_not_repeated);
    tcase_add_test(environment, flag_wins_over_environment);
    tcase_add_test(environment, flag_wins_over_bad_setting);
    tcase_add_test(environment, default_timeout_above_max_is_refused);
    tcase_add_checked_fixture(environment, NULL, teardown);
    tcase_add_test(environment, unknown_variable_is_a_warning);
    tcase_set_timeout(environment, 30);
    suite_add_tcase(suite, environment);

    tcase_add_test(file, bad_line_of_file_is_named);
    tcase_add_test(file, dump_can_be_used_as_file);
    tcase_set_timeout(file, 30);
    suite_add_tcase(suite, file);

    tcase_add_checked_fixture(secrets, NULL, teardown);
    tcase_add_test(secrets, core_is_dumped_only_if_asked_for);
    tcase_set_timeout(secrets, 30);
    suite_add_tcase(suite, secrets);

    tcase_add_test(descriptors, closed_descriptors_are_not_reused);
    tcase_add_test(descriptors, output_that_cannot_be_written_is_a_failure);
    tcase_set_timeout(descriptors, 30);
    suite_add_tcase(suite, descriptors);

    tcase_add_checked_fixture(port, NULL, teardown);
    tcase_add_test(port, taken_port_is_refused);
    tcase_add_test(port, taken_admin_port_is_refused);
    tcase_add_test(port, port_of_own_admin_listener_is_named);
    tcase_add_test(port, port_of_ended_service_is_free);
    tcase_set_timeout(port, 30);
    suite_add_tcase(suite, port);
    return suite;
}
