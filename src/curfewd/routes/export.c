/* SPDX-License-Identifier: MIT */
/* GET /v1/orders/export?format=ndjson|csv&status=: every order, streamed.
 *
 *     rows ---> keep ---> encode ---> client
 *
 * Stages of a pipeline with bounded channels between them, so that a client that reads slowly slows
 * the rows down, up to the server's process that sends them. When the client leaves or the time is
 * up, the context ends every stage, and the first one's stream has its statement cancelled.
 *
 * An end can be told from a break: NDJSON ends with {"_end":true,"rows":N}, or {"_error":{...}};
 * and what failed has no last chunk. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <curfew/clock.h>
#include <curfew/pipeline.h>
#include <curfew/sem.h>

#include "curfewd/export/encode.h"
#include "curfewd/routes/routes.h"
#include "curfewd/store/export.h"

/* Orders, and blocks of text, between one stage and the next. */
#define ORDERS_WAITING 64
#define BLOCKS_WAITING 2

/* What a client that is one too many should wait. */
#define RETRY_NS (5 * CF_SECOND)

struct export
{
    struct cf_http *http;
    const char *status; /* Only these; NULL: all. */
    struct encoder encoder;
    struct export_block block; /* On its way to the client. */
};

static const struct {
    const char *name;
    const char *type;
    const char *disposition;
} formats[EXPORT_FORMATS] = {
    [EXPORT_NDJSON] = {"ndjson", "application/x-ndjson", "attachment; filename=\"orders.ndjson\""},
    [EXPORT_CSV] = {"csv", "text/csv; charset=utf-8; header=present",
                    "attachment; filename=\"orders.csv\""},
};

/* Stages */

static enum cf_code send_batch(struct cf_ctx *ctx, const struct cf_pg_rows *rows,
                               struct cf_outlet *out, struct cf_err *err)
{
    size_t count = cf_pg_rows_count(rows);
    enum cf_code code = CF_OK;

    for (size_t row = 0; row < count && code == CF_OK; row++) {
        struct store_order_copy order;

        code = store_copy_order(rows, row, &order, err);
        if (code == CF_OK) {
            code = cf_outlet_send(ctx, out, &order, err);
        }
    }
    return code;
}

static enum cf_code read_rows(struct cf_ctx *ctx, const void *in, struct cf_outlet *out, void *arg,
                              struct cf_err *err)
{
    struct export *export = arg;
    struct cf_pg_stream *stream;
    struct cf_pg_rows *rows;
    bool is_end = false;
    enum cf_code code = store_stream_orders(ctx, route_pg(export->http), &stream, err);

    (void)in;
    if (code != CF_OK) {
        return code;
    }
    while (code == CF_OK) {
        code = cf_pg_stream_next(ctx, stream, &rows, err);
        if (code == CF_ECLOSED) {
            is_end = true;
        } else if (code == CF_OK) {
            code = send_batch(ctx, rows, out, err);
            cf_pg_rows_free(rows);
        }
    }
    cf_pg_stream_close(stream);
    return is_end ? CF_OK : code;
}

/* Here and not in SQL: no index serves it, so the server would read every row as well. */
static enum cf_code keep(struct cf_ctx *ctx, const void *in, struct cf_outlet *out, void *arg,
                         struct cf_err *err)
{
    const struct export *export = arg;
    const struct store_order_copy *order = in;

    if (export->status != NULL && strcmp(order->status, export->status) != 0) {
        return CF_OK;
    }
    return cf_outlet_send(ctx, out, order, err);
}

static enum cf_code send_block(struct cf_ctx *ctx, struct encoder *encoder, struct cf_outlet *out,
                               struct cf_err *err)
{
    enum cf_code code = cf_outlet_send(ctx, out, &encoder->block, err);

    encoder->block.size = 0;
    return code;
}

static enum cf_code encode(struct cf_ctx *ctx, const void *in, struct cf_outlet *out, void *arg,
                           struct cf_err *err)
{
    struct export *export = arg;
    struct store_order_row order = store_copied_order(in);
    enum cf_code code = encoder_add(&export->encoder, &order, err);

    if (code == CF_OK && encoder_is_full(&export->encoder)) {
        code = send_block(ctx, &export->encoder, out, err);
    }
    return code;
}

static enum cf_code encode_rest(struct cf_ctx *ctx, const void *in, struct cf_outlet *out,
                                void *arg, struct cf_err *err)
{
    struct export *export = arg;

    (void)in;
    return export->encoder.block.size > 0 ? send_block(ctx, &export->encoder, out, err) : CF_OK;
}

/* Internal helpers */

static enum cf_code write_end(struct cf_ctx *ctx, struct export *export, struct cf_err *err)
{
    char line[64];
    int n = snprintf(line, sizeof(line), "{\"_end\":true,\"rows\":%" PRIu64 "}\n",
                     export->encoder.rows);

    if (export->encoder.format != EXPORT_NDJSON) {
        return CF_OK;
    }
    return cf_http_stream_write(ctx, export->http, line, (size_t)n, err);
}

/* The last words of one that fails, for whoever cannot see that the last chunk is missing. */
static void write_error(struct cf_ctx *ctx, struct export *export, enum cf_code code)
{
    struct cf_cause cause = {.reason = CF_REASON_NONE};
    char line[256];
    int n;

    (void)cf_ctx_cause(ctx, &cause);
    n = snprintf(
        line, sizeof(line), "{\"_error\":{\"code\":\"%s\",\"status\":%d,\"request_id\":\"%s\"}}\n",
        cf_code_name(code), cf_http_status(code, cause.reason), cf_http_request_id(export->http));
    if (n < (int)sizeof(line)) {
        (void)cf_http_stream_try_write(export->http, line, (size_t)n);
    }
}

/* Pass the blocks on. *out_began: some were, so that it is too late for another answer. */
static enum cf_code pass_on(struct cf_ctx *ctx, struct export *export, struct cf_pipeline *pipeline,
                            bool *out_began, struct cf_err *err)
{
    for (;;) {
        enum cf_code code = cf_pipeline_recv(ctx, pipeline, &export->block, err);

        if (code == CF_ECLOSED) {
            return write_end(ctx, export, err);
        }
        if (code == CF_OK) {
            *out_began = true;
            code = cf_http_stream_write(ctx, export->http, export->block.text, export->block.size,
                                        err);
        }
        if (code != CF_OK) {
            return code;
        }
    }
}

static enum cf_code run(struct cf_ctx *ctx, struct export *export, struct cf_err *err)
{
    const struct cf_stage stages[] = {
        {.fn = read_rows,
         .arg = export,
         .out_size = sizeof(struct store_order_copy),
         .capacity = ORDERS_WAITING},
        {.fn = keep,
         .arg = export,
         .out_size = sizeof(struct store_order_copy),
         .capacity = ORDERS_WAITING},
        {.fn = encode,
         .end = encode_rest,
         .arg = export,
         .out_size = sizeof(struct export_block),
         .capacity = BLOCKS_WAITING},
    };
    struct cf_pipeline *pipeline;
    bool began = false;
    enum cf_code code =
        cf_pipeline_new(ctx, stages, sizeof(stages) / sizeof(stages[0]), &pipeline, err);

    if (code != CF_OK) {
        return code;
    }
    code = pass_on(ctx, export, pipeline, &began, err);
    cf_pipeline_free(pipeline);
    if (code != CF_OK && began && export->encoder.format == EXPORT_NDJSON) {
        write_error(ctx, export, code);
    }
    return code;
}

/* What the client likes best; NDJSON where it likes both. */
static enum cf_code choose_by_accept(struct cf_http *http, enum export_format *out,
                                     struct cf_err *err)
{
    int csv = cf_http_accepts(http, "text/csv");
    int ndjson = cf_http_accepts(http, "application/x-ndjson");

    if (csv == 0 && ndjson == 0) {
        return cf_http_fail_as(
            http, 406,
            cf_err_set(err, CF_EINVAL, "Accept must allow application/x-ndjson or text/csv"));
    }
    *out = csv > ndjson ? EXPORT_CSV : EXPORT_NDJSON;
    return CF_OK;
}

/* What ?format= says, whatever Accept does, which a browser's address line cannot change. */
static enum cf_code choose_format(struct cf_http *http, enum export_format *out, struct cf_err *err)
{
    const char *name = cf_http_query(http, "format");

    if (name == NULL) {
        return choose_by_accept(http, out, err);
    }
    for (int i = 0; i < EXPORT_FORMATS; i++) {
        if (strcmp(name, formats[i].name) == 0) {
            *out = (enum export_format)i;
            return CF_OK;
        }
    }
    return cf_err_set(err, CF_EINVAL, "format must be ndjson or csv");
}

static void begin_reply(struct cf_http *http, enum export_format format)
{
    cf_http_reply_stream(http, 200, formats[format].type);
    cf_http_reply_header(http, "Content-Disposition", formats[format].disposition);
    cf_http_reply_header(http, "Cache-Control", "no-store");
    cf_http_reply_header(http, "X-Accel-Buffering", "no");
    cf_http_reply_header(http, "Vary", "Accept");
}

/* Handlers */

enum cf_code export_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    struct app *app = cf_http_app(http);
    const char *status;
    enum export_format format = EXPORT_NDJSON;
    struct export *export;
    enum cf_code code = choose_format(http, &format, err);

    if (code == CF_OK) {
        code = route_status(http, &status, err);
    }
    if (code != CF_OK) {
        return code;
    }
    export = cf_http_alloc(http, sizeof(*export));
    if (export == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for an export");
    }
    if (!cf_sem_try_acquire(app->exports, 1)) {
        cf_http_retry_after(http, RETRY_NS);
        return cf_err_set(err, CF_ELIMIT, "too many exports at once");
    }
    export->http = http;
    export->status = status;
    encoder_init(&export->encoder, format);
    begin_reply(http, format);
    code = strcmp(cf_http_method(http), "HEAD") == 0 ? CF_OK : run(ctx, export, err);
    encoder_fini(&export->encoder);
    cf_sem_release(app->exports, 1);
    return code;
}
