/* SPDX-License-Identifier: MIT */
/* See outcome.h. */
#include "curfewd/store/outcome.h"

#include <inttypes.h>
#include <string.h>

/* Of PostgreSQL: foreign_key_violation. */
#define FOREIGN_KEY_VIOLATION "23503"

enum cf_code store_one(enum cf_code code, struct cf_pg_rows *own_rows, const char *what, int64_t id,
                       struct cf_pg_rows **out, struct cf_err *err)
{
    if (code != CF_OK) {
        return cf_err_wrap(err, code, "%s %" PRId64, what, id);
    }
    if (cf_pg_rows_count(own_rows) == 0) {
        cf_pg_rows_free(own_rows);
        return cf_err_set(err, CF_ENOTFOUND, "there is no %s %" PRId64, what, id);
    }
    *out = own_rows;
    return CF_OK;
}

bool store_refers_to_none(enum cf_code code, const struct cf_err *err)
{
    return code == CF_ECONFLICT && strcmp(err->sqlstate, FOREIGN_KEY_VIOLATION) == 0;
}
