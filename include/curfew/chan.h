/* SPDX-License-Identifier: MIT */
/* Channels: Go's, for elements of one size, with a context for every wait.
 *
 * A channel hands copies of elements from senders to receivers. Up to `capacity` elements wait in
 * it; with capacity 0 a sender meets a receiver. Waiting callers are served first come, first
 * served, and a sender hands its element directly to a waiting receiver. cf_chan_select() waits for
 * several channels at once.
 *
 * Invariant: an element is received at most once, in the order of sending, and none is lost: a send
 * that succeeds was received or is in the channel, a send that fails was never there, and a receive
 * that fails has taken nothing, also when its success races the end of its context.
 *
 *     code = cf_chan_new(sizeof(struct row), 16, &rows, err);
 *     ...
 *     while ((code = cf_chan_recv(ctx, rows, &row, err)) == CF_OK) {
 *         print(&row);
 *     }
 *     if (code != CF_ECLOSED) { return code; }     // closed and empty: that was all
 *
 * Thread safety: every function, from any fiber of any loop and any thread; the try_ forms, close
 * and the queries also from a callback of the loop. */
#ifndef CURFEW_CHAN_H
#define CURFEW_CHAN_H

#include <curfew/base.h>
#include <curfew/ctx.h>
#include <curfew/err.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cf_chan;

/* The most cases of one select. */
#define CF_CHAN_CASES_MAX 32

enum cf_chan_op {
    CF_CHAN_SEND,
    CF_CHAN_RECV,
};

/* One of the things that a select may do. */
struct cf_chan_case {
    enum cf_chan_op op;
    struct cf_chan *ch; /* NULL: never ready, as Go's nil channel. */
    void *value;        /* SEND: the element, only read. RECV: where to store it, or NULL. */
};

/* Life cycle */

/* Make a channel of elements of `element_size` bytes (0: signals without content) that holds up to
 * `capacity` of them. All memory is allocated here.
 * Ownership: the caller owns *out, cf_chan_free(). Fails with CF_ENOMEM. */
CF_API CF_MUST enum cf_code cf_chan_new(size_t element_size, size_t capacity, struct cf_chan **out,
                                        struct cf_err *err);

/* Free the channel and drop the elements in it. No call may be waiting (asserted) or come. The
 * receiver of the last element may free it, even before the sender has returned. NULL allowed. */
CF_API void cf_chan_free(struct cf_chan *ch);

/* Operations */

/* Send a copy of *value (NULL if elements are without content).
 * Blocks: while the channel is full and no receiver waits, until `ctx` is done or it is closed.
 * Fails with CF_ECANCELED, CF_EDEADLINE, CF_ECLOSED (where Go panics): then it was not sent. */
CF_API CF_MUST enum cf_code cf_chan_send(struct cf_ctx *ctx, struct cf_chan *ch, const void *value,
                                         struct cf_err *err);

/* Receive the oldest element into *out; NULL drops it.
 * Blocks: while the channel is empty and no sender waits, until `ctx` is done or it is closed.
 * Fails with CF_ECANCELED, CF_EDEADLINE, CF_ECLOSED (closed and empty): then *out is as it was. */
CF_API CF_MUST enum cf_code cf_chan_recv(struct cf_ctx *ctx, struct cf_chan *ch, void *out,
                                         struct cf_err *err);

/* Send, or receive, if that needs no waiting. Never blocks.
 * Fails with CF_EUNAVAIL (it would have to wait), CF_ECLOSED. */
CF_API enum cf_code cf_chan_try_send(struct cf_chan *ch, const void *value, struct cf_err *err);
CF_API CF_MUST enum cf_code cf_chan_try_recv(struct cf_chan *ch, void *out, struct cf_err *err);

/* Say that nothing more will be sent. Elements in the channel can still be received; every other
 * wait, also that of a sender, ends with CF_ECLOSED. Once only (asserted), and by the sender. Never
 * blocks. */
CF_API void cf_chan_close(struct cf_chan *ch);

/* Do exactly one of `cases`: a random one of those that are ready, or the first to become ready.
 * Sets *out_index to its index, and returns what its own call would: CF_OK or CF_ECLOSED.
 * Blocks: until one is ready or `ctx` is done. At most CF_CHAN_CASES_MAX cases (asserted).
 * Fails with CF_ECANCELED, CF_EDEADLINE: then none was done, and *out_index is as it was. */
CF_API CF_MUST enum cf_code cf_chan_select(struct cf_ctx *ctx, const struct cf_chan_case *cases,
                                           size_t count, size_t *out_index, struct cf_err *err);

/* As cf_chan_select(), but only if a case is ready now: Go's select with a default. Never blocks.
 * Fails with CF_EUNAVAIL: none is ready, none was done. */
CF_API CF_MUST enum cf_code cf_chan_try_select(const struct cf_chan_case *cases, size_t count,
                                               size_t *out_index, struct cf_err *err);

/* Queries */

/* Elements in the channel (as of a moment ago: others may use it), and how many it can hold. */
CF_API size_t cf_chan_len(struct cf_chan *ch);
CF_API size_t cf_chan_cap(const struct cf_chan *ch);

#ifdef __cplusplus
}
#endif

#endif
