/* SPDX-License-Identifier: MIT */
/* Flights: one load for all callers that want the same thing at the same time. Go's singleflight,
 * with contexts.
 *
 * The first caller of a key starts its load, as a fiber of its loop (off the loops: as a thread).
 * Callers that come while it runs, from any loop or thread, share its result, a value or an error.
 * The load belongs to none of them, since any of them may leave before it ends: its context is a
 * child of the flights' own, with the values of that and a cap as its deadline. Each caller waits
 * under its own context. When the last one leaves, the load is cancelled, and the next caller
 * starts a new one.
 *
 * Invariant: a key has at most one load that can be joined; a caller that leaves changes nothing
 * for the others.
 *
 *     static const struct cf_flight_load load_user = {fetch_user, sizeof(struct user_query)};
 *     struct user_query query = {pg, id};
 *
 *     code = cf_flight_do(ctx, flight, key, &load_user, &query, &value, NULL, err);
 *     if (code != CF_OK) { return code; }
 *     reply(request, cf_value_data(value), cf_value_size(value));
 *     cf_value_unref(value);
 *
 * Thread safety: any thread may call everything here, except that cf_flight_stop() and
 * cf_flight_free() are for one caller. Not from a callback of the loop. */
#ifndef CURFEW_FLIGHT_H
#define CURFEW_FLIGHT_H

#include <curfew/base.h>
#include <curfew/ctx.h>
#include <curfew/err.h>
#include <curfew/value.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cf_flight;

/* Make the value of one key: *out, with a reference for the flight. `ctx` is the load's own and
 * ends when no caller waits any more. If it does not return CF_OK, every caller fails with that
 * code, as described in `err` (never NULL). */
typedef enum cf_code (*cf_flight_fn)(struct cf_ctx *ctx, void *arg, struct cf_value **out,
                                     struct cf_err *err);

/* How something is loaded: declared once, as a constant. */
struct cf_flight_load {
    cf_flight_fn fn;
    size_t arg_size; /* Bytes of the argument, which are copied: the load may outlive the call that
                        started it. 0: the pointer itself, to what outlives every load. */
};

#define CF_FLIGHT_LOAD_TIMEOUT_NS (30 * CF_SECOND)
#define CF_FLIGHT_LOADS_MAX 8192

struct cf_flight_options {
    int64_t load_timeout_ns; /* A load's deadline, from its start. 0: CF_FLIGHT_LOAD_TIMEOUT_NS. */
    size_t loads_max; /* Loads that run at once, cancelled ones included. 0: CF_FLIGHT_LOADS_MAX. */
};

/* Life cycle */

/* Make flights whose loads are children of `parent`: the service's context, never a caller's. Loads
 * see its values and end when it does. `options` may be NULL for the defaults.
 * Ownership: keeps a reference to `parent`; the caller owns *out, cf_flight_free().
 * Fails with CF_ENOMEM. */
CF_API CF_MUST enum cf_code cf_flight_new(struct cf_ctx *parent,
                                          const struct cf_flight_options *options,
                                          struct cf_flight **out, struct cf_err *err);

/* Let all callers, waiting and new, fail with CF_ECLOSED; cancel every load, and wait until all
 * have ended. Idempotent. This wait has no context of its own: the loads end when theirs does.
 * Blocks: until the last load has ended. Call from: not from a load. */
CF_API void cf_flight_stop(struct cf_flight *flight);

/* Free the flights, after cf_flight_stop() or when no load runs (asserted), and when every
 * cf_flight_do() has returned. NULL is allowed. */
CF_API void cf_flight_free(struct cf_flight *flight);

/* Operations */

/* Wait for the value of `key`: join the load that runs, or start `load` with `arg`.
 *
 * Ownership: copies `key` and `arg`; the caller owns a reference, *out: cf_value_unref().
 * *out_shared (may be NULL): whether anybody else had joined when the load ended.
 * Blocks: until the load has ended or `ctx` is done.
 * Fails with what the load returned (also CF_ECANCELED and CF_EDEADLINE, then of the load's own
 * context), with those two of `ctx`, CF_ECLOSED, CF_ELIMIT (loads_max), CF_ENOMEM, CF_EUNAVAIL. */
CF_API CF_MUST enum cf_code cf_flight_do(struct cf_ctx *ctx, struct cf_flight *flight,
                                         const char *key, const struct cf_flight_load *load,
                                         const void *arg, struct cf_value **out, bool *out_shared,
                                         struct cf_err *err);

/* Have the next caller start a new load of `key`, because the result of the running one will be out
 * of date. Callers that wait for that one still get its result. Never blocks. */
CF_API void cf_flight_forget(struct cf_flight *flight, const char *key);

/* Queries */

/* Loads that have not ended, cancelled ones included: for tests and metrics. */
CF_API size_t cf_flight_loads(struct cf_flight *flight);

#ifdef __cplusplus
}
#endif

#endif
