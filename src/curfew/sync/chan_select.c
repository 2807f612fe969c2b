/* SPDX-License-Identifier: MIT */
/* Select: see chan.h.
 *
 * All channels are locked, so that the choice is made at one moment: if one of the cases was ready
 * all the time, one is chosen. They are looked at in a random order, a new one each time, which
 * makes the choice fair among those that are ready. If none is, a place is taken in every queue
 * before the locks are given back, all of one wait: the first partner that claims it decides, in
 * the claim, which case is done. The other places are left afterwards, one lock at a time; whoever
 * finds one of them meanwhile fails to claim the wait and passes it over.
 *
 * Lock order: by address, each once, also if a channel is in several cases. */
#include <curfew/chan.h>

#include "curfew/sync/chan_private.h"

#include <curfew/clock.h>

/* Constants and types */

/* Indices of the cases that have a channel. */
struct orders {
    size_t count;
    unsigned char poll[CF_CHAN_CASES_MAX]; /* Random. */
    unsigned char lock[CF_CHAN_CASES_MAX]; /* By the address of the channel. */
};

_Static_assert(CF_CHAN_CASES_MAX <= 256, "an index is a byte");

/* Internal helpers */

/* A number below `bound`: xorshift32, scaled, with a state for each thread. Not for secrets. */
static uint32_t random_below(uint32_t bound)
{
    static _Thread_local uint32_t state;

    if (state == 0) {
        /* The clock alone could be the same on two threads. Odd: never 0 again. */
        state = ((uint32_t)cf_now_ns() ^ (uint32_t)((uintptr_t)&state >> 4)) | 1;
    }
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return (uint32_t)(((uint64_t)state * bound) >> 32);
}

/* Sort and shuffle at once: each case is inserted into the one, and swapped into the other. */
static void make_orders(const struct cf_chan_case *cases, size_t count, struct orders *out)
{
    CF_ASSERT(count <= CF_CHAN_CASES_MAX);
    out->count = 0;
    for (size_t i = 0; i < count; i++) {
        size_t to = out->count;
        size_t at;

        if (cases[i].ch == NULL) {
            continue;
        }
        for (; to > 0 && cases[out->lock[to - 1]].ch > cases[i].ch; to--) {
            out->lock[to] = out->lock[to - 1];
        }
        out->lock[to] = (unsigned char)i;
        at = random_below((uint32_t)out->count + 1);
        out->poll[out->count] = out->poll[at];
        out->poll[at] = (unsigned char)i;
        out->count++;
    }
}

/* Whether the i-th channel to lock is the one before it once more. */
static bool is_again(const struct cf_chan_case *cases, const struct orders *orders, size_t i)
{
    return i > 0 && cases[orders->lock[i]].ch == cases[orders->lock[i - 1]].ch;
}

static void lock_all(const struct cf_chan_case *cases, const struct orders *orders)
{
    for (size_t i = 0; i < orders->count; i++) {
        if (!is_again(cases, orders, i)) {
            (void)pthread_mutex_lock(&cases[orders->lock[i]].ch->mu);
        }
    }
}

static void unlock_all(const struct cf_chan_case *cases, const struct orders *orders)
{
    for (size_t i = orders->count; i-- > 0;) {
        if (!is_again(cases, orders, i)) {
            (void)pthread_mutex_unlock(&cases[orders->lock[i]].ch->mu);
        }
    }
}

/* Do the first case in poll order that is ready. With all locks held. */
static enum cf_code do_one(const struct cf_chan_case *cases, const struct orders *orders,
                           size_t *out_index, struct cf__wait **out_woken)
{
    for (size_t i = 0; i < orders->count; i++) {
        const struct cf_chan_case *of = &cases[orders->poll[i]];
        enum cf_code code = cf__chan_do(of->ch, of->op, of->value, out_woken);

        if (code != CF_EUNAVAIL) {
            *out_index = orders->poll[i];
            return code;
        }
    }
    return CF_EUNAVAIL;
}

/* Wait for the first case to become ready. With all locks held; returns without. A frame of its
 * own, because the places are large and most selects need none. */
__attribute__((noinline)) static enum cf_code wait_for_one(struct cf_ctx *ctx,
                                                           const struct cf_chan_case *cases,
                                                           const struct orders *orders,
                                                           size_t *out_index, struct cf_err *err)
{
    struct cf__chan_waiter places[CF_CHAN_CASES_MAX];
    struct cf__chan_visit visit;
    enum cf__wait_outcome outcome;

    cf__wait_init(&visit.wait);
    for (size_t i = 0; i < orders->count; i++) {
        size_t index = orders->poll[i]; /* Random also among places in one queue. */

        places[i] =
            (struct cf__chan_waiter){.visit = &visit, .index = index, .value = cases[index].value};
        cf__chan_enqueue(cases[index].ch, cases[index].op, &places[i]);
    }
    unlock_all(cases, orders);
    outcome = cf__wait_park(ctx, &visit.wait);
    for (size_t i = 0; i < orders->count; i++) {
        /* Who claimed a place has taken it out, and its channel may be gone: see cf_chan_free(). */
        if (outcome == CF__WAIT_CTX_DONE || orders->poll[i] != visit.index) {
            cf__chan_leave(cases[orders->poll[i]].ch, &places[i]);
        }
    }
    if (outcome == CF__WAIT_CTX_DONE) {
        return cf_ctx_check(ctx, err);
    }
    *out_index = visit.index;
    return cf__chan_err(outcome == CF__WAIT_READY ? CF_OK : CF_ECLOSED, err);
}

/* Operations */

enum cf_code cf_chan_select(struct cf_ctx *ctx, const struct cf_chan_case *cases, size_t count,
                            size_t *out_index, struct cf_err *err)
{
    struct cf__wait *woken = NULL;
    struct orders orders;
    enum cf_code code = cf_ctx_check(ctx, err);

    if (code != CF_OK) {
        return code;
    }
    make_orders(cases, count, &orders);
    lock_all(cases, &orders);
    code = do_one(cases, &orders, out_index, &woken);
    if (code == CF_EUNAVAIL) {
        return wait_for_one(ctx, cases, &orders, out_index, err);
    }
    unlock_all(cases, &orders);
    if (woken != NULL) {
        cf__wait_wake(woken);
    }
    return cf__chan_err(code, err);
}

enum cf_code cf_chan_try_select(const struct cf_chan_case *cases, size_t count, size_t *out_index,
                                struct cf_err *err)
{
    struct cf__wait *woken = NULL;
    struct orders orders;
    enum cf_code code;

    make_orders(cases, count, &orders);
    lock_all(cases, &orders);
    code = do_one(cases, &orders, out_index, &woken);
    unlock_all(cases, &orders);
    if (woken != NULL) {
        cf__wait_wake(woken);
    }
    return cf__chan_err(code, err);
}
