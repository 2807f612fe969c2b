/* SPDX-License-Identifier: MIT */
/* CSV: see csv.h. */
#include "curfewd/export/csv.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Internal helpers */

static void append(struct csv *csv, const char *data, size_t size)
{
    if (size > csv->capacity - csv->size) {
        csv->is_full = true;
        return;
    }
    memcpy(csv->out + csv->size, data, size);
    csv->size += size;
}

static void begin_field(struct csv *csv)
{
    if (csv->has_fields) {
        append(csv, ",", 1);
    }
    csv->has_fields = true;
}

static bool looks_like_formula(const char *text)
{
    return text[0] != '\0' && strchr("=+-@\t\r", text[0]) != NULL;
}

/* Operations */

void csv_text(struct csv *csv, const char *text)
{
    bool in_quotes = text[strcspn(text, ",\"\r\n")] != '\0';

    begin_field(csv);
    if (in_quotes) {
        append(csv, "\"", 1);
    }
    if (looks_like_formula(text)) {
        append(csv, "'", 1);
    }
    while (*text != '\0') {
        size_t n = strcspn(text, "\"");

        append(csv, text, n);
        text += n;
        if (*text == '"') {
            append(csv, "\"\"", 2);
            text++;
        }
    }
    if (in_quotes) {
        append(csv, "\"", 1);
    }
}

void csv_i64(struct csv *csv, int64_t value)
{
    char text[24];
    int n = snprintf(text, sizeof(text), "%" PRId64, value);

    begin_field(csv);
    append(csv, text, (size_t)n);
}

void csv_end(struct csv *csv)
{
    append(csv, "\r\n", 2);
    csv->has_fields = false;
}
