/* SPDX-License-Identifier: MIT */
/* Flights: see flight.h for the contract, golang.org/x/sync/singleflight for the model.
 *
 * A load and its callers share a struct call, which goes with the last of their references. Under
 * the flights' lock it is in one of these states:
 *
 *     FLYING --forget--> FORGOTTEN --+
 *        |                   |       |
 *        |  the last leaves  |       | the load returns
 *        v                   v       v
 *     ABANDONED ----------------> LANDED        FLYING --the load returns--> LANDED
 *
 * Only FLYING is in the table, so only that is joined. The caller who abandons a call cancels its
 * context, without the lock. The load does not end before that cancel has returned: the timer of
 * its context is its loop's, and the loop may be freed after its last fiber.
 *
 * What a load needs is made before the lock is taken: a caller that finds nothing makes a call,
 * looks again, and throws its own away if another was first.
 *
 * The result is written once, before the callers' waits are ended with READY, and constant from
 * then on: they read it without the lock.
 *
 * Lock order: mu, then what ends a wait (loop inbox, parker). Contexts are made, cancelled and
 * freed without it. */
#include <curfew/flight.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/loop.h>

#include "curfew/core/err_private.h"
#include "curfew/core/list.h"
#include "curfew/core/thread.h"
#include "curfew/runtime/waiting.h"
#include "curfew/sync/flight_private.h"
#include "curfew/sync/hash.h"
#include "curfew/sync/table.h"

struct cf_flight {
    struct cf_ctx *ctx; /* Parent of every load's. Constant after new, as are these. */
    int64_t load_timeout_ns;
    size_t loads_max;
    struct cf__hash_seed seed;

    pthread_mutex_t mu; /* Guards everything below. */
    struct cf__table flying;
    struct cf__list running;     /* struct call whose load has not ended, whatever its state. */
    size_t loads;                /* In running. */
    struct cf__wait *end_waiter; /* cf_flight_stop(), or NULL. */
    bool closing;
};

enum call_state {
    CALL_FLYING,    /* In the table. */
    CALL_FORGOTTEN, /* Not in the table; somebody waits. */
    CALL_ABANDONED, /* Not in the table; nobody waits. */
    CALL_LANDED,    /* The load has returned. */
};

struct call {
    struct cf__flight_job job; /* Constant after new, but for `forgotten`. As are these: */
    struct cf_flight *flight;  /* Not after the load has ended. */
    struct cf_ctx *ctx;        /* The load's: owned by it, freed at its end. */

    _Atomic unsigned refs; /* The load's, and one of each caller. */

    struct cf__table_node node; /* Guarded by the flights' mu, as is everything below. */
    struct cf__list running;
    enum call_state state;
    struct cf__list callers;    /* struct caller */
    size_t wanted_by;           /* Callers that have not left, and the one that never does. */
    size_t joined;              /* Callers that ever were. */
    bool canceling;             /* Who abandoned it is not done yet. */
    struct cf__wait *end_waits; /* The load's end, for that; or NULL. */

    enum cf_code code; /* The result: constant once LANDED, as are these. */
    struct cf_value *value;
    struct cf_err err;

    _Alignas(max_align_t) unsigned char tail[]; /* The argument, then the key. */
};

struct caller {
    struct cf__list node;
    struct cf__wait wait;
};

/* Internal helpers: calls */

static void call_unref(struct call *call)
{
    if (atomic_fetch_sub(&call->refs, 1) == 1) {
        cf_value_unref(call->value);
        free(call);
    }
}

static enum cf_code call_new(struct cf_flight *flight, const struct cf__flight_job *job,
                             uint64_t hash, struct call **out, struct cf_err *err)
{
    size_t key_size = strlen(job->key) + 1;
    struct call *call = malloc(sizeof(*call) + job->arg_size + key_size);
    enum cf_code code;

    if (call == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a load");
    }
    code = cf_ctx_with_timeout(flight->ctx, flight->load_timeout_ns, &call->ctx, err);
    if (code != CF_OK) {
        free(call);
        return code;
    }
    call->job = *job;
    if (job->arg_size > 0) {
        call->job.arg = memcpy(call->tail, job->arg, job->arg_size);
    }
    call->job.key = memcpy(call->tail + job->arg_size, job->key, key_size);
    atomic_init(&call->job.forgotten, false);
    call->flight = flight;
    atomic_init(&call->refs, 1);
    call->node = (struct cf__table_node){.hash = hash, .key = call->job.key};
    cf__list_init(&call->running);
    call->state = CALL_FLYING;
    cf__list_init(&call->callers);
    call->wanted_by = 0;
    call->joined = 0;
    call->canceling = false;
    call->end_waits = NULL;
    call->value = NULL;
    *out = call;
    return CF_OK;
}

/* Nobody has seen it. */
static void call_discard(struct call *call)
{
    cf_ctx_free(call->ctx);
    call_unref(call);
}

/* Let the next one who comes start anew. With mu held. */
static void take_down(struct call *call, enum call_state state)
{
    if (call->state == CALL_FLYING) {
        cf__table_remove(&call->flight->flying, &call->node);
    }
    call->state = state;
    if (state != CALL_LANDED) {
        atomic_store(&call->job.forgotten, true);
    }
}

/* End the wait of everybody. A caller whose context ended in the same instant leaves
 * by itself. With mu held. */
static void tell_callers(struct call *call, enum cf__wait_outcome outcome)
{
    struct cf__list *node;

    while ((node = cf__list_pop(&call->callers)) != NULL) {
        (void)cf__wait_end(&CF__CONTAINER(node, struct caller, node)->wait, outcome);
    }
}

/* Internal helpers: loads */

/* Hand the result to the callers. */
static void land(struct call *call, enum cf_code code, struct cf_value *value,
                 const struct cf_err *err)
{
    struct cf_flight *flight = call->flight;

    (void)pthread_mutex_lock(&flight->mu);
    call->code = code;
    call->value = value;
    if (code != CF_OK) {
        call->err = *err;
    }
    take_down(call, CALL_LANDED);
    tell_callers(call, CF__WAIT_READY);
    (void)pthread_mutex_unlock(&flight->mu);
}

/* Wait until nobody is about to cancel the load's context: nobody will, once it has landed. */
static void await_canceler(struct call *call)
{
    struct cf_flight *flight = call->flight;
    struct cf__wait wait;
    bool waits;

    (void)pthread_mutex_lock(&flight->mu);
    waits = call->canceling;
    if (waits) {
        cf__wait_init(&wait);
        call->end_waits = &wait;
    }
    (void)pthread_mutex_unlock(&flight->mu);
    if (waits) {
        (void)cf__wait_park(NULL, &wait); /* Ends in one way. */
    }
}

/* The load is over: the last one may let cf_flight_stop() return, and the flights be freed. */
static void end_load(struct call *call)
{
    struct cf_flight *flight = call->flight;

    cf_ctx_free(call->ctx);
    (void)pthread_mutex_lock(&flight->mu);
    cf__list_unlink(&call->running);
    flight->loads--;
    if (flight->loads == 0 && flight->end_waiter != NULL) {
        (void)cf__wait_end(flight->end_waiter, CF__WAIT_READY); /* Nobody else ends it. */
        flight->end_waiter = NULL;
    }
    (void)pthread_mutex_unlock(&flight->mu);
    call_unref(call);
}

static void run_load(void *arg)
{
    struct call *call = arg;
    struct cf_value *value = NULL;
    struct cf_err err;
    enum cf_code code;

    (void)cf_err_set(&err, CF_OK, "%s", "");
    code = call->job.run(&call->job, call->ctx, &value, &err);
    if (code == CF_OK) {
        CF_ASSERT(value != NULL);
    } else {
        value = NULL; /* Written only on success. */
        cf__err_settle(&err, code);
    }
    land(call, code, value, &err);
    await_canceler(call);
    end_load(call);
}

static void *run_thread(void *arg)
{
    run_load(arg);
    return NULL;
}

/* Run the load of a call that others may have joined already: what keeps it from starting is their
 * result. */
static void start_load(struct call *call)
{
    struct cf_loop *loop = cf_loop_current();
    struct cf_err err;
    enum cf_code code = CF_OK;

    if (loop != NULL) {
        code = cf_loop_spawn(loop, run_load, call, &err);
    } else {
        int sys = cf__thread_start("cf-load", run_thread, call, NULL);

        if (sys != 0) {
            code = cf_err_set_sys(&err, CF_EUNAVAIL, sys, "start the thread of a load");
        }
    }
    if (code != CF_OK) {
        land(call, code, NULL, &err);
        await_canceler(call);
        end_load(call);
    }
}

/* Internal helpers: callers */

/* Join the call of `key` if there is one. With mu held. */
static struct call *join(struct cf_flight *flight, const char *key, uint64_t hash,
                         struct caller *caller)
{
    struct cf__table_node *node = cf__table_find(&flight->flying, key, hash);
    struct call *call;

    if (node == NULL) {
        return NULL;
    }
    call = CF__CONTAINER(node, struct call, node);
    if (caller != NULL) {
        (void)atomic_fetch_add(&call->refs, 1);
        call->wanted_by++;
        call->joined++;
        cf__list_push(&call->callers, &caller->node);
    }
    return call;
}

/* Let a new call be found, and count its load. With mu held. */
static enum cf_code announce(struct cf_flight *flight, struct call *call, struct cf_err *err)
{
    if (flight->closing) {
        return cf_err_set(err, CF_ECLOSED, "the flights were stopped");
    }
    if (flight->loads >= flight->loads_max) {
        return cf_err_set(err, CF_ELIMIT, "%zu loads run already", flight->loads);
    }
    cf__table_insert(&flight->flying, &call->node);
    cf__list_push(&flight->running, &call->running);
    flight->loads++;
    return CF_OK;
}

/* Start a load, unless one can be joined by now: as board(). */
static enum cf_code launch(struct cf_flight *flight, const struct cf__flight_job *job,
                           uint64_t hash, struct caller *caller, struct call **out,
                           struct cf_err *err)
{
    struct call *made = NULL;
    struct call *call;
    enum cf_code code = call_new(flight, job, hash, &made, err);

    if (made == NULL) {
        return code;
    }
    (void)pthread_mutex_lock(&flight->mu);
    call = join(flight, job->key, hash, caller);
    if (call == NULL) {
        code = announce(flight, made, err);
        if (code == CF_OK) {
            made->wanted_by += caller == NULL;
            call = join(flight, job->key, hash, caller);
        }
    }
    (void)pthread_mutex_unlock(&flight->mu);
    if (call == made) {
        start_load(made);
    } else {
        call_discard(made);
    }
    *out = call;
    return code;
}

/* Become one of the callers of a load, which is started if there is none. `caller` NULL: of a load
 * that is started here the one that never leaves, of another none; *out is then not to be used. */
static enum cf_code board(struct cf_flight *flight, const struct cf__flight_job *job,
                          struct caller *caller, struct call **out, struct cf_err *err)
{
    uint64_t hash = cf__hash(&flight->seed, job->key);

    (void)pthread_mutex_lock(&flight->mu);
    *out = join(flight, job->key, hash, caller);
    (void)pthread_mutex_unlock(&flight->mu);
    return *out != NULL ? CF_OK : launch(flight, job, hash, caller, out, err);
}

/* A caller's context has ended: go, and cancel the load if nobody else wants it. */
static void leave(struct cf_flight *flight, struct call *call, struct caller *caller)
{
    struct cf_err why;
    bool last;

    (void)pthread_mutex_lock(&flight->mu);
    cf__list_unlink(&caller->node);
    call->wanted_by--;
    last = call->wanted_by == 0 && call->state != CALL_LANDED;
    if (last) {
        take_down(call, CALL_ABANDONED);
        call->canceling = true;
    }
    (void)pthread_mutex_unlock(&flight->mu);
    if (!last) {
        return;
    }
    (void)cf_err_set(&why, CF_ECANCELED, "nobody waits for it");
    cf_ctx_cancel_cause(call->ctx, CF_REASON_CANCELED, &why);
    (void)pthread_mutex_lock(&flight->mu);
    call->canceling = false;
    if (call->end_waits != NULL) {
        (void)cf__wait_end(call->end_waits, CF__WAIT_READY); /* Nobody else ends it. */
    }
    (void)pthread_mutex_unlock(&flight->mu);
}

/* Read the result of a call that has landed. */
static enum cf_code take_result(struct call *call, struct cf_value **out, bool *out_shared,
                                struct cf_err *err)
{
    if (call->code != CF_OK) {
        return cf__err_give(err, &call->err);
    }
    *out = cf_value_ref(call->value);
    if (out_shared != NULL) {
        *out_shared = call->joined > 1;
    }
    return CF_OK;
}

static enum cf_code run_public(struct cf__flight_job *job, struct cf_ctx *ctx,
                               struct cf_value **out, struct cf_err *err)
{
    return ((cf_flight_fn)job->fn)(ctx, (void *)job->arg, out, err);
}

/* Life cycle */

enum cf_code cf_flight_new(struct cf_ctx *parent, const struct cf_flight_options *options,
                           struct cf_flight **out, struct cf_err *err)
{
    static const struct cf_flight_options defaults = {0};
    struct cf_flight *flight = calloc(1, sizeof(*flight));
    enum cf_code code;

    if (options == NULL) {
        options = &defaults;
    }
    if (flight == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for flights");
    }
    flight->load_timeout_ns =
        options->load_timeout_ns > 0 ? options->load_timeout_ns : CF_FLIGHT_LOAD_TIMEOUT_NS;
    flight->loads_max = options->loads_max > 0 ? options->loads_max : CF_FLIGHT_LOADS_MAX;
    cf__hash_seed(&flight->seed);
    if (!cf__table_init(&flight->flying, flight->loads_max)) {
        free(flight);
        return cf_err_set(err, CF_ENOMEM, "no memory for flights");
    }
    code = cf_ctx_with_cancel(parent, &flight->ctx, err);
    if (code != CF_OK) {
        cf__table_fini(&flight->flying);
        free(flight);
        return code;
    }
    (void)pthread_mutex_init(&flight->mu, NULL);
    cf__list_init(&flight->running);
    *out = flight;
    return CF_OK;
}

void cf_flight_stop(struct cf_flight *flight)
{
    struct cf__wait wait;
    struct cf__list *node;
    bool waits;

    (void)pthread_mutex_lock(&flight->mu);
    flight->closing = true;
    for (node = flight->running.next; node != &flight->running; node = node->next) {
        struct call *call = CF__CONTAINER(node, struct call, running);

        if (call->state == CALL_FLYING) {
            take_down(call, CALL_FORGOTTEN);
        }
        tell_callers(call, CF__WAIT_CLOSED);
    }
    (void)pthread_mutex_unlock(&flight->mu);
    cf_ctx_cancel_cause(flight->ctx, CF_REASON_SHUTDOWN, NULL);
    (void)pthread_mutex_lock(&flight->mu);
    CF_ASSERT(flight->end_waiter == NULL);
    waits = flight->loads > 0;
    if (waits) {
        cf__wait_init(&wait);
        flight->end_waiter = &wait;
    }
    (void)pthread_mutex_unlock(&flight->mu);
    if (waits) {
        (void)cf__wait_park(NULL, &wait); /* Ends in one way. */
    }
}

void cf_flight_free(struct cf_flight *flight)
{
    if (flight == NULL) {
        return;
    }
    /* Past the lock, the last load has let go of the flights. */
    (void)pthread_mutex_lock(&flight->mu);
    CF_ASSERT(flight->loads == 0);
    (void)pthread_mutex_unlock(&flight->mu);
    (void)pthread_mutex_destroy(&flight->mu);
    cf_ctx_free(flight->ctx);
    cf__table_fini(&flight->flying);
    free(flight);
}

/* Operations */

enum cf_code cf__flight_do(struct cf_ctx *ctx, struct cf_flight *flight,
                           const struct cf__flight_job *job, struct cf_value **out,
                           bool *out_shared, struct cf_err *err)
{
    struct caller me;
    struct call *call = NULL;
    enum cf_code code = cf_ctx_check(ctx, err);

    if (code != CF_OK) {
        return code;
    }
    cf__wait_init(&me.wait);
    code = board(flight, job, &me, &call, err);
    if (code != CF_OK) {
        return code;
    }
    switch (cf__wait_park(ctx, &me.wait)) {
    case CF__WAIT_READY:
        code = take_result(call, out, out_shared, err);
        break;
    case CF__WAIT_CLOSED:
        code = cf_err_set(err, CF_ECLOSED, "the flights were stopped");
        break;
    case CF__WAIT_CTX_DONE:
    case CF__WAIT_PENDING: /* Never: asserted by what the check returns. */
        leave(flight, call, &me);
        code = cf_err_phase(err, cf_ctx_check(ctx, err), "load");
        CF_ASSERT(code != CF_OK);
        break;
    }
    call_unref(call);
    return code;
}

enum cf_code cf__flight_start(struct cf_flight *flight, const struct cf__flight_job *job,
                              struct cf_err *err)
{
    struct call *call;

    return board(flight, job, NULL, &call, err);
}

enum cf_code cf_flight_do(struct cf_ctx *ctx, struct cf_flight *flight, const char *key,
                          const struct cf_flight_load *load, const void *arg, struct cf_value **out,
                          bool *out_shared, struct cf_err *err)
{
    const struct cf__flight_job job = {
        .run = run_public,
        .fn = (void (*)(void))load->fn,
        .key = key,
        .arg = arg,
        .arg_size = load->arg_size,
    };

    return cf__flight_do(ctx, flight, &job, out, out_shared, err);
}

void cf_flight_forget(struct cf_flight *flight, const char *key)
{
    struct cf__table_node *node;

    (void)pthread_mutex_lock(&flight->mu);
    node = cf__table_find(&flight->flying, key, cf__hash(&flight->seed, key));
    if (node != NULL) {
        take_down(CF__CONTAINER(node, struct call, node), CALL_FORGOTTEN);
    }
    (void)pthread_mutex_unlock(&flight->mu);
}

void cf__flight_forget_if(struct cf_flight *flight, bool (*match)(const char *key, void *arg),
                          void *arg)
{
    struct cf__list *node;

    (void)pthread_mutex_lock(&flight->mu);
    for (node = flight->running.next; node != &flight->running; node = node->next) {
        struct call *call = CF__CONTAINER(node, struct call, running);

        if (call->state == CALL_FLYING && (match == NULL || match(call->job.key, arg))) {
            take_down(call, CALL_FORGOTTEN);
        }
    }
    (void)pthread_mutex_unlock(&flight->mu);
}

/* Queries */

size_t cf_flight_loads(struct cf_flight *flight)
{
    size_t loads;

    (void)pthread_mutex_lock(&flight->mu);
    loads = flight->loads;
    (void)pthread_mutex_unlock(&flight->mu);
    return loads;
}
