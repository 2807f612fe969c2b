/* SPDX-License-Identifier: MIT */
/* initdb, postgres and signals: see cluster.h.
 *
 * Every process of a server works in its data directory, and nothing else does: that is how they
 * are found. Their parent is no help once the postmaster was killed. */
#include "cluster.h"

#include <arpa/inet.h>
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <libpq-fe.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "client.h"
#include "pgview.h"

/* Constants and types */

#define START_NS (30 * CF_SECOND)
#define STOP_NS (20 * CF_SECOND)
#define PORT_MIN 12000
#define PORTS 8000
#define ARGS_MAX 24

/* Internal helpers: processes */

/* Who runs the server: PostgreSQL refuses to be root. NULL: we do. */
static const struct passwd *server_user(void)
{
    const struct passwd *user = NULL;

    if (geteuid() == 0) {
        user = getpwnam("postgres");
        ck_assert_msg(user != NULL, "there is no user postgres to run PostgreSQL");
    }
    return user;
}

/* The newest of the server's programs that are here. */
static void find_program(const char *name, char *out, size_t size)
{
    const char *dir = getenv("PG_BINDIR");
    glob_t found;
    char pattern[PATH_MAX];

    if (dir != NULL) {
        (void)snprintf(out, size, "%s/%s", dir, name);
        return;
    }
    (void)snprintf(pattern, sizeof(pattern), "/usr/lib/postgresql/*/bin/%s", name);
    if (glob(pattern, 0, NULL, &found) == 0) {
        const char *best = found.gl_pathv[0];

        for (size_t i = 1; i < found.gl_pathc; i++) {
            best = strverscmp(found.gl_pathv[i], best) > 0 ? found.gl_pathv[i] : best;
        }
        (void)snprintf(out, size, "%s", best);
        globfree(&found);
        return;
    }
    (void)snprintf(out, size, "%s", name); /* Wherever PATH has it. */
}

/* Run a program of the server as its user, with what it says in DIR/log. It dies with us. */
static pid_t spawn(const struct cluster *cluster, const char *program, const char *const *args)
{
    const char *argv[ARGS_MAX] = {NULL};
    const struct passwd *user = server_user();
    char path[PATH_MAX];
    char log[PATH_MAX];
    pid_t parent = getpid();
    pid_t pid;

    find_program(program, path, sizeof(path));
    (void)snprintf(log, sizeof(log), "%s/log", cluster->dir);
    argv[0] = path; /* Where initdb looks for its companions. */
    for (size_t i = 0; args[i] != NULL; i++) {
        ck_assert_uint_lt(i + 2, ARGS_MAX);
        argv[i + 1] = args[i];
    }
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        int in;
        int out;

        if (user != NULL && (initgroups(user->pw_name, user->pw_gid) != 0 ||
                             setgid(user->pw_gid) != 0 || setuid(user->pw_uid) != 0)) {
            _exit(126);
        }
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* Behind setuid(), which clears it. */
        if (getppid() != parent || chdir(cluster->dir) != 0) {
            _exit(126);
        }
        (void)setenv("LC_ALL", "C.UTF-8", 1);
        (void)unsetenv("PGOPTIONS");
        in = open("/dev/null", O_RDONLY);
        out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        (void)dup2(in, STDIN_FILENO);
        (void)dup2(out, STDOUT_FILENO);
        (void)dup2(out, STDERR_FILENO);
        (void)execvp(path, (char *const *)argv);
        (void)dprintf(STDERR_FILENO, "%s: %s\n", path, strerror(errno));
        _exit(127);
    }
    return pid;
}

static void print_log(const struct cluster *cluster)
{
    char command[PATH_MAX];

    (void)snprintf(command, sizeof(command), "tail -n 20 %s/log >&2", cluster->dir);
    (void)!system(command);
}

/* Send a signal to every process that works in the data directory. */
static void signal_all(const struct cluster *cluster, int number)
{
    char data[PATH_MAX];
    DIR *proc = opendir("/proc");
    struct dirent *entry;

    (void)snprintf(data, sizeof(data), "%s/data", cluster->dir);
    ck_assert_ptr_nonnull(proc);
    while ((entry = readdir(proc)) != NULL) {
        char link[PATH_MAX];
        char cwd[PATH_MAX];
        ssize_t n;

        (void)snprintf(link, sizeof(link), "/proc/%s/cwd", entry->d_name);
        n = atoi(entry->d_name) > 0 ? readlink(link, cwd, sizeof(cwd) - 1) : -1;
        if (n > 0) {
            cwd[n] = '\0';
            if (strcmp(cwd, data) == 0) {
                (void)kill(atoi(entry->d_name), number);
            }
        }
    }
    (void)closedir(proc);
}

/* A test that failed left its server behind, dead or about to be. */
static void clear_away(const struct cluster *cluster)
{
    char path[PATH_MAX];

    signal_all(cluster, SIGKILL);
    (void)snprintf(path, sizeof(path), "%s/data/postmaster.pid", cluster->dir);
    (void)unlink(path);
}

/* Internal helpers: making */

/* True if a server could listen there. */
static bool is_free(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    bool free;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)); /* As the server does. */
    free = bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    (void)close(fd);
    return free;
}

/* The kernel takes none of these for outgoing connections while the server is down. */
uint16_t cluster_choose_port(void)
{
    unsigned number;

    ck_assert_int_eq(getrandom(&number, sizeof(number), 0), sizeof(number));
    for (unsigned i = 0; i < PORTS; i++) {
        uint16_t port = (uint16_t)(PORT_MIN + (number + i) % PORTS);

        if (is_free(port)) {
            return port;
        }
    }
    ck_abort_msg("no free port");
}

static void make_password(char out[33])
{
    unsigned char bytes[16];

    ck_assert_int_eq(getrandom(bytes, sizeof(bytes), 0), sizeof(bytes));
    for (size_t i = 0; i < sizeof(bytes); i++) {
        (void)snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    }
}

static void write_file(const struct cluster *cluster, const char *name, const char *text,
                       const char *mode)
{
    const struct passwd *user = server_user();
    char path[PATH_MAX];
    FILE *file;

    (void)snprintf(path, sizeof(path), "%s/%s", cluster->dir, name);
    file = fopen(path, mode);
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fchmod(fileno(file), 0600), 0);
    ck_assert_int_ge(fputs(text, file), 0);
    ck_assert_int_eq(fclose(file), 0);
    ck_assert(user == NULL || chown(path, user->pw_uid, user->pw_gid) == 0);
}

static void load_rows(const struct cluster *cluster)
{
    PGconn *pg = pgview_open(cluster->url);

    pgview_run_schema(pg);
    pgview_exec(pg, "insert into users (email, name)"
                    " select 'user' || n || '@example.org', 'User ' || n"
                    " from generate_series(1, 20) n;"
                    " insert into orders (user_id, status, total_cents)"
                    " select 1 + n % 20, 'paid', 100 * n from generate_series(1, 60) n");
    PQfinish(pg);
}

/* Life cycle */

void cluster_create(struct cluster *cluster)
{
    const struct passwd *user = server_user();
    char settings[512];
    char password[33];
    int status;
    pid_t pid;

    *cluster = (struct cluster){.port = cluster_choose_port()};
    strcpy(cluster->dir, "/tmp/curfew-e2e-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(cluster->dir));
    ck_assert(user == NULL || chown(cluster->dir, user->pw_uid, user->pw_gid) == 0);
    make_password(password);
    write_file(cluster, "password", password, "we");
    (void)snprintf(cluster->url, sizeof(cluster->url),
                   "postgresql://curfew:%s@127.0.0.1:%d/postgres", password, cluster->port);

    pid = spawn(cluster, "initdb",
                (const char *[]){"--pgdata=data", "--username=curfew", "--auth=scram-sha-256",
                                 "--pwfile=password", "--encoding=UTF8", "--locale=C.UTF-8",
                                 "--no-sync", NULL});
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    if (status != 0) {
        print_log(cluster);
        ck_abort_msg("initdb failed");
    }
    (void)snprintf(settings, sizeof(settings),
                   "listen_addresses = '127.0.0.1'\nport = %d\nunix_socket_directories = ''\n"
                   "fsync = off\nautovacuum = off\nshared_buffers = 16MB\n"
                   "dynamic_shared_memory_type = mmap\nlog_timezone = 'UTC'\ntimezone = 'UTC'\n",
                   cluster->port);
    write_file(cluster, "data/postgresql.conf", settings, "we");
    cluster_start(cluster);
    load_rows(cluster);
    cluster_stop(cluster, SIGINT);
}

void cluster_encrypt(struct cluster *cluster)
{
    int status;
    pid_t pid;

    ck_assert_int_eq(cluster->pid, 0);
    pid =
        spawn(cluster, "openssl",
              (const char *[]){"req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt",
                               "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost", "-days",
                               "2", "-keyout", "data/server.key", "-out", "data/server.crt", NULL});
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    if (status != 0) {
        print_log(cluster);
        ck_abort_msg("openssl failed");
    }
    write_file(cluster, "data/postgresql.conf", "ssl = on\n", "ae");
}

void cluster_destroy(struct cluster *cluster)
{
    char command[128];

    if (strncmp(cluster->dir, "/tmp/curfew-e2e-", strlen("/tmp/curfew-e2e-")) != 0) {
        return; /* Never made. */
    }
    signal_all(cluster, SIGKILL);
    (void)snprintf(command, sizeof(command), "rm -rf %s", cluster->dir);
    (void)!system(command);
    *cluster = (struct cluster){.pid = 0};
}

/* Operations */

void cluster_start(struct cluster *cluster)
{
    int64_t until_ns = cf_now_ns() + START_NS;

    ck_assert_int_eq(cluster->pid, 0);
    clear_away(cluster);
    cluster->pid = spawn(cluster, "postgres", (const char *[]){"-D", "data", NULL});
    while (PQping(cluster->url) != PQPING_OK) {
        if (waitpid(cluster->pid, NULL, WNOHANG) == cluster->pid || cf_now_ns() > until_ns) {
            print_log(cluster);
            ck_abort_msg("PostgreSQL does not start");
        }
        pause_ms(10);
    }
}

void cluster_stop(struct cluster *cluster, int number)
{
    int64_t until_ns = cf_now_ns() + STOP_NS;

    ck_assert_int_ne(cluster->pid, 0);
    ck_assert_int_eq(kill(cluster->pid, number), 0);
    while (waitpid(cluster->pid, NULL, WNOHANG) != cluster->pid) {
        ck_assert_msg(cf_now_ns() < until_ns, "PostgreSQL does not stop");
        pause_ms(2);
    }
    cluster->pid = 0;
}

void cluster_freeze(const struct cluster *cluster, bool all)
{
    ck_assert_int_eq(kill(cluster->pid, SIGSTOP), 0);
    for (int i = 0; all && i < 2; i++) { /* One may have been born while the list was read. */
        signal_all(cluster, SIGSTOP);
    }
}

void cluster_thaw(const struct cluster *cluster)
{
    signal_all(cluster, SIGCONT);
}
