/* SPDX-License-Identifier: MIT */
/* A cache that many read and few change. Get, set and delete are those of a map behind a RWMutex:
 * whoever reads takes a lock that other readers share, and gets a reference, so that what he holds
 * stays as it is while others set and delete. Beyond the map it has a bound, and can load by itself
 * what is missing: once, for all who ask. Here the tasks are threads. */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <curfew/cache.h>
#include <curfew/group.h>
#include <curfew/wait.h>

#define READERS 8
#define CHANGES 1000

static struct cf_cache *cache;
static atomic_bool changing = true;
static atomic_int torn; /* Reads of what nobody has set. */
static atomic_int loads;

static bool get(const char *key, char out[32])
{
    struct cf_value *value;

    if (!cf_cache_try_get(cache, key, &value, NULL)) {
        return false;
    }
    (void)snprintf(out, 32, "%s", (const char *)cf_value_data(value));
    cf_value_unref(value);
    return true;
}

static enum cf_code set(const char *key, const char *text, struct cf_err *err)
{
    struct cf_value *value;
    enum cf_code code = cf_value_new(text, strlen(text) + 1, &value, err);

    if (code == CF_OK) {
        code = cf_cache_put(cache, key, value, err);
        cf_value_unref(value);
    }
    return code;
}

static enum cf_code keep_reading(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    char name[32];

    (void)arg;
    while (atomic_load(&changing)) {
        if (get("user:1", name) && strcmp(name, "Ada") != 0 && strcmp(name, "Grace") != 0) {
            (void)atomic_fetch_add(&torn, 1);
        }
    }
    return cf_ctx_check(ctx, err);
}

static enum cf_code keep_changing(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    enum cf_code code = CF_OK;

    (void)ctx;
    (void)arg;
    for (int i = 0; i < CHANGES && code == CF_OK; i++) {
        code = set("user:1", i % 2 == 0 ? "Grace" : "Ada", err);
    }
    atomic_store(&changing, false);
    return code;
}

/* What the cache does not have is got from a database, say. */
static enum cf_code fetch_user(struct cf_ctx *ctx, void *arg, struct cf_value **out,
                               int64_t *ttl_ns, struct cf_err *err)
{
    enum cf_code code = cf_sleep(ctx, 50 * CF_MS, err);

    (void)arg;
    (void)ttl_ns;
    (void)atomic_fetch_add(&loads, 1);
    return code == CF_OK ? cf_value_new("Barbara", sizeof("Barbara"), out, err) : code;
}

static enum cf_code get_or_load(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    static const struct cf_cache_load load = {fetch_user, 0};
    struct cf_value *value;
    enum cf_code code = cf_cache_get(ctx, cache, "user:2", &load, arg, &value, NULL, err);

    if (code == CF_OK) {
        cf_value_unref(value);
    }
    return code;
}

/* Run `fn` on eight threads, and `other` beside them, unless it is NULL. */
static void on_threads(cf_group_fn fn, cf_group_fn other)
{
    struct cf_group *group;
    struct cf_err err;

    if (cf_group_new(cf_ctx_background(), &group, &err) != CF_OK) {
        return;
    }
    for (int i = 0; i < READERS; i++) {
        cf_group_go(group, fn, NULL);
    }
    if (other != NULL) {
        cf_group_go(group, other, NULL);
    }
    if (cf_group_wait(group, &err) != CF_OK) {
        printf("%s\n", err.msg);
    }
    cf_group_free(group);
}

int main(void)
{
    struct cf_cache_options options = {.entries_max = 1000};
    struct cf_err err;
    char name[32];

    if (cf_cache_new(cf_ctx_background(), &options, &cache, &err) != CF_OK ||
        set("user:1", "Ada", &err) != CF_OK) {
        return 1;
    }
    on_threads(keep_reading, keep_changing);
    printf("user:1 is %s, torn reads: %d\n", get("user:1", name) ? name : "nobody", torn);
    (void)cf_cache_remove(cache, "user:1");
    printf("user:1 is %s\n", get("user:1", name) ? name : "nobody");
    on_threads(get_or_load, NULL);
    printf("user:2 is %s, loaded %d time for %d who asked\n", get("user:2", name) ? name : "nobody",
           loads, READERS);
    cf_cache_stop(cache);
    cf_cache_free(cache);
    return 0;
}
