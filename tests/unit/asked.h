/* SPDX-License-Identifier: MIT */
/* Which arguments a handler asks for. The linker has cf__target_arg() called by way of here, and
 * what would ask the database fail instead (Makefile: WRAP_unit).
 *
 * Thread safety: the test's thread. */
#ifndef ASKED_H
#define ASKED_H

#include <stdbool.h>
#include <stddef.h>

/* From now on: note the names, forgetting those before, and let nobody come to the database. */
void asked_begin(void);
void asked_end(void);

/* Whether this one was asked for; and how many were, each counted once. */
bool asked_for(const char *name);
size_t asked_count(void);

#endif
