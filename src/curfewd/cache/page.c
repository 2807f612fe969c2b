/* SPDX-License-Identifier: MIT */
/* Sections and pages: see page.h.
 *
 * A page holds its sections for as long as it lives, so that the same addresses are the same
 * sections: none of them can be freed and another be made in its place. */
#include "curfewd/cache/page.h"

#include <stdlib.h>
#include <string.h>

#include <curfew/http.h>

#include "curfewd/etag.h"
#include "curfewd/members.h"

/* Constants and types */

/* Constant after new. */
struct page {
    struct cf_value *sections[DASHBOARD_SECTION_COUNT]; /* A reference to each. */
    char etag[ETAG_SIZE];
    size_t size;
    char body[]; /* Not terminated. Of a gzip, compressed; its etag is that of the plain. */
};

/* Internal helpers */

static const struct page *page_of(const struct cf_value *value)
{
    return cf_value_data(value);
}

static void drop_page(void *data)
{
    struct page *page = data;

    for (size_t i = 0; i < DASHBOARD_SECTION_COUNT; i++) {
        cf_value_unref(page->sections[i]);
    }
    free(page);
}

/* One without its sections. NULL: out of memory. */
static struct page *new_page(const char *body, size_t size)
{
    struct page *page = malloc(sizeof(*page) + size);

    if (page != NULL) {
        page->size = size;
        memcpy(page->body, body, size);
    }
    return page;
}

static void write_parts(const struct dashboard *dashboard, struct cf_json *json)
{
    for (size_t i = 0; i < DASHBOARD_SECTION_COUNT; i++) {
        const struct cf_value *text = dashboard->parts[i].text;

        cf_json_key(json, dashboard_section_name((enum dashboard_section)i, dashboard->user_id));
        if (text != NULL) {
            cf_json_raw(json, section_of(text)->json, section_of(text)->size);
        } else {
            cf_json_null(json);
        }
    }
}

static void write_part_state(const struct dashboard_part *part, struct cf_json *json)
{
    cf_json_object(json);
    member_str(json, "state", dashboard_state_name(part->state));
    if (part->text != NULL) {
        member_i64(json, "age_ms", part->age_ns / CF_MS);
    } else {
        member_str(json, "error", cf_code_name(part->code));
    }
    cf_json_end(json);
}

/* Life cycle */

enum cf_code section_new(uint64_t ticket, struct cf_json *json, struct cf_value **out,
                         struct cf_err *err)
{
    struct section *section;
    const char *text;
    size_t size;
    enum cf_code code = cf_json_finish(json, &text, &size, err);

    if (code != CF_OK) {
        return code;
    }
    section = malloc(sizeof(*section) + size);
    if (section == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a section");
    }
    section->ticket = ticket;
    section->size = size;
    memcpy(section->json, text, size);
    return cf_value_wrap(section, sizeof(*section) + size, free, out, err);
}

enum cf_code page_new(const struct dashboard *dashboard, struct cf_value **out, struct cf_err *err)
{
    struct page *page = NULL;
    char bare[ETAG_BARE_SIZE];
    struct cf_json json;
    const char *text;
    size_t size;
    enum cf_code code;

    cf_json_init(&json);
    cf_json_object(&json);
    write_parts(dashboard, &json);
    member_bool(&json, "partial", false);
    cf_json_end(&json);
    code = cf_json_finish(&json, &text, &size, err);
    if (code == CF_OK) {
        page = new_page(text, size);
    }
    cf_json_fini(&json);
    if (page == NULL) {
        return code != CF_OK ? code : cf_err_set(err, CF_ENOMEM, "no memory for a page");
    }
    for (size_t i = 0; i < DASHBOARD_SECTION_COUNT; i++) {
        page->sections[i] = cf_value_ref(dashboard->parts[i].text);
    }
    etag_make(page->body, page->size, bare);
    etag_quote(bare, page->etag);
    return cf_value_wrap(page, sizeof(*page) + page->size, drop_page, out, err);
}

enum cf_code page_new_gzip(const struct cf_value *plain, struct cf_value **out, struct cf_err *err)
{
    const struct page *of = page_of(plain);
    struct cf_value *gzip;
    struct page *page;
    enum cf_code code = cf_http_gzip(of->body, of->size, &gzip, err);

    if (code != CF_OK) {
        return code;
    }
    page = new_page(cf_value_data(gzip), cf_value_size(gzip));
    cf_value_unref(gzip);
    if (page == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a page");
    }
    for (size_t i = 0; i < DASHBOARD_SECTION_COUNT; i++) {
        page->sections[i] = cf_value_ref(of->sections[i]);
    }
    memcpy(page->etag, of->etag, sizeof(page->etag));
    return cf_value_wrap(page, sizeof(*page) + page->size, drop_page, out, err);
}

/* Operations: of dashboards.h */

void dashboard_write_partial(const struct dashboard *dashboard, struct cf_json *json)
{
    cf_json_object(json);
    write_parts(dashboard, json);
    member_bool(json, "partial", true);
    cf_json_key(json, "sections");
    cf_json_object(json);
    for (size_t i = 0; i < DASHBOARD_SECTION_COUNT; i++) {
        cf_json_key(json, dashboard_section_name((enum dashboard_section)i, dashboard->user_id));
        write_part_state(&dashboard->parts[i], json);
    }
    cf_json_end(json);
    cf_json_end(json);
}

/* Queries */

bool page_is_of(const struct cf_value *page, const struct dashboard *dashboard)
{
    for (size_t i = 0; i < DASHBOARD_SECTION_COUNT; i++) {
        if (page_of(page)->sections[i] != dashboard->parts[i].text) {
            return false;
        }
    }
    return true;
}

bool page_is_worth_a_gzip(const struct cf_value *page)
{
    return page_of(page)->size >= CF_HTTP_GZIP_SIZE_MIN;
}

static struct dashboard_page show(const struct page *page)
{
    return (struct dashboard_page){page->body, page->size, page->etag};
}

struct dashboard_page dashboard_page(const struct dashboard *dashboard)
{
    return show(page_of(dashboard->page));
}

struct dashboard_page dashboard_gzip(const struct dashboard *dashboard)
{
    return show(page_of(dashboard->gzip));
}

const char *dashboard_section_name(enum dashboard_section section, int64_t user_id)
{
    static const struct {
        const char *of_store;
        const char *of_user;
    } names[] = {
#define DASHBOARD_SECTION_NAME(symbol, of_store, of_user) [symbol] = {of_store, of_user},
        DASHBOARD_SECTIONS(DASHBOARD_SECTION_NAME)
#undef DASHBOARD_SECTION_NAME
    };

    return user_id != 0 ? names[section].of_user : names[section].of_store;
}

const char *dashboard_state_name(enum dashboard_state state)
{
    switch (state) {
#define DASHBOARD_STATE_NAME(symbol, name)                                                         \
    case symbol:                                                                                   \
        return name;
        DASHBOARD_STATES(DASHBOARD_STATE_NAME)
#undef DASHBOARD_STATE_NAME
    }
    return "unknown";
}
