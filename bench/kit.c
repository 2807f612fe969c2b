/* SPDX-License-Identifier: MIT */
/* See kit.h. */
#include "kit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <curfew/clock.h>

/* Constants and types */

#define START_NS (10 * CF_SECOND)

#define PEER_FD 3

static struct {
    const char *name; /* Constant after kit_begin(), as is the other. */
    void (*print_help)(FILE *file);
} self;

/* Internal helpers */

static _Noreturn void exec_service(const char *bin, const char *url, const char *const *settings,
                                   int log)
{
    (void)setenv("DATABASE_URL", url, 1);
    (void)setenv("CURFEW_LISTEN", "127.0.0.1:0", 1);
    (void)setenv("CURFEW_ADMIN", "127.0.0.1:0", 1);
    for (; settings[0] != NULL; settings += 2) {
        (void)setenv(settings[0], settings[1], 1);
    }
    (void)dup2(log, STDOUT_FILENO);
    (void)execl(bin, bin, (char *)NULL);
    (void)fprintf(stderr, "%s: %s: %s\n", self.name, bin, strerror(errno));
    _exit(127);
}

/* Life cycle */

void kit_begin(const char *name, void (*print_help)(FILE *file))
{
    self.name = name;
    self.print_help = print_help;
}

void die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)fprintf(stderr, "%s: ", self.name);
    (void)vfprintf(stderr, format, args);
    (void)fprintf(stderr, "\n");
    va_end(args);
    exit(EXIT_FAILURE);
}

void misused(const char *what)
{
    (void)fprintf(stderr, "%s: %s\n\n", self.name, what);
    self.print_help(stderr);
    exit(2);
}

/* Arguments */

void kit_take(struct kit_arguments *arguments, int letter)
{
    switch (letter) {
    case 'b':
        arguments->bin = optarg;
        return;
    case 'u':
        arguments->url = optarg;
        return;
    case 'p':
        arguments->peer = optarg;
        return;
    case 'r':
        arguments->rounds = strtoul(optarg, NULL, 10);
        return;
    case 'h':
        self.print_help(stdout);
        exit(EXIT_SUCCESS);
    default:
        misused("what is that?");
    }
}

void kit_check(const struct kit_arguments *arguments, int argc, size_t rounds_max)
{
    if (optind < argc) {
        misused("what is that?");
    }
    if (arguments->bin == NULL || arguments->url == NULL) {
        misused("--bin and --url are needed");
    }
    if (arguments->rounds == 0 || arguments->rounds > rounds_max) {
        char what[80];

        (void)snprintf(what, sizeof(what), "--rounds should be a number from 1 to %zu", rounds_max);
        misused(what);
    }
}

/* Operations */

pid_t start_child(void)
{
    pid_t parent = getpid();
    pid_t pid;

    (void)fflush(NULL);
    pid = fork();
    if (pid < 0) {
        die("fork: %s", strerror(errno));
    }
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(127);
        }
    }
    return pid;
}

/* The log, a file in memory, says on which port it listens. */
pid_t start_service(const char *bin, const char *url, const char *const *settings,
                    uint16_t *out_port)
{
    static const char key[] = "\"api_port\":";
    int64_t until_ns = cf_now_ns() + START_NS;
    int log = memfd_create("log", MFD_CLOEXEC);
    pid_t pid = start_child();

    if (pid == 0) {
        exec_service(bin, url, settings, log);
    }
    for (;;) {
        static char text[65536];
        ssize_t n = pread(log, text, sizeof(text) - 1, 0);
        const char *at;

        text[n > 0 ? n : 0] = '\0';
        at = strstr(text, key);
        if (at != NULL) {
            *out_port = (uint16_t)atoi(at + sizeof(key) - 1);
            return pid;
        }
        if (waitpid(pid, NULL, WNOHANG) == pid || cf_now_ns() > until_ns) {
            die("curfewd does not start: %s", text);
        }
        (void)nanosleep(&(struct timespec){.tv_nsec = CF_MS}, NULL);
    }
}

pid_t start_peer(const char *path, const char *url, int input_fd, uint16_t *out_port)
{
    int fd = open_listener(out_port);
    pid_t pid = start_child();

    if (pid == 0) {
        (void)setenv("DATABASE_URL", url, 1);
        (void)dup2(input_fd, STDIN_FILENO);
        (void)dup2(fd, PEER_FD);
        (void)fcntl(PEER_FD, F_SETFD, 0);
        (void)execl(path, path, (char *)NULL);
        (void)fprintf(stderr, "%s: %s: %s\n", self.name, path, strerror(errno));
        _exit(127);
    }
    (void)close(fd);
    return pid;
}

int open_listener(uint16_t *out_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) != 0 || listen(fd, 64) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0) {
        die("listen: %s", strerror(errno));
    }
    *out_port = ntohs(address.sin_port);
    return fd;
}

int open_client(const char *name, uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
        connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        die("connect to %s: %s", name, strerror(errno));
    }
    return fd;
}

/* Queries */

int compare(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left;
    int64_t b = *(const int64_t *)right;

    return (a > b) - (a < b);
}

int64_t percentile(const int64_t *values, size_t n, size_t p)
{
    size_t rank = (n * p + 99) / 100;

    return values[rank > 0 ? rank - 1 : 0];
}
