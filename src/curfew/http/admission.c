/* SPDX-License-Identifier: MIT */
/* Who is let in: the limit of connections, and each client's share of them.
 *
 * A connection too many is not left in the kernel's backlog, where its client could not tell it
 * from a dead server: it is accepted, and its first request is answered with 503, or 429 where it
 * is this client that has too many. For that there are a few connections to spare. They must not be
 * used up by clients that say nothing: such a one is given a moment (slow.c), and when many are
 * being told already, or a client comes with more than twice what it may have, it is told at once,
 * in words that need no request.
 *
 * A connection counts for the client that it comes from. That of a proxy we trust counts for
 * nobody: each of its requests does, for the client that the proxy names, as long as it takes. */
#include <sys/socket.h>

#include "curfew/http/forwarded.h"
#include "curfew/http/quota.h"
#include "curfew/http/server_private.h"

/* Internal helpers */

static void refuse(struct cf__connection *connection, enum cf__problem_kind kind, bool at_once)
{
    connection->is_refused = true;
    connection->refusal = kind;
    if (at_once) {
        cf__reply_dismissal(connection, kind);
        (void)shutdown(connection->fd, SHUT_RDWR); /* Of which libmicrohttpd learns. */
    }
}

/* The limit of connections, of this one included. */
static void check_room(struct cf__connection *connection)
{
    struct cf_http_server *server = connection->shard->server;
    size_t most = server->options.connections_max;
    size_t n = atomic_load_explicit(&server->connections, memory_order_relaxed);

    if (n > most) {
        refuse(connection, CF__PROBLEM_OVERLOADED, n - most > CF_HTTP_SPARE_CONNECTIONS / 2);
    }
}

static void check_quota(struct cf__connection *connection)
{
    struct cf__address client = cf__address_client(&connection->peer);
    enum cf__quota_state state = cf__quota_take(connection->shard->server->quota, &client);

    connection->is_counted = state != CF__QUOTA_UNCOUNTED;
    if (state == CF__QUOTA_OVER || state == CF__QUOTA_FAR_OVER) {
        refuse(connection, CF__PROBLEM_QUOTA_EXCEEDED, state == CF__QUOTA_FAR_OVER);
    }
}

static enum MHD_Result read_header(void *arg, enum MHD_ValueKind kind, const char *name,
                                   size_t size, const char *value, size_t value_size)
{
    (void)kind;
    (void)value_size;
    cf__forwarded_header(arg, name, size, value != NULL ? value : "");
    return MHD_YES;
}

/* Whom a trusted proxy asks for: itself, if it does not say so that it can be believed. */
static void find_client(struct cf_http *http)
{
    struct cf__forwarded forwarded;
    char *text;

    http->proxied = http->connection->peer;
    cf__forwarded_init(&forwarded, http->connection->shard->server->trusted);
    (void)MHD_get_connection_values_n(http->mhd, MHD_HEADER_KIND, read_header, &forwarded);
    if (!cf__forwarded_client(&forwarded, &http->proxied)) {
        return;
    }
    text = cf__arena_alloc(&http->arena, INET6_ADDRSTRLEN);
    if (text != NULL) {
        cf__address_write(&http->proxied, text);
        http->client = text;
    }
}

/* Operations */

void cf__admission_enter(struct cf__connection *connection)
{
    const struct cf_http_server *server = connection->shard->server;

    connection->is_trusted =
        server->trusted != NULL && cf__networks_have(server->trusted, &connection->peer);
    check_room(connection);
    if (server->quota != NULL && !connection->is_trusted && !connection->is_refused) {
        check_quota(connection);
    }
}

void cf__admission_leave(struct cf__connection *connection)
{
    struct cf__address client = cf__address_client(&connection->peer);

    if (connection->is_counted) {
        cf__quota_give(connection->shard->server->quota, &client);
    }
}

void cf__admission_begin(struct cf_http *http)
{
    const struct cf_http_server *server = http->connection->shard->server;
    enum cf__quota_state state;
    struct cf__address client;

    if (!http->connection->is_trusted) {
        return;
    }
    find_client(http);
    if (server->quota != NULL) {
        client = cf__address_client(&http->proxied);
        state = cf__quota_take(server->quota, &client);
        http->is_counted = state != CF__QUOTA_UNCOUNTED;
        http->over_quota = state == CF__QUOTA_OVER || state == CF__QUOTA_FAR_OVER;
    }
}

void cf__admission_end(struct cf_http *http)
{
    struct cf__address client = cf__address_client(&http->proxied);

    if (http->is_counted) {
        cf__quota_give(http->connection->shard->server->quota, &client);
    }
}
