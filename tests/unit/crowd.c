/* SPDX-License-Identifier: MIT */
/* Many callers at once: see crowd.h. */
#include "crowd.h"

struct member {
    crowd_fn fn;
    void *arg;
    unsigned seed;
};

static void be_member(void *arg)
{
    struct member *member = arg;

    member->fn(member->arg, &member->seed);
}

/* The first fiber of a loop, which starts the others: all members there are. */
static void be_loop(void *arg)
{
    struct member *members = arg;

    for (int i = 1; i < CROWD_FIBERS; i++) {
        EXPECT(cf_loop_spawn(cf_loop_current(), be_member, &members[i], NULL) == CF_OK);
    }
    be_member(&members[0]);
}

void crowd_run(crowd_fn fn, void *arg)
{
    struct visit visits[CROWD_THREADS + CROWD_LOOPS];
    struct member members[CROWD_SIZE];

    for (int i = 0; i < CROWD_SIZE; i++) {
        members[i] = (struct member){fn, arg, (unsigned)i + 1};
    }
    for (int i = 0; i < CROWD_THREADS; i++) {
        visit_start(&visits[i], PLACE_THREAD, be_member, &members[i]);
    }
    for (int i = 0; i < CROWD_LOOPS; i++) {
        visit_start(&visits[CROWD_THREADS + i], PLACE_FIBER, be_loop,
                    &members[CROWD_THREADS + i * CROWD_FIBERS]);
    }
    for (int i = 0; i < CROWD_THREADS + CROWD_LOOPS; i++) {
        visit_join(&visits[i]);
    }
}
