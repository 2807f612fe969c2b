/* SPDX-License-Identifier: MIT */
/* The cursor of a list. Input: the value of ?limit=, a newline, and that of ?after=. */
#include "curfewd/routes/paging.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "curfew/http/server_private.h"
#include "curfewd/routes/routes.h"
#include "kit.h"

/* Whether the text is a decimal integer of that range. */
static bool is_integer(const char *text, int64_t min, int64_t max)
{
    const char *digits = text + (text[0] == '-');
    const char *end;
    fuzz_wide value = fuzz_digits(digits, &end);

    value = text[0] == '-' ? -value : value;
    return end > digits && *end == '\0' && value >= min && value <= max;
}

static enum cf_code read_page(const char *limit, const char *after, struct paging *paging,
                              struct cf_err *err)
{
    static struct cf_http http; /* Nothing of it but the target is looked at. */
    struct cf__arg args[] = {{"limit", limit}, {"after", after}};

    http.target.args = args;
    http.target.n_args = sizeof(args) / sizeof(args[0]);
    return paging_read(&http, paging, err);
}

FUZZ_TARGET(cursor)
{
    char *text = fuzz_string(data, size);
    char *after = text + strcspn(text, "\n");
    struct cf_err err = {.code = CF_OK};
    struct paging paging = {.limit = -1, .after = -1};
    struct paging again;
    char number[32];
    bool good;

    if (*after != '\0') {
        *after++ = '\0';
    }
    good = is_integer(text, PAGE_MIN, PAGE_MAX) && is_integer(after, 1, INT64_MAX);
    FUZZ_CHECK((read_page(text, after, &paging, &err) == CF_OK) == good);
    if (good) {
        FUZZ_CHECK(paging.limit >= PAGE_MIN && paging.limit <= PAGE_MAX && paging.after >= 1);
        (void)snprintf(number, sizeof(number), "%" PRId64, paging.after); /* As a page's "next". */
        FUZZ_CHECK(read_page(text, number, &again, &err) == CF_OK);
        FUZZ_CHECK(again.after == paging.after && again.limit == paging.limit);
    } else {
        FUZZ_CHECK(err.code == CF_EINVAL && err.msg[0] != '\0');
        FUZZ_CHECK(!fuzz_has_control(err.msg, strlen(err.msg)));
        FUZZ_CHECK(paging.limit == -1 && paging.after == -1);
    }
    free(text);
    return 0;
}
