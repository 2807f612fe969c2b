/* SPDX-License-Identifier: MIT */
/* The suites of the tests without memory, in the order in which they run. See tests/README.md. */
#ifndef SUITES_H
#define SUITES_H

#define SUITES(X)                                                                                  \
    X(cancel)                                                                                      \
    X(client)                                                                                      \
    X(connect)                                                                                     \
    X(dashboard)                                                                                   \
    X(start)                                                                                       \
    X(sync)                                                                                        \
    X(write)

#endif
