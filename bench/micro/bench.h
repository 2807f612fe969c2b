/* SPDX-License-Identifier: MIT */
/* What the micro-benchmarks share: a benchmark does bench->n operations
 * and says how long they took.
 *
 * Its preparations do not count: it stands between bench_start() and bench_stop(), which may be
 * called several times. A benchmark of bench/peers/go has the same name in Go's spelling
 * (ctx_timeout is BenchmarkCtxTimeout there), and does the same. */
#ifndef CURFEW_BENCH_MICRO_BENCH_H
#define CURFEW_BENCH_MICRO_BENCH_H

#include <curfew/clock.h>
#include <curfew/ctx.h>
#include <curfew/err.h>

/* X(name, where): where it runs. Go has goroutines for both. */
#define BENCHES(X)                                                                                 \
    X(ctx_timeout, ON_FIBER)                                                                       \
    X(ctx_cancel_tree, ON_FIBER)                                                                   \
    X(ctx_tree, ON_FIBER)                                                                          \
    X(ctx_value, ON_FIBER)                                                                         \
    X(group_three, ON_FIBER)                                                                       \
    X(chan_send_recv, ON_FIBER)                                                                    \
    X(chan_unbuffered, ON_FIBER)                                                                   \
    X(chan_buffered, ON_FIBER)                                                                     \
    X(chan_unbuffered_ctx, ON_FIBER)                                                               \
    X(chan_buffered_ctx, ON_FIBER)                                                                 \
    X(chan_threads_unbuffered, ON_THREAD)                                                          \
    X(chan_threads_buffered, ON_THREAD)                                                            \
    X(sem_acquire, ON_FIBER)                                                                       \
    X(once_do, ON_FIBER)                                                                           \
    X(limiter_allow, ON_FIBER)                                                                     \
    X(cache_hit, ON_FIBER)                                                                         \
    X(cache_hit_all_cores, ON_THREAD)                                                              \
    X(flight_do, ON_FIBER)                                                                         \
    X(flight_join, ON_FIBER)

struct bench {
    size_t n;           /* Operations to do. */
    struct cf_ctx *ctx; /* One that can end, as a request's can, and does not. */
    int64_t since_ns;   /* When bench_start() was called. */
    int64_t elapsed_ns; /* Between that and bench_stop(), all in all. */
};

static inline void bench_start(struct bench *bench)
{
    bench->since_ns = cf_now_ns();
}

static inline void bench_stop(struct bench *bench)
{
    bench->elapsed_ns += cf_now_ns() - bench->since_ns;
}

/* A benchmark that fails measures nothing: end the program. */
void bench_fail(const struct cf_err *err) __attribute__((noreturn, cold));

static inline void bench_need(enum cf_code code, const struct cf_err *err)
{
    if (code != CF_OK) {
        bench_fail(err);
    }
}

#define BENCH_DECLARE(name, where) void bench_##name(struct bench *bench);
BENCHES(BENCH_DECLARE)
#undef BENCH_DECLARE

#endif
