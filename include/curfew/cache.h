/* SPDX-License-Identifier: MIT */
/* A cache for data that is read far more often than it changes, and that loads what it lacks.
 *
 * Any number of loops and threads share it. A hit takes a lock for reading and sets one bit; SIEVE
 * chooses what is evicted. Misses of one key share one load (flight.h). A stale value can still be
 * served: while a new one is loaded in the background, or because that load fails.
 *
 *     stored         ttl_ns        + stale_while_revalidate_ns    + stale_if_error_ns
 *       |-- fresh: hit --|-- stale: served, and loaded anew --|-- loaded; served if that fails --|
 *
 * Both periods begin when freshness ends; for errors, the longer of the two counts.
 *
 * Invariant: never more entries or bytes than the limits say; the result of a load is not kept if
 * its key was put, removed or flushed after the load began; an error caused by a cancel is not
 * kept.
 *
 *     static const struct cf_cache_load load_user = {fetch_user, sizeof(struct user_query)};
 *     struct user_query query = {pg, id};
 *
 *     code = cf_cache_get(ctx, cache, key, &load_user, &query, &value, &info, err);
 *     if (code != CF_OK) { return code; }
 *     reply(request, cf_value_data(value), cf_value_size(value), info.age_ns);
 *     cf_value_unref(value);
 *
 * Thread safety: any thread may call everything here, except that cf_cache_stop() and
 * cf_cache_free() are for one caller. No lock is held across a wait, or while a value is
 * dropped. */
#ifndef CURFEW_CACHE_H
#define CURFEW_CACHE_H

#include <curfew/base.h>
#include <curfew/ctx.h>
#include <curfew/err.h>
#include <curfew/value.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cf_cache;

/* Make the value of one key: *out, with a reference for the cache. `ctx` is the load's own
 * (flight.h). *ttl_ns is the cache's own and may be changed: with 0 the value goes to the callers
 * that wait for it and is not kept. If it does not return CF_OK, every caller fails with that code,
 * as described in `err` (never NULL): CF_ENOTFOUND if there is no such thing, any other if it could
 * not be loaded. */
typedef enum cf_code (*cf_cache_fn)(struct cf_ctx *ctx, void *arg, struct cf_value **out,
                                    int64_t *ttl_ns, struct cf_err *err);

/* How something is loaded: declared once, as a constant. */
struct cf_cache_load {
    cf_cache_fn fn;
    size_t arg_size; /* As in struct cf_flight_load. */
};

#define CF_CACHE_ENTRIES_MAX 65536
#define CF_CACHE_BYTES_MAX ((size_t)64 << 20)
#define CF_CACHE_TTL_NS (60 * CF_SECOND)
#define CF_CACHE_JITTER_PERCENT 10

struct cf_cache_options {
    size_t entries_max; /* 0: CF_CACHE_ENTRIES_MAX. At the limit one is evicted. */
    size_t bytes_max;   /* Keys, values and book-keeping. 0: CF_CACHE_BYTES_MAX. Ditto. */
    size_t shards;      /* Parts with a lock each: a power of two, at most entries_max. Each has its
                           share of both limits, and keeps no larger value. 0: up to 16. */

    int64_t ttl_ns;     /* How long a value is fresh. 0: CF_CACHE_TTL_NS. */
    int jitter_percent; /* At random up to this much less, so that what was loaded together is not
                           loaded together again. 0: CF_CACHE_JITTER_PERCENT; below 0: none. */
    int64_t stale_while_revalidate_ns; /* 0: not at all; so are the following. */
    int64_t stale_if_error_ns;
    int64_t negative_ttl_ns; /* How long CF_ENOTFOUND is remembered. */
    int64_t error_ttl_ns;    /* How long after another failure no load is tried: a stale value, or
                                the same failure, is the answer. */

    int64_t load_timeout_ns; /* As in struct cf_flight_options, as is loads_max. */
    size_t loads_max;

    int64_t (*now_ns)(void *arg); /* The clock. NULL: cf_now_ns(). */
    void *now_arg;
};

/* Where an answer came from. X(symbol, name): the name stands in headers, logs and metrics. */
#define CF_CACHE_STATES(X)                                                                         \
    X(CF_CACHE_MISS, "miss")         /* It was loaded, or that failed. */                          \
    X(CF_CACHE_HIT, "hit")           /* A fresh value. */                                          \
    X(CF_CACHE_STALE, "stale")       /* A value past its time. */                                  \
    X(CF_CACHE_NEGATIVE, "negative") /* A failure that was kept. */

enum cf_cache_state {
#define CF_CACHE_STATE_ENUM(symbol, name) symbol,
    CF_CACHE_STATES(CF_CACHE_STATE_ENUM)
#undef CF_CACHE_STATE_ENUM
};

struct cf_cache_info {
    enum cf_cache_state state;
    int64_t age_ns;   /* Since it was stored; 0 for a miss. */
    int64_t fresh_ns; /* How long it will be fresh; below 0: how long it has been stale. 0: miss. */
};

struct cf_cache_stats {
    uint64_t hits;      /* Calls answered by a fresh value, */
    uint64_t stale;     /* by a stale one, */
    uint64_t negative;  /* by a failure that was remembered, */
    uint64_t misses;    /* or by none of these: by a load, or its failure. */
    uint64_t loads;     /* Loads started, also behind a stale value, */
    uint64_t failures;  /* and of these, those that failed. */
    uint64_t evictions; /* Entries that made room for others. */
    uint64_t refused;   /* Values that were too large to be kept. */
    size_t entries;     /* Now. */
    size_t bytes;
};

/* Life cycle */

/* Make a cache whose loads are children of `parent`, as cf_flight_new() says. `options` may be NULL
 * for the defaults.
 * Ownership: keeps a reference to `parent`; the caller owns *out, cf_cache_free().
 * Fails with CF_ENOMEM, CF_EINVAL (options that make no sense). */
CF_API CF_MUST enum cf_code cf_cache_new(struct cf_ctx *parent,
                                         const struct cf_cache_options *options,
                                         struct cf_cache **out, struct cf_err *err);

/* Let every call that waits for a load, or would, fail with CF_ECLOSED; cancel all loads, and wait
 * until they have ended. What is in the cache is still served. Idempotent.
 * Blocks: until the last load has ended. Call from: not from a load, nor a callback of the loop. */
CF_API void cf_cache_stop(struct cf_cache *cache);

/* Free the cache, after cf_cache_stop() or when no load runs (asserted), and when every call has
 * returned. Values live on while there are other references to them. NULL is allowed. */
CF_API void cf_cache_free(struct cf_cache *cache);

/* Operations */

/* Get the value of `key`: a fresh one, a stale one (and start `load` in the background), or the
 * result of the load that is running or is started with `arg`.
 *
 * Ownership: copies `key` and `arg`; the caller owns a reference, *out: cf_value_unref(). *out_info
 * (may be NULL) is also written if a failure was remembered, or the load failed.
 * Blocks: on a miss, until the load has ended or `ctx` is done.
 * Fails with what the load returned, now or when it was remembered, and as cf_flight_do(). Fails if
 * `ctx` is already done. Call from: not from a callback of the loop. */
CF_API CF_MUST enum cf_code cf_cache_get(struct cf_ctx *ctx, struct cf_cache *cache,
                                         const char *key, const struct cf_cache_load *load,
                                         const void *arg, struct cf_value **out,
                                         struct cf_cache_info *out_info, struct cf_err *err);

/* As cf_cache_get(), but get only the result of a load: one that is running, or is started now.
 * However many callers ask for this, one load of a key runs at once. The value in the cache is not
 * served, and stays if the load fails.
 * Blocks: until the load has ended or `ctx` is done. */
CF_API CF_MUST enum cf_code cf_cache_reload(struct cf_ctx *ctx, struct cf_cache *cache,
                                            const char *key, const struct cf_cache_load *load,
                                            const void *arg, struct cf_value **out,
                                            struct cf_cache_info *out_info, struct cf_err *err);

/* Get what is in the cache, fresh or stale, and load nothing. False if there is no such value. The
 * caller owns a reference, *out; out_info may be NULL. Never blocks. */
CF_API bool cf_cache_try_get(struct cf_cache *cache, const char *key, struct cf_value **out,
                             struct cf_cache_info *out_info);

/* The same, but also get a value that may only be served because a load has failed: for callers
 * that cannot wait for that. */
CF_API bool cf_cache_try_get_old(struct cf_cache *cache, const char *key, struct cf_value **out,
                                 struct cf_cache_info *out_info);

/* Store `value` for the cache's ttl_ns. One that is too large is not stored; the value before it is
 * gone all the same. Never blocks.
 * Ownership: keeps a reference to `value`. Fails with CF_ENOMEM: then nothing changed. */
CF_API CF_MUST enum cf_code cf_cache_put(struct cf_cache *cache, const char *key,
                                         struct cf_value *value, struct cf_err *err);

/* Remove `key`, and return whether there was an entry. A cf_cache_get() that begins after this has
 * returned gets a value whose load began after this was called. Never blocks. */
CF_API bool cf_cache_remove(struct cf_cache *cache, const char *key);

/* As cf_cache_remove(), for every key that `match` returns true for; returns how many entries there
 * were. Walks over the whole cache. `match` is called with a lock held: it must only look at the
 * key, and call nothing here. */
CF_API size_t cf_cache_remove_if(struct cf_cache *cache, bool (*match)(const char *key, void *arg),
                                 void *arg);

/* As cf_cache_remove(), for every key. */
CF_API void cf_cache_flush(struct cf_cache *cache);

/* Queries */

/* Counts since the cache was made, and its present size. */
CF_API void cf_cache_stats(struct cf_cache *cache, struct cf_cache_stats *out);

/* The stable name of a state ("hit"). Static. */
CF_API const char *cf_cache_state_name(enum cf_cache_state state);

#ifdef __cplusplus
}
#endif

#endif
