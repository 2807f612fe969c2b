/* SPDX-License-Identifier: MIT */
/* The library that is loaded into the process under test: see nth.h.
 *
 * The C library's own calls of malloc come here too, because it lets a program replace it; what is
 * behind is reached by the names that it keeps for that. Of its mappings only those are seen that
 * others ask for, so a thread's stack is counted where the thread is made.
 *
 * Nothing here may allocate, nor wait for who does. */
#include "../nth.h"

#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SEEN __attribute__((visibility("default")))

/* For at most so long. */
#define THREADS_END_MS 500

#define PAGE 4096 /* Where a page is larger, so much of it. */

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *block);

typedef int (*thread_fn)(pthread_t *out, const pthread_attr_t *attr, void *(*fn)(void *),
                         void *arg);

static struct nth_memory *memory;
static struct nth *nth; /* Our part of it. */
static thread_fn make_thread;

/* Who looks for callers is not looked at. Of the kind that takes no memory to reach. */
static __attribute__((tls_model("initial-exec"))) _Thread_local bool is_inside;

/* Internal helpers */

static void say_where(const char *what, void *caller)
{
    const char *module = "?";
    uintptr_t offset = 0;
    Dl_info info;

    if (dladdr(caller, &info) != 0 && info.dli_fname != NULL) {
        module = strrchr(info.dli_fname, '/') != NULL ? strrchr(info.dli_fname, '/') + 1
                                                      : info.dli_fname;
        offset = (uintptr_t)caller - (uintptr_t)info.dli_fbase;
    }
    (void)snprintf(nth->where, sizeof(nth->where), "%s in %s+0x%lx", what, module,
                   (unsigned long)offset);
}

/* The callers, as a number that is the same in every process: the pages of a module lie where
 * chance has it, but what lies within a page does not. */
static uint64_t hash_callers(void)
{
    void *callers[NTH_DEPTH];
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a. */
    int n;

    is_inside = true;
    n = backtrace(callers, NTH_DEPTH);
    is_inside = false;
    for (int i = 0; i < n; i++) {
        hash = (hash ^ ((uintptr_t)callers[i] & (PAGE - 1))) * UINT64_C(0x100000001b3);
    }
    return hash != 0 ? hash : 1;
}

/* Whether nothing has failed here yet in this sweep, if asked; else from now on something has.
 * Where there is no room, nothing is new. */
static bool is_new(uint64_t place, bool take)
{
    struct nth_sweep *sweep = &memory->sweeps[atomic_load(&nth->sweep)];

    for (size_t i = 0; i < NTH_PLACES; i++) {
        _Atomic uint64_t *at = &sweep->places[(place + i) % NTH_PLACES];
        uint64_t there = atomic_load(at);

        if (there == 0 && (!take || atomic_compare_exchange_strong(at, &there, place))) {
            return true;
        }
        if (there == place) {
            return false;
        }
    }
    return false;
}

/* Whether this allocation is to fail. */
static bool strike(const char *what, void *caller)
{
    uint64_t place = 0;
    long none = 0;
    long seen;
    int mode;
    long n;

    if (nth == NULL || is_inside) {
        return false;
    }
    mode = atomic_load(&nth->mode);
    if (mode == NTH_OFF) {
        return false;
    }
    n = atomic_load(&nth->n);
    seen = atomic_fetch_add(&nth->seen, 1) + 1;
    if (atomic_load(&nth->struck) == 0) {
        place = n == NTH_NEW ? hash_callers() : 0;
        if (n == NTH_NEW ? !is_new(place, false) : seen != n) {
            return false;
        }
        /* Two threads may be at a new place at once. */
        if (atomic_compare_exchange_strong(&nth->struck, &none, 1)) {
            (void)(n == NTH_NEW && is_new(place, true));
            nth->first = seen;
            say_where(what, caller);
            return true;
        }
    }
    return mode == NTH_FROM_NOW;
}

static void *count(void *block)
{
    if (nth != NULL && block != NULL) {
        (void)atomic_fetch_add(&nth->live, 1);
    }
    return block;
}

static void *no_memory(void)
{
    errno = ENOMEM;
    return NULL;
}

/* Look at the shared memory from now on: a process of the test's own calls this when it is the one
 * under test. */
SEEN void nth_attach(int fd, int part);
SEEN void nth_attach(int fd, int part)
{
    void *mapping =
        mmap(NULL, sizeof(struct nth_memory), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (mapping == MAP_FAILED) {
        abort();
    }
    memory = mapping;
    nth = &memory->parts[part];
    atomic_store(&nth->loaded, 1);
}

__attribute__((constructor(101))) static void load(void)
{
    const char *setting = getenv(NTH_ENV);
    char *part;
    void *caller;
    int fd;

    make_thread = (thread_fn)(uintptr_t)dlsym(RTLD_NEXT, "pthread_create");
    (void)backtrace(&caller, 1); /* Loads what it needs. */
    if (setting != NULL) {
        fd = (int)strtol(setting, &part, 10);
        nth_attach(fd, (int)strtol(part + 1, NULL, 10));
    }
}

/* What is put between */

#define CALLER __builtin_return_address(0)

SEEN void *malloc(size_t size)
{
    return strike("malloc", CALLER) ? no_memory() : count(__libc_malloc(size));
}

SEEN void *calloc(size_t n, size_t size)
{
    return strike("calloc", CALLER) ? no_memory() : count(__libc_calloc(n, size));
}

SEEN void free(void *block)
{
    if (nth != NULL && block != NULL) {
        (void)atomic_fetch_sub(&nth->live, 1);
    }
    __libc_free(block);
}

SEEN void *realloc(void *old, size_t size)
{
    if (old != NULL && size == 0) {
        free(old);
        return NULL;
    }
    if (strike("realloc", CALLER)) {
        return no_memory();
    }
    return old != NULL ? __libc_realloc(old, size) : count(__libc_malloc(size));
}

SEEN void *reallocarray(void *old, size_t n, size_t size)
{
    size_t bytes;

    return __builtin_mul_overflow(n, size, &bytes) ? no_memory() : realloc(old, bytes);
}

SEEN void *memalign(size_t alignment, size_t size)
{
    return strike("memalign", CALLER) ? no_memory() : count(__libc_memalign(alignment, size));
}

SEEN void *aligned_alloc(size_t alignment, size_t size)
{
    return strike("aligned_alloc", CALLER) ? no_memory() : count(__libc_memalign(alignment, size));
}

SEEN int posix_memalign(void **out, size_t alignment, size_t size)
{
    void *block = strike("posix_memalign", CALLER) ? NULL : __libc_memalign(alignment, size);

    if (block == NULL) {
        return ENOMEM;
    }
    *out = count(block);
    return 0;
}

SEEN void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    if ((flags & MAP_ANONYMOUS) != 0 && strike("mmap", CALLER)) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return (void *)syscall(SYS_mmap, at, size, protection, flags, fd, offset);
}

SEEN int pthread_create(pthread_t *out, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
    return strike("pthread_create", CALLER) ? EAGAIN : make_thread(out, attr, fn, arg);
}

/* A lane's threads are detached, and free the lane when they end: let them, or what is left of it
 * would be a matter of luck. This thread stays, and that which waits for a second signal. Links of
 * the directory: one a thread, and two. */
SEEN void _exit(int status)
{
    struct timespec turn = {.tv_nsec = 1000000};
    struct stat tasks;

    for (int i = 0; i < THREADS_END_MS; i++) {
        if (nth == NULL || stat("/proc/self/task", &tasks) != 0 || tasks.st_nlink <= 2 + 2) {
            break;
        }
        (void)nanosleep(&turn, NULL);
    }
    for (;;) {
        (void)syscall(SYS_exit_group, status);
    }
}
