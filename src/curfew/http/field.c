/* SPDX-License-Identifier: MIT */
/* See field.h. */
#include "curfew/http/field.h"

#include <string.h>
#include <strings.h>

#include <microhttpd.h>

/* Of cf__each_field(). */
struct walk {
    const char *name;
    cf__field_fn fn;
    void *arg;
};

static bool is_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static enum MHD_Result look_at(void *arg, enum MHD_ValueKind kind, const char *name,
                               const char *value)
{
    const struct walk *walk = arg;

    (void)kind;
    if (value != NULL && strcasecmp(name, walk->name) == 0) {
        walk->fn(walk->arg, value);
    }
    return MHD_YES;
}

bool cf__is_token(const char *text, size_t size)
{
    size_t n = 0;

    while (n < size && is_token_char(text[n])) {
        n++;
    }
    return n == size && size > 0;
}

bool cf__is_field_value(const char *text, size_t size)
{
    size_t n = 0;

    while (n < size && ((unsigned char)text[n] >= ' ' || text[n] == '\t') && text[n] != 0x7F) {
        n++;
    }
    return n == size;
}

void cf__each_field(struct MHD_Connection *mhd, const char *name, cf__field_fn fn, void *arg)
{
    struct walk walk = {name, fn, arg};

    (void)MHD_get_connection_values(mhd, MHD_HEADER_KIND, look_at, &walk);
}
