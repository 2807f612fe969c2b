/* SPDX-License-Identifier: MIT */
/* The description of the interface against the table of routes, the handlers, and the constants
 * that they go by: neither can change without the other. What the service answers is compared with
 * it in tests/e2e/test_openapi.c. */
#include "curfewd/openapi.h"

#include <check.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/sem.h>

#include "asked.h"
#include "curfew/http/server_private.h"
#include "curfewd/routes/routes.h"
#include "curfewd/store/status.h"
#include "curfewd/store/store.h"
#include "curfewd/thumbnails/thumbnails.h"
#include "request.h"
#include "schema.h"

#define N(table) (sizeof(table) / sizeof((table)[0]))

/* Fixture */

static json_t *document;
static struct cf_http_route routes[ROUTES_MAX];
static size_t n_routes;

static void setup(void)
{
    document = json_loadb(openapi_text, (size_t)(openapi_end - openapi_text),
                          JSON_REJECT_DUPLICATES, NULL);
    ck_assert_ptr_nonnull(document);
    n_routes = routes_api(&(struct routes_options){.demo = true}, routes);
}

static void teardown(void)
{
    json_decref(document);
}

/* Helpers */

static json_t *at(const char *ref)
{
    json_t *value = schema_at(document, ref);

    ck_assert_msg(value != NULL, "there is no %s", ref);
    return value;
}

/* The operation of a route, or NULL. */
static json_t *operation_of(const struct cf_http_route *route)
{
    json_t *path = json_object_get(at("#/paths"), route->path);
    char method[16];
    size_t n = 0;

    for (; route->method[n] != '\0'; n++) {
        method[n] = (char)tolower((unsigned char)route->method[n]);
    }
    method[n] = '\0';
    return json_object_get(path, method);
}

/* The i-th parameter that is `in` there, or NULL. */
static json_t *parameter_of(const json_t *operation, const char *in, size_t i)
{
    size_t index;
    json_t *parameter;

    json_array_foreach(json_object_get(operation, "parameters"), index, parameter)
    {
        parameter = schema_resolve(document, parameter);
        if (strcmp(json_string_value(json_object_get(parameter, "in")), in) == 0 && i-- == 0) {
            return parameter;
        }
    }
    return NULL;
}

static const char *name_of(const json_t *parameter)
{
    return json_string_value(json_object_get(parameter, "name"));
}

/* A path of the route: with 1 for what is in braces. */
static void write_target(const struct cf_http_route *route, char *out, size_t size)
{
    size_t n = strcspn(route->path, "{");
    const char *rest = strchr(route->path, '}');

    (void)snprintf(out, size, "%.*s%s%s", (int)n, route->path, rest != NULL ? "1" : "",
                   rest != NULL ? rest + 1 : "");
}

/* routes */

START_TEST(document_has_every_route_and_no_other)
{
    const char *path;
    json_t *item;
    size_t n = 0;

    for (size_t i = 0; i < n_routes; i++) {
        ck_assert_msg(operation_of(&routes[i]) != NULL, "the document lacks %s %s",
                      routes[i].method, routes[i].path);
    }
    json_object_foreach(at("#/paths"), path, item)
    {
        n += json_object_size(item);
    }
    ck_assert_uint_eq(n, n_routes);
}
END_TEST

/* Those of the replies that are none of failure, which a route's types are. */
START_TEST(document_has_the_types_of_each_route)
{
    for (size_t i = 0; i < n_routes; i++) {
        char types[128] = "";
        const char *status;
        json_t *response;

        json_object_foreach(json_object_get(operation_of(&routes[i]), "responses"), status,
                            response)
        {
            const char *type;
            json_t *content;

            if (status[0] != '2') {
                continue;
            }
            json_object_foreach(json_object_get(response, "content"), type, content)
            {
                (void)snprintf(types + strlen(types), sizeof(types) - strlen(types), "%s%s",
                               types[0] != '\0' ? ", " : "", type);
            }
        }
        ck_assert_str_ne(types, "");
        if (routes[i].types != NULL) {
            ck_assert_msg(strcmp(types, routes[i].types) == 0, "%s: %s", routes[i].path, types);
        }
    }
}
END_TEST

START_TEST(document_has_the_parameters_of_each_path)
{
    for (size_t i = 0; i < n_routes; i++) {
        const json_t *operation = operation_of(&routes[i]);
        const json_t *parameter;
        size_t n = 0;

        for (const char *open = strchr(routes[i].path, '{'); open != NULL;
             open = strchr(open + 1, '{')) {
            parameter = parameter_of(operation, "path", n++);
            ck_assert_msg(parameter != NULL, "%s", routes[i].path);
            ck_assert_uint_eq(strlen(name_of(parameter)), strcspn(open + 1, "}"));
            ck_assert_int_eq(strncmp(name_of(parameter), open + 1, strlen(name_of(parameter))), 0);
        }
        ck_assert_ptr_null(parameter_of(operation, "path", n));
    }
}
END_TEST

/* `timeout` is the server's, for all of them. */
START_TEST(document_has_the_arguments_that_each_handler_asks_for)
{
    static const struct thumbnails_options options = {.threads_max = 1, .memory_max = 1 << 20};
    static struct app app;

    ck_assert_int_eq(cf_sem_new(1, &app.exports, NULL), CF_OK);
    ck_assert_int_eq(thumbnails_new(&options, &app.thumbnails, NULL), CF_OK);
    ck_assert_int_eq(openapi_new(&app.openapi, NULL), CF_OK);
    atomic_store(&app.draining, true); /* /readyz then asks no database either. */
    for (size_t i = 0; i < n_routes; i++) {
        const json_t *operation = operation_of(&routes[i]);
        const json_t *parameter;
        struct cf_http *http;
        struct cf_err err;
        bool has_timeout = false;
        size_t n = 0;
        size_t n_timeout;

        char target[64];

        /* The others have no arguments of their own. */
        asked_begin();
        if (strcmp(routes[i].method, "GET") == 0) {
            write_target(&routes[i], target, sizeof(target));
            http = request_new(&app, target);
            http->method = "HEAD"; /* So that an export does not begin. */
            (void)request_handle(http, &err);
            request_free(http);
        }
        asked_end();
        n_timeout = asked_for("timeout");
        for (size_t j = 0; (parameter = parameter_of(operation, "query", j)) != NULL; j++) {
            if (strcmp(name_of(parameter), "timeout") == 0) {
                has_timeout = true;
            } else {
                n++;
                ck_assert_msg(asked_for(name_of(parameter)), "%s does not ask for %s",
                              routes[i].path, name_of(parameter));
            }
        }
        ck_assert(has_timeout);
        ck_assert_msg(asked_count() - n_timeout == n, "%s asks for more than the document has",
                      routes[i].path);
    }
    cf_sem_free(app.exports);
    thumbnails_free(app.thumbnails);
    openapi_free(app.openapi);
}
END_TEST

/* A trace goes through all of them; that all replies tell it, the introduction says. */
START_TEST(document_has_the_trace_of_each_route)
{
    for (size_t i = 0; i < n_routes; i++) {
        json_t *operation = operation_of(&routes[i]);
        const json_t *parameter;
        size_t n = 0;

        do {
            parameter = parameter_of(operation, "header", n++);
            ck_assert_msg(parameter != NULL, "%s", routes[i].path);
        } while (strcmp(name_of(parameter), "traceparent") != 0);
    }
}
END_TEST

/* parts */

static void check_refs(json_t *value)
{
    const char *name;
    json_t *member;
    size_t i;

    json_object_foreach(value, name, member)
    {
        if (strcmp(name, "$ref") == 0) {
            (void)at(json_string_value(member));
        }
        check_refs(member);
    }
    json_array_foreach(value, i, member)
    {
        check_refs(member);
    }
}

START_TEST(document_has_what_it_refers_to)
{
    check_refs(document);
    ck_assert_str_eq(json_string_value(at("#/openapi")), "3.1.0");
    ck_assert_str_eq(json_string_value(at("#/info/version")), CF_VERSION);
}
END_TEST

/* Each component is referred to. */
START_TEST(document_has_nothing_that_nobody_refers_to)
{
    char *text = json_dumps(document, JSON_COMPACT);
    const char *kind;
    json_t *components;

    ck_assert_ptr_nonnull(text);
    json_object_foreach(at("#/components"), kind, components)
    {
        const char *name;
        json_t *component;

        json_object_foreach(components, name, component)
        {
            char ref[128];

            (void)snprintf(ref, sizeof(ref), "\"#/components/%s/%s\"", kind, name);
            ck_assert_msg(strstr(text, ref) != NULL, "%s", ref);
        }
    }
    free(text);
}
END_TEST

#define PARAMETERS "#/components/parameters/"
#define SCHEMAS "#/components/schemas/"

static const struct {
    const char *ref;
    double value;
} numbers[] = {
    {PARAMETERS "Limit/schema/minimum", PAGE_MIN},
    {PARAMETERS "Limit/schema/maximum", PAGE_MAX},
    {PARAMETERS "Limit/schema/default", PAGE_DEFAULT},
    {PARAMETERS "After/schema/minimum", 1},
    {PARAMETERS "UserId/schema/minimum", 1},
    {PARAMETERS "UserId/schema/maximum", (double)INT64_MAX},
    {PARAMETERS "Seconds/schema/maximum", SLEEP_SECONDS_MAX},
    {PARAMETERS "IdempotencyKey/schema/maxLength", ORDER_KEY_SIZE_MAX},
    {SCHEMAS "OrderNew/properties/total_cents/maximum", (double)STORE_CENTS_MAX},
    {SCHEMAS "OrderChange/properties/total_cents/maximum", (double)STORE_CENTS_MAX},
    {SCHEMAS "FetchRequest/properties/urls/maxItems", FETCH_URLS_MAX},
    {SCHEMAS "FetchRequest/properties/urls/items/maxLength", FETCH_URL_SIZE_MAX},
    {SCHEMAS "FetchRequest/properties/rps/minimum", FETCH_RPS_MIN},
    {SCHEMAS "FetchRequest/properties/rps/maximum", FETCH_RPS_MAX},
    {SCHEMAS "FetchRequest/properties/rps/default", FETCH_RPS_DEFAULT},
    {SCHEMAS "FetchRequest/properties/concurrency/maximum", FETCH_CONCURRENCY_MAX},
    {SCHEMAS "FetchRequest/properties/concurrency/default", FETCH_CONCURRENCY_DEFAULT},
    {PARAMETERS "Width/schema/minimum", IMAGE_THUMBNAIL_WIDTH_MIN},
    {PARAMETERS "Width/schema/maximum", IMAGE_THUMBNAIL_WIDTH_MAX},
    {PARAMETERS "Width/schema/default", THUMBNAIL_WIDTH_DEFAULT},
    {SCHEMAS "ThumbnailsRequest/properties/image_ids/maxItems", THUMBNAILS_MAX},
    {SCHEMAS "ThumbnailsRequest/properties/width/minimum", IMAGE_THUMBNAIL_WIDTH_MIN},
    {SCHEMAS "ThumbnailsRequest/properties/width/maximum", IMAGE_THUMBNAIL_WIDTH_MAX},
    {SCHEMAS "ThumbnailsRequest/properties/width/default", THUMBNAIL_WIDTH_DEFAULT},
    {SCHEMAS "Thumbnail/properties/width/maximum", IMAGE_THUMBNAIL_WIDTH_MAX},
    {SCHEMAS "Thumbnail/properties/height/maximum", IMAGE_THUMBNAIL_HEIGHT_MAX},
    {SCHEMAS "Image/properties/width/maximum", IMAGE_SIDE_MAX},
    {SCHEMAS "Image/properties/height/maximum", IMAGE_SIDE_MAX},
};

START_TEST(document_has_the_numbers_of_the_code)
{
    for (size_t i = 0; i < N(numbers); i++) {
        double value = json_number_value(at(numbers[i].ref));

        ck_assert_msg(value >= numbers[i].value && value <= numbers[i].value, "%s: %g, not %g",
                      numbers[i].ref, value, numbers[i].value);
    }
}
END_TEST

static void expect_words(const char *ref, const char *const *words, size_t n)
{
    const json_t *list = at(ref);

    ck_assert_uint_eq(json_array_size(list), n);
    for (size_t i = 0; i < n; i++) {
        ck_assert_str_eq(json_string_value(json_array_get(list, i)), words[i]);
    }
}

START_TEST(document_has_the_words_of_the_code)
{
#define PROBLEM_CODE(kind, status, code, title, sentence) code,
    static const char *const codes[] = {CF__PROBLEMS(PROBLEM_CODE)};
#undef PROBLEM_CODE
#define STATE_NAME(symbol, name) name,
    static const char *const states[] = {DASHBOARD_STATES(STATE_NAME)};
#undef STATE_NAME
#define MEDIA_TYPE(symbol, media_type) media_type,
    static const char *const types[] = {IMAGE_TYPES(MEDIA_TYPE)};
#undef MEDIA_TYPE
    const json_t *post = json_object_get(json_object_get(at("#/paths"), "/v1/images"), "post");
    json_t *content = json_object_get(json_object_get(post, "requestBody"), "content");

    expect_words(SCHEMAS "Status/enum", store_statuses, STORE_STATUS_COUNT);
    expect_words(SCHEMAS "Problem/properties/code/enum", codes, N(codes));
    expect_words(SCHEMAS "SectionState/properties/state/enum", states, N(states));
    expect_words(SCHEMAS "Image/properties/type/enum", types, N(types));
    ck_assert_uint_eq(json_object_size(content), N(types));
    for (size_t i = 0; i < N(types); i++) {
        ck_assert_ptr_nonnull(json_object_get(content, types[i]));
    }
}
END_TEST

/* A status of failure is one that a problem has. */
START_TEST(document_has_statuses_that_problems_have)
{
#define PROBLEM_STATUS(kind, status, code, title, sentence) status,
    static const int statuses[] = {CF__PROBLEMS(PROBLEM_STATUS)};
#undef PROBLEM_STATUS

    for (size_t i = 0; i < n_routes; i++) {
        const char *status;
        json_t *response;

        json_object_foreach(json_object_get(operation_of(&routes[i]), "responses"), status,
                            response)
        {
            bool is_known = atoi(status) < 400;

            for (size_t j = 0; j < N(statuses); j++) {
                is_known = is_known || statuses[j] == atoi(status);
            }
            ck_assert_msg(is_known, "%s: %s", routes[i].path, status);
        }
        /* What any path can be refused with. */
        ck_assert_ptr_nonnull(
            json_object_get(json_object_get(operation_of(&routes[i]), "responses"), "default"));
        /* Where a type is asked for, it can be the wrong one. */
        ck_assert_int_eq(
            json_object_get(json_object_get(operation_of(&routes[i]), "responses"), "406") != NULL,
            routes[i].types != NULL || strcmp(routes[i].path, "/v1/orders/export") == 0);
    }
}
END_TEST

Suite *suite_openapi(void)
{
    Suite *suite = suite_create("openapi");
    TCase *table = tcase_create("routes");
    TCase *parts = tcase_create("parts");

    tcase_add_checked_fixture(table, setup, teardown);
    tcase_add_test(table, document_has_every_route_and_no_other);
    tcase_add_test(table, document_has_the_types_of_each_route);
    tcase_add_test(table, document_has_the_parameters_of_each_path);
    tcase_add_test(table, document_has_the_arguments_that_each_handler_asks_for);
    tcase_add_test(table, document_has_the_trace_of_each_route);
    suite_add_tcase(suite, table);

    tcase_add_checked_fixture(parts, setup, teardown);
    tcase_add_test(parts, document_has_what_it_refers_to);
    tcase_add_test(parts, document_has_nothing_that_nobody_refers_to);
    tcase_add_test(parts, document_has_the_numbers_of_the_code);
    tcase_add_test(parts, document_has_the_words_of_the_code);
    tcase_add_test(parts, document_has_statuses_that_problems_have);
    suite_add_tcase(suite, parts);
    return suite;
}
