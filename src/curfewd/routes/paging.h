/* SPDX-License-Identifier: MIT */
/* Pages of a list: ?limit= rows behind the one whose id is ?after=.
 *
 * A page is asked for with one row more than it shows: if that comes, there is a next page. Its
 * cursor is the id of the last row shown. The first column of the rows is their id.
 *
 * Where the next page is, a Link says too (RFC 8288), by a reference that has no more than a query:
 * it holds whatever name, port and path the list has behind a proxy. It asks for the same in the
 * same way: the arguments that the page was asked for with are kept in it. */
#ifndef CURFEWD_ROUTES_PAGING_H
#define CURFEWD_ROUTES_PAGING_H

#include <curfew/http.h>
#include <curfew/pg.h>

/* Room for the arguments that are kept. All of a list's fit (asserted). */
#define PAGING_KEPT_SIZE 160

struct paging {
    int64_t limit;
    int64_t after; /* 0: from the beginning. */
    size_t kept_size;
    char kept[PAGING_KEPT_SIZE]; /* "limit=5&status=paid&" */
};

/* Fails with CF_EINVAL. */
CF_MUST enum cf_code paging_read(const struct cf_http *http, struct paging *out,
                                 struct cf_err *err);

/* Keep an argument, which was found to be right, for the next page;
 * one of 0, or NULL, is not there. */
void paging_keep_i64(struct paging *paging, const char *name, int64_t value);
void paging_keep(struct paging *paging, const char *name, const char *value);

/* Reply {"data": [...], "next": id or null} from up to limit + 1 rows. */
void paging_write(struct cf_http *http, const struct paging *paging, const struct cf_pg_rows *rows,
                  void (*write)(struct cf_json *json, const struct cf_pg_rows *rows, size_t row));

#endif
