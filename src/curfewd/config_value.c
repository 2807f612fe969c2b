/* SPDX-License-Identifier: MIT */
/* Values, by type: see config_private.h. */
#include "curfewd/config_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/client.h>
#include <curfew/http.h>

#include "curfewd/config_file.h"

/* Internal helpers */

static void *field(struct config *config, const struct config_option *option)
{
    return (char *)config + option->offset;
}

static enum cf_code parse_count(const struct config_option *option, const char *where,
                                const char *text, int64_t *out, struct cf_err *err)
{
    char right[96];
    char *end;
    long long value;

    errno = 0;
    value = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || strchr(" \t\n\v\f\r+", text[0]) != NULL ||
        value < option->min || value > option->max) {
        (void)snprintf(right, sizeof(right), "a number from %" PRId64 " to %" PRId64, option->min,
                       option->max);
        return config_bad(where, text, right, err);
    }
    *out = value;
    return CF_OK;
}

static enum cf_code parse_size(const struct config_option *option, const char *where,
                               const char *text, int64_t *out, struct cf_err *err)
{
    static const struct {
        const char *name;
        int64_t bytes;
    } units[] = {{"", 1}, {"k", CONFIG_KIB}, {"m", CONFIG_MIB}};
    char right[96];
    char *end;
    long long value;

    errno = 0;
    value = strtoll(text, &end, 10);
    for (size_t i = 0; errno == 0 && end != text && i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(end, units[i].name) == 0 && value <= option->max / units[i].bytes &&
            value * units[i].bytes >= option->min) {
            *out = value * units[i].bytes;
            return CF_OK;
        }
    }
    (void)snprintf(right, sizeof(right),
                   "a size such as 20000, 64k or 1m, from %" PRId64 " to %" PRId64 " bytes",
                   option->min, option->max);
    return config_bad(where, text, right, err);
}

static enum cf_code parse_duration(const struct config_option *option, const char *where,
                                   const char *text, int64_t *out, struct cf_err *err)
{
    static const struct {
        const char *name;
        int64_t ns;
    } units[] = {{"ms", CF_MS}, {"s", CF_SECOND}, {"m", 60 * CF_SECOND}};
    char right[96];
    char *end;
    double value = strtod(text, &end);
    bool is_decimal = end != text && strspn(text, "0123456789.") == (size_t)(end - text);

    if (strcmp(text, "0") == 0 && option->min == 0) {
        *out = 0; /* Nothing is nothing in every unit. */
        return CF_OK;
    }
    for (size_t i = 0; is_decimal && i < sizeof(units) / sizeof(units[0]); i++) {
        double ns = value * (double)units[i].ns;

        if (strcmp(end, units[i].name) == 0 && ns >= (double)option->min &&
            ns <= (double)option->max) {
            *out = (int64_t)ns;
            return CF_OK;
        }
    }
    (void)snprintf(right, sizeof(right),
                   "a duration such as 250ms, 5s or 1m, from %" PRId64 "ms to %" PRId64 "s",
                   option->min / CF_MS, option->max / CF_SECOND);
    return config_bad(where, text, right, err);
}

/* Quotes are part of the value wherever it comes from, but for systemd, and are never meant. */
static bool is_quoted(const char *text)
{
    size_t length = strlen(text);

    return length >= 2 && (text[0] == '"' || text[0] == '\'') && text[length - 1] == text[0];
}

static enum cf_code parse_string(const struct config_option *option, const char *where,
                                 const char *text, const char **out, struct cf_err *err)
{
    static const char right[] = "one line, without quotes around it or control characters";

    if (!is_quoted(text) && !config_has_control(text)) {
        *out = text;
        return CF_OK;
    }
    if (option->type == TYPE_URL) {
        return cf_err_set(err, CF_EINVAL, "%s: should be %s", where, right);
    }
    return config_bad(where, text, right, err);
}

/* An empty one leaves all to libpq's variables: what is wrong with these is not its fault. */
static enum cf_code check_url(const char *where, const char *text, struct cf_err *err)
{
    enum cf_code code = cf_pg_url_check(text, err);

    return code == CF_OK || text[0] == '\0' ? code : cf_err_wrap(err, code, "%s", where);
}

/* What has a form of its own, which the library knows. */
static enum cf_code parse_checked(const struct config_option *option, const char *where,
                                  const char *text, const char **out, struct cf_err *err)
{
    enum cf_code code = parse_string(option, where, text, out, err);

    if (code != CF_OK) {
        return code;
    }
    switch (option->type) {
    case TYPE_LISTEN:
        return cf_http_listen_check(text, NULL) == CF_OK
                   ? CF_OK
                   : config_bad(where, text, "host:port, with a port from 0 to 65535", err);
    case TYPE_PROXIES:
        code = cf_http_proxies_check(text, err);
        break;
    case TYPE_HOSTS:
        code = cf_http_hosts_check(text, err);
        break;
    case TYPE_ALLOW:
        code = cf_client_allow_check(text, err);
        break;
    case TYPE_URL:
        return check_url(where, text, err);
    case TYPE_COUNT:
    case TYPE_DURATION:
    case TYPE_SIZE:
    case TYPE_BOOL:
    case TYPE_CANCEL:
        break;
    }
    return code == CF_OK ? CF_OK : cf_err_wrap(err, code, "%s", where);
}

static enum cf_code parse_bool(const char *where, const char *text, bool *out, struct cf_err *err)
{
    if (strcmp(text, "1") == 0 || strcmp(text, "true") == 0) {
        *out = true;
    } else if (strcmp(text, "0") == 0 || strcmp(text, "false") == 0 || text[0] == '\0') {
        *out = false;
    } else {
        return config_bad(where, text, "1 or 0", err);
    }
    return CF_OK;
}

static enum cf_code parse_cancel(const char *where, const char *text, int64_t *out,
                                 struct cf_err *err)
{
    static const char *const names[] = {[CF_PG_CANCEL_AUTO] = "auto",
                                        [CF_PG_CANCEL_CONTROL] = "control",
                                        [CF_PG_CANCEL_ASYNC] = "async",
                                        [CF_PG_CANCEL_PQCANCEL] = "pqcancel"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i]) == 0 && !cf_pg_can_cancel((enum cf_pg_cancel_way)i)) {
            return config_bad(where, text, "auto, control or pqcancel: this libpq is older than 17",
                              err);
        }
        if (strcmp(text, names[i]) == 0) {
            *out = (int64_t)i;
            return CF_OK;
        }
    }
    return config_bad(where, text, "auto, control, async or pqcancel", err);
}

/* Operations */

const char *config_quote(const char *text, size_t length, char out[CONFIG_QUOTED_SIZE])
{
    size_t n = length;

    if (length > CONFIG_QUOTED_MAX) {
        n = CONFIG_QUOTED_MAX;
        while (n > 0 && ((unsigned char)text[n] & 0xC0) == 0x80) {
            n--; /* Not in the middle of a character. */
        }
    }
    for (size_t i = 0; i < n; i++) {
        out[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7F ? '?' : text[i];
    }
    memcpy(out + n, "...", sizeof("..."));
    if (n == length) {
        out[n] = '\0';
    }
    return out;
}

enum cf_code config_bad(const char *where, const char *text, const char *right, struct cf_err *err)
{
    char quoted[CONFIG_QUOTED_SIZE];

    return cf_err_set(err, CF_EINVAL, "%s=\"%s\": should be %s", where,
                      config_quote(text, strlen(text), quoted), right);
}

enum cf_code config_set(struct config *config, const struct config_option *option,
                        const char *where, const char *text, struct cf_err *err)
{
    switch (option->type) {
    case TYPE_LISTEN:
    case TYPE_PROXIES:
    case TYPE_HOSTS:
    case TYPE_ALLOW:
    case TYPE_URL:
        return parse_checked(option, where, text, field(config, option), err);
    case TYPE_COUNT:
        return parse_count(option, where, text, field(config, option), err);
    case TYPE_DURATION:
        return parse_duration(option, where, text, field(config, option), err);
    case TYPE_SIZE:
        return parse_size(option, where, text, field(config, option), err);
    case TYPE_BOOL:
        return parse_bool(where, text, field(config, option), err);
    case TYPE_CANCEL:
        return parse_cancel(where, text, field(config, option), err);
    }
    return cf_err_set(err, CF_EINTERNAL, "option of unknown type");
}

/* Queries */

bool config_is_libpq(const char *name, size_t length)
{
    return length > 2 && strncmp(name, "PG", 2) == 0 &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == length;
}
