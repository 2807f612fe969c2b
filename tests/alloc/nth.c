/* SPDX-License-Identifier: MIT */
/* The test's side of the shared memory: see nth.h. */
#include "nth.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Life cycle */

struct nth *nth_new(const char *out_env[NTH_SETTINGS])
{
    static char fd_setting[32];
    static char preload_setting[4096];
    const char *library = getenv("CF_TEST_NTH");
    int fd = memfd_create("nth", 0);
    void *memory;

    ck_assert_msg(library != NULL, "CF_TEST_NTH must name the library: run `make test-alloc`");
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, sizeof(struct nth)), 0);
    memory = mmap(NULL, sizeof(struct nth), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ck_assert_ptr_ne(memory, MAP_FAILED);
    (void)snprintf(fd_setting, sizeof(fd_setting), NTH_ENV "=%d", fd);
    (void)snprintf(preload_setting, sizeof(preload_setting), "LD_PRELOAD=%s", library);
    out_env[0] = fd_setting;
    out_env[1] = preload_setting;
    return memory;
}

/* Operations */

void nth_arm(struct nth *nth, long n, enum nth_mode mode)
{
    atomic_store(&nth->mode, NTH_OFF);
    atomic_store(&nth->left, n);
    atomic_store(&nth->struck, 0);
    strcpy(nth->where, "nothing");
    atomic_store(&nth->mode, mode);
}

bool nth_off(struct nth *nth)
{
    atomic_store(&nth->mode, NTH_OFF);
    return atomic_load(&nth->struck) > 0;
}

long nth_step(const struct nth *nth, bool is_alike)
{
    is_alike = is_alike || strstr(nth->where, "libcrypto") != NULL;
    return is_alike && getenv("CF_TEST_LONG") == NULL ? NTH_STEP : 1;
}
