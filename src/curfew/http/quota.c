/* SPDX-License-Identifier: MIT */
/* Counts by client: see quota.h.
 *
 * One table for all loops, because a client's connections are spread over them: a share of the
 * limit for each would refuse some clients early and others late. Its lock is taken once when a
 * connection comes and once when it goes, and for a request only behind a proxy.
 *
 * Who has many addresses chooses which of them hash alike, so the hash has a secret. */
#include "curfew/http/quota.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* Without memory an entry is not added, which shows in that its table is NULL. */
#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(entry) ((entry)->hh.tbl = NULL)
#include <uthash.h>

struct entry {
    struct cf__address client;
    size_t n;
    UT_hash_handle hh;
};

struct cf__quota {
    size_t each_max; /* Constant after new, as are these. */
    uint64_t secret[2];

    pthread_mutex_t mu; /* Guards everything below. */
    struct entry *entries;
};

/* Internal helpers */

static unsigned hash_of(const struct cf__quota *quota, const struct cf__address *client)
{
    uint64_t halves[2];
    unsigned __int128 product;

    memcpy(halves, client->bytes, sizeof(halves));
    product = (unsigned __int128)(halves[0] ^ quota->secret[0]) * (halves[1] ^ quota->secret[1]);
    product = (unsigned __int128)((uint64_t)product ^ (uint64_t)(product >> 64)) *
              UINT64_C(0x9E3779B97F4A7C15);
    return (unsigned)(product >> 64) ^ (unsigned)product;
}

static struct entry *find(struct cf__quota *quota, const struct cf__address *client, unsigned hash)
{
    struct entry *entry;

    HASH_FIND_BYHASHVALUE(hh, quota->entries, client, sizeof(*client), hash, entry);
    return entry;
}

/* NULL: no memory. */
static struct entry *add(struct cf__quota *quota, const struct cf__address *client, unsigned hash)
{
    struct entry *entry = calloc(1, sizeof(*entry));

    if (entry == NULL) {
        return NULL;
    }
    entry->client = *client;
    HASH_ADD_BYHASHVALUE(hh, quota->entries, client, sizeof(entry->client), hash, entry);
    if (entry->hh.tbl == NULL) {
        free(entry);
        return NULL;
    }
    return entry;
}

/* Life cycle */

enum cf_code cf__quota_new(size_t each_max, struct cf__quota **out, struct cf_err *err)
{
    struct cf__quota *quota = calloc(1, sizeof(*quota));

    if (quota == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a table of clients");
    }
    if (getrandom(quota->secret, sizeof(quota->secret), 0) != sizeof(quota->secret)) {
        free(quota);
        return cf_err_set(err, CF_EIO, "no random numbers"); /* Untested: the kernel has some. */
    }
    quota->each_max = each_max;
    (void)pthread_mutex_init(&quota->mu, NULL);
    *out = quota;
    return CF_OK;
}

void cf__quota_free(struct cf__quota *quota)
{
    if (quota == NULL) {
        return;
    }
    CF_ASSERT(quota->entries == NULL);
    (void)pthread_mutex_destroy(&quota->mu);
    free(quota);
}

/* Operations */

enum cf__quota_state cf__quota_take(struct cf__quota *quota, const struct cf__address *client)
{
    unsigned hash = hash_of(quota, client);
    struct entry *entry;
    size_t n = 0;

    (void)pthread_mutex_lock(&quota->mu);
    entry = find(quota, client, hash);
    if (entry == NULL) {
        entry = add(quota, client, hash);
    }
    if (entry != NULL) {
        n = ++entry->n;
    }
    (void)pthread_mutex_unlock(&quota->mu);
    if (n == 0) {
        return CF__QUOTA_UNCOUNTED;
    }
    if (n <= quota->each_max) {
        return CF__QUOTA_WITHIN;
    }
    return n - quota->each_max <= quota->each_max ? CF__QUOTA_OVER : CF__QUOTA_FAR_OVER;
}

void cf__quota_give(struct cf__quota *quota, const struct cf__address *client)
{
    unsigned hash = hash_of(quota, client);
    struct entry *entry;

    (void)pthread_mutex_lock(&quota->mu);
    entry = find(quota, client, hash);
    CF_ASSERT(entry != NULL);
    if (--entry->n == 0) {
        HASH_DELETE(hh, quota->entries, entry);
        free(entry);
    }
    (void)pthread_mutex_unlock(&quota->mu);
}

/* Queries */

size_t cf__quota_clients(struct cf__quota *quota)
{
    size_t n;

    (void)pthread_mutex_lock(&quota->mu);
    n = HASH_COUNT(quota->entries);
    (void)pthread_mutex_unlock(&quota->mu);
    return n;
}
