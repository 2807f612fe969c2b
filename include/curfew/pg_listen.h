/* SPDX-License-Identifier: MIT */
/* Notifications (LISTEN, NOTIFY): what other sessions say, on a connection of its own.
 *
 * A listener keeps one connection beside the pools, on the database's first loop, and reconnects
 * for as long as it lives, with the pools' growing waits. Notifications that are sent while there
 * is no connection are lost: so a cache that is kept up to date by notifications is emptied when
 * on_listen is called. A server that does not answer is noticed by a ping every ping_interval_ns.
 *
 * Only a primary can be listened to: a standby refuses LISTEN, and the next of the URL's hosts is
 * tried. A pooler that hides its backends is refused, because it may run the LISTEN on one backend
 * and then lend that to nobody; CF_PG_EVENT_DEAF says so.
 *
 * Invariant: after a call of on_listen, every notification of what is committed is handed out, in
 * the order of the commits, or on_listen is called again. (But libpq silently drops one that it has
 * no memory for: so cached data should not be kept for ever.)
 *
 *     static const char *const channels[] = {"prices"};
 *     struct cf_pg_listen_options options = {
 *         .channels = channels, .n_channels = 1, .on_notify = drop_one, .on_listen = drop_all};
 *     code = cf_pg_listener_new(pg, &options, &listener, err);
 *
 * Thread safety: life cycle on a plain thread; callbacks come on the database's first loop, one at
 * a time; queries on any thread. */
#ifndef CURFEW_PG_LISTEN_H
#define CURFEW_PG_LISTEN_H

#include <curfew/base.h>
#include <curfew/err.h>
#include <curfew/pg.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cf_pg_listener;

#define CF_PG_CHANNELS_MAX 16
#define CF_PG_CHANNEL_SIZE_MAX 63 /* Bytes of a name: the server's NAMEDATALEN - 1. */

struct cf_pg_listen_options {
    const char *const *channels; /* Names as they are, without quotes; copied. */
    size_t n_channels;           /* From 1 to CF_PG_CHANNELS_MAX. */
    int64_t ping_interval_ns;    /* Between pings of the server. 0: 2 s. */
    int64_t ping_timeout_ns;     /* For the answer; then the connection is closed. 0: 2 s. */

    /* Called for each notification. Both strings are borrowed for the call; without a payload it is
     * "". Must not wait. */
    void (*on_notify)(void *arg, const char *channel, const char *payload);

    /* Called whenever listening to all channels begins: first, and after each loss. Nobody knows
     * what was missed until then. Must not wait. May be NULL. */
    void (*on_listen)(void *arg);
    void *arg;
};

/* Life cycle */

/* Start to listen. It is no failure if the server is away: connecting is retried. The database's
 * on_event is told: CF_PG_EVENT_LISTENING, CF_PG_EVENT_DEAF.
 *
 * Ownership: copies `options`; the caller owns *out, cf_pg_listener_free(), before `pg` is freed.
 * Fails with CF_EINVAL (channels), CF_ENOMEM. */
CF_API CF_MUST enum cf_code cf_pg_listener_new(struct cf_pg *pg,
                                               const struct cf_pg_listen_options *options,
                                               struct cf_pg_listener **out, struct cf_err *err);

/* Close the connection, whatever its state, and free the listener. No callback comes after this has
 * returned. NULL is allowed.
 * Blocks: until the loop has let go of it. Call from: a plain thread, never from a callback. */
CF_API void cf_pg_listener_free(struct cf_pg_listener *listener);

/* Queries */

/* Whether it is listening now, as far as it knows. */
CF_API bool cf_pg_is_listening(const struct cf_pg_listener *listener);

#ifdef __cplusplus
}
#endif

#endif
