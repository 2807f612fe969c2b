/* SPDX-License-Identifier: MIT */
/* Rows of any kind: see store.h. */
#include "curfewd/store/store.h"

void store_write_rows(struct cf_json *json, const struct cf_pg_rows *rows,
                      void (*write)(struct cf_json *json, const struct cf_pg_rows *rows,
                                    size_t row))
{
    cf_json_array(json);
    for (size_t row = 0; row < cf_pg_rows_count(rows); row++) {
        write(json, rows, row);
    }
    cf_json_end(json);
}
