/* SPDX-License-Identifier: MIT */
/* A JSON writer: see json.h.
 *
 * One buffer that doubles, one bit per open level for what it is and one for whether a comma is
 * due. Text that needs no escape, which is nearly all, is copied in runs.
 *
 * Integers and instants are written by hand because they are what a dashboard is made of: printf
 * costs ten times as much, and gmtime_r() takes a lock that all loops of the process would share.
 * Fractions are too where that rounds as printf does. All are checked against it in the tests.
 *
 * When memory runs out the text is abandoned but the levels are still counted, so that the caller's
 * order is checked all the same and cf_json_finish() is the one place that has to tell. */
#include <curfew/json.h>

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "curfew/http/digits.h"
#include "curfew/http/utf8.h"

#define CAPACITY_MIN ((size_t)512)

/* "-1.8e308" written out, a point and nine digits. */
#define F64_SIZE 352

#define DIGITS_MAX 9

/* Internal helpers: the buffer */

/* Make room for `size` more bytes. False: there is no memory, now or before. */
static bool grow(struct cf_json *json, size_t size)
{
    size_t capacity = json->capacity > 0 ? json->capacity : CAPACITY_MIN;
    char *data = NULL;

    while (capacity - json->size < size && capacity <= SIZE_MAX / 4) {
        capacity *= 2;
    }
    if (!json->failed && capacity - json->size >= size) {
        data = realloc(json->data, capacity);
    }
    if (data == NULL) {
        json->failed = true;
        json->capacity = json->size; /* Nothing fits from here on: room() need not ask. */
        return false;
    }
    json->data = data;
    json->capacity = capacity;
    return true;
}

/* Where `size` more bytes may be written, or NULL. They count once json->size is moved. */
static inline char *room(struct cf_json *json, size_t size)
{
    if (json->capacity - json->size < size && !grow(json, size)) {
        return NULL;
    }
    return json->data + json->size;
}

static inline void append(struct cf_json *json, const char *text, size_t size)
{
    char *to = room(json, size);

    if (to != NULL) {
        memcpy(to, text, size);
        json->size += size;
    }
}

static inline void append_char(struct cf_json *json, char c)
{
    char *to = room(json, 1);

    if (to != NULL) {
        *to = c;
        json->size++;
    }
}

/* Internal helpers: order */

static uint32_t level_bit(const struct cf_json *json)
{
    return UINT32_C(1) << (json->depth - 1);
}

/* Write the comma that is due before an item of the innermost level. */
static void begin_item(struct cf_json *json)
{
    uint32_t bit = level_bit(json);

    if ((json->has_items & bit) != 0) {
        append_char(json, ',');
    }
    json->has_items |= bit;
}

/* Before every value: check that one may stand here. */
static void begin_value(struct cf_json *json)
{
    if (json->after_key) {
        json->after_key = false;
    } else if (json->depth > 0) {
        CF_ASSERT((json->is_object & level_bit(json)) == 0); /* In an object a key comes first. */
        begin_item(json);
    } else {
        CF_ASSERT(json->size == 0); /* One text has one value. */
    }
}

static void begin_level(struct cf_json *json, bool is_object)
{
    begin_value(json);
    CF_ASSERT(json->depth < CF_JSON_DEPTH_MAX);
    json->depth++;
    json->has_items &= ~level_bit(json);
    if (is_object) {
        json->is_object |= level_bit(json);
    } else {
        json->is_object &= ~level_bit(json);
    }
    append_char(json, is_object ? '{' : '[');
}

/* Internal helpers: text */

/* Whether the byte stands for itself in a string: ASCII but controls, quote and backslash. */
static const bool is_plain[256] = {
    [' '] = true,
    ['!'] = true,
    ['#' ... '['] = true,
    [']' ... 0x7F] = true,
};

static void append_escape(struct cf_json *json, unsigned char c)
{
    static const char named[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    static const char digits[] = "0123456789abcdef";
    char unicode[] = {'\\', 'u', '0', '0', digits[c >> 4], digits[c & 0xF]};

    for (size_t i = 0; i + 1 < sizeof(named); i += 2) {
        if ((unsigned char)named[i] == c) {
            append_char(json, '\\');
            append_char(json, named[i + 1]);
            return;
        }
    }
    append(json, unicode, sizeof(unicode));
}

/* Write the character at `text` that does not stand for itself; return its bytes. */
static size_t append_special(struct cf_json *json, const char *text, size_t size)
{
    size_t n;

    if ((unsigned char)text[0] < 0x80) {
        append_escape(json, (unsigned char)text[0]);
        return 1;
    }
    n = cf__utf8_char_size(text, size);
    if (n == 0) {
        append(json, "\xEF\xBF\xBD", 3); /* U+FFFD */
        return 1;
    }
    append(json, text, n);
    return n;
}

/* Copy what stands for itself at the start of `text`; return its bytes. Where nearly all of a text
 * does, this is the whole work, so it is done in one go over the bytes. */
static size_t append_plain(struct cf_json *json, const char *text, size_t size)
{
    char *to = room(json, size);
    size_t n = 0;

    if (to == NULL) {
        return size;
    }
    while (n < size && is_plain[(unsigned char)text[n]]) {
        to[n] = text[n];
        n++;
    }
    json->size += n;
    return n;
}

static void append_string(struct cf_json *json, const char *text)
{
    size_t size = strlen(text);
    size_t at = 0;

    append_char(json, '"');
    while (at < size) {
        at += append_plain(json, text + at, size - at);
        if (at < size) {
            at += append_special(json, text + at, size - at);
        }
    }
    append_char(json, '"');
}

/* Internal helpers: numbers */

static void append_u64(struct cf_json *json, uint64_t value)
{
    char digits[CF__DIGITS_MAX];

    append(json, digits, cf__put_u64(digits, value));
}

/* Write `value`, if it can be told how. The product below is rounded, but never past the middle
 * between two texts, which is a double as long as it is below 2^52: only where it is the middle
 * itself the exact one may be on either side. False: nothing was written. */
static bool append_plain_f64(struct cf_json *json, double value, int digits)
{
    static const double powers[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9};
    double scaled = fabs(value) * powers[digits];
    uint64_t units;
    double rest;
    char text[CF__DIGITS_MAX];

    if (scaled >= 0x1p52) {
        return false;
    }
    units = (uint64_t)scaled;
    rest = scaled - (double)units - 0.5;
    if (rest == 0) {
        return false;
    }
    units += rest > 0;
    if (signbit(value)) {
        append_char(json, '-');
    }
    append_u64(json, units / (uint64_t)powers[digits]);
    if (digits > 0) {
        append_char(json, '.');
        cf__put_digits(text, units, (size_t)digits);
        append(json, text, (size_t)digits);
    }
    return true;
}

/* Let printf do it, which rounds rightly. */
static void append_f64(struct cf_json *json, double value, int digits)
{
    char text[F64_SIZE];
    size_t whole;
    size_t point;

    (void)snprintf(text, sizeof(text), "%.*f", digits, value); /* Always fits. */
    whole = strspn(text, "-0123456789");
    append(json, text, whole);
    if (text[whole] != '\0') {
        /* The program's locale decides what stands here; JSON knows only the point. */
        point = strlen(localeconv()->decimal_point);
        append_char(json, '.');
        append(json, text + whole + point, strlen(text + whole + point));
    }
}

struct date {
    int64_t year;
    unsigned month;
    unsigned day;
};

/* The date of a day since 1970-01-01: Howard Hinnant's civil_from_days. Years are counted from
 * March, so that the leap day is the last of its year, in eras of 400 years that are all alike. */
static struct date date_of_day(int64_t day)
{
    const int64_t era_days = 146097;
    int64_t from_era = day + 719468; /* From 0000-03-01. */
    int64_t era = (from_era >= 0 ? from_era : from_era - era_days + 1) / era_days;
    unsigned in_era = (unsigned)(from_era - era * era_days);
    unsigned year = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    unsigned in_year = in_era - (365 * year + year / 4 - year / 100);
    unsigned month = (5 * in_year + 2) / 153; /* 0 is March. */
    struct date date;

    date.day = in_year - (153 * month + 2) / 5 + 1;
    date.month = month < 10 ? month + 3 : month - 9;
    date.year = (int64_t)year + era * 400 + (date.month <= 2);
    return date;
}

/* Life cycle */

void cf_json_init(struct cf_json *json)
{
    memset(json, 0, sizeof(*json));
}

void cf_json_fini(struct cf_json *json)
{
    free(json->data);
    cf_json_init(json);
}

void cf_json_reset(struct cf_json *json)
{
    char *data = json->data;
    size_t capacity = json->capacity;

    cf_json_init(json);
    json->data = data;
    json->capacity = capacity;
}

/* Operations */

void cf_json_object(struct cf_json *json)
{
    begin_level(json, true);
}

void cf_json_array(struct cf_json *json)
{
    begin_level(json, false);
}

void cf_json_end(struct cf_json *json)
{
    CF_ASSERT(json->depth > 0);
    CF_ASSERT(!json->after_key);
    append_char(json, (json->is_object & level_bit(json)) != 0 ? '}' : ']');
    json->depth--;
}

void cf_json_key(struct cf_json *json, const char *key)
{
    CF_ASSERT(json->depth > 0);
    CF_ASSERT((json->is_object & level_bit(json)) != 0);
    CF_ASSERT(!json->after_key);
    begin_item(json);
    append_string(json, key);
    append_char(json, ':');
    json->after_key = true;
}

void cf_json_str(struct cf_json *json, const char *value)
{
    if (value == NULL) {
        cf_json_null(json);
        return;
    }
    begin_value(json);
    append_string(json, value);
}

void cf_json_i64(struct cf_json *json, int64_t value)
{
    begin_value(json);
    if (value < 0) {
        append_char(json, '-');
    }
    append_u64(json, value < 0 ? -(uint64_t)value : (uint64_t)value);
}

void cf_json_u64(struct cf_json *json, uint64_t value)
{
    begin_value(json);
    append_u64(json, value);
}

void cf_json_f64(struct cf_json *json, double value, int digits)
{
    CF_ASSERT(digits >= 0);
    CF_ASSERT(digits <= DIGITS_MAX);
    if (!isfinite(value)) {
        cf_json_null(json);
        return;
    }
    begin_value(json);
    if (!append_plain_f64(json, value, digits)) {
        append_f64(json, value, digits);
    }
}

void cf_json_bool(struct cf_json *json, bool value)
{
    begin_value(json);
    append(json, value ? "true" : "false", value ? 4 : 5);
}

void cf_json_null(struct cf_json *json)
{
    begin_value(json);
    append(json, "null", 4);
}

void cf_json_raw(struct cf_json *json, const char *text, size_t size)
{
    begin_value(json);
    append(json, text, size);
}

void cf_json_time_us(struct cf_json *json, int64_t unix_us)
{
    const int64_t day_us = INT64_C(86400) * 1000000;
    int64_t rest = unix_us % day_us;
    int64_t us = rest < 0 ? rest + day_us : rest;
    int64_t day = unix_us / day_us - (rest < 0);
    unsigned second = (unsigned)(us / 1000000);
    unsigned micro = (unsigned)(us % 1000000);
    struct date date = date_of_day(day);
    char text[] = "\"2026-01-31T09:30:00.000000Z\"";

    if (date.year < 0 || date.year > 9999) {
        cf_json_null(json); /* RFC 3339 has four digits. */
        return;
    }
    cf__put_pair(text + 1, (unsigned)date.year / 100);
    cf__put_pair(text + 3, (unsigned)date.year % 100);
    cf__put_pair(text + 6, date.month);
    cf__put_pair(text + 9, date.day);
    cf__put_pair(text + 12, second / 3600);
    cf__put_pair(text + 15, second / 60 % 60);
    cf__put_pair(text + 18, second % 60);
    cf__put_pair(text + 21, micro / 10000);
    cf__put_pair(text + 23, micro / 100 % 100);
    cf__put_pair(text + 25, micro % 100);
    begin_value(json);
    append(json, text, sizeof(text) - 1);
}

enum cf_code cf_json_finish(struct cf_json *json, const char **out_data, size_t *out_size,
                            struct cf_err *err)
{
    CF_ASSERT(json->depth == 0);
    if (json->failed) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a JSON text");
    }
    CF_ASSERT(json->size > 0);
    *out_data = json->data;
    *out_size = json->size;
    return CF_OK;
}
