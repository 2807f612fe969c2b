/* SPDX-License-Identifier: MIT */
/* Streamed replies: what a handler writes piece by piece, and how it comes to the client.
 *
 * Between the two is a ring of bytes. The handler's fiber fills it, and parks while it is full.
 * libmicrohttpd empties it, a chunk at a time, in the shard's turns, and has the connection
 * suspended while it is empty. So neither waits for the other on the loop, and a client that reads
 * slowly holds up nobody but its own handler:
 *
 *     write   the connection is suspended   ->  woken, and resumed by the next turn
 *     read    a writer is parked            ->  its wait ends
 *
 * The head is queued when something was written and not before, so that a handler that fails first
 * can still be answered with a problem document. It goes by the same way as any reply: out of the
 * access callback, only that the handler is still running.
 *
 * From then on the connection is not suspended all the time that the handler runs, and
 * libmicrohttpd may close it: a send has failed, or the client took nothing for too long. Then the
 * request outlives its connection (is_closed): the context is cancelled, a writer that is parked
 * told, and the memory of both goes with the handler's end.
 *
 * What the kernel keeps for the client counts too, and that would be megabytes: TCP_NOTSENT_LOWAT
 * has it take no more than we do ourselves, beyond what is on its way. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "curfew/http/server_private.h"

#define RING_SIZE ((size_t)CF_HTTP_STREAM_SIZE + CF_HTTP_STREAM_SPARE)

/* What libmicrohttpd reads at once for a client of HTTP/1.0;
 * for others what its memory has room for. */
#define BLOCK_SIZE ((size_t)16 * 1024)

/* Internal helpers: the ring */

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Put as much of it in as `limit` allows. Returns how much. */
static size_t put(struct cf__stream *stream, const char *data, size_t size, size_t limit)
{
    size_t n = stream->size < limit ? least(size, limit - stream->size) : 0;
    size_t at = (stream->first + stream->size) % RING_SIZE;
    size_t n_to_end = least(n, RING_SIZE - at);

    memcpy(stream->ring + at, data, n_to_end);
    memcpy(stream->ring, data + n_to_end, n - n_to_end);
    stream->size += n;
    return n;
}

static size_t take(struct cf__stream *stream, char *out, size_t size)
{
    size_t n = least(size, stream->size);
    size_t n_to_end = least(n, RING_SIZE - stream->first);

    if (n == 0) {
        return 0; /* There may be no ring. */
    }
    memcpy(out, stream->ring + stream->first, n_to_end);
    memcpy(out + n_to_end, stream->ring, n - n_to_end);
    stream->first = (stream->first + n) % RING_SIZE;
    stream->size -= n;
    stream->taken += n;
    return n;
}

/* Internal helpers: writing */

/* See that somebody reads, and that there is a ring. */
static enum cf_code prepare(struct cf_http *http, struct cf_err *err)
{
    struct cf__stream *stream = &http->stream;

    CF_ASSERT(stream->type != NULL); /* By cf_http_reply_stream(), and it was the last. */
    if (http->head.method == CF__HEAD) {
        stream->is_unread = true;
        return cf_err_set(err, CF_ECLOSED, "the reply to HEAD has no body");
    }
    if (stream->is_closed) {
        return cf_err_set(err, CF_ECLOSED, "the connection has ended");
    }
    if (http->spoilt != CF_OK) {
        return cf_err_set(err, http->spoilt, "a header of the reply cannot be sent");
    }
    if (stream->ring == NULL) {
        stream->ring = malloc(RING_SIZE);
    }
    if (stream->ring == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a stream");
    }
    return CF_OK;
}

static enum cf_code wait_for_room(struct cf_ctx *ctx, struct cf__stream *stream, struct cf_err *err)
{
    struct cf__wait wait;
    enum cf__wait_outcome outcome;
    enum cf_code code;

    cf__wait_init(&wait);
    stream->writer = &wait;
    outcome = cf__wait_park(ctx, &wait);
    stream->writer = NULL;
    code = cf_ctx_check(ctx, err);
    if (code == CF_OK && outcome == CF__WAIT_CLOSED) {
        code = cf_err_set(err, CF_ECLOSED, "the connection has ended");
    }
    return code != CF_OK ? cf_err_phase(err, code, "send") : CF_OK;
}

/* Internal helpers: reading */

static void wake_writer(struct cf__stream *stream, enum cf__wait_outcome outcome)
{
    if (stream->writer != NULL) {
        (void)cf__wait_end(stream->writer, outcome); /* False: it has ended, but not yet run. */
    }
}

/* Nothing more will be sent: tell on_done(). */
static void finish(struct cf_http *http, bool is_whole)
{
    bool is_gone;

    if (!is_whole && http->code == CF_OK) {
        http->cause.reason = CF_REASON_CLIENT_GONE; /* All was written, and not all was read. */
    }
    is_gone = !is_whole && http->cause.reason == CF_REASON_CLIENT_GONE;
    http->is_broken = !is_whole;
    cf__exchange_done(http, is_gone ? cf__problem_status(CF__PROBLEM_CLIENT_GONE) : http->status,
                      http->stream.taken);
}

static ssize_t read_stream(void *arg, uint64_t at, char *out, size_t size)
{
    struct cf_http *http = arg;
    size_t n;

    (void)at; /* Where we are. */
    cf__exchange_resumed(http);
    n = take(&http->stream, out, size);
    if (n > 0) {
        wake_writer(&http->stream, CF__WAIT_READY);
        return (ssize_t)n;
    }
    if (http->stage == CF__RUNNING) {
        cf__exchange_suspend(http);
        return 0;
    }
    finish(http, http->code == CF_OK);
    return http->is_broken ? MHD_CONTENT_READER_END_WITH_ERROR : MHD_CONTENT_READER_END_OF_STREAM;
}

/* Life cycle */

struct MHD_Response *cf__stream_response(struct cf_http *http)
{
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK_SIZE, read_stream, http, NULL);

    if (response != NULL && http->head.method == CF__HEAD) {
        /* Chunked, 0.9.75 would send the last chunk of a body that there is not. */
        (void)MHD_set_response_options(response, MHD_RF_HTTP_VERSION_1_0_ONLY, MHD_RO_END);
    }
    return response;
}

void cf__stream_open(struct cf_http *http)
{
    unsigned unsent_max = CF_HTTP_STREAM_SIZE;

    http->stream.is_open = true;
    http->connection->is_streaming = true;
    http->connection->goal_since_ns = 0;
    (void)setsockopt(http->connection->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent_max,
                     sizeof(unsent_max));
}

void cf__stream_settle(struct cf_http *http)
{
    if (http->code != CF_OK && http->cause.reason == CF_REASON_CLIENT_GONE &&
        !http->stream.is_closed) {
        /* Half-closed, it might neither read on nor have a send fail. */
        http->stream.size = 0;
        (void)shutdown(http->connection->fd, SHUT_RDWR);
    }
}

void cf__stream_close(struct cf_http *http)
{
    http->stream.is_closed = true;
    cf_ctx_cancel_cause(http->ctx, CF_REASON_CLIENT_GONE, NULL);
    wake_writer(&http->stream, CF__WAIT_CLOSED);
}

void cf__stream_cut(struct cf_http *http)
{
    finish(http, false);
}

void cf__stream_free(struct cf_http *http)
{
    free(http->stream.ring);
}

/* Operations */

enum cf_code cf_http_stream_write(struct cf_ctx *ctx, struct cf_http *http, const void *data,
                                  size_t size, struct cf_err *err)
{
    struct cf__stream *stream = &http->stream;
    enum cf_code code = cf_ctx_check(ctx, err);
    const char *rest = data;

    CF_ASSERT(stream->writer == NULL);
    if (code == CF_OK) {
        code = prepare(http, err);
    }
    while (code == CF_OK && size > 0) {
        size_t n = put(stream, rest, size, CF_HTTP_STREAM_SIZE);

        rest += n;
        size -= n;
        cf__exchange_wake(http);
        if (size > 0) {
            code = wait_for_room(ctx, stream, err);
        }
    }
    return code;
}

bool cf_http_stream_try_write(struct cf_http *http, const void *data, size_t size)
{
    if (prepare(http, NULL) != CF_OK || size > RING_SIZE - http->stream.size) {
        return false;
    }
    (void)put(&http->stream, data, size, RING_SIZE);
    cf__exchange_wake(http);
    return true;
}
