/* SPDX-License-Identifier: MIT */
/* Channels: see chan.h for the contract, Go's for the model; chan_select.c has the select.
 *
 * A ring of elements, a queue of receivers and one of senders under one lock, held for a few
 * instructions and a copy. While a receiver waits the ring is empty, while a sender waits it is
 * full, so that one who comes either finds a partner, or room, or waits.
 *
 * Who finds a partner claims its wait first, then copies the element straight to or from the frame
 * of who waits, and wakes it last: a claim that is lost to the partner's context has copied
 * nothing, and one that is won keeps the frame in its place until the wake. So an element goes to
 * one receiver or to none, and a wait that lost is passed over. One who was woken need not take the
 * lock again, for its place has left the queue; one whose context ended takes it to leave.
 *
 * Lock order: mu, and several of them by address (select). Waking takes none of them. */
#include <curfew/chan.h>

#include <stdlib.h>
#include <string.h>

#include "curfew/sync/chan_private.h"

/* Internal helpers */

static void copy_element(const struct cf_chan *ch, void *to, const void *from)
{
    if (to != NULL && ch->element_size > 0) {
        memcpy(to, from, ch->element_size);
    }
}

static void put_last(struct cf_chan *ch, const void *value)
{
    size_t last = ch->first + ch->count;

    last -= last >= ch->capacity ? ch->capacity : 0;
    copy_element(ch, ch->ring + last * ch->element_size, value);
    ch->count++;
}

static void take_first(struct cf_chan *ch, void *out)
{
    copy_element(ch, out, ch->ring + ch->first * ch->element_size);
    ch->first = ch->first + 1 < ch->capacity ? ch->first + 1 : 0;
    ch->count--;
}

/* Take the first of a queue whose wait can still be ended, or NULL. */
static struct cf__chan_waiter *claim_first(struct cf__list *queue, enum cf__wait_outcome outcome)
{
    struct cf__list *node;

    while ((node = cf__list_pop(queue)) != NULL) {
        struct cf__chan_waiter *waiter = CF__CONTAINER(node, struct cf__chan_waiter, node);

        if (cf__wait_claim(&waiter->visit->wait, outcome)) {
            waiter->visit->index = waiter->index;
            return waiter;
        }
    }
    return NULL;
}

static enum cf_code send_now(struct cf_chan *ch, const void *value, struct cf__wait **out_woken)
{
    struct cf__chan_waiter *receiver;

    if (ch->closed) {
        return CF_ECLOSED;
    }
    receiver = claim_first(&ch->receivers, CF__WAIT_READY);
    if (receiver != NULL) {
        copy_element(ch, receiver->value, value);
        *out_woken = &receiver->visit->wait;
        return CF_OK;
    }
    if (ch->count == ch->capacity) {
        return CF_EUNAVAIL;
    }
    put_last(ch, value);
    return CF_OK;
}

/* A sender's element goes to the end of the ring, behind those that were sent before it. */
static enum cf_code recv_now(struct cf_chan *ch, void *out, struct cf__wait **out_woken)
{
    bool any = ch->count > 0;
    struct cf__chan_waiter *sender;

    if (any) {
        take_first(ch, out);
    }
    sender = claim_first(&ch->senders, CF__WAIT_READY);
    if (sender != NULL) {
        *out_woken = &sender->visit->wait;
    }
    if (any) {
        if (sender != NULL) {
            put_last(ch, sender->value);
        }
        return CF_OK;
    }
    if (sender != NULL) {
        copy_element(ch, out, sender->value);
        return CF_OK;
    }
    return ch->closed ? CF_ECLOSED : CF_EUNAVAIL;
}

static enum cf_code do_or_wait(struct cf_ctx *ctx, struct cf_chan *ch, enum cf_chan_op op,
                               void *value, struct cf_err *err)
{
    struct cf__wait *woken = NULL;
    struct cf__chan_waiter waiter;
    struct cf__chan_visit visit;
    enum cf__wait_outcome outcome;
    enum cf_code code = cf_ctx_check(ctx, err);

    if (code != CF_OK) {
        return code;
    }
    (void)pthread_mutex_lock(&ch->mu);
    code = cf__chan_do(ch, op, value, &woken);
    if (code != CF_EUNAVAIL) {
        (void)pthread_mutex_unlock(&ch->mu);
        if (woken != NULL) {
            cf__wait_wake(woken);
        }
        return cf__chan_err(code, err);
    }
    cf__wait_init(&visit.wait);
    waiter = (struct cf__chan_waiter){.visit = &visit, .value = value};
    cf__chan_enqueue(ch, op, &waiter);
    (void)pthread_mutex_unlock(&ch->mu);
    outcome = cf__wait_park(ctx, &visit.wait);
    if (outcome == CF__WAIT_CTX_DONE) {
        cf__chan_leave(ch, &waiter);
        return cf_ctx_check(ctx, err);
    }
    return cf__chan_err(outcome == CF__WAIT_READY ? CF_OK : CF_ECLOSED, err);
}

static enum cf_code try_to(struct cf_chan *ch, enum cf_chan_op op, void *value, struct cf_err *err)
{
    struct cf__wait *woken = NULL;
    enum cf_code code;

    (void)pthread_mutex_lock(&ch->mu);
    code = cf__chan_do(ch, op, value, &woken);
    (void)pthread_mutex_unlock(&ch->mu);
    if (woken != NULL) {
        cf__wait_wake(woken);
    }
    return cf__chan_err(code, err);
}

/* Claim all of a queue for their end, and collect them. */
static void end_all(struct cf__list *queue, struct cf__list *ended)
{
    struct cf__chan_waiter *waiter;

    while ((waiter = claim_first(queue, CF__WAIT_CLOSED)) != NULL) {
        cf__list_push(ended, &waiter->node);
    }
}

/* Shared with chan_select.c */

enum cf_code cf__chan_do(struct cf_chan *ch, enum cf_chan_op op, void *value,
                         struct cf__wait **out_woken)
{
    return op == CF_CHAN_SEND ? send_now(ch, value, out_woken) : recv_now(ch, value, out_woken);
}

void cf__chan_enqueue(struct cf_chan *ch, enum cf_chan_op op, struct cf__chan_waiter *waiter)
{
    cf__list_push(op == CF_CHAN_SEND ? &ch->senders : &ch->receivers, &waiter->node);
}

void cf__chan_leave(struct cf_chan *ch, struct cf__chan_waiter *waiter)
{
    (void)pthread_mutex_lock(&ch->mu);
    cf__list_unlink(&waiter->node);
    (void)pthread_mutex_unlock(&ch->mu);
}

enum cf_code cf__chan_err(enum cf_code code, struct cf_err *err)
{
    if (code == CF_ECLOSED) {
        return cf_err_set(err, code, "channel closed");
    }
    if (code == CF_EUNAVAIL) {
        return cf_err_set(err, code, "channel not ready");
    }
    return code;
}

/* Life cycle */

enum cf_code cf_chan_new(size_t element_size, size_t capacity, struct cf_chan **out,
                         struct cf_err *err)
{
    struct cf_chan *ch = NULL;
    size_t size;

    if (!__builtin_mul_overflow(element_size, capacity, &size) &&
        !__builtin_add_overflow(size, sizeof(*ch), &size)) {
        ch = malloc(size);
    }
    if (ch == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a channel of %zu elements of %zu bytes",
                          capacity, element_size);
    }
    ch->element_size = element_size;
    ch->capacity = capacity;
    (void)pthread_mutex_init(&ch->mu, NULL);
    cf__list_init(&ch->receivers);
    cf__list_init(&ch->senders);
    ch->closed = false;
    ch->first = 0;
    ch->count = 0;
    *out = ch;
    return CF_OK;
}

void cf_chan_free(struct cf_chan *ch)
{
    if (ch == NULL) {
        return;
    }
    /* Past the lock, who handed over the last element has let go of the channel. */
    (void)pthread_mutex_lock(&ch->mu);
    CF_ASSERT(cf__list_empty(&ch->receivers));
    CF_ASSERT(cf__list_empty(&ch->senders));
    (void)pthread_mutex_unlock(&ch->mu);
    (void)pthread_mutex_destroy(&ch->mu);
    free(ch);
}

/* Operations */

enum cf_code cf_chan_send(struct cf_ctx *ctx, struct cf_chan *ch, const void *value,
                          struct cf_err *err)
{
    return do_or_wait(ctx, ch, CF_CHAN_SEND, (void *)value, err);
}

enum cf_code cf_chan_recv(struct cf_ctx *ctx, struct cf_chan *ch, void *out, struct cf_err *err)
{
    return do_or_wait(ctx, ch, CF_CHAN_RECV, out, err);
}

enum cf_code cf_chan_try_send(struct cf_chan *ch, const void *value, struct cf_err *err)
{
    return try_to(ch, CF_CHAN_SEND, (void *)value, err);
}

enum cf_code cf_chan_try_recv(struct cf_chan *ch, void *out, struct cf_err *err)
{
    return try_to(ch, CF_CHAN_RECV, out, err);
}

/* The waits are ended under the lock and woken after it: a woken fiber may free the channel. */
void cf_chan_close(struct cf_chan *ch)
{
    struct cf__list ended;
    struct cf__list *node;

    cf__list_init(&ended);
    (void)pthread_mutex_lock(&ch->mu);
    CF_ASSERT(!ch->closed);
    ch->closed = true;
    end_all(&ch->receivers, &ended);
    end_all(&ch->senders, &ended);
    (void)pthread_mutex_unlock(&ch->mu);
    while ((node = cf__list_pop(&ended)) != NULL) {
        cf__wait_wake(&CF__CONTAINER(node, struct cf__chan_waiter, node)->visit->wait);
    }
}

/* Queries */

size_t cf_chan_len(struct cf_chan *ch)
{
    size_t count;

    (void)pthread_mutex_lock(&ch->mu);
    count = ch->count;
    (void)pthread_mutex_unlock(&ch->mu);
    return count;
}

size_t cf_chan_cap(const struct cf_chan *ch)
{
    return ch->capacity;
}
