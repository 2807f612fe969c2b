/* SPDX-License-Identifier: MIT */
/* Dates: see date.h. The names that strftime() has are those of the locale. */
#include "curfew/http/date.h"

#include <stddef.h>
#include <string.h>

/* 9999-12-31 23:59:59 */
#define LAST ((time_t)253402300799)

void cf__date_write(time_t at, char out[CF__DATE_SIZE])
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct tm tm = {0};

    at = at < 0 ? 0 : at > LAST ? LAST : at;
    (void)gmtime_r(&at, &tm);
    (void)strftime(out, CF__DATE_SIZE, "day, %d mon %Y %H:%M:%S GMT", &tm);
    memcpy(out, days + (ptrdiff_t)3 * tm.tm_wday, 3);
    memcpy(out + 8, months + (ptrdiff_t)3 * tm.tm_mon, 3);
}
