/* SPDX-License-Identifier: MIT */
/* Stacks and the switch between them. */
#include "curfew/runtime/fiber.h"

#include <check.h>
#include <float.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <curfew/wait.h>

#include "curfew/runtime/fiber_park.h"
#include "effort.h"
#include "places.h"

#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif

#ifndef VALGRIND_STACK_REGISTER
#define VALGRIND_STACK_REGISTER(low, high) 0U
#define VALGRIND_STACK_DEREGISTER(id) (void)(id)
#endif

#define STACK_BYTES ((size_t)256 * 1024)
#define KIB ((size_t)1024)

/* Fixture: bare stacks, and a loop */

static struct cf__context outside;
static struct cf__context inside;
static char *stacks[2];
static unsigned stack_ids[2];
static struct cf_loop *loop;
static struct cf_err err;
static atomic_int started;
static atomic_bool let_end;

static void setup_stacks(void)
{
    for (int i = 0; i < 2; i++) {
        stacks[i] =
            mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        ck_assert_ptr_ne(stacks[i], MAP_FAILED);
        stack_ids[i] = VALGRIND_STACK_REGISTER(stacks[i], stacks[i] + STACK_BYTES);
    }
}

static void teardown_stacks(void)
{
    for (int i = 0; i < 2; i++) {
        VALGRIND_STACK_DEREGISTER(stack_ids[i]);
        (void)munmap(stacks[i], STACK_BYTES);
    }
}

static void setup_loop(void)
{
    atomic_store(&started, 0);
    atomic_store(&let_end, false);
    ck_assert_int_eq(cf_loop_new(NULL, &loop, &err), CF_OK);
}

/* Wait for the last fiber. */
static void end_loop(void)
{
    cf_loop_free(loop);
    loop = NULL;
}

/* Helpers */

static void run(cf_fiber_fn fn, void *arg)
{
    ck_assert_int_eq(cf_loop_call(loop, fn, arg, &err), CF_OK);
}

/* Spawn on the calling fiber's loop and let it run to its first park or its end. */
static void spawn_here(cf_fiber_fn fn, void *arg)
{
    if (cf_loop_spawn(cf_loop_current(), fn, arg, NULL) != CF_OK) {
        abort();
    }
    place_yield();
}

/* switch */

/* switch_filled(): fill every register that a callee must keep from `in`, switch, and read them
 * into `out` when somebody has switched back. */
#if defined(__x86_64__)

#define KEPT 6 /* rbx, rbp, r12 to r15. */

static void switch_filled(struct cf__context *from, struct cf__context *to, const uintptr_t *in,
                          uintptr_t *out)
{
    __asm__ volatile("movq   %%rsp, %%rax\n\t"
                     "subq   $128, %%rsp\n\t" /* What the compiler may keep below the stack. */
                     "andq   $-16, %%rsp\n\t"
                     "pushq  %%rax\n\t"
                     "pushq  %%rbp\n\t"
                     "pushq  %%rdx\n\t"
                     "subq   $8, %%rsp\n\t"
                     "movq   0(%%rcx), %%rbx\n\t"
                     "movq   8(%%rcx), %%rbp\n\t"
                     "movq   16(%%rcx), %%r12\n\t"
                     "movq   24(%%rcx), %%r13\n\t"
                     "movq   32(%%rcx), %%r14\n\t"
                     "movq   40(%%rcx), %%r15\n\t"
                     "call   cf__context_switch\n\t"
                     "addq   $8, %%rsp\n\t"
                     "popq   %%rdx\n\t"
                     "movq   %%rbx, 0(%%rdx)\n\t"
                     "movq   %%rbp, 8(%%rdx)\n\t"
                     "movq   %%r12, 16(%%rdx)\n\t"
                     "movq   %%r13, 24(%%rdx)\n\t"
                     "movq   %%r14, 32(%%rdx)\n\t"
                     "movq   %%r15, 40(%%rdx)\n\t"
                     "popq   %%rbp\n\t"
                     "popq   %%rsp\n\t"
                     : "+D"(from), "+S"(to), "+d"(out), "+c"(in)
                     :
                     : "rax", "rbx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0",
                       "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                       "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "memory", "cc");
}

#elif defined(__aarch64__)

#define KEPT 19 /* x19 to x29, d8 to d15. */

static void switch_filled(struct cf__context *from, struct cf__context *to, const uintptr_t *in,
                          uintptr_t *out)
{
    register struct cf__context *x0 __asm__("x0") = from;
    register struct cf__context *x1 __asm__("x1") = to;
    register const uintptr_t *x2 __asm__("x2") = in;
    register uintptr_t *x3 __asm__("x3") = out;

    __asm__ volatile("stp    x29, x3, [sp, #-32]!\n\t"
                     "str    x19, [sp, #16]\n\t"
                     "ldp    x19, x20, [x2, #0]\n\t"
                     "ldp    x21, x22, [x2, #16]\n\t"
                     "ldp    x23, x24, [x2, #32]\n\t"
                     "ldp    x25, x26, [x2, #48]\n\t"
                     "ldp    x27, x28, [x2, #64]\n\t"
                     "ldr    x29, [x2, #80]\n\t"
                     "ldp    d8, d9, [x2, #88]\n\t"
                     "ldp    d10, d11, [x2, #104]\n\t"
                     "ldp    d12, d13, [x2, #120]\n\t"
                     "ldp    d14, d15, [x2, #136]\n\t"
                     "bl     cf__context_switch\n\t"
                     "ldr    x3, [sp, #8]\n\t"
                     "stp    x19, x20, [x3, #0]\n\t"
                     "stp    x21, x22, [x3, #16]\n\t"
                     "stp    x23, x24, [x3, #32]\n\t"
                     "stp    x25, x26, [x3, #48]\n\t"
                     "stp    x27, x28, [x3, #64]\n\t"
                     "str    x29, [x3, #80]\n\t"
                     "stp    d8, d9, [x3, #88]\n\t"
                     "stp    d10, d11, [x3, #104]\n\t"
                     "stp    d12, d13, [x3, #120]\n\t"
                     "stp    d14, d15, [x3, #136]\n\t"
                     "ldr    x19, [sp, #16]\n\t"
                     "ldr    x29, [sp], #32\n\t"
                     : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3)
                     :
                     : "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",
                       "x16", "x17", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28",
                       "x30", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10",
                       "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21",
                       "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31",
                       "memory", "cc");
}

#endif

#ifdef KEPT

/* Each register has a value of its own on each side and in each round. */
static void fill(uintptr_t *values, uintptr_t seed)
{
    for (uintptr_t i = 0; i < KEPT; i++) {
        values[i] = (seed << 32) + (i << 8) + 1;
    }
}

static int lost_inside;

static void keep_filling(void *arg)
{
    uintptr_t in[KEPT];
    uintptr_t out[KEPT];

    (void)arg;
    for (uintptr_t round = 1;; round++) {
        fill(in, 1000 + round);
        switch_filled(&inside, &outside, in, out);
        lost_inside += memcmp(in, out, sizeof(in)) != 0;
    }
}

START_TEST(switch_keeps_the_registers_of_both_sides)
{
    uintptr_t in[KEPT];
    uintptr_t out[KEPT];

    cf__context_make(&inside, stacks[0], STACK_BYTES, keep_filling, NULL);
    for (uintptr_t round = 1; round <= 100; round++) {
        fill(in, round);
        memset(out, 0, sizeof(out));
        switch_filled(&outside, &inside, in, out);
        ck_assert_mem_eq(in, out, sizeof(in));
    }
    ck_assert_int_eq(lost_inside, 0);
}
END_TEST

#endif

struct entry {
    void *arg;
    uintptr_t frame;
    double sum;
    char text[32];
};

static void enter_and_leave(void *arg)
{
    struct entry *entry = arg;

    entry->arg = arg;
    entry->frame = (uintptr_t)__builtin_frame_address(0);
    cf__context_switch(&inside, &outside);
}

START_TEST(make_calls_the_entry_with_its_argument_on_that_stack)
{
    struct entry entry = {.arg = NULL};

    cf__context_make(&inside, stacks[0], STACK_BYTES, enter_and_leave, &entry);
    cf__context_switch(&outside, &inside);
    ck_assert_ptr_eq(entry.arg, &entry);
    ck_assert_uint_ge(entry.frame, (uintptr_t)stacks[0]);
    ck_assert_uint_lt(entry.frame, (uintptr_t)stacks[0] + STACK_BYTES);
}
END_TEST

/* A compiler aligns nothing itself: it trusts its caller,
 * and an aligned store to a local faults. */
static void store_aligned(void *arg)
{
    struct entry *entry = arg;
    alignas(16) char local[16];

    entry->frame = (uintptr_t)__builtin_frame_address(0);
#if defined(__x86_64__)
    __asm__ volatile("movaps %%xmm0, %0" : "=m"(local));
#else
    __asm__ volatile("" : "=m"(local));
#endif
    (void)snprintf(entry->text, sizeof(entry->text), "%.1f %d", 1.5, 7);
    cf__context_switch(&inside, &outside);
}

/* Tops of every misalignment, as a stack from elsewhere may have them. */
START_TEST(make_aligns_the_stack_for_the_entry)
{
    struct entry entry = {.frame = 1};

    cf__context_make(&inside, stacks[0], STACK_BYTES - (size_t)_i, store_aligned, &entry);
    cf__context_switch(&outside, &inside);
    ck_assert_uint_eq(entry.frame % 16, 0);
    ck_assert_str_eq(entry.text, "1.5 7");
}
END_TEST

/* To nearest: one and a quarter of the next step is one, and three quarters are the next step. */
static bool rounds_to_nearest(void)
{
    volatile double one = 1.0;
    volatile double quarter = DBL_EPSILON / 4;

    return one + quarter == 1.0 && one + 3 * quarter == 1.0 + DBL_EPSILON;
}

static void compute(void *arg)
{
    struct entry *entry = arg;
    volatile double zero = 0.0;

    for (;;) {
        entry->sum = rounds_to_nearest() && 1.0 / zero > DBL_MAX ? 1.0 : 0.0;
        cf__context_switch(&inside, &outside);
    }
}

/* A context that began with other control words would round elsewhere or trap. */
START_TEST(switch_leaves_arithmetic_as_it_is)
{
    struct entry entry = {.sum = 0.0};

    cf__context_make(&inside, stacks[0], STACK_BYTES, compute, &entry);
    for (int i = 0; i < 2; i++) {
        entry.sum = 0.0;
        cf__context_switch(&outside, &inside);
        ck_assert(entry.sum == 1.0);
        ck_assert(rounds_to_nearest());
    }
}
END_TEST

static struct cf__context ring[3];

static void hand_on(void *arg)
{
    int *order = arg;

    for (;;) {
        *order = *order * 10 + 1;
        cf__context_switch(&ring[1], &ring[2]);
    }
}

static void hand_back(void *arg)
{
    int *order = arg;

    for (;;) {
        *order = *order * 10 + 2;
        cf__context_switch(&ring[2], &ring[0]);
    }
}

START_TEST(switch_goes_from_any_context_to_any_other)
{
    int order = 0;

    cf__context_make(&ring[1], stacks[0], STACK_BYTES, hand_on, &order);
    cf__context_make(&ring[2], stacks[1], STACK_BYTES, hand_back, &order);
    for (int i = 0; i < 3; i++) {
        cf__context_switch(&ring[0], &ring[1]);
    }
    ck_assert_int_eq(order, 121212);
}
END_TEST

/* stack */

struct depth {
    size_t size;
    bool kept;
};

/* Fill `size` bytes of stack, let others run, and look whether they are as they were. */
static void use_stack(void *arg)
{
    struct depth *depth = arg;
    volatile char *area = __builtin_alloca(depth->size);
    bool kept = true;

    for (size_t i = 0; i < depth->size; i++) {
        area[i] = (char)(i * 31 + (size_t)depth);
    }
    place_yield();
    for (size_t i = 0; i < depth->size; i++) {
        kept = kept && area[i] == (char)(i * 31 + (size_t)depth);
    }
    depth->kept = kept;
}

static void use_stacks(void *arg)
{
    struct depth *depths = arg;

    for (int i = 0; i < 16; i++) {
        spawn_here(use_stack, &depths[i]);
    }
}

START_TEST(stack_holds_48_kib_across_a_switch)
{
    struct depth depths[16];

    for (int i = 0; i < 16; i++) {
        depths[i] = (struct depth){.size = 48 * KIB};
    }
    run(use_stacks, depths);
    end_loop();
    for (int i = 0; i < 16; i++) {
        ck_assert(depths[i].kept);
    }
}
END_TEST

START_TEST(stack_size_is_an_option)
{
    static const struct cf_loop_options options = {.stack_size = (size_t)1024 * 1024};
    struct depth depth = {.size = 1000 * KIB};
    struct cf_loop *large;

    ck_assert_int_eq(cf_loop_new(&options, &large, &err), CF_OK);
    ck_assert_int_eq(cf_loop_call(large, use_stack, &depth, &err), CF_OK);
    cf_loop_free(large);
    ck_assert(depth.kept);
}
END_TEST

/* Exit statuses of a fiber that overflows its stack. */
#define HIT_GUARD 7
#define HIT_ELSEWHERE 8

static char *guard_low;

static void on_fault(int signal, siginfo_t *info, void *ucontext)
{
    char *at = info->si_addr;

    (void)signal;
    (void)ucontext;
    _exit(at >= guard_low && at < guard_low + sysconf(_SC_PAGESIZE) ? HIT_GUARD : HIT_ELSEWHERE);
}

static volatile bool go_deeper = true;

static size_t recurse(size_t depth)
{
    volatile char area[KIB];

    area[0] = (char)depth;
    if (go_deeper) {
        depth = recurse(depth + 1);
    }
    return depth + (size_t)area[0];
}

static void overflow(void *arg)
{
    static char signal_stack[64 * KIB];
    stack_t alternate = {.ss_sp = signal_stack, .ss_size = sizeof(signal_stack)};
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigset_t faults;

    (void)arg;
    guard_low = cf__fiber_current()->mapping;
    (void)sigemptyset(&faults);
    (void)sigaddset(&faults, SIGSEGV);
    (void)pthread_sigmask(SIG_UNBLOCK, &faults, NULL);
    (void)sigaltstack(&alternate, NULL);
    (void)sigaction(SIGSEGV, &action, NULL);
    (void)recurse(0);
}

START_TEST(stack_overflow_hits_the_guard_page)
{
    run(overflow, NULL);
}
END_TEST

/* pool */

static char *places[64];

static void note_place(void *arg)
{
    *(char **)arg = cf__fiber_current()->mapping;
}

static void spawn_one_after_the_other(void *arg)
{
    (void)arg;
    for (int i = 0; i < 64; i++) {
        spawn_here(note_place, &places[i]);
    }
}

START_TEST(pool_gives_the_stack_of_an_ended_fiber_to_the_next)
{
    run(spawn_one_after_the_other, NULL);
    for (int i = 1; i < 64; i++) {
        ck_assert_ptr_nonnull(places[i]);
        ck_assert_ptr_eq(places[i], places[0]);
    }
}
END_TEST

static void note_place_and_yield(void *arg)
{
    note_place(arg);
    place_yield();
}

static void spawn_all_then_again(void *arg)
{
    int *found = arg;
    char *again;

    for (int i = 0; i < 8; i++) {
        if (cf_loop_spawn(cf_loop_current(), note_place_and_yield, &places[i], NULL) != CF_OK) {
            abort();
        }
    }
    for (int i = 0; i < 4; i++) {
        place_yield();
    }
    /* The last to end is the first to be used again: its pages are warm. */
    spawn_here(note_place, &again);
    *found = again == places[7];
}

START_TEST(pool_gives_the_last_stack_first)
{
    int found = 0;

    run(spawn_all_then_again, &found);
    for (int i = 0; i < 8; i++) {
        for (int k = 0; k < i; k++) {
            ck_assert_ptr_ne(places[i], places[k]);
        }
    }
    ck_assert_int_eq(found, 1);
}
END_TEST

/* Address space of this process. */
static size_t mapped_bytes(void)
{
    FILE *statm = fopen("/proc/self/statm", "re");
    unsigned long pages = 0;

    ck_assert_ptr_nonnull(statm);
    ck_assert_int_eq(fscanf(statm, "%lu", &pages), 1);
    (void)fclose(statm);
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

#define KEPT_STACKS 2
#define MANY_STACKS 16

static void start_and_yield(void *arg)
{
    (void)arg;
    (void)atomic_fetch_add(&started, 1);
    while (!atomic_load(&let_end)) {
        place_yield();
    }
}

START_TEST(pool_keeps_as_many_stacks_as_it_was_told)
{
    static const struct cf_loop_options options = {.stack_size = (size_t)32 * 1024 * 1024,
                                                   .stacks_kept = KEPT_STACKS};
    struct cf_loop *small;
    size_t before;
    size_t while_all_run;
    size_t after;
    size_t each;

    ck_assert_int_eq(cf_loop_new(&options, &small, &err), CF_OK);
    before = mapped_bytes();
    for (int i = 0; i < MANY_STACKS; i++) {
        ck_assert_int_eq(cf_loop_spawn(small, start_and_yield, NULL, &err), CF_OK);
    }
    EVENTUALLY(atomic_load(&started) == MANY_STACKS);
    while_all_run = mapped_bytes();
    atomic_store(&let_end, true);
    EVENTUALLY(cf_loop_fibers(small) == 0);
    after = mapped_bytes();
    cf_loop_free(small);

    /* What else is mapped meanwhile, or unmapped, is small against a stack. */
    each = (while_all_run - before) / MANY_STACKS;
    ck_assert_uint_ge(each + options.stack_size / 16, options.stack_size);
    ck_assert_uint_ge(after - before + each / 2, KEPT_STACKS * each);
    ck_assert_uint_le(after - before, KEPT_STACKS * each + each / 2);
}
END_TEST

/* Leave a frame full of arrays, with whatever a tool puts between them. */
static void scribble(void *arg)
{
    volatile char one[100];
    volatile char other[3000];
    unsigned *sum = arg;

    for (size_t i = 0; i < sizeof(one); i++) {
        one[i] = 'a';
    }
    for (size_t i = 0; i < sizeof(other); i++) {
        other[i] = one[i % sizeof(one)];
    }
    place_yield();
    for (size_t i = 0; i < sizeof(other); i++) {
        *sum += (unsigned)other[i];
    }
}

/* The same stack with a frame of another shape: one array over all the old gaps. */
static void scribble_over(void *arg)
{
    volatile char all[8000];
    unsigned *sum = arg;

    for (size_t i = 0; i < sizeof(all); i++) {
        all[i] = 'b';
    }
    place_yield();
    for (size_t i = 0; i < sizeof(all); i++) {
        *sum += (unsigned)all[i];
    }
}

static void scribble_in_turn(void *arg)
{
    for (int i = 0; i < 10; i++) {
        spawn_here(i % 2 == 0 ? scribble : scribble_over, arg);
        place_yield();
        place_yield();
    }
}

START_TEST(pool_hands_out_a_stack_as_if_it_were_new)
{
    unsigned sum = 0;

    run(scribble_in_turn, &sum);
    ck_assert_uint_eq(sum, 5U * 3000U * 'a' + 5U * 8000U * 'b');
}
END_TEST

/* many */

struct many {
    size_t at_once;
    atomic_int ended;
    atomic_int wrong;
};

/* TSan has room for 8,000; valgrind looks through all stacks at every switch. */
static int many_count(void)
{
    return effort_count(10000, 1000);
}

static void keep_a_local(void *arg)
{
    struct many *many = arg;
    volatile int mine = atomic_load(&started);

    (void)atomic_fetch_add(&started, 1);
    while (!atomic_load(&let_end)) {
        place_yield();
    }
    /* Started in order, one at a time: each number was seen once, and is still here. */
    (void)atomic_fetch_add(&many->wrong, mine != atomic_load(&many->ended));
    (void)atomic_fetch_add(&many->ended, 1);
}

static void spawn_many(void *arg)
{
    struct many *many = arg;
    int count = many_count();

    for (int i = 0; i < count; i++) {
        if (cf_loop_spawn(cf_loop_current(), keep_a_local, arg, NULL) != CF_OK) {
            abort();
        }
    }
    while (atomic_load(&started) < count) {
        place_yield();
    }
    many->at_once = cf_loop_fibers(cf_loop_current());
    atomic_store(&let_end, true);
}

START_TEST(many_fibers_at_once_keep_their_stacks)
{
    struct many many = {.at_once = 0};

    run(spawn_many, &many);
    end_loop();
    ck_assert_uint_eq(many.at_once, (size_t)many_count() + 1); /* And the one that counted. */
    ck_assert_int_eq(atomic_load(&many.ended), many_count());
    ck_assert_int_eq(atomic_load(&many.wrong), 0);
}
END_TEST

Suite *suite_fiber(void)
{
    Suite *suite = suite_create("fiber");
    TCase *tc = tcase_create("switch");

    tcase_add_checked_fixture(tc, setup_stacks, teardown_stacks);
#ifdef KEPT
    tcase_add_test(tc, switch_keeps_the_registers_of_both_sides);
#endif
    tcase_add_test(tc, make_calls_the_entry_with_its_argument_on_that_stack);
    tcase_add_loop_test(tc, make_aligns_the_stack_for_the_entry, 0, 17);
    tcase_add_test(tc, switch_leaves_arithmetic_as_it_is);
    tcase_add_test(tc, switch_goes_from_any_context_to_any_other);
    suite_add_tcase(suite, tc);

    tc = tcase_create("stack");
    tcase_add_checked_fixture(tc, setup_loop, end_loop);
    tcase_add_test(tc, stack_holds_48_kib_across_a_switch);
    tcase_add_test(tc, stack_size_is_an_option);
    suite_add_tcase(suite, tc);

    tc = tcase_create("overflow");
    tcase_set_tags(tc, "fork");
    tcase_add_checked_fixture(tc, setup_loop, end_loop);
    tcase_add_exit_test(tc, stack_overflow_hits_the_guard_page, HIT_GUARD);
    suite_add_tcase(suite, tc);

    tc = tcase_create("pool");
    tcase_add_checked_fixture(tc, setup_loop, end_loop);
    tcase_add_test(tc, pool_gives_the_stack_of_an_ended_fiber_to_the_next);
    tcase_add_test(tc, pool_gives_the_last_stack_first);
    tcase_add_test(tc, pool_hands_out_a_stack_as_if_it_were_new);
    suite_add_tcase(suite, tc);

    tc = tcase_create("pool"); /* Of its own kernel: see tests/README.md. */
    tcase_set_tags(tc, "kernel");
    tcase_add_checked_fixture(tc, setup_loop, end_loop);
    tcase_add_test(tc, pool_keeps_as_many_stacks_as_it_was_told);
    suite_add_tcase(suite, tc);

    tc = tcase_create("many");
    tcase_set_timeout(tc, 30);
    tcase_add_checked_fixture(tc, setup_loop, end_loop);
    tcase_add_test(tc, many_fibers_at_once_keep_their_stacks);
    suite_add_tcase(suite, tc);
    return suite;
}
