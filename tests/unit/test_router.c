/* SPDX-License-Identifier: MIT */
/* From method and path to a route. */
#include "curfew/http/router.h"

#include <check.h>
#include <stdalign.h>
#include <string.h>

/* Fixture */

static enum cf_code handler(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    (void)ctx;
    (void)http;
    (void)err;
    return CF_OK;
}

static const struct cf_http_route routes[] = {
    {"GET", "/", handler, 0, NULL},
    {"GET", "/users/{id}", handler, 0, NULL},
    {"PATCH", "/users/{id}", handler, 0, NULL},
    {"GET", "/users/me", handler, 0, NULL},
    {"GET", "/users", handler, 0, NULL},
    {"POST", "/users", handler, 0, NULL},
    {"GET", "/{kind}/list", handler, 0, NULL},
    {"GET", "/users/{id}/orders/{order_id}", handler, 0, NULL},
    {"DELETE", "/trailing/", handler, 0, NULL},
};

static alignas(max_align_t) char first[1024];
static struct cf__arena arena;
static struct cf__router *router;
static struct cf_err err;
static unsigned allowed;

static void setup(void)
{
    cf__arena_init(&arena, first, sizeof(first));
    ck_assert_int_eq(cf__router_new(routes, sizeof(routes) / sizeof(routes[0]), &router, &err),
                     CF_OK);
}

static void teardown(void)
{
    cf__router_free(router);
    cf__arena_fini(&arena);
}

/* Helpers */

static const struct cf__route *find(const char *method, const char *path)
{
    struct cf__target target;

    ck_assert_int_eq(cf__target_decode(path, &arena, &target, &err), CF_OK);
    return cf__router_find(router, cf__method_of(method), &target, &allowed);
}

/* new */

static const struct {
    struct cf_http_route route;
    const char *message;
} bad[] = {
    {{"GET", "users", handler, 0, NULL}, "route GET users: a path starts with /"},
    {{"GET", "", handler, 0, NULL}, "route GET : a path starts with /"},
    {{"get", "/", handler, 0, NULL}, "route get /: not a method to serve"},
    {{"TRACE", "/", handler, 0, NULL}, "route TRACE /: not a method to serve"},
    {{"HEAD", "/", handler, 0, NULL}, "route HEAD /: HEAD and OPTIONS are answered by the server"},
    {{"GET", "//a", handler, 0, NULL}, "route GET //a: an empty segment"},
    {{"GET", "/a/{}", handler, 0, NULL}, "route GET /a/{}: a parameter is named by a-z, 0-9 and _"},
    {{"GET", "/{a-b}", handler, 0, NULL},
     "route GET /{a-b}: a parameter is named by a-z, 0-9 and _"},
    {{"GET", "/a{b}", handler, 0, NULL}, "route GET /a{b}: a segment is a plain text or {name}"},
    {{"GET", "/a?b", handler, 0, NULL}, "route GET /a?b: a segment is a plain text or {name}"},
    {{"GET", "/{a}/{a}", handler, 0, NULL}, "route GET /{a}/{a}: two parameters of one name"},
    {{"GET", "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17", handler, 0, NULL},
     "route GET /1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17: too many segments"},
    {{"GET", "/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}", handler, 0, NULL},
     "route GET /{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}: too many parameters"},
    {{"GET", "/a", NULL, 0, NULL}, "route GET /a: no handler"},
    {{"GET", "/a", handler, -1, NULL}, "route GET /a: a negative timeout"},
    {{"GET", "/a", handler, 0, ", "}, "route GET /a: no type"},
};

START_TEST(new_names_the_bad_route)
{
    struct cf__router *none = NULL;

    ck_assert_int_eq(cf__router_new(&bad[_i].route, 1, &none, &err), CF_EINVAL);
    ck_assert_str_eq(err.msg, bad[_i].message);
    ck_assert_ptr_null(none);
}
END_TEST

START_TEST(new_refuses_two_routes_for_the_same_requests)
{
    static const struct cf_http_route same[] = {{"GET", "/a/{x}", handler, 0, NULL},
                                                {"GET", "/b/{x}", handler, 0, NULL},
                                                {"GET", "/a/{y}", handler, 0, NULL}};
    struct cf__router *none = NULL;

    ck_assert_int_eq(cf__router_new(same, 3, &none, &err), CF_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.msg, "another route matches the same requests"));
}
END_TEST

START_TEST(new_without_routes_finds_nothing)
{
    struct cf__router *empty;
    struct cf__target target;

    ck_assert_int_eq(cf__router_new(NULL, 0, &empty, &err), CF_OK);
    ck_assert_int_eq(cf__target_decode("/", &arena, &target, &err), CF_OK);
    ck_assert_ptr_null(cf__router_find(empty, CF__GET, &target, &allowed));
    ck_assert_uint_eq(allowed, 0);
    cf__router_free(empty);
}
END_TEST

/* find */

static const struct {
    const char *method;
    const char *path;
    const char *route; /* NULL: none. */
    unsigned allowed;
} cases[] = {
    {"GET", "/", "/", 0},
    {"HEAD", "/", "/", 0},
    {"GET", "/users", "/users", 0},
    {"GET", "/users/7", "/users/{id}", 0},
    {"PATCH", "/users/7", "/users/{id}", 0},
    {"GET", "/users/me", "/users/me", 0},     /* A literal beats a parameter... */
    {"PATCH", "/users/me", "/users/{id}", 0}, /* ...of the same method. */
    {"GET", "/users/list", "/users/{id}", 0}, /* The literal further left wins. */
    {"GET", "/orders/list", "/{kind}/list", 0},
    {"GET", "/users/7/orders/8", "/users/{id}/orders/{order_id}", 0},
    {"GET", "/users/a%2Fb", "/users/{id}", 0},
    {"DELETE", "/trailing/", "/trailing/", 0},
    {"DELETE", "/trailing", NULL, 0},
    {"GET", "/users/", NULL, 0}, /* Nothing fills no parameter. */
    {"GET", "/Users", NULL, 0},
    {"GET", "/user", NULL, 0},
    {"GET", "/userss", NULL, 0},
    {"GET", "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17/18", NULL, 0},
    {"DELETE", "/users", NULL, CF__GET | CF__HEAD | CF__POST | CF__OPTIONS},
    {"OPTIONS", "/users", NULL, CF__GET | CF__HEAD | CF__POST | CF__OPTIONS},
    {"POST", "/users/me", NULL, CF__GET | CF__HEAD | CF__PATCH | CF__OPTIONS},
    {"HEAD", "/trailing/", NULL, CF__DELETE | CF__OPTIONS},
    {"BREW", "/", NULL, CF__GET | CF__HEAD | CF__OPTIONS},
};

START_TEST(find_gives_the_route_or_the_methods)
{
    const struct cf__route *route = find(cases[_i].method, cases[_i].path);

    if (cases[_i].route != NULL) {
        ck_assert_ptr_nonnull(route);
        ck_assert_str_eq(route->route->path, cases[_i].route);
    } else {
        ck_assert_ptr_null(route);
        ck_assert_uint_eq(allowed, cases[_i].allowed);
    }
}
END_TEST

START_TEST(find_says_which_segments_fill_the_parameters)
{
    const struct cf__route *route = find("GET", "/users/7/orders/8");

    ck_assert_uint_eq(route->n_params, 2);
    ck_assert_uint_eq(route->params[0].segment, 1);
    ck_assert_mem_eq(route->params[0].name, "id", route->params[0].size);
    ck_assert_uint_eq(route->params[1].segment, 3);
    ck_assert_mem_eq(route->params[1].name, "order_id", route->params[1].size);
}
END_TEST

/* methods */

START_TEST(methods_write_fits_them_all)
{
    char text[CF__ALLOW_SIZE];

    cf__methods_write(~0U, text);
    ck_assert_str_eq(text, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE, CONNECT");
    cf__methods_write(CF__GET | CF__OPTIONS, text);
    ck_assert_str_eq(text, "GET, OPTIONS");
    cf__methods_write(0, text);
    ck_assert_str_eq(text, "");
}
END_TEST

Suite *suite_router(void)
{
    Suite *suite = suite_create("router");
    TCase *tc = tcase_create("router");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, new_names_the_bad_route, 0, sizeof(bad) / sizeof(bad[0]));
    tcase_add_test(tc, new_refuses_two_routes_for_the_same_requests);
    tcase_add_test(tc, new_without_routes_finds_nothing);
    tcase_add_loop_test(tc, find_gives_the_route_or_the_methods, 0,
                        sizeof(cases) / sizeof(cases[0]));
    tcase_add_test(tc, find_says_which_segments_fill_the_parameters);
    tcase_add_test(tc, methods_write_fits_them_all);
    suite_add_tcase(suite, tc);
    return suite;
}
