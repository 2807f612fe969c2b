/* SPDX-License-Identifier: MIT */
/* Deadlines. Input: lines, each a header "name: value", or "?value" of the query argument. */
#include "curfew/http/deadline.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "kit.h"

#define LINES_MAX 16
#define CAP_NS (60 * CF_SECOND)
#define YEARS_100 (INT64_C(36500) * 86400 * CF_SECOND)

#define SPACE "[ \t]*"

/* The forms, as their specifications have them. */
#define FORM_MS "^" SPACE "-?[0-9]{1,10}" SPACE "$"
#define FORM_GRPC "^" SPACE "[0-9]{1,8}[HMSmun]" SPACE "$"
#define FORM_QUERY "^-?(0|[0-9]{1,10}([.][0-9]{1,10})?(ms|s|m))$"

struct line {
    const char *name; /* NULL: the query argument. */
    const char *value;
};

static int64_t unit_of_query(const char *unit)
{
    return strcmp(unit, "ms") == 0 ? CF_MS : unit[0] == 's' ? CF_SECOND : 60 * CF_SECOND;
}

static int64_t unit_of_grpc(char unit)
{
    static const struct {
        char name;
        int64_t ns;
    } units[] = {{'H', 3600 * CF_SECOND},
                 {'M', 60 * CF_SECOND},
                 {'S', CF_SECOND},
                 {'m', CF_MS},
                 {'u', CF_US},
                 {'n', 1}};
    size_t i = 0;

    while (units[i].name != unit) {
        i++;
    }
    return units[i].ns;
}

/* Nanoseconds of "1.25s", cut. */
static fuzz_wide meaning_of_query(const char *text)
{
    const char *unit;
    fuzz_wide value = fuzz_digits(text, &unit);
    fuzz_wide scale = 1;

    if (*unit == '.') {
        const char *fraction = unit + 1;
        fuzz_wide digits = fuzz_digits(fraction, &unit);

        for (; fraction < unit; fraction++) {
            scale *= 10;
        }
        value = value * scale + digits;
    }
    return value * unit_of_query(unit) / scale;
}

/* What the value means in nanoseconds, if it is of its form; -1: it is not. Less than nothing is as
 * little as 0. */
static fuzz_wide meaning(const struct line *line)
{
    const char *value = line->value + strspn(line->value, " \t");
    const char *form = line->name == NULL                            ? FORM_QUERY
                       : strcasecmp(line->name, "grpc-timeout") == 0 ? FORM_GRPC
                                                                     : FORM_MS;
    const char *unit;
    fuzz_wide count;

    if (!fuzz_matches(form, line->value)) {
        return -1;
    }
    if (*value == '-') {
        return 0;
    }
    if (line->name == NULL) {
        return meaning_of_query(value);
    }
    count = fuzz_digits(value, &unit);
    return count * (strcmp(form, FORM_GRPC) == 0 ? unit_of_grpc(*unit) : CF_MS);
}

static bool is_one_of_ms(const char *name)
{
    return strcasecmp(name, "Request-Timeout-Ms") == 0 ||
           strcasecmp(name, "X-Request-Timeout-Ms") == 0 ||
           strcasecmp(name, "connect-timeout-ms") == 0 ||
           strcasecmp(name, "x-envoy-expected-rq-timeout-ms") == 0;
}

static enum cf_code take(struct cf__deadline *deadline, const struct line *line)
{
    struct cf_err err = {.msg = ""};
    enum cf_code code =
        line->name == NULL
            ? cf__deadline_query(deadline, line->value, &err)
            : cf__deadline_header(deadline, line->name, strlen(line->name), line->value, &err);

    FUZZ_CHECK((code == CF_OK) == (err.msg[0] == '\0'));
    FUZZ_CHECK(!fuzz_has_control(err.msg, strlen(err.msg)));
    return code;
}

/* One line alone: refused only where a mistake is to be said, and worth what it says. */
static void check_line(const struct line *line)
{
    struct cf__deadline deadline;
    enum cf_code code;
    bool is_ours = line->name == NULL || strcasecmp(line->name, "Request-Timeout-Ms") == 0;
    bool is_known =
        is_ours || is_one_of_ms(line->name) || strcasecmp(line->name, "grpc-timeout") == 0;
    fuzz_wide want = is_known ? meaning(line) : -1;

    cf__deadline_init(&deadline);
    code = take(&deadline, line);
    FUZZ_CHECK((code != CF_OK) == (is_ours && want < 0));
    if (is_known && want >= 0) {
        FUZZ_CHECK(want <= YEARS_100 ? deadline.timeout_ns == want
                                     : deadline.timeout_ns >= YEARS_100 &&
                                           deadline.timeout_ns < YEARS_100 + 60 * CF_SECOND);
    } else if (is_known) {
        FUZZ_CHECK(deadline.timeout_ns == CF_NEVER);
    } else {
        /* A preference, whose grammar is checked by example only; or none of ours. */
        FUZZ_CHECK(deadline.timeout_ns == CF_NEVER || strcasecmp(line->name, "Prefer") == 0);
    }
}

static size_t split(char *text, struct line lines[LINES_MAX])
{
    size_t n = 0;
    char *rest = text;
    char *line;

    while (n < LINES_MAX && (line = strsep(&rest, "\n")) != NULL) {
        char *colon = strchr(line, ':');

        if (line[0] == '?') {
            lines[n++] = (struct line){NULL, line + 1};
        } else if (colon != NULL) {
            *colon = '\0';
            lines[n++] = (struct line){line, colon + 1};
        }
    }
    return n;
}

FUZZ_TARGET(deadline)
{
    char *text = fuzz_string(data, size);
    struct line lines[LINES_MAX];
    size_t n = split(text, lines);
    struct cf__deadline forth;
    struct cf__deadline back;

    cf__deadline_init(&forth);
    cf__deadline_init(&back);
    for (size_t i = 0; i < n; i++) {
        int64_t before_ns = forth.timeout_ns;

        check_line(&lines[i]);
        (void)take(&forth, &lines[i]);
        (void)take(&back, &lines[n - 1 - i]);
        FUZZ_CHECK(forth.timeout_ns <= before_ns); /* Who asks can only shorten. */
        FUZZ_CHECK(forth.timeout_ns >= 0);
        FUZZ_CHECK(forth.source != NULL);
    }
    FUZZ_CHECK(forth.timeout_ns == back.timeout_ns);
    cf__deadline_limit(&forth, CAP_NS / 2, CAP_NS);
    FUZZ_CHECK(forth.timeout_ns >= 0 && forth.timeout_ns <= CAP_NS);
    free(text);
    return 0;
}
