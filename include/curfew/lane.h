/* SPDX-License-Identifier: MIT */
/* Offload lanes: a few threads for one kind of blocking work, so that loops never block.
 *
 * A lane has its own threads, started as needed, and a bounded queue. Different kinds of work (name
 * resolution, cancel requests, images) get different lanes, so that one that hangs cannot starve
 * another.
 *
 * Invariant: for every run() that is not refused the lane calls `work` at most once, and the
 * argument ends in exactly one way: handed back to the caller, or passed to `drop`.
 *
 *     code = cf_lane_run(ctx, lane, resolve, request_free, request, err);
 *     if (code != CF_OK) { return code; }        // the request is freed, or will be by the lane
 *     use(request->addresses);
 *
 * Thread safety: any fiber, any plain thread. */
#ifndef CURFEW_LANE_H
#define CURFEW_LANE_H

#include <curfew/base.h>
#include <curfew/ctx.h>
#include <curfew/err.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cf_lane;

typedef void (*cf_lane_fn)(void *arg);

/* Make a lane of at most `threads_max` threads and `queue_max` waiting jobs. `name` is copied (up
 * to 15 bytes) and shown as the threads' name.
 * Ownership: the caller owns *out, cf_lane_free(). Fails with CF_ENOMEM, CF_EINVAL. */
CF_API CF_MUST enum cf_code cf_lane_new(const char *name, size_t threads_max, size_t queue_max,
                                        struct cf_lane **out, struct cf_err *err);

/* Drop the queue, and free the lane once the last running job has returned, without waiting for
 * that. No run() may be waiting (asserted). NULL is allowed. */
CF_API void cf_lane_free(struct cf_lane *lane);

/* Run `work(own_arg)` on a thread of the lane.
 *
 * Ownership: on CF_OK `own_arg` is the caller's again. Otherwise `drop(own_arg)` is called once:
 * immediately if the work never started, else by the lane when the work has returned.
 * Blocks: until the work is done, or `ctx` is: running work is then abandoned, not interrupted.
 * Fails with CF_ECANCELED, CF_EDEADLINE, CF_ELIMIT (queue full), CF_ENOMEM, CF_EUNAVAIL. */
CF_API CF_MUST enum cf_code cf_lane_run(struct cf_ctx *ctx, struct cf_lane *lane, cf_lane_fn work,
                                        cf_lane_fn drop, void *own_arg, struct cf_err *err);

#ifdef __cplusplus
}
#endif

#endif
