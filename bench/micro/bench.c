/* SPDX-License-Identifier: MIT */
/* bench-micro: what one operation of a primitive costs, in nanoseconds.
 *
 *     bench-micro --list             the names
 *     bench-micro NAME MS TIMES      run one for so many milliseconds, so many times: a line each
 *
 * As Go's testing package does it: the number of operations grows until they take long enough, and
 * only the last, longest run counts. bench/README.md says how to read the figures. */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/loop.h>

/* Constants and types */

#define N_MAX ((size_t)1000000000)

enum where {
    ON_FIBER,
    ON_THREAD,
};

struct entry {
    const char *name;
    void (*run)(struct bench *bench);
    enum where where;
};

static const struct entry entries[] = {
#define BENCH_ENTRY(name, where) {#name, bench_##name, where},
    BENCHES(BENCH_ENTRY)
#undef BENCH_ENTRY
};

#define N_ENTRIES (sizeof(entries) / sizeof(entries[0]))

struct request {
    const struct entry *entry;
    int64_t least_ns;
    long times;
};

/* Internal helpers */

/* How many operations take `least_ns`, and a fifth more, if `n` took less; not too many at once. */
static size_t more(size_t n, int64_t took_ns, int64_t least_ns)
{
    double wanted = 1.2 * (double)least_ns * (double)n / (double)(took_ns > 0 ? took_ns : 1);
    double most = 100.0 * (double)n;

    return (size_t)(wanted < most ? wanted : most) + 1;
}

static double measure(const struct request *request, struct cf_ctx *ctx)
{
    struct bench bench = {.n = 1, .ctx = ctx};

    for (;;) {
        bench.elapsed_ns = 0;
        request->entry->run(&bench);
        if (bench.elapsed_ns >= request->least_ns || bench.n >= N_MAX) {
            return (double)bench.elapsed_ns / (double)bench.n;
        }
        bench.n = more(bench.n, bench.elapsed_ns, request->least_ns);
    }
}

static void answer(void *arg)
{
    const struct request *request = arg;
    struct cf_ctx *ctx;
    struct cf_err err;

    bench_need(cf_ctx_with_cancel(cf_ctx_background(), &ctx, &err), &err);
    for (long i = 0; i < request->times; i++) {
        (void)printf("%.2f\n", measure(request, ctx));
    }
    cf_ctx_free(ctx);
}

static int list(void)
{
    for (size_t i = 0; i < N_ENTRIES; i++) {
        (void)printf("%s\n", entries[i].name);
    }
    return EXIT_SUCCESS;
}

static int usage(void)
{
    (void)fprintf(stderr, "Usage: bench-micro --list | NAME MS TIMES\n");
    return 2;
}

/* Operations */

void bench_fail(const struct cf_err *err)
{
    (void)fprintf(stderr, "bench-micro: %s\n", err->msg);
    exit(EXIT_FAILURE);
}

int main(int argc, char **argv)
{
    struct request request = {.entry = NULL};
    struct cf_loop *loop;
    struct cf_err err;

    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        return list();
    }
    for (size_t i = 0; argc == 4 && i < N_ENTRIES; i++) {
        if (strcmp(argv[1], entries[i].name) == 0) {
            request = (struct request){&entries[i], strtol(argv[2], NULL, 10) * CF_MS,
                                       strtol(argv[3], NULL, 10)};
        }
    }
    if (request.entry == NULL) {
        return usage();
    }
    if (request.entry->where == ON_THREAD) {
        answer(&request);
    } else {
        bench_need(cf_loop_new(NULL, &loop, &err), &err);
        bench_need(cf_loop_call(loop, answer, &request, &err), &err);
        cf_loop_free(loop);
    }
    return EXIT_SUCCESS;
}
