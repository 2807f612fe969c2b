/* SPDX-License-Identifier: MIT */
/* The stack on which a loop's thread learns that a fiber's is used up;
 * see cf_loop_report_overflow(). */
#ifndef CURFEW_RUNTIME_OVERFLOW_H
#define CURFEW_RUNTIME_OVERFLOW_H

/* Give the calling thread a stack for that signal. NULL: nothing is reported, or out of memory. */
void *cf__overflow_stack_new(void);

/* On the same thread, before it ends. NULL is allowed. */
void cf__overflow_stack_free(void *own_stack);

#endif
