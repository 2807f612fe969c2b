/* SPDX-License-Identifier: MIT */
/* Pages: see page.h. */
#include "curfewd/routes/page.h"

#include "curfewd/routes/routes.h"

enum cf_code page_read(const struct cf_http *http, struct page *out, struct cf_err *err)
{
    struct page page;
    enum cf_code code;

    code = cf_http_query_i64(http, "limit", PAGE_MIN, PAGE_MAX, PAGE_DEFAULT, &page.limit, err);
    if (code != CF_OK) {
        return code;
    }
    code = cf_http_query_i64(http, "after", 1, INT64_MAX, 0, &page.after, err);
    if (code == CF_OK) {
        *out = page;
    }
    return code;
}

void page_write(struct cf_http *http, const struct page *page, const struct cf_pg_rows *rows,
                void (*write)(struct cf_json *json, const struct cf_pg_rows *rows, size_t row))
{
    struct cf_json *json = cf_http_reply_json(http, 200);
    size_t limit = (size_t)page->limit;
    size_t count = cf_pg_rows_count(rows);
    bool more = count > limit;

    cf_json_object(json);
    cf_json_key(json, "data");
    cf_json_array(json);
    for (size_t row = 0; row < count && row < limit; row++) {
        write(json, rows, row);
    }
    cf_json_end(json);
    cf_json_key(json, "next");
    if (more) {
        cf_json_i64(json, cf_pg_get_i64(rows, limit - 1, 0));
    } else {
        cf_json_null(json);
    }
    cf_json_end(json);
}
