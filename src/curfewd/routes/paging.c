/* SPDX-License-Identifier: MIT */
/* Pages: see paging.h. */
#include "curfewd/routes/paging.h"

#include <inttypes.h>
#include <stdio.h>

#include "curfewd/routes/routes.h"

/* Room for what is kept and a cursor, between angle brackets. */
#define LINK_SIZE (PAGING_KEPT_SIZE + 64)

/* Internal helpers */

static void link_next(struct cf_http *http, const struct paging *paging, int64_t after)
{
    char value[LINK_SIZE];

    (void)snprintf(value, sizeof(value), "<?%safter=%" PRId64 ">; rel=\"next\"", paging->kept,
                   after);
    cf_http_reply_header(http, "Link", value);
}

/* Operations */

enum cf_code paging_read(const struct cf_http *http, struct paging *out, struct cf_err *err)
{
    struct paging paging = {.kept_size = 0};
    enum cf_code code;

    code = cf_http_query_i64(http, "limit", PAGE_MIN, PAGE_MAX, PAGE_DEFAULT, &paging.limit, err);
    if (code != CF_OK) {
        return code;
    }
    code = cf_http_query_i64(http, "after", 1, INT64_MAX, 0, &paging.after, err);
    if (code != CF_OK) {
        return code;
    }
    if (cf_http_query(http, "limit") != NULL) {
        paging_keep_i64(&paging, "limit", paging.limit);
    }
    paging_keep(&paging, "timeout", cf_http_query(http, "timeout"));
    *out = paging;
    return CF_OK;
}

void paging_keep_i64(struct paging *paging, const char *name, int64_t value)
{
    char text[24];

    (void)snprintf(text, sizeof(text), "%" PRId64, value);
    paging_keep(paging, name, value != 0 ? text : NULL);
}

void paging_keep(struct paging *paging, const char *name, const char *value)
{
    size_t room = PAGING_KEPT_SIZE - paging->kept_size;
    int n;

    if (value == NULL) {
        return;
    }
    n = snprintf(paging->kept + paging->kept_size, room, "%s=%s&", name, value);
    CF_ASSERT(n > 0 && (size_t)n < room);
    paging->kept_size += (size_t)n;
}

void paging_write(struct cf_http *http, const struct paging *paging, const struct cf_pg_rows *rows,
                  void (*write)(struct cf_json *json, const struct cf_pg_rows *rows, size_t row))
{
    struct cf_json *json = cf_http_reply_json(http, 200);
    size_t limit = (size_t)paging->limit;
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
        int64_t after = cf_pg_get_i64(rows, limit - 1, 0);

        cf_json_i64(json, after);
        link_next(http, paging, after);
    } else {
        cf_json_null(json);
    }
    cf_json_end(json);
}
