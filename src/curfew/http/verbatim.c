/* SPDX-License-Identifier: MIT */
/* A walk over the head in libmicrohttpd's buffer: see verbatim.h.
 *
 * What is read lies between the method and the end of the head, whose size libmicrohttpd says; all
 * of it was received. Where a piece is not where the one before ended, the walk is over: then a
 * line was moved (folded), or there are bytes between that it did not show. */
#include "curfew/http/verbatim.h"

#include <stdio.h>
#include <string.h>

struct walk {
    const char *at; /* NULL: something did not fit. */
    const char *end;
};

/* Go over `size` bytes that have to begin here. */
static void take(struct walk *walk, const char *text, size_t size)
{
    bool fits = walk->at != NULL && text == walk->at && size <= (size_t)(walk->end - walk->at);

    walk->at = fits ? walk->at + size : NULL;
}

/* Go over the NULs that stand for a separator of `size` bytes. */
static void take_separator(struct walk *walk, size_t size)
{
    static const char nuls[2];
    const char *at = walk->at;

    take(walk, at, size);
    if (walk->at != NULL && memcmp(at, nuls, size) != 0) {
        walk->at = NULL;
    }
}

static void take_spaces(struct walk *walk)
{
    while (walk->at != NULL && walk->at < walk->end && (*walk->at == ' ' || *walk->at == '\t')) {
        walk->at++;
    }
}

static enum MHD_Result take_header(void *arg, enum MHD_ValueKind kind, const char *name,
                                   size_t size, const char *value, size_t value_size)
{
    struct walk *walk = arg;

    (void)kind;
    take(walk, name, size);
    take_separator(walk, 1); /* The colon. */
    take_spaces(walk);
    take(walk, value, value_size);
    take_separator(walk, 2);
    return walk->at != NULL ? MHD_YES : MHD_NO;
}

bool cf__verbatim_needed(void)
{
    unsigned major = 0;
    unsigned minor = 0;
    unsigned patch = 0;

    /* Of the library that runs, not of the header: both have the same soname. */
    (void)sscanf(MHD_get_version(), "%u.%u.%u", &major, &minor, &patch);
    return major == 0 && (minor < 9 || (minor == 9 && patch < 77));
}

enum cf__verbatim cf__head_verbatim(struct MHD_Connection *mhd, const char *method,
                                    const char *target, size_t target_size, const char *version)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    struct walk walk = {method, method + info->header_size};

    take(&walk, method, strlen(method));
    take_separator(&walk, 1);
    take(&walk, target, target_size);
    take_separator(&walk, 1);
    take(&walk, version, strlen(version));
    if (walk.at == NULL) {
        return CF__LINE_ALTERED;
    }
    take_separator(&walk, 2);
    (void)MHD_get_connection_values_n(mhd, MHD_HEADER_KIND, take_header, &walk);
    take_separator(&walk, 2); /* The empty line. */
    return walk.at == walk.end ? CF__VERBATIM : CF__HEAD_ALTERED;
}
