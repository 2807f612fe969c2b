/* SPDX-License-Identifier: MIT */
/* CSV as RFC 4180 has it, appended to memory of the caller's: quotes where they are needed, CRLF.
 *
 * A text that a spreadsheet would take for a formula, because it begins with = + - @, a tab or a
 * CR, gets an apostrophe in front. Numbers do not: -5 is a number.
 *
 * Invariant: never writes beyond `capacity`. What did not fit is remembered in `is_full`, so that a
 * record of many fields needs one check, and the text is then not to be used.
 *
 *     csv_i64(&csv, 7);
 *     csv_text(&csv, "=cmd");
 *     csv_end(&csv);            // 7,'=cmd CR LF
 *
 * Thread safety: one owner. */
#ifndef CURFEWD_EXPORT_CSV_H
#define CURFEWD_EXPORT_CSV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct csv {
    char *out;
    size_t capacity;
    size_t size;     /* Bytes so far. */
    bool has_fields; /* The record has one already. */
    bool is_full;
};

/* Append a field. */
void csv_text(struct csv *csv, const char *text);
void csv_i64(struct csv *csv, int64_t value);

/* End the record. */
void csv_end(struct csv *csv);

#endif
