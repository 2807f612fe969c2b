/* SPDX-License-Identifier: MIT */
/* What a handler may ask of its request: see http.h.
 *
 * Headers are libmicrohttpd's own memory, which lives as long as the request; path, arguments and
 * parameters were decoded by us, into the request's arena. */
#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "curfew/http/server_private.h"

/* Internal helpers */

/* All of `text` as a decimal integer: digits, perhaps after a minus. */
static bool parse_i64(const char *text, int64_t *out)
{
    const char *digits = text + (text[0] == '-');
    size_t n = strspn(digits, "0123456789");

    if (n == 0 || digits[n] != '\0') {
        return false;
    }
    errno = 0;
    *out = strtoll(text, NULL, 10);
    return errno == 0;
}

/* All of `text` as a decimal number: digits, perhaps after a minus, perhaps with a point. */
static bool parse_f64(const char *text, double *out)
{
    const char *at = text + (text[0] == '-');
    size_t n = strspn(at, "0123456789");
    locale_t c_locale;

    if (n == 0) {
        return false;
    }
    at += n;
    if (*at == '.') {
        n = strspn(at + 1, "0123456789");
        at += 1 + n;
    }
    if (n == 0 || *at != '\0') {
        return false;
    }
    c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0); /* glibc has it ready: costs nothing. */
    if (c_locale == (locale_t)0) {
        return false;
    }
    *out = strtod_l(text, NULL, c_locale);
    freelocale(c_locale);
    return isfinite(*out);
}

static enum cf_code read_i64(const char *name, const char *text, int64_t min, int64_t max,
                             int64_t *out, struct cf_err *err)
{
    int64_t value;

    if (!parse_i64(text, &value) || value < min || value > max) {
        return cf_err_set(err, CF_EINVAL, "%s must be an integer from %" PRId64 " to %" PRId64,
                          name, min, max);
    }
    *out = value;
    return CF_OK;
}

/* Queries */

void *cf_http_app(const struct cf_http *http)
{
    return http->connection->shard->server->options.app;
}

const char *cf_http_method(const struct cf_http *http)
{
    return http->method;
}

const char *cf_http_path(const struct cf_http *http)
{
    return http->target.path;
}

const char *cf_http_request_id(const struct cf_http *http)
{
    return http->request_id;
}

const char *cf_http_header(const struct cf_http *http, const char *name)
{
    return MHD_lookup_connection_value(http->mhd, MHD_HEADER_KIND, name);
}

const char *cf_http_param(const struct cf_http *http, const char *name)
{
    size_t size = strlen(name);
    const char *value = NULL;

    for (size_t i = 0; i < http->route->n_params; i++) {
        const struct cf__route_param *param = &http->route->params[i];

        if (param->size == size && memcmp(param->name, name, size) == 0) {
            value = http->params[i];
        }
    }
    CF_ASSERT(value != NULL); /* The route's template has no such parameter. */
    return value;
}

const char *cf_http_query(const struct cf_http *http, const char *name)
{
    return cf__target_arg(&http->target, name);
}

enum cf_code cf_http_param_i64(const struct cf_http *http, const char *name, int64_t min,
                               int64_t max, int64_t *out, struct cf_err *err)
{
    return read_i64(name, cf_http_param(http, name), min, max, out, err);
}

enum cf_code cf_http_query_i64(const struct cf_http *http, const char *name, int64_t min,
                               int64_t max, int64_t fallback, int64_t *out, struct cf_err *err)
{
    const char *text = cf_http_query(http, name);

    if (text == NULL) {
        *out = fallback;
        return CF_OK;
    }
    return read_i64(name, text, min, max, out, err);
}

enum cf_code cf_http_query_f64(const struct cf_http *http, const char *name, double min, double max,
                               double fallback, double *out, struct cf_err *err)
{
    const char *text = cf_http_query(http, name);
    double value;

    if (text == NULL) {
        *out = fallback;
        return CF_OK;
    }
    if (!parse_f64(text, &value) || value < min || value > max) {
        return cf_err_set(err, CF_EINVAL, "%s must be a number from %g to %g", name, min, max);
    }
    *out = value;
    return CF_OK;
}

/* Operations */

void *cf_http_alloc(struct cf_http *http, size_t size)
{
    return cf__arena_alloc(&http->arena, size);
}
