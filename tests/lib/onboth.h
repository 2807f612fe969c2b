/* SPDX-License-Identifier: MIT */
/* Tests that hold wherever the library is called: they run on a plain thread, and on a fiber.
 *
 *     START_ONBOTH(sleep_of_nothing_returns_at_once)
 *     {
 *         ck_assert_int_eq(cf_sleep(cf_ctx_background(), 0, NULL), CF_OK);
 *     }
 *     END_ONBOTH
 *     ...
 *     tcase_add_onboth(tc, sleep_of_nothing_returns_at_once);
 *
 * The fiber has a loop of its own, which must be left without fibers: what the test starts there,
 * it ends. A fiber's stack is small. */
#ifndef ONBOTH_H
#define ONBOTH_H

#include <check.h>

#include <curfew/loop.h>

/* Run fn(NULL) here if `where` is 0, else on a fiber, to its end. */
void onboth_run(int where, cf_fiber_fn fn);

#define START_ONBOTH(name)                                                                         \
    static void name##_body(void *onboth_arg);                                                     \
    START_TEST(name)                                                                               \
    {                                                                                              \
        onboth_run(_i, name##_body);                                                               \
    }                                                                                              \
    END_TEST                                                                                       \
    static void name##_body(void *onboth_arg __attribute__((unused)))

#define END_ONBOTH

#define tcase_add_onboth(tc, test) tcase_add_loop_test((tc), test, 0, 2)

#endif
