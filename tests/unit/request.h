/* SPDX-License-Identifier: MIT */
/* A request without a server, for what the service's handlers do before and after a query; and rows
 * without a database.
 *
 *     struct cf_http *http = request_new(&app, "/v1/users?limit=5");
 *     code = request_handle(http, &err);
 *     body = request_body(http);           // the caller owns it
 *     request_free(http);
 *
 * Thread safety: one owner. */
#ifndef REQUEST_H
#define REQUEST_H

#include <jansson.h>

#include <curfew/http.h>
#include <curfew/pg.h>

#include "curfewd/app.h"

/* A GET of a path that the API has, with the demo's. */
struct cf_http *request_new(struct app *app, const char *target);
void request_free(struct cf_http *http);

/* Run its handler, without a context: one that asks the database does not come back. */
enum cf_code request_handle(struct cf_http *http, struct cf_err *err);
int request_status(const struct cf_http *http);
json_t *request_body(struct cf_http *http);

/* A header that its handler has added, or NULL. */
const char *request_header(const struct cf_http *http, const char *name);

/* Rows whose columns are of these types: 'i' bigint, 't' text, 'z' timestamptz. */
struct cf_pg_rows *rows_new(const char *types);

/* Append a row: an int64_t for 'i' and for 'z', there in microseconds since 1970;
 * a text for 't'. */
void rows_add(struct cf_pg_rows *rows, ...);

/* Make a field NULL. */
void rows_null(struct cf_pg_rows *rows, size_t row, size_t column);

#endif
