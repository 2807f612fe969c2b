/* SPDX-License-Identifier: MIT */
/* Processors by affinity and by the quota of the control group (v2, else v1): see cpus.h. */
#include "curfewd/cpus.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>

/* Read up to two numbers; returns how many there are, and -1 if there is no such file. */
static int read_numbers(const char *root, const char *name, long *first, long *second)
{
    char path[PATH_MAX];
    FILE *file;
    int count;

    (void)snprintf(path, sizeof(path), "%s/%s", root, name);
    file = fopen(path, "re");
    if (file == NULL) {
        return -1;
    }
    count = fscanf(file, "%ld %ld", first, second);
    (void)fclose(file);
    return count < 0 ? 0 : count; /* Negative: the file is empty. */
}

long cpus_quota(const char *root)
{
    long limit = 0;
    long period = 0;
    long ignored;
    int count = read_numbers(root, "cpu.max", &limit, &period); /* Or "max 100000". */

    if (count < 0) {
        count = read_numbers(root, "cpu/cpu.cfs_quota_us", &limit, &ignored); /* Or -1. */
        count += read_numbers(root, "cpu/cpu.cfs_period_us", &period, &ignored);
    }
    return count == 2 && limit > 0 && period > 0 ? (limit - 1) / period + 1 : 0;
}

int cpus_usable(const char *root)
{
    long allowed = cpus_quota(root);
    cpu_set_t set;
    int count = 1;

    if (sched_getaffinity(0, sizeof(set), &set) == 0) {
        count = CPU_COUNT(&set);
    }
    return allowed > 0 && allowed < count ? (int)allowed : count;
}
