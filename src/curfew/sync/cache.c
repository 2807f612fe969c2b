/* SPDX-License-Identifier: MIT */
/* Caches: see cache.h for the contract, cache_shard.c for what is behind the locks, sieve.h for
 * what goes, flight.c for how a load is shared.
 *
 * What a load brings is kept by the load itself, before it ends. So a caller who finds neither an
 * entry nor a load that he can join has come too late for the last one, or too early for the next:
 * the load that he starts looks once more.
 *
 * Out of date: put, remove and flush first make the running load of the key one that nobody joins
 * (its `forgotten`), then change the shard. The load stores under the shard's lock, unless it is
 * forgotten: it has either stored before the change, which then takes that out, or sees that it may
 * not. A load that is abandoned is forgotten too.
 *
 * Lock order: the flights' mu and a shard's lock are never held together. */
#include <curfew/cache.h>

#include <stdatomic.h>
#include <stdlib.h>

#include <curfew/clock.h>

#include "curfew/core/err_private.h"
#include "curfew/sync/cache_shard.h"
#include "curfew/sync/flight_private.h"
#include "curfew/sync/hash.h"

/* By default a cache has so many shards, if each still gets so much. */
#define SHARDS 16
#define SHARD_ENTRIES_MIN 1024
#define SHARD_BYTES_MIN ((size_t)1 << 20)

struct cf_cache {
    struct cf_cache_options options; /* With the defaults filled in. Constant after new, as are: */
    struct cf_flight *flight;
    struct cf__hash_seed seed;
    struct cf__cache_shard *shards; /* options.shards of them. */

    /* Atomic: counts, which order nothing (relaxed). */
    _Atomic uint64_t loads;
    _Atomic uint64_t failures;
    _Atomic uint64_t dice; /* Of the jitter. */
};

/* A key, and where it belongs. */
struct place {
    const char *key;
    uint64_t hash;
    struct cf__cache_shard *shard;
};

/* Internal helpers */

static void count(_Atomic uint64_t *counter)
{
    (void)atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static int64_t now(const struct cf_cache *cache)
{
    return cache->options.now_ns != NULL ? cache->options.now_ns(cache->options.now_arg)
                                         : cf_now_ns();
}

/* The table of a shard uses the low bits of the hash. */
static struct place place_of(struct cf_cache *cache, const char *key)
{
    uint64_t hash = cf__hash(&cache->seed, key);

    return (struct place){key, hash, &cache->shards[(hash >> 48) & (cache->options.shards - 1)]};
}

/* A period that is shorter than `ttl_ns` by a random part. */
static int64_t jitter(struct cf_cache *cache, int64_t ttl_ns)
{
    uint64_t dice =
        atomic_fetch_add_explicit(&cache->dice, UINT64_C(0x9e3779b97f4a7c15), memory_order_relaxed);
    int64_t most_ns = ttl_ns / 100 * cache->options.jitter_percent;

    /* The finalizer of SplitMix64, of which the constant above is the step. */
    dice = (dice ^ (dice >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    dice = (dice ^ (dice >> 27)) * UINT64_C(0x94d049bb133111eb);
    dice ^= dice >> 31;
    return most_ns > 0 ? ttl_ns - (int64_t)(dice % (uint64_t)(most_ns + 1)) : ttl_ns;
}

/* Make an entry that is fresh for `ttl_ns`. NULL: out of memory. */
static struct cf__entry *new_entry(struct cf_cache *cache, const struct place *place,
                                   struct cf_value *value, const struct cf_err *failure,
                                   int64_t ttl_ns)
{
    const struct cf_cache_options *options = &cache->options;
    struct cf__entry *entry = cf__entry_new(place->key, place->hash, value, failure);
    int64_t error_ns = options->stale_if_error_ns;

    if (entry == NULL) {
        return NULL;
    }
    if (error_ns < options->stale_while_revalidate_ns) {
        error_ns = options->stale_while_revalidate_ns;
    }
    entry->stored_ns = now(cache);
    entry->fresh_until_ns = cf_deadline_in(entry->stored_ns, jitter(cache, ttl_ns));
    if (value != NULL) {
        entry->stale_until_ns =
            cf_deadline_in(entry->fresh_until_ns, options->stale_while_revalidate_ns);
        entry->error_until_ns = cf_deadline_in(entry->fresh_until_ns, error_ns);
    }
    return entry;
}

/* Internal helpers: loads */

/* Store what a load brought, unless it is out of date. Without memory, it is not kept. */
static void keep(struct cf_cache *cache, struct cf__flight_job *job, const struct place *place,
                 struct cf_value *value, const struct cf_err *failure, int64_t ttl_ns)
{
    struct cf__entry *entry = ttl_ns > 0 ? new_entry(cache, place, value, failure, ttl_ns) : NULL;

    if (entry != NULL) {
        cf__cache_shard_store(place->shard, entry, &job->forgotten);
    }
}

/* Whether a load failed because its context ended, whatever it made of that. */
static bool came_from_cancel(struct cf_ctx *ctx, const struct cf_err *failure)
{
    return cf_ctx_err(ctx) != CF_OK || cf_err_is(failure, CF_ECANCELED) ||
           cf_err_is(failure, CF_EDEADLINE);
}

static void keep_failure(struct cf_cache *cache, struct cf__flight_job *job,
                         const struct place *place, struct cf_ctx *ctx,
                         const struct cf_err *failure)
{
    const struct cf_cache_options *options = &cache->options;
    bool canceled = came_from_cancel(ctx, failure);
    int64_t now_ns = now(cache);

    if (cf_ctx_err(ctx) == CF_ECANCELED) {
        return; /* Nobody waits, or the end of all: it says nothing about the source. */
    }
    if (failure->code == CF_ENOTFOUND && !canceled) {
        if (options->negative_ttl_ns > 0) {
            keep(cache, job, place, NULL, failure, options->negative_ttl_ns);
        } else {
            (void)cf__cache_shard_remove(place->shard, place->key, place->hash, &job->forgotten);
        }
        return;
    }
    if (!cf__cache_shard_hold(place->shard, place->key, place->hash, now_ns,
                              cf_deadline_in(now_ns, options->error_ttl_ns)) &&
        !canceled) {
        keep(cache, job, place, NULL, failure, options->error_ttl_ns);
    }
}

/* Load it, whatever there is. */
static enum cf_code run_reload(struct cf__flight_job *job, struct cf_ctx *ctx,
                               struct cf_value **out, struct cf_err *err)
{
    struct cf_cache *cache = job->owner;
    struct place place = place_of(cache, job->key);
    int64_t ttl_ns = cache->options.ttl_ns;
    enum cf_code code;

    count(&cache->loads);
    code = ((cf_cache_fn)job->fn)(ctx, (void *)job->arg, out, &ttl_ns, err);
    if (code == CF_OK) {
        CF_ASSERT(*out != NULL);
        keep(cache, job, &place, *out, NULL, ttl_ns);
    } else {
        cf__err_settle(err, code);
        count(&cache->failures);
        keep_failure(cache, job, &place, ctx, err);
    }
    return code;
}

static enum cf_code run_load(struct cf__flight_job *job, struct cf_ctx *ctx, struct cf_value **out,
                             struct cf_err *err)
{
    struct cf_cache *cache = job->owner;
    struct place place = place_of(cache, job->key);
    struct cf__seen seen;

    /* The load before this one may have ended after its caller had looked. */
    switch (cf__cache_shard_look(place.shard, place.key, place.hash, CF__LOOK_ONLY, now(cache), 0,
                                 &seen, err)) {
    case CF__SIGHT_FRESH:
        *out = seen.value;
        return CF_OK;
    case CF__SIGHT_FAILURE:
        return seen.code;
    case CF__SIGHT_STALE:
        cf_value_unref(seen.value);
        break;
    case CF__SIGHT_NONE:
        break;
    }
    return run_reload(job, ctx, out, err);
}

static struct cf__flight_job job_of(struct cf_cache *cache, const char *key,
                                    const struct cf_cache_load *load, const void *arg)
{
    return (struct cf__flight_job){
        .run = run_load,
        .owner = cache,
        .fn = (void (*)(void))load->fn,
        .key = key,
        .arg = arg,
        .arg_size = load->arg_size,
    };
}

/* `seen` NULL: it was loaded. */
static void tell(struct cf_cache_info *out_info, enum cf_cache_state state,
                 const struct cf__seen *seen)
{
    if (out_info != NULL) {
        *out_info = (struct cf_cache_info){state, seen != NULL ? seen->age_ns : 0,
                                           seen != NULL ? seen->fresh_ns : 0};
    }
}

/* Serve what was seen, which is a value. */
static enum cf_code serve(const struct place *place, enum cf__sight sight,
                          const struct cf__seen *seen, struct cf_value **out,
                          struct cf_cache_info *out_info)
{
    bool fresh = sight == CF__SIGHT_FRESH;

    count(fresh ? &place->shard->hits : &place->shard->stale);
    tell(out_info, fresh ? CF_CACHE_HIT : CF_CACHE_STALE, seen);
    *out = seen->value;
    return CF_OK;
}

/* Load what is not there, or get a value past its time if that fails. */
static enum cf_code load_missing(struct cf_ctx *ctx, struct cf_cache *cache,
                                 const struct place *place, const struct cf__flight_job *job,
                                 struct cf_value **out, struct cf_cache_info *out_info,
                                 struct cf_err *err)
{
    struct cf_err failure;
    enum cf_code code = cf__flight_do(ctx, cache->flight, job, out, NULL, &failure);

    if (code != CF_OK && code != CF_ENOTFOUND && cf_ctx_err(ctx) == CF_OK) {
        struct cf__seen seen;
        enum cf__sight sight = cf__cache_shard_look(place->shard, place->key, place->hash,
                                                    CF__LOOK_FAILED, now(cache), 0, &seen, NULL);

        if (sight == CF__SIGHT_FRESH || sight == CF__SIGHT_STALE) {
            return serve(place, sight, &seen, out, out_info);
        }
    }
    count(&place->shard->misses);
    tell(out_info, CF_CACHE_MISS, NULL);
    return code == CF_OK ? CF_OK : cf__err_give(err, &failure);
}

/* Life cycle */

/* The options with their defaults. False: they make no sense. */
static bool settle_options(const struct cf_cache_options *given, struct cf_cache_options *out)
{
    *out = (struct cf_cache_options){0};
    if (given != NULL) {
        *out = *given;
    }
    out->entries_max = out->entries_max > 0 ? out->entries_max : CF_CACHE_ENTRIES_MAX;
    out->bytes_max = out->bytes_max > 0 ? out->bytes_max : CF_CACHE_BYTES_MAX;
    out->ttl_ns = out->ttl_ns > 0 ? out->ttl_ns : CF_CACHE_TTL_NS;
    if (out->jitter_percent == 0) {
        out->jitter_percent = CF_CACHE_JITTER_PERCENT;
    }
    if (out->load_timeout_ns <= 0) {
        out->load_timeout_ns = CF_FLIGHT_LOAD_TIMEOUT_NS;
    }
    if (out->shards == 0) {
        out->shards = SHARDS;
        while (out->shards > 1 && (out->entries_max / out->shards < SHARD_ENTRIES_MIN ||
                                   out->bytes_max / out->shards < SHARD_BYTES_MIN)) {
            out->shards /= 2;
        }
    }
    return (out->shards & (out->shards - 1)) == 0 && out->shards <= out->entries_max &&
           out->jitter_percent <= 100;
}

static bool make_shards(struct cf_cache *cache)
{
    const struct cf_cache_options *options = &cache->options;

    cache->shards = calloc(options->shards, sizeof(*cache->shards));
    for (size_t i = 0; cache->shards != NULL && i < options->shards; i++) {
        if (!cf__cache_shard_init(&cache->shards[i], options->entries_max / options->shards,
                                  options->bytes_max / options->shards)) {
            while (i > 0) {
                cf__cache_shard_fini(&cache->shards[--i]);
            }
            free(cache->shards);
            cache->shards = NULL;
        }
    }
    return cache->shards != NULL;
}

enum cf_code cf_cache_new(struct cf_ctx *parent, const struct cf_cache_options *options,
                          struct cf_cache **out, struct cf_err *err)
{
    struct cf_flight_options flights;
    struct cf_cache *cache = calloc(1, sizeof(*cache));
    enum cf_code code;

    if (cache == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a cache");
    }
    if (!settle_options(options, &cache->options)) {
        free(cache);
        return cf_err_set(err, CF_EINVAL, "a cache's shards or jitter make no sense");
    }
    if (!make_shards(cache)) {
        free(cache);
        return cf_err_set(err, CF_ENOMEM, "no memory for a cache");
    }
    cf__hash_seed(&cache->seed);
    atomic_init(&cache->dice, cache->seed.k[0]);
    flights = (struct cf_flight_options){cache->options.load_timeout_ns, cache->options.loads_max};
    code = cf_flight_new(parent, &flights, &cache->flight, err);
    if (code != CF_OK) {
        cf_cache_free(cache);
        return code;
    }
    *out = cache;
    return CF_OK;
}

void cf_cache_stop(struct cf_cache *cache)
{
    cf_flight_stop(cache->flight);
}

void cf_cache_free(struct cf_cache *cache)
{
    if (cache == NULL) {
        return;
    }
    cf_flight_free(cache->flight);
    for (size_t i = 0; i < cache->options.shards; i++) {
        cf__cache_shard_fini(&cache->shards[i]);
    }
    free(cache->shards);
    free(cache);
}

/* Operations */

enum cf_code cf_cache_get(struct cf_ctx *ctx, struct cf_cache *cache, const char *key,
                          const struct cf_cache_load *load, const void *arg, struct cf_value **out,
                          struct cf_cache_info *out_info, struct cf_err *err)
{
    enum cf_code code = cf_ctx_check(ctx, err);
    struct cf__flight_job job;
    struct cf__seen seen;
    enum cf__sight sight;
    struct place place;
    int64_t now_ns;

    if (code != CF_OK) {
        return code;
    }
    place = place_of(cache, key);
    now_ns = now(cache);
    sight =
        cf__cache_shard_look(place.shard, key, place.hash, CF__LOOK_GET, now_ns,
                             cf_deadline_in(now_ns, cache->options.load_timeout_ns), &seen, err);
    switch (sight) {
    case CF__SIGHT_FRESH:
        return serve(&place, sight, &seen, out, out_info);
    case CF__SIGHT_STALE:
        if (seen.refresh) {
            job = job_of(cache, key, load, arg);
            if (cf__flight_start(cache->flight, &job, NULL) != CF_OK) {
                cf__cache_shard_unclaim(place.shard, key, place.hash);
            }
        }
        return serve(&place, sight, &seen, out, out_info);
    case CF__SIGHT_FAILURE:
        count(&place.shard->negative);
        tell(out_info, CF_CACHE_NEGATIVE, &seen);
        return seen.code;
    case CF__SIGHT_NONE:
        break;
    }
    job = job_of(cache, key, load, arg);
    return load_missing(ctx, cache, &place, &job, out, out_info, err);
}

enum cf_code cf_cache_reload(struct cf_ctx *ctx, struct cf_cache *cache, const char *key,
                             const struct cf_cache_load *load, const void *arg,
                             struct cf_value **out, struct cf_cache_info *out_info,
                             struct cf_err *err)
{
    enum cf_code code = cf_ctx_check(ctx, err);
    struct cf__flight_job job = job_of(cache, key, load, arg);

    if (code != CF_OK) {
        return code;
    }
    job.run = run_reload;
    count(&place_of(cache, key).shard->misses);
    tell(out_info, CF_CACHE_MISS, NULL);
    return cf__flight_do(ctx, cache->flight, &job, out, NULL, err);
}

/* Serve what is there if it can be looked at this way. */
static bool try_serve(struct cf_cache *cache, const char *key, enum cf__look why,
                      struct cf_value **out, struct cf_cache_info *out_info)
{
    struct place place = place_of(cache, key);
    struct cf__seen seen;
    enum cf__sight sight =
        cf__cache_shard_look(place.shard, key, place.hash, why, now(cache), 0, &seen, NULL);

    if (sight == CF__SIGHT_FRESH || sight == CF__SIGHT_STALE) {
        (void)serve(&place, sight, &seen, out, out_info);
        return true;
    }
    count(sight == CF__SIGHT_FAILURE ? &place.shard->negative : &place.shard->misses);
    return false;
}

bool cf_cache_try_get(struct cf_cache *cache, const char *key, struct cf_value **out,
                      struct cf_cache_info *out_info)
{
    return try_serve(cache, key, CF__LOOK_ONLY, out, out_info);
}

bool cf_cache_try_get_old(struct cf_cache *cache, const char *key, struct cf_value **out,
                          struct cf_cache_info *out_info)
{
    return try_serve(cache, key, CF__LOOK_FAILED, out, out_info);
}

enum cf_code cf_cache_put(struct cf_cache *cache, const char *key, struct cf_value *value,
                          struct cf_err *err)
{
    struct place place = place_of(cache, key);
    struct cf__entry *entry = new_entry(cache, &place, value, NULL, cache->options.ttl_ns);

    if (entry == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for an entry of a cache");
    }
    cf_flight_forget(cache->flight, key);
    cf__cache_shard_store(place.shard, entry, NULL);
    return CF_OK;
}

bool cf_cache_remove(struct cf_cache *cache, const char *key)
{
    struct place place = place_of(cache, key);

    cf_flight_forget(cache->flight, key);
    return cf__cache_shard_remove(place.shard, key, place.hash, NULL);
}

size_t cf_cache_remove_if(struct cf_cache *cache, bool (*match)(const char *key, void *arg),
                          void *arg)
{
    size_t removed = 0;

    cf__flight_forget_if(cache->flight, match, arg);
    for (size_t i = 0; i < cache->options.shards; i++) {
        removed += cf__cache_shard_remove_if(&cache->shards[i], match, arg);
    }
    return removed;
}

void cf_cache_flush(struct cf_cache *cache)
{
    (void)cf_cache_remove_if(cache, NULL, NULL);
}

/* Queries */

void cf_cache_stats(struct cf_cache *cache, struct cf_cache_stats *out)
{
    *out = (struct cf_cache_stats){
        .loads = atomic_load(&cache->loads),
        .failures = atomic_load(&cache->failures),
    };
    for (size_t i = 0; i < cache->options.shards; i++) {
        struct cf__cache_shard *shard = &cache->shards[i];

        out->hits += atomic_load(&shard->hits);
        out->stale += atomic_load(&shard->stale);
        out->negative += atomic_load(&shard->negative);
        out->misses += atomic_load(&shard->misses);
        (void)pthread_rwlock_rdlock(&shard->lock);
        out->evictions += shard->evictions;
        out->refused += shard->refused;
        out->entries += shard->entries;
        out->bytes += shard->bytes;
        (void)pthread_rwlock_unlock(&shard->lock);
    }
}

const char *cf_cache_state_name(enum cf_cache_state state)
{
    switch (state) {
#define CF_CACHE_STATE_NAME(symbol, name)                                                          \
    case symbol:                                                                                   \
        return name;
        CF_CACHE_STATES(CF_CACHE_STATE_NAME)
#undef CF_CACHE_STATE_NAME
    }
    return "unknown";
}
