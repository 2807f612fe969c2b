/* SPDX-License-Identifier: MIT */
/* What the tests of caches share: a cache on a clock that they move, loads that a test holds up,
 * and calls from plain threads and from fibers.
 *
 *     struct call call = call_of("one");
 *     expect_got(place, &call, CF_CACHE_MISS, "one");
 *     pass(TTL_NS);
 *
 * Thread safety: the test's thread, but for the clock and what loads count. */
#ifndef CACHE_KIT_H
#define CACHE_KIT_H

#include <curfew/cache.h>

#include <stdatomic.h>

#include <check.h>

#include "places.h"

#define TTL_NS (10 * CF_SECOND)
#define REVALIDATE_NS (5 * CF_SECOND)
#define IF_ERROR_NS (60 * CF_SECOND)
#define NEGATIVE_NS (3 * CF_SECOND)
#define ERROR_NS CF_SECOND

/* Fixture */

extern struct cf_ctx *parent;     /* Of the cache. */
extern struct cf_ctx *gate;       /* Cancelled to let loads end. */
extern struct cf_ctx *caller_ctx; /* Of callers. */
extern struct cf_cache *cache;
extern struct cf_err cache_err;
extern _Atomic int64_t clock_ns;
extern atomic_int begun; /* Loads. */

/* The clock, for options; put it on. */
int64_t read_clock(void *arg);
void pass(int64_t by_ns);

/* Everything that a value or a failure can be kept for. */
struct cf_cache_options all_options(void);

/* Make the cache, in place of the one before. */
void use_options(const struct cf_cache_options *options);

/* Values only, and no longer than they are fresh. */
void use_plain(void);

/* A case with that fixture. */
TCase *add_cache_case(Suite *suite, const char *name);

/* Helpers: loads */

/* What a load does: copied with the call. */
struct script {
    const char *text;    /* The value. */
    enum cf_code fails;  /* Or how it fails. */
    struct cf_ctx *gate; /* What it waits for first, or NULL. */
    bool stubborn;       /* It does so whatever becomes of its context. */
    bool mislead;        /* If its context ends, it says that this was something else. */
    int64_t *ttl_ns;     /* What it sets, or NULL. */
};

/* Helpers: calls */

struct call {
    const char *key;
    struct script script;
    struct cf_ctx *ctx;
    int64_t timeout_ns; /* More than 0: call with a child of ctx that is made where the call is. */
    bool reload;        /* By cf_cache_reload(). */

    enum cf_code code;
    struct cf_err err;
    struct cf_cache_info info;
    char got[64];
    struct visit visit;
};

/* Make the call: for a place. */
void do_get(void *arg);

/* A call whose load brings this text, fails, or waits at the gate first. */
struct call call_of(const char *text);
struct call call_to_fail(enum cf_code fails);
struct call call_at_gate(const char *text);

/* Make the call at `place`, and expect a value; a failure. */
void expect_got(int place, struct call *call, enum cf_cache_state state, const char *text);
void expect_failed(int place, struct call *call, enum cf_cache_state state, enum cf_code code);

/* A value from a load that is put in now. */
void fill(int place, const char *text);

/* Start a call whose load has begun. */
void start_loading(struct call *call, int place);

struct cf_cache_stats stats(void);

/* Without a load. */
bool is_there(const char *key);

void put_text(const char *key, const char *text);

#endif
