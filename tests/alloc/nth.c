/* SPDX-License-Identifier: MIT */
/* The test's side of the shared memory: see nth.h. */
#include "nth.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int memory_fd;

/* Life cycle */

struct nth_memory *nth_new(void)
{
    void *memory;

    memory_fd = memfd_create("nth", 0);
    ck_assert_int_ge(memory_fd, 0);
    ck_assert_int_eq(ftruncate(memory_fd, sizeof(struct nth_memory)), 0);
    memory =
        mmap(NULL, sizeof(struct nth_memory), PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
    ck_assert_ptr_ne(memory, MAP_FAILED);
    return memory;
}

struct nth *nth_part(struct nth_memory *memory, int part, const char *out_env[NTH_SETTINGS])
{
    static char part_setting[32];
    static char preload_setting[4096];
    const char *library = getenv("CF_TEST_NTH");

    ck_assert_msg(library != NULL, "CF_TEST_NTH must name the library: run `make test-alloc`");
    (void)snprintf(part_setting, sizeof(part_setting), NTH_ENV "=%d,%d", memory_fd, part);
    (void)snprintf(preload_setting, sizeof(preload_setting), "LD_PRELOAD=%s", library);
    out_env[0] = part_setting;
    out_env[1] = preload_setting;
    return &memory->parts[part];
}

/* Operations */

void nth_arm(struct nth *nth, int sweep, long n, enum nth_mode mode)
{
    atomic_store(&nth->mode, NTH_OFF);
    atomic_store(&nth->sweep, sweep);
    atomic_store(&nth->n, n);
    atomic_store(&nth->seen, 0);
    atomic_store(&nth->struck, 0);
    nth->first = 0;
    strcpy(nth->where, "nothing");
    atomic_store(&nth->mode, mode);
}

bool nth_off(struct nth *nth)
{
    atomic_store(&nth->mode, NTH_OFF);
    return atomic_load(&nth->struck) > 0;
}

/* Queries */

int nth_fd(void)
{
    return memory_fd;
}

const char *nth_say(const struct nth *nth)
{
    static char text[sizeof(nth->where) + 64];

    (void)snprintf(text, sizeof(text), "%ld, %s", nth->first > 0 ? nth->first : nth->n, nth->where);
    return text;
}
