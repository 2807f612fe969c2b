/* SPDX-License-Identifier: MIT */
/* What every part of the service may use: handed to routes by cf_http_app(). */
#ifndef CURFEWD_APP_H
#define CURFEWD_APP_H

#include <stdatomic.h>

#include <curfew/client.h>
#include <curfew/pg.h>

struct app {
    struct cf_pg *pg;          /* Constant while serving, as is the next. */
    struct cf_client *fetcher; /* Of /v1/fetch. NULL: it may fetch nothing. */
    atomic_bool draining;      /* The process is stopping: not ready any more. */
};

#endif
