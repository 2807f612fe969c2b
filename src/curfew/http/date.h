/* SPDX-License-Identifier: MIT */
/* The Date of a reply (RFC 9110, 5.6.7: IMF-fixdate), whatever the locale.
 *
 *     char date[CF__DATE_SIZE];
 *
 *     cf__date_write(784111777, date);     Sun, 06 Nov 1994 08:49:37 GMT
 *
 * Thread safety: any thread. */
#ifndef CURFEW_HTTP_DATE_H
#define CURFEW_HTTP_DATE_H

#include <time.h>

/* With the NUL. */
#define CF__DATE_SIZE 30

/* Write an instant from 1970 to 9999; what is outside of it becomes its nearer end. */
void cf__date_write(time_t at, char out[CF__DATE_SIZE]);

#endif
