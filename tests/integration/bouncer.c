/* SPDX-License-Identifier: MIT */
/* A configuration file and a child: see bouncer.h. */
#include "bouncer.h"

#include <arpa/inet.h>
#include <check.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "client.h"
#include "pgview.h"

#define START_NS (20 * CF_SECOND)

/* It does not tell which port it took, so it is given one that was free just now. */
static uint16_t free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    (void)close(fd);
    return ntohs(address.sin_port);
}

/* It refuses to be root. */
static const struct passwd *user(void)
{
    const struct passwd *user = geteuid() == 0 ? getpwnam("postgres") : NULL;

    ck_assert_msg(geteuid() != 0 || user != NULL, "there is no user postgres to run PgBouncer");
    return user;
}

static void write_config(const struct bouncer *bouncer, const char *pool_mode)
{
    PGconn *view = pgview_open(NULL);
    char path[96];
    FILE *file;

    (void)snprintf(path, sizeof(path), "%s/ini", bouncer->dir);
    file = fopen(path, "we");
    ck_assert_ptr_nonnull(file);
    (void)fprintf(file, "[databases]\n%s = host=127.0.0.1 port=%s user=%s password='%s'\n",
                  PQdb(view), PQport(view), PQuser(view), PQpass(view));
    (void)fprintf(file,
                  "[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nauth_type = any\n"
                  "unix_socket_dir =\npool_mode = %s\nlogfile = %s/log\npidfile = %s/pid\n",
                  bouncer->port, pool_mode, bouncer->dir, bouncer->dir);
    ck_assert_int_eq(fchmod(fileno(file), 0600), 0);
    ck_assert_int_eq(fclose(file), 0);
    ck_assert(user() == NULL || (chown(bouncer->dir, user()->pw_uid, user()->pw_gid) == 0 &&
                                 chown(path, user()->pw_uid, user()->pw_gid) == 0));
    PQfinish(view);
}

static bool accepts(const struct bouncer *bouncer)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(bouncer->port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ok = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    (void)close(fd);
    return ok;
}

static void run(const struct bouncer *bouncer, const struct passwd *as, pid_t parent)
{
    char ini[96];
    int null = open("/dev/null", O_RDWR);

    if (as != NULL && (setgid(as->pw_gid) != 0 || setuid(as->pw_uid) != 0)) {
        _exit(126);
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* Behind setuid(), which clears it. */
    if (getppid() != parent || chdir(bouncer->dir) != 0) {
        _exit(126);
    }
    (void)snprintf(ini, sizeof(ini), "%s/ini", bouncer->dir);
    (void)dup2(null, STDIN_FILENO);
    (void)dup2(null, STDOUT_FILENO);
    (void)dup2(null, STDERR_FILENO);
    (void)execlp("pgbouncer", "pgbouncer", ini, NULL);
    (void)execl("/usr/sbin/pgbouncer", "pgbouncer", ini, NULL); /* Not in everybody's PATH. */
    _exit(127);
}

void bouncer_start(struct bouncer *bouncer, const char *pool_mode)
{
    int64_t until_ns = cf_now_ns() + bound(START_NS);
    const struct passwd *as = user();
    pid_t parent = getpid();

    *bouncer = (struct bouncer){.port = free_port()};
    strcpy(bouncer->dir, "/tmp/curfew-bouncer-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(bouncer->dir));
    write_config(bouncer, pool_mode);
    bouncer->pid = fork();
    ck_assert_int_ge(bouncer->pid, 0);
    if (bouncer->pid == 0) {
        run(bouncer, as, parent);
    }
    while (!accepts(bouncer)) {
        if (waitpid(bouncer->pid, NULL, WNOHANG) == bouncer->pid || cf_now_ns() > until_ns) {
            char command[96];

            (void)snprintf(command, sizeof(command), "tail -n 20 %s/log >&2", bouncer->dir);
            (void)!system(command);
            ck_abort_msg("PgBouncer does not start: is the package pgbouncer installed?");
        }
        pause_ms(5);
    }
}

void bouncer_stop(struct bouncer *bouncer)
{
    char command[96];

    if (bouncer->pid == 0) {
        return;
    }
    ck_assert_int_eq(kill(bouncer->pid, SIGKILL),
                     0); /* Others may be ignored, as we were started. */
    ck_assert_int_eq(waitpid(bouncer->pid, NULL, 0), bouncer->pid);
    (void)snprintf(command, sizeof(command), "rm -rf %s", bouncer->dir);
    (void)!system(command);
    bouncer->pid = 0;
}
