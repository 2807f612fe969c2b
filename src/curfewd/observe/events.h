/* SPDX-License-Identifier: MIT */
/* What the library tells of itself, as log lines: requests that were answered, and the database. */
#ifndef CURFEWD_OBSERVE_EVENTS_H
#define CURFEWD_OBSERVE_EVENTS_H

#include <curfew/http.h>
#include <curfew/pg.h>

/* For cf_http_options.on_done: one line a request. */
void events_log_request(void *arg, const struct cf_http_record *record);

/* For cf_pg_options.on_event. */
void events_log_pg(void *arg, const struct cf_pg_event *event);

#endif
