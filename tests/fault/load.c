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

#include "client.h"

/* Constants */

#define ABANDON_MAX_US 3000
#define REPLY_MAX 65536

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

/* Read a whole reply. False: the connection ended before. */
static bool read_reply(int fd, char out[REPLY_MAX])
{
    size_t size = 0;
    size_t want = 0;

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

/* One request. False: the connection is of no more use. */
static bool serve_one(struct load *load, int fd, unsigned number, bool stays)
{
    char reply[REPLY_MAX];

    if (ask_for_one(fd, number) && !stays) {
        (void)usleep(number % ABANDON_MAX_US);
        (void)atomic_fetch_add(&load->abandoned, 1);
        return false;
    }
    if (!read_reply(fd, reply) || strncmp(reply, "HTTP/1.1 200 ", 13) != 0) {
        (void)atomic_fetch_add(&load->failed, 1);
        return false;
    }
    (void)atomic_fetch_add(&load->served, 1);
    return strcasestr(reply, "connection: close") == NULL;
}

static void *run(void *arg)
{
    struct load *load = arg;
    unsigned seed = atomic_fetch_add(&load->seeds, 1);
    int fd = open_client(load);

    while (fd >= 0 && !atomic_load(&load->stopping)) {
        unsigned number = (unsigned)rand_r(&seed);
        bool stays = load->abandons == 0 || (unsigned)rand_r(&seed) % load->abandons != 0;

        if (!serve_one(load, fd, number, stays)) {
            (void)close(fd);
            fd = open_client(load);
        }
    }
    if (fd >= 0) {
        (void)close(fd);
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
