/* SPDX-License-Identifier: MIT */
/* What waiting needs of a loop: to stop the running fiber, and to have one run again. */
#ifndef CURFEW_RUNTIME_FIBER_PARK_H
#define CURFEW_RUNTIME_FIBER_PARK_H

struct cf__fiber;

/* The fiber that calls, or NULL. */
struct cf__fiber *cf__fiber_current(void);

/* Leave the calling fiber until it is made ready, which may have happened already. */
void cf__fiber_park(void);

/* Have a fiber run again. Exactly once for each park. Any thread. */
void cf__fiber_ready(struct cf__fiber *fiber);

#endif
