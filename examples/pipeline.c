/* SPDX-License-Identifier: MIT */
/* A pipeline: generate numbers, square them, keep the even ones. Every stage runs by itself, with a
 * channel to the next; all end when the input does, or when the context ends. */
#include <stdio.h>

#include <curfew/pipeline.h>

static enum cf_code generate(struct cf_ctx *ctx, const void *in, struct cf_outlet *out, void *arg,
                             struct cf_err *err)
{
    enum cf_code code = CF_OK;

    (void)in;
    for (const int *number = arg; code == CF_OK && *number != 0; number++) {
        code = cf_outlet_send(ctx, out, number, err);
    }
    return code;
}

static enum cf_code square(struct cf_ctx *ctx, const void *in, struct cf_outlet *out, void *arg,
                           struct cf_err *err)
{
    int number = *(const int *)in;

    (void)arg;
    number *= number;
    return cf_outlet_send(ctx, out, &number, err);
}

static enum cf_code filter_even(struct cf_ctx *ctx, const void *in, struct cf_outlet *out,
                                void *arg, struct cf_err *err)
{
    (void)arg;
    return *(const int *)in % 2 == 0 ? cf_outlet_send(ctx, out, in, err) : CF_OK;
}

int main(void)
{
    static int numbers[] = {1, 2, 3, 4, 5, 0};
    static const struct cf_stage stages[] = {
        {.fn = generate, .arg = numbers, .out_size = sizeof(int)},
        {.fn = square, .out_size = sizeof(int)},
        {.fn = filter_even, .out_size = sizeof(int)},
    };
    struct cf_pipeline *pipeline;
    struct cf_ctx *ctx = cf_ctx_background();
    struct cf_err err;
    enum cf_code code;
    int number;

    if (cf_pipeline_new(ctx, stages, 3, &pipeline, &err) != CF_OK) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    while ((code = cf_pipeline_recv(ctx, pipeline, &number, &err)) == CF_OK) {
        printf("%d\n", number); /* 4, 16: the squares of 2 and 4. */
    }
    cf_pipeline_free(pipeline);
    return code == CF_ECLOSED ? 0 : 1; /* The end, and not a failure. */
}
