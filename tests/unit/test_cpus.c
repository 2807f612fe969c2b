/* SPDX-License-Identifier: MIT */
/* Quotas as the kernel writes them, on files of the test's own. */
#include "curfewd/cpus.h"

#include <check.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* Fixture: a directory that looks like /sys/fs/cgroup. */

static const char *const names[] = {"cpu.max", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"};
static char root[PATH_MAX];

static const char *path_of(const char *name)
{
    static char path[PATH_MAX + 32];

    (void)snprintf(path, sizeof(path), "%s/%s", root, name);
    return path;
}

static void setup(void)
{
    const char *parent = getenv("TMPDIR");

    (void)snprintf(root, sizeof(root), "%s/curfew-cpus-XXXXXX", parent != NULL ? parent : P_tmpdir);
    ck_assert_ptr_nonnull(mkdtemp(root));
    ck_assert_int_eq(mkdir(path_of("cpu"), 0700), 0);
}

static void teardown(void)
{
    for (size_t i = 0; i < LENGTH(names); i++) {
        (void)unlink(path_of(names[i]));
    }
    (void)rmdir(path_of("cpu"));
    (void)rmdir(root);
}

/* Helpers */

static void write_file(const char *name, const char *text)
{
    FILE *file = fopen(path_of(name), "w");

    ck_assert_ptr_nonnull(file);
    ck_assert_int_ge(fputs(text, file), 0);
    ck_assert_int_eq(fclose(file), 0);
}

/* quota */

static const struct {
    const char *texts[LENGTH(names)]; /* Of cpu.max, and the quota and period of version 1. */
    long quota;
} groups[] = {
    /* No group, or one without a limit. */
    {{NULL}, 0},
    {{"max 100000\n"}, 0},
    {{NULL, "-1\n", "100000\n"}, 0},
    /* Rounded up: a process that may use half of a processor has one. */
    {{"1 100000\n"}, 1},
    {{"50000 100000\n"}, 1},
    {{"100000 100000\n"}, 1},
    {{"100001 100000\n"}, 2},
    {{"150000 100000\n"}, 2},
    {{"200000 100000\n"}, 2},
    {{"200001 100000\n"}, 3},
    {{NULL, "150000\n", "100000\n"}, 2},
    /* A period of another length. */
    {{"100000 25000\n"}, 4},
    {{"100000 1000000\n"}, 1},
    {{NULL, "100000\n", "25000\n"}, 4},
    {{NULL, "100000\n", "1000000\n"}, 1},
    /* Version 2 is what counts where both are. */
    {{"200000 100000\n", "300000\n", "100000\n"}, 2},
    {{"max 100000\n", "300000\n", "100000\n"}, 0},
    /* What the kernel never writes. */
    {{""}, 0},
    {{"many\n"}, 0},
    {{"100000\n"}, 0},
    {{"0 100000\n"}, 0},
    {{"-1 100000\n"}, 0},
    {{"100000 0\n"}, 0},
    {{"100000 -1\n"}, 0},
    {{NULL, "100000\n"}, 0},
    {{NULL, "", "100000\n"}, 0},
    {{NULL, "100000\n", "0\n"}, 0},
    {{"9223372036854775807 9223372036854775807\n"}, 1},
    {{"9223372036854775807 2\n"}, 4611686018427387904},
};

START_TEST(quota_of_group_is_in_processors)
{
    for (size_t i = 0; i < LENGTH(names); i++) {
        if (groups[_i].texts[i] != NULL) {
            write_file(names[i], groups[_i].texts[i]);
        }
    }
    ck_assert_int_eq(cpus_quota(root), groups[_i].quota);
}
END_TEST

/* usable */

START_TEST(usable_is_bounded_by_affinity)
{
    cpu_set_t all;
    cpu_set_t one;
    int cpu = 0;

    ck_assert_int_eq(sched_getaffinity(0, sizeof(all), &all), 0);
    ck_assert_int_eq(cpus_usable(root), CPU_COUNT(&all));
    while (!CPU_ISSET(cpu, &all)) {
        cpu++;
    }
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    ck_assert_int_eq(sched_setaffinity(0, sizeof(one), &one), 0);
    ck_assert_int_eq(cpus_usable(root), 1);
    ck_assert_int_eq(sched_setaffinity(0, sizeof(all), &all), 0);
}
END_TEST

START_TEST(usable_is_bounded_by_quota)
{
    cpu_set_t all;

    ck_assert_int_eq(sched_getaffinity(0, sizeof(all), &all), 0);
    write_file("cpu.max", "1 100000\n");
    ck_assert_int_eq(cpus_usable(root), 1);
    write_file("cpu.max", "100000000 100000\n"); /* Of more than there are. */
    ck_assert_int_le(CPU_COUNT(&all), 1000);
    ck_assert_int_eq(cpus_usable(root), CPU_COUNT(&all));
    ck_assert_int_ge(cpus_usable(CPUS_CGROUP), 1);
}
END_TEST

Suite *suite_cpus(void)
{
    Suite *suite = suite_create("cpus");
    TCase *quota = tcase_create("quota");
    TCase *usable = tcase_create("usable");

    tcase_add_checked_fixture(quota, setup, teardown);
    tcase_add_loop_test(quota, quota_of_group_is_in_processors, 0, LENGTH(groups));
    suite_add_tcase(suite, quota);

    tcase_add_checked_fixture(usable, setup, teardown);
    tcase_add_test(usable, usable_is_bounded_by_affinity);
    tcase_add_test(usable, usable_is_bounded_by_quota);
    suite_add_tcase(suite, usable);
    return suite;
}
