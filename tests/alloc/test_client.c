/* SPDX-License-Identifier: MIT */
/* A request of the HTTP client, from making the client to its last byte, in which an allocation
 * fails, or all from one on: whole, by a name that has to be resolved, one that its deadline ends
 * while it waits for the reply, and one of a client that has certificates to read.
 *
 * Invariant: it succeeds, or fails for want of memory, in time; and with memory again the next
 * request of the same client succeeds. When the client is freed, as many blocks are left as before.
 *
 * The process under test is the worker itself, as in test_sync.c; whom it asks is the test. */
#include <check.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curfew/client.h>
#include <curfew/clock.h>
#include <curfew/loop.h>

#include "peer.h"
#include "places.h"
#include "sweep.h"

/* Constants and types */

/* Who waits so long waits for ever. */
#define LOST_NS (20 * CF_SECOND)
#define LOST_SECONDS 60 /* And where no context ends the wait. */

/* Of a request that nobody answers. */
#define SHORT_NS (5 * CF_MS)

/* So often everything is done before blocks are counted: what is made once has been made. */
#define WARM_UPS 4

#define DESCRIPTORS 64

/* More than the client has room for at first. */
#define BODY_SIZE 6000

enum server {
    ANSWERING,
    SILENT,
    SERVERS,
};

static const struct scenario {
    const char *name;
    const char *host;
    enum server server;
    int64_t timeout_ns;
    enum cf_code code; /* If nothing fails. */
    enum cf_code why;  /* Why it may fail, beside CF_ENOMEM. */
    bool trusts;       /* Its client could ask by https. */
} scenarios[] = {
    {"request", "127.0.0.1", ANSWERING, LOST_NS, CF_OK, CF_ENOMEM},
    {"request by name", "localhost", ANSWERING, LOST_NS, CF_OK, CF_EUNAVAIL},
    {"request that ends early", "127.0.0.1", SILENT, SHORT_NS, CF_EDEADLINE, CF_ENOMEM},
    {"client that trusts", "127.0.0.1", ANSWERING, LOST_NS, CF_OK, CF_ENOMEM, .trusts = true},
};

#define SCENARIOS ((int)(sizeof(scenarios) / sizeof(scenarios[0])))

/* What all workers of a test have. */
struct test {
    const struct scenario *scenario;
    uint16_t ports[SERVERS];
    char allow[160];
    char ca_file[32]; /* "": none. */
};

/* One worker's. */
struct run {
    const struct test *test;
    struct nth *nth;
    struct cf_loop *loop;
    struct cf_client *client;
    long blocks; /* At rest. */
    int sweep;
    enum nth_mode mode; /* NTH_OFF: a warm-up. */
};

/* Helpers */

/* A request, in a fiber. */
struct call {
    struct cf_client *client;
    char url[64];
    int64_t timeout_ns;
    bool is_whole; /* The reply is what was sent. */
    enum cf_code code;
    struct cf_err err;
};

static bool is_whole(const struct cf_client_reply *reply)
{
    const char *kind = cf_client_reply_header(reply, "x-kind");

    return reply->status == 200 && reply->body_size == BODY_SIZE &&
           strspn(reply->body, "x") == BODY_SIZE && kind != NULL && strcmp(kind, "test") == 0;
}

static void do_call(void *arg)
{
    static const struct cf_client_header header = {"X-Asked-By", "test"};
    struct call *call = arg;
    struct cf_client_request request = {.url = call->url,
                                        .headers = &header,
                                        .n_headers = 1,
                                        .body = "hello",
                                        .body_size = strlen("hello")};
    struct cf_client_reply *reply = NULL;
    struct cf_ctx *ctx = NULL;

    call->code = cf_ctx_with_timeout(cf_ctx_background(), call->timeout_ns, &ctx, &call->err);
    if (call->code == CF_OK) {
        call->code = cf_client_do(ctx, call->client, &request, &reply, &call->err);
    }
    if (call->code == CF_OK) {
        call->is_whole = is_whole(reply);
        cf_client_reply_free(reply);
    }
    cf_ctx_free(ctx);
}

static void call(struct run *run, const struct scenario *scenario, struct call *out)
{
    struct cf_err err;

    *out = (struct call){.client = run->client, .timeout_ns = scenario->timeout_ns};
    (void)snprintf(out->url, sizeof(out->url), "http://%s:%u/", scenario->host,
                   (unsigned)run->test->ports[scenario->server]);
    if (cf_loop_call(run->loop, do_call, out, &err) != CF_OK) {
        out->code = err.code;
    }
}

static enum cf_code make_client(struct run *run, struct cf_err *err)
{
    const char *ca_file = run->test->ca_file;
    const struct cf_client_options options = {.allow = run->test->allow,
                                              .ca_file = ca_file[0] != '\0' ? ca_file : NULL};

    return cf_client_new(&options, &run->loop, 1, &run->client, err);
}

/* The client's, while something fails. */
static void call_without_memory(struct run *run, long n)
{
    const struct scenario *scenario = run->test->scenario;
    struct call first = {.code = CF_OK};
    struct cf_err err;
    enum cf_code code;

    nth_arm(run->nth, run->sweep, n, run->mode);
    code = make_client(run, &err);
    if (code == CF_OK) {
        call(run, scenario, &first);
    }
    (void)nth_off(run->nth);
    ck_assert_msg(code == CF_OK || code == CF_ENOMEM, "%s: new: %s", nth_say(run->nth), err.msg);
    if (code != CF_OK) {
        run->client = NULL;
        return;
    }
    ck_assert_msg(first.code == scenario->code || first.code == CF_ENOMEM ||
                      first.code == scenario->why,
                  "%s: %s: %s", nth_say(run->nth), cf_code_name(first.code), first.err.msg);
    ck_assert_msg(first.code != CF_OK || first.is_whole, "%s", nth_say(run->nth));
}

/* Once while something fails, and once when nothing does. */
static void visit(struct run *run, long n)
{
    struct call next;
    struct cf_err err;

    (void)alarm(LOST_SECONDS);
    run->client = NULL;
    if (run->mode != NTH_OFF) {
        call_without_memory(run, n);
    }
    if (run->client == NULL) {
        ck_assert_msg(make_client(run, &err) == CF_OK, "%s: %s", nth_say(run->nth), err.msg);
    }
    call(run, &scenarios[0], &next);
    ck_assert_msg(next.code == CF_OK, "%s: then: %s: %s", nth_say(run->nth),
                  cf_code_name(next.code), next.err.msg);
    ck_assert_msg(next.is_whole, "%s", nth_say(run->nth));
    if (run->mode == NTH_OFF) {
        call(run, run->test->scenario, &next);
        ck_assert_int_eq(next.code, run->test->scenario->code);
    }
    cf_client_free(run->client);
    OPENSSL_thread_stop(); /* It keeps the text of an error for the thread's next one. */
}

/* With that of the loop. */
static void warm_up(struct worker *worker, struct run *run)
{
    run->mode = NTH_OFF;
    for (int i = 0; i < WARM_UPS; i++) {
        visit(run, 0);
    }
    run->blocks = sweep_blocks_at_rest(worker, 2);
}

static void run_once(struct worker *worker, void *arg)
{
    struct run *run = arg;
    long n = atomic_load(&worker->nth->n);

    (void)nth_off(worker->nth); /* Until it is at the place. */
    visit(run, n);
    /* OpenSSL (3.0) loses blocks of its own for want of some. */
    if (!run->test->scenario->trusts) {
        sweep_wait_freed(worker, run->blocks);
    }
}

static void work(struct worker *worker, void *arg)
{
    struct run run = {.test = arg, .nth = worker->nth};
    struct cf_err err;

    worker->every_n = true;
    sweep_attach(worker, 1, DESCRIPTORS);
    ck_assert_int_eq(cf_loop_new(NULL, &run.loop, &err), CF_OK);
    warm_up(worker, &run);
    for (run.sweep = 0; run.sweep < 2; run.sweep++) {
        run.mode = run.sweep == 0 ? NTH_ONCE : NTH_FROM_NOW;
        sweep_run(worker, run.sweep, run.mode, run_once, &run);
    }
    cf_loop_free(run.loop);
}

static char *write_reply(void)
{
    char *reply = NULL;
    char body[BODY_SIZE + 1];

    memset(body, 'x', BODY_SIZE);
    body[BODY_SIZE] = '\0';
    ck_assert_int_gt(asprintf(&reply,
                              "HTTP/1.1 200 OK\r\nX-Kind: test\r\nContent-Length: %d\r\n\r\n%s",
                              BODY_SIZE, body),
                     0);
    return reply;
}

/* A certificate to read, and a rule that it is read for. */
static void have_trust(struct test *test)
{
    char command[160];

    (void)strcpy(test->ca_file, "/tmp/curfew-alloc-XXXXXX");
    (void)close(mkstemp(test->ca_file));
    (void)snprintf(command, sizeof(command),
                   "openssl req -x509 -newkey rsa:2048 -nodes -keyout /dev/null -out %s -subj /CN=a"
                   " >/dev/null 2>&1",
                   test->ca_file);
    ck_assert_int_eq(system(command), 0);
    (void)strcat(test->allow, " https://127.0.0.1");
}

START_TEST(requests_without_memory)
{
    struct test test = {.scenario = &scenarios[_i]};
    char *reply = write_reply();
    struct peer *peers[SERVERS];
    struct worker worker;

    peers[ANSWERING] = peer_new(reply, PEER_KEEP);
    peers[SILENT] = peer_new(NULL, PEER_KEEP);
    for (int i = 0; i < SERVERS; i++) {
        test.ports[i] = peer_port(peers[i]);
    }
    (void)snprintf(test.allow, sizeof(test.allow),
                   "http://localhost:%1$u http://127.0.0.1:%1$u http://127.0.0.1:%2$u 127.0.0.0/8 "
                   "::1/128",
                   (unsigned)test.ports[ANSWERING], (unsigned)test.ports[SILENT]);
    if (test.scenario->trusts) {
        have_trust(&test);
    }
    sweep_init(&worker);
    sweep_share(work, &test);
    sweep_print(0, test.scenario->name, "once");
    sweep_print(1, test.scenario->name, "from then on");
    for (int i = 0; i < SERVERS; i++) {
        peer_free(peers[i]);
    }
    free(reply);
    (void)unlink(test.ca_file); /* Fails where there is none. */
}
END_TEST

Suite *suite_client(void)
{
    Suite *suite = suite_create("client");
    TCase *tc = tcase_create("client");

    tcase_add_loop_test(tc, requests_without_memory, 0, SCENARIOS);
    tcase_set_timeout(tc, SWEEP_TIMEOUT);
    suite_add_tcase(suite, tc);
    return suite;
}
