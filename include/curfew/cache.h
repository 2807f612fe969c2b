/* SPDX-License-Identifier: MIT */
/* A cache for what is read far more often than it changes, and that loads what it does not have.
 *
 * Any number of loops and threads share it. A hit takes a lock for reading and sets one bit; what has
 * to go is chosen by SIEVE. Misses of one key share one load (flight.h). A value that is past its
 * time can still be served: while a new one is loaded behind it, or because that load fails.
 *
 *     stored         ttl_ns        + stale_while_revalidate_ns    + stale_if_error_ns
 *       |-- fresh: hit --|-- stale: served, and loaded anew --|-- loaded; served if that fails --|
 *
 * Both periods begin when freshness ends; the later end of the two counts for errors.
 *
 * Invariant: never more entries or bytes than the limits say; what a load brings is not kept if its
 * key was put, removed or flushed after the load began; an error that came from a cancel is not kept.
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
 * cf_cache_free() are for one caller. No lock is held across a wait, or while a value is dropped. */
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

/* Make the value of one key: *out, with a reference for the cache. `ctx` is the load's own (flight.h).
 * *ttl_ns comes as the cache's own and may be changed: 0 gives the value to those who wait for it and
 * keeps nothing. What it returns other than CF_OK is every caller's failure, described in `err` (never
 * NULL); CF_ENOTFOUND says that there is no such thing, everything else that it could not be had. */
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
                           share of both limits, and keeps no value larger than that. 0: up to 16. */

    int64_t ttl_ns;     /* How long a value is fresh. 0: CF_CACHE_TTL_NS. */
    int jitter_percent; /* By up to how much less, at random, so that what was loaded together is
                           not loaded together again. 0: CF_CACHE_JITTER_PERCENT; below 0: none. */
    int64_t stale_while_revalidate_ns; /* 0: not at all, as are the following. */
    int64_t stale_if_error_ns;
    int64_t negative_ttl_ns; /* How long CF_ENOTFOUND is the answer. */
    int64_t error_ttl_ns;    /* How long after another failure the next load is not tried: the stale
                                value, or that failure, is the answer. */

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
    int64_t age_ns; /* Since it was stored; 0 of a miss. */
    int64_t
        fresh_ns; /* For how long it is fresh yet; below 0: since when it is not. 0 of a miss. */
};

struct cf_cache_stats {
    uint64_t hits;      /* Calls that were answered by a fresh value, */
    uint64_t stale;     /* by a stale one, */
    uint64_t negative;  /* by a failure that was kept, */
    uint64_t misses;    /* or by none of these: by a load, or its failure. */
    uint64_t loads;     /* Loads that were begun, also behind a stale value, */
    uint64_t failures;  /* and of these, that failed. */
    uint64_t evictions; /* Entries that had to go for others. */
    uint64_t refused;   /* Values that were too large to be kept. */
    size_t entries;     /* Now. */
    size_t bytes;
};

/* Life cycle */

/* Make a cache whose loads are children of `parent`, as cf_flight_new() says. `options` may be NULL for
 * the defaults.
 * Ownership: keeps a reference to `parent`; the caller owns *out, cf_cache_free().
 * Fails with CF_ENOMEM, CF_EINVAL (options that make no sense). */
CF_API CF_MUST enum cf_code cf_cache_new(struct cf_ctx *parent,
                                         const struct cf_cache_options *options,
                                         struct cf_cache **out, struct cf_err *err);

/* Let whoever waits for a load, or would, fail with CF_ECLOSED, cancel every load and wait until they
 * have ended. What is there is still served. Idempotent.
 * Blocks: until the last load has ended. Call from: not from a load, nor a callback of the loop. */
CF_API void cf_cache_stop(struct cf_cache *cache);

/* Free the cache, after cf_cache_stop() or when no load runs (asserted), and when every call has
 * returned. Values that somebody has a reference to live on. NULL is allowed. */
CF_API void cf_cache_free(struct cf_cache *cache);

/* Operations */

/* Get the value of `key`: a fresh one, a stale one (and start `load` behind it), or what the load
 * that runs, or is started with `arg`, will bring.
 *
 * Ownership: copies `key` and `arg`; the caller owns a reference, *out: cf_value_unref(). *out_info
 * (may be NULL) is written also when a failure was kept, or the load failed.
 * Blocks: on a miss, until the load has ended or `ctx` is done.
 * Fails with what the load returned, now or when it was kept, and as cf_flight_do(). A `ctx` that is
 * done gets nothing. Call from: not from a callback of the loop. */
CF_API CF_MUST enum cf_code cf_cache_get(struct cf_ctx *ctx, struct cf_cache *cache,
                                         const char *key, const struct cf_cache_load *load,
                                         const void *arg, struct cf_value **out,
                                         struct cf_cache_info *out_info, struct cf_err *err);

/* As cf_cache_get(), but get only what a load brings: one that runs, or that is started now. However
 * many ask for this, one load of a key runs at once. What is there is neither served nor lost if that
 * fails. */
CF_API CF_MUST enum cf_code cf_cache_reload(struct cf_ctx *ctx, struct cf_cache *cache,
                                            const char *key, const struct cf_cache_load *load,
                                            const void *arg, struct cf_value **out,
                                            struct cf_cache_info *out_info, struct cf_err *err);

/* Get what is there, fresh or stale, and load nothing. False if there is no such value. The caller
 * owns a reference, *out; out_info may be NULL. Never blocks. */
CF_API bool cf_cache_try_get(struct cf_cache *cache, const char *key, struct cf_value **out,
                             struct cf_cache_info *out_info);

/* The same, also if it may only be served because a load has failed: for who cannot wait for a load
 * to do so. */
CF_API bool cf_cache_try_get_old(struct cf_cache *cache, const char *key, struct cf_value **out,
                                 struct cf_cache_info *out_info);

/* Keep `value` from now on, for the cache's ttl_ns; one that is too large is not kept, and what was
 * there before it is gone all the same. Never blocks.
 * Ownership: keeps a reference to `value`. Fails with CF_ENOMEM: then nothing changed. */
CF_API CF_MUST enum cf_code cf_cache_put(struct cf_cache *cache, const char *key,
                                         struct cf_value *value, struct cf_err *err);

/* Forget `key`. Whoever comes after this returns gets a value whose load began after this was called.
 * Whether there was an entry. Never blocks. */
CF_API bool cf_cache_remove(struct cf_cache *cache, const char *key);

/* As cf_cache_remove(), of every key that `match` says yes to; how many entries that were. A walk over
 * all of the cache. `match` is called with a lock held: it looks at the key, and calls nothing here. */
CF_API size_t cf_cache_remove_if(struct cf_cache *cache, bool (*match)(const char *key, void *arg),
                                 void *arg);

/* As cf_cache_remove(), of every key. */
CF_API void cf_cache_flush(struct cf_cache *cache);

/* Queries */

/* Counts since the cache was made, and what it holds now. */
CF_API void cf_cache_stats(struct cf_cache *cache, struct cf_cache_stats *out);

/* The stable name of a state ("hit"). Static. */
CF_API const char *cf_cache_state_name(enum cf_cache_state state);

#ifdef __cplusplus
}
#endif

#endif
