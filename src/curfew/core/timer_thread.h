/* SPDX-License-Identifier: MIT */
/* The timer source of threads that have no loop: one thread of the process, started when needed. */
#ifndef CURFEW_CORE_TIMER_THREAD_H
#define CURFEW_CORE_TIMER_THREAD_H

#include <curfew/clock.h>

/* Its source, whether the thread runs or not. */
struct cf_timer_source *cf__timer_thread(void);

/* Make sure that it runs. False: the system refused a thread. */
bool cf__timer_thread_start(void);

#endif
