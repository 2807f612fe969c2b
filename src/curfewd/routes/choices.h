/* SPDX-License-Identifier: MIT */
/* What may be said, as a message lists it. */
#ifndef CURFEWD_ROUTES_CHOICES_H
#define CURFEWD_ROUTES_CHOICES_H

#include <stddef.h>

/* Room for those of any argument or member; what does not fit is cut. */
#define CHOICES_SIZE 128

/* "pending, paid or shipped" */
void choices_list(const char *const *choices, size_t n_choices, char out[CHOICES_SIZE]);

#endif
