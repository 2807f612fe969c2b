/* SPDX-License-Identifier: MIT */
/* Saying what happened when a fiber has run into the guard page of its stack.
 *
 * Without this the process dies of a bare SIGSEGV, which looks like any other. The handler runs on
 * a stack of its own, one a loop, because the fiber's is used up; it calls nothing but write(),
 * puts back what was installed before it, and returns: the access fails again,
 * and is somebody else's. */
#include "curfew/runtime/overflow.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <curfew/loop.h>

#include "curfew/runtime/fiber.h"
#include "curfew/runtime/fiber_park.h"

/* ASan says it itself, and has a handler and stacks for it. */
#if defined(__SANITIZE_ADDRESS__)
#define IS_OURS 0
#elif defined(__has_feature)
#define IS_OURS (!__has_feature(address_sanitizer))
#else
#define IS_OURS 1
#endif

static atomic_bool installed;
static struct sigaction before; /* Constant once installed. */

/* Internal helpers */

static bool is_in_guard(const struct cf__fiber *fiber, const void *address)
{
    return (uintptr_t)address >= (uintptr_t)fiber->mapping &&
           (uintptr_t)address < (uintptr_t)fiber->side.stack_low;
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    static const char text[] = "curfew: stack overflow in fiber: it needs more than the stack_size "
                               "of its loop\n";
    const struct cf__fiber *fiber = cf__fiber_current();

    (void)context;
    if (fiber != NULL && is_in_guard(fiber, info->si_addr)) {
        (void)!write(STDERR_FILENO, text,
                     sizeof(text) - 1); /* It dies whether or not this works. */
    }
    (void)sigaction(number, &before, NULL);
}

/* Life cycle */

void *cf__overflow_stack_new(void)
{
    long size = sysconf(_SC_SIGSTKSZ);
    stack_t stack = {.ss_size = size > 0 ? (size_t)size : (size_t)SIGSTKSZ};

    if (!atomic_load(&installed)) {
        return NULL;
    }
    stack.ss_sp = malloc(stack.ss_size);
    if (stack.ss_sp != NULL) {
        (void)sigaltstack(&stack, NULL); /* Refused: an overflow dies without a word. */
    }
    return stack.ss_sp;
}

void cf__overflow_stack_free(void *own_stack)
{
    stack_t none = {.ss_flags = SS_DISABLE};

    if (own_stack != NULL) {
        (void)sigaltstack(&none, NULL);
        free(own_stack);
    }
}

/* Operations: of loop.h */

enum cf_code cf_loop_report_overflow(struct cf_err *err)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};

    if (!IS_OURS || atomic_load(&installed)) {
        return CF_OK;
    }
    (void)sigemptyset(&action.sa_mask);
    if (sigaction(SIGSEGV, &action, &before) != 0) {
        return cf_err_set_sys(err, CF_EIO, errno, "install a handler of SIGSEGV");
    }
    atomic_store(&installed, true);
    return CF_OK;
}
