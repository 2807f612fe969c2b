/* SPDX-License-Identifier: MIT */
/* Pages of a list: ?limit= rows behind the one whose id is ?after=.
 *
 * A page is asked for with one row more than it shows: if that comes, there is a next page. Its
 * cursor is the id of the last row shown. The first column of the rows is their id. */
#ifndef CURFEWD_ROUTES_PAGE_H
#define CURFEWD_ROUTES_PAGE_H

#include <curfew/http.h>
#include <curfew/pg.h>

struct page {
    int64_t limit;
    int64_t after; /* 0: from the beginning. */
};

/* Fails with CF_EINVAL. */
CF_MUST enum cf_code page_read(const struct cf_http *http, struct page *out, struct cf_err *err);

/* Reply {"data": [...], "next": id or null} from up to limit + 1 rows. */
void page_write(struct cf_http *http, const struct page *page, const struct cf_pg_rows *rows,
                void (*write)(struct cf_json *json, const struct cf_pg_rows *rows, size_t row));

#endif
