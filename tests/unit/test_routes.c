/* SPDX-License-Identifier: MIT */
/* The routes: which there are, what they refuse before they ask the database, and what they answer
 * without one. */
#include "curfewd/routes/routes.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

#include "curfewd/versions.h"
#include "request.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* Fixture */

static struct app app;
static struct cf_http *http;
static struct cf_err err;

static void setup(void)
{
    app.pg = NULL;
    atomic_store(&app.draining, false);
}

static void teardown(void)
{
    request_free(http);
}

/* Helpers */

/* Methods of a path. */
static size_t count_of(const struct cf_http_route *routes, size_t count, const char *path)
{
    size_t n = 0;

    for (size_t i = 0; i < count; i++) {
        n += strcmp(routes[i].path, path) == 0;
    }
    return n;
}

static void expect_member(const json_t *body, const char *name, const char *value)
{
    const char *text = json_string_value(json_object_get(body, name));

    ck_assert_msg(text != NULL, "no \"%s\"", name);
    ck_assert_str_eq(text, value);
}

/* api, admin */

static const struct {
    const char *path;
    bool api;
    bool admin;
    bool demo; /* Only with it. */
} table[] = {
    {"/v1/dashboard", true, false, false},
    {"/v1/users/{id}", true, false, false},
    {"/v1/users", true, false, false},
    {"/v1/orders", true, false, false},
    {"/v1/orders/{id}", true, false, false},
    {"/v1/metrics", true, false, false},
    {"/v1/orders/export", true, false, false},
    {"/v1/fetch", true, false, false},
    {"/v1/images", true, false, false},
    {"/v1/images/{id}", true, false, false},
    {"/v1/thumbnails", true, false, false},
    {"/v1/thumbnails/{id}", true, false, false},
    {"/livez", true, true, false},
    {"/readyz", true, true, false},
    {"/version", true, true, false},
    {"/openapi.json", true, false, false},
    {"/v1/sleep", true, true, true},
};

START_TEST(tables_have_demo_routes_with_demo_only)
{
    bool demo = _i == 1;
    struct routes_options options = {.demo = demo};
    struct cf_http_route api[ROUTES_MAX];
    struct cf_http_route admin[ROUTES_MAX];
    size_t n_api = routes_api(&options, api);
    size_t n_admin = routes_admin(&options, admin);
    size_t expected_api = 0;
    size_t expected_admin = 0;

    for (size_t i = 0; i < LENGTH(table); i++) {
        bool there = demo || !table[i].demo;

        size_t of_api = count_of(api, n_api, table[i].path);
        size_t of_admin = count_of(admin, n_admin, table[i].path);

        ck_assert_msg((of_api > 0) == (there && table[i].api), "%s", table[i].path);
        ck_assert_msg((of_admin > 0) == (there && table[i].admin), "%s", table[i].path);
        expected_api += of_api;
        expected_admin += of_admin;
    }
    ck_assert_uint_eq(n_api, expected_api);
    ck_assert_uint_eq(n_admin, expected_admin);
}
END_TEST

/* What is refused */

#define USER_ID "user_id must be an integer from 1 to 9223372036854775807"
#define ID "id must be an integer from 1 to 9223372036854775807"
#define STATUS "status must be pending, paid, shipped or cancelled"
#define SECONDS "seconds must be a number from 0 to 3600"

static const struct {
    const char *target;
    const char *said;
} refused[] = {
    {"/v1/users/0", ID},
    {"/v1/users/-1", ID},
    {"/v1/users/me", ID},
    {"/v1/users/1.5", ID},
    {"/v1/users/%20", ID},
    {"/v1/users/9223372036854775808", ID},
    {"/v1/users?limit=0", "limit must be an integer from 1 to 200"},
    {"/v1/images/0", ID},
    {"/v1/thumbnails/x", ID},
    {"/v1/thumbnails/1?width=15", "width must be an integer from 16 to 2048"},
    {"/v1/thumbnails/1?width=2049", "width must be an integer from 16 to 2048"},
    {"/v1/thumbnails/1?width=wide", "width must be an integer from 16 to 2048"},
    {"/v1/orders?user_id=0", USER_ID},
    {"/v1/orders?user_id=", USER_ID},
    {"/v1/orders?user_id=1%202", USER_ID},
    {"/v1/orders?user_id=7&limit=201", "limit must be an integer from 1 to 200"},
    {"/v1/orders?after=0", "after must be an integer from 1 to 9223372036854775807"},
    {"/v1/orders?status=", STATUS},
    {"/v1/orders?status=lost", STATUS},
    {"/v1/orders?status=PAID", STATUS},
    {"/v1/orders?user_id=7&status=paid,shipped", STATUS},
    {"/v1/orders/export?format=xml", "format must be ndjson or csv"},
    {"/v1/orders/export?format=", "format must be ndjson or csv"},
    {"/v1/orders/export?status=lost", STATUS},
    {"/v1/dashboard?user_id=0", USER_ID},
    {"/v1/dashboard?user_id=x", USER_ID},
    {"/v1/sleep?seconds=", SECONDS},
    {"/v1/sleep?seconds=-0.1", SECONDS},
    {"/v1/sleep?seconds=3600.1", SECONDS},
    {"/v1/sleep?seconds=nan", SECONDS},
    {"/v1/sleep?seconds=inf", SECONDS},
    {"/v1/sleep?seconds=1e3", SECONDS},
    {"/v1/sleep?seconds=0x1", SECONDS},
    {"/v1/sleep?seconds=1,5", SECONDS},
    {"/v1/sleep?seconds=.5", SECONDS},
    {"/v1/sleep?seconds=5.", SECONDS},
    {"/v1/sleep?seconds=1s", SECONDS},
};

/* The database is NULL: whoever lets a bad value through crashes. */
START_TEST(bad_value_is_refused_before_the_database)
{
    http = request_new(&app, refused[_i].target);
    ck_assert_int_eq(request_handle(http, &err), CF_EINVAL);
    ck_assert_str_eq(err.msg, refused[_i].said);
}
END_TEST

/* livez, readyz, version */

START_TEST(livez_needs_no_database)
{
    json_t *body;

    http = request_new(&app, "/livez");
    atomic_store(&app.draining, true); /* No reason to be killed. */
    ck_assert_int_eq(request_handle(http, &err), CF_OK);
    ck_assert_int_eq(request_status(http), 200);
    body = request_body(http);
    expect_member(body, "status", "alive");
    json_decref(body);
}
END_TEST

START_TEST(readyz_while_draining_is_not_ready)
{
    json_t *body;

    http = request_new(&app, "/readyz");
    atomic_store(&app.draining, true);
    ck_assert_int_eq(request_handle(http, &err), CF_OK);
    ck_assert_int_eq(request_status(http), 503);
    body = request_body(http);
    expect_member(body, "status", "draining");
    expect_member(body, "reason", "the process is stopping");
    json_decref(body);
}
END_TEST

/* Whatever the Makefile links, by the name of its package or one that begins so. */
START_TEST(version_names_every_library_of_the_makefile)
{
    FILE *makefile = fopen("Makefile", "re"); /* Tests run where it is. */
    struct version list[VERSIONS_MAX];
    size_t count = versions(list);
    size_t n_packages = 0;
    char line[512];

    http = request_new(&app, "/version"); /* For the teardown. */
    ck_assert_ptr_nonnull(makefile);
    while (fgets(line, sizeof(line), makefile) != NULL) {
        char *rest = strstr(line, " := ");
        char *save = NULL;

        line[strcspn(line, " ")] = '\0';
        if (rest == NULL || (strcmp(line, "PACKAGES") != 0 && strcmp(line, "SVC_PACKAGES") != 0)) {
            continue;
        }
        for (char *name = strtok_r(rest + 4, " \n", &save); name != NULL;
             name = strtok_r(NULL, " \n", &save)) {
            size_t i = 0;

            while (i < count && strncmp(list[i].name, name, strlen(name)) != 0) {
                i++;
            }
            ck_assert_msg(i < count, "no version of %s", name);
            n_packages++;
        }
    }
    (void)fclose(makefile);
    ck_assert_uint_eq(n_packages, count - 1); /* The service is none. */
}
END_TEST

START_TEST(version_names_service_and_libraries)
{
    static const char *const names[] = {"curfewd",       "libmicrohttpd", "libpq",   "libuv",
                                        "jansson",       "libcurl",       "openssl", "zlib",
                                        "libjpeg-turbo", "libpng",        "libwebp"};
    struct version list[VERSIONS_MAX];
    json_t *body;

    ck_assert_uint_eq(versions(list), LENGTH(names));
    http = request_new(&app, "/version");
    ck_assert_int_eq(request_handle(http, &err), CF_OK);
    ck_assert_int_eq(request_status(http), 200);
    body = request_body(http);
    ck_assert_uint_eq(json_object_size(body), LENGTH(names));
    for (size_t i = 0; i < LENGTH(names); i++) {
        ck_assert_str_eq(list[i].name, names[i]);
        expect_member(body, names[i], list[i].version);
        ck_assert_uint_gt(strspn(list[i].version, "0123456789"), 0);
    }
    expect_member(body, "curfewd", CF_VERSION);
    json_decref(body);
}
END_TEST

Suite *suite_routes(void)
{
    Suite *suite = suite_create("routes");
    TCase *tables = tcase_create("tables");
    TCase *values = tcase_create("values");
    TCase *health = tcase_create("health");

    tcase_add_loop_test(tables, tables_have_demo_routes_with_demo_only, 0, 2);
    suite_add_tcase(suite, tables);

    tcase_add_checked_fixture(values, setup, teardown);
    tcase_add_loop_test(values, bad_value_is_refused_before_the_database, 0, LENGTH(refused));
    suite_add_tcase(suite, values);

    tcase_add_checked_fixture(health, setup, teardown);
    tcase_add_test(health, livez_needs_no_database);
    tcase_add_test(health, readyz_while_draining_is_not_ready);
    tcase_add_test(health, version_names_service_and_libraries);
    tcase_add_test(health, version_names_every_library_of_the_makefile);
    suite_add_tcase(suite, health);
    return suite;
}
