/* SPDX-License-Identifier: MIT */
/* A rate limiter, three ways: to drop what is too much, to be told when, and to wait, for no longer
 * than there is time. fetch.c is a client that uses it. */
#include <stdio.h>

#include <curfew/clock.h>
#include <curfew/limiter.h>

static int minutes(int64_t period_ns)
{
    return (int)((period_ns + 60 * CF_SECOND - 1) / (60 * CF_SECOND));
}

/* An event that finds no token is dropped. */
static void drop(struct cf_limiter *limiter)
{
    int allowed = 0;

    for (int i = 0; i < 20; i++) {
        allowed += cf_limiter_allow(limiter, 1);
    }
    printf("of 20 at once, %d\n", allowed);
}

/* Who plans ahead takes a token that is not there yet, and may change his mind. */
static void plan(struct cf_limiter *limiter)
{
    struct cf_reservation first;
    struct cf_reservation second;

    if (!cf_limiter_reserve(limiter, 1, &first) || !cf_limiter_reserve(limiter, 1, &second)) {
        return;
    }
    printf("the next in %d min, the one after in %d min\n",
           minutes(cf_reservation_delay_ns(&first)), minutes(cf_reservation_delay_ns(&second)));
    cf_reservation_cancel(&second);
    cf_reservation_cancel(&first);
}

/* A wait that cannot make its deadline does not begin. */
static void hurry(struct cf_limiter *limiter)
{
    int64_t began_ns = cf_now_ns();
    struct cf_ctx *brief;
    struct cf_err err;

    if (cf_ctx_with_timeout(cf_ctx_background(), 5 * CF_SECOND, &brief, NULL) != CF_OK) {
        return;
    }
    if (cf_limiter_wait(brief, limiter, 1, &err) != CF_OK) {
        printf("within 5 s: %s\n", err.msg);
        printf("told at once: %s; to come again in %d min\n",
               cf_now_ns() - began_ns < 4 * CF_SECOND ? "yes" : "no", minutes(err.retry_after_ns));
    }
    cf_ctx_free(brief);
}

int main(void)
{
    struct cf_limiter *limiter;

    /* One an hour, and five at once. */
    if (cf_limiter_new(cf_limiter_every(3600 * CF_SECOND), 5, &limiter, NULL) != CF_OK) {
        return 1;
    }
    drop(limiter);
    plan(limiter);
    hurry(limiter);
    cf_limiter_free(limiter);
    return 0;
}
