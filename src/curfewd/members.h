/* SPDX-License-Identifier: MIT */
/* Members of a JSON object: a key with its value. */
#ifndef CURFEWD_MEMBERS_H
#define CURFEWD_MEMBERS_H

#include <curfew/json.h>

static inline void member_str(struct cf_json *json, const char *key, const char *value)
{
    cf_json_key(json, key);
    cf_json_str(json, value);
}

static inline void member_u64(struct cf_json *json, const char *key, uint64_t value)
{
    cf_json_key(json, key);
    cf_json_u64(json, value);
}

static inline void member_i64(struct cf_json *json, const char *key, int64_t value)
{
    cf_json_key(json, key);
    cf_json_i64(json, value);
}

#endif
