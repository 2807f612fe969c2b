/* SPDX-License-Identifier: MIT */
/* How deeply JSON is nested, told without recursion.
 *
 * jansson calls itself for each level, on a fiber's small stack, and goes on to 2,048 of them. So
 * levels are counted before it sees anything. */
#ifndef CURFEW_HTTP_LEVELS_H
#define CURFEW_HTTP_LEVELS_H

#include <stddef.h>

/* The most arrays and objects of the text that are open at once. Of what is no JSON it is at least
 * what a parser has open when it finds that out. */
size_t cf__levels_of(const char *text, size_t size);

#endif
