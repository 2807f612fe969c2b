/* SPDX-License-Identifier: MIT */
/* The statement that only takes time: see store.h. */
#include "curfewd/store/store.h"

static const struct cf_pg_stmt sleep_for = {
    .name = "sleep_for",
    .sql = "SELECT pg_sleep($1)",
};

enum cf_code store_sleep(struct cf_ctx *ctx, struct cf_pg *pg, double seconds, struct cf_err *err)
{
    struct cf_pg_param params[] = {cf_pg_f64(seconds)};
    struct cf_pg_rows *rows = NULL;
    enum cf_code code = cf_pg_query(ctx, pg, &sleep_for, params, 1, &rows, err);

    cf_pg_rows_free(rows);
    return code == CF_OK ? CF_OK : cf_err_wrap(err, code, "sleep");
}
