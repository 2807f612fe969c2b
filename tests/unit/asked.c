/* SPDX-License-Identifier: MIT */
/* See asked.h. */
#include "asked.h"

#include <check.h>
#include <string.h>

#include <curfew/pg.h>

#include "curfew/http/target.h"
#include "curfewd/cache/dashboards.h"

#define NAMES_MAX 16

static bool is_on;
static const char *names[NAMES_MAX];
static size_t n_names;

/* The linker's */

const char *__real_cf__target_arg(const struct cf__target *target, const char *name);
enum cf_code __real_cf_pg_query(struct cf_ctx *ctx, struct cf_pg *pg, const struct cf_pg_stmt *stmt,
                                const struct cf_pg_param *params, size_t n_params,
                                struct cf_pg_rows **out, struct cf_err *err);
enum cf_code __real_dashboards_get(struct cf_ctx *ctx, struct dashboards *d,
                                   const struct dashboard_wish *wish, struct dashboard *out,
                                   struct cf_err *err);

const char *__wrap_cf__target_arg(const struct cf__target *target, const char *name)
{
    if (is_on && !asked_for(name)) {
        ck_assert_uint_lt(n_names, NAMES_MAX);
        names[n_names++] = name;
    }
    return __real_cf__target_arg(target, name);
}

enum cf_code __wrap_cf_pg_query(struct cf_ctx *ctx, struct cf_pg *pg, const struct cf_pg_stmt *stmt,
                                const struct cf_pg_param *params, size_t n_params,
                                struct cf_pg_rows **out, struct cf_err *err)
{
    return is_on ? cf_err_set(err, CF_EUNAVAIL, "there is no database")
                 : __real_cf_pg_query(ctx, pg, stmt, params, n_params, out, err);
}

enum cf_code __wrap_dashboards_get(struct cf_ctx *ctx, struct dashboards *d,
                                   const struct dashboard_wish *wish, struct dashboard *out,
                                   struct cf_err *err)
{
    return is_on ? cf_err_set(err, CF_EUNAVAIL, "there is no database")
                 : __real_dashboards_get(ctx, d, wish, out, err);
}

/* Operations */

void asked_begin(void)
{
    is_on = true;
    n_names = 0;
}

void asked_end(void)
{
    is_on = false;
}

/* Queries */

bool asked_for(const char *name)
{
    for (size_t i = 0; i < n_names; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

size_t asked_count(void)
{
    return n_names;
}
