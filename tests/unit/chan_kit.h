/* SPDX-License-Identifier: MIT */
/* What the tests of channels share: the calls that may wait, as values of one kind, so that one
 * test puts each of them into a situation. Channels here carry ints. */
#ifndef CHAN_KIT_H
#define CHAN_KIT_H

#include <curfew/chan.h>

#include "waits.h"

enum form {
    FORM_SEND,
    FORM_RECV,
    FORM_SELECT_SEND, /* With a second channel on which nothing ever comes. */
    FORM_SELECT_RECV,
    FORMS,
};

/* For loop tests: every form at every place. */
#define FORMS_AND_PLACES ((int)FORMS * (int)PLACES)
#define FORM_OF(i) ((enum form)((i) / PLACES))
#define PLACE_OF(i) ((i) % PLACES)

struct chan_call {
    enum form form;
    struct cf_chan *ch;
    struct cf_ctx *ctx;
    int64_t timeout_ns; /* More than 0: call with a child of ctx that is made where the call is. */
    unsigned fail_nth;  /* This allocation and all later ones are to fail; 0: none. */
    int value;          /* What is sent, or where it is received; -1: nothing was. */

    enum cf_code code;
    struct cf_err err;
    size_t index; /* Of a select; 9: it was not set. */
    bool struck;
    int64_t ended_ns;
};

/* Fixture: `ctx` and `failure` of waits.h, and two channels. */
extern struct cf_chan *chan; /* Unbuffered, unless a test makes it anew. */
extern struct cf_chan *idle; /* Nobody else sends there, or receives. */

void setup_chans(void);
void teardown_chans(void);

/* Make `chan` anew, for so many ints; `filled` of them are in it: 0, 1, 2, ... */
void renew_chan(size_t capacity, int filled);

/* A call of that form on `chan` with `ctx`. */
struct chan_call new_call(enum form form);

bool form_sends(enum form form);

/* Make the call: for a place. */
void call_chan(void *arg);

/* What the partner of a waiting call does: take the value of a send, bring one to a receive. */
enum cf_code meet(enum form form, int *value);

struct cf_chan *new_chan(size_t capacity);

#endif
