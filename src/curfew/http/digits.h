/* SPDX-License-Identifier: MIT */
/* Integers as text. Replies and log lines are full of them, and printf costs ten times as much.
 *
 * Thread safety: any thread. */
#ifndef CURFEW_HTTP_DIGITS_H
#define CURFEW_HTTP_DIGITS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CF__DIGITS_MAX 20 /* Of a uint64_t. */

/* Write `value` below 100 in two digits. */
static inline void cf__put_pair(char *to, unsigned value)
{
    static const char pairs[] = "00010203040506070809101112131415161718192021222324"
                                "25262728293031323334353637383940414243444546474849"
                                "50515253545556575859606162636465666768697071727374"
                                "75767778798081828384858687888990919293949596979899";

    memcpy(to, pairs + (size_t)value * 2, 2);
}

/* Write the last `n` digits of `value`, with leading zeros. */
static inline void cf__put_digits(char *to, uint64_t value, size_t n)
{
    while (n >= 2) {
        n -= 2;
        cf__put_pair(to + n, (unsigned)(value % 100));
        value /= 100;
    }
    if (n > 0) {
        to[0] = (char)('0' + value % 10);
    }
}

/* Write `value`; returns how many digits, at most CF__DIGITS_MAX. */
static inline size_t cf__put_u64(char *to, uint64_t value)
{
    char digits[CF__DIGITS_MAX];
    size_t at = sizeof(digits);

    while (value >= 100) {
        at -= 2;
        cf__put_pair(digits + at, (unsigned)(value % 100));
        value /= 100;
    }
    if (value >= 10) {
        at -= 2;
        cf__put_pair(digits + at, (unsigned)value);
    } else {
        digits[--at] = (char)('0' + value);
    }
    memcpy(to, digits + at, sizeof(digits) - at);
    return sizeof(digits) - at;
}

#endif
