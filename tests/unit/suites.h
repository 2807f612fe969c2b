/* SPDX-License-Identifier: MIT */
/* The suites of the unit tests, in the order in which they run. See tests/README.md. */
#ifndef SUITES_H
#define SUITES_H

#define SUITES(X)                                                                                  \
    X(json)                                                                                        \
    X(router)                                                                                      \
    X(target)                                                                                      \
    X(deadline)                                                                                    \
    X(problem)                                                                                     \
    X(arena)                                                                                       \
    X(config)                                                                                      \
    X(log)                                                                                         \
    X(cpus)                                                                                        \
    X(page)                                                                                        \
    X(routes)                                                                                      \
    X(store)                                                                                       \
    X(events)

#endif
