/* SPDX-License-Identifier: MIT */
/* What every part of the service may use: handed to routes by cf_http_app(). */
#ifndef CURFEWD_APP_H
#define CURFEWD_APP_H

#include <stdatomic.h>

#include <curfew/pg.h>
#include <curfew/sem.h>

struct app {
    struct cf_pg *pg;       /* Constant while serving. */
    struct cf_sem *exports; /* A permit for each that may run at once. Constant while serving. */
    atomic_bool draining;   /* The process is stopping: not ready any more. */
};

#endif
