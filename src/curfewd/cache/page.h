/* SPDX-License-Identifier: MIT */
/* What dashboards are made of: the texts of sections, and the pages made of three of them. Both are
 * values (value.h): they never change, and whoever has a reference may read them. */
#ifndef CURFEWD_CACHE_PAGE_H
#define CURFEWD_CACHE_PAGE_H

#include "curfewd/cache/dashboards.h"

/* A section as it was loaded. */
struct section {
    uint64_t ticket; /* Of the call that started the load. */
    size_t size;
    char json[]; /* Not terminated. */
};

/* Make a section of what was written. Fails with CF_ENOMEM. */
CF_MUST enum cf_code section_new(uint64_t ticket, struct cf_json *json, struct cf_value **out,
                                 struct cf_err *err);

static inline const struct section *section_of(const struct cf_value *value)
{
    return cf_value_data(value);
}

/* Encode the page of a dashboard that has all its parts. It keeps a reference to each. Fails with
 * CF_ENOMEM. */
CF_MUST enum cf_code page_new(const struct dashboard *dashboard, struct cf_value **out,
                              struct cf_err *err);

/* Compress a page: a page of the same sections. Fails with CF_ENOMEM. */
CF_MUST enum cf_code page_new_gzip(const struct cf_value *page, struct cf_value **out,
                                   struct cf_err *err);

/* Whether the page is large enough to be compressed. */
bool page_is_worth_a_gzip(const struct cf_value *page);

/* Whether the page was made of the very parts that the dashboard has. */
bool page_is_of(const struct cf_value *page, const struct dashboard *dashboard);

#endif
