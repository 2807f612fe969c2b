/* SPDX-License-Identifier: MIT */
/* Processors by affinity and by the quota of the control group (v2, else v1): see cpus.h. */
#include "curfewd/cpus.h"

#include <sched.h>
#include <stdio.h>

/* The quota of a group in whole processors, rounded up; 0: none. */
static long quota(void)
{
    long limit = -1;
    long period = 0;
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "re");

    if (file != NULL) {
        if (fscanf(file, "%ld %ld", &limit, &period) != 2) {
            limit = -1; /* "max 100000" */
        }
        (void)fclose(file);
    } else {
        file = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "re");
        if (file != NULL) {
            if (fscanf(file, "%ld", &limit) != 1) {
                limit = -1;
            }
            (void)fclose(file);
            period = 100000;
        }
    }
    return limit > 0 && period > 0 ? (limit + period - 1) / period : 0;
}

int cpus_usable(void)
{
    cpu_set_t set;
    long allowed = quota();
    int count = 1;

    if (sched_getaffinity(0, sizeof(set), &set) == 0) {
        count = CPU_COUNT(&set);
    }
    return allowed > 0 && allowed < count ? (int)allowed : count;
}
