/* SPDX-License-Identifier: MIT */
/* How many processors this process may really use. */
#ifndef CURFEWD_CPUS_H
#define CURFEWD_CPUS_H

#define CPUS_CGROUP "/sys/fs/cgroup"

/* The lesser of the processors in the affinity mask and the quota that the control group's files
 * below `root` set, at least 1. */
int cpus_usable(const char *root);

/* That quota in whole processors, rounded up; 0: none. */
long cpus_quota(const char *root);

#endif
