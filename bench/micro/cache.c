/* SPDX-License-Identifier: MIT */
/* Caches: a hit among 1,024 keys, on one thread and on all cores at once.
 *
 * The peer is a map behind an RWMutex. It has no times, no limits and no counts;
 * this cache does. */
#include "bench.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include <curfew/cache.h>
#include <curfew/group.h>

#define KEYS 1024

struct hits {
    struct cf_cache *cache;
    char keys[KEYS][16];
    size_t n; /* Of one task. */
    pthread_barrier_t ready;
};

static enum cf_code load_none(struct cf_ctx *ctx, void *arg, struct cf_value **out, int64_t *ttl_ns,
                              struct cf_err *err)
{
    (void)ctx;
    (void)arg;
    (void)out;
    (void)ttl_ns;
    return cf_err_set(err, CF_ENOTFOUND, "a miss, where all should hit");
}

static void fill(struct hits *hits)
{
    struct cf_value *value;
    struct cf_err err;

    bench_need(cf_cache_new(cf_ctx_background(), NULL, &hits->cache, &err), &err);
    for (size_t i = 0; i < KEYS; i++) {
        (void)snprintf(hits->keys[i], sizeof(hits->keys[i]), "user:%zu", i);
        bench_need(cf_value_new(hits->keys[i], sizeof(hits->keys[i]), &value, &err), &err);
        bench_need(cf_cache_put(hits->cache, hits->keys[i], value, &err), &err);
        cf_value_unref(value);
    }
}

static enum cf_code hit(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    static const struct cf_cache_load none = {load_none, 0};
    struct hits *hits = arg;

    for (size_t i = 0; i < hits->n; i++) {
        struct cf_value *value;
        enum cf_code code =
            cf_cache_get(ctx, hits->cache, hits->keys[i % KEYS], &none, NULL, &value, NULL, err);

        if (code != CF_OK) {
            return code;
        }
        cf_value_unref(value);
    }
    return CF_OK;
}

static enum cf_code hit_with_others(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct hits *hits = arg;

    (void)pthread_barrier_wait(&hits->ready);
    return hit(ctx, arg, err);
}

void bench_cache_hit(struct bench *bench)
{
    struct hits hits = {.n = bench->n};
    struct cf_err err;

    fill(&hits);
    bench_start(bench);
    bench_need(hit(bench->ctx, &hits, &err), &err);
    bench_stop(bench);
    cf_cache_free(hits.cache);
}

void bench_cache_hit_all_cores(struct bench *bench)
{
    size_t cores = (size_t)sysconf(_SC_NPROCESSORS_ONLN);
    struct hits hits = {.n = bench->n / cores + 1};
    struct cf_group *group;
    struct cf_err err;

    fill(&hits);
    (void)pthread_barrier_init(&hits.ready, NULL, (unsigned)cores + 1);
    bench_need(cf_group_new(bench->ctx, &group, &err), &err);
    for (size_t i = 0; i < cores; i++) {
        cf_group_go(group, hit_with_others, &hits);
    }
    (void)pthread_barrier_wait(&hits.ready); /* Threads take long to start. */
    bench_start(bench);
    bench_need(cf_group_wait(group, &err), &err);
    bench_stop(bench);
    cf_group_free(group);
    (void)pthread_barrier_destroy(&hits.ready);
    cf_cache_free(hits.cache);
}
