/* SPDX-License-Identifier: MIT */
/* The parts of switching that C can say: the first frame of a stack, and all of it for ucontext. */
#include "curfew/runtime/switch.h"

#include <signal.h>
#include <stdint.h>
#include <string.h>

#ifdef CF_FIBER_UCONTEXT

/* makecontext() passes ints only; the pointer travels as two halves. */
static void start(unsigned high, unsigned low)
{
    struct cf__context *context =
        (struct cf__context *)(uintptr_t)(((uint64_t)high << 32) | (uint64_t)low);

    context->entry(context->arg);
}

void cf__context_make(struct cf__context *context, void *low, size_t size, void (*entry)(void *arg),
                      void *arg)
{
    uint64_t bits = (uint64_t)(uintptr_t)context;

    (void)getcontext(&context->uc); /* Cannot fail on Linux. */
    /* swapcontext() changes the signal mask too. Fibers run as loops do, with none, and not with
     * that of the thread which happened to spawn them. */
    (void)sigfillset(&context->uc.uc_sigmask);
    context->uc.uc_stack.ss_sp = low;
    context->uc.uc_stack.ss_size = size;
    context->uc.uc_link = NULL;
    context->entry = entry;
    context->arg = arg;
    makecontext(&context->uc, (void (*)(void))start, 2, (unsigned)(bits >> 32), (unsigned)bits);
}

void cf__context_switch(struct cf__context *from, struct cf__context *to)
{
    (void)swapcontext(&from->uc, &to->uc); /* Cannot fail on Linux. */
}

#else

/* In switch_x86_64.S and switch_aarch64.S. */
void cf__switch_stack(void **from_sp, void *to_sp);
void cf__switch_start(void);

/* The words that cf__switch_stack() pops, lowest first; `entry` and `arg` wait in registers that it
 * restores and cf__switch_start() knows. */
#if defined(__x86_64__)
enum {
    ARG = 3,
    ENTRY = 2,
    RETURN = 6,
    WORDS = 8
}; /* r12, r13, the address; one to align. */
#else
enum {
    ARG = 0,
    ENTRY = 1,
    RETURN = 11,
    WORDS = 20
}; /* x19, x20, x30. */
#endif

void cf__context_make(struct cf__context *context, void *low, size_t size, void (*entry)(void *arg),
                      void *arg)
{
    uintptr_t top = ((uintptr_t)low + size) & ~(uintptr_t)15;
    uintptr_t *frame = (uintptr_t *)top - WORDS;

    memset(frame, 0, WORDS * sizeof(*frame));
    frame[ARG] = (uintptr_t)arg;
    frame[ENTRY] = (uintptr_t)entry;
    frame[RETURN] = (uintptr_t)cf__switch_start;
    context->sp = frame;
}

void cf__context_switch(struct cf__context *from, struct cf__context *to)
{
    cf__switch_stack(&from->sp, to->sp);
}

#endif
