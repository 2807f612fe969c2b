/* SPDX-License-Identifier: MIT */
/* The suites of the faults, in the order in which they run. See tests/README.md. */
#ifndef SUITES_H
#define SUITES_H

#define WITNESSED

#define SUITES(X)                                                                                  \
    X(garbage) X(login) X(names) X(network) X(pool) X(process) X(rows) X(server) X(soak)

#endif
