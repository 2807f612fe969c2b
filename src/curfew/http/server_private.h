/* SPDX-License-Identifier: MIT */
/* What the files of the HTTP server share: the server, its part on each loop, the connections, and
 * the request.
 *
 *     struct cf_http_server      server.c      made, stopped and freed on a plain thread
 *      +- struct cf__shard       shard.c       one per loop: a libmicrohttpd daemon and its turns
 *          +- struct cf__connection  connection.c  watched for its client's end
 *              |                 admission.c   counted, and refused where there are too many
 *              |                 slow.c        and timed while it sends, and while it is sent to
 *              +- struct cf_http exchange.c    one request and its reply
 *                                trace.c       the trace that it belongs to
 *                                request.c     what its handler may ask
 *                                body.c        what its client sent along
 *                                conditional.c what its client has, or takes, from a cache
 *                                negotiate.c   what its client would rather be sent
 *                                encode.c      whether that is compressed
 *                                reply.c       what its handler may answer, and the sending
 *                                stream.c      where that comes piece by piece
 *
 * All of a shard belongs to its loop's thread, except where a field says otherwise. */
#ifndef CURFEW_HTTP_SERVER_PRIVATE_H
#define CURFEW_HTTP_SERVER_PRIVATE_H

#include <arpa/inet.h>
#include <microhttpd.h>
#include <stdalign.h>
#include <stdatomic.h>

#include <curfew/clock.h>
#include <curfew/http.h>
#include <curfew/trace.h>

#include "curfew/http/address.h"
#include "curfew/http/arena.h"
#include "curfew/http/filter.h"
#include "curfew/http/problem.h"
#include "curfew/http/request_id.h"
#include "curfew/http/router.h"
#include "curfew/runtime/loop_private.h"
#include "curfew/runtime/waiting.h"

struct cf__quota;
struct z_stream_s;

/* The part of a request's memory that comes with the request itself. */
#define CF__ARENA_FIRST 4096

/* Room for a Server-Timing header; entries that do not fit are left out. */
#define CF__TIMING_SIZE 256

/* Constant after new, but for `stopped` and what is atomic. */
struct cf_http_server {
    struct cf_http_options options; /* With the defaults filled in. What is copied is gone. */
    struct cf__networks *trusted;   /* Proxies. NULL: none. */
    struct cf__quota *quota;        /* NULL: clients have none. */
    struct cf__router *router;
    struct cf_ctx *root;  /* Ancestor of every request's context. */
    struct cf_ctx *hurry; /* Done: a stop that runs has no grace any more. */
    uint16_t port;
    size_t body_size_max; /* The largest that a route takes. */
    bool checks_head;     /* libmicrohttpd's parser cannot be believed. */
    bool stopped;         /* Plain thread that owns the server. */
    size_t n_shards;
    size_t n_open; /* Shards that were opened: all of them, once `new` has succeeded. */
    struct cf__shard *shards;

    atomic_size_t connections; /* Of all shards, which a figure of each could not limit. */
};

/* How far a shard's stop has come. */
enum cf__phase {
    CF__SERVING,
    CF__STOPPING, /* Accepts nothing; idle connections are closed. */
    CF__CUTTING,  /* The grace is over: only what runs is still waited for. */
};

/* While stopping: what a client that has connected, or was answered,
 * is given for its next request. */
#define CF__PATIENCE_NS (250 * CF_MS)

struct cf__shard {
    /* Constant after open, as are these. Aligned, so that no two loops write to one cache line. */
    alignas(64) struct cf_http_server *server;
    struct cf_loop *loop;
    struct cf_ctx *ctx; /* Child of the root: requests of one loop do not contend for its lock. */
    size_t in_flight_max;
    size_t bodies_size_max;
    struct MHD_Daemon *daemon; /* NULL: not open. */
    int listen_fd;             /* The daemon's; -1 once it was closed. */
    int ends_fd;               /* The epoll descriptor in which connections are watched. */

    struct cf__watch *daemon_watch; /* Loop thread only, as is all down to the next guard. */
    struct cf__watch *ends_watch;
    struct cf__hook hook;
    uv_timer_t timer;        /* For what libmicrohttpd times. */
    int64_t timer_at_ms;     /* When it fires, on the loop's clock; -1: it does not. */
    bool due;                /* The daemon has to be run. */
    bool has_room;           /* A connection was closed: if it was full, it listens again. */
    struct cf__list open;    /* All connections. */
    struct cf__list leaving; /* Connections to look at once the daemon is quiet. */
    struct cf__list waking;  /* Requests to resume: their handlers have ended, or written. */
    size_t suspended;        /* Connections that the daemon does not look at. */
    size_t bodies_size;      /* Of the memory of all requests' bodies. */
    struct z_stream_s *gzip; /* gzip.h. NULL: not needed so far. */

    enum cf__phase phase;
    uv_timer_t stop_timer; /* Ends the patience with clients that are new, then the flush. */
    bool patience_over;    /* Connections that may be about to send something are closed too. */
    bool flushing;         /* Cutting, and all handlers have ended. */
    bool flush_over;       /* Replies that are not sent by now will not be. */
    size_t open_handles;   /* While closing: libuv handles that are not closed yet. */
    struct cf__message stop_message;
    struct cf__message cut_message;
    struct cf__message close_message;

    struct cf_ctx *drained; /* Done: nothing is left to wait for. Any thread. */
    struct cf_ctx *closed;  /* Done: the loop has forgotten this shard. Any thread. */

    /* Written by the loop, read by anybody: figures, which order nothing, so relaxed. */
    atomic_size_t connections;
    atomic_size_t in_flight;
    _Atomic uint64_t requests;
};

struct cf__connection {
    struct cf__list node;         /* In shard->open. */
    struct cf__list leaving_node; /* In shard->leaving, or alone. */
    struct cf__shard *shard;
    int fd;               /* libmicrohttpd's. */
    struct cf_http *http; /* The request that has begun and is not complete, or NULL. */
    bool at_end;          /* The client will send nothing more. */
    bool gone;            /* The client wants nothing more. */
    int64_t served_ns;    /* When its last request was completed; 0: none was. */
    bool dismissed;       /* It was told to go: what still comes is not taken for a request. */
    bool is_closed;       /* libmicrohttpd's is gone, the handler of `http` still runs. */
    uint64_t n_begun;     /* Requests whose first line has come. */
    int64_t answered_ns;  /* When the last reply was ready; 0: there was none. */

    struct cf_timer look; /* slow.c: the next look at what has come, */
    int64_t opened_ns;
    uint64_t n_seen;       /* and at the last one: n_begun, */
    uint64_t bytes_seen;   /* what had come in all, */
    int64_t head_since_ns; /* and since when a head without its first line is coming; 0: none. */
    bool is_streaming;     /* The last reply is a stream: */
    uint64_t stream_goal;  /* what the client will have taken in all by */
    int64_t goal_since_ns; /* send_timeout_ns after this; 0: nothing waited for it. */

    struct cf__address peer;
    bool is_trusted;                /* A proxy, whose requests say who the client is. */
    bool is_counted;                /* In the quota of its client. */
    bool is_refused;                /* There are too many connections: it is only told so, */
    enum cf__problem_kind refusal;  /* with this. */
    char address[INET6_ADDRSTRLEN]; /* Of the peer. */
};

/* READING -> RUNNING -> SETTLED -> ANSWERED, with RUNNING left out where no handler is run. A
 * stream is being sent while RUNNING and SETTLED. */
enum cf__stage {
    CF__READING,  /* Head and body are coming. */
    CF__RUNNING,  /* The handler runs. When it has parked, the connection is suspended; unless a
                   * stream is open, which has it suspended while there is nothing to send. */
    CF__SETTLED,  /* The outcome is known. If suspended, it is in shard->waking. */
    CF__ANSWERED, /* libmicrohttpd has the whole reply, or there will be none. */
};

/* The body of a reply that is written piece by piece. */
struct cf__stream {
    const char *type;        /* NULL: the reply is none. */
    bool is_open;            /* Its head was queued: nothing else can be answered. */
    bool is_unread;          /* It was written to, but the method is HEAD. */
    bool is_closed;          /* The connection has ended. */
    char *ring;              /* What waits for the client. NULL: nothing was written. */
    size_t first;            /* Where that begins, */
    size_t size;             /* and how much it is. */
    size_t taken;            /* What libmicrohttpd was given in all. */
    struct cf__wait *writer; /* Waits for room. NULL: nobody does. */
};

struct cf__reply_header {
    struct cf__reply_header *next;
    const char *name;
    const char *value;
};

struct cf_http {
    struct cf__list node; /* In shard->waking, or alone. */
    struct cf__connection *connection;
    struct MHD_Connection *mhd;
    enum cf__stage stage;
    bool head_seen;    /* libmicrohttpd has shown us the whole head. */
    bool is_complete;  /* Where a half-close is allowed: and has shown us the end of the body. */
    bool is_suspended; /* And libmicrohttpd does not look at the connection, */
    bool is_woken;     /* but is about to. */

    /* The request. */
    const char *method;
    const char *raw_target; /* As it came. */
    const char *target_at;  /* Where libmicrohttpd had it: to compare with, not to read. */
    int64_t started_ns;
    int64_t head_at_ns;         /* Once head_seen. */
    const char *client;         /* Address. */
    struct cf__address proxied; /* The client's, behind a trusted proxy. */
    uint64_t body_size;         /* What has come, */
    char *body;                 /* and what of it is kept, terminated: NULL or of body_size. */
    size_t body_room;
    struct cf__head head;
    struct cf__target target;
    const struct cf__route *route; /* NULL: none matched. */
    const char *params[CF__PARAMS_MAX];
    int64_t timeout_ns; /* What it was given; CF_NEVER: it did not come to that. */
    /* With our span. */
    struct cf_trace trace;
    char request_id[CF__REQUEST_ID_MAX + 1];
    bool is_counted;    /* In the quota of the client behind a proxy, */
    bool over_quota;    /* which is exhausted. */
    struct cf_ctx *ctx; /* While RUNNING. */

    /* The outcome. */
    enum cf_code code; /* How the handler, or what came before it, ended. */
    struct cf_err err; /* If that was a failure. */
    struct cf_cause cause;
    bool is_problem; /* The reply is a problem document, not what the handler wrote. */
    bool is_broken;  /* The reply, a stream, had no end. */
    enum cf__problem_kind problem;
    const char *detail; /* The problem's, or NULL. */

    /* The reply. */
    bool has_reply;
    int status;
    struct cf_json json; /* The body, if `text` is NULL. */
    const char *text;
    size_t text_size;
    const char *text_type;
    struct cf_value *text_owner; /* Whose bytes `text` is: a reference. NULL: the request's own. */
    const char *gzip;            /* The gzip of `text`, of a shared reply; NULL: there is none. */
    size_t gzip_size;
    struct cf_value *gzip_owner; /* A reference. */
    struct cf__reply_header *headers;
    struct cf__reply_header **last_header;
    int64_t retry_ns;   /* For Retry-After; 0: the default. */
    int failure_status; /* What the handler's failure is told as; 0: what its code stands for. */
    size_t timing_size;
    char timing[CF__TIMING_SIZE];
    enum cf_code spoilt; /* Why the handler's reply cannot be sent; CF_OK: it can. */
    struct cf__stream stream;

    struct cf__arena arena;
    alignas(max_align_t) char first[CF__ARENA_FIRST]; /* Last: the only part not cleared. */
};

/* shard.c */

/* Serve on shard->listen_fd with a share of the server's limits; on failure that is closed. On the
 * loop's thread, in a fiber. */
CF_MUST enum cf_code cf__shard_open(struct cf__shard *shard, struct cf_err *err);

/* Begin the steps of a stop, on any thread. Each says by `drained` or `closed` that it is over. */
void cf__shard_stop(struct cf__shard *shard);
void cf__shard_cut(struct cf__shard *shard);
void cf__shard_close(struct cf__shard *shard);

/* connection.c */

void cf__connection_notify(void *arg, struct MHD_Connection *mhd, void **socket_context,
                           enum MHD_ConnectionNotificationCode code);

/* Clients have ended their side: called when shard->ends_fd is readable. */
void cf__connections_ended(void *arg, int status, int events);

/* Have the connection, or all, looked at once the daemon is quiet. */
void cf__connection_leaving(struct cf__connection *connection);
void cf__connections_leaving(struct cf__shard *shard);

/* The daemon has had its turn: shut those down that nothing more will come from. If it is not
 * quiet, those that want nothing more, and the others later. */
void cf__connections_sweep(struct cf__shard *shard, bool is_quiet);

/* admission.c */

/* Count a new connection, and refuse it if there are too many: `is_refused`, or at once, which
 * leaves it `dismissed`. */
void cf__admission_enter(struct cf__connection *connection);
void cf__admission_leave(struct cf__connection *connection);

/* The head of a request is there: find out who its client is, and count it. */
void cf__admission_begin(struct cf_http *http);
void cf__admission_end(struct cf_http *http);

/* slow.c */

/* Time what the client sends and takes, from now on. False: out of memory. */
bool cf__slow_watch(struct cf__connection *connection);
void cf__slow_forget(struct cf__connection *connection);

/* exchange.c */

void *cf__exchange_begin(void *arg, const char *target, struct MHD_Connection *mhd);
enum MHD_Result cf__exchange_access(void *arg, struct MHD_Connection *mhd, const char *url,
                                    const char *method, const char *version, const char *data,
                                    size_t *data_size, void **context);
void cf__exchange_completed(void *arg, struct MHD_Connection *mhd, void **context,
                            enum MHD_RequestTerminationCode how);

/* The connection has gone without completing its request. */
void cf__exchange_abandoned(struct cf_http *http);

/* The client has gone: end the handler, if it runs. */
void cf__exchange_client_gone(struct cf_http *http);

/* Have libmicrohttpd not look at the connection, until it is woken; the access handler and the
 * reader of a stream call the third first. */
void cf__exchange_suspend(struct cf_http *http);
void cf__exchange_wake(struct cf_http *http);
void cf__exchange_resumed(struct cf_http *http);

/* Hand what was woken back to libmicrohttpd. True if there was any. */
bool cf__exchange_resume_woken(struct cf__shard *shard);

/* Tell on_done() of the request, once. */
void cf__exchange_done(struct cf_http *http, int status, size_t body_size);

/* trace.c */

/* Give the request its trace: the client's, if it sent one, else a new one; and its id. */
void cf__trace_take(struct cf_http *http);

/* The same where there is no head. */
void cf__trace_make(struct cf_http *http);

/* body.c */

/* Keep the part that has just come. Fails with CF_ENOMEM,
 * and CF_ELIMIT if there are too many bodies. */
CF_MUST enum cf_code cf__body_add(struct cf_http *http, const char *data, size_t size,
                                  struct cf_err *err);
void cf__body_free(struct cf_http *http);

/* conditional.c */

/* What tells the tag of a gzip from that of the plain: "1-gzip". */
#define CF__GZIP_SUFFIX "-gzip"
#define CF__TAG_PLAIN 1U
#define CF__TAG_GZIP 2U

/* Which of the two the client says that it has, and could use: a set of CF__TAG_.... */
unsigned cf__etags_had(const struct cf_http *http, const char *etag);

/* encode.c */

/* What is about to be sent. */
struct cf__body {
    int status;
    const char *type; /* NULL: there is no body. */
    const char *data;
    size_t size;
    bool varies;  /* It might have been, or is, */
    bool is_gzip; /* compressed for its client. */
};

/* Compress it, if the client asks for that and it is worth it. */
void cf__encode(struct cf_http *http, struct cf__body *body);

/* A header that the handler has added: its value, or NULL. */
const char *cf__reply_get_header(const struct cf_http *http, const char *name);

/* reply.c */

/* Send what was settled. What it returns is what the access callback has to. */
enum MHD_Result cf__reply_send(struct cf_http *http);

/* Answer where libmicrohttpd takes no reply, in the middle of a body, or has no room for one. What
 * is left to it is to close: the access callback has to return MHD_NO. */
void cf__reply_directly(struct cf_http *http, enum cf__problem_kind problem);

/* Answer where a request was to come, of which there may not even be a first line, and have nothing
 * more taken for one. What is left is to shut the connection down. */
void cf__reply_dismissal(struct cf__connection *connection, enum cf__problem_kind problem);

/* stream.c */

/* The head goes out: make the response that reads the stream. NULL: out of memory. */
struct MHD_Response *cf__stream_response(struct cf_http *http);

/* The response was queued: from now on it is read. */
void cf__stream_open(struct cf_http *http);

/* The handler has ended. */
void cf__stream_settle(struct cf_http *http);

/* The connection has ended: with the handler running, which is told;
 * else before the whole was read. */
void cf__stream_close(struct cf_http *http);
void cf__stream_cut(struct cf_http *http);

void cf__stream_free(struct cf_http *http);

#endif
