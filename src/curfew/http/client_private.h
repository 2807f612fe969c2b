/* SPDX-License-Identifier: MIT */
/* What the parts of the HTTP client share: see client.h.
 *
 * client.c is its life and how libcurl runs on a loop, client_do.c one request, client_rules.c what
 * may be reached, client_trust.c who is believed to be there. */
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
struct cf__trust;
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
    struct cf__trust *trust; /* NULL: no rule allows https. */
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

/* Whether there is a host that a request may go to by https. */
bool cf__rules_allow_https(const struct cf__rules *rules);

/* Whether a socket may be connected to this address for the sake of a rule that does not name
 * it. */
bool cf__rules_allow_address(const struct cf__rules *rules, const struct cf__address *address);

/* Trust */

/* Once, before all else, when libcurl has been started. */
void cf__trust_init(void);

/* Read the certificates of who is trusted, from the disk. `ca_file` as in the client's options,
 * borrowed until the end. A system's that cannot be used is no failure before cf__trust_check().
 * Fails with CF_EINVAL, CF_EIO, both naming the file; CF_ENOMEM. */
CF_MUST enum cf_code cf__trust_new(const char *ca_file, struct cf__trust **out, struct cf_err *err);
void cf__trust_free(struct cf__trust *trust);

/* Whether they could be read. Fails with CF_EUNAVAIL, naming the file. */
CF_MUST enum cf_code cf__trust_check(const struct cf__trust *trust, struct cf_err *err);

/* Have libcurl trust them for `easy`, and nobody else. False: there is no memory. */
bool cf__trust_apply(const struct cf__trust *trust, CURL *easy);

#endif
