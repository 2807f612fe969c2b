/* SPDX-License-Identifier: MIT */
/* Reading JSON with jansson, on a fiber's stack and where memory may be short.
 *
 * jansson (2.14) takes a stack frame for each level, up to 2,048 of them. Where it lacks memory it
 * mostly gives up without saying why; and for one more byte of a number or a string it goes on
 * without that byte, so that it reads another number than was written. */
#ifndef CURFEW_HTTP_JANSSON_H
#define CURFEW_HTTP_JANSSON_H

#include <jansson.h>

#include <curfew/err.h>

/* Levels of arrays and objects. */
#define CF__JANSSON_LEVELS_MAX 64

/* Read a JSON text. The caller owns *out. Waits for nothing, and parks nowhere.
 * Fails with CF_EINVAL (not JSON, a name twice, too many levels), CF_ENOMEM. */
CF_MUST enum cf_code cf__jansson_read(const char *text, size_t size, json_t **out,
                                      struct cf_err *err);

#endif
