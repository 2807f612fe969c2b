/* SPDX-License-Identifier: MIT */
/* What every part of the service may use: handed to routes by cf_http_app(). */
#ifndef CURFEWD_APP_H
#define CURFEWD_APP_H

#include <stdatomic.h>
#include <stdint.h>

struct cf_client;
struct cf_pg;
struct cf_sem;
struct dashboards;
struct openapi;
struct thumbnails;

struct app {
    struct cf_pg *pg; /* Constant while serving, as are these. */
    struct dashboards *dashboards;
    struct openapi *openapi;
    struct thumbnails *thumbnails;
    struct cf_client *fetcher;  /* Of /v1/fetch. NULL: it may fetch nothing. */
    struct cf_sem *exports;     /* A permit for each that may run at once. */
    int64_t idempotency_ttl_ns; /* How long the answer to a POST is kept. */

    atomic_bool draining; /* The process is stopping: not ready any more. */
};

#endif
