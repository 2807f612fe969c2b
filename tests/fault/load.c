/* SPDX-License-Identifier: MIT */
/* A thread a client: see load.h. */
#include "load.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <curfew/clock.h>

#include "client.h"

/* Constants */

#define ABANDON_MAX_US 3000
#define REPLY_MAX 65536

/* A server that stops closes a connection on which nothing was asked for so long: what a client of
 * ours, kept from running by a busy machine, sends later was never accepted. */
#define IDLE_NS (250 * CF_MS)

/* Internal helpers */

/* -1: refused, or the time is over. */
static int open_client(struct load *load)
{
    struct timeval limit = {.tv_sec = 10};
    int fd = atomic_load(&load->stopping) ? -1 : client_try_open(load->port);

    if (fd >= 0) {
        (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    }
    return fd;
}

/* Most are of one user, which take a millisecond, some of the whole store, which take many. */
static bool ask_for_one(int fd, unsigned number)
{
    char text[160];
    int n;

    if (number % 8 != 0) {
        n = snprintf(text, sizeof(text), "GET /v1/dashboard?user_id=%u HTTP/1.1\r\n",
                     1 + number % 20);
    } else {
        n = snprintf(text, sizeof(text), "GET /v1/dashboard HTTP/1.1\r\n");
    }
    n += snprintf(text + n, sizeof(text) - (size_t)n, "Host: localhost\r\n\r\n");
    return send(fd, text, (size_t)n, MSG_NOSIGNAL) == n;
}

/* Read a whole reply. False: the connection ended before; `out` is what came. */
static bool read_reply(int fd, char out[REPLY_MAX])
{
    size_t size = 0;
    size_t want = 0;

    out[0] = '\0';
    errno = 0;

    while (want == 0 || size < want) {
        ssize_t n = recv(fd, out + size, REPLY_MAX - 1 - size, 0);
        const char *end;

        if (n <= 0) {
            return false;
        }
        size += (size_t)n;
        out[size] = '\0';
        end = strstr(out, "\r\n\r\n");
        if (want == 0 && end != NULL) {
            const char *length = strcasestr(out, "content-length:");

            want = (size_t)(end + 4 - out) +
                   (length != NULL ? strtoul(length + strlen("content-length:"), NULL, 10) : 0);
        }
    }
    return true;
}

/* A connection, and the last that was done on it. */
struct kept {
    int fd;
    int served;
    int64_t used_ns;
};

static void note_failure(struct load *load, const struct kept *kept, const char *reply)
{
    if (atomic_fetch_add(&load->failed, 1) == 0) {
        (void)snprintf(load->failure, sizeof(load->failure),
                       "request %d of its connection, after %.1f ms: %s: \"%.40s\"",
                       kept->served + 1, (double)(cf_now_ns() - kept->used_ns) / CF_MS,
                       strerror(errno), reply);
    }
}

/* One request. False: the connection is of no more use. */
static bool serve_one(struct load *load, struct kept *kept, unsigned number, bool stays)
{
    int64_t used_ns = kept->used_ns;
    char reply[REPLY_MAX];
    bool asked = ask_for_one(kept->fd, number);
    bool dawdled;
    bool is_whole;

    kept->used_ns = cf_now_ns();
    dawdled = kept->used_ns - used_ns >= IDLE_NS;
    if (asked && !stays) {
        (void)usleep(number % ABANDON_MAX_US);
        (void)atomic_fetch_add(&load->abandoned, 1);
        return false;
    }
    is_whole = read_reply(kept->fd, reply);
    if (!is_whole && reply[0] == '\0' && dawdled) {
        return false; /* Closed as idle, before it was asked. */
    }
    if (!is_whole || strncmp(reply, "HTTP/1.1 200 ", 13) != 0) {
        note_failure(load, kept, reply);
        return false;
    }
    kept->served++;
    (void)atomic_fetch_add(&load->served, 1);
    return strcasestr(reply, "connection: close") == NULL;
}

static struct kept dial(struct load *load)
{
    int64_t now_ns = cf_now_ns();

    return (struct kept){.fd = open_client(load), .used_ns = now_ns};
}

static void *run(void *arg)
{
    struct load *load = arg;
    unsigned seed = atomic_fetch_add(&load->seeds, 1);
    struct kept kept = dial(load);

    while (kept.fd >= 0 && !atomic_load(&load->stopping)) {
        unsigned number = (unsigned)rand_r(&seed);
        bool stays = load->abandons == 0 || (unsigned)rand_r(&seed) % load->abandons != 0;

        if (!serve_one(load, &kept, number, stays)) {
            (void)close(kept.fd);
            kept = dial(load);
        }
    }
    if (kept.fd >= 0) {
        (void)close(kept.fd);
    }
    return NULL;
}

/* Life cycle */

void load_start(struct load *load, uint16_t port, size_t clients, unsigned abandons)
{
    ck_assert_uint_le(clients, LOAD_CLIENTS_MAX);
    memset(load, 0, sizeof(*load));
    load->port = port;
    load->abandons = abandons;
    load->n_clients = clients;
    for (size_t i = 0; i < clients; i++) {
        ck_assert_int_eq(pthread_create(&load->threads[i], NULL, run, load), 0);
    }
}

void load_stop(struct load *load)
{
    atomic_store(&load->stopping, true);
    for (size_t i = 0; i < load->n_clients; i++) {
        ck_assert_int_eq(pthread_join(load->threads[i], NULL), 0);
    }
}
