/* SPDX-License-Identifier: MIT */
/* See schema.h. */
#include "schema.h"

#include <check.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>

/* Internal helpers */

static bool wrong(char *why, const char *what, const json_t *value)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);

    (void)snprintf(why, SCHEMA_WHY_SIZE, "%.100s: %.120s", what, text != NULL ? text : "?");
    free(text);
    return false;
}

static bool is_type(const json_t *value, const char *type)
{
    static const struct {
        const char *name;
        int type;
    } types[] = {{"object", JSON_OBJECT},
                 {"array", JSON_ARRAY},
                 {"string", JSON_STRING},
                 {"null", JSON_NULL},
                 {"integer", JSON_INTEGER}};

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (strcmp(types[i].name, type) == 0) {
            return (int)json_typeof(value) == types[i].type;
        }
    }
    if (strcmp(type, "number") == 0) {
        return json_is_number(value);
    }
    ck_assert_msg(strcmp(type, "boolean") == 0, "a type that is none: %s", type);
    return json_is_boolean(value);
}

static bool has_type(const json_t *value, const json_t *types)
{
    size_t i;
    const json_t *type;

    if (json_is_string(types)) {
        return is_type(value, json_string_value(types));
    }
    json_array_foreach(types, i, type)
    {
        if (is_type(value, json_string_value(type))) {
            return true;
        }
    }
    return false;
}

static bool is_one_of(const json_t *value, const json_t *values)
{
    size_t i;
    const json_t *one;

    json_array_foreach(values, i, one)
    {
        if (json_equal(value, one)) {
            return true;
        }
    }
    return false;
}

static bool has_required(const json_t *value, const json_t *names, char *why)
{
    size_t i;
    const json_t *name;

    json_array_foreach(names, i, name)
    {
        if (json_object_get(value, json_string_value(name)) == NULL) {
            return wrong(why, json_string_value(name), value);
        }
    }
    return true;
}

static bool has_members(const json_t *document, const json_t *schema, const json_t *value,
                        char *why)
{
    const json_t *properties = json_object_get(schema, "properties");
    const json_t *others = json_object_get(schema, "additionalProperties");
    const char *name;
    const json_t *member;
    void *at;

    for (at = json_object_iter((json_t *)(uintptr_t)value); at != NULL;
         at = json_object_iter_next((json_t *)(uintptr_t)value, at)) {
        const json_t *property;

        name = json_object_iter_key(at);
        member = json_object_iter_value(at);
        property = json_object_get(properties, name);
        property = property != NULL ? property : others;
        if (json_is_false(property)) {
            return wrong(why, name, value);
        }
        if (json_is_object(property) && !schema_has(document, property, member, why)) {
            return false;
        }
    }
    return true;
}

static bool has_items(const json_t *document, const json_t *items, const json_t *value, char *why)
{
    size_t i;
    const json_t *item;

    json_array_foreach(value, i, item)
    {
        if (!schema_has(document, items, item, why)) {
            return false;
        }
    }
    return true;
}

static bool is_one(const json_t *document, const json_t *schemas, const json_t *value, char *why)
{
    size_t n = 0;
    size_t i;
    const json_t *schema;

    json_array_foreach(schemas, i, schema)
    {
        n += schema_has(document, schema, value, why);
    }
    return n == 1 ? true : n > 1 ? wrong(why, "more than one of oneOf", value) : false;
}

static bool has_pattern(const char *text, const char *pattern)
{
    regex_t regex;
    bool matches;

    ck_assert_int_eq(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    matches = regexec(&regex, text, 0, NULL, 0) == 0;
    regfree(&regex);
    return matches;
}

/* What one keyword says of a value of a type that it is for. */
static bool has_keyword(const json_t *document, const json_t *schema, const char *keyword,
                        const json_t *said, const json_t *value, char *why)
{
    static const char *const silent[] = {"description", "format", "default"};
    double number = json_number_value(said);
    bool right = true;

    for (size_t i = 0; i < sizeof(silent) / sizeof(silent[0]); i++) {
        if (strcmp(keyword, silent[i]) == 0) {
            return true;
        }
    }
    if (strcmp(keyword, "$ref") == 0) {
        said = schema_at(document, json_string_value(said));
        ck_assert_ptr_nonnull(said);
        return schema_has(document, said, value, why);
    }
    if (strcmp(keyword, "oneOf") == 0) {
        return is_one(document, said, value, why);
    }
    if (strcmp(keyword, "properties") == 0 || strcmp(keyword, "additionalProperties") == 0) {
        return !json_is_object(value) || has_members(document, schema, value, why);
    }
    if (strcmp(keyword, "items") == 0) {
        return !json_is_array(value) || has_items(document, said, value, why);
    }
    if (strcmp(keyword, "required") == 0) {
        return !json_is_object(value) || has_required(value, said, why);
    }
    if (strcmp(keyword, "type") == 0) {
        right = has_type(value, said);
    } else if (strcmp(keyword, "enum") == 0) {
        right = is_one_of(value, said);
    } else if (strcmp(keyword, "const") == 0) {
        right = json_equal(value, said);
    } else if (strcmp(keyword, "minimum") == 0) {
        right = !json_is_number(value) || json_number_value(value) >= number;
    } else if (strcmp(keyword, "maximum") == 0) {
        right = !json_is_number(value) || json_number_value(value) <= number;
    } else if (strcmp(keyword, "minItems") == 0) {
        right = !json_is_array(value) || (double)json_array_size(value) >= number;
    } else if (strcmp(keyword, "maxItems") == 0) {
        right = !json_is_array(value) || (double)json_array_size(value) <= number;
    } else if (strcmp(keyword, "minProperties") == 0) {
        right = !json_is_object(value) || (double)json_object_size(value) >= number;
    } else if (strcmp(keyword, "minLength") == 0) {
        right = !json_is_string(value) || (double)json_string_length(value) >= number;
    } else if (strcmp(keyword, "maxLength") == 0) {
        right = !json_is_string(value) || (double)json_string_length(value) <= number;
    } else if (strcmp(keyword, "pattern") == 0) {
        right = !json_is_string(value) ||
                has_pattern(json_string_value(value), json_string_value(said));
    } else {
        ck_abort_msg("a keyword that is not known: %s", keyword);
    }
    return right ? true : wrong(why, keyword, value);
}

/* Queries */

bool schema_has(const json_t *document, const json_t *schema, const json_t *value,
                char why[SCHEMA_WHY_SIZE])
{
    void *at;

    ck_assert(json_is_object(schema));
    for (at = json_object_iter((json_t *)(uintptr_t)schema); at != NULL;
         at = json_object_iter_next((json_t *)(uintptr_t)schema, at)) {
        if (!has_keyword(document, schema, json_object_iter_key(at), json_object_iter_value(at),
                         value, why)) {
            return false;
        }
    }
    return true;
}

json_t *schema_at(const json_t *document, const char *ref)
{
    json_t *at = (json_t *)(uintptr_t)document;

    if (strncmp(ref, "#/", 2) != 0) {
        return NULL;
    }
    for (ref += 2; at != NULL && *ref != '\0'; ref += strcspn(ref, "/"), ref += *ref == '/') {
        char name[64];

        (void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(ref, "/"), ref);
        at = json_object_get(at, name);
    }
    return at;
}

json_t *schema_resolve(const json_t *document, json_t *object)
{
    const char *ref = json_string_value(json_object_get(object, "$ref"));

    return ref != NULL ? schema_at(document, ref) : object;
}
