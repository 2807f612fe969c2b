/* SPDX-License-Identifier: MIT */
/* What can become of an order: the values of orders.status, as the schema has them. */
#ifndef CURFEWD_STORE_STATUS_H
#define CURFEWD_STORE_STATUS_H

#include <stdbool.h>

#define STORE_STATUS_COUNT 4

/* An order begins with the first. */
extern const char *const store_statuses[STORE_STATUS_COUNT];

bool store_is_status(const char *text);

#endif
