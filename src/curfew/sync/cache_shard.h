/* SPDX-License-Identifier: MIT */
/* One part of a cache: its entries behind a lock of their own, within their limits.
 *
 * An entry is a value, or a failure that was kept, and until when each use of it is right. It never
 * changes but for its atomic fields: what is new about a key is a new entry. */
#ifndef CURFEW_SYNC_CACHE_SHARD_H
#define CURFEW_SYNC_CACHE_SHARD_H

#include <pthread.h>
#include <stdatomic.h>

#include <curfew/err.h>
#include <curfew/value.h>

#include "curfew/sync/sieve.h"
#include "curfew/sync/table.h"

struct cf__entry {
    struct cf__table_node
        node; /* Its links, and those of `sieve`, are guarded by the shard's lock. */
    struct cf__sieve_node sieve;

    struct cf_value *value;       /* A reference, or NULL: a failure. Constant, as are these. */
    const struct cf_err *failure; /* In `tail`, or NULL: a value. */
    size_t size;                  /* What it counts as. */
    int64_t stored_ns;
    int64_t fresh_until_ns;
    int64_t stale_until_ns; /* Until when a value is served while a new one is loaded; */
    int64_t error_until_ns; /* and until when because that failed. Neither of a failure. */

    /* Atomic: set with the lock held for reading. */
    _Atomic int64_t refresh_at_ns;   /* Who comes then loads it anew. */
    _Atomic int64_t failed_until_ns; /* A load failed: none is tried before. */

    _Alignas(struct cf_err) unsigned char tail[]; /* The failure, if it is one; the key. */
};

struct cf__cache_shard {
    pthread_rwlock_t lock;  /* Writers first, lest readers keep them out for ever. */
    struct cf__table table; /* Guarded by lock, as are these. */
    struct cf__sieve sieve;
    size_t entries;
    size_t bytes;
    uint64_t evictions;
    uint64_t refused;

    size_t entries_max; /* Constant after init, as is bytes_max. */
    size_t bytes_max;

    /* Atomic: counts, which order nothing (relaxed). */
    _Atomic uint64_t hits;
    _Atomic uint64_t stale;
    _Atomic uint64_t negative;
    _Atomic uint64_t misses;

    char apart[64]; /* The next shard's lock is on another cache line. */
};

/* Why somebody looks. */
enum cf__look {
    CF__LOOK_GET,    /* To serve it, and load it anew if it is time for that. */
    CF__LOOK_ONLY,   /* To know, or to serve what needs no load. */
    CF__LOOK_FAILED, /* A load has failed. */
};

enum cf__sight {
    CF__SIGHT_NONE,
    CF__SIGHT_FRESH,
    CF__SIGHT_STALE,
    CF__SIGHT_FAILURE,
};

struct cf__seen {
    struct cf_value *value; /* A reference for the caller, of what is fresh or stale. */
    int64_t age_ns;         /* Of that, and of a failure, */
    int64_t fresh_ns;       /* and for how long it is fresh yet. */
    enum cf_code code;      /* Of a failure. */
    bool refresh;           /* Stale, and nobody but this caller is to load it. */
};

/* Make a shard of so many entries and bytes. False: out of memory. */
bool cf__cache_shard_init(struct cf__cache_shard *shard, size_t entries_max, size_t bytes_max);
void cf__cache_shard_fini(struct cf__cache_shard *shard);

/* Make an entry of `value` (keeps a reference) or of `failure` (copied): one of them is NULL. Its
 * times are the caller's to set: they are all 0. NULL: out of memory. */
struct cf__entry *cf__entry_new(const char *key, uint64_t hash, struct cf_value *value,
                                const struct cf_err *failure);

/* Look for a key at `now_ns`. Reads only. A failure is written to `err`, which may be NULL. Who is
 * told to refresh has time for it until `refresh_until_ns`: then the next one is. */
enum cf__sight cf__cache_shard_look(struct cf__cache_shard *shard, const char *key, uint64_t hash,
                                    enum cf__look why, int64_t now_ns, int64_t refresh_until_ns,
                                    struct cf__seen *out, struct cf_err *err);

/* A refresh could not be started: let the next one try. Reads only. */
void cf__cache_shard_unclaim(struct cf__cache_shard *shard, const char *key, uint64_t hash);

/* A load has failed: let none be tried before `until_ns` if there is a value that can be served
 * instead at `now_ns`. Whether there is. Reads only. */
bool cf__cache_shard_hold(struct cf__cache_shard *shard, const char *key, uint64_t hash,
                          int64_t now_ns, int64_t until_ns);

/* Put in an entry instead of what its key has, and evict what there is no room for. One that is too
 * large is freed, and what was there too. Nothing is done if *unless (may be NULL) is true.
 * Owns the entry. */
void cf__cache_shard_store(struct cf__cache_shard *shard, struct cf__entry *own_entry,
                           const atomic_bool *unless);

/* Take out a key, unless *unless. Whether it was there. */
bool cf__cache_shard_remove(struct cf__cache_shard *shard, const char *key, uint64_t hash,
                            const atomic_bool *unless);

/* Take out all that `match` says yes to; NULL: all. How many. */
size_t cf__cache_shard_remove_if(struct cf__cache_shard *shard,
                                 bool (*match)(const char *key, void *arg), void *arg);

#endif
