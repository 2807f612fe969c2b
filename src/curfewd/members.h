/* SPDX-License-Identifier: MIT */
/* Members of a JSON object: a key with its value. */
#ifndef CURFEWD_MEMBERS_H
#define CURFEWD_MEMBERS_H

#include <curfew/base.h>
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

static inline void member_bool(struct cf_json *json, const char *key, bool value)
{
    cf_json_key(json, key);
    cf_json_bool(json, value);
}

static inline void member_time_us(struct cf_json *json, const char *key, int64_t us)
{
    cf_json_key(json, key);
    cf_json_time_us(json, us);
}

/* A duration, in milliseconds. */
static inline void member_ms(struct cf_json *json, const char *key, int64_t ns)
{
    cf_json_key(json, key);
    cf_json_f64(json, (double)ns / (double)CF_MS, 3);
}

#endif
