/* SPDX-License-Identifier: MIT */
/* Orders as text: see encode.h. */
#include "curfewd/export/encode.h"

#include <string.h>

#include "curfewd/export/csv.h"

/* No record is longer: three integers of 20 characters, a status, a time, and the names of all. */
#define RECORD_SIZE_MAX 512

/* Internal helpers */

static enum cf_code finish(struct cf_json *json, const char **out_data, size_t *out_size,
                           struct cf_err *err)
{
    enum cf_code code = cf_json_finish(json, out_data, out_size, err);

    CF_ASSERT(code != CF_OK || *out_size < RECORD_SIZE_MAX);
    return code;
}

static enum cf_code add_json(struct encoder *encoder, const struct store_order_row *order,
                             struct cf_err *err)
{
    struct cf_json *json = &encoder->json;
    struct export_block *block = &encoder->block;
    const char *data;
    size_t size;
    enum cf_code code;

    cf_json_reset(json);
    store_write_order_row(json, order);
    code = finish(json, &data, &size, err);
    if (code == CF_OK) {
        memcpy(block->text + block->size, data, size);
        block->text[block->size + size] = '\n';
        block->size += size + 1;
    }
    return code;
}

/* A time as it is in JSON, without the quotes; empty where that has null. */
static enum cf_code time_text(struct cf_json *json, int64_t us, char *out, size_t out_size,
                              struct cf_err *err)
{
    const char *data;
    size_t size;
    enum cf_code code;

    cf_json_reset(json);
    cf_json_time_us(json, us);
    code = finish(json, &data, &size, err);
    if (code != CF_OK) {
        return code;
    }
    out[0] = '\0';
    if (data[0] == '"') {
        CF_ASSERT(size - 2 < out_size);
        memcpy(out, data + 1, size - 2);
        out[size - 2] = '\0';
    }
    return CF_OK;
}

static struct csv csv_of(struct export_block *block)
{
    return (struct csv){.out = block->text, .capacity = sizeof(block->text), .size = block->size};
}

static enum cf_code add_csv(struct encoder *encoder, const struct store_order_row *order,
                            struct cf_err *err)
{
    struct csv csv = csv_of(&encoder->block);
    char created_at[40];
    enum cf_code code =
        time_text(&encoder->json, order->created_at_us, created_at, sizeof(created_at), err);

    if (code != CF_OK) {
        return code;
    }
    csv_i64(&csv, order->id);
    csv_i64(&csv, order->user_id);
    csv_text(&csv, order->status);
    csv_i64(&csv, order->total_cents);
    csv_text(&csv, created_at);
    csv_end(&csv);
    CF_ASSERT(!csv.is_full);
    encoder->block.size = csv.size;
    return CF_OK;
}

static void add_csv_header(struct export_block *block)
{
    static const char *const names[] = {"id", "user_id", "status", "total_cents", "created_at"};
    struct csv csv = csv_of(block);

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        csv_text(&csv, names[i]);
    }
    csv_end(&csv);
    block->size = csv.size;
}

/* Life cycle */

void encoder_init(struct encoder *encoder, enum export_format format)
{
    encoder->format = format;
    encoder->rows = 0;
    encoder->block.size = 0;
    cf_json_init(&encoder->json);
    if (format == EXPORT_CSV) {
        add_csv_header(&encoder->block);
    }
}

void encoder_fini(struct encoder *encoder)
{
    cf_json_fini(&encoder->json);
}

/* Operations */

enum cf_code encoder_add(struct encoder *encoder, const struct store_order_row *order,
                         struct cf_err *err)
{
    enum cf_code code;

    CF_ASSERT(!encoder_is_full(encoder));
    code = encoder->format == EXPORT_CSV ? add_csv(encoder, order, err)
                                         : add_json(encoder, order, err);
    encoder->rows += code == CF_OK;
    return code;
}

bool encoder_is_full(const struct encoder *encoder)
{
    return encoder->block.size + RECORD_SIZE_MAX > sizeof(encoder->block.text);
}
