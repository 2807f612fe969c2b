/* SPDX-License-Identifier: MIT */
/* Routing: see router.h.
 *
 * The table is sorted once so that the more specific template comes first; the first that matches
 * is then the right one. A linear search: a service has some twenty routes, most of which differ in
 * the number of segments or in the first literal. */
#include "curfew/http/router.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "curfew/http/negotiate.h"
#include "curfew/http/words.h"

struct cf__router {
    size_t n_routes;
    struct cf__route routes[];
};

/* Internal helpers: templates */

static bool is_param(const struct cf__segment *segment)
{
    return segment->text == NULL;
}

static enum cf_code refuse(const struct cf_http_route *route, const char *why, struct cf_err *err)
{
    return cf_err_set(err, CF_EINVAL, "route %s %s: %s", route->method, route->path, why);
}

static enum cf_code add_param(struct cf__route *compiled, const char *name, size_t size,
                              struct cf_err *err)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789_";
    struct cf__route_param *param = &compiled->params[compiled->n_params];

    if (size == 0 || strspn(name, allowed) < size) {
        return refuse(compiled->route, "a parameter is named by a-z, 0-9 and _", err);
    }
    if (compiled->n_params == CF__PARAMS_MAX) {
        return refuse(compiled->route, "too many parameters", err);
    }
    for (size_t i = 0; i < compiled->n_params; i++) {
        if (compiled->params[i].size == size && memcmp(compiled->params[i].name, name, size) == 0) {
            return refuse(compiled->route, "two parameters of one name", err);
        }
    }
    *param = (struct cf__route_param){name, size, compiled->n_segments};
    compiled->n_params++;
    compiled->segments[compiled->n_segments++] = (struct cf__segment){NULL, 0};
    return CF_OK;
}

static enum cf_code add_segment(struct cf__route *compiled, const char *text, size_t size,
                                struct cf_err *err)
{
    if (compiled->n_segments == CF__SEGMENTS_MAX) {
        return refuse(compiled->route, "too many segments", err);
    }
    if (size >= 2 && text[0] == '{' && text[size - 1] == '}') {
        return add_param(compiled, text + 1, size - 2, err);
    }
    if (strcspn(text, "{}?#% ") < size) {
        return refuse(compiled->route, "a segment is a plain text or {name}", err);
    }
    compiled->segments[compiled->n_segments++] = (struct cf__segment){text, size};
    return CF_OK;
}

static enum cf_code compile_path(struct cf__route *compiled, struct cf_err *err)
{
    const char *at = compiled->route->path;

    if (at[0] != '/') {
        return refuse(compiled->route, "a path starts with /", err);
    }
    while (*at == '/') {
        size_t size = strcspn(at + 1, "/");
        enum cf_code code;

        if (size == 0 && at[1] == '/') {
            return refuse(compiled->route, "an empty segment", err);
        }
        code = add_segment(compiled, at + 1, size, err);
        if (code != CF_OK) {
            return code;
        }
        at += 1 + size;
    }
    return CF_OK;
}

static enum cf_code compile(const struct cf_http_route *route, struct cf__route *compiled,
                            struct cf_err *err)
{
    compiled->route = route;
    compiled->method = cf__method_of(route->method);
    if (compiled->method == CF__HEAD || compiled->method == CF__OPTIONS) {
        return refuse(route, "HEAD and OPTIONS are answered by the server", err);
    }
    if (compiled->method == CF__UNKNOWN_METHOD || compiled->method == CF__TRACE ||
        compiled->method == CF__CONNECT) {
        return refuse(route, "not a method to serve", err);
    }
    if (route->handler == NULL) {
        return refuse(route, "no handler", err);
    }
    if (route->types != NULL && cf__words_count(route->types, CF__TYPE_SEPARATORS) == 0) {
        return refuse(route, "no type", err);
    }
    if (route->timeout_max_ns < 0) {
        return refuse(route, "a negative timeout", err);
    }
    return compile_path(compiled, err);
}

/* Internal helpers: order */

static int compare_text(const struct cf__segment *a, const struct cf__segment *b)
{
    int order = memcmp(a->text, b->text, a->size < b->size ? a->size : b->size);

    return order != 0 ? order : (a->size > b->size) - (a->size < b->size);
}

/* By number of segments, then literals before parameters from the left, then by text, method. */
static int compare_routes(const void *left, const void *right)
{
    const struct cf__route *a = left;
    const struct cf__route *b = right;

    if (a->n_segments != b->n_segments) {
        return a->n_segments < b->n_segments ? -1 : 1;
    }
    for (size_t i = 0; i < a->n_segments; i++) {
        if (is_param(&a->segments[i]) != is_param(&b->segments[i])) {
            return is_param(&a->segments[i]) ? 1 : -1;
        }
    }
    for (size_t i = 0; i < a->n_segments; i++) {
        int order = is_param(&a->segments[i]) ? 0 : compare_text(&a->segments[i], &b->segments[i]);

        if (order != 0) {
            return order;
        }
    }
    return (a->method > b->method) - (a->method < b->method);
}

/* Internal helpers: matching */

static bool matches(const struct cf__route *route, const struct cf__target *target)
{
    if (route->n_segments != target->n_segments) {
        return false;
    }
    for (size_t i = 0; i < route->n_segments; i++) {
        const struct cf__segment *want = &route->segments[i];
        const struct cf__segment *have = &target->segments[i];

        if (is_param(want)) {
            if (have->size == 0) {
                return false;
            }
        } else if (want->size != have->size || memcmp(want->text, have->text, want->size) != 0) {
            return false;
        }
    }
    return true;
}

/* Life cycle */

enum cf_code cf__router_new(const struct cf_http_route *routes, size_t n_routes,
                            struct cf__router **out, struct cf_err *err)
{
    struct cf__router *router = calloc(1, sizeof(*router) + n_routes * sizeof(router->routes[0]));
    enum cf_code code = CF_OK;

    if (router == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for %zu routes", n_routes);
    }
    router->n_routes = n_routes;
    for (size_t i = 0; i < n_routes && code == CF_OK; i++) {
        code = compile(&routes[i], &router->routes[i], err);
    }
    if (code == CF_OK && n_routes > 1) {
        qsort(router->routes, n_routes, sizeof(router->routes[0]), compare_routes);
    }
    for (size_t i = 1; i < n_routes && code == CF_OK; i++) {
        if (compare_routes(&router->routes[i - 1], &router->routes[i]) == 0) {
            code = refuse(router->routes[i].route, "another route matches the same requests", err);
        }
    }
    if (code != CF_OK) {
        cf__router_free(router);
        return code;
    }
    *out = router;
    return CF_OK;
}

void cf__router_free(struct cf__router *router)
{
    free(router);
}

/* Operations */

const struct cf__route *cf__router_find(const struct cf__router *router, enum cf__method method,
                                        const struct cf__target *target, unsigned *out_allowed)
{
    const struct cf__route *found = NULL;
    unsigned allowed = 0;

    if (method == CF__HEAD) {
        method = CF__GET;
    }
    for (size_t i = 0; i < router->n_routes && found == NULL; i++) {
        const struct cf__route *route = &router->routes[i];

        if (matches(route, target)) {
            allowed |= route->method;
            found = route->method == method ? route : NULL;
        }
    }
    if ((allowed & CF__GET) != 0) {
        allowed |= CF__HEAD;
    }
    *out_allowed = allowed != 0 ? allowed | CF__OPTIONS : 0;
    return found;
}

/* Queries */

static const struct {
    const char *name;
    enum cf__method method;
} methods[] = {
#define CF__METHOD_ROW(name, bit) {#name, CF__##name},
    CF__METHODS(CF__METHOD_ROW)
#undef CF__METHOD_ROW
};

enum cf__method cf__method_of(const char *name)
{
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (strcmp(methods[i].name, name) == 0) {
            return methods[i].method;
        }
    }
    return CF__UNKNOWN_METHOD;
}

void cf__methods_write(unsigned set, char out[CF__ALLOW_SIZE])
{
    size_t n = 0;

    out[0] = '\0';
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if ((set & methods[i].method) != 0) {
            n += (size_t)snprintf(out + n, CF__ALLOW_SIZE - n, "%s%s", n > 0 ? ", " : "",
                                  methods[i].name); /* All of them fit. */
        }
    }
}
