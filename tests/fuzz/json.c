/* SPDX-License-Identifier: MIT */
/* The JSON writer, against jansson. Input: a program, of which each byte writes something; jansson
 * builds the same as a tree, and has to read from the text what it built. */
#include <curfew/json.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kit.h"

struct run {
    const uint8_t *at;
    const uint8_t *end;
    struct cf_json json;
    json_t *open[CF_JSON_DEPTH_MAX]; /* Levels, borrowed from the one above. */
    size_t depth;
    unsigned n_keys;
    char key[32]; /* Of the value that comes next, in an object. */
};

static uint8_t take_byte(struct run *run)
{
    return run->at < run->end ? *run->at++ : 0;
}

static uint64_t take_word(struct run *run)
{
    uint64_t word = 0;

    for (int i = 0; i < 8; i++) {
        word = word << 8 | take_byte(run);
    }
    return word;
}

/* The bytes up to a NUL. */
static char *take_string(struct run *run)
{
    const uint8_t *start = run->at;
    size_t n;

    while (run->at < run->end && *run->at != '\0') {
        run->at++;
    }
    n = (size_t)(run->at - start);
    run->at += run->at < run->end;
    return fuzz_string(start, n);
}

/* The text with U+FFFD for each byte that is of no character. */
static json_t *mended(const char *text)
{
    size_t size = strlen(text);
    char *out = malloc(3 * size + 1);
    size_t n = 0;
    json_t *string;

    FUZZ_CHECK(out != NULL);
    for (size_t at = 0; at < size;) {
        size_t length = 1;

        while (length <= 4 && at + length <= size && !fuzz_is_utf8(text + at, length)) {
            length++;
        }
        if (length <= 4 && at + length <= size) {
            memcpy(out + n, text + at, length);
            n += length;
            at += length;
        } else {
            memcpy(out + n, "\xEF\xBF\xBD", 3);
            n += 3;
            at++;
        }
    }
    string = json_stringn(out, n);
    free(out);
    return string;
}

/* Put it where the writer is. Owns `value`. */
static void add(struct run *run, json_t *value)
{
    json_t *parent = run->open[run->depth - 1];

    FUZZ_CHECK(value != NULL);
    if (json_is_object(parent)) {
        FUZZ_CHECK(json_object_set_new(parent, run->key, value) == 0);
    } else {
        FUZZ_CHECK(json_array_append_new(parent, value) == 0);
    }
}

/* In an object a key comes first: one of a kind, because jansson would keep the last only. */
static void write_key(struct run *run)
{
    if (json_is_object(run->open[run->depth - 1])) {
        (void)snprintf(run->key, sizeof(run->key), "%u\"\\\n", run->n_keys++);
        cf_json_key(&run->json, run->key);
    }
}

static void begin(struct run *run, bool is_object)
{
    json_t *level = is_object ? json_object() : json_array();

    if (run->depth > 0) {
        write_key(run);
        add(run, level);
    }
    run->open[run->depth++] = level;
    if (is_object) {
        cf_json_object(&run->json);
    } else {
        cf_json_array(&run->json);
    }
}

static void write_f64(struct run *run)
{
    uint64_t bits = take_word(run);
    int digits = 1 + take_byte(run) % 9; /* With none it may be more than an integer can be. */
    char text[400];
    double value;

    memcpy(&value, &bits, sizeof(value));
    cf_json_f64(&run->json, value, digits);
    if (!isfinite(value)) {
        add(run, json_null());
        return;
    }
    (void)snprintf(text, sizeof(text), "%.*f", digits, value);
    add(run, json_real(strtod(text, NULL)));
}

static void write_time(struct run *run)
{
    int64_t us = (int64_t)take_word(run);
    time_t second = us / 1000000 - (us % 1000000 < 0);
    struct tm tm;
    char text[64];

    cf_json_time_us(&run->json, us);
    us = (us % 1000000 + 1000000) % 1000000;
    if (gmtime_r(&second, &tm) == NULL || tm.tm_year < -1900 || tm.tm_year > 9999 - 1900) {
        add(run, json_null());
        return;
    }
    (void)snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", tm.tm_year + 1900,
                   tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int)us);
    add(run, json_string(text));
}

static void write_string(struct run *run)
{
    char *text = take_string(run);

    cf_json_str(&run->json, text);
    add(run, mended(text));
    free(text);
}

static void write_value(struct run *run, uint8_t kind)
{
    uint64_t word;

    write_key(run);
    switch (kind % 7) {
    case 0:
        write_string(run);
        return;
    case 1:
        word = take_word(run);
        cf_json_i64(&run->json, (int64_t)word);
        add(run, json_integer((json_int_t)word));
        return;
    case 2:
        word = take_word(run) >> 1; /* jansson's integers have a sign. */
        cf_json_u64(&run->json, word);
        add(run, json_integer((json_int_t)word));
        return;
    case 3:
        write_f64(run);
        return;
    case 4:
        word = take_byte(run) & 1;
        cf_json_bool(&run->json, word != 0);
        add(run, json_boolean(word != 0));
        return;
    case 5:
        cf_json_null(&run->json);
        add(run, json_null());
        return;
    case 6:
        write_time(run);
        return;
    }
}

static void check(struct run *run, json_t *root)
{
    struct cf_err err;
    const char *text;
    size_t size;
    json_t *read;

    FUZZ_CHECK(cf_json_finish(&run->json, &text, &size, &err) == CF_OK);
    for (size_t i = 0; i < size; i++) {
        FUZZ_CHECK((unsigned char)text[i] >= 0x20); /* Not even a newline: a log line is one. */
    }
    read = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
    FUZZ_CHECK(read != NULL);
    FUZZ_CHECK(json_equal(read, root));
    json_decref(read);
}

FUZZ_TARGET(json)
{
    struct run run = {.at = data, .end = data + size};
    json_t *root;

    cf_json_init(&run.json);
    begin(&run, (take_byte(&run) & 1) != 0);
    root = run.open[0];
    while (run.at < run.end) {
        uint8_t what = take_byte(&run);

        if (what < 8 && run.depth < CF_JSON_DEPTH_MAX) {
            begin(&run, (what & 1) != 0);
        } else if (what < 16) {
            if (run.depth > 1) {
                cf_json_end(&run.json);
                run.depth--;
            }
        } else {
            write_value(&run, what);
        }
    }
    while (run.depth > 0) {
        cf_json_end(&run.json);
        run.depth--;
    }
    check(&run, root);
    cf_json_fini(&run.json);
    json_decref(root);
    return 0;
}
