/* SPDX-License-Identifier: MIT */
/* Handlers that stream, and what has become of them: the kit of test_http_stream*.c,
 * on http_fixture.
 *
 *     int fd = open_and_stall("/endless", &chunks);
 *     client_reset(fd);
 *     ck_assert_int_eq(wait_ended(), CF_ECANCELED);
 *     expect_nothing_left();
 *
 * Thread safety: the test's thread, but for the handlers. */
#ifndef STREAM_KIT_H
#define STREAM_KIT_H

#include "chunks.h"
#include "http_fixture.h"

/* What a server may hold of a stream: its ring, as much in the kernel, and what it counts beside
 * data there; libmicrohttpd's memory; and what is on its way to a client with a narrow window. */
#define HELD_MAX ((size_t)5 * CF_HTTP_STREAM_SIZE)

struct stream {
    sem_t ended;           /* A handler is about to return, */
    atomic_int ended_code; /* with this. */
    atomic_size_t written; /* By the handlers in all. */
    size_t descriptors_before;
};

extern struct stream stream;

/* What is served; who waits, or may have to, posts site.started behind each piece:
 * /bytes?size=      that many bytes
 * /at-once?size=    the same in one piece
 * /failing?size=    fails after that many, with last words
 * /endless          (posts)
 * /stalling         a piece, and then nothing for as long as it may (posts)
 * /pausing?ms=      two pieces with that between (posts)
 * /late             its last piece comes in time, its end does not
 * /heedless         does not heed its context, and goes on after its client has left (posts)
 * /poor, /spoilt    without memory; with a header that cannot be sent
 * /plain            no stream after all
 * /by-tasks?tasks=  that many write, a full ring each */

void stream_setup(void);
void stream_teardown(void);

/* In place of the server that runs, one with this send timeout. */
void stream_restart(int64_t send_timeout_ns);

/* A case with both. */
TCase *stream_add_case(Suite *suite, const char *name);

/* Wait until a handler has ended; how. */
enum cf_code wait_ended(void);

/* All connections of clients that have gone are closed, and nothing is left of them. */
void expect_nothing_left(void);

/* These are the bytes of a stream, from its beginning or from there. */
void expect_bytes(const char *text, size_t size);
void expect_bytes_from(size_t from, const char *text, size_t size);

/* Its client had gone. */
void expect_gone(const struct seen *record);

/* Ask for what is more than fits anywhere, read the head, and see that the handler is held up. */
int open_and_stall(const char *target, struct chunks *chunks);

#endif
