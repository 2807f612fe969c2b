/* SPDX-License-Identifier: MIT */
/* How long a query lives on after its client has hung up.
 *
 * Starts a curfewd of its own and, where it is given, the same in Go (bench/peers/go/service). In
 * each round a client asks for /v1/sleep?seconds=30 and waits until PostgreSQL shows the statement
 * active; then it leaves, and the clock runs until no active statement is left. What is asked, over
 * and over, is the function below pg_stat_activity, by a prepared statement: the same rows without
 * the view's joins. Nothing is subtracted, so a figure contains up to one round trip of that
 * question, which is printed beside it.
 *
 * Exit status: 0 if p50 is at most 0.5 ms and p99 at most 2 ms for every way (of curfewd), 1 if not
 * or if something failed, 2 for wrong usage. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libpq-fe.h>

#include <curfew/clock.h>

#include "kit.h"

/* Constants and types */

#define P50_MAX_NS (CF_MS / 2)
#define P99_MAX_NS (2 * CF_MS)
#define ROUND_NS (5 * CF_SECOND)
#define WARM_UP 300 /* Rounds that are not counted: statements are prepared. */

/* A session begins with a new process and a password, which takes a core for milliseconds. So the
 * rounds wait until the service has all of them: those of its pool, that of cancels, and the one
 * that listens. */
#define POOL "16"
#define SESSIONS (16 + 2)
#define PEER_SESSIONS 16

#define REQUEST "GET /v1/sleep?seconds=30 HTTP/1.1\r\nHost: localhost\r\n\r\n"
#define NEXT_REQUEST "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"

#define COUNT_ACTIVE                                                                               \
    "select count(*) from pg_stat_get_activity(null) where state = 'active'"                       \
    " and application_name = $1 and query ~ 'pg_sleep' and pid <> pg_backend_pid()"

#define COUNT_ANY "select count(*) from pg_stat_get_activity(null) where application_name = $1"

#define COUNT_SESSIONS                                                                             \
    "select count(*) from pg_stat_get_activity(null)"                                              \
    " where application_name = $1 and state = 'idle'"

#define END_ACTIVE                                                                                 \
    "select pg_terminate_backend(pid, 5000) from pg_stat_get_activity(null)"                       \
    " where application_name = $1 and query ~ 'pg_sleep' and pid <> pg_backend_pid()"

struct bench {
    struct kit_arguments told;
    const char *how; /* NULL: all. */

    PGconn *pg;
    /* Of the server that is measured: */
    const char *name;
    const char *app; /* Its application_name. */
    uint16_t port;
    int64_t told_ns; /* When the last line of progress was printed. */
};

/* Internal helpers */

static double ms(int64_t ns)
{
    return (double)ns / (double)CF_MS;
}

/* Internal helpers: PostgreSQL */

static void prepare(struct bench *bench, const char *name, const char *sql)
{
    PGresult *result = PQprepare(bench->pg, name, sql, 0, NULL);

    if (PQresultStatus(result) != PGRES_COMMAND_OK) {
        die("%s", PQerrorMessage(bench->pg));
    }
    PQclear(result);
}

static void connect_pg(struct bench *bench)
{
    bench->pg = PQconnectdb(bench->told.url);
    if (PQstatus(bench->pg) != CONNECTION_OK) {
        die("%s", PQerrorMessage(bench->pg));
    }
    prepare(bench, "active", COUNT_ACTIVE);
    prepare(bench, "any", COUNT_ANY);
    prepare(bench, "sessions", COUNT_SESSIONS);
    prepare(bench, "end", END_ACTIVE);
}

static int count(struct bench *bench, const char *name)
{
    PGresult *result = PQexecPrepared(bench->pg, name, 1, &bench->app, NULL, NULL, 0);
    int n;

    if (PQresultStatus(result) != PGRES_TUPLES_OK) {
        die("%s", PQerrorMessage(bench->pg));
    }
    n = PQntuples(result) > 0 ? atoi(PQgetvalue(result, 0, 0)) : 0;
    PQclear(result);
    return n;
}

/* Ask until `name` counts `n`. Returns the instant of the answer that said so; 0: the time is
 * up. */
static int64_t try_count(struct bench *bench, const char *name, int n)
{
    int64_t until_ns = cf_now_ns() + ROUND_NS;

    while (count(bench, name) != n) {
        if (cf_now_ns() > until_ns) {
            return 0;
        }
    }
    return cf_now_ns();
}

static void wait_count(struct bench *bench, const char *name, int n)
{
    if (try_count(bench, name, n) == 0) {
        die("%s: waiting for \"%s\" to count %d takes more than %d s", bench->name, name, n,
            (int)(ROUND_NS / CF_SECOND));
    }
}

/* Rounds */

static void send_text(int fd, const char *text)
{
    if (send(fd, text, strlen(text), MSG_NOSIGNAL) != (ssize_t)strlen(text)) {
        die("send: %s", strerror(errno));
    }
}

static void prepare_nothing(int fd)
{
    (void)fd;
}

/* Bytes that nobody reads while the request runs: they hide the end of the stream from a poll. */
static void prepare_pipelined(int fd)
{
    send_text(fd, NEXT_REQUEST);
}

/* close() then sends an RST. */
static void prepare_rst(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};

    if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) != 0) {
        die("SO_LINGER: %s", strerror(errno));
    }
}

static const struct way {
    const char *name;
    void (*prepare)(int fd); /* Before the clock runs. */
} ways[] = {{"fin", prepare_nothing}, {"rst", prepare_rst}, {"pipelined", prepare_pipelined}};

#define N_WAYS (sizeof(ways) / sizeof(ways[0]))

/* How long the query lived on; ROUND_NS: longer, and it was ended in the end. */
static int64_t run_round(struct bench *bench, const struct way *way)
{
    int fd = open_client(bench->name, bench->port);
    int64_t left_ns;
    int64_t ended_ns;

    send_text(fd, REQUEST);
    wait_count(bench, "active", 1);
    way->prepare(fd);
    left_ns = cf_now_ns();
    (void)close(fd);
    ended_ns = try_count(bench, "active", 0);
    if (ended_ns != 0) {
        return ended_ns - left_ns;
    }
    (void)count(bench, "end");
    wait_count(bench, "active", 0);
    return ROUND_NS;
}

static void tell_progress(struct bench *bench, const struct way *way, size_t done)
{
    int64_t now_ns = cf_now_ns();

    if (now_ns - bench->told_ns >= CF_SECOND) {
        bench->told_ns = now_ns;
        (void)fprintf(stderr, "%-8s %-10s %zu of %zu\n", bench->name, way->name, done,
                      bench->told.rounds);
    }
}

/* How many outlived their round. They are sorted. */
static size_t count_left(const int64_t *took_ns, size_t n)
{
    size_t left = 0;

    while (left < n && took_ns[n - 1 - left] == ROUND_NS) {
        left++;
    }
    return left;
}

/* True if the figures are as good as they should be. */
static bool run_way(struct bench *bench, const struct way *way)
{
    int64_t *took_ns = calloc(bench->told.rounds, sizeof(*took_ns));
    size_t n = bench->told.rounds;
    size_t left;
    int64_t p50_ns;
    int64_t p99_ns;

    if (took_ns == NULL) {
        die("no memory for %zu rounds", n);
    }
    for (size_t i = 0; i < WARM_UP; i++) {
        (void)run_round(bench, way);
    }
    for (size_t i = 0; i < n; i++) {
        took_ns[i] = run_round(bench, way);
        tell_progress(bench, way, i + 1);
    }
    qsort(took_ns, n, sizeof(*took_ns), compare);
    p50_ns = percentile(took_ns, n, 50);
    p99_ns = percentile(took_ns, n, 99);
    left = count_left(took_ns, n);
    (void)printf("%-8s %-10s %7zu %9.3f %9.3f %9.3f %6zu\n", bench->name, way->name, n, ms(p50_ns),
                 ms(p99_ns), ms(took_ns[n - 1]), left);
    free(took_ns);
    return p50_ns <= P50_MAX_NS && p99_ns <= P99_MAX_NS && left == 0;
}

/* The first `n_ways`, those of them that were asked for. */
static bool run_ways(struct bench *bench, size_t n_ways, int sessions)
{
    bool good = true;

    wait_count(bench, "sessions", sessions);
    for (size_t i = 0; i < n_ways; i++) {
        if (bench->how == NULL || strcmp(bench->how, ways[i].name) == 0) {
            good = run_way(bench, &ways[i]) && good;
        }
    }
    return good;
}

static bool measure_service(struct bench *bench)
{
    static const char *const settings[] = {"CURFEW_DEMO", "1", "CURFEW_GRACE", "0s", "CURFEW_POOL",
                                           POOL,          NULL};
    pid_t pid = start_service(bench->told.bin, bench->told.url, settings, &bench->port);
    bool good;

    bench->name = "curfewd";
    bench->app = "curfewd";
    good = run_ways(bench, N_WAYS, SESSIONS);
    (void)kill(pid, SIGTERM);
    (void)waitpid(pid, NULL, 0);
    return good;
}

/* But for the last way: behind bytes that it has not read, net/http sees no end. */
static void measure_peer(struct bench *bench)
{
    pid_t pid = start_peer(bench->told.peer, bench->told.url, STDIN_FILENO, &bench->port);

    bench->name = "Go";
    bench->app = "peer";
    (void)run_ways(bench, N_WAYS - 1, PEER_SESSIONS);
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
}

#define QUESTIONS 1000

static void measure_question(struct bench *bench)
{
    static int64_t took_ns[QUESTIONS];

    for (size_t i = 0; i < QUESTIONS; i++) {
        int64_t since_ns = cf_now_ns();

        (void)count(bench, "active");
        took_ns[i] = cf_now_ns() - since_ns;
    }
    qsort(took_ns, QUESTIONS, sizeof(took_ns[0]), compare);
    (void)printf("%-8s %-10s %7d %9.3f %9.3f %9.3f\n", "", "(question)", QUESTIONS,
                 ms(percentile(took_ns, QUESTIONS, 50)), ms(percentile(took_ns, QUESTIONS, 99)),
                 ms(took_ns[QUESTIONS - 1]));
}

/* The command line */

static void print_help(FILE *file)
{
    (void)fprintf(
        file, "Usage: bench-orphan --bin CURFEWD --url URL [--peer PROGRAM] [--rounds N]"
              " [--how WAY]\n\n"
              "Measures how long a query lives on after its client has hung up.\n\n"
              "  --bin PATH    the service to start\n"
              "  --url URL     the PostgreSQL that it uses, and that is looked at\n"
              "  --peer PATH   bench/peers/go/service, to compare with\n"
              "  --rounds N    for each way (500)\n"
              "  --how WAY     fin, rst, pipelined (a FIN behind bytes that nobody reads), or\n"
              "                all of them (default)\n\n"
              "Exit status: 0 if each p50 <= 0.5 ms and p99 <= 2 ms, 1 if not, 2 wrong usage.\n");
}

static void read_arguments(int argc, char **argv, struct bench *bench)
{
    static const struct option options[] = {
        KIT_OPTIONS, {"how", required_argument, NULL, 'w'}, {NULL, 0, NULL, 0}};
    int letter;

    while ((letter = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (letter == 'w') {
            bench->how = strcmp(optarg, "all") == 0 ? NULL : optarg;
        } else {
            kit_take(&bench->told, letter);
        }
    }
    kit_check(&bench->told, argc, 10000000);
    for (size_t i = 0; i < N_WAYS; i++) {
        if (bench->how == NULL || strcmp(bench->how, ways[i].name) == 0) {
            return;
        }
    }
    misused("--how should be fin, rst, pipelined or all");
}

int main(int argc, char **argv)
{
    struct bench bench = {.told.rounds = 500};
    bool good;

    kit_begin("bench-orphan", print_help);
    read_arguments(argc, argv, &bench);
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    connect_pg(&bench);
    bench.told_ns = cf_now_ns();
    bench.app = "curfewd";
    if (count(&bench, "any") > 0) {
        die("a curfewd is connected to this PostgreSQL, whose queries would be counted: stop it");
    }
    (void)printf("%-8s %-10s %7s %9s %9s %9s %6s\n", "orphan", "how", "rounds", "p50 ms", "p99 ms",
                 "max ms", "> 5 s");
    good = measure_service(&bench);
    if (bench.told.peer != NULL) {
        measure_peer(&bench);
    }
    measure_question(&bench);
    PQfinish(bench.pg);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
