/* SPDX-License-Identifier: MIT */
/* One thread a connection, and blocking calls with a limit: see fakepg.h. */
#include "fakepg.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"

/* Constants and types */

/* How often a thread that waits looks whether it is to stop. */
#define LOOK_US 20000

#define MESSAGE_MAX 65536
#define SSL_REQUEST 80877103
#define CANCEL_REQUEST 80877102

struct session {
    struct fake *fake;
    struct fake_act act;
    int fd;
};

/* Internal helpers: bytes */

/* False: the other side has ended, or we are to. */
static bool get(struct session *session, void *out, size_t size)
{
    char *at = out;

    while (size > 0 && !atomic_load(&session->fake->stopping)) {
        ssize_t n = recv(session->fd, at, size, 0);

        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            return false;
        }
        at += n > 0 ? n : 0;
        size -= n > 0 ? (size_t)n : 0;
    }
    return size == 0;
}

static bool put(struct session *session, const char *bytes, size_t size)
{
    while (size > 0 && !atomic_load(&session->fake->stopping)) {
        ssize_t n = send(session->fd, bytes, size, MSG_NOSIGNAL);

        if (n < 0 && errno != EAGAIN) {
            return false;
        }
        bytes += n > 0 ? n : 0;
        size -= n > 0 ? (size_t)n : 0;
    }
    return size == 0;
}

/* Read a message of the client's; returns its type, 0 for the first of all, which has none. -1: the
 * end. */
static int get_message(struct session *session, bool first, uint32_t *out_code)
{
    char body[MESSAGE_MAX];
    uint32_t length;
    uint32_t code = 0;
    char type = 0;

    if ((!first && !get(session, &type, 1)) || !get(session, &length, sizeof(length))) {
        return -1;
    }
    length = ntohl(length) - (uint32_t)sizeof(length);
    if (length > sizeof(body) || !get(session, body, length)) {
        return -1;
    }
    memcpy(&code, body, length < sizeof(code) ? length : sizeof(code));
    *out_code = ntohl(code);
    return type;
}

/* Internal helpers: a session */

/* Do what was asked for. Returns false, because nothing comes behind it. */
static bool play(struct session *session)
{
    const struct fake_act *act = &session->act;
    char byte;

    do {
        if (!put(session, act->bytes, act->size)) {
            return false;
        }
        (void)usleep(act->pause_us);
    } while (act->for_ever);
    while (!act->closes && get(session, &byte, 1)) {
    }
    return false;
}

static bool take_in(struct session *session)
{
    char bytes[256];
    char *end = bytes;
    uint32_t code = 0;

    do {
        if (get_message(session, true, &code) < 0 || code == CANCEL_REQUEST ||
            (code == SSL_REQUEST && !put(session, "N", 1))) {
            return false;
        }
    } while (code == SSL_REQUEST);
    if (session->act.at == FAKE_AT_START) {
        return play(session);
    }
    end = fake_message(end, 'R', "\0\0\0\0", 4, 0);
    end = fake_message(end, 'S',
                       "server_version\0"
                       "15.0",
                       20, 0);
    end = fake_message(end, 'S', "client_encoding\0UTF8", 21, 0);
    end = fake_message(end, 'K', "\0\0\0\7\0\0\0\1", 8, 0);
    end = fake_message(end, 'Z', "I", 1, 0);
    return put(session, bytes, (size_t)(end - bytes));
}

/* The statements of a set-up are one message, and one SET as good as many. */
static bool set_up(struct session *session)
{
    char bytes[64];
    char *end = bytes;
    uint32_t code;

    if (get_message(session, false, &code) != 'Q') {
        return false;
    }
    if (session->act.at == FAKE_AT_SETUP) {
        return play(session);
    }
    end = fake_message(end, 'C', "SET", 4, 0);
    end = fake_message(end, 'Z', "I", 1, 0);
    return put(session, bytes, (size_t)(end - bytes));
}

static void *run_session(void *arg)
{
    struct session *session = arg;
    struct timeval look = {.tv_usec = LOOK_US};
    uint32_t code;
    int type = 0;

    (void)setsockopt(session->fd, SOL_SOCKET, SO_RCVTIMEO, &look, sizeof(look));
    (void)setsockopt(session->fd, SOL_SOCKET, SO_SNDTIMEO, &look, sizeof(look));
    if (take_in(session) && set_up(session)) {
        if (session->act.at == FAKE_AT_IDLE) {
            (void)play(session);
        }
        while (type >= 0 && type != 'S') {
            type = get_message(session, false, &code);
        }
        if (type == 'S') {
            (void)play(session);
        }
    }
    (void)close(session->fd);
    (void)atomic_fetch_sub(&session->fake->open, 1);
    free(session);
    return NULL;
}

static void *run(void *arg)
{
    struct fake *fake = arg;
    int fd;

    while ((fd = accept4(fake->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        struct session *session = malloc(sizeof(*session));
        pthread_t thread;

        CF_ASSERT(session != NULL);
        *session = (struct session){.fake = fake, .act = fake->act, .fd = fd};
        (void)atomic_fetch_add(&fake->accepted, 1);
        (void)atomic_fetch_add(&fake->open, 1);
        CF_ASSERT(pthread_create(&thread, NULL, run_session, session) == 0);
        (void)pthread_detach(thread);
    }
    return NULL;
}

/* Life cycle */

void fake_start(struct fake *fake)
{
    struct sockaddr_in name = {.sin_family = AF_INET};
    socklen_t size = sizeof(name);

    memset(fake, 0, sizeof(*fake));
    fake->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ck_assert_int_eq(bind(fake->fd, (struct sockaddr *)&name, sizeof(name)), 0);
    ck_assert_int_eq(listen(fake->fd, 64), 0);
    ck_assert_int_eq(getsockname(fake->fd, (struct sockaddr *)&name, &size), 0);
    fake->port = ntohs(name.sin_port);
    ck_assert_int_eq(pthread_create(&fake->thread, NULL, run, fake), 0);
}

void fake_stop(struct fake *fake)
{
    if (fake->port == 0) {
        return;
    }
    atomic_store(&fake->stopping, true);
    (void)shutdown(fake->fd, SHUT_RDWR); /* accept() returns. */
    ck_assert_int_eq(pthread_join(fake->thread, NULL), 0);
    (void)close(fake->fd);
    WAIT_FOR(atomic_load(&fake->open) == 0);
    fake->port = 0;
}

/* Operations */

void fake_act(struct fake *fake, const struct fake_act *act)
{
    fake->act = *act;
}

char *fake_message(char *at, char type, const void *body, size_t size, uint32_t length)
{
    uint32_t word = htonl(length != 0 ? length : (uint32_t)(size + sizeof(word)));

    *at = type;
    memcpy(at + 1, &word, sizeof(word));
    memcpy(at + 1 + sizeof(word), body, size);
    return at + 1 + sizeof(word) + size;
}
