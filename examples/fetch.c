/* SPDX-License-Identifier: MIT */
/* A rate-limited client of an API: 1000 URLs, ten workers, 50 requests a second. How many at once
 * and how many a second are two limits, and both are needed. A failure is a result like any other,
 * and stops nobody else. The server is here as well, on the same loop,
 * so that this needs no network.
 *
 *     fetch            1000 at 50 a second, the first 50 at once: 19 seconds
 *     fetch 150 100    150 at 100 a second: half a second */
#include <stdio.h>
#include <stdlib.h>

#include <curfew/chan.h>
#include <curfew/client.h>
#include <curfew/clock.h>
#include <curfew/group.h>
#include <curfew/http.h>
#include <curfew/limiter.h>
#include <curfew/wait.h>

#define WORKERS 10

/* The server */

static int now_served;
static int most_served;

static enum cf_code item(struct cf_ctx *ctx, struct cf_http *http, struct cf_err *err)
{
    int64_t id;
    enum cf_code code = cf_http_param_i64(http, "id", 0, INT64_MAX, &id, err);

    if (code != CF_OK) {
        return code;
    }
    now_served++;
    most_served = now_served > most_served ? now_served : most_served;
    code = cf_sleep(ctx, CF_MS, err); /* Its work. */
    now_served--;
    if (code != CF_OK) {
        return code;
    }
    if (id % 100 == 99) {
        return cf_err_set(err, CF_ENOTFOUND, "no item %d", (int)id);
    }
    cf_http_reply_text(http, 200, "an item");
    return CF_OK;
}

static const struct cf_http_route routes[] = {{"GET", "/items/{id}", item, 0, NULL}};

/* The client */

struct api {
    struct cf_client *client;
    struct cf_limiter *limiter;
    struct cf_chan *results;
    unsigned port;
    long urls;
    long per_second;
};

struct job {
    struct api *api;
    long id;
};

struct result {
    long id;
    int status; /* 0: there is no reply. */
    struct cf_err err;
};

static enum cf_code fetch(struct cf_ctx *ctx, struct api *api, const char *url,
                          struct cf_client_reply **out, struct cf_err *err)
{
    struct cf_client_request request = {.url = url};
    enum cf_code code = cf_limiter_wait(ctx, api->limiter, 1, err);

    if (code != CF_OK) {
        return cf_err_wrap(err, code, "rate limiter");
    }
    return cf_client_do(ctx, api->client, &request, out, err);
}

static enum cf_code work(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct job *job = arg;
    struct result result = {.id = job->id};
    struct cf_client_reply *reply = NULL;
    char url[64];

    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/items/%ld", job->api->port, job->id);
    if (fetch(ctx, job->api, url, &reply, &result.err) == CF_OK) {
        result.status = reply->status;
        cf_client_reply_free(reply);
    }
    return cf_chan_send(ctx, job->api->results, &result, err); /* There is room for all. */
}

static void count(struct api *api, double took)
{
    double ideal = (double)(api->urls - api->per_second) / (double)api->per_second;
    struct result result;
    int fetched = 0;
    int missing = 0;

    cf_chan_close(api->results);
    while (cf_chan_recv(cf_ctx_background(), api->results, &result, NULL) == CF_OK) {
        fetched += result.status == 200;
        missing += result.status == 404;
        if (result.status == 0) {
            printf("%ld: %s\n", result.id, result.err.msg);
        }
    }
    printf("%d fetched, %d not found\n", fetched, missing);
    printf("more than %d at once: %s\n", WORKERS, most_served > WORKERS ? "yes" : "no");
    printf("took the right time: %s\n", took >= ideal && took < ideal + 5 ? "yes" : "no");
}

static void fetch_all(void *arg)
{
    struct api *api = arg;
    struct job *jobs = calloc((size_t)api->urls, sizeof(*jobs));
    int64_t began_ns = cf_now_ns();
    struct cf_group *group;
    struct cf_err err;

    if (jobs == NULL || cf_group_new(cf_ctx_background(), &group, &err) != CF_OK) {
        free(jobs);
        return;
    }
    cf_group_set_limit(group, WORKERS);
    for (long i = 0; i < api->urls; i++) {
        jobs[i] = (struct job){api, i};
        cf_group_go(group, work, &jobs[i]);
    }
    if (cf_group_wait(group, &err) != CF_OK) {
        printf("%s\n", err.msg);
    }
    cf_group_free(group);
    free(jobs);
    count(api, (double)(cf_now_ns() - began_ns) / (double)CF_SECOND);
}

static bool open_api(struct api *api, struct cf_loop *loop)
{
    char allow[32];
    struct cf_client_options options = {.allow = allow};

    (void)snprintf(allow, sizeof(allow), "http://127.0.0.1:%u", api->port);
    return cf_client_new(&options, &loop, 1, &api->client, NULL) == CF_OK &&
           cf_limiter_new((double)api->per_second, (int)api->per_second, &api->limiter, NULL) ==
               CF_OK &&
           cf_chan_new(sizeof(struct result), (size_t)api->urls, &api->results, NULL) == CF_OK;
}

int main(int argc, char **argv)
{
    struct api api = {.urls = argc == 3 ? strtol(argv[1], NULL, 10) : 1000,
                      .per_second = argc == 3 ? strtol(argv[2], NULL, 10) : 50};
    struct cf_http_options options = {.listen = "127.0.0.1:0", .routes = routes, .n_routes = 1};
    struct cf_http_server *server;
    struct cf_loop *loop;

    if (api.urls < 1 || api.per_second < 1) {
        return 2;
    }
    if (cf_loop_new(NULL, &loop, NULL) != CF_OK ||
        cf_http_server_new(&options, &loop, 1, &server, NULL) != CF_OK) {
        return 1;
    }
    api.port = cf_http_server_port(server);
    if (!open_api(&api, loop) || cf_loop_call(loop, fetch_all, &api, NULL) != CF_OK) {
        return 1;
    }
    cf_chan_free(api.results);
    cf_limiter_free(api.limiter);
    cf_client_free(api.client);
    cf_http_server_stop(server, CF_SECOND);
    cf_http_server_free(server);
    cf_loop_free(loop);
    return 0;
}
