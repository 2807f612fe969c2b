/* SPDX-License-Identifier: MIT */
/* See client_kit.h. */
#include "client_kit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/wait.h>

/* Fixture */

struct cf_loop *loop;
struct cf_client *client;
struct peer *peer;

char url[64];

void setup_client(void)
{
    ck_assert_int_eq(cf_loop_new(NULL, &loop, NULL), CF_OK);
    client = NULL;
    peer = NULL;
}

void teardown_client(void)
{
    cf_client_free(client);
    if (peer != NULL) {
        peer_free(peer);
    }
    cf_loop_free(loop);
}

/* Helpers */

void use_peer(const char *reply, enum peer_then then)
{
    peer = peer_new(reply, then);
    (void)snprintf(url, sizeof(url), HERE "%u/path?q=1", peer_port(peer));
}

void use_client(struct cf_client_options options)
{
    char rule[64];
    struct cf_err err = {.msg = ""};

    if (options.allow == NULL) {
        (void)snprintf(rule, sizeof(rule), HERE "%u", peer_port(peer));
        options.allow = rule;
    }
    ck_assert_msg(cf_client_new(&options, &loop, 1, &client, &err) == CF_OK, "%s", err.msg);
}

void run_job(void *arg)
{
    struct job *job = arg;
    struct cf_ctx *ctx = job->ctx != NULL ? job->ctx : cf_ctx_background();
    struct cf_ctx *done = job->done != NULL ? cf_ctx_ref(job->done) : NULL;
    int64_t since_ns = cf_now_ns();

    job->code = cf_client_do(ctx, client, &job->request, &job->reply, &job->err);
    job->took_ns = cf_now_ns() - since_ns;
    if (done != NULL) {
        cf_ctx_cancel(done); /* Who waited for it may free the job now. */
        cf_ctx_unref(done);
    }
}

struct job do_request(struct cf_client_request request, struct cf_ctx *ctx)
{
    struct job job = {.request = request, .ctx = ctx};

    ck_assert_int_eq(cf_loop_call(loop, run_job, &job, NULL), CF_OK);
    return job;
}

struct job get(const char *where)
{
    return do_request((struct cf_client_request){.url = where}, NULL);
}

TCase *add_client_case(Suite *suite, const char *name)
{
    TCase *tc = tcase_create(name);

    tcase_add_checked_fixture(tc, setup_client, teardown_client);
    suite_add_tcase(suite, tc);
    return tc;
}
