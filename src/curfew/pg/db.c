/* SPDX-License-Identifier: MIT */
/* The database: options, lanes, one pool a loop, the control connection. See pg.h. */
#include "curfew/pg/pg_private.h"

#include <stdlib.h>
#include <string.h>

#include <curfew/clock.h>
#include <curfew/lane.h>

/* Constants */

/* Connections are few, and their attempts spaced. */
#define RESOLVE_THREADS 2
#define RESOLVE_QUEUE 256

/* How long closing waits for cancels, which are to leave nothing behind on the server. */
#define CLOSE_NS (CF_SECOND / 2)

/* What an option of 0 stands for: see pg.h. */
#define POOL_DEFAULT 16
#define WAITERS_DEFAULT 10000
#define CANCELS_DEFAULT 8
#define CONNECT_TIMEOUT_DEFAULT_NS (5 * CF_SECOND)
#define CANCEL_TIMEOUT_DEFAULT_NS (2 * CF_SECOND)
#define COMMIT_TIMEOUT_DEFAULT_NS (5 * CF_SECOND)
#define STATEMENT_TIMEOUT_DEFAULT_NS (65 * CF_SECOND)
#define IDLE_TIMEOUT_DEFAULT_NS (600 * CF_SECOND)
#define LIFETIME_DEFAULT_NS (3600 * CF_SECOND)
#define BACKOFF_MAX_DEFAULT_NS (5 * CF_SECOND)

/* Internal helpers */

static char *copy(const char *text, const char *fallback)
{
    return strdup(text != NULL && text[0] != '\0' ? text : fallback);
}

static void fill_defaults(struct cf_pg_options *options)
{
    const struct {
        int64_t *field;
        int64_t value;
    } durations[] = {
        {&options->connect_timeout_ns, CONNECT_TIMEOUT_DEFAULT_NS},
        {&options->cancel_timeout_ns, CANCEL_TIMEOUT_DEFAULT_NS},
        {&options->commit_timeout_ns, COMMIT_TIMEOUT_DEFAULT_NS},
        {&options->statement_timeout_ns, STATEMENT_TIMEOUT_DEFAULT_NS},
        {&options->idle_timeout_ns, IDLE_TIMEOUT_DEFAULT_NS},
        {&options->lifetime_ns, LIFETIME_DEFAULT_NS},
        {&options->backoff_max_ns, BACKOFF_MAX_DEFAULT_NS},
    };

    for (size_t i = 0; i < sizeof(durations) / sizeof(durations[0]); i++) {
        if (*durations[i].field == 0) {
            *durations[i].field = durations[i].value;
        }
    }
    options->pool_max = options->pool_max > 0 ? options->pool_max : POOL_DEFAULT;
    options->waiters_max = options->waiters_max > 0 ? options->waiters_max : WAITERS_DEFAULT;
    options->cancels_max = options->cancels_max > 0 ? options->cancels_max : CANCELS_DEFAULT;
}

static enum cf_code take_options(struct cf_pg *pg, const struct cf_pg_options *options,
                                 size_t n_loops, struct cf_err *err)
{
    pg->options = *options;
    pg->options.url = copy(options->url, "");
    pg->options.application_name = copy(options->application_name, "curfew");
    if (pg->options.url == NULL || pg->options.application_name == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a database");
    }
    fill_defaults(&pg->options);
    if (pg->options.pool_min > pg->options.pool_max) {
        return cf_err_set(err, CF_EINVAL, "a pool of %zu connections cannot keep %zu of them",
                          pg->options.pool_max, pg->options.pool_min);
    }
    if (!cf_pg_can_cancel(pg->options.cancel)) {
        return cf_err_set(err, CF_EINVAL,
                          "to cancel by PQcancelPoll() takes libpq 17, and this is %d",
                          PQlibVersion() / 10000);
    }
    if (n_loops == 0 || pg->options.pool_max < n_loops) {
        return cf_err_set(err, CF_EINVAL, "a pool of %zu connections is too small for %zu loops",
                          pg->options.pool_max, n_loops);
    }
    return cf_pg_url_check(pg->options.url, err);
}

/* What the i-th of n loops has of a total. The remainder goes to the first. */
static size_t share_of(size_t total, size_t n, size_t i)
{
    return total / n + (i < total % n);
}

static enum cf_code make_pools(struct cf_pg *pg, struct cf_loop *const *loops, size_t n_loops,
                               struct cf_err *err)
{
    pg->pools = calloc(n_loops, sizeof(*pg->pools));
    if (pg->pools == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a database");
    }
    while (pg->n_pools < n_loops) {
        size_t share = share_of(pg->options.pool_max, n_loops, pg->n_pools);
        size_t kept = share_of(pg->options.pool_min, n_loops, pg->n_pools);
        enum cf_code code;

        pg->n_pools++; /* Also if it fails: half-made pools are freed. */
        code = cf__pg_pool_init(&pg->pools[pg->n_pools - 1], pg, loops[pg->n_pools - 1], share,
                                kept, err);
        cf__pg_budget_init(&pg->pools[pg->n_pools - 1].budget,
                           share_of(pg->options.cancels_max, n_loops, pg->n_pools - 1));
        if (code != CF_OK) {
            return code;
        }
    }
    return CF_OK;
}

/* Everything that runs, last, so that nothing has to be stopped when the rest fails. */
static enum cf_code start(struct cf_pg *pg, struct cf_err *err)
{
    /* As many as there are permits, so that a job waits only for a thread that hangs
     * in an old one. */
    size_t cancels = pg->options.cancels_max > pg->n_pools ? pg->options.cancels_max : pg->n_pools;
    enum cf_code code;

    code = cf__pg_openssl_prepare(err);
    if (code == CF_OK) {
        code = cf_lane_new("cf-resolve", RESOLVE_THREADS, RESOLVE_QUEUE, &pg->resolve_lane, err);
    }
    if (code == CF_OK) {
        code = cf_lane_new("cf-cancel", cancels, cancels, &pg->cancel_lane, err);
    }
    if (code == CF_OK &&
        (pg->options.cancel == CF_PG_CANCEL_AUTO || pg->options.cancel == CF_PG_CANCEL_CONTROL)) {
        code = cf__pg_control_new(pg, pg->pools[0].loop, &pg->control, err);
    }
    return code;
}

static enum cf_code start_pool(void *arg, struct cf_err *err)
{
    return cf__pg_pool_start(arg, err);
}

/* The control connection lives on the first pool's loop. */
static void run_close(void *arg)
{
    struct cf__pg_pool *pool = arg;
    struct cf_pg *pg = pool->pg;

    cf__pg_pool_close(pool, pg->close_by_ns);
    if (pool == &pg->pools[0] && pg->control != NULL) {
        cf__pg_control_stop(pg->control);
    }
}

/* There is no way on without: what is to be freed is in use. */
static void close_pool(struct cf__pg_pool *pool)
{
    struct cf__fiber *closer = pool->closer;

    pool->closer = NULL;
    cf__loop_call_reserved(pool->loop, closer, run_close, pool);
}

static void free_parts(struct cf_pg *pg)
{
    for (size_t i = 0; i < pg->n_pools; i++) {
        cf__pg_pool_fini(&pg->pools[i]);
    }
    free(pg->pools);
    cf_lane_free(pg->resolve_lane);
    cf_lane_free(pg->cancel_lane);
    (void)pthread_mutex_destroy(&pg->mu);
    free((char *)(uintptr_t)pg->options.url);
    free((char *)(uintptr_t)pg->options.application_name);
    free(pg);
}

/* Life cycle */

enum cf_code cf_pg_new(const struct cf_pg_options *options, struct cf_loop *const *loops,
                       size_t n_loops, struct cf_pg **out, struct cf_err *err)
{
    struct cf_pg *pg = calloc(1, sizeof(*pg));
    enum cf_code code;

    if (pg == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a database");
    }
    (void)pthread_mutex_init(&pg->mu, NULL);
    code = take_options(pg, options, n_loops, err);
    if (code == CF_OK) {
        code = make_pools(pg, loops, n_loops, err);
    }
    if (code == CF_OK) {
        code = start(pg, err);
    }
    if (code != CF_OK) {
        free_parts(pg);
        return code;
    }
    for (size_t i = 0; i < n_loops && code == CF_OK; i++) {
        code = cf__loop_call_code(pg->pools[i].loop, start_pool, &pg->pools[i], err);
    }
    if (code != CF_OK) {
        cf_pg_free(pg);
        return code;
    }
    *out = pg;
    return CF_OK;
}

void cf_pg_free(struct cf_pg *pg)
{
    if (pg == NULL) {
        return;
    }
    pg->close_by_ns = cf_now_ns() + CLOSE_NS;
    /* The first pool last, with the control connection: the others' cancels need it. */
    for (size_t i = pg->n_pools; i > 0; i--) {
        close_pool(&pg->pools[i - 1]);
    }
    cf__pg_control_free(pg->control);
    free_parts(pg);
}

/* Operations */

void cf__pg_report(struct cf_pg *pg, const struct cf_pg_event *event)
{
    if (pg->options.on_event != NULL) {
        pg->options.on_event(pg->options.arg, event);
    }
}

/* Queries */

enum cf_code cf_pg_ready(struct cf_pg *pg, struct cf_err *err)
{
    enum cf_code code;

    for (size_t i = 0; i < pg->n_pools; i++) {
        struct cf__pg_pool *pool = &pg->pools[i];

        for (int state = CF__PG_IDLE; state < CF__PG_STATES; state++) {
            if (atomic_load_explicit(&pool->count[state], memory_order_relaxed) > 0) {
                return CF_OK;
            }
        }
    }
    (void)pthread_mutex_lock(&pg->mu);
    if (pg->last_err.code != CF_OK) {
        code = cf_err_set(err, CF_EUNAVAIL, "%s", pg->last_err.msg);
    } else {
        code = cf_err_set(err, CF_EUNAVAIL, "connecting to PostgreSQL");
    }
    (void)pthread_mutex_unlock(&pg->mu);
    return code;
}

int64_t cf_pg_retry_ns(struct cf_pg *pg)
{
    int64_t now_ns = cf_now_ns();
    int64_t at_ns;

    (void)pthread_mutex_lock(&pg->mu);
    at_ns = pg->retry_at_ns;
    (void)pthread_mutex_unlock(&pg->mu);
    return at_ns > now_ns ? at_ns - now_ns : 0;
}

void cf_pg_stats(struct cf_pg *pg, struct cf_pg_stats *out)
{
    struct cf_pg_stats sum = {.pool_max = pg->options.pool_max};

    /* Relaxed throughout: each figure is read at its own instant, as the header says. */
    for (size_t i = 0; i < pg->n_pools; i++) {
        struct cf__pg_pool *pool = &pg->pools[i];
        memory_order relaxed = memory_order_relaxed;

        sum.idle += atomic_load_explicit(&pool->count[CF__PG_IDLE], relaxed);
        sum.busy += atomic_load_explicit(&pool->count[CF__PG_BUSY], relaxed);
        sum.canceling += atomic_load_explicit(&pool->count[CF__PG_CANCELING], relaxed);
        sum.opening += atomic_load_explicit(&pool->count[CF__PG_OPENING], relaxed);
        sum.waiting += atomic_load_explicit(&pool->waiting, relaxed);
        sum.opened += atomic_load_explicit(&pool->opened, relaxed);
        sum.queries += atomic_load_explicit(&pool->queries, relaxed);
        for (int j = 0; j < CF_PG_OUTCOME_COUNT; j++) {
            sum.cancels[j] += atomic_load_explicit(&pool->cancels[j], relaxed);
        }
    }
    *out = sum;
}

const char *cf_pg_outcome_name(enum cf_pg_outcome outcome)
{
    switch (outcome) {
#define OUTCOME_NAME(symbol, name)                                                                 \
    case symbol:                                                                                   \
        return name;
        CF_PG_OUTCOMES(OUTCOME_NAME)
#undef OUTCOME_NAME
    case CF_PG_OUTCOME_COUNT:
        break;
    }
    return "unknown";
}

const char *cf_pg_event_name(enum cf_pg_event_kind kind)
{
    switch (kind) {
#define EVENT_NAME(symbol, name)                                                                   \
    case symbol:                                                                                   \
        return name;
        CF_PG_EVENTS(EVENT_NAME)
#undef EVENT_NAME
    }
    return "unknown";
}
