/* SPDX-License-Identifier: MIT */
/* Levels of JSON, against the tree that jansson makes of the text: of its first value, if more
 * follows. */
#include "curfew/http/levels.h"

#include <jansson.h>
#include <stdlib.h>

#include "kit.h"

static size_t most_of(size_t one, size_t other)
{
    return one > other ? one : other;
}

static size_t levels_of_tree(json_t *value)
{
    size_t below = 0;
    const char *key;
    json_t *member;
    size_t i;

    json_array_foreach(value, i, member)
    {
        below = most_of(below, levels_of_tree(member));
    }
    json_object_foreach(value, key, member)
    {
        below = most_of(below, levels_of_tree(member));
    }
    return json_is_array(value) || json_is_object(value) ? below + 1 : 0;
}

FUZZ_TARGET(levels)
{
    const char *text = (const char *)data;
    const size_t flags = JSON_DECODE_ANY | JSON_REJECT_DUPLICATES; /* Nothing is left out. */
    json_t *first = json_loadb(text, size, flags | JSON_DISABLE_EOF_CHECK, NULL);
    json_t *whole = json_loadb(text, size, flags, NULL);
    size_t levels = cf__levels_of(text, size);

    FUZZ_CHECK(first == NULL || levels >= levels_of_tree(first));
    FUZZ_CHECK(whole == NULL || levels == levels_of_tree(whole));
    json_decref(first);
    json_decref(whole);
    return 0;
}
