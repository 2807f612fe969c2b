/* SPDX-License-Identifier: MIT */
/* Waits between attempts to connect: they grow, and are not the same in two pools or processes. */
#include <sys/random.h>

#include <curfew/clock.h>
#include <curfew/wait.h>

#include "curfew/pg/pg_private.h"

#define BACKOFF_MIN_NS (100 * CF_MS)

void cf__pg_jitter_init(uint64_t *random)
{
    if (getrandom(random, sizeof(*random), GRND_NONBLOCK) != sizeof(*random)) {
        *random = (uint64_t)cf_now_ns(); /* Untested: the system has just started. */
    }
    *random |= 1; /* Zero would stay zero. */
}

double cf__pg_jitter(uint64_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return (double)(*random >> 11) / (double)(UINT64_C(1) << 53);
}

int64_t cf__pg_backoff_ns(uint64_t *random, unsigned failures, int64_t max_ns)
{
    int64_t backoff_ns = BACKOFF_MIN_NS;

    for (unsigned i = 0; i < failures && backoff_ns < max_ns; i++) {
        backoff_ns *= 2;
    }
    if (backoff_ns > max_ns) {
        backoff_ns = max_ns;
    }
    return (int64_t)((double)backoff_ns * (0.5 + 0.5 * cf__pg_jitter(random)));
}

bool cf__pg_pause_until(struct cf_ctx *ctx, int64_t at_ns)
{
    while (cf_now_ns() < at_ns) {
        enum cf_code code = cf_sleep_until(ctx, at_ns, NULL);

        if (code == CF_ENOMEM) {
            code = cf_yield(ctx, NULL);
        }
        if (code != CF_OK) {
            return false;
        }
    }
    return cf_ctx_err(ctx) == CF_OK;
}
