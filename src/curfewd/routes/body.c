/* SPDX-License-Identifier: MIT */
/* Bodies of requests: see body.h. */
#include "curfewd/routes/body.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "curfewd/routes/choices.h"

/* How much of a name that nobody knows is repeated. */
#define NAME_SHOWN 64

/* Internal helpers */

/* Whether a Content-Type is `type`: without its parameters, in any case. */
static bool is_type(const char *value, const char *type)
{
    size_t size = strcspn(value, "; \t");

    return strlen(type) == size && strncasecmp(value, type, size) == 0;
}

static enum cf_code check_type(struct cf_http *http, const char *type, struct cf_err *err)
{
    const char *value = cf_http_header(http, "Content-Type");

    if (value != NULL && (is_type(value, "application/json") || is_type(value, type))) {
        return CF_OK;
    }
    cf_http_reply_header(http, "Accept", type);
    return cf_http_fail_as(http, 415,
                           cf_err_set(err, CF_EINVAL, "the body's Content-Type must be %s", type));
}

/* Control characters are shown as such, and so is what was cut. */
static void show_name(const char *name, char out[NAME_SHOWN + 4])
{
    size_t n = 0;

    for (; name[n] != '\0' && n < NAME_SHOWN; n++) {
        out[n] = (unsigned char)name[n] < 0x20 || (unsigned char)name[n] >= 0x7F ? '?' : name[n];
    }
    memcpy(out + n, "...", sizeof("..."));
    if (name[n] == '\0') {
        out[n] = '\0';
    }
}

static enum cf_code check_members(struct cf_http *http, json_t *body, const char *const *members,
                                  size_t n_members, struct cf_err *err)
{
    const char *name;
    json_t *value;

    if (!json_is_object(body)) {
        return body_refuse(http, err, "the body must be a JSON object");
    }
    json_object_foreach(body, name, value)
    {
        char shown[NAME_SHOWN + 4];
        size_t i = 0;

        while (i < n_members && strcmp(name, members[i]) != 0) {
            i++;
        }
        if (i == n_members) {
            show_name(name, shown);
            return body_refuse(http, err, "%s is not known here", shown);
        }
    }
    return CF_OK;
}

/* Operations */

enum cf_code body_refuse(struct cf_http *http, struct cf_err *err, const char *format, ...)
{
    char msg[CF_ERR_MSG_SIZE];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(msg, sizeof(msg), format, args);
    va_end(args);
    return cf_http_fail_as(http, 422, cf_err_set(err, CF_EINVAL, "%s", msg));
}

enum cf_code body_read(struct cf_http *http, const char *type, const char *const *members,
                       size_t n_members, struct json_t **out, struct cf_err *err)
{
    json_t *body;
    enum cf_code code = check_type(http, type, err);

    if (code == CF_OK) {
        code = cf_http_body_json(http, &body, err);
    }
    if (code != CF_OK) {
        return code;
    }
    code = check_members(http, body, members, n_members, err);
    if (code != CF_OK) {
        json_decref(body);
        return code;
    }
    *out = body;
    return CF_OK;
}

bool body_has(const struct json_t *body, const char *name)
{
    return json_object_get(body, name) != NULL;
}

enum cf_code body_i64(struct cf_http *http, const struct json_t *body, const char *name,
                      int64_t min, int64_t max, int64_t *out, struct cf_err *err)
{
    const json_t *value = json_object_get(body, name);

    if (!json_is_integer(value) || json_integer_value(value) < min ||
        json_integer_value(value) > max) {
        return body_refuse(http, err, "%s must be an integer from %" PRId64 " to %" PRId64, name,
                           min, max);
    }
    *out = json_integer_value(value);
    return CF_OK;
}

enum cf_code body_choice(struct cf_http *http, const struct json_t *body, const char *name,
                         const char *const *choices, size_t n_choices, const char **out,
                         struct cf_err *err)
{
    const json_t *value = json_object_get(body, name);
    char right[CHOICES_SIZE];

    for (size_t i = 0; i < n_choices && json_is_string(value); i++) {
        /* By its length too: what is behind a zero byte would not be seen. */
        if (strlen(choices[i]) == json_string_length(value) &&
            strcmp(json_string_value(value), choices[i]) == 0) {
            *out = choices[i];
            return CF_OK;
        }
    }
    choices_list(choices, n_choices, right);
    return body_refuse(http, err, "%s must be %s", name, right);
}
