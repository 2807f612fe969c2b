/* SPDX-License-Identifier: MIT */
/* Options that are zero where nothing was said. */
#ifndef CURFEW_HTTP_DEFAULTS_H
#define CURFEW_HTTP_DEFAULTS_H

#include <stddef.h>
#include <stdint.h>

static inline void cf__default_ns(int64_t *option, int64_t value)
{
    *option = *option > 0 ? *option : value;
}

static inline void cf__default_size(size_t *option, size_t value)
{
    *option = *option > 0 ? *option : value;
}

#endif
