/* SPDX-License-Identifier: MIT */
/* A server that speaks PostgreSQL's protocol up to a point, and then what the test says.
 *
 * It takes everybody in without a password and answers the set-up of a session as a server would.
 * Where `act->at` says, it sends the act's bytes instead, once or without end, and then ends the
 * connection or says nothing more. The bytes are the test's own: fake_message() makes one that is
 * well formed, and its length may be made to lie.
 *
 *     fake_start(&fake);
 *     fake_act(&fake, &(struct fake_act){.at = FAKE_AT_QUERY, .bytes = bytes, .size = size});
 *     ... connections to fake.port ...
 *     fake_stop(&fake);
 *
 * Thread safety: the test's thread; an act is set while nobody connects. */
#ifndef FAKEPG_H
#define FAKEPG_H

#include <pthread.h>
#include <stdatomic.h>

#include <curfew/base.h>

enum fake_at {
    FAKE_AT_START, /* Instead of taking somebody in. */
    FAKE_AT_SETUP, /* Instead of the answers to the first statements. */
    FAKE_AT_QUERY, /* Instead of the answers to a prepared statement. */
    FAKE_AT_IDLE,  /* Behind the set-up, asked by nobody. */
};

struct fake_act {
    enum fake_at at;
    const char *bytes;
    size_t size;
    bool for_ever;     /* Again and again, */
    unsigned pause_us; /* with this between. */
    bool closes;       /* And then the end. Else silence. */
};

struct fake {
    uint16_t port;
    int fd;
    pthread_t thread;
    struct fake_act act;
    atomic_size_t accepted;
    atomic_size_t open;
    atomic_bool stopping;
};

/* Life cycle */

void fake_start(struct fake *fake);

/* Ends its connections, and waits for that. */
void fake_stop(struct fake *fake);

/* Operations */

/* What is done to those who connect from now on. Borrows the bytes until fake_stop(). */
void fake_act(struct fake *fake, const struct fake_act *act);

/* Append a message to `at`; returns its end. `length` is what it claims; 0: the truth. */
char *fake_message(char *at, char type, const void *body, size_t size, uint32_t length);

#endif
