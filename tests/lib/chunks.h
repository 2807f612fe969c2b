/* SPDX-License-Identifier: MIT */
/* A streamed reply, read as slowly as the test likes: chunked, or up to the end of the connection.
 *
 * Invariant: reads no byte beyond what it was asked for, so that the next reply on the connection
 * can be read by client_recv(). Every wait has a limit: CLIENT_WAIT_NS.
 *
 *     client_request(fd, "GET", "/v1/orders/export", NULL);
 *     chunks_begin(&chunks, fd);
 *     while ((n = chunks_read(&chunks, piece, sizeof(piece))) > 0) { ... }
 *     ck_assert(chunks.is_whole);
 *
 * Thread safety: the test's thread. */
#ifndef CHUNKS_H
#define CHUNKS_H

#include <stdbool.h>
#include <stddef.h>

struct chunks {
    int fd; /* Borrowed. */
    int status;
    bool is_chunked;
    bool is_over;  /* Nothing more comes, */
    bool is_whole; /* and that was the end of the reply, not of the connection only. */
    size_t left;   /* Private: of the chunk. */
    char head[4096];
};

/* Read the head. A connection that ends without one leaves status 0, and is over. */
void chunks_begin(struct chunks *chunks, int fd);

/* Read up to `size` bytes of the body: what is there, but at least one. 0: it is over. */
size_t chunks_read(struct chunks *chunks, char *out, size_t size);

/* Read all that still comes; terminated; the caller frees it. `out_size` may be NULL. */
char *chunks_read_all(struct chunks *chunks, size_t *out_size);

#endif
