/* SPDX-License-Identifier: MIT */
/* What the database says of its changes, and what becomes of the dashboards in memory.
 *
 * Triggers (sql/002_writes.sql) say after each statement whose users' data it has changed. The
 * dashboards of those are dropped; all of them if there were many, or if what was said cannot be
 * read, and whenever something may have been missed.
 *
 * Thread safety: called by a listener (pg_listen.h). */
#ifndef CURFEWD_CACHE_CHANGES_H
#define CURFEWD_CACHE_CHANGES_H

/* The channel of the triggers. */
#define CHANGES_CHANNEL "curfew_dashboards"

/* For cf_pg_listen_options: `arg` is a struct dashboards. */
void changes_take(void *arg, const char *channel, const char *payload);
void changes_missed(void *arg);

#endif
