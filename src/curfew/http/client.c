/* SPDX-License-Identifier: MIT */
/* The life of an HTTP client, and how libcurl runs on a loop: see client.h.
 *
 * Each loop has a multi handle of its own. libcurl says which sockets to watch and when it wants to
 * be called; each such call is followed by a look at what has ended, which wakes who waits. libcurl
 * is entered by callbacks of the loop, and by a fiber only to add and to remove a handle: so the
 * stack that it does its work on is the loop's. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <curfew/lane.h>

#include "curfew/http/client_private.h"
#include "curfew/http/defaults.h"

/* Constants and types */

#define CONNECTIONS_DEFAULT 64
#define HOST_DEFAULT 16
#define BODY_SIZE_DEFAULT ((size_t)1024 * 1024)
#define HEAD_SIZE_DEFAULT ((size_t)64 * 1024)
#define TIMEOUT_DEFAULT_NS (30 * CF_SECOND)
#define CONNECT_TIMEOUT_DEFAULT_NS (5 * CF_SECOND)
#define USER_AGENT_DEFAULT "curfew/" CF_VERSION

/* Names being resolved at once, and waiting for it. */
#define RESOLVE_THREADS 8
#define RESOLVE_QUEUE 10000

/* One of libcurl's sockets. */
struct watched {
    struct cf__client_side *side;
    curl_socket_t fd;
    struct cf__watch *watch;
};

/* Internal helpers: libcurl on the loop */

/* Wake who waits for it, unless that was done, or its context was first. */
static void end_call(struct cf__client_call *call, CURLcode result)
{
    if (cf__wait_end(&call->wait, CF__WAIT_READY)) {
        call->result = result; /* It runs later, on this thread. */
    }
}

static void end_transfer(CURL *easy, CURLcode result)
{
    char *private = NULL;

    /* NULL: a handle of libcurl's own, which closes connections. */
    if (curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private) == CURLE_OK && private != NULL) {
        end_call((struct cf__client_call *)private, result);
    }
}

static void collect(struct cf__client_side *side)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(side->multi, &left)) != NULL) {
        if (message->msg == CURLMSG_DONE) {
            end_transfer(message->easy_handle, message->data.result);
        }
    }
}

/* libcurl had no memory to note who waits for a socket. It does not say who, so that somebody would
 * wait until his deadline; and the note is broken and stays, so that the next request with such a
 * descriptor would have it divide by zero (7.88). All requests end, and it begins anew. */
static void give_up(struct cf__client_side *side)
{
    for (struct cf__list *node = side->running.next; node != &side->running; node = node->next) {
        end_call(CF__CONTAINER(node, struct cf__client_call, node), CURLE_OUT_OF_MEMORY);
        side->is_broken = true;
    }
}

static void drive(struct cf__client_side *side, curl_socket_t fd, int events)
{
    CURLMcode code;
    int running;

    if (side->is_broken) {
        return;
    }
    code = curl_multi_socket_action(side->multi, fd, events, &running);
    collect(side);
    if (code != CURLM_OK) {
        give_up(side);
    }
}

/* `arg` may be gone behind this: libcurl may close the socket in it. */
static void on_socket_ready(void *arg, int status, int events)
{
    struct watched *watched = arg;
    int curl_events = 0;

    curl_events |= status < 0 ? CURL_CSELECT_ERR : 0;
    curl_events |= (events & UV_READABLE) != 0 ? CURL_CSELECT_IN : 0;
    curl_events |= (events & UV_WRITABLE) != 0 ? CURL_CSELECT_OUT : 0;
    drive(watched->side, watched->fd, curl_events);
}

static void on_time(uv_timer_t *timer)
{
    drive(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

/* libcurl: when to call it. -1: not at all. */
static int set_timer(CURLM *multi, long timeout_ms, void *arg)
{
    struct cf__client_side *side = arg;

    (void)multi;
    if (timeout_ms < 0) {
        (void)uv_timer_stop(&side->timer);
    } else {
        uv_update_time(cf__loop_uv(side->loop));
        (void)uv_timer_start(&side->timer, on_time, (uint64_t)timeout_ms, 0);
    }
    return 0;
}

static struct watched *watch_socket(struct cf__client_side *side, curl_socket_t fd)
{
    struct watched *watched = calloc(1, sizeof(*watched));

    if (watched == NULL) {
        return NULL;
    }
    watched->side = side;
    watched->fd = fd;
    if (cf__watch_open(side->loop, fd, on_socket_ready, watched, &watched->watch, NULL) != CF_OK) {
        free(watched);
        return NULL;
    }
    return watched;
}

/* libcurl: what to watch a socket for. What cannot be watched is ended here: to tell libcurl so
 * would end everything on this loop, for ever. */
static int set_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
    struct cf__client_side *side = arg;
    struct watched *watched = socket_arg;
    int events = 0;

    if (what == CURL_POLL_REMOVE) {
        if (watched != NULL) {
            cf__watch_close(watched->watch);
            free(watched);
        }
        return 0;
    }
    if (watched == NULL) {
        watched = watch_socket(side, fd);
        if (watched == NULL) {
            end_transfer(easy, CURLE_OUT_OF_MEMORY);
            return 0;
        }
        (void)curl_multi_assign(side->multi, fd, watched); /* Fails only for another's socket. */
    }
    events |= (what & CURL_POLL_IN) != 0 ? UV_READABLE : 0;
    events |= (what & CURL_POLL_OUT) != 0 ? UV_WRITABLE : 0;
    cf__watch_events(watched->watch, events);
    return 0;
}

/* Internal helpers: open and close */

static bool set_up(struct cf__client_side *side)
{
    const struct cf_client_options *options = &side->client->options;
    CURLM *multi = side->multi;

    return curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, set_socket) == CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, side) == CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_timer) == CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_TIMERDATA, side) == CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS,
                             (long)options->connections_max) == CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)options->host_max) ==
               CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long)options->connections_max) ==
               CURLM_OK;
}

static bool make_multi(struct cf__client_side *side)
{
    side->multi = curl_multi_init();
    if (side->multi != NULL && !set_up(side)) {
        (void)curl_multi_cleanup(side->multi);
        side->multi = NULL;
    }
    return side->multi != NULL;
}

/* Closes what is kept open. */
static void drop_multi(struct cf__client_side *side)
{
    if (side->multi != NULL) {
        (void)curl_multi_cleanup(side->multi);
        (void)uv_timer_stop(&side->timer);
        side->multi = NULL;
    }
    side->is_broken = false;
}

static enum cf_code open_side(void *arg, struct cf_err *err)
{
    struct cf__client_side *side = arg;

    if (!make_multi(side)) {
        return cf_err_set(err, CF_ENOMEM, "no memory for an HTTP client");
    }
    (void)uv_timer_init(cf__loop_uv(side->loop), &side->timer); /* Cannot fail. */
    side->timer.data = side;
    side->is_open = true;
    return CF_OK;
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct cf__client_side *side = handle->data;

    (void)cf__wait_end(side->closed, CF__WAIT_READY);
}

static void close_side(struct cf__message *message)
{
    struct cf__client_side *side = CF__CONTAINER(message, struct cf__client_side, close_message);

    CF_ASSERT(cf__list_empty(&side->running));
    drop_multi(side);
    uv_close((uv_handle_t *)&side->timer, on_timer_closed);
}

static enum cf_code open_sides(struct cf_client *client, struct cf_loop *const *loops,
                               struct cf_err *err)
{
    enum cf_code code = CF_OK;

    for (size_t i = 0; i < client->n_sides && code == CF_OK; i++) {
        struct cf__client_side *side = &client->sides[i];

        side->client = client;
        side->loop = loops[i];
        side->close_message.run = close_side;
        cf__list_init(&side->running);
        code = cf__loop_call_code(side->loop, open_side, side, err);
    }
    return code;
}

static void close_sides(struct cf_client *client)
{
    for (size_t i = 0; i < client->n_sides; i++) {
        struct cf__client_side *side = &client->sides[i];
        struct cf__wait wait;

        if (side->is_open) {
            cf__wait_init(&wait);
            side->closed = &wait;
            cf__loop_post(side->loop, &side->close_message);
            (void)cf__wait_park(NULL, &wait);
        }
    }
}

static bool copy_string(const char **field, const char *value)
{
    *field = value != NULL ? strdup(value) : NULL;
    return value == NULL || *field != NULL;
}

static enum cf_code take_options(struct cf_client *client, const struct cf_client_options *given,
                                 struct cf_err *err)
{
    struct cf_client_options *options = &client->options;
    const char *user_agent = given->user_agent != NULL ? given->user_agent : USER_AGENT_DEFAULT;

    *options = *given;
    options->allow = NULL; /* Read into the rules. */
    cf__default_size(&options->connections_max, CONNECTIONS_DEFAULT);
    cf__default_size(&options->host_max, HOST_DEFAULT);
    cf__default_size(&options->body_size_max, BODY_SIZE_DEFAULT);
    cf__default_size(&options->head_size_max, HEAD_SIZE_DEFAULT);
    cf__default_ns(&options->timeout_max_ns, TIMEOUT_DEFAULT_NS);
    cf__default_ns(&options->connect_timeout_ns, CONNECT_TIMEOUT_DEFAULT_NS);
    options->ca_file = NULL; /* Should the first copy fail, there is nothing to free in it. */
    if (!copy_string(&options->user_agent, user_agent) ||
        !copy_string(&options->ca_file, given->ca_file)) {
        return cf_err_set(err, CF_ENOMEM, "no memory for an HTTP client");
    }
    return CF_OK;
}

static CURLcode global_result;

/* Once: libcurl puts its version into memory that all threads share. */
static void init_libcurl(void)
{
    global_result = curl_global_init(CURL_GLOBAL_DEFAULT);
    cf__trust_init();
}

/* Life cycle */

enum cf_code cf_client_new(const struct cf_client_options *options, struct cf_loop *const *loops,
                           size_t n_loops, struct cf_client **out, struct cf_err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct cf_client *client;
    enum cf_code code;

    CF_ASSERT(n_loops > 0);
    (void)pthread_once(&once, init_libcurl);
    if (global_result != CURLE_OK) {
        return cf_err_set(err, CF_EIO, "start libcurl: %s", curl_easy_strerror(global_result));
    }
    client = calloc(1, sizeof(*client) + n_loops * sizeof(client->sides[0]));
    if (client == NULL) {
        return cf_err_set(err, CF_ENOMEM, "no memory for an HTTP client");
    }
    client->n_sides = n_loops;
    code = take_options(client, options, err);
    if (code == CF_OK) {
        code = cf__rules_new(options->allow != NULL ? options->allow : "", &client->rules, err);
    }
    if (code == CF_OK && cf__rules_allow_https(client->rules)) {
        code = cf__trust_new(client->options.ca_file, &client->trust, err);
    }
    if (code == CF_OK) {
        code =
            cf_lane_new("cf-resolve", RESOLVE_THREADS, RESOLVE_QUEUE, &client->resolve_lane, err);
    }
    if (code == CF_OK) {
        code = open_sides(client, loops, err);
    }
    if (code != CF_OK) {
        cf_client_free(client);
        return code;
    }
    *out = client;
    return CF_OK;
}

void cf_client_free(struct cf_client *client)
{
    if (client == NULL) {
        return;
    }
    close_sides(client);
    cf_lane_free(client->resolve_lane);
    cf__trust_free(client->trust);
    cf__rules_free(client->rules);
    free((char *)client->options.user_agent);
    free((char *)client->options.ca_file);
    free(client);
}

/* Operations */

enum cf_code cf__client_perform(struct cf_ctx *ctx, struct cf__client_call *call, CURL *easy,
                                struct cf_err *err)
{
    struct cf__client_side *side = call->side;
    enum cf__wait_outcome outcome;

    cf__wait_init(&call->wait);
    if (side->is_broken || (side->multi == NULL && !make_multi(side)) ||
        curl_easy_setopt(easy, CURLOPT_PRIVATE, call) != CURLE_OK ||
        curl_multi_add_handle(side->multi, easy) != CURLM_OK) {
        return cf_err_set(err, CF_ENOMEM, "no memory for a request");
    }
    cf__list_push(&side->running, &call->node);
    outcome = cf__wait_park(ctx, &call->wait);
    (void)curl_multi_remove_handle(side->multi, easy); /* Aborts what is not over. */
    cf__list_unlink(&call->node);
    if (side->is_broken && cf__list_empty(&side->running)) {
        drop_multi(side);
    }
    return outcome == CF__WAIT_READY ? CF_OK : cf_ctx_check(ctx, err);
}
