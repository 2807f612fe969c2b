/* SPDX-License-Identifier: MIT */
/* What fuzzing has taught: every input in tests/fuzz/corpus, once more. */
#include <check.h>
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "targets.h"

#define CORPUS "tests/fuzz/corpus" /* Tests run where the Makefile is. */

#define DECLARE_TARGET(name) int fuzz_##name(const uint8_t *data, size_t size);
FUZZ_TARGETS(DECLARE_TARGET)
#undef DECLARE_TARGET

static const struct {
    const char *name;
    int (*replay)(const uint8_t *data, size_t size);
} targets[] = {
#define NAME_TARGET(name) {#name, fuzz_##name},
    FUZZ_TARGETS(NAME_TARGET)
#undef NAME_TARGET
};

#define N_TARGETS (sizeof(targets) / sizeof(targets[0]))

/* Helpers */

/* In a block of just that size, as libFuzzer hands it out. The caller frees it. */
static uint8_t *read_input(const char *path, size_t *out_size)
{
    FILE *file = fopen(path, "re");
    uint8_t *data;
    long size;

    ck_assert_msg(file != NULL, "cannot open %s", path);
    ck_assert_int_eq(fseek(file, 0, SEEK_END), 0);
    size = ftell(file);
    rewind(file);
    data = malloc(size > 0 ? (size_t)size : 1);
    ck_assert_ptr_nonnull(data);
    ck_assert_uint_eq(fread(data, 1, (size_t)size, file), (size_t)size);
    ck_assert_int_eq(fclose(file), 0);
    *out_size = (size_t)size;
    return data;
}

/* replay */

START_TEST(replay_keeps_every_promise)
{
    char directory[512];
    struct dirent *entry;
    unsigned count = 0;
    DIR *corpus;

    (void)snprintf(directory, sizeof(directory), CORPUS "/%s", targets[_i].name);
    corpus = opendir(directory);
    ck_assert_msg(corpus != NULL, "no %s", directory);
    while ((entry = readdir(corpus)) != NULL) {
        char path[1024];
        uint8_t *data;
        size_t size;

        if (entry->d_name[0] == '.') {
            continue;
        }
        (void)snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
        data = read_input(path, &size);
        (void)targets[_i].replay(data, size);
        free(data);
        count++;
    }
    (void)closedir(corpus);
    ck_assert_msg(count > 0, "nothing in %s", directory);
}
END_TEST

Suite *suite_corpus(void)
{
    Suite *suite = suite_create("corpus");
    TCase *replay = tcase_create("replay");

    tcase_add_loop_test(replay, replay_keeps_every_promise, 0, N_TARGETS);
    tcase_set_timeout(replay, 30);
    suite_add_tcase(suite, replay);
    return suite;
}
