/* SPDX-License-Identifier: MIT */
/* Contexts: one with a timeout made and given up, a tree of 1,000, a value ten contexts up. */
#include "bench.h"

#define TREE 1000
#define BRANCHES 10
#define DEPTH 10

void bench_ctx_timeout(struct bench *bench)
{
    struct cf_err err;

    bench_start(bench);
    for (size_t i = 0; i < bench->n; i++) {
        struct cf_ctx *ctx;

        bench_need(cf_ctx_with_timeout(bench->ctx, CF_SECOND, &ctx, &err), &err);
        cf_ctx_free(ctx);
    }
    bench_stop(bench);
}

/* Each of the tree has ten children but for those at its end; the root comes first. */
static void make_tree(struct cf_ctx *parent, struct cf_ctx **tree)
{
    struct cf_err err;

    for (size_t i = 0; i < TREE; i++) {
        bench_need(cf_ctx_with_cancel(i == 0 ? parent : tree[(i - 1) / BRANCHES], &tree[i], &err),
                   &err);
    }
}

static void free_tree(struct cf_ctx **tree)
{
    for (size_t i = TREE; i-- > 0;) {
        cf_ctx_free(tree[i]);
    }
}

/* The cancel alone: what is left is the collector's in Go. */
void bench_ctx_cancel_tree(struct bench *bench)
{
    struct cf_ctx *tree[TREE];

    for (size_t i = 0; i < bench->n; i++) {
        make_tree(bench->ctx, tree);
        bench_start(bench);
        cf_ctx_cancel(tree[0]);
        bench_stop(bench);
        free_tree(tree);
    }
}

/* Made, cancelled and given up. */
void bench_ctx_tree(struct bench *bench)
{
    struct cf_ctx *tree[TREE];

    bench_start(bench);
    for (size_t i = 0; i < bench->n; i++) {
        make_tree(bench->ctx, tree);
        cf_ctx_cancel(tree[0]);
        free_tree(tree);
    }
    bench_stop(bench);
}

void bench_ctx_value(struct bench *bench)
{
    static const char keys[DEPTH];
    struct cf_ctx *chain[DEPTH];
    struct cf_ctx *last = bench->ctx;
    struct cf_err err;
    int value = 1;

    for (size_t i = 0; i < DEPTH; i++) {
        bench_need(cf_ctx_with_value(last, &keys[i], &value, &chain[i], &err), &err);
        last = chain[i];
    }
    bench_start(bench);
    for (size_t i = 0; i < bench->n; i++) {
        CF_ASSERT(cf_ctx_value(last, &keys[0]) == &value);
    }
    bench_stop(bench);
    for (size_t i = DEPTH; i-- > 0;) {
        cf_ctx_free(chain[i]);
    }
}
