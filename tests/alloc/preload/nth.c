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

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *block);

typedef int (*thread_fn)(pthread_t *out, const pthread_attr_t *attr, void *(*fn)(void *),
                         void *arg);

static struct nth *nth;
static thread_fn make_thread;

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

/* Whether this allocation is to fail. */
static bool strike(const char *what, void *caller)
{
    int mode;
    long left;

    if (nth == NULL) {
        return false;
    }
    mode = atomic_load(&nth->mode);
    if (mode == NTH_OFF) {
        return false;
    }
    left = atomic_fetch_sub(&nth->left, 1);
    if (left > 1 || (left < 1 && mode == NTH_ONCE)) {
        return false;
    }
    if (atomic_fetch_add(&nth->struck, 1) == 0) {
        say_where(what, caller);
    }
    return true;
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

__attribute__((constructor(101))) static void load(void)
{
    const char *fd = getenv(NTH_ENV);
    void *memory;

    make_thread = (thread_fn)(uintptr_t)dlsym(RTLD_NEXT, "pthread_create");
    if (fd == NULL) {
        return;
    }
    memory = mmap(NULL, sizeof(*nth), PROT_READ | PROT_WRITE, MAP_SHARED, atoi(fd), 0);
    if (memory == MAP_FAILED) {
        abort();
    }
    nth = memory;
    atomic_store(&nth->loaded, 1);
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
