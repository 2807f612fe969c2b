/* SPDX-License-Identifier: MIT */
/* The versions of the service and of the libraries that it runs with. */
#ifndef CURFEWD_VERSIONS_H
#define CURFEWD_VERSIONS_H

#include <stddef.h>

struct version {
    const char *name;
    const char *version; /* Of the library that was loaded, not of its headers. */
};

#define VERSIONS_MAX 12

/* Fill `out`, the service first; returns how many. */
size_t versions(struct version out[VERSIONS_MAX]);

#endif
