/* SPDX-License-Identifier: MIT */
/* Requests and rows made by hand: see request.h. */
#include "request.h"

#include <check.h>
#include <endian.h>
#include <libpq-fe.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "curfew/http/server_private.h"
#include "curfewd/routes/routes.h"

#define EPOCH_2000_US INT64_C(946684800000000)

struct request {
    struct cf_http http; /* First: this is what callers hold. */
    struct cf_http_server server;
    struct cf__shard shard;
    struct cf__connection connection;
    struct cf_http_route routes[ROUTES_MAX];
};

struct cf_http *request_new(struct app *app, const char *target)
{
    struct request *request = aligned_alloc(alignof(struct request), sizeof(*request));
    struct cf_http *http = &request->http;
    struct cf_err err = {.code = CF_OK};
    unsigned allowed;
    size_t count;

    ck_assert_ptr_nonnull(request);
    memset(request, 0, sizeof(*request));
    request->server.options.app = app;
    request->shard.server = &request->server;
    request->connection.shard = &request->shard;
    http->connection = &request->connection;
    http->last_header = &http->headers;
    cf_json_init(&http->json);
    cf__arena_init(&http->arena, http->first, sizeof(http->first));

    count = routes_api(&(struct routes_options){.demo = true}, request->routes);
    ck_assert_int_eq(cf__router_new(request->routes, count, &request->server.router, &err), CF_OK);
    ck_assert_msg(cf__target_decode(target, &http->arena, &http->target, &err) == CF_OK, "%s",
                  err.msg);
    http->route = cf__router_find(request->server.router, CF__GET, &http->target, &allowed);
    ck_assert_msg(http->route != NULL, "no route for %s", target);
    for (size_t i = 0; i < http->route->n_params; i++) {
        const struct cf__segment *segment = &http->target.segments[http->route->params[i].segment];

        http->params[i] = cf__arena_copy(&http->arena, segment->text, segment->size);
        ck_assert_ptr_nonnull(http->params[i]);
    }
    return http;
}

void request_free(struct cf_http *http)
{
    struct request *request = (struct request *)http;

    cf_json_fini(&http->json);
    cf_value_unref(http->text_owner);
    cf_value_unref(http->gzip_owner);
    cf__arena_fini(&http->arena);
    cf__router_free(request->server.router);
    free(request);
}

enum cf_code request_handle(struct cf_http *http, struct cf_err *err)
{
    return http->route->route->handler(NULL, http, err);
}

int request_status(const struct cf_http *http)
{
    ck_assert(http->has_reply);
    return http->status;
}

json_t *request_body(struct cf_http *http)
{
    const char *data;
    size_t size;
    json_t *body;

    ck_assert(http->has_reply);
    ck_assert_int_eq(cf_json_finish(&http->json, &data, &size, NULL), CF_OK);
    body = json_loadb(data, size, JSON_REJECT_DUPLICATES, NULL);
    ck_assert_ptr_nonnull(body);
    return body;
}

const char *request_header(const struct cf_http *http, const char *name)
{
    const struct cf__reply_header *header = http->headers;

    while (header != NULL && strcmp(header->name, name) != 0) {
        header = header->next;
    }
    return header != NULL ? header->value : NULL;
}

struct cf_pg_rows *rows_new(const char *types)
{
    PGresult *result = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    char name[] = "column";
    PGresAttDesc columns[16];
    size_t n = strlen(types);

    ck_assert_ptr_nonnull(result);
    ck_assert_uint_le(n, sizeof(columns) / sizeof(columns[0]));
    for (size_t i = 0; i < n; i++) {
        columns[i] = (PGresAttDesc){.name = name,
                                    .format = 1,
                                    .typid = types[i] == 'i'   ? 20
                                             : types[i] == 't' ? 25
                                                               : 1184,
                                    .typlen = -1};
    }
    ck_assert_int_eq(PQsetResultAttrs(result, (int)n, columns), 1);
    return (struct cf_pg_rows *)result;
}

void rows_add(struct cf_pg_rows *rows, ...)
{
    PGresult *result = (PGresult *)rows;
    int row = PQntuples(result);
    va_list args;

    va_start(args, rows);
    for (int column = 0; column < PQnfields(result); column++) {
        Oid type = PQftype(result, column);
        const char *text;
        uint64_t number;

        if (type == 25) {
            text = va_arg(args, const char *);
            ck_assert_int_eq(
                PQsetvalue(result, row, column, (char *)(uintptr_t)text, (int)strlen(text)), 1);
        } else {
            number = htobe64(
                (uint64_t)(va_arg(args, int64_t) - (type == 1184 ? EPOCH_2000_US : INT64_C(0))));
            ck_assert_int_eq(PQsetvalue(result, row, column, (char *)&number, sizeof(number)), 1);
        }
    }
    va_end(args);
}

void rows_null(struct cf_pg_rows *rows, size_t row, size_t column)
{
    ck_assert_int_eq(PQsetvalue((PGresult *)rows, (int)row, (int)column, NULL, -1), 1);
}
