/* SPDX-License-Identifier: MIT */
/* Switching stacks: the whole interface to assembly, or to ucontext where there is none of ours.
 *
 * Build with FIBER=ucontext (CF_FIBER_UCONTEXT) to use ucontext everywhere. */
#ifndef CURFEW_RUNTIME_SWITCH_H
#define CURFEW_RUNTIME_SWITCH_H

#include <stddef.h>

#if !defined(CF_FIBER_UCONTEXT) && !defined(__x86_64__) && !defined(__aarch64__)
#define CF_FIBER_UCONTEXT 1
#endif

#ifdef CF_FIBER_UCONTEXT

#include <ucontext.h>

struct cf__context {
    ucontext_t uc;
    void (*entry)(void *arg);
    void *arg;
};

#else

struct cf__context {
    void *sp; /* Everything else is on the stack that it points to. */
};

#endif

/* Make a context that calls `entry(arg)` on the stack [low, low + size) when it is first switched
 * to. `entry` must never return. */
void cf__context_make(struct cf__context *context, void *low, size_t size, void (*entry)(void *arg),
                      void *arg);

/* Leave the running context, keeping it in *from, and go on in *to. Returns when somebody switches
 * back to *from. */
void cf__context_switch(struct cf__context *from, struct cf__context *to);

#endif
