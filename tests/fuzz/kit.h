/* SPDX-License-Identifier: MIT */
/* What a fuzz target is made of.
 *
 * A target reads bytes of any kind as its subject would, and checks what the subject promises
 * against an oracle that was written without looking at it. Under libFuzzer (`make fuzz`) it is the
 * program's entry; in the unit tests it is a function, which replays what is in corpus/<name>/.
 *
 *     FUZZ_TARGET(utf8)
 *     {
 *         FUZZ_CHECK(cf__utf8_valid((const char *)data, size) == ...);
 *         return 0;
 *     }
 *
 * Thread safety: one thread. */
#ifndef KIT_H
#define KIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <curfew/base.h>

#ifdef CF_FUZZ
#define FUZZ_TARGET(name) int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
#else
#define FUZZ_TARGET(name) int fuzz_##name(const uint8_t *data, size_t size)
#endif

/* A promise that was not kept ends the process, or the unit test. */
#define FUZZ_CHECK(promise) ((promise) ? (void)0 : fuzz_failed(__FILE__, __LINE__, #promise))

_Noreturn void fuzz_failed(const char *file, int line, const char *promise);

/* A string of the bytes up to the first NUL or the end, in a block of just that size, so that ASan
 * sees who reads on. The caller frees it. */
char *fuzz_string(const uint8_t *data, size_t size);

/* Whether it is UTF-8, by jansson. */
bool fuzz_is_utf8(const char *text, size_t size);

/* Whether it holds a byte below 0x20, or 0x7F. */
bool fuzz_has_control(const char *text, size_t size);

/* Wide enough for twenty digits of nanoseconds: long double is a double under valgrind. */
__extension__ typedef __int128 fuzz_wide;

/* The digits that the text begins with, at most 10^29; *out_end is behind them. */
fuzz_wide fuzz_digits(const char *text, const char **out_end);

/* Whether all of it matches an extended regular expression, compiled once for each `pattern`,
 * which is a string literal. */
bool fuzz_matches(const char *pattern, const char *text);

#endif
