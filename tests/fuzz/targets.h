/* SPDX-License-Identifier: MIT */
/* The targets of fuzzing: each is a file of that name here, and has a corpus/<name>/. */
#ifndef TARGETS_H
#define TARGETS_H

#define FUZZ_TARGETS(X)                                                                            \
    X(config)                                                                                      \
    X(conninfo)                                                                                    \
    X(cursor)                                                                                      \
    X(deadline)                                                                                    \
    X(filter)                                                                                      \
    X(image)                                                                                       \
    X(json)                                                                                        \
    X(levels)                                                                                      \
    X(target)                                                                                      \
    X(trace)                                                                                       \
    X(utf8)

#endif
