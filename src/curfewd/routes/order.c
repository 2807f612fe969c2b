/* SPDX-License-Identifier: MIT */
/* GET and PATCH /v1/orders/{id}, and POST /v1/orders.
 *
 * A POST has an Idempotency-Key, and its answer is kept with the order, in the transaction that
 * makes it: whoever lost the answer, because its time was out, the connection broke or the service
 * died, sends the same again and gets it. Two of one key at once: the second waits for the first,
 * under its own deadline, and gets its answer. A refusal is not kept, for nothing was done.
 *
 * A PATCH has an If-Match: it changes the order that its client has seen, or none. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include <curfew/pg_tx.h>

#include "curfewd/cache/dashboards.h"
#include "curfewd/routes/body.h"
#include "curfewd/routes/routes.h"
#include "curfewd/store/status.h"
#include "curfewd/store/store.h"

/* Constants and types */

/* Room for the longest number in quotes, and for the path of one. */
#define ETAG_SIZE 24
#define LOCATION_SIZE 40

/* Internal helpers: replies */

static void write_etag(const struct cf_pg_rows *rows, char out[ETAG_SIZE])
{
    (void)snprintf(out, ETAG_SIZE, "\"%" PRId64 "\"", store_order_version(rows));
}

static void reply_order(struct cf_http *http, const struct cf_pg_rows *rows)
{
    char etag[ETAG_SIZE];
    bool is_known;

    write_etag(rows, etag);
    is_known = strcmp(cf_http_method(http), "PATCH") != 0 && cf_http_has_etag(http, etag);
    store_write_order(cf_http_reply_json(http, is_known ? 304 : 200), rows, 0);
    cf_http_reply_header(http, "ETag", etag);
}

static void reply_answer(struct cf_http *http, const struct store_answer *answer)
{
    struct cf_json *json = cf_http_reply_json(http, answer->status);

    cf_json_raw(json, answer->body, strlen(answer->body));
    cf_http_reply_header(http, "Location", answer->location);
    cf_http_reply_header(http, "ETag", answer->etag);
}

/* Internal helpers: the end of a write */

/* Commit, and have the next dashboard show it, of this instance at once: the others are told by the
 * database. Also if nobody can say whether it was done. */
static enum cf_code commit(struct cf_ctx *ctx, struct cf_http *http, struct cf_pg_tx *own_tx,
                           int64_t user_id, struct cf_err *err)
{
    const struct app *app = cf_http_app(http);
    enum cf_code code = cf_pg_commit(ctx, own_tx, err);

    dashboards_drop(app->dashboards, user_id);
    return code;
}

/* Internal helpers: the key */

static enum cf_code refuse_key(struct cf_err *err)
{
    return cf_err_set(
        err, CF_EINVAL,
        "Idempotency-Key must be 1 to %d visible characters, such as a UUID, once for "
        "each order that is wanted",
        ORDER_KEY_SIZE_MAX);
}

/* A string as structured fields have it, "in quotes", as the draft asks for, or the bare text that
 * most clients send. */
static enum cf_code read_key(const struct cf_http *http, char out[ORDER_KEY_SIZE_MAX + 1],
                             struct cf_err *err)
{
    const char *at = cf_http_header(http, "Idempotency-Key");
    bool is_quoted = at != NULL && at[0] == '"';
    size_t n = 0;

    for (at = at != NULL ? at + is_quoted : ""; *at != '\0' && *at != '"'; at++) {
        if (is_quoted && *at == '\\') {
            at++;
            if (*at != '\\' && *at != '"') {
                return refuse_key(err);
            }
        }
        if (n == ORDER_KEY_SIZE_MAX || *at < (is_quoted ? 0x20 : 0x21) || *at > 0x7E) {
            return refuse_key(err);
        }
        out[n++] = *at;
    }
    if (n == 0 || (is_quoted ? strcmp(at, "\"") != 0 : *at != '\0')) {
        return refuse_key(err);
    }
    out[n] = '\0';
    return CF_OK;
}

/* Internal helpers: adding one */

static enum cf_code read_new(struct cf_http *http, struct store_order_wish *out, struct cf_err *err)
{
    static const char *const members[] = {"user_id", "status", "total_cents"};
    struct store_order_wish wish = {.status = store_statuses[0]};
    json_t *body;
    enum cf_code code = body_read(http, "application/json", members, 3, &body, err);

    if (code != CF_OK) {
        return code;
    }
    code = body_i64(http, body, "user_id", 1, INT64_MAX, &wish.user_id, err);
    if (code == CF_OK) {
        code = body_i64(http, body, "total_cents", 0, STORE_CENTS_MAX, &wish.total_cents, err);
    }
    if (code == CF_OK && body_has(body, "status")) {
        code = body_choice(http, body, "status", store_statuses, STORE_STATUS_COUNT, &wish.status,
                           err);
    }
    json_decref(body);
    if (code == CF_OK) {
        *out = wish;
    }
    return code;
}

/* Write an order as the reply, and as the text that is kept. */
static enum cf_code write_answer(struct cf_http *http, const struct cf_pg_rows *rows,
                                 const char **out, struct cf_err *err)
{
    struct cf_json *json = cf_http_reply_json(http, 201);
    const char *data;
    size_t size;
    char *text;
    enum cf_code code;

    store_write_order(json, rows, 0);
    code = cf_json_finish(json, &data, &size, err);
    if (code != CF_OK) {
        return code;
    }
    text = cf_http_alloc(http, size + 1); /* The writer's is not terminated. */
    if (text == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for an answer");
    }
    memcpy(text, data, size);
    *out = text;
    return CF_OK;
}

/* Make the order and its answer, which becomes the reply. */
static enum cf_code place(struct cf_ctx *ctx, struct cf_http *http, struct cf_pg_tx *tx,
                          const struct store_request *request, const struct store_order_wish *wish,
                          struct cf_err *err)
{
    char location[LOCATION_SIZE];
    char etag[ETAG_SIZE];
    struct store_answer answer = {.status = 201, .location = location, .etag = etag};
    struct cf_pg_rows *rows;
    enum cf_code code = store_add_order(ctx, tx, wish, &rows, err);

    if (code == CF_ENOTFOUND) {
        return body_refuse(http, err, "user_id: there is no user %" PRId64, wish->user_id);
    }
    if (code != CF_OK) {
        return code;
    }
    (void)snprintf(location, sizeof(location), "/v1/orders/%" PRId64, store_order_id(rows));
    write_etag(rows, etag);
    code = write_answer(http, rows, &answer.body, err);
    cf_pg_rows_free(rows);
    if (code == CF_OK) {
        code = store_keep_answer(ctx, tx, request, &answer, err);
    }
    if (code == CF_OK) {
        cf_http_reply_header(http, "Location", location);
        cf_http_reply_header(http, "ETag", etag);
    }
    return code;
}

static enum cf_code answer_again(struct cf_ctx *ctx, struct cf_http *http, struct cf_pg_tx *tx,
                                 const struct store_request *request, struct cf_err *err)
{
    struct store_answer answer;
    struct cf_pg_rows *rows;
    enum cf_code code = store_find_answer(ctx, tx, request, &answer, &rows, err);

    if (code == CF_ECONFLICT) {
        return body_refuse(http, err, "Idempotency-Key came with another body before");
    }
    if (code == CF_OK) {
        reply_answer(http, &answer);
        cf_pg_rows_free(rows);
    }
    return code;
}

/* Internal helpers: changing one */

static enum cf_code read_change(struct cf_http *http, struct store_order_wish *out,
                                struct cf_err *err)
{
    static const char *const members[] = {"status", "total_cents"};
    struct store_order_wish wish = {.total_cents = -1};
    json_t *body;
    enum cf_code code = body_read(http, "application/merge-patch+json", members, 2, &body, err);

    if (code != CF_OK) {
        return code;
    }
    if (json_object_size(body) == 0) {
        code = body_refuse(http, err, "there is no member to change: status, total_cents");
    }
    if (code == CF_OK && body_has(body, "status")) {
        code = body_choice(http, body, "status", store_statuses, STORE_STATUS_COUNT, &wish.status,
                           err);
    }
    if (code == CF_OK && body_has(body, "total_cents")) {
        code = body_i64(http, body, "total_cents", 0, STORE_CENTS_MAX, &wish.total_cents, err);
    }
    json_decref(body);
    if (code == CF_OK) {
        *out = wish;
    }
    return code;
}

/* Change it, if it is what the client has seen; it becomes the reply. Fills in whose it is. */
static enum cf_code change(struct cf_ctx *ctx, struct cf_http *http, struct cf_pg_tx *tx,
                           int64_t id, struct store_order_wish *wish, struct cf_err *err)
{
    char etag[ETAG_SIZE];
    struct cf_pg_rows *rows;
    enum cf_code code = store_lock_order(ctx, tx, id, &rows, err);

    if (code != CF_OK) {
        return code;
    }
    write_etag(rows, etag);
    wish->user_id = store_order_user_id(rows);
    cf_pg_rows_free(rows);
    if (!cf_http_matches(http, etag)) {
        return cf_http_fail_as(
            http, 412, cf_err_set(err, CF_ECONFLICT, "order %" PRId64 " is now %s", id, etag));
    }
    code = store_change_order(ctx, tx, id, wish, &rows, err);
    if (code == CF_OK) {
        reply_order(http, rows);
        cf_pg_rows_free(rows);
    }
    return code;
}

/* Handlers */

enum cf_code order_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct cf_pg_rows *rows;
    enum cf_code code;
    int64_t id;

    code = cf_http_param_i64(http, "id", 1, INT64_MAX, &id, err);
    if (code == CF_OK) {
        code = store_order(ctx, route_pg(http), id, &rows, err);
    }
    if (code == CF_OK) {
        reply_order(http, rows);
        cf_pg_rows_free(rows);
    }
    return code;
}

enum cf_code orders_post(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    const struct app *app = cf_http_app(http);
    char key[ORDER_KEY_SIZE_MAX + 1];
    struct store_request request = {.route = "POST /v1/orders",
                                    .key = key,
                                    .text = cf_http_body(http, NULL),
                                    .keep_ns = app->idempotency_ttl_ns};
    struct store_order_wish wish;
    struct cf_pg_tx *tx;
    bool claimed;
    enum cf_code code = read_key(http, key, err);

    if (code == CF_OK) {
        code = read_new(http, &wish, err);
    }
    if (code == CF_OK) {
        code = cf_pg_begin(ctx, app->pg, NULL, &tx, err);
    }
    if (code != CF_OK) {
        return code;
    }
    code = store_claim(ctx, tx, &request, &claimed, err);
    if (code == CF_OK && claimed) {
        code = place(ctx, http, tx, &request, &wish, err);
    } else if (code == CF_OK) {
        code = answer_again(ctx, http, tx, &request, err);
    }
    if (code != CF_OK) {
        cf_pg_rollback(tx);
        return code;
    }
    return commit(ctx, http, tx, wish.user_id, err);
}

enum cf_code order_patch(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct store_order_wish wish;
    struct cf_pg_tx *tx;
    int64_t id;
    enum cf_code code = cf_http_param_i64(http, "id", 1, INT64_MAX, &id, err);

    if (code == CF_OK && cf_http_header(http, "If-Match") == NULL) {
        code = cf_http_fail_as(
            http, 428,
            cf_err_set(err, CF_EINVAL, "If-Match must be the ETag of the order to change"));
    }
    if (code == CF_OK) {
        code = read_change(http, &wish, err);
    }
    if (code == CF_OK) {
        code = cf_pg_begin(ctx, route_pg(http), NULL, &tx, err);
    }
    if (code != CF_OK) {
        return code;
    }
    code = change(ctx, http, tx, id, &wish, err);
    if (code != CF_OK) {
        cf_pg_rollback(tx);
        return code;
    }
    return commit(ctx, http, tx, wish.user_id, err);
}
