/* SPDX-License-Identifier: MIT */
/* Dashboards: three sections each, kept for a while, and the page that is made of them.
 *
 * A section (the user, or the newest users; the newest orders; the figures) is loaded, kept and
 * served stale by itself: one load of it runs at once, for all who ask on any loop, and who asks
 * waits for it under a context of their own. So one that is late or failing takes no other with it:
 * what there is makes a partial dashboard. A whole one is encoded once, into a page that all who
 * are given the same three sections share; a page is as good as its sections,
 * and is looked up by them.
 *
 *     now               soft deadline        deadline
 *      |-- sections load --|-- partial answer --|
 *
 * A tenth of a request's time, from 5 to 100 ms, is kept back for the partial answer: what has not
 * come by then is served old if it is there, or has timed out. Nothing ends early that could not be
 * answered in part: a required section has all of the time,
 * and who gets none waits for the deadline.
 *
 * Invariant: a partial dashboard is never kept, nor is a failure that came from a cancel; what was
 * asked of the database before a drop is not kept after it.
 *
 *     struct dashboard_wish wish = {.user_id = 42, .age_max_ns = CF_NEVER};
 *
 *     code = dashboards_get(ctx, dashboards, &wish, &dashboard, err);
 *     if (code != CF_OK) { return code; }
 *     reply(http, dashboard_page(&dashboard));
 *     dashboard_fini(&dashboard);
 *
 * Thread safety: any thread may call the operations, but those that wait not from a callback of the
 * loop. Made and freed on a plain thread. */
#ifndef CURFEWD_CACHE_DASHBOARDS_H
#define CURFEWD_CACHE_DASHBOARDS_H

#include <curfew/ctx.h>
#include <curfew/json.h>
#include <curfew/value.h>

struct dashboards;

/* In the order of the page. X(symbol, name of the store's, name of a user's) */
#define DASHBOARD_SECTIONS(X)                                                                      \
    X(DASHBOARD_USERS, "users", "user")                                                            \
    X(DASHBOARD_ORDERS, "orders", "orders")                                                        \
    X(DASHBOARD_METRICS, "metrics", "metrics")

enum dashboard_section {
#define DASHBOARD_SECTION_ENUM(symbol, of_store, of_user) symbol,
    DASHBOARD_SECTIONS(DASHBOARD_SECTION_ENUM)
#undef DASHBOARD_SECTION_ENUM
    DASHBOARD_SECTION_COUNT
};

/* What became of a section. X(symbol, name): the name stands in the page. */
#define DASHBOARD_STATES(X)                                                                        \
    X(DASHBOARD_FRESH, "fresh")         /* Loaded for this request, or while it waited. */         \
    X(DASHBOARD_CACHED, "cached")       /* It was there. */                                        \
    X(DASHBOARD_STALE, "stale")         /* It was there, and is past its time. */                  \
    X(DASHBOARD_TIMED_OUT, "timed_out") /* It has not come in time. */                             \
    X(DASHBOARD_ERROR, "error")

enum dashboard_state {
#define DASHBOARD_STATE_ENUM(symbol, name) symbol,
    DASHBOARD_STATES(DASHBOARD_STATE_ENUM)
#undef DASHBOARD_STATE_ENUM
};

/* Fetch a section, of the store if `user_id` is 0, and write it as one JSON value. Fails with
 * CF_ENOTFOUND if there is no such user. */
typedef enum cf_code (*dashboards_fetch_fn)(struct cf_ctx *ctx, void *arg, int64_t user_id,
                                            enum dashboard_section section, struct cf_json *json,
                                            struct cf_err *err);

struct dashboards_options {
    dashboards_fetch_fn fetch;
    void *arg;                 /* For `fetch`. */
    int64_t ttl_ns;            /* How long a section is fresh. 0: nothing is kept or shared. */
    int64_t stale_ns;          /* Past that, how long it is served while a new one is loaded, */
    int64_t stale_if_error_ns; /* and how long it is if none can be had. */
    int64_t negative_ttl_ns;   /* How long it is known that there is no such user. */
    int64_t load_timeout_ns;   /* A load's deadline, whoever waits for it. */
    size_t entries_max;        /* Dashboards; at the limit one is evicted. 0: the cache's. */
    size_t bytes_max;          /* Of all of them, sections and pages, gzips too. 0: the cache's. */

    int64_t (*now_ns)(void *arg); /* The clock of what is kept. NULL: cf_now_ns(). */
    void *now_arg;
};

/* What is asked for. */
struct dashboard_wish {
    int64_t user_id;    /* 0: of the whole store. */
    int64_t age_max_ns; /* What is older is loaded anew; 0: all is. CF_NEVER: as it comes. */
    bool require_all;   /* Whole, or not at all. */
    bool gzip;          /* With its gzip, if one is kept. */
    bool only_kept;     /* What is there, fresh or stale, or CF_EUNAVAIL: nothing is loaded. */
};

struct dashboard_part {
    struct cf_value *text; /* Owned; NULL: it could not be had. */
    enum dashboard_state state;
    enum cf_code code; /* Why not. */
    int64_t age_ns;
    int64_t fresh_ns; /* For how long it is fresh yet; below 0: since when it is not. */
    int64_t took_ns;  /* Until it was there; 0: it was there already. */
    bool is_shared;   /* Somebody else's load. */
};

/* What was got: dashboard_fini(). */
struct dashboard {
    int64_t user_id;
    bool was_known;        /* Also by a get that fails: that there is no such user was kept. */
    struct cf_value *page; /* Owned; NULL: it is partial. */
    struct cf_value *gzip; /* Owned; NULL: none is wanted, or kept. */
    struct dashboard_part parts[DASHBOARD_SECTION_COUNT];
};

/* A whole dashboard as it is sent, plain or compressed. Borrowed from its value. */
struct dashboard_page {
    const char *body;
    size_t size;
    const char *etag; /* Of the plain: strong, in its quotes. */
};

/* Life cycle */

/* Make an empty one. Fails with CF_ENOMEM, CF_EINVAL (sizes too small).
 * Ownership: copies `options`; the caller owns *out, dashboards_free(). */
CF_MUST enum cf_code dashboards_new(const struct dashboards_options *options,
                                    struct dashboards **out, struct cf_err *err);

/* Cancel what loads and wait until that has ended, then free all; no get may run, or come. NULL is
 * allowed. Call from: a plain thread, while the loops run. */
void dashboards_free(struct dashboards *d);

/* Operations */

/* Get a dashboard, whole or partial.
 *
 * Ownership: the caller owns what *out holds: dashboard_fini().
 * Of one that fails, `was_known` only is written.
 * Blocks: never if all of it is there; else until it is, or `ctx` is done or about to be.
 * Fails with the first failure of a required section (the user; with require_all, each), and if no
 * section can be had, with that of the first; of `ctx`, CF_ENOMEM. */
CF_MUST enum cf_code dashboards_get(struct cf_ctx *ctx, struct dashboards *d,
                                    const struct dashboard_wish *wish, struct dashboard *out,
                                    struct cf_err *err);

/* Forget the dashboard of a user and the store's, because what they show has changed. Whoever comes
 * after this returns gets what was asked of the database after it was called. Never blocks. */
void dashboards_drop(struct dashboards *d, int64_t user_id);

/* The same, of all dashboards. */
void dashboards_flush(struct dashboards *d);

void dashboard_fini(struct dashboard *dashboard);

/* Queries */

/* Whether anything is kept at all. */
bool dashboards_is_on(const struct dashboards *d);

/* What Cache-Control says of a whole dashboard: by the same times. Constant. */
const char *dashboards_cache_control(const struct dashboards *d);

/* The page of a whole dashboard, borrowed from it; and its gzip, where there is one. */
struct dashboard_page dashboard_page(const struct dashboard *dashboard);
struct dashboard_page dashboard_gzip(const struct dashboard *dashboard);

/* Write a partial one: what there is, null for what there is not, and what became of each. */
void dashboard_write_partial(const struct dashboard *dashboard, struct cf_json *json);

const char *dashboard_section_name(enum dashboard_section section, int64_t user_id);
const char *dashboard_state_name(enum dashboard_state state);

#endif
