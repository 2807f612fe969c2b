/* SPDX-License-Identifier: MIT */
/* What a statement came to, for the files that run them. */
#ifndef CURFEWD_STORE_OUTCOME_H
#define CURFEWD_STORE_OUTCOME_H

#include <curfew/pg.h>

/* The row of a statement that asks for one: "order" `id`. `code` is what it came to.
 *
 * Ownership: takes `own_rows`, which is not looked at if `code` is a failure; the caller owns *out.
 * Fails with `code`, and with CF_ENOTFOUND: there is no row. */
CF_MUST enum cf_code store_one(enum cf_code code, struct cf_pg_rows *own_rows, const char *what,
                               int64_t id, struct cf_pg_rows **out, struct cf_err *err);

/* Whether it failed because what a new row refers to is not there. */
bool store_refers_to_none(enum cf_code code, const struct cf_err *err);

#endif
