/* SPDX-License-Identifier: MIT */
/* What pg and http need of a loop beyond the public header: hooks, messages, watches.
 *
 * Everything here is called on the loop's thread unless said. */
#ifndef CURFEW_RUNTIME_LOOP_PRIVATE_H
#define CURFEW_RUNTIME_LOOP_PRIVATE_H

#include <uv.h>

#include <curfew/loop.h>

#include "curfew/core/list.h"

/* The libuv loop, for handles of one's own. */
uv_loop_t *cf__loop_uv(struct cf_loop *loop);

/* Start `fn(arg)` as a fiber now: returns when it has parked for the first time or ended. From a
 * callback of the loop, not from a fiber (asserted). Fails with CF_ENOMEM. */
CF_MUST enum cf_code cf__fiber_run(struct cf_loop *loop, cf_fiber_fn fn, void *arg,
                                   struct cf_err *err);

/* As cf_loop_call(), for a function that may fail. Fails as it does, and as that. */
typedef enum cf_code (*cf__loop_call_fn)(void *arg, struct cf_err *err);
CF_MUST enum cf_code cf__loop_call_code(struct cf_loop *loop, cf__loop_call_fn fn, void *arg,
                                        struct cf_err *err);

/* A call that cannot fail, because its stack was made before: for what has to end in order,
 * whatever is missing by then. NULL: out of memory. cf__loop_call_reserved() uses it up, and is
 * otherwise as cf_loop_call(); what was not used is given back. */
struct cf__fiber *cf__loop_reserve(struct cf_loop *loop);
void cf__loop_unreserve(struct cf__fiber *own_fiber);
void cf__loop_call_reserved(struct cf_loop *loop, struct cf__fiber *own_fiber, cf_fiber_fn fn,
                            void *arg);

/* A function that runs on the loop after every turn in which something happened, before the loop
 * sleeps, and again until no fiber is ready: where resumed connections are driven. */
struct cf__hook {
    struct cf__list node;
    void (*run)(struct cf__hook *hook);
};

void cf__loop_hook_add(struct cf_loop *loop, struct cf__hook *hook);
void cf__loop_hook_remove(struct cf__hook *hook);

/* A message: a function that another thread has run on the loop. Embedded in what it is about,
 * which must live until `run` was called. */
struct cf__message {
    struct cf__list node;
    void (*run)(struct cf__message *message);
};

/* Any thread. Cannot fail; messages of one sender run in their order. */
void cf__loop_post(struct cf_loop *loop, struct cf__message *message);

/* A lasting watch of one descriptor: level-triggered, one callback. */
struct cf__watch;

/* `events` are UV_READABLE, UV_WRITABLE, UV_DISCONNECT; `status` a libuv error, or 0. */
typedef void (*cf__watch_cb)(void *arg, int status, int events);

/* Watch `fd` (borrowed: close the watch first, then the descriptor). Starts with no events. */
CF_MUST enum cf_code cf__watch_open(struct cf_loop *loop, int fd, cf__watch_cb cb, void *arg,
                                    struct cf__watch **out, struct cf_err *err);

/* Which events to be told of from now on; 0: none. */
void cf__watch_events(struct cf__watch *watch, int events);

/* End the watch and free it. The callback is not called any more. NULL is allowed. */
void cf__watch_close(struct cf__watch *own_watch);

#endif
