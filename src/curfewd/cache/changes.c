/* SPDX-License-Identifier: MIT */
/* From notifications to dashboards: see changes.h. */
#include "curfewd/cache/changes.h"

#include <errno.h>
#include <stdlib.h>

#include "curfewd/cache/dashboards.h"

/* Read one id and what ends it. False: anybody may have said this, and it is no list of ids. */
static bool next_id(const char **at, int64_t *out)
{
    char *end;

    if (**at < '0' || **at > '9') {
        return false;
    }
    errno = 0;
    *out = strtoll(*at, &end, 10);
    if (errno != 0 || *out == 0 || (*end != ',' && *end != '\0')) {
        return false;
    }
    *at = *end == ',' ? end + 1 : end;
    return *end == '\0' || end[1] != '\0';
}

void changes_take(void *arg, const char *channel, const char *payload)
{
    struct dashboards *dashboards = arg;
    const char *at = payload;
    int64_t id;

    (void)channel;
    do {
        if (!next_id(&at, &id)) {
            dashboards_flush(dashboards); /* "all", too. */
            return;
        }
        dashboards_drop(dashboards, id);
    } while (*at != '\0');
}

void changes_missed(void *arg)
{
    dashboards_flush(arg);
}
