/* SPDX-License-Identifier: MIT */
/* The suites of the unit tests, in the order in which they run. See tests/README.md. */
#ifndef SUITES_H
#define SUITES_H

#define SUITES(X)                                                                                  \
    X(err)                                                                                         \
    X(clock)                                                                                       \
    X(ctx)                                                                                         \
    X(ctx_cancel)                                                                                  \
    X(ctx_after)                                                                                   \
    X(ctx_race)                                                                                    \
    X(fiber)                                                                                       \
    X(loop)                                                                                        \
    X(turn)                                                                                        \
    X(loop_timer)                                                                                  \
    X(overflow)                                                                                    \
    X(wait)                                                                                        \
    X(waiting)                                                                                     \
    X(lane)                                                                                        \
    X(group)                                                                                       \
    X(group_limit)                                                                                 \
    X(errgroup)                                                                                    \
    X(json)                                                                                        \
    X(router)                                                                                      \
    X(target)                                                                                      \
    X(deadline)                                                                                    \
    X(problem)                                                                                     \
    X(arena)                                                                                       \
    X(config)                                                                                      \
    X(config_file)                                                                                 \
    X(corpus)                                                                                      \
    X(log)                                                                                         \
    X(cpus)                                                                                        \
    X(page)                                                                                        \
    X(routes)                                                                                      \
    X(store)                                                                                       \
    X(events)

#endif
