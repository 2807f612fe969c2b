/* SPDX-License-Identifier: MIT */
/* What the layers above core do with errors that others' functions have filled. */
#ifndef CURFEW_CORE_ERR_PRIVATE_H
#define CURFEW_CORE_ERR_PRIVATE_H

#include <curfew/err.h>

/* Have *err say `code`, a failure, if who returned it did not say what. */
static inline void cf__err_settle(struct cf_err *err, enum cf_code code)
{
    if (err->code != code) {
        (void)cf_err_set(err, code, "%s", cf_code_text(code));
    }
}

/* Hand out `from`, a failure, by `err`, which may be NULL. Returns its code. */
static inline enum cf_code cf__err_give(struct cf_err *err, const struct cf_err *from)
{
    if (err != NULL) {
        *err = *from;
    }
    return from->code;
}

#endif
