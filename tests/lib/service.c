/* SPDX-License-Identifier: MIT */
/* Processes and their logs: see service.h. */
#include "service.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "client.h"

/* Constants and types */

#define START_NS (20 * CF_SECOND)
#define STOP_NS (20 * CF_SECOND)
#define POLL_MS 2
#define ARGS_MAX 32
#define LAST_LINES 20

static struct service *services; /* All that were started. */

/* Internal helpers */

static const char *binary(void)
{
    const char *path = getenv("CF_TEST_BIN");

    ck_assert_msg(path != NULL, "CF_TEST_BIN must name a curfewd: run `make e2e`");
    return path;
}

/* In the child: settings of the service come from the test alone. */
static void set_environment(const char *url, const char *const *env)
{
    for (char **at = environ; *at != NULL;) {
        if (strncmp(*at, "CURFEW_", 7) == 0) {
            char name[64];
            size_t length = strcspn(*at, "=");

            if (length < sizeof(name)) {
                memcpy(name, *at, length);
                name[length] = '\0';
                (void)unsetenv(name); /* Moves the rest down. */
                continue;
            }
        }
        at++;
    }
    (void)setenv("CURFEW_LISTEN", "127.0.0.1:0", 1);
    (void)setenv("CURFEW_ADMIN", "127.0.0.1:0", 1);
    (void)setenv("CURFEW_DEMO", "1", 1);
    (void)setenv("CURFEW_GRACE", "200ms", 1);
    (void)setenv("CURFEW_CACHE_TTL", "0", 1); /* Most tests mean the database. */
    if (url != NULL) {
        (void)setenv("DATABASE_URL", url, 1);
    }
    for (; env != NULL && *env != NULL; env++) {
        (void)putenv((char *)*env);
    }
}

/* Fork and execute args[0]; the child dies with us. */
static pid_t spawn(const char *const *args, const char *url, const char *const *env, int out_fd,
                   int err_fd)
{
    pid_t parent = getpid();
    pid_t pid = fork();

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        sigset_t none;

        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(127);
        }
        (void)sigemptyset(&none);
        (void)sigprocmask(SIG_SETMASK, &none, NULL);
        set_environment(url, env);
        (void)dup2(out_fd, STDOUT_FILENO);
        (void)dup2(err_fd, STDERR_FILENO);
        (void)execvp(args[0], (char *const *)args);
        (void)dprintf(STDERR_FILENO, "%s: %s\n", args[0], strerror(errno));
        _exit(127);
    }
    return pid;
}

/* Read a memory file from its beginning. The caller frees it. */
static char *read_all(int fd, size_t *out_size)
{
    struct stat stat;
    char *text;
    ssize_t n;

    ck_assert_int_eq(fstat(fd, &stat), 0);
    text = malloc((size_t)stat.st_size + 1);
    ck_assert_ptr_nonnull(text);
    n = pread(fd, text, (size_t)stat.st_size, 0);
    ck_assert_int_ge(n, 0);
    text[n] = '\0';
    if (out_size != NULL) {
        *out_size = (size_t)n;
    }
    return text;
}

static void read_from(int fd, off_t offset, char *out, size_t size)
{
    ssize_t n = pread(fd, out, size - 1, offset);

    out[n > 0 ? n : 0] = '\0';
}

/* What the service said last. Without libcheck's assertions: this runs in a process that is none of
 * its tests, and shares its pipe. */
static void print_last_words(const struct service *service)
{
    static char out[65536];
    static char err[4096];
    struct stat stat = {0};
    char *at;

    (void)fstat(service->out_fd, &stat);
    read_from(service->out_fd,
              stat.st_size < (off_t)sizeof(out) ? 0 : stat.st_size - (off_t)sizeof(out) + 1, out,
              sizeof(out));
    read_from(service->err_fd, 0, err, sizeof(err));
    at = out + strlen(out);
    for (int lines = 0; at > out; at--) {
        lines += at[-1] == '\n';
        if (lines > LAST_LINES) {
            break;
        }
    }
    (void)fprintf(stderr, "--- last words of curfewd %d:\n%s%s---\n", service->pid, at, err);
}

/* A test that fails is gone without a word to its parent, and its process group is killed: so a
 * process apart waits for either a byte or the end. */
static void watch_for_failure(struct service *service)
{
    int ends[2];

    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    service->watcher = fork();
    ck_assert_int_ge(service->watcher, 0);
    if (service->watcher == 0) {
        char byte;

        (void)setpgid(0, 0);
        (void)close(ends[1]);
        if (read(ends[0], &byte, 1) == 0) {
            print_last_words(service);
        }
        _exit(0);
    }
    (void)close(ends[0]);
    service->watch_fd = ends[1];
}

static void end_watch(struct service *service)
{
    ck_assert_int_eq(write(service->watch_fd, "", 1), 1);
    (void)close(service->watch_fd);
    (void)waitpid(service->watcher, NULL, 0);
}

/* Collect the status if it has ended. True: it has. */
static bool reap(struct service *service)
{
    int status;

    if (service->pid == 0) {
        return true;
    }
    if (waitpid(service->pid, &status, WNOHANG) != service->pid) {
        return false;
    }
    service->pid = 0;
    service->status = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    return true;
}

/* Call fn(line, arg) for each whole log line until it returns true. */
static bool each_line(struct service *service, bool (*fn)(json_t *line, void *arg), void *arg)
{
    char *text = read_all(service->out_fd, NULL);
    bool found = false;
    char *end;

    for (char *at = text; !found && (end = strchr(at, '\n')) != NULL; at = end + 1) {
        json_t *line;

        *end = '\0';
        line = json_loads(at, JSON_REJECT_DUPLICATES, NULL);
        ck_assert_msg(line != NULL, "a log line is no JSON: %s", at);
        found = fn(line, arg);
        json_decref(line);
    }
    free(text);
    return found;
}

/* Life cycle */

static bool read_ports(json_t *line, void *arg)
{
    struct service *service = arg;
    const char *msg = json_string_value(json_object_get(line, "msg"));

    if (msg == NULL || strcmp(msg, "listening") != 0) {
        return false;
    }
    service->api_port = (uint16_t)json_integer_value(json_object_get(line, "api_port"));
    service->admin_port = (uint16_t)json_integer_value(json_object_get(line, "admin_port"));
    return true;
}

/* Start it and wait until it says that it listens, has ended, or the time is up. */
static struct service *start(const char *const *wrapper, const char *url, const char *const *env,
                             int64_t timeout_ns)
{
    struct service *service = calloc(1, sizeof(*service));
    int64_t until_ns = cf_now_ns() + bound(timeout_ns);
    const char *args[ARGS_MAX] = {NULL};
    size_t n = 0;

    ck_assert_ptr_nonnull(service);
    for (; wrapper != NULL && *wrapper != NULL; wrapper++) {
        ck_assert_uint_lt(n, ARGS_MAX - 2);
        args[n++] = *wrapper;
    }
    args[n] = binary();
    url = url != NULL ? url : getenv("CF_TEST_PG_URL");
    ck_assert_msg(url != NULL, "CF_TEST_PG_URL must name a database: run `make e2e`");
    service->out_fd = memfd_create("log", MFD_CLOEXEC);
    service->err_fd = memfd_create("err", MFD_CLOEXEC);
    ck_assert(service->out_fd >= 0 && service->err_fd >= 0);
    service->next = services;
    services = service;
    service->pid = spawn(args, url, env, service->out_fd, service->err_fd);
    watch_for_failure(service);
    while (!service_listens(service) && !reap(service) && cf_now_ns() < until_ns) {
        pause_ms(POLL_MS);
    }
    return service;
}

struct service *service_start_under(const char *const *wrapper, const char *url,
                                    const char *const *env)
{
    struct service *service = start(wrapper, url, env, wrapper != NULL ? 3 * START_NS : START_NS);

    ck_assert_msg(!reap(service), "curfewd ended at its start with %d", service->status);
    ck_assert_msg(service->api_port != 0, "curfewd does not say that it listens");
    ck_assert_uint_ne(service->admin_port, 0);
    return service;
}

struct service *service_try_start(const char *url, const char *const *env, int64_t timeout_ns)
{
    return start(NULL, url, env, timeout_ns);
}

struct service *service_start(const char *url, const char *const *env)
{
    return service_start_under(NULL, url, env);
}

struct service *service_start_ready(const char *url, const char *const *env)
{
    struct service *service = service_start(url, env);

    service_wait_ready(service, START_NS);
    return service;
}

void service_stop_all(void)
{
    for (struct service *service = services; service != NULL; service = service->next) {
        if (service->pid != 0) {
            service_signal(service, SIGTERM);
            ck_assert_int_eq(service_wait(service, STOP_NS), 0);
        }
    }
    while (services != NULL) {
        struct service *service = services;

        services = service->next;
        end_watch(service);
        (void)close(service->out_fd);
        (void)close(service->err_fd);
        free(service);
    }
}

void service_run(const char *const *args, const char *const *env, struct service_run *out)
{
    struct service service = {.out_fd = memfd_create("out", MFD_CLOEXEC),
                              .err_fd = memfd_create("err", MFD_CLOEXEC)};
    const char *all[ARGS_MAX] = {binary()};
    int64_t since_ns = cf_now_ns();

    for (size_t i = 0; args != NULL && args[i] != NULL; i++) {
        ck_assert_uint_lt(i, ARGS_MAX - 2);
        all[i + 1] = args[i];
    }
    service.pid = spawn(all, getenv("CF_TEST_PG_URL"), env, service.out_fd, service.err_fd);
    out->status = service_wait(&service, START_NS);
    out->took_ns = cf_now_ns() - since_ns;
    read_from(service.out_fd, 0, out->out, sizeof(out->out));
    read_from(service.err_fd, 0, out->err, sizeof(out->err));
    (void)close(service.out_fd);
    (void)close(service.err_fd);
}

/* Operations */

void service_signal(struct service *service, int number)
{
    ck_assert_int_ne(service->pid, 0);
    ck_assert_int_eq(kill(service->pid, number), 0);
}

int service_wait(struct service *service, int64_t timeout_ns)
{
    int64_t until_ns = cf_now_ns() + bound(timeout_ns);

    while (!reap(service)) {
        if (cf_now_ns() >= until_ns) {
            (void)kill(service->pid, SIGKILL);
            ck_abort_msg("curfewd %d does not end", service->pid);
        }
        pause_ms(POLL_MS);
    }
    return service->status;
}

void service_wait_ready(struct service *service, int64_t timeout_ns)
{
    int64_t until_ns = cf_now_ns() + bound(timeout_ns);

    for (;;) {
        struct reply *reply = client_get(service->api_port, "/readyz", NULL);

        if (reply->status == 200) {
            return;
        }
        ck_assert_msg(cf_now_ns() < until_ns, "not ready in time: %d %s", reply->status,
                      reply->body);
        pause_ms(5);
    }
}

void service_expect_normal(struct service *service)
{
    int64_t took_ns[100];

    for (int i = 0; i < 100; i++) {
        struct reply *reply = client_get(service->api_port, "/v1/dashboard?user_id=42", NULL);

        ck_assert_msg(reply->status == 200, "%d %s", reply->status, reply->body);
        took_ns[i] = reply->done_ns - reply->sent_ns;
    }
    ck_assert_int_lt(permille(took_ns, 100, 980), bound(500 * CF_MS));
}

/* Queries */

bool service_runs(struct service *service)
{
    return !reap(service);
}

bool service_listens(struct service *service)
{
    return service->api_port != 0 || each_line(service, read_ports, service);
}

void service_read_err(const struct service *service, char *out, size_t size)
{
    read_from(service->err_fd, 0, out, size);
}

struct wanted {
    const char *key;
    const char *value;
    json_t *line;
};

static bool take_wanted(json_t *line, void *arg)
{
    struct wanted *wanted = arg;
    const char *value = json_string_value(json_object_get(line, wanted->key));

    if (value == NULL || strcmp(value, wanted->value) != 0) {
        return false;
    }
    wanted->line = json_incref(line);
    return true;
}

json_t *service_find_line(struct service *service, const char *key, const char *value,
                          int64_t timeout_ns)
{
    struct wanted wanted = {key, value, NULL};
    int64_t until_ns = cf_now_ns() + bound(timeout_ns);

    while (!each_line(service, take_wanted, &wanted) && cf_now_ns() < until_ns) {
        pause_ms(POLL_MS);
    }
    return wanted.line;
}

struct tally {
    const char *key;
    const char *value;
    size_t n;
};

static bool count_line(json_t *line, void *arg)
{
    struct tally *tally = arg;
    const char *value = json_string_value(json_object_get(line, tally->key));

    tally->n += value != NULL && strcmp(value, tally->value) == 0;
    return false;
}

size_t service_count_lines(struct service *service, const char *key, const char *value)
{
    struct tally tally = {key, value, 0};

    (void)each_line(service, count_line, &tally);
    return tally.n;
}

void service_wait_listening(struct service *service, size_t times)
{
    int64_t until_ns = cf_now_ns() + bound(20 * CF_SECOND);

    while (service_count_lines(service, "event", "listening") < times) {
        ck_assert_msg(cf_now_ns() < until_ns, "does not listen");
        pause_ms(POLL_MS);
    }
}

bool service_has_said(struct service *service, const char *text)
{
    const int fds[] = {service->out_fd, service->err_fd};
    bool said = false;

    for (size_t i = 0; i < 2; i++) {
        size_t size;
        char *all = read_all(fds[i], &size);

        said = said || memmem(all, size, text, strlen(text)) != NULL;
        free(all);
    }
    return said;
}

struct list {
    char *out;
    size_t size;
    size_t n;
};

static bool add_backend(json_t *line, void *arg)
{
    struct list *list = arg;
    const char *event = json_string_value(json_object_get(line, "event"));

    if (event != NULL && strcmp(event, "connected") == 0) {
        list->n += (size_t)snprintf(list->out + list->n, list->size - list->n,
                                    "%s%" JSON_INTEGER_FORMAT, list->n > 1 ? "," : "",
                                    json_integer_value(json_object_get(line, "backend_pid")));
        ck_assert_uint_lt(list->n + 1, list->size);
    }
    return false;
}

void service_backends(struct service *service, char *out, size_t size)
{
    struct list list = {out, size, 1};

    strcpy(out, "{");
    (void)each_line(service, add_backend, &list);
    strcpy(out + list.n, "}");
}

size_t service_rss_bytes(struct service *service)
{
    char path[64];
    long pages = 0;
    FILE *file;

    (void)snprintf(path, sizeof(path), "/proc/%d/statm", service->pid);
    file = fopen(path, "re");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fscanf(file, "%*d %ld", &pages), 1);
    (void)fclose(file);
    return (size_t)(pages * sysconf(_SC_PAGESIZE));
}

/* Entries of a directory of the process in /proc. */
static size_t count_entries(const struct service *service, const char *name)
{
    char path[64];
    struct dirent *entry;
    size_t n = 0;
    DIR *dir;

    (void)snprintf(path, sizeof(path), "/proc/%d/%s", service->pid, name);
    dir = opendir(path);
    ck_assert_ptr_nonnull(dir);
    while ((entry = readdir(dir)) != NULL) {
        n += entry->d_name[0] != '.';
    }
    (void)closedir(dir);
    return n;
}

size_t service_fds(struct service *service)
{
    return count_entries(service, "fd");
}

size_t service_threads(struct service *service)
{
    return count_entries(service, "task");
}

unsigned long service_unread(const struct service *service)
{
    FILE *table = fopen("/proc/net/tcp", "re");
    char line[256];
    unsigned long sum = 0;

    ck_assert_ptr_nonnull(table);
    while (fgets(line, sizeof(line), table) != NULL) {
        unsigned local;
        unsigned long size;

        if (sscanf(line, " %*d: %*8x:%x %*8x:%*x %*x %*x:%lx", &local, &size) == 2 &&
            local == service->api_port) {
            sum += size;
        }
    }
    (void)fclose(table);
    return sum;
}
