/* SPDX-License-Identifier: MIT */
/* What the parts of the HTTP client share: see client.h.
 *
 * client.c is its life and how libcurl runs on a loop, client_do.c one request, client_rules.c what
 * may be reached. */
#ifndef CURFEW_HTTP_CLIENT_PRIVATE_H
#define CURFEW_HTTP_CLIENT_PRIVATE_H

#include <curl/curl.h>
#include <uv.h>

#include <curfew/client.h>

#include "curfew/core/list.h"
#include "curfew/http/address.h"
#include "curfew/runtime/loop_private.h"
#include "curfew/runtime/waiting.h"

struct cf__rules;
struct cf_lane;

/* The client on one loop. */
struct cf__client_side {
    struct cf_client *client; /* Constant after new. */
    struct cf_loop *loop;

    bool is_open; /* Loop thread only, as is all below. */
    CURLM *multi; /* NULL: it was broken, and is made anew for the next request. */
    uv_timer_t timer;
    struct cf__list running; /* Calls that are libcurl's. */
    bool is_broken;          /* So all of them are to end, and then `multi` is dropped. */
    struct cf__message close_message;
    struct cf__wait *closed; /* Of who waits for the timer to be closed. */
};

struct cf_client {
    struct cf_client_options options; /* Constant after new, as is all. Strings owned. */
    struct cf__rules *rules;
    struct cf_lane *resolve_lane;
    bool trusts_a_file; /* Ours or the system's: no directory is needed. */
    size_t n_sides;
    struct cf__client_side sides[];
};

/* One exchange with libcurl: a request, or one leg of it where it was redirected.
 * On the stack of who waits. */
struct cf__client_call {
    struct cf__client_side *side;
    struct cf__list node; /* In side->running. */
    struct cf__wait wait;
    CURLcode result; /* Once the wait is READY. */
};

/* Have libcurl carry out `easy` on this loop, and wait. In any case it is libcurl's no more then.
 * On success call->result is what came of it.
 * Fails with CF_ENOMEM; as `ctx` does: it was aborted. */
CF_MUST enum cf_code cf__client_perform(struct cf_ctx *ctx, struct cf__client_call *call,
                                        CURL *easy, struct cf_err *err);

/* Rules */

/* Fails with CF_EINVAL, naming the rule; CF_ENOMEM. */
CF_MUST enum cf_code cf__rules_new(const char *text, struct cf__rules **out, struct cf_err *err);
void cf__rules_free(struct cf__rules *rules);

enum cf__allowed {
    CF__REFUSED,
    CF__ALLOWED,         /* If its address is. */
    CF__ALLOWED_ADDRESS, /* It is an address, and a rule names it. */
};

/* Whether a request may go to this host. `host` as in a URL, without brackets. */
enum cf__allowed cf__rules_allow_host(const struct cf__rules *rules, const char *scheme,
                                      const char *host, unsigned port);

/* Whether a socket may be connected to this address for the sake of a rule
 * that does not name it. */
bool cf__rules_allow_address(const struct cf__rules *rules, const struct cf__address *address);

#endif
