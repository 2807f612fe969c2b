/* SPDX-License-Identifier: MIT */
/* Reading JSON: see jansson.h. What jansson does not say of memory, its allocator does: ours, which
 * passes on to the one that was there. */
#include "curfew/http/jansson.h"

#include <pthread.h>
#include <stdbool.h>

#include "curfew/http/levels.h"

static json_malloc_t allocate; /* Constant after watch_memory(). */
static _Thread_local bool lacked;

/* Internal helpers */

static void *note_lack(size_t size)
{
    void *block = allocate(size);

    lacked = lacked || block == NULL;
    return block;
}

static void watch_memory(void)
{
    json_free_t release;

    json_get_alloc_funcs(&allocate, &release);
    json_set_alloc_funcs(note_lack, release);
}

/* Operations */

enum cf_code cf__jansson_read(const char *text, size_t size, json_t **out, struct cf_err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    json_error_t error;
    json_t *json;

    if (cf__levels_of(text, size) > CF__JANSSON_LEVELS_MAX) {
        return cf_err_set(err, CF_EINVAL, "the body is nested deeper than %d levels",
                          CF__JANSSON_LEVELS_MAX);
    }
    (void)pthread_once(&once, watch_memory);
    lacked = false;
    json = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (lacked) {
        json_decref(json);
        return cf_err_set(err, CF_ENOMEM, "no memory for the body");
    }
    if (json == NULL) {
        /* Without its words, which repeat what they found there. */
        return cf_err_set(err, CF_EINVAL,
                          "the body is not JSON, or has a name twice: line %d, column %d",
                          error.line, error.column);
    }
    *out = json;
    return CF_OK;
}
