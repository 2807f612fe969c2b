/* SPDX-License-Identifier: MIT */
/* What a dashboard costs: processor time of the service, a request.
 *
 * Starts a curfewd of its own, with one loop, and asks it for the same dashboard from CLIENTS
 * connections that each wait for their reply. It comes from the cache, or, with --miss, from
 * PostgreSQL each time. In turns with it are measured
 *
 *   - from the cache, with the same bytes to send: what it cannot be cheaper than, a loop over
 *     epoll that looks at nothing it reads, and libmicrohttpd alone; where it is given, the same in
 *     Go (bench/peers/go/hit);
 *   - from PostgreSQL: the same in Go (bench/peers/go/service).
 *
 * What is read is the process's own clock, before and after each turn. On a machine that does other
 * things too, the least is the figure: they only add, by what they leave of the caches.
 *
 * Exit status: 0, 1 if something failed, 2 for wrong usage. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <microhttpd.h>

#include <curfew/clock.h>

#include "kit.h"

/* Constants and types */

#define CLIENTS 16
#define REQUESTS 4000 /* A turn of one server. */
#define SERVERS_MAX 4
#define REPLY_SIZE_MAX ((size_t)64 * 1024)

static const char request[] =
    "GET /v1/dashboard?user_id=42 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";

struct bench {
    struct kit_arguments told;
    bool miss;
};

struct reply {
    char text[REPLY_SIZE_MAX];
    size_t size;      /* Of what has come. */
    size_t head_size; /* 0: not yet known. */
    size_t whole;
};

struct client {
    int fd;
    struct reply reply;
};

struct server {
    const char *name;
    pid_t pid;
    clockid_t clock; /* Of its processor time. */
    uint16_t port;
    struct client clients[CLIENTS];
    int64_t *spent_ns; /* For each round, as is the next. */
    int64_t *took_ns;
};

/* Internal helpers */

static int64_t spent_ns(const struct server *server)
{
    struct timespec spent;

    if (clock_gettime(server->clock, &spent) != 0) {
        die("%s has ended", server->name);
    }
    return (int64_t)spent.tv_sec * CF_SECOND + spent.tv_nsec;
}

static void read_clock_of(struct server *server)
{
    if (clock_getcpuclockid(server->pid, &server->clock) != 0) {
        die("the processor time of %s cannot be read", server->name);
    }
}

/* Clients */

static void ask(struct client *client)
{
    client->reply.size = 0;
    client->reply.head_size = 0;
    if (send(client->fd, request, sizeof(request) - 1, MSG_NOSIGNAL) != sizeof(request) - 1) {
        die("send: %s", strerror(errno));
    }
}

static void measure_head(struct reply *reply)
{
    static const char length[] = "\r\nContent-Length: ";
    const char *end;
    const char *at;

    reply->text[reply->size] = '\0';
    end = strstr(reply->text, "\r\n\r\n");
    if (end == NULL) {
        return;
    }
    at = strcasestr(reply->text, length);
    if (at == NULL || at > end || strncmp(reply->text, "HTTP/1.1 200", 12) != 0) {
        die("not what was asked for: %.200s", reply->text);
    }
    reply->head_size = (size_t)(end + 4 - reply->text);
    reply->whole = reply->head_size + strtoul(at + sizeof(length) - 1, NULL, 10);
}

/* Read what is there; true: the reply is. */
static bool hear(struct client *client)
{
    struct reply *reply = &client->reply;
    ssize_t n =
        recv(client->fd, reply->text + reply->size, sizeof(reply->text) - 1 - reply->size, 0);

    if (n <= 0) {
        die("recv: %s", n < 0 ? strerror(errno) : "closed");
    }
    reply->size += (size_t)n;
    if (reply->head_size == 0) {
        measure_head(reply);
    }
    return reply->head_size > 0 && reply->size >= reply->whole;
}

/* Have `n` requests answered, each client having one on its way. */
static void run_requests(struct server *server, size_t n)
{
    struct epoll_event events[CLIENTS];
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    size_t asked = 0;
    size_t heard = 0;

    for (; asked < CLIENTS && asked < n; asked++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &server->clients[asked]};

        (void)epoll_ctl(epoll_fd, EPOLL_CTL_ADD, server->clients[asked].fd, &event);
        ask(&server->clients[asked]);
    }
    while (heard < n) {
        int n_events = epoll_wait(epoll_fd, events, CLIENTS, -1);

        for (int i = 0; i < n_events; i++) {
            struct client *client = events[i].data.ptr;

            if (!hear(client)) {
                continue;
            }
            heard++;
            if (asked < n) {
                asked++;
                ask(client);
            }
        }
    }
    (void)close(epoll_fd);
}

/* Servers that the service is compared with, given its reply */

/* Read and write. A request comes in one piece, and a reply finds room. */
static _Noreturn void run_bare(int listen_fd, const struct reply *reply)
{
    struct epoll_event events[CLIENTS + 1];
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listen_fd};
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    char text[4096];

    (void)epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &event);
    for (;;) {
        int n = epoll_wait(epoll_fd, events, CLIENTS + 1, -1);

        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;

            if (fd == listen_fd) {
                event.data.fd = accept(listen_fd, NULL, NULL);
                (void)epoll_ctl(epoll_fd, EPOLL_CTL_ADD, event.data.fd, &event);
            } else if (recv(fd, text, sizeof(text), 0) <= 0 ||
                       send(fd, reply->text, reply->whole, MSG_NOSIGNAL) < 0) {
                _exit(EXIT_FAILURE);
            }
        }
    }
}

/* Every header but those that libmicrohttpd writes itself. */
static void copy_headers(const struct reply *reply, struct MHD_Response *response)
{
    char head[4096] = "";
    char *rest = NULL;

    memcpy(head, reply->text,
           reply->head_size < sizeof(head) ? reply->head_size : sizeof(head) - 1);
    (void)strtok_r(head, "\r\n", &rest);
    for (char *line = strtok_r(NULL, "\r\n", &rest); line != NULL;
         line = strtok_r(NULL, "\r\n", &rest)) {
        char *colon = strchr(line, ':');

        *colon = '\0';
        if (strcasecmp(line, "Date") != 0 && strcasecmp(line, "Content-Length") != 0) {
            (void)MHD_add_response_header(response, line, colon + 2);
        }
    }
}

static enum MHD_Result answer(void *arg, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *data,
                              size_t *data_size, void **context)
{
    const struct reply *reply = arg;
    struct MHD_Response *response;
    enum MHD_Result result;

    (void)url;
    (void)method;
    (void)version;
    (void)data;
    (void)data_size;
    if (*context == NULL) {
        *context = arg; /* The head; it is answered when the request is complete. */
        return MHD_YES;
    }
    response = MHD_create_response_from_buffer(reply->whole - reply->head_size,
                                               (void *)(uintptr_t)(reply->text + reply->head_size),
                                               MHD_RESPMEM_PERSISTENT);
    copy_headers(reply, response);
    result = MHD_queue_response(connection, MHD_HTTP_OK, response);
    MHD_destroy_response(response);
    return result;
}

static _Noreturn void run_libmicrohttpd(int listen_fd, const struct reply *reply)
{
    struct MHD_Daemon *daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, answer, (void *)(uintptr_t)reply,
        MHD_OPTION_LISTEN_SOCKET, listen_fd, MHD_OPTION_END);

    while (daemon != NULL) {
        (void)pause();
    }
    _exit(EXIT_FAILURE);
}

/* Rounds */

static int64_t *alloc_rounds(size_t rounds)
{
    int64_t *values = calloc(rounds, sizeof(*values));

    if (values == NULL) {
        die("no memory for %zu rounds", rounds);
    }
    return values;
}

/* A server that was started is made ready to be asked. */
static void begin(struct server *server, const char *name, size_t rounds)
{
    server->name = name;
    server->spent_ns = alloc_rounds(rounds);
    server->took_ns = alloc_rounds(rounds);
    read_clock_of(server);
    for (size_t i = 0; i < CLIENTS; i++) {
        server->clients[i].fd = open_client(name, server->port);
    }
    run_requests(server, REQUESTS); /* Warm. */
}

static void start_bound(struct server *server, const char *name, size_t rounds,
                        void (*run)(int listen_fd, const struct reply *reply),
                        const struct reply *reply)
{
    int fd = open_listener(&server->port);

    server->pid = start_child();
    if (server->pid == 0) {
        run(fd, reply);
        _exit(EXIT_FAILURE);
    }
    (void)close(fd);
    begin(server, name, rounds);
}

static void start_go(struct server *server, const struct bench *bench, const struct reply *reply)
{
    int file = memfd_create("reply", MFD_CLOEXEC);

    if (write(file, reply->text, reply->whole) != (ssize_t)reply->whole) {
        die("a file in memory: %s", strerror(errno));
    }
    (void)lseek(file, 0, SEEK_SET);
    server->pid = start_peer(bench->told.peer, bench->told.url, file, &server->port);
    (void)close(file);
    begin(server, "Go", bench->told.rounds);
}

/* All servers; the first is the service, whose reply others send. Returns how many. */
static size_t start_servers(const struct bench *bench, struct server *servers)
{
    /* One thread, as the others; hits and nothing else, or none. */
    const char *const settings[] = {"CURFEW_LOOPS", "1", "CURFEW_CACHE_TTL",
                                    bench->miss ? "0" : "60m", NULL};
    const struct reply *reply = &servers[0].clients[0].reply;
    size_t n = 0;

    servers[n].pid = start_service(bench->told.bin, bench->told.url, settings, &servers[n].port);
    begin(&servers[n++], "curfewd", bench->told.rounds);
    if (!bench->miss) {
        start_bound(&servers[n++], "epoll", bench->told.rounds, run_bare, reply);
        start_bound(&servers[n++], "libmicrohttpd", bench->told.rounds, run_libmicrohttpd, reply);
    }
    if (bench->told.peer != NULL) {
        start_go(&servers[n++], bench, reply);
    }
    return n;
}

static void run_turn(struct server *server, size_t round)
{
    int64_t began_ns = cf_now_ns();
    int64_t before_ns = spent_ns(server);

    run_requests(server, REQUESTS);
    server->spent_ns[round] = spent_ns(server) - before_ns;
    server->took_ns[round] = cf_now_ns() - began_ns;
}

static double us(int64_t ns)
{
    return (double)ns / (double)CF_US / REQUESTS;
}

static void print_figures(const struct bench *bench, struct server *servers, size_t n)
{
    const struct reply *reply = &servers[0].clients[0].reply;

    (void)printf("a reply has %zu bytes, of which %zu are its head\n", reply->whole,
                 reply->head_size);
    (void)printf("%-14s %9s %9s %9s %12s\n", "us a request", "least", "median", "ratio",
                 "requests/s");
    for (size_t i = 0; i < n; i++) {
        qsort(servers[i].spent_ns, bench->told.rounds, sizeof(int64_t), compare);
        qsort(servers[i].took_ns, bench->told.rounds, sizeof(int64_t), compare);
        (void)printf("%-14s %9.2f %9.2f %9.2f %12.0f\n", servers[i].name,
                     us(servers[i].spent_ns[0]), us(servers[i].spent_ns[bench->told.rounds / 2]),
                     (double)servers[0].spent_ns[0] / (double)servers[i].spent_ns[0],
                     REQUESTS * (double)CF_SECOND / (double)servers[i].took_ns[0]);
    }
}

/* The command line */

static void print_help(FILE *file)
{
    (void)fprintf(file, "Usage: bench-dashboard --bin CURFEWD --url URL [--miss] [--peer PROGRAM]"
                        " [--rounds N]\n\n"
                        "Measures the processor time of a dashboard.\n\n"
                        "  --bin PATH    the service to start\n"
                        "  --url URL     the PostgreSQL that it uses\n"
                        "  --miss        without a cache\n"
                        "  --peer PATH   bench/peers/go/hit to compare with, or, with --miss,\n"
                        "                bench/peers/go/service\n"
                        "  --rounds N    of 4,000 requests to each server (20)\n");
}

static void read_arguments(int argc, char **argv, struct bench *bench)
{
    static const struct option options[] = {
        KIT_OPTIONS, {"miss", no_argument, NULL, 'm'}, {NULL, 0, NULL, 0}};
    int letter;

    while ((letter = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (letter == 'm') {
            bench->miss = true;
        } else {
            kit_take(&bench->told, letter);
        }
    }
    kit_check(&bench->told, argc, 100000);
}

int main(int argc, char **argv)
{
    static struct server servers[SERVERS_MAX];
    struct bench bench = {.told.rounds = 20};
    size_t n;

    kit_begin("bench-dashboard", print_help);
    read_arguments(argc, argv, &bench);
    n = start_servers(&bench, servers);
    for (size_t round = 0; round < bench.told.rounds; round++) {
        for (size_t i = 0; i < n; i++) {
            run_turn(&servers[i], round);
        }
    }
    print_figures(&bench, servers, n);
    for (size_t i = 0; i < n; i++) {
        (void)kill(servers[i].pid, i == 0 ? SIGTERM : SIGKILL);
        (void)waitpid(servers[i].pid, NULL, 0);
        free(servers[i].spent_ns);
        free(servers[i].took_ns);
    }
    return EXIT_SUCCESS;
}
