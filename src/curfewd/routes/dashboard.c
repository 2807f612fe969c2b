/* SPDX-License-Identifier: MIT */
/* GET /v1/dashboard: three sections at once, from a cache or from the database
 * (cache/dashboards.h).
 *
 * Without an argument the newest users and orders and the figures of the whole store; with
 * ?user_id= one user, its newest orders and its figures. A whole dashboard says in its headers
 * where it came from (Cache-Status, RFC 9211) and how old it is; its body is the same for
 * everybody. One that lacks a section says in its body what became of each,
 * and is for this client only, now. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "curfewd/cache/dashboards.h"
#include "curfewd/routes/routes.h"

#define VALUE_SIZE 64

/* The arguments */

static enum cf_code read_require(const struct cf_http *http, bool *out_all, struct cf_err *err)
{
    const char *text = cf_http_query(http, "require");

    if (text != NULL && strcmp(text, "all") != 0) {
        return cf_err_set(err, CF_EINVAL, "require must be all, or not be there");
    }
    *out_all = text != NULL;
    return CF_OK;
}

static enum cf_code read_wish(const struct cf_http *http, struct dashboard_wish *out,
                              struct cf_err *err)
{
    struct dashboard_wish wish = {.age_max_ns = cf_http_age_max_ns(http),
                                  .gzip = cf_http_takes_gzip(http),
                                  .only_kept = cf_http_only_if_cached(http)};
    enum cf_code code = cf_http_query_i64(http, "user_id", 1, INT64_MAX, 0, &wish.user_id, err);

    if (code == CF_OK) {
        code = read_require(http, &wish.require_all, err);
    }
    if (code == CF_OK) {
        *out = wish;
    }
    return code;
}

/* The headers */

/* What all sections come to: the page is as old as the oldest. */
struct summary {
    int64_t age_ns;
    int64_t fresh_ns; /* The least of those that were there. */
    bool is_loaded;   /* A section was. */
    bool is_stale;
    bool is_shared;
};

static struct summary sum_up(const struct dashboard *dashboard)
{
    struct summary sum = {.fresh_ns = CF_NEVER};

    for (size_t i = 0; i < DASHBOARD_SECTION_COUNT; i++) {
        const struct dashboard_part *part = &dashboard->parts[i];

        sum.age_ns = part->age_ns > sum.age_ns ? part->age_ns : sum.age_ns;
        sum.is_loaded = sum.is_loaded || part->state == DASHBOARD_FRESH;
        sum.is_stale = sum.is_stale || part->state == DASHBOARD_STALE;
        sum.is_shared = sum.is_shared || part->is_shared;
        if (part->state != DASHBOARD_FRESH && part->fresh_ns < sum.fresh_ns) {
            sum.fresh_ns = part->fresh_ns;
        }
    }
    return sum;
}

/* Seconds, rounded down, so that what is past its time is so by one at least. */
static int64_t seconds_of(int64_t ns)
{
    return ns / CF_SECOND - (ns % CF_SECOND < 0);
}

static const char *word_for(const struct summary *sum)
{
    return sum->is_stale ? "stale" : sum->is_loaded ? "miss" : "hit";
}

/* Stale wins over loaded: a dashboard with one old section is an old dashboard. */
static void write_cache_status(const struct dashboards *dashboards,
                               const struct dashboard_wish *wish, const struct summary *sum,
                               bool is_whole, char out[VALUE_SIZE])
{
    const char *why = wish->age_max_ns != CF_NEVER ? "request" : "uri-miss";

    if (!dashboards_is_on(dashboards)) {
        (void)snprintf(out, VALUE_SIZE, "curfewd; fwd=bypass");
    } else if (!sum->is_loaded || sum->is_stale) {
        (void)snprintf(out, VALUE_SIZE, "curfewd; hit; ttl=%" PRId64, seconds_of(sum->fresh_ns));
    } else {
        (void)snprintf(out, VALUE_SIZE, "curfewd; fwd=%s%s", why,
                       sum->is_shared ? "; collapsed"
                       : is_whole     ? "; stored"
                                      : "");
    }
}

static void add_timings(struct cf_http *http, const struct dashboards *dashboards,
                        const struct dashboard *dashboard, const struct summary *sum)
{
    if (dashboards_is_on(dashboards)) {
        cf_http_timing_note(http, "cache", word_for(sum));
    }
    for (size_t i = 0; i < DASHBOARD_SECTION_COUNT; i++) {
        if (dashboard->parts[i].took_ns > 0) {
            cf_http_timing(http, dashboard_section_name((enum dashboard_section)i, 0),
                           dashboard->parts[i].took_ns);
        }
    }
}

static void add_headers(struct cf_http *http, const struct dashboards *dashboards,
                        const struct dashboard_wish *wish, const struct dashboard *dashboard)
{
    struct summary sum = sum_up(dashboard);
    bool is_whole = dashboard->page != NULL;
    char value[VALUE_SIZE];

    write_cache_status(dashboards, wish, &sum, is_whole, value);
    cf_http_reply_header(http, "Cache-Status", value);
    if (is_whole && (!sum.is_loaded || sum.age_ns > 0)) {
        (void)snprintf(value, sizeof(value), "%" PRId64, seconds_of(sum.age_ns));
        cf_http_reply_header(http, "Age", value);
    }
    cf_http_reply_header(http, "Cache-Control",
                         is_whole ? dashboards_cache_control(dashboards) : "no-store");
    add_timings(http, dashboards, dashboard, &sum);
}

/* That there is no such user may have been known, too. */
static void tell_missing(struct cf_http *http, const struct dashboards *dashboards,
                         const struct dashboard_wish *wish, const struct dashboard *dashboard)
{
    if (dashboards_is_on(dashboards)) {
        cf_http_reply_header(http, "Cache-Status",
                             dashboard->was_known           ? "curfewd; hit"
                             : wish->age_max_ns != CF_NEVER ? "curfewd; fwd=request"
                                                            : "curfewd; fwd=uri-miss");
    }
}

/* The page */

static void reply(struct cf_http *http, const struct dashboard *dashboard)
{
    struct dashboard_page page;

    if (dashboard->page == NULL) {
        dashboard_write_partial(dashboard, cf_http_reply_json(http, 200));
        return;
    }
    page = dashboard_page(dashboard);
    cf_http_reply_header(http, "ETag", page.etag);
    cf_http_reply_shared(http, cf_http_has_etag(http, page.etag) ? 304 : 200, "application/json",
                         page.body, page.size, dashboard->page);
    if (dashboard->gzip != NULL) {
        page = dashboard_gzip(dashboard);
        cf_http_reply_gzip(http, page.body, page.size, dashboard->gzip);
    }
}

enum cf_code dashboard_get(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    const struct app *app = cf_http_app(http);
    struct dashboard dashboard = {.was_known = false};
    struct dashboard_wish wish = {.only_kept = false};
    enum cf_code code = read_wish(http, &wish, err);

    if (code == CF_OK) {
        code = dashboards_get(ctx, app->dashboards, &wish, &dashboard, err);
    }
    if (code == CF_ENOTFOUND) {
        tell_missing(http, app->dashboards, &wish, &dashboard);
    }
    if (code == CF_EUNAVAIL && wish.only_kept) {
        return cf_http_fail_as(http, 504, code);
    }
    if (code != CF_OK) {
        return code;
    }
    add_headers(http, app->dashboards, &wish, &dashboard);
    reply(http, &dashboard);
    dashboard_fini(&dashboard);
    return CF_OK;
}
