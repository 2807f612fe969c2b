/* SPDX-License-Identifier: MIT */
/* A loop: libuv for descriptors and the clock, a list of ready fibers, an inbox for other threads.
 *
 * One turn: libuv waits and runs callbacks, which make fibers ready. Before it waits again the loop
 * settles: it runs every ready fiber and the hooks of the modules above, again and again, until
 * nothing is ready. Only the loop's own stack enters fibers, and a fiber only leaves to it, so
 * there are two sides to every switch and no more.
 *
 * A fiber that runs and runs (each turn making another ready) does not starve the descriptors:
 * settling stops after SETTLE_ROUNDS and goes on in the next turn, which then does not wait.
 *
 * Timers: the heap has a lock because a context may be freed on another thread than its own;
 * libuv's single timer is moved once a turn, to the earliest, rounded up to libuv's millisecond.
 *
 * Lock order: the inbox's and the heap's are leaves: nothing is called under them. */
#include <curfew/loop.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <curfew/clock.h>

#include "curfew/core/thread.h"
#include "curfew/core/timer_heap.h"
#include "curfew/runtime/fiber.h"
#include "curfew/runtime/fiber_park.h"
#include "curfew/runtime/loop_private.h"
#include "curfew/runtime/overflow.h"
#include "curfew/runtime/waiting.h"

#define STACK_SIZE_DEFAULT ((size_t)64 * 1024)
#define STACKS_KEPT_DEFAULT 256
#define SETTLE_ROUNDS 64

struct cf_loop {
    size_t stack_size; /* Constant after new, as are these. */
    size_t stacks_kept;
    pthread_t thread;

    uv_loop_t uv; /* Loop thread only, as is all down to the next guard. */
    uv_async_t inbox_async;
    uv_prepare_t before_wait;
    uv_check_t after_wait;
    uv_idle_t unsettled; /* Active while something is ready: then the loop does not wait. */
    uv_timer_t timer;
    int64_t timer_at_ns; /* What `timer` is set for; CF_NEVER: it is stopped. */
    struct cf__side side;
    struct cf__fiber *running;
    struct cf__list ready;
    struct cf__list hooks;
    struct cf__list pool; /* Stacks without a fiber. */
    size_t pool_count;
    bool stopping; /* End when the last fiber has ended. */
    bool starved;  /* There was no memory for the fiber of a deferred function. */

    atomic_size_t fibers;

    struct cf_timer_source source; /* Constant after new. */
    pthread_mutex_t heap_mu;       /* Guards heap. */
    struct cf__timer_heap heap;

    pthread_mutex_t inbox_mu;     /* Guards everything below. */
    struct cf__list inbox_fibers; /* Woken by other threads. */
    struct cf__list inbox_messages;
    struct cf_deferred *deferred_first;
    struct cf_deferred **deferred_last;
};

static _Thread_local struct cf_loop *current;

/* Internal helpers: fibers */

static struct cf__fiber *take_fiber(struct cf_loop *loop)
{
    struct cf__list *node = NULL;

    if (current == loop) {
        node = cf__list_pop(&loop->pool);
    }
    if (node != NULL) {
        loop->pool_count--;
        return CF__CONTAINER(node, struct cf__fiber, node);
    }
    return cf__fiber_new(loop->stack_size);
}

static void give_back_fiber(struct cf_loop *loop, struct cf__fiber *fiber)
{
    if (loop->pool_count < loop->stacks_kept) {
        /* The last in is the first out: its pages are warm. */
        cf__list_push(loop->pool.next, &fiber->node);
        loop->pool_count++;
    } else {
        cf__fiber_free(fiber);
    }
}

static void prepare(struct cf_loop *loop, struct cf__fiber *fiber, cf_fiber_fn fn, void *arg)
{
    cf__fiber_prepare(fiber, loop, fn, arg);
    (void)atomic_fetch_add(&loop->fibers, 1);
}

static struct cf__fiber *make_fiber(struct cf_loop *loop, cf_fiber_fn fn, void *arg,
                                    struct cf_err *err)
{
    struct cf__fiber *fiber = take_fiber(loop);

    if (fiber == NULL) {
        (void)cf_err_set(err, CF_ENOMEM, "no memory for the stack of a fiber");
        return NULL;
    }
    prepare(loop, fiber, fn, arg);
    return fiber;
}

/* Run `fiber` until it parks or ends. On the loop's own stack. */
static void enter(struct cf_loop *loop, struct cf__fiber *fiber)
{
    CF_ASSERT(loop->running == NULL);
    loop->running = fiber;
    cf__fiber_enter(&loop->side, fiber);
    loop->running = NULL;
    if (fiber->ended) {
        give_back_fiber(loop, fiber);
        (void)atomic_fetch_sub(&loop->fibers, 1);
    }
}

/* Internal helpers: turns */

static void run_deferred(void *arg)
{
    struct cf_deferred *deferred = arg;

    deferred->run(deferred);
}

/* Give each deferred function a fiber. One that cannot have it now stays, first in line, and every
 * turn tries again: deferring has no way to fail. */
static void start_deferred(struct cf_loop *loop)
{
    for (;;) {
        struct cf_deferred *deferred;
        struct cf__fiber *fiber;

        (void)pthread_mutex_lock(&loop->inbox_mu);
        deferred = loop->deferred_first;
        (void)pthread_mutex_unlock(&loop->inbox_mu);
        loop->starved = false;
        if (deferred == NULL) {
            return;
        }
        fiber = make_fiber(loop, run_deferred, deferred, NULL);
        if (fiber == NULL) {
            loop->starved = true; /* Untested: the stack of a fiber cannot be mapped. */
            return;
        }
        (void)pthread_mutex_lock(&loop->inbox_mu);
        loop->deferred_first = deferred->next;
        if (loop->deferred_first == NULL) {
            loop->deferred_last = &loop->deferred_first;
        }
        (void)pthread_mutex_unlock(&loop->inbox_mu);
        cf__list_push(&loop->ready, &fiber->node);
    }
}

static void on_inbox(uv_async_t *async)
{
    struct cf_loop *loop = async->data;
    struct cf__list messages;
    struct cf__list *node;

    cf__list_init(&messages);
    (void)pthread_mutex_lock(&loop->inbox_mu);
    cf__list_splice(&loop->ready, &loop->inbox_fibers);
    cf__list_splice(&messages, &loop->inbox_messages);
    (void)pthread_mutex_unlock(&loop->inbox_mu);
    while ((node = cf__list_pop(&messages)) != NULL) {
        struct cf__message *message = CF__CONTAINER(node, struct cf__message, node);

        message->run(message);
    }
    start_deferred(loop);
}

static void run_ready(struct cf_loop *loop)
{
    struct cf__list turn;
    struct cf__list *node;

    /* What becomes ready meanwhile waits for the next round: hooks get their turn. */
    cf__list_init(&turn);
    cf__list_splice(&turn, &loop->ready);
    while ((node = cf__list_pop(&turn)) != NULL) {
        enter(loop, CF__CONTAINER(node, struct cf__fiber, node));
    }
}

static void run_hooks(struct cf_loop *loop)
{
    struct cf__list *node = loop->hooks.next;

    while (node != &loop->hooks) {
        struct cf__hook *hook = CF__CONTAINER(node, struct cf__hook, node);

        node = node->next; /* A hook may remove itself. */
        hook->run(hook);
    }
}

static void do_nothing(uv_idle_t *idle)
{
    (void)idle;
}

/* Run fibers and hooks until nothing is ready. */
static void settle(struct cf_loop *loop)
{
    int rounds = 0;

    if (loop->starved) {
        start_deferred(loop);
    }
    do {
        run_ready(loop);
        run_hooks(loop);
        rounds++;
    } while (!cf__list_empty(&loop->ready) && rounds < SETTLE_ROUNDS);
    if (cf__list_empty(&loop->ready) && !loop->starved) {
        (void)uv_idle_stop(&loop->unsettled);
    } else {
        (void)uv_idle_start(&loop->unsettled, do_nothing);
    }
    if (loop->stopping && atomic_load(&loop->fibers) == 0) {
        uv_stop(&loop->uv);
    }
}

static void fire_due(uv_timer_t *uv_timer)
{
    struct cf_loop *loop = uv_timer->data;
    struct cf_timer *timer;

    loop->timer_at_ns = CF_NEVER;
    for (;;) {
        (void)pthread_mutex_lock(&loop->heap_mu);
        timer = cf__timer_heap_pop(&loop->heap, cf_now_ns());
        (void)pthread_mutex_unlock(&loop->heap_mu);
        if (timer == NULL) {
            return;
        }
        timer->fire(timer);
    }
}

/* Set libuv's timer for the earliest of ours, in whole milliseconds, rounded up. */
static void move_timer(struct cf_loop *loop)
{
    int64_t at_ns;
    int64_t at_ms;
    int64_t now_ms;

    (void)pthread_mutex_lock(&loop->heap_mu);
    at_ns = cf__timer_heap_next_ns(&loop->heap);
    (void)pthread_mutex_unlock(&loop->heap_mu);
    if (at_ns == loop->timer_at_ns) {
        return;
    }
    loop->timer_at_ns = at_ns;
    if (at_ns == CF_NEVER) {
        (void)uv_timer_stop(&loop->timer);
        return;
    }
    uv_update_time(&loop->uv);
    at_ms = at_ns / CF_MS + (at_ns % CF_MS > 0);
    now_ms = (int64_t)uv_now(&loop->uv);
    (void)uv_timer_start(&loop->timer, fire_due, at_ms > now_ms ? (uint64_t)(at_ms - now_ms) : 0,
                         0);
}

static void on_before_wait(uv_prepare_t *prepare)
{
    struct cf_loop *loop = prepare->data;

    settle(loop);
    move_timer(loop);
}

static void on_after_wait(uv_check_t *check)
{
    settle(check->data);
}

/* Internal helpers: the timer source */

static struct cf_loop *loop_of_source(struct cf_timer_source *source)
{
    return CF__CONTAINER(source, struct cf_loop, source);
}

static int64_t source_now_ns(struct cf_timer_source *source)
{
    (void)source;
    return cf_now_ns();
}

static bool source_arm(struct cf_timer_source *source, struct cf_timer *timer, int64_t at_ns)
{
    struct cf_loop *loop = loop_of_source(source);
    bool ok;

    CF_ASSERT(current == loop); /* libuv's timer is moved before the loop waits. */
    (void)pthread_mutex_lock(&loop->heap_mu);
    ok = cf__timer_heap_insert(&loop->heap, timer, at_ns);
    (void)pthread_mutex_unlock(&loop->heap_mu);
    return ok;
}

static bool source_disarm(struct cf_timer_source *source, struct cf_timer *timer)
{
    struct cf_loop *loop = loop_of_source(source);
    bool removed;

    (void)pthread_mutex_lock(&loop->heap_mu);
    removed = cf__timer_heap_remove(&loop->heap, timer);
    (void)pthread_mutex_unlock(&loop->heap_mu);
    return removed;
}

static void source_defer(struct cf_timer_source *source, struct cf_deferred *deferred)
{
    struct cf_loop *loop = loop_of_source(source);

    (void)pthread_mutex_lock(&loop->inbox_mu);
    deferred->next = NULL;
    *loop->deferred_last = deferred;
    loop->deferred_last = &deferred->next;
    (void)uv_async_send(&loop->inbox_async);
    (void)pthread_mutex_unlock(&loop->inbox_mu);
}

/* Internal helpers: the thread */

static void close_handle(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle)) {
        uv_close(handle, NULL);
    }
}

static void *run(void *arg)
{
    struct cf_loop *loop = arg;
    void *overflow_stack = cf__overflow_stack_new();
    struct cf__list *node;

    current = loop;
    (void)cf_timer_source_use(&loop->source);
    cf__side_init_thread(&loop->side);
    (void)uv_run(&loop->uv, UV_RUN_DEFAULT);

    while ((node = cf__list_pop(&loop->pool)) != NULL) {
        cf__fiber_free(CF__CONTAINER(node, struct cf__fiber, node));
    }
    uv_walk(&loop->uv, close_handle, NULL);
    (void)uv_run(&loop->uv, UV_RUN_DEFAULT);
    cf__overflow_stack_free(overflow_stack);
    return NULL;
}

static void init_handles(struct cf_loop *loop)
{
    (void)uv_prepare_init(&loop->uv, &loop->before_wait);
    (void)uv_check_init(&loop->uv, &loop->after_wait);
    (void)uv_idle_init(&loop->uv, &loop->unsettled);
    (void)uv_timer_init(&loop->uv, &loop->timer);
    loop->inbox_async.data = loop;
    loop->before_wait.data = loop;
    loop->after_wait.data = loop;
    loop->timer.data = loop;
    loop->timer_at_ns = CF_NEVER;
    (void)uv_prepare_start(&loop->before_wait, on_before_wait);
    (void)uv_check_start(&loop->after_wait, on_after_wait);
}

static void init_lists(struct cf_loop *loop)
{
    cf__list_init(&loop->ready);
    cf__list_init(&loop->hooks);
    cf__list_init(&loop->pool);
    cf__list_init(&loop->inbox_fibers);
    cf__list_init(&loop->inbox_messages);
    loop->deferred_last = &loop->deferred_first;
}

/* Life cycle */

enum cf_code cf_loop_new(const struct cf_loop_options *options, struct cf_loop **out,
                         struct cf_err *err)
{
    static const struct cf_loop_options defaults = {0};
    struct cf_loop *loop = calloc(1, sizeof(*loop));
    enum cf_code code;
    int sys;

    if (loop == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a loop");
    }
    options = options != NULL ? options : &defaults;
    loop->stack_size = options->stack_size > 0 ? options->stack_size : STACK_SIZE_DEFAULT;
    loop->stacks_kept = options->stacks_kept > 0 ? options->stacks_kept : STACKS_KEPT_DEFAULT;
    loop->source = (struct cf_timer_source){source_now_ns, source_arm, source_disarm, source_defer};
    init_lists(loop);
    (void)pthread_mutex_init(&loop->heap_mu, NULL);
    (void)pthread_mutex_init(&loop->inbox_mu, NULL);
    sys = -uv_loop_init(&loop->uv);
    if (sys != 0) {
        code = cf_err_set_sys(err, CF_EIO, sys, "start a loop");
        goto fail;
    }
    sys = -uv_async_init(&loop->uv, &loop->inbox_async, on_inbox);
    if (sys != 0) {
        code = cf_err_set_sys(err, CF_EIO, sys, "start a loop");
        goto fail_after_uv;
    }
    init_handles(loop);
    sys = cf__thread_start("cf-loop", run, loop, &loop->thread);
    if (sys != 0) {
        code = cf_err_set_sys(err, CF_EIO, sys, "start a loop's thread");
        goto fail_after_uv;
    }
    *out = loop;
    return CF_OK;

fail_after_uv:
    uv_walk(&loop->uv, close_handle, NULL);
    (void)uv_run(&loop->uv, UV_RUN_DEFAULT);
    (void)uv_loop_close(&loop->uv);
fail:
    (void)pthread_mutex_destroy(&loop->heap_mu);
    (void)pthread_mutex_destroy(&loop->inbox_mu);
    free(loop);
    return code;
}

struct stop {
    struct cf__message message;
    struct cf_loop *loop;
};

static void begin_stop(struct cf__message *message)
{
    struct stop *stop = CF__CONTAINER(message, struct stop, message);

    stop->loop->stopping = true;
}

void cf_loop_free(struct cf_loop *loop)
{
    struct stop stop = {.message.run = begin_stop, .loop = loop};

    if (loop == NULL) {
        return;
    }
    CF_ASSERT(current == NULL);
    cf__loop_post(loop, &stop.message);
    (void)pthread_join(loop->thread, NULL);
    CF_ASSERT(uv_loop_close(&loop->uv) == 0);
    cf__timer_heap_fini(&loop->heap);
    (void)pthread_mutex_destroy(&loop->heap_mu);
    (void)pthread_mutex_destroy(&loop->inbox_mu);
    free(loop);
}

/* Operations */

enum cf_code cf_loop_spawn(struct cf_loop *loop, cf_fiber_fn fn, void *arg, struct cf_err *err)
{
    struct cf__fiber *fiber = make_fiber(loop, fn, arg, err);

    if (fiber == NULL) {
        return CF_ENOMEM;
    }
    cf__fiber_ready(fiber);
    return CF_OK;
}

struct call {
    struct cf__wait ended;
    cf_fiber_fn fn;
    void *arg;
};

static void run_call(void *arg)
{
    struct call *call = arg;

    call->fn(call->arg);
    (void)cf__wait_end(&call->ended, CF__WAIT_READY); /* Nobody else ends it. */
}

enum cf_code cf_loop_call(struct cf_loop *loop, cf_fiber_fn fn, void *arg, struct cf_err *err)
{
    struct call call = {.fn = fn, .arg = arg};
    enum cf_code code;

    CF_ASSERT(current == NULL);
    cf__wait_init(&call.ended);
    code = cf_loop_spawn(loop, run_call, &call, err);
    if (code == CF_OK) {
        (void)cf__wait_park(NULL, &call.ended); /* Ends in one way. */
    }
    return code;
}

struct call_code {
    cf__loop_call_fn fn;
    void *arg;
    enum cf_code code;
    struct cf_err *err;
};

static void run_call_code(void *arg)
{
    struct call_code *call = arg;

    call->code = call->fn(call->arg, call->err);
}

enum cf_code cf__loop_call_code(struct cf_loop *loop, cf__loop_call_fn fn, void *arg,
                                struct cf_err *err)
{
    struct call_code call = {.fn = fn, .arg = arg, .err = err};
    enum cf_code code = cf_loop_call(loop, run_call_code, &call, err);

    return code == CF_OK ? call.code : code;
}

struct cf__fiber *cf__loop_reserve(struct cf_loop *loop)
{
    return cf__fiber_new(loop->stack_size);
}

void cf__loop_unreserve(struct cf__fiber *own_fiber)
{
    if (own_fiber != NULL) {
        cf__fiber_free(own_fiber);
    }
}

void cf__loop_call_reserved(struct cf_loop *loop, struct cf__fiber *own_fiber, cf_fiber_fn fn,
                            void *arg)
{
    struct call call = {.fn = fn, .arg = arg};

    CF_ASSERT(current == NULL);
    cf__wait_init(&call.ended);
    prepare(loop, own_fiber, run_call, &call);
    cf__fiber_ready(own_fiber);
    (void)cf__wait_park(NULL, &call.ended); /* Ends in one way. */
}

enum cf_code cf__fiber_run(struct cf_loop *loop, cf_fiber_fn fn, void *arg, struct cf_err *err)
{
    struct cf__fiber *fiber;

    CF_ASSERT(current == loop);
    CF_ASSERT(loop->running == NULL);
    fiber = make_fiber(loop, fn, arg, err);
    if (fiber == NULL) {
        return CF_ENOMEM;
    }
    enter(loop, fiber);
    return CF_OK;
}

void cf__loop_post(struct cf_loop *loop, struct cf__message *message)
{
    /* The send is under the lock: once the message has run, the loop may be freed. */
    (void)pthread_mutex_lock(&loop->inbox_mu);
    cf__list_push(&loop->inbox_messages, &message->node);
    (void)uv_async_send(&loop->inbox_async);
    (void)pthread_mutex_unlock(&loop->inbox_mu);
}

void cf__loop_hook_add(struct cf_loop *loop, struct cf__hook *hook)
{
    cf__list_push(&loop->hooks, &hook->node);
}

void cf__loop_hook_remove(struct cf__hook *hook)
{
    cf__list_unlink(&hook->node);
}

/* Of fiber_park.h */

void cf__fiber_ready(struct cf__fiber *fiber)
{
    struct cf_loop *loop = fiber->loop;

    if (current == loop) {
        cf__list_push(&loop->ready, &fiber->node);
        return;
    }
    /* The send is under the lock: once the fiber has run, the loop may be freed. */
    (void)pthread_mutex_lock(&loop->inbox_mu);
    cf__list_push(&loop->inbox_fibers, &fiber->node);
    (void)uv_async_send(&loop->inbox_async);
    (void)pthread_mutex_unlock(&loop->inbox_mu);
}

struct cf__fiber *cf__fiber_current(void)
{
    return current != NULL ? current->running : NULL;
}

void cf__fiber_park(void)
{
    struct cf__fiber *fiber = cf__fiber_current();

    CF_ASSERT(fiber != NULL);
    cf__fiber_leave(&fiber->loop->side, fiber);
}

struct cf__side *cf__loop_side(struct cf_loop *loop)
{
    return &loop->side;
}

/* Queries */

uv_loop_t *cf__loop_uv(struct cf_loop *loop)
{
    return &loop->uv;
}

struct cf_loop *cf_loop_current(void)
{
    return current;
}

bool cf_on_fiber(void)
{
    return cf__fiber_current() != NULL;
}

size_t cf_loop_fibers(const struct cf_loop *loop)
{
    return atomic_load(&loop->fibers);
}
