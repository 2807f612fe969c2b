/* SPDX-License-Identifier: MIT */
/* How many processors this process may really use. */
#ifndef CURFEWD_CPUS_H
#define CURFEWD_CPUS_H

/* The lesser of the processors in the affinity mask and the control group's quota, at least 1. */
int cpus_usable(void);

/* The quota that the files of control groups below `root` set, in whole processors, rounded up; 0:
 * none. */
long cpus_quota(const char *root);

#endif
