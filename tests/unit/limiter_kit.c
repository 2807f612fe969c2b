/* SPDX-License-Identifier: MIT */
/* See limiter_kit.h. */
#include "limiter_kit.h"

/* Fixture */

struct vclock limiter_clock;
struct cf_limiter *limiter;

static void setup(void)
{
    setup_waits();
    vclock_start(&limiter_clock);
    limiter = NULL;
}

static void teardown(void)
{
    cf_limiter_free(limiter);
    vclock_stop(&limiter_clock);
    teardown_waits();
}

/* Helpers */

void make_limiter(double per_second, int burst)
{
    cf_limiter_free(limiter);
    ck_assert_int_eq(cf_limiter_new(per_second, burst, &limiter, &failure), CF_OK);
}

TCase *add_limiter_case(Suite *suite, const char *name)
{
    TCase *tc = tcase_create(name);

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 30);
    suite_add_tcase(suite, tc);
    return tc;
}
