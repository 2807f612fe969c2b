/* SPDX-License-Identifier: MIT */
/* The interface's description (OpenAPI 3.1), as it is served:
 * openapi.json, which is a part of the binary.
 *
 * Thread safety: constant after new. */
#ifndef CURFEWD_OPENAPI_H
#define CURFEWD_OPENAPI_H

#include <curfew/value.h>

#include "curfewd/etag.h"

/* The document as it stands in the binary: not terminated. */
extern const char openapi_text[];
extern const char openapi_end[];

struct openapi {
    struct cf_value *plain;
    struct cf_value *gzip;
    char etag[ETAG_SIZE];
};

/* Make it ready to be sent. Fails with CF_ENOMEM. Ownership: the caller owns *out. */
CF_MUST enum cf_code openapi_new(struct openapi **out, struct cf_err *err);
void openapi_free(struct openapi *openapi); /* NULL is allowed. */

#endif
