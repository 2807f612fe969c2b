/* SPDX-License-Identifier: MIT */
#include "chunks.h"

#include <check.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include <curfew/clock.h>

#include "client.h"

/* Internal helpers */

/* Up to `size` bytes, at least one. 0: the connection has ended. */
static size_t hear(int fd, char *out, size_t size)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    ssize_t n;

    do {
        ck_assert_msg(poll(&poll_fd, 1, (int)(CLIENT_WAIT_NS / CF_MS)) == 1, "nothing comes");
        n = recv(fd, out, size, 0);
    } while (n < 0 && (errno == EAGAIN || errno == EINTR));
    return n > 0 ? (size_t)n : 0;
}

/* A line, without its end. False: the connection has ended. */
static bool hear_line(int fd, char *out, size_t size)
{
    size_t n = 0;

    while (n < 2 || memcmp(out + n - 2, "\r\n", 2) != 0) {
        ck_assert_uint_lt(n, size);
        if (hear(fd, out + n, 1) == 0) {
            return false;
        }
        n++;
    }
    out[n - 2] = '\0';
    return true;
}

static void end(struct chunks *chunks, bool is_whole)
{
    chunks->is_over = true;
    chunks->is_whole = is_whole;
}

/* Go on to the next chunk: after the last, it is over. */
static void begin_chunk(struct chunks *chunks)
{
    char line[64];
    char *rest;

    if (!hear_line(chunks->fd, line, sizeof(line))) {
        end(chunks, false);
        return;
    }
    chunks->left = strtoul(line, &rest, 16);
    ck_assert_msg(rest != line && *rest == '\0', "no size of a chunk: \"%s\"", line);
    if (chunks->left == 0) {
        end(chunks, hear_line(chunks->fd, line, sizeof(line)) && line[0] == '\0');
    }
}

/* Operations */

void chunks_begin(struct chunks *chunks, int fd)
{
    size_t n = 0;

    memset(chunks, 0, sizeof(*chunks));
    chunks->fd = fd;
    while (n < 4 || memcmp(chunks->head + n - 4, "\r\n\r\n", 4) != 0) {
        ck_assert_uint_lt(n, sizeof(chunks->head) - 1);
        if (hear(fd, chunks->head + n, 1) == 0) {
            ck_assert_uint_eq(n, 0);
            end(chunks, false);
            return;
        }
        n++;
    }
    chunks->status = atoi(chunks->head + strlen("HTTP/1.1 "));
    chunks->is_chunked = strcasestr(chunks->head, "\r\nTransfer-Encoding: chunked\r\n") != NULL;
    ck_assert_ptr_null(strcasestr(chunks->head, "\r\nContent-Length:"));
}

size_t chunks_read(struct chunks *chunks, char *out, size_t size)
{
    char line[4];
    size_t n;

    if (chunks->is_chunked && chunks->left == 0 && !chunks->is_over) {
        begin_chunk(chunks);
    }
    if (chunks->is_over) {
        return 0;
    }
    n = hear(chunks->fd, out, chunks->is_chunked && chunks->left < size ? chunks->left : size);
    if (n == 0) {
        end(chunks, false);
        return 0;
    }
    if (chunks->is_chunked) {
        chunks->left -= n;
        if (chunks->left == 0 && !hear_line(chunks->fd, line, sizeof(line))) {
            end(chunks, false);
        }
    }
    return n;
}

char *chunks_read_all(struct chunks *chunks, size_t *out_size)
{
    size_t room = 1 << 16;
    size_t size = 0;
    char *text = malloc(room);
    size_t n;

    ck_assert_ptr_nonnull(text);
    while ((n = chunks_read(chunks, text + size, room - size - 1)) > 0) {
        size += n;
        if (size > room / 2) {
            room *= 2;
            text = realloc(text, room);
            ck_assert_ptr_nonnull(text);
        }
    }
    text[size] = '\0';
    if (out_size != NULL) {
        *out_size = size;
    }
    return text;
}
