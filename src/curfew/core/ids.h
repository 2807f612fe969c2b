/* SPDX-License-Identifier: MIT */
/* Ids: random numbers in hex, unique but not secret, without a system call for each.
 *
 * Thread safety: any thread. Each has a generator of its own, and so each loop has. */
#ifndef CURFEW_CORE_IDS_H
#define CURFEW_CORE_IDS_H

#include <stddef.h>

/* The digits of a number. */
#define CF__ID_DIGITS 16

/* Write `numbers` random numbers, none of which is 0, and a NUL. */
void cf__id_write(size_t numbers, char *out);

#endif
