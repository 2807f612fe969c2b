/* SPDX-License-Identifier: MIT */
/* What the tests of channels share: see chan_kit.h. */
#include "chan_kit.h"

#include <check.h>
#include <stdlib.h>

#include "fault.h"

/* Fixture */

struct cf_chan *chan;
struct cf_chan *idle;

void setup_chans(void)
{
    setup_waits();
    chan = new_chan(0);
    idle = new_chan(0);
}

void teardown_chans(void)
{
    cf_chan_free(chan);
    cf_chan_free(idle);
    chan = NULL;
    idle = NULL;
    teardown_waits();
}

struct cf_chan *new_chan(size_t capacity)
{
    struct cf_chan *made;

    if (cf_chan_new(sizeof(int), capacity, &made, NULL) != CF_OK) {
        abort();
    }
    return made;
}

void renew_chan(size_t capacity, int filled)
{
    cf_chan_free(chan);
    chan = new_chan(capacity);
    for (int i = 0; i < filled; i++) {
        ck_assert_int_eq(cf_chan_try_send(chan, &i, &failure), CF_OK);
    }
}

/* Calls */

bool form_sends(enum form form)
{
    return form == FORM_SEND || form == FORM_SELECT_SEND;
}

struct chan_call new_call(enum form form)
{
    return (struct chan_call){
        .form = form, .ch = chan, .ctx = ctx, .value = form_sends(form) ? 7 : -1, .index = 9};
}

static enum cf_code do_call(struct cf_ctx *of, struct chan_call *call)
{
    int never = -1;
    struct cf_chan_case cases[] = {
        {CF_CHAN_RECV, idle, &never},
        {form_sends(call->form) ? CF_CHAN_SEND : CF_CHAN_RECV, call->ch, &call->value},
    };

    switch (call->form) {
    case FORM_SEND:
        return cf_chan_send(of, call->ch, &call->value, &call->err);
    case FORM_RECV:
        return cf_chan_recv(of, call->ch, &call->value, &call->err);
    case FORM_SELECT_SEND:
    case FORM_SELECT_RECV:
        return cf_chan_select(of, cases, 2, &call->index, &call->err);
    case FORMS:
        break;
    }
    abort();
}

void call_chan(void *arg)
{
    struct chan_call *call = arg;
    struct cf_ctx *of = call->ctx;

    if (call->timeout_ns > 0 &&
        cf_ctx_with_timeout(call->ctx, call->timeout_ns, &of, NULL) != CF_OK) {
        abort();
    }
    fault_alloc(call->fail_nth, true);
    call->code = do_call(of, call);
    call->struck = fault_off();
    call->ended_ns = cf_now_ns();
    if (of != call->ctx) {
        cf_ctx_free(of);
    }
}

enum cf_code meet(enum form form, int *value)
{
    return form_sends(form) ? cf_chan_try_recv(chan, value, NULL)
                            : cf_chan_try_send(chan, value, NULL);
}
