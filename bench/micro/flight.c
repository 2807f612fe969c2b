/* SPDX-License-Identifier: MIT */
/* Flights: a load that nobody shares, and one that a hundred do, for each of them.
 *
 * The load here is a fiber of its own, with a context and a deadline, so that its first caller may
 * leave it; in Go's singleflight it is a call in the first caller. */
#include "bench.h"

#include <curfew/flight.h>
#include <curfew/group.h>
#include <curfew/wait.h>

#define CALLERS 100

/* Of one loop, so that a plain count does. */
struct crowd {
    struct cf_flight *flight;
    struct cf_value *value;
    size_t arrived;
};

static enum cf_code load_at_once(struct cf_ctx *ctx, void *arg, struct cf_value **out,
                                 struct cf_err *err)
{
    const struct crowd *crowd = arg;

    (void)ctx;
    (void)err;
    *out = cf_value_ref(crowd->value);
    return CF_OK;
}

/* Wait until all have come. */
static enum cf_code load_for_all(struct cf_ctx *ctx, void *arg, struct cf_value **out,
                                 struct cf_err *err)
{
    const struct crowd *crowd = arg;

    while (crowd->arrived < CALLERS) {
        enum cf_code code = cf_yield(ctx, err);

        if (code != CF_OK) {
            return code;
        }
    }
    *out = cf_value_ref(crowd->value);
    return CF_OK;
}

static enum cf_code join(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    static const struct cf_flight_load load = {load_for_all, 0};
    struct crowd *crowd = arg;
    struct cf_value *value;
    enum cf_code code;

    crowd->arrived++;
    code = cf_flight_do(ctx, crowd->flight, "key", &load, crowd, &value, NULL, err);
    if (code == CF_OK) {
        cf_value_unref(value);
    }
    return code;
}

static void init(struct crowd *crowd)
{
    struct cf_err err;

    crowd->arrived = 0;
    bench_need(cf_flight_new(cf_ctx_background(), NULL, &crowd->flight, &err), &err);
    bench_need(cf_value_new("value", sizeof("value"), &crowd->value, &err), &err);
}

static void fini(struct crowd *crowd)
{
    cf_flight_stop(crowd->flight);
    cf_flight_free(crowd->flight);
    cf_value_unref(crowd->value);
}

void bench_flight_do(struct bench *bench)
{
    static const struct cf_flight_load load = {load_at_once, 0};
    struct crowd crowd;
    struct cf_err err;

    init(&crowd);
    bench_start(bench);
    for (size_t i = 0; i < bench->n; i++) {
        struct cf_value *value;

        bench_need(cf_flight_do(bench->ctx, crowd.flight, "key", &load, &crowd, &value, NULL, &err),
                   &err);
        cf_value_unref(value);
    }
    bench_stop(bench);
    fini(&crowd);
}

/* An operation is one caller, with the task that it is. */
void bench_flight_join(struct bench *bench)
{
    struct crowd crowd;
    struct cf_err err;

    init(&crowd);
    bench_start(bench);
    for (size_t done = 0; done < bench->n; done += CALLERS) {
        struct cf_group *group;

        crowd.arrived = 0;
        bench_need(cf_group_new(bench->ctx, &group, &err), &err);
        for (size_t i = 0; i < CALLERS; i++) {
            cf_group_go(group, join, &crowd);
        }
        bench_need(cf_group_wait(group, &err), &err);
        cf_group_free(group);
    }
    bench_stop(bench);
    fini(&crowd);
}
