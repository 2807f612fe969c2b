/* SPDX-License-Identifier: MIT */
/* bench-race: is a query ever hit by the cancel of an earlier one?
 *
 * Fibers of two loops share a pool of a few connections; the control connection lives on the first,
 * so that half of the cancels cross over to it. Each round runs a statement of about 3 ms under a
 * context that ends at a random moment between 0 and 6 ms, so that many cancels meet the end of
 * their statement; then, on whatever connection the pool lends next, a shorter one that nobody
 * cancels and that must return the number it was given. If a statement is cancelled whose own
 * context lives, or answers with another number, a fence has failed.
 *
 * In a build with CF_FENCE_TEST a fence can be taken down (--skip f1, --skip f2): then the run has
 * to find the fault within --seconds, or it proves nothing when it finds none. */
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curfew/clock.h>
#include <curfew/loop.h>
#include <curfew/pg.h>
#include <curfew/wait.h>

#include "curfew/pg/pg_private.h"
#include "kit.h"

/* Constants and types */

#define LOOPS 2
#define WORKERS 6 /* More than connections, so that a freed one is lent at once. */
#define VICTIM_S 0.003
#define CANCEL_WITHIN_NS (6 * CF_MS)
#define PIDS_MAX 4096

static const struct cf_pg_stmt victim = {.name = "race_victim", .sql = "SELECT pg_sleep($1)"};
static const struct cf_pg_stmt next_query = {
    .name = "race_next", .sql = "SELECT $1::bigint, pg_backend_pid() FROM pg_sleep(0.0015)"};

struct options {
    const char *url;
    const char *way_name;
    enum cf_pg_cancel_way way;
    const char *skip; /* "f1", "f2", or NULL. */
    int64_t cancels;  /* To be sent. A context that ends in line for a connection sends none. */
    int64_t seconds;
    int64_t seed;
    size_t pool;
};

struct race {
    struct options options; /* Constant while it runs, as are these. */
    struct cf_pg *pg;
    int64_t until_ns;

    atomic_size_t workers_left;
    atomic_int_fast64_t rounds;
    atomic_int_fast64_t ended;  /* Victims whose context ended first. */
    atomic_int_fast64_t killed; /* Next queries that were cancelled. */
    atomic_int_fast64_t wrong;  /* Next queries with another's answer. */
    atomic_int_fast64_t busy;   /* Connections lent while they worked. */
    atomic_int_fast64_t failed; /* Next queries that failed otherwise. */

    pthread_mutex_t mu; /* Guards everything below. */
    int pids[PIDS_MAX];
    size_t n_pids;
    char first_failure[CF_ERR_MSG_SIZE];
};

/* What runs on one loop. Of its thread. */
struct side {
    struct race *race;
    unsigned random_state;
};

/* Internal helpers: the race */

static void note_pid(struct race *race, int pid)
{
    size_t i = 0;

    (void)pthread_mutex_lock(&race->mu);
    while (i < race->n_pids && race->pids[i] != pid) {
        i++;
    }
    if (i == race->n_pids && i < PIDS_MAX) {
        race->pids[race->n_pids++] = pid;
    }
    (void)pthread_mutex_unlock(&race->mu);
}

static void note_failure(struct race *race, const struct cf_err *err)
{
    if (strcmp(err->sqlstate, "57014") == 0) {
        race->killed++;
    } else if (strstr(err->msg, "busy") != NULL) {
        race->busy++;
    } else {
        race->failed++;
        (void)pthread_mutex_lock(&race->mu);
        if (race->first_failure[0] == '\0') {
            (void)snprintf(race->first_failure, sizeof(race->first_failure), "%s", err->msg);
        }
        (void)pthread_mutex_unlock(&race->mu);
    }
}

/* A statement whose context ends at a random moment. */
static void run_victim(struct side *side)
{
    int64_t moment_ns = (int64_t)rand_r(&side->random_state) % CANCEL_WITHIN_NS;
    struct race *race = side->race;
    struct cf_pg_param params[] = {cf_pg_f64(VICTIM_S)};
    struct cf_pg_rows *rows = NULL;
    struct cf_ctx *ctx;
    struct cf_err err;
    enum cf_code code;

    if (cf_ctx_with_timeout(cf_ctx_background(), moment_ns, &ctx, &err) != CF_OK) {
        return;
    }
    code = cf_pg_query(ctx, race->pg, &victim, params, 1, &rows, &err);
    cf_pg_rows_free(rows);
    cf_ctx_free(ctx);
    if (code == CF_EDEADLINE && err.sqlstate[0] == '\0') {
        race->ended++; /* Its own context, and not a cancel from elsewhere. */
    } else if (code != CF_OK) {
        note_failure(race, &err);
    }
}

static void run_next(struct race *race)
{
    int64_t number = atomic_fetch_add(&race->rounds, 1);
    struct cf_pg_param params[] = {cf_pg_i64(number)};
    struct cf_pg_rows *rows;
    struct cf_err err;

    if (cf_pg_query(cf_ctx_background(), race->pg, &next_query, params, 1, &rows, &err) != CF_OK) {
        note_failure(race, &err);
        return;
    }
    if (cf_pg_rows_count(rows) != 1 || cf_pg_get_i64(rows, 0, 0) != number) {
        race->wrong++;
    } else {
        note_pid(race, (int)cf_pg_get_i64(rows, 0, 1));
    }
    cf_pg_rows_free(rows);
}

static int64_t cancels_sent(const struct cf_pg_stats *stats)
{
    int64_t sum = 0;

    for (int i = 0; i < CF_PG_OUTCOME_COUNT; i++) {
        sum += i != CF_PG_NOT_SENT ? (int64_t)stats->cancels[i] : 0;
    }
    return sum;
}

/* Whether there is more to do: cancels are to be sent, or the fault was not found yet. */
static bool goes_on(const struct race *race)
{
    struct cf_pg_stats stats;

    if (race->options.skip == NULL) {
        cf_pg_stats(race->pg, &stats);
        return cancels_sent(&stats) < race->options.cancels;
    }
    return race->killed + race->wrong + race->busy == 0 && cf_now_ns() < race->until_ns;
}

static void run_worker(void *arg)
{
    struct side *side = arg;

    while (goes_on(side->race)) {
        run_victim(side);
        run_next(side->race);
    }
    side->race->workers_left--;
}

/* Start the workers, and wait for them on the main thread. */
static void run_race(struct race *race, struct cf_loop *const loops[LOOPS])
{
    static struct side sides[LOOPS];
    struct cf_pg_stats stats;
    int64_t said_ns = cf_now_ns();

    race->until_ns = said_ns + race->options.seconds * CF_SECOND;
    race->workers_left = WORKERS;
    for (unsigned i = 0; i < LOOPS; i++) {
        sides[i] = (struct side){race, (unsigned)race->options.seed * LOOPS + i};
    }
    for (size_t i = 0; i < WORKERS; i++) {
        if (cf_loop_spawn(loops[i % LOOPS], run_worker, &sides[i % LOOPS], NULL) != CF_OK) {
            race->workers_left--;
        }
    }
    while (race->workers_left > 0) {
        (void)usleep(20 * 1000);
        if (cf_now_ns() - said_ns >= CF_SECOND) {
            said_ns = cf_now_ns();
            cf_pg_stats(race->pg, &stats);
            (void)fprintf(stderr, "\r  %" PRId64 " cancels, %" PRIdFAST64 " killed ",
                          cancels_sent(&stats), race->killed);
        }
    }
    (void)fprintf(stderr, "\r\033[K");
}

/* Internal helpers: the verdict */

static int64_t dropped(const struct cf_pg_stats *stats)
{
    return (int64_t)(stats->cancels[CF_PG_DISPATCH_FAILED] +
                     stats->cancels[CF_PG_CONNECTION_DROPPED]);
}

static void print_table(const struct race *race, const struct cf_pg_stats *stats)
{
    const struct options *options = &race->options;

    (void)printf("way %s, fence down: %s, pool %zu, seed %" PRId64 "\n", options->way_name,
                 options->skip != NULL ? options->skip : "none", options->pool, options->seed);
    (void)printf("  rounds                      %10" PRIdFAST64 "\n", race->rounds);
    (void)printf("  contexts that ended first   %10" PRIdFAST64 "\n", race->ended);
    (void)printf("  cancels sent                %10" PRId64 "\n", cancels_sent(stats));
    for (int i = 0; i < CF_PG_OUTCOME_COUNT; i++) {
        (void)printf("  cancels: %-18s %10" PRIu64 "\n", cf_pg_outcome_name((enum cf_pg_outcome)i),
                     stats->cancels[i]);
    }
    (void)printf("  next queries killed         %10" PRIdFAST64 "\n", race->killed);
    (void)printf("  answers of another query    %10" PRIdFAST64 "\n", race->wrong);
    (void)printf("  connections lent while busy %10" PRIdFAST64 "\n", race->busy);
    (void)printf("  next queries failed         %10" PRIdFAST64 "%s%s\n", race->failed,
                 race->failed > 0 ? ": " : "", race->first_failure);
    (void)printf("  distinct backends           %10zu\n", race->n_pids);
    (void)printf("  connections opened          %10" PRIu64 "\n", stats->opened);
}

/* Whether the run showed what it had to. */
static bool judge(const struct race *race, const struct cf_pg_stats *stats)
{
    const char *skip = race->options.skip;

    if (skip == NULL) {
        return cancels_sent(stats) >= race->options.cancels && race->killed == 0 &&
               race->wrong == 0 && race->busy == 0 && race->failed == 0 &&
               race->n_pids <= race->options.pool && dropped(stats) == 0;
    }
    return strcmp(skip, "f1") == 0 ? race->killed > 0 : race->busy > 0;
}

/* Internal helpers: the command line */

static void print_help(FILE *file)
{
    (void)fprintf(
        file,
        "Usage: bench-race --url URL [--way control|async|pqcancel] [--cancels N] [--pool N]\n"
        "                  [--skip f1|f2] [--seconds N] [--seed N]\n\n"
        "Cancels queries at random moments until N cancels were sent, and checks every next\n"
        "query. Exit status 0: none was hit and no connection lost; with --skip (a build\n"
        "made by `make race` only), the fault was found within --seconds.\n");
}

static bool take_way(struct options *options, const char *name)
{
    static const char *const names[] = {[CF_PG_CANCEL_CONTROL] = "control",
                                        [CF_PG_CANCEL_ASYNC] = "async",
                                        [CF_PG_CANCEL_PQCANCEL] = "pqcancel"};

    options->way_name = name;
    for (size_t i = CF_PG_CANCEL_CONTROL; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(name, names[i]) == 0) {
            options->way = (enum cf_pg_cancel_way)i;
            return true;
        }
    }
    return false;
}

static void parse(int argc, char **argv, struct options *out)
{
    static const struct option longs[] = {
        {"url", required_argument, NULL, 'u'},
        {"way", required_argument, NULL, 'w'},
        {"cancels", required_argument, NULL, 'c'},
        {"pool", required_argument, NULL, 'p'},
        {"skip", required_argument, NULL, 's'},
        {"seed", required_argument, NULL, 'e'},
        {"seconds", required_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    bool ok = true;
    int letter;

    while (ok && (letter = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (letter) {
        case 'u':
            out->url = optarg;
            break;
        case 'w':
            ok = take_way(out, optarg);
            break;
        case 'c':
            out->cancels = strtoll(optarg, NULL, 10);
            break;
        case 'p':
            out->pool = (size_t)strtoull(optarg, NULL, 10);
            break;
        case 's':
            out->skip = optarg;
            ok = strcmp(optarg, "f1") == 0 || strcmp(optarg, "f2") == 0;
            break;
        case 'e':
            out->seed = strtoll(optarg, NULL, 10);
            break;
        case 't':
            out->seconds = strtoll(optarg, NULL, 10);
            break;
        case 'h':
            print_help(stdout);
            exit(EXIT_SUCCESS);
        default:
            ok = false;
            break;
        }
    }
    if (!ok || out->url == NULL || out->cancels <= 0 || out->pool < LOOPS || optind != argc) {
        misused("that cannot be used so");
    }
}

static bool take_fence_down(const char *skip)
{
#ifdef CF_FENCE_TEST
    if (skip != NULL) {
        cf__pg_skip_fences(strcmp(skip, "f1") == 0 ? CF__PG_SKIP_F1 : CF__PG_SKIP_F2);
    }
    return true;
#else
    return skip == NULL;
#endif
}

static enum cf_code run(struct race *race, struct cf_pg_stats *stats, struct cf_err *err)
{
    struct cf_pg_options options = {.url = race->options.url,
                                    .application_name = "bench-race",
                                    .pool_max = race->options.pool,
                                    .cancel = race->options.way};
    struct cf_loop *loops[LOOPS] = {NULL};
    enum cf_code code = CF_OK;

    for (size_t i = 0; i < LOOPS && code == CF_OK; i++) {
        code = cf_loop_new(NULL, &loops[i], err);
    }
    if (code == CF_OK) {
        code = cf_pg_new(&options, loops, LOOPS, &race->pg, err);
    }
    if (code == CF_OK) {
        run_race(race, loops);
        cf_pg_stats(race->pg, stats);
        cf_pg_free(race->pg);
    }
    for (size_t i = 0; i < LOOPS; i++) {
        cf_loop_free(loops[i]);
    }
    return code;
}

int main(int argc, char **argv)
{
    static struct race race = {.options = {.cancels = 1500, .pool = 4, .seconds = 10, .seed = 1},
                               .mu = PTHREAD_MUTEX_INITIALIZER};
    struct cf_pg_stats stats;
    struct cf_err err;
    bool ok;

    kit_begin("bench-race", print_help);
    (void)take_way(&race.options, "control");
    parse(argc, argv, &race.options);
    if (!take_fence_down(race.options.skip)) {
        misused("--skip needs a build by `make race`");
    }
    if (run(&race, &stats, &err) != CF_OK) {
        die("%s", err.msg);
    }
    print_table(&race, &stats);
    ok = judge(&race, &stats);
    (void)printf("%s\n", ok ? "as expected" : "NOT as expected");
    return ok ? 0 : 1;
}
