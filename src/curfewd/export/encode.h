/* SPDX-License-Identifier: MIT */
/* Orders as text, in blocks of a size that is worth sending: NDJSON or CSV.
 *
 * Invariant: a block ends with a whole record, and so does what was sent when a block was the last.
 *
 * Thread safety: one owner. */
#ifndef CURFEWD_EXPORT_ENCODE_H
#define CURFEWD_EXPORT_ENCODE_H

#include <curfew/json.h>

#include "curfewd/store/order_row.h"

#define EXPORT_BLOCK_SIZE 8192

enum export_format {
    EXPORT_NDJSON,
    EXPORT_CSV,
    EXPORT_FORMATS
};

struct export_block {
    size_t size;
    char text[EXPORT_BLOCK_SIZE];
};

struct encoder {
    enum export_format format;
    struct cf_json json; /* One record at a time. */
    uint64_t rows;
    struct export_block block; /* Being filled. */
};

/* Life cycle */

/* Begin; CSV with its header. */
void encoder_init(struct encoder *encoder, enum export_format format);
void encoder_fini(struct encoder *encoder);

/* Operations */

/* Append an order to the block. Fails with CF_ENOMEM. */
CF_MUST enum cf_code encoder_add(struct encoder *encoder, const struct store_order_row *order,
                                 struct cf_err *err);

/* Whether another order may not fit: the block is to be sent, and its size then set to 0. */
bool encoder_is_full(const struct encoder *encoder);

#endif
