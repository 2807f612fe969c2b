/* SPDX-License-Identifier: MIT */
/* Failing allocations: see fault.h. The linker's --wrap sends our calls here. */
#include "fault.h"

#include <errno.h>
#include <stddef.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

static _Thread_local struct {
    unsigned countdown; /* 1: the next one fails; 0: none does. */
    bool for_good;
    bool struck;
} fault;

static bool strike(void)
{
    if (fault.countdown == 0) {
        return false;
    }
    if (fault.countdown > 1) {
        fault.countdown--;
        return false;
    }
    if (!fault.for_good) {
        fault.countdown = 0;
    }
    fault.struck = true;
    errno = ENOMEM;
    return true;
}

void fault_alloc(unsigned nth, bool for_good)
{
    fault.countdown = nth;
    fault.for_good = for_good;
    fault.struck = false;
}

bool fault_off(void)
{
    fault.countdown = 0;
    return fault.struck;
}

void *__wrap_malloc(size_t size)
{
    return strike() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return strike() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return strike() ? NULL : __real_realloc(old, size);
}
