/* SPDX-License-Identifier: MIT */
/* Fibers: a stack, the function on it, and the switch to and from the loop's own stack.
 *
 * The one file behind this tells ASan, TSan and valgrind of every stack and every switch. All of it
 * is for the loop's thread, but cf__fiber_new() and cf__fiber_free(). */
#ifndef CURFEW_RUNTIME_FIBER_H
#define CURFEW_RUNTIME_FIBER_H

#include <curfew/loop.h>

#include "curfew/core/list.h"
#include "curfew/runtime/switch.h"

/* One side of a switch, as the tools see it. */
struct cf__side {
    struct cf__context context;
    const void *stack_low; /* For ASan. */
    size_t stack_size;
    void *fake_stack; /* ASan's, while switched away. */
    void *tsan;       /* TSan's fiber. */
};

/* Lives at the top of its own stack's mapping. */
struct cf__fiber {
    struct cf__side side;
    struct cf_loop *loop;
    cf_fiber_fn fn;
    void *arg;
    struct cf__list node; /* In the loop's ready list, its inbox, or its pool; else in none. */
    bool ended;           /* The function has returned: the stack may be reused. */

    void *mapping; /* With its guard page. Constant after new, as is all below. */
    size_t mapping_size;
    unsigned valgrind_id;
};

/* Describe the calling thread's own stack: the other side of every switch. */
void cf__side_init_thread(struct cf__side *side);

/* Map a stack of at least `stack_size` usable bytes and a guard page. NULL: out of memory. */
struct cf__fiber *cf__fiber_new(size_t stack_size);
void cf__fiber_free(struct cf__fiber *fiber);

/* Make the fiber call `fn(arg)` when it is next entered. */
void cf__fiber_prepare(struct cf__fiber *fiber, struct cf_loop *loop, cf_fiber_fn fn, void *arg);

/* From the loop's stack: run the fiber until it leaves. */
void cf__fiber_enter(struct cf__side *loop_side, struct cf__fiber *fiber);

/* From the fiber: go back to the loop's stack. Returns when it is entered again. */
void cf__fiber_leave(struct cf__side *loop_side, struct cf__fiber *fiber);

/* The loop's own side; in loop.c. A new fiber asks for it in its first breath. */
struct cf__side *cf__loop_side(struct cf_loop *loop);

#endif
