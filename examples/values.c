/* SPDX-License-Identifier: MIT */
/* Values: what belongs to a request and crosses layers, found by the address of a key. */
#include <stdio.h>

#include <curfew/ctx.h>

static const char user_key; /* The address is the key: nobody else can have the same. */
static const char trace_key;

static void log_line(struct cf_ctx *ctx, const char *what)
{
    const int *user = cf_ctx_value(ctx, &user_key);
    const char *trace = cf_ctx_value(ctx, &trace_key);

    printf("user=%d trace=%s %s\n", user != NULL ? *user : 0, trace != NULL ? trace : "none", what);
}

int main(void)
{
    int user = 42;
    char trace[] = "a1b2";
    struct cf_ctx *request;
    struct cf_ctx *traced;
    struct cf_ctx *timed;
    struct cf_ctx *cleanup;

    if (cf_ctx_with_value(cf_ctx_background(), &user_key, &user, &request, NULL) != CF_OK ||
        cf_ctx_with_value(request, &trace_key, trace, &traced, NULL) != CF_OK ||
        cf_ctx_with_timeout(traced, CF_SECOND, &timed, NULL) != CF_OK ||
        cf_ctx_without_cancel(timed, &cleanup, NULL) != CF_OK) {
        return 1;
    }
    log_line(cf_ctx_background(), "before any request");
    log_line(request, "a request of this user");
    log_line(timed, "three layers down");
    cf_ctx_cancel(timed);
    log_line(timed, cf_code_text(cf_ctx_err(timed)));
    log_line(cleanup, cf_ctx_err(cleanup) == CF_OK ? "what must still be done" : "?");
    cf_ctx_free(cleanup);
    cf_ctx_free(timed);
    cf_ctx_free(traced);
    cf_ctx_free(request);
    return 0;
}
