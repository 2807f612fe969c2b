/* SPDX-License-Identifier: MIT */
/* Dashboards: see dashboards.h for the contract, page.c for how they are encoded.
 *
 * Two caches. One holds the sections, and does all that is hard: one load at a time, times, serving
 * stale, not keeping what was dropped meanwhile. The other holds pages and only remembers work that
 * was done: a page says which sections it was made of, and is used if these are the ones at hand,
 * so that it needs neither a time of its own nor to be dropped in step with them.
 *
 * The gzip of a page is a page of the same sections, under a key of its own. It is made for the
 * first who asks for one, and then neither compressed again nor kept longer than what it shows.
 *
 * The happy path is four look-ups and no wait, and one more for a gzip. What is not there is
 * fetched by a task for each section; one whose failure is nobody else's business keeps it to
 * itself, so that the group goes on.
 *
 * Who started the load that brought a section is told by a ticket: each get has its own, gives it
 * to the loads that it asks for, and finds it in the section if it was its load that ran. */
#include "curfewd/cache/dashboards.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/cache.h>
#include <curfew/clock.h>
#include <curfew/group.h>
#include <curfew/wait.h>

#include "curfewd/cache/page.h"

/* Constants and types */

/* Of a request's time, what is kept back to answer in part. */
#define MARGIN_SHARE 10
#define MARGIN_MIN_NS (5 * CF_MS)
#define MARGIN_MAX_NS (100 * CF_MS)

/* After a load that failed, the next one is not tried for so long: a database that is away is not
 * asked by each request, and one that is back is found before anybody has noticed. */
#define ERROR_TTL_NS (200 * CF_MS)

/* The cache of sections is given three quarters of the bytes: pages repeat them, but only of those
 * that are asked for again. */
#define SECTIONS_SHARE(bytes) ((bytes) / 4 * 3)

/* Plain, and its gzip once somebody has asked for it. */
#define PAGE_FORMS 2

#define CACHE_CONTROL_SIZE 128

#define KEY_SIZE 32 /* "9223372036854775807/metrics" */

/* Constant after new, but for what is atomic. */
struct dashboards {
    struct dashboards_options options;
    struct cf_cache *sections; /* NULL: nothing is kept, as is: */
    struct cf_cache *pages;
    char cache_control[CACHE_CONTROL_SIZE];

    _Atomic uint64_t tickets; /* Given so far. */
};

/* The argument of a load, which is copied for it. */
struct errand {
    struct dashboards *d;
    int64_t user_id;
    enum dashboard_section section;
    uint64_t ticket;
};

/* The key of a page, of its gzip, and those of its sections: "42", "42.gz", "42/orders". */
struct key {
    int64_t user_id;
    size_t page_size; /* What they have in common. */
    char text[KEY_SIZE];
};

/* One call of dashboards_get(). */
struct visit {
    struct dashboards *d;
    const struct dashboard_wish *wish;
    struct dashboard *dashboard;
    struct key key;
    int64_t soft_ns; /* When what is there is taken. */
    uint64_t ticket;
};

/* One section of it, in a task of its own. */
struct task {
    struct visit *visit;
    enum dashboard_section section;
    struct cf_err failure; /* If the part has no text. */
};

/* Internal helpers */

static struct key key_of(int64_t user_id)
{
    struct key key;

    key.page_size = (size_t)snprintf(key.text, sizeof(key.text), "%" PRId64, user_id);
    key.user_id = user_id;
    return key;
}

/* Both are overwritten by the next. */

static const char *page_key(struct key *key, bool gzip)
{
    memcpy(key->text + key->page_size, gzip ? ".gz" : "", gzip ? sizeof(".gz") : 1);
    return key->text;
}

static const char *section_key(struct key *key, enum dashboard_section section)
{
    const char *name = dashboard_section_name(section, key->user_id);

    key->text[key->page_size] = '/';
    memcpy(key->text + key->page_size + 1, name, strlen(name) + 1);
    return key->text;
}

/* A dashboard of a user is none without the user. */
static bool is_required(const struct dashboard_wish *wish, enum dashboard_section section)
{
    return wish->require_all || (wish->user_id != 0 && section == DASHBOARD_USERS);
}

static int64_t soft_deadline(struct cf_ctx *ctx)
{
    int64_t deadline_ns = cf_ctx_deadline_ns(ctx);
    int64_t left_ns = cf_ctx_remaining_ns(ctx);
    int64_t margin_ns = left_ns / MARGIN_SHARE;

    if (deadline_ns == CF_NEVER) {
        return CF_NEVER;
    }
    margin_ns = margin_ns < MARGIN_MAX_NS ? margin_ns : MARGIN_MAX_NS;
    margin_ns = margin_ns > MARGIN_MIN_NS ? margin_ns : MARGIN_MIN_NS;
    margin_ns = margin_ns < left_ns / 2 ? margin_ns : left_ns / 2;
    return deadline_ns - margin_ns;
}

/* Take a text, which becomes the part's. */
static void fill(struct dashboard_part *part, struct cf_value *own_text,
                 const struct cf_cache_info *info, uint64_t ticket)
{
    part->text = own_text;
    part->age_ns = info->age_ns;
    part->fresh_ns = info->fresh_ns;
    switch (info->state) {
    case CF_CACHE_MISS:
    case CF_CACHE_NEGATIVE: /* Untested: that is a failure, and has no text. */
        part->state = DASHBOARD_FRESH;
        part->is_shared = section_of(own_text)->ticket != ticket;
        break;
    case CF_CACHE_HIT:
        part->state = DASHBOARD_CACHED;
        break;
    case CF_CACHE_STALE:
        part->state = DASHBOARD_STALE;
        break;
    }
}

/* Internal helpers: loads */

static enum cf_code load_section(struct cf_ctx *ctx, void *arg, struct cf_value **out,
                                 int64_t *ttl_ns, struct cf_err *err)
{
    const struct errand *errand = arg;
    const struct dashboards_options *options = &errand->d->options;
    struct cf_json json;
    enum cf_code code;

    (void)ttl_ns;
    cf_json_init(&json);
    code = options->fetch(ctx, options->arg, errand->user_id, errand->section, &json, err);
    if (code == CF_OK) {
        code = section_new(errand->ticket, &json, out, err);
    }
    cf_json_fini(&json);
    return code;
}

static const struct cf_cache_load load = {load_section, sizeof(struct errand)};

/* Get a section from wherever it is to come from. *out_info is that of a miss. */
static enum cf_code get_section(struct cf_ctx *ctx, struct visit *visit, const char *key,
                                struct errand *errand, struct cf_value **out,
                                struct cf_cache_info *out_info, struct cf_err *err)
{
    struct cf_cache *sections = visit->d->sections;
    int64_t ttl_ns = 0;

    if (sections == NULL) {
        return load_section(ctx, errand, out, &ttl_ns, err);
    }
    if (visit->wish->age_max_ns != CF_NEVER) {
        return cf_cache_reload(ctx, sections, key, &load, errand, out, out_info, err);
    }
    return cf_cache_get(ctx, sections, key, &load, errand, out, out_info, err);
}

/* Get a section, in the time that there is for it, or an old one when that is up. */
static enum cf_code get_in_time(struct cf_ctx *ctx, struct task *task, struct dashboard_part *part,
                                struct cf_err *err)
{
    struct visit *visit = task->visit;
    struct errand errand = {visit->d, visit->wish->user_id, task->section, visit->ticket};
    struct cf_cache_info info = {.state = CF_CACHE_MISS};
    struct cf_cache_info old_info;
    struct cf_value *text = NULL;
    struct cf_value *old = NULL;
    struct cf_ctx *limit = NULL;
    struct key own = visit->key; /* Others write theirs while this one waits. */
    const char *key = section_key(&own, task->section);
    enum cf_code code = CF_OK;

    if (visit->d->sections != NULL && visit->wish->age_max_ns == CF_NEVER) {
        (void)cf_cache_try_get_old(visit->d->sections, key, &old, &old_info);
    }
    if (old != NULL || !is_required(visit->wish, task->section)) {
        code = cf_ctx_with_deadline(ctx, visit->soft_ns, &limit, err);
    }
    if (code == CF_OK) {
        code = get_section(limit != NULL ? limit : ctx, visit, key, &errand, &text, &info, err);
    }
    cf_ctx_free(limit);
    if (task->section == DASHBOARD_USERS) {
        visit->dashboard->was_known = code == CF_ENOTFOUND && info.state == CF_CACHE_NEGATIVE;
    }
    if (code != CF_OK && code != CF_ENOTFOUND && old != NULL && cf_ctx_err(ctx) == CF_OK) {
        fill(part, old, &old_info, visit->ticket);
        return CF_OK;
    }
    cf_value_unref(old);
    if (code == CF_OK) {
        fill(part, text, &info, visit->ticket);
    }
    return code;
}

static enum cf_code run_task(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct task *task = arg;
    struct dashboard_part *part = &task->visit->dashboard->parts[task->section];
    int64_t since_ns = cf_now_ns();
    enum cf_code code = get_in_time(ctx, task, part, &task->failure);

    part->took_ns = cf_now_ns() - since_ns;
    if (code == CF_OK) {
        return CF_OK;
    }
    part->code = code;
    part->state = cf_err_is(&task->failure, CF_EDEADLINE) ? DASHBOARD_TIMED_OUT : DASHBOARD_ERROR;
    if (!is_required(task->visit->wish, task->section)) {
        return CF_OK;
    }
    *err = task->failure; /* A task's: not NULL. */
    return code;
}

/* Internal helpers: visits */

/* Take a section that is there and needs no wait. Whether there is one. */
static bool take_section(struct visit *visit, enum dashboard_section section)
{
    struct dashboard_part *part = &visit->dashboard->parts[section];
    struct cf_cache_info info;
    struct cf_value *text;

    if (visit->d->sections == NULL || visit->wish->age_max_ns == 0) {
        return false;
    }
    if (!cf_cache_try_get(visit->d->sections, section_key(&visit->key, section), &text, &info)) {
        return false;
    }
    if ((info.state == CF_CACHE_HIT || visit->wish->only_kept) &&
        info.age_ns <= visit->wish->age_max_ns) {
        fill(part, text, &info, visit->ticket);
        return true;
    }
    cf_value_unref(text); /* Past its time: the task that gets it starts a load behind it. */
    return false;
}

/* What keeps every section away is told when the time is up, and not before: a deadline that is
 * passed ends no request early. */
static enum cf_code nothing_came(struct cf_ctx *ctx, const struct task *first, struct cf_err *err)
{
    enum cf_code code = first->visit->dashboard->parts[first->section].code;

    if (code == CF_EDEADLINE && cf_wait_done(ctx, ctx, err) == CF_ECANCELED) {
        return CF_ECANCELED;
    }
    if (err != NULL) {
        *err = first->failure;
    }
    return code;
}

/* Load the sections that are not there, side by side. */
static enum cf_code load_missing(struct cf_ctx *ctx, struct visit *visit, struct cf_err *err)
{
    struct dashboard_part *parts = visit->dashboard->parts;
    struct task tasks[DASHBOARD_SECTION_COUNT];
    struct cf_group *group;
    bool any = false;
    enum cf_code code = cf_group_new(ctx, &group, err);

    if (code != CF_OK) {
        return code;
    }
    visit->soft_ns = soft_deadline(ctx);
    for (size_t i = 0; i < DASHBOARD_SECTION_COUNT; i++) {
        if (parts[i].text == NULL) {
            tasks[i].visit = visit;
            tasks[i].section = (enum dashboard_section)i;
            cf_group_go(group, run_task, &tasks[i]);
        }
    }
    code = cf_group_wait(group, err);
    cf_group_free(group);
    for (size_t i = 0; i < DASHBOARD_SECTION_COUNT; i++) {
        any = any || parts[i].text != NULL;
    }
    return code == CF_OK && !any ? nothing_came(ctx, &tasks[0], err) : code;
}

static bool is_whole(const struct dashboard *dashboard)
{
    for (size_t i = 0; i < DASHBOARD_SECTION_COUNT; i++) {
        if (dashboard->parts[i].text == NULL) {
            return false;
        }
    }
    return true;
}

/* Take what is kept under `key`, if it was made of these very sections. */
static bool take_page(struct dashboards *d, const char *key, const struct dashboard *dashboard,
                      struct cf_value **out)
{
    struct cf_value *page;

    if (d->pages == NULL || !cf_cache_try_get(d->pages, key, &page, NULL)) {
        return false;
    }
    if (!page_is_of(page, dashboard)) {
        cf_value_unref(page);
        return false;
    }
    *out = page;
    return true;
}

/* That it cannot be kept is no failure. */
static void keep_page(struct dashboards *d, const char *key, struct cf_value *page)
{
    if (d->pages != NULL && cf_cache_put(d->pages, key, page, NULL) != CF_OK) {
        cf_cache_remove(d->pages, key); /* The one that is there is of no use to anybody. */
    }
}

/* Find the page of a whole dashboard, or make it. */
static enum cf_code find_page(struct visit *visit, struct cf_err *err)
{
    struct dashboards *d = visit->d;
    struct dashboard *dashboard = visit->dashboard;
    const char *key = page_key(&visit->key, false);
    enum cf_code code;

    if (take_page(d, key, dashboard, &dashboard->page)) {
        return CF_OK;
    }
    code = page_new(dashboard, &dashboard->page, err);
    if (code == CF_OK) {
        keep_page(d, key, dashboard->page);
    }
    return code;
}

/* The same of the gzip of a page that was found. Without memory there is none. */
static void find_gzip(struct visit *visit)
{
    struct dashboards *d = visit->d;
    struct dashboard *dashboard = visit->dashboard;
    const char *key;

    if (d->pages == NULL || !page_is_worth_a_gzip(dashboard->page)) {
        return;
    }
    key = page_key(&visit->key, true);
    if (!take_page(d, key, dashboard, &dashboard->gzip) &&
        page_new_gzip(dashboard->page, &dashboard->gzip, NULL) == CF_OK) {
        keep_page(d, key, dashboard->gzip);
    }
}

/* Internal helpers: making */

/* What the options have for three sections, or the forms of one page, of each dashboard. */
static enum cf_code make_caches(struct dashboards *d, struct cf_err *err)
{
    const struct dashboards_options *options = &d->options;
    size_t entries = options->entries_max > 0 ? options->entries_max : CF_CACHE_ENTRIES_MAX;
    size_t bytes = options->bytes_max > 0 ? options->bytes_max : CF_CACHE_BYTES_MAX;
    struct cf_cache_options sections = {
        .entries_max = entries * DASHBOARD_SECTION_COUNT,
        .bytes_max = SECTIONS_SHARE(bytes),
        .ttl_ns = options->ttl_ns,
        .stale_while_revalidate_ns = options->stale_ns,
        .stale_if_error_ns = options->stale_if_error_ns,
        .negative_ttl_ns = options->negative_ttl_ns,
        .error_ttl_ns = ERROR_TTL_NS,
        .load_timeout_ns = options->load_timeout_ns,
        .now_ns = options->now_ns,
        .now_arg = options->now_arg,
    };
    struct cf_cache_options pages = {
        .entries_max = entries * PAGE_FORMS,
        .bytes_max = bytes - SECTIONS_SHARE(bytes),
        .ttl_ns = options->ttl_ns + options->stale_ns + options->stale_if_error_ns,
        .now_ns = options->now_ns,
        .now_arg = options->now_arg,
    };
    enum cf_code code = cf_cache_new(cf_ctx_background(), &sections, &d->sections, err);

    return code == CF_OK ? cf_cache_new(cf_ctx_background(), &pages, &d->pages, err) : code;
}

/* For a cache that is this client's alone: who may see what is for the proxy to say, not for us. */
static void write_cache_control(struct dashboards *d)
{
    const struct dashboards_options *options = &d->options;

    if (options->ttl_ns <= 0) {
        (void)snprintf(d->cache_control, CACHE_CONTROL_SIZE, "no-cache");
        return;
    }
    (void)snprintf(d->cache_control, CACHE_CONTROL_SIZE,
                   "private, max-age=%" PRId64 ", stale-while-revalidate=%" PRId64
                   ", stale-if-error=%" PRId64,
                   options->ttl_ns / CF_SECOND, options->stale_ns / CF_SECOND,
                   options->stale_if_error_ns / CF_SECOND);
}

static void drop_keys(struct dashboards *d, int64_t user_id)
{
    struct key key = key_of(user_id);

    for (size_t i = 0; i < DASHBOARD_SECTION_COUNT; i++) {
        (void)cf_cache_remove(d->sections, section_key(&key, (enum dashboard_section)i));
    }
    (void)cf_cache_remove(d->pages, page_key(&key, false));
    (void)cf_cache_remove(d->pages, page_key(&key, true));
}

/* Life cycle */

enum cf_code dashboards_new(const struct dashboards_options *options, struct dashboards **out,
                            struct cf_err *err)
{
    struct dashboards *d = calloc(1, sizeof(*d));
    enum cf_code code = CF_OK;

    if (d == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for dashboards");
    }
    d->options = *options;
    write_cache_control(d);
    if (options->ttl_ns > 0) {
        code = make_caches(d, err);
    }
    if (code != CF_OK) {
        dashboards_free(d);
        return code;
    }
    *out = d;
    return CF_OK;
}

void dashboards_free(struct dashboards *d)
{
    if (d == NULL) {
        return;
    }
    if (d->sections != NULL) {
        cf_cache_stop(d->sections);
    }
    cf_cache_free(d->sections);
    cf_cache_free(d->pages);
    free(d);
}

/* Operations */

enum cf_code dashboards_get(struct cf_ctx *ctx, struct dashboards *d,
                            const struct dashboard_wish *wish, struct dashboard *out,
                            struct cf_err *err)
{
    struct dashboard dashboard = {.user_id = wish->user_id};
    struct visit visit = {
        .d = d, .wish = wish, .dashboard = &dashboard, .key = key_of(wish->user_id)};
    enum cf_code code = CF_OK;
    bool whole = true;

    for (size_t i = 0; i < DASHBOARD_SECTION_COUNT; i++) {
        whole = take_section(&visit, (enum dashboard_section)i) && whole;
    }
    if (!whole && wish->only_kept) {
        code = cf_err_set(err, CF_EUNAVAIL, "no such dashboard is stored");
    } else if (!whole) {
        visit.ticket = atomic_fetch_add(&d->tickets, 1) + 1;
        code = load_missing(ctx, &visit, err);
    }
    if (code == CF_OK && is_whole(&dashboard)) {
        code = find_page(&visit, err);
        if (code == CF_OK && wish->gzip) {
            find_gzip(&visit);
        }
    }
    if (code != CF_OK) {
        out->was_known = dashboard.was_known;
        dashboard_fini(&dashboard);
        return code;
    }
    *out = dashboard;
    return CF_OK;
}

void dashboards_drop(struct dashboards *d, int64_t user_id)
{
    if (d->sections != NULL) {
        drop_keys(d, user_id);
        drop_keys(d, 0);
    }
}

void dashboards_flush(struct dashboards *d)
{
    if (d->sections != NULL) {
        cf_cache_flush(d->sections);
        cf_cache_flush(d->pages);
    }
}

void dashboard_fini(struct dashboard *dashboard)
{
    for (size_t i = 0; i < DASHBOARD_SECTION_COUNT; i++) {
        cf_value_unref(dashboard->parts[i].text);
        dashboard->parts[i].text = NULL;
    }
    cf_value_unref(dashboard->page);
    dashboard->page = NULL;
    cf_value_unref(dashboard->gzip);
    dashboard->gzip = NULL;
}

/* Queries */

bool dashboards_is_on(const struct dashboards *d)
{
    return d->sections != NULL;
}

const char *dashboards_cache_control(const struct dashboards *d)
{
    return d->cache_control;
}
