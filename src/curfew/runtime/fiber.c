/* SPDX-License-Identifier: MIT */
/* Stacks and their annotations: see fiber.h.
 *
 * A stack is one mapping: a guard page below, the usable bytes, and the struct cf__fiber at the
 * top. The tops are staggered by cache lines, or a few thousand fibers that all park at the same
 * depth would fight for the same sets of the cache. Memory is touched only as deep
 * as a fiber went. */
#include "curfew/runtime/fiber.h"

#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef __has_feature
#define __has_feature(feature) 0 /* clang's way to ask; gcc 12 defines macros instead. */
#endif

#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define CF__ASAN 1
#else
#define CF__ASAN 0
#endif

#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define CF__TSAN 1
#else
#define CF__TSAN 0
#endif

#if CF__ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if CF__TSAN
#include <sanitizer/tsan_interface.h>
#endif

/* TSan counts a call where it began and its return where it ends. A call that begins on one side
 * and ends on the other would unbalance both, so the switch is told inside the function that
 * switches, and the bottom frame, which never returns, is not counted at all. */
#define TOLD_INLINE static inline __attribute__((always_inline))

#if CF__TSAN && defined(__clang__)
#define NOT_COUNTED __attribute__((disable_sanitizer_instrumentation))
#else
#define NOT_COUNTED
#endif

#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif

#ifndef VALGRIND_STACK_REGISTER
#define VALGRIND_STACK_REGISTER(low, high) 0U
#define VALGRIND_STACK_DEREGISTER(id) (void)(id)
#endif

/* Tools put red zones and shadow frames on the stack. */
#if CF__ASAN || CF__TSAN
#define STACK_FACTOR 4
#else
#define STACK_FACTOR 1
#endif

#define STAGGER_STEPS ((size_t)32)
#define STAGGER_BYTES ((size_t)64)

/* Internal helpers */

static size_t round_up(size_t size, size_t unit)
{
    return (size + unit - 1) / unit * unit;
}

/* Say that this side is being left for `to`. `dying`: it will never be entered again as it is. */
TOLD_INLINE void announce_leaving(struct cf__side *from, struct cf__side *to, bool dying)
{
#if CF__ASAN
    __sanitizer_start_switch_fiber(dying ? NULL : &from->fake_stack, to->stack_low, to->stack_size);
#endif
#if CF__TSAN
    __tsan_switch_to_fiber(to->tsan, 0);
#endif
    (void)from;
    (void)to;
    (void)dying;
}

/* The first thing on a side that has been entered; `from` is the one that was left. */
TOLD_INLINE void announce_entered(struct cf__side *side, struct cf__side *from)
{
#if CF__ASAN
    const void *low;
    size_t size;

    __sanitizer_finish_switch_fiber(side->fake_stack, &low, &size);
    from->stack_low = low; /* How the thread's own bounds are learnt. */
    from->stack_size = size;
    side->fake_stack = NULL;
#endif
    (void)side;
    (void)from;
}

/* The bottom frame of every fiber. */
NOT_COUNTED static void run(void *arg)
{
    struct cf__fiber *fiber = arg;
    struct cf__side *loop_side = cf__loop_side(fiber->loop);

    announce_entered(&fiber->side, loop_side);
    fiber->fn(fiber->arg);
    fiber->ended = true;
    announce_leaving(&fiber->side, loop_side, true);
    cf__context_switch(&fiber->side.context, &loop_side->context);
    CF_ASSERT(!"an ended fiber was entered");
}

/* Life cycle */

void cf__side_init_thread(struct cf__side *side)
{
    *side = (struct cf__side){.fake_stack = NULL};
#if CF__TSAN
    side->tsan = __tsan_get_current_fiber();
#endif
}

struct cf__fiber *cf__fiber_new(size_t stack_size)
{
    static atomic_uint counter;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t top = round_up(sizeof(struct cf__fiber), STAGGER_BYTES) + STAGGER_STEPS * STAGGER_BYTES;
    size_t size = page + round_up(stack_size * STACK_FACTOR + top, page);
    struct cf__fiber *fiber;
    char *mapping;
    char *place;

    mapping = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (mapping == MAP_FAILED) {
        return NULL;
    }
    if (mprotect(mapping, page, PROT_NONE) != 0) {
        (void)munmap(mapping, size); /* Untested: the kernel has no more mappings to give. */
        return NULL;
    }
    place = mapping + size - round_up(sizeof(*fiber), STAGGER_BYTES) -
            atomic_fetch_add(&counter, 1) % STAGGER_STEPS * STAGGER_BYTES;
    fiber = (struct cf__fiber *)(void *)place;
    *fiber = (struct cf__fiber){.mapping = mapping, .mapping_size = size};
    fiber->side.stack_low = mapping + page;
    fiber->side.stack_size = (size_t)(place - (mapping + page));
    fiber->valgrind_id = VALGRIND_STACK_REGISTER(mapping + page, place);
#if CF__TSAN
    fiber->side.tsan = __tsan_create_fiber(0);
#endif
    cf__list_init(&fiber->node);
    return fiber;
}

void cf__fiber_free(struct cf__fiber *fiber)
{
    void *mapping = fiber->mapping;
    size_t size = fiber->mapping_size;

#if CF__TSAN
    __tsan_destroy_fiber(fiber->side.tsan);
#endif
    VALGRIND_STACK_DEREGISTER(fiber->valgrind_id);
#if CF__ASAN
    /* Red zones of its frames would outlive the mapping, for whatever is mapped there next. */
    __asan_unpoison_memory_region(mapping, size);
#endif
    (void)munmap(mapping, size); /* It was mapped so. */
}

/* Operations */

void cf__fiber_prepare(struct cf__fiber *fiber, struct cf_loop *loop, cf_fiber_fn fn, void *arg)
{
    fiber->loop = loop;
    fiber->fn = fn;
    fiber->arg = arg;
    fiber->ended = false;
#if CF__ASAN
    /* The frames of the function before, which ended without returning through them all. */
    __asan_unpoison_memory_region(fiber->side.stack_low, fiber->side.stack_size);
#endif
    cf__context_make(&fiber->side.context, (void *)(uintptr_t)fiber->side.stack_low,
                     fiber->side.stack_size, run, fiber);
}

void cf__fiber_enter(struct cf__side *loop_side, struct cf__fiber *fiber)
{
    announce_leaving(loop_side, &fiber->side, false);
    cf__context_switch(&loop_side->context, &fiber->side.context);
    announce_entered(loop_side, &fiber->side);
}

void cf__fiber_leave(struct cf__side *loop_side, struct cf__fiber *fiber)
{
    announce_leaving(&fiber->side, loop_side, false);
    cf__context_switch(&fiber->side.context, &loop_side->context);
    announce_entered(&fiber->side, loop_side);
}
