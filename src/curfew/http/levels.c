/* SPDX-License-Identifier: MIT */
/* Levels of JSON: see levels.h. A bracket counts, unless it is in a string; a quotation mark begins
 * or ends one, unless a backslash is before it there. */
#include "curfew/http/levels.h"

#include <stdbool.h>

size_t cf__levels_of(const char *text, size_t size)
{
    bool quoted = false;
    size_t open = 0;
    size_t most = 0;

    for (size_t i = 0; i < size; i++) {
        if (quoted && text[i] == '\\') {
            i++; /* Whatever is there, it ends nothing. */
        } else if (text[i] == '"') {
            quoted = !quoted;
        } else if (!quoted && (text[i] == '[' || text[i] == '{')) {
            open++;
            most = open > most ? open : most;
        } else if (!quoted && (text[i] == ']' || text[i] == '}') && open > 0) {
            open--;
        }
    }
    return most;
}
