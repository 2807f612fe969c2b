/* SPDX-License-Identifier: MIT */
/* The context tree: a request below its client, a query below the request. Whichever of them ends
 * first ends what is below it, and says why. */
#include <inttypes.h>
#include <stdio.h>

#include <curfew/ctx.h>
#include <curfew/wait.h>

/* A query that takes its time. */
static enum cf_code fetch_user(struct cf_ctx *ctx, int64_t id, int64_t takes_ns, struct cf_err *err)
{
    enum cf_code code = cf_sleep(ctx, takes_ns, err);

    return code == CF_OK ? CF_OK : cf_err_wrap(err, code, "fetch user %" PRId64, id);
}

/* A request has 300 ms, or less if its client has. */
static enum cf_code handle_request(struct cf_ctx *client, int64_t takes_ns, struct cf_err *err)
{
    struct cf_cause cause;
    struct cf_ctx *ctx;
    enum cf_code code = cf_ctx_with_timeout(client, 300 * CF_MS, &ctx, err);

    if (code != CF_OK) {
        return code;
    }
    code = fetch_user(ctx, 42, takes_ns, err);
    if (cf_ctx_cause(ctx, &cause)) {
        printf("  ended by: %s\n", cf_reason_name(cause.reason));
    }
    cf_ctx_free(ctx); /* As defer cancel(): on every path. */
    return code;
}

static void hang_up(void *client)
{
    cf_ctx_cancel_cause(client, CF_REASON_CLIENT_GONE, NULL);
}

static void show(const char *title, struct cf_ctx *client, int64_t takes_ns)
{
    struct cf_err err;

    printf("%s\n", title);
    if (handle_request(client, takes_ns, &err) == CF_OK) {
        printf("  200\n");
    } else {
        printf("  %s: %s\n", cf_code_name(err.code), err.msg);
    }
}

int main(void)
{
    struct cf_ctx_after *after;
    struct cf_ctx *client;
    struct cf_ctx *soon;

    show("a quick query", cf_ctx_background(), 1 * CF_MS);
    show("a slow query", cf_ctx_background(), 10 * CF_SECOND);
    if (cf_ctx_with_cancel(cf_ctx_background(), &client, NULL) != CF_OK ||
        cf_ctx_with_timeout(cf_ctx_background(), 5 * CF_MS, &soon, NULL) != CF_OK ||
        cf_ctx_after(soon, hang_up, client, &after, NULL) != CF_OK) {
        return 1;
    }
    show("a client that hangs up after 5 ms", client, 10 * CF_SECOND);
    show("the next request of that client", client, 1 * CF_MS);
    (void)cf_ctx_after_stop(after);
    cf_ctx_free(soon);
    cf_ctx_free(client);
    return 0;
}
