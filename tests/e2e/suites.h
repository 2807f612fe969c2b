/* SPDX-License-Identifier: MIT */
/* The suites of the end-to-end tests, in the order in which they run. See tests/README.md. */
#ifndef SUITES_H
#define SUITES_H

#define WITNESSED

#define SUITES(X)                                                                                  \
    X(command_line)                                                                                \
    X(ready)                                                                                       \
    X(dashboard)                                                                                   \
    X(cache)                                                                                       \
    X(lists)                                                                                       \
    X(writes)                                                                                      \
    X(changes)                                                                                     \
    X(export)                                                                                      \
    X(negotiation)                                                                                 \
    X(openapi)                                                                                     \
    X(routes)                                                                                      \
    X(http)                                                                                        \
    X(limits)                                                                                      \
    X(deadline)                                                                                    \
    X(client_gone)                                                                                 \
    X(fetch)                                                                                       \
    X(images)                                                                                      \
    X(siblings)                                                                                    \
    X(killed)                                                                                      \
    X(stop)                                                                                        \
    X(postgres_away)                                                                               \
    X(storm)

#endif
