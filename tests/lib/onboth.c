/* SPDX-License-Identifier: MIT */
/* On a plain thread, and on a fiber: see onboth.h. */
#include "onboth.h"

void onboth_run(int where, cf_fiber_fn fn)
{
    struct cf_loop *loop;
    struct cf_err err;

    if (where == 0) {
        fn(NULL);
        return;
    }
    ck_assert_int_eq(cf_loop_new(NULL, &loop, &err), CF_OK);
    ck_assert_int_eq(cf_loop_call(loop, fn, NULL, &err), CF_OK);
    cf_loop_free(loop);
}
