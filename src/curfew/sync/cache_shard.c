/* SPDX-License-Identifier: MIT */
/* Parts of a cache: see cache_shard.h.
 *
 * The lock is held for a look-up or a change, never across a call of the user's: entries that go
 * are collected and freed when it has been let go of, because their values may be dropped by a
 * function of the user's. (But for `match`, whose contract says so.)
 *
 * Limits: room is made before a new entry is put in. One that takes the place of another may exceed
 * the bytes until as many are evicted, but nobody can look between. */
#include "curfew/sync/cache_shard.h"

#include <stdlib.h>
#include <string.h>

#include "curfew/core/err_private.h"

/* Internal helpers */

static struct cf__entry *entry_of(struct cf__list *node)
{
    return CF__CONTAINER(node, struct cf__entry, sieve.node);
}

static void entry_free(struct cf__entry *entry)
{
    cf_value_unref(entry->value);
    free(entry);
}

/* Free the entries of a list. Without the lock. */
static void bury(struct cf__list *dead)
{
    struct cf__list *node;

    while ((node = cf__list_pop(dead)) != NULL) {
        entry_free(entry_of(node));
    }
}

static struct cf__entry *find(const struct cf__cache_shard *shard, const char *key, uint64_t hash)
{
    struct cf__table_node *node = cf__table_find(&shard->table, key, hash);

    return node != NULL ? CF__CONTAINER(node, struct cf__entry, node) : NULL;
}

/* Account for an entry that has left the queue, and let it be buried. */
static void discard(struct cf__cache_shard *shard, struct cf__entry *entry, struct cf__list *dead)
{
    cf__table_remove(&shard->table, &entry->node);
    shard->entries--;
    shard->bytes -= entry->size;
    cf__list_push(dead, &entry->sieve.node);
}

static void take_out(struct cf__cache_shard *shard, struct cf__entry *entry, struct cf__list *dead)
{
    cf__sieve_remove(&shard->sieve, &entry->sieve);
    discard(shard, entry, dead);
}

/* Evict until `entries` and `bytes` more fit. Neither alone is more than the limit. */
static void make_room(struct cf__cache_shard *shard, size_t entries, size_t bytes,
                      struct cf__list *dead)
{
    while (shard->entries + entries > shard->entries_max ||
           shard->bytes + bytes > shard->bytes_max) {
        struct cf__sieve_node *node = cf__sieve_evict(&shard->sieve);

        discard(shard, CF__CONTAINER(node, struct cf__entry, sieve), dead);
        shard->evictions++;
    }
}

static void put_in(struct cf__cache_shard *shard, struct cf__entry *entry, struct cf__list *dead)
{
    make_room(shard, 1, entry->size, dead);
    cf__table_insert(&shard->table, &entry->node);
    cf__sieve_insert(&shard->sieve, &entry->sieve);
    shard->entries++;
    shard->bytes += entry->size;
}

/* What was refreshed keeps its place in the queue: it is no newcomer. */
static void swap(struct cf__cache_shard *shard, struct cf__entry *old, struct cf__entry *entry,
                 struct cf__list *dead)
{
    cf__sieve_replace(&shard->sieve, &old->sieve, &entry->sieve);
    discard(shard, old, dead);
    cf__table_insert(&shard->table, &entry->node);
    shard->entries++;
    shard->bytes += entry->size;
    make_room(shard, 0, 0, dead);
}

/* What an entry is at an instant. */
static enum cf__sight judge(struct cf__entry *entry, enum cf__look why, int64_t now_ns)
{
    if (now_ns < entry->fresh_until_ns) {
        return entry->failure != NULL ? CF__SIGHT_FAILURE : CF__SIGHT_FRESH;
    }
    if (now_ns < entry->stale_until_ns) {
        return CF__SIGHT_STALE;
    }
    if (now_ns < entry->error_until_ns &&
        (why == CF__LOOK_FAILED || now_ns < atomic_load(&entry->failed_until_ns))) {
        return CF__SIGHT_STALE;
    }
    return CF__SIGHT_NONE;
}

/* Whether to load a stale entry anew is up to the caller: it is for one only. */
static bool claim_refresh(struct cf__entry *entry, int64_t now_ns, int64_t until_ns)
{
    int64_t at_ns = atomic_load(&entry->refresh_at_ns);

    return now_ns < entry->stale_until_ns && now_ns >= atomic_load(&entry->failed_until_ns) &&
           now_ns >= at_ns &&
           atomic_compare_exchange_strong(&entry->refresh_at_ns, &at_ns, until_ns);
}

/* Life cycle */

bool cf__cache_shard_init(struct cf__cache_shard *shard, size_t entries_max, size_t bytes_max)
{
    pthread_rwlockattr_t attr;

    memset(shard, 0, sizeof(*shard));
    if (!cf__table_init(&shard->table, entries_max)) {
        return false;
    }
    (void)pthread_rwlockattr_init(&attr); /* None of these can fail. */
    (void)pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    (void)pthread_rwlock_init(&shard->lock, &attr);
    (void)pthread_rwlockattr_destroy(&attr);
    cf__sieve_init(&shard->sieve);
    shard->entries_max = entries_max;
    shard->bytes_max = bytes_max;
    return true;
}

void cf__cache_shard_fini(struct cf__cache_shard *shard)
{
    bury(&shard->sieve.queue);
    cf__table_fini(&shard->table);
    (void)pthread_rwlock_destroy(&shard->lock);
}

struct cf__entry *cf__entry_new(const char *key, uint64_t hash, struct cf_value *value,
                                const struct cf_err *failure)
{
    size_t key_size = strlen(key) + 1;
    size_t failure_size = failure != NULL ? sizeof(*failure) : 0;
    size_t own_size = sizeof(struct cf__entry) + failure_size + key_size;
    struct cf__entry *entry = malloc(own_size);

    if (entry == NULL) {
        return NULL;
    }
    memset(entry, 0, sizeof(*entry));
    cf__list_init(&entry->sieve.node);
    if (failure != NULL) {
        entry->failure = memcpy(entry->tail, failure, failure_size);
    }
    entry->node.key = memcpy(entry->tail + failure_size, key, key_size);
    entry->node.hash = hash;
    entry->value = value != NULL ? cf_value_ref(value) : NULL;
    /* Cannot overflow: the value is in memory beside the entry. One that is wrapped says what it
     * likes, so be sure. */
    entry->size = own_size;
    if (value != NULL) {
        entry->size =
            cf_value_size(value) < SIZE_MAX / 2 ? own_size + cf_value_size(value) : SIZE_MAX / 2;
    }
    return entry;
}

/* Operations */

enum cf__sight cf__cache_shard_look(struct cf__cache_shard *shard, const char *key, uint64_t hash,
                                    enum cf__look why, int64_t now_ns, int64_t refresh_until_ns,
                                    struct cf__seen *out, struct cf_err *err)
{
    enum cf__sight sight = CF__SIGHT_NONE;
    struct cf__entry *entry;

    (void)pthread_rwlock_rdlock(&shard->lock);
    entry = find(shard, key, hash);
    if (entry != NULL) {
        sight = judge(entry, why, now_ns);
    }
    if (sight != CF__SIGHT_NONE) {
        cf__sieve_use(&entry->sieve);
        out->age_ns = now_ns - entry->stored_ns;
        out->fresh_ns = entry->fresh_until_ns - now_ns;
    }
    if (sight == CF__SIGHT_FAILURE) {
        out->code = cf__err_give(err, entry->failure);
    } else if (sight != CF__SIGHT_NONE) {
        out->value = cf_value_ref(entry->value);
        out->refresh = sight == CF__SIGHT_STALE && why == CF__LOOK_GET &&
                       claim_refresh(entry, now_ns, refresh_until_ns);
    }
    (void)pthread_rwlock_unlock(&shard->lock);
    return sight;
}

void cf__cache_shard_unclaim(struct cf__cache_shard *shard, const char *key, uint64_t hash)
{
    struct cf__entry *entry;

    (void)pthread_rwlock_rdlock(&shard->lock);
    entry = find(shard, key, hash);
    if (entry != NULL) {
        atomic_store(&entry->refresh_at_ns, 0);
    }
    (void)pthread_rwlock_unlock(&shard->lock);
}

bool cf__cache_shard_hold(struct cf__cache_shard *shard, const char *key, uint64_t hash,
                          int64_t now_ns, int64_t until_ns)
{
    struct cf__entry *entry;
    bool usable;

    (void)pthread_rwlock_rdlock(&shard->lock);
    entry = find(shard, key, hash);
    usable = entry != NULL && entry->value != NULL && now_ns < entry->error_until_ns;
    if (usable) {
        atomic_store(&entry->failed_until_ns, until_ns);
        atomic_store(&entry->refresh_at_ns, until_ns);
    }
    (void)pthread_rwlock_unlock(&shard->lock);
    return usable;
}

void cf__cache_shard_store(struct cf__cache_shard *shard, struct cf__entry *own_entry,
                           const atomic_bool *unless)
{
    struct cf__entry *old;
    struct cf__list dead;

    cf__list_init(&dead);
    (void)pthread_rwlock_wrlock(&shard->lock);
    old = find(shard, own_entry->node.key, own_entry->node.hash);
    if (unless != NULL && atomic_load(unless)) {
        cf__list_push(&dead, &own_entry->sieve.node);
    } else if (own_entry->size > shard->bytes_max) {
        shard->refused++;
        if (old != NULL) {
            take_out(shard, old, &dead);
        }
        cf__list_push(&dead, &own_entry->sieve.node);
    } else if (old != NULL) {
        swap(shard, old, own_entry, &dead);
    } else {
        put_in(shard, own_entry, &dead);
    }
    (void)pthread_rwlock_unlock(&shard->lock);
    bury(&dead);
}

bool cf__cache_shard_remove(struct cf__cache_shard *shard, const char *key, uint64_t hash,
                            const atomic_bool *unless)
{
    struct cf__entry *entry = NULL;
    struct cf__list dead;

    cf__list_init(&dead);
    (void)pthread_rwlock_wrlock(&shard->lock);
    if (unless == NULL || !atomic_load(unless)) {
        entry = find(shard, key, hash);
    }
    if (entry != NULL) {
        take_out(shard, entry, &dead);
    }
    (void)pthread_rwlock_unlock(&shard->lock);
    bury(&dead);
    return entry != NULL;
}

size_t cf__cache_shard_remove_if(struct cf__cache_shard *shard,
                                 bool (*match)(const char *key, void *arg), void *arg)
{
    struct cf__list *node;
    struct cf__list *next;
    struct cf__list dead;
    size_t removed = 0;

    cf__list_init(&dead);
    (void)pthread_rwlock_wrlock(&shard->lock);
    for (node = shard->sieve.queue.next; node != &shard->sieve.queue; node = next) {
        struct cf__entry *entry = entry_of(node);

        next = node->next;
        if (match == NULL || match(entry->node.key, arg)) {
            take_out(shard, entry, &dead);
            removed++;
        }
    }
    (void)pthread_rwlock_unlock(&shard->lock);
    bury(&dead);
    return removed;
}
