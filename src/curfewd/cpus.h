/* SPDX-License-Identifier: MIT */
/* How many processors this process may really use. */
#ifndef CURFEWD_CPUS_H
#define CURFEWD_CPUS_H

/* The lesser of the processors in the affinity mask and the control group's quota, at least 1. */
int cpus_usable(void);

#endif
