/* SPDX-License-Identifier: MIT */
/* The life of a server: see http.h. What happens on each loop is shard.c's.
 *
 * Everything that a stop waits for is a context: a shard is drained or closed when its context is
 * done, and the grace is one that ends by its deadline, or at once when somebody hurries. So the
 * stopping thread sleeps in cf_wait_done() and looks at nothing twice. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curfew/wait.h>

#include "curfew/http/defaults.h"
#include "curfew/http/listen.h"
#include "curfew/http/quota.h"
#include "curfew/http/server_private.h"
#include "curfew/http/verbatim.h"

#define TIMEOUT_DEFAULT_NS (5 * CF_SECOND)
#define TIMEOUT_MAX_DEFAULT_NS (60 * CF_SECOND)
#define IDLE_TIMEOUT_DEFAULT_NS (60 * CF_SECOND)
#define HEAD_TIMEOUT_DEFAULT_NS (10 * CF_SECOND)
#define BODY_TIMEOUT_DEFAULT_NS (30 * CF_SECOND)
#define SEND_TIMEOUT_DEFAULT_NS (30 * CF_SECOND)
#define CONNECTIONS_MAX_DEFAULT 10000
#define IN_FLIGHT_MAX_DEFAULT 8192
#define HEAD_SIZE_MAX_DEFAULT ((size_t)14 * 1024)
#define TARGET_SIZE_MAX_DEFAULT ((size_t)8 * 1024)
#define FIELDS_MAX_DEFAULT 100
#define BODY_SIZE_MAX_DEFAULT ((size_t)1024 * 1024)
#define BODIES_SIZE_MAX_DEFAULT ((size_t)64 * 1024 * 1024)

/* Internal helpers */

static void fill_in_defaults(struct cf_http_options *options)
{
    options->listen = NULL; /* Copied into the sockets. */
    cf__default_ns(&options->timeout_default_ns, TIMEOUT_DEFAULT_NS);
    cf__default_ns(&options->timeout_max_ns, TIMEOUT_MAX_DEFAULT_NS);
    cf__default_ns(&options->idle_timeout_ns, IDLE_TIMEOUT_DEFAULT_NS);
    cf__default_ns(&options->head_timeout_ns, HEAD_TIMEOUT_DEFAULT_NS);
    cf__default_ns(&options->body_timeout_ns, BODY_TIMEOUT_DEFAULT_NS);
    cf__default_ns(&options->send_timeout_ns, SEND_TIMEOUT_DEFAULT_NS);
    cf__default_size(&options->connections_max, CONNECTIONS_MAX_DEFAULT);
    cf__default_size(&options->in_flight_max, IN_FLIGHT_MAX_DEFAULT);
    cf__default_size(&options->head_size_max, HEAD_SIZE_MAX_DEFAULT);
    cf__default_size(&options->target_size_max, TARGET_SIZE_MAX_DEFAULT);
    cf__default_size(&options->fields_max, FIELDS_MAX_DEFAULT);
    cf__default_size(&options->gzip_size_min, CF_HTTP_GZIP_SIZE_MIN);
    cf__default_size(&options->gzip_size_max, CF_HTTP_GZIP_SIZE_MAX);
    cf__default_size(&options->body_size_max, BODY_SIZE_MAX_DEFAULT);
    cf__default_size(&options->bodies_size_max, BODIES_SIZE_MAX_DEFAULT);
}

/* The most that any route takes. */
static size_t largest_body(const struct cf_http_options *options)
{
    size_t largest = options->body_size_max;

    for (size_t i = 0; i < options->n_routes; i++) {
        if (options->routes[i].body_size_max > largest) {
            largest = options->routes[i].body_size_max;
        }
    }
    return largest;
}

/* What the options say about clients, and what they are counted by. */
static enum cf_code make_admission(struct cf_http_server *server, struct cf_err *err)
{
    struct cf_http_options *options = &server->options;
    enum cf_code code = CF_OK;

    if (options->trusted_proxies != NULL && options->trusted_proxies[0] != '\0') {
        code = cf__networks_new(options->trusted_proxies, &server->trusted, err);
        if (code != CF_OK) {
            return cf_err_wrap(err, code, "trusted proxies");
        }
    }
    options->trusted_proxies = NULL; /* Copied. */
    if (options->connections_per_address_max > 0) {
        code = cf__quota_new(options->connections_per_address_max, &server->quota, err);
    }
    return code;
}

static enum cf_code make_contexts(struct cf_http_server *server, struct cf_err *err)
{
    enum cf_code code = cf_ctx_with_cancel(cf_ctx_background(), &server->root, err);

    if (code == CF_OK) {
        code = cf_ctx_with_cancel(cf_ctx_background(), &server->hurry, err);
    }
    for (size_t i = 0; i < server->n_shards && code == CF_OK; i++) {
        code = cf_ctx_with_cancel(cf_ctx_background(), &server->shards[i].drained, err);
        if (code == CF_OK) {
            code = cf_ctx_with_cancel(cf_ctx_background(), &server->shards[i].closed, err);
        }
    }
    return code;
}

static enum cf_code listen_on(struct cf_http_server *server, const char *address,
                              struct cf_err *err)
{
    int *fds = calloc(server->n_shards, sizeof(*fds));
    enum cf_code code;

    if (fds == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a server");
    }
    code = cf__listen(address, server->n_shards, fds, &server->port, err);
    for (size_t i = 0; i < server->n_shards && code == CF_OK; i++) {
        server->shards[i].listen_fd = fds[i];
    }
    free(fds);
    return code;
}

static enum cf_code open_shard(void *arg, struct cf_err *err)
{
    return cf__shard_open(arg, err);
}

static enum cf_code open_shards(struct cf_http_server *server, struct cf_err *err)
{
    enum cf_code code = CF_OK;

    while (server->n_open < server->n_shards && code == CF_OK) {
        struct cf__shard *shard = &server->shards[server->n_open];

        code = cf__loop_call_code(shard->loop, open_shard, shard, err);
        server->n_open += code == CF_OK;
    }
    return code;
}

static struct cf__shard *make_shards(struct cf_http_server *server, struct cf_loop *const *loops)
{
    size_t size = server->n_shards * sizeof(struct cf__shard);
    struct cf__shard *shards = aligned_alloc(alignof(struct cf__shard), size);

    if (shards == NULL) {
        return NULL;
    }
    memset(shards, 0, size);
    for (size_t i = 0; i < server->n_shards; i++) {
        shards[i].server = server;
        shards[i].loop = loops[i];
        shards[i].listen_fd = -1;
    }
    return shards;
}

/* Wait until every shard is drained. False: `ctx` ended first. */
static bool wait_drained(struct cf_http_server *server, struct cf_ctx *ctx)
{
    for (size_t i = 0; i < server->n_open; i++) {
        if (cf_wait_done(ctx, server->shards[i].drained, NULL) != CF_OK) {
            return false;
        }
    }
    return true;
}

/* Wait until everything was answered, but not longer than the grace. */
static void wait_for_the_grace(struct cf_http_server *server, int64_t grace_ns)
{
    struct cf_ctx *grace;

    if (cf_ctx_with_timeout(server->hurry, grace_ns, &grace, NULL) == CF_OK) {
        (void)wait_drained(server, grace);
        cf_ctx_free(grace);
    } /* Without memory there is no grace. */
}

/* Life cycle */

enum cf_code cf_http_server_new(const struct cf_http_options *options, struct cf_loop *const *loops,
                                size_t n_loops, struct cf_http_server **out, struct cf_err *err)
{
    struct cf_http_server *server = calloc(1, sizeof(*server));
    enum cf_code code;

    CF_ASSERT(n_loops > 0);
    CF_ASSERT(cf_loop_current() == NULL);
    if (server == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a server");
    }
    server->options = *options;
    fill_in_defaults(&server->options);
    server->checks_head = cf__verbatim_needed();
    server->n_shards = n_loops;
    server->shards = make_shards(server, loops);
    if (server->shards == NULL) {
        code = cf_err_set(err, CF_ENOMEM, "no memory for a server");
        goto fail;
    }
    server->body_size_max = largest_body(&server->options);
    code = make_admission(server, err);
    if (code != CF_OK) {
        goto fail;
    }
    code = cf__router_new(options->routes, options->n_routes, &server->router, err);
    if (code != CF_OK) {
        goto fail;
    }
    code = make_contexts(server, err);
    if (code != CF_OK) {
        goto fail;
    }
    code = listen_on(server, options->listen, err);
    if (code != CF_OK) {
        goto fail;
    }
    code = open_shards(server, err);
    if (code != CF_OK) {
        goto fail;
    }
    *out = server;
    return CF_OK;

fail:
    cf_http_server_stop(server, 0);
    cf_http_server_free(server);
    return code;
}

void cf_http_server_stop(struct cf_http_server *server, int64_t grace_ns)
{
    CF_ASSERT(cf_loop_current() == NULL);
    if (server->stopped) {
        return;
    }
    server->stopped = true;
    if (server->n_open == 0) {
        return; /* It never came to serving. */
    }
    for (size_t i = 0; i < server->n_open; i++) {
        cf__shard_stop(&server->shards[i]);
    }
    wait_for_the_grace(server, grace_ns);
    cf_ctx_cancel_cause(server->root, CF_REASON_SHUTDOWN, NULL);
    for (size_t i = 0; i < server->n_open; i++) {
        cf__shard_cut(&server->shards[i]);
    }
    CF_ASSERT(wait_drained(server, cf_ctx_background()));
    for (size_t i = 0; i < server->n_open; i++) {
        cf__shard_close(&server->shards[i]);
    }
    for (size_t i = 0; i < server->n_open; i++) {
        CF_ASSERT(cf_wait_done(cf_ctx_background(), server->shards[i].closed, NULL) == CF_OK);
    }
}

void cf_http_server_hurry(struct cf_http_server *server)
{
    cf_ctx_cancel(server->hurry);
}

void cf_http_server_free(struct cf_http_server *server)
{
    if (server == NULL) {
        return;
    }
    CF_ASSERT(server->stopped);
    for (size_t i = 0; i < server->n_shards && server->shards != NULL; i++) {
        if (server->shards[i].listen_fd >= 0) {
            (void)close(server->shards[i].listen_fd); /* Of a shard that was never opened. */
        }
        cf_ctx_free(server->shards[i].drained);
        cf_ctx_free(server->shards[i].closed);
    }
    cf_ctx_free(server->root);
    cf_ctx_free(server->hurry);
    cf__router_free(server->router);
    cf__quota_free(server->quota);
    cf__networks_free(server->trusted);
    free(server->shards);
    free(server);
}

/* Queries */

uint16_t cf_http_server_port(const struct cf_http_server *server)
{
    return server->port;
}

void cf_http_server_stats(const struct cf_http_server *server, struct cf_http_stats *out)
{
    struct cf_http_stats stats = {0};

    for (size_t i = 0; i < server->n_shards; i++) {
        const struct cf__shard *shard = &server->shards[i];

        stats.connections += atomic_load_explicit(&shard->connections, memory_order_relaxed);
        stats.in_flight += atomic_load_explicit(&shard->in_flight, memory_order_relaxed);
        stats.requests += atomic_load_explicit(&shard->requests, memory_order_relaxed);
    }
    *out = stats;
}
