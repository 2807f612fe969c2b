/* SPDX-License-Identifier: MIT */
/* A rate-limited client: URLs are fetched by ten workers, so many a second. How many at once and how
 * many a second are two limits, and both are needed.
 *
 *     rate_limit              100 URLs at 500 a second
 *     rate_limit 1000 50      the whole: 1000 URLs at 50 a second take 20 seconds */
#include <stdio.h>
#include <stdlib.h>

#include <curfew/clock.h>
#include <curfew/group.h>
#include <curfew/limiter.h>
#include <curfew/loop.h>
#include <curfew/wait.h>

#define WORKERS 10

struct client {
    struct cf_limiter *limiter;
    long urls;
    long per_second;
    int fetched;
    int running;
    int running_max;
};

/* Stands for the request over the network. */
static enum cf_code fetch(struct cf_ctx *ctx, void *arg, struct cf_err *err)
{
    struct client *client = arg;
    enum cf_code code = cf_limiter_wait(ctx, client->limiter, 1, err);

    if (code != CF_OK) {
        return cf_err_wrap(err, code, "rate limiter");
    }
    client->running++;
    client->running_max =
        client->running > client->running_max ? client->running : client->running_max;
    code = cf_sleep(ctx, CF_MS, err);
    client->running--;
    client->fetched += code == CF_OK;
    return code;
}

static void fetch_all(struct client *client)
{
    int64_t began_ns = cf_now_ns();
    double ideal;
    double took;
    struct cf_group *group;
    struct cf_err err;

    if (cf_group_new(cf_ctx_background(), &group, &err) != CF_OK) {
        return;
    }
    cf_group_set_limit(group, WORKERS);
    for (long i = 0; i < client->urls; i++) {
        cf_group_go(group, fetch, client);
    }
    if (cf_group_wait(group, &err) != CF_OK) {
        printf("%s\n", err.msg);
    }
    cf_group_free(group);
    took = (double)(cf_now_ns() - began_ns) / (double)CF_SECOND;
    ideal = (double)(client->urls - client->per_second / 10) / (double)client->per_second;
    printf("%d fetched, at most %d at once\n", client->fetched, client->running_max);
    printf("took the right time: %s\n", took >= ideal && took < ideal + 2 ? "yes" : "no");
}

/* One in ten seconds, and the first has gone out: a wait that cannot make its deadline does not begin. */
static void fetch_in_a_hurry(struct client *client)
{
    struct cf_ctx *brief;
    struct cf_err err;

    if (cf_limiter_new(0.1, 1, &client->limiter, NULL) != CF_OK) {
        return;
    }
    if (cf_limiter_allow(client->limiter, 1) &&
        cf_ctx_with_timeout(cf_ctx_background(), 500 * CF_MS, &brief, NULL) == CF_OK) {
        if (fetch(brief, client, &err) != CF_OK) {
            printf("%s; knows when to come again: %s\n", err.msg,
                   err.retry_after_ns > 500 * CF_MS ? "yes" : "no");
        }
        cf_ctx_free(brief);
    }
    cf_limiter_free(client->limiter);
}

static void run(void *arg)
{
    struct client *client = arg;

    /* A tenth of a second's requests may go out at once. */
    if (cf_limiter_new((double)client->per_second, (int)client->per_second / 10, &client->limiter,
                       NULL) != CF_OK) {
        return;
    }
    fetch_all(client);
    cf_limiter_free(client->limiter);
    fetch_in_a_hurry(client);
}

int main(int argc, char **argv)
{
    struct client client = {.urls = 100, .per_second = 500};
    struct cf_loop *loop;

    if (argc == 3) {
        client.urls = strtol(argv[1], NULL, 10);
        client.per_second = strtol(argv[2], NULL, 10);
    }
    if (client.urls < 1 || client.per_second < 10) {
        return 2;
    }
    if (cf_loop_new(NULL, &loop, NULL) != CF_OK ||
        cf_loop_call(loop, run, &client, NULL) != CF_OK) {
        return 1;
    }
    cf_loop_free(loop);
    return 0;
}
