/* SPDX-License-Identifier: MIT */
/* The connections of one loop: who has them, who waits for them, and when new ones are made.
 *
 * Everything here runs on the loop's thread and needs no lock. Contexts end on any thread, though:
 * so a connection is handed to a waiter by claiming its wait, and one whose context was first is
 * passed over. Its connection goes to the next.
 *
 * A query never connects: it waits in line, and a fiber of the pool connects for whoever is first
 * by then. So a connection that takes longer than the query's deadline is there for the next one.
 * Some connections, one at least, are kept open whatever happens: the fiber that failed to make one
 * tries again, with growing waits, and while there is none queries are refused at once with its
 * error. It does so too while others are open but all in use, and somebody waits.
 *
 * A slot is counted from the first attempt to connect until its socket is closed, so the pool never
 * has more connections than slots, also while cancels are under way. */
#include "curfew/pg/pg_private.h"

#include <stdlib.h>

#include <curfew/clock.h>

#include "curfew/core/err_private.h"

/* Constants and types */

/* A new connection costs some 15 ms of processor, most of it the server's, which forks and proves a
 * password. A pool of 16 that filled all at once took two cores for 200 ms, and held up the
 * requests that it was filled for by 20 to 30 ms. So a loop makes one at a time, as PgBouncer does,
 * and rests for twice as long as one took, up to this. */
#define REST_MAX_NS (50 * CF_MS)

/* How far lifetimes differ, in parts of one: what was made together is not made anew together. */
#define LIFETIME_SPREAD 0.2

/* How often idle and old connections are looked for. */
#define HOUSEKEEPING_NS CF_SECOND

struct waiter {
    struct cf__list node;
    struct cf__wait wait;
    struct cf__pg_slot *slot; /* Handed over; valid if the wait ended READY. */
    struct cf_err err;        /* Why not; valid if it ended CLOSED. */
};

/* Which moves there are; see the drawing in the header. */
static const unsigned allowed[CF__PG_STATES] = {
    [CF__PG_EMPTY] = 1U << CF__PG_OPENING,
    [CF__PG_OPENING] = 1U << CF__PG_BUSY | 1U << CF__PG_EMPTY,
    [CF__PG_IDLE] = 1U << CF__PG_BUSY | 1U << CF__PG_EMPTY,
    [CF__PG_BUSY] = 1U << CF__PG_IDLE | 1U << CF__PG_CANCELING | 1U << CF__PG_EMPTY,
    [CF__PG_CANCELING] = 1U << CF__PG_BUSY | 1U << CF__PG_EMPTY,
};

/* Internal helpers */

static size_t count(const struct cf__pg_pool *pool, enum cf__pg_slot_state state)
{
    return atomic_load_explicit(&pool->count[state], memory_order_relaxed);
}

/* Connections that are open. */
static size_t n_open(const struct cf__pg_pool *pool)
{
    return count(pool, CF__PG_IDLE) + count(pool, CF__PG_BUSY) + count(pool, CF__PG_CANCELING);
}

static void set_waiting(struct cf__pg_pool *pool, size_t n)
{
    pool->n_waiters = n;
    atomic_store_explicit(&pool->waiting, n, memory_order_relaxed); /* For cf_pg_stats(). */
}

static void report(struct cf__pg_pool *pool, enum cf_pg_event_kind kind, int backend_pid,
                   const struct cf_err *err, int64_t retry_ns)
{
    struct cf_pg_event event = {.kind = kind, .backend_pid = backend_pid, .retry_ns = retry_ns};

    if (err != NULL) {
        event.err = *err;
    }
    cf__pg_report(pool->pg, &event);
}

/* Internal helpers: lending */

/* Lend to the first waiter whose context lives. */
static bool lend_to_waiter(struct cf__pg_slot *slot)
{
    struct cf__pg_pool *pool = slot->pool;
    struct cf__list *node;

    while ((node = cf__list_pop(&pool->waiters)) != NULL) {
        struct waiter *waiter = CF__CONTAINER(node, struct waiter, node);

        set_waiting(pool, pool->n_waiters - 1);
        waiter->slot = slot;
        if (cf__wait_end(&waiter->wait, CF__WAIT_READY)) {
            return true;
        }
    }
    return false;
}

/* Tell everybody in line that there is no connection to be had. */
static void refuse_waiters(struct cf__pg_pool *pool, const struct cf_err *why)
{
    struct cf__list *node;

    while ((node = cf__list_pop(&pool->waiters)) != NULL) {
        struct waiter *waiter = CF__CONTAINER(node, struct waiter, node);

        set_waiting(pool, pool->n_waiters - 1);
        waiter->err = *why;
        (void)cf__wait_end(&waiter->wait, CF__WAIT_CLOSED); /* False: it has left already. */
    }
}

/* The server ended the session of an idle connection, or sent something that was not asked for. */
static void on_idle_input(void *arg)
{
    struct cf__pg_slot *slot = arg;

    if (slot->state == CF__PG_IDLE && !cf__pg_conn_alive(slot->conn)) {
        struct cf_err err;

        (void)cf__pg_err_from_conn(slot->conn->pq, "idle connection", &err);
        cf__pg_pool_discard(slot, CF_PG_EVENT_LOST, &err);
    }
}

/* Internal helpers: connecting */

static void note_failure(struct cf__pg_pool *pool, const struct cf_err *err)
{
    struct cf_pg *pg = pool->pg;
    int64_t backoff_ns =
        cf__pg_backoff_ns(&pool->random, pool->failures, pg->options.backoff_max_ns);

    pool->failures++;
    pool->open_at_ns = cf_now_ns() + backoff_ns;
    pool->last_err = *err;

    (void)pthread_mutex_lock(&pg->mu);
    pg->last_err = *err;
    pg->retry_at_ns = pool->open_at_ns;
    (void)pthread_mutex_unlock(&pg->mu);
    report(pool, CF_PG_EVENT_CONNECT_FAILED, 0, err, backoff_ns);
}

/* A connection that the control connection can do nothing for; said if it should have been used. */
static void report_pooler(struct cf__pg_slot *slot)
{
    struct cf_err err = {.code = CF_OK};

    if (slot->pool->pg->options.cancel == CF_PG_CANCEL_CONTROL) {
        (void)cf_err_set(&err, CF_EINVAL,
                         "a pooler hides the backend from the control connection: to cancel will "
                         "close this one");
    }
    report(slot->pool, CF_PG_EVENT_CONNECTED, slot->conn->backend_pid, &err, 0);
}

static void note_success(struct cf__pg_slot *slot)
{
    struct cf__pg_pool *pool = slot->pool;
    double spread = 1 - LIFETIME_SPREAD / 2 + LIFETIME_SPREAD * cf__pg_jitter(&pool->random);

    pool->failures = 0;
    slot->expires_ns = cf_now_ns() + (int64_t)((double)pool->pg->options.lifetime_ns * spread);
    slot->conn->on_idle_input = on_idle_input;
    slot->conn->arg = slot;
    (void)atomic_fetch_add_explicit(&pool->opened, 1, memory_order_relaxed);
    if (!slot->conn->is_direct) {
        report_pooler(slot);
        return;
    }
    report(pool, CF_PG_EVENT_CONNECTED, slot->conn->backend_pid, NULL, 0);
    if (pool->pg->control != NULL) {
        cf__pg_control_want(pool->pg->control);
    }
}

/* After an attempt that took so long: when the next may begin. */
static void rest(struct cf__pg_pool *pool, int64_t took_ns)
{
    pool->open_at_ns = cf_now_ns() + (2 * took_ns < REST_MAX_NS ? 2 * took_ns : REST_MAX_NS);
}

/* One attempt, bounded. */
static enum cf_code connect_once(struct cf__pg_slot *slot, struct cf_err *err)
{
    struct cf__pg_pool *pool = slot->pool;
    struct cf_ctx *ctx;
    enum cf_code code;

    code = cf_ctx_with_timeout(pool->ctx, pool->pg->options.connect_timeout_ns, &ctx, err);
    if (code != CF_OK) {
        return code;
    }
    code = cf__pg_conn_open(ctx, pool->pg, pool->failures, &pool->next_step_ns, &slot->conn, err);
    cf_ctx_free(ctx);
    return code;
}

static void run_opener(void *arg);

/* Start to fill one empty slot, if there is one and it is wise. */
static void open_one(struct cf__pg_pool *pool)
{
    struct cf__pg_slot *slot;
    struct cf_err err;

    if (pool->closing || cf__list_empty(&pool->empty) || count(pool, CF__PG_OPENING) > 0) {
        return;
    }
    slot = CF__CONTAINER(pool->empty.next, struct cf__pg_slot, node);
    cf__pg_slot_move(slot, CF__PG_OPENING);
    if (cf__pg_pool_spawn(pool, run_opener, slot, &err) != CF_OK) {
        cf__pg_slot_move(slot, CF__PG_EMPTY);
        if (n_open(pool) == 0) {
            refuse_waiters(pool, &err);
        }
    }
}

/* Whether another connection is wanted: to have those that are kept, or for somebody who waits. */
static bool is_wanted(const struct cf__pg_pool *pool)
{
    return n_open(pool) < pool->n_kept || pool->n_waiters > 0;
}

static void open_if_wanted(struct cf__pg_pool *pool)
{
    if (is_wanted(pool)) {
        open_one(pool);
    }
}

/* The fiber that fills an empty slot; it is the only one. It waits for its time, and where attempts
 * fail goes on until it succeeds, is wanted no more, or the pool closes. */
static void run_opener(void *arg)
{
    struct cf__pg_slot *slot = arg;
    struct cf__pg_pool *pool = slot->pool;
    enum cf_code code = CF_ECANCELED;
    struct cf_err err;

    while (cf__pg_pause_until(pool->ctx, pool->open_at_ns) && is_wanted(pool)) {
        int64_t since_ns = cf_now_ns();

        code = connect_once(slot, &err);
        if (code == CF_OK) {
            rest(pool, cf_now_ns() - since_ns);
            break;
        }
        if (cf_ctx_err(pool->ctx) != CF_OK) {
            break;
        }
        note_failure(pool, &err);
        if (n_open(pool) == 0) {
            (void)cf_err_recode(&err, CF_EUNAVAIL);
            refuse_waiters(pool, &err);
        }
    }
    if (code == CF_OK) {
        note_success(slot);
        cf__pg_slot_move(slot, CF__PG_BUSY);
        cf__pg_pool_release(slot);
        open_if_wanted(pool);
    } else {
        cf__pg_slot_move(slot, CF__PG_EMPTY);
    }
    cf__pg_pool_fiber_end(pool);
}

/* Internal helpers: housekeeping */

/* Whether an idle connection is to go: too old, or idle too long and none of those
 * that are kept. */
static bool is_due(const struct cf__pg_slot *slot, int64_t now_ns)
{
    const struct cf__pg_pool *pool = slot->pool;

    return now_ns >= slot->expires_ns ||
           (n_open(pool) > pool->n_kept &&
            now_ns - slot->idle_since_ns >= pool->pg->options.idle_timeout_ns);
}

static void run_housekeeper(void *arg)
{
    struct cf__pg_pool *pool = arg;

    while (cf__pg_pause_until(pool->ctx, cf_now_ns() + HOUSEKEEPING_NS)) {
        int64_t now_ns = cf_now_ns();
        struct cf__list *node = pool->idle.next;

        while (node != &pool->idle) {
            struct cf__pg_slot *slot = CF__CONTAINER(node, struct cf__pg_slot, node);

            node = node->next; /* Discarding moves the slot to another list. */
            if (is_due(slot, now_ns)) {
                cf__pg_pool_discard(slot, CF_PG_EVENT_CLOSED, NULL);
            }
        }
        open_if_wanted(pool); /* When it was wanted there may have been no memory for it. */
    }
    cf__pg_pool_fiber_end(pool);
}

/* Life cycle */

enum cf_code cf__pg_pool_init(struct cf__pg_pool *pool, struct cf_pg *pg, struct cf_loop *loop,
                              size_t n_slots, size_t n_kept, struct cf_err *err)
{
    enum cf_code code;

    cf__list_init(&pool->empty);
    cf__list_init(&pool->idle);
    cf__list_init(&pool->waiters);
    pool->pg = pg;
    pool->loop = loop;
    cf__pg_jitter_init(&pool->random);
    pool->slots = calloc(n_slots, sizeof(*pool->slots));
    if (pool->slots == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a pool of %zu connections", n_slots);
    }
    pool->closer = cf__loop_reserve(loop);
    if (pool->closer == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory to close a pool");
    }
    code = cf_ctx_with_cancel(cf_ctx_background(), &pool->ctx, err);
    if (code == CF_OK) {
        code = cf_ctx_with_cancel(cf_ctx_background(), &pool->cancel_ctx, err);
    }
    if (code != CF_OK) {
        return code;
    }
    pool->n_kept = n_kept > 0 ? n_kept : 1;
    for (size_t i = 0; i < n_slots; i++) {
        pool->slots[i].pool = pool;
        cf__list_push(&pool->empty, &pool->slots[i].node);
    }
    atomic_store(&pool->count[CF__PG_EMPTY], n_slots);
    return CF_OK;
}

/* Without its housekeeper a pool that could not connect now never would unless somebody asks. */
enum cf_code cf__pg_pool_start(struct cf__pg_pool *pool, struct cf_err *err)
{
    enum cf_code code = cf__pg_pool_spawn(pool, run_housekeeper, pool, err);

    if (code == CF_OK) {
        open_one(pool);
    }
    return code;
}

static void wait_for_fibers(struct cf__pg_pool *pool, struct cf_ctx *ctx)
{
    struct cf__wait end;

    if (pool->fibers > 0) {
        cf__wait_init(&end);
        pool->end = &end;
        (void)cf__wait_park(ctx, &end);
        pool->end = NULL;
    }
}

/* Without memory for that instant, cancels end under the bound that each has. */
void cf__pg_pool_close(struct cf__pg_pool *pool, int64_t by_ns)
{
    struct cf__list *node = pool->idle.next;
    struct cf_ctx *patience = NULL;

    CF_ASSERT(pool->n_waiters == 0);
    CF_ASSERT(count(pool, CF__PG_BUSY) == 0);
    pool->closing = true;
    cf_ctx_cancel_cause(pool->ctx, CF_REASON_SHUTDOWN, NULL);
    while (node != &pool->idle) {
        struct cf__pg_slot *slot = CF__CONTAINER(node, struct cf__pg_slot, node);

        node = node->next;
        cf__pg_pool_discard(slot, CF_PG_EVENT_CLOSED, NULL);
    }
    if (cf_ctx_with_deadline(cf_ctx_background(), by_ns, &patience, NULL) == CF_OK) {
        wait_for_fibers(pool, patience);
        cf_ctx_free(patience);
        cf_ctx_cancel_cause(pool->cancel_ctx, CF_REASON_SHUTDOWN, NULL);
    }
    wait_for_fibers(pool, NULL); /* Each of them is bounded. */
}

void cf__pg_pool_fini(struct cf__pg_pool *pool)
{
    cf__loop_unreserve(pool->closer); /* If it was never started. */
    cf_ctx_free(pool->cancel_ctx);
    cf_ctx_free(pool->ctx);
    free(pool->slots);
}

/* Operations */

enum cf_code cf__pg_pool_spawn(struct cf__pg_pool *pool, cf_fiber_fn fn, void *arg,
                               struct cf_err *err)
{
    enum cf_code code = cf_loop_spawn(pool->loop, fn, arg, err);

    if (code == CF_OK) {
        pool->fibers++;
    }
    return code;
}

void cf__pg_pool_fiber_end(struct cf__pg_pool *pool)
{
    pool->fibers--;
    if (pool->fibers == 0 && pool->end != NULL) {
        (void)cf__wait_end(pool->end, CF__WAIT_READY); /* Nobody else ends it. */
    }
}

void cf__pg_slot_move(struct cf__pg_slot *slot, enum cf__pg_slot_state state)
{
    struct cf__pg_pool *pool = slot->pool;

    CF_ASSERT((allowed[slot->state] & 1U << state) != 0);
    (void)atomic_fetch_sub_explicit(&pool->count[slot->state], 1, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&pool->count[state], 1, memory_order_relaxed);
    slot->state = state;
    if (slot->node.next != NULL) {
        cf__list_unlink(&slot->node);
    }
    if (state == CF__PG_EMPTY) {
        cf__list_push(&pool->empty, &slot->node);
    } else if (state == CF__PG_IDLE) {
        slot->idle_since_ns = cf_now_ns();
        cf__list_push(pool->idle.next, &slot->node); /* First: its backend is warm. */
    }
}

enum cf_code cf__pg_pool_acquire(struct cf_ctx *ctx, struct cf__pg_pool *pool,
                                 struct cf__pg_slot **out, struct cf_err *err)
{
    struct waiter waiter;

    while (!cf__list_empty(&pool->idle)) {
        struct cf__pg_slot *slot = CF__CONTAINER(pool->idle.next, struct cf__pg_slot, node);

        if (cf__pg_conn_alive(slot->conn)) {
            cf__pg_slot_move(slot, CF__PG_BUSY);
            *out = slot;
            return CF_OK;
        }
        on_idle_input(slot);
    }
    if (n_open(pool) == 0 && pool->failures > 0 && cf_now_ns() < pool->open_at_ns) {
        (void)cf__err_give(err, &pool->last_err);
        (void)cf_err_recode(err, CF_EUNAVAIL);
        return cf_err_phase(err, CF_EUNAVAIL, "connect");
    }
    if (pool->n_waiters >= pool->pg->options.waiters_max) {
        (void)cf_err_set(err, CF_ELIMIT, "%zu queries wait for a connection already",
                         pool->n_waiters);
        return cf_err_phase(err, CF_ELIMIT, "pool");
    }
    cf__wait_init(&waiter.wait);
    cf__list_push(&pool->waiters, &waiter.node);
    set_waiting(pool, pool->n_waiters + 1);
    open_if_wanted(pool);
    switch (cf__wait_park(ctx, &waiter.wait)) {
    case CF__WAIT_READY:
        if (cf_ctx_err(ctx) != CF_OK) {
            cf__pg_pool_release(waiter.slot); /* It ended between the lending and now. */
            break;
        }
        *out = waiter.slot;
        return CF_OK;
    case CF__WAIT_CLOSED:
        return cf_err_phase(err, cf__err_give(err, &waiter.err), "connect");
    case CF__WAIT_CTX_DONE:
    case CF__WAIT_PENDING:
        break;
    }
    if (!cf__list_empty(&waiter.node)) { /* Else somebody who wanted to lend took it out. */
        cf__list_unlink(&waiter.node);
        set_waiting(pool, pool->n_waiters - 1);
    }
    return cf_err_phase(err, cf_ctx_check(ctx, err), "pool");
}

void cf__pg_pool_release(struct cf__pg_slot *slot)
{
    struct cf__pg_pool *pool = slot->pool;

    CF_ASSERT(slot->conn->asked == NULL); /* Or a cancel could hit who is lent it next. */
    if (slot->conn->broken || PQstatus(slot->conn->pq) == CONNECTION_BAD) {
        struct cf_err err;

        (void)cf__pg_err_from_conn(slot->conn->pq, "connection", &err);
        cf__pg_pool_discard(slot, CF_PG_EVENT_LOST, &err);
        return;
    }
    if (pool->closing || slot->conn->is_swollen || cf_now_ns() >= slot->expires_ns) {
        cf__pg_pool_discard(slot, CF_PG_EVENT_CLOSED, NULL);
        return;
    }
    if (slot->state != CF__PG_BUSY) {
        cf__pg_slot_move(slot, CF__PG_BUSY);
    }
    if (!lend_to_waiter(slot)) {
        cf__pg_slot_move(slot, CF__PG_IDLE);
    }
}

void cf__pg_pool_discard(struct cf__pg_slot *slot, enum cf_pg_event_kind kind,
                         const struct cf_err *why)
{
    struct cf__pg_pool *pool = slot->pool;
    int backend_pid = slot->conn->backend_pid;

    cf__pg_conn_close(slot->conn);
    slot->conn = NULL;
    cf__pg_slot_move(slot, CF__PG_EMPTY);
    report(pool, kind, backend_pid, why, 0);
    open_if_wanted(pool);
}
