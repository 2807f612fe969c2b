/* SPDX-License-Identifier: MIT */
/* Deadlines that requests ask for: see deadline.h.
 *
 * Digits only, ten at most, a unit where the form has one: a plus, a space or an exponent is
 * malformed, so that no client is given a deadline it did not mean. Too many hours are clamped, not
 * wrapped. Who subtracts what it has used from what it had may arrive at less than nothing: where
 * the form can say so, that is a deadline that has passed, as 0 is. */
#include "curfew/http/deadline.h"

#include <string.h>
#include <strings.h>

#include "curfew/http/items.h"

#define DIGITS_MAX 10

/* Of a grpc-timeout, by its specification. */
#define GRPC_DIGITS_MAX 8

/* More than that is that: 100 years. */
#define TIMEOUT_MAX_NS (INT64_C(100) * 365 * 86400 * CF_SECOND)

/* A value that is being read. */
struct text {
    const char *at;
    const char *end;
};

/* Parses the whole of `text`. False: malformed. */
typedef bool (*parse_fn)(struct text text, int64_t *out_ns);

/* Internal helpers: text */

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

/* The value without the white space that HTTP allows around it. */
static struct text trimmed(const char *value, size_t size)
{
    struct text text = {value, value + size};

    while (text.at < text.end && is_space(text.at[0])) {
        text.at++;
    }
    while (text.at < text.end && is_space(text.end[-1])) {
        text.end--;
    }
    return text;
}

/* Read 1 to `digits_max` digits. */
static bool read_digits(struct text *text, int digits_max, int64_t *out)
{
    int64_t value = 0;
    int n = 0;

    while (text->at < text->end && *text->at >= '0' && *text->at <= '9') {
        if (n == digits_max) {
            return false;
        }
        value = value * 10 + (*text->at - '0');
        text->at++;
        n++;
    }
    *out = value;
    return n > 0;
}

/* Read a minus, if one is there. */
static bool read_minus(struct text *text)
{
    bool is_minus = text->at < text->end && *text->at == '-';

    text->at += is_minus;
    return is_minus;
}

/* count * unit, at most TIMEOUT_MAX_NS. */
static int64_t clamped(int64_t count, int64_t unit_ns)
{
    return count <= TIMEOUT_MAX_NS / unit_ns ? count * unit_ns : TIMEOUT_MAX_NS;
}

/* Internal helpers: forms */

/* "50": milliseconds. */
static bool parse_ms(struct text text, int64_t *out_ns)
{
    bool is_negative = read_minus(&text);
    int64_t count;

    if (!read_digits(&text, DIGITS_MAX, &count) || text.at != text.end) {
        return false;
    }
    *out_ns = is_negative ? 0 : clamped(count, CF_MS);
    return true;
}

/* "50m": at most eight digits and one of H M S m u n. */
static bool parse_grpc(struct text text, int64_t *out_ns)
{
    static const char units[] = "HMSmun";
    static const int64_t unit_ns[] = {3600 * CF_SECOND, 60 * CF_SECOND, CF_SECOND, CF_MS, CF_US, 1};
    const char *unit;
    int64_t count;

    if (!read_digits(&text, GRPC_DIGITS_MAX, &count) || text.end - text.at != 1) {
        return false;
    }
    unit = memchr(units, *text.at, sizeof(units) - 1);
    if (unit == NULL) {
        return false;
    }
    *out_ns = clamped(count, unit_ns[unit - units]);
    return true;
}

/* "wait=10", perhaps quoted: seconds. */
static bool parse_wait(struct cf__span preference, int64_t *out_ns)
{
    struct cf__span value;
    struct text text;
    int64_t count;

    if (!cf__span_is(cf__item_name(preference, &value), "wait") || value.at == NULL) {
        return false;
    }
    text = (struct text){value.at, value.at + value.size};
    if (!read_digits(&text, DIGITS_MAX, &count) || text.at != text.end) {
        return false;
    }
    *out_ns = clamped(count, CF_SECOND);
    return true;
}

/* "respond-async, wait=10; strict": the first preference that is a wait (RFC 7240). */
static bool parse_prefer(struct text text, int64_t *out_ns)
{
    struct cf__span rest = {text.at, (size_t)(text.end - text.at)};
    struct cf__span item;

    while (cf__item_next(&rest, ',', &item)) {
        struct cf__span preference;

        (void)cf__item_next(&item, ';', &preference); /* An item is never none. */
        if (parse_wait(preference, out_ns)) {
            return true;
        }
    }
    return false;
}

/* The digits behind a point: *out_ns of one unit, cut to whole nanoseconds. */
static bool read_fraction(struct text *text, int64_t unit_ns, int64_t *out_ns)
{
    int64_t ns = 0;
    int64_t digit_ns = unit_ns;
    int n = 0;

    for (; text->at < text->end && *text->at >= '0' && *text->at <= '9'; text->at++) {
        digit_ns /= 10;
        ns += (*text->at - '0') * digit_ns;
        n++;
    }
    *out_ns = ns;
    return n > 0 && n <= DIGITS_MAX;
}

static bool ends_in(struct text text, const char *unit)
{
    size_t size = strlen(unit);

    return (size_t)(text.end - text.at) > size && memcmp(text.end - size, unit, size) == 0;
}

/* "50ms", "2s", "1.5s", "1m"; "0" needs no unit, as in Go. */
static bool parse_duration(struct text text, int64_t *out_ns)
{
    static const struct {
        const char *name;
        int64_t unit_ns;
    } units[] = {{"ms", CF_MS}, {"s", CF_SECOND}, {"m", 60 * CF_SECOND}};
    const size_t n_units = sizeof(units) / sizeof(units[0]);
    size_t unit = 0;
    int64_t whole;
    int64_t fraction_ns = 0;
    bool is_negative = read_minus(&text);

    if (text.end - text.at == 1 && *text.at == '0') {
        *out_ns = 0;
        return true;
    }
    while (unit < n_units && !ends_in(text, units[unit].name)) {
        unit++;
    }
    if (unit == n_units) {
        return false;
    }
    text.end -= strlen(units[unit].name);
    if (!read_digits(&text, DIGITS_MAX, &whole)) {
        return false;
    }
    if (text.at < text.end && *text.at == '.') {
        text.at++;
        if (!read_fraction(&text, units[unit].unit_ns, &fraction_ns)) {
            return false;
        }
    }
    /* The clamp leaves room for the fraction of a minute: no overflow. */
    *out_ns = is_negative ? 0 : clamped(whole, units[unit].unit_ns) + fraction_ns;
    return text.at == text.end;
}

static const struct header {
    const char *name;
    size_t size;
    parse_fn parse;
    bool is_ours; /* Malformed is an error, not absence. */
} headers[] = {
#define HEADER(name, parse, is_ours)                                                               \
    {                                                                                              \
        name, sizeof(name) - 1, parse, is_ours                                                     \
    }
    HEADER("Request-Timeout-Ms", parse_ms, true),
    HEADER("X-Request-Timeout-Ms", parse_ms, false),
    HEADER("grpc-timeout", parse_grpc, false),
    HEADER("connect-timeout-ms", parse_ms, false),
    HEADER("x-envoy-expected-rq-timeout-ms", parse_ms, false),
    HEADER("Prefer", parse_prefer, false),
#undef HEADER
};

static void offer(struct cf__deadline *deadline, int64_t timeout_ns, const char *source)
{
    if (timeout_ns < deadline->timeout_ns) {
        deadline->timeout_ns = timeout_ns;
        deadline->source = source;
    }
}

/* Life cycle */

void cf__deadline_init(struct cf__deadline *deadline)
{
    deadline->timeout_ns = CF_NEVER;
    deadline->source = "default";
}

/* Operations */

enum cf_code cf__deadline_header(struct cf__deadline *deadline, const char *name, size_t size,
                                 const char *value, struct cf_err *err)
{
    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
        const struct header *header = &headers[i];
        int64_t timeout_ns;

        if (header->size != size || strncasecmp(header->name, name, size) != 0) {
            continue;
        }
        if (header->parse(trimmed(value, strlen(value)), &timeout_ns)) {
            offer(deadline, timeout_ns, header->name);
        } else if (header->is_ours) {
            return cf_err_set(err, CF_EINVAL,
                              "%s must be a whole number of milliseconds of at most %d digits, "
                              "as in %s: 250",
                              header->name, DIGITS_MAX, header->name);
        }
        return CF_OK;
    }
    return CF_OK;
}

enum cf_code cf__deadline_query(struct cf__deadline *deadline, const char *value,
                                struct cf_err *err)
{
    struct text text = {value, value + strlen(value)};
    int64_t timeout_ns;

    if (!parse_duration(text, &timeout_ns)) {
        return cf_err_set(err, CF_EINVAL,
                          "timeout must be a number with ms, s or m, as in timeout=250ms or "
                          "timeout=1.5s");
    }
    offer(deadline, timeout_ns, "timeout");
    return CF_OK;
}

void cf__deadline_limit(struct cf__deadline *deadline, int64_t default_ns, int64_t max_ns)
{
    if (deadline->timeout_ns == CF_NEVER) {
        deadline->timeout_ns = default_ns;
    }
    if (deadline->timeout_ns > max_ns) {
        deadline->timeout_ns = max_ns;
    }
}
