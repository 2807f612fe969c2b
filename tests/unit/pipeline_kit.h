/* SPDX-License-Identifier: MIT */
/* What the tests of pipelines share: stages of ints, and pipelines that are made of them where the
 * test is, on a plain thread or on a fiber.
 *
 * Thread safety: the stages run where they run; what they count is atomic. */
#ifndef PIPELINE_KIT_H
#define PIPELINE_KIT_H

#include <curfew/pipeline.h>

#include <stdatomic.h>

#include "places.h"
#include "waits.h"

/* Fixture: `ctx`, `target` and `failure` of waits.h; `target` is the gate
 * that some stages wait at. */

extern atomic_int entered; /* Calls of stages that have begun. */
extern atomic_int left;    /* And have returned. */

/* A case with that fixture. */
TCase *add_pipeline_case(Suite *suite, const char *name);

/* Helpers: stages of ints */

#define FOREVER INT32_MAX

/* 0, 1, 2, ... up to what `arg` says, or until nobody wants more. */
enum cf_code count_up(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                      struct cf_err *err);

enum cf_code pass_on(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                     struct cf_err *err);

enum cf_code square(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                    struct cf_err *err);

/* Let what is less than `arg` pass, and fail at it. */
enum cf_code fail_at(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                     struct cf_err *err);

/* The first `arg` + 1 of what counts up from 0. */
enum cf_code take_up_to(struct cf_ctx *of, const void *in, struct cf_outlet *out, void *arg,
                        struct cf_err *err);

/* Helpers: pipelines */

#define INTS .out_size = sizeof(int)

struct cf_pipeline *start_pipeline(const struct cf_stage *stages, size_t count);

/* Receive to the end: 0, 1, 2, ... Returns how it ended, *out_count how many there were. */
enum cf_code receive_all(struct cf_pipeline *pipeline, int *out_count, struct cf_err *err);

/* Workers */

extern const int worker_counts[4];

#endif
