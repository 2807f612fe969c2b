/* SPDX-License-Identifier: MIT */
/* See choices.h. */
#include "curfewd/routes/choices.h"

#include <stdio.h>

void choices_list(const char *const *choices, size_t n_choices, char out[CHOICES_SIZE])
{
    size_t at = 0;

    out[0] = '\0';
    for (size_t i = 0; i < n_choices && at < CHOICES_SIZE; i++) {
        const char *between = i == 0 ? "" : i + 1 < n_choices ? ", " : " or ";

        at += (size_t)snprintf(out + at, CHOICES_SIZE - at, "%s%s", between, choices[i]);
    }
}
